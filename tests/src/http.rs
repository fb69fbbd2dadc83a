//! A small web server on loopback whose answers are bytes that the test wrote.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A web server. It ends when it is dropped.
pub struct WebServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl WebServer {
    /// Serves the whole answer, head and body, that `answer` gives for a path.
    ///
    /// # Panics
    /// When loopback has no port.
    #[must_use]
    pub fn start(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let asking = asked.clone();
        let thread = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                serve(connection, &asking, &answer);
            }
        });
        Self {
            address,
            stop,
            asked,
            thread: Some(thread),
        }
    }

    /// The heads of all requests so far, in lower case.
    ///
    /// # Panics
    /// When the server has crashed.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("the server's list").clone()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A complete answer.
    #[must_use]
    pub fn found(body: &[u8]) -> Vec<u8> {
        Self::promising(body.len(), body)
    }

    /// An answer that says that its body has `length` bytes.
    #[must_use]
    pub fn promising(length: usize, body: &[u8]) -> Vec<u8> {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
                .into_bytes();
        answer.extend_from_slice(body);
        answer
    }

    /// An answer without a body.
    #[must_use]
    pub fn status(status: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
    }
}

fn serve(mut connection: TcpStream, asked: &Mutex<Vec<String>>, answer: &impl Fn(&str) -> Vec<u8>) {
    let Ok(reading) = connection.try_clone() else {
        return;
    };
    let mut lines = BufReader::new(reading).lines().map_while(Result::ok);
    let Some(request) = lines.next() else {
        return;
    };
    // The head ends with an empty line; a request for a package has no body.
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    if let Ok(mut asked) = asked.lock() {
        asked.push(format!("{request}\n{}", head.join("\n")).to_ascii_lowercase());
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    // The client may have gone, which is its own affair.
    let _ = connection.write_all(&answer(path));
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

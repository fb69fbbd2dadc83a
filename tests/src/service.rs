//! A service on loopback that says who it is and counts what it is asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// A service that answers every request with its name and keeps connections open. It ends when it is dropped.
pub struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    stop: AtomicBool,
    served: AtomicU64,
}

impl Service {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When loopback has no port.
    #[must_use]
    pub fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            served: AtomicU64::new(0),
        });
        let serving = shared.clone();
        let thread = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if serving.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = serving.clone();
                // It ends with its connection, which the balancer closes at the latest when it ends.
                thread::spawn(move || serve(connection, &shared));
            }
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// The name that it answers with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it has answered; those for `/healthz` do not count.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }
}

fn serve(mut connection: TcpStream, shared: &Shared) {
    let Ok(reading) = connection.try_clone() else {
        return;
    };
    let _ = connection.set_nodelay(true);
    let mut lines = BufReader::new(reading).lines();
    while let Some(Ok(request)) = lines.next() {
        // The head ends with an empty line; no request has a body.
        for line in lines.by_ref() {
            match line {
                Ok(line) if line.is_empty() => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        if !request.contains(" /healthz ") {
            shared.served.fetch_add(1, Ordering::Relaxed);
        }
        let name = &shared.name;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
            name.len()
        );
        if connection.write_all(answer.as_bytes()).is_err() || request.ends_with("HTTP/1.0") {
            return;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! Answers that come late, and commands that never arrive: a proxy in front of a server that is asked one thing a
//! connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

/// A proxy. What is asked goes through at once, and answers come back, but for what is held or kept. It ends when it is
/// dropped.
pub struct LateAnswers {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Answers to commands that contain this are held.
    held: Option<String>,
    /// Commands that contain this are kept from the server.
    kept: Option<String>,
    holding: usize,
    is_over: bool,
}

impl LateAnswers {
    /// Stands in front of a server.
    ///
    /// # Panics
    /// When loopback has no port.
    #[must_use]
    pub fn of(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared: Arc<Shared> = Arc::default();
        let serving = shared.clone();
        let thread = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if serving.state.lock().expect("the proxy's state").is_over {
                    return;
                }
                let shared = serving.clone();
                // It ends with its connection, or when the proxy does.
                thread::spawn(move || carry(connection, server, &shared));
            }
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds the answers to commands that contain this, once the server has given them.
    ///
    /// # Panics
    /// When the proxy crashed.
    pub fn hold(&self, command: &str) {
        let mut state = self.shared.state.lock().expect("the proxy's state");
        state.held = Some(command.to_owned());
    }

    /// Keeps commands that contain this from the server; they are gone when the proxy is told to let everything through.
    ///
    /// # Panics
    /// When the proxy crashed.
    pub fn keep(&self, command: &str) {
        let mut state = self.shared.state.lock().expect("the proxy's state");
        state.kept = Some(command.to_owned());
    }

    /// How many commands and answers wait here.
    ///
    /// # Panics
    /// When the proxy crashed.
    #[must_use]
    pub fn holding(&self) -> usize {
        self.shared.state.lock().expect("the proxy's state").holding
    }

    /// Lets everything through.
    ///
    /// # Panics
    /// When the proxy crashed.
    pub fn release(&self) {
        let mut state = self.shared.state.lock().expect("the proxy's state");
        (state.held, state.kept) = (None, None);
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// Waits as long as the state says so. Answers whether there was anything to wait for.
    fn wait_while(&self, waits: impl Fn(&State) -> bool) -> bool {
        let waits = |state: &State| !state.is_over && waits(state);
        let Ok(mut state) = self.state.lock() else {
            return true;
        };
        if !waits(&state) {
            return false;
        }
        state.holding += 1;
        while waits(&state) {
            let Ok(woken) = self.changed.wait(state) else {
                return true;
            };
            state = woken;
        }
        state.holding -= 1;
        true
    }
}

fn carry(mut client: TcpStream, server: SocketAddr, shared: &Shared) {
    let Ok(mut server) = TcpStream::connect(server) else {
        return;
    };
    // A command is one line.
    let mut command = Vec::new();
    let mut buffer = [0; 4096];
    while !command.contains(&b'\n') {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => command.extend_from_slice(&buffer[..read]),
        }
    }
    let text = String::from_utf8_lossy(&command).into_owned();
    let concerns = |part: &Option<String>| part.as_ref().is_some_and(|part| text.contains(part));
    if shared.wait_while(|state| concerns(&state.kept)) {
        return;
    }
    let mut answer = Vec::new();
    if server.write_all(&command).is_err() || server.read_to_end(&mut answer).is_err() {
        return;
    }
    shared.wait_while(|state| concerns(&state.held));
    // Whoever asked may have given up.
    let _ = client.write_all(&answer);
    let _ = client.shutdown(Shutdown::Both);
}

impl Drop for LateAnswers {
    fn drop(&mut self) {
        if let Ok(mut state) = self.shared.state.lock() {
            state.is_over = true;
        }
        self.shared.changed.notify_all();
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

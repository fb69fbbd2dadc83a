//! Requests, one after the other, from several threads; every outcome is counted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two requests of one thread: the demo is about releases, not about load.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the next request goes.
pub(crate) type Route = Arc<dyn Fn() -> io::Result<SocketAddr> + Send + Sync>;

/// How often a client tries a request before it counts as failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tries {
    /// Every fault is seen.
    Once,
    /// As a client that balances by itself does: a list that it has read may be out of date.
    ThreeUpstreams,
}

/// Requests that run until they are stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Starts `threads` clients.
    pub(crate) fn start(threads: usize, route: Route, tries: Tries) -> Self {
        let shared = Arc::new(Shared::default());
        let client = |_| {
            let (shared, route) = (shared.clone(), route.clone());
            thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    let tries = if tries == Tries::Once { 1 } else { 3 };
                    let is_good = |answer: io::Result<String>| {
                        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
                    };
                    let succeeded = (0..tries).any(|_| is_good(route().and_then(get)));
                    shared.sent.fetch_add(1, Ordering::Relaxed);
                    if !succeeded {
                        shared.failed.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(PAUSE);
                }
            })
        };
        let threads = (0..threads).map(client).collect();
        Self { shared, threads }
    }

    /// Ends the clients and tells how many requests were sent, and how many of them failed.
    pub(crate) fn stop(self) -> (u64, u64) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A client that panicked has nothing more to count.
            let _ = thread.join();
        }
        (
            self.shared.sent.load(Ordering::Relaxed),
            self.shared.failed.load(Ordering::Relaxed),
        )
    }
}

fn get(address: SocketAddr) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    write!(
        connection,
        "GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

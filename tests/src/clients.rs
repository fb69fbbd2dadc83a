//! Clients that send requests one after the other and count every outcome.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Requests that run until they are stopped.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
}

/// What came of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub sent: u64,
    pub failed: u64,
}

impl Clients {
    /// Starts so many clients of one address.
    #[must_use]
    pub fn start(number: usize, address: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let client = |_| {
            let shared = shared.clone();
            thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    let answer = get(address);
                    shared.sent.fetch_add(1, Ordering::Relaxed);
                    if !answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                        shared.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let threads = (0..number).map(client).collect();
        Self { shared, threads }
    }

    /// What has come of them so far.
    #[must_use]
    pub fn count(&self) -> Count {
        Count {
            sent: self.shared.sent.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    /// Ends them.
    ///
    /// # Panics
    /// When a client did.
    #[must_use]
    pub fn stop(self) -> Count {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client");
        }
        let Shared { sent, failed, .. } = &*self.shared;
        Count {
            sent: sent.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
        }
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

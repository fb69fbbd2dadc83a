//! A client for control sockets: one connection, one question, one answer.

use std::time::Duration;

use crate::Failure;
use crate::bindings::host::cutover::plugin::sockets as host;

/// How much one `read` asks for.
const CHUNK: u32 = 64 * 1024;

/// A byte stream to an address that the operator granted.
///
/// ```no_run
/// use std::time::Duration;
///
/// use cutover_plugin_sdk::Connection;
///
/// # fn main() -> Result<(), cutover_plugin_sdk::Failure> {
/// let connection = Connection::connect("tcp:127.0.0.1:9999", Duration::from_secs(2))?;
/// connection.write_all(b"show info\n")?;
/// let answer = connection.read_to_end(1 << 20)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Connection(host::Connection);

impl Connection {
    /// Connects to `tcp:HOST:PORT` or `unix:/PATH`.
    ///
    /// # Errors
    /// `denied` when the address is not granted, `transient` when nothing answers there.
    pub fn connect(address: &str, timeout: Duration) -> Result<Self, Failure> {
        host::Connection::connect(
            address,
            u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        )
        .map(Self)
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// What the host says about the connection.
    pub fn write_all(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write(bytes)
    }

    /// Reads until the other side closes.
    ///
    /// # Errors
    /// What the host says about the connection, and `permanent` when more than `limit` bytes come.
    pub fn read_to_end(&self, limit: usize) -> Result<Vec<u8>, Failure> {
        let mut answer = Vec::new();
        loop {
            let bytes = self.0.read(CHUNK)?;
            if bytes.is_empty() {
                return Ok(answer);
            }
            if answer.len() + bytes.len() > limit {
                return Err(Failure::permanent(
                    "socket.answer-too-long",
                    format!("answer is longer than {limit} bytes"),
                ));
            }
            answer.extend_from_slice(&bytes);
        }
    }
}

/// Asks one question over a connection of its own and reads the whole answer.
///
/// ```no_run
/// use std::time::Duration;
///
/// # fn main() -> Result<(), cutover_plugin_sdk::Failure> {
/// let answer = cutover_plugin_sdk::ask("unix:/run/haproxy/admin.sock", b"show info\n", Duration::from_secs(2), 1 << 20)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Connection`].
pub fn ask(
    address: &str,
    question: &[u8],
    timeout: Duration,
    limit: usize,
) -> Result<Vec<u8>, Failure> {
    let connection = Connection::connect(address, timeout)?;
    connection.write_all(question)?;
    connection.read_to_end(limit)
}

//! What one call of a plugin may use up. Every value is a bound that holds whatever the plugin does.

use std::time::Duration;

/// Bounds on every call of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of all core instances together, in bytes.
    pub memory: usize,
    /// Wall time of a call, with the time that it waits in the host.
    pub deadline: Duration,
    /// Wall time of a streamed fetch, which moves a whole package.
    pub streaming_deadline: Duration,
    /// How long a cancelled call may go on before its instance is dropped.
    pub cancel_grace: Duration,
    /// Bytes copied from the plugin to the host in one crossing.
    pub copied: usize,
    /// Handles (connections, secrets, streams) alive at a time.
    pub handles: usize,
    /// Bytes of log lines, progress lines and stderr taken from one call; the rest is dropped.
    pub output: usize,
    /// Bytes at the end of that output which are attached to a trap.
    pub output_tail: usize,
    /// Calls of one plugin at a time; further ones wait for their turn.
    pub concurrent_calls: usize,
    /// HTTP requests of one plugin at a time, over all its calls; further ones wait for their turn.
    pub http_requests: usize,
    /// Headers of an HTTP request.
    pub http_headers: usize,
    /// Bytes of their names and values together, with the secrets in them.
    pub http_header_bytes: usize,
    /// Bytes of the body of an HTTP request.
    pub http_request_body: usize,
    /// Bytes of the body of its answer.
    pub http_response_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            deadline: Duration::from_secs(30),
            streaming_deadline: Duration::from_secs(3600),
            cancel_grace: Duration::from_secs(2),
            copied: 16 << 20,
            handles: 4096,
            output: 64 << 10,
            output_tail: 4 << 10,
            concurrent_calls: 64,
            http_requests: 16,
            http_headers: 100,
            http_header_bytes: 32 << 10,
            http_request_body: 4 << 20,
            http_response_body: 16 << 20,
        }
    }
}

/// The longest opaque token of a pending operation, in bytes.
pub(crate) const TOKEN: usize = 16 << 10;
/// The longest one-line text for people, in bytes.
pub(crate) const MESSAGE: usize = 2 << 10;
/// The longest code or name, in bytes.
pub(crate) const NAME: usize = 256;
/// The longest reference, address or value of an attribute, in bytes.
pub(crate) const VALUE: usize = 8 << 10;
/// The longest document (a JSON Schema, a plan item), in bytes.
pub(crate) const DOCUMENT: usize = 256 << 10;
/// Pieces of evidence of one verdict.
pub(crate) const EVIDENCE: usize = 200;
/// Attributes of one record.
pub(crate) const ATTRIBUTES: usize = 64;
/// Entries of a list that is not matched against what was asked.
pub(crate) const ENTRIES: usize = 10_000;
/// The longest wait that a plugin can ask for.
pub(crate) const WAIT: Duration = Duration::from_secs(3600);
/// Bytes moved by one read of a socket or one write to a sink, and kept of each stream of a program.
pub(crate) const CHUNK: usize = 1 << 20;
/// The largest file that `directories` reads or writes.
pub(crate) const FILE: usize = 16 << 20;

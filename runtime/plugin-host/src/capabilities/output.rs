//! What a plugin says in one call: log lines, and what it writes to WASI's stdout and stderr. All of it shares one
//! bound, and its end is kept, because a panic's message is found nowhere else.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::logging::TARGET;
use crate::limits;
use crate::plugin::Shared;
use crate::secret::Secrets;
use crate::text;

/// The bounded output of a call.
pub(crate) struct Output {
    plugin: Arc<Shared>,
    function: &'static str,
    /// Bytes that may still be taken.
    left: usize,
    tail: VecDeque<u8>,
    /// The start of a line whose end was not written yet.
    line: Vec<u8>,
}

impl Output {
    pub(crate) fn new(plugin: &Arc<Shared>, function: &'static str) -> Self {
        let left = plugin.limits.output;
        Self {
            plugin: Arc::clone(plugin),
            function,
            left,
            tail: VecDeque::new(),
            line: Vec::new(),
        }
    }

    /// Takes a text into account: whether it is within the bound.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        self.take_bytes(text.as_bytes())
    }

    fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        let is_within = bytes.len() <= self.left;
        if !is_within && self.left > 0 {
            tracing::warn!(plugin = %self.plugin.name, function = self.function, "output beyond the limit is dropped");
        }
        self.left = self.left.saturating_sub(bytes.len());
        // The end is kept whatever came before it: that is where a panic is.
        let max = self.plugin.limits.output_tail;
        let bytes = &bytes[bytes.len().saturating_sub(max)..];
        let excess = (self.tail.len() + bytes.len()).saturating_sub(max);
        self.tail.drain(..excess);
        self.tail.extend(bytes);
        is_within
    }

    /// Takes raw bytes of a stream and logs the lines that are complete.
    fn write(&mut self, stream: &'static str, bytes: &[u8]) {
        if !self.take_bytes(bytes) {
            return;
        }
        for &byte in bytes {
            if byte != b'\n' && self.line.len() < limits::MESSAGE {
                self.line.push(byte);
                continue;
            }
            let line = text::line(
                &String::from_utf8_lossy(&self.line),
                limits::MESSAGE,
                &self.plugin.secrets,
            );
            self.line.clear();
            tracing::info!(target: TARGET, plugin = %self.plugin.name, stream, "{line}");
        }
    }

    /// The last lines, if there are any.
    pub(crate) fn tail(&mut self, secrets: &Secrets) -> Option<String> {
        let bytes = self.tail.make_contiguous();
        let tail = text::block(String::from_utf8_lossy(bytes).trim_end(), secrets);
        (!tail.is_empty()).then_some(tail)
    }
}

/// One of WASI's output streams. It takes everything at once and never closes, so that a plugin which writes too
/// much loses its output and not its life.
#[derive(Clone)]
pub(crate) struct Stream {
    name: &'static str,
    output: Arc<Mutex<Output>>,
}

impl Stream {
    pub(crate) fn new(name: &'static str, output: &Arc<Mutex<Output>>) -> Self {
        Self {
            name,
            output: Arc::clone(output),
        }
    }

    fn put(&self, bytes: &[u8]) {
        self.output
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(self.name, bytes);
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

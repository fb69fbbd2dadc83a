//! `cutover:package-source/sink`: where a streamed fetch puts the bytes of a package.

use tokio::sync::mpsc;
use wasmtime::component::Resource;

use crate::bindings::cutover::package_source::sink;
use crate::bindings::cutover::plugin::types::Failure;
use crate::call::State;
use crate::limits;

/// The end of a bounded channel whose other end hashes and writes.
#[allow(unreachable_pub, reason = "the generated bindings export it")]
pub struct Sink {
    pub(crate) chunks: mpsc::Sender<Vec<u8>>,
    pub(crate) written: u64,
}

impl sink::Host for State {}

impl sink::HostArtifactSink for State {
    async fn write(
        &mut self,
        sink: Resource<Sink>,
        chunk: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let length = chunk.len();
        if length > limits::CHUNK {
            return Ok(Err(self.fail_invalid(format!(
                "write at most {} bytes a call, not {length}",
                limits::CHUNK
            ))));
        }
        let sink = self.table.get_mut(&sink)?;
        if sink.chunks.send(chunk).await.is_err() {
            let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
            return Ok(Err(self.fail_io("write the package", &closed)));
        }
        sink.written += length as u64;
        Ok(Ok(()))
    }

    async fn written(&mut self, sink: Resource<Sink>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&sink)?.written)
    }

    async fn drop(&mut self, sink: Resource<Sink>) -> wasmtime::Result<()> {
        self.table.delete(sink)?;
        Ok(())
    }
}

//! `cutover:plugin/sockets`: byte streams to granted addresses.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use wasmtime::component::Resource;

use crate::bindings::cutover::plugin::sockets::{self, Host, HostConnection};
use crate::bindings::cutover::plugin::types::Failure;
use crate::call::State;
use crate::limits;
use crate::pattern::Capability;

/// An open connection.
#[allow(unreachable_pub, reason = "the generated bindings export it")]
pub enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Opens an address whose form the grant has checked.
    async fn open(address: &str) -> io::Result<Self> {
        match address.split_once(':') {
            Some(("unix", path)) => UnixStream::connect(path).await.map(Self::Unix),
            Some(("tcp", host_and_port)) => {
                let stream = TcpStream::connect(host_and_port).await?;
                // Control protocols are small questions and answers: waiting to fill a packet only delays them.
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    async fn read(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; max];
        let length = match self {
            Self::Tcp(stream) => stream.read(&mut bytes).await,
            Self::Unix(stream) => stream.read(&mut bytes).await,
        }?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl Host for State {}

impl HostConnection for State {
    async fn connect(
        &mut self,
        address: String,
        timeout: sockets::DurationMs,
    ) -> wasmtime::Result<Result<Resource<Connection>, Failure>> {
        if let Err(denied) = self.allow(&Capability::Socket(address.clone())) {
            return Ok(Err(denied));
        }
        let timeout = Duration::from_millis(timeout).min(self.remaining());
        let opened = tokio::time::timeout(timeout, Connection::open(&address)).await;
        match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(connection) => Ok(Ok(self.table.push(connection)?)),
            // Nothing was sent, so that the caller can try again whatever the reason was.
            Err(error) => {
                let error = io::Error::other(error);
                Ok(Err(self.fail_io(&format!("connect to `{address}`"), &error)))
            }
        }
    }

    async fn write(
        &mut self,
        connection: Resource<Connection>,
        bytes: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let written = self.table.get_mut(&connection)?.write(&bytes).await;
        Ok(written.map_err(|error| self.fail_io("write to the connection", &error)))
    }

    async fn read(
        &mut self,
        connection: Resource<Connection>,
        max: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Failure>> {
        let max = usize::try_from(max)
            .unwrap_or(usize::MAX)
            .clamp(1, limits::CHUNK);
        let read = self.table.get_mut(&connection)?.read(max).await;
        Ok(read.map_err(|error| self.fail_io("read from the connection", &error)))
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

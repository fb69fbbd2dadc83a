//! HTTP on a plugin's behalf: one request from start to end, whom to trust, and which proxy to go through.

mod client;
mod network;
mod proxy;
mod roots;
#[cfg(test)]
mod server;

pub(crate) use client::{Bounds, Client, Error};
pub use network::{Error as NetworkError, Network};
pub use proxy::Proxies;

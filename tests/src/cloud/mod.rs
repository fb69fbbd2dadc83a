//! Fake clouds on loopback: the control interfaces of vendors, with their state, their signatures and their troubles.
//!
//! [`CloudServer`] takes requests, notes each, and asks a [`Cloud`] for the answer: one file a vendor. What goes wrong on the way is
//! injected with [`CloudServer::inject`], as a [`Fault`] at a [`When`]. That a fake has its vendor's shape is proved by driving it with the
//! vendor's own client, which [`python`] runs.

pub mod elbv2;
mod faults;
pub mod huawei;
pub mod jdcloud;
mod message;
mod python;
mod server;
mod sigv4;

pub use faults::{Fault, When, every_fault};
pub use message::{Request, Response};
pub(crate) use python::program;
pub use python::python;
pub use server::{Cloud, CloudServer, Taken, Visit};

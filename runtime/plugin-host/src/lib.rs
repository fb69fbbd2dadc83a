//! Plugins: WebAssembly components, run so that they can do only what their manifest declares *and* the operator
//! grants, within limits, in a fresh instance for each call.
//!
//! [`Host`] loads a component into a [`Plugin`], whose async methods are the functions of the WIT interfaces in this
//! crate's own types. Deliberately absent: what a release does with the answers.

#![allow(
    clippy::result_large_err,
    reason = "a failure is moved a few times in a call that takes longer than that"
)]

pub mod address;
mod answer;
mod bindings;
pub mod bounded;
mod cache;
mod call;
mod capabilities;
pub mod deployment_kind;
mod engine;
mod failure;
pub mod gate;
mod grants;
mod host;
mod inspect;
mod limits;
pub mod load_balancer;
pub mod manifest;
pub mod package_source;
mod pattern;
mod plugin;
mod secret;
mod text;
pub mod traffic;
mod web;

pub use call::OpContext;
pub use capabilities::cancel::{Cancellation, Canceller};
pub use capabilities::progress::Progress;
pub use failure::{Attribute, CallError, Failure, FailureClass, code};
pub use grants::{DirectoryGrant, Grants, Mismatch, PathGrant};
pub use host::{Error, Host, HostOptions};
pub use inspect::{Error as InspectError, Inspection, Interface, Provides, Unprovided, inspect};
pub use limits::Limits;
pub use manifest::{Access, Feature, Manifest, embed};
pub use pattern::{Capability, Error as PatternError};
pub use plugin::{Diagnostic, Plugin, Severity};
pub use secret::{Secret, Secrets};
pub use web::{Network, NetworkError, Proxies};

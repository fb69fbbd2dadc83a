//! Write plugins for cutover in Rust.
//!
//! A plugin is a WebAssembly component that does one provider's operations: it takes an instance out of a load balancer,
//! finds a package, names the steps of a kind of deployment. The host owns everything else: the sequence, waiting,
//! retries, deadlines, credentials and bulk bytes. So a plugin has no threads and no sockets of its own, and cannot wait; it
//! does one idempotent operation and returns what became of it. What time it is, the host tells: [`now`].
//!
//! Implement [`Plugin`] and the traits of what the plugin offers, then name them in [`export!`]:
//!
//! ```
//! use cutover_plugin_sdk::{Digest, Failure, FetchPlan, OpContext, PackageSource, Plugin, Resolved, export};
//! use serde::Deserialize;
//!
//! /// Packages from one fixed folder.
//! struct Shelf;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     folder: String,
//! }
//!
//! impl Plugin for Shelf {
//!     type Config = Config;
//! }
//!
//! impl PackageSource for Shelf {
//!     fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
//!         let name = reference
//!             .strip_prefix("shelf:")
//!             .ok_or_else(|| Failure::invalid("shelf.reference", format!("`{reference}` does not begin with `shelf:`")))?;
//!         Ok(Resolved {
//!             pinned: format!("shelf:{name}"),
//!             version: None,
//!             media_type: "application/gzip".to_owned(),
//!             size: None,
//!             digest: None,
//!             attributes: Vec::new(),
//!         })
//!     }
//!
//!     fn plan_fetch(_ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure> {
//!         let config: Config = cutover_plugin_sdk::config()?;
//!         let name = pinned.trim_start_matches("shelf:");
//!         Ok(FetchPlan::from(format!("file://{}/{name}.tar.gz", config.folder)))
//!     }
//! }
//!
//! export!(Shelf: PackageSource);
//! ```
//!
//! Build it as a `cdylib` for `wasm32-unknown-unknown` and put a `manifest.json` beside it that declares what it needs;
//! the operator grants a part of that, and every call outside the grant fails as `denied`.
//!
//! What a plugin decides can be unit-tested on any machine: the crate compiles natively, where only calls to the host's
//! own interfaces ([`config()`], [`Connection`], [`directories`], [`http::send`], …) have nothing behind them and panic.

#[doc(hidden)]
pub mod bindings;
mod config;
mod deployment_kind;
pub mod directories;
mod duration;
mod export;
mod failure;
mod gate;
pub mod http;
mod load_balancer;
mod log;
mod outcome;
mod package_name;
mod package_source;
mod panic_message;
mod plugin;
pub mod s3;
pub mod signing;
mod sockets;
mod spread;
mod time;
mod traffic;

pub use bindings::host::cutover::plugin::types::{
    Attribute, Diagnostic, Failure, FailureClass, OpContext, Outcome, Pending, Severity,
};
pub use bindings::host::cutover::plugin::{
    cancel, programs, progress, secrets, secrets_reveal, state,
};
pub use config::{config, parse_config};
pub use deployment_kind::{
    Action, DeploymentKind, Event, ExecOptions, ExecResult, FileStat, ItemRelease, KindDescription,
    Recipe, Step, Target,
};
pub use duration::duration;
pub use gate::{Evidence, Gate, GateInput, GateTarget, Verdict};
pub use load_balancer::{
    HOST_STAMPS, Limits, LoadBalancer, Member, MemberResult, MemberStatus, Phase, PoolLimits,
    PoolRef, Weight, Weights, per_member,
};
pub use log::{Level, enabled, log};
pub use package_name::{media_type_of, split_digest, version_in};
pub use package_source::{
    ArtifactSink, Checkout, Checksum, Command, Digest, Download, FetchPlan, Header, PackageSource,
    Resolved, Streaming, Variable,
};
pub use plugin::Plugin;
pub use sockets::{Connection, ask};
pub use spread::{Impossible, Part, percents, weights};
pub use time::{Time, now};
pub use traffic::{Disagreement, Purpose, Router, Share, Side, SideMember, Split, percent_of};

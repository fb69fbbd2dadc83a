//! The agent: the small program on an instance that fetches packages, installs files and runs hooks.
//!
//! [`serve`] is the whole program: it answers the JSON lines of [`protocol`] on two pipes. The work itself is done
//! by detached processes, one attempt at a time, that outlive both the connection and the agent (`shim.rs`);
//! what they did is on disk under `ROOTDIR/.cutover/attempts/`, so that an attempt is executed at most once
//! and its outcome can be asked for again. [`receive`] takes packages from afar. [`tree`], and `unpack` and
//! `confine` behind features of those names, are shared with whoever prepares packages.
//!
//! Deliberately absent: async, threads, plans, batches, and any knowledge of what comes next.

mod account;
mod attempt;
mod cache;
mod capture;
#[cfg(feature = "confine")]
pub mod confine;
mod control_group;
mod descendants;
mod ending;
mod environment;
mod errand;
mod fences;
mod fetch;
mod follow;
mod forget;
mod hooks;
mod install;
mod line;
mod link;
mod os;
pub mod own;
mod plain;
pub mod protocol;
mod reason;
pub mod receive;
mod room;
mod script;
mod serve;
mod shim;
mod small;
mod spawn;
mod stamp;
pub mod stream;
pub mod succession;
pub mod tree;
#[cfg(feature = "unpack")]
pub mod unpack;
mod watch;

pub use serve::{Error, serve};

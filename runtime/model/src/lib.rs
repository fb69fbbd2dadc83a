//! The nouns of cutover: ids, lifecycle events, strategies, revisions, statuses and journal records.
//!
//! Start at [`Deployment`] (what is to be done) and [`Record`] (what has happened).
//! Deliberately absent: I/O, clocks, async, and serde on anything but ids. A type that crosses a boundary (disk,
//! pipe, HTTP, WIT) has a boundary type of its own in the crate that owns the boundary.

mod appspec;
mod batching;
mod call;
mod deployment;
mod event;
mod gate;
mod host;
mod id;
mod order;
mod record;
mod revision;
mod status;
mod strategy;
mod time;
mod traffic;

pub use appspec::{AppSpec, Context, FileMapping, Kinds, OnExisting, Permission, Run, Script};
pub use batching::Batching;
pub use call::{Calls, Done, Errand, Exec, Exited, FileStat, Spot, Undone, Why};
pub use deployment::{Balancer, Deployment, Direction, Instance, Release, Router, Scope, Target};
pub use event::{LifecycleEvent, Side};
pub use gate::{
    Decision, Evidence, Gate, GateCheck, GatePolicy, GatePosition, Hold, Stage, Verdict,
};
pub use host::{Host, InvalidSshAddress, Ssh, SshAddress, SshSettings};
pub use id::{
    ApplicationName, AttemptId, DeploymentId, GroupName, GroupRef, InstanceId, InvalidId,
    PluginName, ReleaseId, SideName,
};
pub use order::{Boundary, Capacity, Order};
pub use record::{Fact, Record};
pub use revision::{Digest, InvalidDigest, InvalidVersion, Package, Revision, Version};
pub use status::{Cause, Ending, InstanceOutcome, ReleaseStatus, StepStatus};
pub use strategy::{Amount, OnFailure, Promote, Retire, StopFailures, Strategy};
pub use time::Timestamp;
pub use traffic::{InvalidShares, Shares, SideGroup, Sides};

//! The one loop: wait for an input, let the engine decide, make its records durable, carry out its actions.
//!
//! Start at [`Conductor`]. [`Conductor::plan_deploy`] and [`Conductor::plan_rollback`] gather what the engine needs to
//! know; [`Conductor::open`] takes the group and [`Running::drive`] runs the release to its end, as does
//! [`Conductor::resume`] after a crash. Deliberately absent: what comes next (the engine's), and printing.

mod address;
mod appspec;
mod balancer;
mod conductor;
mod digests;
mod download;
mod drive;
mod environment;
mod fetch;
mod gate;
mod health;
mod live;
mod local;
mod logs;
mod order;
mod packages;
mod perform;
mod plan;
mod plugins;
mod pool;
pub mod preflight;
mod prune;
mod router;
mod sides;
mod source;
mod stream;
mod version;

pub use conductor::{Conductor, Options};
pub use download::{OnProgress, Progress};
pub use drive::{Command, DriveError, Observer, Running, Silent};
pub use fetch::FetchError;
pub use live::LiveError;
pub use local::{LocalRequest, Profile, Workflow};
pub use logs::{Log, Logs};
pub use order::OrderError;
pub use plan::{DeployRequest, PlanError, Planned, RollbackRequest, chain};
pub use plugins::{PluginError, Plugins, implements};
pub use preflight::PreflightError;

//! The one loop: wait for an input, let the engine decide, make its records durable, carry out its actions.
//!
//! Start at [`Conductor`]. [`Conductor::plan_deploy`], [`Conductor::plan_redeploy`], [`Conductor::plan_retry`] and
//! [`Conductor::plan_rollback`] gather what the engine needs to know; [`Conductor::open`] takes the group and [`Running::drive`] runs the release to its end, as does
//! [`Conductor::resume`] after a crash. Deliberately absent: what comes next (the engine's), and printing.

mod appspec;
mod authority;
mod balancer;
mod build;
mod call;
mod changes;
mod choices;
mod conductor;
mod digests;
mod download;
mod drive;
mod environment;
mod fetch;
mod gate;
mod health;
mod inverse;
mod live;
mod local;
mod logs;
mod operate;
mod order;
mod packages;
mod perform;
mod plan;
mod plugins;
mod pool;
pub mod preflight;
mod progress;
mod prune;
mod redeploy;
mod release_plan;
mod retry;
mod rollback;
mod router;
mod sides;
mod source;
mod standing;
mod stream;
mod version;

pub use build::{BuildError, LastLines};
pub use changes::{Brought, Change, Finding};
pub use choices::{ChoiceError, Choices, StrategyKind};
pub use conductor::{Conductor, Options};
pub use drive::{Command, DriveError, Observer, Place, Running, Silent};
pub use fetch::FetchError;
pub use inverse::InverseRequest;
pub use live::LiveError;
pub use local::{LocalRequest, Profile, Workflow};
pub use logs::{Log, Logs};
pub use order::OrderError;
pub use plan::{DeployRequest, PlanError, Planned, RollbackRequest, chain};
pub use plugins::{Kind, PluginError, Plugins, implements};
pub use preflight::PreflightError;
pub use progress::{OnProgress, Progress};
pub use redeploy::{RedeployRequest, TemplateError};
pub use release_plan::{PlannedRun, RunError, check_run};
pub use retry::{RetryError, RetryRequest};
pub use rollback::ReturnError;
pub use standing::{Standing, standing};

//! Deciding: a pure state machine over journal records.
//!
//! [`Engine::handle`] takes an input and the time and answers with the records to make durable and the actions that
//! they authorise. [`State`] is the fold of the records, live and after a crash by the same function.
//! Deliberately absent: async, clocks, randomness and I/O of any kind; the manifest cannot even link a runtime.

pub mod call;
mod capacity;
mod decide;
mod deployment;
mod failure;
mod holds;
mod instances;
mod orders;
mod rehearsal;
pub mod retry;
pub mod rollback;
mod sequence;
mod services;
pub mod split;
mod spread;
mod state;
mod strategy;
pub mod traffic;

pub use decide::{Action, Engine, HoldAction, Input, Output, Refusal, SwitchAction, Work};
pub use rehearsal::rehearse;
pub use sequence::{Doing, PlannedStep, Traffic, planned_steps, sequence};
pub use spread::spread;
pub use state::{
    DeploymentState, HoldState, InstanceState, Misfit, OrderState, Progress, State, StepState,
    SwitchState,
};

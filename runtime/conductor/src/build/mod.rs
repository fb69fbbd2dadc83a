//! Packages that are built out of sources, on the machine of the conductor.
//!
//! [`Conductor::build`](crate::Conductor) lets `agent::confine` run what the package source planned and then the
//! command of the group, in a folder of its own, and puts the result into the store. It is part of planning: nothing is
//! in the journal yet, no group is taken, and a build that fails leaves its log and nothing else.

mod log;
mod recipe;
mod run;
mod scratch;
mod work;

pub use run::{BuildError, LastLines};
pub(crate) use run::{Builder, find_program};

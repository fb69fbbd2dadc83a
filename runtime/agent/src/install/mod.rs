//! Laying down the files of a package.
//!
//! An installation has three parts, in this order: [`plan`] finds out everything that is to happen and everything
//! that stands in the way, and changes nothing; [`apply`] does it, and undoes it when it fails; [`record`] keeps what
//! is installed, and beforehand what is about to be, so that a worker that is killed half-way leaves files that the
//! next installation knows as its own.

mod acl;
mod apply;
mod attributes;
mod permission;
mod plan;
mod record;
mod run;

pub(crate) use record::{installed, needed};
pub(crate) use run::install;

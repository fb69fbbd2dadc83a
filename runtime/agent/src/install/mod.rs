//! Laying down the files of a package so that a host never has neither version.
//!
//! [`plan`] says what is to be there, [`owned`] what the group has, [`compare`] what has to change for that, place by
//! place as [`judge`] finds it, and [`preflight`] whether the host can take it; none of them changes anything.
//! [`journal`] writes down what is going to happen, [`stage`] prepares it beside its place, [`swap`] puts it in place
//! or takes that back, and [`record`] keeps what is installed. [`run`] is the order of all this and what a crash at
//! each point leads to. [`inspect`] says afterwards whether it is still as it was left.

mod acl;
mod attributes;
mod compare;
mod copy;
pub(crate) mod folder;
mod inspect;
mod journal;
mod judge;
mod owned;
mod permission;
mod place;
mod plan;
mod preflight;
mod record;
mod run;
mod stage;
mod swap;

pub(crate) use inspect::inspect;
pub(crate) use record::{installed, needed};
pub(crate) use run::{check, install};

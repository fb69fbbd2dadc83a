//! Running commands whose writes stay in one folder and whose processes end with them: what builds packages out of
//! sources.
//!
//! [`serve`] is a process of its own with one thread, which takes a [`Job`] from stdin and carries out its steps in
//! order until one fails. What they print goes to stdout as a log with bounds; [`Told`] lines on stderr say how they are
//! confined and how it ended. Every process that a step started is ended with it, and everything when stdin ends, which
//! it does when whoever gave the job is gone.
//!
//! Writes are held in the folder by Landlock ([`Confinement`]); reading and the network are not confined. Deliberately
//! absent: what is run, and what becomes of the folder's content.

mod clear;
mod domain;
mod job;
mod memory;
mod supervise;

pub use clear::clear;
pub use job::{Confinement, Ending, Error, Job, Step, Told, Verdict};
pub use supervise::serve;

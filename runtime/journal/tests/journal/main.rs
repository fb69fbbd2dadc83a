//! The journal as its users see it: one file on disk, several owners, and machines that fail.

// Clippy knows a test by its attribute, and takes the scenarios and the child process for something else.
#![allow(clippy::unwrap_used)]

mod appending;
mod crash;
mod deletion;
mod history;
mod orders;
mod ownership;
mod queue;
mod scenario;

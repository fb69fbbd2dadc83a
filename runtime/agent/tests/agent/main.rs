//! The agent as its users have it: a process on two pipes, an instance in a folder, real scripts.
#![allow(clippy::unwrap_used)]

mod attempts;
mod fetch;
mod hooks;
mod install;
mod instance;
mod permissions;
mod unpack;

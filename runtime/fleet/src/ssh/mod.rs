//! The instances on hosts with an SSH server, through the system's `ssh` program.
//!
//! One connection a host: the process that carries the agent's pipes is also the master that transfers of packages share
//! (`dial.rs`). The program `ssh` is used, and not a library, so that `~/.ssh/config`, jump hosts, key agents and
//! `known_hosts` mean what they mean everywhere else; host keys are always checked as that configuration says.

mod agents;
mod bootstrap;
mod client;
mod control;
mod dial;
mod hosts;
mod transfer;
mod trouble;

pub use hosts::{SshFleet, SshOptions};

//! The agent as its users have it: a process on two pipes, an instance in a folder, real scripts.
#![allow(clippy::unwrap_used)]

mod attempts;
mod chain;
mod confine;
// Registers are told apart by their names on this machine only.
#[cfg(target_arch = "x86_64")]
mod crash;
mod errands;
mod fences;
mod fetch;
mod hooks;
mod inspect;
mod install;
mod instance;
mod line;
mod links;
mod mounts;
mod output;
mod permissions;
mod scripts;
mod succession;
#[cfg(target_arch = "x86_64")]
mod trace;
mod unpack;
mod workers;

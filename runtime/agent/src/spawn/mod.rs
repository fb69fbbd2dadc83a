//! Starting a script's process: one clone and one exec, after which nothing of the agent's is left in it but its limits.
//!
//! The standard library's way does not say which of its steps failed and cannot start a process inside a control
//! group, which is the only way to have everything in there that it ever starts. That is also why the C library's
//! `posix_spawn` does not do, though [`shared`] does what that does.
//!
//! [`start`] prepares an [`image`], which the child turns into. Until then the child uses its parent's memory
//! ([`shared`]), or a copy of it ([`copied`]) when it becomes another account on the way, and where [`enter`] does not
//! know the processor.
#![allow(unsafe_code)]

mod ask;
mod copied;
mod duplicate;
mod image;
mod signals;
mod start;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod enter;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod shared;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use self::copied as shared;

pub(crate) use self::ask::ask_as;
pub(crate) use self::start::{Error, Start, start};

//! Signals around the start of a process.
//!
//! The C library's calls leave out the signals that it keeps for itself, so these are the kernel's.

use std::sync::OnceLock;
use std::{fs, ptr};

/// The highest signal that Linux has.
const LAST_SIGNAL: libc::c_int = 64;

/// The size of the kernel's set of signals, in bytes.
const SET: usize = size_of::<u64>();

/// A set of signals, as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub(super) const ALL: Self = Self(u64::MAX);

    fn has(self, signal: libc::c_int) -> bool {
        self.0 >> (signal - 1) & 1 == 1
    }
}

/// The signals that this process ignores; all where that cannot be known. It ignores the same as long as it lives.
pub(super) fn ignored() -> Set {
    static IGNORED: OnceLock<Set> = OnceLock::new();
    *IGNORED.get_or_init(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut lines = status.lines();
        let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        ignored.map_or(Set::ALL, Set)
    })
}

/// Gives the calling process, which has one thread, these signals as a fresh process has them, and lets them come. For a
/// child that shares nothing but memory with its parent, which keeps its own.
pub(super) fn reset(set: Set) {
    // The kernel's structure, whatever its fields are here: all zeroes is the default action.
    let default = [0_u64; 8];
    for signal in (1..=LAST_SIGNAL).filter(|signal| set.has(*signal)) {
        // SAFETY: The action is longer than any kernel's and outlives the call, which writes nothing. With the default
        // action no code is called. Two signals cannot be changed, and need not be.
        unsafe {
            let none = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, SET);
        }
    }
    set_mask(0);
}

/// Replaces the set of signals that wait for the calling thread, and returns the former one.
pub(super) fn set_mask(mask: u64) -> u64 {
    let mut former = 0_u64;
    // SAFETY: Both sets have the kernel's size and outlive the call, which does not fail on such arguments.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut former,
            SET,
        );
    }
    former
}

//! Signals around the start of a process.
//!
//! The C library's calls leave out the signals that it keeps for itself, so these are the kernel's.

use std::ptr;

/// The highest signal that Linux has.
const LAST_SIGNAL: libc::c_int = 64;

/// The size of the kernel's set of signals, in bytes.
const SET: usize = size_of::<u64>();

/// Gives the calling process, which has one thread, every signal as a fresh process has it. For a child that shares
/// nothing but memory with its parent, which keeps its own.
pub(super) fn reset() {
    // The kernel's structure, whatever its fields are here: all zeroes is the default action.
    let default = [0_u64; 8];
    for signal in 1..=LAST_SIGNAL {
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

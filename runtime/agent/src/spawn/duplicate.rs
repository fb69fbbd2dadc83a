//! The system calls that duplicate a process.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::Pid;

/// Flags of `clone3`, which do not fit the type that the C library's constants have.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A system call: its number and its first arguments. All others are zero.
pub(super) struct Call {
    pub(super) number: libc::c_long,
    pub(super) first: usize,
    pub(super) second: usize,
    /// Whether the child begins with no handler of its parent's for any signal.
    pub(super) clears_handlers: bool,
}

/// Makes a child that begins in a control group, and does without the group where that cannot be.
///
/// `flags` are those of `clone`, and `stack` is the memory that the child's stack is to have, from its lowest address; with an
/// empty range it goes on with the caller's. `make` carries out a call and returns what it made. This never looks at the
/// child's side of a call, which is what `make` has to see to.
pub(super) fn duplicate(
    flags: libc::c_int,
    stack: Range<usize>,
    group: Option<BorrowedFd<'_>>,
    mut make: impl FnMut(&Call) -> io::Result<Option<Pid>>,
) -> io::Result<Option<Pid>> {
    if let Some(group) = group {
        // SAFETY: All zeroes is a valid value of the structure.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = flags as u64 | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP;
        arguments.exit_signal = libc::SIGCHLD as u64;
        arguments.stack = stack.start as u64;
        arguments.stack_size = stack.len() as u64;
        arguments.cgroup = group.as_raw_fd() as u64;
        let made = make(&Call {
            number: libc::SYS_clone3,
            first: (&raw const arguments).expose_provenance(),
            second: size_of_val(&arguments),
            clears_handlers: true,
        });
        if made.is_ok() {
            return made;
        }
        // The kernel, or a filter before it, does not know the call, or the group takes no processes.
    }
    make(&Call {
        number: libc::SYS_clone,
        first: (flags | libc::SIGCHLD) as usize,
        second: stack.end,
        clears_handlers: false,
    })
}

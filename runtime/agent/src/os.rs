//! The few system calls of the agent itself that need `unsafe`: fork and the wake-up on a child's end.
//!
//! Those that start a script are in `spawn/`. Everything else goes through rustix or std.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::EventfdFlags;
use rustix::process::Pid;

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The process that called, with the id of the other one.
    Parent(Pid),
    /// The process that was made.
    Child,
}

/// Duplicates the process. The child owns copies of everything, must not return to the caller's loop, and ends
/// with [`exit`].
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: The agent is single-threaded ([`crate::serve`] refuses to start otherwise, and nothing in this crate
    // starts a thread), so the child finds every lock, the allocator's included, in a state that it can go on from.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        None => Ok(Forked::Child),
        Some(_) if pid < 0 => Err(io::Error::last_os_error()),
        Some(pid) => Ok(Forked::Parent(pid)),
    }
}

/// Ends the process without running anything that the parent registered to run at its own end.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Points stdin, stdout and stderr at `/dev/null` and closes every other descriptor but those of `keep`, which are
/// returned under their final numbers. For a child of [`fork`] that never touches the objects of its parent again.
pub(crate) fn shed_descriptors<const N: usize>(keep: [OwnedFd; N]) -> io::Result<[OwnedFd; N]> {
    const FIRST: RawFd = 3;
    let end = FIRST + N as RawFd;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?
        .into_raw_fd();
    // Out of the way of the numbers that they get, and nobody's to close twice.
    let mut copies = [null; N];
    for (copy, kept) in copies.iter_mut().zip(keep) {
        *copy = rustix::io::fcntl_dupfd_cloexec(&kept, end)?.into_raw_fd();
    }
    // SAFETY: The numbers are valid descriptors. What they replace or close belongs to objects of the parent's image
    // that this process never uses again, as the caller promises.
    unsafe {
        for standard in 0..FIRST {
            if libc::dup2(null, standard) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (number, copy) in (FIRST..).zip(copies) {
            if libc::dup3(copy, number, libc::O_CLOEXEC) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // A kernel without the call leaves descriptors open that are closed on exec in any case.
        libc::syscall(
            libc::SYS_close_range,
            end as libc::c_uint,
            libc::c_uint::MAX,
            0,
        );
        let mut number = FIRST - 1;
        Ok([(); N].map(|()| {
            number += 1;
            OwnedFd::from_raw_fd(number)
        }))
    }
}

/// Gives the process an empty stdin, and returns the former one under a number that no program inherits.
#[cfg(feature = "confine")]
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let former = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = File::open("/dev/null")?;
    // SAFETY: Both are open descriptors, and the one that is replaced belongs to nobody who could close it.
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(former)
}

/// Makes a descriptor the stdin of this process, and so of what it starts.
pub(crate) fn replace_stdin(with: &OwnedFd) -> io::Result<()> {
    // SAFETY: Both are open descriptors, and the one that is replaced belongs to nobody who could close it.
    if unsafe { libc::dup2(with.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A descriptor that becomes readable when a child of this process ends.
pub(crate) struct ChildEvents {
    event: OwnedFd,
}

static CHILD_EVENT: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_child(_signal: libc::c_int) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: write is safe in a signal handler, the buffer outlives the call, and errno is put back for the code
    // that was interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(
            CHILD_EVENT.load(Ordering::Relaxed),
            one.as_ptr().cast(),
            one.len(),
        );
        *libc::__errno_location() = errno;
    }
}

impl ChildEvents {
    /// Installs the handler. One per process is enough: the last one made gets the events. A handler is used rather
    /// than a blocked signal because children inherit a blocked signal, and a script may not expect that.
    pub(crate) fn install() -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        CHILD_EVENT.store(event.as_raw_fd(), Ordering::Relaxed);
        // SAFETY: The action is fully set up and the handler does only what a handler may.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_child as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
            libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut())
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { event })
        }
    }

    /// Forgets the events so far.
    pub(crate) fn clear(&self) {
        let mut count = [0; 8];
        // Nothing to read means that there was no event.
        let _ = rustix::io::read(&self.event, &mut count);
    }
}

impl Drop for ChildEvents {
    fn drop(&mut self) {
        CHILD_EVENT.store(-1, Ordering::Relaxed);
    }
}

impl AsFd for ChildEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

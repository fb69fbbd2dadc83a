//! A child with a copy of its parent's memory, as after a fork, for which the parent waits nevertheless.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::Pid;

use super::duplicate::duplicate;
use super::image::{Image, Obstacle};

/// Has a child become an image, and says which child it is and what stopped it if it has ended without.
pub(super) fn run(
    image: &Image<'_>,
    group: Option<BorrowedFd<'_>>,
) -> io::Result<(Pid, Option<Obstacle>)> {
    let report = Report::new()?;
    // SAFETY: The process has one thread, so that the child's copy of its memory is whole; the child makes system
    // calls on what was prepared and ends in an exec or an exit.
    match unsafe { clone_and_wait(group) }? {
        Some(pid) => Ok((pid, report.get())),
        None => {
            report.put(image.become_it());
            // SAFETY: _exit takes a number and does not return.
            unsafe { libc::_exit(127) }
        }
    }
}

/// Duplicates the process and waits until the child executes something or ends. Returns nothing in the child.
///
/// # Safety
/// As for `fork`.
pub(super) unsafe fn clone_and_wait(group: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    duplicate(libc::CLONE_VFORK, 0..0, group, |call| {
        // SAFETY: Without a stack of its own the child goes on with a copy of this one, as after a fork. The arguments
        // are valid for the call; the rest is the caller's promise.
        let pid = unsafe { libc::syscall(call.number, call.first, call.second, 0, 0, 0) };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(i32::try_from(pid).ok().and_then(Pid::from_raw))
    })
}

/// A page that a child shares with its parent, for saying what it could not do.
struct Report(ptr::NonNull<Option<Obstacle>>);

const PAGE: usize = 4096;

impl Report {
    fn new() -> io::Result<Self> {
        // SAFETY: A fresh mapping that nothing else refers to.
        let page = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }?;
        let report = ptr::NonNull::new(page.cast()).map(Self);
        let report = report.ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: As in `put`; nobody else knows the page yet.
        unsafe { report.0.write_volatile(None) };
        Ok(report)
    }

    fn put(&self, obstacle: Obstacle) {
        // SAFETY: The mapping lives as long as this value and is aligned to a page. The parent does not look into it
        // before the kernel has seen the child end.
        unsafe { self.0.write_volatile(Some(obstacle)) };
    }

    fn get(&self) -> Option<Obstacle> {
        // SAFETY: The mapping lives as long as this value and holds one since it was made. The child, which alone writes
        // to it, executes another program or has ended.
        unsafe { self.0.read_volatile() }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's, which is gone afterwards.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

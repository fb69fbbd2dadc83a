//! Starting a script's process: one clone and one exec, after which nothing of the agent's is left in it but its limits.
//!
//! The standard library's way does not say which of its steps failed and cannot start a process inside a control
//! group, which is the only way to have everything in there that it ever starts.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::account::Account;

/// What a process is to be.
pub(crate) struct Start<'a> {
    /// The program, an absolute path, and its arguments.
    pub(crate) words: &'a [OsString],
    pub(crate) environment: &'a [(OsString, OsString)],
    /// Its working directory.
    pub(crate) folder: &'a Path,
    /// Its stdout, and its stderr as well where that is not said. Its stdin is the caller's.
    pub(crate) output: BorrowedFd<'a>,
    pub(crate) errors: Option<BorrowedFd<'a>>,
    /// Who it runs as, when not as the caller.
    pub(crate) account: Option<&'a Account>,
    /// The folder of the control group that it starts in.
    pub(crate) group: Option<BorrowedFd<'a>>,
    /// The Landlock rules that it keeps to, as does all that it starts.
    pub(crate) domain: Option<BorrowedFd<'a>>,
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("make a process")]
    Process(#[source] io::Error),
    #[error("enter its working directory")]
    Folder(#[source] io::Error),
    #[error("change the user")]
    Account(#[source] io::Error),
    #[error("confine it")]
    Domain(#[source] io::Error),
    #[error("execute it")]
    Execute(#[source] io::Error),
}

/// A step of a child that can fail.
#[derive(Clone, Copy)]
enum Step {
    Process = 1,
    Folder,
    Account,
    Domain,
    Execute,
}

/// The flag of `clone3`, which does not fit the type that the C library's constants have.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The highest signal that Linux has.
const LAST_SIGNAL: libc::c_int = 64;

/// Starts a process as the leader of a process group of its own, with every signal as a fresh process has it.
///
/// The caller has one thread, and its stdin is what the process is to have.
pub(crate) fn start(start: &Start<'_>) -> Result<Pid, Error> {
    let report = Report::new().map_err(Error::Process)?;
    let image = Image::new(start).map_err(Error::Process)?;
    // SAFETY: The process has one thread, so that the child's copy of its memory is whole; the child makes system
    // calls on what was prepared and ends in an exec or an exit.
    let pid = match unsafe { clone_and_wait(start.group) } {
        0 => {
            let (step, errno) = image.become_it();
            report.put(step, errno);
            // SAFETY: _exit takes a number and does not return.
            unsafe { libc::_exit(127) }
        }
        pid => i32::try_from(pid).ok().and_then(Pid::from_raw),
    };
    let Some(pid) = pid else {
        return Err(Error::Process(io::Error::last_os_error()));
    };
    match report.get() {
        None => Ok(pid),
        Some((step, error)) => {
            // It has exited. Whoever else waits for all children may have been told already.
            let _ = waitpid(Some(pid), WaitOptions::empty());
            Err(match step {
                step if step == Step::Folder as i32 => Error::Folder(error),
                step if step == Step::Account as i32 => Error::Account(error),
                step if step == Step::Domain as i32 => Error::Domain(error),
                step if step == Step::Execute as i32 => Error::Execute(error),
                _ => Error::Process(error),
            })
        }
    }
}

/// Duplicates the process and waits until the child executes something or ends. Returns 0 in the child.
///
/// # Safety
/// As for `fork`.
unsafe fn clone_and_wait(group: Option<BorrowedFd<'_>>) -> libc::c_long {
    if let Some(group) = group {
        // SAFETY: All zeroes is a valid value of the structure.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = libc::CLONE_VFORK as u64 | CLONE_INTO_CGROUP;
        arguments.exit_signal = libc::SIGCHLD as u64;
        arguments.cgroup = group.as_raw_fd() as u64;
        // SAFETY: The arguments are valid for their size; the rest is the caller's promise.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw const arguments,
                size_of_val(&arguments),
            )
        };
        if pid >= 0 {
            return pid;
        }
        // The kernel, or a filter before it, does not know the call, or the group takes no processes.
    }
    // SAFETY: Without a stack of its own the child goes on with a copy of this one, as after a fork.
    unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(libc::CLONE_VFORK | libc::SIGCHLD),
            0,
            0,
            0,
            0,
        )
    }
}

/// Everything that the child needs, as the kernel takes it.
struct Image<'a> {
    words: Texts,
    environment: Texts,
    folder: CString,
    output: BorrowedFd<'a>,
    errors: BorrowedFd<'a>,
    account: Option<&'a Account>,
    domain: Option<BorrowedFd<'a>>,
}

/// Texts and the list of their places.
struct Texts {
    /// Where the pointers point.
    texts: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Texts {
    fn new(texts: impl Iterator<Item = io::Result<CString>>) -> io::Result<Self> {
        let texts: Vec<CString> = texts.collect::<Result<_, _>>()?;
        let pointers = texts.iter().map(|text| text.as_ptr());
        let pointers = pointers.chain([ptr::null()]).collect();
        Ok(Self { texts, pointers })
    }
}

impl<'a> Image<'a> {
    fn new(start: &Start<'a>) -> io::Result<Self> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
        let pair = |(key, value): &(OsString, OsString)| {
            text(&[key.as_bytes(), b"=", value.as_bytes()].concat())
        };
        Ok(Self {
            words: Texts::new(start.words.iter().map(|word| text(word.as_bytes())))?,
            environment: Texts::new(start.environment.iter().map(pair))?,
            folder: text(start.folder.as_os_str().as_bytes())?,
            output: start.output,
            errors: start.errors.unwrap_or(start.output),
            account: start.account,
            domain: start.domain,
        })
    }

    fn program(&self) -> &CStr {
        self.words.texts.first().map_or(c"", CString::as_c_str)
    }

    /// Turns this process into the program; comes back only with what failed.
    fn become_it(&self) -> (Step, i32) {
        let errno = || {
            io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or_default()
        };
        // SAFETY: System calls on values that outlive them.
        unsafe {
            // The kernel's structure, whatever its fields are here: all zeroes is the default action. The C library
            // would leave out the signals that it keeps for itself. Two cannot be changed, and need not be.
            let default = [0_u64; 8];
            for signal in 1..=LAST_SIGNAL {
                let none = ptr::null_mut::<u64>();
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());

            let (output, errors) = (self.output.as_raw_fd(), self.errors.as_raw_fd());
            if libc::setpgid(0, 0) < 0 || libc::dup2(output, 1) < 0 || libc::dup2(errors, 2) < 0 {
                return (Step::Process, errno());
            }
            if libc::chdir(self.folder.as_ptr()) < 0 {
                return (Step::Folder, errno());
            }
        }
        if let Some(account) = self.account
            && let Err(error) = become_account(account)
        {
            return (Step::Account, error.raw_os_error());
        }
        if let Some(domain) = self.domain {
            // SAFETY: System calls on numbers.
            unsafe {
                if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
                    || libc::syscall(libc::SYS_landlock_restrict_self, domain.as_raw_fd(), 0) < 0
                {
                    return (Step::Domain, errno());
                }
            }
        }
        // SAFETY: Both lists end with a null pointer, and what they point at outlives the call.
        unsafe {
            libc::execve(
                self.program().as_ptr(),
                self.words.pointers.as_ptr(),
                self.environment.pointers.as_ptr(),
            );
        }
        (Step::Execute, errno())
    }
}

/// Makes the calling process, which has one thread, an account's.
fn become_account(account: &Account) -> Result<(), Errno> {
    rustix::thread::set_thread_groups(&account.groups)?;
    rustix::thread::set_thread_gid(account.gid)?;
    rustix::thread::set_thread_uid(account.uid)
}

/// Answers a question as an account would: in a process of its own that becomes the account first.
pub(crate) fn ask_as(account: &Account, question: impl FnOnce() -> bool) -> io::Result<bool> {
    // SAFETY: As in [`start`]; the child ends with an exit.
    match unsafe { clone_and_wait(None) } {
        0 => {
            let answer = become_account(account).is_ok() && question();
            // SAFETY: _exit takes a number and does not return.
            unsafe { libc::_exit(i32::from(answer)) }
        }
        pid => {
            let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                return Err(io::Error::last_os_error());
            };
            let ended = waitpid(Some(pid), WaitOptions::empty())?;
            Ok(ended.is_some_and(|(_, status)| status.exit_status() == Some(1)))
        }
    }
}

/// A page that a child shares with its parent, for saying what it could not do.
struct Report(ptr::NonNull<[AtomicI32; 2]>);

const PAGE: usize = 4096;

impl Report {
    fn new() -> io::Result<Self> {
        // SAFETY: A fresh mapping that nothing else refers to; it is full of zeroes and aligned to a page.
        let page = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }?;
        ptr::NonNull::new(page.cast())
            .map(Self)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn cells(&self) -> &[AtomicI32; 2] {
        // SAFETY: The mapping lives as long as this value and is only ever used as atomics.
        unsafe { self.0.as_ref() }
    }

    fn put(&self, step: Step, errno: i32) {
        let [place, error] = self.cells();
        error.store(errno, Ordering::Relaxed);
        place.store(step as i32, Ordering::Release);
    }

    fn get(&self) -> Option<(i32, io::Error)> {
        let [place, error] = self.cells();
        let step = place.load(Ordering::Acquire);
        (step != 0).then(|| {
            (
                step,
                io::Error::from_raw_os_error(error.load(Ordering::Relaxed)),
            )
        })
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's, which is gone afterwards.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

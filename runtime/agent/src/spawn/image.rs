//! What a child turns into, laid out beforehand so that the child has nothing to do but system calls.

use std::cell::Cell;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use rustix::io::Errno;

use super::signals;
use super::start::Start;
use crate::account::Account;

/// Everything that the child needs, as the kernel takes it.
pub(super) struct Image<'a> {
    words: Texts,
    environment: Texts,
    folder: CString,
    output: BorrowedFd<'a>,
    errors: BorrowedFd<'a>,
    account: Option<&'a Account>,
    domain: Option<BorrowedFd<'a>>,
    /// The signals that are not as in a fresh process when the child begins.
    signals: Cell<signals::Set>,
}

/// What a child could not do.
#[derive(Clone, Copy)]
pub(super) struct Obstacle {
    pub(super) step: Step,
    pub(super) errno: i32,
}

/// A step of a child that can fail.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Process,
    Folder,
    Account,
    Domain,
    Execute,
}

impl<'a> Image<'a> {
    pub(super) fn new(start: &Start<'a>) -> io::Result<Self> {
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
            signals: Cell::new(signals::Set::ALL),
        })
    }

    /// Says that a child begins without the handlers of its parent, so that it only ignores what that one does.
    pub(super) fn expect_no_handlers(&self) {
        self.signals.set(signals::ignored());
    }

    fn program(&self) -> &CStr {
        self.words.texts.first().map_or(c"", CString::as_c_str)
    }

    /// Turns this process into the program; comes back only with what failed.
    ///
    /// INVARIANT: The process may share its memory with a parent that is suspended. So this makes system calls on what
    /// was prepared and writes to nothing but its own stack and `errno`: it takes no lock, allocates nothing and does not
    /// panic.
    pub(super) fn become_it(&self) -> Obstacle {
        let failed = |step| Obstacle {
            step,
            errno: io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or_default(),
        };
        signals::reset(self.signals.get());
        // SAFETY: System calls on values that outlive them.
        unsafe {
            let (output, errors) = (self.output.as_raw_fd(), self.errors.as_raw_fd());
            if libc::setpgid(0, 0) < 0 || libc::dup2(output, 1) < 0 || libc::dup2(errors, 2) < 0 {
                return failed(Step::Process);
            }
            if libc::chdir(self.folder.as_ptr()) < 0 {
                return failed(Step::Folder);
            }
        }
        if let Some(account) = self.account
            && let Err(error) = become_account(account)
        {
            return Obstacle {
                step: Step::Account,
                errno: error.raw_os_error(),
            };
        }
        if let Some(domain) = self.domain {
            // SAFETY: System calls on numbers.
            unsafe {
                if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
                    || libc::syscall(libc::SYS_landlock_restrict_self, domain.as_raw_fd(), 0) < 0
                {
                    return failed(Step::Domain);
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
        failed(Step::Execute)
    }
}

/// Makes the calling process, which has one thread, an account's.
pub(super) fn become_account(account: &Account) -> Result<(), Errno> {
    rustix::thread::set_thread_groups(&account.groups)?;
    rustix::thread::set_thread_gid(account.gid)?;
    rustix::thread::set_thread_uid(account.uid)
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

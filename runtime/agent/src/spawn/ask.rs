//! Asking the kernel what another account may do.

use std::io;

use rustix::process::{WaitOptions, waitpid};

use super::copied::clone_and_wait;
use super::image::become_account;
use crate::account::Account;

/// Answers a question as an account would: in a process of its own that becomes the account first.
pub(crate) fn ask_as(account: &Account, question: impl FnOnce() -> bool) -> io::Result<bool> {
    // SAFETY: As in [`super::copied::run`]; the child ends with an exit.
    match unsafe { clone_and_wait(None) }? {
        None => {
            let answer = become_account(account).is_ok() && question();
            // SAFETY: _exit takes a number and does not return.
            unsafe { libc::_exit(i32::from(answer)) }
        }
        Some(pid) => {
            let ended = waitpid(Some(pid), WaitOptions::empty())?;
            Ok(ended.is_some_and(|(_, status)| status.exit_status() == Some(1)))
        }
    }
}

//! What a process is to be, and what can come between.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::process::{Pid, WaitOptions, waitpid};

use super::image::{Image, Obstacle, Step};
use super::{copied, shared};
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

/// Has a child become an image, and says which child it is and what stopped it if it has ended without.
type Way = fn(&Image<'_>, Option<BorrowedFd<'_>>) -> io::Result<(Pid, Option<Obstacle>)>;

/// Starts a process as the leader of a process group of its own, with every signal as a fresh process has it.
///
/// The caller has one thread, and its stdin is what the process is to have.
pub(crate) fn start(start: &Start<'_>) -> Result<Pid, Error> {
    // When a process changes its account, the kernel forbids others to look into its memory (`PR_SET_DUMPABLE`), and so
    // into that of a parent with the same memory. If such a parent allowed it again, the account could look into it through
    // the child, which leaves that memory a little later than its parent goes on.
    let way = match start.account {
        None => shared::run,
        Some(_) => copied::run,
    };
    start_by(way, start)
}

fn start_by(way: Way, start: &Start<'_>) -> Result<Pid, Error> {
    let image = Image::new(start).map_err(Error::Process)?;
    let (pid, obstacle) = way(&image, start.group).map_err(Error::Process)?;
    let Some(Obstacle { step, errno }) = obstacle else {
        return Ok(pid);
    };
    // It has exited. Whoever else waits for all children may have been told already.
    let _ = waitpid(Some(pid), WaitOptions::empty());
    let error = io::Error::from_raw_os_error(errno);
    Err(match step {
        Step::Process => Error::Process(error),
        Step::Folder => Error::Folder(error),
        Step::Account => Error::Account(error),
        Step::Domain => Error::Domain(error),
        Step::Execute => Error::Execute(error),
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::process::Command;

    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::{Gid, Uid};

    use super::super::signals;
    use super::*;

    /// A process that prints where it is, with all else left out.
    struct Plan<'a> {
        words: &'a [&'a str],
        folder: &'a str,
        account: Option<&'a Account>,
        group: Option<BorrowedFd<'a>>,
        domain: Option<BorrowedFd<'a>>,
    }

    const PLAIN: Plan<'_> = Plan {
        words: &["/bin/sh", "-c", "echo $0 in $PWD", "it"],
        folder: "/",
        account: None,
        group: None,
        domain: None,
    };

    /// Starts a process in every way and compares what it printed, or what stopped it.
    #[track_caller]
    fn check(plan: &Plan<'_>, expected: Result<&str, &str>) {
        let words: Vec<OsString> = plan.words.iter().map(OsString::from).collect();
        for way in [shared::run as Way, copied::run] {
            let (mut reader, writer) = pipe_with(PipeFlags::CLOEXEC)
                .map(|(reader, writer)| (File::from(reader), writer))
                .unwrap();
            let started = start_by(
                way,
                &Start {
                    words: &words,
                    environment: &[],
                    folder: Path::new(plan.folder),
                    output: writer.as_fd(),
                    errors: None,
                    account: plan.account,
                    group: plan.group,
                    domain: plan.domain,
                },
            );
            drop(writer);
            let found = started.map(|pid| {
                let mut printed = String::new();
                reader.read_to_string(&mut printed).unwrap();
                let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
                assert_eq!(status.exit_status(), Some(0));
                printed
            });
            let found = found.map_err(|error| format!("{error}: {}", error.source().unwrap()));
            match expected {
                Ok(text) => assert_eq!(found.as_deref(), Ok(text)),
                Err(text) => assert!(found.as_ref().is_err_and(|found| found.contains(text))),
            }
        }
    }

    #[test]
    fn a_process_is_what_it_is_told_to_be() {
        check(&PLAIN, Ok("it in /\n"));
    }

    #[test]
    fn a_process_does_without_a_group_that_cannot_be_had() {
        let none = File::open("/dev/null").unwrap();
        let group = Some(none.as_fd());

        check(&Plan { group, ..PLAIN }, Ok("it in /\n"));
    }

    #[test]
    fn the_step_that_failed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let damaged = dir.path().join("damaged");
        // Made by another process: nobody can execute a file while a process that was just made has it open for writing.
        let mut install = Command::new("install");
        install.args(["-m", "755", "/dev/null"]).arg(&damaged);
        assert!(install.status().unwrap().success());
        let damaged = [damaged.to_str().unwrap()];
        // More groups than there can be, for which it does not matter who asks.
        let account = Account {
            name: "many".to_owned(),
            uid: Uid::from_raw(1),
            gid: Gid::from_raw(1),
            groups: vec![Gid::from_raw(1); 70_000],
            home: "/".to_owned(),
        };
        let none = File::open("/dev/null").unwrap();
        let folder = "/no/such/folder";
        let words = |words| Plan { words, ..PLAIN };

        let cases = [
            (
                Plan { folder, ..PLAIN },
                "enter its working directory: No such file",
            ),
            (
                Plan {
                    account: Some(&account),
                    ..PLAIN
                },
                "change the user: ",
            ),
            (
                Plan {
                    domain: Some(none.as_fd()),
                    ..PLAIN
                },
                "confine it: ",
            ),
            (words(&["/no/such/program"]), "execute it: No such file"),
            (words(&["/"]), "execute it: Permission denied"),
            (words(&damaged), "execute it: Exec format error"),
            (words(&["a\0b"]), "make a process: "),
        ];

        for (plan, expected) in cases {
            check(&plan, Err(expected));
        }
    }

    #[test]
    fn signals_are_a_fresh_process_s_in_the_child_and_as_they_were_in_the_caller() {
        // The standard library has SIGPIPE ignored in this process.
        let text = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
        let words = ["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"];
        let usr_1_and_term = 1 << 9 | 1 << 14;
        let former = signals::set_mask(usr_1_and_term);

        check(
            &Plan {
                words: &words,
                ..PLAIN
            },
            Ok(text),
        );

        assert_eq!(signals::set_mask(former), usr_1_and_term);
    }
}

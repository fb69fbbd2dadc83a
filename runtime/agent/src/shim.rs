//! The worker: a detached process that does the work of one attempt, keeps its outcome and ends.
//!
//! It is a fork of the agent without an exec, so it starts in a fraction of a millisecond. It belongs to no terminal,
//! no process group but its own and no connection, and it is the reaper of everything that its scripts leave behind, so that a time-out reaches
//! all of it. What still runs when a hook has succeeded stays: that is what hooks start services for.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, getpid, set_child_subreaper, setpgid, setsid, umask};

use crate::attempt::{self, Attempt};
use crate::cache::Folder;
use crate::capture::Capture;
use crate::control_group::Names;
use crate::fetch;
use crate::hooks;
use crate::install;
use crate::os::{self, Forked};
use crate::protocol::{Cause, Outcome, Run, Work};

/// How long a worker waits for an attempt to be asked for that was announced.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a worker waits to hear that its outcome is kept elsewhere.
const KEEPING: Duration = Duration::from_secs(5);

/// What is said to a worker through its gate, a byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Word {
    /// Its attempt has been asked for.
    Begin = b'!',
    /// The same, and another attempt has been announced that is asked for when the outcome of this one is kept.
    BeginAndAwaitNext = b'+',
    /// Whoever asked has kept the outcome, durably.
    Kept = b'k',
}

impl Word {
    /// What begins the work of a request.
    pub(crate) fn of(run: &Run) -> Self {
        match run.next {
            None => Word::Begin,
            Some(_) => Word::BeginAndAwaitNext,
        }
    }

    /// Says it. Nobody may be there to hear it.
    pub(crate) fn say(self, gate: &OwnedFd) -> io::Result<()> {
        rustix::io::write(gate, &[self as u8])?;
        Ok(())
    }

    /// Waits for the next word, for a while; none when nobody can say one any more.
    fn hear(gate: &OwnedFd, patience: Duration) -> Option<Self> {
        let patience = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: 0,
        };
        loop {
            match poll(&mut [PollFd::new(gate, PollFlags::IN)], Some(&patience)) {
                Err(Errno::INTR) => {}
                Ok(1..) => break,
                Ok(_) | Err(_) => return None,
            }
        }
        let mut byte = [0];
        let said = matches!(rustix::io::read(gate, &mut byte), Ok(1));
        [Word::Begin, Word::BeginAndAwaitNext, Word::Kept]
            .into_iter()
            .find(|word| said && *word as u8 == byte[0])
    }
}

/// What is left to do when the outcome has been told: making durable what was done.
pub(crate) type Afterwork = Box<dyn FnOnce()>;

/// The good end of a piece of work.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) exit_code: Option<i32>,
    pub(crate) note: Option<String>,
    pub(crate) afterwork: Option<Afterwork>,
}

/// The bad end of a piece of work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) reason: String,
    /// The script that failed, as [`crate::script::name`] has it.
    pub(crate) script: Option<String>,
    pub(crate) exit_code: Option<i32>,
}

impl Failure {
    /// A failure without a script and an exit code.
    pub(crate) fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self {
            cause,
            reason: reason.into(),
            script: None,
            exit_code: None,
        }
    }
}

/// Where workers live: in no session that a terminal may end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Session {
    /// In the agent's, which is of its own making. Sessions are not free: where the kernel shares processors out by
    /// session, a fresh one waits behind all others.
    Shared,
    /// Each in one of its own.
    Own,
}

impl Session {
    /// Begins the agent's own session, if it may: a process that leads a group may not.
    pub(crate) fn begin() -> Self {
        match setsid() {
            Ok(_) => Self::Shared,
            Err(_) => Self::Own,
        }
    }

    /// Takes a worker out of the agent's process group, and so out of reach of what is meant for the agent.
    fn leave_group(self) -> io::Result<()> {
        match self {
            Self::Shared => setpgid(None, None)?,
            Self::Own => {
                setsid()?;
            }
        }
        Ok(())
    }
}

/// Starts the worker of an attempt and hands it the attempt's lock and its end of the gate. It does everything that comes
/// before the beginning, and begins when it is told to. When it is not it ends, and leaves an attempt that has not begun.
pub(crate) fn launch(
    session: Session,
    gate: OwnedFd,
    attempt: &Attempt,
    lock: OwnedFd,
    run: &Run,
) -> io::Result<Pid> {
    match os::fork()? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => leave(|| {
            session.leave_group()?;
            let [lock, gate] = os::shed_descriptors([lock, gate])?;
            let groups = detach(attempt, &lock)?;
            let settled = attempt.settle();
            match Word::hear(&gate, PATIENCE) {
                Some(Word::Begin) => {
                    drop(gate);
                    work(attempt, run, &groups, settled, None)
                }
                Some(Word::BeginAndAwaitNext) => work(attempt, run, &groups, settled, Some(&gate)),
                Some(Word::Kept) | None => Ok(()),
            }
        }),
    }
}

/// Does what a worker is there for, and ends it.
fn leave(work: impl FnOnce() -> io::Result<()>) -> ! {
    let worked = catch_unwind(AssertUnwindSafe(work));
    os::exit(if matches!(worked, Ok(Ok(()))) { 0 } else { 1 })
}

/// Makes this process the one that works on the attempt, and the reaper of what it starts.
fn detach(attempt: &Attempt, lock: &OwnedFd) -> io::Result<Names> {
    let groups = attempt.sign(lock)?;
    set_child_subreaper(Some(getpid()))?;
    umask(Mode::from_raw_mode(0o022));
    Ok(groups)
}

/// Does the work. `next` is where it is said that the attempt's outcome is kept, when it is to be.
fn work(
    attempt: &Attempt,
    run: &Run,
    groups: &Names,
    settled: io::Result<()>,
    next: Option<&OwnedFd>,
) -> io::Result<()> {
    let (outcome, afterwork) = match settled.and_then(|()| attempt.begin()) {
        Ok(log) => {
            let mut log = Capture::new(log);
            let finished = catch_unwind(AssertUnwindSafe(|| perform(run, groups, &mut log)));
            log.flush();
            let bug = || {
                Err(Failure::new(
                    Cause::Invalid,
                    "the agent's worker failed: this is a bug in cutover",
                ))
            };
            outcome(finished.unwrap_or_else(|_| bug()), attempt)
        }
        Err(error) => {
            let reason = format!("keep the attempt in `{}`: {error}", attempt.dir().display());
            outcome(Err(Failure::new(Cause::Invalid, reason)), attempt)
        }
    };
    attempt.end(&outcome)?;

    // The asker has its answer by here. A host that goes down before these are through loses the outcome, not more.
    if let Some(afterwork) = afterwork {
        afterwork();
    }
    // Whoever has kept a success never asks for it again, and so nothing is lost with it. A flush would hold up those
    // that others wait for.
    let is_success = matches!(outcome, Outcome::Succeeded { .. });
    let is_kept =
        is_success && next.is_some_and(|gate| Word::hear(gate, KEEPING) == Some(Word::Kept));
    if is_kept { Ok(()) } else { attempt.sync() }
}

fn perform(run: &Run, groups: &Names, log: &mut Capture) -> Result<Done, Failure> {
    let boot = attempt::boot();
    let invalid =
        |error: crate::cache::Error| Failure::new(Cause::Invalid, crate::reason::chain(&error));
    match &run.work {
        Work::Fetch(work) => fetch::fetch(work, &run.rootdir, &boot, &run.attempt, log),
        Work::Hooks(work) => {
            let package = Folder::at(&run.rootdir, &work.cache)
                .and_then(|folder| folder.open(&boot))
                .map_err(invalid)?;
            hooks::run(work, &package, groups, log)
        }
        Work::Install(work) => {
            let package = Folder::at(&run.rootdir, &work.cache)
                .and_then(|folder| folder.open(&boot))
                .map_err(invalid)?;
            install::install(work, &run.rootdir, &package, log)
        }
    }
}

fn outcome(finished: Result<Done, Failure>, attempt: &Attempt) -> (Outcome, Option<Afterwork>) {
    let path = attempt.log();
    let log = path.exists().then(|| path.to_string_lossy().into_owned());
    match finished {
        Ok(Done {
            exit_code,
            note,
            afterwork,
        }) => (
            Outcome::Succeeded {
                exit_code,
                log,
                note,
            },
            afterwork,
        ),
        Err(Failure {
            cause,
            reason,
            script,
            exit_code,
        }) => (
            Outcome::Failed {
                cause,
                reason,
                script,
                exit_code,
                log,
            },
            None,
        ),
    }
}

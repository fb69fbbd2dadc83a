//! The worker: a detached process that does the work of one attempt, keeps its outcome and ends.
//!
//! It is a fork of the agent without an exec, so it starts in a fraction of a millisecond. It belongs to no terminal,
//! no process group but its own and no connection, and it is the reaper of everything that its scripts leave behind, so that a time-out reaches
//! all of it. What still runs when a hook has succeeded stays: that is what hooks start services for.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, getpid, set_child_subreaper, setpgid, setsid, umask};

use crate::attempt::{self, Attempt};
use crate::cache::Folder;
use crate::capture::Capture;
use crate::control_group::Names;
use crate::errand;
use crate::fences;
use crate::fetch;
use crate::hooks;
use crate::install;
use crate::line::{self, Place};
use crate::os::{self, Forked};
use crate::protocol::{Cause, ErrandAnswer, Outcome, Run, Work};

/// How long a worker waits for an attempt to be asked for that was announced.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is left to do when the outcome has been told: making durable what was done.
pub(crate) type Afterwork = Box<dyn FnOnce()>;

/// The good end of a piece of work.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) exit_code: Option<i32>,
    pub(crate) note: Option<String>,
    /// What an errand led to.
    pub(crate) answer: Option<ErrandAnswer>,
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

/// Starts the worker of an attempt and hands it the attempt's lock.
pub(crate) fn launch(
    session: Session,
    attempt: &Attempt,
    lock: OwnedFd,
    run: &Run,
) -> io::Result<Pid> {
    match os::fork()? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => leave(|| {
            session.leave_group()?;
            let [lock] = os::shed_descriptors([lock])?;
            let groups = detach(attempt, &lock)?;
            work(attempt, run, &groups, attempt.settle())
        }),
    }
}

/// Starts the worker of an attempt that nobody has asked for yet. It does everything that comes before the beginning,
/// and begins when a byte comes through the gate. When none comes it ends, and leaves an attempt that has not begun.
pub(crate) fn launch_behind(
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
            if !is_let_through(&gate, run) {
                return Ok(());
            }
            drop(gate);
            work(attempt, run, &groups, settled)
        }),
    }
}

/// Waits for the byte, for a while, and no longer than until somebody acts in a later turn: the attempt is then theirs to
/// begin.
fn is_let_through(gate: &OwnedFd, run: &Run) -> bool {
    let deadline = Instant::now() + PATIENCE;
    // Closing a watch waits until the kernel has let go of it: that is left to the end of the process.
    let turns = ManuallyDrop::new(fences::watch(run));
    loop {
        let patience = deadline.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::new(gate, PollFlags::IN)];
        fds.extend(turns.iter().map(|turns| PollFd::new(turns, PollFlags::IN)));
        // A turn may have begun before it was watched. What was let through before that is begun nevertheless.
        let is_over = fences::is_over(run);
        let patience = if is_over { Duration::ZERO } else { patience };
        let patience = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        match poll(&mut fds, Some(&patience)) {
            Err(Errno::INTR) => {}
            Ok(1..) if !fds[0].revents().is_empty() => {
                return matches!(rustix::io::read(gate, &mut [0; 1]), Ok(1));
            }
            Ok(1..) if !is_over => drain(turns.as_ref()),
            Ok(_) | Err(_) => return false,
        }
    }
}

/// Takes what a watch has to tell, which only says that something has happened.
fn drain(watch: Option<&OwnedFd>) {
    let mut events = [0; 1024];
    while watch.is_some_and(|watch| matches!(rustix::io::read(watch, &mut events), Ok(1..))) {}
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

fn work(attempt: &Attempt, run: &Run, groups: &Names, settled: io::Result<()>) -> io::Result<()> {
    let place = settled.and_then(|()| line::queue(run, |before| wait(attempt, before)));
    let place = match place {
        Ok(Place::Passed(by)) => {
            let reason = format!("attempt `{by}` was asked for before this one could begin");
            let (outcome, _) = outcome(Err(Failure::new(Cause::Invalid, reason)), attempt);
            return attempt.end(&outcome);
        }
        Ok(Place::First(place)) => Ok(place),
        Err(error) => Err(error),
    };
    let begun = place.and_then(|place| Ok((place, attempt.begin()?)));
    let (outcome, afterwork) = match begun {
        Ok((place, log)) => {
            let mut log = Capture::new(log);
            let finished = catch_unwind(AssertUnwindSafe(|| perform(run, groups, &mut log)));
            log.flush();
            // Whatever comes next may begin: the outcome is all that is left to tell.
            drop(place);
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
    attempt.sync()
}

/// Says that another attempt has to end first.
fn wait(attempt: &Attempt, before: &str) {
    let what =
        format!("attempt `{before}`, which was given up and still runs on the instance, to end");
    attempt.wait_for(&what);
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
        Work::Errand(work) => Ok(Done {
            answer: Some(errand::run(
                work,
                &run.rootdir,
                &boot,
                &run.attempt,
                groups,
                log,
            )),
            ..Done::default()
        }),
    }
}

fn outcome(finished: Result<Done, Failure>, attempt: &Attempt) -> (Outcome, Option<Afterwork>) {
    let path = attempt.log();
    let log = path.exists().then(|| path.to_string_lossy().into_owned());
    match finished {
        Ok(Done {
            answer: Some(answer),
            afterwork,
            ..
        }) => (Outcome::Answered { answer, log }, afterwork),
        Ok(Done {
            exit_code,
            note,
            answer: None,
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

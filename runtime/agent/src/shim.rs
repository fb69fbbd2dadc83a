//! The worker: a detached process that does the work of an attempt and keeps its outcome.
//!
//! It is a fork of the agent without an exec, so it starts in a fraction of a millisecond. When hooks have succeeded and
//! left nothing running it stays for another attempt, and spares the host even that; else, and without a front, it ends.
//! It belongs to no terminal, no process group but its own and no connection, and it is the reaper of everything that its
//! scripts leave behind, so that a time-out reaches all of it. What still runs when a hook has succeeded stays: that is what
//! hooks start services for.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    Pid, WaitOptions, getpid, set_child_subreaper, setpgid, setsid, umask, wait,
};

use crate::attempt::{self, Attempt};
use crate::cache::Folder;
use crate::capture::Capture;
use crate::control_group::Names;
use crate::errand;
use crate::fences;
use crate::fetch;
use crate::hooks::{self, Groups};
use crate::install;
use crate::line::{self, Place};
use crate::link::{self, FrontEnd, Job, WorkerEnd};
use crate::os::{self, Forked};
use crate::protocol::{Cause, ErrandAnswer, Outcome, Run, Work};
use crate::reason::chain;
use crate::watch::Chores;

/// How long a worker waits for its turn with an attempt that is to follow another one.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an outcome may be told and not durable while its worker has nothing else to do: whoever asked for it most likely
/// makes it durable, too, and goes on.
const PAUSE: Duration = Duration::from_millis(100);

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

/// When a worker begins what it is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    AtOnce,
    /// When the front says so. Until then it does everything that comes before the beginning. When it is never told it ends,
    /// and leaves an attempt that has not begun.
    WhenTold,
}

/// A worker that was started.
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) link: FrontEnd,
}

/// Starts a worker with an attempt and its lock.
pub(crate) fn launch(
    session: Session,
    run: &Run,
    lock: OwnedFd,
    begin: Begin,
) -> io::Result<Started> {
    let (link, end) = link::pair()?;
    match os::fork()? {
        Forked::Parent(pid) => Ok(Started { pid, link }),
        Forked::Child => leave(|| {
            session.leave_group()?;
            let [lock, end] = os::shed_descriptors([lock, end])?;
            set_child_subreaper(Some(getpid()))?;
            umask(Mode::from_raw_mode(0o022));
            let first = Job {
                run: run.clone(),
                lock,
            };
            Worker {
                turns: fences::Watch::default(),
                groups: Groups::new(Names::unique()?),
                unsettled: Unsettled::default(),
                link: end.into(),
            }
            .serve(first, begin)
        }),
    }
}

/// Does what a worker is there for, and ends it.
fn leave(work: impl FnOnce() -> io::Result<()>) -> ! {
    let worked = catch_unwind(AssertUnwindSafe(work));
    os::exit(if matches!(worked, Ok(Ok(()))) { 0 } else { 1 })
}

/// A worker's own side.
struct Worker {
    turns: fences::Watch,
    groups: Groups,
    unsettled: Unsettled,
    link: WorkerEnd,
}

impl Worker {
    /// Carries out the first attempt, and others as long as the front has some and nothing of an earlier one is left.
    fn serve(mut self, first: Job, begin: Begin) -> io::Result<()> {
        let mut next = Some((first, begin));
        while let Some((job, begin)) = next {
            let Some(ended) = self.carry_out(job, begin)? else {
                break;
            };
            let is_reusable = ended.leaves_nothing;
            self.unsettled.0.push(ended);
            if !is_reusable || has_children() || self.link.tell_free().is_err() {
                break;
            }
            while !self.link.wait(self.patience()) {
                self.unsettled.settle_late()?;
            }
            self.groups.clear_away();
            next = self.link.next().map(|job| (job, Begin::WhenTold));
        }
        self.unsettled.settle()
    }

    /// How long until an outcome has to be durable.
    fn patience(&self) -> Option<Duration> {
        let due = self.unsettled.due()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Carries out an attempt, if it comes to its beginning.
    fn carry_out(&mut self, job: Job, begin: Begin) -> io::Result<Option<Ended>> {
        let Job { run, lock } = job;
        let attempt = Attempt::at(&run.rootdir, &run.attempt).map_err(io::Error::other)?;
        Attempt::sign(&lock, &self.groups.names)?;
        if begin == Begin::WhenTold {
            // A turn may begin as soon as it was looked whether one has.
            self.turns.turn_to(&run);
        }
        let settled = match run.fence {
            // The turn tells whether the host has been down since, and so that it may have forgotten the attempt.
            Some(_) => fences::settle(&run).map_err(|error| io::Error::other(chain(&error))),
            None => attempt.settle().map(|()| false),
        };
        if begin == Begin::WhenTold {
            if let Work::Hooks(_) = &run.work {
                self.groups.prepare();
            }
            let is_over = matches!(settled, Ok(true));
            if !self.is_let_through(&run, is_over)? {
                return Ok(None);
            }
        }
        let (groups, unsettled) = (&mut self.groups, &mut self.unsettled);
        work(attempt, run, groups, unsettled, settled.map(drop)).map(Some)
    }

    /// Waits for the word, for a while, and no longer than until somebody acts in a later turn: the attempt is then theirs to
    /// begin.
    fn is_let_through(&mut self, run: &Run, mut is_over: bool) -> io::Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if is_over {
                // What was let through before the turn began is begun nevertheless.
                return Ok(self.link.wait(Some(Duration::ZERO)) && self.link.is_let_through());
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            let until_late = self.patience().unwrap_or(patience);
            let wait = Timespec::try_from(patience.min(until_late)).ok();
            let mut fds = vec![PollFd::new(&self.link, PollFlags::IN)];
            fds.extend(
                self.turns
                    .events()
                    .map(|turns| PollFd::from_borrowed_fd(turns, PollFlags::IN)),
            );
            match poll(&mut fds, wait.as_ref()) {
                Err(Errno::INTR) => {}
                Ok(1..) if !fds[0].revents().is_empty() => return Ok(self.link.is_let_through()),
                Ok(1..) => {
                    self.turns.drain();
                    self.turns.turn_to(run);
                    is_over = fences::is_over(run);
                }
                Ok(0) if !patience.is_zero() => self.unsettled.settle_late()?,
                Ok(_) | Err(_) => return Ok(false),
            }
        }
    }
}

/// Whether something that was started here still runs, or nobody has looked how it ended.
fn has_children() -> bool {
    !matches!(wait(WaitOptions::NOHANG), Err(Errno::CHILD))
}

/// Attempts whose outcome is told and not durable, the oldest first.
#[derive(Default)]
pub(crate) struct Unsettled(Vec<Ended>);

impl Unsettled {
    /// Makes those outcomes durable that have waited for long enough.
    fn settle_late(&mut self) -> io::Result<()> {
        let late = self.0.partition_point(|it| it.at.elapsed() >= PAUSE);
        self.0.drain(..late).try_for_each(Ended::settle)
    }

    /// Makes all outcomes durable.
    fn settle(&mut self) -> io::Result<()> {
        self.0.drain(..).try_for_each(Ended::settle)
    }

    /// The same in the middle of something else. What cannot be made durable has been told: nobody could do more.
    fn do_all(&mut self) {
        let _ = self.settle();
    }
}

impl Chores for Unsettled {
    fn due(&self) -> Option<Instant> {
        self.0.first().map(|oldest| oldest.at + PAUSE)
    }

    fn do_due(&mut self) {
        // As above.
        let _ = self.settle_late();
    }
}

/// An attempt whose outcome has been told.
struct Ended {
    attempt: Attempt,
    run: Run,
    at: Instant,
    afterwork: Option<Afterwork>,
    /// Whether this process is as good as a fresh one, as far as what it did itself goes.
    leaves_nothing: bool,
}

impl Ended {
    /// Makes durable what was done. A host that goes down before this is through loses the outcome, not more. Whoever has
    /// asked for something else since has the outcome.
    fn settle(self) -> io::Result<()> {
        if let Some(afterwork) = self.afterwork {
            afterwork();
        }
        if line::is_passed(&self.run) {
            return Ok(());
        }
        self.attempt.sync()
    }
}

fn work(
    attempt: Attempt,
    run: Run,
    groups: &mut Groups,
    unsettled: &mut Unsettled,
    settled: io::Result<()>,
) -> io::Result<Ended> {
    let place = settled.and_then(|()| {
        line::queue(&run, |before| {
            wait_for(&attempt, before);
            unsettled.do_all();
        })
    });
    let begun = match place {
        Ok(Place::Passed(by)) => Err(format!(
            "attempt `{by}` was asked for before this one could begin"
        )),
        Ok(Place::First(place)) => attempt
            .begin()
            .map(|log| (place, log))
            .map_err(not_kept(&attempt)),
        Err(error) => Err(not_kept(&attempt)(error)),
    };
    let (finished, mut log) = match begun {
        Ok((place, log)) => {
            let mut log = Capture::new(log);
            let finished = catch_unwind(AssertUnwindSafe(|| {
                perform(&run, groups, unsettled, &mut log)
            }));
            // Whatever comes next may begin: the outcome is all that is left to tell.
            drop(place);
            let bug = || {
                Err(Failure::new(
                    Cause::Invalid,
                    "the agent's worker failed: this is a bug in cutover",
                ))
            };
            (finished.unwrap_or_else(|_| bug()), Some(log))
        }
        Err(reason) => (Err(Failure::new(Cause::Invalid, reason)), None),
    };
    let (outcome, afterwork) = outcome(finished, log.is_some().then(|| attempt.log()));
    attempt.end(&outcome, || log.iter_mut().for_each(Capture::flush))?;
    Ok(Ended {
        leaves_nothing: matches!(
            (&run.work, &outcome),
            (Work::Hooks(_), Outcome::Succeeded { .. })
        ),
        attempt,
        run,
        at: Instant::now(),
        afterwork,
    })
}

fn not_kept(attempt: &Attempt) -> impl FnOnce(io::Error) -> String {
    move |error| format!("keep the attempt in `{}`: {error}", attempt.dir().display())
}

/// Says that another attempt has to end first.
fn wait_for(attempt: &Attempt, before: &str) {
    let what =
        format!("attempt `{before}`, which was given up and still runs on the instance, to end");
    attempt.wait_for(&what);
}

fn perform(
    run: &Run,
    groups: &mut Groups,
    unsettled: &mut Unsettled,
    log: &mut Capture,
) -> Result<Done, Failure> {
    let boot = attempt::boot();
    let invalid = |error: crate::cache::Error| Failure::new(Cause::Invalid, chain(&error));
    if !matches!(run.work, Work::Hooks(_)) {
        // It may take long.
        unsettled.do_all();
    }
    match &run.work {
        Work::Fetch(work) => fetch::fetch(work, &run.rootdir, boot, &run.attempt, log),
        Work::Hooks(work) => {
            let package = Folder::at(&run.rootdir, &work.cache)
                .and_then(|folder| folder.open(boot))
                .map_err(invalid)?;
            hooks::run(work, &package, groups, unsettled, log)
        }
        Work::Install(work) => {
            let package = Folder::at(&run.rootdir, &work.cache)
                .and_then(|folder| folder.open(boot))
                .map_err(invalid)?;
            install::install(work, &run.rootdir, &package, log)
        }
        Work::Errand(work) => Ok(Done {
            answer: Some(errand::run(
                work,
                &run.rootdir,
                boot,
                &run.attempt,
                &groups.names,
                log,
            )),
            ..Done::default()
        }),
    }
}

fn outcome(finished: Result<Done, Failure>, log: Option<PathBuf>) -> (Outcome, Option<Afterwork>) {
    let log = log.map(|path| path.to_string_lossy().into_owned());
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

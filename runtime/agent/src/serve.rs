//! The front of the agent: one thread and one `poll` loop between two pipes, the attempts' folders and their workers.
//!
//! It holds no work of its own, so killing it loses nothing: workers go on, and another front finds them again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use crate::attempt::{self, Attempt, Standing};
use crate::cache;
use crate::control_group;
use crate::fences;
use crate::follow::Follow;
use crate::install;
use crate::line;
use crate::link::{FrontEnd, Word};
use crate::protocol::{self, Answer, Outcome, Request, Run, Work};
use crate::reason::chain;
use crate::shim::{self, Begin, Session, Started};

/// Nothing more is taken in while this many bytes wait to be written.
const MAX_UNWRITTEN: usize = 1 << 20;

/// What a pipe takes without blocking once it is writable at all.
const PIPE_BUF: usize = 4096;

/// How often an attempt is looked at whose worker cannot be watched. That is an attempt whose worker was killed before
/// it could say its name, or is about to say it.
const RECHECK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// How many attempts may be announced at a time.
const MAX_ANNOUNCED: usize = 64;

/// How many workers wait for an attempt at most.
const MAX_IDLE: usize = 64;

/// How many workers may die at birth before an attempt is refused.
const MAX_LAUNCHES: u32 = 3;

/// Why the agent ends before its input does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Duplicating a process that has threads is not safe.
    #[error("the agent must be the only thread of its process, and there are {count}")]
    Threads {
        /// How many there are.
        count: usize,
    },
    /// The input is not a protocol at all.
    #[error("a line of the input is longer than {} bytes", protocol::MAX_LINE)]
    LineTooLong,
    /// A system call that always works did not.
    #[error("{doing}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Answers requests until the input ends or nobody reads the answers.
///
/// # Errors
/// [`Error`] when the process has other threads, the input is not lines, or a basic system call fails.
pub fn serve(stdin: impl AsFd, stdout: impl AsFd) -> Result<(), Error> {
    let failed = |doing| move |source| Error::Io { doing, source };
    let count = fs::read_dir("/proc/self/task")
        .map_err(failed("count the threads in `/proc/self/task`"))?
        .count();
    if count != 1 {
        return Err(Error::Threads { count });
    }
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(|errno| failed("watch folders")(errno.into()))?;
    control_group::prepare();
    let mut front = Front {
        boot: attempt::boot(),
        session: Session::begin(),
        inotify,
        input: Vec::new(),
        output: Vec::new(),
        follows: BTreeMap::new(),
        workers: Vec::new(),
        announced: BTreeMap::new(),
        ahead: BTreeSet::new(),
        dirty: BTreeSet::new(),
        recheck: BTreeSet::new(),
    };
    front.run(stdin.as_fd(), stdout.as_fd())
}

/// A process that does an attempt's work, or waits for some.
struct Worker {
    /// What it works on; nothing when it waits.
    attempt: Option<String>,
    pid: Pid,
    pidfd: OwnedFd,
    is_child: bool,
    /// The link to a child that is still to be told something.
    link: Option<FrontEnd>,
}

impl Worker {
    /// What becomes readable when it says something or ends: its link closes with it.
    fn events(&self) -> BorrowedFd<'_> {
        match &self.link {
            Some(link) => link.as_fd(),
            None => self.pidfd.as_fd(),
        }
    }

    fn works_on(&self, attempt: &str) -> bool {
        self.attempt.as_deref() == Some(attempt)
    }
}

/// What `poll` found, free of borrows.
struct Ready {
    input: bool,
    output: bool,
    folders: bool,
    /// Workers that have said something or ended, as indices in ascending order.
    workers: Vec<usize>,
}

struct Front {
    boot: &'static str,
    session: Session,
    inotify: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    follows: BTreeMap<String, Follow>,
    workers: Vec<Worker>,
    /// Attempts that are to follow others, each in the hands of a worker that is about to begin it.
    announced: BTreeMap<String, Run>,
    /// Attempts that followed others by themselves and have not been asked for.
    ahead: BTreeSet<String>,
    /// Attempts that must be looked at.
    dirty: BTreeSet<String>,
    /// Attempts that must be looked at after a while, because nothing will report on them.
    recheck: BTreeSet<String>,
}

impl Front {
    fn run(&mut self, stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>) -> Result<(), Error> {
        loop {
            self.look_at_dirty();
            let ready = self.wait(stdin, stdout).map_err(|source| Error::Io {
                doing: "wait for events",
                source,
            })?;
            if ready.output && !self.write(stdout) {
                return Ok(());
            }
            if ready.folders {
                self.note_changed_folders();
            }
            for index in ready.workers.into_iter().rev() {
                match self.workers[index].link.as_ref().map(FrontEnd::hear) {
                    Some(Word::Nothing) => {}
                    Some(Word::Free) => self.release(index),
                    // Its end itself is still to come.
                    Some(Word::End) => self.workers[index].link = None,
                    None => self.bury(index),
                }
            }
            if ready.input && !self.read(stdin)? {
                while !self.output.is_empty() && self.write(stdout) {}
                return Ok(());
            }
        }
    }

    fn has_room(&self) -> bool {
        self.output.len() < MAX_UNWRITTEN
    }

    fn wait(&mut self, stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>) -> io::Result<Ready> {
        let none = PollFlags::empty();
        let taking = if self.has_room() { PollFlags::IN } else { none };
        let giving = if self.output.is_empty() {
            none
        } else {
            PollFlags::OUT
        };
        let timeout = if self.recheck.is_empty() {
            None
        } else {
            Some(&RECHECK)
        };

        let mut fds = vec![
            PollFd::from_borrowed_fd(stdin, taking),
            PollFd::from_borrowed_fd(stdout, giving),
            PollFd::new(&self.inotify, taking),
        ];
        let first_worker = fds.len();
        fds.extend(
            self.workers
                .iter()
                .map(|worker| PollFd::from_borrowed_fd(worker.events(), PollFlags::IN)),
        );
        let count = match poll(&mut fds, timeout) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if count == 0 {
            self.dirty.append(&mut self.recheck);
        }
        Ok(Ready {
            // With no room only a hang-up is reported, and that is the end of the input or close to it.
            input: is_ready[0],
            output: is_ready[1],
            folders: is_ready[2],
            workers: (0..self.workers.len())
                .filter(|index| is_ready[index + first_worker])
                .collect(),
        })
    }

    /// Writes what fits; false when nobody reads any more.
    fn write(&mut self, stdout: BorrowedFd<'_>) -> bool {
        let end = self.output.len().min(PIPE_BUF);
        match rustix::io::write(stdout, &self.output[..end]) {
            Ok(written) => {
                self.output.drain(..written);
                // With nothing to write the descriptor is ready only to say that the other side has gone.
                end > 0
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    /// Reads and carries out requests; false at the end of the input.
    fn read(&mut self, stdin: BorrowedFd<'_>) -> Result<bool, Error> {
        let searched = self.input.len();
        self.input.reserve(64 << 10);
        match rustix::io::read(stdin, spare_capacity(&mut self.input)) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
            Err(errno) => {
                return Err(Error::Io {
                    doing: "read requests",
                    source: errno.into(),
                });
            }
        }
        let Some(last) = self.input[searched..]
            .iter()
            .rposition(|byte| *byte == b'\n')
        else {
            return if self.input.len() > protocol::MAX_LINE {
                Err(Error::LineTooLong)
            } else {
                Ok(true)
            };
        };
        let rest = self.input.split_off(searched + last + 1);
        let lines = std::mem::replace(&mut self.input, rest);
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
        {
            self.request(line);
        }
        Ok(true)
    }

    fn request(&mut self, line: &[u8]) {
        match protocol::decode(line) {
            Ok(Request::Run(run)) => {
                let attempt = run.attempt.clone();
                let then = then_of(&run);
                match self.take_up(run) {
                    Ok(has_been_down) => {
                        if let Some(then) = then {
                            self.announce(then, has_been_down);
                        }
                    }
                    // What would follow does not follow either.
                    Err(reason) => self.answer(&Answer::Refused {
                        attempt: Some(attempt),
                        ask: None,
                        reason,
                    }),
                }
            }
            Ok(Request::Cached(question)) => {
                let complete =
                    |cache: &String| cache::is_complete(&question.rootdir, cache, self.boot);
                let caches = question
                    .caches
                    .iter()
                    .filter(|cache| complete(cache))
                    .cloned()
                    .collect();
                self.answer(&Answer::Cached {
                    ask: question.ask,
                    caches,
                });
            }
            Ok(Request::Ping(question)) => self.answer(&Answer::Pong { ask: question.ask }),
            Ok(Request::Installed(question)) => {
                let answer = match install::installed(
                    &question.rootdir,
                    &question.application,
                    &question.group,
                ) {
                    Ok(deployment) => Answer::Installed {
                        ask: question.ask,
                        deployment,
                    },
                    Err(error) => Answer::Refused {
                        attempt: None,
                        ask: Some(question.ask),
                        reason: chain(&error),
                    },
                };
                self.answer(&answer);
            }
            Ok(Request::Inspect(question)) => {
                let answer = match install::inspect(&question, self.boot) {
                    Ok(found) => Answer::Inspected(found),
                    Err(error) => Answer::Refused {
                        attempt: None,
                        ask: Some(question.ask),
                        reason: chain(&error),
                    },
                };
                self.answer(&answer);
            }
            Err(garbage) => {
                let (attempt, ask) = addressees(line);
                self.answer(&Answer::Refused {
                    attempt,
                    ask,
                    reason: garbage.told("conductor", "agent"),
                });
            }
        }
    }

    fn answer(&mut self, answer: &Answer) {
        self.output.extend_from_slice(&protocol::encode(answer));
    }

    /// Has a worker ready for an attempt that is to follow. What fails here fails again, and is told, when the
    /// attempt is asked for.
    fn announce(&mut self, run: Run, has_been_down: bool) {
        // An instance has one attempt after the other: what was announced for it before does not come any more.
        let stale = |(id, announced): (&String, &Run)| {
            (announced.rootdir == run.rootdir && *id != run.attempt).then(|| id.clone())
        };
        for id in self.announced.iter().filter_map(stale).collect::<Vec<_>>() {
            self.withdraw(&id);
        }
        let id = run.attempt.clone();
        // It may have been begun, and forgotten.
        let may_be_forgotten = has_been_down && !run.fresh;
        if may_be_forgotten
            || self.announced.len() >= MAX_ANNOUNCED
            || self.announced.contains_key(&id)
            || self.follows.contains_key(&id)
        {
            return;
        }
        let Ok(attempt) = Attempt::at(&run.rootdir, &id) else {
            return;
        };
        if let Ok(Standing::Absent) = attempt.standing(self.boot)
            && let Ok(Some(lock)) = attempt.file(&run, self.boot)
            && self.engage(&run, lock, Begin::WhenTold).is_ok()
        {
            self.announced.insert(id, run);
        }
    }

    /// Takes an attempt that was announced out of its worker's hands, which ends.
    fn withdraw(&mut self, id: &str) {
        self.announced.remove(id);
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.works_on(id)) {
            worker.link = None;
        }
    }

    /// Gives an attempt whose lock is in hand to a worker that waits for one, or to a fresh one.
    fn engage(&mut self, run: &Run, lock: OwnedFd, begin: Begin) -> io::Result<()> {
        let idle = self
            .workers
            .iter_mut()
            .filter(|worker| worker.attempt.is_none());
        for worker in idle {
            let Some(link) = &worker.link else { continue };
            if link.hand_over(run, &lock).is_ok() {
                // Should it end before it begins, another one begins when it is buried.
                worker.attempt = Some(run.attempt.clone());
                if begin == Begin::AtOnce {
                    let _ = link.begin();
                }
                return Ok(());
            }
        }
        let Started { pid, link } = shim::launch(self.session, run, lock, begin)?;
        self.workers.push(Worker {
            attempt: Some(run.attempt.clone()),
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            is_child: true,
            link: Some(link),
        });
        Ok(())
    }

    /// Lets the worker of an announced attempt begin, if it is the attempt that was announced.
    fn let_through(&mut self, run: &Run) -> bool {
        let Some(announced) = self.announced.get(&run.attempt) else {
            return false;
        };
        if announced.rootdir == run.rootdir && announced.work == run.work {
            self.begin(&run.attempt)
        } else {
            self.withdraw(&run.attempt);
            false
        }
    }

    /// Lets the worker of an announced attempt begin. One that ended meanwhile has begun nothing; whoever asks for the
    /// attempt starts another.
    fn begin(&mut self, id: &str) -> bool {
        self.announced.remove(id);
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.works_on(id)) else {
            return false;
        };
        let begun = worker
            .link
            .as_ref()
            .is_some_and(|link| link.begin().is_ok());
        if !begun {
            worker.link = None;
        }
        begun
    }

    /// Lets an announced attempt begin after the one that it follows, which has succeeded. Where it may not, or cannot, it
    /// is left to whoever asks for it, who is told why.
    fn go_on(&mut self, id: &str, before: &str) {
        let Some(run) = self.announced.get(id) else {
            return;
        };
        // Held until the line knows of it: whoever asks for something else finds it then.
        let Ok(_turn) = fences::admit(run, self.boot) else {
            return;
        };
        if matches!(line::follow(run, before), Ok(true)) && self.begin(id) {
            self.ahead.insert(id.to_owned());
        }
    }

    /// Begins an attempt or joins the one that is there. Answers whether the host has been down since the release came to
    /// it.
    fn take_up(&mut self, run: Run) -> Result<bool, String> {
        let attempt = Attempt::at(&run.rootdir, &run.attempt).map_err(|error| chain(&error))?;
        // Held until the attempt is filed: whoever comes in a later turn finds it then.
        let turn = fences::admit(&run, self.boot).map_err(|error| chain(&error))?;
        let has_been_down = turn.has_been_down;
        let is_ahead = self.ahead.remove(&run.attempt);
        if (is_ahead || (!run.join && self.announced.contains_key(&run.attempt)))
            && let Ok(watch) = self.watch(&attempt)
            && line::ask(&run).is_ok()
            && (is_ahead || self.let_through(&run))
        {
            let id = run.attempt.clone();
            self.dirty.insert(id.clone());
            self.follows.insert(id, Follow::new(attempt, run, watch));
            return Ok(has_been_down);
        }
        let standing = attempt
            .standing(self.boot)
            .map_err(|error| error.to_string())?;
        // Bringing a package twice does no harm.
        let is_repeatable = matches!(run.work, Work::Fetch(_));
        if let Standing::Absent = standing
            && has_been_down
            && !run.fresh
            && !is_repeatable
        {
            let reason = "the attempt was asked for before, and the host has been down since the release came to it: it may \
                          have begun";
            self.lose(&run.attempt, reason.to_owned());
            return Ok(has_been_down);
        }
        if let Standing::Absent | Standing::Unbegun(_) = standing
            && run.join
        {
            self.leave_unbegun(&run.attempt);
            return Ok(has_been_down);
        }
        // One that ended is only told of: what followed it by itself is what was asked for last.
        if let Standing::Absent | Standing::Unbegun(_) | Standing::Held(_) = standing {
            line::ask(&run).map_err(|error| format!("note what was asked for: {error}"))?;
        }
        let lock = match standing {
            Standing::Absent => attempt
                .file(&run, self.boot)
                .map_err(|error| chain(&error))?,
            Standing::Unbegun(lock) => Some(lock),
            Standing::Ended | Standing::Held(_) | Standing::Lost(_) => None,
        };
        let id = run.attempt.clone();
        let watch = self.watch(&attempt)?;
        self.follows
            .insert(id.clone(), Follow::new(attempt, run, watch));
        match lock {
            Some(lock) => self.launch(&id, lock)?,
            None => {
                self.dirty.insert(id);
            }
        }
        Ok(has_been_down)
    }

    /// Has changes of an attempt's folder reported.
    fn watch(&self, attempt: &Attempt) -> Result<i32, String> {
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&self.inotify, attempt.dir(), events)
            .map_err(|errno| format!("watch `{}`: {errno}", attempt.dir().display()))
    }

    /// Starts a worker for an attempt whose lock is in hand.
    fn launch(&mut self, id: &str, lock: OwnedFd) -> Result<(), String> {
        let Some(follow) = self.follows.get_mut(id) else {
            return Ok(());
        };
        follow.launches += 1;
        let engaged = if follow.launches > MAX_LAUNCHES {
            Err(io::Error::other("it ends before it begins"))
        } else {
            let run = follow.run.clone();
            self.engage(&run, lock, Begin::AtOnce)
        };
        engaged.map_err(|error| {
            self.forget(id);
            format!("start a worker for the attempt: {error}")
        })
    }

    fn leave_unbegun(&mut self, id: &str) {
        self.forget(id);
        self.answer(&Answer::Unbegun {
            attempt: id.to_owned(),
        });
    }

    fn lose(&mut self, id: &str, reason: String) {
        self.forget(id);
        self.answer(&Answer::Ended {
            attempt: id.to_owned(),
            outcome: Outcome::Lost { reason },
        });
    }

    fn forget(&mut self, id: &str) {
        if let Some(follow) = self.follows.remove(id) {
            // The watch is gone already when the folder is.
            let _ = inotify::remove_watch(&self.inotify, follow.watch);
        }
        self.dirty.remove(id);
        self.recheck.remove(id);
    }

    fn note_changed_folders(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut changed = BTreeSet::new();
        let mut overflow = false;
        while let Ok(event) = events.next() {
            overflow |= event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
            changed.insert(event.wd());
        }
        for (id, follow) in &self.follows {
            if overflow || changed.contains(&follow.watch) {
                self.dirty.insert(id.clone());
            }
        }
    }

    /// Takes note of a worker that is free for another attempt, and of its end with the attempt before.
    fn release(&mut self, index: usize) {
        let idle = self
            .workers
            .iter()
            .filter(|worker| worker.attempt.is_none());
        let has_enough = idle.count() >= MAX_IDLE;
        let worker = &mut self.workers[index];
        if has_enough {
            worker.link = None;
        }
        if let Some(attempt) = worker.attempt.take() {
            self.note_end(attempt);
        }
    }

    /// Takes note of a worker's end.
    fn bury(&mut self, index: usize) {
        let worker = self.workers.swap_remove(index);
        if worker.is_child {
            // It has ended, so this does not wait; and nobody else waits for it, so it does not fail.
            let _ = waitpid(Some(worker.pid), WaitOptions::empty());
        }
        if let Some(attempt) = worker.attempt {
            self.announced.remove(&attempt);
            self.note_end(attempt);
        }
    }

    fn note_end(&mut self, attempt: String) {
        if self.follows.contains_key(&attempt) {
            self.dirty.insert(attempt);
        }
    }

    fn look_at_dirty(&mut self) {
        while self.has_room()
            && let Some(id) = self.dirty.pop_first()
        {
            if let Err(reason) = self.look_at(&id) {
                self.forget(&id);
                self.answer(&Answer::Refused {
                    attempt: Some(id),
                    ask: None,
                    reason,
                });
            }
        }
    }

    /// Reports what is to be reported of an attempt, at most one part of its log at a time.
    fn look_at(&mut self, id: &str) -> Result<(), String> {
        let Some(follow) = self.follows.get_mut(id) else {
            return Ok(());
        };
        // The log is read after the outcome was looked for: what it says then is all that it said before the outcome.
        follow.look_for_outcome();
        if let Some(Outcome::Succeeded { .. }) = follow.outcome
            && let Some(then) = follow.run.then.take()
        {
            self.go_on(&then.attempt, id);
        }
        let Some(follow) = self.follows.get_mut(id) else {
            return Ok(());
        };
        if let Some(what) = follow.next_wait() {
            self.answer(&Answer::Waiting {
                attempt: id.to_owned(),
                what,
            });
            self.dirty.insert(id.to_owned());
            return Ok(());
        }
        if let Some((offset, text)) = follow.next_chunk() {
            self.answer(&Answer::Log {
                attempt: id.to_owned(),
                offset,
                text,
            });
            self.dirty.insert(id.to_owned());
            return Ok(());
        }
        if let Some(outcome) = follow.outcome.take() {
            self.forget(id);
            self.answer(&Answer::Ended {
                attempt: id.to_owned(),
                outcome,
            });
            return Ok(());
        }
        if self.workers.iter().any(|worker| worker.works_on(id)) {
            return Ok(());
        }
        self.find_worker(id)
    }

    /// Deals with an attempt of which no worker is known.
    fn find_worker(&mut self, id: &str) -> Result<(), String> {
        let Some(follow) = self.follows.get(id) else {
            return Ok(());
        };
        match follow.attempt.standing(self.boot) {
            Ok(Standing::Ended) => {
                self.dirty.insert(id.to_owned());
            }
            Ok(Standing::Lost(reason)) => {
                // The attempt is tried again, and must not meet itself.
                if let Some(groups) = follow.attempt.groups() {
                    control_group::end_remains(&groups);
                }
                self.lose(id, reason);
            }
            Ok(Standing::Absent) => self.lose(id, "the attempt's folder was removed".to_owned()),
            Err(error) => self.lose(id, format!("the attempt's folder cannot be read: {error}")),
            Ok(Standing::Unbegun(_)) if follow.run.join => self.leave_unbegun(id),
            Ok(Standing::Unbegun(lock)) => {
                let _turn = fences::admit(&follow.run, self.boot).map_err(|error| chain(&error))?;
                self.launch(id, lock)?;
            }
            Ok(Standing::Held(pid)) => {
                let watched =
                    pid.and_then(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)));
                // The process may have ended, and its number may have been given away, before it could be opened.
                let holder = follow.attempt.standing(self.boot);
                match (watched, holder) {
                    (Some((pid, pidfd)), Ok(Standing::Held(still))) if still == Some(pid) => {
                        self.workers.push(Worker {
                            attempt: Some(id.to_owned()),
                            pid,
                            pidfd,
                            link: None,
                            is_child: false,
                        });
                    }
                    _ => {
                        self.recheck.insert(id.to_owned());
                    }
                }
            }
        }
        Ok(())
    }
}

/// The attempt that is to follow another one. It may have followed it before if the other one was asked for before.
fn then_of(run: &Run) -> Option<Run> {
    let then = run.then.as_deref()?;
    Some(Run {
        attempt: then.attempt.clone(),
        rootdir: run.rootdir.clone(),
        log_from: 0,
        work: then.work.clone(),
        fresh: run.fresh,
        join: false,
        then: None,
        fence: run.fence.clone(),
    })
}

/// Whom a line that could not be read was about, as far as can be seen.
fn addressees(line: &[u8]) -> (Option<String>, Option<u64>) {
    let value: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    (
        value["attempt"].as_str().map(str::to_owned),
        value["ask"].as_u64(),
    )
}

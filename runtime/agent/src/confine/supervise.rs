//! Carrying out a job: one step after the other, each watched until it and all that it started have ended.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, setsid, umask, wait,
};

use super::clear::clear;
use super::domain::domain;
use super::job::{Ending, Error, Job, Step, Told, Verdict};
use super::memory;
use crate::capture::Capture;
use crate::control_group::{self, ControlGroup, Names};
use crate::descendants::Family;
use crate::ending::signal_name;
use crate::os::{self, ChildEvents};
use crate::reason::chain;
use crate::spawn::{self, Start};
use crate::stamp;

/// Between asking the processes of a step that took too long to end and making them.
const TERMINATION_GRACE: Duration = Duration::from_secs(5);
/// How long killed processes may take to be gone.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// How often memory is looked at.
const MEMORY_LOOKS: Duration = Duration::from_millis(250);
/// The longest job, in bytes.
const MAX_JOB: u64 = 4 << 20;

/// Takes a job from stdin and carries it out. The caller is a process with one thread.
///
/// # Errors
/// [`Error`] where there is nothing to tell; whatever becomes of a job is told.
pub fn serve() -> Result<(), Error> {
    let mut line = String::new();
    let mut stdin = BufReader::new(io::stdin().lock().take(MAX_JOB));
    stdin.read_line(&mut line).map_err(Error::Read)?;
    drop(stdin);
    let job: Job = serde_json::from_str(&line).map_err(Error::Job)?;
    let lifeline = prepare().map_err(Error::Prepare)?;
    let verdict = match carry_out(&job, lifeline.as_fd()) {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Broken {
            reason: chain(&error),
        },
    };
    if matches!(
        verdict,
        Verdict::Failed {
            ending: Ending::Abandoned,
            ..
        }
    ) {
        // Nobody else will. What cannot be removed is found by whoever builds next.
        let _ = clear(&job.folder);
    }
    tell(&Told::Ended(verdict)).map_err(Error::Tell)
}

/// Makes this process one that no terminal reaches and that reaps what its steps leave behind. What was its stdin tells
/// when whoever asked is gone; no step gets hold of it.
fn prepare() -> io::Result<OwnedFd> {
    // One that leads a group already has a session that is good enough.
    let _ = setsid();
    set_child_subreaper(Some(getpid()))?;
    umask(Mode::from_raw_mode(0o022));
    control_group::prepare();
    os::take_stdin()
}

fn tell(told: &Told) -> io::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    io::stderr().write_all(&line)
}

fn carry_out(job: &Job, lifeline: BorrowedFd<'_>) -> io::Result<Verdict> {
    let (confinement, rules) = domain(&job.folder)?;
    tell(&Told::Confined(confinement))?;
    let log = io::stdout().as_fd().try_clone_to_owned()?;
    let mut log = Capture::new(File::from(log));
    log.say(&confinement.sentence(&job.folder));
    let events = ChildEvents::install()?;
    let names = Names::of_job(&job.name, getpid());
    for (number, step) in job.steps.iter().enumerate() {
        log.say(&format!("==> {} at {}", step.title, stamp::now()));
        log.flush();
        let began = Instant::now();
        let group = ControlGroup::make(&names, number);
        let ending = match start(step, group.as_ref(), rules.as_ref()) {
            Ok((child, output)) => {
                let family = Family {
                    earlier: BTreeSet::new(),
                    group: group.as_ref(),
                };
                let mut watch = Watch {
                    child,
                    output: Some(output),
                    family,
                    events: &events,
                    lifeline,
                    log: &mut log,
                    status: None,
                    is_abandoned: false,
                };
                watch.until_end(began, step)?
            }
            Err(error) => Some(Ending::NotStarted {
                reason: chain(&error),
            }),
        };
        log.say(&format!(
            "<== {} in {:.3}s at {}",
            mark(ending.as_ref()),
            began.elapsed().as_secs_f64(),
            stamp::now()
        ));
        log.flush();
        if let Some(ending) = ending {
            return Ok(Verdict::Failed {
                step: number,
                ending,
            });
        }
    }
    Ok(Verdict::Succeeded)
}

/// The end of the line in the log.
fn mark(ending: Option<&Ending>) -> String {
    match ending {
        None => "exit 0".to_owned(),
        Some(Ending::Exited { code }) => format!("exit {code}"),
        Some(Ending::Killed { signal }) => format!("killed by {signal}"),
        Some(Ending::TimedOut) => "timed out".to_owned(),
        Some(Ending::OverMemory { bytes }) => format!("killed with {bytes} bytes of memory"),
        Some(Ending::NotStarted { reason }) => format!("not started: {reason}"),
        Some(Ending::Abandoned) => "given up".to_owned(),
    }
}

/// Starts a step and returns the reading end of its output.
fn start(
    step: &Step,
    group: Option<&ControlGroup>,
    rules: Option<&OwnedFd>,
) -> Result<(Pid, OwnedFd), spawn::Error> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
        .and_then(|(reader, writer)| {
            fcntl_setfl(&reader, OFlags::NONBLOCK)?;
            Ok((reader, writer))
        })
        .map_err(|errno| spawn::Error::Process(errno.into()))?;
    let words: Vec<OsString> = step.words.iter().map(OsString::from).collect();
    let environment: Vec<(OsString, OsString)> = step
        .environment
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let start = Start {
        words: &words,
        environment: &environment,
        folder: &step.folder,
        output: writer.as_fd(),
        errors: None,
        account: None,
        group: group.map(AsFd::as_fd),
        domain: rules.map(AsFd::as_fd),
    };
    Ok((spawn::start(&start)?, reader))
}

/// A running step.
struct Watch<'a> {
    child: Pid,
    /// The reading end of its output, while anybody holds the other one.
    output: Option<OwnedFd>,
    family: Family<'a>,
    events: &'a ChildEvents,
    lifeline: BorrowedFd<'a>,
    log: &'a mut Capture,
    status: Option<WaitStatus>,
    is_abandoned: bool,
}

impl Watch<'_> {
    /// Waits for the end of the step, sees to it that it comes in time, and ends all that it started. None when it
    /// succeeded.
    fn until_end(&mut self, began: Instant, step: &Step) -> io::Result<Option<Ending>> {
        let until = began.checked_add(Duration::from_millis(step.timeout_ms));
        let mut looked = began;
        loop {
            let now = Instant::now();
            if let Some(status) = self.status {
                self.end_all()?;
                return Ok(ended(status));
            }
            if self.is_abandoned {
                self.end_all()?;
                return Ok(Some(Ending::Abandoned));
            }
            if until.is_some_and(|until| now >= until) {
                self.terminate()?;
                self.end_all()?;
                return Ok(Some(Ending::TimedOut));
            }
            let mut next = until.unwrap_or(now + MEMORY_LOOKS);
            if let Some(limit) = step.memory {
                if now >= looked + MEMORY_LOOKS {
                    looked = now;
                    if let Some(bytes) = memory::over(&self.family.living(), limit) {
                        self.end_all()?;
                        return Ok(Some(Ending::OverMemory { bytes }));
                    }
                }
                next = next.min(looked + MEMORY_LOOKS);
            }
            self.wait(next)?;
        }
    }

    /// Asks all processes to end, and gives them a while for it.
    fn terminate(&mut self) -> io::Result<()> {
        self.family.terminate();
        let until = Instant::now() + TERMINATION_GRACE;
        while Instant::now() < until && !self.is_abandoned && !self.family.living().is_empty() {
            self.wait(until)?;
        }
        Ok(())
    }

    /// Kills what is left, and takes in what it has written.
    fn end_all(&mut self) -> io::Result<()> {
        let until = Instant::now() + KILL_GRACE;
        // A process that was being made while the others were killed is found the next time.
        while self.family.kill() > 0 && Instant::now() < until {
            self.wait(until.min(Instant::now() + MEMORY_LOOKS))?;
        }
        // No more than a pipe can hold.
        for _ in 0..64 {
            self.read_output();
        }
        Ok(())
    }

    /// Waits for output, for the end of a child, for whoever asked to be gone, or for an instant, and takes in what
    /// there is.
    fn wait(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(self.events, PollFlags::IN)];
        if !self.is_abandoned {
            fds.push(PollFd::from_borrowed_fd(self.lifeline, PollFlags::IN));
        }
        fds.extend(
            self.output
                .iter()
                .map(|output| PollFd::new(output, PollFlags::IN)),
        );
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let children_changed = !fds[0].revents().is_empty();
        // Nothing is ever sent after the job, so anything there is to read is the end.
        let asker_left = !self.is_abandoned && !fds[1].revents().is_empty();
        drop(fds);

        self.is_abandoned |= asker_left;
        if children_changed {
            self.events.clear();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if pid == self.child {
                    self.status = Some(status);
                }
            }
        }
        self.read_output();
        Ok(())
    }

    fn read_output(&mut self) {
        let Some(output) = &self.output else { return };
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(output, &mut buffer) {
            Ok(length @ 1..) => self.log.feed(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => self.output = None,
        }
    }
}

fn ended(status: WaitStatus) -> Option<Ending> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(Ending::Exited { code }),
        (None, signal) => Some(Ending::Killed {
            signal: signal_name(signal.unwrap_or_default()),
        }),
    }
}

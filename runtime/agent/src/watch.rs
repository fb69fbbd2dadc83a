//! Watching a script until it has ended: its output, its processes and its time.
//!
//! Time is the monotonic clock's, so a clock that is set meanwhile changes nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::capture::Capture;
use crate::descendants::{Family, holders_of_pipe};
use crate::ending::End;
use crate::os::ChildEvents;

/// Between asking the processes of a script that took too long to end and making them.
const TERMINATION_GRACE: Duration = Duration::from_secs(5);

/// How long killed processes may take to be gone.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long the output may stay open when the script itself has ended. A service that is about to detach itself
/// from it needs a moment; one that never will is not worth waiting for.
const OUTPUT_GRACE: Duration = Duration::from_secs(3);

/// How long the line that announces a script waits for output to be written with.
const ANNOUNCEMENT_DELAY: Duration = Duration::from_millis(50);

/// What else has to be done in time while a script runs.
pub(crate) trait Chores {
    /// When the next one is due.
    fn due(&self) -> Option<Instant>;
    /// Does those that are.
    fn do_due(&mut self);
}

/// A running script.
pub(crate) struct Watch<'a> {
    child: Pid,
    /// The reading end of its output, while anybody holds the other one.
    output: Option<OwnedFd>,
    family: Family<'a>,
    events: &'a ChildEvents,
    log: &'a mut Capture,
    chores: &'a mut dyn Chores,
    status: Option<WaitStatus>,
}

/// What is being waited for, and until when.
#[derive(Clone, Copy)]
enum Phase {
    Running(Instant),
    Draining(Instant),
    Terminating(Instant),
    Killing(Instant),
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        child: Pid,
        output: OwnedFd,
        family: Family<'a>,
        events: &'a ChildEvents,
        log: &'a mut Capture,
        chores: &'a mut dyn Chores,
    ) -> Self {
        Self {
            child,
            output: Some(output),
            family,
            events,
            log,
            chores,
            status: None,
        }
    }

    /// Waits for the end of the script and of its output, and sees to it that both come in time.
    pub(crate) fn until_end(&mut self, started: Instant, timeout: Duration) -> io::Result<End> {
        let announced = started + ANNOUNCEMENT_DELAY;
        let mut phase = Phase::Running(started + timeout);
        let mut children_changed = false;
        loop {
            let now = Instant::now();
            if now >= announced {
                self.log.flush();
            }
            if self.chores.due().is_some_and(|due| now >= due) {
                self.chores.do_due();
            }
            if let (Phase::Running(_) | Phase::Draining(_), Some(status), None) =
                (phase, self.status, &self.output)
            {
                return Ok(End::Exited(status));
            }
            phase = match phase {
                Phase::Running(_) if self.status.is_some() => Phase::Draining(now + OUTPUT_GRACE),
                Phase::Running(until) if now >= until => {
                    self.family.terminate();
                    Phase::Terminating(now + TERMINATION_GRACE)
                }
                Phase::Draining(until) if now >= until => return self.left_open(),
                Phase::Terminating(until) if now >= until => {
                    self.family.kill();
                    Phase::Killing(now + KILL_GRACE)
                }
                Phase::Terminating(_) if children_changed && self.family.living().is_empty() => {
                    self.read_rest();
                    return Ok(End::TimedOut { left: 0 });
                }
                Phase::Killing(until) if children_changed || now >= until => {
                    // A process that was being made while the others were killed is found here.
                    let left = self.family.kill();
                    if left == 0 || now >= until {
                        self.read_rest();
                        return Ok(End::TimedOut { left });
                    }
                    phase
                }
                phase => phase,
            };
            let (Phase::Running(until)
            | Phase::Draining(until)
            | Phase::Terminating(until)
            | Phase::Killing(until)) = phase;
            let pending = self.log.is_pending().then_some(announced);
            let until = [pending, self.chores.due()]
                .into_iter()
                .flatten()
                .fold(until, Instant::min);
            children_changed = self.wait(until)?;
        }
    }

    /// Waits for output, for the end of a child or for an instant, and takes in what there is. Says whether a child
    /// ended.
    fn wait(&mut self, until: Instant) -> io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(self.events, PollFlags::IN)];
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
        drop(fds);

        if children_changed {
            self.events.clear();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if pid == self.child {
                    self.status = Some(status);
                }
            }
        }
        self.read_output();
        Ok(children_changed)
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

    /// Reads what dead processes left in the pipe: no more than a pipe can hold.
    fn read_rest(&mut self) {
        for _ in 0..64 {
            self.read_output();
        }
    }

    fn left_open(&self) -> io::Result<End> {
        let failed = self.status.filter(|status| status.exit_status() != Some(0));
        if let Some(status) = failed {
            return Ok(End::Exited(status));
        }
        let inode = self
            .output
            .as_ref()
            .and_then(|output| fstat(output).ok())
            .map_or(0, |stat| stat.st_ino);
        Ok(End::LeftOpen {
            holders: holders_of_pipe(inode),
        })
    }
}

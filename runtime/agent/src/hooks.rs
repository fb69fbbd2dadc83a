//! Running the scripts of a hook.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl, fstat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, geteuid, wait};

use crate::account::Account;
use crate::capture::Capture;
use crate::descendants::{Process, descendants, holders_of_pipe};
use crate::os::{self, ChildEvents};
use crate::protocol::{Cause, Hooks, Script};
use crate::script::{self, Program};
use crate::shim::{Done, Failure};

/// What is left of the agent's own environment.
const KEPT_ENV: [&str; 5] = ["PATH", "HOME", "USER", "LOGNAME", "LANG"];

/// Where programs are looked for when the agent itself was not told.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Between asking the processes of a script that took too long to end and making them.
const TERMINATION_GRACE: Duration = Duration::from_secs(5);

/// How long killed processes may take to be gone.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long the output may stay open when the script itself has ended.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// How long the line that announces a script waits for output to be written with.
const ANNOUNCEMENT_DELAY: Duration = Duration::from_millis(50);

/// The longest time-out; a longer one means as much.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs the scripts in order until one fails.
pub(crate) fn run(hooks: &Hooks, package: &Path, log: &mut Capture) -> Result<Done, Failure> {
    check_environment(&hooks.env)?;
    let accounts: Vec<Option<Account>> = hooks
        .scripts
        .iter()
        .map(|script| account(script).map_err(|failure| of_script(script, failure)))
        .collect::<Result<_, _>>()?;
    let broken =
        |error: io::Error| Failure::new(Cause::Invalid, format!("prepare to run scripts: {error}"));
    let events = ChildEvents::install().map_err(broken)?;
    let mut done = Done::default();

    for (script, account) in hooks.scripts.iter().zip(accounts) {
        let title = script::title(&script.run);
        let failed_here = |failure| of_script(script, failure);
        let program = script::resolve(&script.run, package).map_err(failed_here)?;
        // What earlier scripts started and left running is none of this script's business.
        let earlier = if done.exit_code.is_some() {
            descendants(&BTreeSet::new())
        } else {
            BTreeSet::new()
        };
        let started = Instant::now();
        log.say(&format!("==> {title}"));

        let environment = environment(&hooks.env, account.as_ref());
        let (child, output) = start(&program, package, &environment, account.as_ref())
            .map_err(|error| failed_here(program.not_started(&title, &error)))?;
        let timeout = Duration::from_millis(script.timeout_ms).min(MAX_TIMEOUT);
        let mut watch = Watch {
            child,
            output: Some(output),
            status: None,
            earlier,
            events: &events,
            log,
        };
        let end = watch.until_end(started, timeout).map_err(broken)?;

        let last_line = log.last_line().map(str::to_owned);
        log.say(&format!(
            "<== {} in {:.3}s",
            end.mark(),
            started.elapsed().as_secs_f64()
        ));
        match end.failure(&title, timeout) {
            None => done.exit_code = Some(0),
            Some(mut failure) => {
                if let Some(line) = last_line {
                    failure.reason.push_str(": ");
                    failure.reason.push_str(&line);
                }
                return Err(failed_here(failure));
            }
        }
    }
    if hooks.scripts.is_empty() {
        done.note = Some("there are no scripts".to_owned());
    }
    Ok(done)
}

fn of_script(script: &Script, failure: Failure) -> Failure {
    Failure {
        script: Some(script::name(&script.run)),
        ..failure
    }
}

fn check_environment(env: &[(String, String)]) -> Result<(), Failure> {
    match env
        .iter()
        .find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0'))
    {
        Some((key, _)) => {
            let reason = format!(
                "the environment variable `{}` cannot be set",
                key.escape_debug()
            );
            Err(Failure::new(Cause::Invalid, reason))
        }
        None => Ok(()),
    }
}

fn account(script: &Script) -> Result<Option<Account>, Failure> {
    let Some(name) = &script.runas else {
        return Ok(None);
    };
    let title = script::title(&script.run);
    let account = Account::named(name).map_err(|error| {
        Failure::new(
            Cause::Invalid,
            format!(
                "run `{title}` as `{name}`: {}",
                crate::reason::chain(&error)
            ),
        )
    })?;
    if account.uid != geteuid() && !geteuid().is_root() {
        let reason =
            format!("run `{title}` as `{name}`: the agent is not root and cannot change the user");
        return Err(Failure::new(Cause::Invalid, reason));
    }
    Ok(Some(account))
}

fn environment(given: &[(String, String)], account: Option<&Account>) -> Vec<(OsString, OsString)> {
    let mut environment = vec![(OsString::from("PATH"), OsString::from(DEFAULT_PATH))];
    environment.extend(
        KEPT_ENV
            .iter()
            .filter_map(|key| Some((OsString::from(key), std::env::var_os(key)?))),
    );
    if let Some(account) = account {
        environment.push(("HOME".into(), account.home.clone().into()));
        environment.push(("USER".into(), account.name.clone().into()));
        environment.push(("LOGNAME".into(), account.name.clone().into()));
    }
    environment.extend(given.iter().map(|(key, value)| (key.into(), value.into())));
    environment
}

/// Starts a program in its own process group and returns the reading end of its output.
fn start(
    program: &Program,
    package: &Path,
    environment: &[(OsString, OsString)],
    account: Option<&Account>,
) -> io::Result<(Pid, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    let spawn = |words: &[OsString]| -> io::Result<u32> {
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(package)
            .process_group(0);
        command
            .env_clear()
            .envs(environment.iter().map(|(key, value)| (key, value)));
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer.try_clone()?);
        // Without a change of the user this is one posix_spawn.
        if let Some(account) = account.filter(|account| account.uid != geteuid()) {
            os::run_as(&mut command, account);
        }
        Ok(command.spawn()?.id())
    };
    let id = match (spawn(&program.words), program.read_by_shell()) {
        (Err(error), Some(shell)) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            spawn(&shell.words)?
        }
        (result, _) => result?,
    };
    let pid = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok((pid, reader))
}

/// How a script ended.
enum End {
    Exited(WaitStatus),
    TimedOut { left: usize },
    LeftOpen { holders: Vec<String> },
}

impl End {
    fn mark(&self) -> String {
        match self {
            End::Exited(status) => match status.terminating_signal() {
                Some(signal) => format!("killed by {}", signal_name(signal)),
                None => format!("exit {}", status.exit_status().unwrap_or_default()),
            },
            End::TimedOut { .. } => "timed out".to_owned(),
            End::LeftOpen { .. } => "output left open".to_owned(),
        }
    }

    fn failure(&self, title: &str, timeout: Duration) -> Option<Failure> {
        match self {
            End::Exited(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(0), _) => None,
                (Some(code), _) => {
                    let reason = format!("`{title}` exited with {code}");
                    Some(Failure {
                        exit_code: Some(code),
                        ..Failure::new(Cause::ScriptFailed, reason)
                    })
                }
                (None, signal) => {
                    let signal = signal_name(signal.unwrap_or_default());
                    Some(Failure::new(
                        Cause::ScriptFailed,
                        format!("`{title}` was killed by {signal}"),
                    ))
                }
            },
            End::TimedOut { left } => {
                let mut reason = format!(
                    "`{title}` was ended because it took longer than {}",
                    spoken(timeout)
                );
                if *left > 0 {
                    reason.push_str(&format!(", and {left} of its processes cannot be killed"));
                }
                Some(Failure::new(Cause::TimedOut, reason))
            }
            End::LeftOpen { holders } => {
                let by = match holders.as_slice() {
                    [] => "a process that cannot be seen".to_owned(),
                    [holder] => format!("process {holder}"),
                    holders => format!("processes {}", holders.join(", ")),
                };
                let reason = format!(
                    "`{title}` exited with 0 but {by} still holds its output; let it write to a file or /dev/null"
                );
                Some(Failure {
                    exit_code: Some(0),
                    ..Failure::new(Cause::OutputsLeftOpen, reason)
                })
            }
        }
    }
}

/// A duration as an operator would write it.
fn spoken(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

/// A running script.
struct Watch<'a> {
    child: Pid,
    /// The reading end of its output, while anybody holds the other one.
    output: Option<OwnedFd>,
    status: Option<WaitStatus>,
    /// Processes that it did not start.
    earlier: BTreeSet<Process>,
    events: &'a ChildEvents,
    log: &'a mut Capture,
}

/// What is being waited for, and until when.
#[derive(Clone, Copy)]
enum Phase {
    Running(Instant),
    Draining(Instant),
    Terminating(Instant),
    Killing(Instant),
}

impl Watch<'_> {
    fn until_end(&mut self, started: Instant, timeout: Duration) -> io::Result<End> {
        let announced = started + ANNOUNCEMENT_DELAY;
        let mut phase = Phase::Running(started + timeout);
        let mut children_changed = false;
        loop {
            let now = Instant::now();
            if now >= announced {
                self.log.flush();
            }
            if let (Phase::Running(_) | Phase::Draining(_), Some(status), None) =
                (phase, self.status, &self.output)
            {
                return Ok(End::Exited(status));
            }
            phase = match phase {
                Phase::Running(_) if self.status.is_some() => Phase::Draining(now + OUTPUT_GRACE),
                Phase::Running(until) if now >= until => {
                    self.signal_all(Signal::TERM);
                    Phase::Terminating(now + TERMINATION_GRACE)
                }
                Phase::Draining(until) if now >= until => return self.left_open(),
                Phase::Terminating(until) if now >= until => {
                    self.signal_all(Signal::KILL);
                    Phase::Killing(now + KILL_GRACE)
                }
                Phase::Terminating(_)
                    if children_changed && descendants(&self.earlier).is_empty() =>
                {
                    self.read_rest();
                    return Ok(End::TimedOut { left: 0 });
                }
                Phase::Killing(until) if children_changed || now >= until => {
                    // A process that was being made while the others were killed is found here.
                    let left = self.signal_all(Signal::KILL);
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
            let until = if self.log.is_pending() {
                until.min(announced)
            } else {
                until
            };
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

    /// Signals everything that the script started and is alive, and says how many that are.
    fn signal_all(&self, signal: Signal) -> usize {
        let processes = descendants(&self.earlier);
        for process in &processes {
            process.signal(signal);
        }
        processes.len()
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

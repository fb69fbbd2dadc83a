//! Running a program for a plugin: its two output streams apart, its input from the plugin, its end in time.
//!
//! How it ends is the plugin's to judge, so another exit code than 0 is an answer and no failure. What it started and
//! left running stays, as it does for hooks; what takes too long is ended with everything that it started.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, MemfdFlags, OFlags, access, fcntl_setfl, memfd_create};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use super::place;
use super::{Site, Undone};
use crate::capture::Capture;
use crate::control_group::{ControlGroup, Names};
use crate::descendants::Family;
use crate::environment;
use crate::os::{self, ChildEvents};
use crate::protocol::{ErrandAnswer, Exec, MAX_CONTENT, Why};
use crate::spawn::{self, Start};
use crate::stamp;

/// The longest time-out; a longer one means as much.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Between asking the processes of a program that took too long to end and making them.
const TERMINATION_GRACE: Duration = Duration::from_secs(5);

/// How long killed processes may take to be gone.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long the output may stay open when the program itself has ended.
const OUTPUT_GRACE: Duration = Duration::from_secs(3);

/// The most of a command that the log shows, in characters.
const MAX_TITLE: usize = 200;

/// Runs a program to its end.
pub(super) fn run(
    site: &Site<'_>,
    exec: &Exec,
    groups: &Names,
    log: &mut Capture,
) -> Result<ErrandAnswer, Undone> {
    let title = title(&exec.words);
    log.say(&format!("==> {title} at {}", stamp::now()));
    environment::check(&exec.env).map_err(|failure| Undone::new(Why::Invalid, failure.reason))?;
    let environment = environment::of_script(&exec.env, None);
    let program = program(site, &exec.words, &environment)?;
    let folder = match &exec.folder {
        Some(spot) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            Some(site.open(spot, flags)?)
        }
        None => None,
    };
    let package = site.package.path();
    let place = match &folder {
        Some(folder) => place::through(folder),
        None if package.is_dir() => package,
        None => site.package.root().to_owned(),
    };
    let broken = |doing: &str, errno: Errno| Undone::of_call(doing, errno);
    take_input(&exec.stdin)?;
    let events = ChildEvents::install()
        .map_err(|error| Undone::of_io("prepare to run a program", &error))?;
    let (output, writer) = pipe().map_err(|errno| broken("make a pipe", errno))?;
    let (errors, errors_writer) = pipe().map_err(|errno| broken("make a pipe", errno))?;
    let group = ControlGroup::make(groups, 0);
    let words: Vec<OsString> = [program.into_os_string()]
        .into_iter()
        .chain(exec.words.iter().skip(1).map(OsString::from))
        .collect();
    let started = Instant::now();
    let child = spawn::start(&Start {
        words: &words,
        environment: &environment,
        folder: &place,
        output: writer.as_fd(),
        errors: Some(errors_writer.as_fd()),
        account: None,
        group: group.as_ref().map(AsFd::as_fd),
        domain: None,
    })
    .map_err(|error| not_started(&title, &error))?;
    drop((writer, errors_writer));
    let most = usize::try_from(exec.max_output).unwrap_or(MAX_CONTENT);
    let kept = || Stream::new(most.min(MAX_CONTENT));
    let mut watch = Watch {
        child,
        pipes: [Some(output), Some(errors)],
        streams: [kept(), kept()],
        family: Family {
            earlier: BTreeSet::new(),
            group: group.as_ref(),
        },
        events: &events,
        log,
        status: None,
    };
    let timeout = Duration::from_millis(exec.timeout_ms).min(MAX_TIMEOUT);
    let ended = watch.until_end(started, timeout);
    let Watch { streams, log, .. } = watch;
    let is_in_time = ended.map_err(|error| Undone::of_io("wait for a program", &error))?;
    let took = started.elapsed().as_secs_f64();
    let Some(status) = is_in_time else {
        let reason = format!("`{title}` was ended because it took longer than {timeout:?}");
        return Err(Undone::new(Why::TimedOut, reason));
    };
    let signal = status.terminating_signal();
    let exit_code = status.exit_status().unwrap_or(-1);
    let mark = match signal {
        Some(signal) => format!("killed by {}", crate::ending::signal_name(signal)),
        None => format!("exit {exit_code}"),
    };
    log.say(&format!("<== {mark} in {took:.3}s at {}", stamp::now()));
    let [output, errors] = streams;
    Ok(ErrandAnswer::Exited {
        exit_code,
        signal,
        truncated: output.is_cut || errors.is_cut,
        stdout: output.bytes,
        stderr: errors.bytes,
    })
}

/// One line that names a command.
fn title(words: &[String]) -> String {
    let text = words.join(" ").escape_debug().to_string();
    match text.char_indices().nth(MAX_TITLE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Finds the program's file.
fn program(
    site: &Site<'_>,
    words: &[String],
    environment: &[(OsString, OsString)],
) -> Result<PathBuf, Undone> {
    let Some(word) = words.first().filter(|word| !word.is_empty()) else {
        return Err(Undone::new(Why::Invalid, "the program has no name"));
    };
    if words.iter().any(|word| word.contains('\0')) {
        let reason = "a program's words cannot hold a NUL";
        return Err(Undone::new(Why::Invalid, reason));
    }
    if word.starts_with('/') {
        return Ok(PathBuf::from(word));
    }
    if word.contains('/') {
        return in_package(site, word);
    }
    let path = environment.iter().find(|(key, _)| key == "PATH");
    let folders = path.map(|(_, path)| std::env::split_paths(path).collect::<Vec<_>>());
    let mut files = folders.unwrap_or_default().into_iter();
    let found = files.find_map(|folder| {
        let file = folder.join(word);
        let may = file.is_absolute() && file.is_file() && access(&file, Access::EXEC_OK).is_ok();
        may.then_some(file)
    });
    found.ok_or_else(|| {
        let reason = format!("`{word}` is not on the search path of this instance");
        Undone::new(Why::NotFound, reason)
    })
}

fn in_package(site: &Site<'_>, word: &str) -> Result<PathBuf, Undone> {
    let package = site
        .package
        .open(site.boot)
        .map_err(|error| Undone::new(Why::NotFound, crate::reason::chain(&error)))?;
    let finding = format!("find `{word}` in the package");
    let real = |path: &Path| {
        path.canonicalize()
            .map_err(|error| Undone::of_io(&finding, &error))
    };
    if !place::is_plain(word) || !real(&package.join(word))?.starts_with(real(&package)?) {
        let reason = format!("`{word}` leads out of the package");
        return Err(Undone::new(Why::Denied, reason));
    }
    Ok(package.join(word))
}

fn not_started(title: &str, error: &spawn::Error) -> Undone {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    match (error, source) {
        (spawn::Error::Execute(_), Some(source)) => {
            Undone::of_io(&format!("execute `{title}`"), source)
        }
        _ => Undone::new(
            Why::Failed,
            format!("start `{title}`: {}", crate::reason::chain(error)),
        ),
    }
}

/// Makes these bytes what programs of this process read.
fn take_input(bytes: &[u8]) -> Result<(), Undone> {
    if bytes.is_empty() {
        return Ok(());
    }
    let doing = "keep the program's input";
    let memory = memfd_create(c"stdin", MemfdFlags::CLOEXEC)
        .map_err(|errno| Undone::of_call(doing, errno))?;
    let mut file = File::from(memory);
    file.write_all(bytes)
        .and_then(|()| file.rewind())
        .and_then(|()| os::replace_stdin(&file.into()))
        .map_err(|error| Undone::of_io(doing, &error))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    Ok((reader, writer))
}

/// The beginning of what a program writes to one of its streams.
struct Stream {
    bytes: Vec<u8>,
    most: usize,
    is_cut: bool,
}

impl Stream {
    fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            most,
            is_cut: false,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let room = self.most.saturating_sub(self.bytes.len());
        let fits = bytes.len().min(room);
        self.bytes.extend_from_slice(&bytes[..fits]);
        self.is_cut |= fits < bytes.len();
    }
}

/// A running program.
struct Watch<'a> {
    child: Pid,
    /// The reading ends of its streams, while anybody holds the other ones.
    pipes: [Option<OwnedFd>; 2],
    streams: [Stream; 2],
    family: Family<'a>,
    events: &'a ChildEvents,
    log: &'a mut Capture,
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

impl Watch<'_> {
    /// Waits for the end of the program and of its output. None when it had to be ended.
    fn until_end(
        &mut self,
        started: Instant,
        timeout: Duration,
    ) -> std::io::Result<Option<WaitStatus>> {
        let mut phase = Phase::Running(started + timeout);
        loop {
            let now = Instant::now();
            let is_silent = self.pipes.iter().all(Option::is_none);
            phase = match (phase, self.status) {
                (Phase::Running(_) | Phase::Draining(_), Some(status)) if is_silent => {
                    return Ok(Some(status));
                }
                (Phase::Running(_), Some(_)) => Phase::Draining(now + OUTPUT_GRACE),
                (Phase::Running(until), None) if now >= until => {
                    self.family.terminate();
                    Phase::Terminating(now + TERMINATION_GRACE)
                }
                // What holds the output was left running, and is none of the program's any more.
                (Phase::Draining(until), Some(status)) if now >= until => return Ok(Some(status)),
                (Phase::Terminating(until), _) if now >= until => {
                    self.family.kill();
                    Phase::Killing(now + KILL_GRACE)
                }
                (Phase::Terminating(_), Some(_)) if self.family.living().is_empty() => {
                    return Ok(None);
                }
                (Phase::Killing(until), _) if self.family.kill() == 0 || now >= until => {
                    return Ok(None);
                }
                (phase, _) => phase,
            };
            let (Phase::Running(until)
            | Phase::Draining(until)
            | Phase::Terminating(until)
            | Phase::Killing(until)) = phase;
            self.wait(until)?;
        }
    }

    fn wait(&mut self, until: Instant) -> std::io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(self.events, PollFlags::IN)];
        let pipes = self.pipes.iter().flatten();
        fds.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
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
        self.read();
        Ok(())
    }

    /// Takes in what there is, so that what is logged is there before the program's end is.
    fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        for (pipe, stream) in self.pipes.iter_mut().zip(&mut self.streams) {
            let Some(open) = pipe else { continue };
            match rustix::io::read(&*open, &mut buffer) {
                Ok(length @ 1..) => {
                    self.log.feed(&buffer[..length]);
                    stream.feed(&buffer[..length]);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(_) | Err(_) => *pipe = None,
            }
        }
        self.log.flush();
    }
}

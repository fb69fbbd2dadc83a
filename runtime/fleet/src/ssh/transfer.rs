//! Sending a package to a host: a session of its own on the host's connection, taken up again where it broke.
//!
//! No more of the stream is on its way than the host takes in within about a second, so that commands for the same
//! host are not held up behind it, and a slow link is not taken for a dead one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::protocol;
use agent::receive::{Offer, Reply};
use agent::stream::{Outgoing, Position};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::client::{Role, quoted};
use super::dial::pause;
use super::hosts::Reached;
use crate::LogSink;
use crate::process::{Process, read_if_open};

/// A part of the stream as it is read from the disk, in bytes.
const PART: usize = 64 << 10;

/// The bounds of what may be on its way, in bytes.
const LEAST_WINDOW: u64 = 128 << 10;
const MOST_WINDOW: u64 = 8 << 20;

/// How much of the stream may be on its way, as the time that the host takes to take it in.
const WINDOW: Duration = Duration::from_secs(1);

/// How long a host may be busy with what it has, for example with copying a package from another instance.
const MAX_SILENCE: Duration = Duration::from_secs(600);

/// What comes before the first reply, and after whatever a login shell's start-up files print.
const GREETING: &str = "cutover:receive";

/// How much they may print, in bytes.
const MAX_NOISE: usize = 64 << 10;

/// A package for an instance.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) rootdir: String,
    pub(crate) cache: String,
    pub(crate) digest: String,
    /// The unpacked package on this machine.
    pub(crate) source: PathBuf,
}

/// Why a package is not on a host.
#[derive(Debug)]
pub(crate) enum NotSent {
    /// It cannot be there.
    Failed(String),
    /// The host does not answer.
    Unreachable(String),
}

/// How one session ended.
enum End {
    /// The package is in the instance's cache.
    Present,
    /// It is on the host, under this path.
    Received(String),
    /// It will not be there.
    Failed(String),
    /// The connection broke, or what arrived was not what was sent.
    Broken { reason: String, taken: u64 },
}

/// Sends a package unless it is there; where it is then, unless it is in the instance's cache.
pub(crate) async fn send(
    host: &Reached,
    package: &Package,
    log: &dyn LogSink,
) -> Result<Option<String>, NotSent> {
    let tries = host.ssh.settings.retries.saturating_add(1);
    let mut tried = 1;
    loop {
        let link = host.link().await;
        let link = link.map_err(|error| NotSent::Unreachable(error.reason))?;
        let outgoing = open(package).await?;
        let offer = Offer {
            rootdir: package.rootdir.clone(),
            cache: package.cache.clone(),
            digest: package.digest.clone(),
            bytes: outgoing.bytes(),
            siblings: host.holders(&package.digest),
        };
        let sudo = if host.ssh.settings.sudo {
            "sudo -n -- "
        } else {
            ""
        };
        let line = format!(
            "echo {GREETING} && exec {sudo}{} receive",
            quoted(&link.agent)
        );
        let mut command = host
            .shared
            .client
            .command(&host.ssh, Role::Guest, &link.control, &line);
        let started = Process::start(command.process_group(0));
        let mut process =
            started.map_err(|error| NotSent::Unreachable(format!("start ssh: {error}")))?;
        let (reason, taken) = match session(&mut process, &offer, outgoing).await {
            End::Present => return Ok(None),
            End::Received(path) => return Ok(Some(path)),
            End::Failed(reason) => return Err(NotSent::Failed(reason)),
            End::Broken { reason, taken } => (reason, taken),
        };
        let obituary = process.obituary().await;
        let reason = match obituary.last_line() {
            Some(line) => format!("{reason}: {line}"),
            None => reason,
        };
        // A link that brings the package a piece further each time gets there.
        if taken > 0 {
            tried = 1;
        } else if tried >= tries {
            let reason = format!(
                "send the package to `{}`, {tried} times: {reason}",
                host.ssh.address
            );
            return Err(NotSent::Unreachable(reason));
        } else {
            tried += 1;
        }
        tracing::warn!(host = %host.ssh.address, %reason, taken, "a transfer broke off and will go on");
        log.waiting(&format!(
            "`{}` to take the package: {reason}",
            host.ssh.address
        ));
        tokio::time::sleep(pause(tried)).await;
    }
}

/// Looks at the package, off the async threads.
async fn open(package: &Package) -> Result<Outgoing, NotSent> {
    let source = package.source.clone();
    let opened = tokio::task::spawn_blocking(move || Outgoing::of(&source)).await;
    match opened {
        Ok(Ok(outgoing)) => Ok(outgoing),
        Ok(Err(error)) => Err(NotSent::Failed(chain(&error))),
        Err(error) => Err(NotSent::Failed(format!("read the package: {error}"))),
    }
}

async fn session(process: &mut Process, offer: &Offer, outgoing: Outgoing) -> End {
    let mut sending = Sending {
        window: Window::new(),
        waiting: protocol::encode(offer),
        parts: None,
        sent: 0,
        source: Some(outgoing),
        noise: Some(0),
    };
    loop {
        match sending.replies(&mut process.unread) {
            Ok(Some(end)) => return end,
            Ok(None) => {}
            Err(reason) => {
                return End::Broken {
                    reason,
                    taken: sending.window.taken,
                };
            }
        }
        match tokio::time::timeout(MAX_SILENCE, sending.next(process)).await {
            Ok(Ok(())) => {}
            Ok(Err(Over::Failed(reason))) => return End::Failed(reason),
            Ok(Err(Over::Broken(reason))) => {
                return End::Broken {
                    reason,
                    taken: sending.window.taken,
                };
            }
            Err(_) => {
                return End::Broken {
                    reason: format!("no answer within {} s", MAX_SILENCE.as_secs()),
                    taken: sending.window.taken,
                };
            }
        }
    }
}

/// Why there is nothing more to wait for.
enum Over {
    Failed(String),
    Broken(String),
}

struct Sending {
    window: Window,
    /// What is to be written next.
    waiting: Vec<u8>,
    /// Parts of the stream as they are read, once it is known where it begins.
    parts: Option<mpsc::Receiver<Result<Vec<u8>, String>>>,
    /// How much of the stream was handed on.
    sent: u64,
    source: Option<Outgoing>,
    /// How much was said that is no reply, until the greeting.
    noise: Option<usize>,
}

impl Sending {
    /// Waits for one thing to happen.
    async fn next(&mut self, process: &mut Process) -> Result<(), Over> {
        let broken = |error: std::io::Error| Over::Broken(error.to_string());
        let may_send = self.window.has_room(self.sent);
        let Process {
            stdin,
            stdout,
            stderr,
            unread,
            last_words,
            ..
        } = process;
        tokio::select! {
            result = stdout.read_buf(unread) => match result {
                Ok(1..) => {}
                Ok(0) => return Err(Over::Broken("the connection broke".to_owned())),
                Err(error) => return Err(broken(error)),
            },
            result = stdin.write(&self.waiting), if !self.waiting.is_empty() => {
                let length = result.map_err(broken)?;
                self.waiting.drain(..length);
            }
            part = next_part(&mut self.parts), if self.waiting.is_empty() && may_send && self.parts.is_some() => match part {
                Some(Ok(part)) => {
                    self.sent += part.len() as u64;
                    self.waiting = part;
                }
                Some(Err(reason)) => return Err(Over::Failed(reason)),
                None => self.parts = None,
            },
            result = read_if_open(stderr, last_words), if stderr.is_some() => {
                process.note_last_words(result);
            }
        }
        Ok(())
    }

    /// Takes in the whole replies among what was read; the end, when it is among them.
    fn replies(&mut self, unread: &mut Vec<u8>) -> Result<Option<End>, String> {
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            if let Some(noise) = self.noise {
                let is_greeting = line.trim_ascii_end().ends_with(GREETING.as_bytes());
                self.noise = (!is_greeting).then_some(noise + line.len());
                continue;
            }
            let reply = protocol::decode::<Reply>(&line)
                .map_err(|error| format!("the agent is not understood: {error}"))?;
            match reply {
                Reply::Present => return Ok(Some(End::Present)),
                Reply::Received { path } => return Ok(Some(End::Received(path))),
                Reply::Refused { reason } => return Ok(Some(End::Failed(reason))),
                Reply::Spoiled { reason } => {
                    return Ok(Some(End::Broken { reason, taken: 0 }));
                }
                Reply::Taken { bytes } => self.window.note_taken(bytes, Instant::now()),
                Reply::Send { position } => self.begin(position),
            }
        }
        if self.noise.is_some_and(|noise| noise > MAX_NOISE) {
            return Err("the login shell prints without an end".to_owned());
        }
        if unread.len() > protocol::MAX_LINE {
            return Err("the agent writes a line without an end".to_owned());
        }
        Ok(None)
    }

    /// Begins to read the stream, on a thread of its own that is never far ahead.
    fn begin(&mut self, position: Position) {
        let Some(mut outgoing) = self.source.take() else {
            return;
        };
        outgoing.skip_to(position);
        let (parts, waiting) = mpsc::channel(2);
        // Not joined: it ends with the stream, or when nobody takes its parts.
        tokio::task::spawn_blocking(move || {
            loop {
                let mut part = vec![0; PART];
                let part = match outgoing.read(&mut part) {
                    Ok(0) => return,
                    Ok(length) => {
                        part.truncate(length);
                        Ok(part)
                    }
                    Err(error) => Err(chain(&error)),
                };
                let is_last = part.is_err();
                if parts.blocking_send(part).is_err() || is_last {
                    return;
                }
            }
        });
        self.parts = Some(waiting);
        self.window.begin(Instant::now());
    }
}

async fn next_part(
    parts: &mut Option<mpsc::Receiver<Result<Vec<u8>, String>>>,
) -> Option<Result<Vec<u8>, String>> {
    match parts {
        Some(parts) => parts.recv().await,
        None => None,
    }
}

/// How much of the stream may be on its way.
struct Window {
    size: u64,
    taken: u64,
    /// When the speed was last measured, and what had been taken by then.
    measured: Instant,
    taken_then: u64,
}

impl Window {
    fn new() -> Self {
        Self {
            size: LEAST_WINDOW,
            taken: 0,
            measured: Instant::now(),
            taken_then: 0,
        }
    }

    fn begin(&mut self, now: Instant) {
        self.measured = now;
    }

    fn has_room(&self, sent: u64) -> bool {
        sent.saturating_sub(self.taken) < self.size
    }

    /// Takes note of what the host has taken in, and fits the window to its speed.
    fn note_taken(&mut self, bytes: u64, now: Instant) {
        self.taken = bytes;
        let span = now.saturating_duration_since(self.measured);
        let gained = bytes.saturating_sub(self.taken_then);
        // Long enough to be a measure, and not before a whole window has gone through.
        if gained < self.size && span < WINDOW {
            return;
        }
        let speed = gained as f64 / span.as_secs_f64().max(0.001);
        let wanted = (speed * WINDOW.as_secs_f64()) as u64;
        self.size = wanted.clamp(LEAST_WINDOW, MOST_WINDOW);
        self.measured = now;
        self.taken_then = bytes;
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window after some seconds over a link that takes so many bytes a second, with so long a way.
    fn settled(speed: u64, way: Duration) -> u64 {
        let begun = Instant::now();
        let mut window = Window::new();
        window.begin(begun);
        let (mut now, mut taken) = (begun, 0);
        for _ in 0..1000 {
            // What is on its way arrives, but not faster than the link goes.
            let step = Duration::from_millis(50);
            let most = (speed as f64 * step.as_secs_f64()) as u64;
            let carried = (window.size as f64 * step.as_secs_f64() / way.as_secs_f64()) as u64;
            taken += most.min(carried);
            now += step;
            window.note_taken(taken, now);
        }
        window.size
    }

    #[test]
    fn what_is_on_its_way_fits_the_link() {
        let way = Duration::from_millis(100);
        assert_eq!(settled(10_000, way), LEAST_WINDOW);
        let middling = settled(1_000_000, way);
        assert!((700_000..1_500_000).contains(&middling), "{middling}");
        assert_eq!(settled(1_000_000_000, way), MOST_WINDOW);
    }

    #[test]
    fn a_full_window_waits() {
        let mut window = Window::new();
        assert!(window.has_room(LEAST_WINDOW - 1));
        assert!(!window.has_room(LEAST_WINDOW));
        window.taken = 1;
        assert!(window.has_room(LEAST_WINDOW));
    }
}

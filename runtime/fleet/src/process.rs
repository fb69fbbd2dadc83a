//! A running agent, or the program that leads to it, and its pipes.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::connection::Link;

/// How much of what a dying agent says is kept.
const MAX_LAST_WORDS: usize = 4 << 10;

/// How long an agent whose pipes are closed may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// A running agent.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: Option<ChildStderr>,
    /// What was read and not taken in.
    pub(crate) unread: Vec<u8>,
    pub(crate) last_words: Vec<u8>,
    /// How others get to the same host, where that is not by starting a program here.
    pub(crate) link: Link,
}

/// What is known of an agent's death.
#[derive(Debug)]
pub(crate) struct Obituary {
    pub(crate) status: Option<ExitStatus>,
    /// What it said on stderr.
    pub(crate) last_words: String,
}

impl Process {
    /// Starts a program. Ctrl-C in the terminal is for the conductor alone: an agent begins a session of its own, and any
    /// other program is to be given a process group of its own.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), stderr) => Ok(Self {
                child,
                stdin,
                stdout,
                stderr,
                unread: Vec::new(),
                last_words: Vec::new(),
                link: Link::default(),
            }),
            _ => Err(io::Error::other("it has no pipes")),
        }
    }

    pub(crate) fn note_last_words(&mut self, result: io::Result<usize>) {
        if !matches!(result, Ok(1..)) {
            self.stderr = None;
        }
        let surplus = self.last_words.len().saturating_sub(MAX_LAST_WORDS);
        self.last_words.drain(..surplus);
    }

    /// Lets the agent end.
    pub(crate) async fn end(self) {
        let Self {
            mut child,
            stdin,
            stdout,
            ..
        } = self;
        drop((stdin, stdout));
        // One that does not end in time is waited for by the runtime.
        let _ = tokio::time::timeout(FAREWELL, child.wait()).await;
    }

    /// What is known of an agent's death.
    pub(crate) async fn obituary(mut self) -> Obituary {
        let last_words = async {
            while self.stderr.is_some() {
                let result = read_if_open(&mut self.stderr, &mut self.last_words).await;
                self.note_last_words(result);
            }
        };
        // Somebody else may hold its stderr for ever.
        let _ = tokio::time::timeout(FAREWELL, last_words).await;
        let last_words = String::from_utf8_lossy(&self.last_words).into_owned();
        let Self {
            mut child,
            stdin,
            stdout,
            ..
        } = self;
        drop((stdin, stdout));
        let status = match tokio::time::timeout(FAREWELL, child.wait()).await {
            Ok(Ok(status)) => Some(status),
            Ok(Err(_)) | Err(_) => None,
        };
        Obituary { status, last_words }
    }
}

impl Obituary {
    /// The last line that it said.
    pub(crate) fn last_line(&self) -> Option<&str> {
        self.last_words
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
    }
}

/// Reads from a pipe that may be closed, which is not to be waited for.
pub(crate) async fn read_if_open(
    stderr: &mut Option<ChildStderr>,
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    match stderr {
        Some(stderr) => stderr.read_buf(buffer).await,
        None => Ok(0),
    }
}

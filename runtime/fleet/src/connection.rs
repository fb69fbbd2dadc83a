//! One agent process and everything that is in flight on its pipes.
//!
//! [`Connection::drive`] owns all of it in one task. An agent that dies is started again and given everything that
//! has no ending yet; what has been given to two agents that died is reported as unreachable.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agent::protocol::{self, Answer, Cached, Request, Run};
use model::{Cause, Ending};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use crate::{LogSink, Unreachable, wire};

/// No more orders are taken while this many bytes wait to be written to the agent.
const MAX_UNWRITTEN: usize = 1 << 20;

/// How much of what a dying agent says is kept.
const MAX_LAST_WORDS: usize = 4 << 10;

/// How many agents may die over one order.
const MAX_DEATHS: u32 = 2;

/// How long an agent whose pipes are closed may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is asked of a connection.
pub(crate) enum Order {
    Run {
        run: Run,
        log: Arc<dyn LogSink>,
        reply: oneshot::Sender<Ending>,
    },
    Cached {
        rootdir: String,
        caches: Vec<String>,
        reply: oneshot::Sender<Result<Vec<String>, Unreachable>>,
    },
}

/// An attempt without an ending.
struct Flight {
    run: Run,
    log: Arc<dyn LogSink>,
    reply: oneshot::Sender<Ending>,
    deaths: u32,
}

/// A question without an answer.
struct Question {
    request: Cached,
    reply: oneshot::Sender<Result<Vec<String>, Unreachable>>,
    deaths: u32,
}

pub(crate) struct Connection {
    command: Vec<OsString>,
    orders: mpsc::Receiver<Order>,
    flights: BTreeMap<String, Flight>,
    questions: BTreeMap<u64, Question>,
    asked: u64,
    /// Lines for the agent that are not written yet.
    unwritten: Vec<u8>,
}

/// A running agent.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    unread: Vec<u8>,
    last_words: Vec<u8>,
}

/// Something that happened.
enum Input {
    Ordered(Box<Order>),
    /// Nobody can order anything any more.
    Abandoned,
    Written(io::Result<usize>),
    Read(io::Result<usize>),
    Said(io::Result<usize>),
}

/// Why a session with one agent is over.
enum Over {
    Abandoned,
    Died(String),
}

impl Connection {
    pub(crate) fn new(command: Vec<OsString>, orders: mpsc::Receiver<Order>) -> Self {
        Self {
            command,
            orders,
            flights: BTreeMap::new(),
            questions: BTreeMap::new(),
            asked: 0,
            unwritten: Vec::new(),
        }
    }

    /// Serves orders until nobody can give any.
    pub(crate) async fn drive(mut self) {
        loop {
            if self.flights.is_empty() && self.questions.is_empty() {
                match self.orders.recv().await {
                    Some(order) => self.take(order),
                    None => return,
                }
            }
            // What an earlier agent did not read is among what is sent again.
            self.unwritten.clear();
            self.send_all();
            let mut process = match Process::start(&self.command) {
                Ok(process) => process,
                Err(error) => {
                    self.give_up(&error.to_string(), 0);
                    continue;
                }
            };
            match self.session(&mut process).await {
                Over::Abandoned => return process.end().await,
                Over::Died(reason) => {
                    let reason = format!("{reason}{}", process.obituary().await);
                    tracing::warn!(%reason, "local agent died");
                    self.give_up(&reason, MAX_DEATHS);
                }
            }
        }
    }

    async fn session(&mut self, process: &mut Process) -> Over {
        loop {
            let input = self.next_input(process).await;
            let over = match input {
                Input::Ordered(order) => {
                    let line = self.line_for(*order);
                    self.unwritten.extend_from_slice(&line);
                    None
                }
                Input::Abandoned => Some(Over::Abandoned),
                Input::Written(Ok(length)) => {
                    self.unwritten.drain(..length);
                    None
                }
                Input::Written(Err(error)) => {
                    Some(Over::Died(format!("the agent does not listen: {error}")))
                }
                Input::Read(Ok(0)) => Some(Over::Died("the agent ended".to_owned())),
                Input::Read(Ok(_)) => self.read_lines(&mut process.unread).err().map(Over::Died),
                Input::Read(Err(error)) => {
                    Some(Over::Died(format!("the agent cannot be read: {error}")))
                }
                Input::Said(result) => {
                    process.note_last_words(result);
                    None
                }
            };
            if let Some(over) = over {
                return over;
            }
        }
    }

    async fn next_input(&mut self, process: &mut Process) -> Input {
        let Process {
            stdin,
            stdout,
            stderr,
            unread,
            last_words,
            ..
        } = process;
        unread.reserve(64 << 10);
        tokio::select! {
            result = stdout.read_buf(unread) => Input::Read(result),
            result = stdin.write(&self.unwritten), if !self.unwritten.is_empty() => Input::Written(result),
            order = self.orders.recv(), if self.unwritten.len() < MAX_UNWRITTEN => match order {
                Some(order) => Input::Ordered(Box::new(order)),
                None => Input::Abandoned,
            },
            result = read_if_open(stderr, last_words), if stderr.is_some() => Input::Said(result),
        }
    }

    /// Keeps an order without sending it.
    fn take(&mut self, order: Order) {
        self.line_for(order);
    }

    /// Keeps an order and returns the line that sends it.
    fn line_for(&mut self, order: Order) -> Vec<u8> {
        match order {
            Order::Run { run, log, reply } => {
                let id = run.attempt.clone();
                let flight = Flight {
                    run,
                    log,
                    reply,
                    deaths: 0,
                };
                let line = flight.line();
                self.flights.insert(id, flight);
                line
            }
            Order::Cached {
                rootdir,
                caches,
                reply,
            } => {
                self.asked += 1;
                let question = Question {
                    request: Cached {
                        ask: self.asked,
                        rootdir,
                        caches,
                    },
                    reply,
                    deaths: 0,
                };
                let line = question.line();
                self.questions.insert(self.asked, question);
                line
            }
        }
    }

    fn send_all(&mut self) {
        for flight in self.flights.values() {
            self.unwritten.extend_from_slice(&flight.line());
        }
        for question in self.questions.values() {
            self.unwritten.extend_from_slice(&question.line());
        }
    }

    /// Counts a death over everything in flight and gives up what has seen as many as it may.
    fn give_up(&mut self, reason: &str, limit: u32) {
        let given_up = |deaths: &mut u32| {
            *deaths += 1;
            *deaths >= limit
        };
        for (_, flight) in self
            .flights
            .extract_if(.., |_, flight| given_up(&mut flight.deaths))
        {
            // Whoever asked may have stopped waiting.
            let _ = flight.reply.send(Ending::Unreachable {
                reason: reason.to_owned(),
            });
        }
        for (_, question) in self
            .questions
            .extract_if(.., |_, question| given_up(&mut question.deaths))
        {
            let _ = question.reply.send(Err(Unreachable {
                reason: reason.to_owned(),
            }));
        }
    }

    /// Takes in the whole lines of what was read and leaves the rest.
    fn read_lines(&mut self, unread: &mut Vec<u8>) -> Result<(), String> {
        let Some(end) = unread.iter().rposition(|byte| *byte == b'\n') else {
            let is_bounded = unread.len() <= protocol::MAX_LINE;
            return if is_bounded {
                Ok(())
            } else {
                Err("the agent writes a line without an end".to_owned())
            };
        };
        for line in unread[..end].split(|byte| *byte == b'\n') {
            let answer = protocol::decode(line)
                .map_err(|error| format!("the agent is not understood: {error}"))?;
            self.hear(answer);
        }
        unread.drain(..=end);
        Ok(())
    }

    fn hear(&mut self, answer: Answer) {
        match answer {
            Answer::Log {
                attempt,
                offset,
                text,
            } => {
                if let Some(flight) = self.flights.get(&attempt) {
                    flight.append(offset, text.as_bytes());
                }
            }
            Answer::Ended { attempt, outcome } => self.end(&attempt, wire::ending(outcome)),
            Answer::Cached { ask, caches } => {
                if let Some(question) = self.questions.remove(&ask) {
                    // Whoever asked may have stopped waiting.
                    let _ = question.reply.send(Ok(caches));
                }
            }
            Answer::Refused {
                attempt: Some(attempt),
                reason,
                ..
            } => {
                self.end(
                    &attempt,
                    Ending::Failed {
                        cause: Cause::Invalid,
                        reason,
                        script: None,
                        exit_code: None,
                        log: None,
                    },
                );
            }
            Answer::Refused {
                ask: Some(ask),
                reason,
                ..
            } => {
                if let Some(question) = self.questions.remove(&ask) {
                    let _ = question.reply.send(Err(Unreachable { reason }));
                }
            }
            Answer::Refused { reason, .. } => {
                tracing::warn!(%reason, "local agent refused a message");
            }
            // Nothing that this side asks for is answered so.
            Answer::Installed { ask, .. } | Answer::Pong { ask } => {
                tracing::warn!(ask, "local agent answered an unknown question");
            }
        }
    }

    fn end(&mut self, attempt: &str, ending: Ending) {
        if let Some(flight) = self.flights.remove(attempt) {
            // Whoever asked may have stopped waiting.
            let _ = flight.reply.send(ending);
        }
    }
}

impl Flight {
    fn line(&self) -> Vec<u8> {
        let run = Run {
            log_from: self.log.position(),
            ..self.run.clone()
        };
        protocol::encode(&Request::Run(run))
    }

    /// Hands on what the sink does not have.
    fn append(&self, offset: u64, bytes: &[u8]) {
        let known =
            usize::try_from(self.log.position().saturating_sub(offset)).unwrap_or(usize::MAX);
        if let Some(fresh @ [_, ..]) = bytes.get(known..) {
            self.log.append(offset + known as u64, fresh);
        }
    }
}

impl Question {
    fn line(&self) -> Vec<u8> {
        protocol::encode(&Request::Cached(self.request.clone()))
    }
}

impl Process {
    fn start(command: &[OsString]) -> Result<Self, Unreachable> {
        let unreachable = |reason: String| Unreachable { reason };
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| unreachable("no agent command is given".to_owned()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                unreachable(format!(
                    "start the agent `{}`: {error}",
                    program.to_string_lossy()
                ))
            })?;
        match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), stderr) => Ok(Self {
                child,
                stdin,
                stdout,
                stderr,
                unread: Vec::new(),
                last_words: Vec::new(),
            }),
            _ => Err(unreachable("the agent has no pipes".to_owned())),
        }
    }

    fn note_last_words(&mut self, result: io::Result<usize>) {
        if !matches!(result, Ok(1..)) {
            self.stderr = None;
        }
        let surplus = self.last_words.len().saturating_sub(MAX_LAST_WORDS);
        self.last_words.drain(..surplus);
    }

    /// Lets the agent end.
    async fn end(self) {
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

    /// What is known of an agent's death, to be put behind what is known already.
    async fn obituary(mut self) -> String {
        let last_words = async {
            while self.stderr.is_some() {
                let result = read_if_open(&mut self.stderr, &mut self.last_words).await;
                self.note_last_words(result);
            }
        };
        // Somebody else may hold its stderr for ever.
        let _ = tokio::time::timeout(FAREWELL, last_words).await;
        let said = String::from_utf8_lossy(&self.last_words).into_owned();
        let Self {
            mut child,
            stdin,
            stdout,
            ..
        } = self;
        drop((stdin, stdout));
        let mut obituary = match tokio::time::timeout(FAREWELL, child.wait()).await {
            Ok(Ok(status)) => format!(" ({status})"),
            Ok(Err(_)) | Err(_) => String::new(),
        };
        if let Some(line) = said.lines().rev().find(|line| !line.trim().is_empty()) {
            obituary.push_str(": ");
            obituary.push_str(line.trim());
        }
        obituary
    }
}

async fn read_if_open(stderr: &mut Option<ChildStderr>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    match stderr {
        Some(stderr) => stderr.read_buf(buffer).await,
        None => Ok(0),
    }
}

//! One agent process and everything that is in flight on its pipes.
//!
//! [`Connection::drive`] owns all of it in one task. How an agent is started is a [`Launch`]'s to know. An agent that dies is
//! started again and given everything that has no ending yet; what has been given to too many agents that died is reported
//! as unreachable. A link that breaks is no death: what was given is still being done at the other end.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent::protocol::{self, Answer, Cached, Inspect, Ping, Request, Run};
use model::{Cause, Done, Ending, Undone, Why};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::process::{Process, read_if_open};
use crate::{BoxFuture, Command, Condition, DROPPED, LogSink, Unreachable, wire};

/// Orders that wait to be looked at.
const MAX_WAITING: usize = 256;

/// No more orders are taken while this many bytes wait to be written to the agent.
const MAX_UNWRITTEN: usize = 1 << 20;

/// How long an agent that has something to do may be silent before it is asked whether it is there, and how long it
/// may take to answer that.
pub(crate) const MAX_SILENCE: Duration = Duration::from_secs(30);

/// A link that breaks sooner than this, and over which nothing was heard, counts as a death.
const SHORT_LIVED: Duration = Duration::from_secs(10);

/// Why a question has no answer that was answered as if it were another one.
const MISTAKEN: &str = "the agent answered another question than it was asked";

/// Starts agents.
pub(crate) trait Launch: Send + 'static {
    /// What the agent is called in messages.
    fn name(&self) -> &str;

    /// Starts an agent, or gives up. What is waited for meanwhile is told.
    fn launch(
        &mut self,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> impl Future<Output = Result<Process, Unreachable>> + Send;

    /// How many agents may die over one order.
    fn max_deaths(&self) -> u32;

    /// Whether the program that ended so was only the way to an agent, which may live on.
    fn is_broken_link(&self, status: Option<ExitStatus>) -> bool;

    /// How long an agent may be silent.
    fn max_silence(&self) -> Duration {
        MAX_SILENCE
    }
}

/// How others get to the host of a running agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The agent's file on the host.
    pub(crate) agent: String,
    /// The socket of the connection that others share.
    pub(crate) control: PathBuf,
}

/// Gives orders to a connection, which begins with the first one.
pub(crate) struct Handle<L> {
    orders: mpsc::Sender<Order>,
    starter: Arc<Mutex<Option<Connection<L>>>>,
}

impl<L: Launch> Handle<L> {
    pub(crate) fn new(launch: L) -> Self {
        let (orders, waiting) = mpsc::channel(MAX_WAITING);
        let connection = Connection {
            launch,
            orders: waiting,
            flights: BTreeMap::new(),
            questions: BTreeMap::new(),
            links: Vec::new(),
            asked: 0,
            unwritten: Vec::new(),
        };
        Self {
            orders,
            starter: Arc::new(Mutex::new(Some(connection))),
        }
    }

    /// Sends an order and waits for its answer; none when the handle was dropped before it came.
    pub(crate) fn order<T: Send + 'static>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let order = order(reply);
        let orders = self.orders.clone();
        let starter = Arc::clone(&self.starter);
        async move {
            let connection = starter
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(connection) = connection {
                // Not joined: it ends with the last sender, and nothing depends on when it does.
                tokio::spawn(connection.drive());
            }
            let sent = orders.send(order).await;
            // A sender that is kept while waiting would keep the agent alive when the handle is dropped.
            drop(orders);
            sent.ok()?;
            answer.await.ok()
        }
    }
}

impl<L: Launch> Handle<L> {
    /// See [`crate::Fleet::join`].
    pub(crate) fn join(
        &self,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Option<Ending>> {
        let run = match wire::request(command) {
            Ok(run) => Box::new(Run { join: true, ..run }),
            // What cannot be said has not been asked for.
            Err(_) => return Box::pin(std::future::ready(None)),
        };
        let found = self.order(|reply| Order::Run {
            run,
            log,
            reply: Waiter::Join(reply),
        });
        Box::pin(async move {
            found.await.unwrap_or_else(|| {
                Some(Ending::Unreachable {
                    reason: DROPPED.to_owned(),
                })
            })
        })
    }
}

/// What is asked of a connection.
pub(crate) enum Order {
    Run {
        run: Box<Run>,
        log: Arc<dyn LogSink>,
        reply: Waiter,
    },
    Cached {
        rootdir: String,
        caches: Vec<String>,
        reply: oneshot::Sender<Result<Vec<String>, Unreachable>>,
    },
    Inspect {
        question: Inspect,
        reply: oneshot::Sender<Result<Condition, Unreachable>>,
    },
    /// Asks for the way to the agent's host, as soon as there is one.
    Link {
        reply: oneshot::Sender<Result<Link, Unreachable>>,
    },
}

/// Who waits for the end of an attempt. Whoever asked may have stopped waiting.
pub(crate) enum Waiter {
    Ending(oneshot::Sender<Ending>),
    /// Who began nothing itself: none when nobody else has.
    Join(oneshot::Sender<Option<Ending>>),
    Errand(oneshot::Sender<Result<Done, Undone>>),
}

impl Waiter {
    fn tell(self, outcome: protocol::Outcome) {
        match self {
            Waiter::Ending(reply) => drop(reply.send(wire::ending(outcome))),
            Waiter::Join(reply) => drop(reply.send(Some(wire::ending(outcome)))),
            Waiter::Errand(reply) => drop(reply.send(wire::done(outcome))),
        }
    }

    /// Says that the attempt has not begun, to whoever asked whether it has.
    fn unbegun(self) {
        match self {
            Waiter::Join(reply) => drop(reply.send(None)),
            other => other.unreachable(MISTAKEN.to_owned()),
        }
    }

    fn refuse(self, reason: String) {
        match self {
            Waiter::Ending(reply) => drop(reply.send(Ending::Failed {
                cause: Cause::Invalid,
                reason,
                script: None,
                exit_code: None,
                log: None,
            })),
            // Nothing has happened.
            Waiter::Join(reply) => drop(reply.send(None)),
            Waiter::Errand(reply) => drop(reply.send(Err(Undone::new(Why::Invalid, reason)))),
        }
    }

    fn unreachable(self, reason: String) {
        match self {
            Waiter::Ending(reply) => drop(reply.send(Ending::Unreachable { reason })),
            Waiter::Join(reply) => drop(reply.send(Some(Ending::Unreachable { reason }))),
            Waiter::Errand(reply) => drop(reply.send(Err(Undone::new(Why::Unreachable, reason)))),
        }
    }
}

/// An attempt without an ending.
struct Flight {
    /// It is fresh at most until it is first sent.
    run: Box<Run>,
    log: Arc<dyn LogSink>,
    reply: Waiter,
    deaths: u32,
}

/// An order that is kept until it is answered.
enum Kept {
    /// By its attempt.
    Flight(String),
    /// By its number.
    Question(u64),
}

/// A question without an answer.
struct Question {
    request: Request,
    reply: Reply,
    deaths: u32,
}

/// Where the answer to a question goes. Whoever asked may have stopped waiting.
enum Reply {
    Cached(oneshot::Sender<Result<Vec<String>, Unreachable>>),
    Inspected(oneshot::Sender<Result<Condition, Unreachable>>),
}

impl Reply {
    fn unreachable(self, reason: String) {
        let unreachable = Unreachable { reason };
        match self {
            Reply::Cached(reply) => drop(reply.send(Err(unreachable))),
            Reply::Inspected(reply) => drop(reply.send(Err(unreachable))),
        }
    }
}

pub(crate) struct Connection<L> {
    launch: L,
    orders: mpsc::Receiver<Order>,
    flights: BTreeMap<String, Flight>,
    questions: BTreeMap<u64, Question>,
    links: Vec<oneshot::Sender<Result<Link, Unreachable>>>,
    asked: u64,
    /// Lines for the agent that are not written yet.
    unwritten: Vec<u8>,
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

/// How long nothing has been heard.
struct Silence {
    limit: Duration,
    until: tokio::time::Instant,
    asked: bool,
}

impl Silence {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            until: tokio::time::Instant::now() + limit,
            asked: false,
        }
    }

    fn break_off(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Begins the wait for the answer to a question.
    fn ask(&mut self) {
        self.break_off();
        self.asked = true;
    }

    fn is_asked(&self) -> bool {
        self.asked
    }
}

/// Why a session with one agent is over.
enum Over {
    Abandoned,
    /// The agent is there and does not answer. It has been killed.
    Hung {
        reason: String,
    },
    Died {
        reason: String,
        /// Whether the agent said anything before.
        heard: bool,
    },
}

impl<L: Launch> Connection<L> {
    /// Serves orders until nobody can give any.
    async fn drive(mut self) {
        loop {
            if self.is_idle() {
                match self.orders.recv().await {
                    Some(order) => drop(self.take(order)),
                    None => return,
                }
            }
            let launched = {
                let Self {
                    launch, flights, ..
                } = &mut self;
                let tell = |what: &str| {
                    for flight in flights.values() {
                        flight.log.waiting(what);
                    }
                };
                launch.launch(&tell).await
            };
            // What was ordered meanwhile has waited for the same agent.
            while let Ok(order) = self.orders.try_recv() {
                self.take(order);
            }
            let mut process = match launched {
                Ok(process) => process,
                Err(error) => {
                    self.give_up(&error.reason, 0);
                    continue;
                }
            };
            for reply in self.links.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = reply.send(Ok(process.link.clone()));
            }
            // What an earlier agent did not read is among what is sent again.
            self.unwritten.clear();
            self.send_all();
            let begun = Instant::now();
            match self.session(&mut process).await {
                Over::Abandoned => return process.end().await,
                Over::Hung { reason } => {
                    process.obituary().await;
                    let name = self.launch.name();
                    tracing::warn!(%name, %reason, "agent hangs");
                    self.give_up(&reason, self.launch.max_deaths());
                }
                Over::Died { reason, heard } => {
                    let obituary = process.obituary().await;
                    let mut reason = reason;
                    if let Some(status) = obituary.status {
                        reason.push_str(&format!(" ({status})"));
                    }
                    if let Some(line) = obituary.last_line() {
                        reason.push_str(&format!(": {line}"));
                    }
                    let name = self.launch.name();
                    if self.launch.is_broken_link(obituary.status)
                        && (heard || begun.elapsed() > SHORT_LIVED)
                    {
                        tracing::warn!(%name, %reason, "the connection to an agent broke");
                    } else {
                        tracing::warn!(%name, %reason, "agent died");
                        self.give_up(&reason, self.launch.max_deaths());
                    }
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.questions.is_empty() && self.links.is_empty()
    }

    async fn session(&mut self, process: &mut Process) -> Over {
        let mut heard = false;
        // What came with the agent's beginning.
        if let Err(reason) = self.read_lines(&mut process.unread) {
            return Over::Died { reason, heard };
        }
        let mut silence = Silence::new(self.launch.max_silence());
        loop {
            let input = tokio::time::timeout_at(silence.until, self.next_input(process)).await;
            let Ok(input) = input else {
                if self.is_idle() {
                    silence.break_off();
                } else if silence.is_asked() {
                    // It would hold its descriptors as long as it hangs.
                    let _ = process.child.start_kill();
                    let reason = format!("the agent has not answered for {:?}", silence.limit * 2);
                    return Over::Hung { reason };
                } else {
                    let ping = Request::Ping(Ping { ask: 0 });
                    self.unwritten.extend_from_slice(&protocol::encode(&ping));
                    silence.ask();
                }
                continue;
            };
            if matches!(input, Input::Read(Ok(1..))) {
                silence.break_off();
            }
            let died = match input {
                Input::Ordered(order) => {
                    match *order {
                        Order::Link { reply } => {
                            // Whoever asked may have stopped waiting.
                            let _ = reply.send(Ok(process.link.clone()));
                        }
                        order => {
                            if let Some(kept) = self.take(order) {
                                self.send(&kept);
                            }
                        }
                    }
                    None
                }
                Input::Abandoned => return Over::Abandoned,
                Input::Written(Ok(length)) => {
                    self.unwritten.drain(..length);
                    None
                }
                Input::Written(Err(error)) => Some(format!("the agent does not listen: {error}")),
                Input::Read(Ok(0)) => Some("the agent ended".to_owned()),
                Input::Read(Ok(_)) => {
                    let read = self.read_lines(&mut process.unread);
                    heard |= read.is_ok();
                    read.err()
                }
                Input::Read(Err(error)) => Some(format!("the agent cannot be read: {error}")),
                Input::Said(result) => {
                    process.note_last_words(result);
                    None
                }
            };
            if let Some(reason) = died {
                return Over::Died { reason, heard };
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
    fn take(&mut self, order: Order) -> Option<Kept> {
        match order {
            Order::Run { run, log, reply } => {
                let id = run.attempt.clone();
                let flight = Flight {
                    run,
                    log,
                    reply,
                    deaths: 0,
                };
                self.flights.insert(id.clone(), flight);
                Some(Kept::Flight(id))
            }
            Order::Cached {
                rootdir,
                caches,
                reply,
            } => self.ask(Reply::Cached(reply), |ask| {
                Request::Cached(Cached {
                    ask,
                    rootdir,
                    caches,
                })
            }),
            Order::Inspect { question, reply } => self.ask(Reply::Inspected(reply), |ask| {
                Request::Inspect(Inspect { ask, ..question })
            }),
            Order::Link { reply } => {
                self.links.push(reply);
                None
            }
        }
    }

    /// Keeps a question.
    fn ask(&mut self, reply: Reply, request: impl FnOnce(u64) -> Request) -> Option<Kept> {
        self.asked += 1;
        let question = Question {
            request: request(self.asked),
            reply,
            deaths: 0,
        };
        self.questions.insert(self.asked, question);
        Some(Kept::Question(self.asked))
    }

    fn send(&mut self, kept: &Kept) {
        match kept {
            Kept::Flight(attempt) => {
                if let Some(flight) = self.flights.get_mut(attempt) {
                    self.unwritten.extend_from_slice(&flight.line());
                    // From here on an agent may begin it.
                    flight.run.fresh = false;
                }
            }
            Kept::Question(ask) => {
                if let Some(question) = self.questions.get(ask) {
                    self.unwritten.extend_from_slice(&question.line());
                }
            }
        }
    }

    fn send_all(&mut self) {
        let flights = self.flights.keys().cloned().map(Kept::Flight);
        let questions = self.questions.keys().copied().map(Kept::Question);
        for kept in flights.chain(questions).collect::<Vec<_>>() {
            self.send(&kept);
        }
    }

    /// Counts a death over everything in flight and gives up what has seen as many as it may.
    fn give_up(&mut self, reason: &str, limit: u32) {
        for reply in self.links.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Err(Unreachable {
                reason: reason.to_owned(),
            }));
        }
        let given_up = |deaths: &mut u32| {
            *deaths += 1;
            *deaths >= limit
        };
        for (_, flight) in self
            .flights
            .extract_if(.., |_, flight| given_up(&mut flight.deaths))
        {
            flight.reply.unreachable(reason.to_owned());
        }
        for (_, question) in self
            .questions
            .extract_if(.., |_, question| given_up(&mut question.deaths))
        {
            question.reply.unreachable(reason.to_owned());
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
            let answer = protocol::decode(line).map_err(|error| {
                let told = error.told("agent", "conductor");
                format!("the agent is not understood: {told}")
            })?;
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
            Answer::Waiting { attempt, what } => {
                if let Some(flight) = self.flights.get(&attempt) {
                    flight.log.waiting(&what);
                }
            }
            Answer::Ended { attempt, outcome } => {
                if let Some(flight) = self.flights.remove(&attempt) {
                    flight.reply.tell(outcome);
                }
            }
            Answer::Unbegun { attempt } => {
                if let Some(flight) = self.flights.remove(&attempt) {
                    flight.reply.unbegun();
                }
            }
            Answer::Cached { ask, caches } => match self.answered(ask) {
                // Whoever asked may have stopped waiting.
                Some(Reply::Cached(reply)) => drop(reply.send(Ok(caches))),
                Some(other) => other.unreachable(MISTAKEN.to_owned()),
                None => {}
            },
            Answer::Inspected(found) => match self.answered(found.ask) {
                // As above.
                Some(Reply::Inspected(reply)) => drop(reply.send(Ok(wire::condition(found)))),
                Some(other) => other.unreachable(MISTAKEN.to_owned()),
                None => {}
            },
            Answer::Refused {
                attempt: Some(attempt),
                reason,
                ..
            } => {
                if let Some(flight) = self.flights.remove(&attempt) {
                    flight.reply.refuse(explained(reason));
                }
            }
            Answer::Refused {
                ask: Some(ask),
                reason,
                ..
            } => {
                if let Some(reply) = self.answered(ask) {
                    reply.unreachable(explained(reason));
                }
            }
            Answer::Refused { reason, .. } => {
                tracing::warn!(%reason, "agent refused a message");
            }
            // That it was heard is all that was asked for.
            Answer::Pong { .. } => {}
            // Nothing that this side asks for is answered so.
            Answer::Installed { ask, .. } => {
                tracing::warn!(ask, "agent answered an unknown question");
            }
        }
    }

    /// Whoever waits for the answer to a question, which is not asked any more.
    fn answered(&mut self, ask: u64) -> Option<Reply> {
        self.questions.remove(&ask).map(|question| question.reply)
    }
}

/// What an agent refuses because it does not know it. One of an early version does not say which side is too old.
fn explained(reason: String) -> String {
    let is_unknown = reason.contains("not a message of the agent's protocol: unknown ");
    if is_unknown && !reason.contains("too old") {
        format!("{reason}; the agent is too old for this conductor")
    } else {
        reason
    }
}

impl Flight {
    fn line(&self) -> Vec<u8> {
        let run = Run {
            log_from: self.log.position(),
            ..(*self.run).clone()
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
        protocol::encode(&self.request)
    }
}

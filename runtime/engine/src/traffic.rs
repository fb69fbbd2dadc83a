//! Taking one instance out of a load balancer, or putting it in: which call comes next, and when.
//!
//! The plugin does one idempotent operation a call; waiting, retrying and reading back are decided here.

use std::time::Duration;

use model::Timestamp;

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The instance gets no requests and has none in work.
    Blocked,
    /// The balancer sends it requests and calls it healthy.
    Allowed,
}

/// A call of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `deregister` or `register`.
    Change,
    /// `poll` with the token of a pending change.
    Poll { token: String },
    /// `status`.
    Read,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Call after this time.
    Call { after: Duration, call: Call },
    /// The goal is reached.
    Done { note: Option<String> },
    /// It is not, and will not be.
    Failed { reason: String },
}

/// What a call answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Changed,
    Unchanged,
    Pending {
        token: String,
        after: Duration,
        message: String,
    },
    Member {
        phase: Phase,
        connections: Option<u32>,
        reason: Option<String>,
    },
    Failure {
        class: Class,
        message: String,
        /// What the operator can do about it.
        hint: Option<String>,
        retry_after: Option<Duration>,
    },
}

/// Where the balancer says that the instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Absent,
    Registering,
    InService,
    OutOfService,
    Draining,
    Unknown,
}

/// The failure classes of `cutover:plugin/types`, as far as they differ for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Safe to repeat.
    Transient,
    /// Safe to repeat, but not before the given time.
    Throttled,
    /// May have taken effect: read back first.
    UnknownOutcome,
    /// Somebody else changed it: read back first.
    Conflict,
    /// Final.
    Permanent,
}

/// The first wait between reads; it doubles up to [`LONGEST_WAIT`].
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How many failures in a row are retried. The deadline bounds them as well.
const MAX_FAILURES: u32 = 6;

/// One operation on one member, from its first call to its end.
#[derive(Debug, Clone)]
pub struct Operation {
    goal: Goal,
    deadline: Timestamp,
    wait: Duration,
    failures: u32,
    changed: bool,
    /// The call to repeat after a read-back that did not settle it.
    interrupted: Option<Call>,
    last_seen: String,
    /// The last failure, while nothing has succeeded after it.
    last_failure: Option<String>,
}

impl Operation {
    /// Begins an operation; the first call is always [`Call::Change`], which is idempotent.
    #[must_use]
    pub fn new(goal: Goal, now: Timestamp, timeout: Duration) -> Self {
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        Self {
            goal,
            deadline: Timestamp(now.0.saturating_add(timeout_ms)),
            wait: SHORTEST_WAIT,
            failures: 0,
            changed: false,
            interrupted: None,
            last_seen: "nothing yet".to_owned(),
            last_failure: None,
        }
    }

    /// When the operation is given up.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// What the operation waits for, for people.
    #[must_use]
    pub fn waiting_for(&self) -> String {
        match self.goal {
            Goal::Blocked => format!(
                "the balancer to drain the instance (it says: {})",
                self.last_seen
            ),
            Goal::Allowed => format!(
                "the balancer to call the instance healthy (it says: {})",
                self.last_seen
            ),
        }
    }

    /// Decides on the answer of the last call.
    pub fn answer(&mut self, now: Timestamp, call: &Call, answer: Answer) -> Next {
        let next = match answer {
            Answer::Changed => {
                self.changed = true;
                self.settled(Duration::ZERO)
            }
            Answer::Unchanged => self.settled(Duration::ZERO),
            Answer::Pending {
                token,
                after,
                message,
            } => {
                self.changed = true;
                self.failures = 0;
                self.last_seen = message;
                Next::Call {
                    after: after.clamp(Duration::from_millis(1), LONGEST_WAIT),
                    call: Call::Poll { token },
                }
            }
            Answer::Member {
                phase,
                connections,
                reason,
            } => self.member(phase, connections, reason),
            Answer::Failure {
                class,
                message,
                hint,
                retry_after,
            } => self.failure(call, class, message, hint.as_deref(), retry_after),
        };
        match next {
            Next::Call { after, call } => self.before_deadline(now, after, call),
            done => done,
        }
    }

    fn settled(&mut self, after: Duration) -> Next {
        self.failures = 0;
        self.last_failure = None;
        self.interrupted = None;
        Next::Call {
            after,
            call: Call::Read,
        }
    }

    fn member(&mut self, phase: Phase, connections: Option<u32>, reason: Option<String>) -> Next {
        self.last_seen = describe(phase, connections, reason.as_deref());
        // A read that only checks on an interrupted change says nothing about whether the change will ever work.
        if self.interrupted.is_none() {
            self.failures = 0;
            self.last_failure = None;
        }
        // An instance that is not well is out of service as well, and back when it recovers.
        let is_told_by_reading = phase == Phase::Absent || self.interrupted.is_none();
        let reached = match self.goal {
            Goal::Blocked => {
                matches!(phase, Phase::Absent | Phase::OutOfService)
                    && is_told_by_reading
                    && connections.is_none_or(|open| open == 0)
            }
            Goal::Allowed => phase == Phase::InService,
        };
        if reached {
            let note = (!self.changed).then(|| format!("it was {} already", self.last_seen));
            return Next::Done { note };
        }
        let under_way = match self.goal {
            Goal::Blocked => phase == Phase::Draining,
            Goal::Allowed => phase == Phase::Registering,
        };
        if let Some(call) = self.interrupted.take().filter(|_| !under_way) {
            return Next::Call {
                after: Duration::ZERO,
                call,
            };
        }
        let after = self.wait;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Next::Call {
            after,
            call: Call::Read,
        }
    }

    fn failure(
        &mut self,
        call: &Call,
        class: Class,
        message: String,
        hint: Option<&str>,
        retry_after: Option<Duration>,
    ) -> Next {
        self.failures += 1;
        if class == Class::Permanent && self.failures == 1 {
            return Next::Failed {
                reason: advised(format!("{message} (not retried)"), hint),
            };
        }
        if class == Class::Permanent || self.failures > MAX_FAILURES {
            return Next::Failed {
                reason: advised(format!("{message} (tried {} times)", self.failures), hint),
            };
        }
        let backed_off = (SHORTEST_WAIT * 2u32.pow(self.failures)).min(LONGEST_WAIT);
        self.last_failure = Some(advised(message, hint));
        match class {
            Class::Transient => Next::Call {
                after: backed_off,
                call: call.clone(),
            },
            Class::Throttled => Next::Call {
                after: retry_after.unwrap_or(backed_off).max(backed_off),
                call: call.clone(),
            },
            Class::UnknownOutcome | Class::Conflict | Class::Permanent => {
                self.interrupted = Some(Call::Change);
                Next::Call {
                    after: backed_off,
                    call: Call::Read,
                }
            }
        }
    }

    fn before_deadline(&self, now: Timestamp, after: Duration, call: Call) -> Next {
        let left = self.deadline.since(now);
        if left.is_zero() {
            let goal = match self.goal {
                Goal::Blocked => "drained",
                Goal::Allowed => "healthy",
            };
            let failure = self
                .last_failure
                .as_ref()
                .map(|failure| format!("; the last call failed: {failure}"));
            let reason = format!(
                "not {goal} in time; the balancer says: {}{}",
                self.last_seen,
                failure.unwrap_or_default()
            );
            return Next::Failed { reason };
        }
        Next::Call {
            after: after.min(left),
            call,
        }
    }
}

/// What went wrong, and what to do about it.
pub(crate) fn advised(what: String, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{what}; {hint}"),
        None => what,
    }
}

fn describe(phase: Phase, connections: Option<u32>, reason: Option<&str>) -> String {
    let phase = match phase {
        Phase::Absent => "absent",
        Phase::Registering => "registering",
        Phase::InService => "in service",
        Phase::OutOfService => "out of service",
        Phase::Draining => "draining",
        Phase::Unknown => "unknown",
    };
    let connections = connections
        .filter(|open| *open > 0)
        .map(|open| format!(", {open} connections open"));
    let reason = reason.map(|reason| format!(", {reason}"));
    format!(
        "{phase}{}{}",
        connections.unwrap_or_default(),
        reason.unwrap_or_default()
    )
}

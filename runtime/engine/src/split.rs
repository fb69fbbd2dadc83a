//! Splitting the traffic between sides: which call comes next, and when.
//!
//! The plugin does one operation a call. That nothing is written over what somebody else wrote, that a side is healthy
//! before it gains, and that a split counts only once it has been read back, is decided here.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{InstanceId, Shares, SideName, Timestamp};

use crate::traffic::{Class, advised};

/// One switch: what the traffic is believed to be, and what it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Empty where nothing is believed; then whatever is found may be replaced.
    pub from: Shares,
    pub to: Shares,
    pub means: Means,
    pub past: Past,
    /// The side that gains only when all its members are healthy. For any other one is enough, for it is the way out
    /// of a failure.
    pub whole: Option<SideName>,
}

/// What a split is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// Each side has a group of its own, and a share is what was written.
    Groups,
    /// All sides have one group, and shares follow from the weights of its members: near to what was written, and
    /// others as soon as a member joins or leaves. What is found before the switch tells nothing of who changed it.
    Weights,
}

/// What may have been done of an attempt before it is begun here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Past {
    #[default]
    Nothing,
    /// Somebody began it and left without telling how far it got.
    Unknown,
}

/// What another place of the balancer says than the one that requests follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    pub shares: Shares,
    /// Which place says what.
    pub message: String,
}

/// A call of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `get`.
    Read,
    /// `status` of the members of these sides.
    Health { sides: Vec<SideName> },
    /// `set`, as long as the state is that of this revision.
    Write { revision: Option<String> },
    /// `poll` with the token of a pending change.
    Poll { token: String },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Call after this time.
    Call { after: Duration, call: Call },
    /// The traffic is split as it should be, which has been read.
    Done { note: Option<String> },
    /// It is not, and will not be.
    Failed { reason: String },
}

/// What a call answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Split {
        /// What requests get.
        shares: Shares,
        /// Absent where all places of the balancer agree.
        differs: Option<Disagreement>,
        /// Of all places.
        revision: Option<String>,
        /// Whether the balancer has applied every change.
        settled: bool,
    },
    /// The members of the sides that were asked about.
    Health(BTreeMap<SideName, Members>),
    /// Nothing knows of the members' health.
    HealthUnknown,
    Changed,
    Unchanged,
    Pending {
        token: String,
        after: Duration,
        message: String,
    },
    Failure {
        class: Class,
        message: String,
        /// What the operator can do about it.
        hint: Option<String>,
        retry_after: Option<Duration>,
    },
}

/// How the members of a side are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    pub healthy: usize,
    /// Those of whom the balancer cannot tell before they get traffic.
    pub unknown: usize,
    /// The others, each with the balancer's words.
    pub down: BTreeMap<InstanceId, String>,
}

/// The first wait between reads; it doubles up to [`LONGEST_WAIT`].
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How many failures in a row are retried. The deadline bounds them as well.
const MAX_FAILURES: u32 = 6;
/// How far a split that is made of weights may be from the one that was asked for, in points.
const TOLERANCE: u8 = 2;

/// One switch, from its first call to its end.
#[derive(Debug, Clone)]
pub struct Operation {
    switch: Switch,
    deadline: Timestamp,
    wait: Duration,
    failures: u32,
    /// Whether the gaining sides have been found healthy.
    is_healthy: bool,
    /// What was read before the last write.
    written_over: Option<Shares>,
    /// Whether nobody knows what became of the last write.
    is_interrupted: bool,
    /// Whether a write answered that it changed something.
    has_changed: bool,
    waiting_for: Waiting,
    last_seen: String,
    /// How the places of the balancer disagreed at the last read.
    apart: Option<String>,
    /// The last failure, while nothing has succeeded after it.
    last_failure: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Split,
    Health,
}

impl Operation {
    /// Begins a switch with its first call.
    #[must_use]
    pub fn new(switch: Switch, now: Timestamp, timeout: Duration) -> (Self, Call) {
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let operation = Self {
            switch,
            deadline: Timestamp(now.0.saturating_add(timeout_ms)),
            wait: SHORTEST_WAIT,
            failures: 0,
            is_healthy: false,
            written_over: None,
            is_interrupted: false,
            has_changed: false,
            waiting_for: Waiting::Split,
            last_seen: "nothing yet".to_owned(),
            apart: None,
            last_failure: None,
        };
        (operation, Call::Read)
    }

    /// When the switch is given up.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// What the switch waits for, for people.
    #[must_use]
    pub fn waiting_for(&self) -> String {
        match self.waiting_for {
            Waiting::Split => format!(
                "the router to bring the traffic to {} (it says: {})",
                self.switch.to, self.last_seen
            ),
            Waiting::Health => format!(
                "instances to be healthy before they get traffic (the balancer says: {})",
                self.last_seen
            ),
        }
    }

    /// Decides on the answer of the last call.
    pub fn answer(&mut self, now: Timestamp, call: &Call, answer: Answer) -> Next {
        let next = match answer {
            Answer::Split {
                shares,
                differs,
                revision,
                settled,
            } => self.split(shares, differs, revision, settled),
            Answer::Health(sides) => self.health(call, &sides),
            Answer::HealthUnknown => self.healthy(),
            Answer::Changed => {
                self.has_changed = true;
                self.written()
            }
            Answer::Unchanged => self.written(),
            Answer::Pending {
                token,
                after,
                message,
            } => {
                self.has_changed = true;
                self.failures = 0;
                self.last_seen = message;
                Next::Call {
                    after: after.clamp(Duration::from_millis(1), LONGEST_WAIT),
                    call: Call::Poll { token },
                }
            }
            Answer::Failure {
                class,
                message,
                hint,
                retry_after,
            } => {
                // At the end of the time a call is cut short: what was waited for says more than its failure.
                let class = match class {
                    Class::Permanent if self.is_over(now) => Class::Transient,
                    class => class,
                };
                self.failure(call, class, message, hint.as_deref(), retry_after)
            }
        };
        match next {
            Next::Call { after, call } => self.before_deadline(now, after, call),
            done => done,
        }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.deadline.since(now).is_zero()
    }

    fn split(
        &mut self,
        shares: Shares,
        differs: Option<Disagreement>,
        revision: Option<String>,
        settled: bool,
    ) -> Next {
        self.waiting_for = Waiting::Split;
        let unsettled = if settled { "" } else { ", not settled yet" };
        self.last_seen = format!("{shares}{unsettled}");
        self.apart = differs.as_ref().map(|differs| differs.message.clone());
        if let Some(Disagreement {
            shares: other,
            message,
        }) = &differs
        {
            self.last_seen = format!("{message}{unsettled}");
            if !self.is_own(&shares) || !self.is_own(other) {
                return self.failure(&Call::Read, Class::Conflict, message.clone(), None, None);
            }
        }
        // A read that only checks on an interrupted write says nothing about whether writing will ever work.
        if !self.is_interrupted {
            self.failures = 0;
            self.last_failure = None;
        }
        // What is being applied settles by itself, but for what somebody left behind who had not got as far as that.
        if !settled && (self.wait < LONGEST_WAIT || !self.is_own(&shares)) {
            return self.again(Call::Read);
        }
        if settled && differs.is_none() {
            if self.is_reached(&shares) && self.is_told_by_reading() {
                return Next::Done {
                    note: self.note(&shares),
                };
            }
            if !self.is_expected(&shares) {
                return Next::Failed {
                    reason: self.changed_by_others(&shares),
                };
            }
        }
        if self.written_over.is_some() && !self.is_interrupted {
            return self.again(Call::Read);
        }
        let sides = self.gaining(&shares);
        if !self.is_healthy && !sides.is_empty() {
            return Next::Call {
                after: Duration::ZERO,
                call: Call::Health { sides },
            };
        }
        self.is_interrupted = false;
        self.written_over = Some(shares);
        Next::Call {
            after: Duration::ZERO,
            call: Call::Write { revision },
        }
    }

    /// Whether a place that is not as it should be may have been left so by this very switch, begun and broken off.
    fn is_own(&self, shares: &Shares) -> bool {
        let has_begun = self.is_interrupted || self.switch.past == Past::Unknown;
        let is_known = match self.switch.means {
            Means::Weights => true,
            Means::Groups => {
                *shares == self.switch.from
                    || *shares == self.switch.to
                    || self.written_over.as_ref() == Some(shares)
            }
        };
        has_begun && is_known
    }

    /// Whether the traffic is where it was believed to be before the write.
    fn is_expected(&self, shares: &Shares) -> bool {
        match (self.switch.means, &self.written_over) {
            (Means::Weights, _) => true,
            (Means::Groups, Some(before)) => shares == before,
            (Means::Groups, None) => self.switch.from.is_empty() || *shares == self.switch.from,
        }
    }

    /// The sides that get more than they have.
    fn gaining(&self, found: &Shares) -> Vec<SideName> {
        let before = match self.switch.from.is_empty() {
            true => found,
            false => &self.switch.from,
        };
        let to = self.switch.to.iter();
        to.filter(|(side, share)| *share > before.of(side))
            .map(|(side, _)| side.clone())
            .collect()
    }

    /// Whether the shares of the sides tell that each member is as it should be. Shares that are made of weights do so only
    /// after a write: a member that joined without a weight of its own changes none of them, and gets nothing.
    fn is_told_by_reading(&self) -> bool {
        match self.switch.means {
            Means::Groups => true,
            Means::Weights => self.written_over.is_some() && !self.is_interrupted,
        }
    }

    fn is_reached(&self, shares: &Shares) -> bool {
        let to = &self.switch.to;
        match self.switch.means {
            Means::Groups => shares == to,
            Means::Weights => {
                let sides = || shares.iter().chain(to.iter()).map(|(side, _)| side);
                !shares.is_empty()
                    && sides().all(|side| shares.of(side).abs_diff(to.of(side)) <= TOLERANCE)
                    // Nothing is not nearly nothing.
                    && sides().all(|side| to.of(side) > 0 || shares.of(side) == 0)
            }
        }
    }

    fn note(&self, shares: &Shares) -> Option<String> {
        let is_as_found = match self.switch.means {
            Means::Groups => self.written_over.is_none(),
            Means::Weights => true,
        };
        if !self.has_changed && is_as_found {
            return Some(format!("it was {shares} already"));
        }
        (*shares != self.switch.to).then(|| format!("the weights make it {shares}"))
    }

    fn changed_by_others(&self, found: &Shares) -> String {
        let Switch { from, to, .. } = &self.switch;
        match &self.written_over {
            None => format!(
                "the traffic is at {found} and was at {from}: somebody else moved it, so it is left where it is"
            ),
            Some(_) => format!(
                "the traffic was brought to {to} and is at {found}: somebody else moved it meanwhile"
            ),
        }
    }

    fn health(&mut self, call: &Call, sides: &BTreeMap<SideName, Members>) -> Next {
        self.waiting_for = Waiting::Health;
        self.failures = 0;
        self.last_failure = None;
        let none = Members::default();
        let asked: &[SideName] = match call {
            Call::Health { sides } => sides,
            Call::Read | Call::Write { .. } | Call::Poll { .. } => &[],
        };
        let lacking: Vec<_> = asked
            .iter()
            .map(|side| (side, sides.get(side).unwrap_or(&none)))
            .filter(|(side, members)| {
                members.healthy + members.unknown == 0
                    || (self.switch.whole.as_ref() == Some(side) && !members.down.is_empty())
            })
            .map(|(side, members)| lacking(side, members))
            .collect();
        if lacking.is_empty() {
            return self.healthy();
        }
        self.last_seen = lacking.join("; ");
        self.again(call.clone())
    }

    /// The members may have taken long: what was read before they were asked about is too old to be written over.
    fn healthy(&mut self) -> Next {
        self.is_healthy = true;
        self.wait = SHORTEST_WAIT;
        Next::Call {
            after: Duration::ZERO,
            call: Call::Read,
        }
    }

    fn written(&mut self) -> Next {
        self.is_interrupted = false;
        self.failures = 0;
        self.last_failure = None;
        self.wait = SHORTEST_WAIT;
        Next::Call {
            after: Duration::ZERO,
            call: Call::Read,
        }
    }

    fn again(&mut self, call: Call) -> Next {
        let after = self.wait;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Next::Call { after, call }
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
        let call = match (class, call) {
            (Class::Transient | Class::Throttled, call) => call.clone(),
            (_, Call::Write { .. } | Call::Poll { .. }) => {
                self.is_interrupted = true;
                Call::Read
            }
            (_, call) => call.clone(),
        };
        let after = match class {
            Class::Throttled => retry_after.unwrap_or(backed_off).max(backed_off),
            Class::Transient | Class::UnknownOutcome | Class::Conflict | Class::Permanent => {
                backed_off
            }
        };
        Next::Call { after, call }
    }

    fn before_deadline(&self, now: Timestamp, after: Duration, call: Call) -> Next {
        let left = self.deadline.since(now);
        if self.is_over(now) {
            let failure = self
                .last_failure
                .as_ref()
                .map(|failure| format!("; the last call failed: {failure}"))
                .unwrap_or_default();
            let apart = self.apart.as_ref().map(|apart| format!("; {apart}"));
            let reason = match self.waiting_for {
                Waiting::Split => format!(
                    "the traffic is not at {} in time; the router says: {}{failure}",
                    self.switch.to, self.last_seen
                ),
                Waiting::Health => format!(
                    "not healthy in time, so the traffic stays where it is; the balancer says: {}{failure}{}",
                    self.last_seen,
                    apart.unwrap_or_default()
                ),
            };
            return Next::Failed { reason };
        }
        Next::Call {
            after: after.min(left),
            call,
        }
    }
}

fn lacking(side: &SideName, members: &Members) -> String {
    let down: Vec<_> = members
        .down
        .iter()
        .map(|(instance, words)| format!("{instance} {words}"))
        .collect();
    match down.as_slice() {
        [] => format!("{side} has no instance"),
        down => format!("{side}: {}", down.join(", ")),
    }
}

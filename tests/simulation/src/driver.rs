//! The conductor that drives the release: one process, from its beginning to its death.
//!
//! It is `conductor::drive` without a runtime: everything that waits is one turn, the records of a turn are one commit,
//! and actions start when it is durable.

use std::collections::{BTreeMap, VecDeque};

use engine::call;
use engine::split::{self, Means, Switch};
use engine::traffic::{self, Goal};
use engine::{Action, Engine, HoldAction, Input, Output, SwitchAction};
use model::{DeploymentId, Direction, InstanceId, Order, Timestamp};

use crate::balancer::{groups_for, has_one_group};

/// A conductor at work.
pub(crate) struct Driver {
    /// What tells it from those before.
    pub(crate) fence: u64,
    pub(crate) engine: Engine,
    pub(crate) mode: Mode,
    /// What it has heard and not answered.
    pub(crate) waiting: Vec<Input>,
    pub(crate) orders: Vec<Order>,
    /// What starts when the commit under way is durable.
    pub(crate) committing: Option<Output>,
    /// The calls that it makes itself, by their numbers.
    pub(crate) exchanges: BTreeMap<u64, Exchange>,
    pub(crate) next_exchange: u64,
    /// What it told last of each deployment's instances.
    pub(crate) told: BTreeMap<DeploymentId, BTreeMap<InstanceId, String>>,
    /// The alarm that counts; those before it have been set anew.
    pub(crate) alarm: u64,
}

/// What the conductor is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Drives,
    /// It keeps what becomes of so many things in flight, and ends the release.
    Settles {
        left: usize,
        /// Whether it has looked for what followed by itself.
        has_looked: bool,
    },
}

/// Calls that the conductor makes itself, which die with it.
pub(crate) enum Exchange {
    Member(Box<MemberExchange>),
    Split(Box<SplitExchange>),
    Plugin(Box<PluginExchange>),
    Gate(Box<HoldAction>),
}

/// Taking an instance out of its groups, one after the other, or putting it into one.
pub(crate) struct MemberExchange {
    pub(crate) action: Action,
    pub(crate) goal: Goal,
    /// The first is under way.
    pub(crate) groups: VecDeque<String>,
    pub(crate) operation: traffic::Operation,
    pub(crate) call: traffic::Call,
}

/// Switching the traffic.
pub(crate) struct SplitExchange {
    pub(crate) action: SwitchAction,
    pub(crate) operation: split::Operation,
    pub(crate) call: split::Call,
}

/// Having a plugin carry a step out.
pub(crate) struct PluginExchange {
    pub(crate) action: Action,
    pub(crate) operation: call::Operation,
    pub(crate) call: call::Call,
    /// How often the plugin was called.
    pub(crate) calls: u32,
}

impl PluginExchange {
    pub(crate) fn new(action: Action, now: Timestamp) -> Self {
        let calls = action.deployment.calls.as_ref();
        let timeout = calls.and_then(|calls| calls.events.get(&action.event));
        let timeout = timeout.copied().unwrap_or_default();
        Self {
            operation: call::Operation::new(now, timeout),
            action,
            call: call::Call::Run,
            calls: 0,
        }
    }
}

impl Driver {
    pub(crate) fn new(fence: u64, engine: Engine, mode: Mode) -> Self {
        Self {
            fence,
            engine,
            mode,
            waiting: Vec::new(),
            orders: Vec::new(),
            committing: None,
            exchanges: BTreeMap::new(),
            next_exchange: 0,
            told: BTreeMap::new(),
            alarm: 0,
        }
    }

    /// Keeps an exchange; its number comes back.
    pub(crate) fn keep(&mut self, exchange: Exchange) -> u64 {
        self.next_exchange += 1;
        self.exchanges.insert(self.next_exchange, exchange);
        self.next_exchange
    }
}

impl MemberExchange {
    pub(crate) fn new(
        action: Action,
        goal: Goal,
        timeout: std::time::Duration,
        now: Timestamp,
    ) -> Self {
        let groups = groups_for(&action.deployment, goal).into();
        Self {
            action,
            goal,
            groups,
            operation: traffic::Operation::new(goal, now, timeout),
            call: traffic::Call::Change,
        }
    }

    /// Goes on with the next group, within the time that is left.
    pub(crate) fn next_group(&mut self, now: Timestamp) -> bool {
        self.groups.pop_front();
        let left = self.operation.deadline().since(now);
        self.operation = traffic::Operation::new(self.goal, now, left);
        self.call = traffic::Call::Change;
        !self.groups.is_empty()
    }
}

impl SplitExchange {
    pub(crate) fn new(
        action: SwitchAction,
        timeout: std::time::Duration,
        now: Timestamp,
    ) -> Option<Self> {
        let sides = action.deployment.sides.as_ref()?;
        let is_deploy = action.deployment.direction == Direction::Deploy;
        let switch = Switch {
            from: action.from.clone(),
            to: action.to.clone(),
            means: if has_one_group(&action.deployment) {
                Means::Weights
            } else {
                Means::Groups
            },
            whole: is_deploy.then(|| sides.to.clone()),
            past: action.past,
        };
        let (operation, call) = split::Operation::new(switch, now, timeout);
        Some(Self {
            action,
            operation,
            call,
        })
    }
}

/// Adds one answer of the engine to the others of a turn.
pub(crate) fn add(all: &mut Output, more: Output) {
    all.records.extend(more.records);
    all.actions.extend(more.actions);
    all.switches.extend(more.switches);
    all.holds.extend(more.holds);
}

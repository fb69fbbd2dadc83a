//! What one simulation is about: the services of a plan, and what goes wrong while it is carried out.
//!
//! A [`Scenario`] is plain data, so that parts of it can be left out one at a time. Everything else that happens in a
//! simulation, how long a script takes for one, follows from the seed and the name of the thing alone.

use std::fmt;
use std::time::Duration;

use model::{
    Amount, Batching, Boundary, GatePolicy, GatePosition, LifecycleEvent, OnFailure, Order, Scope,
    StopFailures, Strategy, Verdict,
};

/// One simulation.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub medium: Medium,
    pub scope: Scope,
    pub services: Vec<Service>,
    pub troubles: Vec<Trouble>,
}

/// Where the records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A list with the journal's semantics.
    Memory,
    /// The real journal, on a file.
    File,
}

/// One service of the plan, which is one deployment.
#[derive(Debug, Clone)]
pub struct Service {
    /// Position in the plan as it was generated, from 1; it stays when others are left out.
    pub number: usize,
    pub priority: i64,
    /// The numbers of its instances.
    pub instances: Vec<usize>,
    pub work: Work,
    /// Whether a version is installed on its instances.
    pub past: Past,
    /// The events that the packages bind scripts to.
    pub hooks: Vec<LifecycleEvent>,
    /// The events at which the plugin of the service's kind is called in place of hooks.
    pub calls: Vec<LifecycleEvent>,
    pub strategy: Strategy,
    pub layout: Layout,
    pub traffic: TrafficMeans,
    pub batching: Batching,
    pub wait_between: Duration,
    pub failure_threshold: Amount,
    pub batch_failure_threshold: Option<Amount>,
    pub minimum_healthy: Option<Amount>,
    pub gates: Vec<PlannedGate>,
    pub on_failure: OnFailure,
    pub stop_failures: StopFailures,
}

/// What is done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Deploy,
    /// What is installed is stopped and started.
    Restart,
}

/// Whether there was a release before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    Nothing,
    OneVersion,
}

/// How the instances of a service are to the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Nothing stands before them.
    Direct,
    /// One group of a balancer.
    Balanced,
    /// Two colours, each with its own instances.
    Colours,
    /// Two groups, between which instances move.
    TwoGroups,
    /// One group, whose sides are told apart by weights.
    Weights,
}

/// What moves the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficMeans {
    Plugin,
    /// A command line on the instance.
    Command,
}

/// A gate, with what it is going to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedGate {
    pub after: GatePosition,
    pub check: Check,
    pub timeout: Option<Duration>,
    pub on_fail: GatePolicy,
    pub on_inconclusive: GatePolicy,
}

/// How a gate is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// By a person.
    Approval,
    /// By evaluations, which come to these verdicts, one after the other; later ones pass.
    Evaluated(Vec<Verdict>),
}

/// Something that goes wrong, or that an operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub when: When,
    pub what: What,
}

/// The moment of a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// When the commit with this record, or the first after it, is made.
    Record(u64),
    /// So many milliseconds after the beginning, however the clocks are set.
    At(u64),
    /// Whenever the thing happens that it is about.
    Always,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The conductor is killed.
    Crash(CrashPoint),
    /// The disk takes no more; the conductor ends.
    DiskFull,
    /// The conductor has to leave.
    Interrupt,
    HostDown {
        instance: Place,
        for_ms: u64,
    },
    /// Nobody reaches the host; what runs on it goes on.
    CutOff {
        instance: Place,
        for_ms: u64,
    },
    /// Nobody reaches the host while the scripts of an event run, which take long: for longer than a conductor is patient,
    /// and shorter than they take.
    CutOffIn {
        instance: Place,
        event: LifecycleEvent,
    },
    /// The scripts of an event fail.
    HookFails {
        instance: Place,
        event: LifecycleEvent,
    },
    /// What an agent answers comes late.
    AnswerLate {
        instance: Place,
        event: LifecycleEvent,
        by_ms: u64,
    },
    /// The connection breaks before the answer is there.
    AnswerLost {
        instance: Place,
        event: LifecycleEvent,
    },
    AnswerTwice {
        instance: Place,
        event: LifecycleEvent,
    },
    /// The clock of the conductor's machine is set.
    ClockJump {
        by_ms: i64,
    },
    /// Calls of a service's balancer and router fail.
    BalancerAway {
        service: usize,
        for_ms: u64,
    },
    /// The application on an instance is not well.
    Unhealthy {
        instance: Place,
        for_ms: u64,
    },
    /// Somebody else gives all of the traffic to one side, by its position.
    SomebodySwitches {
        service: usize,
        side: usize,
    },
    /// A conductor takes the release up, if nobody drives it.
    Resume,
    /// An order to whoever drives the release, to the deployment of one service where it names one.
    Order {
        to: Option<usize>,
        order: Order,
    },
    /// The release is ended, by whoever drives it or without anybody.
    Stop {
        at: Option<Boundary>,
    },
    Delete,
}

/// Where in a turn the conductor is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Nothing of the turn's commit is durable.
    BeforeCommit,
    /// All of it is, and so many of the actions have started.
    AfterActions(usize),
}

/// An instance: number of its service, and its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub service: usize,
    pub instance: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}-i{}", self.service, self.instance)
    }
}

impl Scenario {
    /// Whether the plan is one that the program would take: shrinking must not leave what no file can say.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        !self.services.is_empty()
            && self.services.iter().all(|service| {
                let least = match service.strategy {
                    Strategy::Canary { .. } => 2,
                    Strategy::Rolling | Strategy::BlueGreen { .. } => 1,
                };
                service.instances.len() >= least
            })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} on {:?}", self.scope, self.medium)?;
        for service in &self.services {
            let number = service.number;
            let Service {
                work,
                priority,
                instances,
                layout,
                traffic,
                strategy,
                batching,
                ..
            } = service;
            writeln!(
                f,
                "service s{number}: {work:?}, priority {priority}, instances {instances:?}, {strategy:?}, {layout:?} by {traffic:?}, {batching:?}"
            )?;
            writeln!(
                f,
                "  failure_threshold {}, batch {:?}, minimum_healthy {:?}, wait_between {:?}, on_failure {:?}, stop_failures {:?}, past {:?}",
                service.failure_threshold,
                service.batch_failure_threshold,
                service.minimum_healthy,
                service.wait_between,
                service.on_failure,
                service.stop_failures,
                service.past,
            )?;
            if !service.calls.is_empty() {
                writeln!(f, "  calls {:?}", service.calls)?;
            }
            for gate in &service.gates {
                writeln!(f, "  gate {gate:?}")?;
            }
        }
        for Trouble { when, what } in &self.troubles {
            writeln!(f, "trouble {when:?}: {what:?}")?;
        }
        Ok(())
    }
}

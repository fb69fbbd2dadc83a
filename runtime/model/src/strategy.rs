//! How a deployment goes over a group.

use std::fmt;
use std::time::Duration;

/// A number of instances, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    Count(u32),
    Percent(u8),
}

impl Amount {
    /// The number of instances out of `total`: a share rounds down, and the answer is at least 1.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        match self {
            Amount::Count(count) => (count as usize).max(1),
            Amount::Percent(percent) => (total * usize::from(percent) / 100).max(1),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// What the instances of a deployment are to the traffic while they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Instances change where they are.
    Rolling,
    /// All instances of the side without traffic change, then the traffic is switched to it once.
    BlueGreen {
        /// How long the side that got the traffic is watched, with the way back open. Zero for not at all.
        bake: Duration,
        retire: Retire,
    },
    /// A first batch gets a share of the traffic and waits for its promotion; then the others follow.
    Canary {
        /// The share in percent; absent where the fair share of the batch is meant.
        traffic: Option<u8>,
        promote: Promote,
    },
}

impl Strategy {
    /// The word used in files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Rolling => "rolling",
            Strategy::BlueGreen { .. } => "blue-green",
            Strategy::Canary { .. } => "canary",
        }
    }
}

/// What becomes of the side that lost the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Retire {
    /// It runs on, ready for the way back.
    #[default]
    Keep,
    /// ApplicationStop of the revision on it runs.
    Stop,
}

/// What ends the wait of a canary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Promote {
    #[default]
    Manual,
    After(Duration),
    /// Nothing: the deployment goes on from one that was promoted.
    Given,
}

/// What follows a failed deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    #[default]
    Stop,
    Rollback,
}

/// What follows when a script of the outgoing revision fails: of BeforeBlockTraffic, AfterBlockTraffic or
/// ApplicationStop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StopFailures {
    /// The instance fails.
    #[default]
    Fail,
    /// The step is recorded as failed and the instance goes on, because the operator asked for it.
    Ignore,
}

//! How a deployment goes over a group.

use std::fmt;

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

/// How instances follow each other. Canary joins here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// A sliding window of `concurrency` instances in the order of the file.
    Rolling { concurrency: Amount },
    /// All instances of one side without its traffic, `concurrency` at a time, then one switch of the traffic to it.
    BlueGreen { concurrency: Amount },
}

impl Strategy {
    /// The word used in files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Rolling { .. } => "rolling",
            Strategy::BlueGreen { .. } => "blue-green",
        }
    }
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

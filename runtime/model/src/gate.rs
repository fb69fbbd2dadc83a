//! What a release waits for between batches.

use std::fmt;
use std::time::Duration;

use crate::PluginName;

/// A check that a deployment has to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    pub name: String,
    pub after: GatePosition,
    pub check: GateCheck,
    /// How long the gate may stay undecided; absent for as long as it takes.
    pub timeout: Option<Duration>,
    /// The time between two evaluations that decide nothing.
    pub interval: Duration,
    pub on_fail: GatePolicy,
    /// What follows when the gate stays undecided.
    pub on_inconclusive: GatePolicy,
}

/// The batches that a gate comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatePosition {
    First,
    /// Every batch, the last one too.
    Each,
    Last,
}

/// How a gate is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateCheck {
    /// By a person, who is asked this.
    Approval { ask: String },
    /// By the exit code of a command line on the conductor's machine: 0 passes, 75 (`EX_TEMPFAIL`) decides nothing,
    /// any other fails.
    Command { command: String },
    Plugin {
        plugin: PluginName,
        /// The plugin's configuration, a JSON object.
        config: String,
    },
}

/// What follows a gate that did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatePolicy {
    /// The deployment goes on.
    Continue,
    /// The release pauses; the gate is evaluated again when it is resumed.
    Pause,
    /// The deployment fails.
    Stop,
    /// The deployment fails and is taken back.
    Rollback,
}

/// What a deployment waits for while none of its instances is in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// The time between two batches.
    Interval,
    /// A canary's promotion.
    Promotion,
    /// One of the deployment's gates, by its position in the list.
    Gate { index: u32 },
    /// The time in which the side that got the traffic is watched.
    Bake,
    /// Instances that have to be healthy before another may start.
    Health,
}

/// Where in a deployment a hold or a switch stands: the batches done before it, and its position among the stages there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stage {
    pub boundary: u32,
    pub index: u32,
}

/// How a hold was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    Inconclusive,
}

impl Verdict {
    /// The word used in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "PASSED",
            Verdict::Failed => "FAILED",
            Verdict::Inconclusive => "INCONCLUSIVE",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub name: String,
    pub value: String,
    /// What the value was compared with.
    pub threshold: Option<String>,
    pub verdict: Verdict,
}

/// The end of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// The operator who decided, where a person did.
    pub by: Option<String>,
    pub reason: Option<String>,
    pub evidence: Vec<Evidence>,
}

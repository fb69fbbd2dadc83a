//! What an operator asks of a release that goes on.

use crate::{DeploymentId, InstanceId};

/// One order. The conductor that drives the release carries it out, whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Without a boundary, the usual one: in a plan that of services, else that of batches.
    Pause { at: Option<Boundary> },
    /// As a pause.
    Stop { at: Option<Boundary> },
    /// An order to one deployment of a release that may have several.
    For {
        deployment: DeploymentId,
        order: Box<Order>,
    },
    /// Ends the wait of a canary.
    Promote,
    /// Changes the share of a canary that waits for its promotion.
    Weight { percent: u8, capacity: Capacity },
    /// Passes a gate that waits for a person; without a name, the one that waits.
    Approve {
        gate: Option<String>,
        comment: Option<String>,
    },
    /// Fails a gate that waits for a person.
    Reject {
        gate: Option<String>,
        comment: Option<String>,
    },
    /// Leaves out an instance that has not started.
    Skip { instance: InstanceId },
    /// Ends the deployment as failed and takes it back.
    Rollback { reason: Option<String> },
}

/// How far what goes on is carried before a release is paused or stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The services that have begun finish.
    Service,
    /// The instances in flight finish.
    Batch,
}

impl Boundary {
    /// The word of the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Boundary::Service => "service",
            Boundary::Batch => "batch",
        }
    }
}

/// Whether a share may be larger than what the healthy instances of its side carry by count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Capacity {
    #[default]
    Respect,
    /// The operator said so.
    Exceed,
}

impl Order {
    /// The word of the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Order::Pause { .. } => "pause",
            Order::Stop { .. } => "stop",
            Order::For { order, .. } => order.name(),
            Order::Promote => "promote",
            Order::Weight { .. } => "weight",
            Order::Approve { .. } => "approve",
            Order::Reject { .. } => "reject",
            Order::Skip { .. } => "skip",
            Order::Rollback { .. } => "rollback",
        }
    }
}

//! Journal records: the only account of what has happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{
    Decision, Deployment, DeploymentId, Ending, Hold, InstanceId, InstanceOutcome, LifecycleEvent,
    Order, Release, ReleaseStatus, Shares, Stage, Timestamp,
};

/// One entry of a release's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the release's journal, from 0 without gaps.
    pub seq: u64,
    pub at: Timestamp,
    pub fact: Fact,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Always the first record.
    ReleaseOpened(Release),
    DeploymentOpened(Arc<Deployment>),
    /// Authorises an attempt. Its action starts only when this record is durable.
    StepStarted {
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// The hook whose first attempt is authorised with it: as soon as this one succeeds it may begin, wherever the
        /// conductor is.
        then: Option<LifecycleEvent>,
    },
    StepEnded {
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        attempt: u32,
        ending: Ending,
    },
    StepSkipped {
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        reason: String,
    },
    /// Authorises an attempt to switch the traffic of a deployment, with the rule of [`Fact::StepStarted`].
    SwitchStarted {
        deployment: DeploymentId,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// The stage that asks for it; absent where an operator did.
        stage: Option<Stage>,
        /// What the traffic should be before and after. Both are empty where a command moves it, which does not say.
        from: Shares,
        to: Shares,
    },
    SwitchEnded {
        deployment: DeploymentId,
        attempt: u32,
        ending: Ending,
    },
    SwitchSkipped {
        deployment: DeploymentId,
        /// As of a switch that started.
        stage: Option<Stage>,
        reason: String,
    },
    /// The deployment begins to wait. A gate is evaluated only when this record is durable.
    HoldOpened {
        deployment: DeploymentId,
        stage: Stage,
        hold: Hold,
        /// When the wait is over, or given up.
        until: Option<Timestamp>,
    },
    /// The wait at this stage is over. A stage whose gate did not pass may be opened again.
    HoldClosed {
        deployment: DeploymentId,
        stage: Stage,
        decision: Decision,
    },
    /// What the balancer says of the deployment's instances has changed: those that it gives no traffic for a cause
    /// outside of the deployment, each with the balancer's words.
    HealthObserved {
        deployment: DeploymentId,
        down: BTreeMap<InstanceId, String>,
    },
    /// An operator gave an order, and the engine took it.
    Ordered {
        order: Order,
        operator: String,
    },
    InstanceEnded {
        deployment: DeploymentId,
        instance: InstanceId,
        outcome: InstanceOutcome,
        reason: Option<String>,
    },
    DeploymentEnded {
        deployment: DeploymentId,
        /// `Succeeded`, `Failed` or `Stopped`.
        status: ReleaseStatus,
        reason: Option<String>,
    },
    /// An operator or a fault moved the release: `Pausing`, `Paused`, `Stopping`, `Stopped`, `Interrupted`, or
    /// `Running` again.
    StatusChanged {
        status: ReleaseStatus,
        reason: String,
    },
    /// Always the last record of a finished release: `Succeeded` or `Failed`.
    ReleaseEnded {
        status: ReleaseStatus,
        reason: Option<String>,
    },
}

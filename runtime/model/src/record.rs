//! Journal records: the only account of what has happened.

use std::sync::Arc;

use crate::{
    Deployment, DeploymentId, Ending, InstanceId, InstanceOutcome, LifecycleEvent, Release,
    ReleaseStatus, Timestamp,
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
    },
    SwitchEnded {
        deployment: DeploymentId,
        attempt: u32,
        ending: Ending,
    },
    SwitchSkipped {
        deployment: DeploymentId,
        reason: String,
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

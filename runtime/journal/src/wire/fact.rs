//! Facts on disk, and the two conversions that the rest of the crate uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    DeploymentId, Ending, Fact, InstanceId, InstanceOutcome, InvalidDigest, InvalidShares,
    InvalidVersion, LifecycleEvent, ReleaseId, ReleaseStatus, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::deployment::Deployment;
use super::gate::{Decision, Hold, Stage, optional_stage};
use super::order::Order;
use super::status::{EndingBody, InstanceOutcomeName, ReleaseStatusName};
use super::traffic::{Shares, shares, shares_of};

/// A record's body that this program cannot read.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("read the JSON of a record")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Version(#[from] InvalidVersion),
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    #[error(transparent)]
    Shares(#[from] InvalidShares),
    #[error("`{text}` is not a kind of host that this program knows")]
    Host { text: String },
}

/// The JSON of a fact.
pub(crate) fn encode(fact: &Fact) -> Result<String, Broken> {
    Ok(serde_json::to_string(&Body::from(fact))?)
}

/// The fact that a JSON text says.
pub(crate) fn decode(text: &str) -> Result<Fact, Broken> {
    Fact::try_from(serde_json::from_str::<Body>(text)?)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Body {
    ReleaseOpened {
        id: ReleaseId,
        comment: String,
        operator: String,
        #[serde(with = "Scope", default, skip_serializing_if = "is_usual")]
        scope: model::Scope,
    },
    DeploymentOpened(Box<Deployment>),
    StepStarted {
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then: Option<LifecycleEvent>,
    },
    StepEnded {
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        attempt: u32,
        #[serde(with = "EndingBody")]
        ending: Ending,
    },
    StepSkipped {
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        reason: String,
    },
    SwitchStarted {
        deployment: DeploymentId,
        attempt: u32,
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "optional_stage"
        )]
        stage: Option<model::Stage>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        from: Shares,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        to: Shares,
    },
    SwitchEnded {
        deployment: DeploymentId,
        attempt: u32,
        #[serde(with = "EndingBody")]
        ending: Ending,
    },
    SwitchSkipped {
        deployment: DeploymentId,
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "optional_stage"
        )]
        stage: Option<model::Stage>,
        reason: String,
    },
    HoldOpened {
        deployment: DeploymentId,
        #[serde(with = "Stage")]
        stage: model::Stage,
        #[serde(with = "Hold")]
        hold: model::Hold,
        /// Milliseconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
    },
    HoldClosed {
        deployment: DeploymentId,
        #[serde(with = "Stage")]
        stage: model::Stage,
        decision: Decision,
    },
    HealthObserved {
        deployment: DeploymentId,
        down: BTreeMap<InstanceId, String>,
    },
    Ordered {
        order: Order,
        operator: String,
    },
    InstanceEnded {
        deployment: DeploymentId,
        instance: InstanceId,
        #[serde(with = "InstanceOutcomeName")]
        outcome: InstanceOutcome,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    DeploymentEnded {
        deployment: DeploymentId,
        #[serde(with = "ReleaseStatusName")]
        status: ReleaseStatus,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    StatusChanged {
        #[serde(with = "ReleaseStatusName")]
        status: ReleaseStatus,
        reason: String,
    },
    ReleaseEnded {
        #[serde(with = "ReleaseStatusName")]
        status: ReleaseStatus,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Scope", rename_all = "kebab-case")]
enum Scope {
    Service,
    Plan,
}

fn is_usual(scope: &model::Scope) -> bool {
    *scope == model::Scope::default()
}

impl From<&Fact> for Body {
    fn from(fact: &Fact) -> Self {
        match fact.clone() {
            Fact::ReleaseOpened(model::Release {
                id,
                comment,
                operator,
                scope,
            }) => Body::ReleaseOpened {
                id,
                comment,
                operator,
                scope,
            },
            Fact::DeploymentOpened(deployment) => {
                Body::DeploymentOpened(Box::new(Deployment::from(&*deployment)))
            }
            Fact::StepStarted {
                deployment,
                instance,
                event,
                attempt,
                then,
            } => Body::StepStarted {
                deployment,
                instance,
                event,
                attempt,
                then,
            },
            Fact::StepEnded {
                deployment,
                instance,
                event,
                attempt,
                ending,
            } => Body::StepEnded {
                deployment,
                instance,
                event,
                attempt,
                ending,
            },
            Fact::StepSkipped {
                deployment,
                instance,
                event,
                reason,
            } => Body::StepSkipped {
                deployment,
                instance,
                event,
                reason,
            },
            Fact::SwitchStarted {
                deployment,
                attempt,
                stage,
                from,
                to,
            } => Body::SwitchStarted {
                deployment,
                attempt,
                stage,
                from: shares(&from),
                to: shares(&to),
            },
            Fact::SwitchEnded {
                deployment,
                attempt,
                ending,
            } => Body::SwitchEnded {
                deployment,
                attempt,
                ending,
            },
            Fact::SwitchSkipped {
                deployment,
                stage,
                reason,
            } => Body::SwitchSkipped {
                deployment,
                stage,
                reason,
            },
            Fact::HoldOpened {
                deployment,
                stage,
                hold,
                until,
            } => Body::HoldOpened {
                deployment,
                stage,
                hold,
                until: until.map(|until| until.0),
            },
            Fact::HoldClosed {
                deployment,
                stage,
                decision,
            } => Body::HoldClosed {
                deployment,
                stage,
                decision: decision.into(),
            },
            Fact::HealthObserved { deployment, down } => Body::HealthObserved { deployment, down },
            Fact::Ordered { order, operator } => Body::Ordered {
                order: order.into(),
                operator,
            },
            Fact::InstanceEnded {
                deployment,
                instance,
                outcome,
                reason,
            } => Body::InstanceEnded {
                deployment,
                instance,
                outcome,
                reason,
            },
            Fact::DeploymentEnded {
                deployment,
                status,
                reason,
            } => Body::DeploymentEnded {
                deployment,
                status,
                reason,
            },
            Fact::StatusChanged { status, reason } => Body::StatusChanged { status, reason },
            Fact::ReleaseEnded { status, reason } => Body::ReleaseEnded { status, reason },
        }
    }
}

impl TryFrom<Body> for Fact {
    type Error = Broken;

    fn try_from(body: Body) -> Result<Self, Broken> {
        Ok(match body {
            Body::ReleaseOpened {
                id,
                comment,
                operator,
                scope,
            } => Fact::ReleaseOpened(model::Release {
                id,
                comment,
                operator,
                scope,
            }),
            Body::DeploymentOpened(deployment) => {
                Fact::DeploymentOpened(Arc::new((*deployment).try_into()?))
            }
            Body::StepStarted {
                deployment,
                instance,
                event,
                attempt,
                then,
            } => Fact::StepStarted {
                deployment,
                instance,
                event,
                attempt,
                then,
            },
            Body::StepEnded {
                deployment,
                instance,
                event,
                attempt,
                ending,
            } => Fact::StepEnded {
                deployment,
                instance,
                event,
                attempt,
                ending,
            },
            Body::StepSkipped {
                deployment,
                instance,
                event,
                reason,
            } => Fact::StepSkipped {
                deployment,
                instance,
                event,
                reason,
            },
            Body::SwitchStarted {
                deployment,
                attempt,
                stage,
                from,
                to,
            } => Fact::SwitchStarted {
                deployment,
                attempt,
                stage,
                from: shares_of(from)?,
                to: shares_of(to)?,
            },
            Body::SwitchEnded {
                deployment,
                attempt,
                ending,
            } => Fact::SwitchEnded {
                deployment,
                attempt,
                ending,
            },
            Body::SwitchSkipped {
                deployment,
                stage,
                reason,
            } => Fact::SwitchSkipped {
                deployment,
                stage,
                reason,
            },
            Body::HoldOpened {
                deployment,
                stage,
                hold,
                until,
            } => Fact::HoldOpened {
                deployment,
                stage,
                hold,
                until: until.map(Timestamp),
            },
            Body::HoldClosed {
                deployment,
                stage,
                decision,
            } => Fact::HoldClosed {
                deployment,
                stage,
                decision: decision.into(),
            },
            Body::HealthObserved { deployment, down } => Fact::HealthObserved { deployment, down },
            Body::Ordered { order, operator } => Fact::Ordered {
                order: order.into(),
                operator,
            },
            Body::InstanceEnded {
                deployment,
                instance,
                outcome,
                reason,
            } => Fact::InstanceEnded {
                deployment,
                instance,
                outcome,
                reason,
            },
            Body::DeploymentEnded {
                deployment,
                status,
                reason,
            } => Fact::DeploymentEnded {
                deployment,
                status,
                reason,
            },
            Body::StatusChanged { status, reason } => Fact::StatusChanged { status, reason },
            Body::ReleaseEnded { status, reason } => Fact::ReleaseEnded { status, reason },
        })
    }
}

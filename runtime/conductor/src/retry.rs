//! Planning to bring a revision to the instances that a deployment did not bring it to.

use std::collections::BTreeSet;

use engine::State;
use model::{
    Deployment, DeploymentId, Direction, InstanceId, InstanceOutcome, ReleaseId, Scope,
    StopFailures, Version,
};
use spec::workspace::Group;

use crate::Conductor;
use crate::plan::{PlanError, Planned};

/// A retry that is asked for.
#[derive(Debug, Clone)]
pub struct RetryRequest {
    pub release: ReleaseId,
    /// The deployment of the release that is meant; the one that there is, when absent.
    pub deployment: Option<DeploymentId>,
    pub stop_failures: StopFailures,
    /// What is retried, when empty.
    pub comment: String,
}

/// A release that is not retried.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error("release {release} brought nothing that could be retried")]
    NoDeployment { release: ReleaseId },
    #[error(
        "release {release} has several deployments to retry: {}",
        listed(deployments)
    )]
    Several {
        release: ReleaseId,
        deployments: Vec<DeploymentId>,
    },
    #[error("every instance of deployment {deployment} has {version}: nothing is left to retry")]
    NothingFailed {
        deployment: DeploymentId,
        version: Version,
    },
    #[error("{version} of deployment {deployment} was rolled back by {by}")]
    RolledBack {
        deployment: DeploymentId,
        version: Version,
        by: DeploymentId,
    },
    #[error("deployment {by} came after {deployment}: {}", came_after(*is_retry))]
    Superseded {
        deployment: DeploymentId,
        by: DeploymentId,
        /// The release of the later deployment.
        release: ReleaseId,
        /// Whether the later one is itself a retry of this one.
        is_retry: bool,
    },
    #[error(
        "deployment {deployment} left the traffic of {group} split between its sides, which a retry cannot go on from"
    )]
    Split {
        deployment: DeploymentId,
        group: model::GroupRef,
    },
    #[error("none of the instances that {deployment} failed on is in {group} any more")]
    AllGone {
        deployment: DeploymentId,
        group: model::GroupRef,
    },
}

fn listed(deployments: &[DeploymentId]) -> String {
    let names: Vec<_> = deployments.iter().map(DeploymentId::as_str).collect();
    names.join(", ")
}

fn came_after(is_retry: bool) -> &'static str {
    if is_retry {
        "it is the retry to go on from"
    } else {
        "the group has gone on since"
    }
}

impl Conductor {
    /// Plans a release that deploys the same revision, under the same version, to the instances that failed, were
    /// unreachable or skipped, or never started. The others are left alone.
    ///
    /// # Errors
    /// [`PlanError::Retry`] among others.
    pub async fn plan_retry(&self, request: RetryRequest) -> Result<Planned, PlanError> {
        let state = State::fold(&self.journal.records(&request.release, 0)?)?;
        let candidates: Vec<_> = state
            .deployments
            .iter()
            .filter(|deployment| deployment.plan.direction == Direction::Deploy)
            .filter(|deployment| {
                let asked = request.deployment.as_ref();
                asked.is_none_or(|asked| deployment.plan.id == *asked)
            })
            .collect();
        let of = match candidates.as_slice() {
            [] => {
                return Err(PlanError::from(RetryError::NoDeployment {
                    release: request.release,
                }));
            }
            [only] => *only,
            several => {
                let deployments = several.iter().map(|deployment| deployment.plan.id.clone());
                return Err(PlanError::from(RetryError::Several {
                    release: request.release,
                    deployments: deployments.collect(),
                }));
            }
        };
        let deployment = of.plan.id.clone();
        let version = of.plan.revision.version.clone();
        let group = self.workspace.group(&of.plan.group)?;
        self.check_free(&group.reference)?;
        let history = self.journal.deployments(&group.reference, usize::MAX)?;
        let own = history.iter().find(|past| past.id == deployment);
        if let Some(by) = own.and_then(|own| own.rolled_back_by.clone()) {
            return Err(PlanError::from(RetryError::RolledBack {
                deployment,
                version,
                by,
            }));
        }
        let brought_by = own.and_then(|own| own.retries.clone());
        let brought_by = brought_by.unwrap_or_else(|| deployment.clone());
        if let Some(newest) = history.first().filter(|newest| newest.id != deployment) {
            return Err(PlanError::from(RetryError::Superseded {
                deployment,
                by: newest.id.clone(),
                release: newest.release.clone(),
                is_retry: newest.retries.as_ref() == Some(&brought_by),
            }));
        }
        let left: BTreeSet<_> = of
            .plan
            .targets
            .iter()
            .zip(&of.instances)
            .filter(|(_, instance)| instance.outcome != Some(InstanceOutcome::Succeeded))
            .map(|(target, _)| target.instance.id.clone())
            .collect();
        if left.is_empty() {
            return Err(PlanError::from(RetryError::NothingFailed {
                deployment,
                version,
            }));
        }
        let is_canary = matches!(of.plan.strategy, model::Strategy::Canary { .. });
        if is_canary && of.plan.router.is_some() {
            return Err(PlanError::from(RetryError::Split {
                deployment,
                group: group.reference.clone(),
            }));
        }
        let mut warnings = gone(group, &left);
        let group = &Group {
            instances: group
                .instances
                .iter()
                .filter(|instance| left.contains(&instance.id))
                .cloned()
                .collect(),
            ..group.clone()
        };
        if group.instances.is_empty() {
            return Err(PlanError::from(RetryError::AllGone {
                deployment,
                group: group.reference.clone(),
            }));
        }
        let seen = self.look(group, None, &mut warnings).await?;
        let package = self.journal.package(&brought_by)?;
        let package = package.ok_or(PlanError::MissingPackage {
            deployment: brought_by,
        })?;
        // What fails here would fail on each instance.
        self.stored(&group.reference, &package).await?;
        let comment = if request.comment.is_empty() {
            format!("retries {deployment}")
        } else {
            request.comment
        };
        let release = self.new_release(comment, Scope::Service)?;
        let mut planned = Deployment {
            id: DeploymentId::nth(&release.id, 1),
            kind: "RETRY".to_owned(),
            stop_failures: request.stop_failures,
            ..self.deployment_of(group, model::Package::clone(&package))?
        };
        self.arrange(group, seen, &mut planned, &mut warnings)
            .await?;
        Ok(Planned {
            release,
            deployment: planned,
            warnings,
        })
    }
}

fn gone(group: &Group, left: &BTreeSet<InstanceId>) -> Vec<String> {
    let is_gone = |id: &&InstanceId| group.instance(id).is_err();
    let gone = left.iter().filter(is_gone);
    gone.map(|id| {
        format!(
            "{id} is not in {} any more: it is left out",
            group.reference
        )
    })
    .collect()
}

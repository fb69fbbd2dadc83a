//! Planning to bring a revision to the instances that a deployment did not bring it to.

use std::collections::BTreeSet;

use engine::State;
use engine::retry::Remainder;
use model::{
    Deployment, DeploymentId, Direction, GroupRef, InstanceId, InstanceOutcome, ReleaseId, Scope,
    SideName, StopFailures, Version,
};
use spec::workspace::Group;

use crate::Conductor;
use crate::plan::{PlanError, Planned};
use crate::preflight::sides;
use crate::sides::{Left, Seen};

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
        "deployment {deployment} moved the traffic of {group} between {}, and {group} has {} by now",
        named(were),
        named(are)
    )]
    OtherSides {
        deployment: DeploymentId,
        group: GroupRef,
        were: Vec<SideName>,
        /// The sides that the file names, where it has a router at all.
        are: Vec<SideName>,
    },
    #[error(
        "deployment {deployment} was to go to `{side}` of {group}, which has the traffic by now: nothing is changed where it is"
    )]
    Live {
        deployment: DeploymentId,
        group: GroupRef,
        side: SideName,
    },
    #[error("none of the instances that {deployment} failed on is in {group} any more")]
    AllGone {
        deployment: DeploymentId,
        group: GroupRef,
    },
}

fn listed(deployments: &[DeploymentId]) -> String {
    let names: Vec<_> = deployments.iter().map(DeploymentId::as_str).collect();
    names.join(", ")
}

fn named(sides: &[SideName]) -> String {
    let names: Vec<_> = sides.iter().map(|side| format!("`{side}`")).collect();
    match names.as_slice() {
        [] => "no router".to_owned(),
        names => names.join(" and "),
    }
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
    /// unreachable or skipped, or never started. The others are left alone. A canary between two sides goes on from the
    /// traffic as it was left.
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
        let mut warnings = gone(group, &left);
        let remainder = engine::retry::remainder(of);
        let group = &what_is_left(group, &left, remainder.as_ref());
        if group.instances.is_empty() {
            return Err(PlanError::from(RetryError::AllGone {
                deployment,
                group: group.reference.clone(),
            }));
        }
        let basis = match remainder {
            Some(remainder) => {
                check_sides(group, &deployment, &remainder)?;
                let seen = self.look_at_remainder(group, &remainder, &mut warnings);
                Basis::Split(seen.await?, Box::new(remainder))
            }
            None => Basis::Whole(self.look(group, None, &mut warnings).await?),
        };
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
        match basis {
            Basis::Split(seen, remainder) => {
                self.arrange_remainder(group, *remainder, seen, &mut planned, &mut warnings)
                    .await;
            }
            Basis::Whole(seen) => {
                self.arrange(group, seen, &mut planned, &mut warnings)
                    .await?;
                let sides = planned.sides.as_ref().zip(of.plan.sides.as_ref());
                if let Some((_, was)) = sides.filter(|(is, was)| is.to != was.to) {
                    return Err(PlanError::from(RetryError::Live {
                        deployment,
                        group: group.reference.clone(),
                        side: was.to.clone(),
                    }));
                }
            }
        }
        self.keep_calls(&of.plan, &mut planned).await?;
        Ok(Planned {
            release,
            deployment: planned,
            warnings,
        })
    }
}

/// What a retry is planned on.
enum Basis {
    /// The traffic as a canary left it.
    Split(Left, Box<Remainder>),
    /// The traffic as it is before any deployment.
    Whole(Seen),
}

/// The group as the retry takes it: what is left of its instances, in the order of the deployment where that has begun
/// to move the traffic.
fn what_is_left(
    group: &Group,
    left: &BTreeSet<InstanceId>,
    remainder: Option<&Remainder>,
) -> Group {
    let mut instances: Vec<_> = group
        .instances
        .iter()
        .filter(|instance| left.contains(&instance.id))
        .cloned()
        .collect();
    let Some(remainder) = remainder else {
        return Group {
            instances,
            ..group.clone()
        };
    };
    let place = |id: &InstanceId| remainder.left.iter().position(|left| left == id);
    instances.sort_by_key(|instance| place(&instance.id));
    let gates = group.gates.iter();
    let gates = gates.filter(|gate| remainder.has_ahead(gate.after));
    Group {
        instances,
        strategy: remainder.strategy,
        batching: remainder.batching.clone(),
        gates: gates.cloned().collect(),
        ..group.clone()
    }
}

/// Refuses to go on between sides that the group does not have any more.
fn check_sides(
    group: &Group,
    deployment: &DeploymentId,
    remainder: &Remainder,
) -> Result<(), RetryError> {
    let are = sides(group).into_iter().map(|side| side.name);
    let are: Vec<_> = are.filter(|_| group.router.is_some()).collect();
    let were = remainder.from.iter().chain([&remainder.to]);
    if were.clone().all(|side| are.contains(side)) {
        return Ok(());
    }
    Err(RetryError::OtherSides {
        deployment: deployment.clone(),
        group: group.reference.clone(),
        were: were.cloned().collect(),
        are,
    })
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

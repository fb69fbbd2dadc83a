//! The way back of a whole release: what each of its services did, undone in the opposite order.

use std::cmp::Reverse;

use engine::{DeploymentState, InstanceState, State};
use model::{Deployment, DeploymentId, Direction, LifecycleEvent, ReleaseId, Scope, StopFailures};
use spec::workspace::Group;

use crate::Conductor;
use crate::choices::Choices;
use crate::plan::PlanError;
use crate::release_plan::PlannedRun;

/// A release that is to be taken back.
#[derive(Debug, Clone)]
pub struct InverseRequest {
    pub release: ReleaseId,
    pub stop_failures: StopFailures,
    pub comment: String,
}

/// What starts what a `STOP` has stopped.
const START: [LifecycleEvent; 5] = [
    LifecycleEvent::ApplicationStart,
    LifecycleEvent::ValidateService,
    LifecycleEvent::BeforeAllowTraffic,
    LifecycleEvent::AllowTraffic,
    LifecycleEvent::AfterAllowTraffic,
];

/// What stops what a `START` has started.
const STOP: [LifecycleEvent; 4] = [
    LifecycleEvent::BeforeBlockTraffic,
    LifecycleEvent::BlockTraffic,
    LifecycleEvent::AfterBlockTraffic,
    LifecycleEvent::ApplicationStop,
];

impl Conductor {
    /// Plans the way back of a release that is over. What it deployed is taken back, what it stopped is started and what
    /// it started is stopped, on the instances that it touched; what came last goes first.
    ///
    /// # Errors
    /// [`PlanError::NotOver`], [`PlanError::Superseded`] and [`PlanError::NothingToUndo`] among others.
    pub async fn plan_inverse(&self, request: InverseRequest) -> Result<PlannedRun, PlanError> {
        let state = State::fold(&self.journal.records(&request.release, 0)?)?;
        if !state.status.is_terminal() {
            return Err(PlanError::NotOver {
                release: request.release,
                status: state.status,
            });
        }
        let release = self.new_release(request.comment, Scope::Plan)?;
        let mut warnings = Vec::new();
        let mut deployments = Vec::new();
        let mut done: Vec<_> = state.deployments.iter().collect();
        done.sort_by_key(|deployment| Reverse(undone_at(deployment)));
        for deployment in done {
            let plan = &deployment.plan;
            if !deployment.instances.iter().any(InstanceState::is_touched) {
                continue;
            }
            let group = self.workspace.group(&plan.group)?;
            self.check_free(&group.reference)?;
            let id = DeploymentId::nth(&release.id, deployments.len() + 1);
            let mut told = Vec::new();
            let undone = self.undo(group, deployment, id, &mut told).await?;
            warnings.extend(
                told.into_iter()
                    .map(|told| format!("{}: {told}", plan.group)),
            );
            deployments.extend(undone.map(|undone| Deployment {
                priority: undone_at(deployment),
                service_id: plan.service_id,
                stop_failures: request.stop_failures,
                ..undone
            }));
        }
        if deployments.is_empty() {
            return Err(PlanError::NothingToUndo {
                release: request.release,
            });
        }
        Ok(PlannedRun {
            release,
            deployments,
            warnings,
        })
    }

    /// The deployment that undoes another one; none where there is nothing to undo, which is told.
    async fn undo(
        &self,
        group: &Group,
        deployment: &DeploymentState,
        id: DeploymentId,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Deployment>, PlanError> {
        let plan = &deployment.plan;
        if plan.direction == Direction::Operate
            && let Some(latest) = self.journal.deployments(&plan.group, 1)?.first()
            && latest.id != plan.id
        {
            warnings.push(format!(
                "{} {} came after {}: it stays as it is",
                latest.kind, latest.id, plan.kind
            ));
            return Ok(None);
        }
        match (&plan.direction, plan.kind.as_str()) {
            (Direction::Deploy, _) => self.undo_deploy(group, deployment, id, warnings).await,
            (Direction::Operate, "STOP") => {
                let started = self.operate_again(group, deployment, id, "START", &START, warnings);
                started.await.map(Some)
            }
            (Direction::Operate, "START") => {
                let stopped = self.operate_again(group, deployment, id, "STOP", &STOP, warnings);
                stopped.await.map(Some)
            }
            (Direction::Operate, kind) => {
                warnings.push(format!("{kind} is nothing that could be undone"));
                Ok(None)
            }
            // They belong to a deployment of the release, which is looked at itself.
            (Direction::Rollback { .. } | Direction::Retire { .. }, _) => Ok(None),
        }
    }

    async fn undo_deploy(
        &self,
        group: &Group,
        deployment: &DeploymentState,
        id: DeploymentId,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Deployment>, PlanError> {
        let plan = &deployment.plan;
        let version = &plan.revision.version;
        let history = self.journal.deployments(&plan.group, usize::MAX)?;
        let summary = history.into_iter().find(|past| past.id == plan.id);
        if let Some(by) = summary.and_then(|summary| summary.rolled_back_by) {
            warnings.push(format!("{version} has been taken back already, by {by}"));
            return Ok(None);
        }
        if !engine::rollback::has_switched(deployment) {
            warnings.push(format!(
                "{version} never got the traffic: there is nothing to take back"
            ));
            return Ok(None);
        }
        match self.latest_deployment(&plan.group)? {
            Some((latest, state)) if latest == plan.id => {
                let taken = self.take_back(group, id, latest, &state, warnings).await;
                match taken {
                    Err(PlanError::NoEarlierVersion { .. }) => {
                        warnings.push(format!(
                            "{version} was the first on every instance that it touched: it stays"
                        ));
                        Ok(None)
                    }
                    taken => taken.map(Some),
                }
            }
            latest => Err(PlanError::Superseded {
                group: plan.group.clone(),
                deployment: plan.id.clone(),
                latest: latest.map(|(latest, _)| latest),
            }),
        }
    }

    /// Starts or stops the instances that a deployment touched.
    async fn operate_again(
        &self,
        group: &Group,
        deployment: &DeploymentState,
        id: DeploymentId,
        kind: &str,
        events: &[LifecycleEvent],
        warnings: &mut Vec<String>,
    ) -> Result<Deployment, PlanError> {
        let is_touched = |id| {
            let index = deployment.position(id);
            index.is_some_and(|index| deployment.instances[index].is_touched())
        };
        let instances = group.instances.iter().map(|instance| &instance.id);
        let choices = Choices {
            exclude: instances.filter(|id| !is_touched(id)).cloned().collect(),
            ..Choices::default()
        };
        let operated = self.operate(group, events, id, &choices, warnings).await?;
        Ok(Deployment {
            kind: kind.to_owned(),
            batching: deployment.plan.batching.clone(),
            ..operated
        })
    }
}

/// The priority of what undoes a deployment: what went first comes last.
fn undone_at(deployment: &DeploymentState) -> i64 {
    deployment.plan.priority.saturating_neg()
}

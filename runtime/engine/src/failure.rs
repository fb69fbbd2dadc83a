//! Why a deployment fails, and how that is told.

use model::{
    Direction, Ending, GatePolicy, Hold, InstanceOutcome, OnFailure, ReleaseStatus, Scope,
    StepStatus, Strategy, Verdict,
};

use crate::deployment::has_failed;
use crate::holds::policy;
use crate::state::{DeploymentState, Progress, State};

/// That a deployment cannot succeed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// Whether it is taken back, whatever its `on_failure` says.
    pub(crate) asks_for_rollback: bool,
}

/// Why a deployment fails. It follows from the records alone, and once there it stays.
pub(crate) fn failure(deployment: &DeploymentState) -> Option<Failure> {
    let plain = |reason| Failure {
        reason,
        asks_for_rollback: false,
    };
    if let Some(reason) = &deployment.aborted {
        return Some(Failure {
            reason: reason.clone(),
            asks_for_rollback: true,
        });
    }
    let plan = &deployment.plan;
    if deployment.failed >= plan.failure_limit() {
        return Some(plain(why_failed(deployment)));
    }
    if let Some(reason) = failed_batch(deployment) {
        return Some(plain(reason));
    }
    let switch = deployment.switches.last();
    if let Some(switch) = switch.filter(|switch| has_failed(deployment, switch)) {
        let reason = switch.progress.reason().unwrap_or_default();
        return Some(plain(format!("SwitchTraffic: {reason}")));
    }
    let is_blue_green = matches!(plan.strategy, Strategy::BlueGreen { .. });
    if is_blue_green && deployment.failed > 0 && deployment.next == plan.targets.len() {
        let why = why_failed(deployment);
        return Some(plain(format!("{why}; the traffic stays where it is")));
    }
    failed_hold(deployment).or_else(|| failed_bake(deployment).map(plain))
}

fn failed_batch(deployment: &DeploymentState) -> Option<String> {
    let plan = &deployment.plan;
    let limit = plan.batch_failure_threshold?;
    if deployment.failed == 0 {
        return None;
    }
    let mut start = 0;
    for batch in plan.batches() {
        let instances = &deployment.instances[start..start + batch.len()];
        let failed = instances
            .iter()
            .filter(|instance| is_failed(instance.outcome))
            .count();
        if failed >= limit.of(batch.len()) {
            return Some(format!(
                "{}; {failed} of {} in one batch failed, batch_failure_threshold is {limit}",
                first_failed(deployment),
                batch.len()
            ));
        }
        start += batch.len();
        if start >= deployment.next {
            break;
        }
    }
    None
}

fn failed_hold(deployment: &DeploymentState) -> Option<Failure> {
    let plan = &deployment.plan;
    let hold = deployment.holds.last()?;
    let (_, decision) = hold.closed.as_ref()?;
    let policy = policy(plan, hold)?;
    if !matches!(policy, GatePolicy::Stop | GatePolicy::Rollback) {
        return None;
    }
    let what = match hold.hold {
        Hold::Gate { index } => {
            let name = plan
                .gates
                .get(index as usize)
                .map(|gate| gate.name.as_str());
            let verdict = match decision.verdict {
                Verdict::Inconclusive => "is undecided",
                Verdict::Passed | Verdict::Failed => "failed",
            };
            format!("gate `{}` {verdict}", name.unwrap_or_default())
        }
        Hold::Interval | Hold::Promotion | Hold::Bake | Hold::Health => String::new(),
    };
    let parts = [Some(what), decision.reason.clone()];
    let by = decision.by.as_ref().map(|by| format!(" (by {by})"));
    let text: Vec<_> = parts
        .into_iter()
        .flatten()
        .filter(|t| !t.is_empty())
        .collect();
    Some(Failure {
        reason: format!("{}{}", text.join(": "), by.unwrap_or_default()),
        asks_for_rollback: policy == GatePolicy::Rollback,
    })
}

/// What was found while the side that got the traffic was watched.
fn failed_bake(deployment: &DeploymentState) -> Option<String> {
    let hold = deployment
        .holds
        .iter()
        .rev()
        .find(|hold| hold.hold == Hold::Bake)?;
    let targets = deployment.plan.targets.iter();
    let invalid =
        targets
            .zip(&deployment.instances)
            .find_map(|(target, instance)| {
                let last = instance.steps.last()?;
                let is_validation = last.started_at >= hold.opened_at
                    && instance.outcome == Some(InstanceOutcome::Succeeded);
                match &last.progress {
                    Progress::Ended(
                        Ending::Failed { reason, .. } | Ending::Unreachable { reason },
                    ) if is_validation => Some(format!(
                        "{}: {} after the switch: {reason}",
                        target.instance.id, last.event
                    )),
                    _ => None,
                }
            });
    if invalid.is_some() || hold.closed.is_some() {
        return invalid;
    }
    let targets = &deployment.plan.targets;
    let down = targets.iter().find_map(|target| {
        let id = &target.instance.id;
        Some((id, deployment.down.get(id)?))
    });
    down.map(|(id, words)| format!("{id}: the balancer calls it {words} after the switch"))
}

fn is_failed(outcome: Option<InstanceOutcome>) -> bool {
    matches!(
        outcome,
        Some(InstanceOutcome::Failed | InstanceOutcome::Unreachable)
    )
}

/// Names the first instance that failed and the rule that stopped the rest.
pub(crate) fn why_failed(deployment: &DeploymentState) -> String {
    let total = deployment.instances.len();
    let instances = if total == 1 { "instance" } else { "instances" };
    format!(
        "{}; {} of {total} {instances} failed, failure_threshold is {}",
        first_failed(deployment),
        deployment.failed,
        deployment.plan.failure_threshold
    )
}

fn first_failed(deployment: &DeploymentState) -> String {
    let first = deployment
        .plan
        .targets
        .iter()
        .zip(&deployment.instances)
        .filter(|(_, state)| is_failed(state.outcome))
        .min_by_key(|(_, state)| {
            state
                .steps
                .iter()
                .rev()
                .find(|s| s.status() != Some(StepStatus::Skipped))
                .and_then(|s| s.ended_at)
        });
    first.map_or_else(String::new, |(target, state)| {
        format!(
            "{}: {}",
            target.instance.id,
            state.reason.as_deref().unwrap_or("failed")
        )
    })
}

/// A reason that names its service, where the release has several.
fn told(deployment: &DeploymentState, state: &State) -> String {
    let reason = deployment.reason.clone().unwrap_or_default();
    match state.release.scope {
        Scope::Service => reason,
        Scope::Plan => format!("{}: {reason}", deployment.plan.group),
    }
}

/// What is worth telling of a release that succeeded.
pub(crate) fn remarks(state: &State) -> Option<String> {
    let deployments = state.deployments.iter();
    let told: Vec<_> = deployments
        .filter(|deployment| deployment.reason.is_some())
        .map(|deployment| told(deployment, state))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// What a failed release says of itself.
pub(crate) fn headline(failed: &DeploymentState, state: &State) -> String {
    let reason = told(failed, state);
    let rollback = state.deployments.iter().find(|other| {
        other.plan.direction
            == Direction::Rollback {
                of: failed.plan.id.clone(),
            }
    });
    match rollback {
        Some(rollback) if rollback.status == ReleaseStatus::Succeeded => {
            format!(
                "{reason}; rolled back to {}",
                rollback.plan.revision.version
            )
        }
        Some(rollback) => {
            format!(
                "{reason}; the rollback failed too: {}",
                rollback.reason.clone().unwrap_or_default()
            )
        }
        None if failed.plan.on_failure == OnFailure::Rollback
            && failed.plan.direction == Direction::Deploy
            && failed.plan.sides.is_none() =>
        {
            format!("{reason}; not rolled back: no instance that it touched has an earlier version")
        }
        None => reason,
    }
}

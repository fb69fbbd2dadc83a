//! Planning the way back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Deployment, DeploymentId, Direction, InstanceId, InstanceOutcome, LifecycleEvent, OnFailure,
    Retire, SideGroup, Sides, Strategy, Target,
};

use crate::sequence::{Traffic, sequence};
use crate::state::DeploymentState;

/// The rollback of a deployment that has just failed, from its own records. `None` when none of the instances that it
/// touched has an earlier version, and for a blue-green deployment, which gives the traffic back before it fails.
#[must_use]
pub fn of_failed(failed: &DeploymentState, id: DeploymentId) -> Option<Deployment> {
    if is_between_colours(&failed.plan) {
        return None;
    }
    plan(failed, id, |_, target, installed| {
        if installed {
            Some(target.incoming.clone())
        } else {
            target.outgoing.clone()
        }
    })
}

/// The rollback of a deployment. It goes to every instance that the deployment touched and that has an earlier
/// version; `installed` tells what an instance has by now, given whether the deployment finished an installation there.
/// Of a blue-green deployment it goes to the side that still has the version before.
#[must_use]
pub fn plan(
    deployment: &DeploymentState,
    id: DeploymentId,
    installed: impl Fn(&InstanceId, &Target, bool) -> Option<DeploymentId>,
) -> Option<Deployment> {
    let original = &deployment.plan;
    let direction = Direction::Rollback {
        of: original.id.clone(),
    };
    if is_between_colours(original) {
        return switch_back(deployment, id, direction);
    }
    let mut targets: Vec<_> = original
        .targets
        .iter()
        .zip(&deployment.instances)
        .filter(|(_, state)| state.is_touched())
        .filter_map(|(target, state)| {
            let incoming = target.outgoing.clone()?;
            let outgoing = installed(&target.instance.id, target, state.has_installed());
            Some(Arc::new(Target {
                instance: target.instance.clone(),
                outgoing,
                incoming,
            }))
        })
        .collect();
    let down = down(deployment);
    if original.minimum_healthy.is_some() {
        // Those that serve nothing take nothing away when they start, and make room for the others.
        targets.sort_by_key(|target| !down.contains_key(&target.instance.id));
    }
    let first = targets.first()?;
    let revision = original.packages.get(&first.incoming)?.revision.clone();
    Some(Deployment {
        id,
        kind: "ROLLBACK".to_owned(),
        sequence: sequence(original.strategy, Traffic::of(original), &direction),
        direction,
        revision,
        sides: reversed(deployment),
        targets,
        down,
        ..unhindered(original)
    })
}

/// What stops a deployment's old colour, once another has its traffic.
#[must_use]
pub fn retirement(original: &Deployment, id: DeploymentId) -> Option<Deployment> {
    if original.direction != Direction::Deploy {
        return None;
    }
    let direction = Direction::Retire {
        of: original.id.clone(),
    };
    let sides = original.sides.as_ref()?;
    let targets = colour(sides, sides.from.as_ref()?);
    let first = targets.first()?;
    let revision = original.packages.get(&first.incoming)?.revision.clone();
    Some(Deployment {
        id,
        kind: "RETIRE".to_owned(),
        sequence: sequence(original.strategy, Traffic::Direct, &direction),
        direction,
        revision,
        targets,
        router: None,
        ..unhindered(original)
    })
}

/// Instances that a deployment touched and that have nothing to return to.
pub fn without_earlier_version(deployment: &DeploymentState) -> impl Iterator<Item = &InstanceId> {
    let is_between_colours = is_between_colours(&deployment.plan);
    deployment
        .plan
        .targets
        .iter()
        .zip(&deployment.instances)
        .filter(move |(target, state)| {
            !is_between_colours && state.is_touched() && target.outgoing.is_none()
        })
        .map(|(target, _)| &target.instance.id)
}

/// Whether a deployment has changed what gets the traffic: a blue-green deployment that did not has nothing to be
/// taken back.
#[must_use]
pub fn has_switched(deployment: &DeploymentState) -> bool {
    let sides = deployment.plan.sides.as_ref();
    !is_between_colours(&deployment.plan)
        || sides.is_none_or(|sides| deployment.shares.of(&sides.to) > 0)
}

fn is_between_colours(plan: &Deployment) -> bool {
    matches!(plan.strategy, Strategy::BlueGreen { .. }) && plan.sides.is_some()
}

/// Validates what still runs on the other colour, and gives the traffic back to it.
fn switch_back(
    deployment: &DeploymentState,
    id: DeploymentId,
    direction: Direction,
) -> Option<Deployment> {
    let original = &deployment.plan;
    let sides = original.sides.as_ref()?;
    let back = sides.from.as_ref()?;
    let targets = colour(sides, back);
    let first = targets.first()?;
    let revision = original.packages.get(&first.incoming)?.revision.clone();
    let was_retired = matches!(
        original.strategy,
        Strategy::BlueGreen {
            retire: Retire::Stop,
            ..
        }
    );
    let sequence = if was_retired {
        vec![
            LifecycleEvent::ApplicationStart,
            LifecycleEvent::ValidateService,
        ]
    } else {
        sequence(original.strategy, Traffic::Direct, &direction)
    };
    let installed = original
        .targets
        .iter()
        .map(|target| (target.instance.id.clone(), target.incoming.clone()));
    Some(Deployment {
        id,
        kind: "ROLLBACK".to_owned(),
        sequence,
        direction,
        revision,
        sides: Some(Sides {
            from: Some(sides.to.clone()),
            to: back.clone(),
            shares: deployment.shares.clone(),
            installed: installed.collect(),
            list: sides.list.clone(),
        }),
        targets,
        down: deployment.down.clone(),
        ..unhindered(original)
    })
}

/// The instances of a colour that have something installed, each with it.
fn colour(sides: &Sides, name: &model::SideName) -> Vec<Arc<Target>> {
    let side = sides.list.iter().find(|side| side.name == *name);
    side.iter()
        .flat_map(|side| &side.instances)
        .filter_map(|instance| {
            let installed = sides.installed.get(&instance.id)?;
            Some(Arc::new(Target {
                instance: instance.clone(),
                outgoing: Some(installed.clone()),
                incoming: installed.clone(),
            }))
        })
        .collect()
}

/// The deployment without what only holds a new version up, and without what its kind's plugin does: that knows no way
/// back, so the hooks of the event run.
fn unhindered(original: &Deployment) -> Deployment {
    Deployment {
        on_failure: OnFailure::Stop,
        gates: Vec::new(),
        wait_between: Duration::ZERO,
        calls: None,
        ..original.clone()
    }
}

/// The sides of a canary on its way back. What stays where it is belongs to the side that is returned to.
fn reversed(deployment: &DeploymentState) -> Option<Sides> {
    let sides = deployment.plan.sides.as_ref()?;
    let from = sides.from.as_ref()?;
    let stays: Vec<_> = deployment
        .plan
        .targets
        .iter()
        .zip(&deployment.instances)
        .filter(|(_, state)| !state.is_touched())
        .map(|(target, _)| target.instance.clone())
        .collect();
    let list = sides.list.iter().map(|side| {
        let mut instances = side.instances.clone();
        if side.name == *from {
            instances.extend(stays.iter().cloned());
        }
        SideGroup {
            instances,
            ..side.clone()
        }
    });
    Some(Sides {
        list: list.collect(),
        from: Some(sides.to.clone()),
        to: from.clone(),
        shares: deployment.shares.clone(),
        installed: BTreeMap::new(),
    })
}

/// What serves nothing when the way back begins, or a retry.
pub(crate) fn down(deployment: &DeploymentState) -> BTreeMap<InstanceId, String> {
    let mut down = deployment.down.clone();
    let targets = deployment.plan.targets.iter();
    for (target, state) in targets.zip(&deployment.instances) {
        let has_failed = matches!(
            state.outcome,
            Some(InstanceOutcome::Failed | InstanceOutcome::Unreachable)
        );
        if has_failed || state.is_in_flight() {
            let words = format!("left by {} that failed", deployment.plan.id);
            down.insert(target.instance.id.clone(), words);
        }
    }
    down
}

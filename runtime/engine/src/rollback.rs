//! Planning the way back.

use std::sync::Arc;

use model::{Deployment, DeploymentId, Direction, InstanceId, OnFailure, Target};

use crate::sequence::{Traffic, sequence};
use crate::state::DeploymentState;

/// The rollback of a deployment that has just failed, from its own records. `None` when none of the instances that it
/// touched has an earlier version.
#[must_use]
pub fn of_failed(failed: &DeploymentState, id: DeploymentId) -> Option<Deployment> {
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
    let targets: Vec<_> = original
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
    let first = targets.first()?;
    let revision = original.packages.get(&first.incoming)?.revision.clone();
    Some(Deployment {
        id,
        kind: "ROLLBACK".to_owned(),
        sequence: sequence(original.strategy, Traffic::of(original), &direction),
        direction,
        revision,
        targets,
        on_failure: OnFailure::Stop,
        ..Deployment::clone(original)
    })
}

/// Instances that a deployment touched and that have nothing to return to.
pub fn without_earlier_version(deployment: &DeploymentState) -> impl Iterator<Item = &InstanceId> {
    deployment
        .plan
        .targets
        .iter()
        .zip(&deployment.instances)
        .filter(|(target, state)| state.is_touched() && target.outgoing.is_none())
        .map(|(target, _)| &target.instance.id)
}

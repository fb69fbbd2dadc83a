//! The deployments that the engine plans by itself: ways back, and the end of a colour.

use std::collections::BTreeMap;

use model::{DeploymentId, Direction, Fact, InstanceId, ReleaseStatus, Retire, Strategy};

use super::{Kept, Rule, Seen, require};

pub(super) const RULES: &[Rule] = &[
    (
        "a rollback goes to the instances that were touched, from what they have to what they had",
        takes_back_what_was_done,
    ),
    (
        "a colour is retired when the other has its traffic",
        retires_the_other_colour,
    ),
];

fn takes_back_what_was_done(seen: &Seen<'_>) -> Kept {
    let Fact::DeploymentOpened(plan) = &seen.record.fact else {
        return Ok(());
    };
    let Direction::Rollback { of } = &plan.direction else {
        return Ok(());
    };
    let Some((original, state)) = seen.deployment(of) else {
        return Err(format!("there is no deployment {of}"));
    };
    require(state.status == ReleaseStatus::Failed, || {
        format!("{of} is {}", state.status)
    })?;
    type Change = (Option<DeploymentId>, DeploymentId);
    let mut expected: BTreeMap<&InstanceId, Change> = BTreeMap::new();
    for (target, it) in original.targets.iter().zip(&state.instances) {
        let Some(earlier) = target.outgoing.clone().filter(|_| it.is_touched()) else {
            continue;
        };
        let has = match it.has_installed() {
            true => Some(target.incoming.clone()),
            false => target.outgoing.clone(),
        };
        expected.insert(&target.instance.id, (has, earlier));
    }
    let planned = plan.targets.iter().map(|target| {
        let change = (target.outgoing.clone(), target.incoming.clone());
        (&target.instance.id, change)
    });
    let planned: BTreeMap<_, _> = planned.collect();
    require(planned == expected, || {
        format!("it is {planned:?} and should be {expected:?}")
    })
}

fn retires_the_other_colour(seen: &Seen<'_>) -> Kept {
    let Fact::DeploymentOpened(plan) = &seen.record.fact else {
        return Ok(());
    };
    let Direction::Retire { of } = &plan.direction else {
        return Ok(());
    };
    let Some((original, state)) = seen.deployment(of) else {
        return Err(format!("there is no deployment {of}"));
    };
    let is_asked_for = matches!(
        original.strategy,
        Strategy::BlueGreen {
            retire: Retire::Stop,
            ..
        }
    );
    let has_it = original
        .sides
        .as_ref()
        .is_some_and(|sides| state.shares.of(&sides.to) == 100);
    require(
        is_asked_for && has_it && state.status == ReleaseStatus::Succeeded,
        || format!("{of} is {} with {}", state.status, state.shares),
    )?;
    let serving = plan
        .targets
        .iter()
        .find(|target| state.position(&target.instance.id).is_some());
    require(serving.is_none(), || {
        format!("{serving:?} is of the colour that serves")
    })
}

//! Who gets traffic: the balancer, the router and shares.

use std::collections::BTreeSet;

use engine::{Action, DeploymentState, Progress, State, SwitchAction};
use model::{
    Capacity, Deployment, Direction, Ending, Fact, InstanceId, LifecycleEvent, Order,
    ReleaseStatus, Shares, SideName, Strategy,
};

use super::{Kept, Rule, Seen, has_failed, has_succeeded, is_in_flight, require};
use crate::balancer::has_one_group;

pub(super) const RULES: &[Rule] = &[
    (
        "a side of a router gets only what its healthy instances carry",
        carries_its_share,
    ),
    (
        "the traffic goes to a colour when all of its instances have the revision",
        colour_is_complete,
    ),
    (
        "the traffic is back before a blue-green deployment is called failed",
        traffic_is_back,
    ),
];

/// The instances of a side by what became of them, but for those that the balancer calls down.
fn healthy(plan: &Deployment, state: &DeploymentState, side: &SideName) -> BTreeSet<InstanceId> {
    let Some(sides) = &plan.sides else {
        return BTreeSet::new();
    };
    let named = sides.list.iter().find(|it| it.name == *side);
    let own = named.into_iter().flat_map(|side| &side.instances);
    let mut members: BTreeSet<_> = own.map(|instance| instance.id.clone()).collect();
    if matches!(plan.strategy, Strategy::Canary { .. }) {
        for (target, it) in plan.targets.iter().zip(&state.instances) {
            let id = &target.instance.id;
            let is_here = if *side == sides.to {
                has_succeeded(it)
            } else {
                !it.is_touched() && !has_failed(it) && !plan.down.contains_key(id)
            };
            if is_here {
                members.insert(id.clone());
            }
        }
    }
    members.retain(|id| !state.down.contains_key(id));
    members
}

/// Nobody gets more than the healthy instances carry by their number, but for the file and an operator who insists; a side
/// without a healthy instance gets nothing, unless nobody is left on the other.
fn carries_its_share(seen: &Seen<'_>) -> Kept {
    let Fact::SwitchStarted {
        deployment,
        stage,
        to,
        ..
    } = &seen.record.fact
    else {
        return Ok(());
    };
    let Some((plan, state)) = seen.deployment(deployment) else {
        return Ok(());
    };
    let (Some(sides), Strategy::Canary { traffic, .. }) = (&plan.sides, plan.strategy) else {
        return Ok(());
    };
    let Some(from) = &sides.from else {
        return Ok(());
    };
    let (share, before) = (to.of(&sides.to), state.shares.of(&sides.to));
    if share <= before || plan.direction != Direction::Deploy {
        return Ok(());
    }
    let (own, others) = (
        healthy(plan, state, &sides.to).len(),
        healthy(plan, state, from).len(),
    );
    // What begins a switch that cannot be is recorded as one to where the traffic is.
    let carried = u8::try_from((own * 100).div_ceil((own + others).max(1))).unwrap_or(100);
    let is_insisted_on = matches!(
        (stage, seen.order),
        (
            None,
            Some(Order::Weight {
                capacity: Capacity::Exceed,
                ..
            })
        )
    );
    let is_of_the_file = stage.is_some_and(|stage| stage.boundary == 1) && traffic == Some(share);
    let is_all_done = state.instances.iter().all(|it| it.outcome.is_some());
    let away = match stage {
        // The next batch leaves before the share is needed.
        Some(_) if !is_all_done => next_batch(plan, state).len(),
        _ => 0,
    };
    let fair = (own * 100).div_ceil((own + others.saturating_sub(away)).max(1));
    let fair = u8::try_from(fair).unwrap_or(100);
    let is_fair = share <= carried.max(fair) || is_of_the_file || is_insisted_on;
    // The last switch of all waits by itself for the side to be healthy.
    require((own > 0 && is_fair) || others == 0 || is_all_done, || {
        format!(
            "{} gets {share}% with {own} healthy instances against {others}",
            sides.to
        )
    })
}

/// The instances that start next.
fn next_batch(plan: &Deployment, state: &DeploymentState) -> Vec<InstanceId> {
    let mut start = 0;
    for batch in plan.batches() {
        let of_batch = &state.instances[start..start + batch.len()];
        if of_batch
            .iter()
            .any(|it| it.steps.is_empty() && it.outcome.is_none())
        {
            return batch.iter().map(|it| it.instance.id.clone()).collect();
        }
        start += batch.len();
    }
    Vec::new()
}

fn colour_is_complete(seen: &Seen<'_>) -> Kept {
    let Fact::SwitchStarted { deployment, to, .. } = &seen.record.fact else {
        return Ok(());
    };
    let Some((plan, state)) = seen.deployment(deployment) else {
        return Ok(());
    };
    let (Some(sides), Strategy::BlueGreen { .. }) = (&plan.sides, plan.strategy) else {
        return Ok(());
    };
    let is_there = to.of(&sides.to) > state.shares.of(&sides.to);
    let is_complete = state.instances.iter().all(has_succeeded);
    require(!is_there || is_complete, || {
        format!("{} gets the traffic and is not complete", sides.to)
    })
}

fn traffic_is_back(seen: &Seen<'_>) -> Kept {
    let Fact::DeploymentEnded {
        deployment,
        status: ReleaseStatus::Failed,
        ..
    } = &seen.record.fact
    else {
        return Ok(());
    };
    let Some((plan, state)) = seen.deployment(deployment) else {
        return Ok(());
    };
    let (Some(sides), Strategy::BlueGreen { .. }) = (&plan.sides, plan.strategy) else {
        return Ok(());
    };
    let Some(from) = &sides.from else {
        return Ok(());
    };
    if plan.direction != Direction::Deploy || state.shares.of(&sides.to) == 0 {
        return Ok(());
    }
    let is_tried = state.switches.iter().any(|switch| {
        switch.to == Shares::all_to(from.clone()) && matches!(switch.progress, Progress::Ended(_))
    });
    require(is_tried, || format!("it is at {}", state.shares))
}

/// The steps that a balanced instance goes through without traffic.
pub(super) fn has_no_traffic(action: &Action, gives_traffic: bool) -> Kept {
    let changes = matches!(
        action.event,
        LifecycleEvent::ApplicationStop
            | LifecycleEvent::BeforeInstall
            | LifecycleEvent::Install
            | LifecycleEvent::AfterInstall
            | LifecycleEvent::ApplicationStart
    );
    require(!changes || !gives_traffic, || {
        format!(
            "{} on {} while it gets traffic",
            action.event, action.target.instance.id
        )
    })
}

/// An instance joins when its deployment got through everything up to ValidateService, and never once it has failed.
pub(super) fn is_validated(state: &State, plan: &Deployment, instance: &InstanceId) -> Kept {
    let Some(deployment) = state.find(&plan.id) else {
        return Err(format!("there is no deployment {}", plan.id));
    };
    let Some(index) = deployment.position(instance) else {
        return Err(format!("{instance} is no instance of {}", plan.id));
    };
    let it = &deployment.instances[index];
    require(it.outcome.is_none(), || {
        format!("{instance} is {:?}", it.outcome)
    })?;
    let install = (plan.direction != Direction::Operate).then_some(LifecycleEvent::Install);
    for event in install.into_iter().chain([LifecycleEvent::ValidateService]) {
        let last = it.steps.iter().rfind(|step| step.event == event);
        let is_done = last.is_some_and(|step| {
            matches!(
                step.progress,
                Progress::Skipped(_) | Progress::Ended(Ending::Succeeded { .. })
            )
        });
        require(is_done, || {
            format!("{instance} joins and its {event} is {last:?}")
        })?;
    }
    Ok(())
}

/// The split is the one that was recorded, and a side that gains has no instance that failed or is in flight.
pub(super) fn gains_well(
    state: &State,
    switch: &SwitchAction,
    before: &Shares,
    to: &Shares,
) -> Kept {
    let plan = &switch.deployment;
    let Some(deployment) = state.find(&plan.id) else {
        return Err(format!("there is no deployment {}", plan.id));
    };
    let recorded = deployment.current_switch().map(|switch| &switch.to);
    require(recorded == Some(to), || {
        format!("the traffic becomes {to} where {recorded:?} is recorded")
    })?;
    let gaining = to.iter().filter(|(side, share)| *share > before.of(side));
    for (side, _) in gaining {
        for id in switch.members.get(side).into_iter().flatten() {
            let Some(index) = deployment.position(id) else {
                continue;
            };
            let it = &deployment.instances[index];
            let is_away = has_failed(it) || is_in_flight(it);
            require(!is_away, || {
                format!("{id} of {side}, which gets more, is {:?}", it.outcome)
            })?;
        }
    }
    // Shares of one group are those of its members' weights, which this switch gives to each.
    let weighed: BTreeSet<_> = switch.members.values().flatten().collect();
    let failed = plan.targets.iter().zip(&deployment.instances);
    let failed = failed
        .filter(|(_, it)| has_failed(it))
        .map(|(target, _)| &target.instance.id)
        .find(|id| weighed.contains(id));
    require(!has_one_group(plan) || failed.is_none(), || {
        format!("{failed:?} has failed and gets a weight")
    })
}

//! Who can take traffic: the instances of each side, fair shares, and how many instances have to stay healthy.

use std::collections::{BTreeMap, BTreeSet};

use model::{Deployment, InstanceId, InstanceOutcome, Shares, SideName, Sides};

use crate::state::DeploymentState;
use crate::strategy::{Goal, takes_aside};

/// The instances of each side, as they are registered by now.
pub(crate) fn members(state: &DeploymentState) -> BTreeMap<SideName, Vec<InstanceId>> {
    let plan = &state.plan;
    let Some(sides) = &plan.sides else {
        return BTreeMap::new();
    };
    let mut members: BTreeMap<_, Vec<_>> = sides
        .list
        .iter()
        .map(|side| {
            let ids = side.instances.iter().map(|instance| instance.id.clone());
            (side.name.clone(), ids.collect())
        })
        .collect();
    if !matches!(plan.strategy, model::Strategy::Canary { .. }) {
        return members;
    }
    // Before the first batch in one group its instances are told apart from the others, to take their traffic away.
    let joining = if state.next == 0 && has_one_group(sides) && takes_aside(plan) {
        plan.batches().next().map_or(0, <[_]>::len)
    } else {
        0
    };
    for (index, target) in plan.targets.iter().enumerate() {
        let id = &target.instance.id;
        let instance = &state.instances[index];
        let side = match instance.outcome {
            Some(InstanceOutcome::Succeeded) => Some(&sides.to),
            None if index < joining => Some(&sides.to),
            None | Some(InstanceOutcome::Skipped) if !instance.is_touched() => {
                // What had no traffic when a way back or a retry began is on no side.
                sides.from.as_ref().filter(|_| !plan.down.contains_key(id))
            }
            _ => None,
        };
        if let Some(side) = side {
            members.entry(side.clone()).or_default().push(id.clone());
        }
    }
    members
}

/// Whether the sides are told apart by the weights of their instances alone.
fn has_one_group(sides: &Sides) -> bool {
    sides
        .list
        .windows(2)
        .all(|pair| pair[0].group == pair[1].group)
}

/// The shares that a goal means by now.
///
/// # Errors
/// Why the side cannot get what the goal asks for.
pub(crate) fn shares(state: &DeploymentState, goal: Goal) -> Result<Shares, String> {
    let Some(sides) = &state.plan.sides else {
        return Ok(Shares::default());
    };
    let to = &sides.to;
    let Some(from) = &sides.from else {
        return Ok(Shares::all_to(to.clone()));
    };
    if is_deserted(state) {
        return Ok(Shares::all_to(to.clone()));
    }
    let between = |percent| Ok(Shares::between(to.clone(), percent, from.clone()));
    match goal {
        Goal::Nothing => between(0),
        Goal::Everything => between(100),
        Goal::Canary(percent) => match most(state, to) {
            0 => Err(format!("no instance of `{to}` is healthy")),
            // What a deployment that goes on from another one finds there stays.
            fair => between(percent.unwrap_or(fair).max(state.shares.of(to))),
        },
        Goal::Fair => {
            let away: BTreeSet<_> = next_batch(state).into_iter().collect();
            let fair = percent(
                healthy(state, to, &BTreeSet::new()),
                healthy(state, from, &away),
            );
            match fair {
                0 => Err(format!("no instance of `{to}` is healthy")),
                fair => between(fair.max(state.shares.of(to))),
            }
        }
    }
}

/// The largest share, in percent, that the healthy instances of a side carry by their number. 0 when none is healthy.
pub(crate) fn most(state: &DeploymentState, side: &SideName) -> u8 {
    let others: usize = state
        .plan
        .sides
        .iter()
        .flat_map(|sides| &sides.list)
        .filter(|other| other.name != *side)
        .map(|other| healthy(state, &other.name, &BTreeSet::new()))
        .sum();
    percent(healthy(state, side, &BTreeSet::new()), others)
}

/// `part` of `part + others` in percent, rounded up.
fn percent(part: usize, others: usize) -> u8 {
    let share = (part * 100).div_ceil((part + others).max(1));
    u8::try_from(share).unwrap_or(100)
}

fn healthy(state: &DeploymentState, side: &SideName, away: &BTreeSet<&InstanceId>) -> usize {
    let members = members(state);
    let of_side = members.get(side).map_or(&[][..], Vec::as_slice);
    of_side
        .iter()
        .filter(|id| !state.down.contains_key(*id) && !away.contains(id))
        .count()
}

fn next_batch(state: &DeploymentState) -> Vec<&InstanceId> {
    let mut start = 0;
    for batch in state.plan.batches() {
        let end = start + batch.len();
        if end > state.next {
            return batch.iter().map(|target| &target.instance.id).collect();
        }
        start = end;
    }
    Vec::new()
}

/// Why no further instance may start for now, where `minimum_healthy` says so.
pub(crate) fn shortage(state: &DeploymentState, candidate: usize) -> Option<Shortage> {
    let plan = &state.plan;
    let minimum = plan.minimum_healthy?;
    let total = plan.targets.len() + others(plan);
    let needed = minimum.of(total);
    let candidate = &plan.targets[candidate].instance.id;
    if state.down.contains_key(candidate) {
        // It takes nothing away that is there.
        return None;
    }
    let outside = state
        .down
        .keys()
        .filter(|id| match state.position(id) {
            // What is in flight or failed is counted already.
            Some(index) => {
                let instance = &state.instances[index];
                !instance.is_in_flight()
                    && !matches!(
                        instance.outcome,
                        Some(InstanceOutcome::Failed | InstanceOutcome::Unreachable)
                    )
            }
            None => true,
        })
        .count();
    let gone = state.in_flight + state.failed + 1;
    (total < needed + gone + outside).then(|| Shortage {
        is_hopeless: total < needed + state.failed + 1,
        reason: {
            let down: Vec<_> = state
                .down
                .iter()
                .take(3)
                .map(|(id, words)| format!("{id} is {words}"))
                .collect();
            let because = match (down.is_empty(), state.failed) {
                (true, 0) => String::new(),
                (true, failed) => format!(": {failed} failed"),
                (false, 0) => format!(": {}", down.join(", ")),
                (false, failed) => format!(": {failed} failed, {}", down.join(", ")),
            };
            format!(
                "{candidate} may not start while {minimum} of {total} have to be healthy{because}"
            )
        },
    })
}

/// Instances of the group that serve and are no part of the deployment.
fn others(plan: &Deployment) -> usize {
    plan.sides
        .iter()
        .flat_map(|sides| &sides.list)
        .map(|side| side.instances.len())
        .sum()
}

/// That too few instances would be healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// Whether waiting is of no use.
    pub(crate) is_hopeless: bool,
    pub(crate) reason: String,
}

/// Whether nobody is on the side that is left: before a first deployment, or when everything there is down.
pub(crate) fn is_deserted(state: &DeploymentState) -> bool {
    let sides = state.plan.sides.as_ref();
    let from = sides.and_then(|sides| sides.from.as_ref());
    from.is_some_and(|from| members(state).get(from).is_none_or(Vec::is_empty))
}

/// Whether the traffic is split so by the records already, and the split is all there is to it: in one group it is
/// made of the weights of instances, which come and go.
pub(crate) fn is_settled(state: &DeploymentState, to: &Shares) -> bool {
    let is_canary = matches!(state.plan.strategy, model::Strategy::Canary { .. });
    let sides = state.plan.sides.as_ref();
    is_canary && sides.is_some_and(|sides| !has_one_group(sides)) && state.shares == *to
}

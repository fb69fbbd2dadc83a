//! Canary: a first batch with a share of the traffic, a promotion, and the others.

use model::{Batching, Deployment, Direction, Hold, Promote};

use super::{Boundary, Goal, Stop, gates, interval};

pub(super) fn stops(
    plan: &Deployment,
    at: Boundary,
    traffic: Option<u8>,
    promote: Promote,
) -> Vec<Stop> {
    let mut stops = Vec::new();
    let returns = plan.direction != Direction::Deploy;
    let switch = |goal| plan.router.as_ref().map(|_| Stop::Switch(goal));
    if returns && leaves_a_part(plan) {
        // The side that is left loses its traffic before anything on it changes. At the end, instances that came back
        // are weighed as the others.
        return Vec::from_iter(switch(Goal::Everything).filter(|_| at.is_start() || at.is_end()));
    }
    if at.is_start() && takes_aside(plan) {
        stops.extend(switch(Goal::Nothing));
        return stops;
    }
    if at.is_start() && promote == Promote::Given {
        return Vec::from_iter(switch(Goal::Fair));
    }
    let at = if takes_aside(plan) {
        at
    } else {
        // The first batch is done: the instances that have the revision are its.
        Boundary {
            done: at.done + 1,
            of: at.of + 1,
        }
    };
    if at.done == 1 && !at.is_end() && !returns {
        stops.extend(switch(Goal::Canary(traffic)));
        stops.extend(gates(plan, at));
        stops.push(Stop::Hold(Hold::Promotion));
    } else {
        stops.extend(gates(plan, at));
    }
    stops.extend(interval(plan, at));
    stops.extend(switch(if at.is_end() {
        Goal::Everything
    } else {
        Goal::Fair
    }));
    stops
}

/// Whether the first instances join their side before it gets any traffic. A deployment that goes on from another one's
/// first batch has instances there that have traffic.
pub(crate) fn takes_aside(plan: &Deployment) -> bool {
    let has_first_batch = matches!(plan.batching, Batching::FirstThenEven { .. });
    match plan.direction {
        Direction::Deploy => has_first_batch,
        _ => !leaves_a_part(plan),
    }
}

/// Whether instances that are no part of the deployment have traffic on the side that it goes to.
fn leaves_a_part(plan: &Deployment) -> bool {
    plan.sides.as_ref().is_some_and(|sides| {
        let mut list = sides.list.iter();
        sides.shares.of(&sides.to) > 0
            && list.any(|side| side.name == sides.to && !side.instances.is_empty())
    })
}

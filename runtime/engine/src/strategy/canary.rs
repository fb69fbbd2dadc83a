//! Canary: a first batch with a share of the traffic, a promotion, and the others.

use model::{Deployment, Direction, Hold};

use super::{Boundary, Goal, Stop, gates, interval};

pub(super) fn stops(plan: &Deployment, at: Boundary, traffic: Option<u8>) -> Vec<Stop> {
    let mut stops = Vec::new();
    let returns = plan.direction != Direction::Deploy;
    let switch = |goal| plan.router.as_ref().map(|_| Stop::Switch(goal));
    if returns && leaves_a_part(plan) {
        // The side that is left loses its traffic before anything on it changes. At the end, instances that came back
        // are weighed as the others.
        return Vec::from_iter(switch(Goal::Everything).filter(|_| at.is_start() || at.is_end()));
    }
    if at.is_start() {
        stops.extend(switch(Goal::Nothing));
        return stops;
    }
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

/// Whether the side that the deployment goes to has instances that are no part of it.
fn leaves_a_part(plan: &Deployment) -> bool {
    plan.sides.as_ref().is_some_and(|sides| {
        sides
            .list
            .iter()
            .any(|side| side.name == sides.to && !side.instances.is_empty())
    })
}

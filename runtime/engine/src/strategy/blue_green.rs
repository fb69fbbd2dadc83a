//! Blue-green: all of one side, then the traffic at once.

use std::time::Duration;

use model::{Deployment, Direction, Hold};

use super::{Boundary, Goal, Stop, gates, interval};

pub(super) fn stops(plan: &Deployment, at: Boundary, bake: Duration) -> Vec<Stop> {
    let mut stops: Vec<_> = gates(plan, at).chain(interval(plan, at)).collect();
    if at.is_end() {
        stops.push(Stop::Switch(Goal::Everything));
        if plan.direction == Direction::Deploy && !bake.is_zero() {
            stops.push(Stop::Hold(Hold::Bake));
        }
    }
    stops
}

//! Rolling: batches, and what stands between them.

use model::Deployment;

use super::{Boundary, Stop, gates, interval};

pub(super) fn stops(plan: &Deployment, at: Boundary) -> Vec<Stop> {
    gates(plan, at).chain(interval(plan, at)).collect()
}

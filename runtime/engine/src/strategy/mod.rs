//! What a deployment stops for between its batches: one file a strategy, each a table of DESIGN.md §2.
//!
//! A *boundary* is the number of batches that are done. The stops at a boundary follow from the plan alone, so that
//! their positions name the same stops after a crash.

mod blue_green;
mod canary;
mod rolling;

pub(crate) use canary::takes_aside;

use model::{Deployment, Direction, GatePosition, Hold, Strategy};

/// So many batches are done, of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) done: u32,
    pub(crate) of: u32,
}

/// Something that has to be over before the deployment goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    Switch(Goal),
    Hold(Hold),
}

/// What the side that the deployment goes to is to get of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Nothing yet, so that instances can join it.
    Nothing,
    /// This percentage, or the fair share of its instances.
    Canary(Option<u8>),
    /// The fair share while the next batch is away, and never less than before.
    Fair,
    Everything,
}

impl Boundary {
    fn is_start(self) -> bool {
        self.done == 0
    }

    fn is_end(self) -> bool {
        self.done == self.of
    }
}

/// The stops at a boundary, in order.
pub(crate) fn stops(plan: &Deployment, at: Boundary) -> Vec<Stop> {
    match plan.strategy {
        _ if matches!(plan.direction, Direction::Retire { .. }) => Vec::new(),
        Strategy::Rolling => rolling::stops(plan, at),
        Strategy::BlueGreen { bake, .. } => blue_green::stops(plan, at, bake),
        Strategy::Canary { traffic, promote } => canary::stops(plan, at, traffic, promote),
    }
}

/// The gates that stand at a boundary.
fn gates(plan: &Deployment, at: Boundary) -> impl Iterator<Item = Stop> {
    plan.gates
        .iter()
        .zip(0..)
        .filter(move |(gate, _)| match gate.after {
            GatePosition::First => at.done == 1,
            GatePosition::Each => !at.is_start(),
            GatePosition::Last => at.is_end() && !at.is_start(),
        })
        .map(|(_, index)| Stop::Hold(Hold::Gate { index }))
}

/// The pause between two batches.
fn interval(plan: &Deployment, at: Boundary) -> Option<Stop> {
    let is_between = !at.is_start() && !at.is_end();
    (is_between && !plan.wait_between.is_zero()).then_some(Stop::Hold(Hold::Interval))
}

//! What a retry of a canary goes on from: who has the revision already, what is left of the batches, and how the traffic
//! may be.

use std::collections::BTreeMap;

use model::{
    Batching, GatePosition, Hold, Instance, InstanceId, InstanceOutcome, Promote, Shares,
    SideGroup, SideName, Sides, Strategy,
};

use crate::holds::is_passed;
use crate::rollback::down;
use crate::state::{DeploymentState, Progress};

/// A canary that ended between its two sides, for whoever plans to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remainder {
    /// Absent where no side had traffic before.
    pub from: Option<SideName>,
    pub to: SideName,
    pub strategy: Strategy,
    pub batching: Batching,
    /// The instances that are left, in order.
    pub left: Vec<InstanceId>,
    /// Those that have the revision, and are on the side that it goes to.
    pub upgraded: Vec<InstanceId>,
    /// Those that are to stay on the other side.
    pub stays: Vec<InstanceId>,
    /// What serves nothing, as far as the records say.
    pub down: BTreeMap<InstanceId, String>,
    /// Every split that the deployment may have left behind, the likeliest first.
    pub shares: Vec<Shares>,
}

/// What is left of a canary that moved traffic between two sides. `None` of any other deployment.
#[must_use]
pub fn remainder(of: &DeploymentState) -> Option<Remainder> {
    let Strategy::Canary { traffic, promote } = of.plan.strategy else {
        return None;
    };
    let sides = of.plan.sides.as_ref()?;
    let from = sides.from.clone();
    let on = |name: &SideName| {
        let side = sides.list.iter().filter(move |side| side.name == *name);
        side.flat_map(|side| side.instances.iter().map(id))
            .collect::<Vec<_>>()
    };
    let mut upgraded = on(&sides.to);
    let mut left = Vec::new();
    for (target, state) in of.plan.targets.iter().zip(&of.instances) {
        if state.outcome == Some(InstanceOutcome::Succeeded) {
            upgraded.push(id(&target.instance));
        } else {
            left.push(id(&target.instance));
        }
    }
    let promote = if is_promoted(of) {
        Promote::Given
    } else {
        promote
    };
    Some(Remainder {
        to: sides.to.clone(),
        strategy: Strategy::Canary { traffic, promote },
        batching: batching(of, &left, upgraded.is_empty()),
        left,
        upgraded,
        stays: from.as_ref().map(on).unwrap_or_default(),
        down: down(of),
        shares: shares(of),
        from,
    })
}

impl Remainder {
    /// Whether gates at this position are still to be passed.
    #[must_use]
    pub fn has_ahead(&self, position: GatePosition) -> bool {
        let is_promoted = matches!(
            self.strategy,
            Strategy::Canary {
                promote: Promote::Given,
                ..
            }
        );
        !is_promoted || position != GatePosition::First
    }

    /// The sides of the deployment that goes on, with what the router says by now. Whoever is not `present` in the group
    /// any more is on neither.
    #[must_use]
    pub fn sides(&self, groups: Vec<SideGroup>, present: &[Instance], shares: Shares) -> Sides {
        let of = |name: &SideName| match name {
            name if *name == self.to => pick(&self.upgraded, present),
            name if Some(name) == self.from.as_ref() => pick(&self.stays, present),
            _ => Vec::new(),
        };
        let side = |group: SideGroup| SideGroup {
            instances: of(&group.name),
            ..group
        };
        Sides {
            list: groups.into_iter().map(side).collect(),
            from: self.from.clone(),
            to: self.to.clone(),
            shares,
            installed: BTreeMap::new(),
        }
    }

    /// The instances of each side as they are registered by now.
    #[must_use]
    pub fn members(&self, present: &[Instance]) -> BTreeMap<SideName, Vec<Instance>> {
        let serving = self.left.iter().filter(|id| !self.down.contains_key(id));
        let remaining: Vec<_> = self.stays.iter().chain(serving).cloned().collect();
        let from = self.from.clone();
        from.map(|from| (from, pick(&remaining, present)))
            .into_iter()
            .chain([(self.to.clone(), pick(&self.upgraded, present))])
            .collect()
    }
}

fn pick(ids: &[InstanceId], present: &[Instance]) -> Vec<Instance> {
    let find = |id: &InstanceId| present.iter().find(|instance| instance.id == *id);
    ids.iter().filter_map(find).cloned().collect()
}

fn id(instance: &Instance) -> InstanceId {
    instance.id.clone()
}

fn is_promoted(of: &DeploymentState) -> bool {
    let was_given = matches!(
        of.plan.strategy,
        Strategy::Canary {
            promote: Promote::Given,
            ..
        }
    );
    let mut holds = of.holds.iter();
    was_given || holds.any(|hold| hold.hold == Hold::Promotion && is_passed(&of.plan, hold))
}

/// Batches that are no larger than those that were meant: what is left of the first one, as long as anything is, and then
/// the others.
fn batching(of: &DeploymentState, left: &[InstanceId], is_untouched: bool) -> Batching {
    let sizes = of.plan.batching.sizes(of.plan.targets.len());
    let first = match of.plan.batching {
        Batching::FirstThenEven { .. } => sizes.first().copied().unwrap_or(0),
        _ => 0,
    };
    let is_left = |id: &InstanceId| left.contains(id);
    let in_first = of.plan.targets.iter().take(first);
    let in_first = match is_untouched {
        true => first.min(left.len()),
        false => in_first
            .filter(|target| is_left(&target.instance.id))
            .count(),
    };
    let others = if first > 0 { &sizes[1..] } else { &sizes[..] };
    let largest = others.iter().max().copied().unwrap_or(1);
    let count = |instances: usize| {
        let batches = instances.div_ceil(largest.max(1)).max(1);
        u32::try_from(batches).unwrap_or(u32::MAX)
    };
    if in_first == 0 {
        return Batching::Even(count(left.len()));
    }
    Batching::FirstThenEven {
        first: u32::try_from(in_first).unwrap_or(u32::MAX),
        rest: count(left.len() - in_first),
    }
}

/// The split that was reached, and those on either side of a switch whose outcome says nothing of where the traffic is.
fn shares(of: &DeploymentState) -> Vec<Shares> {
    let mut shares = vec![of.shares.clone()];
    if let Some(last) = of.switches.last() {
        let is_open = !matches!(
            last.progress,
            Progress::Skipped(_) | Progress::Ended(model::Ending::Succeeded { .. })
        );
        if is_open {
            shares.extend([last.from.clone(), last.to.clone()]);
        }
    }
    shares.dedup();
    shares
}

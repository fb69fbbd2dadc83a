//! Which instance may start, and when: batches, thresholds, health, gates and priorities of DESIGN.md §2.

use std::ops::Range;

use engine::DeploymentState;
use model::{
    Boundary, Deployment, Direction, Fact, GatePolicy, GatePosition, Hold, Promote, ReleaseStatus,
    Scope, Strategy, Verdict,
};

use super::{Kept, Rule, Seen, has_failed, is_in_flight, require};

pub(super) const RULES: &[Rule] = &[
    (
        "an instance starts only while the release runs",
        starts_while_it_runs,
    ),
    ("instances start in the order of the plan", in_order),
    ("batches go as planned", as_planned),
    (
        "no instance starts when failure_threshold is reached",
        below_the_threshold,
    ),
    (
        "no instance starts that leaves fewer than minimum_healthy",
        enough_are_healthy,
    ),
    (
        "no batch starts before its gates, its promotion and its wait are over",
        boundaries_are_passed,
    ),
    ("a wait is as long as planned", waits_as_long_as_planned),
    (
        "a service begins when all of a higher priority have succeeded",
        priorities_are_kept,
    ),
];

/// At the boundary of services, those that have begun go on while the release is paused or stopped.
fn starts_while_it_runs(seen: &Seen<'_>) -> Kept {
    let Some((plan, state, _)) = seen.starts() else {
        return Ok(());
    };
    let status = seen.state.status;
    let usual = match seen.state.release.scope {
        Scope::Service => Boundary::Batch,
        Scope::Plan => Boundary::Service,
    };
    let follows = matches!(
        plan.direction,
        Direction::Rollback { .. } | Direction::Retire { .. }
    );
    let finishes = seen.state.winds_down_at.unwrap_or(usual) == Boundary::Service
        && (follows || !is_untouched(state));
    let may = match status {
        ReleaseStatus::Running => true,
        ReleaseStatus::Pausing | ReleaseStatus::Stopping => finishes,
        _ => false,
    };
    require(may, || format!("the release is {status}"))
}

/// Whether nothing has been done about a deployment.
fn is_untouched(state: &DeploymentState) -> bool {
    state.switches.is_empty()
        && state.holds.is_empty()
        && state.instances.iter().all(|it| it.steps.is_empty())
}

fn in_order(seen: &Seen<'_>) -> Kept {
    let Some((plan, state, index)) = seen.starts() else {
        return Ok(());
    };
    let before = state.instances[..index]
        .iter()
        .position(|it| it.steps.is_empty() && it.outcome.is_none());
    require(before.is_none(), || {
        let name = |index: usize| &plan.targets[index].instance.id;
        format!("{} before {:?}", name(index), before.map(name))
    })
}

/// The batches that end before the next begins, as positions; one of all where a window slides.
fn batches(plan: &Deployment) -> Vec<Range<usize>> {
    let total = plan.targets.len();
    let sizes = match plan.has_barriers() {
        true => plan.batching.sizes(total),
        false => vec![total],
    };
    let mut start = 0;
    let mut all = Vec::new();
    for size in sizes {
        all.push(start..start + size);
        start += size;
    }
    all
}

fn as_planned(seen: &Seen<'_>) -> Kept {
    let Some((plan, state, index)) = seen.starts() else {
        return Ok(());
    };
    let batches = batches(plan);
    let Some(batch) = batches.iter().find(|batch| batch.contains(&index)) else {
        return Err("it is in no batch".to_owned());
    };
    let unfinished = state.instances[..batch.start]
        .iter()
        .position(|it| it.outcome.is_none());
    require(unfinished.is_none(), || {
        format!("instance {index} starts before instance {unfinished:?} of an earlier batch ended")
    })?;
    let most = match plan.has_barriers() {
        true => batch.len(),
        false => plan
            .batching
            .sizes(plan.targets.len())
            .into_iter()
            .max()
            .unwrap_or(1),
    };
    let in_flight = state.instances.iter().filter(|it| is_in_flight(it)).count();
    require(in_flight < most, || {
        format!("instance {index} starts while {in_flight} of at most {most} are in flight")
    })
}

fn below_the_threshold(seen: &Seen<'_>) -> Kept {
    let Some((plan, state, index)) = seen.starts() else {
        return Ok(());
    };
    let failed = state.instances.iter().filter(|it| has_failed(it)).count();
    let limit = plan.failure_threshold.of(plan.targets.len());
    require(failed < limit, || {
        format!("instance {index} starts after {failed} failed; at {limit} nothing may start")
    })?;
    let Some(limit) = plan.batch_failure_threshold else {
        return Ok(());
    };
    let mut start = 0;
    for size in plan.batching.sizes(plan.targets.len()) {
        let of_batch = &state.instances[start..start + size];
        let failed = of_batch.iter().filter(|it| has_failed(it)).count();
        require(failed < limit.of(size), || {
            format!("instance {index} starts after {failed} of a batch of {size} failed")
        })?;
        start += size;
    }
    Ok(())
}

/// An instance down for any cause counts against it. One that is down already takes nothing away.
fn enough_are_healthy(seen: &Seen<'_>) -> Kept {
    let Some((plan, state, index)) = seen.starts() else {
        return Ok(());
    };
    let Some(minimum) = plan.minimum_healthy else {
        return Ok(());
    };
    let own = &plan.targets[index].instance.id;
    if state.down.contains_key(own) {
        return Ok(());
    }
    let sides = plan.sides.iter().flat_map(|sides| &sides.list);
    let others = sides.flat_map(|side| &side.instances);
    let others: Vec<_> = others.map(|instance| &instance.id).collect();
    let total = plan.targets.len() + others.len();
    let targets = plan.targets.iter().zip(&state.instances);
    let away = targets
        .filter(|(target, it)| {
            is_in_flight(it) || has_failed(it) || state.down.contains_key(&target.instance.id)
        })
        .count();
    let away = away
        + others
            .iter()
            .filter(|id| state.down.contains_key(**id))
            .count();
    let needed = minimum.of(total);
    require(total >= away + 1 + needed, || {
        format!("{own} starts while {away} of {total} are away and {needed} have to stay")
    })
}

/// Whether the last hold of this kind at a boundary lets the deployment go on.
fn is_passed(plan: &Deployment, state: &DeploymentState, done: u32, hold: &Hold) -> bool {
    let last = state
        .holds
        .iter()
        .rfind(|it| it.stage.boundary == done && it.hold == *hold);
    let Some((_, decision)) = last.and_then(|last| last.closed.as_ref()) else {
        return false;
    };
    let policy = match hold {
        Hold::Gate { index } => plan.gates.get(*index as usize),
        _ => None,
    };
    match decision.verdict {
        Verdict::Passed => true,
        Verdict::Failed => policy.is_some_and(|gate| gate.on_fail == GatePolicy::Continue),
        Verdict::Inconclusive => {
            policy.is_some_and(|gate| gate.on_inconclusive == GatePolicy::Continue)
        }
    }
}

/// What has to be over at a boundary, when so many batches of so many are done.
fn holds_at(plan: &Deployment, done: u32, of: u32) -> Vec<Hold> {
    if matches!(plan.direction, Direction::Retire { .. }) {
        return Vec::new();
    }
    let gates = plan.gates.iter().zip(0..);
    let mut holds: Vec<_> = gates
        .filter(|(gate, _)| match gate.after {
            GatePosition::First => done == 1,
            GatePosition::Each => done > 0,
            GatePosition::Last => done == of,
        })
        .map(|(_, index)| Hold::Gate { index })
        .collect();
    let is_canary = matches!(plan.strategy, Strategy::Canary { .. });
    let is_between = done > 0 && done < of;
    if is_canary && plan.direction == Direction::Deploy && done == 1 && is_between {
        holds.push(Hold::Promotion);
    }
    if is_between && !plan.wait_between.is_zero() {
        holds.push(Hold::Interval);
    }
    holds
}

fn boundaries_are_passed(seen: &Seen<'_>) -> Kept {
    let (plan, state, done) = match (&seen.record.fact, seen.starts()) {
        (_, Some((plan, state, index))) => {
            let batches = batches(plan);
            let done = batches.iter().position(|batch| batch.contains(&index));
            (plan, state, done.unwrap_or(0))
        }
        (
            Fact::DeploymentEnded {
                deployment,
                status: ReleaseStatus::Succeeded,
                ..
            },
            None,
        ) => match seen.deployment(deployment) {
            Some((plan, state)) => (plan, state, batches(plan).len()),
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    let of = u32::try_from(batches(plan).len()).unwrap_or(u32::MAX);
    let done = u32::try_from(done).unwrap_or(u32::MAX);
    for boundary in 1..=done {
        for hold in holds_at(plan, boundary, of) {
            require(is_passed(plan, state, boundary, &hold), || {
                format!("{hold:?} after batch {boundary} of {of} has not been passed")
            })?;
        }
    }
    Ok(())
}

/// A wait ends no sooner than its time by the clock that began it, unless a person ended it.
fn waits_as_long_as_planned(seen: &Seen<'_>) -> Kept {
    match &seen.record.fact {
        Fact::HoldOpened {
            deployment,
            hold,
            until,
            ..
        } => {
            let Some((plan, _)) = seen.deployment(deployment) else {
                return Ok(());
            };
            let planned = match (hold, plan.strategy) {
                (Hold::Interval, _) => plan.wait_between,
                (Hold::Bake, Strategy::BlueGreen { bake, .. }) => bake,
                (
                    Hold::Promotion,
                    Strategy::Canary {
                        promote: Promote::After(time),
                        ..
                    },
                ) => time,
                (Hold::Promotion, _) => {
                    return require(until.is_none(), || {
                        "a promotion by hand has no end".to_owned()
                    });
                }
                _ => return Ok(()),
            };
            let planned = i64::try_from(planned.as_millis()).unwrap_or(i64::MAX);
            let waits = until.map(|until| until.0 - seen.record.at.0);
            require(waits == Some(planned), || {
                format!("{hold:?} lasts {waits:?} ms and not {planned}")
            })
        }
        Fact::HoldClosed {
            deployment,
            decision,
            ..
        } => {
            let Some((_, state)) = seen.deployment(deployment) else {
                return Ok(());
            };
            let Some(hold) = state.current_hold() else {
                return Err("nothing is waited for".to_owned());
            };
            let is_timed = matches!(hold.hold, Hold::Interval | Hold::Promotion | Hold::Bake);
            // A bake that fails, fails at once.
            let is_by_time =
                is_timed && decision.by.is_none() && decision.verdict == Verdict::Passed;
            let is_over = hold.until.is_some_and(|until| until <= seen.record.at);
            require(!is_by_time || is_over, || {
                format!("{:?} ends before {:?}", hold.hold, hold.until)
            })
        }
        _ => Ok(()),
    }
}

/// Whether a record is the first thing that is done about a deployment.
fn begins<'a>(seen: &'a Seen<'_>) -> Option<&'a Deployment> {
    let (Fact::StepStarted { deployment, .. }
    | Fact::StepSkipped { deployment, .. }
    | Fact::SwitchStarted { deployment, .. }
    | Fact::SwitchSkipped { deployment, .. }
    | Fact::HoldOpened { deployment, .. }) = &seen.record.fact
    else {
        return None;
    };
    let (plan, state) = seen.deployment(deployment)?;
    is_untouched(state).then_some(plan)
}

/// A higher number goes first, equal ones together; one that failed or was stopped lets no other begin.
fn priorities_are_kept(seen: &Seen<'_>) -> Kept {
    let Some(plan) = begins(seen) else {
        return Ok(());
    };
    if !seen.truth.iter().any(|planned| planned.id == plan.id) {
        return Ok(());
    }
    for planned in seen.truth {
        let Some(other) = seen.state.find(&planned.id) else {
            return Err(format!("{} was not opened", planned.id));
        };
        require(
            planned.priority <= plan.priority || other.status == ReleaseStatus::Succeeded,
            || {
                format!(
                    "{} begins while {} of a higher priority is {}",
                    plan.id, planned.id, other.status
                )
            },
        )?;
        require(other.status != ReleaseStatus::Failed, || {
            format!("{} begins after {} failed", plan.id, planned.id)
        })?;
    }
    Ok(())
}

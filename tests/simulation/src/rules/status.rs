//! Statuses of the release: DESIGN.md §3.

use engine::DeploymentState;
use model::{Direction, Fact, GatePolicy, OnFailure, ReleaseStatus, Verdict};

use super::{Kept, Rule, Seen, require};

pub(super) const RULES: &[Rule] = &[
    (
        "statuses change only along the table of section 3",
        along_the_table,
    ),
    ("nothing is recorded after the end", nothing_after_the_end),
    (
        "a release ends as its deployments did",
        ends_as_its_deployments,
    ),
    (
        "a deployment ends only when nothing of it is in flight",
        nothing_in_flight_at_the_end,
    ),
    (
        "a failed deployment is taken back where the plan says so",
        is_taken_back,
    ),
];

/// The table: from, to.
fn is_in_the_table(from: ReleaseStatus, to: ReleaseStatus) -> bool {
    use ReleaseStatus::{
        Failed, Interrupted, Paused, Pausing, Running, Stopped, Stopping, Succeeded,
    };
    matches!(
        (from, to),
        (Running, Succeeded | Pausing | Stopping)
            | (Running | Pausing | Stopping, Failed | Interrupted)
            | (Pausing, Paused)
            | (Stopping, Stopped)
            | (Paused | Interrupted, Running | Stopped)
    )
}

fn along_the_table(seen: &Seen<'_>) -> Kept {
    let (Fact::StatusChanged { status, .. } | Fact::ReleaseEnded { status, .. }) =
        &seen.record.fact
    else {
        return Ok(());
    };
    let from = seen.state.status;
    require(is_in_the_table(from, *status), || {
        format!("{from} to {status}")
    })
}

fn nothing_after_the_end(seen: &Seen<'_>) -> Kept {
    let status = seen.state.status;
    require(!status.is_terminal(), || {
        format!("the release is {status} already")
    })
}

fn ends_as_its_deployments(seen: &Seen<'_>) -> Kept {
    let (Fact::StatusChanged { status, .. } | Fact::ReleaseEnded { status, .. }) =
        &seen.record.fact
    else {
        return Ok(());
    };
    let deployments = &seen.state.deployments;
    let is_any = |status| deployments.iter().any(|it| it.status == status);
    match status {
        ReleaseStatus::Succeeded => {
            let unfinished = deployments
                .iter()
                .find(|it| it.status != ReleaseStatus::Succeeded);
            require(unfinished.is_none(), || {
                let found = unfinished.map(|it| format!("{} is {}", it.plan.id, it.status));
                found.unwrap_or_default()
            })
        }
        ReleaseStatus::Failed => require(is_any(ReleaseStatus::Failed), || {
            "none of its deployments failed".to_owned()
        }),
        ReleaseStatus::Stopped => require(!is_any(ReleaseStatus::Running), || {
            "a deployment of it has not ended".to_owned()
        }),
        _ => Ok(()),
    }
}

fn nothing_in_flight_at_the_end(seen: &Seen<'_>) -> Kept {
    let Fact::DeploymentEnded {
        deployment, status, ..
    } = &seen.record.fact
    else {
        return Ok(());
    };
    let Some((plan, state)) = seen.deployment(deployment) else {
        return Ok(());
    };
    // What nobody drove is ended as it stands, with what never answered.
    let is_driven = seen.state.status.is_active();
    let current = state
        .instances
        .iter()
        .any(|instance| instance.current().is_some());
    require(!is_driven || !current, || {
        format!("{deployment} is {status} with a step in flight")
    })?;
    let is_complete = state
        .instances
        .iter()
        .all(|instance| instance.outcome.is_some());
    require(*status != ReleaseStatus::Succeeded || is_complete, || {
        format!("{deployment} succeeded before all of its instances had ended")
    })?;
    let failed = state
        .instances
        .iter()
        .filter(|instance| super::has_failed(instance))
        .count();
    let limit = plan.failure_threshold.of(plan.targets.len());
    require(
        *status != ReleaseStatus::Succeeded || failed < limit,
        || format!("{deployment} succeeded though {failed} instances failed"),
    )
}

/// A deployment that failed is followed by its rollback when `on_failure`, a gate or an operator says so, and there is
/// something to return to. A blue-green deployment gives the traffic back instead.
fn is_taken_back(seen: &Seen<'_>) -> Kept {
    let Fact::ReleaseEnded { .. } = &seen.record.fact else {
        return Ok(());
    };
    for state in &seen.state.deployments {
        let Some((plan, state)) = seen.deployment(&state.plan.id) else {
            continue;
        };
        let is_failed = state.status == ReleaseStatus::Failed;
        let is_colour = matches!(plan.strategy, model::Strategy::BlueGreen { .. });
        if !is_failed || plan.direction != Direction::Deploy || is_colour {
            continue;
        }
        let is_wanted = plan.on_failure == OnFailure::Rollback
            || state.aborted.is_some()
            || last_gate_asks_for_it(state);
        let mut touched = plan.targets.iter().zip(&state.instances);
        let has_where_to_go =
            touched.any(|(target, it)| it.is_touched() && target.outgoing.is_some());
        let is_back = seen.state.deployments.iter().any(|other| {
            other.plan.direction
                == Direction::Rollback {
                    of: plan.id.clone(),
                }
        });
        require(!is_wanted || !has_where_to_go || is_back, || {
            format!("{} was not taken back", plan.id)
        })?;
    }
    Ok(())
}

fn last_gate_asks_for_it(state: &DeploymentState) -> bool {
    let Some(hold) = state.holds.last() else {
        return false;
    };
    let (model::Hold::Gate { index }, Some((_, decision))) = (&hold.hold, &hold.closed) else {
        return false;
    };
    let gate = state.plan.gates.get(*index as usize);
    gate.is_some_and(|gate| match decision.verdict {
        Verdict::Passed => false,
        Verdict::Failed => gate.on_fail == GatePolicy::Rollback,
        Verdict::Inconclusive => gate.on_inconclusive == GatePolicy::Rollback,
    })
}

//! The journal and the engine: what is durable, and what follows from it alone.

use engine::{Action, Progress, State, SwitchAction};
use model::{ReleaseStatus, Timestamp};

use super::{Kept, require};

/// State is a fold of the records, live and after a crash by the same function.
pub(super) fn is_the_same(folded: &State, live: &State) -> Kept {
    require(folded == live, || {
        format!("folded it is {folded:?}\n  and live {live:?}")
    })
}

/// Every waiting state can say what it waits for, and nothing waits for what never comes.
pub(super) fn says_what_it_waits_for(state: &State, now: Timestamp) -> Kept {
    let is_busy = state.deployments.iter().any(|deployment| {
        deployment.current_switch().is_some()
            || deployment.instances.iter().any(|it| it.current().is_some())
    });
    let status = state.status;
    if is_busy || status.is_terminal() {
        return Ok(());
    }
    let document = report::Document::of(state, status, now);
    let said = document.waiting_for.unwrap_or_default();
    require(!said.is_empty(), || {
        format!("it is {status} and says nothing")
    })?;
    let waits = state
        .deployments
        .iter()
        .any(|deployment| deployment.current_hold().is_some());
    let is_still = matches!(status, ReleaseStatus::Paused | ReleaseStatus::Interrupted);
    require(waits || is_still, || {
        format!("it is {status}, says `{said}`, and nothing will happen")
    })
}

pub(super) fn is_authorised(state: &State, action: &Action) -> Kept {
    let instance = &action.target.instance.id;
    let current = state.find(&action.deployment.id).and_then(|deployment| {
        let index = deployment.position(instance)?;
        deployment.instances[index].current()
    });
    let is_it =
        current.is_some_and(|step| step.event == action.event && step.attempt == action.attempt);
    require(is_it, || {
        format!(
            "attempt {} of {} on {instance}, and {current:?} is in flight",
            action.attempt, action.event
        )
    })
}

pub(super) fn is_switch_authorised(state: &State, switch: &SwitchAction) -> Kept {
    let deployment = state.find(&switch.deployment.id);
    let current = deployment.and_then(|deployment| {
        let switches = deployment.switches.iter();
        switches
            .rev()
            .find(|switch| switch.progress == Progress::InFlight)
    });
    let is_it = current.is_some_and(|it| it.attempt == switch.attempt && it.to == switch.to);
    require(is_it, || {
        format!(
            "attempt {} to {}, and {current:?} is in flight",
            switch.attempt, switch.to
        )
    })
}

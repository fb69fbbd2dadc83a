//! Steps of an instance: DESIGN.md §2.

use std::collections::BTreeSet;

use engine::{Action, DeploymentState, InstanceState, Progress, State, StepState, Work};
use model::{
    AttemptId, Deployment, Direction, Ending, Fact, Hold, InstanceOutcome, LifecycleEvent, Retire,
    StopFailures, Strategy, Target,
};

use super::{Kept, Rule, Seen, require};

pub(super) const RULES: &[Rule] = &[
    (
        "steps follow each other as the table of section 2 says",
        follow_the_table,
    ),
    (
        "an attempt is made again only after one that was lost",
        again_only_after_lost,
    ),
    (
        "a step is skipped only where there is nothing to do, with the reason",
        skipped_with_reason,
    ),
    ("an instance ends as its steps did", ends_as_its_steps),
];

/// How often a step is tried when its outcome is lost.
const MOST_ATTEMPTS: u32 = 3;

/// The table of DESIGN.md §2, by strategy and direction.
pub(super) fn table(plan: &Deployment) -> Vec<LifecycleEvent> {
    use LifecycleEvent::{
        AfterAllowTraffic, AfterBlockTraffic, AfterInstall, AllowTraffic, ApplicationStart,
        ApplicationStop, BeforeAllowTraffic, BeforeBlockTraffic, BeforeInstall, BlockTraffic,
        DownloadBundle, Install, ValidateService,
    };
    let change = [
        ApplicationStop,
        BeforeInstall,
        Install,
        AfterInstall,
        ApplicationStart,
        ValidateService,
    ];
    let leave = [BeforeBlockTraffic, BlockTraffic, AfterBlockTraffic];
    let join = [BeforeAllowTraffic, AllowTraffic, AfterAllowTraffic];
    match (plan.strategy, &plan.direction) {
        (_, Direction::Retire { .. }) => vec![ApplicationStop],
        (Strategy::BlueGreen { retire, .. }, Direction::Rollback { .. }) => match retire {
            Retire::Keep => vec![ValidateService],
            Retire::Stop => vec![ApplicationStart, ValidateService],
        },
        (strategy, direction) => {
            let is_balanced =
                plan.balancer.is_some() && !matches!(strategy, Strategy::BlueGreen { .. });
            let download = (*direction == Direction::Deploy).then_some(DownloadBundle);
            let mut events: Vec<_> = download.into_iter().collect();
            events.extend(leave.into_iter().filter(|_| is_balanced));
            let is_installed = *direction != Direction::Operate;
            let installs = [BeforeInstall, Install, AfterInstall];
            events.extend(
                change
                    .into_iter()
                    .filter(|event| is_installed || !installs.contains(event)),
            );
            events.extend(join.into_iter().filter(|_| is_balanced));
            events
        }
    }
}

/// The event after another one, or the first.
fn next(plan: &Deployment, after: Option<LifecycleEvent>) -> Option<LifecycleEvent> {
    let table = table(plan);
    let position = match after {
        None => 0,
        Some(event) => table.iter().position(|it| *it == event)? + 1,
    };
    table.get(position).copied()
}

/// Whether the instance goes on after a step that ended so.
fn goes_on(plan: &Deployment, step: &StepState) -> bool {
    match &step.progress {
        Progress::Skipped(_) | Progress::Ended(Ending::Succeeded { .. }) => true,
        Progress::Ended(Ending::Failed { .. }) => {
            let is_of_outgoing = matches!(
                step.event,
                LifecycleEvent::BeforeBlockTraffic
                    | LifecycleEvent::AfterBlockTraffic
                    | LifecycleEvent::ApplicationStop
            );
            is_of_outgoing && plan.stop_failures == StopFailures::Ignore
        }
        Progress::InFlight | Progress::Ended(Ending::Lost { .. } | Ending::Unreachable { .. }) => {
            false
        }
    }
}

/// Whether the side that got the traffic is being watched, in which time it is validated again.
fn is_baking(state: &DeploymentState) -> bool {
    state
        .current_hold()
        .is_some_and(|hold| hold.hold == Hold::Bake)
}

fn follow_the_table(seen: &Seen<'_>) -> Kept {
    let (Fact::StepStarted { event, .. } | Fact::StepSkipped { event, .. }) = &seen.record.fact
    else {
        return Ok(());
    };
    let Some((plan, state, index)) = seen.instance() else {
        return Ok(());
    };
    let instance = &state.instances[index];
    let name = &plan.targets[index].instance.id;
    if instance.outcome == Some(InstanceOutcome::Succeeded) && is_baking(state) {
        return require(*event == LifecycleEvent::ValidateService, || {
            format!("{event} on {name} while it is watched")
        });
    }
    require(instance.outcome.is_none(), || {
        format!("{event} on {name}, which has ended")
    })?;
    let Some(last) = instance.steps.last() else {
        let first = next(plan, None);
        return require(first == Some(*event), || {
            format!("{name} begins with {event} and not with {first:?}")
        });
    };
    if matches!(last.progress, Progress::Ended(Ending::Lost { .. })) {
        return require(last.event == *event, || {
            format!("{event} on {name} follows {}, which was lost", last.event)
        });
    }
    require(goes_on(plan, last), || {
        format!(
            "{event} on {name} follows {}, which is {:?}",
            last.event, last.progress
        )
    })?;
    let expected = next(plan, Some(last.event));
    require(expected == Some(*event), || {
        format!(
            "{event} on {name} follows {}, and {expected:?} should",
            last.event
        )
    })
}

fn again_only_after_lost(seen: &Seen<'_>) -> Kept {
    let Fact::StepStarted { event, attempt, .. } = &seen.record.fact else {
        return Ok(());
    };
    let Some((plan, state, index)) = seen.instance() else {
        return Ok(());
    };
    let instance = &state.instances[index];
    let before = instance.steps.iter().rfind(|step| step.event == *event);
    let name = &plan.targets[index].instance.id;
    let expected = before.map_or(1, |before| before.attempt + 1);
    require(*attempt == expected, || {
        format!("{event} on {name} has attempt {attempt} after {expected} - 1")
    })?;
    let is_watched = instance.outcome == Some(InstanceOutcome::Succeeded) && is_baking(state);
    let was_lost = before.is_none_or(|before| {
        matches!(before.progress, Progress::Ended(Ending::Lost { .. }))
            && before.attempt < MOST_ATTEMPTS
    });
    let is_free = before.is_none_or(|before| before.progress != Progress::InFlight);
    require(was_lost || (is_watched && is_free), || {
        format!("attempt {attempt} of {event} on {name} though the one before was not lost")
    })
}

/// The revision that an event belongs to, where there is one.
fn package<'a>(
    plan: &'a Deployment,
    target: &'a Target,
    event: LifecycleEvent,
) -> Option<&'a model::Package> {
    let key = match event {
        LifecycleEvent::BeforeBlockTraffic
        | LifecycleEvent::AfterBlockTraffic
        | LifecycleEvent::ApplicationStop => target.outgoing.as_ref()?,
        _ => &target.incoming,
    };
    plan.packages.get(key).map(AsRef::as_ref)
}

/// Whether there is something to do at an event.
fn has_work(plan: &Deployment, target: &Target, event: LifecycleEvent) -> bool {
    match event {
        LifecycleEvent::DownloadBundle | LifecycleEvent::Install => true,
        LifecycleEvent::BlockTraffic | LifecycleEvent::AllowTraffic => plan.balancer.is_some(),
        _ => package(plan, target, event).is_some_and(|package| {
            let calls = plan.calls.as_ref();
            if calls.is_some_and(|calls| calls.events.contains_key(&event)) {
                return true;
            }
            let scripts = package.appspec.hooks.get(&event);
            scripts.is_some_and(|scripts| !scripts.is_empty())
        }),
    }
}

fn skipped_with_reason(seen: &Seen<'_>) -> Kept {
    let Some((plan, _, index)) = seen.instance() else {
        return Ok(());
    };
    let target = &plan.targets[index];
    let name = &target.instance.id;
    match &seen.record.fact {
        Fact::StepSkipped { event, reason, .. } => {
            require(!reason.is_empty(), || {
                format!("{event} on {name} is skipped without a reason")
            })?;
            require(!has_work(plan, target, *event), || {
                format!("{event} on {name} is skipped: {reason}")
            })
        }
        Fact::StepStarted { event, .. } => require(has_work(plan, target, *event), || {
            format!("{event} on {name} starts with nothing to do")
        }),
        _ => Ok(()),
    }
}

fn ends_as_its_steps(seen: &Seen<'_>) -> Kept {
    let Fact::InstanceEnded { outcome, .. } = &seen.record.fact else {
        return Ok(());
    };
    let Some((plan, state, index)) = seen.instance() else {
        return Ok(());
    };
    let instance: &InstanceState = &state.instances[index];
    let name = &plan.targets[index].instance.id;
    let last = instance.steps.last();
    let fits = match (outcome, last) {
        (InstanceOutcome::Skipped, last) => last.is_none(),
        (_, None) => false,
        (InstanceOutcome::Succeeded, Some(last)) => {
            goes_on(plan, last) && next(plan, Some(last.event)).is_none()
        }
        (InstanceOutcome::Failed, Some(last)) => match &last.progress {
            Progress::Ended(Ending::Failed { .. }) => !goes_on(plan, last),
            Progress::Ended(Ending::Lost { .. }) => last.attempt == MOST_ATTEMPTS,
            _ => false,
        },
        (InstanceOutcome::Unreachable, Some(last)) => {
            matches!(last.progress, Progress::Ended(Ending::Unreachable { .. }))
        }
    };
    require(fits, || {
        format!("{name} is {} after {last:?}", outcome.name())
    })
}

/// An attempt may begin when it was started, or when it is the first one at what was authorised with another.
pub(super) fn is_authorised(state: &State, action: &Action) -> Kept {
    let instance = &action.target.instance.id;
    let steps = state.find(&action.deployment.id).and_then(|deployment| {
        let index = deployment.position(instance)?;
        Some(&deployment.instances[index].steps)
    });
    let mut steps = steps.into_iter().flatten();
    let is_authorised = steps.any(|step| {
        let is_started = (step.event, step.attempt) == (action.event, action.attempt);
        is_started || (action.attempt == 1 && step.then == Some(action.event))
    });
    require(is_authorised, || {
        format!(
            "attempt {} of {} on {instance} begins",
            action.attempt, action.event
        )
    })
}

/// An instance has ended only when everything that began on it has. Of one out of reach nobody knows.
pub(super) fn knows_what_began(seen: &Seen<'_>, begun: &BTreeSet<AttemptId>) -> Kept {
    let Fact::InstanceEnded { outcome, .. } = &seen.record.fact else {
        return Ok(());
    };
    let Some((plan, state, index)) = seen.instance() else {
        return Ok(());
    };
    if *outcome == InstanceOutcome::Unreachable {
        return Ok(());
    }
    let instance = &plan.targets[index].instance.id;
    let steps = &state.instances[index].steps;
    for step in steps {
        let Some(then) = step.then else { continue };
        let attempt = AttemptId::of(&plan.id, instance, then, 1);
        let is_known = steps
            .iter()
            .any(|step| (step.event, step.attempt) == (then, 1));
        require(is_known || !begun.contains(&attempt), || {
            format!("{attempt} began and has no record")
        })?;
    }
    Ok(())
}

/// Outgoing for BeforeBlockTraffic, AfterBlockTraffic and ApplicationStop, incoming for the rest. What is outgoing is what
/// the last finished installation brought.
pub(super) fn is_of_its_revision(state: &State, action: &Action) -> Kept {
    let (Work::Hook(given) | Work::Install(given) | Work::Download(given) | Work::Call(given)) =
        &action.work
    else {
        return Ok(());
    };
    let Some(deployment) = state.find(&action.deployment.id) else {
        return Err(format!("there is no deployment {}", action.deployment.id));
    };
    let instance = &action.target.instance.id;
    let mut targets = deployment.plan.targets.iter();
    let Some(target) = targets.find(|target| target.instance.id == *instance) else {
        return Err(format!("{instance} is no instance of it"));
    };
    let expected = package(&deployment.plan, target, action.event);
    require(expected == Some(&**given), || {
        format!(
            "{} on {instance} runs what {} brought",
            action.event, given.deployment
        )
    })
}

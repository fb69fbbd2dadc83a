//! One line per record that matters: verb first, target second, duration last.

use std::time::Duration;

use engine::State;
use model::{
    Capacity, Decision, Deployment, DeploymentId, Direction, Ending, Fact, GateCheck, Hold,
    InstanceId, InstanceOutcome, Order, Record, ReleaseStatus, Scope, Verdict,
};

/// A progress line, without its colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub tone: Tone,
    /// One word, to be padded to a column.
    pub verb: &'static str,
    pub target: String,
    pub detail: String,
    /// How long it took, where it is the end of something.
    pub took: Option<Duration>,
}

/// What a line means. Colour follows from it, never the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    /// Something finished well.
    Done,
    /// Something failed.
    Failed,
    /// Somebody should look.
    Attention,
    /// Of interest only to who looks for it.
    Dim,
}

/// A duration in the unit that suits it: `12 ms`, `3.4 s`, `2 min 5 s`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// The column to which targets of the lines of a deployment are padded, so that what follows them lines up.
#[must_use]
pub fn target_width(plan: &Deployment) -> usize {
    let longest = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or(0);
    let instance = longest(
        &mut plan
            .targets
            .iter()
            .map(|target| target.instance.id.as_str().chars().count()),
    );
    let event = longest(&mut plan.sequence.iter().map(|event| event.name().len()));
    (instance + 1 + event).max(plan.group.to_string().chars().count())
}

/// What stands in front of an instance's name in a release of several services: `web/`, or `shop/web/` where several
/// applications have a group of that name.
#[must_use]
pub fn service_prefix(state: &State, plan: &Deployment) -> String {
    let group = &plan.group;
    let is_shared = state.deployments.iter().any(|other| {
        let other = &other.plan.group;
        other.group == group.group && other.application != group.application
    });
    match state.release.scope {
        Scope::Service => String::new(),
        Scope::Plan if is_shared => format!("{group}/"),
        Scope::Plan => format!("{}/", group.group),
    }
}

/// An instance as lines call it.
fn name_of(state: &State, deployment: &DeploymentId, instance: &InstanceId) -> String {
    let plan = state.find(deployment).map(|deployment| &deployment.plan);
    let prefix = plan.map(|plan| service_prefix(state, plan));
    format!("{}{instance}", prefix.unwrap_or_default())
}

fn line(tone: Tone, verb: &'static str, target: impl ToString, detail: impl Into<String>) -> Line {
    Line {
        tone,
        verb,
        target: target.to_string(),
        detail: detail.into(),
        took: None,
    }
}

/// The lines of a record, given the state after it.
#[must_use]
pub fn lines(state: &State, record: &Record) -> Vec<Line> {
    match &record.fact {
        Fact::StepStarted { .. } => begun(state, record).into_iter().collect(),
        Fact::ReleaseOpened(_) | Fact::SwitchStarted { .. } | Fact::ReleaseEnded { .. } => {
            Vec::new()
        }
        Fact::DeploymentOpened(plan) => vec![opened(state, plan)],
        Fact::HoldOpened {
            deployment,
            hold,
            until,
            ..
        } => hold_opened(
            state,
            deployment,
            hold,
            until.map(|until| until.since(record.at)),
        )
        .into_iter()
        .collect(),
        Fact::HoldClosed {
            deployment,
            decision,
            ..
        } => hold_closed(state, deployment, decision)
            .into_iter()
            .collect(),
        Fact::HealthObserved { deployment, down } => {
            let group = state.find(deployment).map(|state| &state.plan.group);
            let target = group.map_or_else(String::new, ToString::to_string);
            let words: Vec<_> = down
                .iter()
                .map(|(id, words)| format!("{id} is {words}"))
                .collect();
            match words.as_slice() {
                [] => vec![line(
                    Tone::Done,
                    "healthy",
                    target,
                    "all instances have their traffic",
                )],
                words => vec![line(Tone::Attention, "unhealthy", target, words.join(", "))],
            }
        }
        Fact::Ordered { order, operator } => {
            let detail = format!("{} by {operator}", words_of(order));
            vec![line(Tone::Attention, "ordered", &state.release.id, detail)]
        }
        Fact::StepSkipped {
            deployment,
            instance,
            event,
            reason,
        } => {
            let target = format!("{} {event}", name_of(state, deployment, instance));
            vec![line(Tone::Dim, "skipped", target, reason.as_str())]
        }
        Fact::StepEnded { .. } => step_ended(state, record).into_iter().collect(),
        Fact::SwitchSkipped {
            deployment, reason, ..
        } => {
            let plan = state.find(deployment).map(|state| &state.plan);
            let target = plan.map_or_else(String::new, |plan| plan.group.to_string());
            // Where something moves the traffic it has nothing to move: that is routine.
            let tone = match plan.is_some_and(|plan| plan.router.is_some()) {
                true => Tone::Dim,
                false => Tone::Attention,
            };
            vec![line(tone, "unswitched", target, reason.as_str())]
        }
        Fact::SwitchEnded { .. } => switch_ended(state, record).into_iter().collect(),
        Fact::InstanceEnded { .. } => instance_ended(state, record).into_iter().collect(),
        Fact::DeploymentEnded { .. } => deployment_ended(state, record).into_iter().collect(),
        Fact::StatusChanged { status, reason } => {
            let id = &state.release.id;
            vec![line(Tone::Attention, verb_of(*status), id, reason.as_str())]
        }
    }
}

fn hold_opened(
    state: &State,
    deployment: &DeploymentId,
    hold: &Hold,
    time: Option<Duration>,
) -> Option<Line> {
    let plan = &state.find(deployment)?.plan;
    let id = &state.release.id;
    let time = time.map(duration);
    let detail = match (hold, time) {
        (Hold::Interval, time) => format!("{} between batches", time.unwrap_or_default()),
        (Hold::Promotion, Some(time)) => format!("{time} for the canary, then it is promoted"),
        (Hold::Promotion, None) => format!("for an operator: cutover promote {id}"),
        (Hold::Gate { index }, _) => {
            let gate = plan.gates.get(*index as usize)?;
            match &gate.check {
                GateCheck::Approval { ask } => {
                    format!("for gate `{}`: {ask} cutover approve {id}", gate.name)
                }
                GateCheck::Command { .. } | GateCheck::Plugin { .. } => {
                    format!("for gate `{}`", gate.name)
                }
            }
        }
        (Hold::Bake, time) => format!(
            "{} while the side with the traffic is watched",
            time.unwrap_or_default()
        ),
        (Hold::Health, _) => "for instances to be healthy".to_owned(),
    };
    Some(line(Tone::Attention, "waiting", &plan.group, detail))
}

fn hold_closed(state: &State, deployment: &DeploymentId, decision: &Decision) -> Option<Line> {
    let deployment = state.find(deployment)?;
    let plan = &deployment.plan;
    let what = match &deployment.holds.last()?.hold {
        // Time has passed, and what comes next tells it.
        Hold::Interval => return None,
        Hold::Promotion => "the canary is promoted".to_owned(),
        Hold::Gate { index } => format!("gate `{}`", plan.gates.get(*index as usize)?.name),
        Hold::Bake if decision.verdict == Verdict::Passed => "no problem has shown".to_owned(),
        Hold::Bake => "a problem has shown".to_owned(),
        Hold::Health if decision.verdict == Verdict::Passed => {
            "enough instances are healthy".to_owned()
        }
        Hold::Health => "too few instances are healthy".to_owned(),
    };
    let by = decision.by.as_ref().map(|by| format!(" by {by}"));
    let reason = decision.reason.as_ref().map(|reason| format!(": {reason}"));
    let evidence: Vec<_> = decision
        .evidence
        .iter()
        .map(|one| match &one.threshold {
            Some(threshold) => format!("{} = {} ({threshold})", one.name, one.value),
            None => format!("{} = {}", one.name, one.value),
        })
        .collect();
    let evidence = match evidence.as_slice() {
        [] => String::new(),
        evidence => format!("  {}", evidence.join(", ")),
    };
    let (tone, verb) = match decision.verdict {
        Verdict::Passed => (Tone::Done, "passed"),
        Verdict::Failed => (Tone::Failed, "failed"),
        Verdict::Inconclusive => (Tone::Attention, "undecided"),
    };
    let detail = format!(
        "{what}{}{}{evidence}",
        by.unwrap_or_default(),
        reason.unwrap_or_default()
    );
    Some(line(tone, verb, &plan.group, detail))
}

fn verb_of_plan(plan: &Deployment) -> &'static str {
    match (&plan.direction, plan.kind.as_str()) {
        (Direction::Deploy, _) => "deploying",
        (Direction::Operate, "START") => "starting",
        (Direction::Operate, "STOP") => "stopping",
        (Direction::Operate, "RESTART") => "restarting",
        (Direction::Operate, _) => "operating",
        (Direction::Rollback { .. }, _) => "returning",
        (Direction::Retire { .. }, _) => "retiring",
    }
}

/// Tells that the turn of a plan's service has come, at the first step of its first instance.
fn begun(state: &State, record: &Record) -> Option<Line> {
    let Fact::StepStarted {
        deployment,
        instance,
        event,
        attempt: 1,
        ..
    } = &record.fact
    else {
        return None;
    };
    let deployment = state.find(deployment)?;
    let plan = &deployment.plan;
    let first = deployment.instances.first()?.steps.iter();
    let is_first = plan.targets.first()?.instance.id == *instance
        && first
            .filter(|step| step.attempt > 0)
            .map(|step| step.event)
            .next()
            == Some(*event);
    (state.release.scope == Scope::Plan && is_first).then(|| {
        let detail = format!("{} ({})", plan.revision.version, plan.kind);
        line(Tone::Plain, verb_of_plan(plan), &plan.group, detail)
    })
}

fn opened(state: &State, plan: &Deployment) -> Line {
    let verb = match state.release.scope {
        Scope::Service => verb_of_plan(plan),
        Scope::Plan => "planned",
    };
    let many = match plan.targets.len() {
        1 => "1 instance".to_owned(),
        many if plan.has_barriers() => {
            let sizes = plan.batches().map(|batch| batch.len().to_string());
            let sizes: Vec<_> = sizes.collect();
            format!("{many} instances in batches of {}", sizes.join(", "))
        }
        many => format!("{many} instances, {} at a time", plan.concurrency()),
    };
    let what = match state.release.scope {
        Scope::Service => plan.revision.version.to_string(),
        Scope::Plan => format!(
            "priority {}: {} {}",
            plan.priority, plan.kind, plan.revision.version
        ),
    };
    line(
        Tone::Plain,
        verb,
        &plan.group,
        format!("{what} to {many}  ({})", plan.id),
    )
}

fn step_ended(state: &State, record: &Record) -> Option<Line> {
    let Fact::StepEnded {
        deployment,
        instance,
        event,
        attempt,
        ending,
    } = &record.fact
    else {
        return None;
    };
    let name = name_of(state, deployment, instance);
    let target = match attempt {
        1 => format!("{name} {event}"),
        _ => format!("{name} {event} (attempt {attempt})"),
    };
    let line = match ending {
        Ending::Succeeded { note, .. } => {
            line(Tone::Done, "done", target, note.clone().unwrap_or_default())
        }
        Ending::Failed { reason, .. } => line(Tone::Failed, "failed", target, reason),
        Ending::Lost { reason } => line(Tone::Attention, "lost", target, reason),
        Ending::Unreachable { reason } => line(Tone::Failed, "unreachable", target, reason),
    };
    let step = state.find(deployment).and_then(|deployment| {
        let index = deployment.position(instance)?;
        let mut steps = deployment.instances[index].steps.iter().rev();
        steps.find(|step| step.event == *event)
    });
    Some(Line {
        took: step.map(|step| record.at.since(step.started_at)),
        ..line
    })
}

fn switch_ended(state: &State, record: &Record) -> Option<Line> {
    let Fact::SwitchEnded {
        deployment, ending, ..
    } = &record.fact
    else {
        return None;
    };
    let state = state.find(deployment)?;
    let target = format!("{} SwitchTraffic", state.plan.group);
    let switch = state.switches.last()?;
    let line = match ending {
        Ending::Succeeded { .. } => {
            let detail = match switch.to.is_empty() {
                true => state.plan.revision.version.to_string(),
                false => format!("{} -> {}", switch.from, switch.to),
            };
            line(Tone::Done, "switched", target, detail)
        }
        Ending::Failed { reason, .. } => line(Tone::Failed, "failed", target, reason.as_str()),
        Ending::Lost { reason } => line(Tone::Attention, "lost", target, reason.as_str()),
        Ending::Unreachable { reason } => {
            line(Tone::Failed, "unreachable", target, reason.as_str())
        }
    };
    Some(Line {
        took: Some(record.at.since(switch.started_at)),
        ..line
    })
}

fn instance_ended(state: &State, record: &Record) -> Option<Line> {
    let Fact::InstanceEnded {
        deployment,
        instance,
        outcome,
        reason,
    } = &record.fact
    else {
        return None;
    };
    let reason = reason.as_deref().unwrap_or_default();
    let name = name_of(state, deployment, instance);
    Some(match outcome {
        InstanceOutcome::Succeeded => line(Tone::Done, "finished", name, ""),
        InstanceOutcome::Skipped => line(Tone::Attention, "left out", name, reason),
        InstanceOutcome::Failed | InstanceOutcome::Unreachable => {
            // The step's own line has told why.
            let step = state.find(deployment).and_then(|deployment| {
                let index = deployment.position(instance)?;
                let last = deployment.instances[index].steps.last()?;
                reason
                    .ends_with(last.reason()?)
                    .then(|| format!("at {}", last.event))
            });
            let detail = step.unwrap_or_else(|| reason.to_owned());
            line(Tone::Failed, "gave up", name, detail)
        }
    })
}

fn deployment_ended(state: &State, record: &Record) -> Option<Line> {
    let Fact::DeploymentEnded {
        deployment,
        status,
        reason,
    } = &record.fact
    else {
        return None;
    };
    let state = state.find(deployment)?;
    let version = &state.plan.revision.version;
    let (tone, verb) = match (status, &state.plan.direction) {
        (ReleaseStatus::Succeeded, Direction::Deploy) => (Tone::Done, "deployed"),
        (ReleaseStatus::Succeeded, Direction::Operate) => {
            let verb = match state.plan.kind.as_str() {
                "START" => "started",
                "STOP" => "stopped",
                "RESTART" => "restarted",
                _ => "done",
            };
            (Tone::Done, verb)
        }
        (ReleaseStatus::Succeeded, Direction::Rollback { .. }) => (Tone::Done, "returned"),
        (ReleaseStatus::Succeeded, Direction::Retire { .. }) => (Tone::Done, "retired"),
        (ReleaseStatus::Failed, _) => (Tone::Failed, "failed"),
        _ => (Tone::Attention, "ended"),
    };
    let detail = match (state.failed, reason) {
        (0, None) => version.to_string(),
        (0, Some(reason)) => format!("{version}  {reason}"),
        // Each instance's own lines have told why.
        (failed, _) => format!(
            "{version}  {failed} of {} failed",
            count(state.instances.len(), "instance")
        ),
    };
    Some(Line {
        took: state.started_at.map(|started| record.at.since(started)),
        ..line(tone, verb, &state.plan.group, detail)
    })
}

/// A number of things: `1 instance`, `3 instances`.
#[must_use]
pub fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// An order as it would be typed, with what was said about it.
pub(crate) fn words_of(order: &Order) -> String {
    let more = match order {
        Order::For { deployment, order } => {
            return format!("{} for {deployment}", words_of(order));
        }
        Order::Pause { at } | Order::Stop { at } => at
            .map(|at| format!(" at {}", at.name()))
            .unwrap_or_default(),
        Order::Promote => String::new(),
        Order::Weight { percent, capacity } => match capacity {
            Capacity::Respect => format!(" {percent}%"),
            Capacity::Exceed => format!(" {percent}% by force"),
        },
        Order::Approve { gate, comment } | Order::Reject { gate, comment } => {
            let gate = gate.as_ref().map(|gate| format!(" gate {gate}"));
            let comment = comment.as_ref().map(|comment| format!(" ({comment})"));
            gate.unwrap_or_default() + &comment.unwrap_or_default()
        }
        Order::Skip { instance } => format!(" {instance}"),
        Order::Rollback { reason } => {
            let reason = reason.as_ref().map(|reason| format!(" ({reason})"));
            reason.unwrap_or_default()
        }
    };
    format!("{}{more}", order.name())
}

fn verb_of(status: ReleaseStatus) -> &'static str {
    match status {
        ReleaseStatus::Running => "running",
        ReleaseStatus::Succeeded => "succeeded",
        ReleaseStatus::Failed => "failed",
        ReleaseStatus::Pausing => "pausing",
        ReleaseStatus::Paused => "paused",
        ReleaseStatus::Stopping => "stopping",
        ReleaseStatus::Stopped => "stopped",
        ReleaseStatus::Interrupted => "interrupted",
    }
}

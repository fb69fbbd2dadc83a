//! One line per record that matters: verb first, target second, duration last.

use std::time::Duration;

use engine::State;
use model::{Ending, Fact, InstanceOutcome, Record, ReleaseStatus};

/// A progress line, without its colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub tone: Tone,
    /// One word, to be padded to a column.
    pub verb: &'static str,
    pub target: String,
    pub detail: String,
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

fn line(tone: Tone, verb: &'static str, target: impl ToString, detail: impl Into<String>) -> Line {
    Line {
        tone,
        verb,
        target: target.to_string(),
        detail: detail.into(),
    }
}

/// The lines of a record, given the state after it.
#[must_use]
pub fn lines(state: &State, record: &Record) -> Vec<Line> {
    match &record.fact {
        Fact::ReleaseOpened(_) | Fact::StepStarted { .. } => Vec::new(),
        Fact::DeploymentOpened(plan) => {
            let verb = match plan.direction {
                model::Direction::Deploy => "deploying",
                model::Direction::Rollback { .. } => "returning",
            };
            let many = if plan.targets.len() == 1 {
                "instance"
            } else {
                "instances"
            };
            let detail = format!(
                "{} to {} {many}, {} at a time  ({})",
                plan.revision.version,
                plan.targets.len(),
                plan.concurrency(),
                plan.id
            );
            vec![line(Tone::Plain, verb, &plan.group, detail)]
        }
        Fact::StepSkipped {
            instance,
            event,
            reason,
            ..
        } => {
            vec![line(
                Tone::Dim,
                "skipped",
                format!("{instance} {event}"),
                reason.as_str(),
            )]
        }
        Fact::StepEnded {
            deployment,
            instance,
            event,
            attempt,
            ending,
        } => {
            let step = state.find(deployment).and_then(|deployment| {
                let index = deployment.position(instance)?;
                deployment.instances[index]
                    .steps
                    .iter()
                    .rev()
                    .find(|step| step.event == *event)
                    .cloned()
            });
            let took = step.map_or_else(String::new, |step| {
                duration(record.at.since(step.started_at))
            });
            let target = match attempt {
                1 => format!("{instance} {event}"),
                _ => format!("{instance} {event} (attempt {attempt})"),
            };
            vec![match ending {
                Ending::Succeeded {
                    note: Some(note), ..
                } => line(Tone::Done, "done", target, format!("{took}  {note}")),
                Ending::Succeeded { note: None, .. } => line(Tone::Done, "done", target, took),
                Ending::Failed { reason, .. } => {
                    line(Tone::Failed, "failed", target, format!("{reason}  {took}"))
                }
                Ending::Lost { reason } => {
                    line(Tone::Attention, "lost", target, format!("{reason}  {took}"))
                }
                Ending::Unreachable { reason } => line(
                    Tone::Failed,
                    "unreachable",
                    target,
                    format!("{reason}  {took}"),
                ),
            }]
        }
        Fact::InstanceEnded {
            instance,
            outcome,
            reason,
            ..
        } => {
            let reason = reason.as_deref().unwrap_or_default();
            match outcome {
                InstanceOutcome::Succeeded => vec![line(Tone::Done, "finished", instance, "")],
                InstanceOutcome::Failed | InstanceOutcome::Unreachable => {
                    vec![line(Tone::Failed, "gave up", instance, reason)]
                }
                InstanceOutcome::Skipped => {
                    vec![line(Tone::Attention, "left out", instance, reason)]
                }
            }
        }
        Fact::DeploymentEnded {
            deployment,
            status,
            reason,
        } => {
            let state = state.find(deployment);
            let target = state.map_or_else(
                || deployment.to_string(),
                |state| state.plan.group.to_string(),
            );
            let took = state.map_or_else(String::new, |state| {
                duration(record.at.since(state.started_at))
            });
            let reason = reason.as_deref().unwrap_or_default();
            let version =
                state.map_or_else(String::new, |state| state.plan.revision.version.to_string());
            let detail = [version.as_str(), reason, took.as_str()];
            let detail = detail
                .iter()
                .filter(|part| !part.is_empty())
                .copied()
                .collect::<Vec<_>>()
                .join("  ");
            vec![match status {
                ReleaseStatus::Succeeded => line(Tone::Done, "deployed", target, detail),
                ReleaseStatus::Failed => line(Tone::Failed, "failed", target, detail),
                _ => line(Tone::Attention, "ended", target, detail),
            }]
        }
        Fact::StatusChanged { status, reason } => {
            vec![line(
                Tone::Attention,
                verb_of(*status),
                &state.release.id,
                reason.as_str(),
            )]
        }
        Fact::ReleaseEnded { .. } => Vec::new(),
    }
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

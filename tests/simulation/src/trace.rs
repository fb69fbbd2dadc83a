//! What happened in a simulation, for people.

use model::{Ending, Fact, Record};

/// The events of a simulation, where somebody wants to read them.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps what it is told.
    pub(crate) fn kept() -> Self {
        Self {
            lines: Some(Vec::new()),
        }
    }

    /// Tells of something.
    pub(crate) fn say(&mut self, now: u64, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let (seconds, millis) = (now / 1000, now % 1000);
            lines.push(format!("{seconds:>5}.{millis:03}  {}", what()));
        }
    }

    /// Tells of a record that became durable.
    pub(crate) fn record(&mut self, now: u64, record: &Record) {
        self.say(now, || {
            format!("record {}: {}", record.seq, describe(&record.fact))
        });
    }

    pub(crate) fn lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

fn describe(fact: &Fact) -> String {
    match fact {
        Fact::ReleaseOpened(release) => format!("release {} opened", release.id),
        Fact::DeploymentOpened(plan) => {
            let targets = plan.targets.iter().map(|it| it.instance.id.as_str());
            let targets: Vec<_> = targets.collect();
            format!(
                "deployment {} opened: {} to {} ({})",
                plan.id,
                plan.kind,
                plan.group,
                targets.join(" ")
            )
        }
        Fact::StepStarted {
            deployment,
            instance,
            event,
            attempt,
            then,
        } => {
            let then = then.map_or_else(String::new, |then| format!(", then {then}"));
            format!("{deployment} {instance} {event} starts, attempt {attempt}{then}")
        }
        Fact::StepEnded {
            deployment,
            instance,
            event,
            attempt,
            ending,
        } => format!(
            "{deployment} {instance} {event} ended, attempt {attempt}: {}",
            outcome(ending)
        ),
        Fact::StepSkipped {
            deployment,
            instance,
            event,
            reason,
        } => format!("{deployment} {instance} {event} skipped: {reason}"),
        Fact::SwitchStarted {
            deployment,
            attempt,
            stage,
            from,
            to,
        } => format!("{deployment} switch {attempt} starts at {stage:?}: {from} to {to}"),
        Fact::SwitchEnded {
            deployment,
            attempt,
            ending,
        } => format!("{deployment} switch {attempt} ended: {}", outcome(ending)),
        Fact::SwitchSkipped {
            deployment,
            stage,
            reason,
        } => format!("{deployment} switch skipped at {stage:?}: {reason}"),
        Fact::HoldOpened {
            deployment,
            stage,
            hold,
            until,
        } => format!("{deployment} waits at {stage:?} for {hold:?} until {until:?}"),
        Fact::HoldClosed {
            deployment,
            stage,
            decision,
        } => format!(
            "{deployment} waits no longer at {stage:?}: {} {}",
            decision.verdict,
            decision.reason.as_deref().unwrap_or_default()
        ),
        Fact::HealthObserved { deployment, down } => format!("{deployment} down: {down:?}"),
        Fact::Ordered { order, operator } => format!("{operator} orders {order:?}"),
        Fact::InstanceEnded {
            deployment,
            instance,
            outcome,
            reason,
        } => format!(
            "{deployment} {instance} is {}: {}",
            outcome.name(),
            reason.as_deref().unwrap_or_default()
        ),
        Fact::DeploymentEnded {
            deployment,
            status,
            reason,
        } => format!(
            "{deployment} is {status}: {}",
            reason.as_deref().unwrap_or_default()
        ),
        Fact::StatusChanged { status, reason } => format!("the release is {status}: {reason}"),
        Fact::ReleaseEnded { status, reason } => format!(
            "the release ended {status}: {}",
            reason.as_deref().unwrap_or_default()
        ),
    }
}

fn outcome(ending: &Ending) -> String {
    match ending {
        Ending::Succeeded { .. } => "succeeded".to_owned(),
        Ending::Failed { reason, .. } => format!("failed: {reason}"),
        Ending::Lost { reason } => format!("lost: {reason}"),
        Ending::Unreachable { reason } => format!("unreachable: {reason}"),
    }
}

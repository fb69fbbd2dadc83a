//! Driving a release in the foreground, for `deploy`, `rollback` and `resume`.

use std::panic;
use std::sync::Arc;
use std::time::Duration;

use conductor::{Command, Observer, Running};
use engine::{DeploymentState, State};
use model::{Direction, InstanceOutcome, ReleaseStatus, Side, Timestamp};
use report::Document;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::Output;
use crate::failure::{Failure, Kind};
use crate::progress::Progress;
use crate::ui::Ui;

/// The time now, for what is shown.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Drives to the end, says how it ended, and makes the exit status of it.
pub(crate) async fn to_the_end(ui: Ui, running: Running) -> Result<(), Failure> {
    let progress = Arc::new(Progress::new(ui));
    let state = shown(running, progress.clone(), progress).await?;
    answer(ui, &state, state.status);
    verdict(&state, state.status)
}

/// Answers with where a release stands: its report as JSON, or its headline.
pub(crate) fn answer(ui: Ui, state: &State, seen_as: ReleaseStatus) {
    match ui.output {
        Output::Json => ui.answer_json(&Document::of(state, seen_as, now())),
        Output::Text => ui.answer(&headline(state, seen_as)),
    }
}

/// Drives to the end while progress is shown and an observer is told.
pub(crate) async fn shown(
    running: Running,
    progress: Arc<Progress>,
    observer: Arc<dyn Observer>,
) -> Result<State, Failure> {
    let (commands, listening) = mpsc::channel(4);
    let signals = tokio::spawn(leave_on_signal(commands));
    let teller = tokio::spawn(tell_long_waits(progress.clone()));
    let release = running.state().release.id.clone();
    progress.opened(running.state());
    // On a thread of the runtime's own, where the agents are heard: to go on after what they say wakes no other thread.
    let driven = tokio::spawn(running.drive(observer, listening)).await;
    signals.abort();
    teller.abort();
    progress.finish();
    driven
        .unwrap_or_else(|error| panic::resume_unwind(error.into_panic()))
        .map_err(|error| Failure::driving(&release, error))
}

pub(crate) async fn tell_long_waits(progress: Arc<Progress>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        progress.tell_long_waits();
    }
}

async fn leave_on_signal(commands: mpsc::Sender<Command>) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    let reason = tokio::select! {
        _ = interrupt.recv() => "interrupted by the operator (Ctrl-C)",
        _ = terminate.recv() => "the conductor was told to end (SIGTERM)",
    };
    // The release is over when nobody listens.
    let _ = commands
        .send(Command::Interrupt {
            reason: reason.to_owned(),
        })
        .await;
}

/// One line: how a release ended, what it did, how long it took, and its id. Why it failed is the verdict's.
pub(crate) fn headline(state: &State, seen_as: ReleaseStatus) -> String {
    let versions = state.deployments.iter().map(|deployment| {
        let plan = &deployment.plan;
        let what = match plan.direction {
            Direction::Operate => plan.kind.to_lowercase(),
            _ => plan.direction.name().to_owned(),
        };
        format!("{} {what} {}", plan.group, plan.revision.version)
    });
    let what = versions.collect::<Vec<_>>().join(", ");
    let took = state
        .ended_at
        .map(|end| format!(" in {}", report::duration(end.since(state.opened_at))));
    format!(
        "{seen_as}  {what}{}  release {}\n",
        took.unwrap_or_default(),
        state.release.id
    )
}

/// Whether a script of the version being left made an instance fail.
fn failed_to_leave(deployment: &DeploymentState) -> bool {
    deployment.instances.iter().any(|instance| {
        let last = instance.steps.last();
        instance.outcome == Some(InstanceOutcome::Failed)
            && last
                .is_some_and(|step| step.event.takes_hooks() && step.event.side() == Side::Outgoing)
    })
}

/// What a release that ended, or stands, like this means for the exit status, and what to do next.
pub(crate) fn verdict(state: &State, seen_as: ReleaseStatus) -> Result<(), Failure> {
    let id = &state.release.id;
    let go_on = || format!("go on: cutover resume {id}");
    let failure = |kind, text: &str| {
        let reason = state.reason.as_deref().filter(|reason| !reason.is_empty());
        let text = match reason {
            Some(reason) => format!("release {id} {text}: {reason}"),
            None => format!("release {id} {text}"),
        };
        Failure::new(kind, text)
    };
    match seen_as {
        ReleaseStatus::Succeeded => Ok(()),
        ReleaseStatus::Failed => {
            let returning = state.deployments.iter().find(|deployment| {
                let direction = &deployment.plan.direction;
                matches!(
                    direction,
                    Direction::Rollback { .. } | Direction::Retire { .. }
                )
            });
            let is_stuck =
                returning.is_some_and(|deployment| deployment.status != ReleaseStatus::Succeeded);
            let kind = if is_stuck {
                Kind::NeedsPerson
            } else {
                Kind::Failed
            };
            let failure = failure(kind, "failed")
                .hint(format!("read what its hooks printed: cutover logs {id}"))
                .hint(format!("see every step: cutover report {id}"));
            let failure = if state.deployments.iter().any(failed_to_leave) {
                failure.hint("go on although the version being left fails: --ignore-stop-failures")
            } else {
                failure
            };
            let group = state
                .deployments
                .first()
                .map(|deployment| &deployment.plan.group);
            Err(match (group, returning) {
                (Some(group), None) => failure.hint(format!("go back: cutover rollback {group}")),
                (Some(group), Some(_)) if is_stuck => failure.hint(format!(
                    "go back when the cause is gone: cutover rollback {group}"
                )),
                _ => failure,
            })
        }
        ReleaseStatus::Interrupted if state.status.is_active() => Err(Failure::new(
            Kind::Interrupted,
            format!("release {id} is INTERRUPTED: its conductor died"),
        )
        .hint(go_on())),
        ReleaseStatus::Interrupted => {
            Err(failure(Kind::Interrupted, "is INTERRUPTED").hint(go_on()))
        }
        ReleaseStatus::Stopped => Err(failure(Kind::Unfinished, "is STOPPED")
            .hint(format!("see how far it came: cutover report {id}"))),
        status => Err(failure(Kind::Unfinished, &format!("is {status}")).hint(go_on())),
    }
}

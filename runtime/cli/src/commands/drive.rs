//! Driving a release in the foreground, for `deploy`, `rollback` and `resume`.

use std::sync::Arc;

use conductor::{Command, Running};
use engine::State;
use model::{Direction, ReleaseStatus, Timestamp};
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
    let (commands, listening) = mpsc::channel(4);
    let signals = tokio::spawn(leave_on_signal(commands));
    let opening = running.state().clone();
    progress.opened(&opening);
    let driven = running.drive(progress.clone(), listening).await;
    signals.abort();
    progress.finish();
    let state = driven?;
    answer(ui, &state);
    verdict(&state)
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

fn answer(ui: Ui, state: &State) {
    let document = Document::of(state, state.status, now());
    if ui.output == Output::Json {
        ui.answer_json(&document);
        return;
    }
    let took = state
        .ended_at
        .map(|end| report::duration(end.since(state.opened_at)));
    let versions = state.deployments.iter().map(|deployment| {
        let plan = &deployment.plan;
        format!(
            "{} {} {}",
            plan.group,
            plan.direction.name(),
            plan.revision.version
        )
    });
    let what = versions.collect::<Vec<_>>().join(", ");
    let tail = [
        took.unwrap_or_default(),
        state.reason.clone().unwrap_or_default(),
    ];
    let tail = tail
        .iter()
        .filter(|part| !part.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join("  ");
    ui.answer(
        &format!(
            "{}  {what}  release {}  {tail}",
            state.status, state.release.id
        )
        .trim_end()
        .to_owned(),
    );
    ui.answer("\n");
}

fn verdict(state: &State) -> Result<(), Failure> {
    let id = &state.release.id;
    let reason = state.reason.clone().unwrap_or_default();
    let is_rollback = |direction: &Direction| *direction != Direction::Deploy;
    match state.status {
        ReleaseStatus::Succeeded => Ok(()),
        ReleaseStatus::Failed => {
            let returning = state
                .deployments
                .iter()
                .find(|deployment| is_rollback(&deployment.plan.direction));
            let stuck =
                returning.is_some_and(|deployment| deployment.status != ReleaseStatus::Succeeded);
            let kind = if stuck {
                Kind::NeedsPerson
            } else {
                Kind::Failed
            };
            let failure = Failure::new(kind, format!("release {id} failed: {reason}"))
                .hint(format!("read what its hooks printed: cutover logs {id}"))
                .hint(format!("see every step: cutover report {id}"));
            Err(match (returning, state.deployments.first()) {
                (None, Some(first)) => {
                    failure.hint(format!("go back: cutover rollback {}", first.plan.group))
                }
                _ => failure,
            })
        }
        ReleaseStatus::Interrupted => Err(Failure::new(
            Kind::Interrupted,
            format!("release {id} is INTERRUPTED: {reason}"),
        )
        .hint(format!("go on: cutover resume {id}"))),
        status => Err(Failure::new(
            Kind::Unfinished,
            format!("release {id} is {status}: {reason}"),
        )
        .hint(format!("go on: cutover resume {id}"))),
    }
}

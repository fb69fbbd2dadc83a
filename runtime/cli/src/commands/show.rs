//! `cutover show` and `cutover report`.

use std::path::Path;

use engine::State;
use journal::{Filter, Journal};
use model::{ReleaseId, ReleaseStatus, Timestamp};
use report::Document;

use crate::args::{Id, Output};
use crate::commands::drive::now;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workspace;

/// How much of a release to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// One line an instance.
    Instances,
    /// Every step.
    Steps,
}

pub(crate) fn run(
    ui: Ui,
    config: Option<&Path>,
    arguments: &Id,
    detail: Detail,
) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let found = journal.find(&arguments.id)?;
    let document = document(&journal, &found.release)?;
    match (ui.output, detail) {
        (Output::Json, _) => ui.answer_json(&document),
        (Output::Text, Detail::Steps) => ui.answer(&report::render(&document)),
        (Output::Text, Detail::Instances) => ui.answer(&report::summary(&document)),
    }
    Ok(())
}

/// A release's document as it stands.
pub(crate) fn document(journal: &Journal, release: &ReleaseId) -> Result<Document, Failure> {
    let state = State::fold(&journal.records(release, 0)?)?;
    let now = now();
    let seen_as = seen_as(journal, &state, now)?;
    Ok(Document::of(&state, seen_as, now))
}

/// The status to show: a release that should be driven and is not has been interrupted, whoever may record it.
pub(crate) fn seen_as(
    journal: &Journal,
    state: &State,
    now: Timestamp,
) -> Result<ReleaseStatus, Failure> {
    if !state.status.is_active() {
        return Ok(state.status);
    }
    let summaries = journal.releases(Filter::Release(&state.release.id), 1)?;
    Ok(match summaries.first() {
        Some(summary) if summary.is_abandoned(now) => ReleaseStatus::Interrupted,
        _ => state.status,
    })
}

//! `cutover show`.

use std::path::Path;

use engine::State;
use journal::{Filter, Journal};
use model::{ReleaseId, ReleaseStatus, Timestamp};
use report::Document;

use crate::args::{Id, Output};
use crate::commands::drive::now;
use crate::failure::Failure;
use crate::standing;
use crate::ui::Ui;
use crate::workspace::{self, Opened};

pub(crate) fn run(ui: Ui, config: Option<&Path>, arguments: &Id) -> Result<(), Failure> {
    let document = found(ui, config, &arguments.id)?;
    match ui.output {
        Output::Json => ui.answer_json(&document),
        Output::Text => ui.answer(&report::summary(&document)),
    }
    Ok(())
}

/// The document of the release that an operator names.
pub(crate) fn found(ui: Ui, config: Option<&Path>, id: &str) -> Result<Document, Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let found = journal.find(id)?;
    let mut document = document(&journal, &found.release)?;
    add_mixed_versions(&mut document, &opened, &journal, &found.release)?;
    Ok(document)
}

/// Says of each group whose latest release this is which instance has which version, where they differ.
fn add_mixed_versions(
    document: &mut Document,
    opened: &Opened,
    journal: &Journal,
    release: &ReleaseId,
) -> Result<(), Failure> {
    let summaries = journal.releases(Filter::Release(release), 1)?;
    for group in summaries.iter().flat_map(|summary| &summary.groups) {
        let latest = journal.releases(Filter::Group(group), 1)?;
        if latest.first().is_none_or(|latest| latest.id != *release) {
            continue;
        }
        let of_group = |deployment: &&mut report::Deployment| {
            deployment.application == group.application.as_str()
                && deployment.group == group.group.as_str()
        };
        // The last one is what the group came to.
        if let Some(last) = document.deployments.iter_mut().rfind(of_group) {
            last.mixed_versions = standing::mixed(opened, journal, group)?;
        }
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

//! `cutover ls`.

use std::path::Path;

use journal::{Filter, Journal, Summary};
use model::{ReleaseStatus, Timestamp};
use report::{Table, rfc3339, short_time};
use serde_json::json;

use crate::args::{Ls, Output};
use crate::commands::drive::now;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workspace;

pub(crate) fn run(ui: Ui, config: Option<&Path>, arguments: &Ls) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let releases = journal.releases(Filter::All, arguments.limit.get())?;
    let now = now();
    match ui.output {
        Output::Json => {
            let releases: Vec<_> = releases
                .iter()
                .map(|release| as_json(release, now))
                .collect();
            ui.answer_json(&json!({"v": 1, "releases": releases}));
        }
        Output::Text if releases.is_empty() => {
            ui.advise("start a first release: cutover deploy APP/GROUP --package FOLDER");
        }
        Output::Text => {
            let mut table = Table::new([
                "RELEASE", "STATUS", "STARTED", "TOOK", "GROUPS", "OPERATOR", "COMMENT",
            ]);
            for release in &releases {
                table.row([
                    release.id.to_string(),
                    status(release, now).to_string(),
                    short_time(release.opened_at),
                    report::column_duration(
                        release.ended_at.unwrap_or(now).since(release.opened_at),
                    ),
                    groups(release).join(" "),
                    release.operator.clone(),
                    release.comment.clone(),
                ]);
            }
            let ids = releases.iter().map(|release| release.id.as_str());
            ui.answer_ids(&table, &shortest_prefixes(ui, &journal, ids));
        }
    }
    Ok(())
}

/// How many characters at the beginning of each id are enough to tell it from all others.
pub(crate) fn shortest_prefixes<'a>(
    ui: Ui,
    journal: &Journal,
    ids: impl Iterator<Item = &'a str>,
) -> Vec<usize> {
    let shortest = |id: &str| {
        // Without colours nobody sees them.
        let lengths = if ui.is_coloured() { 1..id.len() } else { 0..0 };
        let enough = |length: &usize| {
            id.get(..*length)
                .is_some_and(|prefix| journal.find(prefix).is_ok())
        };
        lengths.into_iter().find(enough).unwrap_or(id.len())
    };
    ids.map(shortest).collect()
}

fn status(release: &Summary, now: Timestamp) -> ReleaseStatus {
    if release.is_abandoned(now) {
        ReleaseStatus::Interrupted
    } else {
        release.status
    }
}

fn groups(release: &Summary) -> Vec<String> {
    release.groups.iter().map(ToString::to_string).collect()
}

fn as_json(release: &Summary, now: Timestamp) -> serde_json::Value {
    json!({
        "id": release.id.as_str(),
        "status": status(release, now).name(),
        "status_zh": status(release, now).chinese_name(),
        "comment": release.comment,
        "operator": release.operator,
        "groups": groups(release),
        "started_at": rfc3339(release.opened_at),
        "ended_at": release.ended_at.map(rfc3339),
    })
}

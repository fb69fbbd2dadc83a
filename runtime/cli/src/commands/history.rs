//! `cutover history`.

use std::collections::BTreeSet;
use std::path::Path;

use journal::{DeploymentSummary, Journal};
use model::{Deployment, Direction};
use report::{Table, rfc3339, short_time};
use serde_json::json;

use crate::args::{History, Output};
use crate::commands::drive::now;
use crate::commands::ls::shortest_prefixes;
use crate::failure::Failure;
use crate::standing;
use crate::ui::Ui;
use crate::workspace;

/// The longest note in the list; the whole one is in the report, and in the JSON.
const NOTE_WIDTH: usize = 72;

/// A deployment with what its own records tell of it.
struct Past {
    summary: DeploymentSummary,
    /// The versions that its instances had.
    from: BTreeSet<Option<String>>,
    excluded: Vec<String>,
    reason: Option<String>,
}

pub(crate) fn run(ui: Ui, config: Option<&Path>, arguments: &History) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let group = &arguments.group;
    let summaries = journal.deployments(group, arguments.limit.get())?;
    if summaries.is_empty() {
        // A group without a history is no mistake, an unknown one is.
        opened.workspace.group(group)?;
    }
    let deployments: Vec<_> = summaries
        .into_iter()
        .map(|summary| past(&journal, summary))
        .collect::<Result<_, _>>()?;
    let mixed = standing::mixed(&opened, &journal, group)?;
    match ui.output {
        Output::Json => {
            let deployments: Vec<_> = deployments.iter().map(as_json).collect();
            ui.answer_json(&json!({
                "v": 1,
                "group": group.to_string(),
                "deployments": deployments,
                "mixed_versions": mixed,
            }));
        }
        Output::Text if deployments.is_empty() => {
            ui.advise(&format!(
                "deploy to it first: cutover deploy {group} --package FOLDER"
            ));
        }
        Output::Text => {
            let mut table = Table::new([
                "DEPLOYMENT",
                "VERSION",
                "FROM",
                "KIND",
                "STRATEGY",
                "STATUS",
                "STARTED",
                "TOOK",
                "OPERATOR",
                "NOTE",
            ]);
            for past in &deployments {
                table.row(row(past));
            }
            let releases = deployments.iter().map(|past| past.summary.release.as_str());
            ui.answer_ids(&table, &shortest_prefixes(ui, &journal, releases));
            if let Some(sentence) = standing::sentence(group, &mixed) {
                ui.warn(&sentence);
            }
        }
    }
    Ok(())
}

fn past(journal: &Journal, summary: DeploymentSummary) -> Result<Past, Failure> {
    let deployment = journal.deployment(&summary.id)?;
    let reason = journal.reason(&summary.id)?;
    let (from, excluded) = deployment.as_deref().map(told).unwrap_or_default();
    Ok(Past {
        summary,
        from,
        excluded,
        reason: reason.filter(|reason| !reason.is_empty()),
    })
}

fn told(deployment: &Deployment) -> (BTreeSet<Option<String>>, Vec<String>) {
    let from = deployment.targets.iter().map(|target| {
        let package = deployment.packages.get(target.outgoing.as_ref()?)?;
        Some(package.revision.version.to_string())
    });
    let excluded = deployment.excluded.iter().map(ToString::to_string);
    (from.collect(), excluded.collect())
}

fn row(past: &Past) -> [String; 10] {
    let deployment = &past.summary;
    let from = past
        .from
        .iter()
        .map(|version| version.as_deref().unwrap_or("nothing"));
    let ended_at = deployment.ended_at.unwrap_or_else(now);
    [
        deployment.id.to_string(),
        deployment.version.to_string(),
        from.collect::<Vec<_>>().join(", "),
        deployment.kind.clone(),
        deployment.strategy.clone(),
        deployment.status.to_string(),
        short_time(deployment.opened_at),
        report::column_duration(ended_at.since(deployment.opened_at)),
        deployment.operator.clone(),
        shortened(&note(past)),
    ]
}

fn note(past: &Past) -> String {
    let deployment = &past.summary;
    let mut notes = Vec::new();
    match (&deployment.direction, &deployment.rolled_back_by) {
        (Direction::Rollback { of }, _) => notes.push(format!("takes {of} back")),
        (Direction::Retire { of }, _) => notes.push(format!("retires what {of} replaced")),
        (Direction::Deploy, Some(by)) => notes.push(format!("rolled back by {by}")),
        (Direction::Deploy, None) | (Direction::Operate, _) => {}
    }
    if let Some(retried) = &deployment.retries {
        notes.push(format!("retries {retried}"));
    }
    if !past.excluded.is_empty() {
        notes.push(format!("without {}", past.excluded.join(" ")));
    }
    notes.extend(past.reason.clone());
    notes.join("; ")
}

fn shortened(note: &str) -> String {
    let note = note.replace('\n', " ");
    if note.chars().count() <= NOTE_WIDTH {
        return note;
    }
    let head: String = note.chars().take(NOTE_WIDTH - 1).collect();
    format!("{}…", head.trim_end())
}

fn as_json(past: &Past) -> serde_json::Value {
    let deployment = &past.summary;
    let rolls_back = match &deployment.direction {
        Direction::Deploy | Direction::Operate | Direction::Retire { .. } => None,
        Direction::Rollback { of } => Some(of.to_string()),
    };
    json!({
        "id": deployment.id.as_str(),
        "release": deployment.release.as_str(),
        "version": deployment.version.as_str(),
        "from_versions": past.from,
        "kind": deployment.kind,
        "strategy": deployment.strategy,
        "direction": deployment.direction.name(),
        "rolls_back": rolls_back,
        "rolled_back_by": deployment.rolled_back_by.as_ref().map(ToString::to_string),
        "retries": deployment.retries.as_ref().map(ToString::to_string),
        "excluded": past.excluded,
        "status": deployment.status.name(),
        "reason": past.reason,
        "operator": deployment.operator,
        "started_at": rfc3339(deployment.opened_at),
        "ended_at": deployment.ended_at.map(rfc3339),
    })
}

//! `cutover resume`.

use std::path::Path;

use conductor::{Brought, Change, Finding};
use fleet::FileChange;
use model::ReleaseId;
use serde_json::{Value, json};

use crate::args::{Output, Resume};
use crate::commands::{drive, order};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

/// The most instances that a text lists.
const MAX_LISTED: usize = 20;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Resume) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let release = conductor.journal().find(&arguments.id)?.release;
    let changes = order::unless_interrupted(conductor.changes(&release)).await??;
    confirm(ui, &release, &changes, arguments.yes)?;
    drive::to_the_end(ui, conductor.resume(&release).await?).await
}

/// Says which instances were changed, and asks whether to go on. That of some it is not known keeps nobody.
///
/// Where there is nobody to ask, the JSON is `{"v":1,"release":…,"changed":[…],"unknown":[…]}`. What has changed is
/// `{group, instance, installed, expected, files, more}`: `installed` and `expected` are `{deployment, version}` or null, and both
/// are absent where only files have changed; `files` are `{path, change}` with `changed` or `removed`, and `more` counts
/// those that are not listed. What is unknown is `{group, instance, reason}`.
fn confirm(ui: Ui, release: &ReleaseId, changes: &[Change], yes: bool) -> Result<(), Failure> {
    let is_unknown = |change: &&Change| matches!(change.finding, Finding::Unknown { .. });
    let (unknown, changed): (Vec<_>, Vec<_>) = changes.iter().partition(is_unknown);
    for line in lines(&unknown) {
        ui.warn(&line);
    }
    if changed.is_empty() {
        return Ok(());
    }
    for line in lines(&changed) {
        ui.warn(&line);
    }
    if yes {
        return Ok(());
    }
    let count = report::count(changed.len(), "instance");
    let question = format!("Go on with release {release} although {count} changed since?");
    match ui.ask(&question) {
        Some(true) => return Ok(()),
        Some(false) => return Err(Failure::new(Kind::Usage, "not confirmed")),
        None => {}
    }
    if ui.output == Output::Json {
        ui.answer_json(&json!({
            "v": 1,
            "release": release,
            "changed": changed.iter().map(|change| as_json(change)).collect::<Vec<_>>(),
            "unknown": unknown.iter().map(|change| as_json(change)).collect::<Vec<_>>(),
        }));
    }
    let text = format!("release {release}: {count} changed since it was left");
    Err(Failure::new(Kind::NeedsPerson, text)
        .hint(format!("go on as they are: cutover resume {release} --yes"))
        .hint(format!("or end it: cutover stop {release}")))
}

fn lines(changes: &[&Change]) -> Vec<String> {
    let mut lines: Vec<_> = changes
        .iter()
        .take(MAX_LISTED)
        .map(|change| {
            let Change {
                group,
                instance,
                finding,
            } = change;
            format!("{instance} of {group} {}.", words(finding))
        })
        .collect();
    let more = changes.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        lines.push(format!("and {} more.", report::count(more, "instance")));
    }
    lines
}

fn words(finding: &Finding) -> String {
    match finding {
        Finding::Installed { found, expected } => {
            format!(
                "has {} installed, and the journal says {}",
                brought(found.as_ref()),
                brought(expected.as_ref())
            )
        }
        Finding::Files { files, more } => {
            let list = |meant: FileChange| {
                let meant = files.iter().filter(|file| file.change == meant);
                let paths: Vec<_> = meant.map(|file| format!("`{}`", file.path)).collect();
                paths.join(", ")
            };
            let (changed, removed) = (list(FileChange::Changed), list(FileChange::Removed));
            let parts = [("changed: ", changed), ("removed: ", removed)];
            let parts: Vec<_> = parts
                .into_iter()
                .filter(|(_, list)| !list.is_empty())
                .map(|(word, list)| format!("{word}{list}"))
                .collect();
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("is not as it was left; {}{more}", parts.join("; "))
        }
        Finding::Unknown { reason } => {
            format!("could not be asked whether it was changed since: {reason}")
        }
    }
}

fn brought(brought: Option<&Brought>) -> String {
    match brought {
        None => "nothing".to_owned(),
        Some(Brought {
            deployment,
            version: Some(version),
        }) => format!("{version} of deployment {deployment}"),
        Some(Brought { deployment, .. }) => {
            format!("deployment {deployment} of another journal")
        }
    }
}

fn as_json(change: &Change) -> Value {
    let mut value = json!({
        "group": change.group.to_string(),
        "instance": change.instance,
    });
    let brought = |brought: &Option<Brought>| {
        brought.as_ref().map(|brought| {
            json!({
                "deployment": brought.deployment,
                "version": brought.version.as_ref().map(ToString::to_string),
            })
        })
    };
    match &change.finding {
        Finding::Installed { found, expected } => {
            value["installed"] = json!(brought(found));
            value["expected"] = json!(brought(expected));
        }
        Finding::Files { files, more } => {
            let file = |file: &fleet::ChangedFile| {
                let change = match file.change {
                    FileChange::Changed => "changed",
                    FileChange::Removed => "removed",
                };
                json!({"path": file.path, "change": change})
            };
            value["files"] = files.iter().map(file).collect();
            value["more"] = json!(more);
        }
        Finding::Unknown { reason } => value["reason"] = json!(reason),
    }
    value
}

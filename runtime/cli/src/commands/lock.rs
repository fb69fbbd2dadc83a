//! `cutover lock`: which release holds a group.

use std::path::Path;

use journal::{Holder, Owner};
use report::{Document, rfc3339};
use serde_json::json;

use crate::args::{Lock, Output};
use crate::commands::drive::now;
use crate::commands::show;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workspace;

/// JSON: `{"v":1,"group":…,"holder":null}`, or as holder `{release, status, operator, comment, started_at, waiting_for,
/// driver}`, whose `driver` is null where nobody drives the release, and else `{host, pid, name, since, expires_at}`.
pub(crate) fn run(ui: Ui, config: Option<&Path>, arguments: &Lock) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let group = &arguments.group;
    let Some(holder) = journal.holder(group)? else {
        // A group that nobody holds is no mistake, an unknown one is.
        opened.workspace.group(group)?;
        match ui.output {
            Output::Json => {
                ui.answer_json(&json!({"v": 1, "group": group.to_string(), "holder": null}));
            }
            Output::Text => ui.answer(&format!("No release holds {group}.\n")),
        }
        return Ok(());
    };
    let document = show::document(&journal, &holder.release)?;
    match ui.output {
        Output::Json => ui.answer_json(&json!({
            "v": 1,
            "group": group.to_string(),
            "holder": as_json(&holder, &document),
        })),
        Output::Text => ui.answer(&text(group.to_string(), &holder, &document)),
    }
    Ok(())
}

/// The process that drives the release, unless it is known to be gone.
fn driver(holder: &Holder) -> Option<&Owner> {
    holder
        .owner
        .as_ref()
        .filter(|_| !holder.may_be_succeeded(now()))
}

fn text(group: String, holder: &Holder, document: &Document) -> String {
    let driver = driver(holder).map_or_else(
        || "nobody".to_owned(),
        |owner| format!("{owner}, since {}", rfc3339(holder.since)),
    );
    let lines = [
        ("group", Some(group)),
        ("release", Some(document.id.clone())),
        ("status", Some(document.status.to_owned())),
        (
            "comment",
            Some(document.comment.clone()).filter(|comment| !comment.is_empty()),
        ),
        ("operator", Some(holder.operator.clone())),
        ("started", document.started_at.clone()),
        ("driven by", Some(driver)),
        ("waiting for", document.waiting_for.clone()),
    ];
    lines
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:<12} {}\n", value?)))
        .collect()
}

fn as_json(holder: &Holder, document: &Document) -> serde_json::Value {
    let driver = driver(holder).map(|owner| {
        json!({
            "host": owner.host,
            "pid": owner.pid,
            "name": owner.name,
            "since": rfc3339(holder.since),
            "expires_at": rfc3339(holder.expires_at),
        })
    });
    json!({
        "release": document.id,
        "status": document.status,
        "status_zh": document.status_zh,
        "operator": holder.operator,
        "comment": document.comment,
        "started_at": document.started_at,
        "waiting_for": document.waiting_for,
        "driver": driver,
    })
}

//! A document as text, for `show` and `report`.

use std::fmt::Write;

use crate::document::{Deployment, Document, Step};
use crate::table::Table;

/// The document as a person reads it: the head, then each deployment with its instances and their steps.
#[must_use]
pub fn render(document: &Document) -> String {
    let mut text = render_head(document);
    for deployment in &document.deployments {
        text.push('\n');
        render_deployment(&mut text, deployment);
    }
    text
}

fn render_head(document: &Document) -> String {
    let mut text = String::new();
    let mut head = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<12}{value}");
        }
    };
    head("release", &document.id);
    head("status", document.status);
    head("reason", document.reason.as_deref().unwrap_or_default());
    head(
        "waiting for",
        document.waiting_for.as_deref().unwrap_or_default(),
    );
    head("comment", &document.comment);
    head("operator", &document.operator);
    head(
        "started",
        document.started_at.as_deref().unwrap_or_default(),
    );
    head("ended", document.ended_at.as_deref().unwrap_or_default());
    text
}

/// The head of the document and one line an instance.
#[must_use]
pub fn summary(document: &Document) -> String {
    let mut text = render_head(document);
    for deployment in &document.deployments {
        text.push('\n');
        render_deployment_head(&mut text, deployment);
        let mut table = Table::new(["INSTANCE", "OUTCOME", "FROM", "TO", "LAST EVENT", "NOTE"]);
        for instance in &deployment.instances {
            let last = instance
                .steps
                .iter()
                .rev()
                .find(|step| step.status != "SKIPPED");
            table.row([
                instance.id.clone(),
                instance
                    .outcome
                    .unwrap_or(if last.is_some() { "RUNNING" } else { "" })
                    .to_owned(),
                instance.from_version.clone().unwrap_or_default(),
                instance.to_version.clone().unwrap_or_default(),
                last.map_or_else(String::new, |step| step.event.to_owned()),
                instance.reason.clone().unwrap_or_default(),
            ]);
        }
        for line in table.to_string().lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn render_deployment_head(text: &mut String, deployment: &Deployment) {
    let Deployment {
        id,
        application,
        group,
        strategy,
        direction,
        revision,
        status,
        ..
    } = deployment;
    let _ = writeln!(
        text,
        "{application}/{group}  {direction} {}  {strategy}  {status}  ({id})",
        revision.version
    );
    let _ = writeln!(text, "  package   {} {}", revision.source, revision.digest);
    if let Some(reason) = &deployment.reason {
        let _ = writeln!(text, "  reason    {reason}");
    }
    for (number, batch) in deployment.batches.iter().enumerate() {
        let _ = writeln!(text, "  batch {:<3} {}", number + 1, batch.join(" "));
    }
    for (plugin, digest) in &deployment.plugins {
        let _ = writeln!(text, "  plugin    {plugin} {digest}");
    }
    for (plugin, grants) in &deployment.grants {
        let granted = if grants.is_empty() {
            "nothing".to_owned()
        } else {
            grants.join(", ")
        };
        let _ = writeln!(text, "  granted   {plugin}: {granted}");
    }
}

fn render_deployment(text: &mut String, deployment: &Deployment) {
    render_deployment_head(text, deployment);
    for instance in &deployment.instances {
        let outcome = instance.outcome.unwrap_or_default();
        let from = instance.from_version.as_deref().unwrap_or("nothing");
        let to = instance.to_version.as_deref().unwrap_or("nothing");
        let _ = writeln!(text, "\n  {}  {from} -> {to}  {outcome}", instance.id);
        if let Some(reason) = &instance.reason {
            let _ = writeln!(text, "    {reason}");
        }
        let mut table = Table::new(["EVENT", "STATUS", "REVISION", "TOOK", "NOTE"]);
        for step in &instance.steps {
            table.row(row(step));
        }
        if !table.is_empty() {
            for line in table.to_string().lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
}

fn row(step: &Step) -> [String; 5] {
    let event = match step.attempt {
        0 | 1 => step.event.to_owned(),
        attempt => format!("{} (attempt {attempt})", step.event),
    };
    let revision = match (step.revision, &step.version) {
        (Some(side), Some(version)) => format!("{side} {version}"),
        _ => String::new(),
    };
    let took = match (&step.started_at, &step.ended_at) {
        (Some(start), Some(end)) if step.status != "SKIPPED" => took(start, end),
        _ => String::new(),
    };
    [
        event,
        step.status.to_owned(),
        revision,
        took,
        step.reason.clone().unwrap_or_default(),
    ]
}

fn took(start: &str, end: &str) -> String {
    let (Ok(start), Ok(end)) = (
        start.parse::<jiff::Timestamp>(),
        end.parse::<jiff::Timestamp>(),
    ) else {
        return String::new();
    };
    crate::line::duration(end.duration_since(start).unsigned_abs())
}

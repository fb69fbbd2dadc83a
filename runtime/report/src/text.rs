//! A document as text, for `show` and `report`.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::document::{Deployment, Document, Instance, Step};
use crate::scale::{Scale, Span};
use crate::table::Table;
use crate::view::{View, time};

/// The longest note that stands in a table; a longer one goes below its row.
const NOTE_WIDTH: usize = 72;
/// How many characters the time of a release has.
const TIMELINE_WIDTH: usize = 40;
/// The longest line of a note below its row.
const LINE_WIDTH: usize = 96;

/// The document as a person reads it: the head, then each deployment with its instances and their steps.
#[must_use]
pub fn render(document: &Document) -> String {
    let mut text = head(document);
    text.push_str(&services(document));
    for deployment in &document.deployments {
        text.push('\n');
        text.push_str(&deployment_head(document, deployment));
        for instance in &deployment.instances {
            text.push('\n');
            text.push_str(&instance_steps(instance));
        }
    }
    text
}

/// The head of the document and one line an instance.
#[must_use]
pub fn summary(document: &Document) -> String {
    let mut text = head(document);
    text.push_str(&services(document));
    for deployment in &document.deployments {
        text.push('\n');
        text.push_str(&deployment_head(document, deployment));
        text.push('\n');
        let mut table = Table::new(["INSTANCE", "OUTCOME", "FROM", "TO", "LAST EVENT", "NOTE"]);
        let mut notes = Notes::default();
        for instance in &deployment.instances {
            let last = instance.last();
            let outcome = instance.standing(deployment, document);
            table.row([
                instance.id.clone(),
                outcome.to_owned(),
                instance.from_version.clone().unwrap_or_default(),
                instance.to_version.clone().unwrap_or_default(),
                last.map_or_else(String::new, |step| step.event.to_owned()),
                notes.of(instance.reason.as_deref()),
            ]);
        }
        notes.write(&mut text, &table, 2);
    }
    text
}

fn head(document: &Document) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<13}{value}");
        }
    };
    // The id of a dry run is no release's.
    let id = (!is_planned(document)).then_some(document.id.as_str());
    line("release", id);
    line("status", Some(document.status));
    line("reason", document.reason.as_deref());
    line("waiting for", document.waiting_for.as_deref());
    line("comment", Some(&document.comment));
    line("operator", Some(&document.operator));
    line("started", document.started_at.as_deref());
    line("ended", document.ended_at.as_deref());
    text
}

/// The services of a release that has several, each with its time in that of the release.
fn services(document: &Document) -> String {
    if document.deployments.len() < 2 {
        return String::new();
    }
    let view = View::of(document);
    let mut table = Table::new([
        "SERVICE", "KIND", "PRIORITY", "STATUS", "STARTED", "TOOK", "TIMELINE",
    ]);
    for deployment in &document.deployments {
        let span = view.deployment(deployment);
        let started_at = deployment.started_at.as_deref().map(time);
        let timeline = match (span, &view.scale, &deployment.waiting_for) {
            (Some(span), Some(scale), _) => timeline(scale, span, deployment),
            (_, _, Some(waiting_for)) => format!("waits for {waiting_for}"),
            _ => String::new(),
        };
        table.row([
            deployment.name(),
            deployment.kind.clone(),
            deployment.priority.to_string(),
            deployment.standing(document).to_owned(),
            started_at.unwrap_or_default(),
            span.map_or_else(String::new, Span::took),
            timeline,
        ]);
    }
    format!("\n{table}")
}

/// A span in the time of its release: `..====>` of what has not ended.
fn timeline(scale: &Scale, span: Span, deployment: &Deployment) -> String {
    let cell = |percent: f64| (percent / 100.0 * TIMELINE_WIDTH as f64).floor() as usize;
    let start = cell(scale.percent(span.start)).min(TIMELINE_WIDTH - 1);
    let end = cell(scale.percent(span.end)).clamp(start + 1, TIMELINE_WIDTH);
    let mut cells = vec!['.'; TIMELINE_WIDTH];
    cells[start..end].fill('=');
    if deployment.ended_at.is_none() {
        cells[end - 1] = '>';
    }
    cells.into_iter().collect()
}

fn is_planned(document: &Document) -> bool {
    document.status == "PLANNED"
}

fn deployment_head(document: &Document, deployment: &Deployment) -> String {
    let Deployment {
        id,
        application,
        group,
        strategy,
        direction,
        revision,
        ..
    } = deployment;
    let status = deployment.standing(document);
    let mut text = format!(
        "{application}/{group}  {direction} {}  {strategy}  {status}",
        revision.version
    );
    if !is_planned(document) {
        let _ = write!(text, "  ({id})");
    }
    text.push('\n');
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<11}{value}");
    };
    if let Some(service_id) = deployment.service_id {
        let Deployment { kind, priority, .. } = deployment;
        line(
            "service",
            &format!("{service_id}  {kind}  priority {priority}"),
        );
    }
    line("package", &revision.source);
    line("digest", &revision.digest);
    if deployment.ignore_stop_failures {
        line("ignored", "failures of the version being left");
    }
    if let Some(amount) = &deployment.minimum_healthy {
        line("healthy", &format!("at least {amount}"));
    }
    if let Some(side) = &deployment.side {
        let split = match split(&deployment.shares) {
            split if split.is_empty() => "no side is live".to_owned(),
            split => split,
        };
        line("side", &format!("{side}  ({split})"));
    }
    for (instance, words) in &deployment.down {
        line("down", &format!("{instance}: {words}"));
    }
    for stop in stops(deployment) {
        line(stop.0, &stop.1);
    }
    // A release of one deployment has told its reason and its times.
    if document.deployments.len() > 1 {
        let told = [
            ("reason", &deployment.reason),
            ("waits for", &deployment.waiting_for),
            ("started", &deployment.started_at),
            ("ended", &deployment.ended_at),
        ];
        for (name, value) in told {
            if let Some(value) = value {
                line(name, value);
            }
        }
    }
    for (number, batch) in deployment.batches.iter().enumerate() {
        line(&format!("batch {}", number + 1), &batch.join(" "));
    }
    if !deployment.excluded.is_empty() {
        line("left out", &deployment.excluded.join(" "));
    }
    for (number, phrase) in mixed_phrases(&deployment.mixed_versions)
        .into_iter()
        .enumerate()
    {
        line(if number == 0 { "mixed" } else { "" }, &phrase);
    }
    for (plugin, digest) in &deployment.plugins {
        line("plugin", &format!("{plugin} {digest}"));
    }
    for (plugin, grants) in &deployment.grants {
        let granted = match grants.as_slice() {
            [] => "nothing".to_owned(),
            grants => grants.join(", "),
        };
        line("granted", &format!("{plugin}: {granted}"));
    }
    text
}

pub(crate) fn split(shares: &BTreeMap<String, u32>) -> String {
    let shares = shares
        .iter()
        .map(|(side, share)| format!("{side} {share}%"));
    shares.collect::<Vec<_>>().join(", ")
}

/// The switches and waits of a deployment in the order in which they came, or would.
fn stops(deployment: &Deployment) -> Vec<(&'static str, String)> {
    let switches = deployment.switches.iter().map(|switch| {
        let to = match split(&switch.to) {
            to if to.is_empty() => String::new(),
            to => format!(" to {to}"),
        };
        let at = match (&switch.at, switch.after_batch) {
            (Some(at), _) => format!(" at {at}"),
            (None, Some(done)) => after(done, deployment),
            (None, None) => String::new(),
        };
        let reason = switch.reason.as_deref().unwrap_or_default();
        let text = format!("{}{to}{at}  {reason}", switch.status);
        let place = (switch.after_batch, switch.at.clone());
        (place, ("traffic", text.trim_end().to_owned()))
    });
    let holds = deployment.holds.iter().map(|hold| {
        let name = hold.name.as_ref().map(|name| format!(" {name}"));
        let name = name.unwrap_or_default();
        let at = match &hold.opened_at {
            Some(at) => format!(" since {at}"),
            None => after(hold.after_batch, deployment),
        };
        let by = hold.by.as_ref().map(|by| format!("  by {by}"));
        let reason = hold.reason.as_deref().unwrap_or_default();
        let text = format!(
            "{}{name} {}{at}{}  {reason}",
            hold.kind,
            hold.status,
            by.unwrap_or_default()
        );
        let place = (Some(hold.after_batch), hold.opened_at.clone());
        (place, ("wait", text.trim_end().to_owned()))
    });
    let mut all: Vec<_> = switches.chain(holds).collect();
    // What has happened is sorted by its time, what would happen by the batches before it.
    all.sort_by(|(one, _), (other, _)| match (&one.1, &other.1) {
        (Some(one), Some(other)) => one.cmp(other),
        _ => one.0.cmp(&other.0),
    });
    all.into_iter().map(|(_, text)| text).collect()
}

fn after(done: u32, deployment: &Deployment) -> String {
    match done {
        0 => " before the first batch".to_owned(),
        done if done as usize >= deployment.batches.len() => " after the last batch".to_owned(),
        done => format!(" after batch {done}"),
    }
}

/// The instances of each version, one phrase a version.
#[must_use]
pub fn mixed_phrases(versions: &BTreeMap<String, Option<String>>) -> Vec<String> {
    let mut by_version: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for (id, version) in versions {
        by_version.entry(version.as_deref()).or_default().push(id);
    }
    let phrases = by_version.into_iter().rev();
    phrases
        .map(|(version, ids)| format!("{} on {}", version.unwrap_or("nothing"), ids.join(" ")))
        .collect()
}

/// What a planned deployment moves, batch by batch: from which version to which on which instances.
#[must_use]
pub fn moves(document: &Document) -> String {
    let mut text = String::new();
    for deployment in &document.deployments {
        let Deployment {
            application,
            group,
            strategy,
            direction,
            revision,
            ..
        } = deployment;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{application}/{group}  {direction} {}  {strategy}",
            revision.version
        );
        let mut table = Table::new(["BATCH", "FROM", "TO", "INSTANCES"]);
        for (number, batch) in deployment.batches.iter().enumerate() {
            let mut moved: Vec<((&str, &str), Vec<&str>)> = Vec::new();
            let in_batch = |instance: &&Instance| batch.contains(&instance.id);
            for instance in deployment.instances.iter().filter(in_batch) {
                let from = instance.from_version.as_deref().unwrap_or("nothing");
                let to = instance.to_version.as_deref().unwrap_or("nothing");
                match moved.last_mut() {
                    Some((move_, ids)) if *move_ == (from, to) => ids.push(&instance.id),
                    _ => moved.push(((from, to), vec![&instance.id])),
                }
            }
            for ((from, to), ids) in moved {
                table.row([
                    (number + 1).to_string(),
                    from.to_owned(),
                    to.to_owned(),
                    ids.join(" "),
                ]);
            }
        }
        for row in table.to_string().lines() {
            let _ = writeln!(text, "  {row}");
        }
    }
    text
}

fn instance_steps(instance: &Instance) -> String {
    let from = instance.from_version.as_deref().unwrap_or("nothing");
    let to = instance.to_version.as_deref().unwrap_or("nothing");
    let mut text = format!("  {}  {from} -> {to}", instance.id);
    if let Some(outcome) = instance.outcome {
        let _ = write!(text, "  {outcome}");
    }
    text.push('\n');
    let told_by_step = |reason: &str| {
        let last = instance.steps.last().and_then(|step| step.reason.as_ref());
        last.is_some_and(|last| reason.ends_with(last.as_str()))
    };
    if let Some(reason) = instance
        .reason
        .as_deref()
        .filter(|reason| !told_by_step(reason))
    {
        let _ = writeln!(text, "    {reason}");
    }
    let mut table = Table::new(["EVENT", "STATUS", "REVISION", "TOOK", "NOTE"]);
    let mut notes = Notes::default();
    for step in &instance.steps {
        table.row(row(step, &mut notes));
    }
    if !table.is_empty() {
        notes.write(&mut text, &table, 4);
    }
    text
}

fn row(step: &Step, notes: &mut Notes) -> [String; 5] {
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
        notes.of(step.reason.as_deref()),
    ]
}

fn took(start: &str, end: &str) -> String {
    let (Ok(start), Ok(end)) = (
        start.parse::<jiff::Timestamp>(),
        end.parse::<jiff::Timestamp>(),
    ) else {
        return String::new();
    };
    crate::table::duration(end.duration_since(start).unsigned_abs())
}

/// The notes of a table's rows: short ones stand in the table, the others below their rows.
#[derive(Default)]
struct Notes {
    below: Vec<Option<String>>,
}

impl Notes {
    /// The cell for the next row's note.
    fn of(&mut self, note: Option<&str>) -> String {
        let note = note.unwrap_or_default();
        let is_short = note.chars().count() <= NOTE_WIDTH && !note.contains('\n');
        self.below.push((!is_short).then(|| note.to_owned()));
        if is_short {
            note.to_owned()
        } else {
            String::new()
        }
    }

    fn write(&self, text: &mut String, table: &Table, indent: usize) {
        let margin = " ".repeat(indent);
        // The heading has no note.
        let notes = std::iter::once(&None).chain(&self.below);
        for (line, note) in table.to_string().lines().zip(notes) {
            let _ = writeln!(text, "{margin}{line}");
            for line in note.iter().flat_map(|note| wrapped(note)) {
                let _ = writeln!(text, "{margin}  {line}");
            }
        }
    }
}

/// The words of a note in lines that are not too long. A line break in the note stays one.
fn wrapped(note: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in note.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let width = line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && width > LINE_WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(notes: &[&str], expected: &str) {
        let mut table = Table::new(["EVENT", "NOTE"]);
        let mut kept = Notes::default();
        for note in notes {
            table.row(["Install".to_owned(), kept.of(Some(note))]);
        }
        let mut text = String::new();

        kept.write(&mut text, &table, 1);

        assert_eq!(text, expected);
    }

    #[test]
    fn a_short_note_stands_in_its_row() {
        check(
            &["3 files", ""],
            " EVENT    NOTE\n Install  3 files\n Install\n",
        );
    }

    #[test]
    fn a_long_note_goes_below_its_row_and_wraps_at_words() {
        let long = ["word"; 25].join(" ");
        let first = ["word"; 19].join(" ");
        let second = ["word"; 6].join(" ");

        check(
            &[&long, "short"],
            &format!(" EVENT    NOTE\n Install\n   {first}\n   {second}\n Install  short\n"),
        );
    }

    #[test]
    fn lines_of_a_note_stay_lines() {
        check(&["one\ntwo"], " EVENT    NOTE\n Install\n   one\n   two\n");
    }
}

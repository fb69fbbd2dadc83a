//! The gates of a group: what a deployment waits for between batches.

use std::collections::HashMap;
use std::time::Duration;

use model::{Gate, GateCheck, GatePolicy, GatePosition};

use super::plugin::declared;
use crate::fields::{BareNumber, Field, Fields, Shape};
use crate::json;
use crate::problem::{Collector, Position, excerpt};

pub(super) static GATE: Shape = Shape {
    name: "gate",
    keys: &[
        "name",
        "after",
        "approve",
        "command",
        "plugin",
        "config",
        "timeout",
        "interval",
        "on_fail",
        "on_inconclusive",
    ],
    aliases: &[],
};

/// How long a command or a plugin may leave a gate undecided when `timeout` is left out. A person has all the time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// The longest name of a gate, in characters: operators type it.
const LONGEST_NAME: usize = 64;

const POSITIONS: [(&str, GatePosition); 3] = [
    ("first", GatePosition::First),
    ("each", GatePosition::Each),
    ("last", GatePosition::Last),
];

const POLICIES: [(&str, GatePolicy); 4] = [
    ("continue", GatePolicy::Continue),
    ("pause", GatePolicy::Pause),
    ("stop", GatePolicy::Stop),
    ("rollback", GatePolicy::Rollback),
];

/// The gates, and where each is.
pub(super) fn parse_all(
    field: Field<'_>,
    plugins: &[&str],
    problems: &mut Collector,
) -> Option<(Vec<Gate>, Vec<Position>)> {
    let items = field.items("gates", problems);
    let mut lines = HashMap::new();
    let mut gates = Vec::new();
    for item in &items {
        let Some(gate) = parse(*item, plugins, problems) else {
            continue;
        };
        if let Some(first) = lines.insert(gate.name.clone(), item.at().line) {
            let message = format!(
                "the gate `{}` is given twice, first on line {first}",
                gate.name
            );
            problems.error(item.at(), message);
        }
        gates.push(gate);
    }
    let places = items.iter().map(|item| item.at()).collect();
    (gates.len() == items.len()).then_some((gates, places))
}

fn parse(item: Field<'_>, plugins: &[&str], problems: &mut Collector) -> Option<Gate> {
    let fields = item.fields(&GATE, problems)?;
    let name = fields
        .required("name", problems)
        .and_then(|field| name(field, problems));
    let after = fields.optional("after", |field| field.word(&POSITIONS, problems));
    let check = check(&fields, plugins, problems);
    let mut duration =
        |name| fields.optional(name, |field| field.duration(BareNumber::Refused, problems));
    let timeout = duration("timeout");
    let interval = duration("interval");
    let mut policy = |name| fields.optional(name, |field| field.word(&POLICIES, problems));
    let on_fail = policy("on_fail");
    let on_inconclusive = policy("on_inconclusive");
    let check = check?;
    let patience = match check {
        GateCheck::Approval { .. } => None,
        GateCheck::Command { .. } | GateCheck::Plugin { .. } => Some(DEFAULT_TIMEOUT),
    };
    Some(Gate {
        name: name?,
        after: after?.unwrap_or(GatePosition::Each),
        check,
        timeout: timeout?.or(patience),
        interval: interval?.unwrap_or(DEFAULT_INTERVAL),
        on_fail: on_fail?.unwrap_or(GatePolicy::Stop),
        on_inconclusive: on_inconclusive?.unwrap_or(GatePolicy::Pause),
    })
}

fn name(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let name = field.text(problems)?;
    if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        let message = format!(
            "`name`: `{}` is not the name of a gate: use one line of at most {LONGEST_NAME} characters",
            excerpt(name)
        );
        problems.error(field.at(), message);
        return None;
    }
    Some(name.to_owned())
}

/// Exactly one of `approve`, `command` and `plugin`.
fn check(fields: &Fields<'_>, plugins: &[&str], problems: &mut Collector) -> Option<GateCheck> {
    let approve = fields.get("approve");
    let command = fields.get("command");
    let plugin = fields.get("plugin");
    let config = fields.get("config");
    let mut checks = Vec::new();
    if let Some(field) = approve {
        let ask = field.text(problems);
        checks.push(ask.map(|ask| GateCheck::Approval {
            ask: ask.to_owned(),
        }));
        if let Some(field) = fields.get("interval") {
            problems.error_with_hint(
                field.name_at,
                "`interval` is for gates that are evaluated again and again, and this one asks a person",
                "leave it out",
            );
        }
    }
    if let Some(field) = command {
        let command = field.text(problems);
        checks.push(command.map(|command| GateCheck::Command {
            command: command.to_owned(),
        }));
    }
    let configuration = json::config(config, problems);
    if let Some(field) = plugin {
        let plugin = declared(field, plugins, problems);
        checks.push(
            plugin
                .zip(configuration)
                .map(|(plugin, config)| GateCheck::Plugin { plugin, config }),
        );
    } else if let Some(field) = config {
        problems.error_with_hint(
            field.name_at,
            "`config` is for a gate with `plugin`",
            "name the plugin, or leave `config` out",
        );
    }
    match checks.len() {
        1 => checks.pop().flatten(),
        0 => {
            fields.missing_choice(&["approve", "command", "plugin"], problems);
            None
        }
        _ => {
            problems.error_with_hint(
                fields.at,
                "`approve`, `command` and `plugin` exclude each other",
                "make a gate of each: a deployment passes all of them, in order",
            );
            None
        }
    }
}

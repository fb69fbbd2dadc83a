//! Who belongs to a group: its instances, and its sides where it has some.
//!
//! The instances of a blue-green group belong to its sides; those of the other strategies to the group itself.

use std::fmt;

use model::{Instance, SideGroup, SideName};

use super::instance::{self, Inherited};
use super::strategy::Kind;
use crate::fields::{Field, Fields, Shape};
use crate::json;
use crate::problem::{Collector, excerpt};
use crate::yaml::Value;

pub(super) static SIDE: Shape = Shape {
    name: "side",
    keys: &["group", "instances"],
    aliases: &[],
};

/// The instances and sides of a group.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// In the order of the file, side after side.
    pub(super) instances: Vec<Instance>,
    pub(super) sides: Vec<SideGroup>,
    /// What one deployment goes over: the group, or in a blue-green group either of its sides. Empty where that is
    /// not known.
    pub(super) totals: Vec<Total>,
}

/// How many instances the file lists in one place, those that could not be read included.
#[derive(Debug)]
pub(super) struct Total {
    side: Option<String>,
    pub(super) count: usize,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.side {
            Some(side) => write!(f, "the side `{side}` has {}", self.count)?,
            None => write!(f, "the group has {}", self.count)?,
        }
        f.write_str(if self.count == 1 {
            " instance"
        } else {
            " instances"
        })
    }
}

impl Members {
    /// Whether each instance that the file lists could be read.
    pub(super) fn are_complete(&self) -> bool {
        !self.totals.is_empty()
            && self.totals.iter().map(|total| total.count).sum::<usize>() == self.instances.len()
    }
}

/// Reads `instances` and `sides` of a group. Without a kind they are read for their problems only.
pub(super) fn parse(
    group: &Fields<'_>,
    kind: Option<Kind>,
    inherited: &Inherited,
    problems: &mut Collector,
) -> Members {
    let mut seen = instance::Seen::default();
    let mut members = Members::default();
    match (group.get("instances"), kind) {
        (Some(field), kind) => {
            members.instances = instance::parse_all(field, inherited, &mut seen, problems);
            members.totals.extend(total(None, field));
            if kind == Some(Kind::BlueGreen) {
                problems.error_with_hint(
                    field.name_at,
                    "`instances`: in a `blue-green` group they belong to the sides",
                    "move them: `sides: {blue: {instances: […]}, green: {instances: […]}}`",
                );
                // They are read for their problems only, and the sides may well list them again.
                members = Members::default();
                seen = instance::Seen::default();
            }
        }
        (None, Some(Kind::BlueGreen)) => {}
        // Instances in the sides are told where they belong.
        (None, _) if sides_list_instances(group) => {}
        (None, _) => {
            group.required("instances", problems);
        }
    }
    match (group.get("sides"), kind) {
        (Some(field), kind) => {
            if kind == Some(Kind::Rolling) {
                problems.error_with_hint(
                    field.name_at,
                    "`sides` are for the strategies `blue-green` and `canary`, and this is `rolling`",
                    "set the `type` of `strategy`, or list the instances under `instances` alone",
                );
            }
            sides(field, kind, inherited, &mut seen, &mut members, problems);
        }
        (None, Some(Kind::BlueGreen)) => group.required_for(
            "sides",
            "the strategy `blue-green` goes from one to the other",
            "write `sides: {blue: {group: {…}, instances: […]}, green: {group: {…}, instances: […]}}`",
            problems,
        ),
        (None, _) => {}
    }
    if kind.is_none() {
        members.totals.clear();
    }
    members
}

fn sides(
    field: Field<'_>,
    kind: Option<Kind>,
    inherited: &Inherited,
    seen: &mut instance::Seen,
    members: &mut Members,
    problems: &mut Collector,
) {
    let sides = field.entries("two names to sides", problems);
    if sides.len() != 2 && matches!(field.node.value, Value::Mapping(_)) {
        let message = format!("`sides`: expected two sides, found {}", sides.len());
        problems.error_with_hint(
            field.at(),
            message,
            "name two, for example `blue` and `green`",
        );
    }
    for side in sides {
        let name = side.name_as::<SideName>(problems);
        let Some(fields) = side.fields(&SIDE, problems) else {
            continue;
        };
        let group = json::config(fields.get("group"), problems);
        let listed = match kind {
            Some(Kind::BlueGreen) => fields.required("instances", problems),
            _ => fields.get("instances"),
        };
        let instances = listed
            .map(|field| instance::parse_all(field, inherited, seen, problems))
            .unwrap_or_default();
        if let (Some(Kind::Canary), Some(field)) = (kind, listed) {
            let message = format!(
                "`instances`: in a `canary` group they belong to the group and move to the side `{}`",
                excerpt(side.name)
            );
            problems.error_with_hint(
                field.name_at,
                message,
                "list them under `instances` of the group, beside `sides`",
            );
        }
        if kind == Some(Kind::BlueGreen) {
            members
                .totals
                .extend(listed.and_then(|field| total(Some(side.name), field)));
            members.instances.extend(instances.iter().cloned());
        }
        if let (Some(name), Some(group)) = (name, group) {
            members.sides.push(SideGroup {
                name,
                group,
                instances,
            });
        }
    }
}

fn sides_list_instances(group: &Fields<'_>) -> bool {
    let Some(Value::Mapping(sides)) = group.get("sides").map(|field| &field.node.value) else {
        return false;
    };
    sides
        .iter()
        .any(|side| Field::of(side).member("instances").is_some())
}

/// `None` for what is no list, or an empty one, which is reported as such.
fn total(side: Option<&str>, field: Field<'_>) -> Option<Total> {
    match &field.node.value {
        Value::Sequence(items) if !items.is_empty() => Some(Total {
            side: side.map(excerpt),
            count: items.len(),
        }),
        _ => None,
    }
}

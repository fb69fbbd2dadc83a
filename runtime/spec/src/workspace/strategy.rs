//! How a deployment goes over a group, and what a failure does to it.
//!
//! One mapping serves the three strategies. A key that only another one has is refused by name, for whoever writes it
//! relies on it.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Amount, Batching, OnFailure, Promote, Retire, Strategy};

use super::batches;
use super::sides::Members;
use crate::fields::{BareNumber, Field, Fields, Shape};
use crate::problem::{Collector, excerpt, suggestion};
use crate::yaml::Value;

pub(super) static STRATEGY: Shape = Shape {
    name: "strategy",
    keys: &[
        "type",
        "concurrency",
        "batches",
        "first_batch",
        "remaining_batches",
        "wait_between",
        "spread_by",
        "minimum_healthy",
        "failure_threshold",
        "batch_failure_threshold",
        "on_failure",
        "traffic",
        "promote",
        "bake",
        "retire",
    ],
    aliases: &[],
};

pub(super) static PROMOTE: Shape = Shape {
    name: "promote",
    keys: &["after"],
    aliases: &[],
};

/// The words of `on_failure`.
pub(super) const ON_FAILURE: [(&str, OnFailure); 2] =
    [("stop", OnFailure::Stop), ("rollback", OnFailure::Rollback)];

const RETIRE: [(&str, Retire); 2] = [("keep", Retire::Keep), ("stop", Retire::Stop)];

/// The three strategies, as `type` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rolling,
    BlueGreen,
    Canary,
}

const KINDS: [(&str, Kind); 3] = [
    ("rolling", Kind::Rolling),
    ("blue-green", Kind::BlueGreen),
    ("canary", Kind::Canary),
];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Rolling => "rolling",
            Kind::BlueGreen => "blue-green",
            Kind::Canary => "canary",
        }
    }

    /// The strategies that have a key. All have those that are not listed.
    fn that_have(key: &str) -> &'static [Kind] {
        match key {
            "concurrency" | "batches" => &[Kind::Rolling, Kind::BlueGreen],
            "minimum_healthy" => &[Kind::Rolling, Kind::Canary],
            "bake" | "retire" => &[Kind::BlueGreen],
            "first_batch" | "remaining_batches" | "traffic" | "promote" => &[Kind::Canary],
            _ => &[Kind::Rolling, Kind::BlueGreen, Kind::Canary],
        }
    }
}

/// The content of `strategy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) strategy: Strategy,
    pub(super) batching: Batching,
    pub(super) is_bounded: bool,
    pub(super) wait_between: Duration,
    pub(super) spread_by: Option<String>,
    pub(super) failure_threshold: Amount,
    pub(super) batch_failure_threshold: Option<Amount>,
    pub(super) minimum_healthy: Option<Amount>,
    pub(super) on_failure: OnFailure,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            batching: Batching::Window(Amount::Count(1)),
            is_bounded: false,
            wait_between: Duration::ZERO,
            spread_by: None,
            failure_threshold: Amount::Count(1),
            batch_failure_threshold: None,
            minimum_healthy: None,
            on_failure: OnFailure::Stop,
        }
    }
}

/// Reads the `type` alone, on which depends what the group has to have. `None` when it cannot be known.
pub(super) fn kind(field: Option<Field<'_>>, problems: &mut Collector) -> Option<Kind> {
    let Some(field) = field else {
        return Some(Kind::Rolling);
    };
    if !matches!(field.node.value, Value::Mapping(_)) {
        return None;
    }
    match field.member("type") {
        Some(kind) => kind.word(&KINDS, problems),
        None => Some(Kind::Rolling),
    }
}

/// Reads everything but the `type`. Without a kind it is read for its problems only.
pub(super) fn parse(
    field: Field<'_>,
    kind: Option<Kind>,
    members: &Members,
    problems: &mut Collector,
) -> Option<Settings> {
    let fields = field.fields(&STRATEGY, problems)?;
    if let Some(kind) = kind {
        refuse_keys_of_others(&fields, kind, problems);
    }
    let together = batches::together(&fields, kind, members, problems);
    let canary = batches::canary(&fields, kind, members, problems);
    let mut amount = |name| fields.optional(name, |field| field.amount(problems));
    let failure_threshold = amount("failure_threshold");
    let batch_failure_threshold = amount("batch_failure_threshold");
    let minimum_healthy = fields.optional("minimum_healthy", |field| {
        batches::minimum_healthy(field, kind, members, problems)
    });
    let mut duration =
        |name| fields.optional(name, |field| field.duration(BareNumber::Refused, problems));
    let wait_between = duration("wait_between");
    let bake = duration("bake");
    let spread_by = fields.optional("spread_by", |field| spread_by(field, members, problems));
    let on_failure = fields.optional("on_failure", |field| field.word(&ON_FAILURE, problems));
    let retire = fields.optional("retire", |field| field.word(&RETIRE, problems));
    let traffic = fields.optional("traffic", |field| share(field, problems));
    let promote = fields.optional("promote", |field| promote(field, problems));
    let (strategy, batching) = match kind? {
        Kind::Rolling => (Strategy::Rolling, together?),
        Kind::BlueGreen => {
            let bake = bake?.unwrap_or(Duration::ZERO);
            let retire = retire?.unwrap_or_default();
            (Strategy::BlueGreen { bake, retire }, together?)
        }
        Kind::Canary => {
            let (traffic, promote) = (traffic?, promote?.unwrap_or_default());
            (Strategy::Canary { traffic, promote }, canary?)
        }
    };
    let is_bounded = ["concurrency", "batches"]
        .iter()
        .any(|key| fields.get(key).is_some());
    Some(Settings {
        strategy,
        batching,
        is_bounded,
        wait_between: wait_between?.unwrap_or(Duration::ZERO),
        spread_by: spread_by?,
        failure_threshold: failure_threshold?.unwrap_or(Amount::Count(1)),
        batch_failure_threshold: batch_failure_threshold?,
        minimum_healthy: minimum_healthy?,
        on_failure: on_failure?.unwrap_or_default(),
    })
}

fn refuse_keys_of_others(fields: &Fields<'_>, kind: Kind, problems: &mut Collector) {
    for key in STRATEGY.keys {
        let owners = Kind::that_have(key);
        let Some(field) = fields.get(key).filter(|_| !owners.contains(&kind)) else {
            continue;
        };
        let names: Vec<_> = owners.iter().map(|owner| owner.name()).collect();
        let owners = match names.as_slice() {
            [only] => format!("the strategy `{only}`"),
            _ => format!("the strategies `{}`", names.join("` and `")),
        };
        let message = format!(
            "`{key}` is a key of {owners}, and this is `{}`",
            kind.name()
        );
        let hint = match (kind, *key) {
            (Kind::Canary, "concurrency" | "batches") => {
                "give a canary `first_batch` and `remaining_batches`".to_owned()
            }
            (Kind::BlueGreen, "minimum_healthy") => {
                "leave it out: the side that changes serves nothing while it does".to_owned()
            }
            (Kind::BlueGreen, "traffic") => {
                "leave it out: all of the traffic is switched at once".to_owned()
            }
            (_, "first_batch" | "remaining_batches") => {
                format!(
                    "use `batches`, for example `batches: [1, 50%, 100%]`, or set `type: {}`",
                    names[0]
                )
            }
            _ => format!("leave it out, or set `type: {}`", names[0]),
        };
        problems.error_with_hint(field.name_at, message, hint);
    }
}

/// The key of labels `KEY=VALUE`. At least one instance has to have one, for else the key is a slip.
fn spread_by(field: Field<'_>, members: &Members, problems: &mut Collector) -> Option<String> {
    let label = field.text(problems)?;
    let labels = members
        .instances
        .iter()
        .flat_map(|instance| &instance.labels);
    let keys: BTreeSet<_> = labels
        .filter_map(|text| text.split_once('='))
        .map(|(key, _)| key)
        .collect();
    let keys: Vec<_> = keys.into_iter().collect();
    if keys.contains(&label) || !members.are_complete() {
        return Some(label.to_owned());
    }
    let message = format!(
        "`spread_by`: no instance has a label `{}=…`",
        excerpt(label)
    );
    let hint = match (label.split_once('='), suggestion(label, &keys)) {
        (Some((key, _)), _) if keys.contains(&key) => {
            format!("name the label without its value: `{}`", excerpt(key))
        }
        (_, Some(meant)) => format!("did you mean `{}`?", excerpt(meant)),
        _ => format!(
            "give the instances labels such as `labels: [{}=a]`",
            excerpt(label)
        ),
    };
    problems.error_with_hint(field.at(), message, hint);
    None
}

/// A share of the traffic that leaves something to both sides.
fn share(field: Field<'_>, problems: &mut Collector) -> Option<u8> {
    let text = field.scalar().map_or("", |(text, _)| text);
    let in_range = |number: &str| {
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let share = digits.then(|| number.parse().ok()).flatten();
        share.filter(|share: &u8| (1..=99).contains(share))
    };
    if let Some(share) = text.strip_suffix('%').and_then(in_range) {
        return Some(share);
    }
    let message = field.mismatch_message("a share of the traffic from `1%` to `99%`");
    match in_range(text) {
        Some(number) => {
            problems.error_with_hint(field.at(), message, format!("write `{number}%`"));
        }
        None => problems.error(field.at(), message),
    }
    None
}

/// `manual`, `{after: DURATION}`, or the latter as text.
fn promote(field: Field<'_>, problems: &mut Collector) -> Option<Promote> {
    if let Value::Mapping(_) = field.node.value {
        let fields = field.fields(&PROMOTE, problems)?;
        let after = fields.required("after", problems)?;
        return after
            .duration(BareNumber::Refused, problems)
            .map(Promote::After);
    }
    let text = field.scalar().map_or("", |(text, _)| text);
    let text = text.trim();
    if text == "manual" {
        return Some(Promote::Manual);
    }
    let after = text
        .strip_prefix("after")
        .filter(|rest| rest.starts_with([':', ' ']));
    match after {
        Some(rest) => {
            let duration = rest.trim_start_matches(':').trim();
            field
                .duration_in(duration, BareNumber::Refused, problems)
                .map(Promote::After)
        }
        None => {
            field.mismatch(
                "`manual` or `{after: DURATION}`, for example `{after: 10m}`",
                problems,
            );
            None
        }
    }
}

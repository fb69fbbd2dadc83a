//! How a deployment goes over a group, and what a failure does to it.

use model::{Amount, Batching, OnFailure, Strategy};

use crate::fields::{Field, Shape};
use crate::problem::Collector;

pub(super) static STRATEGY: Shape = Shape {
    name: "strategy",
    keys: &["type", "concurrency", "failure_threshold", "on_failure"],
    aliases: &[],
    unsupported: &[
        "batches",
        "wait_between",
        "spread_by",
        "minimum_healthy",
        "bake",
        "retire",
        "first_batch",
        "remaining_batches",
        "traffic",
        "promote",
    ],
};

/// The words of `on_failure`.
pub(super) const ON_FAILURE: [(&str, OnFailure); 2] =
    [("stop", OnFailure::Stop), ("rollback", OnFailure::Rollback)];

/// The content of `strategy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) strategy: Strategy,
    pub(super) batching: Batching,
    pub(super) failure_threshold: Amount,
    pub(super) on_failure: OnFailure,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            batching: Batching::Window(Amount::Count(1)),
            failure_threshold: Amount::Count(1),
            on_failure: OnFailure::Stop,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Rolling,
    BlueGreen,
    Canary,
}

pub(super) fn parse(field: Field<'_>, problems: &mut Collector) -> Option<Settings> {
    let fields = field.fields(&STRATEGY, problems)?;
    let kinds = [
        ("rolling", Kind::Rolling),
        ("blue-green", Kind::BlueGreen),
        ("canary", Kind::Canary),
    ];
    let kind = match fields.get("type") {
        Some(field) => {
            let kind = field.word(&kinds, problems);
            if let Some(Kind::BlueGreen | Kind::Canary) = kind {
                let name = field.text(problems).unwrap_or_default();
                problems.error(
                    field.at(),
                    format!("strategy `{name}` is not supported by this version of cutover"),
                );
            }
            kind
        }
        None => Some(Kind::Rolling),
    };
    let mut amount = |name| {
        fields
            .get(name)
            .map_or(Some(Amount::Count(1)), |field| field.amount(problems))
    };
    let concurrency = amount("concurrency");
    let failure_threshold = amount("failure_threshold");
    let on_failure = match fields.get("on_failure") {
        Some(field) => field.word(&ON_FAILURE, problems),
        None => Some(OnFailure::default()),
    };
    let strategy = match kind? {
        Kind::Rolling => Strategy::Rolling,
        Kind::BlueGreen | Kind::Canary => return None,
    };
    Some(Settings {
        strategy,
        batching: Batching::Window(concurrency?),
        failure_threshold: failure_threshold?,
        on_failure: on_failure?,
    })
}

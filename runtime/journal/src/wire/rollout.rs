//! Strategies and batches on disk.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A window is part of the strategy, any other batching stands beside it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Strategy {
    Rolling {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        concurrency: Option<Amount>,
    },
    BlueGreen {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        concurrency: Option<Amount>,
        #[serde(default, skip_serializing_if = "Duration::is_zero")]
        bake: Duration,
        #[serde(default, skip_serializing_if = "is_kept", with = "Retire")]
        retire: model::Retire,
    },
    Canary {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        concurrency: Option<Amount>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traffic: Option<u8>,
        #[serde(with = "Promote")]
        promote: model::Promote,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Batching {
    Even(u32),
    Growing(Vec<Amount>),
    FirstThenEven { first: u32, rest: u32 },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Amount {
    Count(u32),
    Percent(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Retire", rename_all = "kebab-case")]
enum Retire {
    Keep,
    Stop,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Promote", rename_all = "kebab-case")]
enum Promote {
    Manual,
    After(Duration),
    Given,
}

fn is_kept(retire: &model::Retire) -> bool {
    *retire == model::Retire::Keep
}

/// Writes a strategy with its batches.
pub(super) fn encode(
    strategy: model::Strategy,
    batching: &model::Batching,
) -> (Strategy, Option<Batching>) {
    let (concurrency, beside) = match batching {
        model::Batching::Window(amount) => (Some(Amount::from(*amount)), None),
        model::Batching::Even(count) => (None, Some(Batching::Even(*count))),
        model::Batching::Growing(amounts) => {
            let amounts = amounts.iter().copied().map(Amount::from).collect();
            (None, Some(Batching::Growing(amounts)))
        }
        model::Batching::FirstThenEven { first, rest } => {
            let (first, rest) = (*first, *rest);
            (None, Some(Batching::FirstThenEven { first, rest }))
        }
    };
    let strategy = match strategy {
        model::Strategy::Rolling => Strategy::Rolling { concurrency },
        model::Strategy::BlueGreen { bake, retire } => Strategy::BlueGreen {
            concurrency,
            bake,
            retire,
        },
        model::Strategy::Canary { traffic, promote } => Strategy::Canary {
            concurrency,
            traffic,
            promote,
        },
    };
    (strategy, beside)
}

/// Reads a strategy with its batches.
pub(super) fn decode(
    strategy: Strategy,
    beside: Option<Batching>,
) -> (model::Strategy, model::Batching) {
    let (strategy, concurrency) = match strategy {
        Strategy::Rolling { concurrency } => (model::Strategy::Rolling, concurrency),
        Strategy::BlueGreen {
            concurrency,
            bake,
            retire,
        } => (model::Strategy::BlueGreen { bake, retire }, concurrency),
        Strategy::Canary {
            concurrency,
            traffic,
            promote,
        } => (model::Strategy::Canary { traffic, promote }, concurrency),
    };
    let batching = match beside {
        Some(Batching::Even(count)) => model::Batching::Even(count),
        Some(Batching::Growing(amounts)) => {
            model::Batching::Growing(amounts.into_iter().map(model::Amount::from).collect())
        }
        Some(Batching::FirstThenEven { first, rest }) => {
            model::Batching::FirstThenEven { first, rest }
        }
        None => model::Batching::Window(
            concurrency.map_or(model::Amount::Count(1), model::Amount::from),
        ),
    };
    (strategy, batching)
}

impl From<model::Amount> for Amount {
    fn from(amount: model::Amount) -> Self {
        match amount {
            model::Amount::Count(count) => Self::Count(count),
            model::Amount::Percent(percent) => Self::Percent(percent),
        }
    }
}

impl From<Amount> for model::Amount {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Count(count) => Self::Count(count),
            Amount::Percent(percent) => Self::Percent(percent),
        }
    }
}

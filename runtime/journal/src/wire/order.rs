//! Orders on disk.

use model::InstanceId;
use serde::{Deserialize, Serialize};

use super::fact::Broken;

/// The JSON of an order.
pub(crate) fn encode_order(order: &model::Order) -> Result<String, Broken> {
    Ok(serde_json::to_string(&Body(order.clone()))?)
}

/// The order that a JSON text says.
pub(crate) fn decode_order(text: &str) -> Result<model::Order, Broken> {
    Ok(serde_json::from_str::<Body>(text)?.0)
}

#[derive(Serialize, Deserialize)]
struct Body(#[serde(with = "Order")] model::Order);

#[derive(Serialize, Deserialize)]
#[serde(
    remote = "model::Order",
    rename_all = "kebab-case",
    deny_unknown_fields
)]
pub(super) enum Order {
    Pause,
    Stop,
    Promote,
    Weight {
        percent: u8,
        #[serde(with = "Capacity")]
        capacity: model::Capacity,
    },
    Approve {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    Reject {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    Skip {
        instance: InstanceId,
    },
    Rollback {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Capacity", rename_all = "kebab-case")]
enum Capacity {
    Respect,
    Exceed,
}

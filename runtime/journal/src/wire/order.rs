//! Orders on disk.

use model::InstanceId;
use serde::{Deserialize, Serialize};

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

//! Orders on disk.

use model::{DeploymentId, InstanceId};
use serde::{Deserialize, Serialize};

use super::fact::Broken;

/// The JSON of an order.
pub(crate) fn encode_order(order: &model::Order) -> Result<String, Broken> {
    Ok(serde_json::to_string(&Order::from(order.clone()))?)
}

/// The order that a JSON text says.
pub(crate) fn decode_order(text: &str) -> Result<model::Order, Broken> {
    Ok(serde_json::from_str::<Order>(text)?.into())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Order {
    Pause,
    Stop,
    PauseAt(Boundary),
    StopAt(Boundary),
    For {
        deployment: DeploymentId,
        order: Box<Order>,
    },
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
#[serde(rename_all = "kebab-case")]
pub(super) enum Boundary {
    Service,
    Batch,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Capacity", rename_all = "kebab-case")]
enum Capacity {
    Respect,
    Exceed,
}

impl From<model::Order> for Order {
    fn from(order: model::Order) -> Self {
        match order {
            model::Order::Pause { at: None } => Order::Pause,
            model::Order::Stop { at: None } => Order::Stop,
            model::Order::Pause { at: Some(at) } => Order::PauseAt(at.into()),
            model::Order::Stop { at: Some(at) } => Order::StopAt(at.into()),
            model::Order::For { deployment, order } => Order::For {
                deployment,
                order: Box::new((*order).into()),
            },
            model::Order::Promote => Order::Promote,
            model::Order::Weight { percent, capacity } => Order::Weight { percent, capacity },
            model::Order::Approve { gate, comment } => Order::Approve { gate, comment },
            model::Order::Reject { gate, comment } => Order::Reject { gate, comment },
            model::Order::Skip { instance } => Order::Skip { instance },
            model::Order::Rollback { reason } => Order::Rollback { reason },
        }
    }
}

impl From<Order> for model::Order {
    fn from(order: Order) -> Self {
        match order {
            Order::Pause => model::Order::Pause { at: None },
            Order::Stop => model::Order::Stop { at: None },
            Order::PauseAt(at) => model::Order::Pause {
                at: Some(at.into()),
            },
            Order::StopAt(at) => model::Order::Stop {
                at: Some(at.into()),
            },
            Order::For { deployment, order } => model::Order::For {
                deployment,
                order: Box::new((*order).into()),
            },
            Order::Promote => model::Order::Promote,
            Order::Weight { percent, capacity } => model::Order::Weight { percent, capacity },
            Order::Approve { gate, comment } => model::Order::Approve { gate, comment },
            Order::Reject { gate, comment } => model::Order::Reject { gate, comment },
            Order::Skip { instance } => model::Order::Skip { instance },
            Order::Rollback { reason } => model::Order::Rollback { reason },
        }
    }
}

impl From<model::Boundary> for Boundary {
    fn from(boundary: model::Boundary) -> Self {
        match boundary {
            model::Boundary::Service => Boundary::Service,
            model::Boundary::Batch => Boundary::Batch,
        }
    }
}

impl From<Boundary> for model::Boundary {
    fn from(boundary: Boundary) -> Self {
        match boundary {
            Boundary::Service => model::Boundary::Service,
            Boundary::Batch => model::Boundary::Batch,
        }
    }
}

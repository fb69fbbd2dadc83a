//! Sides and shares on disk.

use std::collections::BTreeMap;

use model::{DeploymentId, InstanceId, SideName};
use serde::{Deserialize, Serialize};

use super::deployment::Instance;
use super::fact::Broken;

/// A share in percent for each side.
pub(super) type Shares = BTreeMap<SideName, u8>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sides {
    list: Vec<SideGroup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<SideName>,
    to: SideName,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shares: Shares,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    installed: BTreeMap<InstanceId, DeploymentId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SideGroup {
    name: SideName,
    group: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    instances: Vec<Instance>,
}

pub(super) fn shares(shares: &model::Shares) -> Shares {
    shares
        .iter()
        .map(|(side, share)| (side.clone(), share))
        .collect()
}

pub(super) fn shares_of(shares: Shares) -> Result<model::Shares, Broken> {
    Ok(model::Shares::new(shares)?)
}

impl From<&model::Sides> for Sides {
    fn from(sides: &model::Sides) -> Self {
        let list = sides.list.iter().map(|side| SideGroup {
            name: side.name.clone(),
            group: side.group.clone(),
            instances: side.instances.iter().map(Instance::from).collect(),
        });
        Self {
            list: list.collect(),
            from: sides.from.clone(),
            to: sides.to.clone(),
            shares: shares(&sides.shares),
            installed: sides.installed.clone(),
        }
    }
}

impl TryFrom<Sides> for model::Sides {
    type Error = Broken;

    fn try_from(sides: Sides) -> Result<Self, Broken> {
        let list = sides.list.into_iter().map(|side| {
            Ok(model::SideGroup {
                name: side.name,
                group: side.group,
                instances: side
                    .instances
                    .into_iter()
                    .map(model::Instance::try_from)
                    .collect::<Result<_, Broken>>()?,
            })
        });
        Ok(Self {
            list: list.collect::<Result<_, Broken>>()?,
            from: sides.from,
            to: sides.to,
            shares: shares_of(sides.shares)?,
            installed: sides.installed,
        })
    }
}

//! Sides of a group and the traffic that each gets.

use std::collections::BTreeMap;
use std::fmt;

use crate::{DeploymentId, Instance, InstanceId, SideName};

/// The sides of a blue-green or canary deployment, as they were when it was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// In the order of the file.
    pub list: Vec<SideGroup>,
    /// The side that had the traffic; absent before the first deployment.
    pub from: Option<SideName>,
    /// The side that the deployment brings the traffic to.
    pub to: SideName,
    /// What the balancer said then.
    pub shares: Shares,
    /// What the instances of a colour without the deployment had installed, as keys into the deployment's packages.
    pub installed: BTreeMap<InstanceId, DeploymentId>,
}

/// One side: a group of a balancer with the instances that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideGroup {
    pub name: SideName,
    /// What names the side's group to the plugins, a JSON object that is laid over their configuration.
    pub group: String,
    /// The instances of a colour. In a canary deployment, whose instances move from side to side, those on this side
    /// that are no targets of it.
    pub instances: Vec<Instance>,
}

/// The percentage of the traffic that each side gets: 100 together, or nothing where no side is live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares(BTreeMap<SideName, u8>);

/// Shares that are not a split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shares sum to {sum}, not to 100")]
pub struct InvalidShares {
    pub sum: u32,
}

impl Shares {
    /// Takes shares that sum to 100, or none. Sides with nothing are left out.
    ///
    /// # Errors
    /// [`InvalidShares`] with the sum when it is another.
    pub fn new(shares: impl IntoIterator<Item = (SideName, u8)>) -> Result<Self, InvalidShares> {
        let shares: BTreeMap<_, _> = shares.into_iter().filter(|(_, share)| *share > 0).collect();
        let sum = shares.values().map(|share| u32::from(*share)).sum();
        if shares.is_empty() || sum == 100 {
            Ok(Self(shares))
        } else {
            Err(InvalidShares { sum })
        }
    }

    /// Everything to one side.
    #[must_use]
    pub fn all_to(side: SideName) -> Self {
        Self([(side, 100)].into())
    }

    /// `percent` to one side and what is left to the other.
    #[must_use]
    pub fn between(side: SideName, percent: u8, other: SideName) -> Self {
        let percent = percent.min(100);
        Self(
            [(side, percent), (other, 100 - percent)]
                .into_iter()
                .filter(|(_, share)| *share > 0)
                .collect(),
        )
    }

    /// The share of a side in percent.
    #[must_use]
    pub fn of(&self, side: &SideName) -> u8 {
        self.0.get(side).copied().unwrap_or(0)
    }

    /// The side that gets everything, where one does.
    #[must_use]
    pub fn only(&self) -> Option<&SideName> {
        self.0
            .iter()
            .find(|(_, share)| **share == 100)
            .map(|(side, _)| side)
    }

    /// Whether no side is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sides that get something, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&SideName, u8)> {
        self.0.iter().map(|(side, share)| (side, *share))
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no side");
        }
        for (index, (side, share)) in self.0.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            write!(f, "{separator}{side} {share}%")?;
        }
        Ok(())
    }
}

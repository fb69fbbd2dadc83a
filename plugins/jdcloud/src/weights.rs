//! A split between sides of one target group, by the weights of its targets. Only targets of an alb may have weight 0.

use std::collections::BTreeMap;

use cutover_plugin_sdk::{
    Attribute, Failure, FailureClass, Impossible, Outcome, Part, Share, percent_of, percents,
    weights,
};

use crate::config::LARGEST_WEIGHT;
use crate::groups;
use crate::lb::{Backend, Kind, Lb, TargetUpdate};
use crate::pool::{Place, found};
use crate::router::Group;

/// The longest revision. The weights of more targets than fit have none, so that they are written without being compared.
const LONGEST_REVISION: usize = 8 << 10;

/// The targets of all sides' members that are registered.
pub(crate) struct Weights<'a> {
    lb: &'a Lb<'a>,
    sides: &'a [Group<'a>],
    backend: Backend,
    group: Option<String>,
    members: Vec<Member>,
}

/// A registered target with the index of the side that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    side: usize,
    place: String,
    target_id: String,
    weight: u32,
}

impl<'a> Weights<'a> {
    pub(crate) fn read(
        lb: &'a Lb<'a>,
        sides: &'a [Group<'a>],
        backend: Backend,
    ) -> Result<Self, Failure> {
        let config = sides.first().map(|side| &side.config);
        let group = match config {
            Some(config) => groups::find(lb, config, &backend)?,
            None => None,
        };
        let members = match &group {
            Some(group) => members(lb, sides, &backend, group)?,
            None => Vec::new(),
        };
        Ok(Self {
            lb,
            sides,
            backend,
            group,
            members,
        })
    }

    /// What the sides get. Nobody gets anything through a group that the backend has not.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let group = self.group.as_deref();
        if !group.is_some_and(|group| groups::is_attached(&self.backend, group)) {
            return Vec::new();
        }
        let total = |index: usize| -> u64 {
            let of_side = self.members.iter().filter(|member| member.side == index);
            of_side.map(|member| u64::from(member.weight)).sum()
        };
        let totals: Vec<u64> = (0..self.sides.len()).map(total).collect();
        let Some(percents) = percents(&totals) else {
            return Vec::new();
        };
        self.sides
            .iter()
            .zip(percents)
            .map(|(side, percent)| Share {
                side: side.name().to_owned(),
                percent,
            })
            .collect()
    }

    /// `PLACE=WEIGHT` of each target, separated by spaces.
    pub(crate) fn revision(&self) -> Option<String> {
        Some(listed(&self.members)).filter(|text| text.len() <= LONGEST_REVISION)
    }

    pub(crate) fn set(
        &self,
        expected: Option<&str>,
        shares: &[Share],
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let wanted = self.wanted(shares)?;
        let weight_of = |member: &Member| wanted.get(member.side).copied().unwrap_or(0);
        let changes: Vec<&Member> = self
            .members
            .iter()
            .filter(|member| member.weight != weight_of(member))
            .collect();
        if changes.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        let expected = expected.map(parse_revision).unwrap_or_default();
        if let Some((member, expected)) = changes.iter().find_map(|member| {
            let expected = *expected.get(member.place.as_str())?;
            (expected != member.weight).then_some((member, expected))
        }) {
            let message = format!(
                "`{}` has weight {}, expected was {expected} or {}",
                member.place,
                member.weight,
                weight_of(member)
            );
            return Err(Failure::conflict("jd.weight-changed", message)
                .hint("somebody else changed it: see who did, and plan anew"));
        }
        if self.backend.load_balancer_type != Kind::Alb {
            return Err(Failure::unsupported(
                "jd.weight-0",
                format!(
                    "a split by weights needs an alb, and `{}` is an {}",
                    self.backend.load_balancer_id,
                    self.backend.load_balancer_type.name()
                ),
            ));
        }
        let Some(group) = &self.group else {
            return Ok(Outcome::Unchanged);
        };
        if dry_run {
            return Ok(Outcome::changed());
        }
        // One request carries them all, so that no moment has a weight of the old split beside one of the next.
        let updates: Vec<_> = changes
            .iter()
            .map(|member| TargetUpdate {
                target_id: member.target_id.clone(),
                weight: weight_of(member),
            })
            .collect();
        let failure = match self.lb.update(group, &updates) {
            Ok(()) => None,
            Err(failure) if failure.class == FailureClass::UnknownOutcome => Some(failure),
            Err(failure) => return Err(failure),
        };
        let after = match (members(self.lb, self.sides, &self.backend, group), &failure) {
            (Ok(after), _) => after,
            (Err(_), Some(failure)) => return Err(failure.clone()),
            (Err(reading), None) => {
                return Err(Failure::unknown_outcome(reading.code, reading.message));
            }
        };
        match after
            .iter()
            .find(|member| member.weight != weight_of(member))
        {
            None => Ok(Outcome::Changed(vec![Attribute {
                key: "jd.weights".to_owned(),
                value: listed(&after),
            }])),
            Some(member) => Err(failure.unwrap_or_else(|| {
                let message = format!(
                    "`{}` has weight {}, not {}",
                    member.place,
                    member.weight,
                    weight_of(member)
                );
                // The API may tell of a change a little later.
                Failure::unknown_outcome("jd.unmoved", message)
            })),
        }
    }

    /// The weight of each side's targets.
    fn wanted(&self, shares: &[Share]) -> Result<Vec<u32>, Failure> {
        let parts: Vec<Part> = self
            .sides
            .iter()
            .enumerate()
            .map(|(index, side)| Part {
                servers: self.members.iter().filter(|it| it.side == index).count(),
                percent: percent_of(shares, side.name()),
            })
            .collect();
        let weights = weights(&parts, LARGEST_WEIGHT).map_err(|impossible| match impossible {
            Impossible::NoServer => {
                let message = "a side without registered targets cannot get a share of the traffic";
                Failure::invalid("jd.no-targets", message)
                    .hint("see in the console whether somebody deregistered them")
            }
            Impossible::TooFar(points) => Failure::unsupported(
                "jd.weights",
                format!(
                    "weights of 0 to {LARGEST_WEIGHT} come within {points:.1} points of this split"
                ),
            )
            .hint("give the side with the large share more instances, or a smaller share"),
        })?;
        let usual = self.sides.first().map_or(10, |side| side.config.weight);
        Ok(grown(weights, usual))
    }
}

/// Weights that are all the same are those that targets are registered with, so that those which join later weigh as much.
fn grown(weights: Vec<u32>, usual: u32) -> Vec<u32> {
    let is_one = weights.iter().all(|weight| *weight <= 1);
    if is_one && usual > 0 {
        weights.into_iter().map(|weight| weight * usual).collect()
    } else {
        weights
    }
}

fn members(
    lb: &Lb<'_>,
    sides: &[Group<'_>],
    backend: &Backend,
    group: &str,
) -> Result<Vec<Member>, Failure> {
    let present = lb.targets(group)?;
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    for (index, side) in sides.iter().enumerate() {
        for (_, place) in side.places()? {
            // One that is away for its deployment comes back by itself.
            let Some(target) = found(&present, &place, backend) else {
                continue;
            };
            let member = Member {
                side: index,
                place: Place::of_target(target).to_string(),
                target_id: target.target_id.clone(),
                weight: target.weight,
            };
            if let Some(other) = members.insert(member.place.clone(), member) {
                let message = format!(
                    "`{}` is a member of `{}` and of `{}`",
                    other.place,
                    sides[other.side].name(),
                    side.name()
                );
                return Err(Failure::invalid("jd.two-sides", message));
            }
        }
    }
    Ok(members.into_values().collect())
}

fn listed(members: &[Member]) -> String {
    members
        .iter()
        .map(|member| format!("{}={}", member.place, member.weight))
        .collect::<Vec<_>>()
        .join(" ")
}

fn parse_revision(text: &str) -> BTreeMap<&str, u32> {
    text.split(' ')
        .filter_map(|part| part.rsplit_once('='))
        .filter_map(|(place, weight)| Some((place, weight.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_weights_are_those_that_targets_are_registered_with() {
        assert_eq!(grown(vec![1, 1], 10), [10, 10]);
        assert_eq!(grown(vec![1, 0], 10), [10, 0]);
        assert_eq!(grown(vec![4, 3], 10), [4, 3]);
        assert_eq!(grown(vec![1, 1], 0), [1, 1]);
    }
}

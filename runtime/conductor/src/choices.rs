//! What an operator chooses for one deployment besides what the file says: its strategy, and whom it leaves out.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use model::{
    Amount, Batching, GroupRef, InstanceId, Promote, Retire, SideGroup, SideName, Strategy, Version,
};
use spec::workspace::{Group, UnknownInstance};

use crate::Conductor;
use crate::plan::PlanError;

/// A strategy by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyKind {
    Rolling,
    BlueGreen,
    Canary,
}

impl StrategyKind {
    fn of(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Rolling => Self::Rolling,
            Strategy::BlueGreen { .. } => Self::BlueGreen,
            Strategy::Canary { .. } => Self::Canary,
        }
    }
}

impl fmt::Display for StrategyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            StrategyKind::Rolling => "rolling",
            StrategyKind::BlueGreen => "blue-green",
            StrategyKind::Canary => "canary",
        })
    }
}

/// What is chosen. The default is what the file says, for all instances.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    pub strategy: Option<StrategyKind>,
    /// Instances that the deployment leaves out.
    pub exclude: Vec<InstanceId>,
    /// The side that is live, where the router and the journal disagree.
    pub live: Option<SideName>,
}

/// A choice that the group does not allow.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    #[error("{group} cannot be deployed {asked}: {reason}")]
    Strategy {
        group: GroupRef,
        asked: StrategyKind,
        reason: &'static str,
    },
    #[error(transparent)]
    UnknownInstance(#[from] UnknownInstance),
    #[error(
        "`{instance}` cannot be left out: {group} is deployed blue-green, and the traffic goes to a whole side"
    )]
    PartOfSide {
        group: GroupRef,
        instance: InstanceId,
    },
    #[error("every instance of {group} is left out")]
    NothingLeft { group: GroupRef },
    #[error("{group} has {left} instance left: a canary takes at least 2")]
    TooFew { group: GroupRef, left: usize },
}

impl Choices {
    /// The group as the deployment takes it.
    pub(crate) fn of<'g>(&self, group: &'g Group) -> Result<Cow<'g, Group>, ChoiceError> {
        let mut chosen = match self.strategy {
            Some(asked) if asked != StrategyKind::of(group.strategy) => {
                Cow::Owned(with_strategy(group, asked)?)
            }
            _ => Cow::Borrowed(group),
        };
        for id in &self.exclude {
            group.instance(id)?;
            if let Strategy::BlueGreen { .. } = chosen.strategy {
                return Err(ChoiceError::PartOfSide {
                    group: group.reference.clone(),
                    instance: id.clone(),
                });
            }
        }
        if !self.exclude.is_empty() {
            let is_left = |id: &InstanceId| !self.exclude.contains(id);
            chosen
                .to_mut()
                .instances
                .retain(|instance| is_left(&instance.id));
        }
        let left = chosen.instances.len();
        let group = || group.reference.clone();
        match chosen.strategy {
            _ if left == 0 => Err(ChoiceError::NothingLeft { group: group() }),
            Strategy::Canary { .. } if left < 2 => Err(ChoiceError::TooFew {
                group: group(),
                left,
            }),
            _ => Ok(chosen),
        }
    }
}

/// The group with a strategy that its file does not name, at that strategy's usual settings.
fn with_strategy(group: &Group, asked: StrategyKind) -> Result<Group, ChoiceError> {
    let refused = |reason| {
        Err(ChoiceError::Strategy {
            group: group.reference.clone(),
            asked,
            reason,
        })
    };
    let has_colours = group.sides.iter().any(|side| !side.instances.is_empty());
    let groups: Vec<_> = group.sides.iter().map(|side| &side.group).collect();
    let is_apart = groups.windows(2).any(|pair| pair[0] != pair[1]);
    let chosen = match asked {
        StrategyKind::BlueGreen if !has_colours => {
            return refused(
                "its `sides` have no instances of their own, so there is no side to deploy to while the other one serves",
            );
        }
        StrategyKind::BlueGreen if group.router.is_none() => {
            return refused("it has no `traffic`, which switches from side to side");
        }
        StrategyKind::BlueGreen => Group {
            strategy: Strategy::BlueGreen {
                bake: Duration::ZERO,
                retire: Retire::Keep,
            },
            batching: Batching::Window(Amount::Count(1)),
            ..group.clone()
        },
        StrategyKind::Rolling | StrategyKind::Canary if has_colours => {
            return refused(
                "its instances belong to two sides of which one has the traffic: only blue-green keeps them apart",
            );
        }
        StrategyKind::Rolling if is_apart => {
            return refused(
                "its sides are different groups of the load balancer, and rolling does not move instances between them",
            );
        }
        StrategyKind::Rolling => Group {
            strategy: Strategy::Rolling,
            batching: Batching::Window(Amount::Count(1)),
            router: None,
            sides: Vec::<SideGroup>::new(),
            ..group.clone()
        },
        StrategyKind::Canary => Group {
            strategy: Strategy::Canary {
                traffic: None,
                promote: Promote::Manual,
            },
            batching: Batching::FirstThenEven { first: 1, rest: 1 },
            ..group.clone()
        },
    };
    Ok(chosen)
}

impl Conductor {
    /// Says of whom is left out which version stays there.
    pub(crate) fn tell_excluded(
        &self,
        group: &Group,
        choices: &Choices,
        warnings: &mut Vec<String>,
    ) -> Result<(), PlanError> {
        if choices.exclude.is_empty() {
            return Ok(());
        }
        let standing = crate::standing(&self.journal, group)?;
        for id in &choices.exclude {
            let version: Option<&Version> = standing.versions.get(id).and_then(Option::as_ref);
            warnings.push(match version {
                Some(version) => format!("{id} is left out: it stays at {version}"),
                None => format!("{id} is left out: it stays without a version"),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn group(count: usize) -> Group {
        let instances: String = (1..=count)
            .map(|number| {
                format!(
                    "          - {{id: web-{number}, host: \"local:\", rootdir: /srv/web-{number}}}\n"
                )
            })
            .collect();
        let text = format!(
            "applications:\n  shop:\n    groups:\n      web:\n        instances:\n{instances}"
        );
        let workspace = spec::workspace::parse(&text, Path::new("cutover.yaml")).unwrap();
        workspace.value.groups.into_iter().next().unwrap()
    }

    fn choices(strategy: Option<StrategyKind>, exclude: &[&str]) -> Choices {
        Choices {
            strategy,
            exclude: exclude
                .iter()
                .map(|id| InstanceId::parse(*id).unwrap())
                .collect(),
            live: None,
        }
    }

    #[track_caller]
    fn refused(group: &Group, choices: &Choices, expected: &str) {
        let error = choices.of(group).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    /// A group with a blue-green file: a router, and instances on both sides.
    fn coloured() -> Group {
        let whole = group(4);
        let side = |name: &str, range: std::ops::Range<usize>| SideGroup {
            name: model::SideName::parse(name).unwrap(),
            group: format!("{{\"backend\":\"{name}\"}}"),
            instances: whole.instances[range].to_vec(),
        };
        Group {
            sides: vec![side("blue", 0..2), side("green", 2..4)],
            strategy: Strategy::BlueGreen {
                bake: Duration::ZERO,
                retire: Retire::Keep,
            },
            router: Some(model::Router::Command {
                command: "move".to_owned(),
                timeout: Duration::from_secs(1),
            }),
            ..whole
        }
    }

    #[test]
    fn what_the_file_says_stays_when_nothing_else_is_chosen() {
        let group = group(2);

        let chosen = choices(Some(StrategyKind::Rolling), &[]);

        assert!(matches!(chosen.of(&group).unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn a_rolling_group_can_have_a_canary_when_there_are_two_instances() {
        let asked = choices(Some(StrategyKind::Canary), &[]);
        let three = group(3);

        let chosen = asked.of(&three).unwrap();

        assert_eq!(chosen.strategy.name(), "canary");
        assert_eq!(chosen.batching.sizes(3), [1, 2]);
        refused(
            &group(1),
            &asked,
            "shop/web has 1 instance left: a canary takes at least 2",
        );
        let asked = choices(Some(StrategyKind::Canary), &["web-1", "web-2"]);
        refused(
            &group(3),
            &asked,
            "shop/web has 1 instance left: a canary takes at least 2",
        );
    }

    #[test]
    fn a_strategy_that_the_group_has_no_means_for_is_refused_with_the_reason() {
        let asked = choices(Some(StrategyKind::BlueGreen), &[]);
        refused(
            &group(2),
            &asked,
            "shop/web cannot be deployed blue-green: its `sides` have no instances of their own, so there is no side to deploy to while the other one serves",
        );
        let mut without_router = coloured();
        without_router.router = None;
        without_router.strategy = Strategy::Rolling;
        refused(
            &without_router,
            &asked,
            "shop/web cannot be deployed blue-green: it has no `traffic`, which switches from side to side",
        );
        for asked in [StrategyKind::Rolling, StrategyKind::Canary] {
            refused(
                &coloured(),
                &choices(Some(asked), &[]),
                &format!(
                    "shop/web cannot be deployed {asked}: its instances belong to two sides of which one has the traffic: only blue-green keeps them apart"
                ),
            );
        }
        let mut weighted = coloured();
        weighted
            .sides
            .iter_mut()
            .for_each(|side| side.instances.clear());
        weighted.strategy = Strategy::Canary {
            traffic: None,
            promote: Promote::Manual,
        };
        refused(
            &weighted,
            &choices(Some(StrategyKind::Rolling), &[]),
            "shop/web cannot be deployed rolling: its sides are different groups of the load balancer, and rolling does not move instances between them",
        );
    }

    #[test]
    fn a_canary_of_one_group_of_the_balancer_can_be_rolling() {
        let mut group = coloured();
        for side in &mut group.sides {
            side.instances.clear();
            side.group = "{}".to_owned();
        }
        group.strategy = Strategy::Canary {
            traffic: Some(20),
            promote: Promote::Manual,
        };

        let chosen = choices(Some(StrategyKind::Rolling), &[]);
        let chosen = chosen.of(&group).unwrap();

        assert_eq!(chosen.strategy, Strategy::Rolling);
        assert_eq!((chosen.router.as_ref(), chosen.sides.len()), (None, 0));
    }

    #[test]
    fn who_is_left_out_is_known_and_not_everybody() {
        let group = group(3);

        let chosen = choices(None, &["web-2"]);
        let chosen = chosen.of(&group).unwrap();

        let left: Vec<_> = chosen.instances.iter().map(|i| i.id.as_str()).collect();
        assert_eq!(left, ["web-1", "web-3"]);
        let all = choices(None, &["web-1", "web-2", "web-3"]);
        refused(&group, &all, "every instance of shop/web is left out");
        let misspelt = choices(None, &["wbe-2"]);
        refused(&group, &misspelt, "shop/web has no instance `wbe-2`");
        refused(
            &coloured(),
            &choices(None, &["web-2"]),
            "`web-2` cannot be left out: shop/web is deployed blue-green, and the traffic goes to a whole side",
        );
    }
}

//! Which side of a group is live: what the router says, what the journal says, and what follows for a deployment.

use engine::split::Means;
use model::{
    DeploymentId, Ending, Fact, GroupRef, InstanceId, Record, Shares, SideGroup, SideName,
};

use crate::Conductor;
use crate::plan::PlanError;
use crate::router::means;

/// How many deployments of a group's history are looked through for the last that moved its traffic.
const HISTORY: usize = 200;

/// The sides of a deployment by what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roles {
    /// The side that has the traffic; absent where none has.
    pub(crate) from: Option<SideName>,
    /// The side that is to get it.
    pub(crate) to: SideName,
}

/// A group of which nobody can say which side is live.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    #[error(
        "the router of {group} says that the traffic is at {read}, and the journal says that it was last brought to {journal}: somebody else moved it"
    )]
    Disagreement {
        group: GroupRef,
        read: Shares,
        journal: Shares,
        /// What settles it.
        live: Option<SideName>,
    },
    #[error(
        "the traffic of {group} is split, {read}: a deployment begins where one side has all of it"
    )]
    Split { group: GroupRef, read: Shares },
    #[error("{group} has no side `{side}`: it has {}", sides.join(" and "))]
    UnknownSide {
        group: GroupRef,
        side: SideName,
        sides: Vec<String>,
    },
    #[error(
        "`{side}` of {group} is not live: the router says that the traffic is at {read}; move it to `{side}` first, or name the side that has it"
    )]
    NotLive {
        group: GroupRef,
        side: SideName,
        read: Shares,
    },
    #[error("{group} has {found} sides, and a deployment goes from one to the other")]
    NotTwo { group: GroupRef, found: usize },
    #[error("the router of {group} does not say which side is live")]
    Unknown { group: GroupRef },
    #[error(
        "{instance} of {group} has another version by now than when `{side}` was left: there is nothing to return to"
    )]
    Replaced {
        group: GroupRef,
        side: SideName,
        instance: InstanceId,
    },
}

impl LiveError {
    /// The side that the operator may name to go on, where one can be told.
    #[must_use]
    pub fn settling(&self) -> Option<&SideName> {
        match self {
            Self::Disagreement { live, .. } => live.as_ref(),
            Self::Split { .. }
            | Self::UnknownSide { .. }
            | Self::NotLive { .. }
            | Self::NotTwo { .. }
            | Self::Unknown { .. }
            | Self::Replaced { .. } => None,
        }
    }
}

/// What a deployment to a group does with its sides. `journal` is what the last switch brought the traffic to, `live` the
/// side that the operator says is live.
pub(crate) fn roles(
    group: &GroupRef,
    sides: &[SideGroup],
    read: &Shares,
    journal: Option<&Shares>,
    live: Option<&SideName>,
) -> Result<Roles, LiveError> {
    let [first, second] = sides else {
        return Err(LiveError::NotTwo {
            group: group.clone(),
            found: sides.len(),
        });
    };
    let (first, second) = (&first.name, &second.name);
    let other = |side: &SideName| if side == first { second } else { first }.clone();
    let from = |side: &SideName| Roles {
        from: Some(side.clone()),
        to: other(side),
    };
    if let Some(side) = live.filter(|side| *side != first && *side != second) {
        return Err(LiveError::UnknownSide {
            group: group.clone(),
            side: side.clone(),
            sides: vec![format!("`{first}`"), format!("`{second}`")],
        });
    }
    if means(sides) == Means::Weights {
        // Between deployments all instances are on the first side; weights are of instances and tell of no side.
        return Ok(match read.is_empty() {
            true => Roles {
                from: None,
                to: first.clone(),
            },
            false => from(first),
        });
    }
    if let Some(side) = live {
        return match read.only() {
            Some(only) if only != side => Err(LiveError::NotLive {
                group: group.clone(),
                side: side.clone(),
                read: read.clone(),
            }),
            _ => Ok(from(side)),
        };
    }
    if let Some(journal) = journal.filter(|journal| *journal != read) {
        return Err(LiveError::Disagreement {
            group: group.clone(),
            read: read.clone(),
            journal: journal.clone(),
            live: read.only().cloned(),
        });
    }
    match read.only() {
        Some(side) => Ok(from(side)),
        None if read.is_empty() => Ok(Roles {
            from: None,
            to: first.clone(),
        }),
        None => Err(LiveError::Split {
            group: group.clone(),
            read: read.clone(),
        }),
    }
}

/// What the last switch of a deployment that succeeded brought the traffic to, by the records of its release.
pub(crate) fn last_switch(records: &[Record], id: &DeploymentId) -> Option<Shares> {
    let mut begun: Option<(u32, &Shares)> = None;
    let mut reached = None;
    for record in records {
        match &record.fact {
            Fact::SwitchStarted {
                deployment,
                attempt,
                to,
                ..
            } if deployment == id => begun = Some((*attempt, to)),
            Fact::SwitchEnded {
                deployment,
                attempt,
                ending: Ending::Succeeded { .. },
            } if deployment == id => {
                reached = begun
                    .filter(|(begun, _)| begun == attempt)
                    .map(|(_, to)| to.clone())
                    .or(reached);
            }
            _ => {}
        }
    }
    reached.filter(|shares| !shares.is_empty())
}

impl Conductor {
    /// What the last switch of a group's traffic brought it to. None where the journal holds no switch.
    pub(crate) fn last_split(&self, group: &GroupRef) -> Result<Option<Shares>, PlanError> {
        for summary in self.journal.deployments(group, HISTORY)? {
            let records = self.journal.records(&summary.release, 0)?;
            if let Some(shares) = last_switch(&records, &summary.id) {
                return Ok(Some(shares));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use model::{Cause, Timestamp};

    use super::*;

    fn side(name: &str) -> SideName {
        SideName::parse(name).unwrap()
    }

    fn green(percent: u8) -> Shares {
        Shares::between(side("green"), percent, side("blue"))
    }

    fn sides(blue: &str, green: &str) -> Vec<SideGroup> {
        [("blue", blue), ("green", green)]
            .into_iter()
            .map(|(name, group)| SideGroup {
                name: side(name),
                group: group.to_owned(),
                instances: Vec::new(),
            })
            .collect()
    }

    /// `FROM -> TO`, or the refusal.
    fn check_sides(
        sides: &[SideGroup],
        read: &Shares,
        journal: Option<Shares>,
        live: Option<&str>,
    ) -> String {
        let group = GroupRef {
            application: model::ApplicationName::parse("shop").unwrap(),
            group: model::GroupName::parse("web").unwrap(),
        };
        match roles(
            &group,
            sides,
            read,
            journal.as_ref(),
            live.map(side).as_ref(),
        ) {
            Ok(Roles { from, to }) => format!(
                "{} -> {to}",
                from.map_or_else(|| "nothing".to_owned(), |side| side.to_string())
            ),
            Err(error) => error.to_string(),
        }
    }

    fn check(read: &Shares, journal: Option<Shares>, live: Option<&str>) -> String {
        let sides = sides(r#"{"backend":"a"}"#, r#"{"backend":"b"}"#);
        check_sides(&sides, read, journal, live)
    }

    #[test]
    fn the_side_with_the_traffic_is_left_whatever_its_name() {
        assert_eq!(check(&green(0), None, None), "blue -> green");
        assert_eq!(check(&green(100), Some(green(100)), None), "green -> blue");
    }

    #[test]
    fn the_first_side_of_the_file_is_the_first_to_be_live() {
        assert_eq!(check(&Shares::default(), None, None), "nothing -> blue");
    }

    #[test]
    fn a_router_that_says_something_else_than_the_journal_stops_the_plan_with_both() {
        assert_eq!(
            check(&green(100), Some(green(0)), None),
            "the router of shop/web says that the traffic is at green 100%, and the journal says that it was last brought to blue 100%: somebody else moved it"
        );
        assert_eq!(
            check(&Shares::default(), Some(green(0)), None),
            "the router of shop/web says that the traffic is at no side, and the journal says that it was last brought to blue 100%: somebody else moved it"
        );
    }

    #[test]
    fn naming_the_side_that_has_the_traffic_settles_it() {
        assert_eq!(
            check(&green(100), Some(green(0)), Some("green")),
            "green -> blue"
        );
        assert_eq!(
            check(&green(30), Some(green(0)), Some("blue")),
            "blue -> green"
        );
    }

    #[test]
    fn naming_a_side_without_traffic_as_live_is_refused() {
        assert_eq!(
            check(&green(100), Some(green(0)), Some("blue")),
            "`blue` of shop/web is not live: the router says that the traffic is at green 100%; move it to `blue` first, or name the side that has it"
        );
        assert_eq!(
            check(&green(100), None, Some("red")),
            "shop/web has no side `red`: it has `blue` and `green`"
        );
    }

    #[test]
    fn traffic_that_is_split_has_no_side_to_begin_with() {
        assert_eq!(
            check(&green(20), Some(green(20)), None),
            "the traffic of shop/web is split, blue 80%, green 20%: a deployment begins where one side has all of it"
        );
    }

    #[test]
    fn in_one_group_the_first_side_is_where_everything_begins() {
        let one = sides("{}", "{}");

        assert_eq!(
            check_sides(&one, &green(0), Some(green(100)), None),
            "blue -> green"
        );
        assert_eq!(
            check_sides(&one, &Shares::default(), None, None),
            "nothing -> blue"
        );
    }

    #[test]
    fn the_last_switch_is_the_last_that_succeeded() {
        let id = DeploymentId::parse("r-1").unwrap();
        let other = DeploymentId::parse("r-2").unwrap();
        let started = |deployment: &DeploymentId, attempt, to| Fact::SwitchStarted {
            deployment: deployment.clone(),
            attempt,
            stage: None,
            from: Shares::default(),
            to,
        };
        let ended = |deployment: &DeploymentId, attempt, ending| Fact::SwitchEnded {
            deployment: deployment.clone(),
            attempt,
            ending,
        };
        let succeeded = Ending::Succeeded {
            exit_code: None,
            log: None,
            note: None,
        };
        let failed = crate::perform::failed(Cause::BalancerFailed, "no".to_owned());
        let facts = [
            started(&id, 1, green(20)),
            ended(&id, 1, succeeded.clone()),
            started(&id, 2, green(100)),
            ended(&id, 2, failed),
            started(&other, 1, green(0)),
            ended(&other, 1, succeeded),
        ];
        let records: Vec<_> = facts
            .into_iter()
            .zip(0..)
            .map(|(fact, seq)| Record {
                seq,
                at: Timestamp(0),
                fact,
            })
            .collect();

        assert_eq!(last_switch(&records, &id), Some(green(20)));
        assert_eq!(last_switch(&records, &other), Some(green(0)));
        assert_eq!(last_switch(&records[..1], &id), None);
    }
}

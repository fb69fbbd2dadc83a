//! Which side gets the traffic: by the one target group that a backend has where each side has a group of its own, by the
//! weights of the targets where all sides have the same.

use std::collections::{BTreeMap, BTreeSet};

use cutover_plugin_sdk::{
    Diagnostic, Failure, FailureClass, HOST_STAMPS, OpContext, Outcome, Purpose, Share, Side,
    SideMember, Split, percent_of,
};

use crate::config::{Config, Foreign};
use crate::groups;
use crate::lb::{Backend, Kind, Lb, Target};
use crate::pool::{Place, found};
use crate::switch::Switch;
use crate::weights::Weights;

/// The sides of one call.
pub(crate) struct Router<'a> {
    lb: &'a Lb<'a>,
    config: &'a Config,
    sides: Vec<Group<'a>>,
}

/// A side with the configuration of its target group.
pub(crate) struct Group<'a> {
    pub(crate) side: &'a Side,
    pub(crate) config: Config,
}

impl Group<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.side.name
    }

    /// Where a member of the side is registered.
    pub(crate) fn place(&self, member: &SideMember) -> Result<Place, Failure> {
        Place::of(
            &self.config,
            &member.target_id,
            member.provider_id.as_deref(),
            &member.address,
            member.port,
        )
    }

    /// Targets of the side's group that are no members of it.
    pub(crate) fn strangers<'t>(
        &self,
        present: &'t [Target],
        backend: &Backend,
    ) -> Result<Vec<&'t Target>, Failure> {
        let places = self.places()?;
        let is_stranger = |target: &&Target| {
            let place = Place::of_target(target);
            !places.iter().any(|(_, ours)| ours.is(&place, backend))
        };
        Ok(present.iter().filter(is_stranger).collect())
    }

    /// The members with where they are registered.
    pub(crate) fn places(&self) -> Result<Vec<(&SideMember, Place)>, Failure> {
        let members = self.side.members.iter();
        members
            .map(|member| Ok((member, self.place(member)?)))
            .collect()
    }
}

/// How the traffic is split.
enum Way {
    /// Each side has a target group.
    Switch,
    /// All sides have one.
    Weights,
}

impl<'a> Router<'a> {
    pub(crate) fn new(
        lb: &'a Lb<'a>,
        config: &'a Config,
        sides: &'a [Side],
    ) -> Result<Self, Failure> {
        let sides = sides
            .iter()
            .map(|side| {
                let config = config.with_side(&side.name, &side.group)?;
                Ok(Group { side, config })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self { lb, config, sides })
    }

    fn way(&self) -> Result<Way, Failure> {
        let invalid = |message: String| Err(Failure::invalid("jd.sides", message));
        let Some(first) = self.sides.first() else {
            return invalid("there are no sides".to_owned());
        };
        if let Some(other) = self
            .sides
            .iter()
            .find(|side| side.config.backend != first.config.backend)
        {
            return invalid(format!(
                "side `{}` has backend `{}` and side `{}` has `{}`: the traffic goes from one target group of a backend to another",
                first.name(),
                first.config.backend,
                other.name(),
                other.config.backend
            ));
        }
        let key = |config: &Config| match &config.target_group {
            Some(id) => Ok(id.clone()),
            None => groups::names(config).map(|names| names.pattern()),
        };
        let keys = self
            .sides
            .iter()
            .map(|side| key(&side.config))
            .collect::<Result<BTreeSet<_>, _>>()?;
        match keys.len() {
            1 => Ok(Way::Weights),
            count if count == self.sides.len() => Ok(Way::Switch),
            _ => invalid("some sides have one target group and others do not".to_owned()),
        }
    }

    pub(crate) fn get(&self) -> Result<Split, Failure> {
        let backend = groups::backend(self.lb, self.backend_id())?;
        let (shares, revision) = match self.way()? {
            Way::Switch => {
                let switch = Switch::read(self.lb, &self.sides, backend)?;
                (switch.shares(), Some(switch.revision()))
            }
            Way::Weights => {
                let weights = Weights::read(self.lb, &self.sides, backend)?;
                (weights.shares(), weights.revision())
            }
        };
        Ok(Split {
            shares,
            differs: None,
            revision,
            settled: true,
            observed_at: HOST_STAMPS,
        })
    }

    pub(crate) fn set(
        &self,
        ctx: &OpContext,
        expected: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, Failure> {
        let backend = groups::backend(self.lb, self.backend_id())?;
        match self.way()? {
            Way::Switch => {
                let wanted = self
                    .sides
                    .iter()
                    .find(|side| percent_of(shares, side.name()) == 100)
                    .ok_or_else(cannot_split)?;
                Switch::read(self.lb, &self.sides, backend)?.set(ctx, wanted, expected)
            }
            Way::Weights => {
                Weights::read(self.lb, &self.sides, backend)?.set(expected, shares, ctx.dry_run)
            }
        }
    }

    /// Finds what cannot work.
    pub(crate) fn check(&self, purpose: Purpose) -> Result<Vec<Diagnostic>, Failure> {
        let way = match self.way() {
            Ok(way) => way,
            Err(failure) => return Ok(vec![finding("", &failure)]),
        };
        let mut findings = Vec::new();
        let backend = match groups::backend(self.lb, self.backend_id()) {
            Ok(backend) => backend,
            Err(failure) if is_finding(&failure) => return Ok(vec![finding("/backend", &failure)]),
            Err(failure) => return Err(failure),
        };
        match (&way, purpose) {
            (Way::Switch, Purpose::Weighted) => {
                findings.push(finding("", &cannot_split()));
            }
            (Way::Weights, _) if backend.load_balancer_type != Kind::Alb => {
                let message = format!(
                    "`{}` is an {}: a split by weights needs weight 0, which only targets of an alb may have",
                    backend.load_balancer_id,
                    backend.load_balancer_type.name()
                );
                findings.push(Diagnostic::error("", &message));
            }
            _ => {}
        }
        let mut ids = BTreeMap::new();
        for side in &self.sides {
            match self.checked_side(side, &backend, &way, &mut findings) {
                Ok(Some(id)) => {
                    ids.insert(side.name().to_owned(), id);
                }
                Ok(None) => {}
                Err(failure) if is_finding(&failure) => {
                    findings.push(finding(&format!("/sides/{}", side.name()), &failure));
                }
                Err(failure) => return Err(failure),
            }
        }
        let ours: Vec<&str> = ids.values().map(String::as_str).collect();
        match groups::foreign(self.config, &backend, &ours) {
            Some(failure) => findings.push(finding("", &failure)),
            None if self.config.foreign_group == Foreign::Replace => {
                let foreign = backend.target_group_ids.iter();
                for id in foreign.filter(|id| !ours.contains(&id.as_str())) {
                    let message = format!(
                        "backend `{}` has target group `{id}`, which the first switch replaces",
                        backend.backend_id
                    );
                    findings.push(Diagnostic::warning("", &message));
                }
            }
            None => {}
        }
        Ok(findings)
    }

    /// Looks at the group of a side and at its members; answers with the group's id where it exists.
    fn checked_side(
        &self,
        side: &Group<'_>,
        backend: &Backend,
        way: &Way,
        findings: &mut Vec<Diagnostic>,
    ) -> Result<Option<String>, Failure> {
        let pointer = format!("/sides/{}", side.name());
        for member in &side.side.members {
            if let Err(failure) = side.place(member) {
                findings.push(finding(&pointer, &failure));
            }
        }
        let Some(id) = groups::find(self.lb, &side.config, backend)? else {
            return Ok(None);
        };
        let group = self.lb.group(&id)?;
        let balancer = &backend.load_balancer_id;
        if !group.load_balancer_id.is_empty() && group.load_balancer_id != *balancer {
            let message = format!(
                "target group `{id}` belongs to `{}`, and the backend to `{balancer}`",
                group.load_balancer_id
            );
            findings.push(Diagnostic::error(&pointer, &message));
        }
        let wanted = groups::group_type(side.config.target);
        if !group.target_type.is_empty() && group.target_type != wanted {
            let message = format!(
                "target group `{id}` takes targets of type `{}`, and `target` makes them `{wanted}`",
                group.target_type
            );
            findings.push(Diagnostic::error(&pointer, &message));
        }
        let present = self.lb.targets(&id)?;
        // Where the sides have one group, each has a part of it.
        let strangers = match way {
            Way::Switch => side.strangers(&present, backend).unwrap_or_default(),
            Way::Weights => self.unknown(&present, backend),
        };
        if !strangers.is_empty() {
            let listed: Vec<_> = strangers
                .iter()
                .map(|target| format!("`{}`", Place::of_target(target)))
                .collect();
            let message = format!(
                "target group `{id}` has targets that are no instances of this side: {}",
                listed.join(", ")
            );
            let is_serving = groups::is_attached(backend, &id);
            let diagnostic = match way {
                Way::Switch if !is_serving => Diagnostic::error(
                    &pointer,
                    &format!(
                        "{message}; they would get traffic with whatever runs on them: deregister them, or add them to the side"
                    ),
                ),
                _ => Diagnostic::warning(
                    &pointer,
                    &format!("{message}; they get a part of the traffic"),
                ),
            };
            if !findings.contains(&diagnostic) {
                findings.push(diagnostic);
            }
        }
        Ok(Some(id))
    }

    /// Targets that are members of no side.
    fn unknown<'t>(&self, present: &'t [Target], backend: &Backend) -> Vec<&'t Target> {
        let mut unknown: Vec<_> = present.iter().collect();
        for side in &self.sides {
            let places = side.places().unwrap_or_default();
            unknown.retain(|target| {
                let one = std::slice::from_ref(*target);
                !places
                    .iter()
                    .any(|(_, place)| found(one, place, backend).is_some())
            });
        }
        unknown
    }

    fn backend_id(&self) -> &str {
        let first = self.sides.first();
        first.map_or(&self.config.backend, |side| &side.config.backend)
    }
}

/// What JD Cloud has no way of doing.
fn cannot_split() -> Failure {
    Failure::unsupported(
        "jd.split",
        "a backend of JD Cloud has one target group, so the traffic cannot be split between two",
    )
    .hint("for a canary leave the sides without groups of their own: the targets of one group are split by their weights")
}

fn finding(pointer: &str, failure: &Failure) -> Diagnostic {
    let message = match &failure.hint {
        Some(hint) => format!("{}; {hint}", failure.message),
        None => failure.message.clone(),
    };
    Diagnostic::error(pointer, &message)
}

/// Whether a failure says that something is wrong with what the operator wrote, and not that the API cannot be asked.
fn is_finding(failure: &Failure) -> bool {
    matches!(
        failure.class,
        FailureClass::NotFound
            | FailureClass::Invalid
            | FailureClass::Permanent
            | FailureClass::Unsupported
    )
}

#[cfg(test)]
mod tests;

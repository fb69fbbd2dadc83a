//! Members come in: they are registered, and the backend gets their group.

use cutover_plugin_sdk::{Failure, Member, MemberResult, OpContext, Outcome};

use super::call::{Pool, ids, results};
use super::place::{Place, found, place_of};
use super::weighing::checked_weight;
use crate::answer::is_doubtful;
use crate::groups;
use crate::lb::{Target, TargetSpec};

/// What the host says of an instance that gets its share of the traffic by a switch after it joined.
pub(super) const JOINS_ASIDE: &str = "joins-aside";

/// Whether a switch gives a member its share after it joined.
pub(super) fn joins_aside(member: &Member) -> bool {
    member.attributes.iter().any(|it| it.key == JOINS_ASIDE)
}

/// How a member is to be registered.
struct Joining {
    place: Place,
    weight: u32,
    /// Whether a switch gives it its share afterwards.
    is_aside: bool,
}

impl Pool<'_> {
    /// Registers members, and sees to it that the backend has their group.
    pub(crate) fn register(
        mut self,
        ctx: &OpContext,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        let present = self.present()?;
        self.refuse_foreign()?;
        let places: Vec<_> = members.iter().map(|member| self.joining(member)).collect();
        if ctx.dry_run {
            return Ok(results(ids(members), places, |_| Ok(Outcome::changed())));
        }
        if places.iter().all(Result::is_err) {
            return Ok(results(ids(members), places, |_| Ok(Outcome::Unchanged)));
        }
        let group = match self.group.take() {
            Some(group) => group,
            None => {
                let there = groups::find_or_make(self.lb, self.config, &self.backend, ctx)?;
                there.id().to_owned()
            }
        };
        let mut missing = Vec::new();
        let checked: Vec<Result<(Place, bool), Failure>> = places
            .into_iter()
            .map(|place| {
                let Joining {
                    place,
                    weight,
                    is_aside,
                } = place?;
                let is_there = match is_aside {
                    // Its weight is the router's to set.
                    true => found(&present, &place, &self.backend).is_some(),
                    false => self.is_registered(&group, &present, &place, weight)?,
                };
                if !is_there {
                    self.refuse_other_port(&group, &present, &place)?;
                    missing.push(place.spec(self.config, weight));
                }
                Ok((place, is_there))
            })
            .collect();
        let registered = self.carry_out_register(&group, &missing);
        let is_attached = groups::is_attached(&self.backend, &group);
        let attached = match &registered {
            Ok(_) if !is_attached && checked.iter().any(Result::is_ok) => {
                groups::attach(self.lb, &self.backend, &group)
            }
            _ => Ok(()),
        };
        Ok(results(ids(members), checked, |(place, was_there)| {
            if was_there && is_attached {
                return Ok(Outcome::Unchanged);
            }
            if !was_there {
                let after = registered.clone()?;
                if let Some(after) = after
                    && found(&after, &place, &self.backend).is_none()
                {
                    return Err(Failure::unknown_outcome(
                        "jd.not-registered",
                        format!("`{place}` was registered in `{group}` and is not listed there"),
                    ));
                }
            }
            attached.clone()?;
            Ok(Outcome::changed())
        }))
    }

    /// Registers targets. Where the answer leaves a doubt it answers with what is there afterwards.
    fn carry_out_register(
        &self,
        group: &str,
        missing: &[TargetSpec],
    ) -> Result<Option<Vec<Target>>, Failure> {
        if missing.is_empty() {
            return Ok(None);
        }
        match self.lb.register(group, missing) {
            Ok(()) => Ok(None),
            Err(failure) if is_doubtful(&failure) => {
                let after = self.lb.targets(group).map_err(|_| failure.clone())?;
                let is_there = |spec: &TargetSpec| {
                    found(&after, &Place::of_spec(spec), &self.backend).is_some()
                };
                if missing.iter().any(is_there) {
                    return Ok(Some(after));
                }
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// How a member is registered.
    fn joining(&self, member: &Member) -> Result<Joining, Failure> {
        let place = place_of(self.config, member)?;
        let is_aside = joins_aside(member);
        let weight = match member.weight {
            Some(weight) => weight,
            None if is_aside => 0,
            None => self.config.weight_of(&member.target_id),
        };
        checked_weight(&self.backend, &member.target_id, weight)?;
        Ok(Joining {
            place,
            weight,
            is_aside,
        })
    }

    /// Whether a target is registered as it should be. One that somebody registered otherwise is left as it is.
    fn is_registered(
        &self,
        group: &str,
        present: &[Target],
        place: &Place,
        weight: u32,
    ) -> Result<bool, Failure> {
        let Some(target) = found(present, place, &self.backend) else {
            return Ok(false);
        };
        if target.weight == weight {
            return Ok(true);
        }
        let message = format!(
            "`{place}` is registered in `{group}` with weight {}, expected was {weight}: somebody else registered or changed it",
            target.weight
        );
        Err(Failure::permanent("jd.target-differs", message).hint(format!(
            "see who did; then set its weight to {weight} or deregister it, or write its weight into `weights`"
        )))
    }
}

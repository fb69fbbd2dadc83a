//! Members go out: they are deregistered, and what is open is given time.

use cutover_plugin_sdk::{
    Failure, FailureClass, Member, MemberResult, OpContext, Outcome, info, warn,
};

use super::call::{Pool, ids, results};
use super::joining::joins_aside;
use super::place::{found, place_of};
use crate::answer::is_doubtful;
use crate::groups;
use crate::lb::Kind;
use crate::waits;

impl Pool<'_> {
    /// Takes members out. JD Cloud stops new connections at once; what is open is given time.
    pub(crate) fn deregister(
        &self,
        ctx: &OpContext,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        let places = members.iter().map(|member| place_of(self.config, member));
        let places: Vec<_> = places.collect();
        let Some(group) = &self.group else {
            return Ok(results(ids(members), places, |_| Ok(Outcome::Unchanged)));
        };
        let present = self.lb.targets(group)?;
        let mut leaving = Vec::new();
        let checked: Vec<Result<bool, Failure>> = places
            .into_iter()
            .zip(members)
            .map(|(place, member)| {
                let place = place?;
                let Some(target) = found(&present, &place, &self.backend) else {
                    self.refuse_other_port(group, &present, &place)?;
                    return Ok(false);
                };
                let usual = self.config.weight_of(&member.target_id);
                if target.weight != usual && !joins_aside(member) {
                    warn!(
                        "`{place}` has weight {} in `{group}` and comes back with {usual}",
                        target.weight
                    );
                }
                leaving.push(target.target_id.clone());
                Ok(true)
            })
            .collect();
        let left = if ctx.dry_run || leaving.is_empty() {
            Ok(())
        } else {
            self.carry_out_deregister(group, &leaving)
        };
        let is_attached = groups::is_attached(&self.backend, group);
        let drain = if is_attached {
            self.drain_ms()
        } else {
            // Nothing comes in through a group that no backend has.
            0
        };
        Ok(results(ids(members), checked, |was_there| {
            if !was_there {
                return Ok(Outcome::Unchanged);
            }
            left.clone()?;
            if ctx.dry_run || drain == 0 {
                return Ok(Outcome::changed());
            }
            Ok(waits::drain(
                self.lb.now_ms().saturating_add(drain),
                self.lb.now_ms(),
            ))
        }))
    }

    /// Deregisters targets, all or none. Where the answer leaves a doubt, what is there afterwards decides.
    fn carry_out_deregister(&self, group: &str, leaving: &[String]) -> Result<(), Failure> {
        let failure = match self.lb.deregister(group, leaving) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        // Somebody else may have taken one of them out meanwhile, so that all of them were refused.
        if !(is_doubtful(&failure) || failure.class == FailureClass::NotFound) {
            return Err(failure);
        }
        let after = self.lb.targets(group).map_err(|_| failure.clone())?;
        let is_left = |id: &String| after.iter().any(|target| target.target_id == *id);
        if leaving.iter().any(is_left) {
            return Err(match failure.class {
                FailureClass::NotFound => Failure::conflict(failure.code, failure.message),
                _ => failure,
            });
        }
        info!("the targets are gone from `{group}`");
        Ok(())
    }

    /// How long what is open may go on.
    fn drain_ms(&self) -> u64 {
        let usual = match self.backend.load_balancer_type {
            // JD Cloud ends the connections itself by then.
            Kind::Nlb => u64::from(self.backend.connection_draining_seconds.unwrap_or(300)) * 1000,
            Kind::Alb | Kind::Dnlb => 10_000,
        };
        self.config.drain.map_or(usual, |drain| {
            u64::try_from(drain.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

//! How members are, by the health check of the backend.

use cutover_plugin_sdk::{Failure, HOST_STAMPS, MemberStatus, Phase, PoolRef};

use super::call::Pool;
use super::place::{Place, found, place_in};
use crate::groups;
use crate::lb::{Backend, Target, TargetHealth};

impl Pool<'_> {
    /// Tells how members are: those asked for, or all that are registered.
    pub(crate) fn statuses(
        &self,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        let present = self.present()?;
        // A colour has its turn with the other one; what is foreign to both is the router's to find.
        if self.config.side.is_none() {
            self.refuse_foreign()?;
        }
        let Some(group) = &self.group else {
            let status = |id: &String| {
                place_in(self.config, pool, id)?;
                Ok(member_status(id, self.away(), None))
            };
            return target_ids.iter().map(status).collect();
        };
        let is_attached = groups::is_attached(&self.backend, group);
        let health = if is_attached && self.backend.health_check.is_some() {
            self.lb.health(&self.config.backend)?
        } else {
            Vec::new()
        };
        let described = |target: &Target| self.describe(group, target, is_attached, &health);
        if target_ids.is_empty() {
            return Ok(present
                .iter()
                .map(|target| {
                    let (phase, reason) = described(target);
                    member_status(&Place::of_target(target).to_string(), phase, reason)
                })
                .collect());
        }
        target_ids
            .iter()
            .map(|id| {
                let place = place_in(self.config, pool, id)?;
                Ok(match found(&present, &place, &self.backend) {
                    Some(target) => {
                        let (phase, reason) = described(target);
                        member_status(id, phase, reason)
                    }
                    None if is_attached => member_status(id, Phase::Absent, None),
                    None => member_status(id, self.away(), None),
                })
            })
            .collect()
    }

    /// The phase of what is not registered. Of a colour without traffic nobody can tell: it is registered when it gets it.
    fn away(&self) -> Phase {
        match self.config.side {
            Some(_) => Phase::Unknown,
            None => Phase::Absent,
        }
    }

    fn describe(
        &self,
        group: &str,
        target: &Target,
        is_attached: bool,
        health: &[TargetHealth],
    ) -> (Phase, Option<String>) {
        if !is_attached {
            let words = format!(
                "its target group `{group}` has no health check: backend `{}` has {}",
                self.config.backend,
                groups::told(&self.backend.target_group_ids)
            );
            let phase = match self.config.side {
                Some(_) => Phase::Unknown,
                None => Phase::OutOfService,
            };
            return (phase, Some(words));
        }
        if self.backend.health_check.is_none() {
            return (
                Phase::InService,
                Some("the backend has no health check".to_owned()),
            );
        }
        match health_of(target, group, health, &self.backend) {
            None => (Phase::Registering, Some("not probed yet".to_owned())),
            Some(found) if found.status == "healthy" => (Phase::InService, None),
            Some(found) => (Phase::OutOfService, Some(words(found))),
        }
    }
}

/// The health of a target in a group.
pub(crate) fn health_of<'h>(
    target: &Target,
    group: &str,
    health: &'h [TargetHealth],
    backend: &Backend,
) -> Option<&'h TargetHealth> {
    let place = Place::of_target(target);
    health.iter().find(|found| {
        let probed = Place::of_health(&target.target_type, found);
        (found.target_group_id.is_empty() || found.target_group_id == group)
            && place.is(&probed, backend)
    })
}

/// Why a target is not healthy.
pub(crate) fn words(health: &TargetHealth) -> String {
    match &health.unhealth_reason {
        Some(why) if !why.detail.is_empty() => format!("{}: {}", why.reason, why.detail),
        Some(why) => why.reason.clone(),
        None => health.status.clone(),
    }
}

fn member_status(target_id: &str, phase: Phase, reason: Option<String>) -> MemberStatus {
    MemberStatus {
        target_id: target_id.to_owned(),
        phase,
        open_connections: None,
        reason,
        observed_at: HOST_STAMPS,
    }
}

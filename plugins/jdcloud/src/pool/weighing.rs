//! Weights of targets.

use cutover_plugin_sdk::{Failure, MemberResult, OpContext, Outcome, PoolRef, Weight};

use super::call::{Pool, results};
use super::place::{found, place_in};
use crate::config::LARGEST_WEIGHT;
use crate::lb::{Backend, Kind, TargetUpdate};

impl Pool<'_> {
    /// Sets the weights of targets by their instances' ids.
    pub(crate) fn weigh(
        &self,
        ctx: &OpContext,
        pool: &PoolRef,
        weights: &[Weight],
    ) -> Result<Vec<MemberResult>, Failure> {
        let Some(group) = &self.group else {
            return Err(Failure::not_found(
                "jd.no-group",
                "there is no target group yet",
            ));
        };
        let present = self.lb.targets(group)?;
        let mut updates = Vec::new();
        let checked: Vec<Result<bool, Failure>> = weights
            .iter()
            .map(|wanted| {
                checked_weight(&self.backend, &wanted.target_id, wanted.weight)?;
                let place = place_in(self.config, pool, &wanted.target_id)?;
                let target = found(&present, &place, &self.backend).ok_or_else(|| {
                    let message = format!("`{place}` is not registered in `{group}`");
                    Failure::not_found("jd.not-registered", message)
                })?;
                let differs = target.weight != wanted.weight;
                if differs {
                    updates.push(TargetUpdate {
                        target_id: target.target_id.clone(),
                        weight: wanted.weight,
                    });
                }
                Ok(differs)
            })
            .collect();
        let updated = if ctx.dry_run || updates.is_empty() {
            Ok(())
        } else {
            self.lb.update(group, &updates)
        };
        let ids = weights.iter().map(|wanted| &wanted.target_id);
        Ok(results(ids, checked, |differs| match differs {
            false => Ok(Outcome::Unchanged),
            true => updated.clone().map(|()| Outcome::changed()),
        }))
    }
}

/// Refuses weights that the balancer does not know.
pub(crate) fn checked_weight(backend: &Backend, id: &str, weight: u32) -> Result<(), Failure> {
    let kind = backend.load_balancer_type;
    if weight > LARGEST_WEIGHT {
        let message = format!("weight {weight} of `{id}` is above 100");
        return Err(Failure::invalid("jd.weight", message));
    }
    if weight == 0 && kind != Kind::Alb {
        let message = format!(
            "weight 0 of `{id}`: only targets of an alb may have it, and `{}` is an {}",
            backend.load_balancer_id,
            kind.name()
        );
        return Err(Failure::unsupported("jd.weight-0", message)
            .hint("take the instance out instead, or use an alb"));
    }
    Ok(())
}

//! Targets of one target group: registering, deregistering, weights, and how they are.

use cutover_plugin_sdk::{
    Failure, FailureClass, HOST_STAMPS, Member, MemberResult, MemberStatus, OpContext, Outcome,
    Phase, PoolRef, Weight, info, warn,
};

use crate::answer::EXISTS;
use crate::config::{Config, TargetType};
use crate::groups;
use crate::lb::{Backend, Kind, Lb, Target, TargetHealth, TargetSpec, TargetUpdate};
use crate::waits;

/// What the host says of an instance that gets its share of the traffic by a switch after it joined.
const JOINS_ASIDE: &str = "joins-aside";

/// A target as JD Cloud tells it apart: the machine or the address, and the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The id of the machine, or the address.
    pub(crate) host: String,
    /// 0: the backend's.
    pub(crate) port: u16,
}

impl Place {
    /// Where an instance is registered.
    pub(crate) fn of(
        config: &Config,
        target_id: &str,
        provider_id: Option<&str>,
        address: &str,
        port: u16,
    ) -> Result<Self, Failure> {
        let host = match config.target {
            TargetType::Vm => provider_id.filter(|id| !id.is_empty()).ok_or_else(|| {
                let message =
                    format!("instance `{target_id}` has no `provider_id`, the id of its machine");
                Failure::invalid("jd.no-provider-id", message).hint(
                    "write `provider_id: i-…` at the instance, or `target: ip` to register addresses",
                )
            })?,
            TargetType::Ip => Some(address).filter(|it| !it.is_empty()).ok_or_else(|| {
                let message = format!("instance `{target_id}` has no `address`");
                Failure::invalid("jd.no-address", message)
                    .hint("write `address: \"IP:PORT\"` at the instance")
            })?,
        };
        Ok(Self {
            host: host.to_owned(),
            port: config.port.unwrap_or(port),
        })
    }

    pub(crate) fn of_target(target: &Target) -> Self {
        let host = match target.target_type.as_str() {
            "ip" => &target.ip_address,
            _ => &target.instance_id,
        };
        Self {
            host: host.clone(),
            port: target.port,
        }
    }

    /// Whether it is the same socket: a port of 0 is that of the backend.
    pub(crate) fn is(&self, other: &Self, backend: &Backend) -> bool {
        let port = |place: &Self| match place.port {
            0 => backend.port,
            port => port,
        };
        self.host == other.host && port(self) == port(other)
    }

    pub(crate) fn spec(&self, config: &Config, weight: u32) -> TargetSpec {
        let (instance_id, ip_address) = match config.target {
            TargetType::Vm => (Some(self.host.clone()), None),
            TargetType::Ip => (None, Some(self.host.clone())),
        };
        TargetSpec {
            instance_id,
            target_type: match config.target {
                TargetType::Vm => "vm",
                TargetType::Ip => "ip",
            },
            port: self.port,
            weight,
            ip_address,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            0 => write!(f, "{}", self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

/// How a member is to be registered.
struct Joining {
    place: Place,
    weight: u32,
    /// Whether a switch gives it its share afterwards.
    is_aside: bool,
}

/// The target group of one call.
pub(crate) struct Pool<'a> {
    lb: &'a Lb<'a>,
    config: &'a Config,
    backend: Backend,
    /// None while it is not made.
    group: Option<String>,
}

impl<'a> Pool<'a> {
    pub(crate) fn read(lb: &'a Lb<'a>, config: &'a Config) -> Result<Self, Failure> {
        let backend = groups::backend(lb, &config.backend)?;
        let group = groups::find(lb, config, &backend)?;
        Ok(Self {
            lb,
            config,
            backend,
            group,
        })
    }

    /// The targets that are registered.
    fn present(&self) -> Result<Vec<Target>, Failure> {
        match &self.group {
            Some(group) => self.lb.targets(group),
            None => Ok(Vec::new()),
        }
    }

    fn refuse_foreign(&self) -> Result<(), Failure> {
        let ours: Vec<&str> = self.group.as_deref().into_iter().collect();
        groups::foreign(self.config, &self.backend, &ours).map_or(Ok(()), Err)
    }

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
            return Ok(results(members, places, |_, _| Ok(Outcome::changed())));
        }
        if places.iter().all(Result::is_err) {
            return Ok(results(members, places, |_, _| Ok(Outcome::Unchanged)));
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
        Ok(results(members, checked, |_, (place, was_there)| {
            if was_there && is_attached {
                return Ok(Outcome::Unchanged);
            }
            if !was_there {
                let after = registered.clone()?;
                if let Some(after) = after
                    && !after
                        .iter()
                        .any(|target| Place::of_target(target).is(&place, &self.backend))
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
                    let host = spec.instance_id.as_ref().or(spec.ip_address.as_ref());
                    let place = Place {
                        host: host.cloned().unwrap_or_default(),
                        port: spec.port,
                    };
                    after
                        .iter()
                        .any(|target| Place::of_target(target).is(&place, &self.backend))
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
        let is_aside = member.attributes.iter().any(|it| it.key == JOINS_ASIDE);
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

    /// A machine that is registered with another port would go on getting requests while it is believed to be out.
    fn refuse_other_port(
        &self,
        group: &str,
        present: &[Target],
        place: &Place,
    ) -> Result<(), Failure> {
        if self.config.several_per_host {
            return Ok(());
        }
        let other = present
            .iter()
            .map(Place::of_target)
            .find(|target| target.host == place.host);
        let Some(other) = other else {
            return Ok(());
        };
        let message = format!(
            "`{}` is registered in `{group}` with port {}, expected was {}: somebody else registered it",
            place.host, other.port, place.port
        );
        Err(Failure::permanent("jd.target-elsewhere", message).hint(
            "deregister that target, write its port as `port`, or `several_per_host: true` where several instances have one machine",
        ))
    }

    /// Takes members out. JD Cloud stops new connections at once; what is open is given time.
    pub(crate) fn deregister(
        &self,
        ctx: &OpContext,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        let places = members.iter().map(|member| place_of(self.config, member));
        let places: Vec<_> = places.collect();
        let Some(group) = &self.group else {
            return Ok(results(members, places, |_, _| Ok(Outcome::Unchanged)));
        };
        let present = self.lb.targets(group)?;
        let mut leaving = Vec::new();
        let checked: Vec<Result<Option<String>, Failure>> = places
            .into_iter()
            .zip(members)
            .map(|(place, member)| {
                let place = place?;
                let Some(target) = found(&present, &place, &self.backend) else {
                    self.refuse_other_port(group, &present, &place)?;
                    return Ok(None);
                };
                let usual = self.config.weight_of(&member.target_id);
                if target.weight != usual
                    && member.attributes.iter().all(|it| it.key != JOINS_ASIDE)
                {
                    warn!(
                        "`{place}` has weight {} in `{group}` and comes back with {usual}",
                        target.weight
                    );
                }
                leaving.push(target.target_id.clone());
                Ok(Some(target.target_id.clone()))
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
        Ok(results(members, checked, |_, target| {
            if target.is_none() {
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
        Ok(weights
            .iter()
            .zip(checked)
            .map(|(wanted, differs)| MemberResult {
                target_id: wanted.target_id.clone(),
                outcome: differs.and_then(|differs| match differs {
                    false => Ok(Outcome::Unchanged),
                    true => updated.clone().map(|()| Outcome::changed()),
                }),
            })
            .collect())
    }

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
        let host = match target.target_type.as_str() {
            "ip" => &found.ip_address,
            _ => &found.instance_id,
        };
        let probed = Place {
            host: host.clone(),
            port: found.port,
        };
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

/// The target at a place.
pub(crate) fn found<'t>(
    present: &'t [Target],
    place: &Place,
    backend: &Backend,
) -> Option<&'t Target> {
    present
        .iter()
        .find(|target| Place::of_target(target).is(place, backend))
}

/// Refuses weights that the balancer does not know.
pub(crate) fn checked_weight(backend: &Backend, id: &str, weight: u32) -> Result<(), Failure> {
    let kind = backend.load_balancer_type;
    if weight > crate::config::LARGEST_WEIGHT {
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

/// Whether an answer leaves open what became of the request.
fn is_doubtful(failure: &Failure) -> bool {
    failure.class == FailureClass::UnknownOutcome || failure.code == EXISTS
}

fn place_of(config: &Config, member: &Member) -> Result<Place, Failure> {
    Place::of(
        config,
        &member.target_id,
        member.provider_id.as_deref(),
        &member.address,
        member.port,
    )
}

/// The place of a member of which only the name is given; the host tells the rest as attributes of the pool.
fn place_in(config: &Config, pool: &PoolRef, target_id: &str) -> Result<Place, Failure> {
    let attribute = |prefix: &str| {
        let mut attributes = pool.attributes.iter();
        let found = attributes.find(|it| it.key.strip_prefix(prefix) == Some(target_id));
        found.map(|it| it.value.as_str())
    };
    let (address, port) = attribute("address.")
        .and_then(|address| address.rsplit_once(':'))
        .map_or(("", 0), |(host, port)| (host, port.parse().unwrap_or(0)));
    Place::of(config, target_id, attribute("provider-id."), address, port)
}

fn results<T>(
    members: &[Member],
    each: Vec<Result<T, Failure>>,
    mut outcome: impl FnMut(&Member, T) -> Result<Outcome, Failure>,
) -> Vec<MemberResult> {
    members
        .iter()
        .zip(each)
        .map(|(member, found)| MemberResult {
            target_id: member.target_id.clone(),
            outcome: found.and_then(|found| outcome(member, found)),
        })
        .collect()
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

#[cfg(test)]
mod tests;

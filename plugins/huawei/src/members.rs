//! Members of a pool: into traffic, out of it, and how they are.
//!
//! A member leaves by weight 0, which takes new requests from it, then a wait for those that it has, then its removal. The balancer
//! tells nobody how many connections a member has, so the wait is one of time: as long as the pool grants connections.

use std::net::IpAddr;
use std::time::Duration;

use cutover_plugin_sdk::{
    Failure, FailureClass, HOST_STAMPS, Member as Target, MemberStatus, OpContext, Outcome,
    Pending, Phase, PoolRef, Time, info,
};
use serde::{Deserialize, Serialize};

use crate::config::{Config, LARGEST_WEIGHT, OtherPools, Remove};
use crate::elb::{Elb, ListenerStatus, Member, Pool, Read, Reason};

/// Members of one pool.
pub(crate) struct Members<'a> {
    elb: Elb<'a>,
    ctx: &'a OpContext,
    pool: String,
}

/// Where a target answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address<'a> {
    host: &'a str,
    port: u16,
}

/// What is at an address in a pool.
struct Found {
    member: Option<Member>,
    /// Ports of the same address that are members as well.
    other_ports: Vec<u16>,
    at: Time,
    request_id: String,
}

/// A member on its way out, between two calls.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Leaving {
    pool: String,
    host: String,
    port: u16,
    /// When it has drained, by the host's clock.
    until: u64,
}

impl<'a> Members<'a> {
    pub(crate) fn of(elb: Elb<'a>, ctx: &'a OpContext, pool: &PoolRef) -> Result<Self, Failure> {
        let pool = elb.config.pool(pool)?.to_owned();
        Ok(Self { elb, ctx, pool })
    }

    fn config(&self) -> &Config {
        self.elb.config
    }

    /// Puts a member into traffic.
    pub(crate) fn allow(&self, target: &Target) -> Result<Outcome, Failure> {
        let address = address_of(target)?;
        let wanted = target
            .weight
            .unwrap_or_else(|| self.config().weight_of(&target.target_id));
        let found = self.find(address)?;
        match &found.member {
            Some(member) => self.bring_back(member, wanted, &found),
            None => self.add(address, wanted, &found),
        }
    }

    fn bring_back(&self, member: &Member, wanted: u32, found: &Found) -> Result<Outcome, Failure> {
        if let (Some(theirs), Some(ours)) = (&member.subnet_cidr_id, &self.config().subnet)
            && theirs != ours
        {
            let message = format!(
                "{} is there with subnet `{theirs}`, and the config says `{ours}` (request {})",
                self.named(member),
                found.request_id
            );
            return Err(Failure::conflict("huawei.subnet", message)
                .hint("correct `subnet`, or remove the member by hand"));
        }
        match member.weight {
            weight if weight == wanted => Ok(Outcome::Unchanged),
            0 => self.weigh(member, wanted),
            _ => Err(self.foreign_weight(member, wanted, &found.request_id)),
        }
    }

    fn add(&self, address: Address<'_>, wanted: u32, found: &Found) -> Result<Outcome, Failure> {
        self.refuse_other_ports(address, found)?;
        self.refuse_other_pools(address)?;
        if self.ctx.dry_run {
            return Ok(Outcome::changed());
        }
        let Address { host, port } = address;
        match self.elb.create_member(&self.pool, host, port, wanted) {
            Ok(created) => {
                info!(
                    "added {} with weight {wanted}, request {}",
                    self.named(&created.value),
                    created.request_id
                );
                Ok(Outcome::changed())
            }
            // Somebody was faster, or an earlier call of ours was taken after all.
            Err(failure) if failure.class == FailureClass::Conflict => {
                match self.find(address)?.member {
                    Some(member) if member.weight == wanted => Ok(Outcome::changed()),
                    _ => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Begins to take a member out of traffic.
    pub(crate) fn block(&self, target: &Target) -> Result<Outcome, Failure> {
        let address = address_of(target)?;
        let found = self.find(address)?;
        let Some(member) = &found.member else {
            self.refuse_other_ports(address, &found)?;
            return Ok(Outcome::Unchanged);
        };
        let wanted = self.config().weight_of(&target.target_id);
        if member.weight != 0 && member.weight != wanted {
            return Err(self.foreign_weight(member, wanted, &found.request_id));
        }
        let pool = self.elb.pool(&self.pool)?;
        self.refuse_protected(&pool)?;
        let drain = self.drain(&pool.value);
        if ignores_weights(&pool.value) {
            return self.remove_and_wait(member, drain);
        }
        let left = match member.weight {
            // By the vendor's clock on both ends.
            0 => drain.saturating_sub(since(member, found.at)),
            _ => drain,
        };
        self.refuse_too_long(left)?;
        if self.ctx.dry_run {
            return Ok(Outcome::changed());
        }
        if member.weight != 0 {
            self.weigh(member, 0)?;
        }
        Ok(Outcome::Pending(self.leaving(member, left)))
    }

    /// Where weights count for nothing, a member is removed first, and the pool keeps its connections for a while.
    fn remove_and_wait(&self, member: &Member, drain: Duration) -> Result<Outcome, Failure> {
        self.refuse_too_long(drain)?;
        if self.ctx.dry_run {
            return Ok(Outcome::changed());
        }
        self.remove(member)?;
        Ok(Outcome::Pending(self.leaving(member, drain)))
    }

    fn leaving(&self, member: &Member, left: Duration) -> Pending {
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let leaving = Leaving {
            pool: self.pool.clone(),
            host: member.address.clone(),
            port: member.protocol_port,
            until: self.elb.carrier.now().unix_ms().saturating_add(left_ms),
        };
        leaving.pending(left)
    }

    /// Takes a member out that has drained.
    fn finish(&self, leaving: &Leaving) -> Result<Outcome, Failure> {
        let now = self.elb.carrier.now().unix_ms();
        let left = Duration::from_millis(leaving.until.saturating_sub(now));
        if !left.is_zero() {
            return Ok(Outcome::Pending(leaving.pending(left)));
        }
        let address = Address {
            host: &leaving.host,
            port: leaving.port,
        };
        let found = self.find(address)?;
        let Some(member) = found.member else {
            return Ok(Outcome::changed());
        };
        if member.weight != 0 {
            let message = format!(
                "{} was given weight {} while it drained: somebody else changed it (request {})",
                self.named(&member),
                member.weight,
                found.request_id
            );
            return Err(Failure::conflict("huawei.changed", message).hint(
                "look in the console who else changes this pool, and go on when that has ended",
            ));
        }
        match self.config().remove {
            Remove::Never => Ok(Outcome::changed()),
            Remove::Delete => {
                self.remove(&member)?;
                Ok(Outcome::changed())
            }
        }
    }

    fn remove(&self, member: &Member) -> Result<(), Failure> {
        match self.elb.delete_member(&self.pool, member) {
            Ok(()) => {
                info!("removed {}", self.named(member));
                Ok(())
            }
            // It has gone already.
            Err(failure) if failure.class == FailureClass::NotFound => Ok(()),
            Err(failure) if is_refusal(failure.class) => {
                let pool = self.elb.pool(&self.pool)?;
                let is_protected = pool.value.member_deletion_protection_enable;
                Err(match is_protected {
                    true => Failure {
                        class: FailureClass::Denied,
                        ..failure.hint(PROTECTED)
                    },
                    false => failure,
                })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Changes a member's weight, whatever it was.
    pub(crate) fn set_weight(
        &self,
        pool: &PoolRef,
        target_id: &str,
        weight: u32,
    ) -> Result<Outcome, Failure> {
        if weight > LARGEST_WEIGHT {
            let message = format!("weight {weight} is more than ELB takes: 0 to {LARGEST_WEIGHT}");
            return Err(Failure::invalid("huawei.weight", message));
        }
        let address = known_address(pool, target_id)
            .ok_or_else(|| no_address(target_id, "it has no `address`"))?;
        match self.find(address)?.member {
            Some(member) if member.weight == weight => Ok(Outcome::Unchanged),
            Some(member) => self.weigh(&member, weight),
            None => {
                let message = format!("pool `{}` has no member {address}", self.pool);
                Err(Failure::not_found("huawei.member", message))
            }
        }
    }

    fn weigh(&self, member: &Member, weight: u32) -> Result<Outcome, Failure> {
        if self.ctx.dry_run {
            return Ok(Outcome::changed());
        }
        let written = match self.elb.set_weight(&self.pool, member, weight) {
            // It was there a moment ago.
            Err(failure) if failure.class == FailureClass::NotFound => Err(Failure {
                class: FailureClass::Conflict,
                ..failure.hint("somebody else removed the member meanwhile")
            }),
            other => other,
        }?;
        if written.value.weight != weight {
            let message = format!(
                "{} was given weight {weight}, and the answer says {} (request {})",
                self.named(member),
                written.value.weight,
                written.request_id
            );
            return Err(Failure::unknown_outcome("huawei.weight", message));
        }
        info!(
            "{} has weight {weight}, request {}",
            self.named(member),
            written.request_id
        );
        Ok(Outcome::changed())
    }

    /// Tells how members are: those asked for, or all.
    pub(crate) fn statuses(
        &self,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        let read = self.elb.members(&self.pool, None)?;
        if self.ctx.dry_run {
            self.look_ahead(pool, target_ids, &read)?;
        }
        let is_unknown = |member: &Member| self.health(member).operating_status == "UNKNOWN";
        // Nothing looks after the members of a pool that no listener has.
        let is_idle = read.value.iter().any(is_unknown)
            && self.elb.pool(&self.pool)?.value.listeners.is_empty();
        let status = |id: &str, member: Option<&Member>, absent: Option<String>| {
            let (phase, reason) = match member {
                Some(member) => self.phase(member, is_idle),
                None => (Phase::Absent, absent),
            };
            MemberStatus {
                target_id: id.to_owned(),
                phase,
                open_connections: None,
                reason,
                observed_at: HOST_STAMPS,
            }
        };
        if target_ids.is_empty() {
            let all = read.value.iter();
            return Ok(all
                .map(|member| status(&name_of(member), Some(member), None))
                .collect());
        }
        let asked = target_ids.iter().map(|id| match known_address(pool, id) {
            Some(address) => {
                let found = Found::among(&read, address);
                let ports = found.words();
                status(id, found.member.as_ref(), ports)
            }
            None => status(id, None, Some("the instance has no `address`".to_owned())),
        });
        Ok(asked.collect())
    }

    /// Finds before a release what would stop it at its first instance.
    fn look_ahead(
        &self,
        pool: &PoolRef,
        target_ids: &[String],
        read: &Read<Vec<Member>>,
    ) -> Result<(), Failure> {
        let found = self.elb.pool(&self.pool)?;
        self.refuse_protected(&found)?;
        if ignores_weights(&found.value) && self.config().remove == Remove::Never {
            let message = format!(
                "pool `{}` balances by {}, where weights count for nothing: nobody leaves it by weight 0",
                self.pool, found.value.lb_algorithm
            );
            return Err(
                Failure::invalid("huawei.algorithm", message).hint("write `remove: delete`")
            );
        }
        for id in target_ids {
            let address =
                known_address(pool, id).ok_or_else(|| no_address(id, "it has no `address`"))?;
            if address.host.parse::<IpAddr>().is_err() {
                return Err(no_address(
                    id,
                    &format!("`{}` is no IP address", address.host),
                ));
            }
            let found = Found::among(read, address);
            let wanted = self.config().weight_of(id);
            match &found.member {
                Some(member) if member.weight != 0 && member.weight != wanted => {
                    let mut failure = self.foreign_weight(member, wanted, &found.request_id);
                    failure.class = FailureClass::Invalid;
                    return Err(failure);
                }
                Some(_) => {}
                None => self
                    .refuse_other_ports(address, &found)
                    .map_err(|failure| Failure {
                        class: FailureClass::Invalid,
                        ..failure
                    })?,
            }
        }
        Ok(())
    }

    fn find(&self, address: Address<'_>) -> Result<Found, Failure> {
        let read = self.elb.members(&self.pool, Some(address.host))?;
        Ok(Found::among(&read, address))
    }

    fn drain(&self, pool: &Pool) -> Duration {
        let granted = pool.connection_drain.filter(|drain| drain.enable);
        let granted = granted.map(|drain| Duration::from_secs(drain.timeout));
        self.config().drain(granted)
    }

    fn phase(&self, member: &Member, is_idle: bool) -> (Phase, Option<String>) {
        if member.weight == 0 {
            return (Phase::OutOfService, Some("weight 0".to_owned()));
        }
        let health = self.health(member);
        match health.operating_status.as_str() {
            "ONLINE" => (Phase::InService, None),
            "NO_MONITOR" => (
                Phase::InService,
                Some("not checked: the pool has no health check".to_owned()),
            ),
            // It is as ready as it can be: a canary's first batch joins such a pool, and a switch gives it its traffic.
            "UNKNOWN" if is_idle => (
                Phase::InService,
                Some("not checked: no listener has the pool".to_owned()),
            ),
            "OFFLINE" => (Phase::OutOfService, Some(words(&health))),
            // INITIAL, and UNKNOWN with a listener, which is for a server that is none: neither is well yet.
            _ => (Phase::Registering, Some(words(&health))),
        }
    }

    /// How a member is to the listener that the config names, else to the one that has most against it.
    fn health(&self, member: &Member) -> ListenerStatus {
        const FROM_BAD: [&str; 5] = ["OFFLINE", "UNKNOWN", "INITIAL", "NO_MONITOR", "ONLINE"];
        let named = self.config().place().ok();
        let is_named = |status: &&ListenerStatus| {
            named == Some(crate::config::Place::Listener(&status.listener_id))
        };
        let rank = |status: &&ListenerStatus| {
            let mut known = FROM_BAD.iter();
            known.position(|name| *name == status.operating_status)
        };
        let told = member.status.iter().find(is_named);
        let told = told.or_else(|| member.status.iter().min_by_key(rank));
        told.cloned().unwrap_or_else(|| ListenerStatus {
            listener_id: String::new(),
            operating_status: member.operating_status.clone(),
            reason: member.reason.clone(),
        })
    }

    fn named(&self, member: &Member) -> String {
        format!("member {} of pool `{}`", name_of(member), self.pool)
    }

    fn foreign_weight(&self, member: &Member, wanted: u32, request_id: &str) -> Failure {
        let message = format!(
            "{} has weight {}, and the config says {wanted}: somebody else set it (request {request_id})",
            self.named(member),
            member.weight
        );
        Failure::conflict("huawei.weight", message).hint(format!(
            "write `weight: {0}`, or `weights: {{INSTANCE: {0}}}` for this one, or set the member back to {wanted}",
            member.weight
        ))
    }

    fn refuse_protected(&self, pool: &Read<Pool>) -> Result<(), Failure> {
        let is_in_the_way =
            pool.value.member_deletion_protection_enable && self.config().remove == Remove::Delete;
        if !is_in_the_way {
            return Ok(());
        }
        let message = format!(
            "pool `{}` ({}) protects its members from removal (request {})",
            self.pool, pool.value.name, pool.request_id
        );
        Err(Failure::invalid("huawei.protected", message).hint(PROTECTED))
    }

    /// A wait that cannot end in time is not begun.
    fn refuse_too_long(&self, drain: Duration) -> Result<(), Failure> {
        let now = self.elb.carrier.now().unix_ms();
        let left = Duration::from_millis(self.ctx.deadline.saturating_sub(now));
        if self.ctx.deadline == 0 || drain < left {
            return Ok(());
        }
        let message = format!(
            "draining a member of pool `{}` takes {} s, and the step has {} s left",
            self.pool,
            drain.as_secs(),
            left.as_secs()
        );
        Err(Failure::invalid("huawei.drain", message)
            .hint("raise `timeout` of the load balancer, or set `drain` in its config"))
    }

    fn refuse_other_ports(&self, address: Address<'_>, found: &Found) -> Result<(), Failure> {
        if self.config().several_per_host {
            return Ok(());
        }
        let Some(words) = found.words() else {
            return Ok(());
        };
        let message = format!(
            "{address} is no member of pool `{}`, but {words} (request {})",
            self.pool, found.request_id
        );
        Err(Failure::conflict("huawei.other-port", message).hint(
            "correct the port in the instance's `address`, remove the other member by hand, or write `several_per_host: true` where instances share an address",
        ))
    }

    fn refuse_other_pools(&self, address: Address<'_>) -> Result<(), Failure> {
        if self.config().other_pools == OtherPools::Allow {
            return Ok(());
        }
        let everywhere = self.elb.members_anywhere(address.host, address.port)?;
        let others: Vec<_> = everywhere
            .iter()
            .filter(|member| member.pool_id != self.pool && member.weight > 0)
            .map(|member| format!("`{}`", member.pool_id))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{address} gets requests as a member of pool {} already",
            others.join(", ")
        );
        Err(Failure::conflict("huawei.other-pool", message).hint(
            "remove it there by hand, or write `other_pools: allow` where an instance serves several pools",
        ))
    }
}

/// Goes on with a member that drains.
pub(crate) fn finish(elb: Elb<'_>, ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
    let leaving: Leaving = serde_json::from_str(token).map_err(|_| {
        let message = format!("`{token}` is no token of this plugin");
        Failure::invalid("huawei.token", message)
    })?;
    let members = Members {
        elb,
        ctx,
        pool: leaving.pool.clone(),
    };
    members.finish(&leaving)
}

impl Leaving {
    fn pending(&self, left: Duration) -> Pending {
        let token = serde_json::json!({
            "pool": self.pool, "host": self.host, "port": self.port, "until": self.until
        });
        let seconds = left.as_millis().div_ceil(1000);
        Pending::new(
            token.to_string(),
            left.max(Duration::from_millis(1)),
            format!("weight 0, {seconds} s left to finish requests"),
        )
    }
}

impl Found {
    fn among(read: &Read<Vec<Member>>, address: Address<'_>) -> Self {
        let here = || {
            let members = read.value.iter();
            members.filter(|member| same_host(&member.address, address.host))
        };
        let member = here().find(|member| member.protocol_port == address.port);
        let other_ports = here().map(|member| member.protocol_port);
        Self {
            member: member.cloned(),
            other_ports: other_ports.filter(|port| *port != address.port).collect(),
            at: read.at,
            request_id: read.request_id.clone(),
        }
    }

    /// Which other ports are members.
    fn words(&self) -> Option<String> {
        let ports: Vec<_> = self.other_ports.iter().map(u16::to_string).collect();
        (!ports.is_empty()).then(|| format!("the same address is with port {}", ports.join(", ")))
    }
}

impl std::fmt::Display for Address<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "`{}:{}`", self.host, self.port)
    }
}

const PROTECTED: &str = "turn the removal protection of the pool's members off, or write `remove: never` to leave members in the pool with weight 0";

fn is_refusal(class: FailureClass) -> bool {
    matches!(
        class,
        FailureClass::Conflict
            | FailureClass::Denied
            | FailureClass::Invalid
            | FailureClass::Permanent
    )
}

/// Algorithms that choose by a hash.
fn ignores_weights(pool: &Pool) -> bool {
    matches!(pool.lb_algorithm.as_str(), "SOURCE_IP" | "QUIC_CID")
}

/// How long a member has been as it is.
fn since(member: &Member, at: Time) -> Duration {
    let changed = member.updated_at.as_deref().and_then(parse_time);
    let since = changed.map_or(0, |changed| at.unix_ms().saturating_sub(changed.unix_ms()));
    Duration::from_millis(since)
}

/// Some of the vendor's times lack the letter of their zone, which is UTC.
fn parse_time(text: &str) -> Option<Time> {
    Time::parse(text).or_else(|| Time::parse(&format!("{text}Z")))
}

fn same_host(one: &str, other: &str) -> bool {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn name_of(member: &Member) -> String {
    format!("{}:{}", member.address, member.protocol_port)
}

fn words(health: &ListenerStatus) -> String {
    let status = &health.operating_status;
    let Some(Reason {
        reason_code,
        expected_response,
        healthcheck_response,
    }) = &health.reason
    else {
        return status.clone();
    };
    let told = match (expected_response, healthcheck_response) {
        (Some(expected), Some(found)) => format!(" (expected {expected}, was {found})"),
        _ => String::new(),
    };
    format!("{status} {reason_code}{told}")
}

fn address_of(target: &Target) -> Result<Address<'_>, Failure> {
    let (host, port) = (target.address.as_str(), target.port);
    if port == 0 || host.is_empty() {
        return Err(no_address(&target.target_id, "it has no `address`"));
    }
    if host.parse::<IpAddr>().is_err() {
        return Err(no_address(
            &target.target_id,
            &format!("`{host}` is no IP address"),
        ));
    }
    Ok(Address { host, port })
}

fn no_address(target_id: &str, why: &str) -> Failure {
    let message =
        format!("ELB knows members by IP address and port; of instance `{target_id}` {why}");
    Failure::invalid("huawei.address", message)
        .hint("give the instance `address: IP:PORT`, the private one that the balancer reaches")
}

/// The address of a member, which the host tells as the pool's attribute `address.TARGET`.
fn known_address<'a>(pool: &'a PoolRef, target_id: &str) -> Option<Address<'a>> {
    let mut attributes = pool.attributes.iter();
    let attribute = attributes.find(|it| it.key.strip_prefix("address.") == Some(target_id))?;
    let (host, port) = attribute.value.rsplit_once(':')?;
    Some(Address {
        host,
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests;

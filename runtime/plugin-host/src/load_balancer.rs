//! `cutover:load-balancer`: members of a pool and the traffic that they get.

use std::time::Duration;

use model::Timestamp;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::answer::Answer;
use crate::bindings::exports::cutover::load_balancer::{limits, pool, weights};
use crate::call::{Effect, OpContext, Request, State, now, wit_context};
use crate::failure::{Attribute, CallError, Failure};
use crate::inspect::Provides;
use crate::plugin::Plugin;

/// A backend group: target group, upstream, server list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    pub id: String,
    pub attributes: Vec<Attribute>,
}

/// An instance as a load balancer knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The host's name for it, stable over the run.
    pub target_id: String,
    /// The provider's name for it, if known.
    pub provider_id: Option<String>,
    pub address: String,
    pub port: u16,
    pub weight: Option<u32>,
    pub zone: Option<String>,
    pub attributes: Vec<Attribute>,
}

/// Where a member stands with its balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Absent,
    Registering,
    InService,
    OutOfService,
    Draining,
    Unknown,
}

impl Phase {
    /// The word used in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Registering => "registering",
            Self::InService => "in service",
            Self::OutOfService => "out of service",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
        }
    }
}

/// What a balancer says about a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    pub target_id: String,
    pub phase: Phase,
    /// Connections still open, if the provider tells.
    pub open_connections: Option<u32>,
    /// The provider's words.
    pub reason: Option<String>,
    pub observed_at: Timestamp,
}

/// What became of one member. A call may succeed in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberResult {
    pub target_id: String,
    pub outcome: Result<Outcome, Failure>,
}

/// What an operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The desired state was already in place.
    Unchanged,
    Changed(Vec<Attribute>),
    /// The provider works on it: wait, then poll with the token.
    Pending(Pending),
}

/// An operation that goes on at the provider while no instance of the plugin lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Opaque; holds no secrets.
    pub token: String,
    pub poll_after: Duration,
    /// For the progress line.
    pub message: String,
    pub percent: Option<u8>,
}

/// What batches should respect.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolLimits {
    /// At least 1.
    pub max_members_per_call: u32,
    pub max_calls_per_second: Option<f32>,
    pub deregistration_delay: Option<Duration>,
}

/// A member's share of the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    pub target_id: String,
    pub weight: u32,
}

/// Where the exported functions are.
pub(crate) struct Exports {
    pool: Option<pool::GuestIndices>,
    limits: Option<limits::GuestIndices>,
    weights: Option<weights::GuestIndices>,
}

impl Exports {
    pub(crate) fn of(pre: &InstancePre<State>, provides: &Provides) -> wasmtime::Result<Self> {
        Ok(Self {
            pool: provides
                .load_balancer
                .then(|| pool::GuestIndices::new(pre))
                .transpose()?,
            limits: provides
                .limits
                .then(|| limits::GuestIndices::new(pre))
                .transpose()?,
            weights: provides
                .weights
                .then(|| weights::GuestIndices::new(pre))
                .transpose()?,
        })
    }

    pub(crate) fn try_load(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> wasmtime::Result<()> {
        self.pool
            .as_ref()
            .map(|pool| pool.load(&mut *store, instance))
            .transpose()?;
        self.limits
            .as_ref()
            .map(|limits| limits.load(&mut *store, instance))
            .transpose()?;
        self.weights
            .as_ref()
            .map(|weights| weights.load(&mut *store, instance))
            .transpose()?;
        Ok(())
    }
}

impl Plugin {
    /// Puts members into a pool. A member that is there already is `unchanged`.
    ///
    /// # Errors
    /// [`CallError`] when the plugin fails as a whole, breaks off, or does not answer for each member.
    pub async fn register(
        &self,
        ctx: &OpContext,
        config: &str,
        pool: &Pool,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, CallError> {
        let indices = self.provided(
            self.exports.load_balancer.pool.as_ref(),
            "cutover:load-balancer/pool",
        )?;
        let request = self.operation("load-balancer.register", Effect::Write, ctx, config);
        let asked: Vec<&str> = members
            .iter()
            .map(|member| member.target_id.as_str())
            .collect();
        let (wit_ctx, pool, members) = (self.context(ctx), pool.wit(), wit_members(members));
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest
                    .call_register(&mut *store, &wit_ctx, &pool, &members)
                    .await
            },
            |answer, results| member_results(answer, &asked, results),
        )
        .await
    }

    /// Takes members out of a pool, or starts to: `status` tells when they are drained.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn deregister(
        &self,
        ctx: &OpContext,
        config: &str,
        pool: &Pool,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, CallError> {
        let indices = self.provided(
            self.exports.load_balancer.pool.as_ref(),
            "cutover:load-balancer/pool",
        )?;
        let request = self.operation("load-balancer.deregister", Effect::Write, ctx, config);
        let asked: Vec<&str> = members
            .iter()
            .map(|member| member.target_id.as_str())
            .collect();
        let (wit_ctx, pool, members) = (self.context(ctx), pool.wit(), wit_members(members));
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest
                    .call_deregister(&mut *store, &wit_ctx, &pool, &members)
                    .await
            },
            |answer, results| member_results(answer, &asked, results),
        )
        .await
    }

    /// Reads where members stand. No `target_ids` means all members of the pool.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn status(
        &self,
        ctx: &OpContext,
        config: &str,
        pool: &Pool,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, CallError> {
        let indices = self.provided(
            self.exports.load_balancer.pool.as_ref(),
            "cutover:load-balancer/pool",
        )?;
        let request = self.operation("load-balancer.status", Effect::Read, ctx, config);
        let (wit_ctx, pool) = (self.context(ctx), pool.wit());
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest
                    .call_status(&mut *store, &wit_ctx, &pool, target_ids)
                    .await
            },
            |answer, statuses| member_statuses(answer, target_ids, statuses),
        )
        .await
    }

    /// Continues an operation that answered `pending`.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn poll(
        &self,
        ctx: &OpContext,
        config: &str,
        token: &str,
    ) -> Result<Outcome, CallError> {
        let indices = self.provided(
            self.exports.load_balancer.pool.as_ref(),
            "cutover:load-balancer/pool",
        )?;
        let request = self.operation("load-balancer.poll", Effect::Write, ctx, config);
        let wit_ctx = self.context(ctx);
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_poll(&mut *store, &wit_ctx, token).await
            },
            |answer, outcome| answer.outcome(outcome),
        )
        .await
    }

    /// Changes members' shares of the traffic without taking them out.
    ///
    /// # Errors
    /// As [`Self::register`]; [`CallError::NotProvided`] where the plugin has no weights.
    pub async fn set_weights(
        &self,
        ctx: &OpContext,
        config: &str,
        pool: &Pool,
        weights: &[Weight],
    ) -> Result<Vec<MemberResult>, CallError> {
        let indices = self.provided(
            self.exports.load_balancer.weights.as_ref(),
            "cutover:load-balancer/weights",
        )?;
        let request = self.operation("load-balancer.set-weights", Effect::Write, ctx, config);
        let asked: Vec<&str> = weights
            .iter()
            .map(|weight| weight.target_id.as_str())
            .collect();
        let (wit_ctx, pool) = (self.context(ctx), pool.wit());
        let weights: Vec<_> = weights
            .iter()
            .map(|weight| weights::Weight {
                target_id: weight.target_id.clone(),
                weight: weight.weight,
            })
            .collect();
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_set(&mut *store, &wit_ctx, &pool, &weights).await
            },
            |answer, results| member_results(answer, &asked, results),
        )
        .await
    }

    /// Reads what batches should respect.
    ///
    /// # Errors
    /// As [`Self::register`]; [`CallError::NotProvided`] where the plugin tells no limits.
    pub async fn limits(
        &self,
        ctx: &OpContext,
        config: &str,
        pool: &Pool,
    ) -> Result<PoolLimits, CallError> {
        let indices = self.provided(
            self.exports.load_balancer.limits.as_ref(),
            "cutover:load-balancer/limits",
        )?;
        let request = self.operation("load-balancer.limits", Effect::Read, ctx, config);
        let (wit_ctx, pool) = (self.context(ctx), pool.wit());
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_get(&mut *store, &wit_ctx, &pool).await
            },
            |_, limits| {
                Ok(PoolLimits {
                    max_members_per_call: limits.max_members_per_call.max(1),
                    max_calls_per_second: limits
                        .max_calls_per_second
                        .filter(|rate| rate.is_finite() && *rate > 0.0),
                    deregistration_delay: limits.deregistration_delay.map(crate::answer::wait),
                })
            },
        )
        .await
    }

    pub(crate) fn provided<'a, T>(
        &self,
        export: Option<&'a T>,
        interface: &'static str,
    ) -> Result<&'a T, CallError> {
        export.ok_or_else(|| CallError::NotProvided {
            plugin: self.shared.name.clone(),
            interface,
        })
    }

    pub(crate) fn operation<'a>(
        &self,
        function: &'static str,
        effect: Effect,
        ctx: &'a OpContext,
        config: &'a str,
    ) -> Request<'a> {
        Request {
            function,
            effect,
            ctx: Some(ctx),
            config,
            limit: self.shared.limits.deadline,
        }
    }

    pub(crate) fn context(
        &self,
        ctx: &OpContext,
    ) -> crate::bindings::cutover::plugin::types::OpContext {
        wit_context(ctx, self.shared.limits.deadline)
    }
}

impl Pool {
    fn wit(&self) -> pool::PoolRef {
        pool::PoolRef {
            id: self.id.clone(),
            attributes: wit_attributes(&self.attributes),
        }
    }
}

fn wit_attributes(attributes: &[Attribute]) -> Vec<pool::Attribute> {
    let attributes = attributes.iter();
    attributes
        .map(|a| pool::Attribute {
            key: a.key.clone(),
            value: a.value.clone(),
        })
        .collect()
}

fn wit_members(members: &[Member]) -> Vec<pool::Member> {
    members
        .iter()
        .map(|member| pool::Member {
            target_id: member.target_id.clone(),
            provider_id: member.provider_id.clone(),
            address: member.address.clone(),
            port: member.port,
            weight: member.weight,
            zone: member.zone.clone(),
            attributes: wit_attributes(&member.attributes),
        })
        .collect()
}

fn member_results(
    answer: &Answer<'_>,
    asked: &[&str],
    results: Vec<pool::MemberResult>,
) -> Result<Vec<MemberResult>, Failure> {
    answer
        .one_each(asked, results, |result| &result.target_id)?
        .into_iter()
        .map(|result| {
            let outcome = match result.outcome {
                Ok(outcome) => Ok(answer.outcome(outcome)?),
                Err(failure) => Err(answer.failure(failure)),
            };
            Ok(MemberResult {
                target_id: result.target_id,
                outcome,
            })
        })
        .collect()
}

fn member_statuses(
    answer: &Answer<'_>,
    asked: &[String],
    statuses: Vec<pool::MemberStatus>,
) -> Result<Vec<MemberStatus>, Failure> {
    let statuses = if asked.is_empty() {
        statuses
    } else {
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        answer.one_each(&asked, statuses, |status| &status.target_id)?
    };
    statuses
        .into_iter()
        .map(|status| {
            Ok(MemberStatus {
                target_id: answer.exact("target id", status.target_id, crate::limits::NAME)?,
                phase: match status.phase {
                    pool::Phase::Absent => Phase::Absent,
                    pool::Phase::Registering => Phase::Registering,
                    pool::Phase::InService => Phase::InService,
                    pool::Phase::OutOfService => Phase::OutOfService,
                    pool::Phase::Draining => Phase::Draining,
                    pool::Phase::Unknown => Phase::Unknown,
                },
                open_connections: status.open_connections,
                reason: status.reason.map(|reason| answer.message(&reason)),
                observed_at: match status.observed_at {
                    // A plugin without a clock leaves the stamp to the host.
                    0 => now(),
                    at => Timestamp(i64::try_from(at).unwrap_or(i64::MAX)),
                },
            })
        })
        .collect()
}

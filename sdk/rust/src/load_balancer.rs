//! Load balancers: taking members out of traffic and putting them back.

use crate::bindings::load_balancer::{limits, pool, weights};
use crate::{Failure, OpContext, Outcome, Plugin, panic_message};

pub use limits::PoolLimits;
pub use pool::{Member, MemberResult, MemberStatus, Phase, PoolRef};
pub use weights::Weight;

/// The `observed_at` of a plugin without a clock. The host puts the time of the call in its place.
pub const HOST_STAMPS: u64 = 0;

/// A pool of members that traffic is spread over.
///
/// Every function is idempotent, and `status` tells the truth after each of them: the host reads back before it goes on,
/// and it asks for the status first when it does not know what became of a call.
pub trait LoadBalancer: Plugin {
    /// Puts members into traffic. A member that is there with the same port and weight is `unchanged`.
    ///
    /// # Errors
    /// What concerns the whole call; what concerns one member goes into its result.
    fn register(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure>;

    /// Takes members out of traffic, draining them where the provider can.
    ///
    /// # Errors
    /// As [`LoadBalancer::register`].
    fn deregister(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure>;

    /// Tells how members are. No ids means all members.
    ///
    /// # Errors
    /// When the provider cannot be read.
    fn status(
        ctx: &OpContext,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure>;

    /// Goes on with an operation that returned `pending`, in another instance of the component.
    ///
    /// # Errors
    /// `unsupported` unless a plugin that returns `pending` writes its own.
    fn poll(_ctx: &OpContext, _token: &str) -> Result<Outcome, Failure> {
        Err(Failure::unsupported(
            "plugin.poll",
            "the plugin never leaves an operation pending",
        ))
    }
}

/// Changes how much traffic members get, without removing them.
pub trait Weights: LoadBalancer {
    /// Sets the weights of the members named.
    ///
    /// # Errors
    /// As [`LoadBalancer::register`].
    fn set(
        ctx: &OpContext,
        pool: &PoolRef,
        weights: &[Weight],
    ) -> Result<Vec<MemberResult>, Failure>;
}

/// Tells the host what the provider bears.
pub trait Limits: LoadBalancer {
    /// Reads the limits of a pool.
    ///
    /// # Errors
    /// When the provider cannot be read.
    fn get(ctx: &OpContext, pool: &PoolRef) -> Result<PoolLimits, Failure>;
}

/// Runs an operation for each member and keeps their results apart: one member's failure stops no other.
///
/// ```
/// use cutover_plugin_sdk::{Failure, Outcome, per_member};
///
/// let results = per_member(["web-1", "web-2"], |id| match id {
///     "web-1" => Ok(Outcome::Unchanged),
///     _ => Err(Failure::not_found("demo.member", "no such member")),
/// });
///
/// assert!(results[0].outcome.is_ok() && results[1].outcome.is_err());
/// ```
pub fn per_member<'a>(
    target_ids: impl IntoIterator<Item = &'a str>,
    mut operation: impl FnMut(&'a str) -> Result<Outcome, Failure>,
) -> Vec<MemberResult> {
    target_ids
        .into_iter()
        .map(|id| MemberResult {
            target_id: id.to_owned(),
            outcome: operation(id),
        })
        .collect()
}

impl<T: LoadBalancer> pool::Guest for T {
    fn register(
        ctx: OpContext,
        pool: PoolRef,
        members: Vec<Member>,
    ) -> Result<Vec<MemberResult>, Failure> {
        panic_message::send_to_host();
        <T as LoadBalancer>::register(&ctx, &pool, &members)
    }

    fn deregister(
        ctx: OpContext,
        pool: PoolRef,
        members: Vec<Member>,
    ) -> Result<Vec<MemberResult>, Failure> {
        panic_message::send_to_host();
        <T as LoadBalancer>::deregister(&ctx, &pool, &members)
    }

    fn status(
        ctx: OpContext,
        pool: PoolRef,
        target_ids: Vec<String>,
    ) -> Result<Vec<MemberStatus>, Failure> {
        panic_message::send_to_host();
        <T as LoadBalancer>::status(&ctx, &pool, &target_ids)
    }

    fn poll(ctx: OpContext, token: String) -> Result<Outcome, Failure> {
        panic_message::send_to_host();
        <T as LoadBalancer>::poll(&ctx, &token)
    }
}

impl<T: Weights> weights::Guest for T {
    fn set(
        ctx: OpContext,
        pool: PoolRef,
        weights: Vec<Weight>,
    ) -> Result<Vec<MemberResult>, Failure> {
        panic_message::send_to_host();
        <T as Weights>::set(&ctx, &pool, &weights)
    }
}

impl<T: Limits> limits::Guest for T {
    fn get(ctx: OpContext, pool: PoolRef) -> Result<PoolLimits, Failure> {
        panic_message::send_to_host();
        <T as Limits>::get(&ctx, &pool)
    }
}

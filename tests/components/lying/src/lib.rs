//! A load balancer whose answers are well-formed and wrong: it reports on targets that nobody asked for, leaves out
//! those that were asked for, claims more than all of the work and returns a token that is far too long.

use std::time::Duration;

use cutover_plugin_sdk::{
    Failure, HOST_STAMPS, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Outcome,
    Pending, Phase, Plugin, PoolRef, export,
};

/// The target that every answer is about.
const STRANGER: &str = "nobody-asked-for-this";

struct Lying;

impl Plugin for Lying {
    type Config = serde_json::Value;
}

impl LoadBalancer for Lying {
    fn register(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        Ok(vec![MemberResult {
            target_id: STRANGER.to_owned(),
            outcome: Ok(Outcome::changed()),
        }])
    }

    fn deregister(
        _ctx: &OpContext,
        _pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        let endless = || Outcome::Pending(endless_work());
        Ok(members
            .iter()
            .map(|m| MemberResult {
                target_id: m.target_id.clone(),
                outcome: Ok(endless()),
            })
            .collect())
    }

    fn status(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        Ok(vec![MemberStatus {
            target_id: STRANGER.to_owned(),
            phase: Phase::InService,
            open_connections: None,
            reason: None,
            observed_at: HOST_STAMPS,
        }])
    }

    fn poll(_ctx: &OpContext, _token: &str) -> Result<Outcome, Failure> {
        Ok(Outcome::Pending(endless_work()))
    }
}

/// Work of which 250 percent are done, to be continued with a token of 1 MiB.
fn endless_work() -> Pending {
    let mut pending = Pending::new("x".repeat(1 << 20), Duration::ZERO, "nearly done");
    pending.percent = Some(250);
    pending
}

export!(Lying: LoadBalancer);

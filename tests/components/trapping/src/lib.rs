//! A load balancer that panics when a member is registered.

use cutover_plugin_sdk::{
    Failure, HOST_STAMPS, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Outcome,
    Phase, Plugin, PoolRef, export,
};

struct Trapping;

impl Plugin for Trapping {
    type Config = serde_json::Value;
}

impl LoadBalancer for Trapping {
    fn register(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        panic!("the adapter's bug")
    }

    fn deregister(
        _ctx: &OpContext,
        _pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        let unchanged = |member: &Member| MemberResult {
            target_id: member.target_id.clone(),
            outcome: Ok(Outcome::Unchanged),
        };
        Ok(members.iter().map(unchanged).collect())
    }

    fn status(
        _ctx: &OpContext,
        _pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        let absent = |target_id: &String| MemberStatus {
            target_id: target_id.clone(),
            phase: Phase::Absent,
            open_connections: None,
            reason: None,
            observed_at: HOST_STAMPS,
        };
        Ok(target_ids.iter().map(absent).collect())
    }
}

export!(Trapping: LoadBalancer);

//! A load balancer that never comes back from registering a member.

use cutover_plugin_sdk::{
    Failure, HOST_STAMPS, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Outcome,
    Phase, Plugin, PoolRef, export,
};

struct Hanging;

impl Plugin for Hanging {
    type Config = serde_json::Value;
}

impl LoadBalancer for Hanging {
    fn register(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        loop {
            std::hint::spin_loop();
        }
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

export!(Hanging: LoadBalancer);

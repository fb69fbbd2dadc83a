//! A load balancer that takes all the memory there is when a member is registered.

use cutover_plugin_sdk::{
    Failure, HOST_STAMPS, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Outcome,
    Phase, Plugin, PoolRef, export,
};

struct Hungry;

impl Plugin for Hungry {
    type Config = serde_json::Value;
}

impl LoadBalancer for Hungry {
    fn register(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        let mut hoard: Vec<Vec<u8>> = Vec::new();
        loop {
            // Ones, because pages of zeros might never become real.
            hoard.push(std::hint::black_box(vec![1; 1 << 20]));
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

export!(Hungry: LoadBalancer);

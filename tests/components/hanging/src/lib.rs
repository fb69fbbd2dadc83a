//! A load balancer that never comes back from registering a member.

use cutover_plugin_sdk::{
    Failure, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Plugin, PoolRef, export,
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
        _members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        Ok(Vec::new())
    }

    fn status(
        _ctx: &OpContext,
        _pool: &PoolRef,
        _target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        Ok(Vec::new())
    }
}

export!(Hanging: LoadBalancer);

//! A load balancer that panics when a member is registered.

use cutover_plugin_sdk::{
    Failure, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Plugin, PoolRef, export,
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

export!(Trapping: LoadBalancer);

//! A load balancer that takes all the memory there is when a member is registered.

use cutover_plugin_sdk::{
    Failure, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Plugin, PoolRef, export,
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

export!(Hungry: LoadBalancer);

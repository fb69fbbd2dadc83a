//! Huawei Cloud's Elastic Load Balance: members of pools in and out of traffic, and traffic between pools.
//!
//! `config` is what the operator says, `elb` the vendor's API, `answer` what its refusals mean, `members` the load balancer and
//! `router` the traffic router.

mod answer;
mod config;
mod elb;
mod members;
mod router;

use cutover_plugin_sdk::http::{self, Request, Response};
use cutover_plugin_sdk::signing::huawei;
use cutover_plugin_sdk::{
    Diagnostic, Failure, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Outcome,
    Plugin, PoolRef, Purpose, Router, Share, Side, Split, Time, Weight, Weights, export,
    per_member,
};

use crate::config::Config;
use crate::elb::{Carrier, Elb};
use crate::members::Members;

struct Huawei;

/// The host: it signs with a key that stays there, sends, and has a clock.
struct Host<'a> {
    config: &'a Config,
}

impl Carrier for Host<'_> {
    fn send(&self, mut request: Request) -> Result<Response, Failure> {
        let credentials = self.config.secrets.credentials(&self.config.access_key)?;
        huawei::sign(
            &mut request,
            &credentials,
            &self.config.project_id,
            self.now(),
        )?;
        http::send(&request)
    }

    fn now(&self) -> Time {
        cutover_plugin_sdk::now()
    }
}

/// Runs an operation with the load balancers that the configuration names.
fn with_elb<T>(run: impl FnOnce(Elb<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    let carrier = Host { config: &config };
    run(Elb {
        config: &config,
        carrier: &carrier,
    })
}

impl Plugin for Huawei {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

impl LoadBalancer for Huawei {
    fn register(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        with_elb(|elb| {
            let pool = Members::of(elb, ctx, pool)?;
            Ok(each(members, |member| pool.allow(member)))
        })
    }

    fn deregister(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        with_elb(|elb| {
            let pool = Members::of(elb, ctx, pool)?;
            Ok(each(members, |member| pool.block(member)))
        })
    }

    fn status(
        ctx: &OpContext,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        with_elb(|elb| Members::of(elb, ctx, pool)?.statuses(pool, target_ids))
    }

    fn poll(ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
        with_elb(|elb| members::finish(elb, ctx, token))
    }
}

impl Weights for Huawei {
    fn set(
        ctx: &OpContext,
        pool: &PoolRef,
        weights: &[Weight],
    ) -> Result<Vec<MemberResult>, Failure> {
        with_elb(|elb| {
            let members = Members::of(elb, ctx, pool)?;
            let ids = weights.iter().map(|weight| weight.target_id.as_str());
            Ok(per_member(ids, |id| {
                let wanted = weights.iter().find(|weight| weight.target_id == id);
                members.set_weight(pool, id, wanted.map_or(0, |weight| weight.weight))
            }))
        })
    }
}

impl Router for Huawei {
    fn check(
        _ctx: &OpContext,
        sides: &[Side],
        purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, Failure> {
        with_elb(|elb| router::check(&elb, sides, purpose))
    }

    fn get(_ctx: &OpContext, sides: &[Side]) -> Result<Split, Failure> {
        with_elb(|elb| router::get(&elb, sides))
    }

    fn set(
        ctx: &OpContext,
        sides: &[Side],
        expected_revision: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, Failure> {
        with_elb(|elb| router::set(&elb, ctx, sides, expected_revision, shares))
    }
}

export!(Huawei: LoadBalancer, Weights, Router);

fn each(
    members: &[Member],
    run: impl Fn(&Member) -> Result<Outcome, Failure>,
) -> Vec<MemberResult> {
    members
        .iter()
        .map(|member| MemberResult {
            target_id: member.target_id.clone(),
            outcome: run(member),
        })
        .collect()
}

#[cfg(test)]
mod fake;

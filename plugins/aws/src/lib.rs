//! AWS as a load balancer and a traffic router, by Elastic Load Balancing, and as a source of packages, by S3.
//!
//! A pool is a target group, whose targets are ids with ports; a split is the weights of target groups in the actions of a
//! listener or a rule. Requests are signed in the host. Deliberately absent: making load balancers, listeners and target
//! groups, which is the operator's, and waiting, which is the host's.

mod actions;
mod answer;
mod api;
mod arn;
mod config;
#[cfg(test)]
mod fake;
mod group;
mod health;
mod query;
mod router;
mod target;
mod xml;

use cutover_plugin_sdk::{
    Diagnostic, Failure, FetchPlan, Limits, LoadBalancer, Member, MemberResult, MemberStatus,
    OpContext, Outcome, PackageSource, Plugin, PoolLimits, PoolRef, Purpose, Resolved, Router,
    Share, Side, Split, export, s3,
};

use api::Granted;
use config::Config;
use group::Group;

struct Aws;

impl Plugin for Aws {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

/// Does something with the target group that a call is about.
fn with_group<T>(
    pool: &PoolRef,
    operation: impl FnOnce(&Group<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    let group = Group {
        api: &Granted(&config),
        config: &config,
        arn: config.target_group(&pool.id)?,
    };
    operation(&group)
}

impl LoadBalancer for Aws {
    fn register(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        with_group(pool, |group| group.register(members, ctx.dry_run))
    }

    fn deregister(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        with_group(pool, |group| group.deregister(members, ctx.dry_run))
    }

    fn status(
        ctx: &OpContext,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        with_group(pool, |group| {
            if ctx.dry_run {
                // Before a release, so that it does not begin where it could not end.
                group.examine(pool, target_ids)?;
            }
            group.status(pool, target_ids)
        })
    }

    fn poll(_ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        Group::poll(&Granted(&config), &config, token)
    }
}

impl Limits for Aws {
    fn get(_ctx: &OpContext, pool: &PoolRef) -> Result<PoolLimits, Failure> {
        with_group(pool, |group| group.limits())
    }
}

/// Does something with the sides of a call.
fn with_router<T>(
    sides: &[Side],
    operation: impl FnOnce(&router::Router<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    operation(&router::Router::new(&Granted(&config), &config, sides)?)
}

impl Router for Aws {
    fn check(
        _ctx: &OpContext,
        sides: &[Side],
        _purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        match router::Router::new(&Granted(&config), &config, sides) {
            Ok(router) => router.check(),
            Err(failure) => Ok(vec![router::finding(failure, "")]),
        }
    }

    fn get(_ctx: &OpContext, sides: &[Side]) -> Result<Split, Failure> {
        with_router(sides, |router| router.get())
    }

    fn set(
        ctx: &OpContext,
        sides: &[Side],
        expected_revision: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, Failure> {
        with_router(sides, |router| {
            router.set(expected_revision, shares, ctx.dry_run)
        })
    }

    fn poll(_ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        router::Router::poll(&Granted(&config), &config, token)
    }
}

impl PackageSource for Aws {
    fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
        storage()?.resolve(&s3::AWS, reference)
    }

    fn plan_fetch(_ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure> {
        storage()?.plan_fetch(&s3::AWS, pinned)
    }
}

/// How packages are reached; public ones without any configuration.
fn storage() -> Result<s3::Config, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    Ok(config.storage.unwrap_or_default())
}

export!(Aws: LoadBalancer, Limits, Router, PackageSource);

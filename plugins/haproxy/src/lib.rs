//! HAProxy as a load balancer, through its runtime API.
//!
//! A pool is a backend, a member is one of its servers, found by its name or by its address. Out of traffic means
//! drained and then in maintenance; into traffic means ready, and up by a health check that ran since. Between sides
//! traffic is split by an entry of a map, or by weights. Deliberately absent: adding and removing servers, and the
//! configuration file, both of which are the operator's.

mod backend;
mod config;
mod map;
mod runtime_api;
mod split;
mod traffic;

use cutover_plugin_sdk::{
    Diagnostic, Failure, LoadBalancer, Member, MemberResult, MemberStatus, OpContext, Outcome,
    Plugin, PoolRef, Purpose, Router, Share, Side, Split, Weight, Weights, directories, export,
    per_member,
};

use backend::Backend;
use config::Config;
use map::Files;
use runtime_api::Socket;
use traffic::Traffic;

struct Haproxy;

impl Plugin for Haproxy {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

impl LoadBalancer for Haproxy {
    fn register(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        each(ctx, pool, members, |traffic, member| traffic.allow(member))
    }

    fn deregister(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        each(ctx, pool, members, |traffic, member| traffic.block(member))
    }

    fn status(
        _ctx: &OpContext,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let backend = Backend::read(&Socket::of(&config), config.backend(&pool.id)?)?;
        Ok(traffic::statuses(&backend, &config, pool, target_ids))
    }

    fn poll(_ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        traffic::finish_blocking(&Socket::of(&config), token)
    }
}

impl Weights for Haproxy {
    fn set(
        ctx: &OpContext,
        pool: &PoolRef,
        weights: &[Weight],
    ) -> Result<Vec<MemberResult>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let socket = Socket::of(&config);
        let traffic = Traffic::new(&socket, &config, ctx, pool)?;
        let wanted = |id: &str| {
            weights
                .iter()
                .find(|weight| weight.target_id == id)
                .map_or(0, |weight| weight.weight)
        };
        Ok(per_member(
            weights.iter().map(|weight| weight.target_id.as_str()),
            |id| traffic.weigh(id, wanted(id)),
        ))
    }
}

/// The directories that the operator granted.
struct Granted;

impl Files for Granted {
    fn read(&self, directory: &str, file: &str) -> Result<Option<String>, Failure> {
        directories::read_text(directory, file)
    }

    fn write(&self, directory: &str, file: &str, text: &str) -> Result<(), Failure> {
        directories::write_text(directory, file, text)
    }
}

impl Router for Haproxy {
    fn check(
        _ctx: &OpContext,
        sides: &[Side],
        purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        split::check(&Socket::of(&config), &Granted, &config, sides, purpose)
    }

    fn get(_ctx: &OpContext, sides: &[Side]) -> Result<Split, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        split::Router::new(&Socket::of(&config), &Granted, &config, sides)?.get()
    }

    fn set(
        ctx: &OpContext,
        sides: &[Side],
        expected_revision: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        split::Router::new(&Socket::of(&config), &Granted, &config, sides)?.set(
            expected_revision,
            shares,
            ctx.dry_run,
        )
    }
}

fn each(
    ctx: &OpContext,
    pool: &PoolRef,
    members: &[Member],
    operation: impl Fn(&Traffic<'_>, &Member) -> Result<Outcome, Failure>,
) -> Result<Vec<MemberResult>, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    let socket = Socket::of(&config);
    let traffic = Traffic::new(&socket, &config, ctx, pool)?;
    let result = |member: &Member| MemberResult {
        target_id: member.target_id.clone(),
        outcome: operation(&traffic, member),
    };
    Ok(members.iter().map(result).collect())
}

export!(Haproxy: LoadBalancer, Weights, Router);

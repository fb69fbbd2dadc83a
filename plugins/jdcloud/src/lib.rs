//! JD Cloud as a load balancer and as a source of packages, through its public API.
//!
//! A pool is a target group, which a backend service of an alb or an nlb has. Members are machines by their ids, or
//! addresses. Between colours the traffic goes from one target group of the backend to the other; a canary is split by the
//! weights of one group's targets. Target groups that are not named are made, and called as JD Cloud CodeDeploy calls its own.
//! Deliberately absent: load balancers, listeners and backends, which are the operator's; and deleting target groups.

mod answer;
mod config;
mod groups;
mod lb;
#[cfg(test)]
mod memory;
mod names;
mod pool;
mod router;
mod switch;
mod waits;
mod weights;

use cutover_plugin_sdk::http::{self, Request, Response};
use cutover_plugin_sdk::signing::{Credentials, jdcloud, nonce};
use cutover_plugin_sdk::{
    Diagnostic, Failure, FetchPlan, LoadBalancer, Member, MemberResult, MemberStatus, OpContext,
    Outcome, PackageSource, Plugin, PoolRef, Purpose, Resolved, Router, Share, Side, Split, Weight,
    Weights, export, now, s3, secrets,
};

use config::Config;
use lb::{Lb, Wire};
use pool::Pool;
use waits::Wait;

struct JdCloud;

impl Plugin for JdCloud {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

/// Does something with the API, as the configuration says.
fn with_lb<T>(
    operation: impl FnOnce(&Lb<'_>, &Config) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    let wire = Signed::new(&config)?;
    operation(&wire.lb(), &config)
}

/// Does something with the target group of the configuration.
fn with_pool<T>(operation: impl FnOnce(Pool<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    with_lb(|lb, config| operation(Pool::read(lb, config)?))
}

impl LoadBalancer for JdCloud {
    fn register(
        ctx: &OpContext,
        _pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        with_pool(|group| group.register(ctx, members))
    }

    fn deregister(
        ctx: &OpContext,
        _pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        with_pool(|group| group.deregister(ctx, members))
    }

    fn status(
        _ctx: &OpContext,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        with_pool(|group| group.statuses(pool, target_ids))
    }

    fn poll(_ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
        continued(token)
    }
}

impl Weights for JdCloud {
    fn set(
        ctx: &OpContext,
        pool: &PoolRef,
        weights: &[Weight],
    ) -> Result<Vec<MemberResult>, Failure> {
        with_pool(|group| group.weigh(ctx, pool, weights))
    }
}

/// Does something with the sides of a call.
fn with_router<T>(
    sides: &[Side],
    operation: impl FnOnce(&router::Router<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with_lb(|lb, config| operation(&router::Router::new(lb, config, sides)?))
}

impl Router for JdCloud {
    fn check(
        _ctx: &OpContext,
        sides: &[Side],
        purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, Failure> {
        with_router(sides, |router| router.check(purpose))
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
        with_router(sides, |router| router.set(ctx, expected_revision, shares))
    }

    fn poll(_ctx: &OpContext, token: &str) -> Result<Outcome, Failure> {
        continued(token)
    }
}

impl PackageSource for JdCloud {
    fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
        storage()?.resolve(&s3::JDCLOUD, reference)
    }

    fn plan_fetch(_ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure> {
        storage()?.plan_fetch(&s3::JDCLOUD, pinned)
    }
}

/// How packages are reached; public ones without any configuration.
fn storage() -> Result<s3::Config, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    Ok(config.storage.unwrap_or_default())
}

/// Goes on with what an earlier call left pending.
fn continued(token: &str) -> Result<Outcome, Failure> {
    match Wait::parse(token)? {
        Wait::Drain { until_ms } => {
            let now_ms = now().unix_ms();
            Ok(if now_ms < until_ms {
                waits::drain(until_ms, now_ms)
            } else {
                Outcome::changed()
            })
        }
        Wait::Probe(probe) => with_lb(|lb, _| switch::probe(lb, &probe)),
    }
}

/// Signs each request with the granted key and sends it through the host.
struct Signed<'a> {
    config: &'a Config,
    credentials: Credentials<secrets::Secret>,
}

impl<'a> Signed<'a> {
    fn new(config: &'a Config) -> Result<Self, Failure> {
        Ok(Self {
            config,
            credentials: config.secrets.credentials(&config.access_key)?,
        })
    }

    fn lb(&self) -> Lb<'_> {
        Lb::new(self, self.config.endpoint(), &self.config.region)
    }
}

impl Wire for Signed<'_> {
    fn send(&self, request: Request) -> Result<Response, Failure> {
        let mut request = request.timeout(self.config.timeout);
        jdcloud::sign(
            &mut request,
            &self.credentials,
            self.config.signature,
            &self.config.region,
            "lb",
            now(),
            &nonce(),
        )?;
        http::send(&request)
    }

    fn now_ms(&self) -> u64 {
        now().unix_ms()
    }
}

export!(JdCloud: LoadBalancer, Weights, Router, PackageSource);

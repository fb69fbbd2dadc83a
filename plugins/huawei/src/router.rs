//! Splitting traffic between pools: all of it by the default pool of a listener, or shares of it by a forwarding policy.

use cutover_plugin_sdk::{
    Diagnostic, Failure, HOST_STAMPS, OpContext, Outcome, Purpose, Share, Side, Split, info,
    percent_of, percents,
};

use crate::config::Place;
use crate::elb::{Elb, Listener, Policy, Read, Rule, WeightedPool};

/// How many pools a policy takes.
const MOST_POOLS: usize = 5;
const TO_POOL: &str = "REDIRECT_TO_POOL";

/// A side and the pool that it has.
struct Pooled<'a> {
    side: &'a Side,
    pool: String,
}

/// What requests get, as the vendor says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    /// Weights by pool, without those that get nothing.
    pools: Vec<WeightedPool>,
    is_settled: bool,
}

impl State {
    fn of_listener(listener: &Listener) -> Self {
        let pool = listener.default_pool_id.iter().filter(|id| !id.is_empty());
        let whole = |id: &String| WeightedPool {
            pool_id: id.clone(),
            weight: 100,
        };
        Self {
            pools: pool.map(whole).collect(),
            is_settled: true,
        }
    }

    fn of_policy(policy: &Policy) -> Self {
        let weighted = &policy.redirect_pools_config;
        let single = policy.redirect_pool_id.iter().map(|id| WeightedPool {
            pool_id: id.clone(),
            weight: 100,
        });
        // Where both are set, the weights count.
        let mut pools: Vec<_> = match weighted.as_slice() {
            [] => single.collect(),
            weighted => weighted.to_vec(),
        };
        pools.retain(|pool| pool.weight > 0);
        pools.sort_by(|one, other| one.pool_id.cmp(&other.pool_id));
        Self {
            pools,
            is_settled: policy.provisioning_status == "ACTIVE",
        }
    }

    /// The pools that get requests and are no side's.
    fn foreign(&self, sides: &[Pooled<'_>]) -> Vec<&str> {
        let ids = self.pools.iter().map(|pool| pool.pool_id.as_str());
        ids.filter(|id| sides.iter().all(|it| it.pool != *id))
            .collect()
    }

    fn weight_of(&self, pool: &str) -> u64 {
        let mut pools = self.pools.iter();
        let found = pools.find(|known| known.pool_id == pool);
        found.map_or(0, |found| u64::from(found.weight))
    }

    /// Shares of the sides; the pool of no side that gets requests is told as a conflict.
    fn shares(&self, sides: &[Pooled<'_>], place: Place<'_>) -> Result<Vec<Share>, Failure> {
        match (self.foreign(sides).first(), place) {
            // No side is live, which a first switch may change.
            (Some(_), Place::Listener(_)) => return Ok(Vec::new()),
            (Some(foreign), Place::Policy(policy)) => {
                let message = format!(
                    "policy `{policy}` sends requests to pool `{foreign}`, which is no side's"
                );
                return Err(Failure::conflict("huawei.foreign-pool", message)
                    .hint("give its weight to the pools of the sides"));
            }
            (None, _) => {}
        }
        let amounts: Vec<_> = sides.iter().map(|it| self.weight_of(&it.pool)).collect();
        let Some(percents) = percents(&amounts) else {
            return Ok(Vec::new());
        };
        let shares = sides.iter().zip(percents).map(|(it, percent)| Share {
            side: it.side.name.clone(),
            percent,
        });
        Ok(shares.collect())
    }

    /// The state as text, for compare-before-write.
    fn revision(&self) -> String {
        let pools = self.pools.iter();
        let pools: Vec<_> = pools
            .map(|pool| format!("{}={}", pool.pool_id, pool.weight))
            .collect();
        match pools.as_slice() {
            [] => "none".to_owned(),
            pools => pools.join(","),
        }
    }
}

/// Tells what the balancer cannot do.
pub(crate) fn check(
    elb: &Elb<'_>,
    sides: &[Side],
    purpose: Purpose,
) -> Result<Vec<Diagnostic>, Failure> {
    let mut findings = Vec::new();
    let pooled = pooled(elb, sides)?;
    for (number, it) in pooled.iter().enumerate() {
        let path = format!("/sides/{}", it.side.name);
        if pooled[..number].iter().any(|other| other.pool == it.pool) {
            findings.push(Diagnostic::error(
                &path,
                &format!(
                    "pool `{}` is another side's already: each side needs a pool of its own",
                    it.pool
                ),
            ));
        }
    }
    match elb.config.place()? {
        Place::Listener(id) => {
            if purpose == Purpose::Weighted {
                findings.push(Diagnostic::error(
                    "/listener",
                    "a listener's default pool has all of the requests or none: name a `policy` to give pools shares",
                ));
            }
            let listener = elb.listener(id)?.value;
            check_pools(elb, &listener, &pooled, &mut findings)?;
            for pool in State::of_listener(&listener).foreign(&pooled) {
                findings.push(Diagnostic::warning(
                    "/listener",
                    &format!("default pool `{pool}` is no side's: the first switch takes all requests from it"),
                ));
            }
            for policy in elb.policies(id)? {
                findings.push(Diagnostic::warning(
                    "/listener",
                    &format!(
                        "requests that policy `{}` ({}) matches do not follow the default pool",
                        policy.name, policy.id
                    ),
                ));
            }
        }
        Place::Policy(id) => check_policy(elb, id, &pooled, &mut findings)?,
    }
    Ok(findings)
}

fn check_policy(
    elb: &Elb<'_>,
    id: &str,
    pooled: &[Pooled<'_>],
    findings: &mut Vec<Diagnostic>,
) -> Result<(), Failure> {
    let policy = elb.policy(id)?.value;
    let mut find = |finding: &str| findings.push(Diagnostic::error("/policy", finding));
    if policy.action != TO_POOL {
        find(&format!(
            "policy `{id}` does {}, and only {TO_POOL} splits traffic",
            policy.action
        ));
    }
    if policy.provisioning_status == "ERROR" {
        find(&format!(
            "policy `{id}` is in ERROR: another policy of its listener has the same rules"
        ));
    }
    if pooled.len() > MOST_POOLS {
        find(&format!(
            "a policy takes {MOST_POOLS} pools, and there are {} sides",
            pooled.len()
        ));
    }
    let listener = elb.listener(&policy.listener_id)?.value;
    if !listener.enhance_l7policy_enable {
        find(&format!(
            "listener `{}` ({}) has no advanced forwarding, without which a policy has no weights: turn it on (it cannot be turned off again)",
            policy.listener_id, listener.name
        ));
    }
    if !matches!(
        listener.protocol.as_str(),
        "HTTP" | "HTTPS" | "TERMINATED_HTTPS" | "QUIC"
    ) {
        find(&format!(
            "listener `{}` is {}, and forwarding policies are for HTTP and HTTPS",
            policy.listener_id, listener.protocol
        ));
    }
    for reference in &listener.loadbalancers {
        let balancer = elb.load_balancer(&reference.id)?.value;
        if !balancer.guaranteed {
            find(&format!(
                "load balancer `{}` ({}) is a shared one, and only dedicated ones weigh pools",
                reference.id, balancer.name
            ));
        }
    }
    let rules = elb.rules(id)?;
    if rules.is_empty() || !rules.iter().all(matches_everything) {
        find(&format!(
            "policy `{id}` does not match every request, so that the others would follow no share: give it the one rule that the path starts with `/`"
        ));
    }
    for pool in State::of_policy(&policy).foreign(pooled) {
        find(&format!(
            "policy `{id}` sends requests to pool `{pool}`, which is no side's and would lose its place: remove it there"
        ));
    }
    for it in pooled {
        if listener.default_pool_id.as_ref() == Some(&it.pool) {
            let path = format!("/sides/{}", it.side.name);
            findings.push(Diagnostic::warning(
                &path,
                &format!(
                    "pool `{}` is the default pool of listener `{}` as well, which the vendor may refuse in a policy",
                    it.pool, policy.listener_id
                ),
            ));
        }
    }
    check_pools(elb, &listener, pooled, findings)
}

/// Whether the pools are there, and of the listener's load balancer.
fn check_pools(
    elb: &Elb<'_>,
    listener: &Listener,
    pooled: &[Pooled<'_>],
    findings: &mut Vec<Diagnostic>,
) -> Result<(), Failure> {
    for it in pooled {
        let pool = elb.pool(&it.pool)?.value;
        let path = format!("/sides/{}", it.side.name);
        let is_reachable = pool.loadbalancers.is_empty()
            || pool
                .loadbalancers
                .iter()
                .any(|it| listener.loadbalancers.contains(it));
        if !is_reachable {
            findings.push(Diagnostic::error(
                &path,
                &format!(
                    "pool `{}` belongs to another load balancer than the listener",
                    it.pool
                ),
            ));
        }
        if pool.listeners.is_empty() {
            findings.push(Diagnostic::warning(
                &path,
                &format!(
                    "no listener has pool `{}`, so nothing checks its members before they get traffic: give it a listener for tests",
                    it.pool
                ),
            ));
        }
    }
    Ok(())
}

/// Whether a rule lets no request through.
fn matches_everything(rule: &Rule) -> bool {
    let is_all = |value: &str| match rule.compare_type.as_str() {
        "STARTS_WITH" => value == "/",
        "REGEX" => matches!(value, "/.*" | "^/.*" | "^/.*$" | ".*" | "^.*$" | "/" | "^/"),
        _ => false,
    };
    let values: Vec<&str> = match rule.conditions.as_slice() {
        [] => vec![&rule.value],
        conditions => conditions.iter().map(|it| it.value.as_str()).collect(),
    };
    // Of several conditions of a rule one is enough.
    rule.kind == "PATH" && !rule.invert && values.into_iter().any(is_all)
}

/// Tells how the traffic is split.
pub(crate) fn get(elb: &Elb<'_>, sides: &[Side]) -> Result<Split, Failure> {
    let pooled = pooled(elb, sides)?;
    let place = elb.config.place()?;
    let state = read(elb, place)?.value;
    Ok(Split {
        shares: state.shares(&pooled, place)?,
        differs: None,
        revision: Some(state.revision()),
        settled: state.is_settled,
        observed_at: HOST_STAMPS,
    })
}

/// Splits the traffic, unless somebody else has done so since it was read.
pub(crate) fn set(
    elb: &Elb<'_>,
    ctx: &OpContext,
    sides: &[Side],
    expected: Option<&str>,
    shares: &[Share],
) -> Result<Outcome, Failure> {
    let pooled = pooled(elb, sides)?;
    let place = elb.config.place()?;
    let found = read(elb, place)?;
    let mut wanted: Vec<_> = pooled
        .iter()
        .map(|it| WeightedPool {
            pool_id: it.pool.clone(),
            weight: u32::from(percent_of(shares, &it.side.name)),
        })
        .collect();
    wanted.sort_by(|one, other| one.pool_id.cmp(&other.pool_id));
    let live: Vec<_> = wanted.iter().filter(|it| it.weight > 0).cloned().collect();
    if found.value.pools == live {
        return Ok(Outcome::Unchanged);
    }
    let revision = found.value.revision();
    if expected.is_some_and(|expected| expected != revision) {
        let expected = expected.unwrap_or_default();
        let message = format!(
            "{} is at {revision}, not at {expected}: somebody else changed it (request {})",
            named(place),
            found.request_id
        );
        return Err(Failure::conflict("huawei.revision", message)
            .hint("look in the console who else changes it, and start again from what is there"));
    }
    // A pool of nobody's must not lose its requests unseen.
    if let Place::Policy(_) = place {
        found.value.shares(&pooled, place)?;
    }
    let written = match place {
        Place::Listener(listener) => {
            let [whole] = live.as_slice() else {
                return Err(Failure::unsupported(
                    "huawei.split",
                    "a listener's default pool has all of the requests or none",
                )
                .hint("name a `policy` to give pools shares"));
            };
            if ctx.dry_run {
                return Ok(Outcome::changed());
            }
            let written = elb.set_default_pool(listener, &whole.pool_id)?;
            (State::of_listener(&written.value), written.request_id)
        }
        Place::Policy(policy) => {
            if ctx.dry_run {
                return Ok(Outcome::changed());
            }
            // All sides are named, those with nothing too: so their pools keep their health checks.
            let written = elb.set_pools(policy, &wanted)?;
            (State::of_policy(&written.value), written.request_id)
        }
    };
    let (state, request_id) = written;
    if state.pools != live {
        let message = format!(
            "{} was set, and the answer says {} (request {request_id})",
            named(place),
            state.revision()
        );
        return Err(Failure::unknown_outcome("huawei.read-back", message));
    }
    info!(
        "{} is at {}, request {request_id}",
        named(place),
        state.revision()
    );
    Ok(Outcome::changed())
}

fn named(place: Place<'_>) -> String {
    match place {
        Place::Listener(id) => format!("the default pool of listener `{id}`"),
        Place::Policy(id) => format!("policy `{id}`"),
    }
}

fn read(elb: &Elb<'_>, place: Place<'_>) -> Result<Read<State>, Failure> {
    Ok(match place {
        Place::Listener(id) => elb.listener(id)?.map(|it| State::of_listener(&it)),
        Place::Policy(id) => elb.policy(id)?.map(|it| State::of_policy(&it)),
    })
}

fn pooled<'a>(elb: &Elb<'_>, sides: &'a [Side]) -> Result<Vec<Pooled<'a>>, Failure> {
    let sides = sides.iter().map(|side| {
        let pool = elb.config.pool_of(side)?;
        Ok(Pooled { side, pool })
    });
    sides.collect()
}

#[cfg(test)]
mod tests;

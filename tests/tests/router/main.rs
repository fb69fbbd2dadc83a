//! Splitting traffic on real balancers, call by call, with the built plugins.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

mod haproxy;
mod nginx;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cutover_tests::{Load, Service, Site, Wrk, target_folder, until};
use plugin_host::load_balancer::{Outcome, Pool};
use plugin_host::traffic::{Member, Purpose, Share, Side, Split};
use plugin_host::{
    CallError, Failure, Grants, Host, HostOptions, OpContext, Plugin, Secrets, Severity,
};

/// A plugin with its configuration and the sides that it splits between.
struct Router {
    plugin: Arc<Plugin>,
    config: String,
    sides: Vec<Side>,
}

impl Router {
    async fn load(
        site: &Site,
        name: &str,
        grants: Grants,
        config: String,
        sides: Vec<Side>,
    ) -> Self {
        let default = || target_folder().join("../plugins");
        let folder = std::env::var_os("CUTOVER_TEST_PLUGINS").map_or_else(default, PathBuf::from);
        let path = folder.join(format!("{name}.wasm"));
        assert!(path.exists(), "run `cargo xtask plugins` first");
        let host = Host::new(HostOptions::new(site.path("compiled"))).unwrap();
        let loaded = host
            .load(name.parse().unwrap(), &path, &grants, Secrets::default())
            .await;
        Self {
            plugin: loaded.unwrap(),
            config,
            sides,
        }
    }

    async fn read(&self) -> Result<Split, CallError> {
        self.plugin
            .split(&OpContext::default(), &self.config, &self.sides)
            .await
    }

    async fn get(&self) -> Split {
        self.read().await.unwrap()
    }

    /// What each side gets, in the order of the sides.
    async fn percents(&self) -> Vec<u8> {
        let split = self.get().await;
        split.shares.iter().map(|share| share.percent).collect()
    }

    /// Splits and polls until it is done.
    async fn try_set(&self, expected: Option<&str>, percents: &[u8]) -> Result<Outcome, CallError> {
        let ctx = OpContext::default();
        let shares = self.shares(percents);
        let mut outcome = self
            .plugin
            .set_split(&ctx, &self.config, &self.sides, expected, &shares)
            .await?;
        while let Outcome::Pending(pending) = outcome {
            tokio::time::sleep(pending.poll_after).await;
            outcome = self
                .plugin
                .poll_split(&ctx, &self.config, &pending.token)
                .await?;
        }
        Ok(outcome)
    }

    async fn set(&self, percents: &[u8]) -> Outcome {
        self.try_set(None, percents).await.unwrap()
    }

    /// The failure of a call that must have failed.
    async fn refusal(&self, expected: Option<&str>, percents: &[u8]) -> Failure {
        let error = self.try_set(expected, percents).await.unwrap_err();
        error.failure().unwrap().clone()
    }

    fn shares(&self, percents: &[u8]) -> Vec<Share> {
        let sides = self.sides.iter().zip(percents);
        sides
            .map(|(side, percent)| Share {
                side: side.name.clone(),
                percent: *percent,
            })
            .collect()
    }

    /// The messages of findings that are as grave as this.
    async fn findings(&self, purpose: Purpose, severity: Severity) -> Vec<String> {
        let ctx = OpContext::default();
        let findings = self
            .plugin
            .check_split(&ctx, &self.config, &self.sides, purpose);
        let findings = findings.await.unwrap().into_iter();
        findings
            .filter(|finding| finding.severity == severity)
            .map(|finding| finding.message)
            .collect()
    }
}

fn side(name: &str, group: &str, services: &[Service]) -> Side {
    let member = |service: &Service| Member {
        target_id: service.name().to_owned(),
        provider_id: None,
        address: service.address().ip().to_string(),
        port: service.address().port(),
    };
    Side {
        name: name.to_owned(),
        group: group.to_owned(),
        members: services.iter().map(member).collect(),
    }
}

fn services(names: &[&str]) -> Vec<Service> {
    names.iter().map(|name| Service::start(name)).collect()
}

fn servers(services: &[Service]) -> Vec<(String, SocketAddr)> {
    let server = |service: &Service| (service.name().to_owned(), service.address());
    services.iter().map(server).collect()
}

fn served(services: &[Service]) -> u64 {
    services.iter().map(Service::served).sum()
}

/// Sends load until so many requests have been answered, and tells which part of them the first services answered, in
/// percent.
#[allow(
    clippy::cast_precision_loss,
    reason = "far fewer requests than a float can count"
)]
fn measured(front: SocketAddr, requests: u64, ours: &[Service], others: &[Service]) -> (f64, Load) {
    let before = (served(ours), served(others));
    let counts = || (served(ours) - before.0, served(others) - before.1);
    let wrk = Wrk::start(front);
    until("the requests are answered", || {
        let (ours, others) = counts();
        ours + others >= requests
    });
    let load = wrk.stop();
    let (ours, others) = counts();
    (100.0 * ours as f64 / (ours + others) as f64, load)
}

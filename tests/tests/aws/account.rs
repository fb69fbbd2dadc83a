//! The built plugin with its grants and a configuration, and calls of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cutover_tests::target_folder;
use plugin_host::load_balancer::{Member, MemberStatus, Outcome, Phase, Pool};
use plugin_host::traffic::{Member as SideMember, Share, Side, Split};
use plugin_host::{
    Attribute, CallError, Failure, Grants, Host, HostOptions, OpContext, Plugin, Secret, Secrets,
};
use serde_json::{Map, Value, json};

pub(crate) const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub(crate) const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// The plugin as a workspace has it.
pub(crate) struct Account {
    plugin: Arc<Plugin>,
    config: Map<String, Value>,
}

impl Account {
    /// Loads the plugin, with these secrets.
    pub(crate) async fn load(endpoint: &str, secrets: &[(&str, &str)]) -> Self {
        let default = || target_folder().join("../plugins");
        let folder = std::env::var_os("CUTOVER_TEST_PLUGINS").map_or_else(default, PathBuf::from);
        let path = folder.join("aws.wasm");
        assert!(path.exists(), "run `cargo xtask plugins` first");
        // Compiling takes longer than all calls of a test.
        let compiled = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-for-clouds");
        let host = Host::new(HostOptions::new(compiled)).unwrap();
        let grants = Grants {
            http: vec![endpoint.to_owned()],
            secrets: secrets.iter().map(|(name, _)| (*name).to_owned()).collect(),
            ..Grants::default()
        };
        let values = secrets
            .iter()
            .map(|(name, value)| (*name, Secret::new(*value)));
        let secrets: Secrets = values.collect();
        let loaded = host
            .load("aws".parse().unwrap(), &path, &grants, secrets)
            .await;
        let config = json!({"region": "us-east-1", "endpoint": endpoint, "access_key": ACCESS_KEY});
        Self {
            plugin: loaded.unwrap(),
            config: config.as_object().unwrap().clone(),
        }
    }

    /// Adds a key to the configuration.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// How long targets drain.
    pub(crate) async fn delay(&self) -> Option<Duration> {
        let (ctx, config, pool) = (OpContext::default(), self.config(), pool(&[]));
        let limits = self.plugin.limits(&ctx, &config, &pool).await;
        limits.unwrap().deregistration_delay
    }

    pub(crate) fn config(&self) -> String {
        Value::Object(self.config.clone()).to_string()
    }

    /// The outcome of registering an instance, polled until it is done.
    pub(crate) async fn register(&self, member: &Member) -> Result<Outcome, CallError> {
        let (ctx, config) = (OpContext::default(), self.config());
        let pool = pool(std::slice::from_ref(member));
        let members = std::slice::from_ref(member);
        let results = self.plugin.register(&ctx, &config, &pool, members);
        let result = results.await?.remove(0).outcome;
        self.polled(result.map_err(CallError::from)?).await
    }

    /// The outcome of deregistering an instance, polled until it is done.
    pub(crate) async fn deregister(&self, member: &Member) -> Result<Outcome, CallError> {
        let (ctx, config) = (OpContext::default(), self.config());
        let pool = pool(std::slice::from_ref(member));
        let members = std::slice::from_ref(member);
        let results = self.plugin.deregister(&ctx, &config, &pool, members);
        let result = results.await?.remove(0).outcome;
        self.polled(result.map_err(CallError::from)?).await
    }

    async fn polled(&self, mut outcome: Outcome) -> Result<Outcome, CallError> {
        while let Outcome::Pending(pending) = outcome {
            tokio::time::sleep(pending.poll_after).await;
            let (ctx, config) = (OpContext::default(), self.config());
            outcome = self.plugin.poll(&ctx, &config, &pending.token).await?;
        }
        Ok(outcome)
    }

    /// How an instance is.
    pub(crate) async fn status(&self, member: &Member) -> Result<MemberStatus, CallError> {
        self.status_in(&OpContext::default(), member).await
    }

    /// What is wrong with the group and the instance before a release.
    pub(crate) async fn examined(&self, member: &Member) -> Result<MemberStatus, CallError> {
        let ctx = OpContext {
            dry_run: true,
            ..OpContext::default()
        };
        self.status_in(&ctx, member).await
    }

    async fn status_in(&self, ctx: &OpContext, member: &Member) -> Result<MemberStatus, CallError> {
        let (pool, config) = (pool(std::slice::from_ref(member)), self.config());
        let asked = [member.target_id.clone()];
        let statuses = self.plugin.status(ctx, &config, &pool, &asked);
        Ok(statuses.await?.remove(0))
    }

    /// The phase of an instance, and the reason.
    pub(crate) async fn phase(&self, member: &Member) -> (Phase, Option<String>) {
        let status = self.status(member).await.unwrap();
        (status.phase, status.reason)
    }

    pub(crate) async fn get(&self, sides: &[Side]) -> Result<Split, CallError> {
        let ctx = OpContext::default();
        self.plugin.split(&ctx, &self.config(), sides).await
    }

    /// What each side gets, in the order of the sides.
    pub(crate) async fn percents(&self, sides: &[Side]) -> Vec<u8> {
        let split = self.get(sides).await.unwrap();
        split.shares.iter().map(|share| share.percent).collect()
    }

    /// Splits the traffic, and polls until that is done.
    pub(crate) async fn set(
        &self,
        sides: &[Side],
        expected: Option<&str>,
        percents: [u8; 2],
    ) -> Result<Outcome, CallError> {
        let (ctx, config) = (OpContext::default(), self.config());
        let shares = sides.iter().zip(percents).map(|(side, percent)| Share {
            side: side.name.clone(),
            percent,
        });
        let shares: Vec<_> = shares.collect();
        let mut outcome = self
            .plugin
            .set_split(&ctx, &config, sides, expected, &shares)
            .await?;
        while let Outcome::Pending(pending) = outcome {
            tokio::time::sleep(pending.poll_after).await;
            outcome = self
                .plugin
                .poll_split(&ctx, &config, &pending.token)
                .await?;
        }
        Ok(outcome)
    }
}

/// The failure of a call that must have failed.
#[track_caller]
pub(crate) fn failure<T: std::fmt::Debug>(result: Result<T, CallError>) -> Failure {
    result.unwrap_err().failure().unwrap().clone()
}

/// An instance `NAME` that AWS calls by this id.
pub(crate) fn member(name: &str, provider_id: &str, port: u16) -> Member {
    Member {
        target_id: name.to_owned(),
        provider_id: Some(provider_id.to_owned()),
        address: "10.0.0.1".to_owned(),
        port,
        ..Member::default()
    }
}

/// The pool as the conductor names it.
pub(crate) fn pool(members: &[Member]) -> Pool {
    let attributes = members.iter().flat_map(|member| {
        let attribute = |what: &str, value: String| Attribute {
            key: format!("{what}.{}", member.target_id),
            value,
        };
        let address = format!("{}:{}", member.address, member.port);
        let id = member.provider_id.clone();
        let id = id.map(|id| attribute("provider-id", id));
        id.into_iter().chain([attribute("address", address)])
    });
    Pool {
        id: String::new(),
        attributes: attributes.collect(),
    }
}

pub(crate) fn side(name: &str, target_group: &str, members: &[Member]) -> Side {
    let members = members.iter().map(|member| SideMember {
        target_id: member.target_id.clone(),
        provider_id: member.provider_id.clone(),
        address: member.address.clone(),
        port: member.port,
    });
    Side {
        name: name.to_owned(),
        group: json!({"target_group": target_group}).to_string(),
        members: members.collect(),
    }
}

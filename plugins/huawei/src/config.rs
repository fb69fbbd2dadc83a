//! What the operator says about a load balancer of Huawei Cloud.

use std::collections::BTreeMap;
use std::time::Duration;

use cutover_plugin_sdk::http::is_origin;
use cutover_plugin_sdk::signing::Secrets;
use cutover_plugin_sdk::{Diagnostic, Failure, PoolRef, Side, parse_config};
use serde::Deserialize;

/// The largest weight of a member, and of a pool in a policy.
pub(crate) const LARGEST_WEIGHT: u32 = 100;

/// The configuration. The keys of a side's `group` stand over it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) region: String,
    /// Where Elastic Load Balance answers, unless it is the vendor's own place for the region.
    endpoint: Option<String>,
    pub(crate) project_id: String,
    /// The id of the access key.
    pub(crate) access_key: String,
    #[serde(default)]
    pub(crate) secrets: Secrets,
    /// The id of the pool, unless the group names one.
    pool: Option<String>,
    /// The weight of members in traffic.
    #[serde(default = "one")]
    weight: u32,
    /// The same for single instances.
    #[serde(default)]
    weights: BTreeMap<String, u32>,
    /// The subnet of members; without it they are IP members, in another network for all that the balancer knows.
    pub(crate) subnet: Option<String>,
    /// How long a member with weight 0 is left to finish what it has, unless the pool says so.
    #[serde(default, deserialize_with = "cutover_plugin_sdk::duration")]
    drain: Option<Duration>,
    #[serde(default)]
    pub(crate) remove: Remove,
    /// Whether several instances have one address, each with a port of its own.
    #[serde(default)]
    pub(crate) several_per_host: bool,
    #[serde(default)]
    pub(crate) other_pools: OtherPools,
    /// The id of the listener whose default pool is switched.
    listener: Option<String>,
    /// The id of the forwarding policy whose pools have weights.
    policy: Option<String>,
    /// The time for one answer.
    #[serde(
        default = "ten_seconds",
        deserialize_with = "cutover_plugin_sdk::duration"
    )]
    pub(crate) timeout: Duration,
}

/// What becomes of a member that has drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Remove {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays in the pool with weight 0.
    Never,
}

/// What is thought of a member that is in another pool as well, with the same port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OtherPools {
    #[default]
    Refuse,
    Allow,
}

/// What splits the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Listener(&'a str),
    Policy(&'a str),
}

/// What a side says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    pool: Option<String>,
}

fn one() -> u32 {
    1
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

impl Config {
    /// Where requests go, without a slash at the end.
    pub(crate) fn endpoint(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://elb.{}.myhuaweicloud.com", self.region),
        }
    }

    /// The pool that a call is about.
    pub(crate) fn pool<'a>(&'a self, named: &'a PoolRef) -> Result<&'a str, Failure> {
        match (named.id.as_str(), self.pool.as_deref()) {
            ("", Some(pool)) => Ok(pool),
            ("", None) => Err(no_pool("no pool is named")),
            (named, _) => Ok(named),
        }
    }

    /// The pool of a side: that of its group, else that of the configuration.
    pub(crate) fn pool_of(&self, side: &Side) -> Result<String, Failure> {
        let group: Group = parse_config(&side.group)
            .map_err(|failure| failure.about(format!("side `{}`", side.name)))?;
        let pool = group.pool.or_else(|| self.pool.clone());
        pool.ok_or_else(|| no_pool(&format!("side `{}` names no pool", side.name)))
    }

    /// The weight that a member has in traffic.
    pub(crate) fn weight_of(&self, target_id: &str) -> u32 {
        self.weights.get(target_id).copied().unwrap_or(self.weight)
    }

    /// How long a member is left to finish what it has, where the pool grants connections so long.
    pub(crate) fn drain(&self, of_pool: Option<Duration>) -> Duration {
        const USUAL: Duration = Duration::from_secs(30);
        self.drain.or(of_pool).unwrap_or(USUAL)
    }

    /// What splits the traffic.
    pub(crate) fn place(&self) -> Result<Place<'_>, Failure> {
        match (&self.listener, &self.policy) {
            (Some(listener), None) => Ok(Place::Listener(listener)),
            (None, Some(policy)) => Ok(Place::Policy(policy)),
            _ => Err(Failure::invalid(
                "huawei.place",
                "traffic is moved by a listener or by a forwarding policy, and the config names neither or both",
            )
            .hint("write `listener: ID` to switch its default pool, or `policy: ID` to weigh pools")),
        }
    }

    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        let mut find = |path: &str, message: &str| findings.push(Diagnostic::error(path, message));
        let is_region = |text: &str| {
            let is_plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !text.is_empty() && text.bytes().all(is_plain)
        };
        if !is_region(&self.region) {
            find("/region", "write a region such as `cn-north-4`");
        }
        if let Some(endpoint) = &self.endpoint
            && !is_origin(endpoint)
        {
            find("/endpoint", "write `https://HOST` or `https://HOST:PORT`");
        }
        let ids = [
            ("/project_id", Some(&self.project_id)),
            ("/access_key", Some(&self.access_key)),
            ("/pool", self.pool.as_ref()),
            ("/subnet", self.subnet.as_ref()),
            ("/listener", self.listener.as_ref()),
            ("/policy", self.policy.as_ref()),
        ];
        for (path, id) in ids {
            let is_id = |id: &String| {
                !id.is_empty()
                    && id
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            };
            if id.is_some_and(|id| !is_id(id)) {
                find(path, "write an id, as the console and the API show it");
            }
        }
        let is_weight = |weight: u32| (1..=LARGEST_WEIGHT).contains(&weight);
        if !is_weight(self.weight) {
            find("/weight", "write a weight from 1 to 100");
        }
        for (instance, weight) in &self.weights {
            if !is_weight(*weight) {
                let instance = instance.replace('~', "~0").replace('/', "~1");
                find(
                    &format!("/weights/{instance}"),
                    "write a weight from 1 to 100",
                );
            }
        }
        if self.listener.is_some() && self.policy.is_some() {
            find(
                "/policy",
                "the traffic is moved in one place: name a `listener` or a `policy`",
            );
        }
        if self.timeout.is_zero() {
            find("/timeout", "an answer takes some time");
        }
        findings
    }
}

fn no_pool(message: &str) -> Failure {
    Failure::invalid("huawei.pool", message)
        .hint("add `pool: ID` to the load balancer's `config`, or to the `group` of each side")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let text = format!(
            r#"{{"region": "cn-north-4", "project_id": "p", "access_key": "AKEXAMPLE"{more}}}"#
        );
        parse_config(&text).unwrap()
    }

    #[track_caller]
    fn check(more: &str, found: &[&str]) {
        let paths: Vec<_> = config(more).check().into_iter().map(|it| it.path).collect();

        assert_eq!(paths, found, "{more}");
    }

    #[test]
    fn what_cannot_work_is_found() {
        check("", &[]);
        check(r#", "pool": "pool-blue", "listener": "l-1""#, &[]);
        check(r#", "endpoint": "http://127.0.0.1:5000/""#, &[]);
        check(
            r#", "endpoint": "elb:80", "pool": "a/b", "subnet": "", "weight": 0, "weights": {"a/b": 101}, "timeout": 0"#,
            &[
                "/endpoint",
                "/pool",
                "/subnet",
                "/weight",
                "/weights/a~1b",
                "/timeout",
            ],
        );
        check(r#", "listener": "l-1", "policy": "p-1""#, &["/policy"]);
        let empty = r#"{"region": "CN", "project_id": "", "access_key": " "}"#;
        let empty: Config = parse_config(empty).unwrap();
        let paths: Vec<_> = empty.check().into_iter().map(|it| it.path).collect();
        assert_eq!(paths, ["/region", "/project_id", "/access_key"]);
    }

    #[test]
    fn a_key_that_is_misspelt_is_named() {
        let failure = parse_config::<Config>(
            r#"{"region": "r", "project_id": "p", "access_key": "a", "remove": "no"}"#,
        )
        .unwrap_err();

        assert_eq!(
            failure.message,
            "config key `remove`: unknown variant `no`, expected `delete` or `never`"
        );
    }

    #[test]
    fn the_schema_has_every_key_and_its_examples_are_taken() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../config.schema.json")).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let unknown = parse_config::<Config>(r#"{"?": 1}"#).unwrap_err().message;
        let known = unknown.split('`').skip(5).step_by(2);

        assert_eq!(
            known.collect::<std::collections::BTreeSet<_>>(),
            properties.keys().map(String::as_str).collect()
        );
        for (key, property) in properties {
            let mut config =
                serde_json::json!({"region": "r", "project_id": "p", "access_key": "a"});
            config[key] = property["examples"][0].clone();
            let config: Config = parse_config(&config.to_string()).unwrap();
            assert_eq!(config.check(), [], "{key}");
        }
    }

    #[test]
    fn the_endpoint_is_that_of_the_region() {
        assert_eq!(
            config("").endpoint(),
            "https://elb.cn-north-4.myhuaweicloud.com"
        );
        assert_eq!(
            config(r#", "endpoint": "http://127.0.0.1:5000/""#).endpoint(),
            "http://127.0.0.1:5000"
        );
    }

    #[test]
    fn the_drain_of_the_configuration_stands_over_that_of_the_pool() {
        let of_pool = Some(Duration::from_secs(300));

        assert_eq!(config("").drain(None).as_secs(), 30);
        assert_eq!(config("").drain(of_pool).as_secs(), 300);
        assert_eq!(config(r#", "drain": "5s""#).drain(of_pool).as_secs(), 5);
    }

    #[test]
    fn a_side_names_its_pool() {
        let side = |group: &str| Side {
            name: "blue".to_owned(),
            group: group.to_owned(),
            members: Vec::new(),
        };

        let own = side(r#"{"pool": "pool-blue"}"#);
        assert_eq!(config("").pool_of(&own).unwrap(), "pool-blue");
        let none = config("").pool_of(&side("{}")).unwrap_err();
        assert_eq!(none.message, "side `blue` names no pool");
        let misspelt = config("").pool_of(&side(r#"{"pol": "x"}"#)).unwrap_err();
        assert_eq!(
            misspelt.message,
            "side `blue`: config key `pol`: unknown field `pol`, expected `pool`"
        );
    }
}

//! What the operator says about a load balancer of JD Cloud.

use std::collections::BTreeMap;
use std::time::Duration;

use cutover_plugin_sdk::http::is_origin;
use cutover_plugin_sdk::signing::Secrets;
use cutover_plugin_sdk::signing::jdcloud::Dialect;
use cutover_plugin_sdk::{Diagnostic, Failure, s3};
use serde::Deserialize;

use crate::names;

/// The configuration. The keys of a side's `group` stand over it, so that it says of one group what it is called with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) region: String,
    /// The id of the access key.
    #[serde(default)]
    pub(crate) access_key: String,
    #[serde(default)]
    pub(crate) secrets: Secrets,
    /// How packages are reached: all that the configuration of the plugin as a package source has.
    pub(crate) storage: Option<s3::Config>,
    pub(crate) endpoint: Option<String>,
    #[serde(default)]
    pub(crate) signature: Dialect,
    /// The backend service whose target group gets the traffic.
    #[serde(default)]
    pub(crate) backend: String,
    /// Whose target groups these are, in the names of those that the plugin makes.
    pub(crate) group: Option<String>,
    /// A target group that exists, instead of one with a name of ours.
    pub(crate) target_group: Option<String>,
    /// The colour of a side of a blue-green group.
    pub(crate) side: Option<Colour>,
    #[serde(default)]
    pub(crate) target: TargetType,
    /// The port that is registered: 0 for the backend's own. Without it that of the instance's address.
    pub(crate) port: Option<u16>,
    #[serde(default = "usual_weight")]
    pub(crate) weight: u32,
    /// Weights of single instances, by their ids.
    #[serde(default)]
    pub(crate) weights: BTreeMap<String, u32>,
    /// Whether several instances have one machine, each with a port of its own.
    #[serde(default)]
    pub(crate) several_per_host: bool,
    /// How long what is open may go on after an instance was taken out.
    #[serde(default, deserialize_with = "cutover_plugin_sdk::duration")]
    pub(crate) drain: Option<Duration>,
    /// How long the health check may take to find the first instances of a side well that got the traffic.
    #[serde(default, deserialize_with = "cutover_plugin_sdk::duration")]
    pub(crate) settle: Option<Duration>,
    #[serde(default)]
    pub(crate) foreign_group: Foreign,
    /// For one answer.
    #[serde(
        default = "ten_seconds",
        deserialize_with = "cutover_plugin_sdk::duration"
    )]
    pub(crate) timeout: Duration,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// A side of a blue-green group, as its target group is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Colour {
    Blue,
    Green,
}

/// What is registered of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TargetType {
    /// The machine, by its `provider_id`.
    #[default]
    Vm,
    /// The address.
    Ip,
}

/// What becomes of a target group of somebody else that the backend has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Foreign {
    #[default]
    Refuse,
    Replace,
}

/// The weight of targets that JD Cloud's own product registers.
fn usual_weight() -> u32 {
    10
}

/// The largest weight of a target.
pub(crate) const LARGEST_WEIGHT: u32 = 100;

impl Config {
    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        if let Some(storage) = &self.storage {
            if !self.region.is_empty() || !self.backend.is_empty() {
                let message =
                    "keys beside `storage` are a load balancer's, and belong into a group";
                findings.push(Diagnostic::error("", message));
            }
            findings.extend(storage.check("/storage"));
            return findings;
        }
        let mut find = |path: &str, message: &str| findings.push(Diagnostic::error(path, message));
        if !is_word(&self.region) {
            find("/region", "write a region's id, such as `cn-north-1`");
        }
        if !is_word(&self.access_key) {
            find(
                "/access_key",
                "write the id of the access key; its secret belongs into a grant, `secret-key: env:NAME`",
            );
        }
        if !is_word(&self.backend) {
            find(
                "/backend",
                "write the id of a backend service, such as `backend-0a1b2c3d4e`",
            );
        }
        if let Some(endpoint) = &self.endpoint
            && !is_origin(endpoint)
        {
            find(
                "/endpoint",
                "write `https://HOST` alone; the path is the plugin's",
            );
        }
        if let Some(id) = &self.target_group
            && !is_word(id)
        {
            find(
                "/target_group",
                "write a target group's id, such as `tg-0a1b2c3d4e`",
            );
        }
        if let Some(group) = &self.group
            && let Err(problem) = names::checked_group(group)
        {
            find("/group", &problem);
        }
        if self.weight > LARGEST_WEIGHT {
            find("/weight", "a weight is a number from 0 to 100");
        }
        if self.timeout.is_zero() {
            find("/timeout", "an answer takes some time");
        }
        for (id, weight) in &self.weights {
            if *weight > LARGEST_WEIGHT {
                let message = format!("{weight} is no weight: write a number from 0 to 100");
                find(&format!("/weights/{id}"), &message);
            }
        }
        findings
    }

    /// The weight that an instance is registered with.
    pub(crate) fn weight_of(&self, target_id: &str) -> u32 {
        self.weights.get(target_id).copied().unwrap_or(self.weight)
    }

    /// Where the API is.
    pub(crate) fn endpoint(&self) -> &str {
        let endpoint = self.endpoint.as_deref();
        endpoint
            .unwrap_or("https://lb.jdcloud-api.com")
            .trim_end_matches('/')
    }

    /// The configuration with the keys of a side's `group` over it.
    pub(crate) fn with_side(&self, side: &str, group: &str) -> Result<Self, Failure> {
        let over: Over = cutover_plugin_sdk::parse_config(group)
            .map_err(|failure| failure.about(format!("group of side `{side}`")))?;
        let mut config = self.clone();
        let Over {
            backend,
            group,
            target_group,
            side,
            target,
            port,
            weight,
        } = over;
        config.backend = backend.unwrap_or(config.backend);
        config.group = group.or(config.group);
        config.target_group = target_group.or(config.target_group);
        config.side = side.or(config.side);
        config.target = target.unwrap_or(config.target);
        config.port = port.or(config.port);
        config.weight = weight.unwrap_or(config.weight);
        Ok(config)
    }
}

/// The keys that a side's `group` may have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Over {
    backend: Option<String>,
    group: Option<String>,
    target_group: Option<String>,
    side: Option<Colour>,
    target: Option<TargetType>,
    port: Option<u16>,
    weight: Option<u32>,
}

/// Ids of JD Cloud, which stand in paths as they are.
fn is_word(text: &str) -> bool {
    let is_of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !text.is_empty() && text.len() <= 128 && text.chars().all(is_of_id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cutover_plugin_sdk::parse_config;

    use super::*;

    const NEEDED: &str = r#""region": "cn-north-1", "access_key": "ak", "backend": "backend-1""#;

    #[track_caller]
    fn check(keys: &str, expected: &[&str]) {
        let config: Config = parse_config(&format!("{{{NEEDED}{keys}}}")).unwrap();

        let findings = config.check();

        let paths: Vec<_> = findings.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(paths, expected, "{findings:?}");
    }

    #[test]
    fn values_that_could_not_work_are_found() {
        check("", &[]);
        check(
            r#", "endpoint": "http://127.0.0.1:8080", "signature": "JDCLOUD3""#,
            &[],
        );
        check(r#", "endpoint": "lb.jdcloud-api.com""#, &["/endpoint"]);
        check(r#", "endpoint": "https://a/v1""#, &["/endpoint"]);
        check(r#", "group": "group-that-is-too-long""#, &["/group"]);
        check(r#", "target_group": "tg/../x""#, &["/target_group"]);
        check(
            r#", "weight": 101, "weights": {"web-1": 200}"#,
            &["/weight", "/weights/web-1"],
        );
        let config: Config = parse_config(r#"{"region": "", "access_key": "a b"}"#).unwrap();
        assert_eq!(config.check().len(), 3);
    }

    #[test]
    fn the_configuration_of_a_package_source_is_all_below_storage() {
        for (text, expected) in [
            (
                r#"{"storage": {"region": "cn-north-1", "access_key": "ak"}}"#,
                &[][..],
            ),
            (r#"{"storage": {"endpoint": "x"}}"#, &["/storage/endpoint"]),
            (r#"{"storage": {}, "backend": "backend-1"}"#, &[""]),
        ] {
            let config: Config = parse_config(text).unwrap();
            let findings = config.check();
            let paths: Vec<_> = findings.iter().map(|it| it.path.as_str()).collect();
            assert_eq!(paths, expected, "{findings:?}");
        }
    }

    #[test]
    fn keys_and_values_that_are_none_are_refused_by_name() {
        for (keys, key) in [
            (r#", "signature": "JDCLOUD4""#, "signature"),
            (r#", "side": "red""#, "side"),
            (r#", "target": "pod""#, "target"),
            (r#", "drain": "soon""#, "drain"),
            (r#", "wieght": 3"#, "wieght"),
            (r#", "port": 70000"#, "port"),
        ] {
            let failure = parse_config::<Config>(&format!("{{{NEEDED}{keys}}}")).unwrap_err();
            assert!(failure.message.contains(key), "{}", failure.message);
        }
    }

    #[test]
    fn the_group_of_a_side_stands_over_the_configuration() {
        let config: Config = parse_config(&format!(r#"{{{NEEDED}, "group": "web"}}"#)).unwrap();

        let green = config
            .with_side("green", r#"{"side": "green", "weight": 5}"#)
            .unwrap();
        let wrong = config.with_side("green", r#"{"region": "x"}"#).unwrap_err();

        assert_eq!((green.side, green.weight), (Some(Colour::Green), 5));
        assert_eq!(green.group.as_deref(), Some("web"));
        assert!(wrong.message.contains("side `green`"), "{}", wrong.message);
    }

    #[test]
    fn the_schema_for_editors_has_the_keys_that_are_read() {
        let schema = include_str!("../config.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let listed: BTreeSet<String> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();

        let unknown =
            parse_config::<Config>(&format!(r#"{{{NEEDED}, "unknown": 1}}"#)).unwrap_err();

        let read: BTreeSet<String> = unknown
            .message
            .split('`')
            .skip(5)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        assert_eq!(listed, read, "{}", unknown.message);
    }
}

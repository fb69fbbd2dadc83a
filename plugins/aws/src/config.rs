//! What the operator says about a load balancer of AWS.

use std::time::Duration;

use cutover_plugin_sdk::http::is_origin;
use cutover_plugin_sdk::signing::Secrets;
use cutover_plugin_sdk::{Diagnostic, Failure, Side, parse_config, s3};
use serde::Deserialize;

use crate::arn::Kind;

/// The configuration. The keys of a side's `group` stand over it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) region: String,
    /// Where Elastic Load Balancing answers, unless it is AWS's own place for the region.
    endpoint: Option<String>,
    /// The id of the access key.
    #[serde(default)]
    pub(crate) access_key: String,
    #[serde(default)]
    pub(crate) secrets: Secrets,
    /// How packages are reached: all that the configuration of the plugin as a package source has.
    pub(crate) storage: Option<s3::Config>,
    /// The ARN of the target group.
    target_group: Option<String>,
    /// The port of targets, in place of that of the instances' addresses.
    pub(crate) port: Option<u16>,
    /// Whether several instances have one machine, each with a port of its own.
    #[serde(default)]
    pub(crate) several_per_host: bool,
    /// The zone that targets are registered with: `all` for addresses outside of the VPC.
    pub(crate) availability_zone: Option<String>,
    /// The ARN of the listener whose default action splits the traffic.
    listener: Option<String>,
    /// The ARN of the rule whose action splits the traffic.
    rule: Option<String>,
    #[serde(
        default = "ten_seconds",
        deserialize_with = "cutover_plugin_sdk::duration"
    )]
    pub(crate) timeout: Duration,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// What a side says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    target_group: Option<String>,
}

/// What has the actions that split the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Listener(&'a str),
    Rule(&'a str),
}

impl Config {
    /// Where requests go.
    pub(crate) fn endpoint(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{}/", endpoint.trim_end_matches('/')),
            // China has a domain of its own.
            None if self.region.starts_with("cn-") => {
                format!(
                    "https://elasticloadbalancing.{}.amazonaws.com.cn/",
                    self.region
                )
            }
            None => format!(
                "https://elasticloadbalancing.{}.amazonaws.com/",
                self.region
            ),
        }
    }

    /// The target group that a call is about.
    pub(crate) fn target_group<'a>(&'a self, named: &'a str) -> Result<&'a str, Failure> {
        let arn = match named {
            "" => self.target_group.as_deref(),
            named => Some(named),
        };
        let arn = arn.ok_or_else(|| {
            Failure::invalid("aws.target-group", "no target group is named").hint(
                "add `target_group: ARN` to the load balancer's `config`, or to the `group` of each side",
            )
        })?;
        match Kind::TargetGroup.problem(arn, &self.region) {
            Some(problem) => Err(Failure::invalid("aws.target-group", problem)),
            None => Ok(arn),
        }
    }

    /// The target group of a side: that of its group, else that of the configuration.
    pub(crate) fn target_group_of(&self, side: &Side) -> Result<String, Failure> {
        let of_side = |failure: Failure| failure.about(format!("side `{}`", side.name));
        let group: Group = parse_config(&side.group).map_err(of_side)?;
        let named = group.target_group.unwrap_or_default();
        self.target_group(&named)
            .map(str::to_owned)
            .map_err(of_side)
    }

    /// What splits the traffic.
    pub(crate) fn place(&self) -> Result<Place<'_>, Failure> {
        match (&self.listener, &self.rule) {
            (Some(listener), None) => Ok(Place::Listener(listener)),
            (None, Some(rule)) => Ok(Place::Rule(rule)),
            _ => Err(Failure::invalid(
                "aws.place",
                "traffic is split by a listener or by a rule, and the config names neither or both",
            )
            .hint("write `listener: ARN` for its default action, or `rule: ARN`")),
        }
    }

    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        if let Some(storage) = &self.storage {
            if !self.region.is_empty() || !self.access_key.is_empty() {
                let message =
                    "keys beside `storage` are a load balancer's, and belong into a group";
                findings.push(Diagnostic::error("", message));
            }
            findings.extend(storage.check("/storage"));
            return findings;
        }
        let mut find = |path: &str, message: &str| findings.push(Diagnostic::error(path, message));
        let is_region = !self.region.is_empty()
            && self
                .region
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_region {
            find("/region", "write a region such as `eu-central-1`");
        }
        if let Some(endpoint) = &self.endpoint
            && !is_origin(endpoint)
        {
            find("/endpoint", "write `https://HOST` or `https://HOST:PORT`");
        }
        if self.access_key.is_empty() || self.access_key.contains(char::is_whitespace) {
            find(
                "/access_key",
                "write the id of an access key, such as `AKIA…`",
            );
        }
        for (path, kind, arn) in [
            ("/target_group", Kind::TargetGroup, &self.target_group),
            ("/listener", Kind::Listener, &self.listener),
            ("/rule", Kind::Rule, &self.rule),
        ] {
            let problem = arn.as_ref().and_then(|arn| kind.problem(arn, &self.region));
            if let Some(problem) = problem.filter(|_| is_region) {
                find(path, &problem);
            }
        }
        if self.listener.is_some() && self.rule.is_some() {
            find(
                "/rule",
                "the traffic is split in one place: name a `listener` or a `rule`",
            );
        }
        if self.port == Some(0) {
            find("/port", "write a port from 1 to 65535");
        }
        if self.timeout.is_zero() {
            find("/timeout", "an answer takes some time");
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str =
        "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/tg-blue/73e2d6bc24d8a067";

    fn config(more: &str) -> Config {
        let text = format!(r#"{{"region": "us-east-1", "access_key": "AKIDEXAMPLE"{more}}}"#);
        parse_config(&text).unwrap()
    }

    #[track_caller]
    fn check(more: &str, found: &[&str]) {
        let paths: Vec<_> = config(more).check().into_iter().map(|it| it.path).collect();

        assert_eq!(paths, found, "{more}");
    }

    #[test]
    fn what_cannot_work_is_found() {
        let listener = "arn:aws:elasticloadbalancing:us-east-1:1:listener/app/x/1/2";
        let rule = "arn:aws:elasticloadbalancing:us-east-1:1:listener-rule/app/x/1/2/3";
        check("", &[]);
        check(
            &format!(r#", "target_group": "{GROUP}", "listener": "{listener}""#),
            &[],
        );
        check(
            &format!(r#", "listener": "{listener}", "rule": "{rule}""#),
            &["/rule"],
        );
        check(
            r#", "target_group": "tg", "listener": "l", "rule": "r""#,
            &["/target_group", "/listener", "/rule", "/rule"],
        );
        check(
            r#", "endpoint": "elb:80", "port": 0, "timeout": 0"#,
            &["/endpoint", "/port", "/timeout"],
        );
        check(r#", "endpoint": "http://127.0.0.1:5000/""#, &[]);
        check(r#", "endpoint": "https://x/y""#, &["/endpoint"]);
        let empty: Config = parse_config(r#"{"region": "EU", "access_key": " "}"#).unwrap();
        let paths: Vec<_> = empty.check().into_iter().map(|it| it.path).collect();
        assert_eq!(paths, ["/region", "/access_key"]);
    }

    #[test]
    fn the_configuration_of_a_package_source_is_all_below_storage() {
        for (text, found) in [
            (
                r#"{"storage": {"region": "eu-central-1", "access_key": "A"}}"#,
                &[][..],
            ),
            (r#"{"storage": {"endpoint": "x"}}"#, &["/storage/endpoint"]),
            (r#"{"storage": {}, "region": "eu-central-1"}"#, &[""]),
        ] {
            let findings = parse_config::<Config>(text).unwrap().check();
            let paths: Vec<_> = findings.iter().map(|it| it.path.as_str()).collect();
            assert_eq!(paths, found, "{text}");
        }
    }

    #[test]
    fn the_endpoint_is_that_of_the_region() {
        assert_eq!(
            config("").endpoint(),
            "https://elasticloadbalancing.us-east-1.amazonaws.com/"
        );
        let china: Config = parse_config(r#"{"region": "cn-north-1", "access_key": "A"}"#).unwrap();
        assert_eq!(
            china.endpoint(),
            "https://elasticloadbalancing.cn-north-1.amazonaws.com.cn/"
        );
        assert_eq!(
            config(r#", "endpoint": "http://127.0.0.1:5000""#).endpoint(),
            "http://127.0.0.1:5000/"
        );
    }

    #[test]
    fn a_side_names_its_target_group() {
        let side = |group: &str| Side {
            name: "blue".to_owned(),
            group: group.to_owned(),
            members: Vec::new(),
        };
        let own = side(&format!(r#"{{"target_group": "{GROUP}"}}"#));

        assert_eq!(config("").target_group_of(&own).unwrap(), GROUP);
        let none = config("").target_group_of(&side("{}")).unwrap_err();
        assert_eq!(none.message, "side `blue`: no target group is named");
        let misspelt = side(r#"{"targetgroup": "x"}"#);
        let failure = config("").target_group_of(&misspelt).unwrap_err();
        assert_eq!(
            failure.message,
            "side `blue`: config key `targetgroup`: unknown field `targetgroup`, expected `target_group`"
        );
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../config.schema.json")).unwrap();
        let keys = |schema: &serde_json::Value| {
            let properties = schema["properties"].as_object().unwrap();
            let mut keys: Vec<_> = properties.keys().map(|key| format!("`{key}`")).collect();
            keys.sort_unstable();
            keys
        };
        let known = |text: &str| {
            let message = parse_config::<Config>(text).unwrap_err().message;
            let (_, known) = message.split_once("expected ").unwrap();
            let known = known.trim_start_matches("one of ").replace(" or ", ", ");
            let mut keys: Vec<_> = known.split(", ").map(str::to_owned).collect();
            keys.sort_unstable();
            keys
        };

        assert_eq!(keys(&schema), known(r#"{"?": 1}"#));
        assert_eq!(
            keys(&schema["properties"]["secrets"]),
            known(r#"{"secrets": {"?": 1}}"#)
        );
    }
}

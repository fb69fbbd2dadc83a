//! What the operator says about a check.

use std::collections::BTreeMap;
use std::time::Duration;

use cutover_plugin_sdk::Diagnostic;
use serde::Deserialize;

use crate::expected::{Body, Status};

/// The configuration of one gate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What is asked. With `{{address}}` in it, every instance that has the version is.
    pub(crate) url: String,
    #[serde(default = "get")]
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) body: Body,
    /// How often in a row the answer has to be right.
    #[serde(default = "once")]
    pub(crate) successes: u32,
    /// How often it is asked at most; as often as `successes` where nothing is said.
    attempts: Option<u32>,
    /// Between one attempt and the next.
    #[serde(
        default = "five_seconds",
        deserialize_with = "cutover_plugin_sdk::duration"
    )]
    pub(crate) interval: Duration,
    /// For one answer.
    #[serde(
        default = "five_seconds",
        deserialize_with = "cutover_plugin_sdk::duration"
    )]
    pub(crate) timeout: Duration,
}

fn get() -> String {
    "GET".to_owned()
}

fn once() -> u32 {
    1
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "OPTIONS"];

/// What stands for the address of an instance.
pub(crate) const ADDRESS: &str = "{{address}}";

impl Config {
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.unwrap_or(self.successes)
    }

    pub(crate) fn is_per_target(&self) -> bool {
        self.url.contains(ADDRESS)
    }

    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        let mut find = |path: &str, message: &str| findings.push(Diagnostic::error(path, message));
        if !(self.url.starts_with("https://") || self.url.starts_with("http://")) {
            find("/url", "write `https://HOST/PATH` or `http://HOST/PATH`");
        }
        if self.url.contains("{{secret:") {
            find(
                "/url",
                "a secret in a URL would end up in logs: put it into `headers`",
            );
        }
        if !METHODS.contains(&self.method.as_str()) {
            find("/method", "a check is a GET, HEAD, POST or OPTIONS");
        }
        if self.method == "HEAD" && self.body != Body::default() {
            find("/body", "an answer to HEAD has no body");
        }
        if self.successes == 0 {
            find("/successes", "at least 1 answer has to be right");
        }
        if self.attempts() < self.successes {
            find(
                "/attempts",
                "fewer attempts than `successes` can never pass",
            );
        }
        if self.timeout.is_zero() {
            find("/timeout", "an answer takes some time");
        }
        if let Err(message) = self.body.check() {
            find("/body", message);
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::parse_config;

    use super::*;

    #[track_caller]
    fn check(text: &str, paths: &[&str]) {
        let config: Config = parse_config(text).unwrap();

        let found: Vec<String> = config.check().into_iter().map(|f| f.path).collect();

        assert_eq!(found, paths, "{text}");
    }

    #[test]
    fn a_url_is_enough() {
        check(r#"{"url": "https://shop.example/health"}"#, &[]);
        let config: Config = parse_config(r#"{"url": "http://x"}"#).unwrap();
        assert_eq!((config.method.as_str(), config.attempts()), ("GET", 1));
    }

    #[test]
    fn what_could_never_pass_is_found() {
        check(r#"{"url": "shop.example"}"#, &["/url"]);
        check(
            r#"{"url": "http://x/?t={{secret:t}}", "method": "PUT"}"#,
            &["/url", "/method"],
        );
        check(
            r#"{"url": "http://x", "successes": 3, "attempts": 2}"#,
            &["/attempts"],
        );
        check(r#"{"url": "http://x", "successes": 0}"#, &["/successes"]);
        check(r#"{"url": "http://x", "timeout": "0s"}"#, &["/timeout"]);
        check(
            r#"{"url": "http://x", "method": "HEAD", "body": {"contains": "ok"}}"#,
            &["/body"],
        );
        check(
            r#"{"url": "http://x", "body": {"pointer": "/status"}}"#,
            &["/body"],
        );
    }

    #[test]
    fn a_wrong_value_says_what_was_expected() {
        for (text, expected) in [
            (
                r#"{"url": "http://x", "interval": "5 s"}"#,
                "config key `interval`: invalid value: string \"5 s\", expected a duration like `500ms`, `30s`, `5m` or `1h`",
            ),
            (
                r#"{"url": "http://x", "status": "2xx"}"#,
                "config key `status`: `2xx` is no status: write `200`, `200-299` or a list of them",
            ),
            (
                r#"{"url": "http://x", "retries": 1}"#,
                "config key `retries`: unknown field `retries`, expected one of `url`, `method`, `headers`, `status`, `body`, `successes`, `attempts`, `interval`, `timeout`",
            ),
        ] {
            let failure = parse_config::<Config>(text).unwrap_err();
            assert_eq!(failure.message, expected);
        }
    }
}

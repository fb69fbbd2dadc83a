//! What the operator says about a query.

use std::collections::BTreeMap;
use std::time::Duration;

use cutover_plugin_sdk::Diagnostic;
use serde::Deserialize;

use crate::threshold::Threshold;

/// The configuration of one gate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the server is, without `/api`.
    pub(crate) url: String,
    /// PromQL.
    pub(crate) query: String,
    pub(crate) pass: Option<Threshold>,
    pub(crate) fail: Option<Threshold>,
    #[serde(default)]
    pub(crate) series: Wanted,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// How long to gather data before the query.
    #[serde(default, deserialize_with = "cutover_plugin_sdk::duration")]
    pub(crate) wait: Duration,
    #[serde(
        default = "ten_seconds",
        deserialize_with = "cutover_plugin_sdk::duration"
    )]
    pub(crate) timeout: Duration,
}

/// Which of several series have to pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    #[default]
    All,
    Any,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// The longest wait that the host grants at once.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Config {
    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        let mut find = |path: &str, message: &str| findings.push(Diagnostic::error(path, message));
        let is_plain = !self.url.contains(['?', '#', '{']);
        let has_scheme = self.url.starts_with("https://") || self.url.starts_with("http://");
        if !(has_scheme && is_plain) {
            find(
                "/url",
                "write `https://HOST:PORT`, with the path before `/api` if there is one",
            );
        }
        if self.query.trim().is_empty() {
            find("/query", "write a query in PromQL");
        }
        match (self.pass, self.fail) {
            (None, None) => find(
                "",
                "write `pass` or `fail`, a comparison like `< 0.01`, or both",
            ),
            (Some(pass), Some(fail)) if pass.overlaps(fail) => find(
                "/fail",
                "some values would pass and fail: let `pass` and `fail` exclude each other",
            ),
            _ => {}
        }
        if self.timeout.is_zero() {
            find("/timeout", "an answer takes some time");
        }
        if self.wait > LONGEST_WAIT {
            find("/wait", "wait for an hour at most");
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
    fn what_cannot_work_is_found() {
        check(
            r#"{"url": "http://p:9090", "query": "up", "pass": "> 0"}"#,
            &[],
        );
        check(
            r#"{"url": "p:9090", "query": "up", "pass": "> 0"}"#,
            &["/url"],
        );
        check(
            r#"{"url": "http://p/?x=1", "query": " ", "fail": "> 0"}"#,
            &["/url", "/query"],
        );
        check(r#"{"url": "http://p", "query": "up"}"#, &[""]);
        check(
            r#"{"url": "http://p", "query": "up", "pass": "< 2", "fail": "> 1"}"#,
            &["/fail"],
        );
        check(
            r#"{"url": "http://p", "query": "up", "pass": "< 2", "wait": "2h", "timeout": 0}"#,
            &["/timeout", "/wait"],
        );
    }

    #[test]
    fn a_threshold_that_is_none_is_told_how_one_looks() {
        let failure = parse_config::<Config>(r#"{"url": "http://p", "query": "up", "pass": "1%"}"#)
            .unwrap_err();

        assert_eq!(
            failure.message,
            "config key `pass`: `1%` is no threshold: write a comparison with a number, like `< 0.01` or `>= 5`"
        );
    }
}

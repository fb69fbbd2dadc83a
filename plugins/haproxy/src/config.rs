//! What the operator says about an HAProxy.

use std::collections::BTreeMap;

use cutover_plugin_sdk::{Diagnostic, Failure};
use serde::Deserialize;

/// The configuration of one load balancer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the runtime API listens, with level `admin`: `tcp:HOST:PORT` or `unix:/PATH`.
    pub(crate) socket: String,
    /// The backend, unless the group names one.
    #[serde(default)]
    backend: String,
    /// Names of servers that are neither the instance's id nor found by its address.
    #[serde(default)]
    pub(crate) servers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) drain: Drain,
    #[serde(default)]
    pub(crate) health: Health,
}

/// What happens to open sessions when a server leaves traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Drain {
    /// They end by themselves before the server counts as out of service.
    #[default]
    Wait,
    /// The server goes into maintenance at once.
    Skip,
}

/// What a server needs before it gets traffic again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// A health check that ran since, where the server has checks.
    #[default]
    Check,
    /// Nothing: HAProxy takes it as up until a check fails.
    Trust,
}

impl Config {
    /// The backend that a call is about.
    pub(crate) fn backend<'a>(&'a self, pool: &'a str) -> Result<&'a str, Failure> {
        let name = if pool.is_empty() {
            self.backend.as_str()
        } else {
            pool
        };
        if name.is_empty() {
            return Err(Failure::invalid("haproxy.backend", "no backend is named")
                .hint("add `backend: NAME` to the load balancer's config"));
        }
        checked_name(name)
    }

    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        if !is_address(&self.socket) {
            let message = format!(
                "`{}` is no socket address, expected `tcp:HOST:PORT` or `unix:/PATH`",
                self.socket
            );
            findings.push(Diagnostic::error("/socket", &message));
        }
        if !self.backend.is_empty() && !is_name(&self.backend) {
            findings.push(Diagnostic::error("/backend", &not_a_name(&self.backend)));
        }
        for (target, server) in &self.servers {
            if !is_name(server) {
                findings.push(Diagnostic::error(
                    &format!("/servers/{target}"),
                    &not_a_name(server),
                ));
            }
        }
        findings
    }
}

fn is_address(text: &str) -> bool {
    match text.split_once(':') {
        Some(("tcp", address)) => address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        }),
        Some(("unix", path)) => path.starts_with('/'),
        _ => false,
    }
}

/// A name that HAProxy accepts for backends and servers. Anything else could carry a second command.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

fn not_a_name(text: &str) -> String {
    format!("`{text}` is no name in HAProxy: use letters, digits, `-`, `_`, `.` and `:`")
}

/// Passes on a name that is safe inside a command.
pub(crate) fn checked_name(text: &str) -> Result<&str, Failure> {
    if is_name(text) {
        Ok(text)
    } else {
        Err(Failure::invalid("haproxy.name", not_a_name(text)))
    }
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::parse_config;

    use super::*;

    fn check(text: &str, paths: &[&str]) {
        let config: Config = parse_config(text).unwrap();

        let found: Vec<String> = config
            .check()
            .into_iter()
            .map(|finding| finding.path)
            .collect();

        assert_eq!(found, paths);
    }

    #[test]
    fn accepts_both_kinds_of_socket() {
        check(
            r#"{"socket": "tcp:127.0.0.1:9999", "backend": "shop"}"#,
            &[],
        );
        check(r#"{"socket": "tcp:[::1]:9999"}"#, &[]);
        check(
            r#"{"socket": "unix:/run/haproxy/admin.sock", "drain": "skip", "health": "trust"}"#,
            &[],
        );
    }

    #[test]
    fn finds_what_cannot_work() {
        check(r#"{"socket": "127.0.0.1:9999"}"#, &["/socket"]);
        check(
            r#"{"socket": "unix:admin.sock", "backend": "a b", "servers": {"web-1": "x;y"}}"#,
            &["/socket", "/backend", "/servers/web-1"],
        );
    }

    #[test]
    fn unknown_keys_are_errors() {
        let failure =
            parse_config::<Config>(r#"{"socket": "unix:/x", "backnd": "shop"}"#).unwrap_err();

        assert!(
            failure.message.contains("unknown field `backnd`"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn the_group_s_backend_wins() {
        let config: Config = parse_config(r#"{"socket": "unix:/x", "backend": "shop"}"#).unwrap();

        assert_eq!(config.backend("").unwrap(), "shop");
        assert_eq!(config.backend("shop-green").unwrap(), "shop-green");
        assert!(config.backend("shop; shutdown sessions").is_err());
    }
}

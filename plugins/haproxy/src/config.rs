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
    /// The entry that names the live backend: a switch.
    pub(crate) map: Option<Entry>,
    /// The entry that holds the percentage of one of two backends: a switch and every split.
    pub(crate) percent_map: Option<PercentEntry>,
}

/// One entry of a map that HAProxy looks up for each request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The map as HAProxy's configuration names it.
    pub(crate) file: String,
    pub(crate) key: String,
    /// The granted directory that holds the file, so that a change outlives a reload of HAProxy.
    pub(crate) directory: Option<String>,
}

/// An entry whose value is a percentage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PercentEntry {
    file: String,
    key: String,
    directory: Option<String>,
    /// The backend that gets the percentage; the other side's gets the rest.
    pub(crate) backend: String,
}

impl PercentEntry {
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            file: self.file.clone(),
            key: self.key.clone(),
            directory: self.directory.clone(),
        }
    }
}

/// What a side says of itself; it stands over the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    #[serde(default)]
    pub(crate) backend: String,
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
        if let Some(entry) = &self.map {
            entry.check("/map", &mut findings);
        }
        if let Some(percent) = &self.percent_map {
            percent.entry().check("/percent_map", &mut findings);
            if !is_name(&percent.backend) {
                let message = not_a_name(&percent.backend);
                findings.push(Diagnostic::error("/percent_map/backend", &message));
            }
        }
        if self.map.is_some() && self.percent_map.is_some() {
            let message = "name `map` or `percent_map`: a split that two places decide cannot be changed at once; \
                           `percent_map` can switch as well";
            findings.push(Diagnostic::error("/map", message));
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

impl Entry {
    /// The file in its granted directory.
    pub(crate) fn file_name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or_default()
    }

    fn check(&self, pointer: &str, findings: &mut Vec<Diagnostic>) {
        let is_word = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && !b";\\\"'#,".contains(&b))
        };
        if !is_word(&self.file) || self.file_name().is_empty() {
            let message = format!(
                "`{}` is no map's file: write it as HAProxy's configuration does, without spaces, quotes, `#`, `;`, `,` and `\\`",
                self.file
            );
            findings.push(Diagnostic::error(&format!("{pointer}/file"), &message));
        }
        if !is_word(&self.key) {
            let message = format!(
                "`{}` is no key: write one word without quotes, `#`, `;`, `,` and `\\`",
                self.key
            );
            findings.push(Diagnostic::error(&format!("{pointer}/key"), &message));
        }
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
    fn one_place_decides_how_traffic_is_split() {
        let map = r#""map": {"file": "/etc/haproxy/live.map", "key": "live", "directory": "maps"}"#;
        let percent =
            r#""percent_map": {"file": "split.map", "key": "green", "backend": "shop-green"}"#;
        check(&format!(r#"{{"socket": "unix:/x", {map}}}"#), &[]);
        check(&format!(r#"{{"socket": "unix:/x", {percent}}}"#), &[]);
        check(
            &format!(r#"{{"socket": "unix:/x", {map}, {percent}}}"#),
            &["/map"],
        );
    }

    #[test]
    fn what_could_carry_a_second_command_is_no_entry() {
        for (file, key, path) in [
            ("a;b", "live", "/map/file"),
            ("#1", "live", "/map/file"),
            ("/etc/haproxy/", "live", "/map/file"),
            ("live.map", "a b", "/map/key"),
            ("live.map", "a\nb", "/map/key"),
        ] {
            let file = file.replace('\n', "\\n");
            let key = key.replace('\n', "\\n");
            check(
                &format!(r#"{{"socket": "unix:/x", "map": {{"file": "{file}", "key": "{key}"}}}}"#),
                &[path],
            );
        }
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

//! What the operator says about an nginx.

use cutover_plugin_sdk::{Diagnostic, Failure, parse_config};
use serde::Deserialize;

/// The configuration of one load balancer or router.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The granted directory that holds the include files.
    pub(crate) directory: String,
    /// Names the files of the split and the version, and their variables.
    pub(crate) name: String,
    /// The upstream, unless a side's group names one.
    #[serde(default)]
    upstream: String,
    /// The nginx program, as it is granted.
    #[serde(default = "usual_program")]
    pub(crate) program: String,
    /// What nginx is started with as `-p`.
    prefix: Option<String>,
    /// What nginx is started with as `-c`.
    config: Option<String>,
    /// Where nginx tells which version is live.
    pub(crate) status: Status,
    /// The `ps` program, as it is granted: old workers are waited for.
    pub(crate) ps: Option<String>,
    /// What members are asked before they count as healthy. Without it a member that is in traffic does.
    pub(crate) health: Option<Health>,
    /// What the side of a request follows from.
    #[serde(default = "usual_key")]
    pub(crate) key: String,
}

/// A location of nginx.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Status {
    /// `tcp:HOST:PORT`, as it is granted.
    pub(crate) address: String,
    pub(crate) path: String,
}

/// A location of every member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Health {
    pub(crate) path: String,
}

/// What a side says of itself; it stands over the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    upstream: String,
}

fn usual_program() -> String {
    "nginx".to_owned()
}

fn usual_key() -> String {
    "$request_id".to_owned()
}

impl Config {
    /// The upstream that a call is about.
    pub(crate) fn upstream<'a>(&'a self, named: &'a str) -> Result<&'a str, Failure> {
        let name = if named.is_empty() {
            self.upstream.as_str()
        } else {
            named
        };
        if name.is_empty() {
            return Err(Failure::invalid("nginx.upstream", "no upstream is named")
                .hint("add `upstream: NAME` to the side's `group`, or to the config"));
        }
        if is_name(name) {
            Ok(name)
        } else {
            Err(Failure::invalid("nginx.name", not_a_name(name)))
        }
    }

    /// The upstream of a side: that of its group, else that of the configuration.
    pub(crate) fn upstream_of(&self, side: &cutover_plugin_sdk::Side) -> Result<String, Failure> {
        let group: Group = parse_config(&side.group)
            .map_err(|failure| failure.about(format!("group of side `{}`", side.name)))?;
        let upstream = self
            .upstream(&group.upstream)
            .map_err(|failure| failure.about(format!("side `{}`", side.name)))?;
        Ok(upstream.to_owned())
    }

    /// The file that holds the servers of an upstream.
    pub(crate) fn servers_file(upstream: &str) -> String {
        format!("{upstream}.servers")
    }

    pub(crate) fn split_file(&self) -> String {
        format!("{}.split.conf", self.name)
    }

    pub(crate) fn version_file(&self) -> String {
        format!("{}.version.conf", self.name)
    }

    /// nginx's arguments, with those that say which nginx is meant.
    pub(crate) fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        for (flag, value) in [("-p", &self.prefix), ("-c", &self.config)] {
            if let Some(value) = value {
                all.extend([flag.to_owned(), value.clone()]);
            }
        }
        all
    }

    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        if !self
            .name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            || self.name.is_empty()
        {
            let message = format!(
                "`{}` cannot name a variable: use lower-case letters, digits and `_`",
                self.name
            );
            findings.push(Diagnostic::error("/name", &message));
        }
        if !self.upstream.is_empty() && !is_name(&self.upstream) {
            findings.push(Diagnostic::error("/upstream", &not_a_name(&self.upstream)));
        }
        if !self.status.address.starts_with("tcp:") {
            let message = format!(
                "`{}` is no socket address, expected `tcp:HOST:PORT`",
                self.status.address
            );
            findings.push(Diagnostic::error("/status/address", &message));
        }
        let health = self.health.as_ref();
        let paths = [
            ("/status/path", Some(&self.status.path)),
            ("/health/path", health.map(|health| &health.path)),
        ];
        for (place, path) in paths {
            if let Some(path) = path
                && !(path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()))
            {
                let message = format!("`{path}` is no path, expected `/…`");
                findings.push(Diagnostic::error(place, &message));
            }
        }
        let is_variable = self.key.strip_prefix('$').is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        if !is_variable {
            let message = format!(
                "`{}` is no variable of nginx, expected `$request_id` or the like",
                self.key
            );
            findings.push(Diagnostic::error("/key", &message));
        }
        findings
    }
}

/// A name of an upstream that can be one of a file as well. Anything else could carry further directives.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn not_a_name(text: &str) -> String {
    format!("`{text}` cannot name an upstream: use letters, digits, `-`, `_` and `.`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#""status": {"address": "tcp:127.0.0.1:8089", "path": "/cutover"}"#;

    fn check(text: &str, paths: &[&str]) {
        let config: Config = parse_config(&format!("{{{text}}}")).unwrap();

        let found: Vec<String> = config.check().into_iter().map(|f| f.path).collect();

        assert_eq!(found, paths, "{text}");
    }

    #[test]
    fn finds_what_cannot_work() {
        check(
            &format!(r#""directory": "nginx", "name": "shop", {STATUS}"#),
            &[],
        );
        check(
            &format!(
                r#""directory": "nginx", "name": "a b", "upstream": "x;y", "key": "id", {STATUS}"#
            ),
            &["/name", "/upstream", "/key"],
        );
        check(
            r#""directory": "nginx", "name": "shop", "status": {"address": "http://x", "path": "v 1"}, "health": {"path": "h"}"#,
            &["/status/address", "/status/path", "/health/path"],
        );
    }

    #[test]
    fn the_arguments_say_which_nginx_is_meant() {
        let config: Config = parse_config(&format!(
            r#"{{"directory": "nginx", "name": "shop", "prefix": "/srv", "config": "/srv/n.conf", {STATUS}}}"#
        ))
        .unwrap();

        assert_eq!(
            config.arguments(&["-t"]),
            ["-t", "-p", "/srv", "-c", "/srv/n.conf"]
        );
    }
}

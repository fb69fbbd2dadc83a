//! Capabilities, and the patterns that cover them. A pattern and a use have the same form, so that one reader and one
//! comparison serve manifests, grants and checks. What cannot be read in one way only is refused.

use std::fmt;
use std::net::IpAddr;

use model::PluginName;

use crate::manifest::Access;

/// One capability, as a plugin uses it or a pattern covers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    Socket(String),
    Http(String),
    Directory { name: String, access: Access },
    Secret(String),
    Program(String),
}

impl Capability {
    /// The line of `cutover.yaml` that grants it.
    #[must_use]
    pub fn grant_line(&self, plugin: &PluginName) -> String {
        let (key, entry) = match self {
            Self::Socket(address) => ("sockets", format!("{address:?}")),
            Self::Http(host) => ("http", format!("{host:?}")),
            Self::Directory { name, access } => (
                "directories",
                format!(
                    "{{name: {name:?}, path: \"/…\", access: {}}}",
                    access.name()
                ),
            ),
            Self::Secret(name) => ("secrets", format!("{name:?}")),
            Self::Program(name) => ("programs", format!("{name:?}")),
        };
        format!("plugins.{plugin}.grants.{key}: [{entry}]")
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "socket `{address}`"),
            Self::Http(host) => write!(f, "HTTP host `{host}`"),
            Self::Directory { name, access } => write!(f, "directory `{name}` ({})", access.name()),
            Self::Secret(name) => write!(f, "secret `{name}`"),
            Self::Program(name) => write!(f, "program `{name}`"),
        }
    }
}

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{text}` is not an address: write `tcp:HOST:PORT`, `tcp:*`, `unix:/PATH` or `unix:*`")]
    Address { text: String },
    #[error(
        "`{text}` is not a host: write `https://HOST` or `https://HOST:PORT`; `*.` may lead, and there is no path"
    )]
    Host { text: String },
    #[error("`{text}` is not a program: write a name or an absolute path")]
    Program { text: String },
    #[error("`{text}` is not a name")]
    Name { text: String },
}

/// A capability, taken apart. A use is a pattern without wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Tcp {
        host: Host,
        port: Option<u16>,
    },
    Unix(Option<String>),
    Http {
        scheme: String,
        host: Host,
        port: Option<u16>,
    },
    Directory {
        name: Option<String>,
        access: Access,
    },
    Secret(Option<String>),
    Program(Option<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Any,
    /// Every host below a domain, not the domain itself.
    Below(String),
    Exact(String),
}

impl Pattern {
    pub(crate) fn parse(capability: &Capability) -> Result<Self, Error> {
        match capability {
            Capability::Socket(text) => {
                socket(text).ok_or_else(|| Error::Address { text: text.clone() })
            }
            Capability::Http(text) => http(text).ok_or_else(|| Error::Host { text: text.clone() }),
            Capability::Directory { name, access } => Ok(Self::Directory {
                name: named(name)?,
                access: *access,
            }),
            Capability::Secret(name) => Ok(Self::Secret(named(name)?)),
            Capability::Program(name) if name == "*" => Ok(Self::Program(None)),
            Capability::Program(name) => {
                let is_path = name.starts_with('/') && is_normal(name);
                if is_path
                    || (!name.is_empty()
                        && !name.contains(['/', '*', '\0'])
                        && !name.starts_with('.'))
                {
                    Ok(Self::Program(Some(name.clone())))
                } else {
                    Err(Error::Program { text: name.clone() })
                }
            }
        }
    }

    pub(crate) fn is_exact(&self) -> bool {
        match self {
            Self::Tcp { host, port } | Self::Http { host, port, .. } => {
                matches!(host, Host::Exact(_)) && port.is_some()
            }
            Self::Unix(name)
            | Self::Secret(name)
            | Self::Program(name)
            | Self::Directory { name, .. } => name.is_some(),
        }
    }

    /// Whether it is about one host and not about all hosts of a kind.
    pub(crate) fn names_host(&self) -> bool {
        matches!(
            self,
            Self::Tcp { host, .. } | Self::Http { host, .. } if matches!(host, Host::Exact(_))
        )
    }

    /// Whether everything that `other` covers is covered.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.covers_target_of(other)
            && match (self, other) {
                (Self::Directory { access, .. }, Self::Directory { access: wanted, .. }) => {
                    access >= wanted
                }
                _ => true,
            }
    }

    /// As `covers`, leaving aside what may be done there.
    pub(crate) fn covers_target_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { host, port }, Self::Tcp { host: h, port: p }) => {
                host.covers(h) && covers(port, p)
            }
            (
                Self::Http { scheme, host, port },
                Self::Http {
                    scheme: s,
                    host: h,
                    port: p,
                },
            ) => scheme == s && host.covers(h) && covers(port, p),
            (Self::Unix(a), Self::Unix(b))
            | (Self::Secret(a), Self::Secret(b))
            | (Self::Program(a), Self::Program(b))
            | (Self::Directory { name: a, .. }, Self::Directory { name: b, .. }) => covers(a, b),
            _ => false,
        }
    }
}

/// Nothing stands for anything.
fn covers<T: PartialEq>(pattern: &Option<T>, other: &Option<T>) -> bool {
    pattern.is_none() || pattern == other
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        if let Some(domain) = text.strip_prefix("*.") {
            return is_host_name(domain).then(|| Self::Below(domain.to_ascii_lowercase()));
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            // One spelling for an address: `::ffff:127.0.0.1` is `127.0.0.1`.
            return (bare.is_some() == address.is_ipv6())
                .then(|| Self::Exact(address.to_canonical().to_string()));
        }
        is_host_name(text).then(|| Self::Exact(text.to_ascii_lowercase()))
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Below(domain), Self::Exact(name) | Self::Below(name)) => {
                name.strip_suffix(domain)
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                    || (matches!(other, Self::Below(_)) && name == domain)
            }
            (Self::Exact(a), Self::Exact(b)) => a == b,
            _ => false,
        }
    }
}

fn is_host_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

fn socket(text: &str) -> Option<Pattern> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path == "*" {
            return Some(Pattern::Unix(None));
        }
        return (path.starts_with('/') && is_normal(path))
            .then(|| Pattern::Unix(Some(path.to_owned())));
    }
    let (host, port) = tcp_parts(text.strip_prefix("tcp:")?)?;
    Some(Pattern::Tcp {
        host: Host::parse(host)?,
        port,
    })
}

/// The host and port of `HOST:PORT`, `*`, `HOST:*`.
fn tcp_parts(text: &str) -> Option<(&str, Option<u16>)> {
    if text == "*" {
        return Some(("*", None));
    }
    let (host, port) = text.rsplit_once(':')?;
    if port == "*" {
        return Some((host, None));
    }
    Some((host, Some(number(port)?)))
}

/// A port, without the sign that `parse` would take.
fn number(port: &str) -> Option<u16> {
    port.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| port.parse().ok())
        .flatten()
}

fn http(text: &str) -> Option<Pattern> {
    let (scheme, rest) = text.split_once("://")?;
    let default = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let has_port = rest
        .rfind(':')
        .is_some_and(|colon| colon > rest.rfind(']').unwrap_or(0));
    let (host, port) = match rest {
        // A lone star is every host on every port: it is how a manifest says "wherever the operator wants".
        "*" => ("*", None),
        _ if has_port => tcp_parts(rest)?,
        _ => (rest, Some(default)),
    };
    Some(Pattern::Http {
        scheme: scheme.to_owned(),
        host: Host::parse(host)?,
        port,
    })
}

/// The host part of a URL, as a capability to ask for.
pub(crate) fn http_host(url: &str) -> Option<Capability> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // Credentials in a URL would make `https://granted.example@other.example` look like the wrong host.
    if authority.contains(['@', '\\']) {
        return None;
    }
    Some(Capability::Http(format!("{scheme}://{authority}")))
}

fn named(name: &str) -> Result<Option<String>, Error> {
    if name == "*" {
        return Ok(None);
    }
    if name.is_empty()
        || name.len() > 128
        || name.contains(['/', '*'])
        || name.contains(char::is_control)
    {
        return Err(Error::Name {
            text: name.to_owned(),
        });
    }
    Ok(Some(name.to_owned()))
}

/// Whether an absolute path has one spelling: no empty, `.` or `..` part, no wildcard.
fn is_normal(path: &str) -> bool {
    path.len() > 1
        && !path.contains(['*', '\0'])
        && path[1..]
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_could_be_misread_are_refused() {
        for text in [
            "tcp:",
            "tcp:host",
            "tcp:host:99999",
            "tcp:*x:80",
            "tcp:a.*.b:80",
            "unix:relative",
            "unix:/a/../b",
        ] {
            assert!(
                Pattern::parse(&Capability::Socket(text.to_owned())).is_err(),
                "{text}"
            );
        }
        for text in [
            "example.com",
            "ftp://a",
            "https://a/path",
            "https://*a.com",
            "https://",
            "https://a:b",
            "https://u@a",
        ] {
            assert!(
                Pattern::parse(&Capability::Http(text.to_owned())).is_err(),
                "{text}"
            );
        }
        for text in ["", "../x", "bin/git", "/usr/bin/../x", "."] {
            assert!(
                Pattern::parse(&Capability::Program(text.to_owned())).is_err(),
                "{text}"
            );
        }
    }
}

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
    Directory {
        name: String,
        access: Access,
    },
    Secret(String),
    Program(String),
    /// A program that runs on instances.
    Command(String),
    /// A file or folder on instances, with all that is below it.
    Path {
        path: String,
        access: Access,
    },
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
            Self::Command(name) => ("commands", format!("{name:?}")),
            Self::Path { path, access } => (
                "paths",
                format!("{{path: {path:?}, access: {}}}", access.name()),
            ),
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
            Self::Command(name) => write!(f, "command `{name}` on instances"),
            Self::Path { path, access } => {
                write!(f, "path `{path}` on instances ({})", access.name())
            }
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
    #[error(
        "`{text}` is not a command of instances: write a name, an absolute path, or the path of a file in the package with a `/` in it"
    )]
    Command { text: String },
    #[error(
        "`{text}` is not a path on instances: write an absolute path, one below the instance's `rootdir`, or `.`, without `..`"
    )]
    Path { text: String },
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
    Command(Option<String>),
    Path {
        path: Option<InstancePath>,
        access: Access,
    },
}

/// A path on an instance, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstancePath {
    is_absolute: bool,
    parts: Vec<String>,
}

impl InstancePath {
    /// Reads a path that has one spelling.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (is_absolute, rest) = match text.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if matches!((is_absolute, rest), (true, "") | (false, ".")) {
            let parts = Vec::new();
            return Some(Self { is_absolute, parts });
        }
        is_normal(&format!("/{rest}")).then(|| Self {
            is_absolute,
            parts: rest.split('/').map(str::to_owned).collect(),
        })
    }

    fn covers(&self, other: &Self) -> bool {
        self.is_absolute == other.is_absolute && other.parts.starts_with(&self.parts)
    }

    /// The path as a folder, and what is below it of another path.
    fn folder_and_rest(&self, other: &Self) -> (String, String) {
        let folder = match (self.is_absolute, self.parts.is_empty()) {
            (true, _) => format!("/{}", self.parts.join("/")),
            (false, true) => ".".to_owned(),
            (false, false) => self.parts.join("/"),
        };
        (folder, other.parts[self.parts.len()..].join("/"))
    }
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
            Capability::Command(name) => {
                let is_path = is_normal(&format!("/{}", name.trim_start_matches('/')));
                match name.as_str() {
                    "*" => Ok(Self::Command(None)),
                    name if is_path && !name.starts_with("//") => {
                        Ok(Self::Command(Some(name.to_owned())))
                    }
                    _ => Err(Error::Command { text: name.clone() }),
                }
            }
            Capability::Path { path, access } => {
                let access = *access;
                match (path.as_str(), InstancePath::parse(path)) {
                    ("*", _) => Ok(Self::Path { path: None, access }),
                    (_, Some(path)) => Ok(Self::Path {
                        path: Some(path),
                        access,
                    }),
                    (_, None) => Err(Error::Path { text: path.clone() }),
                }
            }
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
            | Self::Command(name)
            | Self::Directory { name, .. } => name.is_some(),
            Self::Path { path, .. } => path.is_some(),
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
                (Self::Directory { access, .. }, Self::Directory { access: wanted, .. })
                | (Self::Path { access, .. }, Self::Path { access: wanted, .. }) => {
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
            | (Self::Command(a), Self::Command(b))
            | (Self::Directory { name: a, .. }, Self::Directory { name: b, .. }) => covers(a, b),
            (Self::Path { path: a, .. }, Self::Path { path: b, .. }) => match (a, b) {
                (None, _) => true,
                (Some(a), Some(b)) => a.covers(b),
                (Some(_), None) => false,
            },
            _ => false,
        }
    }
}

impl Pattern {
    /// The folder that a grant of paths opens for a use of it, and the path below that; none where it does not cover it.
    pub(crate) fn folder_and_rest(&self, wanted: &Self) -> Option<(String, String)> {
        let (
            Self::Path { path, .. },
            Self::Path {
                path: Some(wanted_path),
                ..
            },
        ) = (self, wanted)
        else {
            return None;
        };
        let any = InstancePath {
            is_absolute: wanted_path.is_absolute,
            parts: Vec::new(),
        };
        self.covers(wanted)
            .then(|| path.as_ref().unwrap_or(&any).folder_and_rest(wanted_path))
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
        for text in ["", "/", "../x", "bin/../x", "//bin/x", "bin/", "a*"] {
            assert!(
                Pattern::parse(&Capability::Command(text.to_owned())).is_err(),
                "{text}"
            );
        }
        for text in ["", "..", "a/../b", "a//b", "a/", "/a/./b", "*/a"] {
            let path = Capability::Path {
                path: text.to_owned(),
                access: Access::Read,
            };
            assert!(Pattern::parse(&path).is_err(), "{text}");
        }
        for text in ["", "../x", "bin/git", "/usr/bin/../x", "."] {
            assert!(
                Pattern::parse(&Capability::Program(text.to_owned())).is_err(),
                "{text}"
            );
        }
    }
}

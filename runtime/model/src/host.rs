//! Where instances are: on this machine, or on hosts that are reached over SSH.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

/// How an instance is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// This machine.
    Local,
    /// A host with an SSH server.
    Ssh(Ssh),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Local => f.pad("local:"),
            Host::Ssh(ssh) => f.pad(&ssh.address.to_string()),
        }
    }
}

/// A host that is reached over SSH, with everything that is needed to reach it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ssh {
    pub address: SshAddress,
    pub settings: SshSettings,
}

/// Where an SSH server is, written `ssh://[USER@]HOST[:PORT]`. What is left out is for the SSH client's configuration
/// to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SshAddress {
    pub user: Option<String>,
    /// A name or an address, an IPv6 address without its brackets.
    pub host: String,
    pub port: Option<u16>,
}

/// How a host is reached over SSH.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshSettings {
    /// How long connecting may take, and how long a connected host may be silent.
    pub connect_timeout: Duration,
    /// How often connecting is tried again before the host counts as unreachable.
    pub retries: u32,
    /// Whether the agent runs as root through `sudo -n`.
    pub sudo: bool,
    /// Absolute folder on the host that agents are kept in; `.cutover/agent` in the user's home when left out.
    pub agent_dir: Option<String>,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            retries: 3,
            sudo: false,
            agent_dir: None,
        }
    }
}

/// A text that is not the address of an SSH server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSshAddress {
    #[error("it does not begin with `ssh://`")]
    Scheme,
    #[error("the host is missing")]
    NoHost,
    #[error("`{host}` is not the name or address of a host")]
    Host { host: String },
    #[error("`{host}` is an IPv6 address without brackets")]
    Unbracketed { host: String },
    #[error("`{port}` is not a port from 1 to 65535")]
    Port { port: String },
    #[error("`{user}` is not the name of a user")]
    User { user: String },
    /// The password is not repeated.
    #[error("it holds a password")]
    Password,
    #[error("it goes on after the host, with `{rest}`")]
    Rest { rest: String },
}

impl SshAddress {
    /// Checks and takes a text.
    ///
    /// # Errors
    /// [`InvalidSshAddress`] unless the text is `ssh://[USER@]HOST[:PORT]`.
    pub fn parse(text: &str) -> Result<Self, InvalidSshAddress> {
        let text = text
            .strip_prefix("ssh://")
            .ok_or(InvalidSshAddress::Scheme)?;
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(checked_user(user)?), place),
            None => (None, text),
        };
        let (place, rest) = place.split_at(place.find(['/', '?', '#']).unwrap_or(place.len()));
        if !rest.is_empty() {
            let rest = rest.to_owned();
            return Err(InvalidSshAddress::Rest { rest });
        }
        let (host, port) = if let Some(bracketed) = place.strip_prefix('[') {
            let (host, after) =
                bracketed
                    .split_once(']')
                    .ok_or_else(|| InvalidSshAddress::Host {
                        host: place.to_owned(),
                    })?;
            let port = match after {
                "" => None,
                _ => Some(
                    after
                        .strip_prefix(':')
                        .ok_or_else(|| InvalidSshAddress::Host {
                            host: place.to_owned(),
                        })?,
                ),
            };
            let address = host.split_once('%').map_or(host, |(address, _)| address);
            if address.parse::<Ipv6Addr>().is_err() || !is_plain(&host.replace([':', '%'], "")) {
                return Err(InvalidSshAddress::Host {
                    host: host.to_owned(),
                });
            }
            (host, port)
        } else if place.parse::<Ipv6Addr>().is_ok() {
            return Err(InvalidSshAddress::Unbracketed {
                host: place.to_owned(),
            });
        } else {
            let (host, port) = match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            };
            if host.is_empty() {
                return Err(InvalidSshAddress::NoHost);
            }
            if !is_plain(host) {
                return Err(InvalidSshAddress::Host {
                    host: host.to_owned(),
                });
            }
            (host, port)
        };
        Ok(Self {
            user,
            host: host.to_owned(),
            port: port.map(checked_port).transpose()?,
        })
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Whether a text can be an argument of a program, and a part of a command line that the SSH client's configuration
/// makes of it, without meaning anything else.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn checked_user(user: &str) -> Result<String, InvalidSshAddress> {
    if user.contains(':') {
        return Err(InvalidSshAddress::Password);
    }
    // Users of a directory service are called `name@domain` or `DOMAIN\name`.
    if is_plain(&user.replace(['@', '\\', '+', '$'], "")) && !user.starts_with('-') {
        Ok(user.to_owned())
    } else {
        Err(InvalidSshAddress::User {
            user: user.to_owned(),
        })
    }
}

fn checked_port(port: &str) -> Result<u16, InvalidSshAddress> {
    let number = port
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| port.parse().ok())
        .flatten();
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| InvalidSshAddress::Port {
            port: port.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in [
            "ssh://web-1",
            "ssh://deploy@web-1.example.com:2222",
            "ssh://10.0.0.2:22",
            "ssh://ann@[2001:db8::1]:22",
            "ssh://[fe80::1%eth0]",
            "ssh://EXAMPLE\\ann@web_1",
            "ssh://ann@example.com@web-1",
        ] {
            let address = SshAddress::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_for_its_reason() {
        for (text, reason) in [
            ("web-1", "does not begin"),
            ("ssh://", "host is missing"),
            ("ssh://ann@", "host is missing"),
            ("ssh://ann@:22", "host is missing"),
            ("ssh://web-1:0", "not a port"),
            ("ssh://web-1:65536", "not a port"),
            ("ssh://web-1:", "not a port"),
            ("ssh://web-1:+22", "not a port"),
            ("ssh://::1", "without brackets"),
            ("ssh://[::1", "not the name"),
            ("ssh://[web-1]:22", "not the name"),
            ("ssh://[::1]22", "not the name"),
            ("ssh://-oProxyCommand=x", "not the name"),
            ("ssh://web 1", "not the name"),
            ("ssh://$(x)", "not the name"),
            ("ssh://ann:secret@web-1", "a password"),
            ("ssh://-l@web-1", "name of a user"),
            ("ssh://@web-1", "name of a user"),
            ("ssh://web-1/srv", "goes on after the host, with `/srv`"),
        ] {
            match SshAddress::parse(text) {
                Ok(address) => panic!("`{text}` was taken for {address:?}"),
                Err(error) => assert!(error.to_string().contains(reason), "{text}: {error}"),
            }
        }
    }
}

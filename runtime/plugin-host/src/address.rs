//! Which addresses a request may go to, a plugin's or a download. Names are looked up once, here, and the connection goes
//! to what was checked.
//!
//! INVARIANT: the services that give machines their credentials (`169.254.169.254` and its like) are never asked, whoever
//! names them, and whatever a name or a redirect resolves to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// What kind of address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Public,
    /// Loopback, or a network that is somebody's own: only where the operator says so.
    Private(&'static str),
    /// Never.
    Refused(&'static str),
}

/// How far a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Public,
    Private,
}

/// An address that a request may not go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` is at {address}, {what}")]
pub struct Refused {
    pub host: String,
    pub address: IpAddr,
    pub what: &'static str,
    /// Whether a grant would change it.
    pub may_be_granted: bool,
}

/// Says what kind of address it is.
fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

const METADATA: &str = "where clouds give machines their credentials";
const LINK_LOCAL: &str = "a link-local address";
const LOOPBACK: &str = "this machine itself";
const PRIVATE: &str = "a private network";

fn class_v4(address: Ipv4Addr) -> Class {
    match address.octets() {
        [169, 254, 169, 254] | [169, 254, 170, 2 | 23] | [100, 100, 100, 200] => {
            Class::Refused(METADATA)
        }
        [169, 254, ..] => Class::Refused(LINK_LOCAL),
        [0, ..] => Class::Refused("no address of a server"),
        [224..=239, ..] => Class::Refused("a multicast address"),
        [240..=255, ..] => Class::Refused("a reserved address"),
        [127, ..] => Class::Private(LOOPBACK),
        [10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [198, 18 | 19, ..] => Class::Private(PRIVATE),
        _ => Class::Public,
    }
}

fn class_v6(address: Ipv6Addr) -> Class {
    let embedded =
        |high: u16, low: u16| class_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            Class::Refused(METADATA)
        }
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Refused("no address of a server"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Private(LOOPBACK),
        // The same addresses again, as IPv4 is written in IPv6: mapped, compatible, translated (two ways), and 6to4.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Class::Private(PRIVATE),
        [0x2002, high, low, ..] => embedded(high, low),
        [0xff00..=0xffff, ..] => Class::Refused("a multicast address"),
        [0xfe80..=0xfebf, ..] => Class::Refused(LINK_LOCAL),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private(PRIVATE),
        _ => Class::Public,
    }
}

impl Reach {
    /// Whether a request to a host may go to an address.
    ///
    /// # Errors
    /// [`Refused`] with what the address is.
    pub fn check(self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let (what, may_be_granted) = match (class(address), self) {
            (Class::Public, _) | (Class::Private(_), Self::Private) => return Ok(()),
            (Class::Private(what), Self::Public) => (what, true),
            (Class::Refused(what), _) => (what, false),
        };
        Err(Refused {
            host: host.to_owned(),
            address,
            what,
            may_be_granted,
        })
    }

    /// The same for the host of a URL, where that is an address: where a proxy is asked, nobody here looks it up.
    ///
    /// # Errors
    /// [`Refused`] with what the address is.
    pub fn check_literal(self, uri: &Uri) -> Result<(), Refused> {
        let Some(host) = uri.host() else {
            return Ok(());
        };
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address
            .parse()
            .map_or(Ok(()), |address| self.check(host, address))
    }
}

/// Looks names up and lets only those addresses through that may be reached.
pub struct Checked {
    reach: Reach,
    inner: DefaultResolver,
}

impl Checked {
    /// Lets through what `reach` does.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self {
            reach,
            inner: DefaultResolver::default(),
        }
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

impl Resolver for Checked {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default();
        // The proxy is the operator's own choice, made in the environment. What it resolves it must check itself.
        let usual = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let port = uri.port_u16().unwrap_or(usual);
        let is_proxy = config
            .proxy()
            .is_some_and(|proxy| proxy.host() == host && proxy.port() == port);
        if is_proxy {
            return Ok(found);
        }
        // One that may not be reached spoils them all: a name with such an address is not to be trusted.
        for address in found.iter() {
            self.reach
                .check(host, address.ip())
                .map_err(|refused| ureq::Error::Other(Box::new(refused)))?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(addresses: &[&str], expected: fn(Class) -> bool) {
        for address in addresses {
            let class = class(address.parse().unwrap());
            assert!(expected(class), "{address} is {class:?}");
        }
    }

    #[test]
    fn credentials_of_machines_are_out_of_reach_in_every_spelling() {
        check(
            &[
                "169.254.169.254",
                "::ffff:169.254.169.254",
                "::169.254.169.254",
                "64:ff9b::a9fe:a9fe",
                "2002:a9fe:a9fe::1",
                "fd00:ec2::254",
                "fd20:ce::254",
                "100.100.100.200",
                "169.254.170.2",
            ],
            |class| class == Class::Refused(METADATA),
        );
    }

    #[test]
    fn what_is_no_server_is_refused() {
        check(
            &[
                "0.0.0.0",
                "0.1.2.3",
                "169.254.0.1",
                "224.0.0.1",
                "239.255.255.250",
                "255.255.255.255",
                "::",
                "::ffff:0.0.0.0",
                "fe80::1",
                "febf::1",
                "ff02::1",
            ],
            |class| matches!(class, Class::Refused(_)),
        );
    }

    #[test]
    fn own_networks_are_private() {
        check(
            &[
                "127.0.0.1",
                "127.8.9.1",
                "10.0.0.1",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "100.64.0.1",
                "::1",
                "::ffff:127.0.0.1",
                "::ffff:10.0.0.1",
                "fc00::1",
                "fd12::1",
            ],
            |class| matches!(class, Class::Private(_)),
        );
    }

    #[test]
    fn the_rest_is_public() {
        check(
            &[
                "8.8.8.8",
                "172.32.0.1",
                "100.128.0.1",
                "169.253.1.1",
                "2606:4700::1111",
                "64:ff9b::808:808",
            ],
            |class| class == Class::Public,
        );
    }
}

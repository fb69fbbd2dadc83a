//! What an instance is called in a target group: an id and a port.

use std::fmt;
use std::net::IpAddr;

use cutover_plugin_sdk::{Failure, Member, PoolRef, SideMember};

use crate::config::Config;

/// A target. One machine may be several, with a port each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.port)
    }
}

/// What the operator says of an instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instance<'a> {
    pub(crate) name: &'a str,
    provider_id: Option<&'a str>,
    host: &'a str,
    port: u16,
}

impl<'a> Instance<'a> {
    pub(crate) fn of_member(member: &'a Member) -> Self {
        Self {
            name: &member.target_id,
            provider_id: member.provider_id.as_deref(),
            host: &member.address,
            port: member.port,
        }
    }

    pub(crate) fn of_side(member: &'a SideMember) -> Self {
        Self {
            name: &member.target_id,
            provider_id: member.provider_id.as_deref(),
            host: &member.address,
            port: member.port,
        }
    }

    /// An instance that is asked about by its name: the pool has the rest.
    pub(crate) fn asked(pool: &'a PoolRef, name: &'a str) -> Self {
        let attribute = |what: &str| {
            let key = format!("{what}.{name}");
            let mut attributes = pool.attributes.iter();
            attributes
                .find(|attribute| attribute.key == key)
                .map(|attribute| attribute.value.as_str())
        };
        let address = attribute("address").and_then(|text| text.rsplit_once(':'));
        let (host, port) = address.unwrap_or_default();
        Self {
            name,
            provider_id: attribute("provider-id"),
            host,
            port: port.parse().unwrap_or(0),
        }
    }

    /// What the target group calls the instance.
    pub(crate) fn target(self, config: &Config) -> Result<Target, Failure> {
        let Self { name, host, .. } = self;
        let lacks = |what: &str, hint: String| {
            let message = format!("instance `{name}` has no {what}");
            Err(Failure::invalid("aws.target", message).hint(hint))
        };
        let id = match self.provider_id {
            Some(id) => id,
            None if host.parse::<IpAddr>().is_ok() => host,
            None => {
                return lacks(
                    "`provider_id`, and its address is no IP address",
                    format!(
                        "add `provider_id: i-…` to `{name}`, or write its address with an IP address where the target group has those"
                    ),
                );
            }
        };
        match config.port.unwrap_or(self.port) {
            0 => lacks(
                "port",
                format!("add `address: HOST:PORT` to `{name}`, or `port` to the plugin's config"),
            ),
            port => Ok(Target {
                id: id.to_owned(),
                port,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::{Attribute, parse_config};

    use super::*;

    #[track_caller]
    fn check(attributes: &[(&str, &str)], port: Option<u16>, expected: Result<&str, &str>) {
        let mut config: Config =
            parse_config(r#"{"region": "us-east-1", "access_key": "A"}"#).unwrap();
        config.port = port;
        let attribute = |&(key, value): &(&str, &str)| Attribute {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let pool = PoolRef {
            id: String::new(),
            attributes: attributes.iter().map(attribute).collect(),
        };

        let target = Instance::asked(&pool, "web-1").target(&config);

        let told = target.map(|it| it.to_string()).map_err(|it| it.message);
        assert_eq!(
            told.as_deref().map_err(String::as_str),
            expected,
            "{attributes:?}"
        );
    }

    #[test]
    fn a_target_is_what_the_provider_calls_it_or_an_ip_address() {
        let address = ("address.web-1", "10.0.0.1:8080");
        let id = ("provider-id.web-1", "i-1");
        check(&[address, id], None, Ok("i-1:8080"));
        check(&[address], None, Ok("10.0.0.1:8080"));
        check(&[address], Some(9000), Ok("10.0.0.1:9000"));
        check(&[id], Some(9000), Ok("i-1:9000"));
        check(&[("address.web-1", "fd00::1:80")], None, Ok("fd00::1:80"));
        check(
            &[("address.web-1", "web-1.internal:80")],
            None,
            Err("instance `web-1` has no `provider_id`, and its address is no IP address"),
        );
        check(&[id], None, Err("instance `web-1` has no port"));
        check(
            &[("address.web-2", "10.0.0.2:80")],
            None,
            Err("instance `web-1` has no `provider_id`, and its address is no IP address"),
        );
    }
}

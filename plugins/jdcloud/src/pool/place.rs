//! Where a target is registered, and which of those that are there it is.

use cutover_plugin_sdk::{Failure, Member, PoolRef};

use crate::config::{Config, TargetType};
use crate::lb::{Backend, Target, TargetHealth, TargetSpec};

/// A target as JD Cloud tells it apart: the machine or the address, and the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The id of the machine, or the address.
    pub(super) host: String,
    /// 0: the backend's.
    pub(super) port: u16,
}

impl Place {
    /// Where an instance is registered.
    pub(crate) fn of(
        config: &Config,
        target_id: &str,
        provider_id: Option<&str>,
        address: &str,
        port: u16,
    ) -> Result<Self, Failure> {
        let host = match config.target {
            TargetType::Vm => provider_id.filter(|id| !id.is_empty()).ok_or_else(|| {
                let message =
                    format!("instance `{target_id}` has no `provider_id`, the id of its machine");
                Failure::invalid("jd.no-provider-id", message).hint(
                    "write `provider_id: i-…` at the instance, or `target: ip` to register addresses",
                )
            })?,
            TargetType::Ip => Some(address).filter(|it| !it.is_empty()).ok_or_else(|| {
                let message = format!("instance `{target_id}` has no `address`");
                Failure::invalid("jd.no-address", message)
                    .hint("write `address: \"IP:PORT\"` at the instance")
            })?,
        };
        Ok(Self {
            host: host.to_owned(),
            port: config.port.unwrap_or(port),
        })
    }

    pub(crate) fn of_target(target: &Target) -> Self {
        Self {
            host: host(&target.target_type, &target.instance_id, &target.ip_address),
            port: target.port,
        }
    }

    /// Where a target of a type was probed.
    pub(super) fn of_health(target_type: &str, health: &TargetHealth) -> Self {
        Self {
            host: host(target_type, &health.instance_id, &health.ip_address),
            port: health.port,
        }
    }

    /// Where a target is to be registered.
    pub(super) fn of_spec(spec: &TargetSpec) -> Self {
        let host = spec.instance_id.as_ref().or(spec.ip_address.as_ref());
        Self {
            host: host.cloned().unwrap_or_default(),
            port: spec.port,
        }
    }

    /// Whether it is the same socket: a port of 0 is that of the backend.
    pub(crate) fn is(&self, other: &Self, backend: &Backend) -> bool {
        let port = |place: &Self| match place.port {
            0 => backend.port,
            port => port,
        };
        self.host == other.host && port(self) == port(other)
    }

    pub(crate) fn spec(&self, config: &Config, weight: u32) -> TargetSpec {
        let (instance_id, ip_address) = match config.target {
            TargetType::Vm => (Some(self.host.clone()), None),
            TargetType::Ip => (None, Some(self.host.clone())),
        };
        TargetSpec {
            instance_id,
            target_type: match config.target {
                TargetType::Vm => "vm",
                TargetType::Ip => "ip",
            },
            port: self.port,
            weight,
            ip_address,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            0 => write!(f, "{}", self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

/// What a target of a type is told by.
fn host(target_type: &str, instance_id: &str, ip_address: &str) -> String {
    match target_type {
        "ip" => ip_address.to_owned(),
        _ => instance_id.to_owned(),
    }
}

/// The target at a place.
pub(crate) fn found<'t>(
    present: &'t [Target],
    place: &Place,
    backend: &Backend,
) -> Option<&'t Target> {
    present
        .iter()
        .find(|target| Place::of_target(target).is(place, backend))
}

pub(super) fn place_of(config: &Config, member: &Member) -> Result<Place, Failure> {
    Place::of(
        config,
        &member.target_id,
        member.provider_id.as_deref(),
        &member.address,
        member.port,
    )
}

/// The place of a member of which only the name is given; the host tells the rest as attributes of the pool.
pub(super) fn place_in(config: &Config, pool: &PoolRef, target_id: &str) -> Result<Place, Failure> {
    let attribute = |prefix: &str| {
        let mut attributes = pool.attributes.iter();
        let found = attributes.find(|it| it.key.strip_prefix(prefix) == Some(target_id));
        found.map(|it| it.value.as_str())
    };
    let (address, port) = attribute("address.")
        .and_then(|address| address.rsplit_once(':'))
        .map_or(("", 0), |(host, port)| (host, port.parse().unwrap_or(0)));
    Place::of(config, target_id, attribute("provider-id."), address, port)
}

//! The instances of a group.

use std::collections::{BTreeMap, HashMap};

use model::{Host, Instance, InstanceId, InvalidSshAddress, Ssh, SshAddress, SshSettings};

use super::ssh;

use crate::fields::{Field, Shape, environment};
use crate::problem::{Collector, excerpt};

pub(super) static INSTANCE: Shape = Shape {
    name: "instance",
    keys: &[
        "id",
        "host",
        "ssh",
        "rootdir",
        "address",
        "provider_id",
        "labels",
        "env",
    ],
    aliases: &[],
};

/// What instances take from their group.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) rootdir: String,
    pub(super) env: BTreeMap<String, String>,
    pub(super) ssh: SshSettings,
}

/// The instances of one group that have been read so far, for what must be unique among them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    lines: HashMap<InstanceId, usize>,
    /// By host and rootdir.
    places: HashMap<(String, String), InstanceId>,
}

pub(super) fn parse_all(
    field: Field<'_>,
    inherited: &Inherited,
    seen: &mut Seen,
    problems: &mut Collector,
) -> Vec<Instance> {
    let items = field.items("instances", problems);
    if items.is_empty() && matches!(field.node.value, crate::yaml::Value::Sequence(_)) {
        problems.error(field.at(), "a group needs at least one instance");
    }
    let mut instances: Vec<Instance> = Vec::new();
    for item in items {
        let Some(instance) = parse(item, inherited, problems) else {
            continue;
        };
        let place = (instance.host.to_string(), instance.rootdir.clone());
        if let Some(first) = seen.lines.insert(instance.id.clone(), item.at().line) {
            let message = format!(
                "the instance `{}` is given twice, first on line {first}",
                instance.id
            );
            problems.error(item.at(), message);
        } else if let Some(other) = seen.places.insert(place, instance.id.clone()) {
            let message = format!(
                "`{other}` and `{}` share the rootdir `{}` on one host",
                instance.id,
                excerpt(&instance.rootdir)
            );
            let hint = "give each instance a `rootdir` of its own";
            problems.error_with_hint(item.at(), message, hint);
        }
        instances.push(instance);
    }
    instances
}

fn parse(item: Field<'_>, inherited: &Inherited, problems: &mut Collector) -> Option<Instance> {
    let fields = item.fields(&INSTANCE, problems)?;
    let id = fields
        .required("id", problems)
        .and_then(|field| field.parsed(str::parse::<InstanceId>, problems));
    let host = fields
        .required("host", problems)
        .and_then(|field| host(field, problems));
    let settings = ssh::parse(fields.get("ssh"), &inherited.ssh, problems);
    if let (Some(Where::Here), Some(field)) = (&host, fields.get("ssh")) {
        let message = "`ssh` is for hosts that are reached over SSH, and this is `local:`";
        problems.error(field.name_at, message);
    }
    let own_rootdir = fields
        .get("rootdir")
        .map_or(Some(inherited.rootdir.clone()), |field| {
            rootdir(field, problems)
        });
    let address = match fields.get("address") {
        Some(field) => address(field, problems).map(Some),
        None => Some(None),
    };
    let provider_id = match fields.get("provider_id") {
        Some(field) => provider_id(field, problems).map(Some),
        None => Some(None),
    };
    let labels = fields
        .get("labels")
        .map(|field| labels(field, problems))
        .unwrap_or_default();
    let mut env = inherited.env.clone();
    env.extend(environment(fields.get("env"), problems));
    Some(Instance {
        id: id?,
        host: match host? {
            Where::Here => Host::Local,
            Where::Ssh(address) => Host::Ssh(Ssh { address, settings }),
        },
        rootdir: own_rootdir?,
        address: address?,
        provider_id: provider_id?,
        labels,
        env,
    })
}

/// What `host` says.
enum Where {
    Here,
    Ssh(SshAddress),
}

const HOSTS: &str = "`local:` or `ssh://[USER@]HOST[:PORT]`";

fn host(field: Field<'_>, problems: &mut Collector) -> Option<Where> {
    let text = field.text(problems)?;
    if text == "local:" {
        return Some(Where::Here);
    }
    if text.starts_with("ssh:") {
        let error = match SshAddress::parse(text) {
            Ok(address) => return Some(Where::Ssh(address)),
            Err(error) => error,
        };
        // A text with a password in it is not repeated.
        let message = match error {
            InvalidSshAddress::Password => format!("`host`: {error}"),
            _ => format!("`host`: `{}` is not an address: {error}", excerpt(text)),
        };
        problems.error_with_hint(field.at(), message, hint(&error));
    } else if text.starts_with("agent:") {
        let message = format!(
            "the host `{}` is not supported by this version of cutover",
            excerpt(text)
        );
        problems.error_with_hint(field.at(), message, format!("use {HOSTS}"));
    } else {
        let message = format!("`host`: expected {HOSTS}, found text `{}`", excerpt(text));
        if SshAddress::parse(&format!("ssh://{text}")).is_ok() && text != "local" {
            let hint = format!("write `ssh://{}`", excerpt(text));
            problems.error_with_hint(field.at(), message, hint);
        } else {
            problems.error_with_suggestion(field.at(), message, text, &["local:"]);
        }
    }
    None
}

fn hint(error: &InvalidSshAddress) -> String {
    match error {
        InvalidSshAddress::Password => {
            "use a key: passwords are neither kept nor asked for".to_owned()
        }
        InvalidSshAddress::Unbracketed { host } => format!("write `ssh://[{}]`", excerpt(host)),
        InvalidSshAddress::Rest { .. } => {
            "leave that out; the instance's folder is its `rootdir`".to_owned()
        }
        _ => "write `ssh://USER@HOST:PORT`; user and port may be left out".to_owned(),
    }
}

/// Reads an absolute folder, without the slashes at its end.
pub(super) fn rootdir(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    if !text.starts_with('/') {
        let message = format!(
            "`{}`: expected an absolute path, found text `{}`",
            field.name,
            excerpt(text)
        );
        let hint = format!(
            "begin the path with `/`, for example `/opt/{}`",
            excerpt(text.trim_start_matches("./"))
        );
        problems.error_with_hint(field.at(), message, hint);
        return None;
    }
    let trimmed = text.trim_end_matches('/');
    if trimmed.is_empty() || trimmed.split('/').any(|part| part == "..") {
        let message = format!(
            "`{}`: expected a folder of its own, found text `{}`",
            field.name,
            excerpt(text)
        );
        problems.error(field.at(), message);
        return None;
    }
    Some(trimmed.to_owned())
}

fn address(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    let is_host = |host: &str| {
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && !host.contains([':', '/', '@', '[', ']'])
                    && !host.contains(char::is_whitespace)
            }
        }
    };
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && is_port(port) => Some(text.to_owned()),
        _ => {
            field.mismatch(
                "`HOST:PORT` such as `10.0.0.2:8081` or `[::1]:8081`",
                problems,
            );
            None
        }
    }
}

/// Reads what the provider calls the instance. Each provider has a form of its own, which its plugin knows.
fn provider_id(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        field.mismatch(
            "the provider's name of the instance, such as `i-0123456789abcdef0`, in one word",
            problems,
        );
        return None;
    }
    Some(text.to_owned())
}

/// Reads labels. A release plan separates them by commas, so a label has none.
fn labels(field: Field<'_>, problems: &mut Collector) -> Vec<String> {
    let mut labels = Vec::new();
    for item in field.items("labels", problems) {
        match item.text(problems) {
            Some(label) if label.contains(',') => {
                problems.error(
                    item.at(),
                    format!("the label `{}` contains a comma", excerpt(label)),
                );
            }
            Some(label) => labels.push(label.to_owned()),
            None => {}
        }
    }
    labels
}

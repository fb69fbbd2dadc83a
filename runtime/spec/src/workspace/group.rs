//! One deployment group.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use model::{
    Amount, Balancer, Batching, Gate, GroupRef, Instance, LifecycleEvent, OnFailure, PluginName,
    Router, Script, SideGroup, SshSettings, Strategy,
};

use super::{instance, ssh, strategy};
use crate::fields::{BareNumber, Field, Shape, environment};
use crate::hooks::{self, Notation, within_package};
use crate::json;
use crate::problem::{Collector, Position, excerpt, quoted_list, suggestion};
use crate::yaml::Value;

pub(super) static GROUP: Shape = Shape {
    name: "group",
    keys: &[
        "service_id",
        "rootdir",
        "env",
        "ssh",
        "instances",
        "strategy",
        "load_balancer",
        "scripts",
        "appspec",
        "keep_revisions",
    ],
    aliases: &[],
    unsupported: &["sides", "traffic"],
};

pub(super) static BALANCER: Shape = Shape {
    name: "load-balancer",
    keys: &["plugin", "config", "timeout"],
    aliases: &[],
    unsupported: &[],
};

/// The folder of an instance whose `rootdir` is left out.
const DEFAULT_ROOTDIR: &str = "/opt/cutover";
/// The longest wait for a load balancer when `timeout` is left out.
const DEFAULT_BALANCER_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const DEFAULT_KEEP_REVISIONS: u32 = 5;

/// A deployment group: instances with one strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub reference: GroupRef,
    /// How release plans name the group.
    pub service_id: Option<u64>,
    /// In the order of the file; those of all sides where sides have instances of their own.
    pub instances: Vec<Instance>,
    /// The two sides of a blue-green or canary group, in the order of the file.
    pub sides: Vec<SideGroup>,
    pub strategy: Strategy,
    pub batching: Batching,
    pub wait_between: Duration,
    /// The label by whose values the instances are interleaved.
    pub spread_by: Option<String>,
    pub failure_threshold: Amount,
    pub batch_failure_threshold: Option<Amount>,
    pub minimum_healthy: Option<Amount>,
    pub gates: Vec<Gate>,
    pub on_failure: OnFailure,
    pub balancer: Option<Balancer>,
    /// What moves the traffic between the sides.
    pub router: Option<Router>,
    /// The form: scripts that stand in for the hooks of the package.
    pub form: Option<BTreeMap<LifecycleEvent, Vec<Script>>>,
    /// The appspec within the package, where it is not one of the usual names.
    pub appspec: Option<String>,
    /// Revisions to keep on an instance besides those that a rollback needs.
    pub keep_revisions: u32,
    /// Where the group's name is.
    pub at: Position,
    /// Where its load balancer is, and its name where it has none.
    pub balancer_at: Position,
    /// Where `traffic` is, and the group's name where it has none.
    pub router_at: Position,
}

/// What the groups of a workspace share.
#[derive(Debug)]
pub(super) struct Seen<'n> {
    /// Names of the declared plugins.
    pub(super) plugins: &'n [&'n str],
    /// The groups that have a service id, each with its line.
    pub(super) service_ids: HashMap<u64, (String, usize)>,
}

/// Reads a group. Without a valid name it is read for its problems only.
pub(super) fn parse(
    field: Field<'_>,
    reference: Option<GroupRef>,
    seen: &mut Seen<'_>,
    problems: &mut Collector,
) -> Option<Group> {
    let fields = field.fields(&GROUP, problems)?;
    let service_id = fields
        .get("service_id")
        .and_then(|id| service_id(id, field.name, seen, problems));
    let rootdir = fields
        .get("rootdir")
        .and_then(|field| instance::rootdir(field, problems));
    let inherited = instance::Inherited {
        rootdir: rootdir.unwrap_or_else(|| DEFAULT_ROOTDIR.to_owned()),
        env: environment(fields.get("env"), problems),
        ssh: ssh::parse(fields.get("ssh"), &SshSettings::default(), problems),
    };
    // A group that has `sides` has its instances there; it is refused for them alone.
    let has_sides = field_has(field, "sides");
    let instances = match fields.get("instances") {
        Some(field) => instance::parse_all(field, &inherited, problems),
        None => {
            if !has_sides {
                fields.required("instances", problems);
            }
            Vec::new()
        }
    };
    let settings = match fields.get("strategy") {
        Some(field) => strategy::parse(field, problems),
        None => Some(strategy::Settings::default()),
    };
    let balancer = fields
        .get("load_balancer")
        .and_then(|field| balancer(field, seen.plugins, problems));
    let form = fields.get("scripts").map(|field| form(field, problems));
    let appspec = fields
        .get("appspec")
        .and_then(|field| appspec(field, problems));
    let keep_revisions = fields
        .get("keep_revisions")
        .and_then(|field| field.number(0..=1000, problems));
    let settings = settings?;
    Some(Group {
        reference: reference?,
        service_id,
        instances,
        sides: Vec::new(),
        strategy: settings.strategy,
        batching: settings.batching,
        wait_between: Duration::ZERO,
        spread_by: None,
        failure_threshold: settings.failure_threshold,
        batch_failure_threshold: None,
        minimum_healthy: None,
        gates: Vec::new(),
        on_failure: settings.on_failure,
        balancer,
        router: None,
        form,
        appspec,
        keep_revisions: keep_revisions
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(DEFAULT_KEEP_REVISIONS),
        at: field.name_at,
        balancer_at: fields
            .get("load_balancer")
            .map_or(field.name_at, |field| field.name_at),
        router_at: field.name_at,
    })
}

fn service_id(
    field: Field<'_>,
    group: &str,
    seen: &mut Seen<'_>,
    problems: &mut Collector,
) -> Option<u64> {
    let id = field.number(0..=u64::MAX, problems)?;
    if let Some((owner, line)) = seen.service_ids.get(&id) {
        let message = format!(
            "the `service_id` {id} belongs to the group `{}` on line {line}",
            excerpt(owner)
        );
        problems.error(field.at(), message);
        return None;
    }
    seen.service_ids
        .insert(id, (group.to_owned(), field.at().line));
    Some(id)
}

fn field_has(field: Field<'_>, key: &str) -> bool {
    matches!(&field.node.value, Value::Mapping(entries) if entries.iter().any(|entry| entry.key == key))
}

fn form(field: Field<'_>, problems: &mut Collector) -> BTreeMap<LifecycleEvent, Vec<Script>> {
    let hooks = hooks::parse(field, Notation::Form, problems);
    hooks
        .into_iter()
        .map(|(event, scripts)| {
            (
                event,
                scripts.into_iter().map(|(script, _)| script).collect(),
            )
        })
        .collect()
}

/// The name of an appspec: a path within the package.
fn appspec(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    let path = within_package(text).filter(|path| !path.is_empty());
    if path.is_none() {
        let message = format!(
            "`appspec`: `{}` is not the path of a file in the package",
            excerpt(text)
        );
        problems.error_with_hint(
            field.at(),
            message,
            "give a path such as `appspec.yml` or `deploy/web.yml`",
        );
    }
    path
}

fn balancer(field: Field<'_>, plugins: &[&str], problems: &mut Collector) -> Option<Balancer> {
    let fields = field.fields(&BALANCER, problems)?;
    let plugin = fields
        .required("plugin", problems)
        .and_then(|field| declared_plugin(field, plugins, problems));
    let config = json::config(fields.get("config"), problems);
    let timeout = match fields.get("timeout") {
        Some(field) => field.duration(BareNumber::Refused, problems),
        None => Some(DEFAULT_BALANCER_TIMEOUT),
    };
    Some(Balancer::Plugin {
        plugin: plugin?,
        config: config?,
        timeout: timeout?,
    })
}

fn declared_plugin(
    field: Field<'_>,
    plugins: &[&str],
    problems: &mut Collector,
) -> Option<PluginName> {
    let text = field.text(problems)?;
    if plugins.contains(&text) {
        // A declared plugin with a bad name is reported where it is declared.
        return PluginName::parse(text).ok();
    }
    let message = match plugins {
        [] => format!(
            "the plugin `{}` is not declared; `plugins` has none",
            excerpt(text)
        ),
        _ => format!(
            "the plugin `{}` is not declared; `plugins` has {}",
            excerpt(text),
            quoted_list(plugins)
        ),
    };
    let hint = match suggestion(text, plugins) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!(
            "declare it: `plugins: {{{}: {{component: …}}}}`",
            excerpt(text)
        ),
    };
    problems.error_with_hint(field.at(), message, hint);
    None
}

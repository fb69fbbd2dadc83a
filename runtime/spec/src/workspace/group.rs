//! One deployment group.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use model::{
    Amount, Balancer, Batching, Gate, GroupRef, Instance, InstanceId, LifecycleEvent, OnFailure,
    PluginName, Router, Script, SideGroup, SshSettings, Strategy,
};

use super::build::{self, Build};
use super::plugin::declared;
use super::strategy::Kind;
use super::{gate, instance, sides, ssh, strategy};
use crate::fields::{BareNumber, Field, Fields, Shape, environment};
use crate::hooks::{self, Notation, within_package};
use crate::json;
use crate::problem::{Collector, Position, excerpt, suggestion};

pub(super) static GROUP: Shape = Shape {
    name: "group",
    keys: &[
        "service_id",
        "rootdir",
        "env",
        "ssh",
        "instances",
        "sides",
        "strategy",
        "load_balancer",
        "traffic",
        "gates",
        "scripts",
        "appspec",
        "build",
        "keep_revisions",
    ],
    aliases: &[],
};

pub(super) static BALANCER: Shape = Shape {
    name: "load-balancer",
    keys: &["plugin", "config", "timeout"],
    aliases: &[],
};

pub(super) static ROUTER: Shape = Shape {
    name: "traffic",
    keys: &["plugin", "config", "timeout"],
    aliases: &[],
};

/// The folder of an instance whose `rootdir` is left out.
const DEFAULT_ROOTDIR: &str = "/opt/cutover";
/// The longest wait for a load balancer, or for a switch, when `timeout` is left out.
const DEFAULT_TRAFFIC_TIMEOUT: Duration = Duration::from_secs(5 * 60);
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
    /// Whether the file says how many instances go at once.
    pub is_bounded: bool,
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
    /// How the service is built from its sources.
    pub build: Option<Build>,
    /// Revisions to keep on an instance besides those that a rollback needs.
    pub keep_revisions: u32,
    /// Where the group's name is.
    pub at: Position,
    /// Where its load balancer is, and its name where it has none.
    pub balancer_at: Position,
    /// Where `traffic` is, and the group's name where it has none.
    pub router_at: Position,
    /// Where each of its gates is.
    pub gates_at: Vec<Position>,
}

/// An instance that a group does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{group} has no instance `{instance}`")]
pub struct UnknownInstance {
    pub group: GroupRef,
    pub instance: InstanceId,
    /// An instance whose name is near.
    pub suggestion: Option<String>,
    /// The instances of the group, in order.
    pub known: Vec<InstanceId>,
}

impl Group {
    /// Where a gate is, and the group's name where it has none of this name.
    #[must_use]
    pub fn gate_at(&self, name: &str) -> Position {
        let mut gates = self.gates.iter().zip(&self.gates_at);
        gates
            .find(|(gate, _)| gate.name == name)
            .map_or(self.at, |(_, at)| *at)
    }

    /// Finds an instance by its name.
    ///
    /// # Errors
    /// [`UnknownInstance`] with the known ones when there is none.
    pub fn instance(&self, id: &InstanceId) -> Result<&Instance, UnknownInstance> {
        let found = self.instances.iter().find(|instance| instance.id == *id);
        found.ok_or_else(|| {
            let known: Vec<_> = self
                .instances
                .iter()
                .map(|instance| instance.id.clone())
                .collect();
            let names: Vec<_> = known.iter().map(InstanceId::as_str).collect();
            UnknownInstance {
                group: self.reference.clone(),
                instance: id.clone(),
                suggestion: suggestion(id.as_str(), &names).map(str::to_owned),
                known,
            }
        })
    }
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
    let kind = strategy::kind(fields.get("strategy"), problems);
    let members = sides::parse(&fields, kind, &inherited, problems);
    let settings = match fields.get("strategy") {
        Some(field) => strategy::parse(field, kind, &members, problems),
        None => Some(strategy::Settings::default()),
    };
    let balancer = fields
        .get("load_balancer")
        .and_then(|field| balancer(field, seen.plugins, problems));
    let router = fields
        .get("traffic")
        .and_then(|field| router(field, seen.plugins, problems));
    if let Some(kind) = kind {
        fits_traffic(&fields, kind, problems);
    }
    let gates = fields
        .get("gates")
        .map_or(Some(Default::default()), |field| {
            gate::parse_all(field, seen.plugins, problems)
        });
    let form = fields.get("scripts").map(|field| form(field, problems));
    let appspec = fields
        .get("appspec")
        .and_then(|field| appspec(field, problems));
    let build = fields
        .get("build")
        .and_then(|field| build::parse(field, problems));
    let keep_revisions = fields
        .get("keep_revisions")
        .and_then(|field| field.number(0..=1000, problems));
    let settings = settings?;
    let (gates, gates_at) = gates?;
    let place = |key: &str| fields.get(key).map_or(field.name_at, |field| field.name_at);
    Some(Group {
        reference: reference?,
        service_id,
        instances: members.instances,
        sides: members.sides,
        strategy: settings.strategy,
        batching: settings.batching,
        is_bounded: settings.is_bounded,
        wait_between: settings.wait_between,
        spread_by: settings.spread_by,
        failure_threshold: settings.failure_threshold,
        batch_failure_threshold: settings.batch_failure_threshold,
        minimum_healthy: settings.minimum_healthy,
        gates,
        on_failure: settings.on_failure,
        balancer,
        router,
        form,
        appspec,
        build,
        keep_revisions: keep_revisions
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(DEFAULT_KEEP_REVISIONS),
        at: field.name_at,
        balancer_at: place("load_balancer"),
        router_at: place("traffic"),
        gates_at,
    })
}

/// Holds `traffic` and `load_balancer` against what the strategy does with the traffic.
fn fits_traffic(fields: &Fields<'_>, kind: Kind, problems: &mut Collector) {
    let traffic = fields.get("traffic");
    let share = fields
        .get("strategy")
        .and_then(|strategy| strategy.member("traffic"));
    match kind {
        Kind::Rolling => {
            if let Some(traffic) = traffic {
                problems.error_with_hint(
                    traffic.name_at,
                    "`traffic` is for the strategies `blue-green` and `canary`, and this is `rolling`",
                    "set the `type` of `strategy`; instances of a rolling deployment leave and join a `load_balancer`",
                );
            }
        }
        Kind::BlueGreen => {
            fields.required_for(
                "traffic",
                "the strategy `blue-green` switches it from side to side",
                "write `traffic: {plugin: NAME, config: {…}}`",
                problems,
            );
        }
        Kind::Canary => {
            if let Some(traffic) = traffic
                && fields.get("load_balancer").is_none()
            {
                problems.error_with_hint(
                    traffic.name_at,
                    "`traffic` of a `canary` needs a `load_balancer` too: its instances leave one side and join the other",
                    "write `load_balancer: {plugin: NAME, config: {…}}`",
                );
            }
            if traffic.is_none() {
                for what in share.into_iter().chain(fields.get("sides")) {
                    let message = format!(
                        "`{}` needs the group's `traffic`: nothing moves the traffic without it",
                        what.name
                    );
                    let hint = "write `traffic: {plugin: NAME, config: {…}}` in the group, or leave this out";
                    problems.error_with_hint(what.name_at, message, hint);
                }
            }
        }
    }
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
    let (plugin, config, timeout) = plugin_call(field, &BALANCER, plugins, problems)?;
    Some(Balancer::Plugin {
        plugin,
        config,
        timeout,
    })
}

fn router(field: Field<'_>, plugins: &[&str], problems: &mut Collector) -> Option<Router> {
    let (plugin, config, timeout) = plugin_call(field, &ROUTER, plugins, problems)?;
    Some(Router::Plugin {
        plugin,
        config,
        timeout,
    })
}

/// The plugin, its configuration and the longest wait for it.
fn plugin_call(
    field: Field<'_>,
    shape: &'static Shape,
    plugins: &[&str],
    problems: &mut Collector,
) -> Option<(PluginName, String, Duration)> {
    let fields = field.fields(shape, problems)?;
    let plugin = fields
        .required("plugin", problems)
        .and_then(|field| declared(field, plugins, problems));
    let config = json::config(fields.get("config"), problems);
    let timeout = match fields.get("timeout") {
        Some(field) => field.duration(BareNumber::Refused, problems),
        None => Some(DEFAULT_TRAFFIC_TIMEOUT),
    };
    Some((plugin?, config?, timeout?))
}

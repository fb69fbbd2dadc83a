//! What can be known of a group's plugins before a release: the load balancer, the router and the gates, their
//! configurations, the grants, and whether they answer at all.

use std::collections::BTreeMap;

use engine::split::Means;
use model::{
    Balancer, Digest, Gate, GateCheck, GroupRef, Instance, PluginName, Router, Shares, SideGroup,
    SideName, Strategy,
};
use plugin_host::gate::{Input, Target};
use plugin_host::traffic::Purpose;
use plugin_host::{CallError, Diagnostic, FailureClass, OpContext, Plugin, Severity};
use spec::workspace::Group;

use crate::balancer::{member_of, pool_of};
use crate::drive::now;
use crate::plan::chain;
use crate::plugins::{PluginError, Plugins, implements};
use crate::pool::{Pool, pools};
use crate::router::{asked, means, shares_of};

/// A load balancer that a release must not begin with.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error("plugin `{plugin}` of {group} is no load balancer: it implements {implements}")]
    NotABalancer {
        plugin: PluginName,
        group: String,
        implements: String,
    },
    #[error("load_balancer.config of {group} is not valid: {}", problems.join("; "))]
    Config {
        group: String,
        problems: Vec<String>,
    },
    #[error("plugin `{plugin}` of {group} is no router: it implements {implements}")]
    NotARouter {
        plugin: PluginName,
        group: String,
        implements: String,
    },
    #[error("traffic.config of {group} is not valid: {}", problems.join("; "))]
    RouterConfig {
        group: String,
        problems: Vec<String>,
    },
    #[error("the traffic of {group} cannot be moved: {}", problems.join("; "))]
    Sides {
        group: String,
        problems: Vec<String>,
    },
    #[error("ask plugin `{plugin}` how the traffic of {group} is split")]
    Split {
        plugin: PluginName,
        group: String,
        hint: Option<String>,
        source: Box<CallError>,
    },
    #[error("the router of {group} says two things of the traffic: {message}")]
    Apart {
        group: String,
        /// Which place says what.
        message: String,
    },
    #[error("plugin `{plugin}` cannot decide gate `{gate}` of {group}: it implements {implements}")]
    NotAGate {
        plugin: PluginName,
        gate: String,
        group: String,
        implements: String,
    },
    #[error("the config of gate `{gate}` of {group} is not valid: {}", problems.join("; "))]
    GateConfig {
        gate: String,
        group: String,
        problems: Vec<String>,
    },
    #[error("ask plugin `{plugin}` about gate `{gate}` of {group}")]
    AskGate {
        plugin: PluginName,
        gate: String,
        group: String,
        hint: Option<String>,
        source: Box<CallError>,
    },
    #[error("plugins.{plugin}.config is not valid: {}", problems.join("; "))]
    SourceConfig {
        plugin: PluginName,
        problems: Vec<String>,
    },
    #[error("ask plugin `{plugin}` to check its configuration")]
    CheckSource {
        plugin: PluginName,
        source: Box<CallError>,
    },
    #[error("instance `{instance}` of {group}: {reason}")]
    Address {
        instance: String,
        group: String,
        reason: String,
    },
    #[error("ask plugin `{plugin}` of {group} to check its configuration")]
    Check {
        plugin: PluginName,
        group: String,
        source: Box<CallError>,
    },
    #[error("ask plugin `{plugin}` where the instances of {group} stand")]
    Status {
        plugin: PluginName,
        group: String,
        hint: Option<String>,
        source: Box<CallError>,
    },
}

impl PreflightError {
    /// The gate that it is about, where it is about one.
    #[must_use]
    pub fn gate(&self) -> Option<&str> {
        match self {
            Self::NotAGate { gate, .. }
            | Self::GateConfig { gate, .. }
            | Self::AskGate { gate, .. } => Some(gate),
            _ => None,
        }
    }
}

/// Checks the group's balancer with the groups of all its sides, and reads from it. Answers with the digests of the plugins in use; what is odd but no
/// reason to refuse goes to `warnings`.
///
/// # Errors
/// [`PreflightError`] for whatever would fail at the first instance.
pub async fn balancer(
    plugins: &Plugins,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<PluginName, Digest>, PreflightError> {
    let Some(Balancer::Plugin {
        plugin: plugin_name,
        config,
        ..
    }) = &group.balancer
    else {
        return Ok(BTreeMap::new());
    };
    let plugin = plugins.get(plugin_name).await?;
    let name = || group.reference.to_string();
    if !plugin.provides().load_balancer {
        let implements = implements(plugin.provides());
        return Err(PreflightError::NotABalancer {
            plugin: plugin_name.clone(),
            group: name(),
            implements,
        });
    }
    let sides = sides(group);
    for pool in pools(config, &sides, group.instances.iter()) {
        let what = format!("load_balancer.config of {}", group.reference);
        let problems = validated(&plugin, &pool.config, &group.reference, &what, warnings).await?;
        if !problems.is_empty() {
            return Err(PreflightError::Config {
                group: name(),
                problems,
            });
        }
        read(&plugin, &pool, &group.reference, warnings).await?;
    }
    Ok(BTreeMap::from([(
        plugin_name.clone(),
        plugin.digest().clone(),
    )]))
}

/// What a router tells before a release.
#[derive(Debug, Clone, Default)]
pub struct Routed {
    /// Digests of the plugins in use.
    pub plugins: BTreeMap<PluginName, Digest>,
    /// How the traffic is split; absent where the router does not answer, and where no plugin moves the traffic.
    pub shares: Option<Shares>,
}

/// The sides that a deployment to a group goes between. A canary of one group has two by name only.
#[must_use]
pub fn sides(group: &Group) -> Vec<SideGroup> {
    if !group.sides.is_empty() || group.router.is_none() {
        return group.sides.clone();
    }
    ["current", "new"]
        .into_iter()
        .map(|name| SideGroup {
            name: SideName::parse(name)
                .unwrap_or_else(|error| unreachable!("a name of ours: {error}")),
            group: "{}".to_owned(),
            instances: Vec::new(),
        })
        .collect()
}

/// Checks the group's router, whether it can do what the strategy asks of it, and reads how the traffic is split.
///
/// # Errors
/// [`PreflightError`] for whatever would fail at the first switch.
pub async fn router(
    plugins: &Plugins,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<Routed, PreflightError> {
    let members = members(group, &sides(group));
    router_of(plugins, group, &members, warnings).await
}

/// The same, with these instances on the sides.
pub(crate) async fn router_of(
    plugins: &Plugins,
    group: &Group,
    members: &BTreeMap<SideName, Vec<Instance>>,
    warnings: &mut Vec<String>,
) -> Result<Routed, PreflightError> {
    let Some(Router::Plugin {
        plugin: plugin_name,
        config,
        ..
    }) = &group.router
    else {
        return Ok(Routed::default());
    };
    let plugin = plugins.get(plugin_name).await?;
    let name = || group.reference.to_string();
    if !plugin.provides().router {
        let implements = implements(plugin.provides());
        return Err(PreflightError::NotARouter {
            plugin: plugin_name.clone(),
            group: name(),
            implements,
        });
    }
    let what = format!("traffic.config of {}", group.reference);
    let problems = validated(&plugin, config, &group.reference, &what, warnings).await?;
    if !problems.is_empty() {
        return Err(PreflightError::RouterConfig {
            group: name(),
            problems,
        });
    }
    let sides = sides(group);
    let asked = asked(sides.iter(), members).map_err(|problem| PreflightError::Sides {
        group: name(),
        problems: vec![problem],
    })?;
    let purpose = match group.strategy {
        Strategy::BlueGreen { .. } | Strategy::Rolling => Purpose::Switch,
        Strategy::Canary { .. } => Purpose::Weighted,
    };
    let context = context(&group.reference);
    let mut routed = Routed {
        plugins: BTreeMap::from([(plugin_name.clone(), plugin.digest().clone())]),
        shares: None,
    };
    let found = plugin.check_split(&context, config, &asked, purpose).await;
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            away(error, &plugin, group, warnings)?;
            return Ok(routed);
        }
    };
    let problems = sorted(found, &format!("traffic of {}", group.reference), warnings);
    if !problems.is_empty() {
        return Err(PreflightError::Sides {
            group: name(),
            problems,
        });
    }
    match plugin.split(&context, config, &asked).await {
        Ok(split) => {
            if let Some(differs) = split.differs {
                return Err(PreflightError::Apart {
                    group: name(),
                    message: differs.message,
                });
            }
            let shares =
                shares_of(&split.shares, &sides).map_err(|problem| PreflightError::Sides {
                    group: name(),
                    problems: vec![problem],
                })?;
            routed.shares = Some(shares);
        }
        Err(error) => away(error, &plugin, group, warnings)?,
    }
    Ok(routed)
}

/// The instances that may be on each side when a deployment begins.
fn members(group: &Group, sides: &[SideGroup]) -> BTreeMap<SideName, Vec<Instance>> {
    let of = |index: usize, side: &SideGroup| -> Vec<Instance> {
        if matches!(group.strategy, Strategy::BlueGreen { .. }) {
            return side.instances.clone();
        }
        match means(sides) {
            // The sides take turns at being the one that all instances are on, so each has to know them all.
            Means::Groups => group.instances.clone(),
            Means::Weights if index == 0 => group.instances.clone(),
            Means::Weights => Vec::new(),
        }
    };
    sides
        .iter()
        .enumerate()
        .map(|(index, side)| (side.name.clone(), of(index, side)))
        .collect()
}

/// A router that does not answer by now is only a warning; any other failure stays one.
fn away(
    error: CallError,
    plugin: &Plugin,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<(), PreflightError> {
    let passes = error.failure().is_some_and(|failure| {
        matches!(
            failure.class,
            FailureClass::Transient | FailureClass::Throttled | FailureClass::UnknownOutcome
        )
    });
    if passes {
        warnings.push(format!(
            "the router of {} does not answer: {}",
            group.reference,
            chain(&error)
        ));
        return Ok(());
    }
    Err(PreflightError::Split {
        plugin: plugin.name().clone(),
        group: group.reference.to_string(),
        hint: error.failure().and_then(|failure| failure.hint.clone()),
        source: Box::new(error),
    })
}

/// Checks the plugins of the group's gates, as [`gate`] does.
///
/// # Errors
/// [`PreflightError`] for whatever would leave a gate undecided.
pub async fn gates(
    plugins: &Plugins,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<PluginName, Digest>, PreflightError> {
    let mut digests = BTreeMap::new();
    for one in &group.gates {
        digests.extend(gate(plugins, group, one, warnings).await?);
    }
    Ok(digests)
}

/// Checks the plugin of a gate and its configuration, and asks it once, with all instances and a version that nobody has:
/// whatever its verdict, it shows whether it may and can look. Answers with the digest of the plugin, where it has one.
///
/// # Errors
/// [`PreflightError`] for whatever would leave the gate undecided.
pub async fn gate(
    plugins: &Plugins,
    group: &Group,
    gate: &Gate,
    warnings: &mut Vec<String>,
) -> Result<Option<(PluginName, Digest)>, PreflightError> {
    let GateCheck::Plugin {
        plugin: plugin_name,
        config,
    } = &gate.check
    else {
        return Ok(None);
    };
    let plugin = plugins.get(plugin_name).await?;
    if !plugin.provides().gate {
        return Err(PreflightError::NotAGate {
            plugin: plugin_name.clone(),
            gate: gate.name.clone(),
            group: group.reference.to_string(),
            implements: implements(plugin.provides()),
        });
    }
    let what = format!("gate `{}` of {}", gate.name, group.reference);
    let found = plugin.validate_config(config).await;
    let found = found.map_err(|error| unasked(error, plugin_name, group, gate))?;
    let problems = sorted(found, &format!("the config of {what}"), warnings);
    if !problems.is_empty() {
        return Err(PreflightError::GateConfig {
            gate: gate.name.clone(),
            group: group.reference.to_string(),
            problems,
        });
    }
    let asked = plugin
        .evaluate_gate(&context(&group.reference), config, &rehearsed(group))
        .await;
    if let Err(error) = asked {
        let class = error.failure().map(|failure| failure.class);
        if matches!(class, Some(FailureClass::Denied | FailureClass::Invalid)) {
            return Err(unasked(error, plugin_name, group, gate));
        }
        warnings.push(format!("{what} cannot be asked: {}", chain(&error)));
    }
    Ok(Some((plugin_name.clone(), plugin.digest().clone())))
}

fn unasked(error: CallError, plugin: &PluginName, group: &Group, gate: &Gate) -> PreflightError {
    PreflightError::AskGate {
        plugin: plugin.clone(),
        gate: gate.name.clone(),
        group: group.reference.to_string(),
        hint: error.failure().and_then(|failure| failure.hint.clone()),
        source: Box::new(error),
    }
}

/// What a gate is asked with before there is a deployment.
fn rehearsed(group: &Group) -> Input {
    let targets = group.instances.iter().map(|instance| Target {
        id: instance.id.to_string(),
        address: instance.address.clone(),
    });
    Input {
        group: group.reference.to_string(),
        release_id: "check".to_owned(),
        deployment_id: "check".to_owned(),
        version: "0.0.0".to_owned(),
        batch: 1,
        of_batches: 1,
        targets: targets.collect(),
        since: now(),
        parameters: String::new(),
    }
}

/// Lets a plugin check a configuration, and answers with what is wrong with it.
async fn validated(
    plugin: &Plugin,
    config: &str,
    group: &GroupRef,
    what: &str,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, PreflightError> {
    let found = plugin.validate_config(config).await;
    let found = found.map_err(|source| PreflightError::Check {
        plugin: plugin.name().clone(),
        group: group.to_string(),
        source: Box::new(source),
    })?;
    Ok(sorted(found, what, warnings))
}

/// The errors among findings; the others become warnings.
fn sorted(found: Vec<Diagnostic>, what: &str, warnings: &mut Vec<String>) -> Vec<String> {
    let (errors, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|found| found.severity == Severity::Error);
    let others = others
        .iter()
        .map(|found| format!("{what}: {}", text(found)));
    for warning in others {
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    errors.iter().map(text).collect()
}

pub(crate) fn context(group: &GroupRef) -> OpContext {
    OpContext {
        run_id: "check".to_owned(),
        step_id: group.to_string(),
        attempt: 1,
        dry_run: true,
        ..OpContext::default()
    }
}

/// Lets a package source check the configuration that the workspace gives it.
///
/// # Errors
/// [`PreflightError::SourceConfig`] for what the source could not work with.
pub async fn source(
    plugin: &Plugin,
    config: &str,
    warnings: &mut Vec<String>,
) -> Result<(), PreflightError> {
    if config == "{}" {
        return Ok(());
    }
    let name = plugin.name();
    if !plugin.provides().package_source {
        warnings.push(format!(
            "plugins.{name}.config is for package sources, and `{name}` implements {}: a load balancer has its `config` in the group",
            implements(plugin.provides())
        ));
        return Ok(());
    }
    let found = plugin.validate_config(config).await;
    let found = found.map_err(|source| PreflightError::CheckSource {
        plugin: name.clone(),
        source: Box::new(source),
    })?;
    let (errors, others): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|found| found.severity == Severity::Error);
    warnings.extend(
        others
            .iter()
            .map(|found| format!("plugins.{name}.config: {}", text(found))),
    );
    if errors.is_empty() {
        return Ok(());
    }
    Err(PreflightError::SourceConfig {
        plugin: name.clone(),
        problems: errors.iter().map(text).collect(),
    })
}

fn text(diagnostic: &Diagnostic) -> String {
    match diagnostic.path.as_str() {
        "" => diagnostic.message.clone(),
        path => format!("{path}: {}", diagnostic.message),
    }
}

/// Asks where the instances stand. What a later call may answer differently is only a warning.
async fn read(
    plugin: &Plugin,
    pool: &Pool,
    group: &GroupRef,
    warnings: &mut Vec<String>,
) -> Result<(), PreflightError> {
    let name = || group.to_string();
    let mut members = Vec::new();
    for instance in &pool.instances {
        members.push(
            member_of(instance).map_err(|reason| PreflightError::Address {
                instance: instance.id.to_string(),
                group: name(),
                reason,
            })?,
        );
    }
    let context = context(group);
    let asked: Vec<_> = members
        .iter()
        .map(|member| member.target_id.clone())
        .collect();
    let Err(error) = plugin
        .status(&context, &pool.config, &pool_of(&members), &asked)
        .await
    else {
        return Ok(());
    };
    let passes = error.failure().is_some_and(|failure| {
        matches!(
            failure.class,
            FailureClass::Transient
                | FailureClass::Throttled
                | FailureClass::UnknownOutcome
                | FailureClass::Conflict
        )
    });
    if passes {
        warnings.push(format!(
            "the load balancer of {group} does not answer: {}",
            chain(&error)
        ));
        return Ok(());
    }
    Err(PreflightError::Status {
        plugin: plugin.name().clone(),
        group: name(),
        hint: error.failure().and_then(|failure| failure.hint.clone()),
        source: Box::new(error),
    })
}

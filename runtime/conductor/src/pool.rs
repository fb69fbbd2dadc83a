//! The groups of a balancer that a deployment's instances belong to, and how the instances are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Balancer, Deployment, Instance, InstanceId, PluginName, Router, SideGroup};
use plugin_host::load_balancer::{Member, MemberStatus, Phase};
use plugin_host::{CallError, OpContext, Plugin};
use serde_json::{Map, Value};

use crate::balancer::{member_of, pool_of};
use crate::plugins::{PluginError, Plugins};

/// A plugin's configuration with a side's group laid over it, key by key.
pub(crate) fn overlaid(config: &str, group: &str) -> String {
    if group == "{}" {
        return config.to_owned();
    }
    let object = |text: &str| -> Map<String, Value> {
        // Both were made from a mapping when the workspace was read.
        serde_json::from_str(text).unwrap_or_default()
    };
    let mut merged = object(config);
    merged.extend(object(group));
    Value::Object(merged).to_string()
}

/// A group of a balancer, with the instances that may be in it.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) config: String,
    pub(crate) instances: Vec<Instance>,
}

/// Who knows of the health of a group's instances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) plugin: &'a PluginName,
    pub(crate) config: &'a str,
}

/// The plugin to ask for health: the load balancer, or else the router, which may be one as well.
pub(crate) fn source<'a>(
    balancer: Option<&'a Balancer>,
    router: Option<&'a Router>,
) -> Option<Source<'a>> {
    match (balancer, router) {
        (Some(Balancer::Plugin { plugin, config, .. }), _)
        | (_, Some(Router::Plugin { plugin, config, .. })) => Some(Source { plugin, config }),
        _ => None,
    }
}

/// Every group that holds instances of a deployment.
pub(crate) fn of_deployment(deployment: &Deployment) -> Vec<Pool> {
    let Some(source) = source(deployment.balancer.as_ref(), deployment.router.as_ref()) else {
        return Vec::new();
    };
    let targets = deployment.targets.iter().map(|target| &target.instance);
    let sides = deployment.sides.as_ref().map(|sides| sides.list.as_slice());
    pools(source.config, sides.unwrap_or_default(), targets)
}

/// Every group that holds one of these instances or of the sides' own. An instance of a colour is in the colour's group;
/// any other may be in that of each side.
pub(crate) fn pools<'a>(
    config: &str,
    sides: &'a [SideGroup],
    instances: impl Iterator<Item = &'a Instance>,
) -> Vec<Pool> {
    let belongs: BTreeSet<_> = sides
        .iter()
        .flat_map(|side| &side.instances)
        .map(|instance| &instance.id)
        .collect();
    let moving: Vec<_> = instances
        .filter(|instance| !belongs.contains(&instance.id))
        .cloned()
        .collect();
    let mut pools: Vec<Pool> = Vec::new();
    let mut add = |config: String, instances: &[Instance]| match pools
        .iter_mut()
        .find(|pool| pool.config == config)
    {
        Some(pool) => {
            let others: Vec<_> = instances
                .iter()
                .filter(|instance| pool.instances.iter().all(|known| known.id != instance.id))
                .cloned()
                .collect();
            pool.instances.extend(others);
        }
        None => pools.push(Pool {
            config,
            instances: instances.to_vec(),
        }),
    };
    if sides.is_empty() {
        add(config.to_owned(), &moving);
    }
    for side in sides {
        let config = overlaid(config, &side.group);
        add(config.clone(), &moving);
        add(config, &side.instances);
    }
    pools.retain(|pool| !pool.instances.is_empty());
    pools
}

/// Why the health of a deployment's instances is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HealthError {
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error("ask how the instances are")]
    Call(#[from] CallError),
    #[error("{reason}")]
    Address { reason: String },
}

/// The instances of a deployment that get no traffic, each with the balancer's words. `None` where nobody can tell.
pub(crate) async fn down(
    plugins: &Plugins,
    deployment: &Deployment,
    context: &OpContext,
) -> Result<Option<BTreeMap<InstanceId, String>>, HealthError> {
    let Some(source) = source(deployment.balancer.as_ref(), deployment.router.as_ref()) else {
        return Ok(None);
    };
    let plugin = plugins.get(source.plugin).await?;
    if !plugin.provides().load_balancer {
        return Ok(None);
    }
    let mut told = Vec::new();
    for pool in of_deployment(deployment) {
        told.extend(statuses(&plugin, &pool, context).await?);
    }
    Ok(Some(down_of(told)))
}

/// How the instances of one group are.
pub(crate) async fn statuses(
    plugin: &Arc<Plugin>,
    pool: &Pool,
    context: &OpContext,
) -> Result<Vec<(InstanceId, MemberStatus)>, HealthError> {
    let members = pool
        .instances
        .iter()
        .map(member_of)
        .collect::<Result<Vec<Member>, _>>()
        .map_err(|reason| HealthError::Address { reason })?;
    let asked: Vec<_> = members
        .iter()
        .map(|member| member.target_id.clone())
        .collect();
    let statuses = plugin
        .status(context, &pool.config, &pool_of(&members), &asked)
        .await?;
    let told = pool.instances.iter().filter_map(|instance| {
        let status = statuses
            .iter()
            .find(|status| status.target_id == instance.id.as_str())?;
        Some((instance.id.clone(), status.clone()))
    });
    Ok(told.collect())
}

/// Those that get traffic in none of the groups that they may be in. One of whom nobody can tell is not known to be down.
fn down_of(told: Vec<(InstanceId, MemberStatus)>) -> BTreeMap<InstanceId, String> {
    let mut best: BTreeMap<InstanceId, MemberStatus> = BTreeMap::new();
    for (instance, status) in told {
        let is_better = best
            .get(&instance)
            .is_none_or(|known| standing(&status) > standing(known));
        if is_better {
            best.insert(instance, status);
        }
    }
    best.into_iter()
        .filter(|(_, status)| !matches!(status.phase, Phase::InService | Phase::Unknown))
        .map(|(instance, status)| (instance, words(&status)))
        .collect()
}

/// How much a status says of an instance: one that is nowhere else is where it is present at all.
fn standing(status: &MemberStatus) -> u8 {
    match status.phase {
        Phase::InService => 2,
        Phase::Registering | Phase::OutOfService | Phase::Draining | Phase::Unknown => 1,
        Phase::Absent => 0,
    }
}

/// What a balancer says of an instance, for people.
pub(crate) fn words(status: &MemberStatus) -> String {
    match &status.reason {
        Some(reason) => format!("{}, {reason}", status.phase.name()),
        None => status.phase.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use model::{Host, SideName, Timestamp};

    use super::*;

    fn instance(id: &str) -> Instance {
        Instance {
            id: InstanceId::parse(id).unwrap(),
            host: Host::Local,
            rootdir: "/srv".to_owned(),
            address: None,
            provider_id: None,
            labels: Vec::new(),
            env: BTreeMap::new(),
        }
    }

    fn side(name: &str, group: &str, instances: &[&str]) -> SideGroup {
        SideGroup {
            name: SideName::parse(name).unwrap(),
            group: group.to_owned(),
            instances: instances.iter().map(|id| instance(id)).collect(),
        }
    }

    /// The groups of two sides and of the instances that belong to none, one line a group.
    fn check(sides: &[SideGroup], moving: &[&str], expected: &[&str]) {
        let moving: Vec<_> = moving.iter().map(|id| instance(id)).collect();

        let pools = pools(r#"{"socket":"s"}"#, sides, moving.iter());

        let lines: Vec<_> = pools
            .iter()
            .map(|pool| {
                let ids: Vec<_> = pool.instances.iter().map(|it| it.id.as_str()).collect();
                format!("{} {}", pool.config, ids.join(" "))
            })
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_instance_of_a_colour_is_asked_about_in_the_group_of_its_colour() {
        check(
            &[
                side("blue", r#"{"backend":"a"}"#, &["b1", "b2"]),
                side("green", r#"{"backend":"b"}"#, &["g1"]),
            ],
            &["g1"],
            &[
                r#"{"backend":"a","socket":"s"} b1 b2"#,
                r#"{"backend":"b","socket":"s"} g1"#,
            ],
        );
    }

    #[test]
    fn an_instance_of_a_canary_is_asked_about_in_the_group_of_each_side() {
        check(
            &[
                side("current", r#"{"backend":"a"}"#, &["left-out"]),
                side("new", r#"{"backend":"b"}"#, &[]),
            ],
            &["w1", "w2"],
            &[
                r#"{"backend":"a","socket":"s"} w1 w2 left-out"#,
                r#"{"backend":"b","socket":"s"} w1 w2"#,
            ],
        );
    }

    #[test]
    fn sides_of_one_group_are_asked_about_once() {
        check(
            &[side("current", "{}", &[]), side("new", "{}", &[])],
            &["w1", "w2"],
            &[r#"{"socket":"s"} w1 w2"#],
        );
        check(&[], &["w1"], &[r#"{"socket":"s"} w1"#]);
    }

    #[test]
    fn the_keys_of_a_side_stand_over_those_of_the_configuration() {
        let merged = overlaid(
            r#"{"backend":"x","socket":"s"}"#,
            r#"{"backend":"y","weight":3}"#,
        );

        assert_eq!(merged, r#"{"backend":"y","socket":"s","weight":3}"#);
        assert_eq!(overlaid(r#"{"b": 1}"#, "{}"), r#"{"b": 1}"#);
    }

    #[test]
    fn an_instance_is_down_when_it_gets_traffic_in_no_group() {
        let status = |id: &str, phase: Phase, reason: Option<&str>| {
            let status = MemberStatus {
                target_id: id.to_owned(),
                phase,
                open_connections: None,
                reason: reason.map(str::to_owned),
                observed_at: Timestamp(0),
            };
            (InstanceId::parse(id).unwrap(), status)
        };

        let down = down_of(vec![
            status("w1", Phase::Absent, None),
            status("w2", Phase::InService, None),
            status("w3", Phase::Absent, None),
            status("w1", Phase::InService, None),
            status("w2", Phase::Absent, None),
            status("w3", Phase::OutOfService, Some("L4CON")),
            status("w4", Phase::Unknown, None),
        ]);

        let down: Vec<_> = down
            .iter()
            .map(|(id, words)| format!("{id}: {words}"))
            .collect();
        assert_eq!(down, ["w3: out of service, L4CON"]);
    }
}

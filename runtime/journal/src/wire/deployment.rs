//! Deployments with their targets on disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{
    ApplicationName, DeploymentId, GroupName, GroupRef, InstanceId, LifecycleEvent, PluginName,
};
use serde::{Deserialize, Serialize};

use super::appspec::{Package, Revision};
use super::fact::Broken;
use super::gate::Gate;
use super::rollout::{self, Amount, Batching, Strategy};
use super::traffic::Sides;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deployment {
    id: DeploymentId,
    application: ApplicationName,
    group: GroupName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service_id: Option<u64>,
    kind: String,
    priority: i64,
    #[serde(with = "Direction")]
    direction: model::Direction,
    revision: Revision,
    strategy: Strategy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batching: Option<Batching>,
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    wait_between: Duration,
    failure_threshold: Amount,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_failure_threshold: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minimum_healthy: Option<Amount>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gates: Vec<Gate>,
    #[serde(with = "OnFailure")]
    on_failure: model::OnFailure,
    #[serde(default, skip_serializing_if = "is_default", with = "StopFailures")]
    stop_failures: model::StopFailures,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    balancer: Option<Balancer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    router: Option<Router>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sides: Option<Sides>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    down: BTreeMap<InstanceId, String>,
    sequence: Vec<LifecycleEvent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calls: Option<Calls>,
    packages: BTreeMap<DeploymentId, Package>,
    targets: Vec<Target>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    excluded: Vec<InstanceId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    plugins: BTreeMap<PluginName, String>,
    keep_revisions: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Calls {
    plugin: PluginName,
    config: String,
    item: String,
    events: BTreeMap<LifecycleEvent, Duration>,
}

impl From<&model::Calls> for Calls {
    fn from(calls: &model::Calls) -> Self {
        let model::Calls {
            plugin,
            config,
            item,
            events,
        } = calls.clone();
        Self {
            plugin,
            config,
            item,
            events,
        }
    }
}

impl From<Calls> for model::Calls {
    fn from(calls: Calls) -> Self {
        let Calls {
            plugin,
            config,
            item,
            events,
        } = calls;
        Self {
            plugin,
            config,
            item,
            events,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(
    remote = "model::Direction",
    rename_all = "kebab-case",
    deny_unknown_fields
)]
enum Direction {
    Deploy,
    Operate,
    Rollback { of: DeploymentId },
    Retire { of: DeploymentId },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::StopFailures", rename_all = "kebab-case")]
enum StopFailures {
    Fail,
    Ignore,
}

fn is_default(stop_failures: &model::StopFailures) -> bool {
    *stop_failures == model::StopFailures::default()
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::OnFailure", rename_all = "kebab-case")]
enum OnFailure {
    Stop,
    Rollback,
}

/// Told apart by their fields.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Balancer {
    Plugin(PluginBalancer),
    Command(Command),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginBalancer {
    plugin: PluginName,
    config: String,
    timeout: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    command: String,
    timeout: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Router {
    Plugin(PluginBalancer),
    Command(Command),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Instance {
    id: InstanceId,
    host: String,
    /// How a host is reached whose `host` is `ssh://…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ssh: Option<SshSettings>,
    rootdir: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
}

/// An instance with what it leaves and what it gets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    id: InstanceId,
    host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ssh: Option<SshSettings>,
    rootdir: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outgoing: Option<DeploymentId>,
    incoming: DeploymentId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SshSettings {
    connect_timeout: Duration,
    retries: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sudo: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_dir: Option<String>,
}

impl From<&model::Deployment> for Deployment {
    fn from(deployment: &model::Deployment) -> Self {
        let model::Deployment {
            id,
            group: GroupRef { application, group },
            service_id,
            kind,
            priority,
            direction,
            revision,
            strategy,
            batching,
            wait_between,
            failure_threshold,
            batch_failure_threshold,
            minimum_healthy,
            gates,
            on_failure,
            stop_failures,
            balancer,
            router,
            sides,
            down,
            sequence,
            calls,
            packages,
            targets,
            excluded,
            plugins,
            keep_revisions,
        } = deployment;
        let (strategy, batching) = rollout::encode(*strategy, batching);
        Self {
            id: id.clone(),
            application: application.clone(),
            group: group.clone(),
            service_id: *service_id,
            kind: kind.clone(),
            priority: *priority,
            direction: direction.clone(),
            revision: revision.into(),
            strategy,
            batching,
            wait_between: *wait_between,
            failure_threshold: (*failure_threshold).into(),
            batch_failure_threshold: batch_failure_threshold.map(Amount::from),
            minimum_healthy: minimum_healthy.map(Amount::from),
            gates: gates.iter().cloned().map(Gate::from).collect(),
            on_failure: *on_failure,
            stop_failures: *stop_failures,
            balancer: balancer.as_ref().map(Balancer::from),
            router: router.as_ref().map(Router::from),
            sides: sides.as_ref().map(Sides::from),
            down: down.clone(),
            sequence: sequence.clone(),
            calls: calls.as_ref().map(Calls::from),
            packages: packages
                .iter()
                .map(|(id, package)| (id.clone(), Package::from(&**package)))
                .collect(),
            targets: targets
                .iter()
                .map(|target| Target::from(&**target))
                .collect(),
            excluded: excluded.clone(),
            plugins: plugins
                .iter()
                .map(|(name, digest)| (name.clone(), digest.to_string()))
                .collect(),
            keep_revisions: *keep_revisions,
        }
    }
}

impl TryFrom<Deployment> for model::Deployment {
    type Error = Broken;

    fn try_from(deployment: Deployment) -> Result<Self, Broken> {
        let Deployment {
            id,
            application,
            group,
            service_id,
            kind,
            priority,
            direction,
            revision,
            strategy,
            batching,
            wait_between,
            failure_threshold,
            batch_failure_threshold,
            minimum_healthy,
            gates,
            on_failure,
            stop_failures,
            balancer,
            router,
            sides,
            down,
            sequence,
            calls,
            packages,
            targets,
            excluded,
            plugins,
            keep_revisions,
        } = deployment;
        let packages = packages
            .into_iter()
            .map(|(id, package)| Ok((id, Arc::new(package.try_into()?))))
            .collect::<Result<_, Broken>>()?;
        let targets = targets
            .into_iter()
            .map(|target| Ok(Arc::new(target.try_into()?)))
            .collect::<Result<_, Broken>>()?;
        let plugins = plugins
            .into_iter()
            .map(|(name, digest)| Ok((name, model::Digest::parse(&digest)?)))
            .collect::<Result<_, Broken>>()?;
        let (strategy, batching) = rollout::decode(strategy, batching);
        Ok(Self {
            id,
            group: GroupRef { application, group },
            service_id,
            kind,
            priority,
            direction,
            revision: revision.try_into()?,
            strategy,
            batching,
            wait_between,
            failure_threshold: failure_threshold.into(),
            batch_failure_threshold: batch_failure_threshold.map(model::Amount::from),
            minimum_healthy: minimum_healthy.map(model::Amount::from),
            gates: gates.into_iter().map(model::Gate::from).collect(),
            on_failure,
            stop_failures,
            balancer: balancer.map(model::Balancer::from),
            router: router.map(model::Router::from),
            sides: sides.map(model::Sides::try_from).transpose()?,
            down,
            sequence,
            calls: calls.map(model::Calls::from),
            packages,
            targets,
            excluded,
            plugins,
            keep_revisions,
        })
    }
}

impl From<&model::Balancer> for Balancer {
    fn from(balancer: &model::Balancer) -> Self {
        match balancer.clone() {
            model::Balancer::Plugin {
                plugin,
                config,
                timeout,
            } => Self::Plugin(PluginBalancer {
                plugin,
                config,
                timeout,
            }),
            model::Balancer::Command { command, timeout } => {
                Self::Command(Command { command, timeout })
            }
        }
    }
}

impl From<Balancer> for model::Balancer {
    fn from(balancer: Balancer) -> Self {
        match balancer {
            Balancer::Plugin(PluginBalancer {
                plugin,
                config,
                timeout,
            }) => Self::Plugin {
                plugin,
                config,
                timeout,
            },
            Balancer::Command(Command { command, timeout }) => Self::Command { command, timeout },
        }
    }
}

impl From<&model::Router> for Router {
    fn from(router: &model::Router) -> Self {
        match router.clone() {
            model::Router::Plugin {
                plugin,
                config,
                timeout,
            } => Self::Plugin(PluginBalancer {
                plugin,
                config,
                timeout,
            }),
            model::Router::Command { command, timeout } => {
                Self::Command(Command { command, timeout })
            }
        }
    }
}

impl From<Router> for model::Router {
    fn from(router: Router) -> Self {
        match router {
            Router::Plugin(PluginBalancer {
                plugin,
                config,
                timeout,
            }) => Self::Plugin {
                plugin,
                config,
                timeout,
            },
            Router::Command(Command { command, timeout }) => Self::Command { command, timeout },
        }
    }
}

impl From<&model::Target> for Target {
    fn from(target: &model::Target) -> Self {
        let Instance {
            id,
            host,
            ssh,
            rootdir,
            address,
            provider_id,
            labels,
            env,
        } = Instance::from(&target.instance);
        Self {
            id,
            host,
            ssh,
            rootdir,
            address,
            provider_id,
            labels,
            env,
            outgoing: target.outgoing.clone(),
            incoming: target.incoming.clone(),
        }
    }
}

impl TryFrom<Target> for model::Target {
    type Error = Broken;

    fn try_from(target: Target) -> Result<Self, Broken> {
        let Target {
            id,
            host,
            ssh,
            rootdir,
            address,
            provider_id,
            labels,
            env,
            outgoing,
            incoming,
        } = target;
        let instance = Instance {
            id,
            host,
            ssh,
            rootdir,
            address,
            provider_id,
            labels,
            env,
        };
        Ok(Self {
            instance: instance.try_into()?,
            outgoing,
            incoming,
        })
    }
}

impl From<&model::Instance> for Instance {
    fn from(instance: &model::Instance) -> Self {
        let model::Instance {
            id,
            host,
            rootdir,
            address,
            provider_id,
            labels,
            env,
        } = instance.clone();
        Self {
            id,
            host: host.to_string(),
            ssh: match host {
                model::Host::Local => None,
                model::Host::Ssh(ssh) => Some(ssh.settings.into()),
            },
            rootdir,
            address,
            provider_id,
            labels,
            env,
        }
    }
}

impl TryFrom<Instance> for model::Instance {
    type Error = Broken;

    fn try_from(instance: Instance) -> Result<Self, Broken> {
        let Instance {
            id,
            host,
            ssh,
            rootdir,
            address,
            provider_id,
            labels,
            env,
        } = instance;
        let host = match (host.as_str(), model::SshAddress::parse(&host), ssh) {
            ("local:", _, None) => model::Host::Local,
            (_, Ok(address), Some(settings)) => model::Host::Ssh(model::Ssh {
                address,
                settings: settings.into(),
            }),
            _ => return Err(Broken::Host { text: host }),
        };
        Ok(Self {
            id,
            host,
            rootdir,
            address,
            provider_id,
            labels,
            env,
        })
    }
}

impl From<model::SshSettings> for SshSettings {
    fn from(settings: model::SshSettings) -> Self {
        let model::SshSettings {
            connect_timeout,
            retries,
            sudo,
            agent_dir,
        } = settings;
        Self {
            connect_timeout,
            retries,
            sudo,
            agent_dir,
        }
    }
}

impl From<SshSettings> for model::SshSettings {
    fn from(settings: SshSettings) -> Self {
        let SshSettings {
            connect_timeout,
            retries,
            sudo,
            agent_dir,
        } = settings;
        Self {
            connect_timeout,
            retries,
            sudo,
            agent_dir,
        }
    }
}

//! What is to be done: releases, deployments and their instances.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    Amount, Batching, Calls, DeploymentId, Digest, Gate, GroupRef, Host, InstanceId,
    LifecycleEvent, OnFailure, Package, PluginName, ReleaseId, Revision, Sides, StopFailures,
    Strategy,
};

/// One execution, of one service or of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub id: ReleaseId,
    pub comment: String,
    /// Who asked for it, `user@host`.
    pub operator: String,
    pub scope: Scope,
}

/// What a release is an execution of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// One group.
    #[default]
    Service,
    /// A release plan, of any number of services.
    Plan,
}

/// Whether a deployment brings a revision, takes one back, or works on what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Direction {
    Deploy,
    /// Starts, stops or restarts what is installed, and installs nothing.
    Operate,
    Rollback {
        /// The deployment that is taken back.
        of: DeploymentId,
    },
    /// Stops what runs on the side that lost the traffic.
    Retire {
        /// The deployment that took the traffic.
        of: DeploymentId,
    },
}

impl Direction {
    /// The word used in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Direction::Deploy => "deploy",
            Direction::Operate => "operate",
            Direction::Rollback { .. } => "rollback",
            Direction::Retire { .. } => "retire",
        }
    }
}

/// One revision going to, or back on, one group. It holds everything that is needed to carry it out, so that
/// resuming one never depends on files that may have changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    pub id: DeploymentId,
    pub group: GroupRef,
    /// How release plans name the group.
    pub service_id: Option<u64>,
    /// `DEPLOY`, `ROLLBACK`, or the kind named by a release plan.
    pub kind: String,
    pub priority: i64,
    pub direction: Direction,
    /// The revision that the deployment is about. In a rollback an instance may return to another one.
    pub revision: Revision,
    pub strategy: Strategy,
    pub batching: Batching,
    /// The pause between two batches.
    pub wait_between: Duration,
    pub failure_threshold: Amount,
    /// How many failed instances of one batch fail the deployment.
    pub batch_failure_threshold: Option<Amount>,
    /// How many instances have to be healthy at any moment.
    pub minimum_healthy: Option<Amount>,
    /// What the deployment has to pass, in order.
    pub gates: Vec<Gate>,
    pub on_failure: OnFailure,
    pub stop_failures: StopFailures,
    pub balancer: Option<Balancer>,
    /// What moves the traffic from side to side.
    pub router: Option<Router>,
    pub sides: Option<Sides>,
    /// Instances that had no traffic when the deployment was planned, each with the balancer's words.
    pub down: BTreeMap<InstanceId, String>,
    /// The lifecycle events of each instance, in the canonical order.
    pub sequence: Vec<LifecycleEvent>,
    /// What the plugin of the deployment's kind carries out itself.
    pub calls: Option<Calls>,
    /// Every package that a hook or an installation of this deployment may need, by the deployment that fetched it.
    pub packages: BTreeMap<DeploymentId, Arc<Package>>,
    /// The instances, in the order in which they start.
    pub targets: Vec<Arc<Target>>,
    /// Instances of the group that the operator left out.
    pub excluded: Vec<InstanceId>,
    /// Digests of the plugins in use.
    pub plugins: BTreeMap<PluginName, Digest>,
    /// Revisions to keep in an instance's cache besides those that a rollback needs.
    pub keep_revisions: u32,
}

/// One instance in a deployment, with what it leaves and what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub instance: Instance,
    /// Key into [`Deployment::packages`]: the revision installed when the deployment was planned.
    pub outgoing: Option<DeploymentId>,
    /// Key into [`Deployment::packages`].
    pub incoming: DeploymentId,
}

/// One place where a package is installed and hooks run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub id: InstanceId,
    pub host: Host,
    /// Absolute folder on the instance that holds the package cache and the agent's state.
    pub rootdir: String,
    /// `host:port` where the service listens, as a load balancer names it.
    pub address: Option<String>,
    /// What the provider calls the instance, as a balancer of that provider has to name it.
    pub provider_id: Option<String>,
    pub labels: Vec<String>,
    /// The group's environment with the instance's over it.
    pub env: BTreeMap<String, String>,
}

/// The load balancer of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balancer {
    Plugin {
        plugin: PluginName,
        /// The plugin's configuration, a JSON object.
        config: String,
        /// The longest wait for a drained or healthy instance.
        timeout: Duration,
    },
    /// A command line on the instance, given the word `deregister` or `register`. It ends when that is done.
    Command { command: String, timeout: Duration },
}

/// What moves traffic from one side to the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Router {
    Plugin {
        plugin: PluginName,
        /// The plugin's configuration, a JSON object.
        config: String,
        /// The longest wait for a switch.
        timeout: Duration,
    },
    /// A command line on the first instance's host, given the word `switch`. It ends when that is done.
    Command { command: String, timeout: Duration },
}

impl Deployment {
    /// The instances in their batches, in order.
    pub fn batches(&self) -> impl Iterator<Item = &[Arc<Target>]> {
        let mut rest = self.targets.as_slice();
        self.batching
            .sizes(self.targets.len())
            .into_iter()
            .map(move |size| {
                let (batch, others) = rest.split_at(size);
                rest = others;
                batch
            })
    }

    /// How many instances may be in flight, at most.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        let sizes = self.batching.sizes(self.targets.len());
        sizes.into_iter().max().unwrap_or(1)
    }

    /// Whether each batch ends before the next begins.
    #[must_use]
    pub fn has_barriers(&self) -> bool {
        !matches!(self.batching, Batching::Window(_))
            || !self.wait_between.is_zero()
            || !self.gates.is_empty()
    }

    /// The number of batches that end before the next begins.
    #[must_use]
    pub fn barriers(&self) -> u32 {
        let batches = if self.has_barriers() {
            self.batching.sizes(self.targets.len()).len()
        } else {
            1
        };
        u32::try_from(batches).unwrap_or(u32::MAX)
    }

    /// How many failed instances fail the deployment.
    #[must_use]
    pub fn failure_limit(&self) -> usize {
        self.failure_threshold.of(self.targets.len())
    }
}

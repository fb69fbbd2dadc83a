//! Which lifecycle events an instance goes through, and what happens at each.

use std::sync::Arc;

use model::{Balancer, Deployment, Direction, LifecycleEvent, Package, Side, Target};

/// The lifecycle events of a rolling deployment, in the canonical order (DESIGN.md §2).
#[must_use]
pub fn sequence(balancer: Option<&Balancer>, direction: &Direction) -> Vec<LifecycleEvent> {
    LifecycleEvent::ALL
        .into_iter()
        .filter(|event| match event {
            LifecycleEvent::DownloadBundle => *direction == Direction::Deploy,
            LifecycleEvent::BeforeBlockTraffic
            | LifecycleEvent::BlockTraffic
            | LifecycleEvent::AfterBlockTraffic
            | LifecycleEvent::BeforeAllowTraffic
            | LifecycleEvent::AllowTraffic
            | LifecycleEvent::AfterAllowTraffic => balancer.is_some(),
            LifecycleEvent::ApplicationStop
            | LifecycleEvent::BeforeInstall
            | LifecycleEvent::Install
            | LifecycleEvent::AfterInstall
            | LifecycleEvent::ApplicationStart
            | LifecycleEvent::ValidateService => true,
        })
        .collect()
}

/// One lifecycle event of one instance, as it is going to happen.
#[derive(Debug, Clone)]
pub struct PlannedStep {
    pub event: LifecycleEvent,
    /// The revision that the event belongs to, where the instance has one on that side.
    pub package: Option<Arc<Package>>,
    pub doing: Doing,
}

/// What happens at an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// The package's scripts run.
    Hook,
    /// The runtime does its own part: fetch, block, install or allow.
    BuiltIn,
    /// Nothing, for this reason.
    Skip(String),
}

/// Every step of an instance, in order.
pub fn planned_steps<'a>(
    deployment: &'a Deployment,
    target: &'a Target,
) -> impl Iterator<Item = PlannedStep> + use<'a> {
    deployment
        .sequence
        .iter()
        .map(|event| planned_step(deployment, target, *event))
}

/// What one event means for one instance.
pub(crate) fn planned_step(
    deployment: &Deployment,
    target: &Target,
    event: LifecycleEvent,
) -> PlannedStep {
    let key = match event.side() {
        Side::Outgoing => target.outgoing.as_ref(),
        Side::Incoming => Some(&target.incoming),
    };
    let package = key.and_then(|key| deployment.packages.get(key)).cloned();
    let doing = match (&package, event.takes_hooks()) {
        (_, false) => Doing::BuiltIn,
        (None, true) => Doing::Skip("no revision is installed on the instance".to_owned()),
        (Some(package), true) => match package.appspec.hooks.get(&event) {
            Some(scripts) if !scripts.is_empty() => Doing::Hook,
            _ => Doing::Skip(format!(
                "{} revision {} binds no script to {event}",
                event.side().name(),
                package.revision.version
            )),
        },
    };
    PlannedStep {
        event,
        package,
        doing,
    }
}

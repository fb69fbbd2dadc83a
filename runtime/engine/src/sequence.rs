//! Which lifecycle events an instance goes through, and what happens at each.

use std::sync::Arc;

use model::{Deployment, Direction, LifecycleEvent, Package, Side, Strategy, Target};

/// Whether instances leave their traffic while they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// They are taken out of a balancer and put back.
    Balanced,
    /// Nothing stands before them.
    Direct,
}

impl Traffic {
    /// What a deployment's own sequence says.
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let is_balanced = deployment
            .sequence
            .iter()
            .any(|event| event.is_about_traffic());
        if is_balanced {
            Traffic::Balanced
        } else {
            Traffic::Direct
        }
    }
}

/// The lifecycle events of each instance, in the canonical order (DESIGN.md §2). In a blue-green deployment traffic
/// moves once for all, so no instance has the six events about it, and the way back is to validate what still runs.
#[must_use]
pub fn sequence(
    strategy: Strategy,
    traffic: Traffic,
    direction: &Direction,
) -> Vec<LifecycleEvent> {
    let traffic = match (strategy, direction) {
        (_, Direction::Retire { .. }) => return vec![LifecycleEvent::ApplicationStop],
        (Strategy::Rolling | Strategy::Canary { .. }, _) => traffic,
        (Strategy::BlueGreen { .. }, Direction::Deploy | Direction::Operate) => Traffic::Direct,
        (Strategy::BlueGreen { .. }, Direction::Rollback { .. }) => {
            return vec![LifecycleEvent::ValidateService];
        }
    };
    LifecycleEvent::ALL
        .into_iter()
        .filter(|event| match event {
            LifecycleEvent::DownloadBundle => *direction == Direction::Deploy,
            LifecycleEvent::BeforeBlockTraffic
            | LifecycleEvent::BlockTraffic
            | LifecycleEvent::AfterBlockTraffic
            | LifecycleEvent::BeforeAllowTraffic
            | LifecycleEvent::AllowTraffic
            | LifecycleEvent::AfterAllowTraffic => traffic == Traffic::Balanced,
            LifecycleEvent::BeforeInstall
            | LifecycleEvent::Install
            | LifecycleEvent::AfterInstall => *direction != Direction::Operate,
            LifecycleEvent::ApplicationStop
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
    /// The plugin of the deployment's kind is called.
    Call,
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
    let is_for_balancer = matches!(
        event,
        LifecycleEvent::BlockTraffic | LifecycleEvent::AllowTraffic
    );
    let doing = match (&package, event.takes_hooks()) {
        _ if is_for_balancer && deployment.balancer.is_none() => {
            Doing::Skip("nothing is named that moves the instance's traffic".to_owned())
        }
        (_, false) => Doing::BuiltIn,
        (None, true) => Doing::Skip("no revision is installed on the instance".to_owned()),
        (Some(_), true) if is_call(deployment, event) => Doing::Call,
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

/// The hook that may begin as soon as an event is over: its instance needs nobody between the two.
pub(crate) fn follower(
    deployment: &Deployment,
    target: &Target,
    event: LifecycleEvent,
) -> Option<LifecycleEvent> {
    let doing = |event| planned_step(deployment, target, event).doing;
    let is_its_own = match doing(event) {
        Doing::Hook => true,
        Doing::BuiltIn => {
            matches!(
                event,
                LifecycleEvent::DownloadBundle | LifecycleEvent::Install
            )
        }
        Doing::Call | Doing::Skip(_) => false,
    };
    let mut later = deployment
        .sequence
        .iter()
        .copied()
        .filter(|later| is_its_own && *later > event)
        .map(|later| (later, doing(later)))
        .filter(|(_, doing)| !matches!(doing, Doing::Skip(_)));
    let (next, doing) = later.next()?;
    (doing == Doing::Hook).then_some(next)
}

fn is_call(deployment: &Deployment, event: LifecycleEvent) -> bool {
    let calls = deployment.calls.as_ref();
    calls.is_some_and(|calls| calls.events.contains_key(&event))
}

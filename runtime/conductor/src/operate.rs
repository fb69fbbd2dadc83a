//! Deployments that install nothing: what is there is started, stopped or restarted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::Traffic;
use model::{
    Deployment, DeploymentId, Direction, LifecycleEvent, OnFailure, SideName, Sides, StopFailures,
    Strategy, Target,
};
use spec::workspace::Group;

use crate::Conductor;
use crate::choices::Choices;
use crate::plan::PlanError;
use crate::preflight::{self, sides};

impl Conductor {
    /// Plans these events, of what is installed, on a group's instances. Of a blue-green group it goes to the live
    /// colour, and its traffic stays where it is.
    pub(crate) async fn operate(
        &self,
        group: &Group,
        events: &[LifecycleEvent],
        id: DeploymentId,
        choices: &Choices,
        warnings: &mut Vec<String>,
    ) -> Result<Deployment, PlanError> {
        let mut plugins = preflight::balancer(&self.plugins, group, warnings).await?;
        let routed = preflight::router(&self.plugins, group, warnings).await?;
        plugins.extend(routed.plugins);
        let live = routed.shares.as_ref().and_then(|shares| shares.only());
        let installed = self.journal.installed(&group.reference)?;
        let mut targets = Vec::new();
        let mut packages = BTreeMap::new();
        for instance in &group.instances {
            if choices.exclude.contains(&instance.id) || !is_on(group, live, instance) {
                continue;
            }
            let Some(key) = installed.get(&instance.id) else {
                warnings.push(format!(
                    "nothing is installed on {}: it is left out",
                    instance.id
                ));
                continue;
            };
            self.add_package(&mut packages, key)?;
            targets.push(Arc::new(Target {
                instance: instance.clone(),
                outgoing: Some(key.clone()),
                incoming: key.clone(),
            }));
        }
        let first = targets
            .first()
            .and_then(|target| packages.get(&target.incoming));
        let nothing = || PlanError::NothingInstalled {
            group: group.reference.clone(),
        };
        let revision = first.ok_or_else(nothing)?.revision.clone();
        let traffic = match group.balancer {
            Some(_) => Traffic::Balanced,
            None => Traffic::Direct,
        };
        let mut sequence = engine::sequence(group.strategy, traffic, &Direction::Operate);
        sequence.retain(|event| events.contains(event));
        let starts = sequence.contains(&LifecycleEvent::ApplicationStart);
        let mut deployment = Deployment {
            group: group.reference.clone(),
            service_id: group.service_id,
            kind: "OPERATE".to_owned(),
            priority: 0,
            direction: Direction::Operate,
            revision,
            strategy: Strategy::Rolling,
            batching: group.batching.clone(),
            wait_between: group.wait_between,
            failure_threshold: group.failure_threshold,
            batch_failure_threshold: group.batch_failure_threshold,
            // What is to be stopped need not stay healthy.
            minimum_healthy: group.minimum_healthy.filter(|_| starts),
            gates: Vec::new(),
            on_failure: OnFailure::Stop,
            stop_failures: StopFailures::Fail,
            sequence,
            calls: None,
            balancer: group.balancer.clone(),
            router: None,
            sides: home(group, live),
            down: BTreeMap::new(),
            packages,
            targets,
            excluded: choices.exclude.clone(),
            plugins,
            keep_revisions: group.keep_revisions,
            id,
        };
        if deployment.batching.sizes(deployment.targets.len()).len() < 2 {
            deployment.wait_between = Duration::ZERO;
        }
        self.find_down(&mut deployment, warnings).await;
        Ok(deployment)
    }
}

/// Whether an instance serves, as far as sides are concerned.
fn is_on(group: &Group, live: Option<&SideName>, instance: &model::Instance) -> bool {
    let Strategy::BlueGreen { .. } = group.strategy else {
        return true;
    };
    let side = group.sides.iter().find(|side| Some(&side.name) == live);
    side.is_none_or(|side| side.instances.iter().any(|one| one.id == instance.id))
}

/// Where the instances of a canary's group come back to: the side that has the traffic.
fn home(group: &Group, live: Option<&SideName>) -> Option<Sides> {
    let Strategy::Canary { .. } = group.strategy else {
        return None;
    };
    let mut list = sides(group);
    let to = live.or(list.first().map(|side| &side.name))?.clone();
    for side in &mut list {
        side.instances.clear();
    }
    Some(Sides {
        list,
        from: None,
        shares: model::Shares::all_to(to.clone()),
        to,
        installed: BTreeMap::new(),
    })
}

//! What a rollback goes by: the deployment to take back, a version to return to, and whether its package can be had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::{DeploymentState, State, Traffic};
use model::{
    Deployment, DeploymentId, Direction, GroupRef, InstanceId, OnFailure, Package, ReleaseId,
    Scope, Strategy, Target, Version,
};
use spec::workspace::Group;
use tokio::task::JoinSet;

use crate::Conductor;
use crate::environment::cache_folder;
use crate::live::LiveError;
use crate::plan::{PlanError, Planned, RollbackRequest, chain};
use crate::preflight;

/// How many hosts are asked at once what they keep.
const ASKED_AT_ONCE: usize = 32;

/// A version that a group cannot be returned to.
#[derive(Debug, thiserror::Error)]
pub enum ReturnError {
    #[error("{group} has never had {version}")]
    UnknownVersion { group: GroupRef, version: Version },
    #[error("every instance of {group} that has anything installed has {version} already")]
    AlreadyThere { group: GroupRef, version: Version },
    #[error("{version} is what the latest deployment {deployment} of {group} brought")]
    Latest {
        group: GroupRef,
        version: Version,
        deployment: DeploymentId,
    },
    #[error(
        "{group} is deployed blue-green: it can be returned to {present}, which the other side has, and not to {version}"
    )]
    OtherSide {
        group: GroupRef,
        version: Version,
        present: Version,
        /// The deployment that brought the version.
        deployment: DeploymentId,
    },
    #[error(
        "{version} is not kept: `{instance}` has it no more in its cache, and it cannot be fetched"
    )]
    NotKept {
        version: Version,
        instance: InstanceId,
        source: Box<PlanError>,
    },
}

impl Conductor {
    /// The latest deployment of a group that touched an instance and has not been taken back, and with it what its
    /// retries did.
    pub(crate) fn latest_deployment(
        &self,
        group: &GroupRef,
    ) -> Result<Option<(DeploymentId, DeploymentState)>, PlanError> {
        let installed = self.journal.installed(group)?;
        let installed: BTreeSet<_> = installed.into_values().collect();
        let history = self.journal.deployments(group, usize::MAX)?;
        let age: BTreeMap<_, _> = history.iter().map(|past| &past.id).zip(0..).collect();
        let mut retries: Vec<DeploymentState> = Vec::new();
        // What is younger than what the group has been returned to, and installed nowhere, is gone already.
        let mut returned_to = 0;
        for (own_age, summary) in history.iter().enumerate() {
            if let Direction::Rollback { .. } = summary.direction {
                if summary.status == model::ReleaseStatus::Succeeded
                    && let Some(rollback) = self.journal.deployment(&summary.id)?
                {
                    let ages = rollback
                        .targets
                        .iter()
                        .map(|target| age.get(&target.incoming).copied().unwrap_or(usize::MAX));
                    returned_to = returned_to.max(ages.min().unwrap_or(0));
                }
                continue;
            }
            let brought = summary.retries.as_ref().unwrap_or(&summary.id);
            let is_gone = own_age < returned_to && !installed.contains(brought);
            if summary.direction != Direction::Deploy || summary.rolled_back_by.is_some() || is_gone
            {
                continue;
            }
            let state = State::fold(&self.journal.records(&summary.release, 0)?)?;
            let Some(mut found) = state.find(&summary.id).cloned() else {
                continue;
            };
            if summary.retries.is_some() {
                // Between colours it is the retry that has moved the traffic, or nobody has.
                let is_whole = matches!(found.plan.strategy, Strategy::BlueGreen { .. });
                if is_whole && engine::rollback::has_switched(&found) {
                    return Ok(Some((summary.id.clone(), found)));
                }
                retries.push(found);
                continue;
            }
            for retry in retries
                .iter()
                .rev()
                .filter(|retry| brings(retry, &summary.id))
            {
                merge(&mut found, retry);
            }
            if let (Strategy::Canary { .. }, Some(split)) =
                (found.plan.strategy, self.last_split(group)?)
            {
                // A retry has moved the traffic on, or its way back has.
                found.shares = split;
            }
            let mut instances = found.instances.iter();
            if engine::rollback::has_switched(&found)
                && instances.any(engine::InstanceState::is_touched)
            {
                return Ok(Some((summary.id.clone(), found)));
            }
        }
        Ok(None)
    }

    /// The way back that a release takes when it is told to take a deployment back which goes on, as far as it has come by
    /// now.
    ///
    /// # Errors
    /// [`PlanError::NothingToRollBack`] when none of this group goes on, and [`PlanError::NoEarlierVersion`].
    pub fn plan_taking_back(
        &self,
        release: &ReleaseId,
        group: &GroupRef,
    ) -> Result<Planned, PlanError> {
        let state = State::fold(&self.journal.records(release, 0)?)?;
        let mut deployments = state.deployments.iter();
        let going_on = deployments.find(|deployment| {
            deployment.plan.group == *group
                && deployment.ended_at.is_none()
                && deployment.plan.direction == Direction::Deploy
        });
        let going_on = going_on.ok_or_else(|| PlanError::NothingToRollBack {
            group: group.clone(),
        })?;
        let id = DeploymentId::nth(release, state.deployments.len() + 1);
        let back = engine::rollback::of_failed(going_on, id);
        let deployment = back.ok_or_else(|| PlanError::NoEarlierVersion {
            deployment: going_on.plan.id.clone(),
        })?;
        let mut warnings = Vec::new();
        if going_on.in_flight > 0 {
            warnings.push(format!(
                "{} of {group} in flight: they finish before they go back",
                match going_on.in_flight {
                    1 => "1 instance is".to_owned(),
                    many => format!("{many} instances are"),
                }
            ));
        }
        Ok(Planned {
            release: state.release,
            deployment,
            warnings,
        })
    }

    /// Plans the way of a whole group to a version that it has had.
    pub(crate) async fn plan_return(
        &self,
        group: &Group,
        version: &Version,
        request: &RollbackRequest,
    ) -> Result<Planned, PlanError> {
        let reference = || group.reference.clone();
        let used = self.journal.versions(&group.reference)?;
        let used = used.into_iter().find(|used| used.version.is_same(version));
        let key = match used {
            Some(used) => used.deployment,
            None => {
                return Err(PlanError::from(ReturnError::UnknownVersion {
                    group: reference(),
                    version: version.clone(),
                }));
            }
        };
        if let Strategy::BlueGreen { .. } = group.strategy {
            let plain = RollbackRequest {
                to: None,
                ..request.clone()
            };
            let planned = Box::pin(self.plan_rollback(plain)).await?;
            let present = planned.deployment.revision.version.clone();
            if present.is_same(version) {
                return Ok(planned);
            }
            return Err(PlanError::from(ReturnError::OtherSide {
                group: reference(),
                version: version.clone(),
                present,
                deployment: key,
            }));
        }
        let package = self.journal.package(&key)?;
        let package = package.ok_or_else(|| PlanError::MissingPackage {
            deployment: key.clone(),
        })?;
        let installed = self.journal.installed(&group.reference)?;
        let mut warnings = Vec::new();
        let targets = targets(group, &installed, &key, &mut warnings);
        let Some(first) = targets.first() else {
            return Err(PlanError::from(ReturnError::AlreadyThere {
                group: reference(),
                version: version.clone(),
            }));
        };
        let of = match self.latest_deployment(&group.reference)? {
            Some((latest, _)) if latest == key => {
                return Err(PlanError::from(ReturnError::Latest {
                    group: reference(),
                    version: version.clone(),
                    deployment: latest,
                }));
            }
            Some((latest, _)) => latest,
            // Everything has been taken back: what is left is what the first instance has.
            None => first.outgoing.clone().unwrap_or_else(|| key.clone()),
        };
        let missing = || PlanError::MissingPackage {
            deployment: of.clone(),
        };
        let original = self.journal.deployment(&of)?.ok_or_else(missing)?;
        self.tell_taken_back(group, &key, &mut warnings)?;
        let plugins = preflight::balancer(&self.plugins, group, &mut warnings).await?;
        let release = self.new_release(request.comment.clone(), Scope::Service)?;
        let mut packages = BTreeMap::from([(key, package.clone())]);
        for outgoing in targets.iter().filter_map(|target| target.outgoing.as_ref()) {
            self.add_package(&mut packages, outgoing)?;
        }
        let is_balanced = original
            .sequence
            .iter()
            .any(|event| event.is_about_traffic());
        let traffic = if is_balanced {
            Traffic::Balanced
        } else {
            Traffic::Direct
        };
        let direction = Direction::Rollback { of };
        let mut deployment = Deployment {
            id: DeploymentId::nth(&release.id, 1),
            kind: "ROLLBACK".to_owned(),
            sequence: engine::sequence(original.strategy, traffic, &direction),
            direction,
            revision: package.revision.clone(),
            packages,
            targets,
            excluded: Vec::new(),
            on_failure: OnFailure::Stop,
            stop_failures: request.stop_failures,
            plugins,
            gates: Vec::new(),
            wait_between: Duration::ZERO,
            down: BTreeMap::new(),
            calls: None,
            ..Deployment::clone(&original)
        };
        self.stay_on_live_side(&mut deployment)?;
        self.check_kept(&deployment, &mut warnings).await?;
        Ok(Planned {
            release,
            deployment,
            warnings,
        })
    }

    /// Lets a group that a canary went over return where its traffic is: no side gets or loses any.
    fn stay_on_live_side(&self, deployment: &mut Deployment) -> Result<(), PlanError> {
        let (Strategy::Canary { .. }, Some(sides)) = (deployment.strategy, &mut deployment.sides)
        else {
            return Ok(());
        };
        if let Some(split) = self.last_split(&deployment.group)? {
            let live = split.only().ok_or_else(|| {
                PlanError::Live(LiveError::Split {
                    group: deployment.group.clone(),
                    read: split.clone(),
                })
            })?;
            sides.to = live.clone();
            sides.shares = split;
        }
        sides.from = None;
        for side in &mut sides.list {
            side.instances.clear();
        }
        deployment.strategy = Strategy::Rolling;
        deployment.router = None;
        Ok(())
    }

    /// Says that a version which is returned to was rolled back once.
    fn tell_taken_back(
        &self,
        group: &Group,
        key: &DeploymentId,
        warnings: &mut Vec<String>,
    ) -> Result<(), PlanError> {
        let history = self.journal.deployments(&group.reference, usize::MAX)?;
        let own = history.into_iter().find(|past| past.id == *key);
        if let Some((version, by)) =
            own.and_then(|own| own.rolled_back_by.map(|by| (own.version, by)))
        {
            warnings.push(format!("{version} was rolled back by {by}"));
        }
        Ok(())
    }

    /// Refuses a rollback whose package is neither in the store nor in any cache of the instances that return to it, and
    /// cannot be fetched. A host that cannot be reached, or has lost it alone, keeps nobody else from going back.
    pub(crate) async fn check_kept(
        &self,
        deployment: &Deployment,
        warnings: &mut Vec<String>,
    ) -> Result<(), PlanError> {
        let keys: BTreeSet<_> = deployment
            .targets
            .iter()
            .map(|target| &target.incoming)
            .collect();
        let packages = keys
            .into_iter()
            .filter_map(|key| deployment.packages.get(key));
        for package in packages {
            if self.packages.find(&package.revision.digest).is_some() {
                continue;
            }
            let asked = self.ask_caches(deployment, package, warnings).await;
            let Some(first) = asked.without.first() else {
                continue;
            };
            let Err(source) = self.stored(&deployment.group, package).await else {
                continue;
            };
            let version = &package.revision.version;
            if !asked.is_kept {
                return Err(PlanError::from(ReturnError::NotKept {
                    version: version.clone(),
                    instance: first.clone(),
                    source: Box::new(source),
                }));
            }
            let names: Vec<_> = asked.without.iter().map(InstanceId::as_str).collect();
            warnings.push(format!(
                "{version} is not in the cache of {} and cannot be fetched, so it cannot go back there: {}",
                names.join(", "),
                chain(&source)
            ));
        }
        Ok(())
    }

    /// Asks the instances that return to a package whether they have it in their caches.
    async fn ask_caches(
        &self,
        deployment: &Deployment,
        package: &Package,
        warnings: &mut Vec<String>,
    ) -> Caches {
        let cache = cache_folder(deployment, package);
        let mut returning = deployment
            .targets
            .iter()
            .enumerate()
            .filter(|(_, target)| target.incoming == package.deployment);
        let mut asked = JoinSet::new();
        let mut without = BTreeMap::new();
        let mut is_kept = false;
        loop {
            while asked.len() < ASKED_AT_ONCE
                && let Some((index, target)) = returning.next()
            {
                let instance = &target.instance;
                let caches = vec![cache.clone()];
                let answer = self
                    .fleet
                    .cached(&instance.host, instance.rootdir.clone(), caches);
                asked.spawn(async move { (index, answer.await) });
            }
            let answered = asked.join_next().await;
            let id = |index: usize| deployment.targets[index].instance.id.clone();
            match answered {
                None => break,
                Some(Ok((_, Ok(present)))) if present.contains(&cache) => is_kept = true,
                Some(Ok((index, Ok(_)))) => {
                    without.insert(index, id(index));
                }
                Some(Ok((index, Err(unreachable)))) => warnings.push(format!(
                    "{} cannot be asked what it keeps: {unreachable}",
                    id(index)
                )),
                Some(Err(error)) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
        Caches {
            without: without.into_values().collect(),
            is_kept,
        }
    }
}

/// What the instances said that return to a package.
struct Caches {
    /// Those that do not have it, in order.
    without: Vec<InstanceId>,
    /// Whether any has it.
    is_kept: bool,
}

fn brings(retry: &DeploymentState, key: &DeploymentId) -> bool {
    let mut targets = retry.plan.targets.iter();
    targets.any(|target| target.incoming == *key)
}

/// Puts what a retry did on its instances in the place of what the deployment itself did there.
fn merge(deployment: &mut DeploymentState, retry: &DeploymentState) {
    for (target, instance) in retry.plan.targets.iter().zip(&retry.instances) {
        let own = deployment
            .position(&target.instance.id)
            .and_then(|position| deployment.instances.get_mut(position));
        if let Some(own) = own.filter(|_| instance.is_touched()) {
            own.clone_from(instance);
        }
    }
    deployment.down.clone_from(&retry.down);
}

/// The instances that do not have a package and have another one.
fn targets(
    group: &Group,
    installed: &BTreeMap<InstanceId, DeploymentId>,
    key: &DeploymentId,
    warnings: &mut Vec<String>,
) -> Vec<Arc<Target>> {
    let mut targets = Vec::new();
    for instance in &group.instances {
        match installed.get(&instance.id) {
            None => warnings.push(format!(
                "{} has nothing installed: it stays as it is",
                instance.id
            )),
            Some(present) if present == key => {}
            Some(present) => targets.push(Arc::new(Target {
                instance: instance.clone(),
                outgoing: Some(present.clone()),
                incoming: key.clone(),
            })),
        }
    }
    targets
}

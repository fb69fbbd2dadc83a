//! Planning: everything that a release needs to know, gathered and checked before anything changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{DeploymentState, Traffic};
use journal::{Holder, Owner};
use model::{
    Deployment, DeploymentId, Digest, Direction, GroupRef, InstanceId, Package, Release, ReleaseId,
    ReleaseStatus, Revision, Scope, StopFailures, Target, Version,
};
use plugin_host::CallError;
use spec::Problems;
use spec::workspace::{Group, UnknownGroup};

use crate::Conductor;
use crate::appspec::read_appspec;
use crate::build::BuildError;
use crate::choices::{ChoiceError, Choices};
use crate::drive::DriveError;
use crate::fetch::FetchError;
use crate::live::LiveError;
use crate::plugins::PluginError;
use crate::preflight::{self, PreflightError};
use crate::redeploy::TemplateError;
use crate::retry::RetryError;
use crate::rollback::ReturnError;
use crate::source::absolute;
use crate::version;

/// A deployment that is asked for.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    pub group: GroupRef,
    /// A path, or a reference with a scheme.
    pub package: String,
    /// Generated when absent.
    pub version: Option<Version>,
    /// The digest that the package must have.
    pub digest: Option<Digest>,
    pub choices: Choices,
    pub stop_failures: StopFailures,
    pub comment: String,
}

/// A rollback that is asked for.
#[derive(Debug, Clone)]
pub struct RollbackRequest {
    pub group: GroupRef,
    /// The version to return to; absent for what each instance had before.
    pub to: Option<Version>,
    pub stop_failures: StopFailures,
    pub comment: String,
}

/// A release that could start.
#[derive(Debug, Clone)]
pub struct Planned {
    pub release: Release,
    pub deployment: Deployment,
    /// What an operator should know before it starts.
    pub warnings: Vec<String>,
}

/// Why nothing is started.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
    #[error("{group} is held by release {} ({}), {}", holder.release, holder.status, owner_of(holder))]
    Busy {
        group: GroupRef,
        holder: Box<Holder>,
    },
    #[error("another release has changed {group} since this one was planned")]
    Outdated { group: GroupRef },
    #[error("fetch the package")]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Build(Box<BuildError>),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error("ask plugin `{plugin}` for the package `{reference}`{}", times(*.tries))]
    Source {
        plugin: String,
        reference: String,
        /// How often it was asked, each time with this outcome.
        tries: u32,
        source: Box<CallError>,
    },
    #[error(
        "`{url}` is not what was asked for, and plugin `{plugin}` is not granted to fetch from there"
    )]
    UngrantedPlace { plugin: String, url: String },
    #[error("plugin `{plugin}` would stream its package and has no `streaming` to do it with")]
    NoStream { plugin: String },
    #[error("the package `{package}` has problems")]
    AppSpec { package: String, source: Problems },
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error("read the appspec of the package `{package}`")]
    ReadAppSpec {
        package: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Balancer(#[from] PreflightError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error("version {version} is in the history of {group} already (deployment {deployment})")]
    VersionTaken {
        group: GroupRef,
        version: Version,
        deployment: DeploymentId,
    },
    #[error("deployment `{deployment}` exists already")]
    DeploymentTaken { deployment: DeploymentId },
    #[error("release {release} is {status}; it can be taken back when it is over")]
    NotOver {
        release: ReleaseId,
        status: ReleaseStatus,
    },
    #[error("release {release} did nothing that could be taken back")]
    NothingToUndo { release: ReleaseId },
    #[error("{group} has changed since deployment {deployment}{}", after(latest.as_ref()))]
    Superseded {
        group: GroupRef,
        deployment: DeploymentId,
        /// What a rollback of the group would take back.
        latest: Option<DeploymentId>,
    },
    #[error("nothing is installed on any instance of {group} that is meant")]
    NothingInstalled { group: GroupRef },
    #[error("{group} has no deployment to roll back")]
    NothingToRollBack { group: GroupRef },
    #[error(
        "deployment {deployment} was the first on every instance that it touched: there is no version to return to"
    )]
    NoEarlierVersion { deployment: DeploymentId },
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Retry(#[from] RetryError),
    #[error(transparent)]
    Return(#[from] ReturnError),
    #[error("the journal names package {deployment} and does not hold it")]
    MissingPackage { deployment: DeploymentId },
    #[error("release {release} is {status}; only one that is PAUSED or INTERRUPTED is resumed")]
    NotResumable {
        release: ReleaseId,
        status: ReleaseStatus,
    },
    #[error("release {release} is being driven by {owner}")]
    Driven { release: ReleaseId, owner: Owner },
    #[error("fold the records of the release")]
    Misfit(#[from] engine::Misfit),
    #[error(transparent)]
    Refusal(#[from] engine::Refusal),
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error("release `{release}` exists already")]
    Exists { release: ReleaseId },
    #[error("learn who this process is")]
    Owner(#[source] std::io::Error),
    #[error("get random bytes for an id")]
    Random(#[source] getrandom::Error),
}

fn owner_of(holder: &Holder) -> String {
    match &holder.owner {
        Some(owner) if !owner.is_known_dead() => format!("driven by {owner}"),
        _ => format!(
            "which nobody drives: `cutover resume {id}` or `cutover stop {id}`",
            id = holder.release
        ),
    }
}

impl From<BuildError> for PlanError {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}

fn after(latest: Option<&DeploymentId>) -> String {
    latest.map_or_else(String::new, |latest| {
        format!(": the latest is deployment {latest}")
    })
}

/// An error with its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn times(tries: u32) -> String {
    match tries {
        0 | 1 => String::new(),
        tries => format!(", {tries} times"),
    }
}

impl Conductor {
    /// Fetches and checks a package and plans its deployment. Nothing changes on any instance.
    ///
    /// # Errors
    /// [`PlanError`] for whatever would make it fail before its first hook.
    pub async fn plan_deploy(&self, request: DeployRequest) -> Result<Planned, PlanError> {
        let group = self.workspace.group(&request.group)?;
        self.check_free(&group.reference)?;
        let mut warnings = Vec::new();
        self.tell_excluded(group, &request.choices, &mut warnings)?;
        let release = self.new_release(request.comment.clone(), Scope::Service)?;
        let id = DeploymentId::nth(&release.id, 1);
        let deployment = self.deploy_to(group, id, request, &mut warnings).await?;
        Ok(Planned {
            release,
            deployment,
            warnings,
        })
    }

    /// The deployment of a package to a group, under this id.
    pub(crate) async fn deploy_to(
        &self,
        group: &Group,
        id: DeploymentId,
        request: DeployRequest,
        warnings: &mut Vec<String>,
    ) -> Result<Deployment, PlanError> {
        let chosen = request.choices.of(group)?;
        let group = &*chosen;
        let seen = self
            .look(group, request.choices.live.as_ref(), warnings)
            .await?;
        let reference = absolute(&request.package);
        let source = self.resolve(id.as_str(), &reference).await?;
        let fetched = self
            .fetch(&source, request.digest.clone(), Some(group))
            .await?;
        warnings.extend(fetched.warnings);
        let stored = fetched.stored;
        let appspec = read_appspec(&request.package, &stored.tree, group, warnings)?;
        let package = Package {
            deployment: id,
            revision: Revision {
                version: self.version(group, request.version, source.version)?,
                source: source.pinned,
                digest: stored.digest,
            },
            appspec,
        };
        let mut deployment = Deployment {
            stop_failures: request.stop_failures,
            excluded: request.choices.exclude,
            ..self.deployment_of(group, package)?
        };
        self.arrange(group, seen, &mut deployment, warnings).await?;
        Ok(deployment)
    }

    /// The deployment of a package that has been fetched and checked, to all instances of a group.
    pub(crate) fn deployment_of(
        &self,
        group: &Group,
        package: Package,
    ) -> Result<Deployment, PlanError> {
        let (id, revision) = (package.deployment.clone(), package.revision.clone());
        let installed = self.journal.installed(&group.reference)?;
        let mut packages = BTreeMap::from([(id.clone(), Arc::new(package))]);
        for deployment in group
            .instances
            .iter()
            .filter_map(|instance| installed.get(&instance.id))
        {
            self.add_package(&mut packages, deployment)?;
        }
        let targets = group.instances.iter().map(|instance| {
            let outgoing = installed.get(&instance.id).cloned();
            Arc::new(Target {
                instance: instance.clone(),
                outgoing,
                incoming: id.clone(),
            })
        });
        let traffic = match group.balancer {
            Some(_) => Traffic::Balanced,
            None => Traffic::Direct,
        };
        Ok(Deployment {
            group: group.reference.clone(),
            service_id: group.service_id,
            kind: "DEPLOY".to_owned(),
            priority: 0,
            direction: Direction::Deploy,
            revision,
            strategy: group.strategy,
            batching: group.batching.clone(),
            wait_between: group.wait_between,
            failure_threshold: group.failure_threshold,
            batch_failure_threshold: group.batch_failure_threshold,
            minimum_healthy: group.minimum_healthy,
            gates: group.gates.clone(),
            on_failure: group.on_failure,
            stop_failures: StopFailures::Fail,
            sequence: engine::sequence(group.strategy, traffic, &Direction::Deploy),
            calls: None,
            router: group.router.clone(),
            sides: None,
            down: BTreeMap::new(),
            balancer: group.balancer.clone(),
            packages,
            targets: targets.collect(),
            excluded: Vec::new(),
            plugins: BTreeMap::new(),
            keep_revisions: group.keep_revisions,
            id,
        })
    }

    /// Plans the way back from the latest deployment of a group that has not been taken back.
    ///
    /// # Errors
    /// [`PlanError::NothingToRollBack`] and [`PlanError::NoEarlierVersion`] among others.
    pub async fn plan_rollback(&self, request: RollbackRequest) -> Result<Planned, PlanError> {
        let group = self.workspace.group(&request.group)?;
        self.check_free(&group.reference)?;
        if let Some(version) = &request.to {
            return self.plan_return(group, version, &request).await;
        }
        let mut warnings = Vec::new();
        let nothing = || PlanError::NothingToRollBack {
            group: group.reference.clone(),
        };
        let latest = self.latest_deployment(&group.reference)?;
        let (of, state) = latest.ok_or_else(nothing)?;
        let release = self.new_release(request.comment, Scope::Service)?;
        let id = DeploymentId::nth(&release.id, 1);
        let deployment = self.take_back(group, id, of, &state, &mut warnings).await?;
        Ok(Planned {
            release,
            deployment: Deployment {
                stop_failures: request.stop_failures,
                ..deployment
            },
            warnings,
        })
    }

    /// The deployment that takes another one back, under this id.
    pub(crate) async fn take_back(
        &self,
        group: &Group,
        id: DeploymentId,
        of: DeploymentId,
        state: &DeploymentState,
        warnings: &mut Vec<String>,
    ) -> Result<Deployment, PlanError> {
        let plugins = preflight::balancer(&self.plugins, group, warnings).await?;
        let installed = self.journal.installed(&group.reference)?;
        for instance in engine::rollback::without_earlier_version(state) {
            warnings.push(format!(
                "{instance} has no version before {}: it stays as it is",
                state.plan.revision.version
            ));
        }
        let now_installed =
            |instance: &InstanceId, _: &Target, _: bool| installed.get(instance).cloned();
        let planned = engine::rollback::plan(state, id, now_installed);
        let mut deployment = planned.ok_or(PlanError::NoEarlierVersion { deployment: of })?;
        let keys: Vec<_> = deployment
            .targets
            .iter()
            .flat_map(|target| target.outgoing.clone())
            .collect();
        for key in keys {
            self.add_package(&mut deployment.packages, &key)?;
        }
        deployment.plugins = plugins;
        self.look_back(group, &state.plan, &mut deployment, warnings)
            .await?;
        self.check_kept(&deployment, warnings).await?;
        Ok(deployment)
    }

    pub(crate) fn check_free(&self, group: &GroupRef) -> Result<(), PlanError> {
        match self.journal.holder(group)? {
            Some(holder) => Err(PlanError::Busy {
                group: group.clone(),
                holder: Box::new(holder),
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn new_release(&self, comment: String, scope: Scope) -> Result<Release, PlanError> {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut bytes = [0; 10];
        getrandom::fill(&mut bytes).map_err(PlanError::Random)?;
        let text: String = bytes
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
            .collect();
        let id =
            ReleaseId::parse(text).unwrap_or_else(|error| unreachable!("an id of ours: {error}"));
        Ok(Release {
            id,
            comment,
            operator: self.operator.clone(),
            scope,
        })
    }

    pub(crate) fn version(
        &self,
        group: &Group,
        asked: Option<Version>,
        guessed: Option<Version>,
    ) -> Result<Version, PlanError> {
        let used = self.journal.versions(&group.reference)?;
        let taken = |version: &Version| used.iter().find(|used| used.version.is_same(version));
        if let Some(version) = asked {
            return match taken(&version) {
                Some(used) => Err(PlanError::VersionTaken {
                    group: group.reference.clone(),
                    version,
                    deployment: used.deployment.clone(),
                }),
                None => Ok(version),
            };
        }
        let guessed = guessed.filter(|version| taken(version).is_none());
        Ok(guessed.unwrap_or_else(|| {
            version::generated(jiff::Zoned::now().datetime(), |v| taken(v).is_some())
        }))
    }

    pub(crate) fn add_package(
        &self,
        packages: &mut BTreeMap<DeploymentId, Arc<Package>>,
        deployment: &DeploymentId,
    ) -> Result<(), PlanError> {
        if !packages.contains_key(deployment) {
            let package = self.journal.package(deployment)?;
            let package = package.ok_or_else(|| PlanError::MissingPackage {
                deployment: deployment.clone(),
            })?;
            packages.insert(deployment.clone(), package);
        }
        Ok(())
    }
}

//! Planning: everything that a release needs to know, gathered and checked before anything changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{DeploymentState, Engine, Input, State};
use journal::{Filter, Holder, Journal, OpenError, Owner};
use model::{
    AppSpec, Deployment, DeploymentId, Digest, Direction, Fact, GroupRef, InstanceId, Package,
    Record, Release, ReleaseId, ReleaseStatus, Revision, Target, Version,
};
use plugin_host::package_source::FetchPlan;
use plugin_host::{CallError, OpContext};
use spec::Problems;
use spec::workspace::{Group, UnknownGroup, Workspace};

use crate::balancer::Turns;
use crate::drive::{Running, now};
use crate::fetch::{self, FetchError, Place};
use crate::logs::Logs;
use crate::packages::{Packages, Stored};
use crate::plugins::{PluginError, Plugins};
use crate::preflight::{self, PreflightError};
use crate::version;

/// How many deployments of a group's history are looked through for one to take back.
const HISTORY: usize = 1000;

/// Drives releases. Cheap to clone; clones are one and the same conductor.
#[derive(Clone)]
pub struct Conductor {
    pub(crate) journal: Journal,
    pub(crate) fleet: Arc<dyn fleet::Fleet>,
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) packages: Packages,
    pub(crate) logs: Logs,
    pub(crate) turns: Arc<Turns>,
    workspace: Arc<Workspace>,
    operator: String,
}

/// What a conductor works with.
pub struct Options {
    pub workspace: Workspace,
    pub journal: Journal,
    pub fleet: Arc<dyn fleet::Fleet>,
    pub plugins: Plugins,
    /// Folder for packages and logs, beside the journal.
    pub state: PathBuf,
    /// Who gives the orders, `user@host`.
    pub operator: String,
}

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
    pub comment: String,
}

/// A rollback that is asked for.
#[derive(Debug, Clone)]
pub struct RollbackRequest {
    pub group: GroupRef,
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
    #[error("fetch the package")]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error("ask plugin `{plugin}` for the package `{reference}`")]
    Source {
        plugin: String,
        reference: String,
        source: Box<CallError>,
    },
    #[error(
        "`{url}` is not what was asked for, and plugin `{plugin}` is not granted to fetch from there"
    )]
    UngrantedPlace { plugin: String, url: String },
    #[error(
        "plugin `{plugin}` streams its packages, which is not supported by this version of cutover"
    )]
    Streamed { plugin: String },
    #[error("the package `{package}` has problems")]
    AppSpec { package: String, source: Problems },
    #[error("read the appspec of the package `{package}`")]
    ReadAppSpec {
        package: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Balancer(#[from] PreflightError),
    #[error("version {version} is in the history of {group} already (deployment {deployment})")]
    VersionTaken {
        group: GroupRef,
        version: Version,
        deployment: DeploymentId,
    },
    #[error("{group} has no deployment to roll back")]
    NothingToRollBack { group: GroupRef },
    #[error(
        "deployment {deployment} was the first on every instance that it touched: there is no version to return to"
    )]
    NoEarlierVersion { deployment: DeploymentId },
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

/// An error with its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Conductor {
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            journal: options.journal,
            fleet: options.fleet,
            plugins: Arc::new(options.plugins),
            packages: Packages::new(options.state.join("packages")),
            logs: Logs::new(options.state.join("logs")),
            turns: Arc::default(),
            workspace: Arc::new(options.workspace),
            operator: options.operator,
        }
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What hooks printed.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The plugins.
    #[must_use]
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// Fetches and checks a package and plans its deployment. Nothing changes on any instance.
    ///
    /// # Errors
    /// [`PlanError`] for whatever would make it fail before its first hook.
    pub async fn plan_deploy(&self, request: DeployRequest) -> Result<Planned, PlanError> {
        let group = self.workspace.group(&request.group)?;
        self.check_free(&group.reference)?;
        let mut warnings = Vec::new();
        let plugins = preflight::balancer(&self.plugins, group, &mut warnings).await?;
        let release = self.new_release(request.comment)?;
        let reference = absolute(&request.package);
        let source = self.resolve(release.id.as_str(), &reference).await?;
        let expected = request.digest.clone().or(source.digest);
        let stored = self.fetch(&source.pinned, source.places, expected).await?;
        let appspec = read_appspec(&request.package, &stored.tree, group, &mut warnings)?;
        let version = self.version(group, request.version, source.version)?;
        let id = DeploymentId::nth(&release.id, 1);
        let revision = Revision {
            version,
            source: source.pinned,
            digest: stored.digest,
        };
        let package = Package {
            deployment: id.clone(),
            revision: revision.clone(),
            appspec,
        };
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
        let deployment = Deployment {
            group: group.reference.clone(),
            service_id: group.service_id,
            kind: "DEPLOY".to_owned(),
            priority: 0,
            direction: Direction::Deploy,
            revision,
            strategy: group.strategy,
            failure_threshold: group.failure_threshold,
            on_failure: group.on_failure,
            sequence: engine::sequence(group.balancer.as_ref(), &Direction::Deploy),
            balancer: group.balancer.clone(),
            packages,
            targets: targets.collect(),
            plugins,
            keep_revisions: group.keep_revisions,
            id,
        };
        Ok(Planned {
            release,
            deployment,
            warnings,
        })
    }

    /// Plans the way back from the latest deployment of a group that has not been taken back.
    ///
    /// # Errors
    /// [`PlanError::NothingToRollBack`] and [`PlanError::NoEarlierVersion`] among others.
    pub async fn plan_rollback(&self, request: RollbackRequest) -> Result<Planned, PlanError> {
        let group = self.workspace.group(&request.group)?;
        self.check_free(&group.reference)?;
        let mut warnings = Vec::new();
        let plugins = preflight::balancer(&self.plugins, group, &mut warnings).await?;
        let release = self.new_release(request.comment)?;
        let installed = self.journal.installed(&group.reference)?;
        let latest = self.latest_deployment(&group.reference)?;
        let nothing = || PlanError::NothingToRollBack {
            group: group.reference.clone(),
        };
        let (of, state) = latest.ok_or_else(nothing)?;
        for instance in engine::rollback::without_earlier_version(&state) {
            warnings.push(format!(
                "{instance} has no version before {}: it stays as it is",
                state.plan.revision.version
            ));
        }
        let id = DeploymentId::nth(&release.id, 1);
        let now_installed =
            |instance: &InstanceId, _: &Target, _: bool| installed.get(instance).cloned();
        let planned = engine::rollback::plan(&state, id, now_installed);
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
        Ok(Planned {
            release,
            deployment,
            warnings,
        })
    }

    /// Takes the group and opens the release. From here on it is in the journal.
    ///
    /// # Errors
    /// [`PlanError::Busy`] when another release holds the group.
    pub fn open(&self, planned: Planned) -> Result<Running, PlanError> {
        let at = now();
        let group = planned.deployment.group.clone();
        let facts = [
            Fact::ReleaseOpened(planned.release),
            Fact::DeploymentOpened(Arc::new(planned.deployment)),
        ];
        let records = facts
            .into_iter()
            .zip(0..)
            .map(|(fact, seq)| Record { seq, at, fact })
            .collect::<Vec<_>>();
        let engine = Engine::from_records(&records)?;
        let owner = Owner::current().map_err(PlanError::Owner)?;
        let tenure = self
            .journal
            .open_release(records, &[group], &owner)
            .map_err(|error| match error {
                OpenError::Busy { group, holder } => PlanError::Busy { group, holder },
                OpenError::Exists { release } => PlanError::Exists { release },
                OpenError::Journal(error) => error.into(),
            })?;
        Ok(Running {
            conductor: self.clone(),
            tenure,
            engine,
            first: Input::Begin,
        })
    }

    /// Takes up a release that is paused, interrupted, or whose conductor died.
    ///
    /// # Errors
    /// [`PlanError::NotResumable`], [`PlanError::Driven`], or a plugin that is not the one it began with.
    pub async fn resume(&self, release: &ReleaseId) -> Result<Running, PlanError> {
        let engine = Engine::from_records(&self.journal.records(release, 0)?)?;
        let status = engine.state().status;
        if status.is_terminal() {
            return Err(PlanError::NotResumable {
                release: release.clone(),
                status,
            });
        }
        for deployment in engine
            .state()
            .deployments
            .iter()
            .filter(|deployment| deployment.ended_at.is_none())
        {
            self.plugins.check_same(&deployment.plan.plugins).await?;
        }
        let tenure = self.take_over(release)?;
        // Read again: until it was taken over somebody else might have written.
        let engine = Engine::from_records(&self.journal.records(release, 0)?)?;
        let first = Input::Resume {
            operator: self.operator.clone(),
        };
        Ok(Running {
            conductor: self.clone(),
            tenure,
            engine,
            first,
        })
    }

    /// Ends a release that is paused or interrupted, and frees its groups.
    ///
    /// # Errors
    /// [`PlanError::Driven`] while a conductor is at work on it, [`PlanError::Refusal`] when it has ended.
    pub async fn stop(&self, release: &ReleaseId) -> Result<State, PlanError> {
        let tenure = self.take_over(release)?;
        let mut engine = Engine::from_records(&self.journal.records(release, 0)?)?;
        let mut records = Vec::new();
        if engine.state().status.is_active() {
            let reason = "the conductor died".to_owned();
            records.extend(engine.handle(now(), Input::Interrupt { reason })?.records);
        }
        records.extend(engine.handle(now(), Input::Stop)?.records);
        self.journal.append(&tenure, records).await?;
        Ok(engine.state().clone())
    }

    fn take_over(&self, release: &ReleaseId) -> Result<journal::Tenure, PlanError> {
        let owner = Owner::current().map_err(PlanError::Owner)?;
        self.journal
            .take_over(release, &owner, now())
            .map_err(|error| match error {
                journal::Error::Owned { release, owner, .. } => {
                    PlanError::Driven { release, owner }
                }
                journal::Error::Ended { release, status } => {
                    PlanError::NotResumable { release, status }
                }
                other => other.into(),
            })
    }

    fn check_free(&self, group: &GroupRef) -> Result<(), PlanError> {
        match self.journal.holder(group)? {
            Some(holder) => Err(PlanError::Busy {
                group: group.clone(),
                holder: Box::new(holder),
            }),
            None => Ok(()),
        }
    }

    fn new_release(&self, comment: String) -> Result<Release, PlanError> {
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
        })
    }

    fn version(
        &self,
        group: &Group,
        asked: Option<Version>,
        guessed: Option<Version>,
    ) -> Result<Version, PlanError> {
        let used = self.journal.versions(&group.reference)?;
        let taken = |version: &Version| used.iter().find(|used| used.version == *version);
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

    fn add_package(
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

    /// The latest deployment of a group that touched an instance and has not been taken back.
    fn latest_deployment(
        &self,
        group: &GroupRef,
    ) -> Result<Option<(DeploymentId, DeploymentState)>, PlanError> {
        for summary in self.journal.deployments(group, HISTORY)? {
            if summary.direction != Direction::Deploy || summary.rolled_back_by.is_some() {
                continue;
            }
            let state = State::fold(&self.journal.records(&summary.release, 0)?)?;
            let found = state.find(&summary.id);
            if let Some(found) = found.filter(|found| {
                found
                    .instances
                    .iter()
                    .any(engine::InstanceState::is_touched)
            }) {
                return Ok(Some((summary.id, found.clone())));
            }
        }
        Ok(None)
    }

    /// The package as the conductor stores it, fetched again from the recorded source when it is gone.
    pub(crate) async fn stored(&self, package: &Package) -> Result<Stored, PlanError> {
        let revision = &package.revision;
        if let Some(stored) = self.packages.find(&revision.digest) {
            return Ok(stored);
        }
        let source = self
            .resolve(package.deployment.as_str(), &revision.source)
            .await?;
        self.fetch(&source.pinned, source.places, Some(revision.digest.clone()))
            .await
    }

    async fn fetch(
        &self,
        pinned: &str,
        places: Vec<Place>,
        expected: Option<Digest>,
    ) -> Result<Stored, PlanError> {
        let (packages, pinned) = (self.packages.clone(), pinned.to_owned());
        let stored = tokio::task::spawn_blocking(move || {
            fetch::fetch(&packages, &pinned, &places, expected.as_ref())
        })
        .await;
        match stored {
            Ok(stored) => Ok(stored?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Asks the package source where a package is.
    async fn resolve(&self, run: &str, reference: &str) -> Result<Source, PlanError> {
        let scheme = reference
            .split_once(':')
            .map_or("file", |(scheme, _)| scheme);
        let plugin = self.plugins.source(scheme).await?;
        let failed = |source: CallError| PlanError::Source {
            plugin: plugin.name().to_string(),
            reference: reference.to_owned(),
            source: Box::new(source),
        };
        let context = OpContext {
            run_id: run.to_owned(),
            step_id: "package".to_owned(),
            idempotency_key: format!("{run}.package"),
            attempt: 1,
            ..OpContext::default()
        };
        let resolved = plugin
            .resolve(&context, "{}", reference)
            .await
            .map_err(failed)?;
        let downloads = plugin
            .plan_fetch(&context, "{}", &resolved.pinned)
            .await
            .map_err(failed)?;
        let FetchPlan::Download(downloads) = downloads else {
            return Err(PlanError::Streamed {
                plugin: plugin.name().to_string(),
            });
        };
        let mut places = Vec::new();
        for download in downloads {
            let headers = plugin.authorise(reference, &download).map_err(failed)?;
            places.push(Place {
                url: download.url,
                headers,
            });
        }
        let version = resolved
            .version
            .as_deref()
            .and_then(|text| Version::parse(text).ok());
        let digest = match resolved.digest {
            Some(digest) if digest.algorithm == "sha256" => {
                Digest::parse(&format!("sha256:{}", digest.hex)).ok()
            }
            _ => None,
        };
        Ok(Source {
            pinned: resolved.pinned,
            version,
            digest,
            places,
        })
    }

    /// Every release, newest first.
    ///
    /// # Errors
    /// What the journal says.
    pub fn releases(&self, limit: usize) -> Result<Vec<journal::Summary>, PlanError> {
        Ok(self.journal.releases(Filter::All, limit)?)
    }
}

/// What a package source said of a reference.
struct Source {
    pinned: String,
    version: Option<Version>,
    digest: Option<Digest>,
    places: Vec<Place>,
}

/// A package reference with its scheme; a path becomes absolute.
fn absolute(package: &str) -> String {
    let path = match package.split_once(':') {
        Some(("file", path)) => path.strip_prefix("//").unwrap_or(path),
        Some((scheme, rest)) if rest.starts_with("//") && !scheme.contains('/') => {
            return package.to_owned();
        }
        _ => package,
    };
    let path = std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| PathBuf::from(path));
    format!("file://{}", path.display())
}

/// Reads and checks the package's appspec, with the group's form in the place of its hooks where there is one.
fn read_appspec(
    package: &str,
    tree: &Path,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<AppSpec, PlanError> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| PlanError::ReadAppSpec {
        package: package.to_owned(),
        source,
    };
    let path = spec::appspec::find(tree).map_err(|error| unreadable(Box::new(error)))?;
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(Box::new(error)))?;
    // Messages name the file as the operator knows it, not where the store keeps it.
    let shown = path
        .strip_prefix(tree)
        .map_or_else(|_| path.clone(), |name| Path::new(package).join(name));
    let problems = |source: Problems| PlanError::AppSpec {
        package: package.to_owned(),
        source,
    };
    let parsed = spec::appspec::parse(&text, &shown).map_err(problems)?;
    warnings.extend(parsed.warnings.iter().map(ToString::to_string));
    let found = spec::appspec::check(&parsed.value, tree);
    if found.has_errors() {
        return Err(problems(found));
    }
    let mut appspec = parsed.value.appspec;
    if let Some(form) = &group.form {
        if !appspec.hooks.is_empty() {
            warnings.push(format!(
                "{} has scripts of its own (the form): the hooks of `{}` are not used",
                group.reference,
                shown.display()
            ));
        }
        appspec.hooks.clone_from(form);
    }
    Ok(appspec)
}

//! Trying a package on this machine: one instance, no plugins, a command in the place of a balancer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::Traffic;
use model::{
    Balancer, Deployment, DeploymentId, GroupRef, LifecycleEvent, OnExisting, Package, Retire,
    Revision, Router, Scope, StopFailures, Strategy, Target,
};

use crate::Conductor;
use crate::appspec::read_located;
use crate::plan::{PlanError, Planned, RollbackRequest};
use crate::source::absolute;

/// The longest that a traffic command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// A package to be tried on the one instance of a group.
#[derive(Debug, Clone)]
pub struct LocalRequest {
    pub group: GroupRef,
    pub bundle: PathBuf,
    /// Generated when absent.
    pub deployment: Option<DeploymentId>,
    /// For an appspec that does not say it itself.
    pub on_existing: Option<OnExisting>,
    pub workflow: Workflow,
}

/// How the one instance is taken to another revision.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// In a rollback, when absent, that of the deployment that is taken back.
    pub profile: Option<Profile>,
    /// The command line that stands in for a balancer. In a rollback, when absent, as the profile.
    pub command: Option<String>,
    /// The only events that take place, besides DownloadBundle and Install; all when absent.
    pub events: Option<Vec<LifecycleEvent>>,
    pub stop_failures: StopFailures,
}

/// A row of the table of lifecycles (DESIGN.md §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Rolling,
    RollingBalanced,
    BlueGreen,
}

impl Profile {
    fn of(deployment: &Deployment) -> Self {
        let is_balanced = deployment
            .sequence
            .iter()
            .any(|event| event.is_about_traffic());
        match deployment.strategy {
            Strategy::BlueGreen { .. } => Self::BlueGreen,
            _ if is_balanced => Self::RollingBalanced,
            Strategy::Rolling | Strategy::Canary { .. } => Self::Rolling,
        }
    }

    fn strategy(self) -> Strategy {
        match self {
            Self::Rolling | Self::RollingBalanced => Strategy::Rolling,
            Self::BlueGreen => Strategy::BlueGreen {
                bake: Duration::ZERO,
                retire: Retire::Keep,
            },
        }
    }

    fn traffic(self) -> Traffic {
        match self {
            Self::RollingBalanced => Traffic::Balanced,
            Self::Rolling | Self::BlueGreen => Traffic::Direct,
        }
    }
}

impl Workflow {
    fn apply(self, deployment: &mut Deployment) {
        let profile = self.profile.unwrap_or_else(|| Profile::of(deployment));
        deployment.strategy = profile.strategy();
        deployment.sequence = engine::sequence(
            deployment.strategy,
            profile.traffic(),
            &deployment.direction,
        );
        if let Some(events) = self.events {
            deployment.sequence.retain(|event| {
                let is_needed = matches!(
                    event,
                    LifecycleEvent::DownloadBundle | LifecycleEvent::Install
                );
                is_needed || events.contains(event)
            });
        }
        if let Some(command) = self.command {
            let timeout = COMMAND_TIMEOUT;
            deployment.router = Some(Router::Command {
                command: command.clone(),
                timeout,
            });
            deployment.balancer = Some(Balancer::Command { command, timeout });
        }
        deployment.stop_failures = self.stop_failures;
    }
}

impl Conductor {
    /// Fetches and checks a package on this machine and plans its deployment. Nothing changes on the instance.
    ///
    /// # Errors
    /// [`PlanError`] for whatever would make it fail before its first hook.
    pub async fn plan_local(&self, request: LocalRequest) -> Result<Planned, PlanError> {
        let group = self.workspace.group(&request.group)?;
        self.check_free(&group.reference)?;
        let release = self.new_release(String::new(), Scope::Service)?;
        let id = match request.deployment {
            Some(deployment) => self.unused(deployment)?,
            None => DeploymentId::nth(&release.id, 1),
        };
        let mut warnings = Vec::new();
        let bundle = request.bundle.display().to_string();
        let source = absolute(&bundle);
        let fetched = self.fetch_file(&source, group.appspec.clone()).await?;
        warnings.extend(fetched.warnings);
        let stored = fetched.stored;
        let located = read_located(&bundle, &stored.tree, group, &mut warnings)?;
        let mut appspec = located.appspec;
        if let (None, Some(on_existing)) = (located.on_existing_at, request.on_existing) {
            appspec.on_existing = on_existing;
        }
        let package = Package {
            deployment: id,
            revision: Revision {
                version: self.version(group, None, None)?,
                source,
                digest: stored.digest,
            },
            appspec,
        };
        let mut deployment = self.deployment_of(group, package)?;
        request.workflow.apply(&mut deployment);
        Ok(Planned {
            release,
            deployment,
            warnings,
        })
    }

    /// Plans the way back from the latest deployment that has not been taken back.
    ///
    /// # Errors
    /// As [`Conductor::plan_rollback`].
    pub async fn plan_local_rollback(
        &self,
        group: &GroupRef,
        deployment: Option<DeploymentId>,
        workflow: Workflow,
    ) -> Result<Planned, PlanError> {
        let request = RollbackRequest {
            group: group.clone(),
            to: None,
            stop_failures: workflow.stop_failures,
            comment: String::new(),
        };
        let mut planned = self.plan_rollback(request).await?;
        if let Some(deployment) = deployment {
            planned.deployment.id = self.unused(deployment)?;
        }
        workflow.apply(&mut planned.deployment);
        // The one instance is as this command describes it, not as the earlier one did.
        let instances = &self.workspace.group(group)?.instances;
        for (target, instance) in planned.deployment.targets.iter_mut().zip(instances) {
            *target = Arc::new(Target {
                instance: instance.clone(),
                ..Target::clone(target)
            });
        }
        Ok(planned)
    }

    fn unused(&self, deployment: DeploymentId) -> Result<DeploymentId, PlanError> {
        match self.journal.deployment(&deployment)? {
            Some(_) => Err(PlanError::DeploymentTaken { deployment }),
            None => Ok(deployment),
        }
    }
}

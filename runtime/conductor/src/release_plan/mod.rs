//! Release plans: from the services of a file to the deployments of one release.

mod items;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use model::{Calls, Deployment, DeploymentId, GroupRef, OnFailure, Release, Scope, StopFailures};
use plugin_host::deployment_kind::{Action, Step};
use spec::Problems;
use spec::release_plan::ReleasePlan;

use self::items::Service;
pub use self::items::check_run;
use crate::Conductor;
use crate::choices::Choices;
use crate::plan::{DeployRequest, PlanError};

/// A release of several services that could start.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    pub release: Release,
    /// In the order of their turn.
    pub deployments: Vec<Deployment>,
    /// What an operator should know before it starts.
    pub warnings: Vec<String>,
}

/// Why nothing of a release plan is started.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the release plan has problems")]
    Problems(#[from] Problems),
    #[error("{}:{line}: service {service_id} ({group})", file.display())]
    Service {
        file: PathBuf,
        line: usize,
        service_id: u64,
        group: GroupRef,
        source: Box<PlanError>,
    },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Conductor {
    /// Plans the deployments of a release plan: every package is fetched or built, and everything checked, before
    /// anything changes on any instance.
    ///
    /// # Errors
    /// [`RunError::Problems`] with all that is wrong with the file, then the first service that cannot be planned.
    pub async fn plan_run(&self, plan: &ReleasePlan) -> Result<PlannedRun, RunError> {
        let (mut services, problems) = items::read(&self.workspace, &self.plugins, plan).await?;
        if problems.has_errors() {
            return Err(problems.into());
        }
        // Stable: services of one priority stay in the order of the file.
        services.sort_by_key(|service| Reverse(service.item.priority));
        for service in &services {
            self.check_free(&service.group.reference)?;
        }
        let mut warnings: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let release = self.new_release(plan.comment.clone(), Scope::Plan)?;
        let mut deployments = Vec::new();
        for (service, number) in services.iter().zip(1..) {
            let id = DeploymentId::nth(&release.id, number);
            let group = &service.group.reference;
            let mut told = Vec::new();
            let planned = self.deployment_for(service, id, &mut told).await;
            let deployment = planned.map_err(|source| RunError::Service {
                file: plan.file.clone(),
                line: service.item.at.line,
                service_id: service.item.service_id,
                group: group.clone(),
                source: Box::new(source),
            })?;
            warnings.extend(told.into_iter().map(|told| format!("{group}: {told}")));
            deployments.push(deployment);
        }
        Ok(PlannedRun {
            release,
            deployments,
            warnings,
        })
    }

    async fn deployment_for(
        &self,
        service: &Service<'_>,
        id: DeploymentId,
        warnings: &mut Vec<String>,
    ) -> Result<Deployment, PlanError> {
        let group = &service.group;
        let choices = Choices {
            exclude: service.left_out.clone(),
            ..Choices::default()
        };
        let events: Vec<_> = service.recipe.steps.iter().map(|step| step.event).collect();
        let deployment = match &service.recipe.reference {
            Some(reference) => {
                if group.on_failure == OnFailure::Rollback {
                    warnings.push(
                        "a release plan takes nothing back by itself: `on_failure: rollback` is not used"
                            .to_owned(),
                    );
                }
                let request = DeployRequest {
                    group: group.reference.clone(),
                    package: reference.clone(),
                    version: None,
                    digest: None,
                    choices,
                    stop_failures: StopFailures::Fail,
                    comment: String::new(),
                };
                let mut deployment = self.deploy_to(group, id, request, warnings).await?;
                deployment.sequence.retain(|event| events.contains(event));
                deployment
            }
            None => self.operate(group, &events, id, &choices, warnings).await?,
        };
        let calls = self.calls(service, &deployment, warnings);
        let mut plugins = deployment.plugins.clone();
        if calls.is_some() {
            let plugin = &service.plugin;
            plugins.insert(plugin.name().clone(), plugin.digest().clone());
        }
        Ok(Deployment {
            kind: service.item.kind.clone(),
            priority: service.item.priority,
            on_failure: OnFailure::Stop,
            calls,
            plugins,
            ..deployment
        })
    }

    /// What the plugin of a service's kind does itself, as far as the group has these events.
    fn calls(
        &self,
        service: &Service<'_>,
        deployment: &Deployment,
        warnings: &mut Vec<String>,
    ) -> Option<Calls> {
        let is_call = |step: &&Step| step.action == Action::Call;
        let mut events = BTreeMap::new();
        for step in service.recipe.steps.iter().filter(is_call) {
            let event = step.event;
            if deployment.sequence.contains(&event) {
                events.insert(event, step.timeout.unwrap_or(USUAL_TIMEOUT));
            } else {
                let kind = &service.item.kind;
                warnings.push(format!(
                    "`{kind}` calls its plugin at {event}, which this group does not go through: it is left out"
                ));
            }
        }
        let plugin = service.plugin.name().clone();
        (!events.is_empty()).then(|| Calls {
            config: self.plugins.config(&plugin),
            plugin,
            item: service.item.json.clone(),
            events,
        })
    }

    /// Has a deployment call the plugin that the one before called which it is made after.
    pub(crate) async fn keep_calls(
        &self,
        before: &Deployment,
        deployment: &mut Deployment,
    ) -> Result<(), PlanError> {
        let Some(calls) = &before.calls else {
            return Ok(());
        };
        let plugin = self.plugins.get(&calls.plugin).await?;
        let (name, digest) = (plugin.name().clone(), plugin.digest().clone());
        deployment.plugins.insert(name, digest);
        deployment.calls = Some(Calls {
            config: self.plugins.config(&calls.plugin),
            ..calls.clone()
        });
        Ok(())
    }
}

/// How long a call may take where the recipe does not say.
const USUAL_TIMEOUT: Duration = Duration::from_mins(10);

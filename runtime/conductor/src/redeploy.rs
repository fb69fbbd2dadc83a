//! Planning a deployment after the template of an old one.

use model::{
    DeploymentId, Direction, Package, ReleaseStatus, Revision, Scope, StopFailures, Version,
};

use crate::Conductor;
use crate::appspec::read_appspec;
use crate::choices::Choices;
use crate::plan::{PlanError, Planned};

/// A redeployment that is asked for.
#[derive(Debug, Clone)]
pub struct RedeployRequest {
    /// The old deployment.
    pub template: DeploymentId,
    /// Generated when absent.
    pub version: Option<Version>,
    pub choices: Choices,
    pub stop_failures: StopFailures,
    /// What the template is, when empty.
    pub comment: String,
}

/// A deployment that is no template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("the journal holds no deployment {deployment}")]
    Unknown { deployment: DeploymentId },
    #[error("deployment {deployment} is a {direction}, and brought no package of its own")]
    NoPackage {
        deployment: DeploymentId,
        direction: &'static str,
        /// The deployment that brought what it went about with.
        brought_by: Option<DeploymentId>,
    },
    #[error("{version} of deployment {deployment} was rolled back by {by}, and is no template")]
    RolledBack {
        deployment: DeploymentId,
        version: Version,
        by: DeploymentId,
    },
}

impl Conductor {
    /// Plans to deploy an old deployment's package once more, under another version. It comes from the store or from the
    /// recorded source, with the recorded digest.
    ///
    /// # Errors
    /// [`PlanError::Template`] among others.
    pub async fn plan_redeploy(&self, request: RedeployRequest) -> Result<Planned, PlanError> {
        let deployment = request.template;
        let unknown = || TemplateError::Unknown {
            deployment: deployment.clone(),
        };
        let old = self.journal.deployment(&deployment)?.ok_or_else(unknown)?;
        let group = self.workspace.group(&old.group)?;
        self.check_free(&group.reference)?;
        let history = self.journal.deployments(&group.reference, usize::MAX)?;
        let summary = history.into_iter().find(|past| past.id == deployment);
        let summary = summary.ok_or_else(unknown)?;
        let (package, mut warnings) = match (summary.direction, summary.rolled_back_by) {
            (Direction::Operate | Direction::Rollback { .. } | Direction::Retire { .. }, _) => {
                let first = old.targets.first();
                return Err(PlanError::from(TemplateError::NoPackage {
                    deployment,
                    direction: old.direction.name(),
                    brought_by: first.map(|target| target.incoming.clone()),
                }));
            }
            (Direction::Deploy, Some(by)) => {
                return Err(PlanError::from(TemplateError::RolledBack {
                    deployment,
                    version: summary.version,
                    by,
                }));
            }
            (Direction::Deploy, None) => {
                let key = summary.retries.as_ref().unwrap_or(&deployment);
                let package = self.journal.package(key)?;
                let missing = || PlanError::MissingPackage {
                    deployment: key.clone(),
                };
                let mut warnings = Vec::new();
                if summary.status != ReleaseStatus::Succeeded {
                    let reason = self.journal.reason(&deployment)?;
                    let reason = reason.map(|reason| format!(": {reason}"));
                    warnings.push(format!(
                        "the template {deployment} ended {}{}",
                        summary.status,
                        reason.unwrap_or_default()
                    ));
                }
                (package.ok_or_else(missing)?, warnings)
            }
        };
        let chosen = request.choices.of(group)?;
        self.tell_excluded(group, &request.choices, &mut warnings)?;
        let group = &*chosen;
        let live = request.choices.live.as_ref();
        let seen = self.look(group, live, &mut warnings).await?;
        let comment = if request.comment.is_empty() {
            format!("redeploys {deployment} ({})", package.revision.version)
        } else {
            request.comment
        };
        let release = self.new_release(comment, Scope::Service)?;
        let stored = self.stored(&group.reference, &package).await?;
        let Revision { source, digest, .. } = package.revision.clone();
        let appspec = read_appspec(&source, &stored.tree, group, &mut warnings)?;
        let package = Package {
            deployment: DeploymentId::nth(&release.id, 1),
            revision: Revision {
                version: self.version(group, request.version, None)?,
                source,
                digest,
            },
            appspec,
        };
        let mut planned = model::Deployment {
            kind: "REDEPLOY".to_owned(),
            stop_failures: request.stop_failures,
            excluded: request.choices.exclude,
            ..self.deployment_of(group, package)?
        };
        self.arrange(group, seen, &mut planned, &mut warnings)
            .await?;
        self.keep_calls(&old, &mut planned).await?;
        Ok(Planned {
            release,
            deployment: planned,
            warnings,
        })
    }
}

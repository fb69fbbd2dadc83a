//! What became of a release's instances while nobody drove it: by hand, or by what another journal keeps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use engine::{Progress, State};
use fleet::{ChangedFile, Condition, Place};
use journal::Filter;
use model::{
    DeploymentId, Ending, GroupRef, InstanceId, LifecycleEvent, ReleaseId, Target, Version,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::drive::now;
use crate::{Conductor, PlanError};

/// How many instances are asked at a time.
const AT_ONCE: usize = 64;

/// How long an instance may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// An instance that is not as the journal says, or of which that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub group: GroupRef,
    pub instance: InstanceId,
    pub finding: Finding,
}

/// What an instance was found like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It has something else installed than the journal says, or nothing, or something where the journal knows of nothing.
    Installed {
        found: Option<Brought>,
        expected: Option<Brought>,
    },
    /// Files and folders of the installation were changed or removed since the last step, these and so many more.
    Files { files: Vec<ChangedFile>, more: u64 },
    /// It could not be asked.
    Unknown { reason: String },
}

/// What a deployment brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    pub deployment: String,
    /// Absent where the journal does not know the deployment.
    pub version: Option<Version>,
}

/// An instance to ask, and what it may have installed.
struct Question {
    group: GroupRef,
    target: Arc<Target>,
    expected: Vec<Option<DeploymentId>>,
}

impl Conductor {
    /// Asks the instances of a release that nobody drives whether they are as the journal says. Nothing changes. The
    /// answer is in the order of the release's plan, and empty where all of them are, where the release has ended, and
    /// while somebody drives it.
    ///
    /// # Errors
    /// Whatever the journal says.
    pub async fn changes(&self, release: &ReleaseId) -> Result<Vec<Change>, PlanError> {
        let state = State::fold(&self.journal.records(release, 0)?)?;
        let summaries = self.journal.releases(Filter::Release(release), 1)?;
        let is_left = summaries
            .first()
            .is_some_and(|summary| summary.may_be_succeeded(now()));
        if state.status.is_terminal() || !is_left {
            return Ok(Vec::new());
        }
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut asking = JoinSet::new();
        for (position, question) in self.questions(&state)?.into_iter().enumerate() {
            let (conductor, permits) = (self.clone(), permits.clone());
            asking.spawn(async move {
                // It is never closed, so there is always a permit in the end.
                let _permit = permits.acquire().await;
                let answer = conductor.condition(&question).await;
                (position, question, answer)
            });
        }
        let mut answers = Vec::new();
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            }
        }
        answers.sort_by_key(|(position, ..)| *position);
        let mut changes = Vec::new();
        for (_, question, answer) in answers {
            if let Some(finding) = self.finding(&question, answer)? {
                changes.push(Change {
                    group: question.group,
                    instance: question.target.instance.id.clone(),
                    finding,
                });
            }
        }
        Ok(changes)
    }

    /// Every instance of every deployment, once.
    fn questions(&self, state: &State) -> Result<Vec<Question>, PlanError> {
        let mut seen = BTreeSet::new();
        let mut by_deployment = Vec::new();
        // What came later says more of what may be under way.
        for deployment in state.deployments.iter().rev() {
            let group = &deployment.plan.group;
            let installed = self.journal.installed(group)?;
            let mut questions = Vec::new();
            for (target, instance) in deployment.plan.targets.iter().zip(&deployment.instances) {
                let id = &target.instance.id;
                if !seen.insert((group.clone(), id.clone())) {
                    continue;
                }
                let mut expected = vec![installed.get(id).cloned()];
                // An installation whose end is not recorded may have finished.
                let is_open = instance.steps.last().is_some_and(|step| {
                    step.event == LifecycleEvent::Install
                        && matches!(
                            step.progress,
                            Progress::InFlight
                                | Progress::Ended(Ending::Lost { .. } | Ending::Unreachable { .. })
                        )
                });
                if is_open {
                    expected.push(Some(target.incoming.clone()));
                }
                questions.push(Question {
                    group: group.clone(),
                    target: target.clone(),
                    expected,
                });
            }
            by_deployment.push(questions);
        }
        Ok(by_deployment.into_iter().rev().flatten().collect())
    }

    async fn condition(&self, question: &Question) -> Result<Condition, String> {
        let instance = &question.target.instance;
        let place = Place {
            rootdir: instance.rootdir.clone(),
            group: question.group.clone(),
            instance: instance.id.clone(),
        };
        let asking = self.fleet.inspect(&instance.host, place);
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer.map_err(|unreachable| unreachable.reason),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        }
    }

    fn finding(
        &self,
        question: &Question,
        answer: Result<Condition, String>,
    ) -> Result<Option<Finding>, PlanError> {
        let condition = match answer {
            Ok(condition) => condition,
            Err(reason) => return Ok(Some(Finding::Unknown { reason })),
        };
        let found = condition.deployment.as_deref();
        let is_expected =
            |expected: &Option<DeploymentId>| expected.as_ref().map(DeploymentId::as_str) == found;
        if !question.expected.iter().any(is_expected) {
            let expected = question.expected.first().cloned().flatten();
            let expected = expected.as_ref().map(DeploymentId::as_str);
            return Ok(Some(Finding::Installed {
                found: found.map(|id| self.brought(id)).transpose()?,
                expected: expected.map(|id| self.brought(id)).transpose()?,
            }));
        }
        let Condition { files, more, .. } = condition;
        Ok((!files.is_empty()).then_some(Finding::Files { files, more }))
    }

    fn brought(&self, deployment: &str) -> Result<Brought, PlanError> {
        let package = match DeploymentId::parse(deployment) {
            Ok(id) => self.journal.package(&id)?,
            // It comes from an instance, which may say anything.
            Err(_) => None,
        };
        Ok(Brought {
            deployment: deployment.to_owned(),
            version: package.map(|package| package.revision.version.clone()),
        })
    }
}

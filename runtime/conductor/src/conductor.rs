//! The conductor: opening, resuming and stopping releases.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, Input, Output, Refusal, State};
use journal::{Journal, OpenError, OrderId, Owner, Tenure};
use model::{Deployment, Fact, Order, Record, Release, ReleaseId};
use spec::workspace::Workspace;

use crate::authority::{HEARTBEAT, Lease};
use crate::balancer::Turns;
use crate::build::Builder;
use crate::drive::{Observer, Running, now};
use crate::logs::Logs;
use crate::packages::Packages;
use crate::plan::{PlanError, Planned};
use crate::plugins::Plugins;
use crate::progress::OnProgress;
use crate::release_plan::PlannedRun;

/// Drives releases. Cheap to clone; clones are one and the same conductor.
#[derive(Clone)]
pub struct Conductor {
    pub(crate) journal: Journal,
    pub(crate) fleet: Arc<dyn fleet::Fleet>,
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) packages: Packages,
    pub(crate) logs: Logs,
    pub(crate) turns: Arc<Turns>,
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) operator: String,
    pub(crate) progress: OnProgress,
    pub(crate) builder: Builder,
    /// How often the lease of a release is renewed.
    pub(crate) heartbeat: Duration,
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
            progress: Arc::new(|_| {}),
            builder: Builder {
                folder: options.state.join("builds"),
                confiner: Vec::new(),
            },
            heartbeat: HEARTBEAT,
        }
    }

    /// The same, with the command line of a process that runs [`agent::confine::serve`]. Without one nothing is built.
    #[must_use]
    pub fn with_confiner(self, confiner: Vec<OsString>) -> Self {
        let builder = Builder {
            confiner,
            ..self.builder
        };
        Self { builder, ..self }
    }

    /// The same, with somebody who sees packages being fetched.
    #[must_use]
    pub fn with_progress(self, progress: OnProgress) -> Self {
        Self { progress, ..self }
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

    /// Takes the group and opens the release. From here on it is in the journal.
    ///
    /// # Errors
    /// [`PlanError::Busy`] when another release holds the group, [`PlanError::Outdated`] when one did since.
    pub fn open(&self, planned: Planned) -> Result<Running, PlanError> {
        self.open_all(planned.release, vec![planned.deployment])
    }

    /// As [`Conductor::open`], for all services of a plan: it takes all of their groups, or none.
    ///
    /// # Errors
    /// As [`Conductor::open`].
    pub fn open_run(&self, planned: PlannedRun) -> Result<Running, PlanError> {
        self.open_all(planned.release, planned.deployments)
    }

    fn open_all(
        &self,
        release: Release,
        deployments: Vec<Deployment>,
    ) -> Result<Running, PlanError> {
        let at = now();
        let groups: Vec<_> = deployments
            .iter()
            .map(|deployment| deployment.group.clone())
            .collect();
        let opened = deployments.into_iter().map(Arc::new);
        let mut records = std::iter::once(Fact::ReleaseOpened(release))
            .chain(opened.map(Fact::DeploymentOpened))
            .zip(0..)
            .map(|(fact, seq)| Record { seq, at, fact })
            .collect::<Vec<_>>();
        let mut engine = Engine::from_records(&records)?;
        // What it begins with is authorised by the transaction that opens it.
        let begun = engine.handle(at, Input::Begin)?;
        records.extend(begun.records.iter().cloned());
        let owner = Owner::current().map_err(PlanError::Owner)?;
        let lease = Lease::asked_for_now();
        let tenure = self
            .journal
            .open_release(records, &groups, &owner)
            .map_err(|error| match error {
                OpenError::Busy { group, holder } => PlanError::Busy { group, holder },
                OpenError::Exists { release } => PlanError::Exists { release },
                OpenError::Outdated { group, .. } => PlanError::Outdated { group },
                OpenError::Journal(error) => error.into(),
            })?;
        Ok(Running {
            conductor: self.clone(),
            tenure,
            lease,
            engine,
            begun,
            first: Vec::new(),
        })
    }

    /// Takes up a release that is paused, interrupted, or whose conductor died.
    ///
    /// # Errors
    /// [`PlanError::NotResumable`], [`PlanError::Driven`], or a plugin that is not the one it began with.
    pub async fn resume(&self, release: &ReleaseId) -> Result<Running, PlanError> {
        self.take_up(release, |_| Ok(())).await
    }

    /// Takes up a release that nobody drives, and gives it an order before it goes on. The order is in the journal as any
    /// other; [`Journal::answer`] says what became of it.
    ///
    /// # Errors
    /// As [`Conductor::resume`], and [`PlanError::Refusal`] when the release would refuse the order: it stays as it is
    /// then.
    pub async fn resume_with(
        &self,
        release: &ReleaseId,
        order: &Order,
    ) -> Result<(Running, OrderId), PlanError> {
        let admits = |engine: &Engine| {
            let mut trial = engine.clone();
            let input = Input::ResumeWith {
                operator: self.operator.clone(),
                order: order.clone(),
                by: self.operator.clone(),
            };
            trial.handle(now(), input).map(drop)
        };
        let running = self.take_up(release, admits).await?;
        let given = self.journal.order(release, order, &self.operator, now())?;
        Ok((running, given))
    }

    fn resumption(&self) -> Input {
        Input::Resume {
            operator: self.operator.clone(),
        }
    }

    async fn take_up(
        &self,
        release: &ReleaseId,
        admits: impl Fn(&Engine) -> Result<(), Refusal>,
    ) -> Result<Running, PlanError> {
        let engine = Engine::from_records(&self.journal.records(release, 0)?)?;
        let status = engine.state().status;
        if status.is_terminal() {
            return Err(PlanError::NotResumable {
                release: release.clone(),
                status,
            });
        }
        admits(&engine)?;
        for deployment in engine
            .state()
            .deployments
            .iter()
            .filter(|deployment| deployment.ended_at.is_none())
        {
            self.plugins.check_same(&deployment.plan.plugins).await?;
        }
        let lease = Lease::asked_for_now();
        let tenure = self.take_over(release)?;
        // Read again: until it was taken over somebody else might have written.
        let engine = Engine::from_records(&self.journal.records(release, 0)?)?;
        if let Err(refusal) = admits(&engine) {
            self.journal.leave(&tenure)?;
            return Err(refusal.into());
        }
        Ok(Running {
            conductor: self.clone(),
            tenure,
            lease,
            engine,
            begun: Output::default(),
            first: vec![self.resumption()],
        })
    }

    /// Ends a release that is paused or interrupted, and frees its groups. What was in flight when its conductor died
    /// goes on without one; its ending is waited for and kept, so that the journal knows what each instance has
    /// installed and nothing of this release is under way when the next one begins.
    ///
    /// # Errors
    /// [`PlanError::Driven`] while a conductor is at work on it, [`PlanError::Refusal`] when it has ended.
    pub async fn stop(
        &self,
        release: &ReleaseId,
        observer: Arc<dyn Observer>,
    ) -> Result<State, PlanError> {
        let lease = Lease::asked_for_now();
        let tenure = self.take_over(release)?;
        let engine = Engine::from_records(&self.journal.records(release, 0)?)?;
        let running = Running {
            conductor: self.clone(),
            tenure,
            lease,
            engine,
            begun: Output::default(),
            first: vec![Input::Stop],
        };
        Ok(running.settle(observer).await?)
    }

    fn take_over(&self, release: &ReleaseId) -> Result<Tenure, PlanError> {
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
}

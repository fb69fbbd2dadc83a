//! The fold: what a release's records add up to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{
    Boundary, Decision, Deployment, DeploymentId, Ending, Fact, Hold, InstanceId, InstanceOutcome,
    LifecycleEvent, Order, Record, Release, ReleaseStatus, Shares, Stage, StepStatus, Timestamp,
};

/// A record that does not fit the records before it: the journal is damaged, or a bug wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} does not fit the records before it: {why}")]
pub struct Misfit {
    /// Position of the record.
    pub seq: u64,
    /// What is wrong with it.
    pub why: String,
}

/// The state of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub release: Release,
    pub status: ReleaseStatus,
    /// Why the release has this status, where there is something to tell.
    pub reason: Option<String>,
    pub opened_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// How far what goes on is carried, where whoever paused or stopped the release said so.
    pub winds_down_at: Option<Boundary>,
    pub deployments: Vec<DeploymentState>,
    /// When which status began, from the second one on.
    pub changes: Vec<(Timestamp, ReleaseStatus)>,
    /// What operators ordered.
    pub orders: Vec<OrderState>,
    pub next_seq: u64,
}

/// An order that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderState {
    pub at: Timestamp,
    pub order: Order,
    pub operator: String,
}

/// The state of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentState {
    pub plan: Arc<Deployment>,
    /// `Running` until it ended.
    pub status: ReleaseStatus,
    pub reason: Option<String>,
    /// When anything was first done. Until then it waits for its turn.
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// In the order of the plan's targets.
    pub instances: Vec<InstanceState>,
    /// The attempts to switch the traffic, in order.
    pub switches: Vec<SwitchState>,
    /// What the traffic is, as far as the records say.
    pub shares: Shares,
    /// What the deployment waited for, in order.
    pub holds: Vec<HoldState>,
    /// Instances without traffic for a cause outside of the deployment, each with the balancer's words.
    pub down: BTreeMap<InstanceId, String>,
    /// Who wants it taken back while it goes on, and why.
    pub aborted: Option<String>,
    /// How many instances have started and not ended.
    pub in_flight: usize,
    /// How many instances failed or could not be reached.
    pub failed: usize,
    /// Index of the first instance that has not started.
    pub next: usize,
    index: HashMap<InstanceId, usize>,
}

/// The state of one instance in a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceState {
    pub outcome: Option<InstanceOutcome>,
    pub reason: Option<String>,
    /// One entry an attempt, in order.
    pub steps: Vec<StepState>,
}

/// One attempt of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepState {
    pub event: LifecycleEvent,
    /// From 1; 0 when the step was skipped.
    pub attempt: u32,
    /// The hook whose first attempt is authorised with it.
    pub then: Option<LifecycleEvent>,
    pub progress: Progress,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// One attempt to switch a deployment's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchState {
    /// From 1; 0 when the switch was skipped.
    pub attempt: u32,
    /// The stage that asked for it; absent where an operator did.
    pub stage: Option<Stage>,
    pub from: Shares,
    pub to: Shares,
    pub progress: Progress,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// Something that a deployment waited for, or does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldState {
    pub stage: Stage,
    pub hold: Hold,
    pub opened_at: Timestamp,
    /// When it is over, or given up.
    pub until: Option<Timestamp>,
    /// When and how it was decided.
    pub closed: Option<(Timestamp, Decision)>,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    InFlight,
    /// Left out, for this reason.
    Skipped(String),
    Ended(Ending),
}

impl Progress {
    /// The status, absent while the attempt is in flight.
    #[must_use]
    pub fn status(&self) -> Option<StepStatus> {
        match self {
            Progress::InFlight => None,
            Progress::Skipped(_) => Some(StepStatus::Skipped),
            Progress::Ended(Ending::Succeeded { .. }) => Some(StepStatus::Succeeded),
            Progress::Ended(Ending::Failed { .. }) => Some(StepStatus::Failed),
            Progress::Ended(Ending::Lost { .. } | Ending::Unreachable { .. }) => {
                Some(StepStatus::Lost)
            }
        }
    }

    /// Why it was skipped or failed, or what is worth telling of its success.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Progress::InFlight => None,
            Progress::Skipped(reason) => Some(reason),
            Progress::Ended(Ending::Succeeded { note, .. }) => note.as_deref(),
            Progress::Ended(
                Ending::Failed { reason, .. }
                | Ending::Lost { reason }
                | Ending::Unreachable { reason },
            ) => Some(reason),
        }
    }
}

impl StepState {
    /// The status, absent while the attempt is in flight.
    #[must_use]
    pub fn status(&self) -> Option<StepStatus> {
        self.progress.status()
    }

    /// Why it was skipped or failed, or what is worth telling of its success.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.progress.reason()
    }

    /// Exit code of the last script, where scripts ran.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match &self.progress {
            Progress::Ended(
                Ending::Succeeded { exit_code, .. } | Ending::Failed { exit_code, .. },
            ) => *exit_code,
            _ => None,
        }
    }

    /// Where the captured output is.
    #[must_use]
    pub fn log(&self) -> Option<&str> {
        match &self.progress {
            Progress::Ended(Ending::Succeeded { log, .. } | Ending::Failed { log, .. }) => {
                log.as_deref()
            }
            _ => None,
        }
    }
}

impl InstanceState {
    /// Whether anything was done on the instance.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        self.steps
            .iter()
            .any(|step| step.status() != Some(StepStatus::Skipped))
    }

    /// The attempt in flight.
    #[must_use]
    pub fn current(&self) -> Option<&StepState> {
        self.steps.last().filter(|step| step.status().is_none())
    }

    /// Whether the first attempt at a hook was authorised with an earlier step, so that it may have begun.
    #[must_use]
    pub(crate) fn has_authorised(&self, event: LifecycleEvent) -> bool {
        self.steps.iter().any(|step| step.then == Some(event))
    }

    /// The hook that was authorised with the step that succeeded last and has no record: whoever was given the two may have
    /// begun it.
    pub(crate) fn may_have_begun(&self) -> Option<LifecycleEvent> {
        if self.outcome.is_some() {
            return None;
        }
        let done = |step: &&StepState| !matches!(step.progress, Progress::Skipped(_));
        let last = self.steps.iter().rfind(done)?;
        last.then
            .filter(|_| last.status() == Some(StepStatus::Succeeded))
    }

    /// Whether the instance has started and not ended.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        self.outcome.is_none() && !self.steps.is_empty()
    }

    /// Whether this deployment finished an installation here.
    #[must_use]
    pub fn has_installed(&self) -> bool {
        self.steps.iter().any(|step| {
            step.event == LifecycleEvent::Install && step.status() == Some(StepStatus::Succeeded)
        })
    }
}

impl DeploymentState {
    /// The attempt to switch the traffic that is in flight.
    #[must_use]
    pub fn current_switch(&self) -> Option<&SwitchState> {
        self.switches
            .last()
            .filter(|switch| switch.progress == Progress::InFlight)
    }

    /// What the deployment waits for.
    #[must_use]
    pub fn current_hold(&self) -> Option<&HoldState> {
        let waits = self.ended_at.is_none();
        self.holds
            .last()
            .filter(|hold| waits && hold.closed.is_none())
    }

    /// The attempts in flight on instances that have ended: they are validated once more while the traffic is watched.
    pub fn validations(&self) -> impl Iterator<Item = (usize, &StepState)> {
        let is_baking = self.holds.iter().any(|hold| hold.hold == Hold::Bake);
        self.instances
            .iter()
            .enumerate()
            .filter(move |(_, instance)| is_baking && instance.outcome.is_some())
            .filter_map(|(index, instance)| Some((index, instance.current()?)))
    }

    /// Whether anything is under way that will end by itself.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.current_switch().is_some() || self.validations().next().is_some()
    }

    /// The instance's position in the plan.
    #[must_use]
    pub fn position(&self, instance: &InstanceId) -> Option<usize> {
        self.index.get(instance).copied()
    }
}

impl State {
    /// Folds all records of a release.
    ///
    /// # Errors
    /// [`Misfit`] at the first record that does not follow from those before it.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self, Misfit> {
        let mut records = records.into_iter();
        let first = records.next().ok_or(Misfit {
            seq: 0,
            why: "there are no records".to_owned(),
        })?;
        let mut state = Self::open(first)?;
        for record in records {
            state.apply(record)?;
        }
        Ok(state)
    }

    /// Begins the fold with the first record.
    ///
    /// # Errors
    /// [`Misfit`] when the record does not open a release.
    pub fn open(record: &Record) -> Result<Self, Misfit> {
        let Fact::ReleaseOpened(release) = &record.fact else {
            return Err(Misfit {
                seq: record.seq,
                why: "it does not open a release".to_owned(),
            });
        };
        Ok(Self {
            release: release.clone(),
            status: ReleaseStatus::Running,
            reason: None,
            opened_at: record.at,
            ended_at: None,
            winds_down_at: None,
            deployments: Vec::new(),
            changes: Vec::new(),
            orders: Vec::new(),
            next_seq: record.seq + 1,
        })
    }

    /// Folds one more record.
    ///
    /// # Errors
    /// [`Misfit`] when it does not follow; the state is then unchanged but for its sequence number.
    pub fn apply(&mut self, record: &Record) -> Result<(), Misfit> {
        let misfit = |why: String| Misfit {
            seq: record.seq,
            why,
        };
        if record.seq != self.next_seq {
            return Err(misfit(format!("expected record {}", self.next_seq)));
        }
        self.next_seq += 1;
        match &record.fact {
            Fact::ReleaseOpened(_) => return Err(misfit("the release is open already".to_owned())),
            Fact::DeploymentOpened(plan) => {
                self.deployments.push(DeploymentState::new(plan.clone()));
            }
            Fact::StepStarted {
                deployment,
                instance,
                event,
                attempt,
                then,
            } => {
                let (deployment, index) = self.instance(deployment, instance).map_err(misfit)?;
                let is_baking = deployment
                    .current_hold()
                    .is_some_and(|hold| hold.hold == Hold::Bake);
                let state = &mut deployment.instances[index];
                let may_start = match state.outcome {
                    None => true,
                    Some(InstanceOutcome::Succeeded) => {
                        is_baking && *event == LifecycleEvent::ValidateService
                    }
                    Some(_) => false,
                };
                if state.current().is_some() || !may_start {
                    return Err(misfit(format!("`{instance}` cannot start {event}")));
                }
                state.steps.push(StepState {
                    event: *event,
                    attempt: *attempt,
                    then: *then,
                    progress: Progress::InFlight,
                    started_at: record.at,
                    ended_at: None,
                });
                deployment.note_start(index, record.at);
            }
            Fact::StepEnded {
                deployment,
                instance,
                event,
                attempt,
                ending,
            } => {
                let (deployment, index) = self.instance(deployment, instance).map_err(misfit)?;
                let step = deployment.instances[index]
                    .steps
                    .last_mut()
                    .filter(|step| {
                        step.status().is_none() && step.event == *event && step.attempt == *attempt
                    })
                    .ok_or_else(|| {
                        misfit(format!(
                            "attempt {attempt} of {event} on `{instance}` is not in flight"
                        ))
                    })?;
                step.progress = Progress::Ended(ending.clone());
                step.ended_at = Some(record.at);
            }
            Fact::StepSkipped {
                deployment,
                instance,
                event,
                reason,
            } => {
                let (deployment, index) = self.instance(deployment, instance).map_err(misfit)?;
                deployment.instances[index].steps.push(StepState {
                    event: *event,
                    attempt: 0,
                    then: None,
                    progress: Progress::Skipped(reason.clone()),
                    started_at: record.at,
                    ended_at: Some(record.at),
                });
                deployment.note_start(index, record.at);
            }
            Fact::SwitchStarted {
                deployment,
                attempt,
                stage,
                from,
                to,
            } => {
                let deployment = self.deployment(deployment).map_err(misfit)?;
                if deployment.current_switch().is_some() || deployment.ended_at.is_some() {
                    return Err(misfit("the traffic cannot be switched".to_owned()));
                }
                deployment.begin(record.at);
                deployment.switches.push(SwitchState {
                    attempt: *attempt,
                    stage: *stage,
                    from: from.clone(),
                    to: to.clone(),
                    progress: Progress::InFlight,
                    started_at: record.at,
                    ended_at: None,
                });
            }
            Fact::SwitchEnded {
                deployment,
                attempt,
                ending,
            } => {
                let deployment = self.deployment(deployment).map_err(misfit)?;
                let switch = deployment
                    .switches
                    .last_mut()
                    .filter(|switch| {
                        switch.progress == Progress::InFlight && switch.attempt == *attempt
                    })
                    .ok_or_else(|| {
                        misfit(format!("attempt {attempt} of the switch is not in flight"))
                    })?;
                switch.progress = Progress::Ended(ending.clone());
                switch.ended_at = Some(record.at);
                if matches!(ending, Ending::Succeeded { .. }) {
                    deployment.shares = switch.to.clone();
                }
            }
            Fact::SwitchSkipped {
                deployment,
                stage,
                reason,
            } => {
                let deployment = self.deployment(deployment).map_err(misfit)?;
                deployment.begin(record.at);
                deployment.switches.push(SwitchState {
                    attempt: 0,
                    stage: *stage,
                    from: deployment.shares.clone(),
                    to: deployment.shares.clone(),
                    progress: Progress::Skipped(reason.clone()),
                    started_at: record.at,
                    ended_at: Some(record.at),
                });
            }
            Fact::InstanceEnded {
                deployment,
                instance,
                outcome,
                reason,
            } => {
                let (deployment, index) = self.instance(deployment, instance).map_err(misfit)?;
                let state = &mut deployment.instances[index];
                if state.outcome.is_some() {
                    return Err(misfit(format!("`{instance}` has ended already")));
                }
                let was_in_flight = state.is_in_flight();
                state.outcome = Some(*outcome);
                state.reason.clone_from(reason);
                if was_in_flight {
                    deployment.in_flight -= 1;
                }
                if *outcome == InstanceOutcome::Succeeded {
                    // What was seen of it before it changed says nothing of it any more.
                    deployment.down.remove(instance);
                }
                // An instance may end without having started: an operator left it out.
                while deployment
                    .instances
                    .get(deployment.next)
                    .is_some_and(|next| next.outcome.is_some())
                {
                    deployment.next += 1;
                }
                if matches!(
                    outcome,
                    InstanceOutcome::Failed | InstanceOutcome::Unreachable
                ) {
                    deployment.failed += 1;
                }
            }
            Fact::DeploymentEnded {
                deployment,
                status,
                reason,
            } => {
                let deployment = self.deployment(deployment).map_err(misfit)?;
                deployment.status = *status;
                deployment.reason.clone_from(reason);
                deployment.ended_at = Some(record.at);
                for instance in deployment
                    .instances
                    .iter_mut()
                    .filter(|instance| instance.outcome.is_none())
                {
                    instance.outcome = Some(InstanceOutcome::Skipped);
                    instance.reason = Some("the deployment ended before its turn".to_owned());
                }
            }
            Fact::HoldOpened {
                deployment,
                stage,
                hold,
                until,
            } => {
                let deployment = self.deployment(deployment).map_err(misfit)?;
                if deployment.current_hold().is_some() || deployment.ended_at.is_some() {
                    return Err(misfit("the deployment cannot wait twice".to_owned()));
                }
                deployment.begin(record.at);
                deployment.holds.push(HoldState {
                    stage: *stage,
                    hold: hold.clone(),
                    opened_at: record.at,
                    until: *until,
                    closed: None,
                });
            }
            Fact::HoldClosed {
                deployment,
                stage,
                decision,
            } => {
                let deployment = self.deployment(deployment).map_err(misfit)?;
                let hold = deployment
                    .holds
                    .last_mut()
                    .filter(|hold| hold.closed.is_none() && hold.stage == *stage)
                    .ok_or_else(|| misfit("the deployment does not wait there".to_owned()))?;
                hold.closed = Some((record.at, decision.clone()));
            }
            Fact::HealthObserved { deployment, down } => {
                self.deployment(deployment).map_err(misfit)?.down = down.clone();
            }
            Fact::Ordered { order, operator } => {
                self.orders.push(OrderState {
                    at: record.at,
                    order: order.clone(),
                    operator: operator.clone(),
                });
                let (to, order) = match order {
                    Order::For { deployment, order } => (Some(deployment), order.as_ref()),
                    order => (None, order),
                };
                match order {
                    Order::Pause { at } | Order::Stop { at } => self.winds_down_at = *at,
                    Order::Rollback { reason } => {
                        let addressed = self.deployments.iter_mut().find(|deployment| {
                            to.map_or(deployment.ended_at.is_none(), |id| {
                                deployment.plan.id == *id
                            })
                        });
                        if let Some(addressed) = addressed {
                            let reason = reason.as_ref().map(|reason| format!(": {reason}"));
                            addressed.aborted = Some(format!(
                                "taken back by {operator}{}",
                                reason.unwrap_or_default()
                            ));
                        }
                    }
                    _ => {}
                }
            }
            Fact::StatusChanged { status, reason } => {
                self.changes.push((record.at, *status));
                if *status == ReleaseStatus::Running {
                    self.winds_down_at = None;
                }
                self.status = *status;
                self.reason = Some(reason.clone());
                self.ended_at = status.is_terminal().then_some(record.at);
            }
            Fact::ReleaseEnded { status, reason } => {
                self.changes.push((record.at, *status));
                self.status = *status;
                self.reason.clone_from(reason);
                self.ended_at = Some(record.at);
            }
        }
        Ok(())
    }

    /// Finds a deployment by id.
    #[must_use]
    pub fn find(&self, id: &DeploymentId) -> Option<&DeploymentState> {
        self.deployments
            .iter()
            .find(|deployment| deployment.plan.id == *id)
    }

    fn deployment(&mut self, id: &DeploymentId) -> Result<&mut DeploymentState, String> {
        self.deployments
            .iter_mut()
            .rev()
            .find(|deployment| deployment.plan.id == *id)
            .ok_or_else(|| format!("there is no deployment `{id}`"))
    }

    fn instance(
        &mut self,
        deployment: &DeploymentId,
        instance: &InstanceId,
    ) -> Result<(&mut DeploymentState, usize), String> {
        let state = self.deployment(deployment)?;
        let index = state
            .position(instance)
            .ok_or_else(|| format!("`{deployment}` has no instance `{instance}`"))?;
        Ok((state, index))
    }
}

impl DeploymentState {
    fn new(plan: Arc<Deployment>) -> Self {
        let index = plan
            .targets
            .iter()
            .enumerate()
            .map(|(index, target)| (target.instance.id.clone(), index))
            .collect();
        Self {
            status: ReleaseStatus::Running,
            reason: None,
            started_at: None,
            ended_at: None,
            instances: vec![InstanceState::default(); plan.targets.len()],
            switches: Vec::new(),
            shares: plan
                .sides
                .as_ref()
                .map(|sides| sides.shares.clone())
                .unwrap_or_default(),
            holds: Vec::new(),
            down: plan.down.clone(),
            aborted: None,
            in_flight: 0,
            failed: 0,
            next: 0,
            index,
            plan,
        }
    }

    /// Notes when anything was first done.
    fn begin(&mut self, at: Timestamp) {
        self.started_at.get_or_insert(at);
    }

    /// Counts an instance in at its first record.
    fn note_start(&mut self, index: usize, at: Timestamp) {
        self.begin(at);
        if self.instances[index].steps.len() == 1 {
            self.in_flight += 1;
        }
        self.next = self.next.max(index + 1);
        // As at the end of an instance: the next may have been left out.
        while self
            .instances
            .get(self.next)
            .is_some_and(|next| next.outcome.is_some())
        {
            self.next += 1;
        }
    }
}

//! From an input to records and actions.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Decision, Deployment, DeploymentId, Direction, Ending, Fact, Gate, InstanceId, InstanceOutcome,
    LifecycleEvent, OnFailure, Order, Package, Record, ReleaseStatus, Shares, Side, SideName,
    Stage, StepStatus, StopFailures, Strategy, Target, Timestamp,
};

use crate::rollback;
use crate::sequence::{Doing, planned_step};
use crate::state::{Misfit, Progress, State, SwitchState};

/// How often a step is tried when its outcome is lost.
const MAX_ATTEMPTS: u32 = 3;

/// Something that happened and that the engine must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The release is open; start what can start.
    Begin,
    /// An attempt ended.
    StepEnded {
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        attempt: u32,
        ending: Ending,
    },
    /// An attempt to switch the traffic ended.
    SwitchEnded {
        deployment: DeploymentId,
        attempt: u32,
        ending: Ending,
    },
    /// What a deployment waited for at this stage is decided.
    HoldEnded {
        deployment: DeploymentId,
        stage: Stage,
        decision: Decision,
    },
    /// What the balancer says of a deployment's instances: those that it gives no traffic, each with its words.
    /// Instances that are being changed are among them; the engine tells them apart.
    HealthObserved {
        deployment: DeploymentId,
        down: BTreeMap<InstanceId, String>,
    },
    /// The time that [`Engine::next_wake`] named has come.
    Tick,
    /// An operator gives an order.
    Order { order: Order, operator: String },
    /// An operator asks for a pause.
    Pause,
    /// An operator asks for an end.
    Stop,
    /// The conductor has to leave.
    Interrupt { reason: String },
    /// A conductor takes the release up, after a pause, an interruption or the death of another.
    Resume { operator: String },
}

/// What an input leads to.
#[derive(Debug, Default)]
pub struct Output {
    /// INVARIANT: these are durable before any of the actions starts.
    pub records: Vec<Record>,
    pub actions: Vec<Action>,
    pub switches: Vec<SwitchAction>,
    pub holds: Vec<HoldAction>,
}

/// One attempt to carry out. Carrying it out twice must equal carrying it out once.
#[derive(Debug, Clone)]
pub struct Action {
    pub deployment: Arc<Deployment>,
    pub target: Arc<Target>,
    pub event: LifecycleEvent,
    pub attempt: u32,
    pub work: Work,
}

/// One attempt to switch a deployment's traffic, with the rule of [`Action`].
#[derive(Debug, Clone)]
pub struct SwitchAction {
    pub deployment: Arc<Deployment>,
    pub attempt: u32,
    /// What the traffic is believed to be; whoever finds something else changes nothing.
    pub from: Shares,
    /// What it is to be. Empty where a command moves it.
    pub to: Shares,
    /// The instances of each side, as far as they belong to one by now.
    pub members: BTreeMap<SideName, Vec<InstanceId>>,
}

/// A gate to evaluate until it is decided. Evaluating changes nothing, so doing it twice does no harm.
#[derive(Debug, Clone)]
pub struct HoldAction {
    pub deployment: Arc<Deployment>,
    pub stage: Stage,
    pub gate: Gate,
    /// When the gate was opened.
    pub since: Timestamp,
    /// When it is given up as undecided.
    pub until: Option<Timestamp>,
    /// How many batches are done, and how many there are.
    pub batches: (u32, u32),
    /// The instances that have the incoming revision by now.
    pub deployed: Vec<InstanceId>,
}

/// What an action is.
#[derive(Debug, Clone)]
pub enum Work {
    /// Put the package into the instance's cache.
    Download(Arc<Package>),
    /// Run the scripts that the package binds to the event.
    Hook(Arc<Package>),
    /// Lay the package's files down.
    Install(Arc<Package>),
    /// Take the instance out of the load balancer and wait until it is drained.
    Block,
    /// Put the instance into the load balancer and wait until it is healthy.
    Allow,
}

/// An input that the release's status does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a release that is {status} cannot {verb}")]
    Status {
        status: ReleaseStatus,
        verb: &'static str,
    },
    /// An order that does not fit what the release is doing.
    #[error("cannot {order}: {why}")]
    Order { order: &'static str, why: String },
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

/// Decides for one release.
#[derive(Debug, Clone)]
pub struct Engine {
    state: State,
}

impl Engine {
    /// Takes over from the records of a release.
    ///
    /// # Errors
    /// [`Misfit`] when the records do not follow from each other.
    pub fn from_records<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self, Misfit> {
        Ok(Self {
            state: State::fold(records)?,
        })
    }

    /// The state after everything decided so far.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Everything that is authorised and has no ending.
    #[must_use]
    pub fn in_flight(&self) -> (Vec<Action>, Vec<SwitchAction>) {
        in_flight(&self.state)
    }

    /// When [`Input::Tick`] is due, where something waits for a time.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        None
    }

    /// Deployments whose instances' health has to be watched, for [`Input::HealthObserved`].
    #[must_use]
    pub fn watched(&self) -> Vec<Arc<Deployment>> {
        Vec::new()
    }

    /// Answers one input. Time enters as an argument.
    ///
    /// # Errors
    /// [`Refusal`] when the status forbids the input; nothing has changed then.
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Result<Output, Refusal> {
        let mut turn = Turn {
            state: &mut self.state,
            now,
            output: Output::default(),
        };
        match input {
            Input::Begin | Input::Tick => {}
            Input::HoldEnded { .. } | Input::HealthObserved { .. } => {}
            Input::Order { order, .. } => {
                return Err(Refusal::Order {
                    order: order.name(),
                    why: "it is not carried out by this version".to_owned(),
                });
            }
            Input::StepEnded {
                deployment,
                instance,
                event,
                attempt,
                ending,
            } => {
                turn.end_step(deployment, instance, event, attempt, ending)?;
            }
            Input::SwitchEnded {
                deployment,
                attempt,
                ending,
            } => turn.record(Fact::SwitchEnded {
                deployment,
                attempt,
                ending,
            })?,
            Input::Pause => turn.wind_down(ReleaseStatus::Pausing, "pause")?,
            Input::Stop => turn.stop()?,
            Input::Interrupt { reason } => {
                if turn.state.status.is_active() {
                    turn.record(Fact::StatusChanged {
                        status: ReleaseStatus::Interrupted,
                        reason,
                    })?;
                }
                return Ok(turn.output);
            }
            Input::Resume { operator } => turn.resume(&operator)?,
        }
        if turn.state.status.is_active() {
            turn.advance()?;
        }
        Ok(turn.output)
    }
}

/// The answer to one input while it is made. Every record goes through the same fold that reads it back.
struct Turn<'a> {
    state: &'a mut State,
    now: Timestamp,
    output: Output,
}

impl Turn<'_> {
    fn record(&mut self, fact: Fact) -> Result<(), Misfit> {
        let record = Record {
            seq: self.state.next_seq,
            at: self.now,
            fact,
        };
        self.state.apply(&record)?;
        self.output.records.push(record);
        Ok(())
    }

    fn refuse<T>(&self, verb: &'static str) -> Result<T, Refusal> {
        Err(Refusal::Status {
            status: self.state.status,
            verb,
        })
    }

    /// Keeps new instances from starting; those in flight go on.
    fn wind_down(&mut self, status: ReleaseStatus, verb: &'static str) -> Result<(), Refusal> {
        if self.state.status != ReleaseStatus::Running {
            return self.refuse(verb);
        }
        let reason = format!("{verb} requested; instances in flight finish first");
        Ok(self.record(Fact::StatusChanged { status, reason })?)
    }

    fn stop(&mut self) -> Result<(), Refusal> {
        match self.state.status {
            ReleaseStatus::Running => self.wind_down(ReleaseStatus::Stopping, "stop"),
            ReleaseStatus::Paused | ReleaseStatus::Interrupted => {
                let reason = "stopped by an operator".to_owned();
                let open = self
                    .state
                    .deployments
                    .iter()
                    .filter(|deployment| deployment.ended_at.is_none());
                for id in open
                    .map(|deployment| deployment.plan.id.clone())
                    .collect::<Vec<_>>()
                {
                    let reason = Some(reason.clone());
                    self.record(Fact::DeploymentEnded {
                        deployment: id,
                        status: ReleaseStatus::Stopped,
                        reason,
                    })?;
                }
                Ok(self.record(Fact::StatusChanged {
                    status: ReleaseStatus::Stopped,
                    reason,
                })?)
            }
            _ => self.refuse("stop"),
        }
    }

    /// Goes on where the records end: everything in flight is carried out again under its own attempt id.
    fn resume(&mut self, operator: &str) -> Result<(), Refusal> {
        if self.state.status.is_terminal() {
            return self.refuse("resume");
        }
        if self.state.status.is_active() {
            let reason = "the conductor died".to_owned();
            self.record(Fact::StatusChanged {
                status: ReleaseStatus::Interrupted,
                reason,
            })?;
        }
        let reason = format!("resumed by {operator}");
        self.record(Fact::StatusChanged {
            status: ReleaseStatus::Running,
            reason,
        })?;
        let (actions, switches) = in_flight(self.state);
        self.output.actions.extend(actions);
        self.output.switches.extend(switches);
        let mut between_steps = Vec::new();
        for deployment in &self.state.deployments {
            for (target, instance) in deployment.plan.targets.iter().zip(&deployment.instances) {
                if instance.is_in_flight() && instance.current().is_none() {
                    between_steps.push((deployment.plan.id.clone(), target.instance.id.clone()));
                }
            }
        }
        for (deployment, instance) in between_steps {
            self.proceed(&deployment, &instance)?;
        }
        Ok(())
    }

    fn end_step(
        &mut self,
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        attempt: u32,
        ending: Ending,
    ) -> Result<(), Misfit> {
        let place = (deployment.clone(), instance.clone());
        self.record(Fact::StepEnded {
            deployment,
            instance,
            event,
            attempt,
            ending,
        })?;
        // Of a release that nobody drives an ending is only kept: what follows from it is for whoever resumes it.
        if self.state.status.is_active() {
            self.proceed(&place.0, &place.1)?;
        }
        Ok(())
    }

    /// Takes an instance with nothing in flight on: to its next attempt, or to its end. It looks at the records alone,
    /// so that it does the same after a crash between two of them.
    fn proceed(&mut self, id: &DeploymentId, instance: &InstanceId) -> Result<(), Misfit> {
        let (plan, index) = self.position(id, instance)?;
        let last = self
            .state
            .find(id)
            .and_then(|state| state.instances[index].steps.last());
        let done = last.map(|step| (step.event, step.attempt, step.progress.clone()));
        if let Some((event, attempt, Progress::Ended(ending))) = &done {
            let (outcome, reason) = match ending {
                Ending::Succeeded { .. } => return self.go_on(&plan, index, Some(*event)),
                Ending::Lost { .. } if *attempt < MAX_ATTEMPTS => {
                    return self.start_step(&plan, index, *event, attempt + 1);
                }
                Ending::Lost { reason } => (
                    InstanceOutcome::Failed,
                    format!("{event} was tried {attempt} times: {reason}"),
                ),
                Ending::Failed { .. }
                    if event.takes_hooks()
                        && event.side() == Side::Outgoing
                        && plan.stop_failures == StopFailures::Ignore =>
                {
                    return self.go_on(&plan, index, Some(*event));
                }
                Ending::Failed { reason, .. } => (
                    InstanceOutcome::Failed,
                    format!("{}: {reason}", whose(&plan, &plan.targets[index], *event)),
                ),
                Ending::Unreachable { reason } => {
                    (InstanceOutcome::Unreachable, format!("{event}: {reason}"))
                }
            };
            return self.end_instance(&plan, index, outcome, Some(reason));
        }
        self.go_on(&plan, index, done.map(|(event, ..)| event))
    }

    /// Takes an instance to its next step that does something, or to its successful end.
    fn go_on(
        &mut self,
        plan: &Arc<Deployment>,
        index: usize,
        done: Option<LifecycleEvent>,
    ) -> Result<(), Misfit> {
        for event in plan
            .sequence
            .iter()
            .copied()
            .filter(|event| done.is_none_or(|done| *event > done))
        {
            match planned_step(plan, &plan.targets[index], event).doing {
                Doing::Hook | Doing::BuiltIn => return self.start_step(plan, index, event, 1),
                Doing::Skip(reason) => {
                    let instance = plan.targets[index].instance.id.clone();
                    self.record(Fact::StepSkipped {
                        deployment: plan.id.clone(),
                        instance,
                        event,
                        reason,
                    })?;
                }
            }
        }
        self.end_instance(plan, index, InstanceOutcome::Succeeded, None)
    }

    fn end_instance(
        &mut self,
        plan: &Arc<Deployment>,
        index: usize,
        outcome: InstanceOutcome,
        reason: Option<String>,
    ) -> Result<(), Misfit> {
        let instance = plan.targets[index].instance.id.clone();
        self.record(Fact::InstanceEnded {
            deployment: plan.id.clone(),
            instance,
            outcome,
            reason,
        })
    }

    fn start_step(
        &mut self,
        plan: &Arc<Deployment>,
        index: usize,
        event: LifecycleEvent,
        attempt: u32,
    ) -> Result<(), Misfit> {
        let instance = plan.targets[index].instance.id.clone();
        self.record(Fact::StepStarted {
            deployment: plan.id.clone(),
            instance,
            event,
            attempt,
        })?;
        self.output
            .actions
            .extend(action(plan, &plan.targets[index], event, attempt));
        Ok(())
    }

    fn position(
        &self,
        id: &DeploymentId,
        instance: &InstanceId,
    ) -> Result<(Arc<Deployment>, usize), Misfit> {
        let found = self
            .state
            .find(id)
            .and_then(|state| Some((state.plan.clone(), state.position(instance)?)));
        found.ok_or_else(|| Misfit {
            seq: self.state.next_seq,
            why: format!("`{id}` has no instance `{instance}`"),
        })
    }

    /// Starts whatever can start, and ends whatever is done.
    fn advance(&mut self) -> Result<(), Misfit> {
        while let Some(current) = self
            .state
            .deployments
            .iter()
            .position(|deployment| deployment.ended_at.is_none())
        {
            self.start_instances(current)?;
            let deployment = &self.state.deployments[current];
            if deployment.in_flight > 0 || deployment.current_switch().is_some() {
                return Ok(());
            }
            if self.is_to_switch(current) && self.state.status == ReleaseStatus::Running {
                self.switch(current)?;
                continue;
            }
            match self.verdict(current) {
                Some((status, reason)) => {
                    let id = self.state.deployments[current].plan.id.clone();
                    self.record(Fact::DeploymentEnded {
                        deployment: id,
                        status,
                        reason,
                    })?;
                    if status == ReleaseStatus::Failed {
                        self.open_rollback(current)?;
                    }
                }
                None => break,
            }
        }
        self.settle()
    }

    fn start_instances(&mut self, current: usize) -> Result<(), Misfit> {
        loop {
            let deployment = &self.state.deployments[current];
            let plan = &deployment.plan;
            let may_start = self.state.status == ReleaseStatus::Running
                && deployment.failed < plan.failure_limit()
                && deployment.in_flight < plan.concurrency();
            let Some(target) = plan.targets.get(deployment.next).filter(|_| may_start) else {
                return Ok(());
            };
            let (id, instance) = (plan.id.clone(), target.instance.id.clone());
            self.proceed(&id, &instance)?;
        }
    }

    /// How a deployment with nothing in flight ends, or `None` while it waits for an operator.
    fn verdict(&self, current: usize) -> Option<(ReleaseStatus, Option<String>)> {
        let deployment = &self.state.deployments[current];
        if deployment.failed >= deployment.plan.failure_limit() {
            return Some((ReleaseStatus::Failed, Some(why_failed(deployment))));
        }
        if let Some(reason) = why_not_switched(deployment) {
            return Some((ReleaseStatus::Failed, Some(reason)));
        }
        let is_blue_green = matches!(deployment.plan.strategy, Strategy::BlueGreen { .. });
        if deployment.failed > 0 && is_blue_green {
            let reason = format!("{}; the traffic stays where it is", why_failed(deployment));
            return Some((ReleaseStatus::Failed, Some(reason)));
        }
        if deployment.next == deployment.plan.targets.len() && !self.is_to_switch(current) {
            let reason = (deployment.failed > 0).then(|| why_failed(deployment));
            return Some((ReleaseStatus::Succeeded, reason));
        }
        match self.state.status {
            ReleaseStatus::Stopping => Some((
                ReleaseStatus::Stopped,
                Some("stopped by an operator".to_owned()),
            )),
            _ => None,
        }
    }

    /// Whether everything is ready for the traffic of a deployment, which is not there yet.
    fn is_to_switch(&self, current: usize) -> bool {
        let deployment = &self.state.deployments[current];
        let is_lost = |switch: &SwitchState| {
            matches!(switch.progress, Progress::Ended(Ending::Lost { .. }))
                && switch.attempt < MAX_ATTEMPTS
        };
        matches!(deployment.plan.strategy, Strategy::BlueGreen { .. })
            && deployment.next == deployment.plan.targets.len()
            && deployment.failed == 0
            && deployment.switches.last().is_none_or(is_lost)
    }

    fn switch(&mut self, current: usize) -> Result<(), Misfit> {
        let deployment = &self.state.deployments[current];
        let plan = deployment.plan.clone();
        if plan.router.is_none() {
            return self.record(Fact::SwitchSkipped {
                deployment: plan.id.clone(),
                stage: None,
                reason: "nothing is named that switches the traffic".to_owned(),
            });
        }
        let attempt = deployment
            .switches
            .last()
            .map_or(1, |switch| switch.attempt + 1);
        self.record(Fact::SwitchStarted {
            deployment: plan.id.clone(),
            attempt,
            stage: None,
            from: Shares::default(),
            to: Shares::default(),
        })?;
        self.output.switches.push(SwitchAction {
            deployment: plan,
            attempt,
            from: Shares::default(),
            to: Shares::default(),
            members: BTreeMap::new(),
        });
        Ok(())
    }

    fn open_rollback(&mut self, failed: usize) -> Result<(), Misfit> {
        let deployment = &self.state.deployments[failed];
        if deployment.plan.on_failure != OnFailure::Rollback
            || deployment.plan.direction != Direction::Deploy
        {
            return Ok(());
        }
        let id = DeploymentId::nth(&self.state.release.id, self.state.deployments.len() + 1);
        match rollback::of_failed(deployment, id) {
            Some(plan) => self.record(Fact::DeploymentOpened(Arc::new(plan))),
            None => Ok(()),
        }
    }

    /// Moves the release on when no deployment is left running, or nothing is in flight any more.
    fn settle(&mut self) -> Result<(), Misfit> {
        let Some(last) = self.state.deployments.last() else {
            return Ok(());
        };
        let in_flight: usize = self
            .state
            .deployments
            .iter()
            .map(|deployment| {
                deployment.in_flight + usize::from(deployment.current_switch().is_some())
            })
            .sum();
        if in_flight > 0 || self.state.status.is_terminal() {
            return Ok(());
        }
        if last.ended_at.is_some() {
            let failed = self
                .state
                .deployments
                .iter()
                .find(|state| state.status == ReleaseStatus::Failed);
            let stopped = self
                .state
                .deployments
                .iter()
                .any(|state| state.status == ReleaseStatus::Stopped);
            return match failed {
                Some(failed) => {
                    let reason = headline(failed, self.state);
                    self.record(Fact::ReleaseEnded {
                        status: ReleaseStatus::Failed,
                        reason: Some(reason),
                    })
                }
                None if stopped => self.record(Fact::StatusChanged {
                    status: ReleaseStatus::Stopped,
                    reason: "stopped by an operator".to_owned(),
                }),
                None => {
                    let reason = last.reason.clone();
                    self.record(Fact::ReleaseEnded {
                        status: ReleaseStatus::Succeeded,
                        reason,
                    })
                }
            };
        }
        match self.state.status {
            ReleaseStatus::Pausing => self.record(Fact::StatusChanged {
                status: ReleaseStatus::Paused,
                reason: "paused by an operator".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// Everything that is authorised and has no ending.
fn in_flight(state: &State) -> (Vec<Action>, Vec<SwitchAction>) {
    let mut actions = Vec::new();
    let mut switches = Vec::new();
    for deployment in &state.deployments {
        for (target, instance) in deployment.plan.targets.iter().zip(&deployment.instances) {
            actions.extend(
                instance
                    .current()
                    .and_then(|step| action(&deployment.plan, target, step.event, step.attempt)),
            );
        }
        switches.extend(deployment.current_switch().map(|switch| SwitchAction {
            deployment: deployment.plan.clone(),
            attempt: switch.attempt,
            from: Shares::default(),
            to: Shares::default(),
            members: BTreeMap::new(),
        }));
    }
    (actions, switches)
}

/// An event with the revision that its script belongs to: a failing script of the revision being left is mended in
/// another place than one of the revision being put there.
fn whose(plan: &Arc<Deployment>, target: &Target, event: LifecycleEvent) -> String {
    let package = planned_step(plan, target, event).package;
    match package.filter(|_| event.takes_hooks()) {
        Some(package) => format!(
            "{event} of {} revision {}",
            event.side().name(),
            package.revision.version
        ),
        None => event.to_string(),
    }
}

fn why_not_switched(deployment: &crate::DeploymentState) -> Option<String> {
    match &deployment.switches.last()?.progress {
        Progress::Ended(
            Ending::Failed { reason, .. }
            | Ending::Lost { reason }
            | Ending::Unreachable { reason },
        ) => Some(format!("SwitchTraffic: {reason}")),
        Progress::InFlight | Progress::Skipped(_) | Progress::Ended(Ending::Succeeded { .. }) => {
            None
        }
    }
}

fn action(
    plan: &Arc<Deployment>,
    target: &Arc<Target>,
    event: LifecycleEvent,
    attempt: u32,
) -> Option<Action> {
    let package = planned_step(plan, target, event).package;
    let work = match event {
        LifecycleEvent::BlockTraffic => Work::Block,
        LifecycleEvent::AllowTraffic => Work::Allow,
        LifecycleEvent::DownloadBundle => Work::Download(package?),
        LifecycleEvent::Install => Work::Install(package?),
        _ => Work::Hook(package?),
    };
    Some(Action {
        deployment: plan.clone(),
        target: target.clone(),
        event,
        attempt,
        work,
    })
}

/// Names the first instance that failed and the rule that stopped the rest.
fn why_failed(deployment: &crate::DeploymentState) -> String {
    let failed = |outcome| {
        matches!(
            outcome,
            Some(InstanceOutcome::Failed | InstanceOutcome::Unreachable)
        )
    };
    let first = deployment
        .plan
        .targets
        .iter()
        .zip(&deployment.instances)
        .filter(|(_, state)| failed(state.outcome))
        .min_by_key(|(_, state)| {
            state
                .steps
                .iter()
                .rev()
                .find(|s| s.status() != Some(StepStatus::Skipped))
                .and_then(|s| s.ended_at)
        });
    let first = first.map_or_else(String::new, |(target, state)| {
        format!(
            "{}: {}; ",
            target.instance.id,
            state.reason.as_deref().unwrap_or("failed")
        )
    });
    let total = deployment.instances.len();
    let instances = if total == 1 { "instance" } else { "instances" };
    format!(
        "{first}{} of {total} {instances} failed, failure_threshold is {}",
        deployment.failed, deployment.plan.failure_threshold
    )
}

fn headline(failed: &crate::DeploymentState, state: &State) -> String {
    let reason = failed.reason.clone().unwrap_or_default();
    let rollback = state.deployments.iter().find(|other| {
        other.plan.direction
            == Direction::Rollback {
                of: failed.plan.id.clone(),
            }
    });
    match rollback {
        Some(rollback) if rollback.status == ReleaseStatus::Succeeded => {
            format!(
                "{reason}; rolled back to {}",
                rollback.plan.revision.version
            )
        }
        Some(rollback) => {
            format!(
                "{reason}; the rollback failed too: {}",
                rollback.reason.clone().unwrap_or_default()
            )
        }
        None if failed.plan.on_failure == OnFailure::Rollback
            && failed.plan.direction == Direction::Deploy =>
        {
            format!("{reason}; not rolled back: no instance that it touched has an earlier version")
        }
        None => reason,
    }
}

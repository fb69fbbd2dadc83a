//! From an input to records and actions.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Balancer, Boundary, Decision, Deployment, DeploymentId, Ending, Fact, Gate, GateCheck, Hold,
    InstanceId, InstanceOutcome, LifecycleEvent, Order, Package, Record, ReleaseStatus, Router,
    Shares, SideName, Stage, Target, Timestamp,
};

use crate::capacity::members;
use crate::holds::wake;
use crate::instances::action;
use crate::split::Past;
use crate::state::{DeploymentState, HoldState, Misfit, State, SwitchState};

/// How often a step is tried when its outcome is lost.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

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
    /// A release that nobody drives is to end. Of one that is driven, an order asks for it.
    Stop,
    /// The conductor has to leave.
    Interrupt { reason: String },
    /// A conductor takes the release up, after a pause, an interruption or the death of another.
    Resume { operator: String },
    /// The same with an order, which is heard before anything starts. Where it is refused, nothing has changed.
    ResumeWith {
        operator: String,
        order: Order,
        /// Who gives the order.
        by: String,
    },
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
    /// Whether somebody may have asked for it already.
    pub past: Past,
    /// The hook whose first attempt may begin as soon as this one has succeeded, whatever becomes of the conductor.
    pub then: Option<LifecycleEvent>,
}

impl Action {
    /// The action that may begin as soon as this one has succeeded.
    #[must_use]
    pub fn follower(&self) -> Option<Action> {
        action(&self.deployment, &self.target, self.then?, 1, Past::Unknown)
    }
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
    /// What may have been written for it already.
    pub past: Past,
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
    /// Have the plugin of the deployment's kind carry the event out, for this package. Nothing keeps what it answers to
    /// a conductor that dies: where the past is unknown so is the outcome, and the attempt is not made again.
    Call(Arc<Package>),
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
        let under_way = in_flight(&self.state);
        (under_way.actions, under_way.switches)
    }

    /// What has no record and may have begun, authorised with the step before it. An ending of it is taken also while
    /// nobody drives the release.
    #[must_use]
    pub fn may_have_begun(&self) -> Vec<Action> {
        let deployments = self.state.deployments.iter();
        let followers = deployments.flat_map(|deployment| {
            let targets = deployment.plan.targets.iter();
            targets
                .zip(&deployment.instances)
                .filter_map(|(target, instance)| {
                    let event = instance.may_have_begun()?;
                    action(&deployment.plan, target, event, 1, Past::Unknown)
                })
        });
        followers.collect()
    }

    /// When [`Input::Tick`] is due, where something waits for a time.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        let deployments = self.state.deployments.iter().enumerate();
        let waiting = deployments.filter_map(|(index, deployment)| {
            let hold = deployment.current_hold()?;
            let moves = self.state.goes_on(index) && !self.state.is_at_rest(deployment);
            wake(deployment, hold).filter(|_| moves)
        });
        waiting.min()
    }

    /// Deployments whose instances' health has to be watched, for [`Input::HealthObserved`].
    #[must_use]
    pub fn watched(&self) -> Vec<Arc<Deployment>> {
        self.state
            .deployments
            .iter()
            .enumerate()
            .filter(|(index, deployment)| self.state.is_on(*index) && is_watched(&deployment.plan))
            .map(|(_, deployment)| deployment)
            .map(|deployment| deployment.plan.clone())
            .collect()
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
            Input::HoldEnded {
                deployment,
                stage,
                decision,
            } => turn.end_hold(deployment, stage, decision)?,
            Input::HealthObserved { deployment, down } => turn.observe(&deployment, down)?,
            Input::Order { order, operator } => turn.order(order, operator)?,
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
            } => turn.end_switch(deployment, attempt, ending)?,
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
            Input::ResumeWith {
                operator,
                order,
                by,
            } => {
                let before = turn.state.clone();
                let resumed = turn.resume(&operator);
                // Whoever decides a gate that paused the release means the gate that it waits at.
                let reopened = resumed.and_then(|()| Ok(turn.reopen_gates()?));
                if let Err(refusal) = reopened.and_then(|()| turn.order(order, by)) {
                    *turn.state = before;
                    return Err(refusal);
                }
            }
        }
        if turn.state.status.is_active() {
            turn.advance()?;
        }
        Ok(turn.output)
    }
}

/// The answer to one input while it is made. Every record goes through the same fold that reads it back.
pub(crate) struct Turn<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) now: Timestamp,
    pub(crate) output: Output,
}

impl Turn<'_> {
    pub(crate) fn record(&mut self, fact: Fact) -> Result<(), Misfit> {
        let record = Record {
            seq: self.state.next_seq,
            at: self.now,
            fact,
        };
        self.state.apply(&record)?;
        self.output.records.push(record);
        Ok(())
    }

    pub(crate) fn refuse<T>(&self, verb: &'static str) -> Result<T, Refusal> {
        Err(Refusal::Status {
            status: self.state.status,
            verb,
        })
    }

    /// Keeps new services from starting, or new instances; those in flight go on.
    pub(crate) fn wind_down(
        &mut self,
        status: ReleaseStatus,
        verb: &'static str,
    ) -> Result<(), Refusal> {
        if self.state.status != ReleaseStatus::Running {
            return self.refuse(verb);
        }
        let finishing = match self.state.boundary() {
            Boundary::Service => "services that have begun",
            Boundary::Batch => "instances in flight",
        };
        let reason = format!("{verb} requested; {finishing} finish first");
        Ok(self.record(Fact::StatusChanged { status, reason })?)
    }

    fn end_switch(
        &mut self,
        deployment: DeploymentId,
        attempt: u32,
        ending: Ending,
    ) -> Result<(), Misfit> {
        // As of a step: an outcome may be delivered again.
        let is_known = self.state.find(&deployment).is_some_and(|state| {
            let mut switches = state.switches.iter();
            switches.any(|switch| switch.attempt == attempt && switch.ended_at.is_some())
        });
        if is_known {
            return Ok(());
        }
        self.record(Fact::SwitchEnded {
            deployment,
            attempt,
            ending,
        })
    }

    pub(crate) fn stop(&mut self) -> Result<(), Refusal> {
        match self.state.status {
            ReleaseStatus::Running => self.wind_down(ReleaseStatus::Stopping, "stop"),
            ReleaseStatus::Paused | ReleaseStatus::Interrupted => {
                let reason = "stopped by an operator".to_owned();
                self.end_rest(&reason)?;
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
        let under_way = in_flight(self.state);
        self.output.actions.extend(under_way.actions);
        self.output.switches.extend(under_way.switches);
        self.output.holds.extend(under_way.holds);
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
}

/// Everything that is authorised and has no ending, without records.
fn in_flight(state: &State) -> Output {
    let mut output = Output::default();
    for deployment in &state.deployments {
        for (target, instance) in deployment.plan.targets.iter().zip(&deployment.instances) {
            output.actions.extend(instance.current().and_then(|step| {
                let (event, attempt) = (step.event, step.attempt);
                let action = action(&deployment.plan, target, event, attempt, Past::Unknown)?;
                Some(Action {
                    then: step.then,
                    ..action
                })
            }));
        }
        let switch = deployment.current_switch();
        output.switches.extend(switch.map(|switch| SwitchAction {
            past: Past::Unknown,
            ..switch_action(deployment, switch)
        }));
        let hold = deployment.current_hold();
        output
            .holds
            .extend(hold.and_then(|hold| hold_action(deployment, hold)));
    }
    output
}

/// The action of a switch that begins.
pub(crate) fn switch_action(deployment: &DeploymentState, switch: &SwitchState) -> SwitchAction {
    SwitchAction {
        deployment: deployment.plan.clone(),
        attempt: switch.attempt,
        from: switch.from.clone(),
        to: switch.to.clone(),
        past: Past::Nothing,
        members: members(deployment),
    }
}

/// The action of a hold, where it is a gate that the conductor evaluates.
pub(crate) fn hold_action(deployment: &DeploymentState, hold: &HoldState) -> Option<HoldAction> {
    let plan = &deployment.plan;
    let Hold::Gate { index } = hold.hold else {
        return None;
    };
    let gate = plan.gates.get(index as usize)?;
    if matches!(gate.check, GateCheck::Approval { .. }) {
        return None;
    }
    let deployed = plan
        .targets
        .iter()
        .zip(&deployment.instances)
        .filter(|(_, instance)| instance.outcome == Some(InstanceOutcome::Succeeded));
    Some(HoldAction {
        deployment: plan.clone(),
        stage: hold.stage,
        gate: gate.clone(),
        since: hold.opened_at,
        until: hold.until,
        batches: (hold.stage.boundary, plan.barriers()),
        deployed: deployed
            .map(|(target, _)| target.instance.id.clone())
            .collect(),
    })
}

/// Whether the health of its instances matters to a deployment, and can be known.
fn is_watched(plan: &Deployment) -> bool {
    let can_be_known = matches!(plan.balancer, Some(Balancer::Plugin { .. }))
        || matches!(plan.router, Some(Router::Plugin { .. }));
    can_be_known && (plan.minimum_healthy.is_some() || plan.sides.is_some())
}

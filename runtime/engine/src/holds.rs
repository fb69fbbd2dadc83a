//! What a deployment waits for: how a hold is decided, by time, by records or by people.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{
    Balancer, Decision, Deployment, DeploymentId, Fact, GateCheck, GatePolicy, Hold, InstanceId,
    InstanceOutcome, LifecycleEvent, Promote, ReleaseStatus, Router, Stage, Strategy, Timestamp,
    Verdict,
};

use crate::capacity::shortage;
use crate::decide::Turn;
use crate::sequence::{Doing, planned_step};
use crate::state::{DeploymentState, HoldState, InstanceState, Misfit};

/// The longest wait for instances to be healthy where no balancer says another.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How often the side that got the traffic is validated in the time that it is watched, within these limits.
const VALIDATIONS: u32 = 5;
const SHORTEST_ROUND: Duration = Duration::from_secs(1);
const LONGEST_ROUND: Duration = Duration::from_secs(60);

impl Turn<'_> {
    /// Takes what the conductor learned about a gate. One that is decided already, by an operator, stays so.
    pub(crate) fn end_hold(
        &mut self,
        id: DeploymentId,
        stage: Stage,
        decision: Decision,
    ) -> Result<(), Misfit> {
        let is_open = self
            .state
            .find(&id)
            .and_then(DeploymentState::current_hold)
            .is_some_and(|hold| hold.stage == stage);
        if is_open && self.state.status.is_active() {
            self.close_hold(id, stage, decision)?;
        }
        Ok(())
    }

    /// Records a decision and what it means for the release.
    pub(crate) fn close_hold(
        &mut self,
        id: DeploymentId,
        stage: Stage,
        decision: Decision,
    ) -> Result<(), Misfit> {
        self.record(Fact::HoldClosed {
            deployment: id.clone(),
            stage,
            decision,
        })?;
        let Some(deployment) = self.state.find(&id) else {
            return Ok(());
        };
        let Some(hold) = deployment.holds.last() else {
            return Ok(());
        };
        if policy(&deployment.plan, hold) == Some(GatePolicy::Pause)
            && self.state.status == ReleaseStatus::Running
        {
            let reason = self.why_paused();
            self.record(Fact::StatusChanged {
                status: ReleaseStatus::Pausing,
                reason,
            })?;
        }
        Ok(())
    }

    /// Why the release pauses: an operator, or a gate.
    pub(crate) fn why_paused(&self) -> String {
        let gate = self.state.deployments.iter().find_map(|deployment| {
            let hold = deployment.holds.last()?;
            let (_, decision) = hold.closed.as_ref()?;
            let Hold::Gate { index } = hold.hold else {
                return None;
            };
            (policy(&deployment.plan, hold) == Some(GatePolicy::Pause)).then(|| {
                let gate = deployment.plan.gates.get(index as usize);
                let name = gate.map_or("", |gate| gate.name.as_str());
                let reason = decision.reason.as_ref().map(|reason| format!(": {reason}"));
                let verdict = decision.verdict.name().to_lowercase();
                format!("gate `{name}` is {verdict}{}", reason.unwrap_or_default())
            })
        });
        gate.unwrap_or_else(|| "paused by an operator".to_owned())
    }

    /// Closes the open hold if it is over by now. Answers whether it is.
    pub(crate) fn pass_hold(&mut self, current: usize) -> Result<bool, Misfit> {
        let deployment = &self.state.deployments[current];
        let Some(hold) = deployment.current_hold().cloned() else {
            return Ok(true);
        };
        let is_late = hold.until.is_some_and(|until| until <= self.now);
        let id = deployment.plan.id.clone();
        let decision = match &hold.hold {
            _ if !self.state.goes_on(current) => None,
            Hold::Interval | Hold::Promotion => is_late.then(passed),
            Hold::Gate { index } => {
                let gate = deployment.plan.gates.get(*index as usize);
                let is_asked =
                    gate.is_some_and(|gate| matches!(gate.check, GateCheck::Approval { .. }));
                (is_late && is_asked).then(|| Decision {
                    verdict: Verdict::Inconclusive,
                    reason: Some("nobody decided in time".to_owned()),
                    ..passed()
                })
            }
            Hold::Bake => {
                self.validate(current, &hold)?;
                let deployment = &self.state.deployments[current];
                (is_late && deployment.validations().next().is_none()).then(passed)
            }
            Hold::Health => match shortage(deployment, deployment.next) {
                None => Some(passed()),
                Some(shortage) => (is_late || shortage.is_hopeless).then(|| Decision {
                    verdict: Verdict::Failed,
                    reason: Some(shortage.reason),
                    ..passed()
                }),
            },
        };
        match decision {
            Some(decision) => {
                self.close_hold(id, hold.stage, decision)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Starts the validations that are due while the side with the traffic is watched.
    fn validate(&mut self, current: usize, hold: &HoldState) -> Result<(), Misfit> {
        let deployment = &self.state.deployments[current];
        let plan = deployment.plan.clone();
        let event = LifecycleEvent::ValidateService;
        // What is due after the end is not begun, or the end would never come.
        let latest = hold.until.map_or(self.now, |until| until.min(self.now));
        let due: Vec<_> = deployment
            .instances
            .iter()
            .enumerate()
            .filter(|(index, instance)| {
                instance.outcome == Some(InstanceOutcome::Succeeded)
                    && instance.current().is_none()
                    && planned_step(&plan, &plan.targets[*index], event).doing == Doing::Hook
                    && next_validation(&plan, hold, instance) <= latest
            })
            .map(|(index, instance)| (index, last_attempt(instance) + 1))
            .collect();
        for (index, attempt) in due {
            self.start_step(&plan, index, event, attempt)?;
        }
        Ok(())
    }

    /// Takes what the balancer says of a deployment's instances.
    pub(crate) fn observe(
        &mut self,
        id: &DeploymentId,
        observed: BTreeMap<InstanceId, String>,
    ) -> Result<(), Misfit> {
        let Some(deployment) = self.state.find(id) else {
            return Ok(());
        };
        if deployment.ended_at.is_some() || !self.state.status.is_active() {
            return Ok(());
        }
        let is_elsewhere = |instance: &InstanceId| {
            let sides = deployment.plan.sides.iter().flat_map(|sides| &sides.list);
            sides
                .flat_map(|side| &side.instances)
                .any(|one| one.id == *instance)
        };
        let down: BTreeMap<_, _> = observed
            .into_iter()
            .filter(|(instance, _)| match deployment.position(instance) {
                // What the deployment itself took out, or left out, is counted as such.
                Some(index) => {
                    let state = &deployment.instances[index];
                    let has_failed = matches!(
                        state.outcome,
                        Some(InstanceOutcome::Failed | InstanceOutcome::Unreachable)
                    );
                    !state.is_in_flight() && !has_failed
                }
                None => is_elsewhere(instance),
            })
            .collect();
        if down == deployment.down {
            return Ok(());
        }
        self.record(Fact::HealthObserved {
            deployment: id.clone(),
            down,
        })
    }
}

fn passed() -> Decision {
    Decision {
        verdict: Verdict::Passed,
        by: None,
        reason: None,
        evidence: Vec::new(),
    }
}

/// When a hold that opens now is over, or given up.
pub(crate) fn until(plan: &Deployment, hold: &Hold, now: Timestamp) -> Option<Timestamp> {
    let time = match hold {
        Hold::Interval => Some(plan.wait_between),
        Hold::Promotion => match plan.strategy {
            Strategy::Canary {
                promote: Promote::After(time),
                ..
            } => Some(time),
            _ => None,
        },
        Hold::Gate { index } => plan.gates.get(*index as usize)?.timeout,
        Hold::Bake => match plan.strategy {
            Strategy::BlueGreen { bake, .. } => Some(bake),
            Strategy::Rolling | Strategy::Canary { .. } => None,
        },
        Hold::Health => Some(match (&plan.balancer, &plan.router) {
            (Some(Balancer::Plugin { timeout, .. } | Balancer::Command { timeout, .. }), _)
            | (None, Some(Router::Plugin { timeout, .. } | Router::Command { timeout, .. })) => {
                *timeout
            }
            (None, None) => HEALTH_TIMEOUT,
        }),
    };
    time.map(|time| later(now, time))
}

fn later(now: Timestamp, time: Duration) -> Timestamp {
    let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_add(time))
}

/// What follows from a hold that did not pass. `None` while it is open, and when it passed.
pub(crate) fn policy(plan: &Deployment, hold: &HoldState) -> Option<GatePolicy> {
    let (_, decision) = hold.closed.as_ref()?;
    let gate = match hold.hold {
        Hold::Gate { index } => plan.gates.get(index as usize),
        Hold::Interval | Hold::Promotion | Hold::Bake | Hold::Health => None,
    };
    match (decision.verdict, gate) {
        (Verdict::Passed, _) => None,
        (Verdict::Failed, Some(gate)) => Some(gate.on_fail),
        (Verdict::Inconclusive, Some(gate)) => Some(gate.on_inconclusive),
        (Verdict::Failed | Verdict::Inconclusive, None) => Some(GatePolicy::Stop),
    }
}

/// Whether a hold is over and the deployment may go on.
pub(crate) fn is_passed(plan: &Deployment, hold: &HoldState) -> bool {
    hold.closed.is_some() && matches!(policy(plan, hold), None | Some(GatePolicy::Continue))
}

/// When something about the open hold is due by time alone.
pub(crate) fn wake(deployment: &DeploymentState, hold: &HoldState) -> Option<Timestamp> {
    let plan = &deployment.plan;
    match hold.hold {
        Hold::Interval | Hold::Promotion | Hold::Health => hold.until,
        Hold::Gate { index } => {
            let gate = plan.gates.get(index as usize)?;
            hold.until
                .filter(|_| matches!(gate.check, GateCheck::Approval { .. }))
        }
        // Whatever is in flight wakes the engine by its end.
        Hold::Bake if deployment.validations().next().is_some() => None,
        Hold::Bake => {
            let event = LifecycleEvent::ValidateService;
            let rounds = plan
                .targets
                .iter()
                .zip(&deployment.instances)
                .filter(|(target, _)| planned_step(plan, target, event).doing == Doing::Hook)
                .map(|(_, instance)| next_validation(plan, hold, instance));
            rounds.chain(hold.until).min()
        }
    }
}

fn next_validation(plan: &Deployment, hold: &HoldState, instance: &InstanceState) -> Timestamp {
    let bake = match plan.strategy {
        Strategy::BlueGreen { bake, .. } => bake,
        Strategy::Rolling | Strategy::Canary { .. } => Duration::ZERO,
    };
    let round = (bake / VALIDATIONS).clamp(SHORTEST_ROUND, LONGEST_ROUND);
    let last = instance.steps.last().map(|step| step.started_at);
    later(
        last.map_or(hold.opened_at, |last| last.max(hold.opened_at)),
        round,
    )
}

fn last_attempt(instance: &InstanceState) -> u32 {
    let tries = instance
        .steps
        .iter()
        .filter(|step| step.event == LifecycleEvent::ValidateService);
    tries.map(|step| step.attempt).max().unwrap_or(0)
}

//! One instance: from step to step, to its end.

use std::sync::Arc;

use model::{
    Deployment, DeploymentId, Ending, Fact, InstanceId, InstanceOutcome, LifecycleEvent, Side,
    StopFailures, Target,
};

use crate::decide::{Action, MAX_ATTEMPTS, Turn, Work};
use crate::sequence::{Doing, follower, planned_step};
use crate::split::Past;
use crate::state::{InstanceState, Misfit, Progress};

impl Turn<'_> {
    pub(crate) fn end_step(
        &mut self,
        deployment: DeploymentId,
        instance: InstanceId,
        event: LifecycleEvent,
        attempt: u32,
        ending: Ending,
    ) -> Result<(), Misfit> {
        let place = (deployment.clone(), instance.clone());
        // An outcome is delivered at least once; what it says the second time is known.
        let is_known = self.state.find(&deployment).is_some_and(|state| {
            state.position(&instance).is_some_and(|index| {
                let mut steps = state.instances[index].steps.iter();
                steps.any(|step| {
                    (step.event, step.attempt) == (event, attempt) && step.ended_at.is_some()
                })
            })
        });
        if is_known {
            return Ok(());
        }
        let (plan, index) = self.position(&place.0, &place.1)?;
        if !self.state.status.is_active() && attempt == 1 {
            self.catch_up(&plan, index, event)?;
        }
        self.record(Fact::StepEnded {
            deployment,
            instance,
            event,
            attempt,
            ending,
        })?;
        // Of a release that nobody drives an ending is only kept: what follows from it is for whoever resumes it.
        let has_ended = self
            .state
            .find(&place.0)
            .is_some_and(|state| state.instances[index].outcome.is_some());
        if self.state.status.is_active() && !has_ended {
            self.proceed(&place.0, &place.1)?;
        }
        Ok(())
    }

    /// Records the start of a hook that followed another step by itself and has ended since.
    fn catch_up(
        &mut self,
        plan: &Arc<Deployment>,
        index: usize,
        event: LifecycleEvent,
    ) -> Result<(), Misfit> {
        let instance = self.state.find(&plan.id).map(|it| &it.instances[index]);
        if instance.and_then(InstanceState::may_have_begun) == Some(event) {
            self.proceed(&plan.id, &plan.targets[index].instance.id)?;
            // There is nothing left to do of it.
            self.output.actions.clear();
        }
        Ok(())
    }

    /// Takes an instance with nothing in flight on: to its next attempt, or to its end. It looks at the records alone,
    /// so that it does the same after a crash between two of them.
    pub(crate) fn proceed(
        &mut self,
        id: &DeploymentId,
        instance: &InstanceId,
    ) -> Result<(), Misfit> {
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
                Doing::Hook | Doing::Call | Doing::BuiltIn => {
                    return self.start_step(plan, index, event, 1);
                }
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

    pub(crate) fn start_step(
        &mut self,
        plan: &Arc<Deployment>,
        index: usize,
        event: LifecycleEvent,
        attempt: u32,
    ) -> Result<(), Misfit> {
        let target = &plan.targets[index];
        let instance = target.instance.id.clone();
        let state = self.state.find(&plan.id);
        let known = state.map(|state| &state.instances[index]);
        let has_outcome = known.is_some_and(|known| known.outcome.is_some());
        let may_have_begun = attempt == 1 && known.is_some_and(|known| known.has_authorised(event));
        // Only of first attempts, so that it is known from the records which attempt may have begun.
        let then = (attempt == 1 && !has_outcome && self.state.status.is_active())
            .then(|| follower(plan, target, event))
            .flatten();
        self.record(Fact::StepStarted {
            deployment: plan.id.clone(),
            instance,
            event,
            attempt,
            then,
        })?;
        let past = if may_have_begun {
            Past::Unknown
        } else {
            Past::Nothing
        };
        let action = action(plan, target, event, attempt, past);
        self.output
            .actions
            .extend(action.map(|action| Action { then, ..action }));
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
}

/// What the attempt at an event is. `past` says what may have been done of it before.
pub(crate) fn action(
    plan: &Arc<Deployment>,
    target: &Arc<Target>,
    event: LifecycleEvent,
    attempt: u32,
    past: Past,
) -> Option<Action> {
    let planned = planned_step(plan, target, event);
    let package = planned.package;
    let work = match event {
        LifecycleEvent::BlockTraffic => Work::Block,
        LifecycleEvent::AllowTraffic => Work::Allow,
        LifecycleEvent::DownloadBundle => Work::Download(package?),
        LifecycleEvent::Install => Work::Install(package?),
        _ if planned.doing == Doing::Call => Work::Call(package?),
        _ => Work::Hook(package?),
    };
    Some(Action {
        deployment: plan.clone(),
        target: target.clone(),
        event,
        attempt,
        work,
        past,
        then: None,
    })
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

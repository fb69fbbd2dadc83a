//! One deployment: from batch to batch, to its end, and what follows.

use std::ops::Range;
use std::sync::Arc;

use model::{
    Cause, Decision, Deployment, DeploymentId, Direction, Ending, Fact, Hold, OnFailure,
    ReleaseStatus, Retire, Shares, Stage, Strategy, Verdict,
};

use crate::capacity::{self, shortage};
use crate::decide::{MAX_ATTEMPTS, Turn, hold_action, switch_action};
use crate::failure::{Failure, failure, headline, remarks};
use crate::holds::is_passed;
use crate::rollback;
use crate::services::is_paused_by_gate;
use crate::state::{DeploymentState, HoldState, Misfit, Progress, SwitchState};
use crate::strategy::{Boundary, Goal, Stop, stops};

/// Where the switch back of a deployment stands that failed with the traffic on its side.
const WAY_BACK: Stage = Stage {
    boundary: u32::MAX,
    index: 0,
};

/// Where a wait for healthy instances stands; it may come between two instances of one batch.
const HEALTH: u32 = u32::MAX;

/// Whether a deployment can go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Waits,
    Ended,
}

impl Turn<'_> {
    /// Starts whatever can start, and ends whatever is done.
    pub(crate) fn advance(&mut self) -> Result<(), Misfit> {
        loop {
            let mut has_ended = false;
            for index in 0..self.state.deployments.len() {
                if self.state.is_on(index) {
                    has_ended |= self.advance_deployment(index)? == Flow::Ended;
                }
            }
            let followers = self.followers();
            if followers.is_empty() && !has_ended {
                break;
            }
            for plan in followers {
                self.record(Fact::DeploymentOpened(Arc::new(plan)))?;
            }
        }
        self.settle()
    }

    /// The deployments that follow from how others ended: one is taken back, or the colour that it relieved is stopped.
    fn followers(&self) -> Vec<Deployment> {
        if !self.state.status.is_active() {
            return Vec::new();
        }
        let mut next = self.state.deployments.len() + 1;
        let mut followers = Vec::new();
        for ended in &self.state.deployments {
            let id = DeploymentId::nth(&self.state.release.id, next);
            if !self.is_followed(&ended.plan.id)
                && let Some(follower) = follower(ended, id)
            {
                followers.push(follower);
                next += 1;
            }
        }
        followers
    }

    fn is_followed(&self, id: &DeploymentId) -> bool {
        self.state
            .deployments
            .iter()
            .any(|other| match &other.plan.direction {
                Direction::Rollback { of } | Direction::Retire { of } => of == id,
                Direction::Deploy | Direction::Operate => false,
            })
    }

    fn advance_deployment(&mut self, current: usize) -> Result<Flow, Misfit> {
        loop {
            if self.state.deployments[current].current_switch().is_some() {
                return Ok(Flow::Waits);
            }
            self.start_instances(current)?;
            let deployment = &self.state.deployments[current];
            if deployment.in_flight > 0 {
                return Ok(Flow::Waits);
            }
            if let Some(failure) = failure(deployment) {
                if deployment.is_busy() {
                    return Ok(Flow::Waits);
                }
                if self.fail(current, &failure)? {
                    return Ok(Flow::Ended);
                }
                continue;
            }
            if deployment.current_hold().is_some() {
                if !self.pass_hold(current)? {
                    return self.wait_or_stop(current);
                }
                continue;
            }
            let is_complete = deployment.next == deployment.plan.targets.len();
            let goes_on = self.state.goes_on(current) && !self.state.is_at_rest(deployment);
            match next_stop(deployment) {
                Some(_) if !goes_on => return self.wait_or_stop(current),
                Some((stage, Stop::Switch(goal))) => self.begin_switch(current, stage, goal)?,
                Some((stage, Stop::Hold(hold))) => self.open_hold(current, stage, hold)?,
                None if is_complete => {
                    self.succeed(current)?;
                    return Ok(Flow::Ended);
                }
                None if goes_on => {
                    let boundary = boundary(deployment).done;
                    let index = HEALTH;
                    self.open_hold(current, Stage { boundary, index }, Hold::Health)?;
                }
                None => return self.wait_or_stop(current),
            }
        }
    }

    /// What becomes of a deployment with nothing in flight that cannot go on by itself.
    fn wait_or_stop(&mut self, current: usize) -> Result<Flow, Misfit> {
        let deployment = &self.state.deployments[current];
        if self.state.status != ReleaseStatus::Stopping || self.state.is_under_way(current) {
            return Ok(Flow::Waits);
        }
        self.record(Fact::DeploymentEnded {
            deployment: deployment.plan.id.clone(),
            status: ReleaseStatus::Stopped,
            reason: Some("stopped by an operator".to_owned()),
        })?;
        Ok(Flow::Ended)
    }

    fn start_instances(&mut self, current: usize) -> Result<(), Misfit> {
        loop {
            let deployment = &self.state.deployments[current];
            let may_start = self.state.goes_on(current)
                && deployment.next < deployment.plan.targets.len()
                && deployment.current_hold().is_none()
                && deployment.in_flight < width(deployment)
                && is_open(deployment)
                && failure(deployment).is_none()
                && shortage(deployment, deployment.next).is_none();
            if !may_start {
                return Ok(());
            }
            let plan = &deployment.plan;
            let instance = plan.targets[deployment.next].instance.id.clone();
            let id = plan.id.clone();
            self.proceed(&id, &instance)?;
        }
    }

    fn begin_switch(&mut self, current: usize, stage: Stage, goal: Goal) -> Result<(), Misfit> {
        let deployment = &self.state.deployments[current];
        let plan = deployment.plan.clone();
        if plan.router.is_none() {
            return self.record(Fact::SwitchSkipped {
                deployment: plan.id.clone(),
                stage: Some(stage),
                reason: "nothing is named that switches the traffic".to_owned(),
            });
        }
        let is_first = plan
            .sides
            .as_ref()
            .is_some_and(|sides| sides.from.is_none());
        if goal == Goal::Nothing && (is_first || capacity::is_deserted(deployment)) {
            return self.record(Fact::SwitchSkipped {
                deployment: plan.id.clone(),
                stage: Some(stage),
                reason: "no instance has traffic that could stay where it is".to_owned(),
            });
        }
        match capacity::shares(deployment, goal) {
            Ok(to) if capacity::is_settled(deployment, &to) => self.record(Fact::SwitchSkipped {
                deployment: plan.id.clone(),
                stage: Some(stage),
                reason: format!("the traffic is split so already: {to}"),
            }),
            Ok(to) => self.switch(current, Some(stage), to),
            Err(reason) => {
                let attempt = next_attempt(deployment);
                self.record(Fact::SwitchStarted {
                    deployment: plan.id.clone(),
                    attempt,
                    stage: Some(stage),
                    from: deployment.shares.clone(),
                    to: deployment.shares.clone(),
                })?;
                self.record(Fact::SwitchEnded {
                    deployment: plan.id.clone(),
                    attempt,
                    ending: Ending::Failed {
                        cause: Cause::BalancerFailed,
                        reason,
                        script: None,
                        exit_code: None,
                        log: None,
                    },
                })
            }
        }
    }

    /// Starts an attempt to switch the traffic.
    pub(crate) fn switch(
        &mut self,
        current: usize,
        stage: Option<Stage>,
        to: Shares,
    ) -> Result<(), Misfit> {
        let deployment = &self.state.deployments[current];
        self.record(Fact::SwitchStarted {
            deployment: deployment.plan.id.clone(),
            attempt: next_attempt(deployment),
            stage,
            from: deployment.shares.clone(),
            to,
        })?;
        let deployment = &self.state.deployments[current];
        let switch = deployment.current_switch();
        self.output
            .switches
            .extend(switch.map(|switch| switch_action(deployment, switch)));
        Ok(())
    }

    fn open_hold(&mut self, current: usize, stage: Stage, hold: Hold) -> Result<(), Misfit> {
        let plan = self.state.deployments[current].plan.clone();
        let until = crate::holds::until(&plan, &hold, self.now);
        self.record(Fact::HoldOpened {
            deployment: plan.id.clone(),
            stage,
            hold,
            until,
        })?;
        let deployment = &self.state.deployments[current];
        let hold = deployment.current_hold();
        self.output
            .holds
            .extend(hold.and_then(|hold| hold_action(deployment, hold)));
        Ok(())
    }

    /// Opens the gates again that paused the release, where it goes on.
    pub(crate) fn reopen_gates(&mut self) -> Result<(), Misfit> {
        for index in 0..self.state.deployments.len() {
            let deployment = &self.state.deployments[index];
            let last = deployment.holds.last();
            let paused =
                last.filter(|_| deployment.ended_at.is_none() && is_paused_by_gate(deployment));
            if let Some(HoldState { stage, hold, .. }) = paused.cloned() {
                self.open_hold(index, stage, hold)?;
            }
        }
        Ok(())
    }

    fn succeed(&mut self, current: usize) -> Result<(), Misfit> {
        let deployment = &self.state.deployments[current];
        let reason = (deployment.failed > 0).then(|| crate::failure::why_failed(deployment));
        self.record(Fact::DeploymentEnded {
            deployment: deployment.plan.id.clone(),
            status: ReleaseStatus::Succeeded,
            reason,
        })
    }

    /// Records why the side that has the traffic is watched no longer. What was seen of an instance may be gone when the
    /// traffic is back, and the deployment has failed all the same.
    fn end_bake(&mut self, current: usize, reason: &str) -> Result<(), Misfit> {
        let deployment = &self.state.deployments[current];
        // What an operator said is not forgotten, and no problem has shown.
        let hold = deployment.current_hold();
        let hold = hold.filter(|_| deployment.aborted.is_none());
        let Some(hold) = hold.filter(|hold| hold.hold == Hold::Bake) else {
            return Ok(());
        };
        self.record(Fact::HoldClosed {
            deployment: deployment.plan.id.clone(),
            stage: hold.stage,
            decision: Decision {
                verdict: Verdict::Failed,
                by: None,
                reason: Some(reason.to_owned()),
                evidence: Vec::new(),
            },
        })
    }

    /// Ends a deployment as failed, once its traffic is back where it was. Answers whether it has ended.
    fn fail(&mut self, current: usize, failure: &Failure) -> Result<bool, Misfit> {
        self.end_bake(current, &failure.reason)?;
        let deployment = &self.state.deployments[current];
        let mut reason = failure.reason.clone();
        if let Some(back) = way_back(deployment) {
            let last = deployment
                .switches
                .iter()
                .rev()
                .find(|switch| switch.stage == Some(WAY_BACK));
            match last.map(|switch| &switch.progress) {
                None => {
                    self.switch(current, Some(WAY_BACK), back)?;
                    return Ok(false);
                }
                Some(Progress::Ended(Ending::Lost { .. }))
                    if attempts(deployment, WAY_BACK) < MAX_ATTEMPTS =>
                {
                    self.switch(current, Some(WAY_BACK), back)?;
                    return Ok(false);
                }
                Some(Progress::Ended(Ending::Succeeded { .. })) => {
                    reason = format!("{reason}; the traffic went back: {back}");
                }
                Some(other) => {
                    let why = other.reason().unwrap_or_default();
                    reason = format!("{reason}; and the traffic could not go back: {why}");
                }
            }
        }
        self.record(Fact::DeploymentEnded {
            deployment: self.state.deployments[current].plan.id.clone(),
            status: ReleaseStatus::Failed,
            reason: Some(reason),
        })?;
        Ok(true)
    }

    /// Moves the release on when nothing in it moves by itself any more.
    fn settle(&mut self) -> Result<(), Misfit> {
        let deployments = &self.state.deployments;
        let is_under_way = (0..deployments.len()).any(|index| self.state.is_under_way(index));
        if is_under_way || deployments.is_empty() || self.state.status.is_terminal() {
            return Ok(());
        }
        let failed = self.state.failed();
        let headline = failed.map(|failed| headline(failed, self.state));
        let culprit = failed.map(|failed| failed.plan.group.clone());
        let is_open = deployments.iter().any(|one| one.ended_at.is_none());
        let has_stopped = self.state.stopped().is_some();
        match (self.state.status, headline, culprit) {
            // What takes the failed service back begins when the release is resumed.
            (ReleaseStatus::Pausing, Some(_), _) if self.has_way_back() => self.pause(),
            (_, Some(headline), Some(culprit)) => {
                self.end_rest(&format!("no further service starts: {culprit} failed"))?;
                self.record(Fact::ReleaseEnded {
                    status: ReleaseStatus::Failed,
                    reason: Some(headline),
                })
            }
            (ReleaseStatus::Pausing, ..) => self.pause(),
            (ReleaseStatus::Stopping, ..) => {
                let reason = "stopped by an operator";
                self.end_rest(reason)?;
                self.record(Fact::StatusChanged {
                    status: ReleaseStatus::Stopped,
                    reason: reason.to_owned(),
                })
            }
            // Whoever stopped it died on the way.
            _ if has_stopped => {
                self.record(Fact::StatusChanged {
                    status: ReleaseStatus::Stopping,
                    reason: "a service of it was stopped before".to_owned(),
                })?;
                self.settle()
            }
            _ if is_open => Ok(()),
            _ => {
                let reason = remarks(self.state);
                self.record(Fact::ReleaseEnded {
                    status: ReleaseStatus::Succeeded,
                    reason,
                })
            }
        }
    }

    fn pause(&mut self) -> Result<(), Misfit> {
        let reason = self.why_paused();
        self.record(Fact::StatusChanged {
            status: ReleaseStatus::Paused,
            reason,
        })
    }

    /// Whether a failed deployment is to be taken back, and is not yet.
    fn has_way_back(&self) -> bool {
        self.state.deployments.iter().any(|deployment| {
            deployment.ended_at.is_none()
                && matches!(deployment.plan.direction, Direction::Rollback { .. })
        })
    }

    /// Ends what has not ended as stopped.
    pub(crate) fn end_rest(&mut self, reason: &str) -> Result<(), Misfit> {
        let open = self.state.deployments.iter();
        let open: Vec<_> = open
            .filter(|deployment| deployment.ended_at.is_none())
            .map(|deployment| deployment.plan.id.clone())
            .collect();
        for deployment in open {
            self.record(Fact::DeploymentEnded {
                deployment,
                status: ReleaseStatus::Stopped,
                reason: Some(reason.to_owned()),
            })?;
        }
        Ok(())
    }
}

/// What follows from how a deployment ended.
fn follower(ended: &DeploymentState, id: DeploymentId) -> Option<Deployment> {
    let plan = &ended.plan;
    if plan.direction != Direction::Deploy {
        return None;
    }
    match ended.status {
        ReleaseStatus::Failed => {
            let is_wanted = plan.on_failure == OnFailure::Rollback
                || failure(ended).is_some_and(|failure| failure.asks_for_rollback);
            is_wanted.then(|| rollback::of_failed(ended, id)).flatten()
        }
        ReleaseStatus::Succeeded => {
            let retires = matches!(
                plan.strategy,
                Strategy::BlueGreen {
                    retire: Retire::Stop,
                    ..
                }
            );
            retires.then(|| rollback::retirement(plan, id)).flatten()
        }
        _ => None,
    }
}

/// The batches that are done, of how many. A batch is done when none of its instances is left to start.
pub(crate) fn boundary(deployment: &DeploymentState) -> Boundary {
    let done = batches(deployment).filter(|batch| batch.end <= deployment.next);
    Boundary {
        done: u32::try_from(done.count()).unwrap_or(u32::MAX),
        of: deployment.plan.barriers(),
    }
}

/// The batches as positions of their targets. A window is one batch.
fn batches(deployment: &DeploymentState) -> impl Iterator<Item = Range<usize>> {
    let plan = &deployment.plan;
    let total = plan.targets.len();
    let sizes = if plan.has_barriers() {
        plan.batching.sizes(total)
    } else {
        vec![total]
    };
    sizes.into_iter().scan(0, |start, size| {
        let batch = *start..*start + size;
        *start = batch.end;
        Some(batch)
    })
}

/// The batch that the next instance belongs to; the last one when none is left.
pub(crate) fn current_batch(deployment: &DeploymentState) -> Range<usize> {
    let mut last = 0..0;
    for batch in batches(deployment) {
        if batch.end > deployment.next {
            return batch;
        }
        last = batch;
    }
    last
}

/// How many instances may be in flight by now.
fn width(deployment: &DeploymentState) -> usize {
    if deployment.plan.has_barriers() {
        current_batch(deployment).len()
    } else {
        deployment.plan.concurrency()
    }
}

/// Whether the batch of the next instance has begun, or may.
fn is_open(deployment: &DeploymentState) -> bool {
    let batch = current_batch(deployment);
    let has_begun = deployment.instances[batch.start..deployment.next]
        .iter()
        .any(|instance| !instance.steps.is_empty());
    has_begun || (deployment.in_flight == 0 && next_stop(deployment).is_none())
}

/// The first stop that is not over, up to where the deployment is.
fn next_stop(deployment: &DeploymentState) -> Option<(Stage, Stop)> {
    let plan = &deployment.plan;
    let Boundary { done, of } = boundary(deployment);
    // Stops are taken in order, so all before the last that the records name are over.
    let held = deployment.holds.last().map(|hold| hold.stage.boundary);
    let switched = deployment
        .switches
        .iter()
        .rev()
        .find_map(|switch| switch.stage)
        .map(|stage| stage.boundary);
    let first = held.max(switched).unwrap_or(0);
    (first..=done).find_map(|done| {
        let here = stops(plan, Boundary { done, of });
        here.into_iter().zip(0..).find_map(|(stop, index)| {
            let stage = Stage {
                boundary: done,
                index,
            };
            (!is_over(deployment, stage, &stop)).then_some((stage, stop))
        })
    })
}

fn is_over(deployment: &DeploymentState, stage: Stage, stop: &Stop) -> bool {
    match stop {
        Stop::Hold(_) => deployment
            .holds
            .iter()
            .rev()
            .find(|hold| hold.stage == stage)
            .is_some_and(|hold| is_passed(&deployment.plan, hold)),
        Stop::Switch(_) => deployment
            .switches
            .iter()
            .rev()
            .find(|switch| switch.stage == Some(stage))
            .is_some_and(|switch| {
                matches!(
                    switch.progress,
                    Progress::Skipped(_) | Progress::Ended(Ending::Succeeded { .. })
                )
            }),
    }
}

/// How often a switch has been tried at a stage.
pub(crate) fn attempts(deployment: &DeploymentState, stage: Stage) -> u32 {
    let tries = deployment
        .switches
        .iter()
        .filter(|switch| switch.stage == Some(stage) && switch.attempt > 0);
    u32::try_from(tries.count()).unwrap_or(u32::MAX)
}

/// Whether a switch failed that the deployment cannot do without, once and for all.
pub(crate) fn has_failed(deployment: &DeploymentState, switch: &SwitchState) -> bool {
    let Some(stage) = switch.stage.filter(|stage| *stage != WAY_BACK) else {
        return false;
    };
    match &switch.progress {
        Progress::Ended(Ending::Lost { .. }) => attempts(deployment, stage) >= MAX_ATTEMPTS,
        Progress::Ended(Ending::Failed { .. } | Ending::Unreachable { .. }) => true,
        Progress::Ended(Ending::Succeeded { .. }) | Progress::Skipped(_) | Progress::InFlight => {
            false
        }
    }
}

fn next_attempt(deployment: &DeploymentState) -> u32 {
    let last = deployment
        .switches
        .iter()
        .map(|switch| switch.attempt)
        .max();
    last.unwrap_or(0) + 1
}

/// The split to return to, when a blue-green deployment fails with the traffic on its side, or nobody knows where.
fn way_back(deployment: &DeploymentState) -> Option<Shares> {
    let plan = &deployment.plan;
    let sides = plan.sides.as_ref()?;
    let is_blue_green = matches!(plan.strategy, Strategy::BlueGreen { .. });
    let has_begun = deployment.switches.iter().any(|switch| {
        switch.attempt > 0
            && matches!(
                switch.progress,
                Progress::Ended(Ending::Succeeded { .. } | Ending::Lost { .. })
            )
    });
    let was = sides.from.as_ref()?;
    (is_blue_green && plan.direction == Direction::Deploy && has_begun)
        .then(|| Shares::all_to(was.clone()))
}

//! Which deployments of a release go on: services by priority, and how far each is carried when the release is paused or
//! stopped.

use model::{Boundary, Deployment, Direction, GateCheck, GatePolicy, Hold, ReleaseStatus, Scope};

use crate::holds::policy;
use crate::state::{DeploymentState, State};

impl State {
    /// How far what goes on is carried while the release is being paused or stopped.
    #[must_use]
    pub fn boundary(&self) -> Boundary {
        self.winds_down_at.unwrap_or(match self.release.scope {
            Scope::Service => Boundary::Batch,
            Scope::Plan => Boundary::Service,
        })
    }

    /// What a service that has not begun waits for: those of a higher priority that have not ended.
    pub fn ahead_of<'a>(
        &'a self,
        plan: &'a Deployment,
    ) -> impl Iterator<Item = &'a DeploymentState> {
        self.deployments
            .iter()
            .filter(|other| other.plan.priority > plan.priority && other.ended_at.is_none())
    }

    /// Whether a deployment is under way, or its turn has come.
    pub(crate) fn is_on(&self, index: usize) -> bool {
        let deployment = &self.deployments[index];
        deployment.ended_at.is_none() && (self.has_begun(index) || self.may_begin(index))
    }

    /// Whether a deployment moves by itself: always in a release that runs, and at the boundary of services as far as it
    /// has begun.
    pub(crate) fn goes_on(&self, index: usize) -> bool {
        match self.status {
            ReleaseStatus::Running => true,
            ReleaseStatus::Pausing | ReleaseStatus::Stopping => {
                self.boundary() == Boundary::Service && self.has_begun(index)
            }
            _ => false,
        }
    }

    /// Whether something of the deployment will come to an end without anybody's doing.
    pub(crate) fn is_under_way(&self, index: usize) -> bool {
        let deployment = &self.deployments[index];
        deployment.is_busy()
            || (self.is_on(index) && self.goes_on(index) && !self.is_at_rest(deployment))
    }

    /// Whether a deployment that is to wind down may be left as it is: it waits for a person, or without an end.
    pub(crate) fn is_at_rest(&self, deployment: &DeploymentState) -> bool {
        if self.status == ReleaseStatus::Running {
            return false;
        }
        if is_paused_by_gate(deployment) {
            return true;
        }
        let plan = &deployment.plan;
        deployment
            .current_hold()
            .is_some_and(|hold| match hold.hold {
                Hold::Promotion => true,
                Hold::Gate { index } => {
                    let gate = plan.gates.get(index as usize);
                    let is_asked =
                        gate.is_some_and(|gate| matches!(gate.check, GateCheck::Approval { .. }));
                    is_asked || hold.until.is_none()
                }
                Hold::Interval | Hold::Bake | Hold::Health => false,
            })
    }

    fn has_begun(&self, index: usize) -> bool {
        let deployment = &self.deployments[index];
        // What follows from another deployment of the release belongs to it.
        let follows = match &deployment.plan.direction {
            Direction::Rollback { of } | Direction::Retire { of } => self.find(of).is_some(),
            Direction::Deploy | Direction::Operate => false,
        };
        deployment.started_at.is_some() || follows
    }

    fn may_begin(&self, index: usize) -> bool {
        self.status == ReleaseStatus::Running
            && self
                .ahead_of(&self.deployments[index].plan)
                .next()
                .is_none()
            && self.failed().is_none()
            && self.stopped().is_none()
    }

    /// The first deployment that was stopped.
    pub(crate) fn stopped(&self) -> Option<&DeploymentState> {
        self.deployments
            .iter()
            .find(|deployment| deployment.status == ReleaseStatus::Stopped)
    }

    /// The first deployment that failed.
    pub(crate) fn failed(&self) -> Option<&DeploymentState> {
        self.deployments
            .iter()
            .find(|deployment| deployment.status == ReleaseStatus::Failed)
    }
}

/// Whether the last gate asked for a pause. It is evaluated again when the release goes on.
pub(crate) fn is_paused_by_gate(deployment: &DeploymentState) -> bool {
    deployment
        .holds
        .last()
        .is_some_and(|hold| policy(&deployment.plan, hold) == Some(GatePolicy::Pause))
}

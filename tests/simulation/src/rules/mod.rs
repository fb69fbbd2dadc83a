//! The rules that every release keeps, whatever befalls it: each a small function with the sentence that it checks.
//!
//! A rule about a record sees it before it is folded, with the state before it. Rules about the world see what agents,
//! the balancer and the router do. Decisions are never asked of the engine: what it should have decided is worked out
//! here once more, from the facts alone.

mod batches;
mod book;
mod journal;
mod plans;
mod status;
mod steps;
mod traffic;

pub(crate) use book::Rules;

use model::{Deployment, Fact, InstanceOutcome, Order, Record};

use engine::{DeploymentState, InstanceState, State};

/// A record that became durable, with what was there before it.
pub(crate) struct Seen<'a> {
    pub(crate) state: &'a State,
    pub(crate) record: &'a Record,
    /// The plan of the scenario, whatever plan the engine was given.
    pub(crate) truth: &'a [std::sync::Arc<Deployment>],
    /// The order that the record follows from, where one was given in the same turn.
    pub(crate) order: Option<&'a Order>,
}

/// What keeps a rule from holding.
pub(crate) type Kept = Result<(), String>;

/// A rule about records.
pub(crate) type Rule = (&'static str, fn(&Seen<'_>) -> Kept);

/// All rules about records.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    [
        status::RULES,
        steps::RULES,
        batches::RULES,
        traffic::RULES,
        plans::RULES,
    ]
    .into_iter()
    .flatten()
}

impl Seen<'_> {
    /// A deployment, with its plan as it was meant.
    fn deployment(&self, id: &model::DeploymentId) -> Option<(&Deployment, &DeploymentState)> {
        let state = self.state.find(id)?;
        let meant = self.truth.iter().find(|plan| plan.id == *id);
        Some((meant.unwrap_or(&state.plan), state))
    }

    /// The instance that a record about a step is about, by its position.
    fn instance(&self) -> Option<(&Deployment, &DeploymentState, usize)> {
        let (Fact::StepStarted {
            deployment,
            instance,
            ..
        }
        | Fact::StepSkipped {
            deployment,
            instance,
            ..
        }
        | Fact::StepEnded {
            deployment,
            instance,
            ..
        }
        | Fact::InstanceEnded {
            deployment,
            instance,
            ..
        }) = &self.record.fact
        else {
            return None;
        };
        let (plan, state) = self.deployment(deployment)?;
        Some((plan, state, state.position(instance)?))
    }

    /// The instance that starts with this record.
    fn starts(&self) -> Option<(&Deployment, &DeploymentState, usize)> {
        let is_step = matches!(
            self.record.fact,
            Fact::StepStarted { .. } | Fact::StepSkipped { .. }
        );
        let (plan, state, index) = self.instance()?;
        (is_step && state.instances[index].steps.is_empty()).then_some((plan, state, index))
    }
}

/// Whether an instance has started and not ended.
fn is_in_flight(instance: &InstanceState) -> bool {
    instance.outcome.is_none() && !instance.steps.is_empty()
}

fn has_failed(instance: &InstanceState) -> bool {
    matches!(
        instance.outcome,
        Some(InstanceOutcome::Failed | InstanceOutcome::Unreachable)
    )
}

fn has_succeeded(instance: &InstanceState) -> bool {
    instance.outcome == Some(InstanceOutcome::Succeeded)
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Kept {
    if holds { Ok(()) } else { Err(why()) }
}

//! What deployments come to when nothing fails, for dry runs: the same decisions, over nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use model::{
    Decision, Deployment, Ending, Fact, GateCheck, Hold, Order, Record, Release, Timestamp, Verdict,
};

use crate::decide::{Engine, Input, Output, Refusal};
use crate::state::State;

/// The state of a release of these deployments at its end, when every attempt succeeds, every gate passes, and whoever
/// is asked agrees at once. Its times mean nothing.
///
/// # Errors
/// [`Refusal`] when the deployments cannot be carried out at all.
pub fn rehearse(release: &Release, deployments: &[Arc<Deployment>]) -> Result<State, Refusal> {
    let opened = deployments.iter().cloned().map(Fact::DeploymentOpened);
    let records: Vec<_> = std::iter::once(Fact::ReleaseOpened(release.clone()))
        .chain(opened)
        .zip(0..)
        .map(|(fact, seq)| Record {
            seq,
            at: Timestamp(0),
            fact,
        })
        .collect();
    let mut engine = Engine::from_records(&records)?;
    let mut inputs = VecDeque::from([Input::Begin]);
    let mut now = Timestamp(0);
    loop {
        while let Some(input) = inputs.pop_front() {
            inputs.extend(endings(engine.handle(now, input)?));
        }
        let agreed = agreement(engine.state());
        if let Some(order) = agreed {
            inputs.push_back(Input::Order {
                order,
                operator: release.operator.clone(),
            });
            continue;
        }
        match engine.next_wake().filter(|due| *due > now) {
            Some(due) => {
                now = due;
                inputs.push_back(Input::Tick);
            }
            None => return Ok(engine.state().clone()),
        }
    }
}

/// What everything that an answer asks for comes to.
fn endings(output: Output) -> impl Iterator<Item = Input> {
    let succeeded = || Ending::Succeeded {
        exit_code: None,
        log: None,
        note: None,
    };
    let steps = output
        .actions
        .into_iter()
        .map(move |action| Input::StepEnded {
            deployment: action.deployment.id.clone(),
            instance: action.target.instance.id.clone(),
            event: action.event,
            attempt: action.attempt,
            ending: succeeded(),
        });
    let switches = output
        .switches
        .into_iter()
        .map(move |switch| Input::SwitchEnded {
            deployment: switch.deployment.id.clone(),
            attempt: switch.attempt,
            ending: succeeded(),
        });
    let holds = output.holds.into_iter().map(|hold| Input::HoldEnded {
        deployment: hold.deployment.id.clone(),
        stage: hold.stage,
        decision: Decision {
            verdict: Verdict::Passed,
            by: None,
            reason: None,
            evidence: Vec::new(),
        },
    });
    steps.chain(switches).chain(holds)
}

/// What a person is asked for, answered.
fn agreement(state: &State) -> Option<Order> {
    let waiting = state.deployments.iter().find_map(|deployment| {
        let plan = &deployment.plan;
        let order = match deployment.current_hold()?.hold {
            Hold::Promotion => Order::Promote,
            Hold::Gate { index } => {
                let gate = plan.gates.get(index as usize)?;
                let is_asked = matches!(gate.check, GateCheck::Approval { .. });
                is_asked.then_some(Order::Approve {
                    gate: None,
                    comment: None,
                })?
            }
            Hold::Interval | Hold::Bake | Hold::Health => return None,
        };
        Some((plan.id.clone(), order))
    });
    waiting.map(|(deployment, order)| Order::For {
        deployment,
        order: Box::new(order),
    })
}

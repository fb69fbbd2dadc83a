//! What an operator asks of a release that goes on.

use model::{
    Capacity, Decision, Direction, Fact, GateCheck, Hold, InstanceId, InstanceOutcome, Order,
    ReleaseStatus, Shares, Strategy, Verdict,
};

use crate::capacity::{members, most};
use crate::decide::{Refusal, Turn};
use crate::state::DeploymentState;

impl Turn<'_> {
    /// Takes an order, or refuses it; nothing has changed then.
    pub(crate) fn order(&mut self, order: Order, operator: String) -> Result<(), Refusal> {
        match order {
            Order::Pause => {
                self.expect(ReleaseStatus::Running, "pause")?;
                self.ordered(order, operator)?;
                self.wind_down(ReleaseStatus::Pausing, "pause")
            }
            Order::Stop => {
                self.expect(ReleaseStatus::Running, "stop")?;
                self.ordered(order, operator)?;
                self.stop()
            }
            Order::Promote => self.promote(operator),
            Order::Weight { percent, capacity } => self.weigh(percent, capacity, operator),
            Order::Approve { gate, comment } => {
                let order = Order::Approve {
                    gate: gate.clone(),
                    comment: comment.clone(),
                };
                self.decide(order, Verdict::Passed, gate.as_deref(), comment, operator)
            }
            Order::Reject { gate, comment } => {
                let order = Order::Reject {
                    gate: gate.clone(),
                    comment: comment.clone(),
                };
                self.decide(order, Verdict::Failed, gate.as_deref(), comment, operator)
            }
            Order::Skip { instance } => self.skip(instance, operator),
            Order::Rollback { .. } => {
                let deployment = self.going_on(&order)?;
                match deployment.plan.direction {
                    Direction::Deploy => Ok(self.ordered(order, operator)?),
                    _ => no(&order, "the release is on its way back already"),
                }
            }
        }
    }

    fn ordered(&mut self, order: Order, operator: String) -> Result<(), Refusal> {
        Ok(self.record(Fact::Ordered { order, operator })?)
    }

    fn expect(&self, status: ReleaseStatus, verb: &'static str) -> Result<(), Refusal> {
        if self.state.status == status {
            Ok(())
        } else {
            self.refuse(verb)
        }
    }

    /// The deployment that goes on.
    fn going_on(&self, order: &Order) -> Result<&DeploymentState, Refusal> {
        self.expect(ReleaseStatus::Running, order.name())?;
        match self.current() {
            Some(current) => Ok(&self.state.deployments[current]),
            None => no(order, "no deployment goes on"),
        }
    }

    fn promote(&mut self, operator: String) -> Result<(), Refusal> {
        let order = Order::Promote;
        let deployment = self.going_on(&order)?;
        let id = deployment.plan.id.clone();
        let waiting = deployment
            .current_hold()
            .filter(|hold| hold.hold == Hold::Promotion);
        let Some(stage) = waiting.map(|hold| hold.stage) else {
            return no(&order, format!("it waits for {}", waits_for(deployment)));
        };
        self.ordered(order, operator.clone())?;
        let decision = Decision {
            verdict: Verdict::Passed,
            by: Some(operator),
            reason: None,
            evidence: Vec::new(),
        };
        Ok(self.close_hold(id, stage, decision)?)
    }

    fn weigh(&mut self, percent: u8, capacity: Capacity, operator: String) -> Result<(), Refusal> {
        let order = Order::Weight { percent, capacity };
        let deployment = self.going_on(&order)?;
        let plan = &deployment.plan;
        let is_canary = matches!(plan.strategy, Strategy::Canary { .. })
            && plan.direction == Direction::Deploy
            && plan.router.is_some();
        let sides = plan.sides.as_ref().filter(|_| is_canary);
        let Some((to, from)) = sides.and_then(|sides| Some((&sides.to, sides.from.as_ref()?)))
        else {
            return no(&order, "it is no canary whose traffic can be shared");
        };
        if percent > 100 {
            return no(&order, "a share is at most 100%");
        }
        if deployment.current_hold().is_none()
            || members(deployment).get(to).is_none_or(Vec::is_empty)
        {
            return no(
                &order,
                format!(
                    "the share can be changed while it waits; it waits for {}",
                    waits_for(deployment)
                ),
            );
        }
        if deployment.current_switch().is_some() {
            return no(&order, "the traffic is being switched");
        }
        let most = most(deployment, to);
        if percent > 0 && most == 0 {
            return no(&order, format!("no instance of `{to}` is healthy"));
        }
        let is_raised = percent > deployment.shares.of(to);
        if is_raised && percent > most && capacity == Capacity::Respect {
            return no(
                &order,
                format!(
                    "the healthy instances of `{to}` carry {most}% by their number; `--force` gives them more"
                ),
            );
        }
        let shares = Shares::between(to.clone(), percent, from.clone());
        self.ordered(order, operator)?;
        match self.current() {
            Some(current) => Ok(self.switch(current, None, shares)?),
            None => Ok(()),
        }
    }

    fn decide(
        &mut self,
        order: Order,
        verdict: Verdict,
        name: Option<&str>,
        comment: Option<String>,
        operator: String,
    ) -> Result<(), Refusal> {
        let deployment = self.going_on(&order)?;
        let plan = &deployment.plan;
        let open = deployment.current_hold().and_then(|hold| match hold.hold {
            Hold::Gate { index } => Some((hold.stage, plan.gates.get(index as usize)?)),
            Hold::Interval | Hold::Promotion | Hold::Bake | Hold::Health => None,
        });
        let Some((stage, gate)) = open else {
            return no(
                &order,
                format!("no gate is open; it waits for {}", waits_for(deployment)),
            );
        };
        if let Some(name) = name.filter(|name| *name != gate.name) {
            return no(
                &order,
                format!("gate `{name}` is not open; `{}` is", gate.name),
            );
        }
        if name.is_none() && !matches!(gate.check, GateCheck::Approval { .. }) {
            return no(
                &order,
                format!(
                    "gate `{0}` is not decided by a person; `--gate {0}` overrides it",
                    gate.name
                ),
            );
        }
        let id = plan.id.clone();
        self.ordered(order, operator.clone())?;
        let decision = Decision {
            verdict,
            by: Some(operator),
            reason: comment,
            evidence: Vec::new(),
        };
        Ok(self.close_hold(id, stage, decision)?)
    }

    fn skip(&mut self, instance: InstanceId, operator: String) -> Result<(), Refusal> {
        let order = Order::Skip {
            instance: instance.clone(),
        };
        let deployment = self.going_on(&order)?;
        let Some(index) = deployment.position(&instance) else {
            return no(&order, format!("`{instance}` is no instance of it"));
        };
        let state = &deployment.instances[index];
        if let Some(outcome) = state.outcome {
            return no(
                &order,
                format!("`{instance}` is {} already", outcome.name()),
            );
        }
        if !state.steps.is_empty() {
            return no(&order, format!("`{instance}` is being changed"));
        }
        if matches!(deployment.plan.strategy, Strategy::BlueGreen { .. }) {
            return no(
                &order,
                "a side gets the traffic only when all its instances have the revision",
            );
        }
        let id = deployment.plan.id.clone();
        let reason = format!("left out by {operator}");
        self.ordered(order, operator)?;
        Ok(self.record(Fact::InstanceEnded {
            deployment: id,
            instance,
            outcome: InstanceOutcome::Skipped,
            reason: Some(reason),
        })?)
    }
}

fn no<T>(order: &Order, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Order {
        order: order.name(),
        why: why.into(),
    })
}

fn waits_for(deployment: &DeploymentState) -> String {
    let hold = deployment.current_hold().map(|hold| &hold.hold);
    match hold {
        _ if deployment.in_flight > 0 => "the instances in flight".to_owned(),
        Some(Hold::Interval) => "the time between two batches".to_owned(),
        Some(Hold::Promotion) => "its promotion".to_owned(),
        Some(Hold::Gate { index }) => {
            let gate = deployment.plan.gates.get(*index as usize);
            format!("gate `{}`", gate.map_or("", |gate| gate.name.as_str()))
        }
        Some(Hold::Bake) => "the end of the time after the switch".to_owned(),
        Some(Hold::Health) => "instances to be healthy".to_owned(),
        None => "nothing".to_owned(),
    }
}

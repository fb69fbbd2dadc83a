//! What an operator asks of a release that goes on.

use model::{
    Capacity, Decision, DeploymentId, Direction, Fact, Gate, GateCheck, Hold, InstanceId,
    InstanceOutcome, Order, ReleaseStatus, Scope, Shares, Stage, Strategy, Verdict,
};

use crate::capacity::{members, most};
use crate::decide::{Refusal, Turn};
use crate::state::{DeploymentState, Misfit};

impl Turn<'_> {
    /// Takes an order, or refuses it; nothing has changed then.
    pub(crate) fn order(&mut self, order: Order, operator: String) -> Result<(), Refusal> {
        let (to, order) = match order {
            Order::For { deployment, order } => (Some(deployment), *order),
            order => (None, order),
        };
        let to = to.as_ref();
        match order {
            Order::Pause { .. } => {
                self.expect(ReleaseStatus::Running, "pause")?;
                self.record(Fact::Ordered { order, operator })?;
                self.wind_down(ReleaseStatus::Pausing, "pause")
            }
            Order::Stop { .. } => {
                self.expect(ReleaseStatus::Running, "stop")?;
                self.record(Fact::Ordered { order, operator })?;
                self.stop()
            }
            Order::For { .. } => no(&order, "it is addressed twice"),
            Order::Promote => self.promote(to, operator),
            Order::Weight { percent, capacity } => self.weigh(to, percent, capacity, operator),
            Order::Approve { .. } => self.decide(to, order, Verdict::Passed, operator),
            Order::Reject { .. } => self.decide(to, order, Verdict::Failed, operator),
            Order::Skip { instance } => self.skip(to, instance, operator),
            Order::Rollback { .. } => {
                let current = self.addressed(to, &order, |_| true)?;
                match self.state.deployments[current].plan.direction {
                    Direction::Deploy => Ok(self.ordered(current, order, operator)?),
                    Direction::Operate => {
                        no(&order, "it installs nothing that could be taken back")
                    }
                    Direction::Rollback { .. } | Direction::Retire { .. } => {
                        no(&order, "the release is on its way back already")
                    }
                }
            }
        }
    }

    /// Records an order to a deployment; in a release of one service it need not be named.
    fn ordered(&mut self, current: usize, order: Order, operator: String) -> Result<(), Misfit> {
        let order = match self.state.release.scope {
            Scope::Service => order,
            Scope::Plan => Order::For {
                deployment: self.state.deployments[current].plan.id.clone(),
                order: Box::new(order),
            },
        };
        self.record(Fact::Ordered { order, operator })
    }

    fn expect(&self, status: ReleaseStatus, verb: &'static str) -> Result<(), Refusal> {
        if self.state.status == status {
            Ok(())
        } else {
            self.refuse(verb)
        }
    }

    /// The deployment that an order is for: the one that it names, the only one that goes on, or the only one that it
    /// fits.
    fn addressed(
        &self,
        to: Option<&DeploymentId>,
        order: &Order,
        fits: impl Fn(&DeploymentState) -> bool,
    ) -> Result<usize, Refusal> {
        self.expect(ReleaseStatus::Running, order.name())?;
        let deployments = &self.state.deployments;
        if let Some(id) = to {
            let found = deployments
                .iter()
                .position(|deployment| deployment.plan.id == *id);
            return match found {
                Some(index) if self.state.is_on(index) => Ok(index),
                Some(index) if deployments[index].ended_at.is_some() => {
                    let status = deployments[index].status;
                    no(
                        order,
                        format!("deployment `{id}` has ended: it is {status}"),
                    )
                }
                Some(_) => no(order, format!("deployment `{id}` has not begun")),
                None => no(order, format!("the release has no deployment `{id}`")),
            };
        }
        let going_on: Vec<_> = (0..deployments.len())
            .filter(|index| self.state.is_on(*index))
            .collect();
        if let [only] = going_on[..] {
            return Ok(only);
        }
        let fitting: Vec<_> = going_on
            .into_iter()
            .filter(|index| fits(&deployments[*index]))
            .collect();
        match fitting[..] {
            [only] => Ok(only),
            [] => no(order, "no service that goes on waits for it"),
            _ => {
                let names: Vec<_> = fitting
                    .iter()
                    .map(|index| &deployments[*index].plan)
                    .map(|plan| format!("`{}` ({})", plan.id, plan.group))
                    .collect();
                no(
                    order,
                    format!(
                        "several services could be meant; name one of the deployments {}",
                        names.join(", ")
                    ),
                )
            }
        }
    }

    fn promote(&mut self, to: Option<&DeploymentId>, operator: String) -> Result<(), Refusal> {
        let order = Order::Promote;
        let current = self.addressed(to, &order, |deployment| {
            let hold = deployment.current_hold();
            hold.is_some_and(|hold| hold.hold == Hold::Promotion)
        })?;
        let deployment = &self.state.deployments[current];
        let id = deployment.plan.id.clone();
        let waiting = deployment
            .current_hold()
            .filter(|hold| hold.hold == Hold::Promotion);
        let Some(stage) = waiting.map(|hold| hold.stage) else {
            return no(&order, format!("it waits for {}", waits_for(deployment)));
        };
        self.ordered(current, order, operator.clone())?;
        let decision = Decision {
            verdict: Verdict::Passed,
            by: Some(operator),
            reason: None,
            evidence: Vec::new(),
        };
        Ok(self.close_hold(id, stage, decision)?)
    }

    fn weigh(
        &mut self,
        to: Option<&DeploymentId>,
        percent: u8,
        capacity: Capacity,
        operator: String,
    ) -> Result<(), Refusal> {
        let order = Order::Weight { percent, capacity };
        let current = self.addressed(to, &order, is_shared)?;
        let deployment = &self.state.deployments[current];
        let sides = deployment.plan.sides.as_ref();
        let sides = sides.filter(|_| is_shared(deployment));
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
        self.ordered(current, order, operator)?;
        Ok(self.switch(current, None, shares)?)
    }

    fn decide(
        &mut self,
        to: Option<&DeploymentId>,
        order: Order,
        verdict: Verdict,
        operator: String,
    ) -> Result<(), Refusal> {
        let (Order::Approve { gate, comment } | Order::Reject { gate, comment }) = &order else {
            return no(&order, "it decides no gate");
        };
        let (name, comment) = (gate.as_deref(), comment.clone());
        let current = self.addressed(to, &order, |deployment| {
            open_gate(deployment).is_some_and(|(_, gate)| {
                name.is_none_or(|name| gate.name == name)
                    && (name.is_some() || matches!(gate.check, GateCheck::Approval { .. }))
            })
        })?;
        let deployment = &self.state.deployments[current];
        let plan = &deployment.plan;
        let Some((stage, gate)) = open_gate(deployment) else {
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
        self.ordered(current, order, operator.clone())?;
        let decision = Decision {
            verdict,
            by: Some(operator),
            reason: comment,
            evidence: Vec::new(),
        };
        Ok(self.close_hold(id, stage, decision)?)
    }

    fn skip(
        &mut self,
        to: Option<&DeploymentId>,
        instance: InstanceId,
        operator: String,
    ) -> Result<(), Refusal> {
        let order = Order::Skip {
            instance: instance.clone(),
        };
        let current = self.addressed(to, &order, |deployment| {
            deployment.position(&instance).is_some()
        })?;
        let deployment = &self.state.deployments[current];
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
        self.ordered(current, order, operator)?;
        Ok(self.record(Fact::InstanceEnded {
            deployment: id,
            instance,
            outcome: InstanceOutcome::Skipped,
            reason: Some(reason),
        })?)
    }
}

/// Whether it is a canary that shares its traffic.
fn is_shared(deployment: &DeploymentState) -> bool {
    let plan = &deployment.plan;
    matches!(plan.strategy, Strategy::Canary { .. })
        && plan.direction == Direction::Deploy
        && plan.router.is_some()
}

fn open_gate(deployment: &DeploymentState) -> Option<(Stage, &Gate)> {
    let hold = deployment.current_hold()?;
    match hold.hold {
        Hold::Gate { index } => Some((hold.stage, deployment.plan.gates.get(index as usize)?)),
        Hold::Interval | Hold::Promotion | Hold::Bake | Hold::Health => None,
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

//! Splitting the traffic between sides through a router plugin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::SwitchAction;
use engine::split::{Answer, Call, Disagreement, Means, Members, Next, Operation, Switch};
use model::{
    Cause, Direction, Ending, Instance, InstanceId, PluginName, Shares, SideGroup, SideName, Sides,
    Timestamp,
};
use plugin_host::load_balancer::{Outcome, Phase};
use plugin_host::traffic::{Member, Share, Side, Split};
use plugin_host::{CallError, OpContext, Plugin};

use crate::authority::Authority;
use crate::balancer::{Failed, idempotency_key, member_of, with_grace};
use crate::drive::now;
use crate::environment::SWITCH_TRAFFIC;
use crate::perform::failed;
use crate::plan::chain;
use crate::pool::{self, HealthError, Pool, overlaid};
use crate::{Conductor, Observer};

/// The router of a group, as a plugin reaches it.
pub(crate) struct Router<'a> {
    pub(crate) plugin: &'a PluginName,
    pub(crate) config: &'a str,
    pub(crate) timeout: Duration,
}

/// Brings the traffic to where a switch says, however long that takes within the router's timeout.
pub(crate) async fn switch(
    conductor: &Conductor,
    authority: &Authority,
    router: Router<'_>,
    action: &SwitchAction,
    observer: &dyn Observer,
) -> Ending {
    let Some(sides) = &action.deployment.sides else {
        return failed(
            Cause::Invalid,
            "the deployment has no sides to move the traffic between".to_owned(),
        );
    };
    let plugin = match conductor.plugins.get(router.plugin).await {
        Ok(plugin) => plugin,
        Err(error) => return failed(Cause::BalancerFailed, chain(&error)),
    };
    let members = match members(action, sides) {
        Ok(members) => members,
        Err(reason) => return failed(Cause::Invalid, reason),
    };
    let asked = match asked(sides.list.iter(), &members) {
        Ok(asked) => asked,
        Err(reason) => return failed(Cause::Invalid, reason),
    };
    let switch = Switch {
        from: action.from.clone(),
        to: action.to.clone(),
        means: means(&sides.list),
        past: action.past,
        whole: (action.deployment.direction == Direction::Deploy).then(|| sides.to.clone()),
    };
    let (mut operation, mut call) = Operation::new(switch, now(), router.timeout);
    let exchange = Exchange {
        conductor,
        plugin: &plugin,
        config: router.config,
        sides: &asked,
        groups: &sides.list,
        members: &members,
        authority,
        action,
    };
    loop {
        let answer = {
            let _turns = match call {
                Call::Write { .. } | Call::Poll { .. } => {
                    let turns = exchange.turns(&router).await;
                    authority.confirm().await;
                    Some(turns)
                }
                Call::Read | Call::Health { .. } => None,
            };
            exchange.call(&call, with_grace(operation.deadline())).await
        };
        match operation.answer(now(), &call, answer) {
            Next::Done { note } => {
                return Ending::Succeeded {
                    exit_code: None,
                    log: None,
                    note,
                };
            }
            Next::Failed { reason } => {
                let reason = format!(
                    "bring the traffic to {} with plugin `{}`: {reason}",
                    action.to, router.plugin
                );
                return failed(Cause::BalancerFailed, reason);
            }
            Next::Call { after, call: next } => {
                if !after.is_zero() {
                    observer.holding(&action.deployment.id, &operation.waiting_for());
                    tokio::time::sleep(after).await;
                }
                call = next;
            }
        }
    }
}

/// What a split between these sides is made of.
pub(crate) fn means(sides: &[SideGroup]) -> Means {
    let has_one_group = sides.windows(2).all(|pair| pair[0].group == pair[1].group);
    if has_one_group {
        Means::Weights
    } else {
        Means::Groups
    }
}

/// The sides as the plugin is asked about them.
pub(crate) fn asked<'a>(
    sides: impl Iterator<Item = &'a SideGroup>,
    members: &BTreeMap<SideName, Vec<Instance>>,
) -> Result<Vec<Side>, String> {
    sides
        .map(|side| {
            let instances = members.get(&side.name).map_or(&[][..], Vec::as_slice);
            Ok(Side {
                name: side.name.to_string(),
                group: side.group.clone(),
                members: instances
                    .iter()
                    .map(target_of)
                    .collect::<Result<_, String>>()?,
            })
        })
        .collect()
}

fn target_of(instance: &Instance) -> Result<Member, String> {
    let member = member_of(instance).map_err(|reason| format!("{}: {reason}", instance.id))?;
    Ok(Member {
        target_id: member.target_id,
        provider_id: member.provider_id,
        address: member.address,
        port: member.port,
    })
}

/// The shares that a plugin told.
pub(crate) fn shares_of(told: &[Share], sides: &[SideGroup]) -> Result<Shares, String> {
    let shares = sides.iter().map(|side| {
        let share = told.iter().find(|share| share.side == side.name.as_str());
        (side.name.clone(), share.map_or(0, |share| share.percent))
    });
    Shares::new(shares).map_err(|error| error.to_string())
}

/// The instances of each side at a switch.
fn members(
    action: &SwitchAction,
    sides: &Sides,
) -> Result<BTreeMap<SideName, Vec<Instance>>, String> {
    let targets = action.deployment.targets.iter().map(|it| &it.instance);
    let others = sides.list.iter().flat_map(|side| &side.instances);
    let known: BTreeMap<&InstanceId, &Instance> = others
        .chain(targets)
        .map(|instance| (&instance.id, instance))
        .collect();
    let instance = |id: &InstanceId| -> Result<Instance, String> {
        let instance = known.get(id).map(|instance| (*instance).clone());
        instance.ok_or_else(|| format!("the deployment has no instance `{id}`"))
    };
    action
        .members
        .iter()
        .map(|(side, ids)| {
            Ok((
                side.clone(),
                ids.iter().map(instance).collect::<Result<_, String>>()?,
            ))
        })
        .collect()
}

/// The calls of one switch.
struct Exchange<'a> {
    conductor: &'a Conductor,
    plugin: &'a Arc<Plugin>,
    config: &'a str,
    sides: &'a [Side],
    groups: &'a [SideGroup],
    members: &'a BTreeMap<SideName, Vec<Instance>>,
    authority: &'a Authority,
    action: &'a SwitchAction,
}

impl Exchange<'_> {
    /// The turns of the router and of the groups that its plugin serves as a balancer: both may be lines of one file.
    async fn turns(&self, router: &Router<'_>) -> Vec<tokio::sync::OwnedMutexGuard<()>> {
        let balancer = match &self.action.deployment.balancer {
            Some(model::Balancer::Plugin { plugin, config, .. }) if plugin == router.plugin => {
                Some(config.as_str())
            }
            _ => None,
        };
        // In one order everywhere, so that two switches never wait for each other.
        let mut configs: Vec<_> = balancer.into_iter().chain([router.config]).collect();
        configs.sort_unstable();
        configs.dedup();
        let mut turns = Vec::new();
        for config in configs {
            let turn = self.conductor.turns.of(router.plugin, config);
            turns.push(turn.lock_owned().await);
        }
        turns
    }

    fn context(&self, deadline: Timestamp) -> OpContext {
        let step = format!("{}.{SWITCH_TRAFFIC}", self.action.deployment.id);
        let attempt = self.action.attempt;
        let to = self.action.to.to_string();
        OpContext {
            run_id: self.authority.release().to_string(),
            idempotency_key: idempotency_key(&[
                self.authority.release().as_str(),
                &step,
                &attempt.to_string(),
                &to,
            ]),
            step_id: step,
            attempt,
            deadline: Some(deadline),
            dry_run: false,
            ..OpContext::default()
        }
    }

    async fn call(&self, call: &Call, deadline: Timestamp) -> Answer {
        let context = self.context(deadline);
        match call {
            Call::Read => match self.plugin.split(&context, self.config, self.sides).await {
                Ok(split) => match self.told(split) {
                    Ok(answer) => answer,
                    Err(message) => permanent(message),
                },
                Err(error) => failure(&error),
            },
            Call::Write { revision } => {
                let shares: Vec<_> = self.sides.iter().map(|side| self.share(side)).collect();
                let written = self
                    .plugin
                    .set_split(
                        &context,
                        self.config,
                        self.sides,
                        revision.as_deref(),
                        &shares,
                    )
                    .await;
                outcome(written)
            }
            Call::Poll { token } => {
                outcome(self.plugin.poll_split(&context, self.config, token).await)
            }
            Call::Health { sides } => self.health(sides, &context).await,
        }
    }

    fn told(&self, split: Split) -> Result<Answer, String> {
        let differs = match split.differs {
            None => None,
            Some(differs) => Some(Disagreement {
                shares: shares_of(&differs.shares, self.groups)?,
                message: differs.message,
            }),
        };
        Ok(Answer::Split {
            shares: shares_of(&split.shares, self.groups)?,
            differs,
            revision: split.revision,
            settled: split.settled,
        })
    }

    fn share(&self, side: &Side) -> Share {
        let name = self
            .groups
            .iter()
            .find(|group| group.name.as_str() == side.name);
        Share {
            side: side.name.clone(),
            percent: name.map_or(0, |group| self.action.to.of(&group.name)),
        }
    }

    async fn health(&self, sides: &[SideName], context: &OpContext) -> Answer {
        let deployment = &self.action.deployment;
        let Some(source) = pool::source(deployment.balancer.as_ref(), deployment.router.as_ref())
        else {
            return Answer::HealthUnknown;
        };
        let plugin = match self.conductor.plugins.get(source.plugin).await {
            Ok(plugin) => plugin,
            Err(error) => return permanent(chain(&error)),
        };
        if !plugin.provides().load_balancer {
            return Answer::HealthUnknown;
        }
        let mut answer = BTreeMap::new();
        for side in self.groups.iter().filter(|side| sides.contains(&side.name)) {
            let mut members = Members::default();
            let instances = self.members.get(&side.name).cloned().unwrap_or_default();
            if !instances.is_empty() {
                let pool = Pool {
                    config: overlaid(source.config, &side.group),
                    instances,
                };
                match pool::statuses(&plugin, &pool, context).await {
                    Ok(statuses) => {
                        for (instance, status) in statuses {
                            match status.phase {
                                Phase::InService => members.healthy += 1,
                                Phase::Unknown => members.unknown += 1,
                                _ => {
                                    members.down.insert(instance, pool::words(&status));
                                }
                            }
                        }
                    }
                    Err(HealthError::Call(error)) => return failure(&error),
                    Err(error) => return permanent(chain(&error)),
                }
            }
            answer.insert(side.name.clone(), members);
        }
        Answer::Health(answer)
    }
}

fn outcome(result: Result<Outcome, CallError>) -> Answer {
    match result {
        Ok(Outcome::Unchanged) => Answer::Unchanged,
        Ok(Outcome::Changed(_)) => Answer::Changed,
        Ok(Outcome::Pending(pending)) => Answer::Pending {
            token: pending.token,
            after: pending.poll_after,
            message: pending.message,
        },
        Err(error) => failure(&error),
    }
}

fn failure(error: &CallError) -> Answer {
    let Failed {
        class,
        message,
        hint,
        retry_after,
    } = Failed::of(error);
    Answer::Failure {
        class,
        message,
        hint,
        retry_after,
    }
}

fn permanent(message: String) -> Answer {
    Answer::Failure {
        class: engine::traffic::Class::Permanent,
        message,
        hint: None,
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, group: &str) -> SideGroup {
        SideGroup {
            name: SideName::parse(name).unwrap(),
            group: group.to_owned(),
            instances: Vec::new(),
        }
    }

    #[test]
    fn sides_with_one_group_are_told_apart_by_weights() {
        let two = [side("blue", r#"{"b":1}"#), side("green", r#"{"b":2}"#)];
        let one = [side("current", "{}"), side("new", "{}")];

        assert_eq!(means(&two), Means::Groups);
        assert_eq!(means(&one), Means::Weights);
    }

    #[test]
    fn what_a_plugin_tells_is_taken_by_the_sides_names() {
        let sides = [side("blue", "{}"), side("green", "{}")];
        let told = |shares: &[(&str, u8)]| {
            let share = |&(side, percent): &(&str, u8)| Share {
                side: side.to_owned(),
                percent,
            };
            let shares: Vec<_> = shares.iter().map(share).collect();
            shares_of(&shares, &sides).unwrap().to_string()
        };

        assert_eq!(told(&[("green", 30), ("blue", 70)]), "blue 70%, green 30%");
        assert_eq!(told(&[("green", 100), ("blue", 0)]), "green 100%");
        assert_eq!(told(&[]), "no side");
    }
}

//! The balancer and the router of one service, as a plugin finds them.

use std::collections::BTreeMap;

use engine::split;
use engine::traffic::{Answer, Call, Class, Goal, Phase};
use model::{Deployment, InstanceId, Shares, SideName};

use crate::chance::Chance;

/// The group of instances that no side names.
const ONLY_GROUP: &str = "{}";

/// Where the traffic of one service goes.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    members: BTreeMap<(String, InstanceId), Member>,
    /// The sides of the instances that have a weight, where weights make the split.
    weighed: BTreeMap<InstanceId, SideName>,
    pub(crate) shares: Shares,
    /// What another place of the balancer has, where a write broke off before it reached all.
    half_written: Option<Shares>,
    revision: u64,
    settled_at: u64,
    away_until: u64,
    /// Whether somebody else has changed the split.
    pub(crate) is_meddled_with: bool,
    calls: u64,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    healthy_from: u64,
    /// When it has drained.
    leaves_at: Option<u64>,
}

/// What a call is about, and when.
pub(crate) struct Moment<'a> {
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) is_well: &'a dyn Fn(&InstanceId) -> bool,
}

/// What happened at a call, besides its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    Changed,
}

/// The groups that an instance of a deployment may be in.
pub(crate) fn groups_of(plan: &Deployment, instance: &InstanceId) -> Vec<String> {
    let Some(sides) = &plan.sides else {
        return vec![ONLY_GROUP.to_owned()];
    };
    let own = sides.list.iter().filter(|side| {
        side.instances.iter().any(|one| one.id == *instance) || is_moving(plan, instance)
    });
    let mut groups: Vec<_> = own.map(|side| side.group.clone()).collect();
    groups.dedup();
    groups
}

/// Whether an instance belongs to no side for good.
fn is_moving(plan: &Deployment, instance: &InstanceId) -> bool {
    let mut sides = plan.sides.iter().flat_map(|sides| &sides.list);
    let is_colour = matches!(plan.strategy, model::Strategy::BlueGreen { .. });
    !is_colour || sides.all(|side| side.instances.iter().all(|one| one.id != *instance))
}

/// The groups that an instance has to leave, or to join.
pub(crate) fn groups_for(plan: &Deployment, goal: Goal) -> Vec<String> {
    let Some(sides) = &plan.sides else {
        return vec![ONLY_GROUP.to_owned()];
    };
    let meant = sides.list.iter().filter(|side| match goal {
        Goal::Blocked => true,
        Goal::Allowed => side.name == sides.to,
    });
    let mut groups: Vec<_> = meant.map(|side| side.group.clone()).collect();
    groups.dedup();
    groups
}

impl Balancer {
    pub(crate) fn go_away(&mut self, until: u64) {
        self.away_until = self.away_until.max(until);
    }

    /// Somebody else gives all of the traffic to one side.
    pub(crate) fn meddle(&mut self, side: SideName) {
        self.shares = Shares::all_to(side);
        self.half_written = None;
        self.revision += 1;
        self.is_meddled_with = true;
    }

    /// Puts an instance into a group.
    pub(crate) fn join(&mut self, group: &str, instance: &InstanceId, healthy_from: u64) {
        let member = Member {
            healthy_from,
            leaves_at: None,
        };
        self.members
            .insert((group.to_owned(), instance.clone()), member);
    }

    /// Gives an instance a weight among those of a side.
    pub(crate) fn weigh(&mut self, instance: &InstanceId, side: SideName) {
        self.weighed.insert(instance.clone(), side);
    }

    /// Takes an instance out of a group.
    pub(crate) fn leave(&mut self, group: &str, instance: &InstanceId, drained_at: u64) {
        if let Some(member) = self.members.get_mut(&(group.to_owned(), instance.clone())) {
            member.leaves_at.get_or_insert(drained_at);
        }
        self.weighed.remove(instance);
    }

    pub(crate) fn phase(&self, group: &str, instance: &InstanceId, at: &Moment<'_>) -> Phase {
        let key = (group.to_owned(), instance.clone());
        match self.members.get(&key) {
            None => Phase::Absent,
            Some(Member {
                leaves_at: Some(leaves_at),
                ..
            }) => {
                if *leaves_at <= at.now {
                    Phase::Absent
                } else {
                    Phase::Draining
                }
            }
            Some(Member { healthy_from, .. }) if *healthy_from > at.now => Phase::Registering,
            Some(_) if (at.is_well)(instance) => Phase::InService,
            Some(_) => Phase::OutOfService,
        }
    }

    /// Whether requests reach an instance by any way.
    pub(crate) fn gives_traffic(&self, plan: &Deployment, instance: &InstanceId, now: u64) -> bool {
        let is_member = |group: &str| {
            let member = self.members.get(&(group.to_owned(), instance.clone()));
            member.is_some_and(|member| member.leaves_at.is_none_or(|leaves| leaves > now))
        };
        let Some(sides) = &plan.sides else {
            return is_member(ONLY_GROUP);
        };
        if has_one_group(plan) {
            let weight = self.weighed.get(instance);
            return is_member(ONLY_GROUP) && weight.is_some_and(|side| self.shares.of(side) > 0);
        }
        sides
            .list
            .iter()
            .any(|side| is_member(&side.group) && self.shares.of(&side.name) > 0)
    }

    /// One call about a member.
    pub(crate) fn call(
        &mut self,
        group: &str,
        instance: &InstanceId,
        goal: Goal,
        call: &Call,
        at: &Moment<'_>,
    ) -> (Answer, Effect) {
        self.calls += 1;
        let name = format!("{instance} {}", self.calls);
        if at.now < self.away_until {
            let class = match at.chance.percent("away", &name, 50) {
                true => Class::Transient,
                false => Class::UnknownOutcome,
            };
            return (failure(class), Effect::Nothing);
        }
        match call {
            Call::Read => {
                let phase = self.phase(group, instance, at);
                let connections = (phase == Phase::Draining).then_some(3);
                let answer = Answer::Member {
                    phase,
                    connections,
                    reason: None,
                };
                (answer, Effect::Nothing)
            }
            Call::Poll { .. } => (Answer::Changed, Effect::Nothing),
            Call::Change => {
                let key = (group.to_owned(), instance.clone());
                let member = self.members.get(&key);
                let is_in = member.is_some_and(|member| member.leaves_at.is_none());
                if is_in == (goal == Goal::Allowed) || (member.is_none() && goal == Goal::Blocked) {
                    return (Answer::Unchanged, Effect::Nothing);
                }
                if at.chance.percent("refused", &name, 3) {
                    return (failure(Class::UnknownOutcome), Effect::Nothing);
                }
                match goal {
                    Goal::Allowed => {
                        let takes = match at.chance.percent("never healthy", &name, 2) {
                            true => 100_000,
                            false => at.chance.between("healthy", &name, 0..4_000),
                        };
                        self.join(group, instance, at.now + takes);
                    }
                    Goal::Blocked => {
                        let takes = match at.chance.percent("never drained", &name, 2) {
                            true => 100_000,
                            false => at.chance.between("drained", &name, 0..3_000),
                        };
                        self.leave(group, instance, at.now + takes);
                    }
                }
                let answer = match at.chance.between("answer", &name, 0..100) {
                    0..=9 => Answer::Pending {
                        token: "t".to_owned(),
                        after: std::time::Duration::from_millis(200),
                        message: "in the works".to_owned(),
                    },
                    10..=14 => failure(Class::UnknownOutcome),
                    _ => Answer::Changed,
                };
                (answer, Effect::Changed)
            }
        }
    }

    /// One call about the split. `to` is what is wanted of it.
    pub(crate) fn split(
        &mut self,
        plan: &Deployment,
        members: &BTreeMap<SideName, Vec<InstanceId>>,
        to: &Shares,
        call: &split::Call,
        at: &Moment<'_>,
    ) -> (split::Answer, Effect) {
        self.calls += 1;
        let name = format!("{} {}", plan.group, self.calls);
        if at.now < self.away_until {
            let class = match at.chance.percent("away", &name, 50) {
                true => Class::Transient,
                false => Class::UnknownOutcome,
            };
            return (split_failure(class), Effect::Nothing);
        }
        match call {
            split::Call::Read => {
                let answer = split::Answer::Split {
                    shares: self.shares.clone(),
                    differs: self.half_written.clone().map(|shares| split::Disagreement {
                        message: format!("the file says {shares}"),
                        shares,
                    }),
                    revision: Some(self.revision.to_string()),
                    settled: at.now >= self.settled_at,
                };
                (answer, Effect::Nothing)
            }
            split::Call::Poll { .. } => (split::Answer::Changed, Effect::Nothing),
            split::Call::Health { sides } => {
                (self.health(plan, members, sides, at), Effect::Nothing)
            }
            split::Call::Write { revision } => {
                let is_known = revision
                    .as_ref()
                    .is_none_or(|revision| *revision == self.revision.to_string());
                if !is_known {
                    return (split_failure(Class::Conflict), Effect::Nothing);
                }
                if at.chance.percent("refused", &name, 4) {
                    return (split_failure(Class::UnknownOutcome), Effect::Nothing);
                }
                self.revision += 1;
                if at.chance.percent("breaks off", &name, 4) && *to != self.shares {
                    self.half_written = Some(to.clone());
                    return (split_failure(Class::UnknownOutcome), Effect::Nothing);
                }
                self.half_written = None;
                self.shares = to.clone();
                self.settled_at = at.now + at.chance.between("settled", &name, 0..3_000);
                if has_one_group(plan) {
                    for (side, ids) in members {
                        let weighed = ids.iter().map(|id| (id.clone(), side.clone()));
                        self.weighed.extend(weighed);
                    }
                }
                let answer = match at.chance.between("answer", &name, 0..100) {
                    0..=9 => split::Answer::Pending {
                        token: "t".to_owned(),
                        after: std::time::Duration::from_millis(200),
                        message: "in the works".to_owned(),
                    },
                    10..=17 => split_failure(Class::UnknownOutcome),
                    _ => split::Answer::Changed,
                };
                (answer, Effect::Changed)
            }
        }
    }

    fn health(
        &self,
        plan: &Deployment,
        members: &BTreeMap<SideName, Vec<InstanceId>>,
        asked: &[SideName],
        at: &Moment<'_>,
    ) -> split::Answer {
        let sides = plan.sides.iter().flat_map(|sides| &sides.list);
        let answer = sides.filter(|side| asked.contains(&side.name)).map(|side| {
            let mut told = split::Members::default();
            for id in members.get(&side.name).into_iter().flatten() {
                match self.phase(&side.group, id, at) {
                    Phase::InService => told.healthy += 1,
                    other => {
                        told.down.insert(id.clone(), format!("{other:?}"));
                    }
                }
            }
            (side.name.clone(), told)
        });
        split::Answer::Health(answer.collect())
    }

    /// The instances of a deployment that get no traffic anywhere, each with the balancer's words. `None` while it is
    /// away.
    pub(crate) fn down(
        &self,
        plan: &Deployment,
        at: &Moment<'_>,
    ) -> Option<BTreeMap<InstanceId, String>> {
        if at.now < self.away_until {
            return None;
        }
        let targets = plan.targets.iter().map(|target| &target.instance.id);
        let sides = plan.sides.iter().flat_map(|sides| &sides.list);
        let others = sides.flat_map(|side| side.instances.iter().map(|instance| &instance.id));
        let mut down = BTreeMap::new();
        for id in targets.chain(others) {
            let phases: Vec<_> = groups_of(plan, id)
                .iter()
                .map(|group| self.phase(group, id, at))
                .collect();
            if !phases.contains(&Phase::InService) {
                let present = phases.iter().find(|phase| **phase != Phase::Absent);
                let phase = present.unwrap_or(&Phase::Absent);
                down.insert(id.clone(), format!("{phase:?}").to_lowercase());
            }
        }
        Some(down)
    }
}

/// Whether the sides of a deployment are told apart by weights alone.
pub(crate) fn has_one_group(plan: &Deployment) -> bool {
    plan.sides.as_ref().is_some_and(|sides| {
        let mut pairs = sides.list.windows(2);
        pairs.all(|pair| pair[0].group == pair[1].group)
    })
}

fn failure(class: Class) -> Answer {
    Answer::Failure {
        class,
        message: "the balancer does not answer".to_owned(),
        hint: None,
        retry_after: None,
    }
}

fn split_failure(class: Class) -> split::Answer {
    split::Answer::Failure {
        class,
        message: "the router does not answer".to_owned(),
        hint: None,
        retry_after: None,
    }
}

//! The agents: each carries an attempt out at most once, keeps what became of it over the conductor's death, and loses it
//! when its host goes down in the middle.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Action, Input, SwitchAction};
use model::{AttemptId, Cause, Ending, InstanceId};

use crate::turn::failed;

/// Something that an agent carries out.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Step(Action),
    Switch(SwitchAction),
}

impl Job {
    pub(crate) fn attempt(&self) -> AttemptId {
        match self {
            Job::Step(action) => AttemptId::of(
                &action.deployment.id,
                &action.target.instance.id,
                action.event,
                action.attempt,
            ),
            Job::Switch(switch) => AttemptId::of_switch(&switch.deployment.id, switch.attempt),
        }
    }

    /// What chances of it are called by: the same wherever its service stands in the plan.
    pub(crate) fn name(&self) -> String {
        let (plan, what, attempt) = match self {
            Job::Step(action) => {
                let what = format!("{} {}", action.target.instance.id, action.event);
                (&action.deployment, what, action.attempt)
            }
            Job::Switch(switch) => {
                let what = "SwitchTraffic".to_owned();
                (&switch.deployment, what, switch.attempt)
            }
        };
        format!("{} {} {what} {attempt}", plan.group, plan.direction.name())
    }

    /// What the agent may begin by itself when this has succeeded.
    pub(crate) fn follower(&self) -> Option<Job> {
        match self {
            Job::Step(action) => action.follower().map(Job::Step),
            Job::Switch(_) => None,
        }
    }

    /// The instance whose agent does it. A deployment without instances has none.
    pub(crate) fn instance(&self) -> Option<&InstanceId> {
        match self {
            Job::Step(action) => Some(&action.target.instance.id),
            Job::Switch(switch) => {
                let first = switch.deployment.targets.first()?;
                Some(&first.instance.id)
            }
        }
    }

    /// What the conductor tells the engine.
    pub(crate) fn ended(&self, ending: Ending) -> Input {
        match self {
            Job::Step(action) => Input::StepEnded {
                deployment: action.deployment.id.clone(),
                instance: action.target.instance.id.clone(),
                event: action.event,
                attempt: action.attempt,
                ending,
            },
            Job::Switch(switch) => Input::SwitchEnded {
                deployment: switch.deployment.id.clone(),
                attempt: switch.attempt,
                ending,
            },
        }
    }
}

/// All instances, each on a host of its own.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    hosts: BTreeMap<InstanceId, Host>,
}

#[derive(Debug, Default)]
struct Host {
    down_until: Option<u64>,
    cut_off_until: Option<u64>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Attempts that were asked for while another one worked, and have not begun.
    waiting: BTreeSet<AttemptId>,
    /// The attempt that was asked for last.
    asked: Option<AttemptId>,
    app: App,
}

/// The application on an instance.
#[derive(Debug, Clone, Copy, Default)]
struct App {
    is_up: bool,
    unwell_until: u64,
}

#[derive(Debug)]
enum Attempt {
    Running {
        ends_at: u64,
        ending: Ending,
        job: Job,
        /// The conductors that wait for it, by their fences.
        waiting: Vec<u64>,
    },
    Over(Ending),
}

impl Attempt {
    /// Whoever asks in a later turn says what follows.
    fn join(&mut self, asked: &Job, fence: u64) -> Asked {
        match self {
            Attempt::Running { waiting, job, .. } => {
                waiting.push(fence);
                *job = asked.clone();
                Asked::Runs
            }
            Attempt::Over(ending) => Asked::Over(ending.clone()),
        }
    }
}

/// What becomes of asking an agent to carry something out.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    /// It begins, for the first time.
    Begins,
    /// It runs already; the answer comes at its end.
    Runs,
    /// It is over, with this.
    Over(Ending),
    /// Another one works until then.
    Waits(u64),
    /// The host is down until then.
    Down(u64),
}

/// An attempt that came to its end, with who waits for it.
pub(crate) struct Ended {
    pub(crate) job: Job,
    pub(crate) ending: Ending,
    pub(crate) waiting: Vec<u64>,
}

impl Hosts {
    /// An instance whose application is up, or is not there.
    pub(crate) fn add(&mut self, instance: InstanceId, is_up: bool) {
        self.host(&instance).app.is_up = is_up;
    }

    /// Asks for an attempt, for the conductor with this fence.
    pub(crate) fn ask(&mut self, now: u64, job: &Job, fence: u64) -> Asked {
        let Some(instance) = job.instance() else {
            return Asked::Over(lost("the deployment has no instance"));
        };
        let host = self.host(instance);
        let attempt = job.attempt();
        // What waits on the host goes on whether somebody reaches it or not.
        if host.waiting.contains(&attempt) {
            if let Some(until) = host.works_until() {
                return Asked::Waits(until);
            }
            host.waiting.remove(&attempt);
            if host.asked.as_ref() == Some(&attempt) {
                return Asked::Begins;
            }
            let ending = failed(Cause::Invalid, "another attempt was asked for after it");
            let over = Attempt::Over(ending.clone());
            host.attempts.insert(attempt, over);
            return Asked::Over(ending);
        }
        if let Some(until) = host
            .down_until
            .max(host.cut_off_until)
            .filter(|it| *it > now)
        {
            return Asked::Down(until);
        }
        match host.attempts.get_mut(&attempt) {
            None => {
                host.asked = Some(attempt.clone());
                match host.works_until() {
                    Some(until) => {
                        host.waiting.insert(attempt);
                        Asked::Waits(until)
                    }
                    None => Asked::Begins,
                }
            }
            Some(known) => known.join(job, fence),
        }
    }

    /// Joins an attempt that has begun on a host that can be reached, for the conductor with this fence.
    pub(crate) fn join(&mut self, now: u64, job: &Job, fence: u64) -> Option<Asked> {
        let host = self.host(job.instance()?);
        let away = host.down_until.max(host.cut_off_until);
        let known = host.attempts.get_mut(&job.attempt())?;
        away.is_none_or(|until| until <= now)
            .then(|| known.join(job, fence))
    }

    /// Has an attempt follow the one before it, unless something else was asked for since. Answers whether it begins.
    pub(crate) fn follow(&mut self, job: &Job, before: &AttemptId) -> bool {
        let Some(instance) = job.instance() else {
            return false;
        };
        let attempt = job.attempt();
        let host = self.host(instance);
        let follows = host.asked.as_ref() == Some(before)
            && host.works_until().is_none()
            && !host.attempts.contains_key(&attempt);
        if follows {
            host.asked = Some(attempt);
        }
        follows
    }

    /// Begins an attempt that ends then, for these conductors.
    pub(crate) fn begin(&mut self, job: Job, ends_at: u64, ending: Ending, waiting: Vec<u64>) {
        let Some(instance) = job.instance().cloned() else {
            return;
        };
        let attempt = job.attempt();
        let running = Attempt::Running {
            ends_at,
            ending,
            job,
            waiting,
        };
        self.host(&instance).attempts.insert(attempt, running);
    }

    /// The attempt comes to its end, unless it was lost before.
    pub(crate) fn end(
        &mut self,
        now: u64,
        instance: &InstanceId,
        attempt: &AttemptId,
    ) -> Option<Ended> {
        let place = self.host(instance).attempts.get_mut(attempt)?;
        match place {
            Attempt::Running { ends_at, .. } if *ends_at <= now => {}
            _ => return None,
        }
        match std::mem::replace(place, Attempt::Over(lost("nothing"))) {
            Attempt::Running {
                ending,
                job,
                waiting,
                ..
            } => {
                *place = Attempt::Over(ending.clone());
                Some(Ended {
                    job,
                    ending,
                    waiting,
                })
            }
            Attempt::Over(_) => None,
        }
    }

    /// The host goes down: what ran is lost. Those who waited for it come back, for their connections break.
    pub(crate) fn go_down(&mut self, instance: &InstanceId, until: u64) -> Vec<Ended> {
        let host = self.host(instance);
        host.down_until = Some(until.max(host.down_until.unwrap_or(0)));
        for attempt in std::mem::take(&mut host.waiting) {
            let over = Attempt::Over(lost("the host went down"));
            host.attempts.insert(attempt, over);
        }
        let mut broken = Vec::new();
        for attempt in host.attempts.values_mut() {
            if !matches!(attempt, Attempt::Running { .. }) {
                continue;
            }
            let ending = lost("the host went down");
            if let Attempt::Running { job, waiting, .. } =
                std::mem::replace(attempt, Attempt::Over(ending.clone()))
            {
                broken.push(Ended {
                    job,
                    ending,
                    waiting,
                });
            }
        }
        broken
    }

    /// Nobody reaches the host. Those who wait for something there come back, for their connections break.
    pub(crate) fn cut_off(&mut self, instance: &InstanceId, until: u64) -> Vec<(Job, Vec<u64>)> {
        let host = self.host(instance);
        host.cut_off_until = Some(until.max(host.cut_off_until.unwrap_or(0)));
        let running = host.attempts.values_mut();
        running
            .filter_map(|attempt| match attempt {
                Attempt::Running { job, waiting, .. } => {
                    Some((job.clone(), std::mem::take(waiting)))
                }
                Attempt::Over(_) => None,
            })
            .collect()
    }

    /// Whether nobody reaches the host, which may work all the same.
    pub(crate) fn is_cut_off(&self, now: u64, instance: &InstanceId) -> bool {
        let host = self.hosts.get(instance);
        host.is_some_and(|host| host.cut_off_until.is_some_and(|until| until > now))
    }

    /// What runs on an instance.
    pub(crate) fn running(&self, instance: &InstanceId) -> Option<AttemptId> {
        let host = self.hosts.get(instance)?;
        let mut attempts = host.attempts.iter();
        let running = attempts.find(|(_, it)| matches!(it, Attempt::Running { .. }));
        running.map(|(id, _)| id.clone())
    }

    pub(crate) fn set_up(&mut self, instance: &InstanceId, is_up: bool) {
        self.host(instance).app.is_up = is_up;
    }

    pub(crate) fn make_unwell(&mut self, instance: &InstanceId, until: u64) {
        let app = &mut self.host(instance).app;
        app.unwell_until = app.unwell_until.max(until);
    }

    /// Whether the application answers a health check.
    pub(crate) fn is_well(&self, now: u64, instance: &InstanceId) -> bool {
        self.hosts.get(instance).is_some_and(|host| {
            let reachable_from = host.down_until.max(host.cut_off_until);
            let is_reachable = reachable_from.is_none_or(|until| until <= now);
            is_reachable && host.app.is_up && host.app.unwell_until <= now
        })
    }

    fn host(&mut self, instance: &InstanceId) -> &mut Host {
        self.hosts.entry(instance.clone()).or_default()
    }
}

impl Host {
    /// When the attempt that works ends.
    fn works_until(&self) -> Option<u64> {
        self.attempts.values().find_map(|attempt| match attempt {
            Attempt::Running { ends_at, .. } => Some(*ends_at),
            Attempt::Over(_) => None,
        })
    }
}

pub(crate) fn lost(reason: &str) -> Ending {
    Ending::Lost {
        reason: reason.to_owned(),
    }
}

//! What actions come to: attempts on the instances, and calls of the balancer, the router and the gates.

use engine::call::{self, End};
use engine::split;
use engine::traffic::{self, Class, Goal};
use engine::{HoldAction, Input, Work};
use model::{
    AttemptId, Cause, Decision, DeploymentId, Ending, GateCheck, InstanceId, LifecycleEvent,
    Verdict,
};

use crate::balancer::{Effect, groups_for};
use crate::defect::Defect;
use crate::driver::{Exchange, MemberExchange, Mode, PluginExchange, SplitExchange};
use crate::hosts::{Asked, Job};
use crate::scenario::{Check, What};
use crate::site::{Event, Site, is_at, service_of};
use crate::turn::failed;
use crate::violation::Violation;

/// How long a conductor tries to reach a host that is down, in milliseconds.
const PATIENCE: u64 = 20_000;
/// Longer than that, in milliseconds.
const IMPATIENCE: u64 = PATIENCE + 5_000;
/// Longer than that, in milliseconds.
const LONG_SCRIPT: u64 = 60_000;
/// The time between two looks at the health of instances.
const LOOKS: u64 = 2_000;

impl Site<'_> {
    /// A request for an attempt arrives at its agent.
    pub(crate) fn ask(&mut self, fence: u64, job: Job) -> Result<(), Violation> {
        let attempt = job.attempt();
        let asked = self.hosts.ask(self.now, &job, fence);
        let asked = match asked {
            Asked::Over(_) | Asked::Runs if self.defect == Some(Defect::ForgetsAttempts) => {
                Asked::Begins
            }
            Asked::Waits(_) if self.defect == Some(Defect::BeginsBeside) => Asked::Begins,
            other => other,
        };
        match asked {
            Asked::Runs => {}
            Asked::Waits(until) => {
                self.trace
                    .say(self.now, || format!("agent: {attempt} waits for another"));
                self.schedule(until + 1, Event::Ask(fence, Box::new(job)));
            }
            Asked::Over(ending) => self.answer(fence, &job, ending),
            Asked::Down(until) if until - self.now <= PATIENCE => {
                self.schedule(until + 1, Event::Ask(fence, Box::new(job)));
            }
            Asked::Down(_) => {
                let reason = "the host does not answer".to_owned();
                let input = job.ended(Ending::Unreachable { reason });
                self.after(PATIENCE, Event::Answer(fence, Box::new(input)));
            }
            Asked::Begins => self.begin_attempt(job, vec![fence])?,
        }
        Ok(())
    }

    /// An attempt begins on its instance, for these conductors.
    fn begin_attempt(&mut self, job: Job, waiting: Vec<u64>) -> Result<(), Violation> {
        let attempt = job.attempt();
        let plan = match &job {
            Job::Step(action) => action.deployment.clone(),
            Job::Switch(switch) => switch.deployment.clone(),
        };
        let gives_traffic = self.gives_traffic(&plan, job.instance());
        self.trace
            .say(self.now, || format!("agent: {attempt} begins"));
        let beside = job.instance().and_then(|it| self.hosts.running(it));
        self.rules.begins(&job, beside.as_ref(), gives_traffic)?;
        let is_cut_off_in = self.is_cut_off_in(&job);
        let takes = match is_cut_off_in {
            true => LONG_SCRIPT,
            false => self.duration(&job.name()),
        };
        let ending = self.ending(&job);
        let Some(instance) = job.instance().cloned() else {
            return Ok(());
        };
        self.hosts.begin(job, self.now + takes, ending, waiting);
        self.after(takes, Event::AttemptEnds(instance.clone(), attempt));
        if is_cut_off_in {
            self.hang_up(&instance, self.now + IMPATIENCE);
        } else if self.hosts.is_cut_off(self.now, &instance) {
            self.hang_up(&instance, 0);
        }
        Ok(())
    }

    /// What was authorised with an attempt follows it, if the agent that was given the two is still there.
    fn follow(&mut self, before: &Job, ending: &Ending) -> Result<(), Violation> {
        let Some(job) = before.follower() else {
            return Ok(());
        };
        let has_succeeded = matches!(ending, Ending::Succeeded { .. });
        let goes_on = has_succeeded || self.defect == Some(Defect::FollowsFailure);
        let is_there = self.chance.percent("follows", &job.name(), 80);
        if goes_on && is_there && self.hosts.follow(&job, &before.attempt()) {
            self.begin_attempt(job, Vec::new())?;
        }
        Ok(())
    }

    /// A conductor joins an attempt, if it has begun and can be reached. Answers whether there is an answer to come.
    pub(crate) fn join(&mut self, fence: u64, job: Job) -> bool {
        match self.hosts.join(self.now, &job, fence) {
            Some(Asked::Over(ending)) => {
                self.answer(fence, &job, ending);
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Whether its host is cut off in the middle of it.
    fn is_cut_off_in(&self, job: &Job) -> bool {
        let Job::Step(action) = job else { return false };
        action.attempt == 1
            && self.scenario.troubles.iter().any(|trouble| {
                matches!(&trouble.what, What::CutOffIn { instance, event }
                    if *event == action.event && is_at(instance, &action.target.instance.id))
            })
    }

    fn duration(&self, name: &str) -> u64 {
        match self.chance.between("slow", name, 0..100) {
            0..=4 => self.chance.between("takes", name, 5_000..40_000),
            5..=39 => self.chance.between("takes", name, 1..20),
            _ => self.chance.between("takes", name, 1..3_000),
        }
    }

    /// What becomes of an attempt that nothing interrupts.
    fn ending(&self, job: &Job) -> Ending {
        let fails = match job {
            Job::Step(action) => self.scenario.troubles.iter().any(|trouble| {
                matches!(&trouble.what, What::HookFails { instance, event }
                    if *event == action.event && is_at(instance, &action.target.instance.id))
            }),
            Job::Switch(switch) => {
                let name = job.name();
                self.chance.percent("switch fails", &name, 3) && switch.attempt > 0
            }
        };
        if fails {
            return failed(Cause::ScriptFailed, "it ended with exit code 1");
        }
        Ending::Succeeded {
            exit_code: Some(0),
            log: None,
            note: None,
        }
    }

    /// Whether an instance gets requests, and nobody else has seen to that.
    fn gives_traffic(&self, plan: &model::Deployment, instance: Option<&InstanceId>) -> bool {
        instance.is_some_and(|instance| {
            let balancer = service_of(plan).and_then(|it| self.balancers.get(&it));
            balancer
                .is_some_and(|it| !it.is_meddled_with && it.gives_traffic(plan, instance, self.now))
        })
    }

    /// An attempt ends on its instance, whoever is there to hear of it.
    pub(crate) fn end_attempt(
        &mut self,
        instance: &InstanceId,
        attempt: &AttemptId,
    ) -> Result<(), Violation> {
        let Some(ended) = self.hosts.end(self.now, instance, attempt) else {
            return Ok(());
        };
        self.trace
            .say(self.now, || format!("agent: {attempt} ends"));
        if matches!(ended.ending, Ending::Succeeded { .. }) {
            self.take_effect(&ended.job);
        }
        for fence in ended.waiting {
            if self.defect == Some(Defect::SwallowsAnswers)
                && attempt.as_str().contains("ApplicationStart")
            {
                continue;
            }
            if let Some(index) = self.trouble_with_answer(&ended.job) {
                self.used.insert(index);
                let trouble = self.scenario.troubles[index].what.clone();
                self.trace.say(self.now, || format!("trouble: {trouble:?}"));
                match trouble {
                    What::AnswerLost { .. } => {
                        let job = Box::new(ended.job.clone());
                        self.after(3_000, Event::Ask(fence, job));
                        continue;
                    }
                    What::AnswerLate { by_ms, .. } => {
                        let input = Box::new(ended.job.ended(ended.ending.clone()));
                        self.after(by_ms, Event::Answer(fence, input));
                        continue;
                    }
                    // Whoever settles a release waits for one answer of each.
                    What::AnswerTwice { .. } if self.is_at_work() => {
                        self.answer(fence, &ended.job, ended.ending.clone());
                    }
                    _ => {}
                }
            }
            self.answer(fence, &ended.job, ended.ending.clone());
        }
        self.follow(&ended.job, &ended.ending)
    }

    fn trouble_with_answer(&self, job: &Job) -> Option<usize> {
        let Job::Step(action) = job else {
            return None;
        };
        let troubles = self.scenario.troubles.iter().enumerate();
        troubles
            .filter(|(index, _)| !self.used.contains(index))
            .find_map(|(index, trouble)| match &trouble.what {
                What::AnswerLate {
                    instance, event, ..
                }
                | What::AnswerLost { instance, event }
                | What::AnswerTwice { instance, event }
                    if *event == action.event && is_at(instance, &action.target.instance.id) =>
                {
                    Some(index)
                }
                _ => None,
            })
    }

    fn answer(&mut self, fence: u64, job: &Job, ending: Ending) {
        let wait = self.chance.between("way back", &job.name(), 0..20);
        let input = Box::new(job.ended(ending));
        self.after(wait, Event::Answer(fence, input));
    }

    /// What an attempt that succeeded changes in the world.
    pub(crate) fn take_effect(&mut self, job: &Job) {
        let Job::Step(action) = job else {
            return;
        };
        let instance = &action.target.instance.id;
        let starts_by_hook = action
            .deployment
            .packages
            .get(&action.target.incoming)
            .is_some_and(|package| {
                let hooks = &package.appspec.hooks;
                let calls = action.deployment.calls.as_ref();
                hooks.contains_key(&LifecycleEvent::ApplicationStart)
                    || calls.is_some_and(|calls| {
                        calls.events.contains_key(&LifecycleEvent::ApplicationStart)
                    })
            });
        match (&action.work, action.event) {
            (Work::Hook(_) | Work::Call(..), LifecycleEvent::ApplicationStop) => {
                self.hosts.set_up(instance, false);
            }
            (Work::Hook(_) | Work::Call(..), LifecycleEvent::ApplicationStart) => {
                self.hosts.set_up(instance, true);
            }
            (Work::Install(_), _) if !starts_by_hook => self.hosts.set_up(instance, true),
            (Work::Block, _) => self.move_by_command(action, Goal::Blocked),
            (Work::Allow, _) => self.move_by_command(action, Goal::Allowed),
            _ => {}
        }
    }

    fn move_by_command(&mut self, action: &engine::Action, goal: Goal) {
        let now = self.now;
        let balancer = service_of(&action.deployment).and_then(|it| self.balancers.get_mut(&it));
        let Some(balancer) = balancer else {
            return;
        };
        for group in groups_for(&action.deployment, goal) {
            match goal {
                Goal::Blocked => balancer.leave(&group, &action.target.instance.id, now),
                Goal::Allowed => balancer.join(&group, &action.target.instance.id, now),
            }
        }
    }

    /// A conductor makes the next call of an exchange.
    pub(crate) fn call(&mut self, number: u64) -> Result<(), Violation> {
        let Some(driver) = &mut self.driver else {
            return Ok(());
        };
        match driver.exchanges.remove(&number) {
            None => Ok(()),
            Some(Exchange::Gate(hold)) => {
                self.evaluate(number, *hold);
                Ok(())
            }
            Some(Exchange::Member(exchange)) => self.call_balancer(number, exchange),
            Some(Exchange::Split(exchange)) => self.call_router(number, exchange),
            Some(Exchange::Plugin(exchange)) => self.call_plugin(number, exchange),
        }
    }

    /// Puts an exchange back, until its next call.
    fn go_on(&mut self, number: u64, exchange: Exchange, after: std::time::Duration) {
        if let Some(driver) = &mut self.driver {
            driver.exchanges.insert(number, exchange);
            let fence = driver.fence;
            let wait = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            self.after(wait.max(1), Event::Call(fence, number));
        }
    }

    fn call_balancer(
        &mut self,
        number: u64,
        mut exchange: Box<MemberExchange>,
    ) -> Result<(), Violation> {
        let action = exchange.action.clone();
        let (plan, instance) = (&action.deployment, &action.target.instance.id);
        let job = Job::Step(action.clone());
        let Some(group) = exchange.groups.front().cloned() else {
            self.hear(job.ended(succeeded(None)));
            return Ok(());
        };
        let service = service_of(plan).unwrap_or(0);
        let (goal, call) = (exchange.goal, exchange.call.clone());
        let called = self.with_balancer(service, |balancer, at| {
            balancer.call(&group, instance, goal, &call, at)
        });
        let Some((answer, effect)) = called else {
            return Ok(());
        };
        if effect == Effect::Changed {
            self.trace.say(self.now, || {
                format!("balancer: {instance} is {goal:?} in {group}")
            });
            if goal == Goal::Allowed {
                self.rules.joins(plan, instance)?;
            }
        }
        let now = self.time();
        match exchange.operation.answer(now, &exchange.call, answer) {
            traffic::Next::Call { after, call } => {
                exchange.call = call;
                self.go_on(number, Exchange::Member(exchange), after);
            }
            traffic::Next::Done { note } => {
                if exchange.next_group(now) {
                    let at_once = std::time::Duration::ZERO;
                    self.go_on(number, Exchange::Member(exchange), at_once);
                } else {
                    self.hear(job.ended(succeeded(note)));
                }
            }
            traffic::Next::Failed { reason } => {
                self.hear(job.ended(failed(Cause::BalancerFailed, &reason)));
            }
        }
        Ok(())
    }

    fn call_router(
        &mut self,
        number: u64,
        mut exchange: Box<SplitExchange>,
    ) -> Result<(), Violation> {
        let switch = exchange.action.clone();
        let service = service_of(&switch.deployment).unwrap_or(0);
        let call = exchange.call.clone();
        let mut to = switch.to.clone();
        if self.defect == Some(Defect::Overloads)
            && let Some(sides) = &switch.deployment.sides
        {
            to = model::Shares::all_to(sides.to.clone());
        }
        let called = self.with_balancer(service, |balancer, at| {
            let before = balancer.shares.clone();
            let called = balancer.split(&switch.deployment, &switch.members, &to, &call, at);
            (called, before)
        });
        let Some(((answer, effect), before)) = called else {
            return Ok(());
        };
        if effect == Effect::Changed {
            self.trace
                .say(self.now, || format!("router: {before} becomes {to}"));
            self.rules.splits(&switch, &before, &to)?;
        }
        let job = Job::Switch(switch);
        match exchange
            .operation
            .answer(self.time(), &exchange.call, answer)
        {
            split::Next::Call { after, call } => {
                exchange.call = call;
                self.go_on(number, Exchange::Split(exchange), after);
            }
            split::Next::Done { note } => self.hear(job.ended(succeeded(note))),
            split::Next::Failed { reason } => {
                self.hear(job.ended(failed(Cause::BalancerFailed, &reason)));
            }
        }
        Ok(())
    }

    /// Calls the plugin of a kind, which does its work, fails at it, or takes its time. What it has done when nobody hears
    /// its answer is done nevertheless.
    fn call_plugin(
        &mut self,
        number: u64,
        mut exchange: Box<PluginExchange>,
    ) -> Result<(), Violation> {
        let job = Job::Step(exchange.action.clone());
        if exchange.calls == 0 {
            let attempt = job.attempt();
            self.trace
                .say(self.now, || format!("plugin: {attempt} runs"));
            let instance = job.instance().cloned();
            let plan = exchange.action.deployment.clone();
            let beside = instance.as_ref().and_then(|it| self.hosts.running(it));
            let gives_traffic = self.gives_traffic(&plan, instance.as_ref());
            self.rules.begins(&job, beside.as_ref(), gives_traffic)?;
        }
        exchange.calls += 1;
        let name = format!("{} {}", job.name(), exchange.calls);
        let failure = |class, message: &str| call::Answer::Failure {
            class,
            message: message.to_owned(),
            retry_after: None,
        };
        let answer = match self.chance.between("plugin", &name, 0..20) {
            _ if !matches!(self.ending(&job), Ending::Succeeded { .. }) => {
                failure(Class::Permanent, "the plugin cannot do it")
            }
            0..=1 => failure(Class::Transient, "the plugin could not do it"),
            2 => failure(Class::UnknownOutcome, "the plugin broke off"),
            3..=6 => call::Answer::Pending {
                token: name,
                after: std::time::Duration::from_millis(500),
                message: "half of it".to_owned(),
            },
            _ => {
                self.take_effect(&job);
                call::Answer::Changed { what: None }
            }
        };
        match exchange
            .operation
            .answer(self.time(), &exchange.call, answer)
        {
            call::Next::Call { after, call } => {
                exchange.call = call;
                self.go_on(number, Exchange::Plugin(exchange), after);
            }
            call::Next::End(End::Done { note }) => self.hear(job.ended(succeeded(note))),
            call::Next::End(End::Failed { cause, reason }) => {
                self.hear(job.ended(failed(cause, &reason)));
            }
            call::Next::End(End::Lost { reason }) => self.hear(job.ended(Ending::Lost { reason })),
        }
        Ok(())
    }

    /// Evaluates a gate: it decides with the next of its verdicts, or stays undecided to the end of its time.
    fn evaluate(&mut self, number: u64, hold: HoldAction) {
        let model::Hold::Gate { index } = self
            .state()
            .find(&hold.deployment.id)
            .and_then(|deployment| deployment.current_hold())
            .map_or(model::Hold::Interval, |open| open.hold.clone())
        else {
            return;
        };
        let verdict = self.verdict(&hold.deployment.id, index, &hold);
        let now = self.time();
        let left = hold
            .until
            .map(|until| u64::try_from(until.0 - now.0).unwrap_or(0));
        let count = self
            .decided
            .entry((hold.deployment.id.clone(), index))
            .or_default();
        let is_undecided = verdict == Verdict::Inconclusive;
        if is_undecided && left.is_none_or(|left| left > 0) {
            if left.is_none() {
                // The next look says more.
                *count += 1;
            }
            let wait = left.unwrap_or(5_000).min(5_000);
            let after = std::time::Duration::from_millis(wait);
            self.go_on(number, Exchange::Gate(Box::new(hold)), after);
            return;
        }
        *count += 1;
        self.trace.say(self.now, || {
            format!(
                "gate {} of {}: {verdict}",
                hold.gate.name, hold.deployment.id
            )
        });
        self.hear(Input::HoldEnded {
            deployment: hold.deployment.id.clone(),
            stage: hold.stage,
            decision: Decision {
                verdict,
                by: None,
                reason: None,
                evidence: Vec::new(),
            },
        });
    }

    fn verdict(&self, id: &DeploymentId, index: u32, hold: &HoldAction) -> Verdict {
        let service = service_of(&hold.deployment);
        let services = &self.scenario.services;
        let planned = services
            .iter()
            .find(|it| Some(it.number) == service)
            .and_then(|it| it.gates.get(index as usize));
        let done = self.decided.get(&(id.clone(), index)).copied();
        match planned.map(|gate| &gate.check) {
            Some(Check::Evaluated(verdicts)) => verdicts
                .get(done.unwrap_or(0))
                .copied()
                .unwrap_or(Verdict::Passed),
            Some(Check::Approval) | None => {
                debug_assert!(!matches!(hold.gate.check, GateCheck::Approval { .. }));
                Verdict::Passed
            }
        }
    }

    /// A conductor looks how the instances of its deployments are, and tells what changed.
    pub(crate) fn look(&mut self) {
        let Some(driver) = self.driver.as_ref().filter(|it| it.mode == Mode::Drives) else {
            return;
        };
        let (fence, watched) = (driver.fence, driver.engine.watched());
        self.after(LOOKS, Event::Look(fence));
        for plan in watched {
            let service = service_of(&plan).unwrap_or(0);
            let down = self.with_balancer(service, |balancer, at| balancer.down(&plan, at));
            let Some(down) = down.flatten() else {
                continue;
            };
            let Some(driver) = &mut self.driver else {
                return;
            };
            let is_news = driver.told.get(&plan.id) != Some(&down) || !down.is_empty();
            driver.told.insert(plan.id.clone(), down.clone());
            if is_news {
                self.hear(Input::HealthObserved {
                    deployment: plan.id.clone(),
                    down,
                });
            }
        }
    }
}

fn succeeded(note: Option<String>) -> Ending {
    Ending::Succeeded {
        exit_code: None,
        log: None,
        note,
    }
}

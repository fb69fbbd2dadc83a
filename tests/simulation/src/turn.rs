//! The conductor's turns: the engine answers, the records become durable, the actions start.

use engine::split::Past;
use engine::traffic::Goal;
use engine::{Action, Input, Output, Refusal, SwitchAction, Work};
use model::{Balancer, Cause, Ending, Fact, InstanceOutcome, Order, Record, Router};

use crate::defect::Defect;
use crate::driver::{Exchange, MemberExchange, Mode, PluginExchange, SplitExchange, add};
use crate::hosts::Job;
use crate::scenario::{CrashPoint, What, When};
use crate::site::{Event, Site};
use crate::violation::Violation;

/// How often a lease is renewed, in milliseconds; the alarm is set anew then.
const RENEWAL: u64 = 10_000;
/// The shortest wait for a time.
const SHORTEST_WAIT: u64 = 20;

impl Site<'_> {
    /// Answers everything that waits, and begins the commit of what follows.
    pub(crate) fn turn(&mut self) -> Result<(), Violation> {
        let now = self.time();
        let Some(mut driver) = self.driver.take() else {
            return Ok(());
        };
        if driver.committing.is_some() {
            self.driver = Some(driver);
            return Ok(());
        }
        let mut all = Output::default();
        for input in std::mem::take(&mut driver.waiting) {
            let is_ending = matches!(input, Input::StepEnded { .. } | Input::SwitchEnded { .. });
            let is_kept = match driver.mode {
                Mode::Drives => true,
                Mode::Settles { .. } => !is_unreachable(&input),
            };
            let said = format!("{input:?}");
            if is_kept {
                match driver.engine.handle(now, input) {
                    Ok(output) => add(&mut all, output),
                    Err(refusal) => {
                        return Err(Violation::new(
                            "the engine answers whatever its conductor hears",
                            format!("{said}: {refusal}"),
                        ));
                    }
                }
            }
            if let Mode::Settles { left, .. } = &mut driver.mode
                && is_ending
            {
                *left -= 1;
            }
        }
        if let Mode::Settles {
            left: left @ 0,
            has_looked: has_looked @ false,
        } = &mut driver.mode
        {
            *has_looked = true;
            for action in driver.engine.may_have_begun() {
                *left += usize::from(self.join(driver.fence, Job::Step(action)));
            }
        }
        if matches!(driver.mode, Mode::Settles { left: 0, .. })
            && !driver.engine.state().status.is_terminal()
        {
            match driver.engine.handle(now, Input::Stop) {
                Ok(output) => add(&mut all, output),
                Err(refusal) => {
                    return Err(Violation::new(
                        "a release that nobody drives can be stopped",
                        refusal.to_string(),
                    ));
                }
            }
        }
        for order in std::mem::take(&mut driver.orders) {
            self.give(&mut driver.engine, order, &mut all)?;
        }
        if let Mode::Settles { .. } = driver.mode {
            // It waits for what is in flight; nothing else begins.
            all.actions.clear();
            all.switches.clear();
            all.holds.clear();
        }
        if all.records.is_empty() {
            self.driver = Some(driver);
            self.start(all, usize::MAX)?;
            self.set_alarm();
            return Ok(());
        }
        let fence = driver.fence;
        let name = driver.engine.state().next_seq.to_string();
        let takes = match self.chance.percent("slow disk", &name, 3) {
            true => self.chance.between("disk", &name, 0..3_000),
            false => self.chance.between("disk", &name, 0..8),
        };
        if self.defect == Some(Defect::ActsBeforeAppending) {
            let early = Output {
                records: Vec::new(),
                actions: std::mem::take(&mut all.actions),
                ..Output::default()
            };
            self.driver = Some(driver);
            self.start(early, usize::MAX)?;
            if let Some(driver) = &mut self.driver {
                driver.committing = Some(all);
            }
        } else {
            driver.committing = Some(all);
            self.driver = Some(driver);
        }
        self.after(takes, Event::Committed(fence));
        Ok(())
    }

    /// Gives an order to the engine. A refusal changes nothing.
    fn give(
        &mut self,
        engine: &mut engine::Engine,
        order: Order,
        all: &mut Output,
    ) -> Result<(), Violation> {
        let now = self.time();
        let before = engine.state().clone();
        let said = format!("{order:?}");
        let operator = "ann@ops".to_owned();
        match engine.handle(now, Input::Order { order, operator }) {
            Ok(output) => add(all, output),
            Err(refusal @ (Refusal::Status { .. } | Refusal::Order { .. })) => {
                self.trace
                    .say(self.now, || format!("{said} is refused: {refusal}"));
                if *engine.state() != before {
                    return Err(Violation::new(
                        "an order that is refused changes nothing",
                        said,
                    ));
                }
            }
            Err(misfit @ Refusal::Misfit(_)) => {
                return Err(Violation::new(
                    "the engine answers whatever its conductor hears",
                    format!("{said}: {misfit}"),
                ));
            }
        }
        Ok(())
    }

    /// The trouble that befalls the commit of these records.
    fn trouble_with(&self, records: &[Record]) -> Option<(usize, What)> {
        let last = records.last()?.seq;
        let troubles = self.scenario.troubles.iter().enumerate();
        troubles
            .filter(|(index, _)| !self.used.contains(index))
            .find_map(|(index, trouble)| match trouble.when {
                When::Record(seq) if seq <= last => Some((index, trouble.what.clone())),
                _ => None,
            })
    }

    /// The commit under way is durable, or lost with the conductor.
    pub(crate) fn committed(&mut self) -> Result<(), Violation> {
        let Some(driver) = &mut self.driver else {
            return Ok(());
        };
        let Some(mut output) = driver.committing.take() else {
            return Ok(());
        };
        let mut records = std::mem::take(&mut output.records);
        let trouble = self.trouble_with(&records);
        let mut most = usize::MAX;
        let mut dies = None;
        if let Some((index, what)) = trouble {
            self.used.insert(index);
            match what {
                What::Crash(CrashPoint::BeforeCommit) => {
                    self.die("is killed before its commit");
                    return Ok(());
                }
                What::DiskFull => {
                    self.die("ends, for the disk is full");
                    return Ok(());
                }
                What::Crash(CrashPoint::AfterActions(started)) => {
                    most = started;
                    dies = Some(format!("is killed after its commit and {started} actions"));
                }
                _ => {}
            }
        }
        if self.defect == Some(Defect::LosesRecords) && records.len() > 2 {
            records.remove(1);
        }
        self.append(records)?;
        self.check_turn()?;
        if let Some(why) = dies {
            self.start(output, most)?;
            self.die(&why);
            return Ok(());
        }
        if !self.status().is_active() && self.is_at_work() {
            let status = self.status();
            self.die(&format!("leaves: the release is {status}"));
            return Ok(());
        }
        if self.status().is_terminal() {
            self.die("has settled the release");
            return Ok(());
        }
        self.start(output, most)?;
        self.set_alarm();
        if let Some(driver) = &self.driver
            && !(driver.waiting.is_empty() && driver.orders.is_empty())
        {
            let fence = driver.fence;
            self.after(0, Event::Turn(fence));
        }
        Ok(())
    }

    fn append(&mut self, mut records: Vec<Record>) -> Result<(), Violation> {
        if let Some(defect) = self.defect {
            let facts = records.iter_mut().map(|record| &mut record.fact);
            facts.for_each(|fact| defect.tamper(fact));
        }
        for record in &records {
            self.trace.record(self.now, record);
        }
        self.disk.commit(records.clone())?;
        for record in &records {
            self.rules.record(record)?;
            if self.defect == Some(Defect::PutsFailedBack) {
                self.put_back(&record.fact)?;
            }
        }
        Ok(())
    }

    /// Puts an instance that failed into the balancer again.
    fn put_back(&mut self, fact: &Fact) -> Result<(), Violation> {
        let Fact::InstanceEnded {
            deployment,
            instance,
            outcome: InstanceOutcome::Failed,
            ..
        } = fact
        else {
            return Ok(());
        };
        let plan = self.state().find(deployment).map(|it| it.plan.clone());
        match plan.filter(|plan| plan.balancer.is_some()) {
            Some(plan) => self.rules.joins(&plan, instance),
            None => Ok(()),
        }
    }

    fn check_turn(&mut self) -> Result<(), Violation> {
        let now = self.time();
        let Some(driver) = &self.driver else {
            return Ok(());
        };
        // With nothing heard since, the engine stands where its records do.
        let live = driver.engine.state();
        self.rules.turn(live, now)
    }

    /// Starts the first so many of the actions that a turn authorised.
    pub(crate) fn start(&mut self, output: Output, most: usize) -> Result<(), Violation> {
        let mut left = most;
        let is_cut = most != usize::MAX;
        for switch in output.switches.into_iter().take(left) {
            left -= 1;
            self.start_switch(switch, is_cut)?;
        }
        for action in output.actions.into_iter().take(left) {
            left -= 1;
            self.start_action(action, is_cut)?;
        }
        for hold in output.holds.into_iter().take(left) {
            if let Some(driver) = &mut self.driver {
                let fence = driver.fence;
                let name = format!("{fence} {} {}", hold.deployment.group, hold.gate.name);
                let exchange = driver.keep(Exchange::Gate(Box::new(hold)));
                let wait = self.chance.between("gate", &name, 100..3_000);
                self.after(wait, Event::Call(fence, exchange));
            }
        }
        Ok(())
    }

    fn start_switch(&mut self, switch: SwitchAction, is_cut: bool) -> Result<(), Violation> {
        self.rules.switch(&switch)?;
        let now = self.time();
        match &switch.deployment.router {
            Some(Router::Command { .. }) => self.send(Job::Switch(switch), is_cut),
            Some(Router::Plugin { timeout, .. }) => {
                let timeout = *timeout;
                match SplitExchange::new(switch.clone(), timeout, now) {
                    Some(exchange) => self.exchange(Exchange::Split(Box::new(exchange)), is_cut),
                    None => {
                        let ending = failed(Cause::Invalid, "there are no sides");
                        self.hear(Job::Switch(switch).ended(ending));
                        Ok(())
                    }
                }
            }
            None => {
                let ending = failed(Cause::Invalid, "there is no router");
                self.hear(Job::Switch(switch).ended(ending));
                Ok(())
            }
        }
    }

    fn start_action(&mut self, mut action: Action, is_cut: bool) -> Result<(), Violation> {
        if self.defect == Some(Defect::ConfusesRevisions)
            && let Work::Hook(package) = &mut action.work
            && let Some(incoming) = action.deployment.packages.get(&action.target.incoming)
        {
            *package = incoming.clone();
        }
        if self.defect == Some(Defect::RepeatsAttempts) && self.disk.fence() > 1 {
            action.attempt += 1;
        }
        if self.defect == Some(Defect::RepeatsCalls)
            && let Work::Call(_) = action.work
        {
            action.past = Past::Nothing;
        }
        self.rules.action(&action)?;
        let goal = match action.work {
            Work::Block => Some(Goal::Blocked),
            Work::Allow => Some(Goal::Allowed),
            Work::Download(_) | Work::Hook(_) | Work::Install(_) => None,
            Work::Call(_) if action.past == Past::Unknown => {
                let reason = "the conductor that called the plugin is gone".to_owned();
                self.hear(Job::Step(action).ended(Ending::Lost { reason }));
                return Ok(());
            }
            Work::Call(_) => {
                let exchange = PluginExchange::new(action, self.time());
                return self.exchange(Exchange::Plugin(Box::new(exchange)), is_cut);
            }
        };
        match (goal, &action.deployment.balancer) {
            (Some(goal), Some(Balancer::Plugin { timeout, .. })) => {
                let timeout = *timeout;
                let exchange = MemberExchange::new(action, goal, timeout, self.time());
                self.exchange(Exchange::Member(Box::new(exchange)), is_cut)
            }
            (Some(_), None) => {
                let ending = failed(Cause::Invalid, "there is no balancer");
                self.hear(Job::Step(action).ended(ending));
                Ok(())
            }
            _ => self.send(Job::Step(action), is_cut),
        }
    }

    /// Sends a job to its agent. A conductor that is about to die has sent it already.
    fn send(&mut self, job: Job, is_cut: bool) -> Result<(), Violation> {
        let Some(fence) = self.driver.as_ref().map(|driver| driver.fence) else {
            return Ok(());
        };
        if is_cut {
            return self.ask(fence, job);
        }
        let wait = self.chance.between("way there", &job.name(), 0..20);
        self.after(wait, Event::Ask(fence, Box::new(job)));
        Ok(())
    }

    /// Begins an exchange. A conductor that is about to die makes one more call.
    fn exchange(&mut self, exchange: Exchange, is_cut: bool) -> Result<(), Violation> {
        let Some(driver) = &mut self.driver else {
            return Ok(());
        };
        let number = driver.keep(exchange);
        let fence = driver.fence;
        if is_cut {
            return self.call(number);
        }
        self.after(1, Event::Call(fence, number));
        Ok(())
    }

    /// Sets the alarm for the time that the engine names, or for the renewal that comes before it.
    fn set_alarm(&mut self) {
        let time = self.time();
        let Some(driver) = &mut self.driver else {
            return;
        };
        driver.alarm += 1;
        let (fence, alarm) = (driver.fence, driver.alarm);
        if let Some(due) = driver.engine.next_wake() {
            let wait = u64::try_from(due.0.saturating_sub(time.0)).unwrap_or(0);
            self.after(
                wait.clamp(SHORTEST_WAIT, RENEWAL),
                Event::Alarm(fence, alarm),
            );
        }
    }

    pub(crate) fn ring(&mut self, alarm: u64) {
        let time = self.time();
        let Some(driver) = &self.driver else {
            return;
        };
        if driver.alarm != alarm {
            return;
        }
        match driver.engine.next_wake() {
            Some(due) if due <= time => self.hear(Input::Tick),
            Some(_) => self.set_alarm(),
            None => {}
        }
    }
}

pub(crate) fn failed(cause: Cause, reason: &str) -> Ending {
    Ending::Failed {
        cause,
        reason: reason.to_owned(),
        script: None,
        exit_code: Some(1),
        log: None,
    }
}

fn is_unreachable(input: &Input) -> bool {
    matches!(
        input,
        Input::StepEnded {
            ending: Ending::Unreachable { .. },
            ..
        } | Input::SwitchEnded {
            ending: Ending::Unreachable { .. },
            ..
        }
    )
}

//! Everything together: the events of one simulation, in the order of their time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use engine::{Engine, Input, State};
use model::{
    AttemptId, Deployment, DeploymentId, GateCheck, Hold, InstanceId, Order, Promote,
    ReleaseStatus, Shares, Strategy, Timestamp,
};

use crate::balancer::{Balancer, Moment};
use crate::chance::Chance;
use crate::defect::Defect;
use crate::disk::Disk;
use crate::driver::{Driver, Mode};
use crate::hosts::{Hosts, Job};
use crate::plan::{deployments, named, opening, place_of, release_id};
use crate::rules::Rules;
use crate::scenario::{Layout, Past, Place, Scenario, Trouble, What, When};
use crate::trace::Trace;
use crate::violation::Violation;

/// More events than any release needs.
const MOST_EVENTS: u64 = 30_000;
/// More records than any release needs.
const MOST_RECORDS: usize = 4_000;
/// Longer than any release takes, in milliseconds: a day.
const LONGEST: u64 = 24 * 60 * 60 * 1000;
/// After so many visits the operator stays.
const VISITS: u64 = 15;
/// When the simulation begins, by the clock of the conductor's machine.
const EPOCH: i64 = 1_700_000_000_000;

/// How a release that kept all rules ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Absent where the release was deleted.
    pub status: Option<ReleaseStatus>,
    pub records: usize,
    pub events: u64,
    /// How many conductors drove it.
    pub conductors: u64,
}

/// What is going to happen.
pub(crate) enum Event {
    Trouble(usize),
    Turn(u64),
    Committed(u64),
    /// A request arrives at an agent.
    Ask(u64, Box<Job>),
    AttemptEnds(InstanceId, AttemptId),
    Answer(u64, Box<Input>),
    /// A conductor makes the next call of an exchange.
    Call(u64, u64),
    /// A conductor looks how the instances are.
    Look(u64),
    Alarm(u64, u64),
    /// An operator comes by.
    Visit,
}

struct Scheduled {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// One simulation under way.
pub(crate) struct Site<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) defect: Option<Defect>,
    pub(crate) chance: Chance,
    /// Milliseconds since the beginning, whatever the clocks say.
    pub(crate) now: u64,
    /// The clock of the conductor's machine against that.
    clock: i64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub(crate) disk: Disk,
    pub(crate) hosts: Hosts,
    /// By the service.
    pub(crate) balancers: BTreeMap<usize, Balancer>,
    pub(crate) driver: Option<Driver>,
    pub(crate) rules: Rules,
    pub(crate) trace: Trace,
    /// The troubles that are over.
    pub(crate) used: BTreeSet<usize>,
    /// How many decisions each gate has come to.
    pub(crate) decided: BTreeMap<(DeploymentId, u32), usize>,
    /// What waited for a person at the last visit.
    seen_waiting: BTreeSet<(DeploymentId, model::Stage)>,
    visits: u64,
    is_deleted: bool,
}

/// Simulates a scenario. With a defect, something in it is built wrong.
pub(crate) fn simulate(
    scenario: &Scenario,
    defect: Option<Defect>,
    mut trace: Trace,
) -> (Result<Summary, Violation>, Trace) {
    match Site::open(scenario, defect, std::mem::take(&mut trace)) {
        Ok(mut site) => {
            let result = site.run();
            (result, site.trace)
        }
        Err(violation) => (Err(violation), trace),
    }
}

impl<'a> Site<'a> {
    fn open(
        scenario: &'a Scenario,
        defect: Option<Defect>,
        trace: Trace,
    ) -> Result<Self, Violation> {
        let truth = deployments(scenario);
        let mut given = truth.clone();
        if let Some(defect) = defect {
            given.iter_mut().for_each(|plan| defect.falsify(plan));
        }
        let mut records = opening(scenario.scope, &given);
        for record in &mut records {
            record.at = Timestamp(EPOCH);
        }
        let rules = Rules::open(truth.clone(), &records)?;
        let mut site = Self {
            scenario,
            defect,
            chance: Chance::new(scenario.seed),
            now: 0,
            clock: EPOCH,
            queue: BinaryHeap::new(),
            scheduled: 0,
            disk: Disk::open(scenario, records)?,
            hosts: Hosts::default(),
            balancers: BTreeMap::new(),
            driver: None,
            rules,
            trace,
            used: BTreeSet::new(),
            decided: BTreeMap::new(),
            seen_waiting: BTreeSet::new(),
            visits: 0,
            is_deleted: false,
        };
        site.build(&truth);
        for (index, trouble) in scenario.troubles.iter().enumerate() {
            if let When::At(at) = trouble.when {
                site.schedule(at, Event::Trouble(index));
            }
        }
        site.schedule(
            site.chance.between("visit", "0", 10_000..60_000),
            Event::Visit,
        );
        let engine = site.engine()?;
        site.begin(Driver::new(1, engine, Mode::Drives), Input::Begin);
        Ok(site)
    }

    /// What is there when the release begins.
    fn build(&mut self, plan: &[Deployment]) {
        for (service, deployment) in self.scenario.services.iter().zip(plan) {
            let mut balancer = Balancer::default();
            let has_past = service.past == Past::OneVersion;
            if let Some(sides) = &deployment.sides {
                balancer.shares = sides.shares.clone();
            }
            for target in &deployment.targets {
                let id = &target.instance.id;
                self.hosts.add(id.clone(), target.outgoing.is_some());
                let group = match service.layout {
                    Layout::Direct => continue,
                    Layout::Balanced | Layout::Weights => "{}".to_owned(),
                    Layout::TwoGroups | Layout::Colours => match &deployment.sides {
                        None => "{}".to_owned(),
                        Some(sides) => {
                            let is_own = service.layout == Layout::Colours;
                            let side = sides.list.iter().find(|side| {
                                !is_own || side.instances.iter().any(|one| one.id == *id)
                            });
                            side.map(|side| side.group.clone()).unwrap_or_default()
                        }
                    },
                };
                // The members of a colour are there for good; others join when they are deployed.
                if has_past || service.layout == Layout::Colours {
                    balancer.join(&group, id, 0);
                }
                if let Some(from) = deployment.sides.as_ref().and_then(|it| it.from.clone())
                    && service.layout == Layout::Weights
                {
                    balancer.weigh(id, from);
                }
            }
            for side in deployment.sides.iter().flat_map(|sides| &sides.list) {
                for instance in &side.instances {
                    balancer.join(&side.group, &instance.id, 0);
                    let mut targets = deployment.targets.iter();
                    if targets.all(|target| target.instance.id != instance.id) {
                        self.hosts.add(instance.id.clone(), has_past);
                    }
                }
            }
            self.balancers.insert(service.number, balancer);
        }
    }

    fn run(&mut self) -> Result<Summary, Violation> {
        let mut events = 0;
        while let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() {
            self.now = at;
            events += 1;
            let records = self.disk.records().len();
            if events > MOST_EVENTS || records > MOST_RECORDS || at > LONGEST {
                return Err(Violation::new(
                    "every release ends",
                    format!(
                        "after {events} events and {records} records it is {}",
                        self.status()
                    ),
                ));
            }
            self.happen(event)?;
            if self.is_deleted || (self.status().is_terminal() && self.driver.is_none()) {
                self.rules.whole(self.disk.records())?;
                return Ok(Summary {
                    status: (!self.is_deleted).then(|| self.status()),
                    records: self.disk.records().len(),
                    events,
                    conductors: self.disk.fence(),
                });
            }
        }
        Err(Violation::new(
            "every release ends",
            "nothing happens any more",
        ))
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Trouble(index) => self.befall(index)?,
            Event::Turn(fence) if self.is_driven_by(fence) => self.turn()?,
            Event::Committed(fence) if self.is_driven_by(fence) => self.committed()?,
            Event::Ask(fence, job) if self.is_driven_by(fence) => self.ask(fence, *job)?,
            Event::AttemptEnds(instance, attempt) => self.end_attempt(&instance, &attempt)?,
            Event::Answer(fence, input) if self.is_driven_by(fence) => self.hear(*input),
            Event::Call(fence, exchange) if self.is_driven_by(fence) => self.call(exchange)?,
            Event::Look(fence) if self.is_driven_by(fence) => self.look(),
            Event::Alarm(fence, alarm) if self.is_driven_by(fence) => self.ring(alarm),
            Event::Visit => self.visit()?,
            // It was about a conductor that is gone.
            Event::Turn(_)
            | Event::Committed(_)
            | Event::Ask(..)
            | Event::Answer(..)
            | Event::Call(..)
            | Event::Look(_)
            | Event::Alarm(..) => {}
        }
        Ok(())
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled {
            at,
            order: self.scheduled,
            event,
        }));
    }

    pub(crate) fn after(&mut self, wait: u64, event: Event) {
        self.schedule(self.now + wait, event);
    }

    /// The time, by the clock of the conductor's machine.
    pub(crate) fn time(&self) -> Timestamp {
        Timestamp(self.clock + i64::try_from(self.now).unwrap_or(i64::MAX))
    }

    /// The state of the release, as the journal tells it.
    pub(crate) fn state(&self) -> &State {
        self.rules.state()
    }

    pub(crate) fn status(&self) -> ReleaseStatus {
        self.state().status
    }

    fn is_driven_by(&self, fence: u64) -> bool {
        self.driver
            .as_ref()
            .is_some_and(|driver| driver.fence == fence)
    }

    /// The engine that a conductor finds in the journal.
    fn engine(&self) -> Result<Engine, Violation> {
        Engine::from_records(self.disk.records()).map_err(|misfit| {
            Violation::new(
                "a release can be taken up from its records",
                misfit.to_string(),
            )
        })
    }

    fn begin(&mut self, driver: Driver, first: Input) {
        let fence = driver.fence;
        self.driver = Some(driver);
        self.hear(first);
        self.after(1, Event::Look(fence));
    }

    /// Gives the conductor something to answer in its next turn.
    pub(crate) fn hear(&mut self, input: Input) {
        if let Some(driver) = &mut self.driver {
            driver.waiting.push(input);
            let fence = driver.fence;
            self.after(0, Event::Turn(fence));
        }
    }

    /// The conductor is gone, with everything that was only in its memory.
    pub(crate) fn die(&mut self, why: &str) {
        self.trace.say(self.now, || format!("the conductor {why}"));
        self.driver = None;
    }

    /// A conductor takes the release up.
    fn take_up(&mut self, mode: Mode, first: Input) -> Result<(), Violation> {
        let fence = self.disk.take_over(self.time())?;
        self.rules.whole(self.disk.records())?;
        let engine = self.engine()?;
        self.trace.say(self.now, || {
            format!("a conductor takes the release up: {first:?}")
        });
        self.begin(Driver::new(fence, engine, mode), first);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Violation> {
        let operator = "bob@ops".to_owned();
        self.take_up(Mode::Drives, Input::Resume { operator })
    }

    /// Ends a release that nobody drives: what is in flight is waited for first.
    fn settle(&mut self) -> Result<(), Violation> {
        let mut engine = self.engine()?;
        let (actions, switches) = engine.in_flight();
        let actions: Vec<_> = actions
            .into_iter()
            .map(|action| engine::Action {
                then: None,
                ..action
            })
            .collect();
        let left = actions.len() + switches.len();
        if engine.state().status.is_active() {
            let reason = "the conductor died".to_owned();
            // Only whether it is taken counts here: the conductor gives it to an engine of its own.
            let refused = engine
                .handle(self.time(), Input::Interrupt { reason })
                .err();
            if let Some(refusal) = refused {
                return Err(Violation::new(
                    "a release that nobody drives can be interrupted",
                    refusal.to_string(),
                ));
            }
        }
        let reason = "the conductor died".to_owned();
        let mode = Mode::Settles {
            left,
            has_looked: false,
        };
        self.take_up(mode, Input::Interrupt { reason })?;
        let output = engine::Output {
            actions,
            switches,
            ..engine::Output::default()
        };
        self.start(output, usize::MAX)
    }

    fn befall(&mut self, index: usize) -> Result<(), Violation> {
        let Trouble { what, .. } = self.scenario.troubles[index].clone();
        if !self.used.insert(index) {
            return Ok(());
        }
        let what_it_is = what.clone();
        self.trace
            .say(self.now, || format!("trouble: {what_it_is:?}"));
        match what {
            What::Interrupt => {
                let reason = "interrupted from the terminal".to_owned();
                if self.is_at_work() {
                    self.hear(Input::Interrupt { reason });
                }
            }
            What::HostDown { instance, for_ms } => self.take_down(instance, for_ms),
            What::CutOff { instance, for_ms } => self.cut_off(instance, for_ms),
            What::ClockJump { by_ms } => self.clock += by_ms,
            What::BalancerAway { service, for_ms } => {
                let until = self.now + for_ms;
                if let Some(balancer) = self.balancers.get_mut(&service) {
                    balancer.go_away(until);
                }
            }
            What::Unhealthy { instance, for_ms } => {
                let until = self.now + for_ms;
                self.hosts.make_unwell(&named(&instance.to_string()), until);
            }
            What::SomebodySwitches { service, side } => self.meddle(service, side),
            What::Resume if self.driver.is_none() => self.resume()?,
            What::Stop { .. } if self.driver.is_none() => self.settle()?,
            What::Delete if self.driver.is_none() && !self.status().is_active() => {
                self.is_deleted = self.disk.delete(self.time())?;
            }
            What::Stop { at } => self.order(None, Order::Stop { at }),
            What::Order { to, order } => self.order(to, order),
            // These wait for what they are about, or for somebody to be there.
            What::Crash(_)
            | What::DiskFull
            | What::CutOffIn { .. }
            | What::HookFails { .. }
            | What::AnswerLate { .. }
            | What::AnswerLost { .. }
            | What::AnswerTwice { .. }
            | What::Resume
            | What::Delete => {}
        }
        Ok(())
    }

    /// Whether a conductor drives the release.
    pub(crate) fn is_at_work(&self) -> bool {
        self.driver
            .as_ref()
            .is_some_and(|driver| driver.mode == Mode::Drives)
    }

    /// Gives an order to whoever drives the release, to the deployment of a service where one is named.
    fn order(&mut self, to: Option<usize>, order: Order) {
        let order = match to {
            None => order,
            Some(service) => {
                let mut services = self.scenario.services.iter();
                let Some(position) = services.position(|it| it.number == service) else {
                    return;
                };
                Order::For {
                    deployment: DeploymentId::nth(&release_id(), position + 1),
                    order: Box::new(order),
                }
            }
        };
        self.tell(order);
    }

    fn tell(&mut self, order: Order) {
        if !self.is_at_work() {
            return;
        }
        if let Some(driver) = &mut self.driver {
            driver.orders.push(order);
            let fence = driver.fence;
            self.after(0, Event::Turn(fence));
        }
    }

    fn meddle(&mut self, service: usize, side: usize) {
        let plan = self.state().deployments.iter().find_map(|deployment| {
            let sides = deployment.plan.sides.as_ref()?;
            let own = service_of(&deployment.plan)?;
            (own == service).then(|| sides.clone())
        });
        let name = plan.and_then(|sides| Some(sides.list.get(side)?.name.clone()));
        if let (Some(name), Some(balancer)) = (name, self.balancers.get_mut(&service))
            && balancer.shares != Shares::all_to(name.clone())
        {
            balancer.meddle(name);
        }
    }

    fn take_down(&mut self, place: Place, for_ms: u64) {
        let instance = named(&place.to_string());
        for ended in self.hosts.go_down(&instance, self.now + for_ms) {
            // A part of it may have been done.
            if self.chance.percent("half done", &ended.job.name(), 50) {
                self.take_effect(&ended.job);
            }
            for fence in ended.waiting {
                let job = Box::new(ended.job.clone());
                self.after(1_000, Event::Ask(fence, job));
            }
        }
    }

    fn cut_off(&mut self, place: Place, for_ms: u64) {
        self.hang_up(&named(&place.to_string()), self.now + for_ms);
    }

    /// Nobody reaches the host until then, if not for longer. Whoever waits for something there asks again.
    pub(crate) fn hang_up(&mut self, instance: &InstanceId, until: u64) {
        for (job, waiting) in self.hosts.cut_off(instance, until) {
            for fence in waiting {
                self.after(1_000, Event::Ask(fence, Box::new(job.clone())));
            }
        }
    }

    /// The operator sees to it that the release goes on, whatever troubles befall it.
    fn visit(&mut self) -> Result<(), Violation> {
        self.visits += 1;
        let name = self.visits.to_string();
        // Gates that nobody decides in time pause the release again and again, until somebody stays with it.
        let range = match self.visits > VISITS {
            true => 500..1_000,
            false => 5_000..60_000,
        };
        let wait = self.chance.between("visit", &name, range);
        self.after(wait, Event::Visit);
        if self.driver.is_none() {
            return match self.status().is_terminal() {
                true => Ok(()),
                false => self.resume(),
            };
        }
        let waiting = self.waiting_for_a_person();
        let since_last = waiting.intersection(&self.seen_waiting).next().cloned();
        self.seen_waiting = waiting;
        let Some((id, stage)) = since_last else {
            return Ok(());
        };
        let hold = self.state().find(&id).and_then(|it| it.current_hold());
        let Some(hold) = hold.filter(|hold| hold.stage == stage) else {
            return Ok(());
        };
        let order = match hold.hold {
            Hold::Promotion => Order::Promote,
            _ if self.chance.percent("approve", &name, 80) => Order::Approve {
                gate: None,
                comment: None,
            },
            _ => Order::Reject {
                gate: None,
                comment: Some("no".to_owned()),
            },
        };
        let order = Order::For {
            deployment: id,
            order: Box::new(order),
        };
        self.trace
            .say(self.now, || format!("the operator: {order:?}"));
        self.tell(order);
        Ok(())
    }

    /// The deployments that wait for a person, each with where.
    fn waiting_for_a_person(&self) -> BTreeSet<(DeploymentId, model::Stage)> {
        let deployments = self.state().deployments.iter();
        deployments
            .filter_map(|deployment| {
                let hold = deployment.current_hold()?;
                let plan: &Arc<Deployment> = &deployment.plan;
                let is_asked = match hold.hold {
                    Hold::Promotion => !matches!(
                        plan.strategy,
                        Strategy::Canary {
                            promote: Promote::After(_),
                            ..
                        }
                    ),
                    Hold::Gate { index } => plan
                        .gates
                        .get(index as usize)
                        .is_some_and(|gate| matches!(gate.check, GateCheck::Approval { .. })),
                    Hold::Interval | Hold::Bake | Hold::Health => false,
                };
                is_asked.then(|| (plan.id.clone(), hold.stage))
            })
            .collect()
    }

    /// What a call of a service's balancer is made with.
    pub(crate) fn with_balancer<T>(
        &mut self,
        service: usize,
        call: impl FnOnce(&mut Balancer, &Moment<'_>) -> T,
    ) -> Option<T> {
        let (hosts, now) = (&self.hosts, self.now);
        let is_well = |instance: &InstanceId| hosts.is_well(now, instance);
        let moment = Moment {
            now,
            chance: self.chance,
            is_well: &is_well,
        };
        let balancer = self.balancers.get_mut(&service)?;
        Some(call(balancer, &moment))
    }
}

/// The number of the service that a deployment is of.
pub(crate) fn service_of(plan: &Deployment) -> Option<usize> {
    let number = plan.group.group.as_str().strip_prefix('s')?;
    number.parse().ok()
}

/// Whether an instance of the plan is meant by a trouble.
pub(crate) fn is_at(place: &Place, instance: &InstanceId) -> bool {
    place_of(instance).as_ref() == Some(place)
}

//! A release with its fleet, its balancer, its gates and its clock, one step at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, Input, Output, Refusal, State};
use model::{
    Batching, Deployment, DeploymentId, Direction, Fact, Hold, Instance, Order, Promote, Record,
    ReleaseStatus, Retire, Router, Scope, Shares, SideGroup, SideName, Sides, Strategy, Target,
    Timestamp,
};

use super::{Behaviour, Job, Setting, World, jobs};

pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) journal: Vec<Record>,
    pub(crate) world: World,
    pub(crate) now: Timestamp,
    in_flight: VecDeque<Job>,
}

fn opening(plan: &Deployment) -> Vec<Record> {
    let mut records = super::opening(&Setting::default());
    records[1].fact = Fact::DeploymentOpened(Arc::new(plan.clone()));
    records
}

fn opening_of_plan(services: Vec<Deployment>) -> Vec<Record> {
    let mut records = super::opening(&Setting::default());
    records.truncate(1);
    if let Fact::ReleaseOpened(release) = &mut records[0].fact {
        release.scope = Scope::Plan;
    }
    for (service, seq) in services.into_iter().zip(1..) {
        records.push(Record {
            seq,
            at: Timestamp(0),
            fact: Fact::DeploymentOpened(Arc::new(service)),
        });
    }
    records
}

/// The deployment as the release's `number`th, of the group `shop/NAME`, whose instances are called after it.
pub(crate) fn service(
    name: &str,
    number: usize,
    priority: i64,
    deployment: Deployment,
) -> Deployment {
    let id = DeploymentId::nth(&super::release_id(), number);
    let own = |key: &DeploymentId| {
        if *key == deployment.id {
            id.clone()
        } else {
            key.clone()
        }
    };
    let targets = deployment.targets.iter().zip(1..).map(|(target, number)| {
        Arc::new(Target {
            instance: Instance {
                id: format!("{name}-{number}").parse().unwrap(),
                ..target.instance.clone()
            },
            outgoing: target.outgoing.clone(),
            incoming: own(&target.incoming),
        })
    });
    Deployment {
        priority,
        group: format!("shop/{name}").parse().unwrap(),
        targets: targets.collect(),
        packages: deployment
            .packages
            .iter()
            .map(|(key, package)| (own(key), package.clone()))
            .collect(),
        id: id.clone(),
        ..deployment
    }
}

/// A rolling deployment of so many instances behind a balancer.
pub(crate) fn deployment(instances: usize) -> Deployment {
    super::deployment(&Setting {
        instances,
        with_balancer: true,
        ..Setting::default()
    })
}

fn router() -> Option<Router> {
    Some(Router::Plugin {
        plugin: "haproxy".parse().unwrap(),
        config: "{}".into(),
        timeout: Duration::from_secs(60),
    })
}

fn side(name: &str, instances: Vec<Instance>) -> SideGroup {
    SideGroup {
        name: SideName::parse(name).unwrap(),
        group: format!("{{\"backend\":\"{name}\"}}"),
        instances,
    }
}

/// A blue-green deployment to green, while blue has version 1.0.0 and the traffic.
pub(crate) fn colours(instances: usize) -> Deployment {
    let rolling = deployment(instances);
    let strategy = Strategy::BlueGreen {
        bake: Duration::ZERO,
        retire: Retire::Keep,
    };
    let named = |colour: &str| {
        let targets = rolling.targets.iter().zip(1..);
        targets
            .map(|(target, number)| Instance {
                id: format!("{colour}-{number}").parse().unwrap(),
                ..target.instance.clone()
            })
            .collect::<Vec<_>>()
    };
    let old = DeploymentId::parse("r1-1").unwrap();
    let blue = SideName::parse("blue").unwrap();
    let targets = named("green").into_iter().map(|instance| {
        Arc::new(Target {
            instance,
            outgoing: None,
            incoming: rolling.id.clone(),
        })
    });
    Deployment {
        strategy,
        sequence: engine::sequence(strategy, engine::Traffic::Direct, &Direction::Deploy),
        balancer: None,
        router: router(),
        targets: targets.collect(),
        sides: Some(Sides {
            list: vec![side("blue", named("blue")), side("green", named("green"))],
            from: Some(blue.clone()),
            to: SideName::parse("green").unwrap(),
            shares: Shares::all_to(blue),
            installed: named("blue")
                .into_iter()
                .map(|instance| (instance.id, old.clone()))
                .collect(),
        }),
        ..rolling
    }
}

/// A canary between two groups, of which `current` has the traffic.
pub(crate) fn canary(
    instances: usize,
    first: u32,
    rest: u32,
    traffic: Option<u8>,
    promote: Promote,
) -> Deployment {
    let current = SideName::parse("current").unwrap();
    Deployment {
        strategy: Strategy::Canary { traffic, promote },
        batching: Batching::FirstThenEven { first, rest },
        router: router(),
        sides: Some(Sides {
            list: vec![side("current", vec![]), side("new", vec![])],
            from: Some(current.clone()),
            to: SideName::parse("new").unwrap(),
            shares: Shares::all_to(current),
            installed: BTreeMap::new(),
        }),
        ..deployment(instances)
    }
}

impl Site {
    pub(crate) fn open(plan: Deployment) -> Self {
        Self::begin(opening(&plan))
    }

    /// A release plan of these services.
    pub(crate) fn open_plan(services: Vec<Deployment>) -> Self {
        Self::begin(opening_of_plan(services))
    }

    fn begin(journal: Vec<Record>) -> Self {
        Self {
            engine: Engine::from_records(&journal).unwrap(),
            journal,
            world: World::default(),
            now: Timestamp(0),
            in_flight: VecDeque::new(),
        }
    }

    /// The conductor dies when so many records are durable; another one takes over.
    pub(crate) fn crash(&mut self, records: usize) {
        self.in_flight.clear();
        self.journal.truncate(records);
        self.engine = Engine::from_records(&self.journal).unwrap();
        self.give(Input::Resume {
            operator: "bob".into(),
        });
    }

    pub(crate) fn status(&self) -> ReleaseStatus {
        self.engine.state().status
    }

    pub(crate) fn give(&mut self, input: Input) {
        let output = self.engine.handle(self.now, input).unwrap();
        self.take(output);
    }

    pub(crate) fn order(&mut self, order: Order) -> Result<(), Refusal> {
        let operator = "ann".to_owned();
        let output = self
            .engine
            .handle(self.now, Input::Order { order, operator })?;
        self.take(output);
        Ok(())
    }

    fn take(&mut self, output: Output) {
        let (records, jobs) = jobs(output);
        self.journal.extend(records);
        self.in_flight.extend(jobs);
    }

    /// Goes on until nothing is left to do without a person; answers how many attempts were in flight at most.
    pub(crate) fn run(&mut self, behaviour: Behaviour<'_>) -> usize {
        self.run_until(behaviour, |_| false)
    }

    pub(crate) fn run_until(
        &mut self,
        behaviour: Behaviour<'_>,
        is_enough: impl Fn(&State) -> bool,
    ) -> usize {
        let mut most = 0;
        if self.status() == ReleaseStatus::Running && self.in_flight.is_empty() {
            self.give(Input::Begin);
        }
        while !is_enough(self.engine.state()) {
            most = most.max(self.in_flight.len());
            if !self.step(behaviour) {
                break;
            }
        }
        most
    }

    /// As [`Site::run`], with a person who promotes and approves whatever waits for one.
    pub(crate) fn run_promoting(&mut self, behaviour: Behaviour<'_>) {
        self.run(behaviour);
        while let Some(order) = self.waiting_for_a_person() {
            self.order(order).unwrap();
            self.run(behaviour);
        }
    }

    /// As [`Site::run_promoting`], until there are so many records.
    pub(crate) fn run_to_record(&mut self, behaviour: Behaviour<'_>, records: usize) {
        self.give(Input::Begin);
        while self.journal.len() < records {
            if !self.step(behaviour) {
                let Some(order) = self.waiting_for_a_person() else {
                    return;
                };
                self.order(order).unwrap();
            }
        }
    }

    fn waiting_for_a_person(&self) -> Option<Order> {
        if self.status() != ReleaseStatus::Running {
            return None;
        }
        let mut deployments = self.engine.state().deployments.iter();
        deployments.find_map(|deployment| {
            let order = match deployment.current_hold()?.hold {
                Hold::Promotion => Order::Promote,
                Hold::Gate { .. } => Order::Approve {
                    gate: None,
                    comment: None,
                },
                Hold::Interval | Hold::Bake | Hold::Health => return None,
            };
            Some(Order::For {
                deployment: deployment.plan.id.clone(),
                order: Box::new(order),
            })
        })
    }

    /// Carries out what was authorised first, or lets the time pass to when something is due.
    fn step(&mut self, behaviour: Behaviour<'_>) -> bool {
        if let Some(job) = self.in_flight.pop_front() {
            self.now = Timestamp(self.now.0 + 1);
            let input = self.world.carry_out(&job, behaviour);
            self.give(input);
            return true;
        }
        let Some(due) = self.engine.next_wake() else {
            return false;
        };
        assert!(
            due > self.now || self.now == Timestamp(0),
            "time has to pass"
        );
        let before = (self.journal.len(), self.now);
        self.now = due.max(self.now);
        self.give(Input::Tick);
        assert_ne!(
            before,
            (self.journal.len(), self.now),
            "a tick leads to something"
        );
        true
    }
}

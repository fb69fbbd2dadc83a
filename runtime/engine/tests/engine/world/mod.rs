//! A simulated fleet for the engine: it carries out actions at once, deduplicates attempts as the agent does, and
//! keeps what happened.

pub(crate) mod site;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::{Action, Engine, HoldAction, Input, Output, SwitchAction, Traffic};
use model::{
    Amount, AppSpec, AttemptId, Balancer, Batching, Cause, Decision, Deployment, DeploymentId,
    Digest, Direction, Ending, Fact, GroupRef, Host, Instance, LifecycleEvent, OnFailure, Package,
    Record, Release, ReleaseId, Retire, Revision, Router, Run, Scope, Script, StopFailures,
    Strategy, Target, Timestamp, Verdict, Version,
};

pub(crate) struct Setting {
    pub(crate) instances: usize,
    pub(crate) concurrency: Amount,
    pub(crate) failure_threshold: Amount,
    pub(crate) on_failure: OnFailure,
    pub(crate) with_balancer: bool,
    pub(crate) is_blue_green: bool,
    pub(crate) stop_failures: StopFailures,
    pub(crate) first: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            instances: 3,
            concurrency: Amount::Count(1),
            failure_threshold: Amount::Count(1),
            on_failure: OnFailure::Stop,
            with_balancer: false,
            is_blue_green: false,
            stop_failures: StopFailures::Fail,
            first: false,
        }
    }
}

pub(crate) fn release_id() -> ReleaseId {
    ReleaseId::parse("r2").unwrap()
}

fn package(deployment: &DeploymentId, version: &str) -> Arc<Package> {
    let script = Script {
        run: Run::Location("hook.sh".into()),
        timeout: Duration::from_secs(9),
        runas: None,
    };
    let hooks = LifecycleEvent::ALL
        .into_iter()
        .filter(|e| e.takes_hooks())
        .map(|e| (e, vec![script.clone()]))
        .collect();
    Arc::new(Package {
        deployment: deployment.clone(),
        revision: Revision {
            version: Version::parse(version).unwrap(),
            source: format!("file:///packages/{version}"),
            digest: Digest::parse(&format!("sha256:{:064}", 1)).unwrap(),
        },
        appspec: AppSpec {
            hooks,
            ..AppSpec::default()
        },
    })
}

pub(crate) fn deployment(setting: &Setting) -> Deployment {
    let (old, new) = (
        DeploymentId::parse("r1-1").unwrap(),
        DeploymentId::nth(&release_id(), 1),
    );
    let balancer = setting.with_balancer.then(|| Balancer::Plugin {
        plugin: model::PluginName::parse("haproxy").unwrap(),
        config: "{}".into(),
        timeout: Duration::from_secs(60),
    });
    let router = setting.is_blue_green.then(|| Router::Command {
        command: "traffic".into(),
        timeout: Duration::from_secs(60),
    });
    let strategy = if setting.is_blue_green {
        Strategy::BlueGreen {
            bake: Duration::ZERO,
            retire: Retire::Keep,
        }
    } else {
        Strategy::Rolling
    };
    let traffic = if setting.with_balancer {
        Traffic::Balanced
    } else {
        Traffic::Direct
    };
    let targets = (1..=setting.instances).map(|number| {
        Arc::new(Target {
            instance: Instance {
                id: format!("web-{number}").parse().unwrap(),
                host: Host::Local,
                rootdir: format!("/srv/web-{number}"),
                address: None,
                provider_id: None,
                labels: vec![],
                env: BTreeMap::new(),
            },
            outgoing: (!setting.first).then(|| old.clone()),
            incoming: new.clone(),
        })
    });
    Deployment {
        id: new.clone(),
        group: GroupRef {
            application: "shop".parse().unwrap(),
            group: "web".parse().unwrap(),
        },
        service_id: None,
        kind: "DEPLOY".into(),
        priority: 0,
        direction: Direction::Deploy,
        revision: package(&new, "2.0.0").revision.clone(),
        strategy,
        batching: Batching::Window(setting.concurrency),
        wait_between: Duration::ZERO,
        failure_threshold: setting.failure_threshold,
        batch_failure_threshold: None,
        minimum_healthy: None,
        gates: vec![],
        on_failure: setting.on_failure,
        stop_failures: setting.stop_failures,
        sequence: engine::sequence(strategy, traffic, &Direction::Deploy),
        calls: None,
        balancer,
        router,
        sides: None,
        down: BTreeMap::new(),
        packages: [
            (old.clone(), package(&old, "1.0.0")),
            (new.clone(), package(&new, "2.0.0")),
        ]
        .into(),
        targets: targets.collect(),
        excluded: Vec::new(),
        plugins: BTreeMap::new(),
        keep_revisions: 5,
    }
}

pub(crate) fn opening(setting: &Setting) -> Vec<Record> {
    let release = Release {
        id: release_id(),
        comment: String::new(),
        operator: "ann@ops".into(),
        scope: Scope::Service,
    };
    let facts = [
        Fact::ReleaseOpened(release),
        Fact::DeploymentOpened(Arc::new(deployment(setting))),
    ];
    facts
        .into_iter()
        .zip(0..)
        .map(|(fact, seq)| Record {
            seq,
            at: Timestamp(0),
            fact,
        })
        .collect()
}

/// What the fleet does with an attempt.
pub(crate) type Behaviour<'a> = &'a dyn Fn(&Action) -> Ending;

pub(crate) fn succeed(_: &Action) -> Ending {
    Ending::Succeeded {
        exit_code: Some(0),
        log: None,
        note: None,
    }
}

pub(crate) fn fail(reason: &str) -> Ending {
    Ending::Failed {
        cause: Cause::ScriptFailed,
        reason: reason.into(),
        script: None,
        exit_code: Some(1),
        log: None,
    }
}

/// The instances, which outlive any conductor.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) outcomes: BTreeMap<AttemptId, Ending>,
    /// `INSTANCE EVENT VERSION` of everything that really ran, in order.
    pub(crate) trace: Vec<String>,
    /// Whether hooks that were authorised with a step follow it by themselves.
    pub(crate) goes_on: bool,
    /// What becomes of the attempts to switch the traffic; those beyond them succeed.
    pub(crate) switch_endings: VecDeque<Ending>,
    /// The instances of each side at each switch, in order.
    pub(crate) members: Vec<BTreeMap<String, Vec<String>>>,
    /// `GATE after DONE of ALL` of everything that was evaluated, in order.
    pub(crate) gates: Vec<String>,
    /// What becomes of gates; those beyond them pass.
    pub(crate) decisions: VecDeque<Decision>,
}

/// Something that the engine wants done.
pub(crate) enum Job {
    Step(Action),
    Switch(SwitchAction),
    Gate(HoldAction),
}

pub(crate) fn jobs(output: Output) -> (Vec<Record>, Vec<Job>) {
    let steps = output.actions.into_iter().map(Job::Step);
    let switches = output.switches.into_iter().map(Job::Switch);
    let gates = output.holds.into_iter().map(Job::Gate);
    (output.records, steps.chain(switches).chain(gates).collect())
}

impl World {
    /// Carries a job out, or answers again what it came to.
    pub(crate) fn carry_out(&mut self, job: &Job, behaviour: Behaviour<'_>) -> Input {
        match job {
            Job::Step(action) => ended(action, self.perform(action, behaviour)),
            Job::Switch(switch) => Input::SwitchEnded {
                deployment: switch.deployment.id.clone(),
                attempt: switch.attempt,
                ending: self.switch(switch),
            },
            Job::Gate(hold) => Input::HoldEnded {
                deployment: hold.deployment.id.clone(),
                stage: hold.stage,
                decision: self.evaluate(hold),
            },
        }
    }

    fn evaluate(&mut self, hold: &HoldAction) -> Decision {
        let (done, of) = hold.batches;
        self.gates
            .push(format!("{} after {done} of {of}", hold.gate.name));
        self.decisions.pop_front().unwrap_or(Decision {
            verdict: Verdict::Passed,
            by: None,
            reason: None,
            evidence: vec![],
        })
    }

    fn switch(&mut self, switch: &SwitchAction) -> Ending {
        let attempt = AttemptId::of_switch(&switch.deployment.id, switch.attempt);
        if let Some(outcome) = self.outcomes.get(&attempt) {
            return outcome.clone();
        }
        let to = if switch.to.is_empty() {
            switch.deployment.revision.version.to_string()
        } else {
            switch.to.to_string()
        };
        self.trace.push(format!("SwitchTraffic {to}"));
        let names = |ids: &Vec<model::InstanceId>| ids.iter().map(ToString::to_string).collect();
        let members = switch.members.iter();
        self.members.push(
            members
                .map(|(side, ids)| (side.to_string(), names(ids)))
                .collect(),
        );
        let outcome = self
            .switch_endings
            .pop_front()
            .unwrap_or(Ending::Succeeded {
                exit_code: Some(0),
                log: None,
                note: None,
            });
        self.outcomes.insert(attempt, outcome.clone());
        outcome
    }

    pub(crate) fn perform(&mut self, action: &Action, behaviour: Behaviour<'_>) -> Ending {
        let instance = &action.target.instance.id;
        let attempt = AttemptId::of(
            &action.deployment.id,
            instance,
            action.event,
            action.attempt,
        );
        if let Some(outcome) = self.outcomes.get(&attempt) {
            return outcome.clone();
        }
        let version = match &action.work {
            engine::Work::Download(p)
            | engine::Work::Hook(p)
            | engine::Work::Install(p)
            | engine::Work::Call(p) => p.revision.version.to_string(),
            engine::Work::Block | engine::Work::Allow => "-".into(),
        };
        self.trace
            .push(format!("{instance} {} {version}", action.event));
        let outcome = behaviour(action);
        self.outcomes.insert(attempt, outcome.clone());
        let follower = action.follower().filter(|_| self.goes_on);
        if let (Ending::Succeeded { .. }, Some(follower)) = (&outcome, follower) {
            self.perform(&follower, behaviour);
        }
        outcome
    }
}

pub(crate) fn ended(action: &Action, ending: Ending) -> Input {
    Input::StepEnded {
        deployment: action.deployment.id.clone(),
        instance: action.target.instance.id.clone(),
        event: action.event,
        attempt: action.attempt,
        ending,
    }
}

/// Runs a release until nothing is left to do; the largest number of attempts in flight comes back with it.
pub(crate) fn drive(
    engine: &mut Engine,
    journal: &mut Vec<Record>,
    world: &mut World,
    first: Input,
    behaviour: Behaviour<'_>,
) -> usize {
    let mut inputs = VecDeque::from([first]);
    let mut in_flight = VecDeque::new();
    let mut most = 0;
    let mut now = 1;
    loop {
        while let Some(input) = inputs.pop_front() {
            let (records, jobs) = jobs(engine.handle(Timestamp(now), input).unwrap());
            now += 1;
            journal.extend(records);
            in_flight.extend(jobs);
            most = most.max(in_flight.len());
        }
        let Some(job) = in_flight.pop_front() else {
            return most;
        };
        inputs.push_back(world.carry_out(&job, behaviour));
    }
}

/// Opens a release and runs it to its end.
pub(crate) fn run(
    setting: &Setting,
    behaviour: Behaviour<'_>,
) -> (Engine, Vec<Record>, World, usize) {
    let mut journal = opening(setting);
    let mut engine = Engine::from_records(&journal).unwrap();
    let mut world = World::default();
    let most = drive(
        &mut engine,
        &mut journal,
        &mut world,
        Input::Begin,
        behaviour,
    );
    (engine, journal, world, most)
}

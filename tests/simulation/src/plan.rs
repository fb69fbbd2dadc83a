//! The plan of a scenario as the engine takes it: one deployment a service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::Traffic;
use model::{
    Amount, AppSpec, Balancer, Batching, Calls, Deployment, DeploymentId, Digest, Direction, Fact,
    Gate, GateCheck, GroupRef, Host, Instance, InstanceId, Package, Record, Release, ReleaseId,
    Revision, Router, Run, Scope, Script, Shares, SideGroup, SideName, Sides, Target, Timestamp,
    Version,
};

use crate::scenario::{Check, Layout, Past, Place, Scenario, Service, TrafficMeans, Work};

/// The longest wait for a balancer or a router.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Takes a text that the simulation made itself.
pub(crate) fn named<T>(text: &str) -> T
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .unwrap_or_else(|error| panic!("the simulation made a wrong name: {error}"))
}

/// The release that is simulated.
pub(crate) fn release_id() -> ReleaseId {
    named("r2")
}

/// The release that brought what is installed when it begins.
pub(crate) fn earlier_release_id() -> ReleaseId {
    named("r1")
}

pub(crate) fn group_of(service: &Service) -> GroupRef {
    named(&format!("shop/s{}", service.number))
}

/// The place that an instance of the plan stands for. Those of the side that a colour relieves count from 101.
pub(crate) fn place_of(instance: &InstanceId) -> Option<Place> {
    let (service, own) = instance.as_str().strip_prefix('s')?.split_once("-i")?;
    Some(Place {
        service: service.parse().ok()?,
        instance: own.parse().ok()?,
    })
}

/// The deployments of the plan, in the order of the scenario.
pub(crate) fn deployments(scenario: &Scenario) -> Vec<Deployment> {
    let services = scenario.services.iter().zip(1..);
    services
        .map(|(service, position)| deployment(service, DeploymentId::nth(&release_id(), position)))
        .collect()
}

/// The records that open the release.
pub(crate) fn opening(scope: Scope, plan: &[Deployment]) -> Vec<Record> {
    let release = Release {
        id: release_id(),
        comment: String::new(),
        operator: "ann@ops".to_owned(),
        scope,
    };
    let opened = plan
        .iter()
        .map(|deployment| Fact::DeploymentOpened(Arc::new(deployment.clone())));
    numbered([Fact::ReleaseOpened(release)].into_iter().chain(opened))
}

/// Facts as the first records of a release, at the time 0.
pub(crate) fn numbered(facts: impl Iterator<Item = Fact>) -> Vec<Record> {
    let record = |(fact, seq)| Record {
        seq,
        at: Timestamp(0),
        fact,
    };
    facts.zip(0..).map(record).collect()
}

/// The deployment of the earlier release that brought what a service has installed.
pub(crate) fn earlier(service: &Service) -> Deployment {
    let id = earlier_id(service);
    let plan = deployment(service, DeploymentId::nth(&release_id(), service.number));
    let is_on_the_other_side = service.layout == Layout::Colours && plan.sides.is_some();
    let installed = instances(service, if is_on_the_other_side { 100 } else { 0 });
    let targets = installed.into_iter().map(|instance| {
        Arc::new(Target {
            instance,
            outgoing: None,
            incoming: id.clone(),
        })
    });
    Deployment {
        direction: Direction::Deploy,
        revision: package(&id, service, "1.0.0").revision.clone(),
        targets: targets.collect(),
        sides: None,
        calls: None,
        id,
        ..plan
    }
}

fn earlier_id(service: &Service) -> DeploymentId {
    DeploymentId::nth(&earlier_release_id(), service.number)
}

fn instances(service: &Service, from: usize) -> Vec<Instance> {
    let of = |number: &usize| {
        let place = Place {
            service: service.number,
            instance: from + number,
        };
        Instance {
            id: named(&place.to_string()),
            host: Host::Local,
            rootdir: format!("/srv/{place}"),
            address: Some(format!("127.0.0.1:{}", 8000 + from + number)),
            provider_id: None,
            labels: Vec::new(),
            env: BTreeMap::new(),
        }
    };
    service.instances.iter().map(of).collect()
}

fn package(id: &DeploymentId, service: &Service, version: &str) -> Arc<Package> {
    let script = Script {
        run: Run::Location("hook.sh".to_owned()),
        timeout: Duration::from_secs(9),
        runas: None,
    };
    let hooks = service
        .hooks
        .iter()
        .map(|event| (*event, vec![script.clone()]));
    let digest = format!("sha256:{:064}", service.number);
    Arc::new(Package {
        deployment: id.clone(),
        revision: Revision {
            version: Version::parse(version).unwrap_or_else(|error| panic!("{error}")),
            source: format!("file:///packages/{version}"),
            digest: Digest::parse(&digest).unwrap_or_else(|error| panic!("{error}")),
        },
        appspec: AppSpec {
            hooks: hooks.collect(),
            ..AppSpec::default()
        },
    })
}

fn deployment(service: &Service, id: DeploymentId) -> Deployment {
    let old = earlier_id(service);
    let sides = sides(service, &old);
    // The idle colour has nothing installed yet; everything else has the version before, where there is one.
    let is_idle = service.layout == Layout::Colours && sides.is_some();
    let has_past = service.past == Past::OneVersion && !is_idle;
    let targets: Vec<_> = instances(service, 0)
        .into_iter()
        .map(|instance| {
            Arc::new(Target {
                instance,
                outgoing: has_past.then(|| old.clone()),
                incoming: match service.work {
                    Work::Deploy => id.clone(),
                    Work::Restart => old.clone(),
                },
            })
        })
        .collect();
    let is_balanced = !matches!(service.layout, Layout::Direct | Layout::Colours);
    let traffic = if is_balanced {
        Traffic::Balanced
    } else {
        Traffic::Direct
    };
    let (kind, direction) = match service.work {
        Work::Deploy => ("HTTP_UPLOAD_DEPLOY", Direction::Deploy),
        Work::Restart => ("RESTART", Direction::Operate),
    };
    let has_router = !matches!(service.layout, Layout::Direct | Layout::Balanced);
    let incoming = match service.work {
        Work::Deploy => package(&id, service, "2.0.0"),
        Work::Restart => package(&old, service, "1.0.0"),
    };
    let packages = [
        (old.clone(), package(&old, service, "1.0.0")),
        (incoming.deployment.clone(), incoming.clone()),
    ];
    Deployment {
        group: group_of(service),
        service_id: Some(service.number as u64),
        kind: kind.to_owned(),
        priority: service.priority,
        sequence: engine::sequence(service.strategy, traffic, &direction),
        calls: calls(service),
        direction,
        revision: incoming.revision.clone(),
        strategy: service.strategy,
        batching: batching(service),
        wait_between: service.wait_between,
        failure_threshold: service.failure_threshold,
        batch_failure_threshold: service.batch_failure_threshold,
        minimum_healthy: minimum_healthy(service),
        gates: gates(service),
        on_failure: service.on_failure,
        stop_failures: service.stop_failures,
        balancer: is_balanced.then(|| balancer(service.traffic)),
        router: has_router.then(|| router(service.traffic)),
        sides,
        down: BTreeMap::new(),
        packages: packages.into(),
        targets,
        excluded: Vec::new(),
        plugins: BTreeMap::new(),
        keep_revisions: 5,
        id,
    }
}

/// The events at which the plugin of the service's kind is called.
fn calls(service: &Service) -> Option<Calls> {
    let timeout = Duration::from_secs(30);
    let events = service.calls.iter().map(|event| (*event, timeout));
    (!service.calls.is_empty()).then(|| Calls {
        plugin: named("kind"),
        config: "{}".to_owned(),
        item: "{}".to_owned(),
        events: events.collect(),
    })
}

/// Batches that a file could ask for: none of a canary's is empty.
fn batching(service: &Service) -> Batching {
    let total = u32::try_from(service.instances.len()).unwrap_or(u32::MAX);
    match &service.batching {
        Batching::FirstThenEven { first, rest } => {
            let first = (*first).min(total.saturating_sub(1));
            Batching::FirstThenEven {
                first,
                rest: (*rest).min(total - first),
            }
        }
        other => other.clone(),
    }
}

/// What a file could ask for: one under which no instance could start is refused.
fn minimum_healthy(service: &Service) -> Option<Amount> {
    let total = service.instances.len();
    service
        .minimum_healthy
        .filter(|minimum| minimum.of(total) < total)
}

fn gates(service: &Service) -> Vec<Gate> {
    let gate = |(gate, number): (&crate::scenario::PlannedGate, usize)| Gate {
        name: format!("g{number}"),
        after: gate.after,
        check: match gate.check {
            Check::Approval => GateCheck::Approval {
                ask: "go on?".to_owned(),
            },
            Check::Evaluated(_) => GateCheck::Command {
                command: "check".to_owned(),
            },
        },
        timeout: gate.timeout,
        interval: Duration::from_secs(5),
        on_fail: gate.on_fail,
        on_inconclusive: gate.on_inconclusive,
    };
    service.gates.iter().zip(0..).map(gate).collect()
}

fn balancer(means: TrafficMeans) -> Balancer {
    match means {
        TrafficMeans::Plugin => Balancer::Plugin {
            plugin: named("haproxy"),
            config: "{}".to_owned(),
            timeout: TIMEOUT,
        },
        TrafficMeans::Command => Balancer::Command {
            command: "balance".to_owned(),
            timeout: TIMEOUT,
        },
    }
}

fn router(means: TrafficMeans) -> Router {
    match means {
        TrafficMeans::Plugin => Router::Plugin {
            plugin: named("haproxy"),
            config: "{}".to_owned(),
            timeout: TIMEOUT,
        },
        TrafficMeans::Command => Router::Command {
            command: "traffic".to_owned(),
            timeout: TIMEOUT,
        },
    }
}

fn sides(service: &Service, old: &DeploymentId) -> Option<Sides> {
    let side = |name: &str, group: String, instances: Vec<Instance>| SideGroup {
        name: SideName::parse(name).unwrap_or_else(|error| panic!("{error}")),
        group,
        instances,
    };
    let own = |name: &str| format!("{{\"backend\":\"{name}\"}}");
    let list = match service.layout {
        Layout::Direct | Layout::Balanced => return None,
        // A command moves the traffic from it knows what to it knows what.
        _ if service.traffic == TrafficMeans::Command => return None,
        Layout::Colours => {
            let mut colours = vec![
                side("blue", own("blue"), instances(service, 100)),
                side("green", own("green"), instances(service, 0)),
            ];
            if service.past == Past::Nothing {
                colours.reverse();
            }
            colours
        }
        Layout::TwoGroups => vec![
            side("current", own("current"), Vec::new()),
            side("new", own("new"), Vec::new()),
        ],
        Layout::Weights => vec![
            side("current", "{}".to_owned(), Vec::new()),
            side("new", "{}".to_owned(), Vec::new()),
        ],
    };
    let has_past = service.past == Past::OneVersion;
    let name = |position: usize| list[position].name.clone();
    // Where no side is live, a deployment goes to the first.
    let (from, to) = if has_past {
        (Some(name(0)), name(1))
    } else {
        (None, name(0))
    };
    let shares = from.clone().map(Shares::all_to).unwrap_or_default();
    let installed = list[0].instances.iter().filter(|_| has_past);
    Some(Sides {
        from,
        to,
        shares,
        installed: installed
            .map(|instance| (instance.id.clone(), old.clone()))
            .collect(),
        list,
    })
}

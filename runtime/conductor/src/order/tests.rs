//! Orders to a release whose instances do at once whatever they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::State;
use fleet::{BoxFuture, Command, Fleet, LogSink, Unreachable};
use journal::{Journal, OrderOutcome};
use model::{
    Amount, AppSpec, Batching, Capacity, Deployment, DeploymentId, Digest, Direction, Ending, Fact,
    GroupRef, Hold, Host, Instance, InstanceId, LifecycleEvent, OnFailure, Order, Package, Promote,
    Record, Release, ReleaseId, ReleaseStatus, Revision, Scope, StopFailures, Strategy, Target,
    Version,
};
use spec::Position;
use spec::workspace::{JournalLocation, Packages, Workspace};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::drive::{DriveError, now};
use crate::{Conductor, Options, OrderError, PlanError, Planned, Plugins, Running, Silent};

/// The longest that a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(30);

/// Succeeds with everything.
struct Willing;

impl Fleet for Willing {
    fn run(&self, _: &Host, _: Command, _: Arc<dyn LogSink>) -> BoxFuture<'static, Ending> {
        Box::pin(async {
            Ending::Succeeded {
                exit_code: Some(0),
                log: None,
                note: None,
            }
        })
    }

    fn cached(
        &self,
        _: &Host,
        _: String,
        caches: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<String>, Unreachable>> {
        Box::pin(async { Ok(caches) })
    }
}

/// A journal with one group of three instances.
struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A conductor of its own on the same journal, as another process has it.
    fn conductor(&self, operator: &str) -> Conductor {
        let state = self.folder.path().to_owned();
        let workspace = Workspace {
            journal: JournalLocation::default(),
            journal_at: Position::START,
            packages: Packages::default(),
            plugins: Vec::new(),
            groups: Vec::new(),
        };
        let host = plugin_host::Host::new(plugin_host::HostOptions::new(state.join("compiled")));
        Conductor::new(Options {
            journal: Journal::open(&state.join("journal.db")).unwrap(),
            fleet: Arc::new(Willing),
            plugins: Plugins::new(host.unwrap(), &workspace, state.clone()),
            workspace,
            state,
            operator: operator.to_owned(),
        })
    }

    /// A canary that has not begun, of 1.1.0 over 1.0.0.
    async fn canary(&self, conductor: &Conductor, promote: Promote) -> Running {
        let first = self.open(conductor, "r1", "1.0.0", Strategy::Rolling, None);
        let state = drive(first).await.unwrap().unwrap();
        assert_eq!(state.status, ReleaseStatus::Succeeded);
        let strategy = Strategy::Canary {
            traffic: None,
            promote,
        };
        self.open(conductor, "r2", "1.1.0", strategy, Some("r1-1"))
    }

    fn open(
        &self,
        conductor: &Conductor,
        release: &str,
        version: &str,
        strategy: Strategy,
        outgoing: Option<&str>,
    ) -> Running {
        let release = ReleaseId::parse(release).unwrap();
        let id = DeploymentId::nth(&release, 1);
        let incoming = package(&id, version);
        let outgoing = outgoing.map(|id| DeploymentId::parse(id).unwrap());
        let mut packages = BTreeMap::from([(id.clone(), incoming.clone())]);
        packages.extend(
            outgoing
                .clone()
                .map(|id| (id.clone(), package(&id, "1.0.0"))),
        );
        let target = |number: u32| {
            Arc::new(Target {
                instance: Instance {
                    id: InstanceId::parse(format!("web-{number}")).unwrap(),
                    host: Host::Local,
                    rootdir: "/nowhere".to_owned(),
                    address: None,
                    provider_id: None,
                    labels: Vec::new(),
                    env: BTreeMap::new(),
                },
                outgoing: outgoing.clone(),
                incoming: id.clone(),
            })
        };
        let deployment = Deployment {
            id: id.clone(),
            group: group(),
            service_id: None,
            kind: "DEPLOY".to_owned(),
            priority: 0,
            direction: Direction::Deploy,
            revision: incoming.revision.clone(),
            strategy,
            batching: Batching::FirstThenEven { first: 1, rest: 1 },
            wait_between: Duration::ZERO,
            failure_threshold: Amount::Count(1),
            batch_failure_threshold: None,
            minimum_healthy: None,
            gates: Vec::new(),
            on_failure: OnFailure::Stop,
            stop_failures: StopFailures::Fail,
            balancer: None,
            router: None,
            sides: None,
            down: BTreeMap::new(),
            sequence: vec![LifecycleEvent::Install],
            calls: None,
            packages,
            targets: (1..=3).map(target).collect(),
            plugins: BTreeMap::new(),
            excluded: Vec::new(),
            keep_revisions: 5,
        };
        let planned = Planned {
            release: Release {
                id: release,
                comment: String::new(),
                operator: conductor.operator.clone(),
                scope: Scope::Service,
            },
            deployment,
            warnings: Vec::new(),
        };
        conductor.open(planned).unwrap()
    }
}

fn group() -> GroupRef {
    "shop/web".parse().unwrap()
}

fn package(id: &DeploymentId, version: &str) -> Arc<Package> {
    Arc::new(Package {
        deployment: id.clone(),
        revision: Revision {
            version: Version::parse(version).unwrap(),
            source: format!("file:///packages/{version}"),
            digest: Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap(),
        },
        appspec: AppSpec::default(),
    })
}

fn canary_id() -> ReleaseId {
    ReleaseId::parse("r2").unwrap()
}

fn drive(running: Running) -> JoinHandle<Result<State, DriveError>> {
    let (_, commands) = mpsc::channel(1);
    tokio::spawn(running.drive(Arc::new(Silent), commands))
}

fn state(conductor: &Conductor) -> State {
    State::fold(&conductor.journal.records(&canary_id(), 0).unwrap()).unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn waits_for_promotion(conductor: &Conductor) {
    until("the canary waits for its promotion", || {
        let state = state(conductor);
        let hold = state.deployments[0]
            .current_hold()
            .map(|hold| hold.hold.clone());
        hold == Some(Hold::Promotion)
    })
    .await;
}

#[tokio::test]
async fn a_canary_waits_until_another_process_promotes_it() {
    let shop = Shop::new();
    let (here, elsewhere) = (shop.conductor("ada@build"), shop.conductor("eve@desk"));
    let driving = drive(shop.canary(&here, Promote::Manual).await);
    waits_for_promotion(&elsewhere).await;

    elsewhere
        .order(&canary_id(), &Order::Promote)
        .await
        .unwrap();

    let ended = driving.await.unwrap().unwrap();
    assert_eq!(ended.status, ReleaseStatus::Succeeded);
    let expected = Fact::Ordered {
        order: Order::Promote,
        operator: "eve@desk".to_owned(),
    };
    let records = here.journal.records(&canary_id(), 0).unwrap();
    let ordered = records.iter().filter(|record| record.fact == expected);
    assert_eq!(ordered.count(), 1);
}

#[tokio::test]
async fn a_release_that_only_waits_keeps_its_lease() {
    let shop = Shop::new();
    let elsewhere = shop.conductor("eve@desk");
    let here = Conductor {
        heartbeat: Duration::from_millis(3),
        ..shop.conductor("ada@build")
    };
    let driving = drive(shop.canary(&here, Promote::Manual).await);
    waits_for_promotion(&elsewhere).await;
    let records = state(&elsewhere).next_seq;
    let renewed_at = || {
        let holder = elsewhere.journal.holder(&group()).unwrap();
        holder.unwrap().renewed_at()
    };

    for _ in 0..3 {
        let known = renewed_at();
        until("it is renewed", || renewed_at() > known).await;
    }

    assert_eq!(state(&elsewhere).next_seq, records);
    elsewhere
        .order(&canary_id(), &Order::Promote)
        .await
        .unwrap();
    driving.await.unwrap().unwrap();
}

/// Its hooks may be running for hours, and nothing that it writes would tell it.
#[tokio::test]
async fn a_conductor_that_only_waits_learns_that_it_was_succeeded() {
    let shop = Shop::new();
    let elsewhere = shop.conductor("eve@desk");
    let here = Conductor {
        heartbeat: Duration::from_millis(3),
        ..shop.conductor("ada@build")
    };
    let driving = drive(shop.canary(&here, Promote::Manual).await);
    waits_for_promotion(&elsewhere).await;
    let owner = journal::Owner::current().unwrap();
    let late = model::Timestamp(now().0 + 1_000_000);

    elsewhere
        .journal
        .take_over(&canary_id(), &owner, late)
        .unwrap();

    let ended = driving.await.unwrap();
    assert!(
        matches!(
            ended,
            Err(DriveError::Journal(journal::Error::Fenced { .. }))
        ),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_promotion_comes_by_itself_when_its_time_has_come() {
    let shop = Shop::new();
    let here = shop.conductor("ada@build");
    let after = Promote::After(Duration::from_millis(50));

    let ended = drive(shop.canary(&here, after).await)
        .await
        .unwrap()
        .unwrap();

    assert_eq!(ended.status, ReleaseStatus::Succeeded);
    let hold = &ended.deployments[0].holds[0];
    let closed = hold.closed.as_ref().map(|(at, _)| *at);
    assert!(closed >= hold.until, "{hold:?}");
}

#[tokio::test]
async fn an_order_that_does_not_fit_is_refused_and_the_release_goes_on() {
    let shop = Shop::new();
    let (here, elsewhere) = (shop.conductor("ada@build"), shop.conductor("eve@desk"));
    let driving = drive(shop.canary(&here, Promote::Manual).await);
    waits_for_promotion(&elsewhere).await;

    let approval = Order::Approve {
        gate: None,
        comment: None,
    };
    let refused = elsewhere.order(&canary_id(), &approval).await;

    let Err(error @ OrderError::Refused { .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        error.to_string(),
        "release r2: cannot approve: no gate is open; it waits for its promotion"
    );
    elsewhere
        .order(&canary_id(), &Order::Promote)
        .await
        .unwrap();
    assert_eq!(
        driving.await.unwrap().unwrap().status,
        ReleaseStatus::Succeeded
    );
}

#[tokio::test]
async fn of_promotions_at_the_same_moment_one_is_taken() {
    let shop = Shop::new();
    let here = shop.conductor("ada@build");
    let driving = drive(shop.canary(&here, Promote::Manual).await);
    waits_for_promotion(&here).await;

    let orders: Vec<_> = (0..6)
        .map(|_| {
            let conductor = shop.conductor("eve@desk");
            tokio::spawn(async move { conductor.order(&canary_id(), &Order::Promote).await })
        })
        .collect();
    let mut taken = 0;
    for order in orders {
        match order.await.unwrap() {
            Ok(()) => taken += 1,
            Err(OrderError::Refused { .. } | OrderError::Ended { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    assert_eq!(taken, 1);
    assert_eq!(
        driving.await.unwrap().unwrap().status,
        ReleaseStatus::Succeeded
    );
}

#[tokio::test]
async fn a_canary_is_taken_back_by_the_release_that_it_belongs_to() {
    let shop = Shop::new();
    let (here, elsewhere) = (shop.conductor("ada@build"), shop.conductor("eve@desk"));
    let driving = drive(shop.canary(&here, Promote::Manual).await);
    waits_for_promotion(&elsewhere).await;

    let reason = Some("too slow".to_owned());
    let order = Order::Rollback { reason };
    elsewhere.order(&canary_id(), &order).await.unwrap();

    let ended = driving.await.unwrap().unwrap();
    assert_eq!(ended.status, ReleaseStatus::Failed);
    let [canary, rollback] = ended.deployments.as_slice() else {
        panic!("{:?}", ended.deployments.len())
    };
    assert_eq!(
        canary.reason.as_deref(),
        Some("taken back by eve@desk: too slow")
    );
    assert_eq!(rollback.status, ReleaseStatus::Succeeded);
    assert_eq!(rollback.plan.targets.len(), 1);
}

#[tokio::test]
async fn a_paused_release_is_taken_up_with_an_order() {
    let shop = Shop::new();
    let (here, elsewhere) = (shop.conductor("ada@build"), shop.conductor("eve@desk"));
    let driving = drive(shop.canary(&here, Promote::Manual).await);
    waits_for_promotion(&elsewhere).await;
    elsewhere
        .order(&canary_id(), &Order::Pause { at: None })
        .await
        .unwrap();
    let paused = driving.await.unwrap().unwrap();
    assert_eq!(paused.status, ReleaseStatus::Paused);

    let alone = elsewhere.order(&canary_id(), &Order::Promote).await;
    let (running, order) = elsewhere
        .resume_with(&canary_id(), &Order::Promote)
        .await
        .unwrap();
    let ended = drive(running).await.unwrap().unwrap();

    assert!(
        matches!(
            alone,
            Err(OrderError::NotDriven {
                status: ReleaseStatus::Paused,
                ..
            })
        ),
        "{alone:?}"
    );
    assert_eq!(ended.status, ReleaseStatus::Succeeded);
    assert_eq!(
        here.journal.answer(order).unwrap(),
        Some(OrderOutcome::Taken)
    );
}

#[tokio::test]
async fn a_paused_release_that_would_refuse_an_order_stays_as_it_is() {
    let shop = Shop::new();
    let here = shop.conductor("ada@build");
    let driving = drive(shop.canary(&here, Promote::Manual).await);
    waits_for_promotion(&here).await;
    here.order(&canary_id(), &Order::Pause { at: None })
        .await
        .unwrap();
    driving.await.unwrap().unwrap();
    let before = state(&here).next_seq;
    let weight = Order::Weight {
        percent: 40,
        capacity: Capacity::Respect,
    };

    let refused = here.resume_with(&canary_id(), &weight).await;

    assert!(
        matches!(refused, Err(PlanError::Refusal(_))),
        "{:?}",
        refused.err()
    );
    assert_eq!(state(&here).next_seq, before);
    assert_eq!(state(&here).status, ReleaseStatus::Paused);
    here.resume_with(&canary_id(), &Order::Promote)
        .await
        .unwrap();
}

#[tokio::test]
async fn whoever_stops_waiting_takes_the_order_back() {
    let shop = Shop::new();
    let (here, elsewhere) = (shop.conductor("ada@build"), shop.conductor("eve@desk"));
    let running = shop.canary(&here, Promote::Manual).await;

    let release = canary_id();
    let waiting = elsewhere.order(&release, &Order::Pause { at: None });
    let given = tokio::time::timeout(Duration::ZERO, waiting).await;

    assert!(given.is_err(), "nobody has heard it: {given:?}");
    assert_eq!(here.journal.orders(&running.tenure, now()).unwrap(), []);
}

#[tokio::test]
async fn an_order_to_a_release_that_ends_meanwhile_is_refused() {
    let shop = Shop::new();
    let (here, elsewhere) = (shop.conductor("ada@build"), shop.conductor("eve@desk"));
    let running = shop.canary(&here, Promote::Manual).await;
    let waiting = tokio::spawn(async move {
        elsewhere
            .order(&canary_id(), &Order::Pause { at: None })
            .await
    });
    until("it is given", || {
        !here
            .journal
            .orders(&running.tenure, now())
            .unwrap()
            .is_empty()
    })
    .await;

    let end = Record {
        seq: running.engine.state().next_seq,
        at: now(),
        fact: Fact::ReleaseEnded {
            status: ReleaseStatus::Failed,
            reason: None,
        },
    };
    here.journal
        .append(&running.tenure, vec![end])
        .await
        .unwrap();

    let told = waiting.await.unwrap().unwrap_err();
    assert_eq!(
        told.to_string(),
        "release r2: the release has ended with FAILED"
    );
}

#[tokio::test]
async fn a_conductor_takes_what_the_one_before_it_was_told_and_did_not_answer() {
    let shop = Shop::new();
    let here = shop.conductor("ada@build");
    let running = shop.canary(&here, Promote::Manual).await;
    let id = here
        .journal
        .order(&canary_id(), &Order::Pause { at: None }, "eve@desk", now())
        .unwrap();
    assert_eq!(
        here.journal.orders(&running.tenure, now()).unwrap().len(),
        1
    );
    // As one that is killed: nothing of it is left but its records.
    here.journal.leave(&running.tenure).unwrap();
    drop(running);

    let resumed = here.resume(&canary_id()).await.unwrap();
    let state = drive(resumed).await.unwrap().unwrap();

    assert_eq!(state.status, ReleaseStatus::Paused);
    assert_eq!(here.journal.answer(id).unwrap(), Some(OrderOutcome::Taken));
}

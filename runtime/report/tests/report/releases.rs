//! Releases as their documents tell them, made by hand.

use std::collections::BTreeMap;

use model::{LifecycleEvent, Timestamp};
use report::{
    Change, Deployment, Document, Evidence, Hold, Instance, Order, Revision, Step, Switch, rfc3339,
};

/// 2026-11-21 09:30:00 UTC.
const START: i64 = 1_795_253_400_000;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// An instant so long after the start of the release.
pub(crate) fn at(ms: i64) -> String {
    rfc3339(Timestamp(START + ms))
}

/// A release that has ended, without deployments.
pub(crate) fn release(status: &'static str, status_zh: &'static str, took: i64) -> Document {
    Document {
        v: 1,
        id: "r-20261121-093000-k3x9".to_owned(),
        status,
        status_zh,
        comment: String::new(),
        operator: "ada@build-7".to_owned(),
        started_at: Some(at(0)),
        ended_at: Some(at(took)),
        waiting_for: None,
        reason: None,
        as_of: None,
        changes: vec![Change {
            at: at(took),
            status,
        }],
        orders: Vec::new(),
        deployments: Vec::new(),
    }
}

/// A deployment of `1.5.0` that has not begun, to these instances.
pub(crate) fn deployment(group: &str, ids: &[String]) -> Deployment {
    Deployment {
        id: format!("d-20261121-0930-{group}"),
        service_id: None,
        application: "shop".to_owned(),
        group: group.to_owned(),
        kind: "DEPLOY".to_owned(),
        priority: 0,
        ignore_stop_failures: false,
        strategy: "rolling",
        direction: "deploy",
        rolls_back: None,
        revision: Revision {
            version: "1.5.0".to_owned(),
            source: format!("https://artifacts.example/shop/{group}-1.5.0.tar.zst"),
            digest: format!("sha256:{}", "4f9c1d02".repeat(8)),
        },
        status: "RUNNING",
        reason: None,
        waiting_for: None,
        started_at: None,
        ended_at: None,
        batches: vec![ids.to_vec()],
        plugins: BTreeMap::from([(
            "haproxy".to_owned(),
            format!("sha256:{}", "77ab03de".repeat(8)),
        )]),
        grants: BTreeMap::new(),
        excluded: Vec::new(),
        mixed_versions: BTreeMap::new(),
        instances: ids.iter().map(|id| instance(id)).collect(),
        side: None,
        shares: BTreeMap::new(),
        switches: Vec::new(),
        holds: Vec::new(),
        minimum_healthy: None,
        down: BTreeMap::new(),
    }
}

fn instance(id: &str) -> Instance {
    Instance {
        id: id.to_owned(),
        outcome: None,
        reason: None,
        from_version: Some("1.4.2".to_owned()),
        to_version: Some("1.5.0".to_owned()),
        steps: Vec::new(),
    }
}

/// `NAME-1` to `NAME-MANY`.
pub(crate) fn ids(name: &str, many: usize) -> Vec<String> {
    (1..=many)
        .map(|number| format!("{name}-{number}"))
        .collect()
}

/// How an attempt ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Succeeded,
    Failed(&'static str),
    Lost(&'static str),
    Open,
}

/// An instance being deployed to, and when its next step begins.
pub(crate) struct Run<'d> {
    instance: &'d mut Instance,
    pub(crate) now: i64,
}

impl<'d> Run<'d> {
    pub(crate) fn of(instance: &'d mut Instance, now: i64) -> Self {
        Self { instance, now }
    }

    /// Adds one attempt, and goes on when it ends.
    pub(crate) fn step(&mut self, event: LifecycleEvent, took: i64, end: End) -> &mut Self {
        let before = self
            .instance
            .steps
            .iter()
            .filter(|step| step.event == event.name());
        let attempt = 1 + before.count() as u32;
        let (status, reason) = match end {
            End::Succeeded => ("SUCCEEDED", None),
            End::Failed(reason) => ("FAILED", Some(reason)),
            End::Lost(reason) => ("LOST", Some(reason)),
            End::Open => ("RUNNING", None),
        };
        let is_open = matches!(end, End::Open);
        self.instance.steps.push(Step {
            event: event.name(),
            revision: Some(event.side().name()),
            version: Some(
                match event.side() {
                    model::Side::Outgoing => "1.4.2",
                    model::Side::Incoming => "1.5.0",
                }
                .to_owned(),
            ),
            status,
            reason: reason.map(str::to_owned),
            attempt,
            started_at: Some(at(self.now)),
            ended_at: (!is_open).then(|| at(self.now + took)),
            exit_code: match end {
                End::Succeeded => Some(0),
                End::Failed(_) => Some(1),
                _ => None,
            },
            log: (!is_open).then(|| format!("logs/{}.log", event.name())),
        });
        self.now += took;
        self
    }

    /// All steps of a group behind a balancer, until this one.
    pub(crate) fn until(&mut self, last: LifecycleEvent, speed: i64, end: End) -> &mut Self {
        for event in LifecycleEvent::ALL {
            let took = match event {
                LifecycleEvent::DownloadBundle => 4_200,
                LifecycleEvent::BlockTraffic => 8_500,
                LifecycleEvent::ApplicationStop => 2_600,
                LifecycleEvent::Install => 3_900,
                LifecycleEvent::ApplicationStart => 6_400,
                LifecycleEvent::ValidateService => 5_100,
                LifecycleEvent::AllowTraffic => 4_800,
                _ => 180,
            };
            if event == last {
                return self.step(event, took * speed / 100, end);
            }
            self.step(event, took * speed / 100, End::Succeeded);
        }
        self
    }

    /// A step that was left out.
    pub(crate) fn skip(&mut self, event: LifecycleEvent, reason: &str) -> &mut Self {
        self.instance.steps.push(Step {
            event: event.name(),
            revision: None,
            version: None,
            status: "SKIPPED",
            reason: Some(reason.to_owned()),
            attempt: 0,
            started_at: Some(at(self.now)),
            ended_at: Some(at(self.now)),
            exit_code: None,
            log: None,
        });
        self
    }

    /// Ends it, and tells when.
    pub(crate) fn ends(&mut self, outcome: &'static str, reason: Option<&str>) -> i64 {
        self.instance.outcome = Some(outcome);
        self.instance.reason = reason.map(str::to_owned);
        self.now
    }

    /// All steps, and tells when it ended.
    pub(crate) fn succeeds(&mut self, speed: i64) -> i64 {
        self.until(LifecycleEvent::AfterAllowTraffic, speed, End::Succeeded);
        self.ends("SUCCEEDED", None)
    }
}

/// How much longer than usual an instance takes, in percent.
fn speed(index: usize) -> i64 {
    100 + (index as i64 * 37) % 45
}

/// Deploys to all instances, so many at a time, from an instant on; tells when the last one ended.
fn roll(deployment: &mut Deployment, width: usize, from: i64) -> i64 {
    let mut free = vec![from; width];
    for (index, instance) in deployment.instances.iter_mut().enumerate() {
        let place = (0..width).min_by_key(|place| free[*place]).unwrap();
        free[place] = Run::of(instance, free[place] + 40).succeeds(speed(index));
    }
    free.into_iter().max().unwrap()
}

fn ends(deployment: &mut Deployment, status: &'static str, start: i64, end: i64) {
    deployment.status = status;
    deployment.started_at = Some(at(start));
    deployment.ended_at = Some(at(end));
}

/// Three services in two priorities, all well.
pub(crate) fn plan() -> Document {
    let mut api = deployment("api", &ids("api", 4));
    let mut web = deployment("web", &ids("web", 6));
    let mut worker = deployment("worker", &ids("worker", 2));
    let api_end = roll(&mut api, 2, 120);
    let web_end = roll(&mut web, 3, 150);
    let first = api_end.max(web_end);
    let worker_end = {
        let mut end = first + 200;
        for instance in &mut worker.instances {
            let mut run = Run::of(instance, end);
            run.step(LifecycleEvent::ApplicationStop, 3_100, End::Succeeded)
                .step(LifecycleEvent::ApplicationStart, 9_400, End::Succeeded)
                .step(LifecycleEvent::ValidateService, 7_700, End::Succeeded);
            end = run.ends("SUCCEEDED", None);
        }
        end
    };
    for (service, id, priority, kind) in [
        (&mut api, 111, 3, "HTTP_UPLOAD_DEPLOY"),
        (&mut web, 222, 3, "COMPILE_DEPLOY"),
        (&mut worker, 333, 1, "RESTART"),
    ] {
        service.service_id = Some(id);
        service.priority = priority;
        service.kind = kind.to_owned();
    }
    worker.direction = "operate";
    worker.revision.version = "1.4.2".to_owned();
    for instance in &mut worker.instances {
        instance.to_version = Some("1.4.2".to_owned());
    }
    ends(&mut api, "SUCCEEDED", 100, api_end + 60);
    ends(&mut web, "SUCCEEDED", 130, web_end + 60);
    ends(&mut worker, "SUCCEEDED", first + 180, worker_end + 60);
    Document {
        comment: "Checkout with saved cards".to_owned(),
        deployments: vec![api, web, worker],
        ..release("SUCCEEDED", "执行成功", worker_end + 120)
    }
}

/// A plan whose second service fails: one script, one host that cannot be reached, one outcome that was lost.
pub(crate) fn failed() -> Document {
    let mut document = plan();
    let [api, web, worker] = &mut document.deployments[..] else {
        unreachable!("a plan of three")
    };
    let reason = "`bin/migrate.sh --all` of 1.5.0 exited with 1: applying 0042_add_saved_cards | ERROR:  column \"card_token\" of relation \"payments\" already exists | migration failed, rolled back";
    for instance in &mut web.instances {
        *instance = self::instance(&instance.id);
    }
    let mut ended = 0;
    for (index, instance) in web.instances.iter_mut().enumerate() {
        let mut run = Run::of(instance, 150 + index as i64 % 3 * 900);
        ended = match index {
            0 => run
                .until(
                    LifecycleEvent::ApplicationStart,
                    100,
                    End::Lost("the host was restarted while the hook ran"),
                )
                .step(LifecycleEvent::ApplicationStart, 7_200, End::Succeeded)
                .step(LifecycleEvent::ValidateService, 5_000, End::Succeeded)
                .step(LifecycleEvent::AllowTraffic, 5_000, End::Succeeded)
                .ends("SUCCEEDED", None),
            1 => run
                .until(LifecycleEvent::ApplicationStart, 110, End::Failed(reason))
                .ends("FAILED", Some(reason)),
            2 => run
                .until(
                    LifecycleEvent::Install,
                    130,
                    End::Lost("ssh web-3: connection timed out after 30 s"),
                )
                .ends(
                    "UNREACHABLE",
                    Some("ssh web-3: connection timed out after 30 s"),
                ),
            _ => ended,
        };
    }
    let end = 45 * SECOND;
    ends(web, "FAILED", 130, end);
    web.reason = Some("2 instances failed, the threshold is 1".to_owned());
    *worker = Deployment {
        instances: worker
            .instances
            .iter()
            .map(|one| instance(&one.id))
            .collect(),
        status: "PLANNED",
        started_at: None,
        ended_at: None,
        ..worker.clone()
    };
    let _ = api;
    let end = instant(&document.deployments[0]).max(end) + 80;
    Document {
        reason: Some("shop/web failed: 2 instances failed, the threshold is 1".to_owned()),
        deployments: document.deployments,
        comment: document.comment,
        ..release("FAILED", "执行失败", end)
    }
}

/// When a deployment ended, after the start of the release.
fn instant(deployment: &Deployment) -> i64 {
    let ended_at = deployment.ended_at.as_deref().unwrap();
    ended_at
        .parse::<jiff::Timestamp>()
        .unwrap()
        .as_millisecond()
        - START
}

fn switch(at_ms: i64, from: u32, to: u32, after_batch: u32) -> Switch {
    let sides =
        |new: u32| BTreeMap::from([("current".to_owned(), 100 - new), ("new".to_owned(), new)]);
    Switch {
        at: Some(at(at_ms + 350)),
        started_at: Some(at(at_ms)),
        ended_at: Some(at(at_ms + 350)),
        after_batch: Some(after_batch),
        status: "SUCCEEDED",
        reason: None,
        attempt: 1,
        from: sides(from),
        to: sides(to),
    }
}

fn hold(kind: &'static str, opened: i64, closed: Option<i64>, after_batch: u32) -> Hold {
    Hold {
        kind,
        name: None,
        after_batch,
        status: if closed.is_some() {
            "PASSED"
        } else {
            "WAITING"
        },
        opened_at: Some(at(opened)),
        until: None,
        closed_at: closed.map(at),
        by: None,
        reason: None,
        evidence: Vec::new(),
    }
}

/// A canary that was promoted after hours, with gates and orders.
pub(crate) fn canary() -> Document {
    let mut web = deployment("web", &ids("web", 8));
    web.strategy = "canary";
    web.side = Some("new".to_owned());
    web.shares = BTreeMap::from([("current".to_owned(), 0), ("new".to_owned(), 100)]);
    web.batches = vec![
        ids("web", 1),
        ids("web", 8)[1..5].to_vec(),
        ids("web", 8)[5..].to_vec(),
    ];
    web.minimum_healthy = Some("6".to_owned());
    let first = Run::of(&mut web.instances[0], 400).succeeds(100);
    let opened = first + 900;
    let promoted = opened + 3 * HOUR + 12 * MINUTE;
    web.switches.push(switch(first + 200, 0, 10, 1));
    web.switches.push(switch(opened + 40 * MINUTE, 10, 25, 1));
    web.holds.push(Hold {
        by: Some("grace@desk-2".to_owned()),
        ..hold("promotion", opened, Some(promoted), 1)
    });
    web.switches.push(switch(promoted + 100, 25, 60, 1));
    let mut end = promoted;
    for (index, instance) in web.instances[1..5].iter_mut().enumerate() {
        end = end.max(Run::of(instance, promoted + 600).succeeds(speed(index)));
    }
    web.holds.push(Hold {
        name: Some("errors".to_owned()),
        evidence: vec![Evidence {
            name: "5xx of the new side".to_owned(),
            value: "0.02%".to_owned(),
            threshold: Some("at most 0.1%".to_owned()),
            verdict: "PASSED",
        }],
        ..hold("gate", end + 100, Some(end + 48 * SECOND), 2)
    });
    let second = end + 49 * SECOND;
    for (index, instance) in web.instances[5..].iter_mut().enumerate() {
        end = end.max(Run::of(instance, second).succeeds(speed(index)));
    }
    web.switches.push(switch(end + 200, 60, 100, 3));
    ends(&mut web, "SUCCEEDED", 200, end + 600);
    let order = |at_ms: i64, order: &str| Order {
        at: at(at_ms),
        operator: "grace@desk-2".to_owned(),
        order: order.to_owned(),
    };
    Document {
        orders: vec![
            order(opened + 40 * MINUTE - 100, "weight 25%"),
            order(promoted - 80, "promote"),
        ],
        deployments: vec![web],
        ..release("SUCCEEDED", "执行成功", end + 700)
    }
}

/// A plan that an operator paused after its first service.
pub(crate) fn paused() -> Document {
    let mut document = plan();
    let end = instant(&document.deployments[0]).max(instant(&document.deployments[1]));
    let worker = &mut document.deployments[2];
    *worker = Deployment {
        instances: worker
            .instances
            .iter()
            .map(|one| instance(&one.id))
            .collect(),
        status: "PLANNED",
        started_at: None,
        ended_at: None,
        waiting_for: Some("the release to go on".to_owned()),
        ..worker.clone()
    };
    let change = |at_ms: i64, status| Change {
        at: at(at_ms),
        status,
    };
    Document {
        status: "PAUSED",
        status_zh: "已暂停",
        ended_at: None,
        as_of: Some(at(end + 26 * MINUTE)),
        waiting_for: Some(format!(
            "an operator: `cutover resume {id}` or `cutover stop {id}`",
            id = document.id
        )),
        changes: vec![change(31 * SECOND, "PAUSING"), change(end + 20, "PAUSED")],
        orders: vec![Order {
            at: at(31 * SECOND - 60),
            operator: "grace@desk-2".to_owned(),
            order: "pause".to_owned(),
        }],
        ..document
    }
}

/// A release that is under way: some done, some in flight, some not begun.
pub(crate) fn running() -> Document {
    let mut web = deployment("web", &ids("web", 12));
    let now = 78 * SECOND;
    web.batches = web.batches[0].chunks(3).map(<[String]>::to_vec).collect();
    for (index, instance) in web.instances.iter_mut().enumerate().take(8) {
        let mut run = Run::of(
            instance,
            300 + index as i64 / 3 * 37_500 + index as i64 % 3 * 300,
        );
        match index {
            0..6 => {
                run.succeeds(100);
            }
            6 => {
                run.step(LifecycleEvent::DownloadBundle, 2_000, End::Open);
            }
            _ => {
                run.skip(LifecycleEvent::BeforeBlockTraffic, "nothing is installed")
                    .step(LifecycleEvent::DownloadBundle, 900, End::Succeeded)
                    .step(LifecycleEvent::Install, 1, End::Open);
            }
        }
    }
    web.started_at = Some(at(200));
    Document {
        status: "RUNNING",
        status_zh: "执行中",
        ended_at: None,
        as_of: Some(at(now)),
        waiting_for: Some("DownloadBundle on web-7 for 2.1 s and 1 more".to_owned()),
        changes: Vec::new(),
        deployments: vec![web],
        ..release("RUNNING", "执行中", now)
    }
}

/// A release whose conductor died half an hour ago.
pub(crate) fn interrupted() -> Document {
    let mut document = running();
    document.deployments[0].status = "INTERRUPTED";
    Document {
        status: "INTERRUPTED",
        status_zh: "被中断",
        as_of: Some(at(30 * MINUTE)),
        waiting_for: Some(format!(
            "an operator: `cutover resume {id}` or `cutover stop {id}`",
            id = document.id
        )),
        ..document
    }
}

/// So many instances, ten at a time, of which some fail.
pub(crate) fn fleet(many: usize) -> Document {
    let mut web = deployment("web", &ids("web", many));
    web.batches = web.batches[0].chunks(10).map(<[String]>::to_vec).collect();
    let end = roll(&mut web, 10, 200);
    for (index, instance) in web.instances.iter_mut().enumerate() {
        if index % 53 == 41 {
            let start = instance.steps[0].started_at.as_deref().unwrap();
            let start = start.parse::<jiff::Timestamp>().unwrap().as_millisecond() - START;
            *instance = self::instance(&instance.id);
            let reason = "`bin/start.sh` of 1.5.0 exited with 1: listen tcp 0.0.0.0:8080: address already in use";
            Run::of(instance, start)
                .until(LifecycleEvent::ApplicationStart, 100, End::Failed(reason))
                .ends("FAILED", Some(reason));
        }
    }
    let failed = web
        .instances
        .iter()
        .any(|one| one.outcome == Some("FAILED"));
    let (status, zh) = match failed {
        true => ("FAILED", "执行失败"),
        false => ("SUCCEEDED", "执行成功"),
    };
    ends(&mut web, status, 100, end + 50);
    Document {
        reason: failed.then(|| "shop/web failed: the threshold of failures was reached".to_owned()),
        deployments: vec![web],
        ..release(status, zh, end + 100)
    }
}

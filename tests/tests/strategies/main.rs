//! Strategies on real balancers, in front of the example's service, while visitors come.
//!
//! What an injected fault itself loses is a failed start or a refused deployment; visitors lose nothing.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]
#![allow(
    clippy::print_stdout,
    reason = "figures, for whoever runs the tests with --nocapture"
)]

mod balancer;
mod blue_green;
mod canary;
mod examples;
mod nginx;
mod rolling;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use balancer::{Balancer, Kind, Late, Layout, on_each_balancer};
use cutover_tests::{
    Answer, Connections, Pace, Server, Site, Visitors, Visits, copy_folder, free_ports,
    target_folder, until, visits,
};
use serde_json::Value;

/// Instances of the example's service on one site, with packages to deploy to them.
///
/// Of the packages `1.0.0` and `1.1.0` are sound; `dies` starts a process that ends at once, `invalid` fails its
/// validation, `late` answers a second after its start.
struct Fleet {
    site: Site,
    servers: Vec<Server>,
}

impl Fleet {
    fn new(instances: &[&str]) -> Self {
        let site = Site::new();
        for package in ["1.0.0", "1.1.0", "dies", "invalid", "late"] {
            let folder = site.path(package);
            copy_folder(
                &target_folder().join("../../examples/shop/package"),
                &folder,
            );
            let service = target_folder().join("shop-service");
            std::fs::copy(service, folder.join("shop-service")).unwrap();
        }
        site.script(
            "dies/bin/start.sh",
            "#!/bin/sh\ncd \"$CUTOVER_ROOTDIR\"\nnohup app/shop-service serve nowhere \"$CUTOVER_VERSION\" >>shop.log 2>&1 &\necho $! >shop.pid\n",
        );
        site.script(
            "dies/bin/validate.sh",
            "#!/bin/sh\npid=$(cat \"$CUTOVER_ROOTDIR/shop.pid\")\n\
             while grep -q '^State:[[:space:]]*[^ZX[:space:]]' \"/proc/$pid/status\" 2>/dev/null; do sleep 0.02; done\n\
             echo the service has died\nexit 1\n",
        );
        site.script(
            "invalid/bin/validate.sh",
            "#!/bin/sh\necho the database is missing\nexit 1\n",
        );
        site.script(
            "late/bin/start.sh",
            "#!/bin/sh\ncd \"$CUTOVER_ROOTDIR\"\n{ sleep 1; exec app/shop-service serve \"127.0.0.1:$PORT\" \"$CUTOVER_VERSION\"; } >>shop.log 2>&1 &\necho $! >shop.pid\n",
        );
        let ports = free_ports(instances.len()).into_iter();
        let servers = instances
            .iter()
            .zip(ports)
            .map(|(id, port)| ((*id).to_owned(), SocketAddr::from(([127, 0, 0, 1], port))))
            .collect();
        Self { site, servers }
    }

    /// The servers whose names begin so.
    fn servers(&self, beginning: &str) -> Vec<Server> {
        let servers = self.servers.iter();
        servers
            .filter(|(name, _)| name.starts_with(beginning))
            .cloned()
            .collect()
    }

    /// Instances whose names begin so, as the workspace lists them.
    fn instances(&self, beginning: &str) -> String {
        let mut list = String::new();
        for (id, address) in self.servers(beginning) {
            let (rootdir, port) = (self.site.path(&id), address.port());
            let separator = if list.is_empty() { "" } else { ", " };
            let _ = write!(
                list,
                "{separator}{{id: {id}, host: \"local:\", rootdir: \"{}\", address: \"{address}\", env: {{PORT: \"{port}\"}}}}",
                rootdir.display()
            );
        }
        format!("[{list}]")
    }

    /// Writes a workspace with one group, `shop/web`, of these lines.
    fn workspace(&self, plugins: &str, group: &str) {
        let mut text = format!("{plugins}applications:\n  shop:\n    groups:\n      web:\n");
        for line in group.lines() {
            writeln!(text, "        {line}").unwrap();
        }
        self.site.write("cutover.yaml", &text);
        self.site.cutover(&["check"]).ok();
    }

    fn deploy(&self, package: &str, version: &str) -> Answer {
        self.site.cutover(&deploying(package, version))
    }

    fn rollback(&self) -> Answer {
        self.site.cutover(&["rollback", "shop/web", "--yes"])
    }

    /// Starts the program; what it tells is kept for when the test fails.
    fn start(&self, arguments: &[&str]) -> Child {
        let log = std::fs::File::create(self.site.path("conductor.log")).unwrap();
        let mut command = self.site.command(arguments);
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Waits until a conductor has ended well.
    fn await_success(&self, conductor: &mut Child) {
        let code = conductor.wait().unwrap().code();
        let log = std::fs::read_to_string(self.site.path("conductor.log")).unwrap();
        assert_eq!(code, Some(0), "{log}");
    }

    /// Waits until the newest release waits for a hold of this kind.
    fn await_hold(&self, conductor: &mut Child, kind: &str) {
        until(&format!("the release waits for its {kind}"), || {
            let report = self.site.report_of_newest();
            let deployments = report["deployments"].as_array();
            let last = deployments.and_then(|deployments| deployments.last());
            let holds = last.and_then(|deployment| deployment["holds"].as_array());
            let hold = holds.and_then(|holds| holds.last());
            // One that is paused waits too, and nobody hears an order to it.
            let waits = report["status"] == "RUNNING"
                && hold.is_some_and(|hold| hold["kind"] == kind && hold["status"] == "WAITING");
            let ended = conductor.try_wait().unwrap();
            assert!(
                waits || ended.is_none(),
                "it does not wait for its {kind}: {}",
                std::fs::read_to_string(self.site.path("conductor.log")).unwrap()
            );
            waits
        });
    }

    fn newest(&self) -> String {
        self.site.report_of_newest()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Kills the service of an instance, where it runs.
    fn kill(&self, instance: &str) {
        let file = self.site.path(&format!("{instance}/shop.pid"));
        if let Ok(pid) = std::fs::read_to_string(file) {
            // It may have ended by itself.
            let _ = Command::new("kill")
                .args(["-KILL", pid.trim()])
                .stderr(Stdio::null())
                .status();
        }
    }

    /// Deploys with a conductor that is killed as soon as a record of this kind is durable.
    fn deploy_and_die_at(&self, package: &str, version: &str, record: &str) {
        let status = Command::new(target_folder().join("mortal-conductor"))
            .current_dir(self.site.path("."))
            .args(["cutover.yaml", "shop/web", package, version, record])
            .arg(target_folder().join("cutover"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "it was to die at {record}");
        assert_eq!(self.site.report_of_newest()["status"], "INTERRUPTED");
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (id, _) in &self.servers {
            self.kill(id);
        }
    }
}

fn deploying<'a>(package: &'a str, version: &'a str) -> [&'a str; 6] {
    [
        "deploy",
        "shop/web",
        "--package",
        package,
        "--version",
        version,
    ]
}

/// How many visitors there are of a kind.
const VISITORS: u64 = 8;

/// Visitors with connections of both kinds.
struct Crowd {
    kept: Visitors,
    fresh: Visitors,
    /// What the balancer might have closed before they came.
    closed_before: u64,
}

impl Crowd {
    fn at(balancer: &Balancer) -> Self {
        let front = balancer.front();
        Self {
            closed_before: balancer.may_close(VISITORS),
            kept: Visitors::start(front, Connections::Kept, Pace::Steady),
            fresh: Visitors::start(front, Connections::Fresh, Pace::Steady),
        }
    }

    /// Waits until visitors of both kinds have been answered so often again.
    fn go_on(&self, requests: u64) {
        self.kept.wait_for(requests);
        self.fresh.wait_for(requests);
    }

    /// Ends them; none may have failed, but on kept connections as many as the balancer may have closed.
    fn stop(self, balancer: &Balancer) -> [Visits; 2] {
        let visits = [self.kept.stop(), self.fresh.stop()];
        let closed = balancer.may_close(VISITORS) - self.closed_before;
        for ((kind, visits), most) in ["kept", "fresh"].into_iter().zip(&visits).zip([closed, 0]) {
            let [connect, read, write, status, timeout] = visits.kinds;
            assert!(
                connect + status + timeout == 0 && read + write <= most,
                "{kind} connections, of {} requests: {visits:?}",
                visits.total()
            );
            println!(
                "{kind} connections: {} of {} requests failed, of {most} that may meet a connection which was closed",
                visits.failed,
                visits.total() + visits.failed
            );
        }
        visits
    }
}

/// Asserts that every visitor is served, by one version, on instances whose ids begin so.
fn assert_all_at(front: SocketAddr, version: &str, instances: &str) -> Visits {
    let visits = visits(front, Connections::Kept, 200);
    assert_eq!(visits.failed, 0, "{visits:?}");
    assert_eq!(visits.of_version(version), visits.total(), "{visits:?}");
    assert_eq!(visits.of_instances(instances), visits.total(), "{visits:?}");
    visits
}

/// The switches of a deployment in a report: `FROM -> TO` each, in JSON.
fn switches(report: &Value, deployment: usize) -> Vec<String> {
    let switches = report["deployments"][deployment]["switches"].as_array();
    let switch = |switch: &Value| format!("{} -> {}", switch["from"], switch["to"]);
    switches.unwrap().iter().map(switch).collect()
}

/// The steps that ran in a deployment, each event once.
fn events(report: &Value) -> std::collections::BTreeSet<String> {
    let mut events = std::collections::BTreeSet::new();
    for deployment in report["deployments"].as_array().unwrap() {
        for instance in deployment["instances"].as_array().unwrap() {
            for step in instance["steps"].as_array().unwrap() {
                if step["status"] != "SKIPPED" {
                    events.insert(step["event"].as_str().unwrap().to_owned());
                }
            }
        }
    }
    events
}

//! Whole releases of a real service behind a real HAProxy that does what the fake's state says, while visitors come: none of them
//! meets an error, and each strategy goes forward and back.

use std::process::{Child, Command, Stdio};

use cutover_tests::{
    Connections, HaProxy, Pace, Server, Visitors, copy_folder, free_ports, target_folder, until,
    visits,
};

use super::*;

/// Instances of the example's service behind HAProxy, which the fake orders about.
struct Fleet {
    shop: Shop,
    haproxy: HaProxy,
    instances: Vec<String>,
}

impl Fleet {
    /// `group` as for [`Shop::new`], where `FLEET(a, b)` stands for instances of these names. `elb` gets the addresses of all of them.
    fn new(
        names: &[&str],
        group: &str,
        elb: impl FnOnce(HuaweiElb, &[SocketAddr]) -> HuaweiElb,
    ) -> Self {
        let ports = free_ports(names.len());
        let addresses: Vec<_> = ports
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
            .collect();
        let servers: Vec<Server> = names
            .iter()
            .zip(&addresses)
            .map(|(name, address)| ((*name).to_owned(), *address))
            .collect();
        let site = Site::new();
        // Any member may be in any pool. What is in none is away.
        // A check may take long where many tests run, and those of servers that are down come often.
        let options =
            "check inter 1s fastinter 50ms downinter 50ms fall 4 rise 1 weight 1 disabled";
        let haproxy = HaProxy::with_sides(&site, &servers, &servers, options);
        for version in ["1.0.0", "1.1.0", "2.0.0"] {
            let package = site.path(version);
            copy_folder(
                &target_folder().join("../../examples/shop/package"),
                &package,
            );
            std::fs::copy(
                target_folder().join("shop-service"),
                package.join("shop-service"),
            )
            .unwrap();
        }
        site.script(
            "2.0.0/bin/validate.sh",
            "#!/bin/sh\necho the database is missing\nexit 1\n",
        );
        let elb = elb(HuaweiElb::new(&["blue", "green"]), &addresses)
            .with_traffic(haproxy.socket, &site.path("maps"));
        site.write("secret", HuaweiElb::SECRET_KEY);
        let shop = Shop {
            cloud: CloudServer::start(elb),
            site,
            versions: std::cell::Cell::new(0),
        };
        let mut group = group.to_owned();
        while let Some((before, rest)) = group.split_once("FLEET(") {
            let (wanted, after) = rest.split_once(')').unwrap();
            let instance = |(name, address): &Server| {
                let (rootdir, port) = (shop.site.path(name), address.port());
                format!(
                    "{{id: {name}, host: \"local:\", rootdir: \"{}\", address: \"{address}\", env: {{PORT: \"{port}\"}}}}",
                    rootdir.display()
                )
            };
            let wanted = servers
                .iter()
                .filter(|(name, _)| wanted.split(", ").any(|it| it == name));
            let instances: Vec<_> = wanted.map(instance).collect();
            group = format!("{before}[{}]{after}", instances.join(", "));
        }
        shop.describe(&group);
        Self {
            shop,
            haproxy,
            instances: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn start(&self, version: &str) -> Child {
        let arguments = [
            "deploy",
            "shop/web",
            "--package",
            version,
            "--version",
            version,
        ];
        let log = std::fs::File::create(self.shop.site.path("conductor.log")).unwrap();
        let mut command = self.shop.site.command(&arguments);
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn deploy(&self, version: &str) -> Answer {
        let arguments = [
            "deploy",
            "shop/web",
            "--package",
            version,
            "--version",
            version,
        ];
        self.shop.site.cutover(&arguments)
    }

    /// Starts a canary and waits until it waits for its promotion.
    fn until_promotion(&self, version: &str) -> (Child, String) {
        let mut conductor = self.start(version);
        until("the canary waits for its promotion", || {
            let report = self.shop.site.report_of_newest();
            let holds = report["deployments"][0]["holds"].as_array();
            let hold = holds.and_then(|holds| holds.last());
            let waits =
                hold.is_some_and(|it| it["kind"] == "promotion" && it["status"] == "WAITING");
            let log = || std::fs::read_to_string(self.shop.site.path("conductor.log")).unwrap();
            assert!(
                waits || conductor.try_wait().unwrap().is_none(),
                "{}",
                log()
            );
            waits && report["deployments"][0]["revision"]["version"] == version
        });
        let id = self.shop.site.report_of_newest()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        (conductor, id)
    }

    fn await_success(&self, mut conductor: Child) {
        let code = conductor.wait().unwrap().code();
        let log = std::fs::read_to_string(self.shop.site.path("conductor.log")).unwrap();
        assert_eq!(code, Some(0), "{log}");
    }

    /// Visitors of a front, who may not meet an error.
    fn visited<T>(&self, front: SocketAddr, run: impl FnOnce() -> T) -> T {
        let visitors = Visitors::start(front, Connections::Fresh, Pace::Steady);
        let result = run();
        let visits = visitors.stop();
        assert_eq!(visits.failed, 0, "{visits:?}");
        assert!(visits.total() > 20, "{visits:?}");
        result
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for instance in &self.instances {
            let file = self.shop.site.path(&format!("{instance}/shop.pid"));
            if let Ok(pid) = std::fs::read_to_string(file) {
                // It may have ended by itself.
                let _ = Command::new("kill")
                    .args(["-KILL", pid.trim()])
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }
}

/// Asserts that every visitor is served by one version.
#[track_caller]
fn assert_all_at(front: SocketAddr, version: &str) {
    let visits = visits(front, Connections::Kept, 200);
    assert_eq!(
        (visits.failed, visits.of_version(version)),
        (0, visits.total()),
        "{visits:?}"
    );
}

#[test]
fn a_rolling_release_goes_forward_and_back_without_a_lost_request() {
    let fleet = Fleet::new(
        &["web-1", "web-2", "web-3"],
        "instances: FLEET(web-1, web-2, web-3)\nstrategy: {type: rolling, concurrency: 1}\n\
         load_balancer: {plugin: huawei, timeout: 60s, config: {CONFIG, pool: blue, drain: 1s, several_per_host: true}}\n",
        |elb, _| elb,
    );
    let front = fleet.haproxy.front;
    fleet.deploy("1.0.0").ok();
    assert_all_at(front, "1.0.0");

    fleet.visited(front, || fleet.deploy("1.1.0").ok());
    assert_all_at(front, "1.1.0");
    fleet.visited(front, || fleet.shop.rollback().ok());

    assert_all_at(front, "1.0.0");
    assert_eq!(fleet.shop.members("blue").len(), 3);
}

#[test]
fn an_instance_that_fails_stays_out_of_the_pool_until_it_goes_back() {
    let fleet = Fleet::new(
        &["web-1", "web-2"],
        "instances: FLEET(web-1, web-2)\nstrategy: {type: rolling, concurrency: 1}\n\
         load_balancer: {plugin: huawei, timeout: 60s, config: {CONFIG, pool: blue, drain: 100ms, several_per_host: true}}\n",
        |elb, _| elb,
    );
    fleet.deploy("1.0.0").ok();

    let answer = fleet.deploy("2.0.0");

    assert_eq!(answer.code, 4, "{}", answer.stderr);
    assert_eq!(fleet.shop.members("blue").len(), 1);
    assert_all_at(fleet.haproxy.front, "1.0.0");
    fleet.shop.rollback().ok();
    assert_eq!(fleet.shop.members("blue").len(), 2);
}

#[test]
fn a_blue_green_release_goes_forward_and_back_without_a_lost_request() {
    let fleet = Fleet::new(
        &["blue-1", "blue-2", "green-1", "green-2"],
        "strategy: {type: blue-green, concurrency: 100%, retire: keep}\n\
         sides:\n  blue: {group: {pool: blue}, instances: FLEET(blue-1, blue-2)}\n  \
         green: {group: {pool: green}, instances: FLEET(green-1, green-2)}\n\
         traffic: {plugin: huawei, timeout: 60s, config: {CONFIG, listener: listener-1, several_per_host: true}}\n",
        |mut elb, addresses| {
            for (index, address) in addresses.iter().enumerate() {
                elb.add_member(if index < 2 { "blue" } else { "green" }, *address, 1);
            }
            elb
        },
    );
    let front = fleet.haproxy.front;
    // Blue is the default pool, though nothing runs there yet.
    fleet.deploy("1.0.0").ok();
    assert_eq!(
        fleet
            .shop
            .cloud
            .with(|elb| elb.default_pool.clone())
            .as_deref(),
        Some("green")
    );
    assert_all_at(front, "1.0.0");

    fleet.visited(front, || fleet.deploy("1.1.0").ok());
    assert_all_at(front, "1.1.0");
    fleet.visited(front, || fleet.shop.rollback().ok());

    assert_all_at(front, "1.0.0");
}

#[test]
fn a_canary_gets_its_share_is_promoted_and_goes_back_without_a_lost_request() {
    let fleet = Fleet::new(
        &["web-1", "web-2", "web-3", "web-4"],
        "strategy: {type: canary, first_batch: 1, remaining_batches: 2, traffic: 20%, promote: manual}\n\
         instances: FLEET(web-1, web-2, web-3, web-4)\n\
         sides: {current: {group: {pool: blue}}, new: {group: {pool: green}}}\n\
         load_balancer: {plugin: huawei, timeout: 60s, config: {CONFIG, drain: 1s, several_per_host: true}}\n\
         traffic: {plugin: huawei, timeout: 60s, config: {CONFIG, policy: policy-1}}\n",
        |elb, _| elb.with_policy(&[("blue", 100), ("green", 0)]),
    );
    let front = fleet.haproxy.percent_front;
    let promote = |version: &str| {
        let (conductor, id) = fleet.until_promotion(version);
        fleet.shop.site.cutover(&["promote", &id]).ok();
        fleet.await_success(conductor);
    };
    promote("1.0.0");
    assert_all_at(front, "1.0.0");

    fleet.visited(front, || {
        let (conductor, id) = fleet.until_promotion("1.1.0");
        let visits = visits(front, Connections::Kept, 10_000);
        let share = visits.percent_of_version("1.1.0");
        assert!((share - 20.0).abs() <= 3.0, "{share} %: {visits:?}");
        fleet.shop.site.cutover(&["promote", &id]).ok();
        fleet.await_success(conductor);
    });
    assert_all_at(front, "1.1.0");
    fleet.visited(front, || fleet.shop.rollback().ok());

    assert_all_at(front, "1.0.0");
    let members = |pool: &str| fleet.shop.members(pool).len();
    let mut both = [members("blue"), members("green")];
    both.sort_unstable();
    assert_eq!(both, [0, 4], "all are in one pool");
}

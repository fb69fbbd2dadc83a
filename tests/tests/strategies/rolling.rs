//! Rolling in batches behind HAProxy: gates, pauses, health, and instances that fail.

use cutover_tests::{HaProxy, visits};

use super::*;

/// Four instances behind HAProxy, with version 1.0.0 on each.
struct Rolling {
    fleet: Fleet,
    haproxy: HaProxy,
}

impl Rolling {
    /// `more` are further lines of the group.
    fn deployed(strategy: &str, more: &str) -> Self {
        let fleet = Fleet::new(&["web-1", "web-2", "web-3", "web-4"]);
        let servers = fleet.servers("web");
        let options = "check inter 100ms fall 2 rise 1 disabled";
        let haproxy = HaProxy::start(&fleet.site, &servers, options);
        let shop = Self { fleet, haproxy };
        shop.describe("{type: rolling, concurrency: 4}", "");
        shop.fleet.deploy("1.0.0", "1.0.0").ok();
        shop.describe(strategy, more);
        shop
    }

    fn describe(&self, strategy: &str, more: &str) {
        let socket = self.haproxy.socket;
        let plugins = format!(
            "plugins:\n  haproxy:\n    component: haproxy\n    grants: {{sockets: [\"tcp:{socket}\"]}}\n"
        );
        let group = format!(
            "strategy: {strategy}\ninstances: {}\n{more}\
             load_balancer: {{plugin: haproxy, timeout: 60s, config: {{socket: \"tcp:{socket}\", backend: shop}}}}\n",
            self.fleet.instances("web")
        );
        self.fleet.workspace(&plugins, &group);
    }

    fn assert_all_at(&self, version: &str) {
        let visits = visits(self.haproxy.front, Connections::Kept, 200);
        assert_eq!(visits.failed, 0, "{visits:?}");
        assert_eq!(visits.of_version(version), visits.total(), "{visits:?}");
        assert_eq!(visits.served.len(), 4, "each instance serves: {visits:?}");
    }
}

#[test]
fn batches_wait_for_people_and_pauses_without_a_lost_request() {
    let shop = Rolling::deployed(
        "{type: rolling, batches: [1, 50%, 100%], minimum_healthy: 2}",
        "gates: [{name: sign-off, after: first, approve: Does web-1 look right?}]\n",
    );
    let crowd = Crowd::at(shop.haproxy.front);
    let mut conductor = shop.fleet.start(&deploying("late", "1.1.0"));
    shop.fleet.await_hold(&mut conductor, "gate");
    let id = shop.fleet.newest();
    crowd.go_on(200);

    shop.fleet.site.cutover(&["pause", &id]).ok();
    assert_eq!(conductor.wait().unwrap().code(), Some(7));
    let mut conductor = shop.fleet.start(&["resume", &id]);
    shop.fleet.await_hold(&mut conductor, "gate");
    shop.fleet
        .site
        .cutover(&["approve", &id, "--comment", "it does"])
        .ok();

    assert_eq!(conductor.wait().unwrap().code(), Some(0));
    shop.assert_all_at("1.1.0");
    let report = shop.fleet.site.report();
    let hold = &report["deployments"][0]["holds"][0];
    assert_eq!(
        (&hold["name"], &hold["status"]),
        (&"sign-off".into(), &"PASSED".into())
    );
    assert!(hold["by"].as_str().unwrap().starts_with("ann@"), "{hold}");
    assert_eq!(hold["reason"], "it does");
    shop.fleet.rollback().ok();
    shop.assert_all_at("1.0.0");
    let _ = crowd.stop();
}

#[test]
fn an_instance_that_fails_gets_no_request_and_the_others_stay_as_they_are() {
    let shop = Rolling::deployed("{type: rolling, batches: 2}", "");
    let crowd = Crowd::at(shop.haproxy.front);

    for (package, version) in [("dies", "2.0.0"), ("invalid", "2.0.1")] {
        let answer = shop.fleet.deploy(package, version);
        assert_eq!(answer.code, 4, "{}", answer.stderr);
        crowd.go_on(50);
        let meanwhile = visits(shop.haproxy.front, Connections::Fresh, 200);
        assert_eq!(meanwhile.of_instances("web-1"), 0, "{meanwhile:?}");
        shop.fleet.rollback().ok();
    }

    shop.assert_all_at("1.0.0");
    for visits in crowd.stop() {
        assert_eq!(visits.of_version("1.0.0"), visits.total(), "{visits:?}");
    }
}

#[test]
fn a_gate_that_fails_takes_the_batches_before_it_back() {
    let shop = Rolling::deployed(
        "{type: rolling, batches: [1, 100%]}",
        "gates: [{name: smoke, after: first, command: \"echo no orders; exit 1\", on_fail: rollback}]\n",
    );
    let crowd = Crowd::at(shop.haproxy.front);

    let answer = shop.fleet.deploy("1.1.0", "1.1.0");

    assert_eq!(answer.code, 4, "{}", answer.stderr);
    shop.assert_all_at("1.0.0");
    let report = shop.fleet.site.report();
    assert_eq!(report["deployments"][0]["holds"][0]["status"], "FAILED");
    assert_eq!(report["deployments"][1]["status"], "SUCCEEDED");
    let _ = crowd.stop();
}

#[test]
fn an_instance_that_is_down_for_another_cause_counts_against_the_healthy_ones() {
    let shop = Rolling::deployed("{type: rolling, concurrency: 1, minimum_healthy: 3}", "");
    let crowd = Crowd::at(shop.haproxy.front);
    let _ = shop.haproxy.ask("set server shop/web-4 state maint");
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    shop.fleet.await_hold(&mut conductor, "health");
    crowd.go_on(50);

    let _ = shop.haproxy.ask("set server shop/web-4 state ready");

    assert_eq!(conductor.wait().unwrap().code(), Some(0));
    shop.assert_all_at("1.1.0");
    let _ = crowd.stop();
}

/// The same change without the balancer's part: visitors see what is lost, so the tests beside this one can fail.
#[test]
fn instances_that_change_in_traffic_do_lose_requests() {
    let shop = Rolling::deployed("{type: rolling, concurrency: 2}", "");
    let text = std::fs::read_to_string(shop.fleet.site.path("cutover.yaml")).unwrap();
    let without = text
        .lines()
        .filter(|line| !line.contains("load_balancer:"))
        .fold(String::new(), |all, line| all + line + "\n");
    shop.fleet.site.write("cutover.yaml", &without);
    let kept = Visitors::start(shop.haproxy.front, Connections::Kept, Pace::Full);
    let fresh = Visitors::start(shop.haproxy.front, Connections::Fresh, Pace::Full);

    for version in ["1.1.0", "1.1.1", "1.1.2"] {
        shop.fleet.deploy("1.1.0", version).ok();
    }

    for visits in [kept.stop(), fresh.stop()] {
        assert!(visits.failed > 0, "all of {} succeeded", visits.total());
    }
}

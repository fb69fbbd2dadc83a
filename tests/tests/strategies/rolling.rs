//! Rolling in batches: gates, pauses, health, and instances that fail.

use super::*;

on_each_balancer! {
    batches_wait_for_people_and_pauses_without_a_lost_request,
    an_instance_that_fails_gets_no_request_and_the_others_stay_as_they_are,
    a_gate_that_fails_takes_the_batches_before_it_back,
    an_instance_that_is_down_for_another_cause_counts_against_the_healthy_ones,
    a_conductor_killed_while_instances_change_is_resumed_without_a_lost_request,
}

/// Four instances behind a balancer, with version 1.0.0 on each.
struct Rolling {
    fleet: Fleet,
    balancer: Balancer,
}

impl Rolling {
    /// `more` are further lines of the group.
    fn deployed(kind: Kind, strategy: &str, more: &str) -> Self {
        let fleet = Fleet::new(&["web-1", "web-2", "web-3", "web-4"]);
        let balancer = Balancer::start(kind, Layout::Pool, &fleet);
        let shop = Self { fleet, balancer };
        shop.describe("{type: rolling, concurrency: 4}", "");
        shop.fleet.deploy("1.0.0", "1.0.0").ok();
        shop.describe(strategy, more);
        shop
    }

    fn describe(&self, strategy: &str, more: &str) {
        let Self { fleet, balancer } = self;
        let group = format!(
            "strategy: {strategy}\ninstances: {}\n{more}{}",
            fleet.instances("web"),
            balancer.load_balancer()
        );
        fleet.workspace(&balancer.plugins(&fleet.site), &group);
    }

    fn crowd(&self) -> Crowd {
        Crowd::at(&self.balancer)
    }

    fn assert_all_at(&self, version: &str) {
        let visits = assert_all_at(self.balancer.front(), version, "web");
        assert_eq!(visits.served.len(), 4, "each instance serves: {visits:?}");
    }
}

fn batches_wait_for_people_and_pauses_without_a_lost_request(kind: Kind) {
    let shop = Rolling::deployed(
        kind,
        "{type: rolling, batches: [1, 50%, 100%], minimum_healthy: 2}",
        "gates: [{name: sign-off, after: first, approve: Does web-1 look right?}]\n",
    );
    let crowd = shop.crowd();
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

    shop.fleet.await_success(&mut conductor);
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
    let _ = crowd.stop(&shop.balancer);
}

fn an_instance_that_fails_gets_no_request_and_the_others_stay_as_they_are(kind: Kind) {
    let shop = Rolling::deployed(kind, "{type: rolling, batches: 2}", "");
    let crowd = shop.crowd();

    for (package, version) in [("dies", "2.0.0"), ("invalid", "2.0.1")] {
        let answer = shop.fleet.deploy(package, version);
        assert_eq!(answer.code, 4, "{}", answer.stderr);
        crowd.go_on(50);
        let meanwhile = visits(shop.balancer.front(), Connections::Fresh, 200);
        assert_eq!(meanwhile.of_instances("web-1"), 0, "{meanwhile:?}");
        shop.fleet.rollback().ok();
    }

    shop.assert_all_at("1.0.0");
    for visits in crowd.stop(&shop.balancer) {
        assert_eq!(visits.of_version("1.0.0"), visits.total(), "{visits:?}");
    }
}

fn a_gate_that_fails_takes_the_batches_before_it_back(kind: Kind) {
    let shop = Rolling::deployed(
        kind,
        "{type: rolling, batches: [1, 100%]}",
        "gates: [{name: smoke, after: first, command: \"echo no orders; exit 1\", on_fail: rollback}]\n",
    );
    let crowd = shop.crowd();

    let answer = shop.fleet.deploy("1.1.0", "1.1.0");

    assert_eq!(answer.code, 4, "{}", answer.stderr);
    shop.assert_all_at("1.0.0");
    let report = shop.fleet.site.report();
    assert_eq!(report["deployments"][0]["holds"][0]["status"], "FAILED");
    assert_eq!(report["deployments"][1]["status"], "SUCCEEDED");
    let _ = crowd.stop(&shop.balancer);
}

fn an_instance_that_is_down_for_another_cause_counts_against_the_healthy_ones(kind: Kind) {
    let shop = Rolling::deployed(
        kind,
        "{type: rolling, concurrency: 1, minimum_healthy: 3}",
        "",
    );
    let crowd = shop.crowd();
    shop.balancer.take_out_by_hand(&shop.fleet.site, "web-4");
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    shop.fleet.await_hold(&mut conductor, "health");
    crowd.go_on(50);

    shop.balancer.put_in_by_hand(&shop.fleet.site, "web-4");

    shop.fleet.await_success(&mut conductor);
    shop.assert_all_at("1.1.0");
    let _ = crowd.stop(&shop.balancer);
}

fn a_conductor_killed_while_instances_change_is_resumed_without_a_lost_request(kind: Kind) {
    let shop = Rolling::deployed(kind, "{type: rolling, concurrency: 2}", "");
    let crowd = shop.crowd();

    for (point, version) in [("blocking", "1.1.0"), ("allowing", "1.1.1")] {
        shop.fleet.deploy_and_die_at("1.1.0", version, point);
        crowd.go_on(50);
        shop.fleet
            .site
            .cutover(&["resume", &shop.fleet.newest()])
            .ok();

        shop.assert_all_at(version);
    }

    let _ = crowd.stop(&shop.balancer);
}

/// The same change without the balancer's part: visitors see what is lost, so the tests beside this one can fail.
#[test]
fn instances_that_change_in_traffic_do_lose_requests() {
    let shop = Rolling::deployed(Kind::HaProxy, "{type: rolling, concurrency: 2}", "");
    let text = std::fs::read_to_string(shop.fleet.site.path("cutover.yaml")).unwrap();
    let without = text
        .lines()
        .filter(|line| !line.contains("load_balancer:"))
        .fold(String::new(), |all, line| all + line + "\n");
    shop.fleet.site.write("cutover.yaml", &without);
    let kept = Visitors::start(shop.balancer.front(), Connections::Kept, Pace::Full);
    let fresh = Visitors::start(shop.balancer.front(), Connections::Fresh, Pace::Full);

    for version in ["1.1.0", "1.1.1", "1.1.2"] {
        shop.fleet.deploy("1.1.0", version).ok();
    }

    for visits in [kept.stop(), fresh.stop()] {
        assert!(visits.failed > 0, "all of {} succeeded", visits.total());
    }
}

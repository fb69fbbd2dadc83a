//! Canaries, between two groups of a balancer and by the weights of one.

use super::*;

on_each_balancer! {
    a_canary_gets_its_share_of_two_groups_and_no_request_is_lost,
    a_canary_gets_its_share_of_one_group_and_no_request_is_lost,
    a_canary_does_what_its_dry_run_said,
    a_canary_that_waits_is_taken_back_without_a_lost_request,
    a_canary_that_does_not_come_up_gets_no_request,
    a_conductor_killed_around_a_change_of_the_share_is_resumed_without_a_lost_request,
}

/// How the two versions share the traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Each has a group of the balancer, in front of which the traffic is split.
    Groups,
    /// All instances are in one group.
    Weights,
}

/// Four instances behind a balancer.
struct Canary {
    fleet: Fleet,
    balancer: Balancer,
}

impl Canary {
    /// With version 1.0.0 everywhere.
    fn deployed(kind: Kind, by: By, strategy: &str) -> Self {
        let fleet = Fleet::new(&["web-1", "web-2", "web-3", "web-4"]);
        let layout = match by {
            By::Groups => Layout::Shares,
            By::Weights => Layout::Pool,
        };
        let balancer = Balancer::start(kind, layout, &fleet);
        let canary = Self { fleet, balancer };
        canary.describe(by, strategy);
        canary.deploy_and_promote("1.0.0", "1.0.0");
        canary
    }

    fn describe(&self, by: By, strategy: &str) {
        let Self { fleet, balancer } = self;
        let sides = match by {
            By::Groups => format!(
                "sides: {{current: {{group: {}}}, new: {{group: {}}}}}\n",
                balancer.group("blue"),
                balancer.group("green")
            ),
            By::Weights => String::new(),
        };
        let group = format!(
            "strategy: {{type: canary, first_batch: 1, remaining_batches: 2, traffic: 20%{strategy}}}\n\
             instances: {}\n{sides}{}{}",
            fleet.instances("web"),
            balancer.load_balancer(),
            balancer.traffic(&fleet.site, "60s")
        );
        fleet.workspace(&balancer.plugins(&fleet.site), &group);
    }

    /// Deploys, and promotes when the release waits for it.
    fn deploy_and_promote(&self, package: &str, version: &str) {
        let mut conductor = self.fleet.start(&deploying(package, version));
        self.fleet.await_hold(&mut conductor, "promotion");
        self.fleet
            .site
            .cutover(&["promote", &self.fleet.newest()])
            .ok();
        self.fleet.await_success(&mut conductor);
    }

    fn crowd(&self) -> Crowd {
        Crowd::at(&self.balancer)
    }

    fn assert_all_at(&self, version: &str) {
        let visits = assert_all_at(self.balancer.front(), version, "web");
        assert_eq!(visits.served.len(), 4, "each instance serves: {visits:?}");
    }

    /// Asserts that a version gets this share, within two points, of 20,000 requests.
    fn assert_share(&self, version: &str, percent: f64) {
        let visits = visits(self.balancer.front(), Connections::Kept, 20_000);
        let share = visits.percent_of_version(version);
        println!(
            "asked {percent} %, measured {share:.2} % of {}, {} failed",
            visits.total(),
            visits.failed
        );
        assert!((share - percent).abs() <= 2.0, "{share} %: {visits:?}");
        assert_eq!(visits.failed, 0, "{visits:?}");
    }
}

fn a_canary_gets_its_share(kind: Kind, by: By) {
    let shop = Canary::deployed(kind, by, "");
    let crowd = shop.crowd();
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    shop.fleet.await_hold(&mut conductor, "promotion");
    let id = shop.fleet.newest();
    shop.assert_share("1.1.0", 20.0);

    let beyond = shop.fleet.site.cutover(&["weight", &id, "40%"]);
    assert_eq!(
        beyond.code, 3,
        "one of four carries a fourth: {}",
        beyond.stderr
    );
    shop.fleet
        .site
        .cutover(&["weight", &id, "40%", "--force"])
        .ok();
    until("the share is changed", || {
        let report = shop.fleet.site.report();
        let shares = report["deployments"][0]["shares"].as_object().unwrap();
        shares.values().any(|share| *share == 40)
    });
    shop.assert_share("1.1.0", 40.0);
    shop.fleet.site.cutover(&["promote", &id]).ok();

    shop.fleet.await_success(&mut conductor);
    shop.assert_all_at("1.1.0");
    shop.fleet.rollback().ok();
    shop.assert_all_at("1.0.0");
    let _ = crowd.stop(&shop.balancer);
}

fn a_canary_gets_its_share_of_two_groups_and_no_request_is_lost(kind: Kind) {
    a_canary_gets_its_share(kind, By::Groups);
}

fn a_canary_gets_its_share_of_one_group_and_no_request_is_lost(kind: Kind) {
    a_canary_gets_its_share(kind, By::Weights);
}

fn a_canary_does_what_its_dry_run_said(kind: Kind) {
    for by in [By::Groups, By::Weights] {
        let shop = Canary::deployed(kind, by, "");
        shop.describe(by, ", promote: {after: 1s}");
        let crowd = shop.crowd();

        let report = shop.fleet.site.as_planned(&deploying("1.1.0", "1.1.0"));

        shop.assert_all_at("1.1.0");
        let _ = crowd.stop(&shop.balancer);
        let shares = switches(&report, 0);
        assert_eq!(shares.len(), 5, "{shares:?}");
    }
}

fn a_canary_that_waits_is_taken_back_without_a_lost_request(kind: Kind) {
    for by in [By::Groups, By::Weights] {
        let shop = Canary::deployed(kind, by, "");
        let crowd = shop.crowd();
        let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
        shop.fleet.await_hold(&mut conductor, "promotion");
        crowd.go_on(100);

        shop.fleet.rollback().ok();

        assert_eq!(conductor.wait().unwrap().code(), Some(4));
        shop.assert_all_at("1.0.0");
        let report = shop.fleet.site.report();
        assert_eq!(report["deployments"][0]["status"], "FAILED");
        assert_eq!(report["deployments"][1]["status"], "SUCCEEDED");
        for visits in crowd.stop(&shop.balancer) {
            assert!(visits.of_version("1.1.0") > 0, "{visits:?}");
        }
    }
}

fn a_canary_that_does_not_come_up_gets_no_request(kind: Kind) {
    for by in [By::Groups, By::Weights] {
        let shop = Canary::deployed(kind, by, "");
        let crowd = shop.crowd();

        for (package, version) in [("dies", "2.0.0"), ("invalid", "2.0.1")] {
            let answer = shop.fleet.deploy(package, version);
            assert_eq!(answer.code, 4, "{}", answer.stderr);
            crowd.go_on(50);
            shop.fleet.rollback().ok();
        }

        shop.assert_all_at("1.0.0");
        for visits in crowd.stop(&shop.balancer) {
            assert_eq!(visits.of_version("1.0.0"), visits.total(), "{visits:?}");
        }
    }
}

fn a_conductor_killed_around_a_change_of_the_share_is_resumed_without_a_lost_request(kind: Kind) {
    let shop = Canary::deployed(kind, By::Groups, "");
    shop.describe(By::Groups, ", promote: {after: 1s}");
    let crowd = shop.crowd();

    for (point, number) in ["switch-started", "switch-ended"].into_iter().zip(1..) {
        let version = format!("1.1.{number}");
        shop.fleet.deploy_and_die_at("1.1.0", &version, point);
        crowd.go_on(50);
        shop.fleet
            .site
            .cutover(&["resume", &shop.fleet.newest()])
            .ok();
        shop.assert_all_at(&version);
    }

    let _ = crowd.stop(&shop.balancer);
}

impl Canary {
    /// Deploys 1.1.0, which one instance of the second batch refuses as long as there is a file `broken`, and promotes it. Answers
    /// with the release.
    fn fail_in_the_second_batch(&self) -> String {
        let broken = self.fleet.site.path("broken");
        std::fs::write(&broken, "").unwrap();
        self.fleet.site.script(
            "1.1.0/bin/validate.sh",
            &format!(
                "#!/bin/sh\n[ \"$CUTOVER_INSTANCE_ID\" != web-3 ] || ! [ -e '{}' ] || {{ echo the disk is full; exit 1; }}\n",
                broken.display()
            ),
        );
        let mut conductor = self.fleet.start(&deploying("1.1.0", "1.1.0"));
        self.fleet.await_hold(&mut conductor, "promotion");
        let id = self.fleet.newest();
        self.fleet.site.cutover(&["promote", &id]).ok();
        assert_eq!(conductor.wait().unwrap().code(), Some(4));
        id
    }

    fn mend(&self) {
        std::fs::remove_file(self.fleet.site.path("broken")).unwrap();
    }

    fn retry(&self, id: &str) -> Answer {
        self.fleet.site.cutover(&["retry", id, "--failed"])
    }
}

#[test]
fn a_canary_that_failed_with_its_traffic_split_is_retried_and_taken_back_without_a_lost_request() {
    for by in [By::Groups, By::Weights] {
        let shop = Canary::deployed(Kind::HaProxy, by, "");
        let crowd = shop.crowd();
        let failed = shop.fail_in_the_second_batch();
        crowd.go_on(100);
        shop.mend();

        let planned = shop.fleet.site.as_planned(&["retry", &failed, "--failed"]);

        shop.assert_all_at("1.1.0");
        let retried = &planned["deployments"][0];
        let touched = retried["instances"].as_array().unwrap().iter();
        let touched: Vec<_> = touched
            .map(|instance| instance["id"].as_str().unwrap())
            .collect();
        assert_eq!(touched, ["web-3", "web-4"]);
        assert_eq!(
            retried["holds"].as_array().unwrap().len(),
            0,
            "it was promoted"
        );
        shop.fleet.rollback().ok();
        shop.assert_all_at("1.0.0");
        let _ = crowd.stop(&shop.balancer);
    }
}

#[test]
fn a_retry_that_fails_is_taken_back_with_what_it_went_on_from() {
    for by in [By::Groups, By::Weights] {
        let shop = Canary::deployed(Kind::HaProxy, by, "");
        let crowd = shop.crowd();
        let failed = shop.fail_in_the_second_batch();

        let again = shop.retry(&failed);
        assert_eq!(again.code, 4, "{}", again.stderr);
        crowd.go_on(100);
        let back = shop.fleet.rollback().ok();

        assert!(!back.stderr.contains("the router of"), "{}", back.stderr);
        shop.assert_all_at("1.0.0");
        let _ = crowd.stop(&shop.balancer);
    }
}

#[test]
fn a_retry_of_a_canary_whose_traffic_somebody_moved_is_refused_with_both_truths() {
    let shop = Canary::deployed(Kind::HaProxy, By::Groups, "");
    let failed = shop.fail_in_the_second_batch();
    shop.mend();
    shop.balancer.share_by_hand(&shop.fleet.site, 7);

    let refused = shop.retry(&failed);

    assert_eq!(refused.code, 3, "{}", refused.stderr);
    for truth in ["current 93%, new 7%", "current 50%, new 50%"] {
        assert!(refused.stderr.contains(truth), "{}", refused.stderr);
    }
}

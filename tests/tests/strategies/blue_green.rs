//! Blue-green: the switch, the way back, and what goes wrong around them.

use super::*;

on_each_balancer! {
    traffic_goes_to_the_other_colour_and_back_without_a_lost_request,
    a_colour_that_does_not_come_up_gets_no_traffic,
    a_colour_that_dies_before_the_switch_gets_no_traffic,
    a_colour_that_fails_its_validation_while_it_is_watched_gives_the_traffic_back,
    a_colour_that_is_retired_is_started_again_for_the_way_back,
    a_conductor_killed_around_the_switch_is_resumed_without_a_lost_request,
    a_conductor_killed_while_the_balancer_switches_finds_out_what_became_of_it,
    a_conductor_killed_between_the_two_places_of_a_switch_is_resumed_without_a_lost_request,
    a_switch_that_was_half_written_and_then_moved_by_somebody_else_stays_where_they_put_it,
    a_balancer_that_answers_late_is_waited_for,
    traffic_that_somebody_else_moved_is_not_moved_before_an_operator_says_what_is_live,
    traffic_that_somebody_moves_while_a_colour_is_deployed_stays_where_they_put_it,
}

/// Two instances of each colour behind a balancer. Nothing is deployed.
struct Colours {
    fleet: Fleet,
    balancer: Balancer,
}

impl Colours {
    /// `strategy` are further keys of the strategy.
    fn start(kind: Kind, strategy: &str) -> Self {
        let fleet = Fleet::new(&["blue-1", "blue-2", "green-1", "green-2"]);
        let balancer = Balancer::start(kind, Layout::Colours, &fleet);
        let colours = Self { fleet, balancer };
        colours.describe(strategy, "", "60s");
        colours
    }

    /// The same with version 1.0.0 on blue, which is live.
    fn live(kind: Kind, strategy: &str) -> Self {
        let colours = Self::start(kind, strategy);
        colours.fleet.deploy("1.0.0", "1.0.0").ok();
        assert_eq!(colours.group(), "shop-blue");
        colours
    }

    /// `more` are further lines of the group, `timeout` that of a switch.
    fn describe(&self, strategy: &str, more: &str, timeout: &str) {
        let Self { fleet, balancer } = self;
        let side = |colour| {
            let (group, instances) = (balancer.group(colour), fleet.instances(colour));
            format!("  {colour}: {{group: {group}, instances: {instances}}}\n")
        };
        let group = format!(
            "strategy: {{type: blue-green, concurrency: 100%{strategy}}}\nsides:\n{}{}{}{more}",
            side("blue"),
            side("green"),
            balancer.traffic(&fleet.site, timeout),
        );
        fleet.workspace(&balancer.plugins(&fleet.site), &group);
    }

    /// The live group, as the balancer itself says.
    fn group(&self) -> String {
        self.balancer.live(&self.fleet.site)
    }

    fn crowd(&self) -> Crowd {
        Crowd::at(&self.balancer)
    }

    /// Asserts that every visitor is served by one version on one colour.
    fn assert_all_at(&self, colour: &str, version: &str) {
        let _ = assert_all_at(self.balancer.front(), version, colour);
    }
}

fn traffic_goes_to_the_other_colour_and_back_without_a_lost_request(kind: Kind) {
    let shop = Colours::start(kind, "");
    shop.fleet.deploy("1.0.0", "1.0.0").ok();
    let first = shop.fleet.site.report();
    let nothing = match kind {
        Kind::HaProxy => "{}",
        // It always sends requests somewhere.
        Kind::Nginx => r#"{"green":100}"#,
    };
    assert_eq!(
        switches(&first, 0),
        [format!(r#"{nothing} -> {{"blue":100}}"#)]
    );
    shop.assert_all_at("blue", "1.0.0");
    let crowd = shop.crowd();

    let report = shop.fleet.site.as_planned(&deploying("1.1.0", "1.1.0"));
    shop.assert_all_at("green", "1.1.0");
    shop.fleet.rollback().ok();
    shop.assert_all_at("blue", "1.0.0");
    let back = shop.fleet.site.report();
    shop.fleet.deploy("1.1.0", "1.1.1").ok();

    shop.assert_all_at("green", "1.1.1");
    for visits in crowd.stop(&shop.balancer) {
        assert!(visits.of_version("1.0.0") > 0 && visits.of_version("1.1.0") > 0);
    }
    assert_eq!(switches(&report, 0), [r#"{"blue":100} -> {"green":100}"#]);
    assert_eq!(switches(&back, 0), [r#"{"green":100} -> {"blue":100}"#]);
    assert_eq!(
        events(&back).into_iter().collect::<Vec<_>>(),
        ["ValidateService"]
    );
    let never = [
        "BeforeBlockTraffic",
        "BlockTraffic",
        "AfterBlockTraffic",
        "BeforeAllowTraffic",
        "AllowTraffic",
        "AfterAllowTraffic",
    ];
    let ran = events(&report);
    assert!(never.iter().all(|event| !ran.contains(*event)), "{ran:?}");
}

fn a_colour_that_does_not_come_up_gets_no_traffic(kind: Kind) {
    let shop = Colours::live(kind, "");
    let crowd = shop.crowd();

    for (package, version, why) in [
        ("dies", "2.0.0", "the service has died"),
        ("invalid", "2.0.1", "the database is missing"),
    ] {
        let answer = shop.fleet.deploy(package, version);

        assert_eq!(answer.code, 4, "{}", answer.stderr);
        assert!(answer.stderr.contains(why), "{}", answer.stderr);
        assert_eq!(shop.group(), "shop-blue");
        assert_eq!(switches(&shop.fleet.site.report(), 0), [""; 0]);
    }
    shop.fleet.deploy("1.1.0", "2.0.2").ok();

    shop.assert_all_at("green", "2.0.2");
    for visits in crowd.stop(&shop.balancer) {
        assert_eq!(visits.of_version("2.0.0") + visits.of_version("2.0.1"), 0);
    }
}

fn a_colour_that_dies_before_the_switch_gets_no_traffic(kind: Kind) {
    let shop = Colours::live(kind, "");
    let gate = "gates: [{name: sign-off, approve: Does green look right?}]\n";
    shop.describe("", gate, "5s");
    let crowd = shop.crowd();
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    shop.fleet.await_hold(&mut conductor, "gate");

    shop.fleet.kill("green-2");
    shop.balancer.await_down("shop-green", "green-2");
    let approved = ["approve", &shop.fleet.newest()];
    shop.fleet.site.cutover(&approved).ok();

    assert_eq!(conductor.wait().unwrap().code(), Some(4));
    assert_eq!(shop.group(), "shop-blue");
    let report = shop.fleet.site.report();
    let reason = report["deployments"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("green-2"), "{reason}");
    for visits in crowd.stop(&shop.balancer) {
        assert_eq!(visits.of_version("1.1.0"), 0, "{visits:?}");
    }
}

fn a_colour_that_fails_its_validation_while_it_is_watched_gives_the_traffic_back(kind: Kind) {
    let shop = Colours::live(kind, ", bake: 10s");
    let broken = shop.fleet.site.path("broken");
    shop.fleet.site.script(
        "1.1.0/bin/validate.sh",
        &format!(
            "#!/bin/sh\n[ ! -e '{}' ] || {{ echo the orders do not arrive; exit 1; }}\n",
            broken.display()
        ),
    );
    let crowd = shop.crowd();
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    until("green is live", || shop.group() == "shop-green");
    crowd.go_on(100);

    std::fs::write(broken, "").unwrap();
    let code = conductor.wait().unwrap().code();

    assert_eq!(code, Some(4));
    shop.assert_all_at("blue", "1.0.0");
    let report = shop.fleet.site.report();
    assert_eq!(report["status"], "FAILED");
    assert_eq!(report["deployments"][0]["holds"][0]["kind"], "bake");
    assert_eq!(report["deployments"][0]["holds"][0]["status"], "FAILED");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("the orders do not arrive"), "{reason}");
    for visits in crowd.stop(&shop.balancer) {
        assert!(visits.of_version("1.1.0") > 0, "{visits:?}");
    }
}

fn a_colour_that_is_retired_is_started_again_for_the_way_back(kind: Kind) {
    let shop = Colours::live(kind, ", retire: stop");
    let crowd = shop.crowd();
    let pid_file = shop.fleet.site.path("blue-1/shop.pid");

    let _ = shop.fleet.site.as_planned(&deploying("1.1.0", "1.1.0"));
    shop.assert_all_at("green", "1.1.0");
    assert!(!pid_file.exists(), "blue has been stopped");
    shop.fleet.rollback().ok();

    shop.assert_all_at("blue", "1.0.0");
    assert!(pid_file.exists());
    let _ = crowd.stop(&shop.balancer);
}

fn a_conductor_killed_around_the_switch_is_resumed_without_a_lost_request(kind: Kind) {
    let shop = Colours::live(kind, ", bake: 1s");
    let crowd = shop.crowd();
    let colours = ["green", "blue"].into_iter().cycle();
    let points = ["validating", "switch-started", "switch-ended"];

    for ((point, colour), number) in points.into_iter().zip(colours).zip(1..) {
        let version = format!("1.1.{number}");
        shop.fleet.deploy_and_die_at("1.1.0", &version, point);
        crowd.go_on(50);
        let id = shop.fleet.newest();
        shop.fleet.site.cutover(&["resume", &id]).ok();

        shop.assert_all_at(colour, &version);
        let report = shop.fleet.site.report();
        assert_eq!(report["status"], "SUCCEEDED", "killed at {point}");
    }

    let _ = crowd.stop(&shop.balancer);
}

fn a_conductor_killed_while_the_balancer_switches_finds_out_what_became_of_it(kind: Kind) {
    let shop = Colours::live(kind, "");
    let crowd = shop.crowd();
    shop.balancer.hold(Late::Switched);
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    until("the answer to the switch is late", || {
        shop.balancer.is_holding()
    });
    until("it is carried out", || shop.group() == "shop-green");
    crowd.go_on(50);

    conductor.kill().unwrap();
    conductor.wait().unwrap();
    shop.balancer.release();
    let id = shop.fleet.newest();
    assert_eq!(shop.fleet.site.report()["status"], "INTERRUPTED");
    shop.fleet.site.cutover(&["resume", &id]).ok();

    shop.assert_all_at("green", "1.1.0");
    let _ = crowd.stop(&shop.balancer);
}

impl Colours {
    /// Deploys with a conductor that is killed when the switch is written down and the balancer has not been told.
    fn deploy_and_die_between_the_places(&self, version: &str) {
        self.balancer.hold(Late::Written);
        let mut conductor = self.fleet.start(&deploying("1.1.0", version));
        until("the order to switch is on its way", || {
            self.balancer.is_holding()
        });
        conductor.kill().unwrap();
        conductor.wait().unwrap();
        self.balancer.lose();
        assert_eq!(self.group(), "shop-blue");
        assert_eq!(self.stored(), "shop-green");
        assert_eq!(self.fleet.site.report()["status"], "INTERRUPTED");
    }

    /// The group that a reload would make live.
    fn stored(&self) -> String {
        self.balancer.stored(&self.fleet.site)
    }
}

fn a_conductor_killed_between_the_two_places_of_a_switch_is_resumed_without_a_lost_request(
    kind: Kind,
) {
    let shop = Colours::live(kind, "");
    let crowd = shop.crowd();
    shop.deploy_and_die_between_the_places("1.1.0");
    crowd.go_on(50);

    shop.fleet
        .site
        .cutover(&["resume", &shop.fleet.newest()])
        .ok();

    assert_eq!(shop.stored(), "shop-green");
    shop.assert_all_at("green", "1.1.0");
    let _ = crowd.stop(&shop.balancer);
    shop.balancer.reload();
    shop.assert_all_at("green", "1.1.0");
}

fn a_switch_that_was_half_written_and_then_moved_by_somebody_else_stays_where_they_put_it(
    kind: Kind,
) {
    let shop = Colours::live(kind, "");
    shop.deploy_and_die_between_the_places("1.1.0");
    shop.balancer.move_by_hand(&shop.fleet.site, "maintenance");

    let resumed = shop.fleet.site.cutover(&["resume", &shop.fleet.newest()]);

    assert_eq!(resumed.code, 4, "{}", resumed.stderr);
    let reason = "somebody else moved it";
    assert!(resumed.stderr.contains(reason), "{}", resumed.stderr);
    assert_eq!(shop.group(), "maintenance");
}

/// nginx does not tell which of its files it has read; HAProxy tells what it has of a map.
#[test]
fn places_of_haproxy_that_disagree_stop_whatever_begins_or_goes_on_there_with_both_truths() {
    let shop = Colours::live(Kind::HaProxy, "");
    let file = "maps/live.map";
    shop.fleet.site.write(file, "live shop-green\n");
    let truths = "is `shop-blue` in HAProxy's memory and `shop-green` in the file";
    let checked = shop.fleet.site.cutover(&["check"]);
    let refused = shop.fleet.deploy("1.1.0", "1.1.0");
    shop.fleet.site.write(file, "live shop-blue\n");
    shop.deploy_and_die_between_the_places("1.1.0");
    shop.fleet.site.write(file, "live maintenance\n");
    let resumed = shop.fleet.site.cutover(&["resume", &shop.fleet.newest()]);

    for answer in [checked, refused] {
        assert_eq!(answer.code, 3, "{}", answer.stderr);
        let told = format!("{}{}", answer.stdout, answer.stderr);
        assert!(told.contains(truths), "{told}");
        assert!(told.contains("find out who moved it"), "{told}");
    }
    assert_eq!(resumed.code, 4, "{}", resumed.stderr);
    let truths = "is `shop-blue` in HAProxy's memory and `maintenance` in the file";
    assert!(resumed.stderr.contains(truths), "{}", resumed.stderr);
    assert_eq!(
        (shop.group(), shop.stored()),
        ("shop-blue".to_owned(), "maintenance".to_owned())
    );
}

fn a_balancer_that_answers_late_is_waited_for(kind: Kind) {
    let shop = Colours::live(kind, "");
    let crowd = shop.crowd();
    for (late, version) in [(Late::Asked, "1.1.0"), (Late::Switched, "1.1.1")] {
        shop.balancer.hold(late);
        let mut conductor = shop.fleet.start(&deploying("1.1.0", version));
        until("the answer is late", || shop.balancer.is_holding());
        crowd.go_on(100);
        assert!(conductor.try_wait().unwrap().is_none(), "it waits");

        shop.balancer.release();

        shop.fleet.await_success(&mut conductor);
        assert_eq!(shop.fleet.site.report()["status"], "SUCCEEDED");
    }

    shop.assert_all_at("blue", "1.1.1");
    let _ = crowd.stop(&shop.balancer);
}

fn traffic_that_somebody_else_moved_is_not_moved_before_an_operator_says_what_is_live(kind: Kind) {
    let shop = Colours::live(kind, "");
    shop.fleet.deploy("1.1.0", "1.1.0").ok();
    shop.balancer.move_by_hand(&shop.fleet.site, "shop-blue");

    let refused = shop.fleet.deploy("1.1.0", "1.2.0");

    assert_eq!(refused.code, 3, "{}", refused.stderr);
    for truth in ["blue 100%", "green 100%", "--live blue"] {
        assert!(
            refused.stderr.contains(truth),
            "{truth}: {}",
            refused.stderr
        );
    }
    shop.assert_all_at("blue", "1.0.0");
    let arguments = [&deploying("1.1.0", "1.2.0")[..], &["--live", "blue"]].concat();
    shop.fleet.site.cutover(&arguments).ok();
    shop.assert_all_at("green", "1.2.0");
}

fn traffic_that_somebody_moves_while_a_colour_is_deployed_stays_where_they_put_it(kind: Kind) {
    let shop = Colours::live(kind, "");
    let go_on = shop.fleet.site.path("go-on");
    shop.fleet.site.script(
        "1.1.0/bin/validate.sh",
        &format!(
            "#!/bin/sh\necho > '{0}.waits'\nwhile ! [ -e '{0}' ]; do sleep 0.02; done\n",
            go_on.display()
        ),
    );
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    let waits = shop.fleet.site.path("go-on.waits");
    until("green is validated", || waits.exists());
    shop.balancer.move_by_hand(&shop.fleet.site, "maintenance");

    std::fs::write(&go_on, "").unwrap();

    assert_eq!(conductor.wait().unwrap().code(), Some(4));
    assert_eq!(shop.group(), "maintenance");
    let report = shop.fleet.site.report();
    assert_eq!(report["deployments"][0]["status"], "FAILED");
    let reason = report["deployments"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("blue 100%"), "{reason}");
}

#[test]
fn a_colour_of_which_a_part_failed_is_completed_by_a_retry_and_gets_the_traffic() {
    let shop = Colours::live(Kind::HaProxy, "");
    let broken = shop.fleet.site.path("broken");
    std::fs::write(&broken, "").unwrap();
    shop.fleet.site.script(
        "1.1.0/bin/validate.sh",
        &format!(
            "#!/bin/sh\n[ \"$CUTOVER_INSTANCE_ID\" != green-2 ] || ! [ -e '{}' ] || {{ echo the disk is full; exit 1; }}\n",
            broken.display()
        ),
    );
    let crowd = shop.crowd();
    let failed = shop.fleet.deploy("1.1.0", "1.1.0");
    assert_eq!(failed.code, 4, "{}", failed.stderr);
    assert_eq!(shop.group(), "shop-blue");
    let failed = shop.fleet.newest();
    std::fs::remove_file(&broken).unwrap();

    let report = shop.fleet.site.as_planned(&["retry", &failed, "--failed"]);

    shop.assert_all_at("green", "1.1.0");
    assert_eq!(switches(&report, 0), [r#"{"blue":100} -> {"green":100}"#]);
    let touched = report["deployments"][0]["instances"].as_array().unwrap();
    assert_eq!(touched.len(), 1, "{touched:?}");
    assert_eq!(touched[0]["id"], "green-2");
    shop.fleet.rollback().ok();
    shop.assert_all_at("blue", "1.0.0");
    let _ = crowd.stop(&shop.balancer);
}

#[test]
fn a_retry_never_changes_the_colour_that_serves() {
    let shop = Colours::start(Kind::HaProxy, "");
    let failed = shop.fleet.deploy("invalid", "1.0.0");
    assert_eq!(failed.code, 4, "{}", failed.stderr);
    let failed = shop.fleet.newest();
    shop.balancer.move_by_hand(&shop.fleet.site, "shop-blue");

    let refused = shop.fleet.site.cutover(&["retry", &failed, "--failed"]);

    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let reason = "was to go to `blue` of shop/web, which has the traffic by now";
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);
}

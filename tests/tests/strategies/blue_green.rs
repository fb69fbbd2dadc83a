//! Blue-green behind HAProxy: the switch, the way back, and what goes wrong around them.

use cutover_tests::{HaProxy, LateAnswers, until, visits};

use super::*;

/// Two instances of each colour behind an HAProxy whose map says which colour is live. No colour is, at first.
struct Colours {
    fleet: Fleet,
    haproxy: HaProxy,
    /// Stands between the plugin and HAProxy.
    late: LateAnswers,
}

impl Colours {
    fn start(strategy: &str) -> Self {
        let fleet = Fleet::new(&["blue-1", "blue-2", "green-1", "green-2"]);
        let (blue, green) = (fleet.servers("blue"), fleet.servers("green"));
        let checked = "check inter 100ms fall 2 rise 1";
        let haproxy = HaProxy::with_sides(&fleet.site, &blue, &green, checked);
        let late = LateAnswers::of(haproxy.socket);
        let colours = Self {
            fleet,
            haproxy,
            late,
        };
        let _ = colours
            .haproxy
            .ask(&format!("del map {} live", colours.map()));
        colours
            .fleet
            .site
            .write("maps/live.map", "# the live backend\n");
        let (socket, maps) = (colours.late.address(), colours.fleet.site.path("maps"));
        let plugins = format!(
            "plugins:\n  haproxy:\n    component: haproxy\n    grants:\n      sockets: [\"tcp:{socket}\"]\n      \
             directories: [{{name: maps, path: \"{}\", access: read-write}}]\n",
            maps.display()
        );
        let group = format!(
            "strategy: {{type: blue-green, concurrency: 100%{strategy}}}\n\
             sides:\n  blue: {{group: {{backend: shop-blue}}, instances: {}}}\n  \
             green: {{group: {{backend: shop-green}}, instances: {}}}\n\
             traffic:\n  plugin: haproxy\n  timeout: 60s\n  config:\n    socket: \"tcp:{socket}\"\n    \
             map: {{file: \"{}\", key: live, directory: maps}}\n",
            colours.fleet.instances("blue"),
            colours.fleet.instances("green"),
            colours.map(),
        );
        colours.fleet.workspace(&plugins, &group);
        colours
    }

    /// The same with version 1.0.0 on blue, which is live.
    fn live(strategy: &str) -> Self {
        let colours = Self::start(strategy);
        colours.fleet.deploy("1.0.0", "1.0.0").ok();
        assert_eq!(colours.backend(), "shop-blue");
        colours
    }

    fn map(&self) -> String {
        self.fleet.site.path("maps/live.map").display().to_string()
    }

    /// The live backend, as HAProxy itself says.
    fn backend(&self) -> String {
        let entries = self.haproxy.ask(&format!("show map {}", self.map()));
        let live = entries
            .lines()
            .find_map(|line| line.split_once(" live ").map(|(_, backend)| backend));
        live.unwrap_or("none").to_owned()
    }

    /// Asserts that every visitor is served by one version on one colour.
    fn assert_all_at(&self, colour: &str, version: &str) {
        let visits = visits(self.haproxy.front, Connections::Kept, 200);
        assert_eq!(visits.failed, 0, "{visits:?}");
        assert_eq!(visits.of_version(version), visits.total(), "{visits:?}");
        assert_eq!(visits.of_instances(colour), visits.total(), "{visits:?}");
    }
}

#[test]
fn traffic_goes_to_the_other_colour_and_back_without_a_lost_request() {
    let shop = Colours::start("");
    shop.fleet.deploy("1.0.0", "1.0.0").ok();
    let first = shop.fleet.site.report();
    assert_eq!(switches(&first, 0), [r#"{} -> {"blue":100}"#]);
    shop.assert_all_at("blue", "1.0.0");
    let crowd = Crowd::at(shop.haproxy.front);

    let report = shop.fleet.site.as_planned(&deploying("1.1.0", "1.1.0"));
    shop.assert_all_at("green", "1.1.0");
    shop.fleet.rollback().ok();
    shop.assert_all_at("blue", "1.0.0");
    let back = shop.fleet.site.report();
    shop.fleet.deploy("1.1.0", "1.1.1").ok();

    shop.assert_all_at("green", "1.1.1");
    for visits in crowd.stop() {
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

#[test]
fn a_colour_that_does_not_come_up_gets_no_traffic() {
    let shop = Colours::live("");
    let crowd = Crowd::at(shop.haproxy.front);

    for (package, version, why) in [
        ("dies", "2.0.0", "the service has died"),
        ("invalid", "2.0.1", "the database is missing"),
    ] {
        let answer = shop.fleet.deploy(package, version);

        assert_eq!(answer.code, 4, "{}", answer.stderr);
        assert!(answer.stderr.contains(why), "{}", answer.stderr);
        assert_eq!(shop.backend(), "shop-blue");
        assert_eq!(switches(&shop.fleet.site.report(), 0), [""; 0]);
    }
    shop.fleet.deploy("1.1.0", "2.0.2").ok();

    shop.assert_all_at("green", "2.0.2");
    for visits in crowd.stop() {
        assert_eq!(visits.of_version("2.0.0") + visits.of_version("2.0.1"), 0);
    }
}

#[test]
fn a_colour_that_fails_its_validation_while_it_is_watched_gives_the_traffic_back() {
    let shop = Colours::live(", bake: 10s");
    let broken = shop.fleet.site.path("broken");
    shop.fleet.site.script(
        "1.1.0/bin/validate.sh",
        &format!(
            "#!/bin/sh\n[ ! -e '{}' ] || {{ echo the orders do not arrive; exit 1; }}\n",
            broken.display()
        ),
    );
    let crowd = Crowd::at(shop.haproxy.front);
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    until("green is live", || shop.backend() == "shop-green");
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
    for visits in crowd.stop() {
        assert!(visits.of_version("1.1.0") > 0, "{visits:?}");
    }
}

#[test]
fn a_colour_that_is_retired_is_started_again_for_the_way_back() {
    let shop = Colours::live(", retire: stop");
    let crowd = Crowd::at(shop.haproxy.front);
    let pid_file = shop.fleet.site.path("blue-1/shop.pid");

    let _ = shop.fleet.site.as_planned(&deploying("1.1.0", "1.1.0"));
    shop.assert_all_at("green", "1.1.0");
    assert!(!pid_file.exists(), "blue has been stopped");
    shop.fleet.rollback().ok();

    shop.assert_all_at("blue", "1.0.0");
    assert!(pid_file.exists());
    let _ = crowd.stop();
}

#[test]
fn a_conductor_killed_around_the_switch_is_resumed_without_a_lost_request() {
    let shop = Colours::live(", bake: 1s");
    let crowd = Crowd::at(shop.haproxy.front);
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

    let _ = crowd.stop();
}

#[test]
fn a_conductor_killed_while_the_balancer_switches_finds_out_what_became_of_it() {
    let shop = Colours::live("");
    let crowd = Crowd::at(shop.haproxy.front);
    shop.late.hold("set map ");
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    until("the answer to the switch is late", || {
        shop.late.holding() > 0
    });
    assert_eq!(shop.backend(), "shop-green", "it is carried out");
    crowd.go_on(50);

    conductor.kill().unwrap();
    conductor.wait().unwrap();
    shop.late.release();
    let id = shop.fleet.newest();
    assert_eq!(shop.fleet.site.report()["status"], "INTERRUPTED");
    shop.fleet.site.cutover(&["resume", &id]).ok();

    shop.assert_all_at("green", "1.1.0");
    let _ = crowd.stop();
}

impl Colours {
    /// Deploys with a conductor that is killed when the map's file has the switch and HAProxy's memory has not.
    fn deploy_and_die_between_the_places(&self, version: &str) {
        self.late.keep("set map ");
        let mut conductor = self.fleet.start(&deploying("1.1.0", version));
        until("the order to switch is on its way", || {
            self.late.holding() > 0
        });
        conductor.kill().unwrap();
        conductor.wait().unwrap();
        self.late.release();
        assert_eq!(self.backend(), "shop-blue");
        assert_eq!(self.stored(), "shop-green");
        assert_eq!(self.fleet.site.report()["status"], "INTERRUPTED");
    }

    /// The live backend, as the map's file says.
    fn stored(&self) -> String {
        let text = std::fs::read_to_string(self.map()).unwrap();
        let live = text.lines().find_map(|line| line.strip_prefix("live "));
        live.unwrap_or("none").to_owned()
    }

    fn order(&self, backend: &str) {
        let _ = self
            .haproxy
            .ask(&format!("set map {} live {backend}", self.map()));
    }
}

#[test]
fn a_conductor_killed_between_the_two_places_of_a_switch_is_resumed_without_a_lost_request() {
    let shop = Colours::live("");
    let crowd = Crowd::at(shop.haproxy.front);
    shop.deploy_and_die_between_the_places("1.1.0");
    crowd.go_on(50);

    shop.fleet
        .site
        .cutover(&["resume", &shop.fleet.newest()])
        .ok();

    assert_eq!(shop.stored(), "shop-green");
    shop.assert_all_at("green", "1.1.0");
    let _ = crowd.stop();
    shop.haproxy.reload();
    shop.assert_all_at("green", "1.1.0");
}

#[test]
fn a_switch_that_was_half_written_and_then_moved_by_somebody_else_stays_where_they_put_it() {
    let shop = Colours::live("");
    shop.deploy_and_die_between_the_places("1.1.0");
    shop.order("maintenance");

    let resumed = shop.fleet.site.cutover(&["resume", &shop.fleet.newest()]);

    assert_eq!(resumed.code, 4, "{}", resumed.stderr);
    let truths = "is `maintenance` in HAProxy's memory and `shop-green` in the file";
    assert!(resumed.stderr.contains(truths), "{}", resumed.stderr);
    assert_eq!(
        (shop.backend().as_str(), shop.stored().as_str()),
        ("maintenance", "shop-green")
    );
}

#[test]
fn places_that_disagree_stop_a_check_and_a_deployment_with_both_truths() {
    let shop = Colours::live("");
    shop.fleet.site.write("maps/live.map", "live shop-green\n");

    let checked = shop.fleet.site.cutover(&["check"]);
    let refused = shop.fleet.deploy("1.1.0", "1.1.0");

    for answer in [checked, refused] {
        assert_eq!(answer.code, 3, "{}", answer.stderr);
        let told = format!("{}{}", answer.stdout, answer.stderr);
        let truths = "is `shop-blue` in HAProxy's memory and `shop-green` in the file";
        assert!(told.contains(truths), "{told}");
        assert!(told.contains("find out who moved it"), "{told}");
    }
    assert_eq!(shop.backend(), "shop-blue");
}

#[test]
fn a_balancer_that_answers_late_is_waited_for() {
    let shop = Colours::live("");
    let crowd = Crowd::at(shop.haproxy.front);
    for (command, version) in [("show map ", "1.1.0"), ("set map ", "1.1.1")] {
        shop.late.hold(command);
        let mut conductor = shop.fleet.start(&deploying("1.1.0", version));
        until("the answer is late", || shop.late.holding() > 0);
        crowd.go_on(100);
        assert!(conductor.try_wait().unwrap().is_none(), "it waits");

        shop.late.release();

        assert_eq!(conductor.wait().unwrap().code(), Some(0), "late: {command}");
        assert_eq!(shop.fleet.site.report()["status"], "SUCCEEDED");
    }

    shop.assert_all_at("blue", "1.1.1");
    let _ = crowd.stop();
}

#[test]
fn traffic_that_somebody_else_moved_is_not_moved_before_an_operator_says_what_is_live() {
    let shop = Colours::live("");
    shop.fleet.deploy("1.1.0", "1.1.0").ok();
    shop.fleet.site.write("maps/live.map", "live shop-blue\n");
    let _ = shop
        .haproxy
        .ask(&format!("set map {} live shop-blue", shop.map()));

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

#[test]
fn traffic_that_somebody_moves_while_a_colour_is_deployed_stays_where_they_put_it() {
    let shop = Colours::live("");
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
    shop.fleet.site.write("maps/live.map", "live maintenance\n");
    let _ = shop
        .haproxy
        .ask(&format!("set map {} live maintenance", shop.map()));

    std::fs::write(&go_on, "").unwrap();

    assert_eq!(conductor.wait().unwrap().code(), Some(4));
    assert_eq!(shop.backend(), "maintenance");
    let report = shop.fleet.site.report();
    assert_eq!(report["deployments"][0]["status"], "FAILED");
    let reason = report["deployments"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("blue 100%"), "{reason}");
}

#[test]
fn a_colour_of_which_a_part_failed_is_completed_by_a_retry_and_gets_the_traffic() {
    let shop = Colours::live("");
    let broken = shop.fleet.site.path("broken");
    std::fs::write(&broken, "").unwrap();
    shop.fleet.site.script(
        "1.1.0/bin/validate.sh",
        &format!(
            "#!/bin/sh\n[ \"$CUTOVER_INSTANCE_ID\" != green-2 ] || ! [ -e '{}' ] || {{ echo the disk is full; exit 1; }}\n",
            broken.display()
        ),
    );
    let crowd = Crowd::at(shop.haproxy.front);
    let failed = shop.fleet.deploy("1.1.0", "1.1.0");
    assert_eq!(failed.code, 4, "{}", failed.stderr);
    assert_eq!(shop.backend(), "shop-blue");
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
    let _ = crowd.stop();
}

#[test]
fn a_retry_never_changes_the_colour_that_serves() {
    let shop = Colours::start("");
    let failed = shop.fleet.deploy("invalid", "1.0.0");
    assert_eq!(failed.code, 4, "{}", failed.stderr);
    let failed = shop.fleet.newest();
    shop.fleet.site.write("maps/live.map", "live shop-blue\n");
    let _ = shop
        .haproxy
        .ask(&format!("add map {} live shop-blue", shop.map()));

    let refused = shop.fleet.site.cutover(&["retry", &failed, "--failed"]);

    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let reason = "was to go to `blue` of shop/web, which has the traffic by now";
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);
}

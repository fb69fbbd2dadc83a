//! Whole releases, in front of a real HAProxy that does what the API is told, while visitors come.

use std::process::{Child, Stdio};

use cutover_tests::{Connections, Pace, Visitors, until, visits};

use super::*;

/// Asserts that every visitor is served by this version, on instances whose ids begin so.
fn assert_all_at(shop: &Shop, version: &str, beginning: &str) {
    let visits = visits(shop.front(), Connections::Fresh, 100);
    assert_eq!(visits.failed, 0, "{visits:?}");
    assert_eq!(visits.of_version(version), visits.total(), "{visits:?}");
    assert_eq!(visits.of_instances(beginning), visits.total(), "{visits:?}");
}

/// Visitors while something is done; none may fail.
fn while_visited<T>(shop: &Shop, act: impl FnOnce() -> T) -> T {
    let visitors = Visitors::start(shop.front(), Connections::Fresh, Pace::Steady);
    let answer = act();
    let visits = visitors.stop();
    assert_eq!(visits.failed, 0, "{visits:?}");
    answer
}

#[test]
fn a_rolling_release_and_its_way_back_lose_no_request_in_either_dialect() {
    for dialect in ["JDCLOUD2", "JDCLOUD3"] {
        let shop = Shop::serving(&["web-1", "web-2", "web-3"]);
        shop.rolling(&format!(
            "group: group-MWd2XvpgEj, drain: 100ms, signature: {dialect}"
        ));
        shop.site.cutover(&["check"]).ok();
        shop.deploy("1.0.0", "1.0.0").ok();
        let name = shop.cloud.with(|cloud| cloud.attached()).unwrap();
        assert!(name.starts_with("deploy_R_group-MWd2XvpgEj_"), "{name}");
        assert_eq!(shop.live(), shop.targets("web"));
        assert_all_at(&shop, "1.0.0", "web");

        while_visited(&shop, || shop.deploy("1.1.0", "1.1.0").ok());
        assert_all_at(&shop, "1.1.0", "web");
        while_visited(&shop, || shop.rollback().ok());

        assert_all_at(&shop, "1.0.0", "web");
        assert_eq!(shop.live(), shop.targets("web"));
        let visits = shop.cloud.visits();
        let signed = visits.iter().all(|visit| {
            let authorization = visit.request.header("authorization");
            authorization.is_some_and(|it| it.starts_with(dialect)) && visit.is_done()
        });
        assert!(signed, "every request was signed and done");
        assert_eq!(shop.cloud.with(|cloud| cloud.groups.len()), 1);
    }
}

#[test]
fn colours_get_target_groups_of_their_own_and_the_traffic_in_turn() {
    let shop = Shop::serving(&["blue-1", "blue-2", "green-1", "green-2"]);
    shop.colours("", "group: web");
    shop.site.cutover(&["check"]).ok();
    let name = |shop: &Shop| shop.cloud.with(|cloud| cloud.attached()).unwrap();

    shop.deploy("1.0.0", "1.0.0").ok();
    assert!(name(&shop).starts_with("deploy_B_web_"));
    assert_eq!(
        shop.cloud.with(|cloud| cloud.groups.len()),
        1,
        "only blue is deployed first"
    );
    assert_all_at(&shop, "1.0.0", "blue");

    shop.deploy("1.1.0", "1.1.0").ok();
    assert!(name(&shop).starts_with("deploy_G_web_"));
    assert_all_at(&shop, "1.1.0", "green");
    assert_eq!(shop.live(), shop.targets("green"));

    shop.rollback().ok();
    assert!(name(&shop).starts_with("deploy_B_web_"));
    assert_all_at(&shop, "1.0.0", "blue");

    shop.deploy("1.1.0", "1.2.0").ok();
    assert_all_at(&shop, "1.2.0", "green");
    assert_eq!(shop.cloud.with(|cloud| cloud.groups.len()), 2);
    let methods: Vec<_> = shop
        .cloud
        .visits()
        .iter()
        .map(|it| it.request.method.clone())
        .collect();
    assert!(!methods.contains(&"DELETE".to_owned()));
}

#[test]
fn a_colour_that_the_health_check_finds_dead_gives_the_traffic_back() {
    let shop = Shop::serving(&["blue-1", "green-1"]);
    shop.colours("", "group: web, settle: 1s");
    shop.deploy("1.0.0", "1.0.0").ok();

    let failed = shop.deploy("silent", "1.1.0");

    assert_eq!(failed.code, 4, "{}", failed.stderr);
    let said = "passed the health check of backend `backend-1`";
    assert!(failed.stderr.contains(said), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("the traffic is back at"),
        "{}",
        failed.stderr
    );
    // The balancer has to find it well first, as it did before.
    until("the first colour gets requests again", || {
        visits(shop.front(), Connections::Fresh, 1).failed == 0
    });
    assert_all_at(&shop, "1.0.0", "blue");
}

#[test]
fn a_canary_is_split_by_weights_and_taken_back() {
    let shop = Shop::serving(&["web-1", "web-2", "web-3", "web-4"]);
    shop.canary(
        ", traffic: 20%, promote: manual",
        "group: web, drain: 100ms",
    );
    shop.site.cutover(&["check"]).ok();
    promoted(&shop, "1.0.0", "1.0.0");
    assert_eq!(shop.live(), shop.targets("web"));

    let mut conductor = start(&shop, &deploying("1.1.0", "1.1.0"));
    await_promotion(&shop, &mut conductor);
    let visits = visits(shop.front(), Connections::Fresh, 2000);
    let share = visits.percent_of_version("1.1.0");
    assert!((share - 20.0).abs() <= 3.0, "{share} %: {visits:?}");
    while_visited(&shop, || shop.rollback().ok());
    assert_eq!(conductor.wait().unwrap().code(), Some(4));
    assert_all_at(&shop, "1.0.0", "web");
    assert_eq!(shop.live(), shop.targets("web"), "all weigh the same again");

    while_visited(&shop, || promoted(&shop, "1.1.0", "1.2.0"));
    assert_all_at(&shop, "1.2.0", "web");
    assert_eq!(shop.live(), shop.targets("web"));
    while_visited(&shop, || shop.rollback().ok());
    assert_all_at(&shop, "1.0.0", "web");
    assert_eq!(shop.live(), shop.targets("web"));
}

fn start(shop: &Shop, arguments: &[&str]) -> Child {
    let log = std::fs::File::create(shop.site.path("conductor.log")).unwrap();
    let mut command = shop.site.command(arguments);
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn await_promotion(shop: &Shop, conductor: &mut Child) {
    until("the release waits for its promotion", || {
        let report = shop.site.report_of_newest();
        let last = report["deployments"]
            .as_array()
            .and_then(|it| it.last().cloned());
        let holds = last
            .and_then(|it| it["holds"].as_array().cloned())
            .unwrap_or_default();
        let waits = holds
            .last()
            .is_some_and(|it| it["kind"] == "promotion" && it["status"] == "WAITING");
        assert!(
            waits || conductor.try_wait().unwrap().is_none(),
            "{}",
            std::fs::read_to_string(shop.site.path("conductor.log")).unwrap()
        );
        waits
    });
}

/// Deploys, and promotes when the release waits for it.
fn promoted(shop: &Shop, package: &str, version: &str) {
    let mut conductor = start(shop, &deploying(package, version));
    await_promotion(shop, &mut conductor);
    let id = shop.site.report_of_newest()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    shop.site.cutover(&["promote", &id]).ok();
    let code = conductor.wait().unwrap().code();
    let log = std::fs::read_to_string(shop.site.path("conductor.log")).unwrap();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn addresses_are_registered_where_the_group_is_of_addresses() {
    let shop = Shop::serving(&["web-1", "web-2"]);
    shop.cloud
        .with(|cloud| cloud.add_group("tg-ip", "of-addresses", "ip"));
    shop.rolling("target_group: tg-ip, target: ip, several_per_host: true, drain: 0");

    shop.deploy("1.0.0", "1.0.0").ok();
    while_visited(&shop, || shop.deploy("1.1.0", "1.1.0").ok());

    assert_all_at(&shop, "1.1.0", "web");
    assert_eq!(
        shop.cloud.with(|cloud| cloud.attached()).as_deref(),
        Some("of-addresses")
    );
}

#[test]
fn an_nlb_is_released_to_as_well() {
    let shop = Shop::serving(&["web-1", "web-2"]);
    shop.cloud.with(|cloud| cloud.kind = "nlb".to_owned());
    shop.rolling("group: web");

    shop.deploy("1.0.0", "1.0.0").ok();
    while_visited(&shop, || shop.deploy("1.1.0", "1.1.0").ok());

    assert_all_at(&shop, "1.1.0", "web");
}

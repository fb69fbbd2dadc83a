//! Deployments between sides, with the traffic in a file: which side is live, the switch, the way back and canaries.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use cutover_tests::{Answer, Site};
use serde_json::Value;

const PLUGIN: &str = "plugins:\n  lb:\n    component: file-balancer\n    \
    grants: {directories: [{name: pool, path: lb, access: read-write}]}\n";

fn instance(site: &Site, id: &str, port: u16) -> String {
    format!(
        "{{id: {id}, host: \"local:\", rootdir: \"{}\", address: \"127.0.0.1:{port}\"}}",
        site.path(id).display()
    )
}

/// Two colours of one instance each, both in traffic within their own groups.
fn colours(rest: &str) -> Site {
    let site = Site::new();
    let mut text =
        format!("{PLUGIN}applications:\n  shop:\n    groups:\n      web:\n        sides:\n");
    for (colour, port) in [("blue", 8081), ("green", 8082)] {
        let id = format!("web-{colour}");
        let _ = writeln!(
            text,
            "          {colour}: {{group: {{file: {colour}.txt}}, instances: [{}]}}",
            instance(&site, &id, port)
        );
        site.write(
            &format!("lb/{colour}.txt"),
            &format!("{id} 127.0.0.1:{port} 100\n"),
        );
    }
    text.push_str(rest);
    site.write("cutover.yaml", &text);
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        site.traced_package(version, version, "");
    }
    site
}

fn blue_green() -> Site {
    colours(
        "        strategy: {type: blue-green}\n        traffic: {plugin: lb, config: {directory: pool}, timeout: 2s}\n",
    )
}

fn deploy(site: &Site, version: &str, more: &[&str]) -> Answer {
    let arguments = [
        "deploy",
        "shop/web",
        "--package",
        version,
        "--version",
        version,
    ];
    site.cutover(&[&arguments[..], more].concat())
}

fn split(site: &Site) -> String {
    std::fs::read_to_string(site.path("lb/split.txt"))
        .unwrap_or_default()
        .trim()
        .replace('\n', ", ")
}

fn events(site: &Site) -> Vec<String> {
    site.take_trace()
}

fn switches(report: &Value) -> &Vec<Value> {
    report["deployments"][0]["switches"].as_array().unwrap()
}

#[test]
fn traffic_goes_to_the_first_side_then_to_the_idle_one_and_back() {
    let site = blue_green();

    deploy(&site, "1.0.0", &[]).ok();
    assert_eq!(split(&site), "blue 100, green 0");
    assert!(
        events(&site)
            .iter()
            .all(|line| line.starts_with("web-blue "))
    );

    deploy(&site, "2.0.0", &[]).ok();
    assert_eq!(split(&site), "blue 0, green 100");
    assert!(
        events(&site)
            .iter()
            .all(|line| line.starts_with("web-green "))
    );
    assert_eq!(switches(&site.report()).len(), 1);

    site.cutover(&["rollback", "shop/web"]).ok();
    assert_eq!(split(&site), "blue 100, green 0");
    assert_eq!(events(&site), ["web-blue ValidateService 1.0.0 1"]);
}

#[test]
fn traffic_that_somebody_moved_stops_the_plan_with_both_truths() {
    let site = blue_green();
    deploy(&site, "1.0.0", &[]).ok();
    let _ = events(&site);
    site.write("lb/split.txt", "green 100\n");

    let refused = deploy(&site, "2.0.0", &[]);

    assert_eq!(refused.code, 3, "{}", refused.stderr);
    for part in ["green 100%", "blue 100%", "--live green"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert_eq!(events(&site), [""; 0]);
    let named_wrongly = deploy(&site, "2.0.0", &["--live", "blue"]);
    assert_eq!(named_wrongly.code, 3, "{}", named_wrongly.stderr);

    deploy(&site, "2.0.0", &["--live", "green"]).ok();
    assert_eq!(split(&site), "blue 100, green 0");
    assert!(
        events(&site)
            .iter()
            .all(|line| line.starts_with("web-blue "))
    );
}

#[test]
fn a_side_that_is_not_healthy_gets_no_traffic() {
    let site = blue_green();
    deploy(&site, "1.0.0", &[]).ok();
    site.write("lb/green.txt", "");

    let failed = deploy(&site, "2.0.0", &[]);

    assert_ne!(failed.code, 0);
    let report = site.report();
    assert_eq!(report["status"], "FAILED");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("green: web-green absent"), "{reason}");
    assert_eq!(split(&site), "blue 100, green 0");
}

fn latest(site: &Site) -> String {
    let report = site.report();
    report["deployments"][0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_old_deployment_is_redeployed_to_the_idle_side() {
    let site = blue_green();
    deploy(&site, "1.0.0", &[]).ok();
    let template = latest(&site);
    deploy(&site, "2.0.0", &[]).ok();
    let _ = events(&site);

    site.cutover(&["redeploy", &template, "--version", "4.0.0"])
        .ok();

    assert_eq!(split(&site), "blue 100, green 0");
    assert!(
        events(&site)
            .iter()
            .all(|line| line.starts_with("web-blue "))
    );
    let report = site.report();
    assert_eq!(report["deployments"][0]["revision"]["version"], "4.0.0");
    assert_eq!(report["deployments"][0]["strategy"], "blue-green");
    // Blue had 1.0.0 in between, so what is returned to is what green has.
    site.cutover(&["rollback", "shop/web"]).ok();
    assert_eq!(split(&site), "blue 0, green 100");
}

#[test]
fn the_sides_of_a_canary_alternate_and_a_return_to_an_old_version_stays_where_the_traffic_is() {
    let site = Site::new();
    let mut text =
        format!("{PLUGIN}applications:\n  shop:\n    groups:\n      web:\n        instances:\n");
    for (id, port) in [("web-1", 8081), ("web-2", 8082)] {
        let _ = writeln!(text, "          - {}", instance(&site, id, port));
    }
    text.push_str(
        "        sides: {current: {group: {file: a.txt}}, new: {group: {file: b.txt}}}\n        \
         strategy: {type: canary, promote: {after: 1s}}\n        \
         load_balancer: {plugin: lb, config: {directory: pool}, timeout: 5s}\n        \
         traffic: {plugin: lb, config: {directory: pool}, timeout: 5s}\n",
    );
    site.write("cutover.yaml", &text);
    site.write("lb/split.txt", "current 100\n");
    site.write(
        "lb/a.txt",
        "web-1 127.0.0.1:8081 100\nweb-2 127.0.0.1:8082 100\n",
    );
    site.write("lb/b.txt", "");
    for version in ["1.0.0", "2.0.0"] {
        site.traced_package(version, version, "");
    }
    let read = |name: &str| std::fs::read_to_string(site.path(name)).unwrap();

    deploy(&site, "1.0.0", &[]).ok();
    assert_eq!(split(&site), "current 0, new 100");
    let template = latest(&site);
    deploy(&site, "2.0.0", &[]).ok();
    assert_eq!(split(&site), "current 100, new 0");
    assert_eq!(read("lb/b.txt"), "");

    site.cutover(&["rollback", "shop/web", "--to", "1.0.0", "--yes"])
        .ok();
    assert_eq!(split(&site), "current 100, new 0");
    assert_eq!(read("lb/a.txt").lines().count(), 2);
    assert_eq!(switches(&site.report()).len(), 0);

    site.cutover(&["redeploy", &template, "--version", "3.0.0"])
        .ok();
    assert_eq!(split(&site), "current 0, new 100");
    assert_eq!(read("lb/b.txt").lines().count(), 2);
}

#[test]
fn a_canary_of_two_groups_moves_its_instances_and_its_traffic_behind_a_gate() {
    let site = Site::new();
    let mut text =
        format!("{PLUGIN}applications:\n  shop:\n    groups:\n      web:\n        instances:\n");
    for (id, port) in [("web-1", 8081), ("web-2", 8082), ("web-3", 8083)] {
        let _ = writeln!(text, "          - {}", instance(&site, id, port));
    }
    text.push_str(
        "        sides: {current: {group: {file: a.txt}}, new: {group: {file: b.txt}}}\n        \
         strategy: {type: canary, first_batch: 1, remaining_batches: 1, traffic: 50%, promote: {after: 1s}}\n        \
         load_balancer: {plugin: lb, config: {directory: pool}, timeout: 5s}\n        \
         traffic: {plugin: lb, config: {directory: pool}, timeout: 5s}\n        \
         gates: [{name: smoke, after: first, interval: 1s, timeout: 30s, \
         command: 'cp lb/split.txt seen; echo \"$CUTOVER_BATCH/$CUTOVER_BATCHES $CUTOVER_INSTANCES\" >> gate; test $(wc -l < gate) -gt 1 || exit 75'}]\n",
    );
    site.write("cutover.yaml", &text);
    site.write("lb/split.txt", "current 100\n");
    site.write(
        "lb/a.txt",
        "web-1 127.0.0.1:8081 100\nweb-2 127.0.0.1:8082 100\nweb-3 127.0.0.1:8083 100\n",
    );
    site.write("lb/b.txt", "");
    site.traced_package("1.0.0", "1.0.0", "");

    let answer = deploy(&site, "1.0.0", &[]).ok();

    let read = |name: &str| std::fs::read_to_string(site.path(name)).unwrap();
    assert!(
        answer.stderr.contains(
            "the canary gets 50% of the traffic, and 1 of 3 instances carries 34% by number"
        ),
        "{}",
        answer.stderr
    );
    assert_eq!(read("seen"), "current 50\nnew 50\n");
    assert_eq!(read("gate"), "1/2 web-1\n1/2 web-1\n");
    assert_eq!(split(&site), "current 0, new 100");
    assert_eq!(read("lb/a.txt"), "");
    assert_eq!(read("lb/b.txt").lines().count(), 3);
}

#[test]
fn a_check_asks_the_router_and_names_the_place_of_what_is_wrong() {
    let site = blue_green();
    site.write("lb/split.txt", "blue much\n");

    let checked = site.cutover(&["check"]);

    assert_eq!(checked.code, 3);
    let told = format!("{}{}", checked.stdout, checked.stderr);
    assert!(
        told.contains("line 1 of `split.txt` is not `SIDE PERCENT`"),
        "{told}"
    );
}

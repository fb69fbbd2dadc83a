//! What programs read: the JSON of the commands that show data.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use cutover_tests::{Site, until};
use serde_json::{Value, json};

fn shop() -> Site {
    let site = Site::with_instances(2, "");
    site.traced_package("v1", "1.0.0", "");
    site
}

fn answer(site: &Site, arguments: &[&str]) -> Value {
    site.cutover(&[arguments, &["--output", "json"]].concat())
        .ok()
        .json()
}

/// The names of an object's fields.
fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn deploy(site: &Site, version: &str) -> Value {
    answer(
        site,
        &[
            "deploy",
            "shop/web",
            "--package",
            "v1",
            "--version",
            version,
            "--comment",
            "try it",
        ],
    )
}

#[test]
fn a_deployment_answers_with_its_report() {
    let site = shop();

    let report = deploy(&site, "1.0.0");

    assert_eq!(report["status"], "SUCCEEDED");
    assert_eq!(report["status_zh"], "执行成功");
    assert_eq!(report["comment"], "try it");
    let id = report["id"].as_str().unwrap();
    assert_eq!(report, answer(&site, &["report", id]));
    assert_eq!(report, answer(&site, &["show", id]));
    assert_eq!(
        keys(&report["deployments"][0]["instances"][0]["steps"][0]),
        [
            "attempt",
            "ended_at",
            "event",
            "exit_code",
            "log",
            "reason",
            "revision",
            "started_at",
            "status",
            "version"
        ]
    );
}

#[test]
fn a_failed_deployment_answers_with_its_report_too() {
    let site = shop();
    site.traced_package("v1", "1.0.0", "exit 3");

    let failed = site.cutover(&["deploy", "shop/web", "--package", "v1", "--output", "json"]);

    assert_eq!(failed.code, 4);
    assert_eq!(failed.json()["status"], "FAILED");
}

#[test]
fn the_lists() {
    let site = shop();
    assert_eq!(answer(&site, &["ls"]), json!({"v": 1, "releases": []}));
    assert_eq!(
        answer(&site, &["history", "shop/web"]),
        json!({"v": 1, "group": "shop/web", "deployments": [], "mixed_versions": {}})
    );
    assert_eq!(
        answer(&site, &["check"]),
        json!({"v": 1, "ok": true, "problems": []})
    );
    deploy(&site, "1.0.0");
    deploy(&site, "1.1.0");
    site.cutover(&["rollback", "shop/web"]).ok();

    let listed = answer(&site, &["ls"]);
    let history = answer(&site, &["history", "shop/web"]);

    let releases = listed["releases"].as_array().unwrap();
    assert_eq!(releases.len(), 3);
    assert_eq!(
        keys(&releases[0]),
        [
            "comment",
            "ended_at",
            "groups",
            "id",
            "operator",
            "started_at",
            "status",
            "status_zh"
        ]
    );
    assert_eq!(releases[1]["groups"], json!(["shop/web"]));
    assert_eq!(releases[1]["comment"], "try it");
    let deployments = history["deployments"].as_array().unwrap();
    let taken_back = &deployments[1];
    assert_eq!(deployments[0]["direction"], "rollback");
    assert_eq!(deployments[0]["rolls_back"], taken_back["id"]);
    assert_eq!(taken_back["rolled_back_by"], deployments[0]["id"]);
    assert_eq!(taken_back["version"], "1.1.0");
    assert_eq!(taken_back["release"], releases[1]["id"]);
}

#[test]
fn logs_are_lines_of_json() {
    let site = shop();
    let id = deploy(&site, "1.0.0")["id"].as_str().unwrap().to_owned();

    let logs = site
        .cutover(&["logs", &id, "--event", "Install", "--output", "json"])
        .ok();

    let lines: Vec<Value> = logs
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["v"], &lines[0]["type"]),
        (&json!(1), &json!("log"))
    );
    assert_eq!(
        keys(&lines[0]["data"]),
        ["attempt", "event", "instance", "path", "text"]
    );
}

#[test]
fn a_release_that_runs_is_followed_from_another_process_to_its_report() {
    let site = shop();
    // The first instance waits until the watcher has seen its first steps.
    let go = site.path("go");
    site.traced_package(
        "v1",
        "1.0.0",
        &format!(
            "[ $LIFECYCLE_EVENT != ApplicationStart ] || until [ -e '{}' ]; do sleep 0.02; done",
            go.display()
        ),
    );
    let mut conductor = site.start(&[
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.0.0",
    ]);
    until("the release is open", || !site.report_of_newest().is_null());
    let id = site.report_of_newest()["id"].as_str().unwrap().to_owned();

    let mut watcher = site
        .command(&["watch", &id[..4], "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watcher.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let is_after_install = |line: &Value| line["data"]["target"] == "web-1 AfterInstall";
    let live = lines.find(is_after_install).unwrap();
    let running = answer(&site, &["show", &id]);
    site.write("go", "");
    let rest: Vec<_> = lines.collect();

    assert!(conductor.wait().unwrap().success());
    assert!(watcher.wait().unwrap().success());
    assert_eq!((&live["v"], &live["type"]), (&json!(1), &json!("line")));
    assert_eq!(
        keys(&live["data"]),
        ["at", "detail", "target", "took_ms", "verb"]
    );
    assert_eq!(live["data"]["verb"], "done");
    assert_eq!(running["status"], "RUNNING");
    assert!(
        running["waiting_for"]
            .as_str()
            .unwrap()
            .contains("on web-1 for"),
        "{running}"
    );
    let last = rest.last().unwrap();
    assert_eq!(last["type"], "report");
    assert_eq!(last["data"]["status"], "SUCCEEDED");
    assert_eq!(last["data"], answer(&site, &["report", &id]));
}

#[test]
fn a_watcher_ends_as_the_release_did() {
    let site = shop();
    site.traced_package("v1", "1.0.0", "exit 3");
    let failed = site.cutover(&["deploy", "shop/web", "--package", "v1", "--output", "json"]);
    let id = failed.json()["id"].as_str().unwrap().to_owned();

    let watched = site.cutover(&["watch", &id, "--output", "json"]);

    assert_eq!(watched.code, 4);
    let last: Value = serde_json::from_str(watched.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["data"]["status"], "FAILED");
}

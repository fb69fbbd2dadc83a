//! `cutover local`: a package tried on this machine without a workspace.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Stdio};

use cutover_tests::{Site, until};
use serde_json::{Value, json};

/// What is traced, without the attempt: `EVENT VERSION` in the order in which it ran.
fn trace(site: &Site) -> Vec<String> {
    let text = fs::read_to_string(site.path("trace")).unwrap_or_default();
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["local", event, version, _] => format!("{event} {version}"),
            _ => line.to_owned(),
        }
    };
    text.lines().map(line).collect()
}

/// Runs `cutover local` with `rootdir` below the site, and answers with the exit status and the JSON object.
fn local(site: &Site, arguments: &[&str]) -> (i32, Value) {
    let rootdir = site.path("root").display().to_string();
    let all = [
        &["local", "--rootdir", &rootdir, "--output", "json"],
        arguments,
    ]
    .concat();
    let answer = site.cutover(&all);
    (answer.code, answer.json())
}

#[track_caller]
fn check(answer: &(i32, Value), code: i32, expected: &Value) {
    assert_eq!(answer.0, code, "{}", answer.1);
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&answer.1[key], value, "`{key}` of {}", answer.1);
    }
}

#[test]
fn a_package_is_tried_and_taken_back_without_a_workspace() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "echo hello from $LIFECYCLE_EVENT");
    site.traced_package("v2", "2.0.0", "");

    let first = local(&site, &["--bundle", "v1", "--deployment-id", "d-1"]);
    let second = local(&site, &["--bundle", "v2", "--deployment-id", "d-2"]);
    let back = local(&site, &["--rollback"]);

    let none = json!({
        "v": 1, "status": "SUCCEEDED", "failed_event": null, "script": null, "exit_code": null, "code": null,
        "revision": null,
    });
    for answer in [&first, &second, &back] {
        check(answer, 0, &none);
    }
    assert_eq!(first.1["deployment"], "d-1");
    let log = fs::read_to_string(first.1["log"].as_str().unwrap()).unwrap();
    assert!(log.contains("hello from ApplicationStart"), "{log}");
    assert_eq!(
        trace(&site),
        [
            "BeforeInstall 1.0.0",
            "AfterInstall 1.0.0",
            "ApplicationStart 1.0.0",
            "ValidateService 1.0.0",
            "ApplicationStop 1.0.0",
            "BeforeInstall 2.0.0",
            "AfterInstall 2.0.0",
            "ApplicationStart 2.0.0",
            "ValidateService 2.0.0",
            "ApplicationStop 2.0.0",
            "BeforeInstall 1.0.0",
            "AfterInstall 1.0.0",
            "ApplicationStart 1.0.0",
            "ValidateService 1.0.0",
        ]
    );
    let installed = fs::read_to_string(site.path("root/app/version.txt")).unwrap();
    assert_eq!(installed, "1.0.0");
}

#[test]
fn a_failing_script_is_named_with_its_event_its_code_and_its_revision() {
    let site = Site::new();
    let fails_at =
        |event: &str, code: i32| format!("[ $LIFECYCLE_EVENT = {event} ] && exit {code}; exit 0");
    site.traced_package("v1", "1.0.0", &fails_at("ApplicationStop", 3));
    site.traced_package("v2", "2.0.0", &fails_at("ValidateService", 4));
    local(&site, &["--bundle", "v1"]);

    let stopped = local(&site, &["--bundle", "v2"]);
    check(
        &stopped,
        4,
        &json!({"status": "FAILED", "failed_event": "ApplicationStop", "script": "bin/hook.sh", "exit_code": 3,
                "code": "script-failed", "revision": "outgoing"}),
    );

    let ignored = local(&site, &["--bundle", "v2", "--ignore-stop-failures"]);
    check(
        &ignored,
        4,
        &json!({"status": "FAILED", "failed_event": "ValidateService", "exit_code": 4, "revision": "incoming"}),
    );
}

#[test]
fn what_cannot_begin_is_refused_and_changes_nothing() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "");
    site.write(
        "broken/appspec.yml",
        "version: 0.0\nos: linux\nhooks:\n  Applicationstart:\n    - location: bin/none.sh\n",
    );
    site.write("empty/readme", "");

    check(
        &local(&site, &["--bundle", "nowhere"]),
        3,
        &json!({"status": "REFUSED", "code": "fetch-failed"}),
    );
    for bundle in ["broken", "empty"] {
        check(
            &local(&site, &["--bundle", bundle]),
            3,
            &json!({"status": "REFUSED", "code": "invalid", "failed_event": null}),
        );
    }
    check(
        &local(&site, &["--bundle", "v1", "--type", "tgz"]),
        3,
        &json!({"status": "REFUSED", "code": "invalid"}),
    );
    check(
        &local(&site, &["--rollback"]),
        3,
        &json!({"status": "REFUSED", "code": "invalid"}),
    );
    assert_eq!(trace(&site), Vec::<String>::new());

    check(
        &local(&site, &["--bundle", "v1", "--deployment-id", "d-1"]),
        0,
        &json!({"status": "SUCCEEDED"}),
    );
    let again = local(&site, &["--bundle", "v1", "--deployment-id", "d-1"]);
    check(
        &again,
        3,
        &json!({"status": "REFUSED", "deployment": "d-1"}),
    );
}

#[test]
fn a_file_that_is_there_already_is_refused_before_any_hook_or_treated_as_asked() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "");
    site.write("root/app/version.txt", "somebody's own");

    let refused = local(&site, &["--bundle", "v1"]);
    check(
        &refused,
        3,
        &json!({"status": "REFUSED", "failed_event": "Install", "code": "install-failed"}),
    );
    let message = refused.1["message"].as_str().unwrap();
    assert!(message.contains("version.txt"), "{message}");
    assert_eq!(trace(&site), Vec::<String>::new());
    let own = fs::read_to_string(site.path("root/app/version.txt")).unwrap();
    assert_eq!(own, "somebody's own");

    let overwrite = ["--bundle", "v1", "--file-exists-behavior", "OVERWRITE"];
    check(
        &local(&site, &overwrite),
        0,
        &json!({"status": "SUCCEEDED"}),
    );
    let laid_down = fs::read_to_string(site.path("root/app/version.txt")).unwrap();
    assert_eq!(laid_down, "1.0.0");
}

/// A command that traces the word it is given, and the event.
fn traffic_command(site: &Site) -> String {
    let line = format!(
        "#!/bin/sh\necho \"traffic $1 $LIFECYCLE_EVENT\" >> '{}'\n",
        site.path("trace").display()
    );
    site.script("traffic.sh", &line);
    site.path("traffic.sh").display().to_string()
}

#[test]
fn a_command_stands_in_for_the_balancer() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "2.0.0", "");
    let command = traffic_command(&site);
    local(&site, &["--bundle", "v1"]);
    fs::remove_file(site.path("trace")).unwrap();

    let balanced = ["--bundle", "v2", "--balancer-command", &command];
    check(&local(&site, &balanced), 0, &json!({"status": "SUCCEEDED"}));

    assert_eq!(
        trace(&site),
        [
            "BeforeBlockTraffic 1.0.0",
            "traffic deregister BlockTraffic",
            "AfterBlockTraffic 1.0.0",
            "ApplicationStop 1.0.0",
            "BeforeInstall 2.0.0",
            "AfterInstall 2.0.0",
            "ApplicationStart 2.0.0",
            "ValidateService 2.0.0",
            "BeforeAllowTraffic 2.0.0",
            "traffic register AllowTraffic",
            "AfterAllowTraffic 2.0.0",
        ]
    );
}

#[test]
fn a_blue_green_workflow_switches_once_and_switches_back() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "2.0.0", "");
    let command = traffic_command(&site);
    let blue_green = ["--profile", "blue-green", "--balancer-command", &command];
    local(&site, &[&["--bundle", "v1"], &blue_green[..]].concat());
    fs::remove_file(site.path("trace")).unwrap();

    let there = local(&site, &[&["--bundle", "v2"], &blue_green[..]].concat());
    check(&there, 0, &json!({"status": "SUCCEEDED"}));
    let back = local(&site, &["--rollback"]);
    check(&back, 0, &json!({"status": "SUCCEEDED"}));

    assert_eq!(
        trace(&site),
        [
            "ApplicationStop 1.0.0",
            "BeforeInstall 2.0.0",
            "AfterInstall 2.0.0",
            "ApplicationStart 2.0.0",
            "ValidateService 2.0.0",
            "traffic switch SwitchTraffic",
            "ValidateService 1.0.0",
            "traffic switch SwitchTraffic",
        ]
    );
}

#[test]
fn a_traffic_command_that_fails_fails_the_run() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "");
    site.script(
        "traffic.sh",
        "#!/bin/sh\necho the balancer is away; exit 7\n",
    );
    let command = site.path("traffic.sh").display().to_string();

    let balanced = local(&site, &["--bundle", "v1", "--balancer-command", &command]);
    check(
        &balanced,
        4,
        &json!({"failed_event": "BlockTraffic", "exit_code": 7, "code": "script-failed", "revision": null}),
    );
    let switched = [
        "--bundle",
        "v1",
        "--profile",
        "blue-green",
        "--balancer-command",
        &command,
    ];
    check(
        &local(&site, &switched),
        4,
        &json!({"failed_event": "SwitchTraffic", "exit_code": 7, "code": "script-failed"}),
    );
}

#[test]
fn only_the_events_asked_for_take_place_beside_download_and_install() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "");

    let some = [
        "--bundle",
        "v1",
        "--events",
        "ValidateService,BeforeInstall",
    ];
    check(&local(&site, &some), 0, &json!({"status": "SUCCEEDED"}));

    assert_eq!(
        trace(&site),
        ["BeforeInstall 1.0.0", "ValidateService 1.0.0"]
    );
    assert!(site.path("root/app/version.txt").exists());
}

#[test]
fn the_environment_of_the_command_reaches_the_hooks() {
    let site = Site::new();
    site.traced_package(
        "v1",
        "1.0.0",
        "echo \"$GREETING from $APPLICATION_NAME/$DEPLOYMENT_GROUP_NAME\"",
    );

    let named = [
        "--bundle",
        "v1",
        "--env",
        "GREETING=good day",
        "--application",
        "shop",
        "--group",
        "web",
    ];
    let (_, answer) = local(&site, &named);

    let log = fs::read_to_string(answer["log"].as_str().unwrap()).unwrap();
    assert!(log.contains("good day from shop/web"), "{log}");
}

#[test]
fn rootdirs_and_groups_do_not_know_each_other() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "");
    let stops = |site: &Site| trace(site).contains(&"ApplicationStop 1.0.0".to_owned());
    local(&site, &["--bundle", "v1"]);

    let elsewhere = site.path("elsewhere").display().to_string();
    site.cutover(&["local", "--bundle", "v1", "--rootdir", &elsewhere])
        .ok();
    let other = [
        "--bundle",
        "v1",
        "--group",
        "other",
        "--file-exists-behavior",
        "OVERWRITE",
    ];
    local(&site, &other);
    assert!(!stops(&site));

    local(&site, &["--bundle", "v1"]);
    assert!(stops(&site));
}

#[test]
fn a_run_that_was_killed_is_ended_by_the_next_one_once_its_script_has() {
    let site = Site::new();
    let hold = format!(
        "[ $LIFECYCLE_EVENT = ApplicationStart ] || exit 0; while ! [ -e '{}' ]; do sleep 0.02; done",
        site.path("go-on").display()
    );
    site.traced_package("v1", "1.0.0", &hold);
    site.traced_package("v2", "2.0.0", "");
    let rootdir = site.path("root").display().to_string();
    let mut killed = site.start(&["local", "--bundle", "v1", "--rootdir", &rootdir]);
    until("the service is being started", || {
        trace(&site)
            .last()
            .is_some_and(|line| line == "ApplicationStart 1.0.0")
    });
    killed.kill().unwrap();
    killed.wait().unwrap();

    let next = site.start(&["local", "--bundle", "v2", "--rootdir", &rootdir]);
    site.write("go-on", "");
    let next = next.wait_with_output().unwrap();

    assert!(
        next.status.success(),
        "{}",
        String::from_utf8_lossy(&next.stderr)
    );
    assert_eq!(
        trace(&site),
        [
            "BeforeInstall 1.0.0",
            "AfterInstall 1.0.0",
            "ApplicationStart 1.0.0",
            "ApplicationStop 1.0.0",
            "BeforeInstall 2.0.0",
            "AfterInstall 2.0.0",
            "ApplicationStart 2.0.0",
            "ValidateService 2.0.0",
        ]
    );
}

#[test]
fn an_appspec_may_have_any_name() {
    let site = Site::new();
    site.traced_package("v1", "1.0.0", "");
    fs::rename(site.path("v1/appspec.yml"), site.path("v1/rules.yml")).unwrap();

    check(
        &local(&site, &["--bundle", "v1"]),
        3,
        &json!({"status": "REFUSED", "code": "invalid"}),
    );
    let named = ["--bundle", "v1", "--appspec-filename", "rules.yml"];
    check(&local(&site, &named), 0, &json!({"status": "SUCCEEDED"}));
}

#[test]
fn a_second_run_at_the_same_time_is_refused_with_the_first_one_named() {
    let site = Site::new();
    let hold = format!(
        "while ! [ -e '{}' ]; do sleep 0.02; done",
        site.path("go-on").display()
    );
    site.traced_package("v1", "1.0.0", &hold);
    let rootdir = site.path("root").display().to_string();
    let mut first = site.start(&["local", "--bundle", "v1", "--rootdir", &rootdir]);
    until("the first run is under way", || !trace(&site).is_empty());

    let second = local(&site, &["--bundle", "v1"]);
    check(&second, 6, &json!({"status": "REFUSED"}));

    site.write("go-on", "");
    assert!(first.wait().unwrap().success());
    assert_eq!(trace(&site).len(), 4);
}

/// Ctrl-C leaves the script that is running to its end; nothing after it starts.
#[test]
fn an_interrupted_run_says_so() {
    let site = Site::new();
    let hold = format!(
        "while ! [ -e '{}' ]; do sleep 0.02; done",
        site.path("go-on").display()
    );
    site.traced_package("v1", "1.0.0", &hold);
    let rootdir = site.path("root").display().to_string();
    let run = site
        .command(&[
            "local",
            "--bundle",
            "v1",
            "--rootdir",
            &rootdir,
            "--output",
            "json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("the first hook is running", || !trace(&site).is_empty());
    let id = i32::try_from(run.id()).unwrap();
    Command::new("kill")
        .args(["-INT", &id.to_string()])
        .status()
        .unwrap();

    let output = run.wait_with_output().unwrap();

    assert_eq!(output.status.code(), Some(130));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["status"], &answer["code"]),
        (&"FAILED".into(), &"interrupted".into())
    );
    site.write("go-on", "");
    let next = local(&site, &["--bundle", "v1"]);
    check(&next, 0, &json!({"status": "SUCCEEDED"}));
}

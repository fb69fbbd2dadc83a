//! A release survives the death of its conductor at every record, and at any moment while hooks run.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use cutover_tests::{Site, target_folder, until};

const UPGRADE: [&str; 6] = [
    "deploy",
    "shop/web",
    "--package",
    "v2",
    "--version",
    "1.1.0",
];

/// What each instance saw, in its order.
fn by_instance(trace: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in trace {
        let (instance, rest) = line.split_once(' ').unwrap();
        seen.entry(instance.to_owned())
            .or_default()
            .push(rest.to_owned());
    }
    seen
}

fn prepared(instances: usize, hook: &str) -> Site {
    let strategy = "        strategy: {type: rolling, concurrency: 2}\n";
    let site = Site::with_instances(instances, strategy);
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", hook);
    site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.0.0",
    ])
    .ok();
    let _ = site.take_trace();
    site
}

fn undisturbed(instances: usize) -> BTreeMap<String, Vec<String>> {
    let site = prepared(instances, "");
    site.cutover(&UPGRADE).ok();
    by_instance(&site.take_trace())
}

/// Runs the upgrade with a conductor that kills itself as soon as record N is durable, before any action that it
/// authorises, for every N; `resume` has to find what is missing. Gives the number of records.
fn kill_after_every_record(prepared: impl Fn() -> Site, check: impl Fn(&Site, u64)) -> u64 {
    for position in 1.. {
        let site = prepared();
        let status = Command::new(target_folder().join("mortal-conductor"))
            .current_dir(site.path("."))
            .args([
                "cutover.yaml",
                "shop/web",
                "v2",
                "1.1.0",
                &position.to_string(),
            ])
            .arg(target_folder().join("cutover"))
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "it was to die at record {position}");
        let release = site.report_of_newest();
        if release["status"] == "SUCCEEDED" {
            // The last record of all: nothing is left to go on with.
            check(&site, position);
            return position;
        }
        assert_eq!(
            release["status"], "INTERRUPTED",
            "killed after record {position}"
        );

        site.cutover(&["resume", release["id"].as_str().unwrap()])
            .ok();

        check(&site, position);
        assert_eq!(site.report()["status"], "SUCCEEDED");
    }
    unreachable!("a release has a last record")
}

#[test]
fn a_conductor_killed_after_any_record_is_resumed_without_a_trace_of_it() {
    let expected = undisturbed(2);

    let records = kill_after_every_record(
        || prepared(2, ""),
        |site, position| {
            assert_eq!(
                by_instance(&site.take_trace()),
                expected,
                "killed after record {position}"
            );
        },
    );

    assert!(records > 20, "the release has only {records} records");
}

/// The same around a load balancer: the instance is out while it changes, and in at the end, once.
#[test]
fn a_conductor_killed_around_the_balancer_leaves_the_instance_in_it() {
    let prepared = || {
        let site = Site::with_instances(
            1,
            "        load_balancer: {plugin: list, config: {directory: pool, file: upstreams.txt}}\n",
        );
        let text = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
        let addressed = text.replace("id: web-1,", "id: web-1, address: \"127.0.0.1:8081\",");
        let plugin = "plugins:\n  list:\n    component: file-balancer\n    grants: {directories: [{name: pool, path: pool, access: read-write}]}\n";
        site.write("cutover.yaml", &format!("{plugin}{addressed}"));
        site.write("pool/upstreams.txt", "");
        site.traced_package("v1", "1.0.0", "");
        let note = format!(
            "! grep -q web-1 '{}' || echo \"in $LIFECYCLE_EVENT\" >> '{}'",
            site.path("pool/upstreams.txt").display(),
            site.path("seen").display()
        );
        site.traced_package("v2", "1.1.0", &note);
        site.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "v1",
            "--version",
            "1.0.0",
        ])
        .ok();
        let _ = site.take_trace();
        site
    };

    let records = kill_after_every_record(prepared, |site, position| {
        let trace = site.take_trace();
        let upstreams = std::fs::read_to_string(site.path("pool/upstreams.txt")).unwrap();
        let seen = std::fs::read_to_string(site.path("seen")).unwrap_or_default();
        assert_eq!(trace.len(), 9, "killed after record {position}: {trace:?}");
        assert_eq!(
            upstreams
                .lines()
                .filter(|line| line.starts_with("web-1 "))
                .count(),
            1,
            "{upstreams}"
        );
        assert_eq!(
            seen, "in AfterAllowTraffic\n",
            "it is out until it is allowed: record {position}"
        );
    });

    assert!(records > 25, "the release has only {records} records");
}

/// The real program, killed at moments that a seed chooses, again and again, while hooks take their time.
#[test]
fn the_program_killed_at_random_while_hooks_run_repeats_and_skips_nothing() {
    let expected = undisturbed(3);
    for seed in 0..4_u64 {
        let site = prepared(3, "sleep 0.03");
        let mut random = Random(seed * 7919 + 1);
        let mut child = site.start(&UPGRADE);
        until("the release is open", || {
            child.try_wait().unwrap().is_some()
                || site.report_of_newest()["deployments"][0]["revision"]["version"] == "1.1.0"
        });
        let mut kills = 0;
        loop {
            std::thread::sleep(Duration::from_millis(random.below(220)));
            let ended = child.try_wait().unwrap();
            if let Some(status) = ended {
                assert!(status.success(), "seed {seed}: {status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            let id = site.report_of_newest()["id"].as_str().unwrap().to_owned();
            if site.report_of_newest()["status"] == "SUCCEEDED" {
                break;
            }
            child = site.start(&["resume", &id]);
        }

        assert_eq!(
            by_instance(&site.take_trace()),
            expected,
            "seed {seed} with {kills} kills"
        );
        assert_eq!(site.report()["status"], "SUCCEEDED");
    }
}

/// A hook that is running when its conductor dies is not started again: its outcome is asked for.
#[test]
fn a_hook_outlives_its_conductor_and_its_outcome_is_taken() {
    let site = prepared(
        1,
        "[ \"$LIFECYCLE_EVENT\" != ApplicationStart ] || { touch started; while [ ! -e ../../../go ]; do sleep 0.01; done; }",
    );
    let mut child = site.start(&UPGRADE);
    until("the hook runs", || {
        let trace = std::fs::read_to_string(site.path("trace")).unwrap_or_default();
        trace.contains("ApplicationStart")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    site.write("web-1/go", "");

    let id = site.report_of_newest()["id"].as_str().unwrap().to_owned();
    site.cutover(&["resume", &id]).ok();

    let starts = site
        .take_trace()
        .iter()
        .filter(|line| line.contains("ApplicationStart"))
        .count();
    assert_eq!(starts, 1);
}

/// A release whose conductor was killed frozen, after the hook that was running had ended: the next one, which was
/// authorised with it, runs.
fn gone_on_without_its_conductor() -> (Site, String) {
    let site = prepared(
        1,
        "while [ ! -e ../../../go-$LIFECYCLE_EVENT ]; do sleep 0.01; done",
    );
    for event in ["ApplicationStop", "BeforeInstall", "AfterInstall"] {
        site.write(&format!("web-1/go-{event}"), "");
    }
    let mut child = site.start(&UPGRADE);
    let runs = |event: &str| {
        until(event, || {
            let trace = std::fs::read_to_string(site.path("trace")).unwrap_or_default();
            trace.contains(&format!("{event} 1.1.0"))
        });
    };
    runs("ApplicationStart");
    until("the agent has what follows", || {
        let id = site.report_of_newest()["id"].as_str().unwrap().to_owned();
        let attempts = std::fs::read_dir(site.path("web-1/.cutover/attempts")).unwrap();
        let names = attempts.map(|entry| entry.unwrap().file_name());
        let mut names = names.map(|name| name.to_string_lossy().into_owned());
        names.any(|name| name.starts_with(&id) && name.contains("ValidateService"))
    });
    let frozen = Command::new("kill")
        .args(["-STOP", &child.id().to_string()])
        .status();
    assert!(frozen.unwrap().success());
    site.write("web-1/go-ApplicationStart", "");
    runs("ValidateService");
    child.kill().unwrap();
    child.wait().unwrap();
    let id = site.report_of_newest()["id"].as_str().unwrap().to_owned();
    (site, id)
}

/// The last steps of the only instance, each with its status.
fn last_steps(site: &Site) -> Vec<String> {
    let report = site.report_of_newest();
    let steps = &report["deployments"][0]["instances"][0]["steps"];
    let steps = steps.as_array().unwrap().iter().rev().take(2).rev();
    steps
        .map(|step| format!("{} {}", step["event"], step["status"]).replace('"', ""))
        .collect()
}

fn validations(site: &Site) -> usize {
    let trace = site.take_trace();
    let validations = trace.iter().filter(|line| line.contains("ValidateService"));
    validations.count()
}

#[test]
fn what_an_instance_goes_on_with_by_itself_is_joined_by_whoever_resumes() {
    let (site, id) = gone_on_without_its_conductor();
    assert_eq!(last_steps(&site)[1], "ApplicationStart RUNNING");
    site.write("web-1/go-ValidateService", "");

    site.cutover(&["resume", &id]).ok();

    assert_eq!(
        last_steps(&site),
        ["ApplicationStart SUCCEEDED", "ValidateService SUCCEEDED"]
    );
    assert_eq!(validations(&site), 1);
}

#[test]
fn what_an_instance_goes_on_with_by_itself_is_waited_for_by_whoever_stops() {
    let (site, id) = gone_on_without_its_conductor();
    let mut stop = site.start(&["stop", &id, "--yes"]);
    until("the release is taken up", || {
        last_steps(&site)[1] == "ApplicationStart SUCCEEDED"
    });
    assert!(stop.try_wait().unwrap().is_none());
    site.write("web-1/go-ValidateService", "");

    assert!(stop.wait().unwrap().success());

    assert_eq!(site.report_of_newest()["status"], "STOPPED");
    assert_eq!(
        last_steps(&site),
        ["ApplicationStart SUCCEEDED", "ValidateService SUCCEEDED"]
    );
    assert_eq!(validations(&site), 1);
}

#[test]
fn an_interrupted_release_says_so_holds_its_group_and_can_be_stopped() {
    let site = prepared(
        1,
        "[ \"$LIFECYCLE_EVENT\" != ApplicationStart ] || exec sleep 60",
    );
    let mut child = site.start(&UPGRADE);
    until("the hook runs", || {
        std::fs::read_to_string(site.path("trace"))
            .unwrap_or_default()
            .contains("ApplicationStart")
    });

    let busy = site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "2.0.0",
    ]);
    child.kill().unwrap();
    child.wait().unwrap();
    let release = site.report_of_newest();
    let id = release["id"].as_str().unwrap().to_owned();
    let still_busy = site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "2.0.0",
    ]);
    let refused = site.cutover(&["stop", &id]);
    let stopped = site.cutover(&["stop", &id, "--yes"]).ok();

    assert_eq!(busy.code, 6, "{}", busy.stderr);
    assert!(
        busy.stderr.contains(&id),
        "it names the holder: {}",
        busy.stderr
    );
    assert_eq!(release["status"], "INTERRUPTED");
    assert!(
        release["waiting_for"]
            .as_str()
            .unwrap()
            .contains("cutover resume")
    );
    assert_eq!(still_busy.code, 6);
    assert_eq!(refused.code, 2);
    assert!(stopped.stdout.starts_with("STOPPED"), "{}", stopped.stdout);
    let _ = Command::new("pkill")
        .args(["-f", &site.path("").display().to_string()])
        .status();
}

#[test]
fn control_c_leaves_at_once_and_tells_how_to_go_on() {
    let site = prepared(
        1,
        "[ \"$LIFECYCLE_EVENT\" != ApplicationStart ] || sleep 0.5",
    );
    let child = site
        .command(&UPGRADE)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the hook runs", || {
        std::fs::read_to_string(site.path("trace"))
            .unwrap_or_default()
            .contains("ApplicationStart")
    });

    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    let output = child.wait_with_output().unwrap();

    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(killed.success());
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("cutover resume"), "{stderr}");
    let id = site.report_of_newest()["id"].as_str().unwrap().to_owned();
    site.cutover(&["resume", &id]).ok();
    assert_eq!(
        site.take_trace()
            .iter()
            .filter(|line| line.contains("ApplicationStart"))
            .count(),
        1
    );
}

/// Numbers that a seed determines (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

//! Release plans: several services in the order of their priorities, on real instances.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::{Child, Command};
use std::time::Duration;

use cutover_tests::{Answer, Site, until};
use insta::assert_snapshot;
use serde_json::Value;

/// The services with their numbers.
const SERVICES: [(&str, u64); 3] = [("web", 111), ("pay", 222), ("mail", 333)];

/// The three services, with so many instances each.
fn shop(sizes: [usize; 3]) -> Site {
    let site = Site::new();
    let mut text = "applications:\n  shop:\n    groups:\n".to_owned();
    for ((name, number), instances) in SERVICES.into_iter().zip(sizes) {
        writeln!(
            text,
            "      {name}:\n        service_id: {number}\n        instances:"
        )
        .unwrap();
        for instance in 1..=instances {
            let rootdir = site.path(&format!("{name}-{instance}"));
            writeln!(
                text,
                "          - {{id: {name}-{instance}, host: \"local:\", rootdir: \"{}\", labels: [label{instance}]}}",
                rootdir.display()
            )
            .unwrap();
        }
    }
    site.write("cutover.yaml", &text);
    site
}

fn upload(service: u64, priority: i64, package: &str, site: &Site) -> String {
    let package = site.path(package);
    format!(
        " - serviceId: {service}\n   priority: {priority}\n   deployment: HTTP_UPLOAD_DEPLOY\n   containerExecMethod: PARALLEL\n   httpSrcUri: file://{}\n",
        package.display()
    )
}

fn item(service: u64, priority: i64, kind: &str) -> String {
    format!(" - serviceId: {service}\n   priority: {priority}\n   deployment: {kind}\n")
}

fn plan(site: &Site, name: &str, items: &[String]) {
    let text = format!(
        "comment: evening release\ndeployPlanItems:\n{}",
        items.concat()
    );
    site.write(name, &text);
}

/// A first version of all three services, on five instances.
fn installed() -> Site {
    installed_on([2, 2, 1])
}

fn installed_on(sizes: [usize; 3]) -> Site {
    let site = shop(sizes);
    site.traced_package("v1", "1", "");
    site.traced_package("v2", "2", "");
    let items = [
        upload(111, 0, "v1", &site),
        upload(222, 0, "v1", &site),
        upload(333, 0, "v1", &site),
    ];
    plan(&site, "first.yaml", &items);
    site.cutover(&["run", "first.yaml"]).ok();
    let _ = site.take_trace();
    site
}

/// The services in the order in which their hooks first ran.
fn order(trace: &[String]) -> Vec<&str> {
    let mut seen = Vec::new();
    for line in trace {
        let service = line.split('-').next().unwrap();
        if !seen.contains(&service) {
            seen.push(service);
        }
    }
    seen
}

/// Service, kind and status of each deployment.
fn statuses(report: &Value) -> Vec<String> {
    let deployments = report["deployments"].as_array().unwrap();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    deployments
        .iter()
        .map(|one| {
            [&one["group"], &one["kind"], &one["status"]]
                .map(word)
                .join(" ")
        })
        .collect()
}

fn id(site: &Site) -> String {
    site.report_of_newest()["id"].as_str().unwrap().to_owned()
}

fn status(site: &Site) -> String {
    let report = site.report_of_newest();
    report["status"].as_str().unwrap_or_default().to_owned()
}

fn ended(mut child: Child) -> Option<i32> {
    child.wait().unwrap().code()
}

/// Version 2 of `web` and `pay` first, whose hooks wait for the file `go-on`, then a restart of `mail`.
fn held(site: &Site) {
    let hold = format!(
        "while ! [ -e '{}' ]; do sleep 0.02; done",
        site.path("go-on").display()
    );
    site.traced_package("v2", "2", &hold);
    let items = [
        item(333, 1, "RESTART"),
        upload(111, 3, "v2", site),
        upload(222, 3, "v2", site),
    ];
    plan(site, "second.yaml", &items);
}

fn begun(site: &Site) -> (Child, String) {
    let conductor = site.start(&["run", "second.yaml"]);
    until("a hook is running", || site.path("trace").exists());
    (conductor, id(site))
}

#[test]
fn a_plan_runs_its_services_by_priority_and_reports_each() {
    let site = installed();
    let items = [
        item(222, 1, "STOP"),
        upload(111, 3, "v2", &site),
        item(333, 2, "RESTART"),
    ];
    plan(&site, "second.yaml", &items);

    let done = site
        .cutover(&["run", "second.yaml", "--output", "json"])
        .ok();

    let report = done.json();
    assert_eq!(report["status"], "SUCCEEDED");
    assert_eq!(report["comment"], "evening release");
    assert_eq!(
        statuses(&report),
        [
            "web HTTP_UPLOAD_DEPLOY SUCCEEDED",
            "mail RESTART SUCCEEDED",
            "pay STOP SUCCEEDED"
        ]
    );
    let trace = site.take_trace();
    assert_eq!(order(&trace), ["web", "mail", "pay"]);
    let of = |name: &str| {
        let lines = trace.iter().filter(|line| line.starts_with(name));
        lines.cloned().collect::<Vec<_>>()
    };
    assert_eq!(
        of("mail-1"),
        [
            "mail-1 ApplicationStop 1 1",
            "mail-1 ApplicationStart 1 1",
            "mail-1 ValidateService 1 1"
        ]
    );
    assert_eq!(of("pay-2"), ["pay-2 ApplicationStop 1 1"]);
    let services = report["deployments"].as_array().unwrap();
    let end_of = |index: usize| services[index]["ended_at"].as_str().unwrap();
    let start_of = |index: usize| services[index]["started_at"].as_str().unwrap();
    assert!(end_of(0) <= start_of(1) && end_of(1) <= start_of(2));
    let directions = services
        .iter()
        .map(|one| one["direction"].as_str().unwrap());
    assert!(directions.eq(["deploy", "operate", "operate"]));
}

#[test]
fn a_dry_run_shows_what_then_happens_and_changes_nothing() {
    let site = installed();
    let items = [upload(111, 3, "v2", &site), item(333, 2, "RESTART")];
    plan(&site, "second.yaml", &items);

    let planned = site
        .cutover(&["run", "second.yaml", "--dry-run", "--output", "json"])
        .ok()
        .json();
    assert_eq!(site.take_trace(), Vec::<String>::new());
    let report = site
        .cutover(&["run", "second.yaml", "--output", "json"])
        .ok()
        .json();

    assert_eq!(planned["status"], "PLANNED");
    let steps = |report: &Value| {
        let mut all = Vec::new();
        for deployment in report["deployments"].as_array().unwrap() {
            all.push(deployment["batches"].to_string());
            for instance in deployment["instances"].as_array().unwrap() {
                for step in instance["steps"].as_array().unwrap() {
                    let is_skipped = step["status"] == "SKIPPED";
                    all.push(format!("{} {} {is_skipped}", instance["id"], step["event"]));
                }
            }
        }
        all
    };
    assert_eq!(steps(&planned), steps(&report));
}

#[test]
fn labels_select_instances_and_the_method_says_how_they_go() {
    let site = installed();
    let mut upload = upload(111, 0, "v2", &site);
    upload = upload.replace("PARALLEL", "SEQUENTIAL");
    upload.push_str("   deployLabel: label2\n");
    plan(&site, "second.yaml", &[upload, item(222, 0, "RESTART")]);

    let report = site
        .cutover(&["run", "second.yaml", "--output", "json"])
        .ok()
        .json();

    let batches = |index: usize| report["deployments"][index]["batches"].to_string();
    assert_eq!(batches(0), r#"[["web-2"]]"#);
    assert_eq!(
        report["deployments"][0]["excluded"].to_string(),
        r#"["web-1"]"#
    );
    let trace = site.take_trace();
    assert!(trace.iter().all(|line| !line.starts_with("web-1")));
}

#[test]
fn everything_wrong_with_a_plan_is_told_at_once_with_its_line() {
    let site = installed();
    let items = [
        item(111, 0, "REBOOT"),
        format!("{}   deployLabel: label9\n", item(222, 0, "RESTART")),
        item(999, 0, "STOP"),
    ];
    plan(&site, "bad.yaml", &items);

    let refused = site.cutover(&["run", "bad.yaml"]);

    assert_eq!(refused.code, 3);
    let stderr = site.normalised(&refused.stderr);
    assert_snapshot!(stderr, @"
    error: the release plan `bad.yaml` has problems
    bad.yaml:5:16: service 111: `deployment`: no plugin of the workspace provides the kind `REBOOT`
      hint: write one of `START`, `STOP`, `RESTART`, `HTTP_UPLOAD_DEPLOY`, `COMPILE_DEPLOY`, or declare a plugin that provides it
    bad.yaml:9:17: service 222: `deployLabel`: no instance of `shop/pay` carries the label `label9`
      hint: its instances have the labels `label1`, `label2`
    bad.yaml:10:15: service 999: no group of the workspace has this `service_id`
      hint: the services are 111 (`shop/web`), 222 (`shop/pay`), 333 (`shop/mail`)
    ");
    assert_eq!(site.take_trace(), Vec::<String>::new());
}

#[test]
fn a_failing_service_fails_the_release_and_no_further_one_starts() {
    let site = installed();
    site.traced_package("bad", "2", "[ \"$LIFECYCLE_EVENT\" != ValidateService ]");
    let items = [
        upload(111, 3, "bad", &site),
        upload(222, 3, "v2", &site),
        item(333, 1, "RESTART"),
    ];
    plan(&site, "second.yaml", &items);

    let failed = site.cutover(&["run", "second.yaml"]);

    assert_eq!(failed.code, 4, "{}", failed.stderr);
    let report = site.report_of_newest();
    assert_eq!(
        statuses(&report),
        [
            "web HTTP_UPLOAD_DEPLOY FAILED",
            "pay HTTP_UPLOAD_DEPLOY SUCCEEDED",
            "mail RESTART STOPPED"
        ]
    );
    assert_eq!(report["deployments"][2]["started_at"], Value::Null);
    assert!(!order(&site.take_trace()).contains(&"mail"));
}

#[test]
fn a_paused_plan_finishes_the_services_that_have_begun_and_a_resume_the_others() {
    let site = installed();
    held(&site);
    let (conductor, id) = begun(&site);

    let pause = site.start(&["pause", &id]);
    until("the release is pausing", || status(&site) == "PAUSING");
    let waiting = site.report_of_newest();
    site.write("go-on", "");

    assert_eq!(ended(pause), Some(0));
    assert_eq!(ended(conductor), Some(7));
    let paused = site.report_of_newest();
    assert_eq!(paused["status"], "PAUSED");
    assert_eq!(
        statuses(&paused),
        [
            "web HTTP_UPLOAD_DEPLOY SUCCEEDED",
            "pay HTTP_UPLOAD_DEPLOY SUCCEEDED",
            "mail RESTART PLANNED"
        ]
    );
    assert_eq!(
        waiting["deployments"][2]["waiting_for"],
        "shop/web of priority 3, shop/pay of priority 3"
    );
    assert!(!order(&site.take_trace()).contains(&"mail"));
    site.cutover(&["resume", &id]).ok();
    assert_eq!(order(&site.take_trace()), ["mail"]);
    assert_eq!(status(&site), "SUCCEEDED");
}

#[test]
fn a_stopped_plan_ends_what_has_not_begun() {
    let site = installed();
    held(&site);
    let (conductor, id) = begun(&site);

    let stop = site.start(&["stop", &id, "--yes"]);
    until("the release is stopping", || status(&site) == "STOPPING");
    site.write("go-on", "");

    assert_eq!(ended(stop), Some(0));
    assert_eq!(ended(conductor), Some(7));
    assert_eq!(
        statuses(&site.report_of_newest()),
        [
            "web HTTP_UPLOAD_DEPLOY SUCCEEDED",
            "pay HTTP_UPLOAD_DEPLOY SUCCEEDED",
            "mail RESTART STOPPED"
        ]
    );
}

#[test]
fn a_plan_holds_all_its_groups() {
    let site = installed();
    held(&site);
    let (conductor, _) = begun(&site);

    let busy = site.cutover(&["rollback", "shop/mail", "--yes"]);

    assert_eq!(busy.code, 6, "{}", busy.stderr);
    site.write("go-on", "");
    assert_eq!(ended(conductor), Some(0));
}

#[test]
fn a_release_is_taken_back_in_the_opposite_order() {
    let site = installed();
    let items = [
        upload(111, 3, "v2", &site),
        item(333, 2, "RESTART"),
        item(222, 1, "STOP"),
    ];
    plan(&site, "second.yaml", &items);
    site.cutover(&["run", "second.yaml"]).ok();
    let _ = site.take_trace();
    let id = id(&site);

    let planned = site
        .cutover(&["rollback", &id, "--dry-run", "--output", "json"])
        .ok();
    assert_eq!(
        statuses(&planned.json()),
        ["pay START PLANNED", "web ROLLBACK PLANNED"]
    );
    let done: Answer = site
        .cutover(&["rollback", &id, "--yes", "--output", "json"])
        .ok();

    assert_eq!(
        statuses(&done.json()),
        ["pay START SUCCEEDED", "web ROLLBACK SUCCEEDED"]
    );
    assert!(
        done.stderr
            .contains("RESTART is nothing that could be undone"),
        "{}",
        done.stderr
    );
    assert_eq!(order(&site.take_trace()), ["pay", "web"]);
    let twice = site.cutover(&["rollback", &id, "--yes"]);
    assert_eq!(twice.code, 3, "{}", twice.stderr);
}

#[test]
fn a_service_is_built_from_its_branch_and_a_build_that_fails_changes_nothing() {
    let site = installed();
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let built = groups.replace(
        "        service_id: 111\n",
        "        service_id: 111\n        build: {command: \"sh make.sh\", output: dist}\n",
    );
    let plugins =
        "plugins:\n  git-build:\n    component: git-build\n    grants: {programs: [git]}\n";
    site.write("cutover.yaml", &format!("{plugins}{built}"));
    site.traced_package("repo/dist", "3", "");
    site.write("repo/make.sh", "echo compiling\n");
    commit(&site, "git init -q -b main .");
    let compile = format!(
        " - serviceId: 111\n   priority: 3\n   deployment: COMPILE_DEPLOY\n   compileRepoPath: {}\n   compileRepoBranch: main\n",
        site.path("repo").display()
    );
    plan(&site, "second.yaml", &[compile, item(333, 1, "RESTART")]);

    let done = site
        .cutover(&["run", "second.yaml", "--output", "json"])
        .ok();

    let first = &done.json()["deployments"][0];
    assert_eq!(first["kind"], "COMPILE_DEPLOY");
    let source = first["revision"]["source"].as_str().unwrap();
    assert!(source.starts_with("git+file://"), "{source}");
    let trace = site.take_trace();
    assert!(
        trace.contains(&"web-1 ApplicationStart 3 1".to_owned()),
        "{trace:?}"
    );
    let releases = || site.cutover(&["ls", "--output", "json"]).ok().json()["releases"].to_string();
    let before = releases();
    site.write(
        "repo/make.sh",
        "echo compiling\necho main.c:7: expected a semicolon\nexit 2\n",
    );
    commit(&site, "true");

    let failed = site.cutover(&["run", "second.yaml"]);

    assert_eq!(failed.code, 3, "{}", failed.stderr);
    assert!(
        failed.stderr.contains("| main.c:7: expected a semicolon")
            && failed
                .stderr
                .contains("second.yaml:3: service 111 (shop/web)"),
        "{}",
        failed.stderr
    );
    assert_eq!(site.take_trace(), Vec::<String>::new());
    assert_eq!(releases(), before);
}

fn commit(site: &Site, first: &str) {
    let done = Command::new("sh")
        .args(["-euc", &format!("{first}\ngit add -A\ngit commit -qm next")])
        .current_dir(site.path("repo"))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "ann")
        .env("GIT_AUTHOR_EMAIL", "ann@example.com")
        .env("GIT_COMMITTER_NAME", "ann")
        .env("GIT_COMMITTER_EMAIL", "ann@example.com")
        .status();
    assert!(done.unwrap().success());
}

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

/// A plan of two priorities over ten instances, whose hooks take their time.
fn ten_instances() -> Site {
    let site = installed_on([4, 3, 3]);
    site.traced_package("v2", "2", "sleep 0.02");
    let items = [
        upload(111, 3, "v2", &site),
        item(222, 2, "RESTART"),
        upload(333, 2, "v2", &site),
    ];
    plan(&site, "second.yaml", &items);
    site
}

/// The real program, killed at moments that a seed chooses, again and again.
#[test]
fn a_plan_killed_two_hundred_times_does_what_an_undisturbed_one_does() {
    let undisturbed = ten_instances();
    undisturbed.cutover(&["run", "second.yaml"]).ok();
    let expected = by_instance(&undisturbed.take_trace());
    let mut random = Random(42);
    let mut kills = 0;
    while kills < 200 {
        let site = ten_instances();
        let mut child = site.start(&["run", "second.yaml"]);
        until("the release is open", || {
            child.try_wait().unwrap().is_some()
                || site.report_of_newest()["deployments"][1]["kind"] == "RESTART"
        });
        let id = id(&site);
        let before = kills;
        loop {
            std::thread::sleep(Duration::from_millis(random.below(160)));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "after {kills} kills: {status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if status(&site) == "SUCCEEDED" {
                break;
            }
            child = site.start(&["resume", &id]);
        }
        let trace = by_instance(&site.take_trace());
        assert_eq!(trace, expected, "kills {before} to {kills}");
    }
}

/// A small generator, for moments only.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

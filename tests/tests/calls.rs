//! Kinds of deployment whose plugin carries a step out on each instance: `tests/components/migrating`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use cutover_tests::{Answer, Hosts, Site, target_folder, until};
use insta::assert_snapshot;
use serde_json::Value;

/// What the operator grants the plugin where nothing else is said.
const GRANTS: &str = "{commands: [bin/migrate.sh, cat], paths: [{path: data, access: read-write}]}";

fn component() -> String {
    let path = target_folder().join("../components/migrating.wasm");
    assert!(path.exists(), "run `cargo xtask components` first");
    path.display().to_string()
}

/// So many local instances of service 111, a plugin with these grants, and a package whose program `bin/migrate.sh` leaves
/// a line in the trace and does this as well.
fn site(instances: usize, grants: &str, more: &str) -> Site {
    let site = Site::with_instances(instances, "        service_id: 111\n");
    let text = fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let component = component();
    site.write(
        "cutover.yaml",
        &format!(
            "plugins:\n  migrating:\n    component: {component}\n    grants: {grants}\n{text}"
        ),
    );
    package(&site, &site.path("trace").display().to_string(), more);
    site
}

fn package(site: &Site, trace: &str, more: &str) {
    site.traced_package("v1", "1", "");
    site.write("v1/migrations/1.sql", "create table t;");
    site.script(
        "v1/bin/migrate.sh",
        &format!(
            "#!/bin/sh\n[ \"$1\" != backwards ] || {{ echo 'no way back' >&2; exit 3; }}\n\
             echo \"$CUTOVER_INSTANCE_ID migrate.sh $1 $SCHEMA $CUTOVER_ATTEMPT $(cat)\" >> '{trace}'\n{more}\necho migrated\n"
        ),
    );
}

/// A plan of one item of the kind MIGRATE with these keys more, each on a line of its own.
fn plan(site: &Site, lines: &str) {
    let package = site.path("v1");
    let mut text = format!(
        "deployPlanItems:\n - serviceId: 111\n   deployment: MIGRATE\n   package: file://{}\n",
        package.display()
    );
    for line in lines.lines() {
        text.push_str(&format!("   {line}\n"));
    }
    site.write("plan.yaml", &text);
}

fn run(site: &Site, lines: &str) -> Answer {
    plan(site, lines);
    site.cutover(&["run", "plan.yaml"])
}

/// The attempts at the step that is called, on an instance: number, status and reason.
fn attempts(report: &Value, instance: usize) -> Vec<String> {
    let steps = report["deployments"][0]["instances"][instance]["steps"]
        .as_array()
        .unwrap();
    steps
        .iter()
        .filter(|step| step["event"] == "AfterInstall")
        .map(|step| {
            let reason = step["reason"].as_str().unwrap_or("-");
            format!(
                "{} {} {reason}",
                step["attempt"],
                step["status"].as_str().unwrap()
            )
        })
        .collect()
}

/// The attempts that the plugin was called for, and under how many different keys.
fn calls(site: &Site, instance: &str) -> (Vec<String>, usize) {
    let text = fs::read_to_string(site.path(&format!("{instance}/data/calls"))).unwrap();
    let (numbers, mut keys): (Vec<_>, Vec<_>) = text
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(number, key)| (number.to_owned(), key.to_owned()))
        .unzip();
    keys.sort();
    keys.dedup();
    (numbers, keys.len())
}

/// What became of the release, without what differs from run to run.
fn failure(site: &Site, lines: &str) -> String {
    let answer = run(site, lines);
    assert_eq!(answer.code, 4, "{}", answer.stderr);
    let report = site.report();
    site.normalised(&attempts(&report, 0).join("\n"))
}

#[test]
fn the_plugin_is_called_on_each_instance_in_the_place_of_the_hooks() {
    let site = site(2, GRANTS, "");

    run(&site, "schema: 7").ok();

    let report = site.report();
    assert_eq!(report["status"], "SUCCEEDED");
    for (index, instance) in ["web-1", "web-2"].into_iter().enumerate() {
        assert_eq!(
            attempts(&report, index),
            ["1 SUCCEEDED plugin `migrating`: schema=7"]
        );
        let read = |name: &str| fs::read_to_string(site.path(&format!("{instance}/data/{name}")));
        assert_eq!(read("schema").unwrap(), "7");
        assert_eq!(read("current/1.sql").unwrap(), "create table t;");
        assert_eq!(calls(&site, instance), (vec!["1".to_owned()], 1));
    }
    let trace = site.take_trace();
    let of_first: Vec<_> = trace
        .iter()
        .filter(|line| line.starts_with("web-1"))
        .collect();
    assert_eq!(
        of_first,
        [
            "web-1 BeforeInstall 1 1",
            "web-1 migrate.sh 7 7 1 from the plugin",
            "web-1 ApplicationStart 1 1",
            "web-1 ValidateService 1 1"
        ]
    );
    let plugins = &report["deployments"][0]["plugins"];
    assert!(
        plugins["migrating"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
}

#[test]
fn the_log_of_the_step_tells_everything_that_was_done() {
    let site = site(1, GRANTS, "");
    run(&site, "schema: 7").ok();
    let id = site.report()["id"].as_str().unwrap().to_owned();

    let log = site
        .cutover(&["logs", &id, "--event", "AfterInstall"])
        .ok()
        .stdout;

    let log: String = log
        .lines()
        .map(|line| format!("{}\n", line.split(" at 20").next().unwrap()))
        .map(|line| match line.split_once(" in 0.") {
            Some((before, _)) => format!("{before} in TIME\n"),
            None => line,
        })
        .collect();
    assert_snapshot!(log, @"
    --- web-1 AfterInstall (attempt 1)
    ==> plugin `migrating` runs AfterInstall, attempt 1
    ==> stat data/calls
    ==> write data/calls: 67 bytes, mode 0600
    ==> stat data/schema
    INFO migrates web-1 to 7
    ==> bin/migrate.sh 7
    migrated
    <== exit 0 in TIME
    ==> place migrations at data/migrations/7
    ==> link data/current to data/migrations/7
    ==> write data/schema: 1 bytes, mode 0644
    ==> remove data/lock
    <== done: schema=7
    ");
}

#[test]
fn what_is_done_already_is_found_and_not_done_again() {
    let site = site(1, GRANTS, "");
    run(&site, "schema: 7").ok();
    let _ = site.take_trace();

    run(&site, "schema: 7").ok();

    assert_eq!(
        attempts(&site.report(), 0),
        ["1 SUCCEEDED plugin `migrating`: nothing had to be changed"]
    );
    let trace = site.take_trace();
    assert!(
        trace.iter().all(|line| !line.contains("migrate.sh")),
        "{trace:?}"
    );
}

#[test]
fn a_kind_without_a_package_calls_its_plugin_on_what_is_installed() {
    let site = site(1, GRANTS, "");
    run(&site, "schema: 7").ok();
    site.write(
        "backup.yaml",
        "deployPlanItems:\n - serviceId: 111\n   deployment: BACKUP\n",
    );

    site.cutover(&["run", "backup.yaml"]).ok();

    let saved = fs::read_to_string(site.path("web-1/data/backup")).unwrap();
    assert_eq!(saved, "7");
    assert_eq!(site.report()["deployments"][0]["direction"], "operate");
}

#[test]
fn a_dry_run_shows_the_step_and_calls_nobody() {
    let site = site(1, GRANTS, "");
    plan(&site, "schema: 7");

    let planned = site
        .cutover(&["run", "plan.yaml", "--dry-run", "--output", "json"])
        .ok()
        .json();
    let text = site.cutover(&["run", "plan.yaml", "--dry-run"]).ok().stdout;

    assert_eq!(
        attempts(&planned, 0),
        ["1 PLANNED calls plugin `migrating`"]
    );
    assert!(text.contains("calls plugin `migrating`"), "{text}");
    assert!(!site.path("web-1").exists());
}

#[test]
fn an_item_that_does_not_fit_is_refused_on_its_line() {
    let site = site(1, GRANTS, "");

    let refused = run(&site, "schema: none\nhow: nicely\npakage: x");

    assert_eq!(refused.code, 3);
    assert_snapshot!(site.normalised(&refused.stderr), @"
    error: the release plan `plan.yaml` has problems
    plan.yaml:5:12: service 111: `schema`: expected `integer`, found `none`
    plan.yaml:6:9: service 111: `how`: expected `well` or `late` or `pending` or `stubborn` or `traps` or `hangs` or `badly` or `ungranted` or `outside` or `beside`, found `nicely`
    plan.yaml:7:4: service 111: unknown key `pakage`: `MIGRATE` has none of this name
      hint: did you mean `package`?
    ");
    let checked = site.cutover(&["check", "plan.yaml"]);
    let refused = site.normalised(&refused.stderr);
    let (_, problems) = refused.split_once('\n').unwrap();
    assert_eq!(checked.code, 3);
    assert_eq!(site.normalised(&checked.stdout).trim(), problems.trim());
    site.assert_untouched();
}

#[test]
fn a_kind_that_cannot_be_carried_out_is_refused_with_the_reason() {
    let site = site(1, GRANTS, "");
    let refused = |how: &str| {
        site.write(
            "bad.yaml",
            &format!(
                "deployPlanItems:\n - serviceId: 111\n   deployment: DISORDERLY\n   how: {how}\n"
            ),
        );
        let refused = site.cutover(&["run", "bad.yaml"]);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        site.normalised(&refused.stderr)
    };

    assert_snapshot!(refused("swapped"), @"
    error: the release plan `bad.yaml` has problems
    bad.yaml:3:16: service 111: ask plugin `migrating` about the kind `DISORDERLY`: plugin `migrating` answered `deployment-kind.plan` wrongly: `ApplicationStop` cannot come after `ApplicationStart`
    ");
    assert_snapshot!(refused("installs"), @"
    error: the release plan `bad.yaml` has problems
    bad.yaml:3:16: service 111: the kind `DISORDERLY` of plugin `migrating` cannot be carried out: it calls the plugin at Install, which is the host's own to do
    ");
    assert_snapshot!(refused("early"), @"
    error: the release plan `bad.yaml` has problems
    bad.yaml:3:16: service 111: the kind `DISORDERLY` of plugin `migrating` cannot be carried out: it calls the plugin at BeforeInstall and installs nothing
    ");
    assert_snapshot!(refused("endless"), @"
    error: the release plan `bad.yaml` has problems
    bad.yaml:3:16: service 111: the kind `DISORDERLY` of plugin `migrating` cannot be carried out: it gives ApplicationStart 18446744073709551.615s, and a call takes at most 86400s
    ");
    site.assert_untouched();
}

#[test]
fn what_the_plugin_needs_and_is_not_granted_is_told_before_anything_changes() {
    let site = site(1, "{paths: [{path: data, access: read-write}]}", "");

    let refused = run(&site, "schema: 7");

    assert_eq!(refused.code, 3);
    assert_snapshot!(site.normalised(&refused.stderr), @r#"
    error: the release plan `plan.yaml` has problems
    plan.yaml:3:16: service 111: the kind `MIGRATE` of plugin `migrating` cannot be carried out: command `bin/migrate.sh` on instances is asked for, but not granted; it is for: the migration of the package; grant it: plugins.migrating.grants.commands: ["bin/migrate.sh"]
    "#);
    site.assert_untouched();
}

#[test]
fn what_is_not_granted_is_not_done_and_fails_the_step() {
    let denied = |how: &str| {
        let site = site(1, GRANTS, "");
        let failure = failure(&site, &format!("schema: 7\nhow: {how}"));
        let id = site.report()["id"].as_str().unwrap().to_owned();
        let log = site.cutover(&["logs", &id, "--event", "AfterInstall"]).ok();
        assert!(log.stdout.contains("<== refused: "), "{}", log.stdout);
        failure
    };

    assert_snapshot!(denied("ungranted"), @"1 FAILED plugin `migrating` may not use command `rm` on instances: its manifest does not declare it; take a version of plugin `migrating` whose manifest declares command `rm` on instances");
    assert_snapshot!(denied("outside"), @r#"1 FAILED plugin `migrating` may not use path `/etc/migrated` on instances (read-write): it is not granted; plugins.migrating.grants.paths: [{path: "/etc/migrated", access: read-write}]"#);
    assert_snapshot!(denied("beside"), @"1 FAILED plugin `migrating` asked for path `data/../stolen` on instances (read-write): `data/../stolen` is not a path on instances: write an absolute path, one below the instance's `rootdir`, or `.`, without `..`");
}

#[test]
fn a_link_out_of_the_granted_folder_leads_nowhere() {
    let site = site(1, GRANTS, "");
    fs::create_dir_all(site.path("web-1/data")).unwrap();
    std::os::unix::fs::symlink(site.path("elsewhere"), site.path("web-1/data/migrations")).unwrap();
    fs::create_dir(site.path("elsewhere")).unwrap();

    let failure = failure(&site, "schema: 7");

    assert_snapshot!(failure, @"1 FAILED plugin `migrating`: reach `data/migrations/7`: it leads out of the folder that is granted");
    assert_eq!(fs::read_dir(site.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_program_that_fails_fails_the_step_with_what_it_said() {
    let site = site(1, GRANTS, "");

    assert_snapshot!(failure(&site, "schema: 7\nhow: badly"), @"1 FAILED plugin `migrating`: the program exited with 3: no way back");
}

#[test]
fn a_plugin_that_crashes_is_asked_again_under_the_same_key_three_times_in_all() {
    let site = site(1, GRANTS, "");

    assert_snapshot!(failure(&site, "schema: 7\nhow: traps"), @r#"
    1 LOST plugin `migrating` crashed in `deployment-kind.run`: wasm `unreachable` instruction executed; the last thing it said: ERROR the kind's bug panic.location="tests/components/migrating/src/lib.rs:117:24"
    2 LOST plugin `migrating` crashed in `deployment-kind.run`: wasm `unreachable` instruction executed; the last thing it said: ERROR the kind's bug panic.location="tests/components/migrating/src/lib.rs:117:24"
    3 LOST plugin `migrating` crashed in `deployment-kind.run`: wasm `unreachable` instruction executed; the last thing it said: ERROR the kind's bug panic.location="tests/components/migrating/src/lib.rs:117:24"
    "#);
    let numbers = ["1", "2", "3"].map(str::to_owned).to_vec();
    assert_eq!(calls(&site, "web-1"), (numbers, 1));
}

#[test]
fn a_plugin_that_hangs_is_ended_at_the_deadline_of_its_step() {
    let site = site(1, GRANTS, "");

    let failure = failure(&site, "schema: 7\nhow: hangs\ntimeoutMs: 700");

    let expected = "1 FAILED it took longer than 700ms; the last that was heard: plugin `migrating` did not answer `deployment-kind.run` within ";
    assert!(failure.starts_with(expected), "{failure}");
}

#[test]
fn a_program_that_outlives_the_deadline_of_its_step_is_ended_with_it() {
    let site = site(
        1,
        GRANTS,
        "sleep 300 & echo $! > \"$CUTOVER_ROOTDIR/pid\"; wait",
    );

    let failure = failure(&site, "schema: 7\ntimeoutMs: 700");

    assert!(failure.contains("it took longer than 700ms"), "{failure}");
    let pid = fs::read_to_string(site.path("web-1/pid")).unwrap();
    until("the program is gone", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    });
}

#[test]
fn a_pending_step_is_polled_and_a_busy_one_called_again() {
    for how in ["pending", "stubborn"] {
        let site = site(1, GRANTS, "");

        run(&site, &format!("schema: 7\nhow: {how}")).ok();

        assert_eq!(
            attempts(&site.report(), 0),
            ["1 SUCCEEDED plugin `migrating`: schema=7"]
        );
        let numbers = vec!["1".to_owned(); 3];
        assert_eq!(calls(&site, "web-1"), (numbers, 1), "{how}");
    }
}

/// A conductor that is killed while the plugin waits for its program: the program goes on, the attempt's outcome is lost,
/// and the step is tried again under the same key, after the program has ended.
#[test]
fn a_call_whose_conductor_is_killed_is_lost_and_made_again_when_its_program_has_ended() {
    let site = site(
        1,
        GRANTS,
        "mkdir \"$CUTOVER_ROOTDIR/alone\" || echo 'two at once' >> \"$CUTOVER_ROOTDIR/trouble\"\n\
         while ! [ -e \"$CUTOVER_ROOTDIR/go-on\" ]; do sleep 0.02; done\nrmdir \"$CUTOVER_ROOTDIR/alone\"",
    );
    plan(&site, "schema: 7");
    let mut conductor = site.start(&["run", "plan.yaml"]);
    until("the program runs", || site.path("web-1/alone").exists());
    conductor.kill().unwrap();
    conductor.wait().unwrap();
    let id = site.report()["id"].as_str().unwrap().to_owned();

    let resumed = site.start(&["resume", &id]);
    until("the attempt is lost", || {
        let report = site.report();
        attempts(&report, 0).len() == 2
    });
    site.write("web-1/go-on", "");

    assert_eq!({ resumed }.wait().unwrap().code(), Some(0));
    assert_eq!(
        attempts(&site.report(), 0),
        [
            "1 LOST the conductor that called the plugin left before there was an answer",
            "2 SUCCEEDED plugin `migrating`: schema=7"
        ]
    );
    let numbers = ["1", "2"].map(str::to_owned).to_vec();
    assert_eq!(calls(&site, "web-1"), (numbers, 1));
    let trace = site.take_trace();
    let programs = trace.iter().filter(|line| line.contains("migrate.sh"));
    assert!(
        programs.eq(&[
            "web-1 migrate.sh 7 7 1 from the plugin",
            "web-1 migrate.sh 7 7 2 from the plugin"
        ]),
        "{trace:?}"
    );
    assert!(!site.path("web-1/trouble").exists(), "one at a time");
}

/// `stop` of a release whose conductor died does not call the plugin again.
#[test]
fn a_stopped_release_makes_no_call_again() {
    let site = site(
        1,
        GRANTS,
        "touch \"$CUTOVER_ROOTDIR/began\"\nwhile ! [ -e \"$CUTOVER_ROOTDIR/go-on\" ]; do sleep 0.02; done",
    );
    plan(&site, "schema: 7");
    let mut conductor = site.start(&["run", "plan.yaml"]);
    until("the program runs", || site.path("web-1/began").exists());
    conductor.kill().unwrap();
    conductor.wait().unwrap();
    let id = site.report()["id"].as_str().unwrap().to_owned();

    site.cutover(&["stop", &id, "--yes"]).ok();
    site.write("web-1/go-on", "");

    assert_eq!(
        attempts(&site.report(), 0),
        ["1 LOST the conductor that called the plugin left before there was an answer"]
    );
    assert_eq!(calls(&site, "web-1"), (vec!["1".to_owned()], 1));
}

#[test]
fn a_rollback_runs_hooks_and_calls_nobody() {
    let site = site(1, GRANTS, "");
    run(&site, "schema: 7").ok();
    run(&site, "schema: 8").ok();
    let _ = site.take_trace();

    site.cutover(&["rollback", "shop/web", "--yes"]).ok();

    let trace = site.take_trace();
    assert!(
        trace.contains(&"web-1 AfterInstall 1 1".to_owned()),
        "{trace:?}"
    );
    assert!(
        trace.iter().all(|line| !line.contains("migrate.sh")),
        "{trace:?}"
    );
}

#[test]
fn a_call_reaches_an_instance_over_ssh() {
    let agent = target_folder().join("../agents/cutover-agent-x86_64-linux");
    assert!(
        cfg!(not(target_arch = "x86_64")) || agent.exists(),
        "the agent is not built: run `cargo xtask agent`"
    );
    let Some(hosts) = Hosts::up(1) else { return };
    let site = site(1, GRANTS, "");
    package(&site, "/srv/app/trace", "");
    let text = fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let local = format!(
        "host: \"local:\", rootdir: \"{}\"",
        site.path("web-1").display()
    );
    let remote = "host: \"ssh://web-1\", rootdir: /srv/app/1";
    assert!(text.contains(&local));
    site.write("cutover.yaml", &text.replace(&local, remote));
    site.script(
        "v1/bin/hook.sh",
        "#!/bin/sh\necho \"$LIFECYCLE_EVENT\" >> /srv/app/trace\n",
    );
    plan(&site, "schema: 7");
    fs::create_dir_all(site.path("tmp")).unwrap();
    let mut command: Command = site.command(&["run", "plan.yaml"]);
    command
        .env("CUTOVER_SSH", hosts.ssh())
        .env_remove("CUTOVER_AGENT_DIR")
        .env("TMPDIR", site.path("tmp"))
        .env_remove("XDG_RUNTIME_DIR");

    let done: Answer = command.output().unwrap().into();

    done.ok();
    assert_eq!(
        attempts(&site.report(), 0),
        ["1 SUCCEEDED plugin `migrating`: schema=7"]
    );
    let read = |path: &str| {
        let on_host = hosts.path(1, path);
        fs::read_to_string(on_host).unwrap()
    };
    assert_eq!(read("/srv/app/1/data/schema"), "7");
    assert!(read("/srv/app/trace").contains("web-1 migrate.sh 7 7 1 from the plugin"));
}

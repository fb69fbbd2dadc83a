//! Orders to a release that another process drives, or nobody.

#![allow(clippy::unwrap_used)]

use std::process::{Child, Command, Output, Stdio};

use cutover_tests::{Answer, Site, until};
use insta::assert_snapshot;

const DEPLOY: [&str; 6] = [
    "deploy",
    "shop/web",
    "--package",
    "v1",
    "--version",
    "1.0.0",
];

/// Two instances, and a package whose hooks wait for the file `go-on`.
fn shop() -> Site {
    let site = Site::with_instances(2, "");
    let hold = format!(
        "while ! [ -e '{}' ]; do sleep 0.05; done",
        site.path("go-on").display()
    );
    site.traced_package("v1", "1.0.0", &hold);
    site
}

/// A deployment whose first hook is running.
fn begun(site: &Site) -> (Child, String) {
    let conductor = site.start(&DEPLOY);
    until("the first hook is running", || {
        site.last_step() == "BeforeInstall RUNNING"
    });
    (conductor, newest(site))
}

fn newest(site: &Site) -> String {
    site.report_of_newest()["id"].as_str().unwrap().to_owned()
}

fn status(site: &Site) -> String {
    site.report_of_newest()["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn start(site: &Site, arguments: &[&str]) -> Child {
    let mut command = site.command(arguments);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

fn end(site: &Site, child: Child) -> Answer {
    let output: Output = child.wait_with_output().unwrap();
    let answer = Answer::from(output);
    Answer {
        stdout: site.normalised(&answer.stdout),
        stderr: site.normalised(&answer.stderr),
        ..answer
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// How many orders wait for their answer.
fn waiting_orders(site: &Site) -> i64 {
    let journal = rusqlite::Connection::open(site.path(".cutover/journal.db")).unwrap();
    let sql = "SELECT count(*) FROM orders WHERE outcome IS NULL";
    journal.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_pause_waits_until_what_is_in_flight_has_finished() {
    let site = shop();
    let (mut conductor, id) = begun(&site);

    let pause = start(&site, &["pause", &id]);
    until("the release is pausing", || status(&site) == "PAUSING");
    site.write("go-on", "");
    let paused = end(&site, pause);
    let driven = conductor.wait().unwrap();

    assert_eq!(paused.code, 0, "{}", paused.stderr);
    assert_eq!(
        paused.stdout,
        "PAUSED  shop/web deploy 1.0.0  release RELEASE-ID\n"
    );
    assert!(
        paused
            .stderr
            .ends_with("hint: go on: cutover resume RELEASE-ID\n"),
        "{}",
        paused.stderr
    );
    assert_eq!(driven.code(), Some(7));
    let report = site.report_of_newest();
    assert_eq!(report["status"], "PAUSED");
    assert_eq!(report["orders"][0]["order"], "pause");
    assert_eq!(report["changes"][0]["status"], "PAUSING");
    assert_eq!(report["changes"][1]["status"], "PAUSED");
    let outcomes = &report["deployments"][0]["instances"];
    assert_eq!(outcomes[0]["outcome"], "SUCCEEDED");
    assert_eq!(outcomes[1]["steps"], serde_json::json!([]));
    assert_snapshot!(site.transcript(&["pause", &id]), @"
    $ cutover pause RELEASE-ID
    PAUSED  shop/web deploy 1.0.0  release RELEASE-ID
    ");
    site.cutover(&["resume", &id]).ok();
}

#[test]
fn a_stop_ends_a_release_that_another_process_drives() {
    let site = shop();
    let (mut conductor, id) = begun(&site);

    let unconfirmed = site.cutover(&["stop", &id]);
    let stop = start(&site, &["stop", &id, "--yes", "--output", "json"]);
    until("the release is stopping", || status(&site) == "STOPPING");
    site.write("go-on", "");
    let stopped = end(&site, stop);

    assert_eq!(unconfirmed.code, 2);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    assert_eq!(stopped.json()["status"], "STOPPED");
    assert_eq!(conductor.wait().unwrap().code(), Some(7));
    assert_eq!(status(&site), "STOPPED");
}

#[test]
fn pauses_of_several_at_the_same_moment_are_one() {
    let site = shop();
    let (mut conductor, id) = begun(&site);

    let pauses: Vec<_> = (0..4).map(|_| start(&site, &["pause", &id])).collect();
    until("the release is pausing", || status(&site) == "PAUSING");
    until("every order is answered", || waiting_orders(&site) == 0);
    site.write("go-on", "");

    for pause in pauses {
        let paused = end(&site, pause);
        assert_eq!(paused.code, 0, "{}", paused.stderr);
        assert!(paused.stdout.starts_with("PAUSED"), "{}", paused.stdout);
    }
    assert_eq!(conductor.wait().unwrap().code(), Some(7));
}

#[test]
fn an_order_that_does_not_fit_is_refused_and_the_release_goes_on() {
    let site = shop();
    let (mut conductor, id) = begun(&site);

    for order in [
        vec!["promote", &id],
        vec!["weight", &id, "40%"],
        vec!["approve", &id, "--comment", "looks good"],
        vec!["reject", &id, "--comment", "too slow"],
    ] {
        let refused = site.cutover(&order);

        let text = format!("error: release {id}: cannot {}: ", order[0]);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.starts_with(&text), "{}", refused.stderr);
    }
    site.write("go-on", "");
    assert!(conductor.wait().unwrap().success());
    assert_snapshot!(site.transcript(&["promote", &id]), @"
    $ cutover promote RELEASE-ID
    --- stderr
    error: release RELEASE-ID has ended already: it is SUCCEEDED
    hint: see how it ended: cutover report RELEASE-ID
    --- exit status 3
    ");
}

#[test]
fn instances_that_have_not_begun_are_skipped_and_others_are_not() {
    let site = shop();
    let (mut conductor, id) = begun(&site);

    let skipped = site.cutover(&["skip", &id, "web-1", "web-2"]);
    site.write("go-on", "");

    assert_eq!(skipped.code, 3, "{}", skipped.stderr);
    let text = format!("error: release {id}: cannot skip: `web-1` is being changed\n");
    assert!(skipped.stderr.starts_with(&text), "{}", skipped.stderr);
    assert!(conductor.wait().unwrap().success());
    let instances = site.report_of_newest()["deployments"][0]["instances"].clone();
    assert_eq!(instances[0]["outcome"], "SUCCEEDED");
    assert_eq!(instances[1]["outcome"], "SKIPPED");
    let reason = instances[1]["reason"].as_str().unwrap();
    assert!(reason.starts_with("left out by ann@"), "{reason}");
}

#[test]
fn a_paused_release_that_refuses_an_order_stays_paused() {
    let site = shop();
    let (mut conductor, id) = begun(&site);
    site.cutover(&["pause", &id, "--no-wait"]).ok();
    site.write("go-on", "");
    conductor.wait().unwrap();

    let refused = site.cutover(&["promote", &id]);

    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("cannot promote"),
        "{}",
        refused.stderr
    );
    assert_eq!(status(&site), "PAUSED");
    assert_snapshot!(site.transcript(&["skip", &id, "web-2"]), @"
    $ cutover skip RELEASE-ID web-2
    --- stderr
    error: release RELEASE-ID is PAUSED, and nobody drives it
    hint: go on with it: cutover resume RELEASE-ID
    hint: or end it: cutover stop RELEASE-ID
    --- exit status 3
    ");
    site.cutover(&["resume", &id]).ok();
}

#[test]
fn whoever_waits_for_a_conductor_that_dies_is_told_and_leaves_no_order() {
    let site = shop();
    let (mut conductor, id) = begun(&site);
    signal(&conductor, "-STOP");
    let pause = start(&site, &["pause", &id]);
    until("the order is given", || waiting_orders(&site) == 1);

    conductor.kill().unwrap();
    let told = end(&site, pause);
    conductor.wait().unwrap();

    assert_eq!(told.code, 3, "{}", told.stderr);
    assert_snapshot!(told.stderr, @"
    error: release RELEASE-ID is INTERRUPTED, and nobody drives it
    hint: go on with it: cutover resume RELEASE-ID
    hint: or end it: cutover stop RELEASE-ID
    ");
    assert_eq!(waiting_orders(&site), 0);
    site.write("go-on", "");
    site.cutover(&["resume", &id]).ok();
}

#[test]
fn whoever_gives_up_waiting_takes_the_order_back() {
    let site = shop();
    let (mut conductor, id) = begun(&site);
    signal(&conductor, "-STOP");
    let pause = start(&site, &["pause", &id]);
    until("the order is given", || waiting_orders(&site) == 1);

    signal(&pause, "-INT");
    let left = end(&site, pause);

    assert_eq!(left.code, 130, "{}", left.stderr);
    assert_eq!(waiting_orders(&site), 0);
    signal(&conductor, "-CONT");
    site.write("go-on", "");
    assert!(conductor.wait().unwrap().success());
}

#[test]
fn a_killed_conductor_leaves_its_orders_to_the_next_one() {
    let site = shop();
    let (mut conductor, id) = begun(&site);
    signal(&conductor, "-STOP");
    let mut pause = start(&site, &["pause", &id]);
    until("the order is given", || waiting_orders(&site) == 1);
    pause.kill().unwrap();
    pause.wait().unwrap();
    conductor.kill().unwrap();
    conductor.wait().unwrap();
    site.write("go-on", "");

    let resumed = site.cutover(&["resume", &id]);

    assert_eq!(resumed.code, 7, "{}", resumed.stderr);
    assert_eq!(status(&site), "PAUSED");
    assert_eq!(waiting_orders(&site), 0);
    site.cutover(&["resume", &id]).ok();
}

#[test]
fn the_lock_of_a_group_says_who_has_it_and_what_for() {
    let site = shop();
    assert_snapshot!(site.transcript(&["lock", "shop/web"]), @"
    $ cutover lock shop/web
    No release holds shop/web.
    ");
    assert_eq!(
        site.transcript(&["lock", "shop/db"]).lines().last(),
        Some("--- exit status 3")
    );
    let (mut conductor, id) = begun(&site);

    let driven = site
        .cutover(&["lock", "shop/web", "--output", "json"])
        .ok()
        .json();
    conductor.kill().unwrap();
    conductor.wait().unwrap();

    assert_eq!(driven["group"], "shop/web");
    let holder = &driven["holder"];
    assert_eq!(
        (&holder["release"], &holder["status"]),
        (&id.clone().into(), &"RUNNING".into())
    );
    assert_eq!(holder["driver"]["pid"], conductor.id());
    let waiting_for = holder["waiting_for"].as_str().unwrap();
    assert!(
        waiting_for.starts_with("BeforeInstall on web-1"),
        "{waiting_for}"
    );
    assert_snapshot!(site.transcript(&["lock", "shop/web"]), @"
    $ cutover lock shop/web
    group        shop/web
    release      RELEASE-ID
    status       INTERRUPTED
    operator     ann@HOST
    started      YYYY-MM-DDTHH:MM:SS.mmmZ
    stands at    deploy 1.0.0, batch 1 of 2: web-1
    driven by    nobody
    waiting for  an operator: `cutover resume RELEASE-ID` or `cutover stop RELEASE-ID`
    ");
    site.write("go-on", "");
    site.cutover(&["resume", &id]).ok();
}

#[test]
fn a_release_is_deleted_when_it_rests_and_nothing_that_it_brought_is_installed() {
    let site = shop();
    let (mut conductor, first) = begun(&site);
    assert_snapshot!(site.transcript(&["delete", &first, "--yes"]), @"
    $ cutover delete RELEASE-ID --yes
    --- stderr
    error: release `RELEASE-ID` is RUNNING: stop it first
    hint: end it first: cutover stop RELEASE-ID
    --- exit status 3
    ");
    site.write("go-on", "");
    conductor.wait().unwrap();
    assert_snapshot!(site.transcript(&["delete", &first, "--yes"]), @"
    $ cutover delete RELEASE-ID --yes
    --- stderr
    error: `web-1` of `shop/web` runs what deployment `RELEASE-ID-1` of release `RELEASE-ID` brought
    hint: deploy something else to it first: cutover deploy shop/web --package URI
    --- exit status 3
    ");
    site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.1.0",
    ])
    .ok();
    assert_snapshot!(site.transcript(&["delete", &first]), @"
    $ cutover delete RELEASE-ID
    --- stderr
    error: deleting release RELEASE-ID needs a confirmation
    hint: confirm it: cutover delete RELEASE-ID --yes
    --- exit status 2
    ");

    let deleted = site.cutover(&["delete", &first, "--yes"]).ok();

    assert_eq!(deleted.stdout, format!("DELETED  release {first}\n"));
    assert_eq!(site.cutover(&["show", &first]).code, 3);
    assert_eq!(
        site.cutover(&["ls", "--output", "json"]).ok().json()["releases"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn wrong_orders_end_with_2() {
    let site = Site::with_instances(1, "");

    assert_snapshot!(site.transcript(&["weight", "x", "140%"]), @"
    $ cutover weight x 140%
    --- stderr
    error: invalid value '140%' for '<PERCENT>': write a whole number of percent up to 100, for example 40%

    For more information, try '--help'.
    --- exit status 2
    ");
    assert_snapshot!(site.transcript(&["reject", "x"]), @"
    $ cutover reject x
    --- stderr
    error: a rejection needs a reason
    hint: give one: --comment TEXT
    --- exit status 2
    ");
    assert_snapshot!(site.transcript(&["promote", "x"]), @"
    $ cutover promote x
    --- stderr
    error: no release or deployment begins with `x`
    hint: list releases: cutover ls
    --- exit status 3
    ");
    assert_eq!(site.cutover(&["skip", "x"]).code, 2);
}

#[test]
fn the_help_of_an_order() {
    let site = Site::new();

    assert_snapshot!(site.cutover(&["weight", "-h"]).stdout.split("\n\nOptions of every").next().unwrap(), @"
    Change the share of traffic of a canary that waits for its promotion

    Usage: cutover weight [OPTIONS] <ID> <PERCENT>

    Arguments:
      <ID>       Release, or the beginning of its id
      <PERCENT>  Share of the side that gets the version, for example 40%

    Options:
          --force    Give a side more than its healthy instances carry by their number
      -h, --help     Print help (see more with '--help')
      -V, --version  Print version
    ");
    site.cutover(&["man", "pages"]).ok();
    for command in [
        "promote", "weight", "approve", "reject", "skip", "pause", "delete", "lock",
    ] {
        let page = site.path(&format!("pages/cutover-{command}.1"));
        assert!(page.exists(), "{command}");
        let completions = site.cutover(&["completions", "bash"]).ok().stdout;
        assert!(
            completions.contains(&format!("cutover,{command})")),
            "{command}"
        );
    }
}

/// Three instances as a canary whose first batch is one of them, on 1.0.0, with the keys of the group that are given.
fn canary(more: &str) -> Site {
    let strategy = "        strategy: {type: rolling}\n";
    let site = Site::with_instances(3, strategy);
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", "");
    site.cutover(&DEPLOY).ok();
    let text = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let canary =
        "        strategy: {type: canary, first_batch: 1, remaining_batches: 1, promote: manual}\n";
    site.write(
        "cutover.yaml",
        &text.replace(strategy, &format!("{canary}{more}")),
    );
    let _ = site.take_trace();
    site
}

/// The canary of 1.1.0, when it waits for an operator.
fn waiting_canary(site: &Site) -> (Child, String) {
    let conductor = site.start(&[
        "deploy",
        "shop/web",
        "--package",
        "v2",
        "--version",
        "1.1.0",
    ]);
    until_it_waits_for(site, "an operator");
    (conductor, newest(site))
}

fn until_it_waits_for(site: &Site, what: &str) {
    until(&format!("the release waits for {what}"), || {
        let report = site.report_of_newest();
        let waiting_for = report["waiting_for"].as_str().unwrap_or_default();
        report["status"] == "RUNNING" && waiting_for.starts_with(what)
    });
}

fn versions(site: &Site) -> [String; 3] {
    [1, 2, 3].map(|number| {
        let installed = site.path(&format!("web-{number}/app/version.txt"));
        std::fs::read_to_string(installed).unwrap()
    })
}

#[test]
fn a_canary_is_promoted_from_another_terminal() {
    let site = canary("");
    let hold = site.path("hold");
    let hook = format!("while [ -e '{}' ]; do sleep 0.01; done", hold.display());
    site.traced_package("v2", "1.1.0", &hook);
    let (mut conductor, id) = waiting_canary(&site);
    assert_eq!(versions(&site), ["1.1.0", "1.0.0", "1.0.0"]);
    site.write("hold", "");

    assert_snapshot!(site.transcript(&["promote", &id]), @"
    $ cutover promote RELEASE-ID
    RUNNING  shop/web deploy 1.1.0  release RELEASE-ID
    --- stderr
    hint: follow it: cutover watch RELEASE-ID
    ");

    std::fs::remove_file(&hold).unwrap();
    assert!(conductor.wait().unwrap().success());
    assert_eq!(versions(&site), ["1.1.0", "1.1.0", "1.1.0"]);
}

#[test]
fn a_paused_canary_is_driven_on_by_the_command_that_promotes_it() {
    let site = canary("");
    let (mut conductor, id) = waiting_canary(&site);
    site.cutover(&["pause", &id]).ok();
    assert_eq!(conductor.wait().unwrap().code(), Some(7));

    let promoted = site.cutover(&["promote", &id]).ok();

    assert!(
        promoted.stdout.starts_with("SUCCEEDED"),
        "{}",
        promoted.stdout
    );
    assert_eq!(versions(&site), ["1.1.0", "1.1.0", "1.1.0"]);
}

#[test]
fn the_rollback_of_a_group_has_its_canary_taken_back() {
    for is_paused in [false, true] {
        let site = canary("");
        let (mut conductor, id) = waiting_canary(&site);
        if is_paused {
            site.cutover(&["pause", &id]).ok();
        }

        let planned = site
            .cutover(&["rollback", "shop/web", "--dry-run", "--output", "json"])
            .ok();
        let planned: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
        assert_eq!(planned["deployments"][0]["direction"], "rollback");
        let back = planned["deployments"][0]["instances"].as_array().unwrap();
        assert_eq!(back.len(), 1, "{back:?}");
        assert_eq!(back[0]["id"], "web-1");

        let refused = site.cutover(&["rollback", "shop/web", "--ignore-stop-failures"]);
        let elsewhere = site.cutover(&["rollback", "shop/web", "--to", "1.0.0"]);
        let back = site
            .cutover(&["rollback", "shop/web", "--comment", "too slow"])
            .ok();

        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert_eq!(elsewhere.code, 2, "{}", elsewhere.stderr);
        assert!(back.stdout.starts_with("FAILED"), "{}", back.stdout);
        let code = conductor.wait().unwrap().code();
        assert_eq!(code, Some(if is_paused { 7 } else { 4 }));
        assert_eq!(versions(&site), ["1.0.0", "1.0.0", "1.0.0"]);
        let report = site.report();
        assert_eq!(report["id"], id.as_str());
        let reason = report["deployments"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with("taken back by ann@"), "{reason}");
        assert!(reason.ends_with(": too slow"), "{reason}");
        assert_eq!(report["deployments"][1]["status"], "SUCCEEDED");
        let orders = report["orders"].as_array().unwrap();
        let last = orders.last().unwrap();
        assert_eq!(orders.len(), 1 + usize::from(is_paused), "{orders:?}");
        assert_eq!(last["order"], "rollback (too slow)");
        assert!(last["operator"].as_str().unwrap().starts_with("ann@"));
    }
}

#[test]
fn a_gate_is_passed_or_failed_by_a_person_with_who_and_why() {
    let gate = "        gates:\n          - {name: look, after: first, approve: \"Is it well?\"}\n";
    for (order, is_passed) in [("approve", true), ("reject", false)] {
        let site = canary(gate);
        let (mut conductor, id) = waiting_canary(&site);

        let other = site.cutover(&[order, &id, "--gate", "lok", "--comment", "x"]);
        let decided = site.cutover(&[order, &id, "--comment", "graphs say so"]);

        assert_eq!(other.code, 3, "{}", other.stderr);
        assert!(other.stderr.contains("`look` is"), "{}", other.stderr);
        assert_eq!(decided.code, 0, "{}", decided.stderr);
        if is_passed {
            until_it_waits_for(&site, "an operator");
            until("it waits for its promotion", || {
                let waiting_for = site.report_of_newest()["waiting_for"].to_string();
                waiting_for.contains("cutover promote")
            });
            site.cutover(&["promote", &id]).ok();
        }
        assert_eq!(conductor.wait().unwrap().success(), is_passed);
        let report = site.report().to_string();
        assert!(report.contains("graphs say so"), "{report}");
        let shown = site.cutover(&["report", &id]).ok().stdout;
        assert!(shown.contains("ann@"), "{shown}");
    }
}

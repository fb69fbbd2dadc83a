//! Who has a group, who waits for it, and what becomes of a conductor that has been succeeded.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use cutover_tests::{Answer, Site, target_folder, until};
use insta::assert_snapshot;
use journal::{Journal, Owner};
use model::{ReleaseId, Timestamp};

fn deploy<'a>(package: &'a str, version: &'a str) -> [&'a str; 6] {
    [
        "deploy",
        "shop/web",
        "--package",
        package,
        "--version",
        version,
    ]
}

/// A site with a balancer and 1.0.0 installed, and 1.1.0 to deploy.
fn prepared() -> Site {
    let site = Site::with_instances(
        1,
        "        load_balancer: {plugin: list, config: {directory: pool, file: upstreams.txt}}\n",
    );
    let text = read(&site.path("cutover.yaml"));
    let addressed = text.replace("id: web-1,", "id: web-1, address: \"127.0.0.1:8081\",");
    let plugin = "plugins:\n  list:\n    component: file-balancer\n    grants: {directories: [{name: pool, path: pool, access: read-write}]}\n";
    site.write("cutover.yaml", &format!("{plugin}{addressed}"));
    site.write("pool/upstreams.txt", "");
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", "");
    site.cutover(&deploy("v1", "1.0.0")).ok();
    site
}

/// A conductor of 1.1.0 that stops as if it were frozen, when a step is authorised and before it is begun.
fn frozen(site: &Site, step: &str) -> (Child, ReleaseId) {
    let conductor = Command::new(target_folder().join("mortal-conductor"))
        .current_dir(site.path("."))
        .args(["cutover.yaml", "shop/web", "v2", "1.1.0", step])
        .arg(target_folder().join("cutover"))
        .arg("STOP")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the conductor is frozen", || is_frozen(&conductor));
    let id = newest(site);
    (conductor, ReleaseId::parse(id).unwrap())
}

fn is_frozen(process: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with('T'))
}

fn newest(site: &Site) -> String {
    site.report_of_newest()["id"].as_str().unwrap().to_owned()
}

fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn open_journal(site: &Site) -> Journal {
    Journal::open(&site.path(".cutover/journal.db")).unwrap()
}

/// Has another conductor finish a release whose own is frozen: one that sees the lease run out, by its clock.
fn succeed(site: &Site, release: &ReleaseId) {
    let early = site.cutover(&["resume", release.as_str()]);
    assert_eq!(early.code, 6, "{}", early.stderr);
    let journal = open_journal(site);
    let late = Timestamp(now() + 60_000);
    let owner = Owner::current().unwrap();
    let tenure = journal.take_over(release, &owner, late).unwrap();
    journal.leave(&tenure).unwrap();
    site.cutover(&["resume", release.as_str()]).ok();
}

fn signal(process: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &process.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// What a conductor that wakes up ends with.
fn woken(conductor: Child) -> Answer {
    signal(&conductor, "-CONT");
    let output: Output = conductor.wait_with_output().unwrap();
    output.into()
}

#[test]
fn a_conductor_that_wakes_up_after_it_was_succeeded_runs_no_hook_and_writes_nothing() {
    let site = prepared();
    // A hook that no attempt before it has announced, so that nothing of it is on the instance.
    let (zombie, release) = frozen(&site, "AfterBlockTraffic");
    succeed(&site, &release);
    let records = open_journal(&site).records(&release, 0).unwrap();
    let _ = site.take_trace();
    // Else the instance would know that it has run the hook, and that alone would keep it from running it again.
    let attempts = site.path("web-1/.cutover/attempts");
    fs::remove_dir_all(&attempts).unwrap();

    let ended = woken(zombie);

    assert_ne!(ended.code, 0);
    assert!(ended.stderr.contains("Fenced"), "{}", ended.stderr);
    assert_eq!(site.take_trace(), [""; 0]);
    assert!(!attempts.exists());
    assert_eq!(open_journal(&site).records(&release, 0).unwrap(), records);
    assert_eq!(site.report()["status"], "SUCCEEDED");
}

#[test]
fn a_conductor_that_wakes_up_after_it_was_succeeded_leaves_the_balancer_alone() {
    let site = prepared();
    let (zombie, release) = frozen(&site, "BlockTraffic");
    succeed(&site, &release);
    let upstreams = site.path("pool/upstreams.txt");
    let (before, changed) = (read(&upstreams), changed_at(&upstreams));
    assert!(before.contains("web-1"), "{before}");

    let ended = woken(zombie);

    assert_ne!(ended.code, 0);
    assert!(ended.stderr.contains("Fenced"), "{}", ended.stderr);
    assert_eq!(
        (read(&upstreams), changed_at(&upstreams)),
        (before, changed)
    );
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn changed_at(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Two instances, and packages whose hooks wait for the file `go-on`.
fn slow() -> Site {
    let site = Site::with_instances(2, "");
    let hold = format!(
        "while ! [ -e '{}' ]; do sleep 0.05; done",
        site.path("go-on").display()
    );
    site.traced_package("v1", "1.0.0", &hold);
    site.traced_package("v2", "1.1.0", "");
    site
}

fn begun(site: &Site) -> Child {
    let conductor = site.start(&deploy("v1", "1.0.0"));
    until("the first hook is running", || {
        site.last_step() == "BeforeInstall RUNNING"
    });
    conductor
}

fn start(site: &Site, arguments: &[&str]) -> Child {
    let mut command = site.command(arguments);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

fn end(site: &Site, child: Child) -> Answer {
    let pid = child.id();
    let answer = Answer::from(child.wait_with_output().unwrap());
    let normalised = |text: &str| without_processes(&site.normalised(text), &[pid]);
    Answer {
        stdout: normalised(&answer.stdout),
        stderr: normalised(&answer.stderr),
        ..answer
    }
}

/// Replaces the numbers of processes, and the name of the machine where they run.
fn without_processes(text: &str, pids: &[u32]) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let text = text.replace(&format!(" on {}", host.trim()), " on HOST");
    pids.iter().fold(text, |text, pid| {
        text.replace(&format!("process {pid} on"), "process PID on")
    })
}

fn lock(site: &Site) -> serde_json::Value {
    site.cutover(&["lock", "shop/web", "--output", "json"])
        .ok()
        .json()
}

/// The processes that wait, in their order.
fn waiting(site: &Site) -> Vec<u64> {
    let queue = lock(site)["queue"].as_array().cloned().unwrap();
    queue.iter().map(|it| it["pid"].as_u64().unwrap()).collect()
}

fn waits(site: &Site, arguments: &[&str]) -> Child {
    let before = waiting(site).len();
    let child = start(site, arguments);
    until("it waits", || waiting(site).len() > before);
    child
}

#[test]
fn those_who_wait_go_on_in_the_order_in_which_they_came_and_plan_afresh() {
    let site = slow();
    let mut conductor = begun(&site);
    let second = waits(&site, &[&deploy("v2", "1.1.0")[..], &["--wait"]].concat());
    let third = waits(&site, &["rollback", "shop/web", "--yes", "--wait=10m"]);
    assert_eq!(
        waiting(&site),
        [u64::from(second.id()), u64::from(third.id())]
    );

    site.write("go-on", "");
    conductor.wait().unwrap();
    let (second, third) = (end(&site, second), end(&site, third));

    assert_eq!((second.code, third.code), (0, 0), "{}", third.stderr);
    assert_snapshot!(second.stdout, @"SUCCEEDED  shop/web deploy 1.1.0 in TOOK  release RELEASE-ID");
    assert_snapshot!(third.stdout, @"SUCCEEDED  shop/web rollback 1.0.0 in TOOK  release RELEASE-ID");
    assert_snapshot!(second.stderr.lines().next().unwrap(), @"    Waiting shop/web  for release RELEASE-ID of ann@HOST, RUNNING: BeforeInstall on web-1 for TOOK");
    // It goes back from what was deployed while it waited.
    assert!(third.stderr.contains("1.1.0"), "{}", third.stderr);
    assert_eq!(waiting(&site), [0; 0]);
}

#[test]
fn whoever_waits_in_vain_or_has_enough_of_it_leaves_the_queue() {
    let site = slow();
    let mut conductor = begun(&site);

    let late = start(
        &site,
        &[&deploy("v2", "1.1.0")[..], &["--wait=50ms"]].concat(),
    );
    let late = end(&site, late);
    let interrupted = waits(&site, &[&deploy("v2", "1.1.0")[..], &["--wait"]].concat());
    let mut killed = waits(&site, &[&deploy("v2", "1.1.0")[..], &["--wait"]].concat());
    let behind = waits(
        &site,
        &[&deploy("v2", "1.1.0")[..], &["--wait=1m"]].concat(),
    );
    signal(&interrupted, "-INT");
    let interrupted = end(&site, interrupted);
    killed.kill().unwrap();
    killed.wait().unwrap();

    assert_eq!(waiting(&site), [u64::from(behind.id())]);
    assert_eq!(late.code, 6);
    assert_snapshot!(late.stderr, @"
        Waiting shop/web  for release RELEASE-ID of ann@HOST, RUNNING: BeforeInstall on web-1 for TOOK
    error: waited 50ms in vain: release RELEASE-ID of ann@HOST holds shop/web and is RUNNING
    hint: see who has it: cutover lock shop/web
    ");
    assert_eq!(interrupted.code, 130, "{}", interrupted.stderr);
    site.write("go-on", "");
    conductor.wait().unwrap();
    let behind = end(&site, behind);
    assert_eq!(behind.code, 0, "{}", behind.stderr);
}

#[test]
fn a_group_that_nobody_holds_is_not_waited_for() {
    let site = slow();
    site.write("go-on", "");

    let answer = site.cutover(&[&deploy("v1", "1.0.0")[..], &["--wait"]].concat());

    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(!answer.stderr.contains("Waiting"), "{}", answer.stderr);
    assert_snapshot!(
        site.transcript(&[&deploy("v2", "1.1.0")[..], &["--wait=soon"]].concat()), @"
    $ cutover deploy shop/web --package v2 --version 1.1.0 --wait=soon
    --- stderr
    error: invalid value 'soon' for '--wait[=<DURATION>]': `soon` is not a duration: write a whole number and `ms`, `s`, `m` or `h`, for example `30s`

    For more information, try '--help'.
    --- exit status 2
    ");
    assert_snapshot!(
        site.transcript(&[&deploy("v2", "1.1.0")[..], &["--wait", "--dry-run"]].concat()), @"
    $ cutover deploy shop/web --package v2 --version 1.1.0 --wait --dry-run
    --- stderr
    error: the argument '--wait[=<DURATION>]' cannot be used with '--dry-run'

    Usage: cutover deploy --package <URI> --version <VERSION> --wait[=<DURATION>] <GROUP>

    For more information, try '--help'.
    --- exit status 2
    ");
}

#[test]
fn the_lock_says_who_has_the_group_what_it_does_and_who_waits() {
    let site = slow();
    let conductor = begun(&site);
    let waiter = waits(&site, &[&deploy("v2", "1.1.0")[..], &["--wait"]].concat());

    let text = site.transcript(&["lock", "shop/web"]);
    let json = lock(&site);
    let refused = site.transcript(&["lock", "shop/web", "--break", "--yes"]);

    let pids = [conductor.id(), waiter.id()];
    assert_snapshot!(without_processes(&text, &pids), @"
    $ cutover lock shop/web
    group        shop/web
    release      RELEASE-ID
    status       RUNNING
    operator     ann@HOST
    started      YYYY-MM-DDTHH:MM:SS.mmmZ
    doing        deploy 1.0.0, batch 1 of 2: web-1
    driven by    ann@HOST, process PID on HOST, since YYYY-MM-DDTHH:MM:SS.mmmZ
    heartbeat    TOOK ago, lease until YYYY-MM-DDTHH:MM:SS.mmmZ
    waiting for  BeforeInstall on web-1 for TOOK
    in line      ann@HOST, process PID on HOST, since YYYY-MM-DDTHH:MM:SS.mmmZ: deploy v2
    ");
    assert_snapshot!(without_processes(&refused, &pids), @"
    $ cutover lock shop/web --break --yes
    --- stderr
    error: release RELEASE-ID is driven by ann@HOST, process PID on HOST, whose lease lasts until YYYY-MM-DDTHH:MM:SS.mmmZ and is renewed as long as it lives
    hint: have it end the release: cutover stop RELEASE-ID
    --- exit status 6
    ");
    let holder = &json["holder"];
    assert_eq!(holder["driver"]["pid"], conductor.id());
    assert_eq!(holder["owner"], holder["driver"]);
    for time in ["since", "renewed_at", "expires_at"] {
        assert!(holder["driver"][time].is_string(), "{holder}");
    }
    let doing = serde_json::json!([{
        "id": format!("{}-1", newest(&site)), "direction": "deploy", "version": "1.0.0",
        "batch": 1, "batches": 2, "instances": ["web-1"]
    }]);
    assert_eq!(holder["deployments"], doing);
    assert_eq!(json["queue"][0]["purpose"], "deploy v2");
    assert_eq!(
        json["queue"][0]["operator"]
            .as_str()
            .unwrap()
            .split('@')
            .next(),
        Some("ann")
    );
    for mut process in [waiter, conductor] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    site.write("go-on", "");
    let broken = site.transcript(&["lock", "shop/web", "--break"]);
    assert!(broken.ends_with("--- exit status 2\n"), "{broken}");
    assert_snapshot!(site.transcript(&["lock", "shop/web", "--break", "--yes"]), @"
    $ cutover lock shop/web --break --yes
    STOPPED  release RELEASE-ID
    --- stderr
    interrupted RELEASE-ID  the conductor died
           done web-1 BeforeInstall    TOOK
          ended shop/web  1.0.0  stopped by an operator    TOOK
        stopped RELEASE-ID  stopped by an operator
    ");
    assert_snapshot!(site.transcript(&["lock", "shop/web"]), @"
    $ cutover lock shop/web
    No release holds shop/web.
    ");
}

/// A machine that is gone cannot be asked: the lease says when its release may be ended by others.
#[test]
fn the_lock_of_a_conductor_on_another_machine_is_broken_after_its_lease_and_not_before() {
    let site = slow();
    let mut conductor = begun(&site);
    conductor.kill().unwrap();
    conductor.wait().unwrap();
    site.write("go-on", "");
    let release = ReleaseId::parse(newest(&site)).unwrap();
    let far = Owner {
        host: "far".to_owned(),
        name: "eve@far".to_owned(),
        ..Owner::current().unwrap()
    };
    let journal = open_journal(&site);
    let tenure = journal.take_over(&release, &far, Timestamp(now())).unwrap();
    let early = site.cutover(&["lock", "shop/web", "--break", "--yes"]);
    assert_eq!(early.code, 6, "{}", early.stderr);
    assert!(early.stderr.contains("eve@far"), "{}", early.stderr);

    journal.renew(&tenure, Timestamp(now() - 40_000)).unwrap();

    let text = site.transcript(&["lock", "shop/web"]);
    let text = without_processes(&text, &[std::process::id()]);
    assert!(
        text.contains("driven by    nobody: the lease of eve@far, process "),
        "{text}"
    );
    site.cutover(&["lock", "shop/web", "--break", "--yes"]).ok();
    assert!(lock(&site)["holder"].is_null());
}

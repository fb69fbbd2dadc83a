//! What a group has had, and going back to it: history, redeploy, retry, rollback, mixed versions, retention.

#![allow(clippy::unwrap_used)]

use cutover_tests::{Answer, Site};
use insta::assert_snapshot;
use serde_json::{Value, json};

const RETENTION: &str = "        keep_revisions: 0\n";

fn deploy(site: &Site, package: &str, version: &str, more: &[&str]) -> Answer {
    let arguments = [
        "deploy",
        "shop/web",
        "--package",
        package,
        "--version",
        version,
    ];
    site.cutover(&[&arguments, more].concat())
}

fn installed(site: &Site, instance: &str) -> String {
    std::fs::read_to_string(site.path(&format!("{instance}/app/version.txt"))).unwrap_or_default()
}

/// What each of the instances web-1, web-2, … has.
fn versions<const N: usize>(site: &Site) -> [String; N] {
    std::array::from_fn(|index| installed(site, &format!("web-{}", index + 1)))
}

fn newest(site: &Site) -> String {
    site.report_of_newest()["id"].as_str().unwrap().to_owned()
}

/// The deployment of the newest release.
fn deployment(site: &Site) -> String {
    format!("{}-1", newest(site))
}

/// A package whose ApplicationStart fails on an instance for as long as the workspace has a file `broken-INSTANCE`.
fn breakable(site: &Site, folder: &str, version: &str) {
    let broken = site.path("broken");
    let more = format!(
        "[ \"$LIFECYCLE_EVENT\" != ApplicationStart ] || [ ! -e '{}'-$CUTOVER_INSTANCE_ID ] || exit 3",
        broken.display()
    );
    site.traced_package(folder, version, &more);
}

/// Three instances with 1.0.0, and packages `v1` to `v3`.
fn shop(rest: &str) -> Site {
    let site = Site::with_instances(3, rest);
    for number in 1..=3 {
        breakable(&site, &format!("v{number}"), &format!("1.{}.0", number - 1));
    }
    deploy(&site, "v1", "1.0.0", &[]).ok();
    site
}

/// Three instances, of which web-1 has 1.1.0, web-2 failed to start it and web-3 never got it.
fn half_way(rest: &str) -> Site {
    let site = shop(rest);
    site.write("broken-web-2", "");
    assert_eq!(deploy(&site, "v2", "1.1.0", &[]).code, 4);
    std::fs::remove_file(site.path("broken-web-2")).unwrap();
    let _ = site.take_trace();
    site
}

fn outcomes(report: &Value) -> Vec<String> {
    let instances = report["deployments"][0]["instances"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    instances
        .iter()
        .map(|instance| {
            format!(
                "{} {} -> {} {}",
                text(&instance["id"]),
                text(&instance["from_version"]),
                text(&instance["to_version"]),
                text(&instance["outcome"])
            )
        })
        .collect()
}

#[test]
fn an_old_deployment_is_the_template_of_another_one() {
    let site = shop("");
    let template = deployment(&site);
    deploy(&site, "v2", "1.1.0", &[]).ok();
    std::fs::remove_dir_all(site.path("v1")).unwrap();

    let report = site.as_planned(&["redeploy", &template, "--version", "1.2.0"]);

    let redeployed = &report["deployments"][0];
    assert_eq!(redeployed["kind"], "REDEPLOY");
    assert_eq!(redeployed["revision"]["version"], "1.2.0");
    assert_eq!(report["comment"], format!("redeploys {template} (1.0.0)"));
    assert_eq!(versions(&site), ["1.0.0"; 3]);
    assert_eq!(
        outcomes(&report),
        [1, 2, 3].map(|number| format!("web-{number} 1.1.0 -> 1.2.0 SUCCEEDED"))
    );
}

#[test]
fn a_template_is_fetched_again_with_the_recorded_digest_and_no_other() {
    let site = shop("");
    let template = deployment(&site);
    deploy(&site, "v2", "1.1.0", &[]).ok();
    std::fs::remove_dir_all(site.path(".cutover/packages")).unwrap();

    site.cutover(&["redeploy", &template, "--version", "1.2.0"])
        .ok();
    std::fs::remove_dir_all(site.path(".cutover/packages")).unwrap();
    site.write("v1/content/version.txt", "changed");
    let changed = site.cutover(&["redeploy", &template]);
    std::fs::remove_dir_all(site.path("v1")).unwrap();
    let gone = site.cutover(&["redeploy", &template]);

    assert_eq!((changed.code, gone.code), (3, 3));
    assert!(
        changed.stderr.contains("has digest sha256:"),
        "{}",
        changed.stderr
    );
    assert!(gone.stderr.contains("No such file"), "{}", gone.stderr);
    assert_eq!(versions(&site), ["1.0.0"; 3]);
}

#[test]
fn what_is_no_template_is_refused_with_the_reason() {
    let site = shop("");
    let first = deployment(&site);
    deploy(&site, "v2", "1.1.0", &[]).ok();
    let second = deployment(&site);
    site.cutover(&["rollback", "shop/web"]).ok();
    let rollback = deployment(&site);

    assert_snapshot!(site.transcript(&["redeploy", &second]), @"
    $ cutover redeploy RELEASE-ID-1
    --- stderr
    error: 1.1.0 of deployment RELEASE-ID-1 was rolled back by RELEASE-ID-1, and is no template
    hint: see why: cutover report RELEASE-ID-1
    hint: deploy the package itself, if it is good after all: cutover deploy
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["redeploy", &rollback]), @"
    $ cutover redeploy RELEASE-ID-1
    --- stderr
    error: deployment RELEASE-ID-1 is a rollback, and brought no package of its own
    hint: name the deployment that brought it: cutover redeploy RELEASE-ID-1
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["redeploy", "zzz"]), @"
    $ cutover redeploy zzz
    --- stderr
    error: no release or deployment begins with `zzz`
    hint: list releases: cutover ls
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["redeploy", &first, "--strategy", "blue-green"]), @"
    $ cutover redeploy RELEASE-ID-1 --strategy blue-green
    --- stderr
    error: shop/web cannot be deployed blue-green: its `sides` have no instances of their own, so there is no side to deploy to while the other one serves
    hint: leave --strategy out to deploy as the file says
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["redeploy", &first, "--version", "1.01.0"]), @"
    $ cutover redeploy RELEASE-ID-1 --version 1.01.0
    --- stderr
    error: version 1.01.0 is in the history of shop/web already (deployment RELEASE-ID-1)
    hint: give another --version, or leave it out to have one generated
    --- exit status 3
    ");
}

#[test]
fn a_deployment_that_failed_may_be_a_template_and_says_so() {
    let site = half_way("");
    let template = newest(&site);

    let answer = site
        .cutover(&["redeploy", &template, "--version", "1.2.0"])
        .ok();

    let ended = format!("warning: the template {template}-1 ended FAILED: web-2: ApplicationStart");
    assert!(answer.stderr.contains(&ended), "{}", answer.stderr);
    assert_eq!(versions(&site), ["1.1.0"; 3]);
}

#[test]
fn a_retry_brings_the_version_to_whoever_did_not_get_it() {
    let site = half_way("");
    let failed = newest(&site);

    let report = site.as_planned(&["retry", &failed, "--failed"]);

    let retry = &report["deployments"][0];
    assert_eq!(
        (&retry["kind"], &retry["direction"]),
        (&json!("RETRY"), &json!("deploy"))
    );
    assert_eq!(retry["revision"]["version"], "1.1.0");
    assert_eq!(
        outcomes(&report),
        [
            // It had been installed there before it failed to start.
            "web-2 1.1.0 -> 1.1.0 SUCCEEDED",
            "web-3 1.0.0 -> 1.1.0 SUCCEEDED",
        ]
    );
    assert!(
        !site
            .take_trace()
            .iter()
            .any(|line| line.starts_with("web-1"))
    );
    assert_eq!(versions(&site), ["1.1.0"; 3]);
}

#[test]
fn a_rollback_after_a_retry_returns_everybody() {
    let site = half_way("");
    site.cutover(&["retry", &newest(&site), "--failed"]).ok();

    let report = site.as_planned(&["rollback", "shop/web"]);

    assert_eq!(
        outcomes(&report),
        [1, 2, 3].map(|number| format!("web-{number} 1.1.0 -> 1.0.0 SUCCEEDED"))
    );
    assert_eq!(versions(&site), ["1.0.0"; 3]);
    let history = site
        .cutover(&["history", "shop/web", "--output", "json"])
        .ok()
        .json();
    let by = &history["deployments"][0]["id"];
    assert_eq!(history["deployments"][1]["kind"], "RETRY");
    assert_eq!(&history["deployments"][1]["rolled_back_by"], by);
    assert_eq!(&history["deployments"][2]["rolled_back_by"], by);
    assert_eq!(history["deployments"][3]["rolled_back_by"], Value::Null);
}

#[test]
fn a_retry_that_would_bring_nothing_is_refused_with_the_reason() {
    let site = half_way("");
    let failed = newest(&site);
    site.cutover(&["retry", &failed, "--failed"]).ok();

    assert_snapshot!(site.transcript(&["retry", &failed]), @"
    $ cutover retry RELEASE-ID
    --- stderr
    error: the following required arguments were not provided:
      --failed

    Usage: cutover retry --failed <ID>

    For more information, try '--help'.
    --- exit status 2
    ");
    assert_snapshot!(site.transcript(&["retry", &failed, "--failed"]), @"
    $ cutover retry RELEASE-ID --failed
    --- stderr
    error: deployment RELEASE-ID-1 came after RELEASE-ID-1: it is the retry to go on from
    hint: retry that one: cutover retry RELEASE-ID --failed
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["retry", &newest(&site), "--failed"]), @"
    $ cutover retry RELEASE-ID --failed
    --- stderr
    error: every instance of deployment RELEASE-ID-1 has 1.1.0: nothing is left to retry
    --- exit status 3
    ");
    site.cutover(&["rollback", "shop/web"]).ok();
    assert_snapshot!(site.transcript(&["retry", &newest(&site), "--failed"]), @"
    $ cutover retry RELEASE-ID --failed
    --- stderr
    error: release RELEASE-ID brought nothing that could be retried
    hint: see what it did: cutover report RELEASE-ID
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["retry", &failed, "--failed"]), @"
    $ cutover retry RELEASE-ID --failed
    --- stderr
    error: 1.1.0 of deployment RELEASE-ID-1 was rolled back by RELEASE-ID-1
    hint: see why: cutover report RELEASE-ID-1
    hint: deploy the package itself, if it is good after all: cutover deploy
    --- exit status 3
    ");
    deploy(&site, "v3", "1.2.0", &[]).ok();
    site.write("broken-web-1", "");
    assert_eq!(deploy(&site, "v2", "1.3.0", &[]).code, 4);
    let broken = newest(&site);
    deploy(&site, "v1", "1.4.0", &["--exclude", "web-2"]);
    assert_snapshot!(site.transcript(&["retry", &broken, "--failed"]), @"
    $ cutover retry RELEASE-ID --failed
    --- stderr
    error: deployment RELEASE-ID-1 came after RELEASE-ID-1: the group has gone on since
    hint: see what it did: cutover show RELEASE-ID
    --- exit status 3
    ");
}

#[test]
fn a_rollback_shows_its_plan_and_goes_to_any_version_that_is_kept() {
    let site = shop("        strategy: {type: rolling, concurrency: 2}\n");
    deploy(&site, "v2", "1.1.0", &[]).ok();
    deploy(&site, "v3", "1.2.0", &[]).ok();

    assert_snapshot!(site.transcript(&["rollback", "shop/web", "--to", "9.9.9"]), @"
    $ cutover rollback shop/web --to 9.9.9
    --- stderr
    error: shop/web has never had 9.9.9
    hint: see what it has had: cutover history shop/web
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["rollback", "shop/web", "--to", "1.2.0"]), @"
    $ cutover rollback shop/web --to 1.2.0
    --- stderr
    error: every instance of shop/web that has anything installed has 1.2.0 already
    hint: see what it has had: cutover history shop/web
    --- exit status 3
    ");
    let report = site.as_planned(&["rollback", "shop/web", "--to", "1.0.0"]);
    assert_eq!(
        outcomes(&report),
        [1, 2, 3].map(|number| format!("web-{number} 1.2.0 -> 1.0.0 SUCCEEDED"))
    );
    // Everything since is gone, so there is nothing before what is left.
    assert_snapshot!(site.transcript(&["rollback", "shop/web"]), @"
    $ cutover rollback shop/web
    --- stderr
    error: deployment RELEASE-ID-1 was the first on every instance that it touched: there is no version to return to
    hint: see what it did: cutover report RELEASE-ID-1
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["history", "shop/web"]), @"
    $ cutover history shop/web
    DEPLOYMENT    VERSION  FROM     KIND      STRATEGY  STATUS     STARTED               TOOK    OPERATOR  NOTE
    RELEASE-ID-1  1.0.0    1.2.0    ROLLBACK  rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST  takes RELEASE-ID-1 back
    RELEASE-ID-1  1.2.0    1.1.0    DEPLOY    rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST  rolled back by RELEASE-ID-1
    RELEASE-ID-1  1.1.0    1.0.0    DEPLOY    rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST  rolled back by RELEASE-ID-1
    RELEASE-ID-1  1.0.0    nothing  DEPLOY    rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST
    ");
    // A mistaken rollback is taken back the same way.
    let _ = site.take_trace();
    let forth = site
        .cutover(&["rollback", "shop/web", "--to", "1.1.0"])
        .ok();
    let plan: String = forth
        .stderr
        .lines()
        .take(6)
        .map(|line| format!("{line}\n"))
        .collect();
    assert_snapshot!(site.normalised(&plan), @"
    warning: 1.1.0 was rolled back by RELEASE-ID-1
    shop/web  rollback 1.1.0  rolling
      BATCH  FROM   TO     INSTANCES
      1      1.0.0  1.1.0  web-1 web-2
      2      1.0.0  1.1.0  web-3
      returning shop/web                1.1.0 to 3 instances, 2 at a time  (RELEASE-ID-1)
    ");
    assert_eq!(versions(&site), ["1.1.0"; 3]);
}

#[test]
fn who_is_left_out_keeps_its_version_and_the_group_says_so() {
    let site = shop("");

    let report = site.as_planned(&[
        "deploy",
        "shop/web",
        "--package",
        "v2",
        "--version",
        "1.1.0",
        "--exclude",
        "web-2",
    ]);

    assert_eq!(report["deployments"][0]["excluded"], json!(["web-2"]));
    assert_eq!(versions(&site), ["1.1.0", "1.0.0", "1.1.0"]);
    let mixed = json!({"web-1": "1.1.0", "web-2": "1.0.0", "web-3": "1.1.0"});
    let shown = site
        .cutover(&["show", &newest(&site), "--output", "json"])
        .ok()
        .json();
    assert_eq!(shown["deployments"][0]["mixed_versions"], mixed);
    let arguments = ["deploy", "shop/web", "--package", "v3", "--dry-run"];
    let planned = site
        .cutover(&[&arguments[..], &["--output", "json"]].concat())
        .ok()
        .json();
    assert_eq!(planned["deployments"][0]["mixed_versions"], mixed);
    let planned = site.cutover(&arguments).ok().stdout;
    assert!(
        planned.contains("  mixed      1.1.0 on web-1 web-3\n             1.0.0 on web-2\n"),
        "{planned}"
    );
    assert_snapshot!(site.transcript(&["check"]), @"
    $ cutover check
    cutover.yaml:4:7: warning: shop/web has mixed versions: 1.1.0 on web-1 web-3, 1.0.0 on web-2
    ");
    assert_snapshot!(site.transcript(&["history", "shop/web"]), @"
    $ cutover history shop/web
    DEPLOYMENT    VERSION  FROM     KIND    STRATEGY  STATUS     STARTED               TOOK    OPERATOR  NOTE
    RELEASE-ID-1  1.1.0    1.0.0    DEPLOY  rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST  without web-2
    RELEASE-ID-1  1.0.0    nothing  DEPLOY  rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST
    --- stderr
    warning: shop/web has mixed versions: 1.1.0 on web-1 web-3, 1.0.0 on web-2
    ");
    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "v3", "--exclude", "wbe-1"]), @"
    $ cutover deploy shop/web --package v3 --exclude wbe-1
    --- stderr
    error: shop/web has no instance `wbe-1`
    hint: did you mean `web-1`?
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "v3", "--exclude", "web-1", "--exclude", "web-2", "--exclude", "web-3"]), @"
    $ cutover deploy shop/web --package v3 --exclude web-1 --exclude web-2 --exclude web-3
    --- stderr
    error: every instance of shop/web is left out
    --- exit status 3
    ");
    deploy(&site, "v3", "1.2.0", &[]).ok();
    let history = site
        .cutover(&["history", "shop/web", "--output", "json"])
        .ok()
        .json();
    assert_eq!(history["mixed_versions"], json!({}));
    assert_eq!(
        history["deployments"][0]["from_versions"],
        json!(["1.0.0", "1.1.0"])
    );
    assert_eq!(history["deployments"][1]["excluded"], json!(["web-2"]));
}

#[test]
fn a_canary_may_be_asked_for_where_there_are_instances_for_one() {
    let site = shop("");
    let arguments = [
        "deploy",
        "shop/web",
        "--package",
        "v2",
        "--strategy",
        "canary",
    ];

    let planned = site
        .cutover(&[&arguments[..], &["--dry-run", "--output", "json"]].concat())
        .ok()
        .json();

    let deployment = &planned["deployments"][0];
    assert_eq!(deployment["strategy"], "canary");
    assert_eq!(
        deployment["batches"],
        json!([["web-1"], ["web-2", "web-3"]])
    );
}

/// Takes away what the conductor keeps, and where it came from.
fn forget_packages(site: &Site) {
    std::fs::remove_dir_all(site.path(".cutover/packages")).unwrap();
    for number in 1..=3 {
        std::fs::remove_dir_all(site.path(&format!("v{number}"))).unwrap();
    }
}

#[test]
fn instances_keep_what_a_rollback_needs_when_nobody_else_does() {
    let site = shop(RETENTION);
    deploy(&site, "v2", "1.1.0", &[]).ok();
    deploy(&site, "v3", "1.2.0", &[]).ok();
    deploy(&site, "v1", "1.3.0", &[]).ok();
    forget_packages(&site);

    site.cutover(&["rollback", "shop/web"]).ok();

    assert_eq!(versions(&site), ["1.2.0"; 3]);
    let gone = site.cutover(&["rollback", "shop/web", "--to", "1.0.0"]);
    assert_eq!(gone.code, 3);
    assert!(
        gone.stderr.contains(
            "1.0.0 is not kept: `web-1` has it no more in its cache, and it cannot be fetched"
        ),
        "{}",
        gone.stderr
    );
    assert_eq!(versions(&site), ["1.2.0"; 3]);
}

#[test]
fn a_deployment_that_failed_half_way_takes_nothing_that_two_rollbacks_need() {
    let site = shop(RETENTION);
    deploy(&site, "v2", "1.1.0", &[]).ok();
    site.write("broken-web-2", "");
    assert_eq!(deploy(&site, "v3", "1.2.0", &[]).code, 4);
    std::fs::remove_file(site.path("broken-web-2")).unwrap();
    forget_packages(&site);

    site.cutover(&["rollback", "shop/web"]).ok();
    let once = versions(&site);
    site.cutover(&["rollback", "shop/web"]).ok();

    assert_eq!(once, ["1.1.0"; 3]);
    assert_eq!(versions(&site), ["1.0.0"; 3]);
}

#[test]
fn the_conductor_keeps_what_a_rollback_of_what_runs_needs() {
    let site = shop(RETENTION);
    deploy(&site, "v2", "1.1.0", &[]).ok();
    site.write("broken-web-2", "");
    assert_eq!(deploy(&site, "v3", "1.2.0", &[]).code, 4);
    std::fs::remove_file(site.path("broken-web-2")).unwrap();
    for number in 1..=3 {
        std::fs::remove_dir_all(site.path(&format!("v{number}"))).unwrap();
        std::fs::remove_dir_all(site.path(&format!("web-{number}/app-shop"))).unwrap();
    }

    site.cutover(&["rollback", "shop/web"]).ok();
    site.cutover(&["rollback", "shop/web"]).ok();

    assert_eq!(versions(&site), ["1.0.0"; 3]);
}

#[test]
fn a_dry_run_shows_exactly_what_a_deployment_then_does() {
    let site = shop("        strategy: {type: rolling, concurrency: 2}\n");

    let report = site.as_planned(&[
        "deploy",
        "shop/web",
        "--package",
        "v2",
        "--version",
        "1.1.0",
    ]);

    assert_eq!(
        report["deployments"][0]["batches"],
        json!([["web-1", "web-2"], ["web-3"]])
    );
}

#[test]
fn a_dry_run_shows_exactly_what_happens_behind_a_load_balancer() {
    let site = Site::with_instances(
        2,
        "        load_balancer: {plugin: list, config: {directory: pool, file: upstreams.txt}}\n",
    );
    let text = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let addressed = (1..=2).fold(text, |text, number| {
        let id = format!("id: web-{number},");
        text.replace(&id, &format!("{id} address: \"127.0.0.1:808{number}\","))
    });
    let plugin = "plugins:\n  list:\n    component: file-balancer\n    grants: {directories: [{name: pool, path: pool, access: read-write}]}\n";
    site.write("cutover.yaml", &format!("{plugin}{addressed}"));
    site.write("pool/upstreams.txt", "");
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", "");

    let first = [
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.0.0",
    ];
    let report = site.as_planned(&first);
    let template = report["deployments"][0]["id"].as_str().unwrap().to_owned();
    let _ = site.as_planned(&[
        "deploy",
        "shop/web",
        "--package",
        "v2",
        "--version",
        "1.1.0",
    ]);
    let _ = site.as_planned(&["redeploy", &template, "--version", "1.2.0"]);
    let report = site.as_planned(&["rollback", "shop/web"]);

    let steps = report["deployments"][0]["instances"][0]["steps"]
        .as_array()
        .unwrap();
    assert_eq!(steps.len(), 12, "{steps:?}");
    assert_eq!(versions(&site), ["1.1.0", "1.1.0"]);
}

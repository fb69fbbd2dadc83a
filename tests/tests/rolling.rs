//! Rolling deployments of the whole program on local instances, without a load balancer.

#![allow(clippy::unwrap_used)]

use cutover_tests::Site;
use serde_json::Value;

fn deploy(site: &Site, package: &str, version: &str) -> cutover_tests::Answer {
    site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        package,
        "--version",
        version,
    ])
}

fn installed(site: &Site, instance: &str) -> String {
    std::fs::read_to_string(site.path(&format!("{instance}/app/version.txt"))).unwrap_or_default()
}

fn steps(instance: &Value) -> Vec<String> {
    let steps = instance["steps"].as_array().unwrap();
    steps
        .iter()
        .map(|step| {
            let text = |key: &str| step[key].as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {}",
                text("event"),
                text("status"),
                text("revision"),
                text("version")
            )
        })
        .collect()
}

#[test]
fn goes_over_every_instance_in_order_with_each_hook_from_the_right_revision() {
    let site = Site::with_instances(2, "");
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", "");

    deploy(&site, "v1", "1.0.0").ok();
    let first = site.take_trace();
    deploy(&site, "v2", "1.1.0").ok();

    assert!(
        !first.iter().any(|line| line.contains("ApplicationStop")),
        "{first:?}"
    );
    let expected: Vec<_> = ["web-1", "web-2"]
        .iter()
        .flat_map(|instance| {
            [
                format!("{instance} ApplicationStop 1.0.0 1"),
                format!("{instance} BeforeInstall 1.1.0 1"),
                format!("{instance} AfterInstall 1.1.0 1"),
                format!("{instance} ApplicationStart 1.1.0 1"),
                format!("{instance} ValidateService 1.1.0 1"),
            ]
        })
        .collect();
    assert_eq!(site.take_trace(), expected);
    assert_eq!(installed(&site, "web-2"), "1.1.0");
}

#[test]
fn the_report_has_the_contracts_shape() {
    let site = Site::with_instances(
        3,
        "        strategy: {type: rolling, concurrency: 2}\n        service_id: 111\n",
    );
    site.traced_package("v1", "1.0.0", "");
    deploy(&site, "v1", "1.0.0").ok();

    let report = site.report();

    let deployment = &report["deployments"][0];
    assert_eq!(report["v"], 1);
    assert_eq!(report["status"], "SUCCEEDED");
    assert_eq!(report["waiting_for"], Value::Null);
    assert_eq!(deployment["service_id"], 111);
    assert_eq!(deployment["application"], "shop");
    assert_eq!(deployment["group"], "web");
    assert_eq!(deployment["strategy"], "rolling");
    assert_eq!(deployment["direction"], "deploy");
    assert_eq!(deployment["revision"]["version"], "1.0.0");
    assert!(
        deployment["revision"]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    assert_eq!(
        deployment["batches"],
        serde_json::json!([["web-1", "web-2"], ["web-3"]])
    );
    assert_eq!(deployment["switches"], serde_json::json!([]));
    let instance = &deployment["instances"][0];
    assert_eq!(instance["outcome"], "SUCCEEDED");
    assert_eq!(instance["from_version"], Value::Null);
    assert_eq!(
        steps(instance),
        [
            "DownloadBundle SUCCEEDED incoming 1.0.0",
            "ApplicationStop SKIPPED - -",
            "BeforeInstall SUCCEEDED incoming 1.0.0",
            "Install SUCCEEDED incoming 1.0.0",
            "AfterInstall SUCCEEDED incoming 1.0.0",
            "ApplicationStart SUCCEEDED incoming 1.0.0",
            "ValidateService SUCCEEDED incoming 1.0.0",
        ]
    );
    let skipped = &instance["steps"][1];
    assert_eq!(
        skipped["reason"],
        "no revision is installed on the instance"
    );
    let step = &instance["steps"][2];
    assert_eq!(step["exit_code"], 0);
    assert_eq!(step["attempt"], 1);
    assert!(step["started_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_dry_run_shows_every_step_and_touches_nothing() {
    let site = Site::with_instances(2, "");
    site.traced_package("v1", "1.0.0", "");

    let plan = site
        .cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "v1",
            "--version",
            "1.0.0",
            "--dry-run",
            "--output",
            "json",
        ])
        .ok()
        .json();

    assert_eq!(plan["status"], "PLANNED");
    assert_eq!(
        plan["deployments"][0]["batches"],
        serde_json::json!([["web-1"], ["web-2"]])
    );
    assert_eq!(
        steps(&plan["deployments"][0]["instances"][0])[2],
        "BeforeInstall PLANNED incoming 1.0.0"
    );
    assert!(
        !site.path("web-1").exists(),
        "nothing is made on an instance"
    );
    assert!(site.take_trace().is_empty());
    assert_eq!(
        site.cutover(&["ls", "--output", "json"]).ok().json()["releases"],
        serde_json::json!([])
    );
}

#[test]
fn the_package_is_cached_where_the_contract_says() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.0.0", "");
    deploy(&site, "v1", "1.0.0").ok();

    let id = site.report()["deployments"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();

    assert!(
        site.path(&format!("web-1/app-shop/group-web/deploy-{id}/appspec.yml"))
            .exists()
    );
}

#[test]
fn hooks_get_the_contracts_environment() {
    let site = Site::with_instances(1, "        env: {APP_ENV: production}\n");
    site.traced_package(
        "v1",
        "1.0.0",
        "pwd > cwd.txt; env > env.txt; readlink /proc/self/fd/0 > stdin.txt || true",
    );
    deploy(&site, "v1", "1.0.0").ok();

    let id = site.report()["deployments"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let bundle = site.path(&format!("web-1/app-shop/group-web/deploy-{id}"));
    let environment = std::fs::read_to_string(bundle.join("env.txt")).unwrap();
    for line in [
        "LIFECYCLE_EVENT=ValidateService".to_owned(),
        format!("DEPLOYMENT_ID={id}"),
        "APPLICATION_NAME=shop".to_owned(),
        "DEPLOYMENT_GROUP_NAME=web".to_owned(),
        "JDCLOUD_CODEDEPLOY_OPERATION=UPDATE".to_owned(),
        "CUTOVER_INSTANCE_ID=web-1".to_owned(),
        "CUTOVER_VERSION=1.0.0".to_owned(),
        "CUTOVER_ATTEMPT=1".to_owned(),
        format!("CUTOVER_BUNDLE_DIR={}", bundle.display()),
        format!("CUTOVER_ROOTDIR={}", site.path("web-1").display()),
        "APP_ENV=production".to_owned(),
    ] {
        assert!(
            environment.lines().any(|found| found == line),
            "`{line}` is missing in\n{environment}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(bundle.join("cwd.txt"))
            .unwrap()
            .trim(),
        bundle.display().to_string()
    );
}

#[test]
fn a_failed_instance_stops_the_rest_and_the_verdict_names_it() {
    let site = Site::with_instances(3, "");
    site.traced_package("v1", "1.0.0", "[ \"$LIFECYCLE_EVENT $CUTOVER_INSTANCE_ID\" != 'ApplicationStart web-2' ] || { echo no licence; exit 3; }");

    let answer = deploy(&site, "v1", "1.0.0");

    assert_eq!(answer.code, 4, "{}", answer.stderr);
    assert!(
        answer.stderr.contains("web-2: ApplicationStart"),
        "{}",
        answer.stderr
    );
    assert!(answer.stderr.contains("no licence"), "{}", answer.stderr);
    let report = site.report();
    let outcomes: Vec<_> = report["deployments"][0]["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["SUCCEEDED", "FAILED", "SKIPPED"]);
    assert_eq!(report["status"], "FAILED");
    let failed = report["deployments"][0]["instances"][1]["steps"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(failed["exit_code"], 3);
}

#[test]
fn fewer_failures_than_the_threshold_do_not_fail_the_deployment() {
    let site = Site::with_instances(
        3,
        "        strategy: {type: rolling, concurrency: 1, failure_threshold: 2}\n",
    );
    site.traced_package(
        "v1",
        "1.0.0",
        "[ \"$LIFECYCLE_EVENT $CUTOVER_INSTANCE_ID\" != 'ApplicationStart web-2' ] || exit 3",
    );

    deploy(&site, "v1", "1.0.0").ok();

    assert_eq!(
        site.report()["deployments"][0]["instances"][1]["outcome"],
        "FAILED"
    );
    assert_eq!(installed(&site, "web-3"), "1.0.0");
}

#[test]
fn rolls_back_to_the_version_before_without_fetching_it() {
    let site = Site::with_instances(2, "");
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", "");
    deploy(&site, "v1", "1.0.0").ok();
    deploy(&site, "v2", "1.1.0").ok();
    std::fs::remove_dir_all(site.path("v1")).unwrap();
    std::fs::remove_dir_all(site.path(".cutover/packages")).unwrap();
    let _ = site.take_trace();

    site.cutover(&["rollback", "shop/web"]).ok();

    assert_eq!(
        site.take_trace()[..5],
        [
            "web-1 ApplicationStop 1.1.0 1",
            "web-1 BeforeInstall 1.0.0 1",
            "web-1 AfterInstall 1.0.0 1",
            "web-1 ApplicationStart 1.0.0 1",
            "web-1 ValidateService 1.0.0 1",
        ]
    );
    assert_eq!(installed(&site, "web-1"), "1.0.0");
    let report = site.report();
    assert_eq!(report["deployments"][0]["direction"], "rollback");
    assert_eq!(
        report["deployments"][0]["instances"][0]["from_version"],
        "1.1.0"
    );
}

#[test]
fn a_rollback_fetches_again_what_is_gone_from_the_cache() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", "");
    deploy(&site, "v1", "1.0.0").ok();
    let first = site.report()["deployments"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    deploy(&site, "v2", "1.1.0").ok();
    std::fs::remove_dir_all(site.path(&format!("web-1/app-shop/group-web/deploy-{first}")))
        .unwrap();
    std::fs::remove_dir_all(site.path(".cutover/packages")).unwrap();

    site.cutover(&["rollback", "shop/web"]).ok();

    assert_eq!(installed(&site, "web-1"), "1.0.0");
}

#[test]
fn a_rollback_refuses_a_package_that_has_changed_since() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", "");
    deploy(&site, "v1", "1.0.0").ok();
    let first = site.report()["deployments"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    deploy(&site, "v2", "1.1.0").ok();
    std::fs::remove_dir_all(site.path(&format!("web-1/app-shop/group-web/deploy-{first}")))
        .unwrap();
    std::fs::remove_dir_all(site.path(".cutover/packages")).unwrap();
    site.write("v1/content/version.txt", "forged");
    let _ = site.take_trace();

    let answer = site.cutover(&["rollback", "shop/web"]);

    assert_ne!(answer.code, 0);
    assert!(answer.stderr.contains("has digest"), "{}", answer.stderr);
    assert!(site.take_trace().is_empty(), "no hook ran");
}

#[test]
fn a_failed_upgrade_goes_back_by_itself_where_it_is_told_to() {
    let strategy = "        strategy: {type: rolling, concurrency: 1, on_failure: rollback}\n";
    let site = Site::with_instances(3, strategy);
    site.traced_package("v1", "1.0.0", "");
    site.traced_package(
        "v2",
        "1.1.0",
        "[ \"$LIFECYCLE_EVENT $CUTOVER_INSTANCE_ID\" != 'ValidateService web-2' ] || exit 7",
    );
    deploy(&site, "v1", "1.0.0").ok();

    let answer = deploy(&site, "v2", "1.1.0");

    assert_eq!(answer.code, 4, "{}", answer.stderr);
    let report = site.report();
    assert_eq!(report["status"], "FAILED", "the headline stays");
    assert_eq!(
        report["deployments"][1]["status"], "SUCCEEDED",
        "the rollback has its own status"
    );
    let touched: Vec<_> = report["deployments"][1]["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["id"].clone())
        .collect();
    assert_eq!(touched, ["web-1", "web-2"]);
    for instance in ["web-1", "web-2", "web-3"] {
        assert_eq!(installed(&site, instance), "1.0.0");
    }
}

#[test]
fn the_first_deployment_cannot_be_rolled_back() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.0.0", "");
    deploy(&site, "v1", "1.0.0").ok();

    let answer = site.cutover(&["rollback", "shop/web"]);

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    assert!(
        answer.stderr.contains("there is no version to return to"),
        "{}",
        answer.stderr
    );
}

#[test]
fn the_form_stands_in_for_the_packages_hooks() {
    let form = "        scripts:\n          ApplicationStart: {command: 'echo form >> trace.txt', timeout: 5}\n";
    let site = Site::with_instances(1, form);
    site.traced_package("v1", "1.0.0", "");

    deploy(&site, "v1", "1.0.0").ok();

    let id = site.report()["deployments"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        site.take_trace().is_empty(),
        "the package's own hooks do not run"
    );
    let bundle = site.path(&format!("web-1/app-shop/group-web/deploy-{id}"));
    assert_eq!(
        std::fs::read_to_string(bundle.join("trace.txt")).unwrap(),
        "form\n"
    );
}

#[test]
fn a_version_is_used_once_and_a_generated_one_never_collides() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.0.0", "");
    deploy(&site, "v1", "1.0.0").ok();

    let again = deploy(&site, "v1", "1.0.0");

    assert_eq!(again.code, 3, "{}", again.stderr);
    for _ in 0..3 {
        site.cutover(&["deploy", "shop/web", "--package", "v1"])
            .ok();
    }
    let history = site
        .cutover(&["history", "shop/web", "--output", "json"])
        .ok()
        .json();
    let versions: std::collections::BTreeSet<_> = history["deployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["version"].to_string())
        .collect();
    assert_eq!(versions.len(), 4);
}

#[test]
fn an_archive_is_a_package_too() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.0.0", "");
    let packed = std::process::Command::new("tar")
        .current_dir(site.path("v1"))
        .args(["-czf", "../shop-1.4.0.tar.gz", "."])
        .status()
        .unwrap();
    assert!(packed.success());

    site.cutover(&["deploy", "shop/web", "--package", "shop-1.4.0.tar.gz"])
        .ok();

    assert_eq!(installed(&site, "web-1"), "1.0.0");
    assert_eq!(
        site.report()["deployments"][0]["revision"]["version"],
        "1.4.0",
        "guessed from the file's name"
    );
}

#[test]
fn logs_show_what_hooks_printed() {
    let site = Site::with_instances(2, "");
    site.traced_package(
        "v1",
        "1.0.0",
        "echo \"hello from $CUTOVER_INSTANCE_ID\"; echo oops >&2",
    );
    deploy(&site, "v1", "1.0.0").ok();
    let id = site.report()["id"].as_str().unwrap().to_owned();

    let answer = site
        .cutover(&[
            "logs",
            &id[..6],
            "--instance",
            "web-2",
            "--event",
            "ApplicationStart",
        ])
        .ok();

    assert!(
        answer.stdout.contains("hello from web-2"),
        "{}",
        answer.stdout
    );
    assert!(answer.stdout.contains("oops"), "{}", answer.stdout);
    assert!(!answer.stdout.contains("web-1"), "{}", answer.stdout);
}

#[test]
fn a_failure_of_the_version_being_left_is_ignored_when_asked_and_the_report_says_so() {
    let site = Site::with_instances(1, "");
    let fails = "[ $LIFECYCLE_EVENT = ApplicationStop ] && exit 3; exit 0";
    site.traced_package("v1", "1.0.0", fails);
    site.traced_package("v2", "2.0.0", "");
    site.cutover(&["deploy", "shop/web", "--package", "v1"])
        .ok();

    let refused = site.cutover(&["deploy", "shop/web", "--package", "v2"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("ApplicationStop of outgoing revision"),
        "{}",
        refused.stderr
    );

    let ignoring = [
        "deploy",
        "shop/web",
        "--package",
        "v2",
        "--ignore-stop-failures",
    ];
    site.cutover(&ignoring).ok();
    let report = site.report_of_newest();
    let deployment = &report["deployments"][0];
    assert_eq!(deployment["ignore_stop_failures"], true);
    let instance = &deployment["instances"][0];
    assert_eq!(instance["outcome"], "SUCCEEDED");
    let stop = instance["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["event"] == "ApplicationStop")
        .unwrap();
    assert_eq!(
        (&stop["status"], &stop["exit_code"]),
        (&"FAILED".into(), &3.into())
    );
}

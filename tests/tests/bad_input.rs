//! Input that is wrong is refused with its place, before anything changes on any instance.

#![allow(clippy::unwrap_used)]

use cutover_tests::Site;
use insta::assert_snapshot;

/// Two instances and a good package.
fn shop() -> Site {
    let site = Site::with_instances(2, "");
    site.traced_package("v1", "1.0.0", "");
    site
}

/// Edits a file of the workspace.
fn edit(site: &Site, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(site.path(file)).unwrap();
    assert!(text.contains(from), "`{from}` is not in\n{text}");
    site.write(file, &text.replacen(from, to, 1));
}

/// What `deploy` says to the package with further arguments. It must refuse it with 3, and change nothing.
fn refusal(site: &Site, package: &str, more: &[&str]) -> String {
    let arguments = [&["deploy", "shop/web", "--package", package], more].concat();

    let answer = site.cutover(&arguments);

    assert_eq!(answer.code, 3, "{}{}", answer.stdout, answer.stderr);
    assert_eq!(answer.stdout, "", "nothing was started");
    site.assert_untouched();
    site.normalised(&answer.stderr)
}

#[test]
fn unknown_keys_wrong_types_and_missing_fields_of_a_workspace() {
    let site = shop();
    let good = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let refused = |from: &str, to: &str| {
        site.write("cutover.yaml", &good.replacen(from, to, 1));
        refusal(&site, "v1", &[])
    };

    assert_snapshot!(refused("applications:", "aplications:"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:1:1: unknown key `aplications`; expected one of `journal`, `packages`, `plugins`, `applications`
      hint: did you mean `applications`?
    ");
    assert_snapshot!(refused("groups:", "group:"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:3:5: unknown key `group`; expected one of `groups`
      hint: did you mean `groups`?
    ");
    assert_snapshot!(refused("id: web-2,", ""), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:7:13: missing key `id`
    ");
    assert_snapshot!(refused("id: web-2", "id: web-1"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:7:13: the instance `web-1` is given twice, first on line 6
    ");
    assert_snapshot!(refused("host: \"local:\"", "host: [local]"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:6:31: `host`: expected text, found a list
    ");
    assert_snapshot!(refused("      web:", "      web:\n        keep_revisions: many\n        strategy: {concurency: 1}"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:5:25: `keep_revisions`: expected a whole number from 0 to 1000, found text `many`
    cutover.yaml:6:20: unknown key `concurency`; expected one of `type`, `concurrency`, `batches`, `first_batch`, `remaining_batches`, `wait_between`, `spread_by`, `minimum_healthy`, `failure_threshold`, `batch_failure_threshold`, `on_failure`, `traffic`, `promote`, `bake`, `retire`
      hint: did you mean `concurrency`?
    ");
    assert_snapshot!(refused("      web:", "      web: ]"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:4:12: not valid YAML: misplaced bracket
    ");
}

#[test]
fn what_this_version_does_not_do_is_refused_by_name() {
    let site = shop();
    let good = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let refused = |from: &str, to: &str| {
        site.write("cutover.yaml", &good.replacen(from, to, 1));
        refusal(&site, "v1", &[])
    };

    assert_snapshot!(refused("\"local:\"", "\"agent:web-1\""), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:6:31: the host `agent:web-1` is not supported by this version of cutover
      hint: use `local:` or `ssh://[USER@]HOST[:PORT]`
    ");
    assert_snapshot!(refused("\"local:\"", "\"ssh://deploy@\""), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:6:31: `host`: `ssh://deploy@` is not an address: the host is missing
      hint: write `ssh://USER@HOST:PORT`; user and port may be left out
    ");
    assert_snapshot!(refused("applications:", "journal: postgres://db/cutover\napplications:"), @"
    error: cutover.yaml:1:10: the journal `postgres://db/cutover` is not supported by this version of cutover
    hint: use `journal: sqlite:PATH`
    ");
}

#[test]
fn a_strategy_that_does_not_fit_its_group() {
    let site = shop();
    let good = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let refused = |lines: &str| {
        let group = format!("      web:\n        {lines}");
        site.write("cutover.yaml", &good.replacen("      web:", &group, 1));
        refusal(&site, "v1", &[])
    };

    assert_snapshot!(refused("strategy: {type: blue-green, minimum_healthy: 1}"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:5:9: missing key `sides`: the strategy `blue-green` goes from one to the other
      hint: write `sides: {blue: {group: {…}, instances: […]}, green: {group: {…}, instances: […]}}`
    cutover.yaml:5:9: missing key `traffic`: the strategy `blue-green` switches it from side to side
      hint: write `traffic: {plugin: NAME, config: {…}}`
    cutover.yaml:5:38: `minimum_healthy` is a key of the strategies `rolling` and `canary`, and this is `blue-green`
      hint: leave it out: the side that changes serves nothing while it does
    cutover.yaml:6:9: `instances`: in a `blue-green` group they belong to the sides
      hint: move them: `sides: {blue: {instances: […]}, green: {instances: […]}}`
    ");
    assert_snapshot!(refused("strategy: {type: canary, first_batch: 2, concurrency: 1, traffic: 20}"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:5:47: `first_batch`: expected `1`, found `2`: the group has 2 instances, and one has to remain
    cutover.yaml:5:50: `concurrency` is a key of the strategies `rolling` and `blue-green`, and this is `canary`
      hint: give a canary `first_batch` and `remaining_batches`
    cutover.yaml:5:66: `traffic` needs the group's `traffic`: nothing moves the traffic without it
      hint: write `traffic: {plugin: NAME, config: {…}}` in the group, or leave this out
    cutover.yaml:5:75: `traffic`: expected a share of the traffic from `1%` to `99%`, found number `20`
      hint: write `20%`
    ");
    assert_snapshot!(refused("strategy: {batches: [1, 50%], bake: 5m}"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:5:33: `batches`: the list ends with `50%`, and has to end with all instances
      hint: end the list with `100%`
    cutover.yaml:5:39: `bake` is a key of the strategy `blue-green`, and this is `rolling`
      hint: leave it out, or set `type: blue-green`
    ");
    assert_snapshot!(refused("gates: [{name: smoke}, {name: smoke, approve: Go?, comand: bin/smoke.sh}]"), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:5:17: expected one of the keys `approve`, `command`, `plugin`
    cutover.yaml:5:60: unknown key `comand`; expected one of `name`, `after`, `approve`, `command`, `plugin`, `config`, `timeout`, `interval`, `on_fail`, `on_inconclusive`
      hint: did you mean `command`?
    ");
}

#[test]
fn unknown_keys_wrong_types_and_missing_fields_of_an_appspec() {
    let site = shop();
    let good = std::fs::read_to_string(site.path("v1/appspec.yml")).unwrap();
    let refused = |from: &str, to: &str| {
        site.write("v1/appspec.yml", &good.replacen(from, to, 1));
        refusal(&site, "v1", &[])
    };

    assert_snapshot!(refused("source: /content, ", ""), @"
    error: the package `v1` has problems
    v1/appspec.yml:4:5: missing key `source`
    ");
    assert_snapshot!(refused("timeout: 30", "timeout: soon"), @"
    error: the package `v1` has problems
    v1/appspec.yml:7:40: `timeout`: expected a number of seconds or a duration such as `30s` or `5m`, found text `soon`
    ");
    assert_snapshot!(refused("ApplicationStart:", "AplicationStart:"), @"
    error: the package `v1` has problems
    v1/appspec.yml:16:3: unknown lifecycle event `AplicationStart`; expected one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
      hint: did you mean `ApplicationStart`?
    ");
    assert_snapshot!(refused("ApplicationStart:", "Install:"), @"
    error: the package `v1` has problems
    v1/appspec.yml:16:3: `Install` takes no scripts: cutover does that step itself
      hint: use one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
    ");
    assert_snapshot!(refused("version: 0.0", "version: 0.0\nversion: 0.0"), @"
    error: the package `v1` has problems
    v1/appspec.yml:2:1: the key `version` is given twice, first on line 1
    ");
}

#[test]
fn unknown_keys_of_an_appspec_are_told_of() {
    let site = shop();
    edit(&site, "v1/appspec.yml", "files:", "file:");

    let answer = site
        .cutover(&["deploy", "shop/web", "--package", "v1"])
        .ok();

    assert_snapshot!(answer.stderr.lines().next().unwrap(), @"warning: v1/appspec.yml:3:1: the unknown key `file` is ignored (did you mean `files`?)");
}

#[test]
fn what_an_appspec_names_and_the_package_lacks() {
    let site = shop();
    edit(
        &site,
        "v1/appspec.yml",
        "source: /content",
        "source: /contents",
    );
    edit(&site, "v1/appspec.yml", "bin/hook.sh", "bin/hok.sh");

    assert_snapshot!(refusal(&site, "v1", &[]), @"
    error: the package `v1` has problems
    v1/appspec.yml:4:14: the source `contents` is not in the package
      hint: did you mean `content`?
    v1/appspec.yml:7:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    ");
}

#[test]
fn packages_that_are_none() {
    let site = shop();
    site.write("text.tar.gz", "no archive at all");
    std::fs::write(site.path("package.zip"), b"PK\x03\x04 and more").unwrap();
    std::fs::write(site.path("package.tar.zst"), b"\x28\xb5\x2f\xfd and more").unwrap();

    assert_snapshot!(refusal(&site, "v2", &[]), @"
    error: fetch the package
      because: find the package `file://SITE/v2`
      because: No such file or directory (os error 2)
    ");
    assert_snapshot!(refusal(&site, "text.tar.gz", &[]), @"
    error: fetch the package
      because: unpack the package `file://SITE/text.tar.gz`
      because: `SITE/text.tar.gz` is a text file: a package is a folder, a tar archive (plain, gzip or zstd) or a zip archive
    ");
    assert_snapshot!(refusal(&site, "package.zip", &[]), @"
    error: fetch the package
      because: unpack the package `file://SITE/package.zip`
      because: read the archive at byte 13
      because: the archive is cut short: its directory, which is at the end, is missing
    ");
    assert_snapshot!(refusal(&site, "package.tar.zst", &[]), @"
    error: fetch the package
      because: unpack the package `file://SITE/package.tar.zst`
      because: read the archive at byte 0
      because: Data corruption detected
    ");
    assert_snapshot!(refusal(&site, "s3://bucket/package", &[]), @"
    error: no plugin serves packages of scheme `s3:`
    hint: name a folder, an archive or an http: address, or declare a plugin that serves it
    ");
}

#[test]
fn a_folder_without_an_appspec() {
    let site = shop();
    std::fs::create_dir(site.path("empty")).unwrap();

    let said = refusal(&site, "empty", &[]);

    assert!(
        said.contains("read the appspec of the package `empty`"),
        "{said}"
    );
    assert!(said.contains("none of `appspec.yml`"), "{said}");
}

#[test]
fn a_damaged_archive() {
    let site = shop();
    site.pack("v1", "v1.tar.gz");
    let whole = std::fs::read(site.path("v1.tar.gz")).unwrap();
    std::fs::write(site.path("v1.tar.gz"), &whole[..whole.len() / 2]).unwrap();

    let said = refusal(&site, "v1.tar.gz", &[]);

    assert!(
        said.contains("unpack the package `file://SITE/v1.tar.gz`"),
        "{said}"
    );
    assert!(said.contains("read the archive at byte"), "{said}");
}

#[test]
fn a_digest_that_differs() {
    let site = shop();
    let digest = format!("sha256:{}", "0".repeat(64));

    assert_snapshot!(refusal(&site, "v1", &["--digest", &digest]), @"
    error: fetch the package
      because: the package at `file://SITE/v1` has digest sha256:DIGEST, not sha256:DIGEST
    hint: check that the package is the one that was meant
    ");
}

#[test]
fn the_right_digest_is_taken() {
    let site = shop();
    let plan = site
        .cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "v1",
            "--dry-run",
            "--output",
            "json",
        ])
        .ok()
        .json();
    let digest = plan["deployments"][0]["revision"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();

    site.cutover(&["deploy", "shop/web", "--package", "v1", "--digest", &digest])
        .ok();
}

#[test]
fn a_check_finds_what_a_deployment_would() {
    let site = shop();
    edit(&site, "cutover.yaml", "id: web-2", "idd: web-2");

    let answer = site.cutover(&["check", "--output", "json"]);

    assert_eq!(answer.code, 3);
    let checked = answer.json();
    assert_eq!(checked["v"], 1);
    assert_eq!(checked["ok"], false);
    let problem = &checked["problems"][0];
    assert_eq!(problem["file"], "cutover.yaml");
    assert_eq!(
        (&problem["line"], &problem["column"]),
        (&7.into(), &14.into())
    );
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["hint"], "did you mean `id`?");
    assert!(
        problem["message"]
            .as_str()
            .unwrap()
            .contains("unknown key `idd`"),
        "{problem}"
    );
}

#[test]
fn what_is_wrong_with_a_release_plan_is_found_by_check() {
    let site = Site::with_instances(2, "        service_id: 111\n");
    site.write(
        "release.yaml",
        "comment: 发布\ndeployPlanItems:\n  - serviceId: 111\n    deployment: HTTP_UPLOAD_DEPLOY\n    deployLabel: label1\n    HttpSrcUri: https://h/a.zip\n",
    );
    site.write(
        "good.yaml",
        "# A plan.\ndeployPlanItems:\n  - {serviceId: 111, deployment: RESTART, priority: 3}\n",
    );
    site.write(
        "lost.yaml",
        "deployPlanItems:\n  - {serviceId: 112, deployment: STOP}\n  - {serviceId: 111, deployment: STOP, deployLabel: label9, httpSrcUri: 'https://h/a.zip'}\n",
    );
    site.write("notes.yaml", "comment: x\n");

    assert_snapshot!(site.transcript(&["check", "good.yaml"]), @"
    $ cutover check good.yaml
    No problems found.
    ");
    assert_snapshot!(site.transcript(&["check", "release.yaml", "lost.yaml"]), @"
    $ cutover check release.yaml lost.yaml
    release.yaml:6:5: service 111: unknown key `HttpSrcUri`: upper and lower case matter
      hint: write `httpSrcUri`
    lost.yaml:2:17: service 112: no group of the workspace has this `service_id`
      hint: the services are 111 (`shop/web`)
    lost.yaml:3:53: service 111: `deployLabel`: no instance of `shop/web` carries the label `label9`
      hint: its instances have no labels: write `labels: […]` on those that are meant, or leave `deployLabel` out
    lost.yaml:3:61: warning: service 111: `httpSrcUri` has no effect: `STOP` installs nothing
      hint: leave it out
    --- stderr
    error: the check found 3 errors
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["check", "--plan", "notes.yaml"]), @"
    $ cutover check --plan notes.yaml
    notes.yaml:1:1: missing key `deployPlanItems`
    --- stderr
    error: the check found 1 error
    --- exit status 3
    ");
    site.write("cutover.yaml", "applications: []\n");
    assert_snapshot!(site.transcript(&["check", "good.yaml", "lost.yaml"]), @"
    $ cutover check good.yaml lost.yaml
    cutover.yaml:1:15: `applications`: expected a mapping of names to applications, found a list
    lost.yaml:3:61: warning: service 111: `httpSrcUri` has no effect: `STOP` installs nothing
      hint: leave it out
    --- stderr
    error: the check found 1 error
    --- exit status 3
    ");
    std::fs::remove_file(site.path("cutover.yaml")).unwrap();
    assert_snapshot!(site.transcript(&["check", "good.yaml"]), @"
    $ cutover check good.yaml
    good.yaml:1:1: warning: the services are not checked: there is no `cutover.yaml` in `SITE` or above it
      hint: name the workspace: --config FILE
    ");
    std::fs::write(
        site.path("gbk.yaml"),
        b"comment: \xb7\xa2\ndeployPlanItems: []\n",
    )
    .unwrap();
    assert_snapshot!(site.transcript(&["check", "gbk.yaml"]), @"
    $ cutover check gbk.yaml
    gbk.yaml:1:10: the file is not UTF-8 text
      hint: save it as UTF-8
    --- stderr
    error: the check found 1 error
    --- exit status 3
    ");
    site.assert_untouched();
}

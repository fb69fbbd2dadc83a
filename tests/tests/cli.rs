//! The command line as people see it: transcripts of stdout, stderr and the exit status.

#![allow(clippy::unwrap_used)]

use cutover_tests::{Site, until};
use insta::assert_snapshot;

/// A workspace of two instances and a package, as `deploy` of the text form is shown.
fn shop() -> Site {
    let site = Site::with_instances(2, "");
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", "");
    site
}

fn deploy(site: &Site, package: &str, version: &str) {
    let arguments = [
        "deploy",
        "shop/web",
        "--package",
        package,
        "--version",
        version,
    ];
    site.cutover(&arguments).ok();
}

fn newest(site: &Site) -> String {
    site.report_of_newest()["id"].as_str().unwrap().to_owned()
}

#[test]
fn init_writes_a_workspace_that_passes_its_check() {
    let site = Site::new();

    assert_snapshot!(site.transcript(&["init"]), @"
    $ cutover init
    ./cutover.yaml
    ./package/appspec.yml
    ./package/app/hello.txt
    ./package/scripts/start.sh
    ./package/scripts/stop.sh
    --- stderr
    hint: check it: cutover check
    ");
    assert_snapshot!(site.transcript(&["check"]), @"
    $ cutover check
    No problems found.
    ");
    assert_snapshot!(site.transcript(&["init"]), @"
    $ cutover init
    --- stderr
    error: `./cutover.yaml` is there already
    hint: name another folder: cutover init FOLDER
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["init", "hello"]), @"
    $ cutover init hello
    hello/cutover.yaml
    hello/package/appspec.yml
    hello/package/app/hello.txt
    hello/package/scripts/start.sh
    hello/package/scripts/stop.sh
    --- stderr
    hint: check it: cd hello && cutover check
    ");
    assert_snapshot!(site.transcript(&["deploy", "hello/web", "--package", "package", "--version", "1.0.0", "--quiet"]), @"
    $ cutover deploy hello/web --package package --version 1.0.0 --quiet
    SUCCEEDED  hello/web deploy 1.0.0 in TOOK  release RELEASE-ID
    ");
}

#[test]
fn a_deployment_says_what_it_does() {
    let site = shop();

    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "v1", "--version", "1.0.0"]), @"
    $ cutover deploy shop/web --package v1 --version 1.0.0
    SUCCEEDED  shop/web deploy 1.0.0 in TOOK  release RELEASE-ID
    --- stderr
      deploying shop/web                1.0.0 to 2 instances, 1 at a time  (RELEASE-ID-1)
           done web-1 DownloadBundle      TOOK
           done web-1 BeforeInstall       TOOK
           done web-1 Install           1 file written, 0 removed    TOOK
           done web-1 AfterInstall        TOOK
           done web-1 ApplicationStart    TOOK
           done web-1 ValidateService     TOOK
       finished web-1
           done web-2 DownloadBundle      TOOK
           done web-2 BeforeInstall       TOOK
           done web-2 Install           1 file written, 0 removed    TOOK
           done web-2 AfterInstall        TOOK
           done web-2 ApplicationStart    TOOK
           done web-2 ValidateService     TOOK
       finished web-2
       deployed shop/web                1.0.0    TOOK
    ");
}

#[test]
fn a_dry_run_shows_every_step_and_whose_hook_it_runs() {
    let site = shop();
    deploy(&site, "v1", "1.0.0");

    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "v2", "--version", "1.1.0", "--dry-run"]), @"
    $ cutover deploy shop/web --package v2 --version 1.1.0 --dry-run
    status       PLANNED
    operator     ann@HOST

    shop/web  deploy 1.1.0  rolling  PLANNED
      package    file://SITE/v2
      digest     sha256:DIGEST
      batch 1    web-1
      batch 2    web-2

      web-1  1.0.0 -> 1.1.0
        EVENT             STATUS   REVISION        TOOK  NOTE
        DownloadBundle    PLANNED  incoming 1.1.0
        ApplicationStop   PLANNED  outgoing 1.0.0
        BeforeInstall     PLANNED  incoming 1.1.0
        Install           PLANNED  incoming 1.1.0
        AfterInstall      PLANNED  incoming 1.1.0
        ApplicationStart  PLANNED  incoming 1.1.0
        ValidateService   PLANNED  incoming 1.1.0

      web-2  1.0.0 -> 1.1.0
        EVENT             STATUS   REVISION        TOOK  NOTE
        DownloadBundle    PLANNED  incoming 1.1.0
        ApplicationStop   PLANNED  outgoing 1.0.0
        BeforeInstall     PLANNED  incoming 1.1.0
        Install           PLANNED  incoming 1.1.0
        AfterInstall      PLANNED  incoming 1.1.0
        ApplicationStart  PLANNED  incoming 1.1.0
        ValidateService   PLANNED  incoming 1.1.0
    ");
}

#[test]
fn a_failure_names_its_cause_once_and_ends_with_what_to_type_next() {
    let site = shop();
    site.traced_package(
        "bad",
        "1.2.0",
        "[ \"$LIFECYCLE_EVENT $CUTOVER_INSTANCE_ID\" != 'ApplicationStart web-1' ] || { echo 'port 8081 is taken' >&2; exit 3; }",
    );
    deploy(&site, "v1", "1.0.0");

    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "bad", "--version", "1.2.0"]), @"
    $ cutover deploy shop/web --package bad --version 1.2.0
    FAILED  shop/web deploy 1.2.0 in TOOK  release RELEASE-ID
    --- stderr
      deploying shop/web                1.2.0 to 2 instances, 1 at a time  (RELEASE-ID-1)
           done web-1 DownloadBundle      TOOK
           done web-1 ApplicationStop     TOOK
           done web-1 BeforeInstall       TOOK
           done web-1 Install           1 file written, 0 removed    TOOK
           done web-1 AfterInstall        TOOK
         failed web-1 ApplicationStart  `bin/hook.sh` exited with 3: port 8081 is taken    TOOK
        gave up web-1                   at ApplicationStart
         failed shop/web                1.2.0  1 of 2 instances failed    TOOK
    error: release RELEASE-ID failed: web-1: ApplicationStart of incoming revision 1.2.0: `bin/hook.sh` exited with 3: port 8081 is taken; 1 of 2 instances failed, failure_threshold is 1
    hint: read what its hooks printed: cutover logs RELEASE-ID
    hint: see every step: cutover report RELEASE-ID
    hint: go back: cutover rollback shop/web
    --- exit status 4
    ");
    assert_snapshot!(site.transcript(&["show", &newest(&site)]), @"
    $ cutover show RELEASE-ID
    release      RELEASE-ID
    status       FAILED
    reason       web-1: ApplicationStart of incoming revision 1.2.0: `bin/hook.sh` exited with 3: port 8081 is taken; 1 of 2 instances failed, failure_threshold is 1
    operator     ann@HOST
    started      YYYY-MM-DDTHH:MM:SS.mmmZ
    ended        YYYY-MM-DDTHH:MM:SS.mmmZ

    shop/web  deploy 1.2.0  rolling  FAILED  (RELEASE-ID-1)
      package    file://SITE/bad
      digest     sha256:DIGEST
      batch 1    web-1
      batch 2    web-2
      mixed      1.2.0 on web-1
                 1.0.0 on web-2

      INSTANCE  OUTCOME  FROM   TO     LAST EVENT        NOTE
      web-1     FAILED   1.0.0  1.2.0  ApplicationStart
        ApplicationStart of incoming revision 1.2.0: `bin/hook.sh` exited with 3: port 8081 is taken
      web-2     SKIPPED  1.0.0  1.2.0                    the deployment ended before its turn
    ");
    assert_snapshot!(site.transcript(&["report", &newest(&site)]), @"
    $ cutover report RELEASE-ID
    release      RELEASE-ID
    status       FAILED
    reason       web-1: ApplicationStart of incoming revision 1.2.0: `bin/hook.sh` exited with 3: port 8081 is taken; 1 of 2 instances failed, failure_threshold is 1
    operator     ann@HOST
    started      YYYY-MM-DDTHH:MM:SS.mmmZ
    ended        YYYY-MM-DDTHH:MM:SS.mmmZ

    shop/web  deploy 1.2.0  rolling  FAILED  (RELEASE-ID-1)
      package    file://SITE/bad
      digest     sha256:DIGEST
      batch 1    web-1
      batch 2    web-2
      mixed      1.2.0 on web-1
                 1.0.0 on web-2

      web-1  1.0.0 -> 1.2.0  FAILED
        EVENT             STATUS     REVISION        TOOK    NOTE
        DownloadBundle    SUCCEEDED  incoming 1.2.0    TOOK
        ApplicationStop   SUCCEEDED  outgoing 1.0.0    TOOK
        BeforeInstall     SUCCEEDED  incoming 1.2.0    TOOK
        Install           SUCCEEDED  incoming 1.2.0    TOOK  1 file written, 0 removed
        AfterInstall      SUCCEEDED  incoming 1.2.0    TOOK
        ApplicationStart  FAILED     incoming 1.2.0    TOOK  `bin/hook.sh` exited with 3: port 8081 is taken

      web-2  1.0.0 -> 1.2.0  SKIPPED
        the deployment ended before its turn
    ");
    assert_snapshot!(site.transcript(&["watch", &newest(&site), "--quiet"]), @"
    $ cutover watch RELEASE-ID --quiet
    FAILED  shop/web deploy 1.2.0 in TOOK  release RELEASE-ID
    --- stderr
    error: release RELEASE-ID failed: web-1: ApplicationStart of incoming revision 1.2.0: `bin/hook.sh` exited with 3: port 8081 is taken; 1 of 2 instances failed, failure_threshold is 1
    hint: read what its hooks printed: cutover logs RELEASE-ID
    hint: see every step: cutover report RELEASE-ID
    hint: go back: cutover rollback shop/web
    --- exit status 4
    ");
    assert_snapshot!(site.transcript(&["resume", &newest(&site)]), @"
    $ cutover resume RELEASE-ID
    --- stderr
    error: release RELEASE-ID is FAILED; only one that is PAUSED or INTERRUPTED is resumed
    hint: see how it ended: cutover report RELEASE-ID
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["stop", &newest(&site), "--yes"]), @"
    $ cutover stop RELEASE-ID --yes
    --- stderr
    error: release RELEASE-ID has ended already: it is FAILED
    --- exit status 3
    ");
}

#[test]
fn a_rollback_that_fails_needs_a_person() {
    let site = Site::with_instances(
        1,
        "        strategy: {type: rolling, on_failure: rollback}\n",
    );
    let fails_twice = "[ \"$LIFECYCLE_EVENT\" != ApplicationStop ] || exit 9";
    site.traced_package("v1", "1.0.0", fails_twice);
    site.traced_package("v2", "1.1.0", "");
    deploy(&site, "v1", "1.0.0");
    site.traced_package("v2", "1.1.0", "exit 4");

    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "v2", "--version", "1.1.0", "--quiet"]), @"
    $ cutover deploy shop/web --package v2 --version 1.1.0 --quiet
    FAILED  shop/web deploy 1.1.0, shop/web rollback 1.0.0 in TOOK  release RELEASE-ID
    --- stderr
    error: release RELEASE-ID failed: web-1: ApplicationStop of outgoing revision 1.0.0: `bin/hook.sh` exited with 9; 1 of 1 instance failed, failure_threshold is 1; the rollback failed too: web-1: ApplicationStop of outgoing revision 1.0.0: `bin/hook.sh` exited with 9; 1 of 1 instance failed, failure_threshold is 1
    hint: read what its hooks printed: cutover logs RELEASE-ID
    hint: see every step: cutover report RELEASE-ID
    hint: go on although the version being left fails: --ignore-stop-failures
    hint: go back when the cause is gone: cutover rollback shop/web
    --- exit status 5
    ");
}

#[test]
fn a_rollback_and_what_the_lists_say_of_it() {
    let site = shop();
    deploy(&site, "v1", "1.0.0");
    deploy(&site, "v2", "1.1.0");

    assert_snapshot!(site.transcript(&["rollback", "shop/web", "--comment", "too slow"]), @"
    $ cutover rollback shop/web --comment too slow
    SUCCEEDED  shop/web rollback 1.0.0 in TOOK  release RELEASE-ID
    --- stderr
    shop/web  rollback 1.0.0  rolling
      BATCH  FROM   TO     INSTANCES
      1      1.1.0  1.0.0  web-1
      2      1.1.0  1.0.0  web-2
      returning shop/web                1.0.0 to 2 instances, 1 at a time  (RELEASE-ID-1)
           done web-1 ApplicationStop     TOOK
           done web-1 BeforeInstall       TOOK
           done web-1 Install           1 file written, 0 removed    TOOK
           done web-1 AfterInstall        TOOK
           done web-1 ApplicationStart    TOOK
           done web-1 ValidateService     TOOK
       finished web-1
           done web-2 ApplicationStop     TOOK
           done web-2 BeforeInstall       TOOK
           done web-2 Install           1 file written, 0 removed    TOOK
           done web-2 AfterInstall        TOOK
           done web-2 ApplicationStart    TOOK
           done web-2 ValidateService     TOOK
       finished web-2
       returned shop/web                1.0.0    TOOK
    ");
    assert_snapshot!(site.transcript(&["ls"]), @"
    $ cutover ls
    RELEASE     STATUS     STARTED               TOOK    GROUPS    OPERATOR  COMMENT
    RELEASE-ID  SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  shop/web  ann@HOST  too slow
    RELEASE-ID  SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  shop/web  ann@HOST
    RELEASE-ID  SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  shop/web  ann@HOST
    ");
    assert_snapshot!(site.transcript(&["ls", "--limit", "1"]), @"
    $ cutover ls --limit 1
    RELEASE     STATUS     STARTED               TOOK    GROUPS    OPERATOR  COMMENT
    RELEASE-ID  SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  shop/web  ann@HOST  too slow
    ");
    assert_snapshot!(site.transcript(&["history", "shop/web"]), @"
    $ cutover history shop/web
    DEPLOYMENT    VERSION  FROM     KIND      STRATEGY  STATUS     STARTED               TOOK    OPERATOR  NOTE
    RELEASE-ID-1  1.0.0    1.1.0    ROLLBACK  rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST  takes RELEASE-ID-1 back
    RELEASE-ID-1  1.1.0    1.0.0    DEPLOY    rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST  rolled back by RELEASE-ID-1
    RELEASE-ID-1  1.0.0    nothing  DEPLOY    rolling   SUCCEEDED  YYYY-MM-DDTHH:MM:SSZ    TOOK  ann@HOST
    ");
    assert_snapshot!(site.transcript(&["show", &newest(&site)]), @"
    $ cutover show RELEASE-ID
    release      RELEASE-ID
    status       SUCCEEDED
    comment      too slow
    operator     ann@HOST
    started      YYYY-MM-DDTHH:MM:SS.mmmZ
    ended        YYYY-MM-DDTHH:MM:SS.mmmZ

    shop/web  rollback 1.0.0  rolling  SUCCEEDED  (RELEASE-ID-1)
      package    file://SITE/v1
      digest     sha256:DIGEST
      batch 1    web-1
      batch 2    web-2

      INSTANCE  OUTCOME    FROM   TO     LAST EVENT       NOTE
      web-1     SUCCEEDED  1.1.0  1.0.0  ValidateService
      web-2     SUCCEEDED  1.1.0  1.0.0  ValidateService
    ");
}

#[test]
fn lists_of_nothing_say_what_to_do() {
    let site = shop();

    assert_snapshot!(site.transcript(&["ls"]), @"
    $ cutover ls
    --- stderr
    hint: start a first release: cutover deploy APP/GROUP --package FOLDER
    ");
    assert_snapshot!(site.transcript(&["history", "shop/web"]), @"
    $ cutover history shop/web
    --- stderr
    hint: deploy to it first: cutover deploy shop/web --package FOLDER
    ");
    assert_snapshot!(site.transcript(&["plugin", "ls"]), @"
    $ cutover plugin ls
    --- stderr
    hint: declare plugins below `plugins` in the workspace file
    ");
    assert_snapshot!(site.transcript(&["rollback", "shop/web"]), @"
    $ cutover rollback shop/web
    --- stderr
    error: shop/web has no deployment to roll back
    hint: see what it has had: cutover history shop/web
    --- exit status 3
    ");
}

#[test]
fn what_is_named_and_not_there_is_told_with_what_is() {
    let site = shop();

    assert_snapshot!(site.transcript(&["deploy", "shop/wbe", "--package", "v1"]), @"
    $ cutover deploy shop/wbe --package v1
    --- stderr
    error: the workspace has no group `shop/wbe`
    hint: did you mean `shop/web`?
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["history", "shop/database"]), @"
    $ cutover history shop/database
    --- stderr
    error: the workspace has no group `shop/database`
    hint: choose one of shop/web
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["show", "nothing"]), @"
    $ cutover show nothing
    --- stderr
    error: no release or deployment begins with `nothing`
    hint: list releases: cutover ls
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["--config", "nothing.yaml", "ls"]), @"
    $ cutover --config nothing.yaml ls
    --- stderr
    error: read the workspace file `nothing.yaml`
      because: No such file or directory (os error 2)
    --- exit status 3
    ");
    let elsewhere = Site::new();
    assert_snapshot!(elsewhere.transcript(&["ls"]), @"
    $ cutover ls
    --- stderr
    error: there is no `cutover.yaml` in `SITE` or above it
    hint: write one: cutover init
    hint: name one: --config FILE
    --- exit status 3
    ");
}

#[test]
fn wrong_usage_ends_with_2() {
    let site = shop();

    assert_snapshot!(site.transcript(&["deploy", "shop/web"]), @"
    $ cutover deploy shop/web
    --- stderr
    error: the following required arguments were not provided:
      --package <URI>

    Usage: cutover deploy --package <URI> <GROUP>

    For more information, try '--help'.
    --- exit status 2
    ");
    assert_snapshot!(site.transcript(&["deploy", "shop", "--package", "v1"]), @"
    $ cutover deploy shop --package v1
    --- stderr
    error: invalid value 'shop' for '<GROUP>': write APPLICATION/GROUP, for example shop/web

    For more information, try '--help'.
    --- exit status 2
    ");
    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "v1", "--version", "next"]), @"
    $ cutover deploy shop/web --package v1 --version next
    --- stderr
    error: invalid value 'next' for '--version <VERSION>': `next` is not a version: write A.B.C or A.B.C.D with natural numbers, for example 1.4.0

    For more information, try '--help'.
    --- exit status 2
    ");
    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "v1", "--digest", "md5:1"]), @"
    $ cutover deploy shop/web --package v1 --digest md5:1
    --- stderr
    error: invalid value 'md5:1' for '--digest <DIGEST>': `md5:1` is not a digest: write sha256: and 64 hexadecimal digits

    For more information, try '--help'.
    --- exit status 2
    ");
    assert_snapshot!(site.transcript(&["dploy"]), @"
    $ cutover dploy
    --- stderr
    error: unrecognized subcommand 'dploy'

      tip: some similar subcommands exist: 'redeploy', 'deploy'

    Usage: cutover [OPTIONS] <COMMAND>

    For more information, try '--help'.
    --- exit status 2
    ");
    assert_snapshot!(site.transcript(&["logs", "x", "--event", "Start"]), @"
    $ cutover logs x --event Start
    --- stderr
    error: invalid value 'Start' for '--event <EVENT>': expected one of DownloadBundle, BeforeBlockTraffic, BlockTraffic, AfterBlockTraffic, ApplicationStop, BeforeInstall, Install, AfterInstall, ApplicationStart, ValidateService, BeforeAllowTraffic, AllowTraffic, AfterAllowTraffic

    For more information, try '--help'.
    --- exit status 2
    ");
}

/// The hook that is running outlives its conductor; a stop waits for its end and keeps it.
#[test]
fn nothing_is_ended_without_a_confirmation_or_in_the_middle_of_a_hook() {
    let site = shop();
    let hold = format!(
        "while ! [ -e '{}' ]; do sleep 0.05; done",
        site.path("go-on").display()
    );
    site.traced_package("v1", "1.0.0", &hold);
    let deploy = [
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.0.0",
    ];
    let mut conductor = site.start(&deploy);
    until("the first hook is running", || {
        site.last_step() == "BeforeInstall RUNNING"
    });
    conductor.kill().unwrap();
    conductor.wait().unwrap();

    assert_snapshot!(site.transcript(&["stop", &newest(&site)]), @"
    $ cutover stop RELEASE-ID
    --- stderr
    error: ending release RELEASE-ID needs a confirmation
    hint: confirm it: cutover stop RELEASE-ID --yes
    --- exit status 2
    ");
    site.write("go-on", "");
    assert_snapshot!(site.transcript(&["stop", &newest(&site), "--yes"]), @"
    $ cutover stop RELEASE-ID --yes
    STOPPED  release RELEASE-ID
    --- stderr
    interrupted RELEASE-ID  the conductor died
           done web-1 BeforeInstall    TOOK
          ended shop/web  1.0.0  stopped by an operator    TOOK
        stopped RELEASE-ID  stopped by an operator
    ");
    assert_eq!(site.last_step(), "BeforeInstall SUCCEEDED");
}

#[test]
fn logs_stand_below_headings() {
    let site = shop();
    deploy(&site, "v1", "1.0.0");
    let id = newest(&site);
    let logs = ["logs", &id, "--instance", "web-2", "--event", "Install"];

    assert_snapshot!(site.transcript(&logs), @"
    $ cutover logs RELEASE-ID --instance web-2 --event Install
    --- web-2 Install (attempt 1)
    1 file written, 0 removed
    ");
    assert_snapshot!(site.transcript(&["logs", &id, "--event", "AllowTraffic"]), @"
    $ cutover logs RELEASE-ID --event AllowTraffic
    --- stderr
    warning: there are no such logs.
    ");
    assert_snapshot!(site.transcript(&["logs", &id, "--instance", "db-1"]), @"
    $ cutover logs RELEASE-ID --instance db-1
    --- stderr
    error: deployment RELEASE-ID-1 has no instance `db-1`
    hint: choose one of web-1, web-2
    --- exit status 3
    ");
}

#[test]
fn checks_packages_in_every_form() {
    let site = shop();
    let text = std::fs::read_to_string(site.path("v1/appspec.yml")).unwrap();
    site.write(
        "v1/appspec.yml",
        &text
            .replace("bin/hook.sh", "bin/hok.sh")
            .replace("  BeforeInstall", "  BeforInstall"),
    );
    let broken = ["check", "v1"];

    assert_snapshot!(site.transcript(&broken), @"
    $ cutover check v1
    v1/appspec.yml:7:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    v1/appspec.yml:9:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    v1/appspec.yml:11:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    v1/appspec.yml:12:3: unknown lifecycle event `BeforInstall`; expected one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
      hint: did you mean `BeforeInstall`?
    v1/appspec.yml:15:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    v1/appspec.yml:17:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    v1/appspec.yml:19:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    v1/appspec.yml:21:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    v1/appspec.yml:23:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    --- stderr
    error: the check found 9 errors
    --- exit status 3
    ");
    site.write(
        "v1/appspec.yml",
        "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - {location: bin/hok.sh}\n",
    );
    let packed = std::process::Command::new("tar")
        .current_dir(site.path(""))
        .args(["-czf", "v1.tar.gz", "v1"])
        .status();
    assert!(packed.unwrap().success());
    assert_snapshot!(site.transcript(&["check", "v1/appspec.yml"]), @"
    $ cutover check v1/appspec.yml
    v1/appspec.yml:5:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    --- stderr
    error: the check found 1 error
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["check", "v1.tar.gz"]), @"
    $ cutover check v1.tar.gz
    v1.tar.gz/appspec.yml:5:18: the script `bin/hok.sh` is not in the package
      hint: did you mean `bin/hook.sh`?
    --- stderr
    error: the check found 1 error
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["check", "cutover.yaml", "v2"]), @"
    $ cutover check cutover.yaml v2
    No problems found.
    ");
}

#[test]
fn a_check_reports_everything_about_a_package_at_once() {
    let site = Site::new();
    site.script("shop/bin/stop.sh", "#!/bin/sh\r\nexit 0\r\n");
    site.write("shop/bin/start.sh", "#!/bin/sh\n");
    site.write("shop/app/main", "");
    site.write("shop/more/main", "");
    site.write(
        "shop/appspec.yml",
        "version: 0.0
os: linux
files:
  - {source: app, destination: /srv/shop}
  - {source: more, destination: /srv/shop}
  - {source: gone, destination: /srv/shop}
permission: []
permissions:
  - {object: /srv/shop, mode: 0888}
  - {object: /srv/shop, owner: nobody-here, type: [file]}
  - {object: /srv/shop/main, pattern: '*.sh', acls: ['u::rwx']}
hooks:
  ApplicationStop:
    - {location: bin/stop.sh, runas: 'a b'}
    - {location: bin/start.sh, timeout: 5abc}
  AppplicationStart:
    - {location: bin/strat.sh}
  ValidateService:
    - {location: ../check.sh}
    - {location: bin/strat.sh}
",
    );

    assert_snapshot!(site.transcript(&["check", "shop"]), @"
    $ cutover check shop
    shop/appspec.yml:5:33: this pair of `files` and the one on line 4 both bring `/srv/shop/main`
      hint: give them destinations that do not meet, or leave one of them out
    shop/appspec.yml:6:14: the source `gone` is not in the package
    shop/appspec.yml:7:1: warning: the unknown key `permission` is ignored
      hint: did you mean `permissions`?
    shop/appspec.yml:9:31: `mode`: expected permission bits as at most four octal digits such as `0644`, found number `0888`
    shop/appspec.yml:10:14: this permission and the one on line 9 both apply to `/srv/shop/main`
      hint: narrow one of them with `pattern`, `except` or `type`
    shop/appspec.yml:10:32: warning: there is no user `nobody-here` on this machine
      hint: it has to be there on the instance
    shop/appspec.yml:11:14: this permission and the one on line 9 both apply to `/srv/shop/main`
      hint: narrow one of them with `pattern`, `except` or `type`
    shop/appspec.yml:11:39: `/srv/shop/main` is a file, so `pattern` has nothing to choose from
      hint: name its folder as `object`, or leave the pattern out
    shop/appspec.yml:11:54: `acls`: `u::rwx` is what the mode of a file is for
      hint: use `mode` for the owner, the owning group and everyone else
    shop/appspec.yml:14:18: the first line of the script `bin/stop.sh` ends in a carriage return
      hint: save the file with Unix line ends
    shop/appspec.yml:14:38: `runas`: `a b` cannot be the name of an account: it contains white space, `:`, `,` or `/`
    shop/appspec.yml:15:18: warning: the script `bin/start.sh` is not executable; it is made so on the instance
      hint: run `chmod +x bin/start.sh` before packing
    shop/appspec.yml:15:41: `timeout`: expected a number of seconds or a duration such as `30s` or `5m`, found text `5abc`
    shop/appspec.yml:16:3: unknown lifecycle event `AppplicationStart`; expected one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
      hint: did you mean `ApplicationStart`?
    shop/appspec.yml:19:18: the location `../check.sh` leaves the package
      hint: give a path within the package, without `..`
    shop/appspec.yml:20:18: the script `bin/strat.sh` is not in the package
      hint: did you mean `bin/start.sh`?
    --- stderr
    error: the check found 13 errors
    --- exit status 3
    ");

    let answer = site.cutover(&["check", "shop", "--output", "json"]);

    assert_eq!(answer.code, 3);
    let json = answer.json();
    assert_eq!(json["ok"], false);
    let problems = json["problems"].as_array().unwrap();
    assert_snapshot!(problems[0], @r#"{"column":33,"file":"shop/appspec.yml","hint":"give them destinations that do not meet, or leave one of them out","line":5,"message":"this pair of `files` and the one on line 4 both bring `/srv/shop/main`","severity":"error"}"#);
    let severities = |severity: &str| {
        let is_meant = |problem: &&serde_json::Value| problem["severity"] == severity;
        problems.iter().filter(is_meant).count()
    };
    assert_eq!((severities("error"), severities("warning")), (13, 3));
}

#[test]
fn a_check_takes_packages_without_an_appspec_and_with_one_of_any_name() {
    let site = shop();
    std::fs::create_dir_all(site.path("v1/deploy")).unwrap();
    std::fs::rename(site.path("v1/appspec.yml"), site.path("v1/deploy/web.yml")).unwrap();
    site.write(
        "jd.yml",
        "hooks:\n  ApplicationStop:\n    - {command: bin/stop.sh, runas: root}\n",
    );

    assert_snapshot!(site.transcript(&["check", "v1", "cutover.yaml", "."]), @"
    $ cutover check v1 cutover.yaml .
    v1:1:1: the package `v1` has no appspec: none of `appspec.yml`, `appspec.yaml`, `jdcloud-codedeploy.yml`, `appSpec.yml`, `appSpec.yaml` is in it
      hint: name another file: --appspec-filename NAME
    .:1:1: the package `.` has no appspec: none of `appspec.yml`, `appspec.yaml`, `jdcloud-codedeploy.yml`, `appSpec.yml`, `appSpec.yaml` is in it
      hint: check the workspace: cutover check ./cutover.yaml
    --- stderr
    error: the check found 2 errors
    --- exit status 3
    ");
    assert_snapshot!(site.transcript(&["check", "v1", "--appspec-filename", "deploy/web.yml"]), @"
    $ cutover check v1 --appspec-filename deploy/web.yml
    No problems found.
    ");
    assert_snapshot!(site.transcript(&["check", "jd.yml"]), @"
    $ cutover check jd.yml
    jd.yml:1:1: missing key `files`
    jd.yml:3:17: warning: the command begins with `bin/stop.sh`, which is not in the package
      hint: paths in a command are relative to the package
    --- stderr
    error: the check found 1 error
    --- exit status 3
    ");
}

#[test]
fn a_group_may_name_its_appspec() {
    let site = Site::with_instances(1, "        appspec: deploy/web.yml\n");
    site.traced_package("v1", "1.0.0", "");
    std::fs::create_dir_all(site.path("v1/deploy")).unwrap();
    std::fs::rename(site.path("v1/appspec.yml"), site.path("v1/deploy/web.yml")).unwrap();
    site.write("v1/appspec.yml", "broken");
    let arguments = [
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.0.0",
    ];

    site.cutover(&arguments).ok();

    assert!(
        site.take_trace()
            .contains(&"web-1 ApplicationStart 1.0.0 1".to_owned())
    );
    std::fs::remove_file(site.path("v1/deploy/web.yml")).unwrap();
    assert_snapshot!(site.transcript(&["deploy", "shop/web", "--package", "v1", "--version", "1.1.0"]), @"
    $ cutover deploy shop/web --package v1 --version 1.1.0
    --- stderr
    error: read the appspec of the package `v1`
      because: the package `v1` has no file `deploy/web.yml`, which was named as its appspec
    --- exit status 3
    ");
}

#[test]
fn a_package_for_jd_codedeploy_is_deployed_as_it_is() {
    let site = Site::with_instances(1, "");
    let trace = site.path("trace").display().to_string();
    site.script(
        "jd/bin/start.sh",
        &format!("#!/bin/sh\necho \"$1 $GREETING $JDCLOUD_CODEDEPLOY_OPERATION\" >> '{trace}'\n"),
    );
    site.write("jd/app/main.conf", "");
    site.write(
        "jd/jdcloud-codedeploy.yml",
        "files:
  - {source: ./app, destination: app}
hooks:
  ApplicationStart:
    - {command: bin/start.sh, timeout: 10}
    - {command: bin/start.sh now}
permisssions:
  - {object: app, mode: 0600, type: [file]}
env: {GREETING: yes}
",
    );

    let answer = site
        .cutover(&["deploy", "shop/web", "--package", "jd"])
        .ok();

    assert_eq!(site.take_trace(), [" yes UPDATE", "now yes UPDATE"]);
    let installed = std::fs::metadata(site.path("web-1/app/main.conf")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&installed.permissions());
    assert_eq!(mode & 0o7777, 0o600);
    assert_snapshot!(answer.stderr.lines().next().unwrap(), @"warning: jd/jdcloud-codedeploy.yml:7:1: `permisssions` is read as `permissions` (write `permissions`)");
}

#[test]
fn the_help_of_the_program() {
    let site = Site::new();

    assert_snapshot!(site.transcript(&["--help"]), @"
    $ cutover --help
    Release packages to fleets of hosts

    cutover brings a package to a group of instances in batches, in and out of their load balancer, and
    keeps a journal, so that a release that was killed can be resumed. Answers go to stdout; progress,
    warnings and hints to stderr.

    Usage: cutover [OPTIONS] <COMMAND>

    Commands:
      init         Write a commented cutover.yaml and a sample package
      check        Check the workspace, its plugins, release plans, or packages
      schema       Print the JSON Schema of cutover.yaml or of release plans
      deploy       Deploy a package to a group
      run          Carry out a release plan: many services, in the order of their priorities
      local        Try a package on this machine, without a workspace
      rollback     Take the latest deployment of a group back, or return to a version
      redeploy     Deploy what an old deployment brought once more, as another version
      retry        Deploy a release's version to the instances that did not get it
      promote      End a canary's wait: the remaining batches go, and the version gets all traffic
      weight       Change the share of traffic of a canary that waits for its promotion
      approve      Pass a gate that waits for a person
      reject       Fail a gate that waits for a person
      skip         Leave instances out that a release has not begun with
      pause        Let a release finish what is in flight and start nothing more until it is resumed
      resume       Go on with a release that is paused, interrupted, or whose conductor died
      stop         End a release once what is in flight has finished
      delete       Delete a release that has ended, is paused or interrupted
      ls           List releases, newest first
      show         Show where a release stands
      report       Print the full report of a release
      logs         Print what the hooks of a release printed
      watch        Follow a release until it ends
      history      List the deployments of a group, newest first
      lock         Show which release holds a group, what it does, and who waits for it
      plugin       Look at plugins
      completions  Print a completion script for a shell
      man          Write the manual pages

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Options of every command:
          --config <FILE>
              Workspace file; found upwards from the working directory when left out
              
              [env: CUTOVER_CONFIG=]

          --output <OUTPUT>
              Form of the answer on stdout
              
              [default: text]
              [possible values: text, json]

          --color <COLOR>
              When to colour
              
              [default: auto]
              [possible values: auto, always, never]

      -q, --quiet
              Print no progress, warnings or advice; errors are printed

      -v, --verbose
              Print what hooks print, and what is skipped

    Exit status:
        0  Done
        1  A bug of cutover
        2  Wrong usage, or not confirmed
        3  Invalid configuration or input; nothing has changed on any instance
        4  The release failed
        5  The release failed and needs a person
        6  Busy: another release holds the group, or another conductor drives the release
        7  Paused or stopped before the end
      130  Interrupted
    ");
    assert_snapshot!(site.transcript(&["deploy", "--help"]), @"
    $ cutover deploy --help
    Deploy a package to a group

    Usage: cutover deploy [OPTIONS] --package <URI> <GROUP>

    Arguments:
      <GROUP>  Group to deploy to, APPLICATION/GROUP

    Options:
          --package <URI>         Package: a folder, an archive, or a URL that a package source serves
          --version <VERSION>     Version to give it, A.B.C or A.B.C.D; generated from the time when
                                  left out
          --digest <DIGEST>       Digest that the package must have, sha256:…
          --strategy <STRATEGY>   Strategy [default: what the file says] [possible values: rolling,
                                  blue-green, canary]
          --exclude <INSTANCE>    Instance to leave out; may be given several times
          --live <SIDE>           Side that is live, where the router and the journal disagree
          --wait[=<DURATION>]     Wait in line until no release holds the group, at most so long where a
                                  duration is given
          --ignore-stop-failures  Go on when a script of the version being left fails, and record the
                                  choice
          --comment <COMMENT>     Why, for the history
          --dry-run               Print what would happen, and change nothing on any instance
      -h, --help                  Print help

    Options of every command:
          --config <FILE>    Workspace file; found upwards from the working directory when left out
                             [env: CUTOVER_CONFIG=]
          --output <OUTPUT>  Form of the answer on stdout [default: text] [possible values: text, json]
          --color <COLOR>    When to colour [default: auto] [possible values: auto, always, never]
      -q, --quiet            Print no progress, warnings or advice; errors are printed
      -v, --verbose          Print what hooks print, and what is skipped
    ");
}

#[test]
fn the_schema_is_json() {
    let site = Site::new();

    for (arguments, title) in [
        (&["schema"][..], "cutover.yaml"),
        (&["schema", "workspace"], "cutover.yaml"),
        (&["schema", "plan"], "Release plan"),
    ] {
        let schema = site.cutover(arguments).ok().json();

        assert_eq!(schema["title"], title, "{arguments:?}");
    }
}

#[test]
fn completions_and_manual_pages_are_written() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = site.cutover(&["completions", shell]).ok().stdout;
        assert!(script.contains("history"), "{shell}: {script}");
    }

    site.cutover(&["man", "pages"]).ok();

    let page = std::fs::read_to_string(site.path("pages/cutover-deploy.1")).unwrap();
    assert!(page.contains("dry"), "{page}");
    assert!(
        !site.path("pages/cutover-agent.1").exists(),
        "hidden commands have no page"
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_error_and_does_not_hide_one() {
    let site = shop();
    deploy(&site, "v1", "1.0.0");
    let status = |command: &str| {
        let mut shell = std::process::Command::new("bash");
        shell
            .current_dir(site.path(""))
            .args(["-c", &format!("set -o pipefail; {command}")])
            .env("CUTOVER", cutover_tests::target_folder().join("cutover"));
        shell.output().unwrap()
    };

    for command in [
        "schema",
        "--help",
        "completions bash",
        "history shop/web",
        "check",
    ] {
        let output = status(&format!("\"$CUTOVER\" {command} | true"));
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(
            output.stderr.is_empty(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let output = status("\"$CUTOVER\" report nothing | true");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn colours_are_there_when_asked_for_and_ids_show_what_is_enough_of_them() {
    let site = shop();
    deploy(&site, "v1", "1.0.0");

    let plain = site.cutover(&["ls"]).ok().stdout;
    let coloured = site.cutover(&["ls", "--color", "always"]).ok().stdout;

    assert!(!plain.contains('\u{1b}'), "{plain}");
    let id = newest(&site);
    let (first, rest) = id.split_at(1);
    assert!(
        coloured.contains(&format!("\u{1b}[1m\u{1b}[36m{first}\u{1b}[0m{rest}")),
        "{coloured:?}"
    );
    site.cutover(&["show", first]).ok();
}

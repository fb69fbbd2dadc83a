//! Resuming a release whose instances somebody has changed since it was left.

#![allow(clippy::unwrap_used)]

use std::fs;

use cutover_tests::{Site, until};
use insta::assert_snapshot;

/// A release of 1.1.0 over 1.0.0 that is paused between its two instances: `web-1` has it.
fn paused() -> (Site, String) {
    let site = Site::with_instances(2, "");
    let hold = format!(
        "while ! [ -e '{}' ]; do sleep 0.05; done",
        site.path("go-on").display()
    );
    site.traced_package("v1", "1.0.0", "");
    site.traced_package("v2", "1.1.0", &hold);
    let deploy = |package, version| {
        [
            "deploy",
            "shop/web",
            "--package",
            package,
            "--version",
            version,
        ]
    };
    site.cutover(&deploy("v1", "1.0.0")).ok();
    let _ = site.take_trace();
    let mut conductor = site.start(&deploy("v2", "1.1.0"));
    until("a hook of the release runs", || {
        fs::read_to_string(site.path("trace")).is_ok_and(|trace| trace.contains("1.1.0"))
    });
    let id = site.report_of_newest()["id"].as_str().unwrap().to_owned();
    site.cutover(&["pause", &id, "--no-wait"]).ok();
    site.write("go-on", "");
    conductor.wait().unwrap();
    let report = site.report_of_newest();
    assert_eq!(report["status"], "PAUSED");
    assert_eq!(
        report["deployments"][0]["instances"][0]["outcome"],
        "SUCCEEDED"
    );
    (site, id)
}

#[test]
fn a_release_whose_instances_are_as_they_were_left_goes_on_without_a_word() {
    let (site, id) = paused();

    let resumed = site.cutover(&["resume", &id]).ok();

    assert!(!resumed.stderr.contains("warning"), "{}", resumed.stderr);
    assert_eq!(site.report()["status"], "SUCCEEDED");
}

#[test]
fn files_that_were_changed_by_hand_are_named_and_the_release_waits_for_an_answer() {
    let (site, id) = paused();
    // What is done by hand takes a moment, and a moment is all that it takes to tell it from what a hook did.
    until("it is later than the last step", || {
        site.write("web-1/app/version.txt", "by hand");
        let changed = site.path("web-1/app/version.txt").metadata().unwrap();
        let attempts = fs::read_dir(site.path("web-1/.cutover/attempts")).unwrap();
        let mut outcomes = attempts.filter_map(|entry| {
            let outcome = entry.unwrap().path().join("outcome.json");
            outcome.metadata().ok()?.modified().ok()
        });
        outcomes.all(|ended| ended < changed.modified().unwrap())
    });
    fs::remove_file(site.path("web-2/app/version.txt")).unwrap();

    assert_snapshot!(site.transcript(&["resume", &id]), @"
    $ cutover resume RELEASE-ID
    --- stderr
    warning: web-1 of shop/web is not as it was left; changed: `SITE/web-1/app/version.txt`.
    warning: web-2 of shop/web is not as it was left; removed: `SITE/web-2/app/version.txt`.
    error: release RELEASE-ID: 2 instances changed since it was left
    hint: go on as they are: cutover resume RELEASE-ID --yes
    hint: or end it: cutover stop RELEASE-ID
    --- exit status 5
    ");
    let refused = site.cutover(&["resume", &id, "--output", "json"]);
    assert_eq!(refused.code, 5);
    assert_snapshot!(site.normalised(&serde_json::to_string_pretty(&refused.json()).unwrap()), @r#"
    {
      "changed": [
        {
          "files": [
            {
              "change": "changed",
              "path": "SITE/web-1/app/version.txt"
            }
          ],
          "group": "shop/web",
          "instance": "web-1",
          "more": 0
        },
        {
          "files": [
            {
              "change": "removed",
              "path": "SITE/web-2/app/version.txt"
            }
          ],
          "group": "shop/web",
          "instance": "web-2",
          "more": 0
        }
      ],
      "release": "RELEASE-ID",
      "unknown": [],
      "v": 1
    }
    "#);
    assert_eq!(site.report()["status"], "PAUSED");

    site.cutover(&["resume", &id, "--yes"]).ok();

    assert_eq!(site.report()["status"], "SUCCEEDED");
    let version = |instance| fs::read_to_string(site.path(instance)).unwrap();
    assert_eq!(version("web-2/app/version.txt"), "1.1.0");
}

#[test]
fn what_another_journal_installed_is_named() {
    let (site, id) = paused();
    site.traced_package("hotfix", "9.9.9", "");
    let rootdir = site.path("web-2").display().to_string();
    let local = [
        "local",
        "--bundle",
        "hotfix",
        "--rootdir",
        &rootdir,
        "--application",
        "shop",
        "--group",
        "web",
        "--deployment-id",
        "hotfix-1",
    ];
    site.cutover(&local).ok();

    assert_snapshot!(site.transcript(&["resume", &id]), @"
    $ cutover resume RELEASE-ID
    --- stderr
    warning: web-2 of shop/web has deployment hotfix-1 of another journal installed, and the journal says 1.0.0 of deployment RELEASE-ID-1.
    error: release RELEASE-ID: 1 instance changed since it was left
    hint: go on as they are: cutover resume RELEASE-ID --yes
    hint: or end it: cutover stop RELEASE-ID
    --- exit status 5
    ");
    let refused = site.cutover(&["resume", &id, "--output", "json"]);
    assert_snapshot!(site.normalised(&serde_json::to_string_pretty(&refused.json()).unwrap()), @r#"
    {
      "changed": [
        {
          "expected": {
            "deployment": "RELEASE-ID-1",
            "version": "1.0.0"
          },
          "group": "shop/web",
          "installed": {
            "deployment": "hotfix-1",
            "version": null
          },
          "instance": "web-2"
        }
      ],
      "release": "RELEASE-ID",
      "unknown": [],
      "v": 1
    }
    "#);
}

#[test]
fn an_instance_that_cannot_say_what_it_has_keeps_nobody() {
    let (site, id) = paused();
    site.write("web-1/.cutover/installed/shop/web.json", "{");

    let resumed = site.cutover(&["resume", &id]).ok();

    let warning = resumed.stderr.lines().next().unwrap();
    assert_snapshot!(site.normalised(warning), @"warning: web-1 of shop/web could not be asked whether it was changed since: the record of what is installed, `SITE/web-1/.cutover/installed/shop/web.json`, cannot be read: restore it, or remove it and let the files be overwritten: the line is not a message of the agent's protocol: EOF while parsing an object at line 1 column 1.");
    assert_eq!(site.report()["status"], "SUCCEEDED");
}

//! The package cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use agent::protocol::{
    Answer, Cached, Cause, Fetch, FileMapping, Install, OnExisting, Outcome, Request, Work,
};
use agent::tree;

use crate::instance::{Agent, Instance, assert_failed, assert_succeeded, eventually};

fn source(instance: &Instance, version: &str) -> String {
    instance.write(&format!("source-{version}/bin/start.sh"), "#!/bin/sh\n");
    instance.write(&format!("source-{version}/conf/app.conf"), version);
    let link = instance.path(&format!("source-{version}/current"));
    let _ = fs::remove_file(&link);
    symlink("conf/app.conf", link).unwrap();
    instance
        .path(&format!("source-{version}"))
        .to_str()
        .unwrap()
        .to_owned()
}

fn cache(deployment: &str) -> String {
    format!("app-shop/group-web/deploy-{deployment}")
}

pub(crate) fn fetch(instance: &Instance, version: &str) -> Fetch {
    let source = source(instance, version);
    let digest = tree::digest(Path::new(&source)).unwrap();
    Fetch {
        cache: cache(version),
        source,
        digest,
        keep: Vec::new(),
        keep_others: 5,
        install: None,
    }
}

fn cached(instance: &Instance, deployments: &[&str]) -> Vec<String> {
    let mut agent = Agent::start();
    let caches = deployments
        .iter()
        .map(|deployment| cache(deployment))
        .collect();
    agent.send(Request::Cached(Cached {
        ask: 1,
        rootdir: instance.rootdir(),
        caches,
    }));
    let Answer::Cached { caches, .. } = agent.answer() else {
        panic!("no answer to the question")
    };
    caches
}

#[test]
fn a_package_is_copied_as_it_is_and_fetched_once() {
    let instance = Instance::new();
    let work = fetch(&instance, "1");
    assert_eq!(cached(&instance, &["1"]), Vec::<String>::new());

    let (log, outcome) = instance.outcome("a", Work::Fetch(work.clone()));
    assert_succeeded(&outcome);
    assert!(log.contains("2 files"), "{log}");
    assert_eq!(
        tree::digest(&instance.path(&cache("1"))).unwrap(),
        work.digest
    );
    assert_eq!(cached(&instance, &["2", "1"]), [cache("1")]);

    instance.write(&format!("{}/left-by-a-hook", cache("1")), "");
    let (_, outcome) = instance.outcome("b", Work::Fetch(work));
    assert!(
        matches!(&outcome, Outcome::Succeeded { note: Some(note), .. } if note.contains("already")),
        "{outcome:?}"
    );
    assert!(
        instance.path(&cache("1")).join("left-by-a-hook").exists(),
        "it was not copied again"
    );
}

#[test]
fn a_package_is_not_another_one() {
    let instance = Instance::new();
    let mut work = fetch(&instance, "1");
    fs::write(instance.path("source-1/conf/app.conf"), "tampered").unwrap();

    let (_, outcome) = instance.outcome("a", Work::Fetch(work.clone()));
    assert_failed(&outcome, Cause::FetchFailed, "has the digest `sha256:");
    assert_eq!(
        fs::read_dir(instance.path("app-shop/group-web"))
            .unwrap()
            .count(),
        0,
        "nothing is left"
    );

    work.source = instance.path("nowhere").to_str().unwrap().to_owned();
    let (_, outcome) = instance.outcome("b", Work::Fetch(work.clone()));
    assert_failed(
        &outcome,
        Cause::FetchFailed,
        "nowhere` is not a folder on this machine",
    );

    work.cache = "app-shop/../x".to_owned();
    let (_, outcome) = instance.outcome("c", Work::Fetch(work));
    assert_failed(&outcome, Cause::Invalid, "is not a package folder");
}

#[test]
fn a_package_with_another_content_takes_the_place_of_the_old_one() {
    let instance = Instance::new();
    assert_succeeded(&instance.outcome("a", Work::Fetch(fetch(&instance, "1"))).1);
    let mut work = fetch(&instance, "2");
    work.cache = cache("1");

    assert_succeeded(&instance.outcome("b", Work::Fetch(work.clone())).1);

    assert_eq!(
        tree::digest(&instance.path(&cache("1"))).unwrap(),
        work.digest
    );
}

#[test]
fn a_link_that_leaves_and_a_socket_are_refused() {
    let instance = Instance::new();
    let work = fetch(&instance, "1");
    symlink("../../etc/passwd", instance.path("source-1/leak")).unwrap();
    let (_, outcome) = instance.outcome("a", Work::Fetch(work.clone()));
    assert_failed(
        &outcome,
        Cause::FetchFailed,
        "leak` leads out of the folder",
    );

    fs::remove_file(instance.path("source-1/leak")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(instance.path("source-1/socket")).unwrap();
    let (_, outcome) = instance.outcome("b", Work::Fetch(work));
    assert_failed(&outcome, Cause::FetchFailed, "socket` is neither a file");
}

#[test]
fn old_packages_go_but_none_that_is_needed() {
    let instance = Instance::new();
    for version in ["1", "2", "3", "4"] {
        assert_succeeded(
            &instance
                .outcome(
                    &format!("f{version}"),
                    Work::Fetch(fetch(&instance, version)),
                )
                .1,
        );
    }
    let mapping = FileMapping {
        source: "conf".to_owned(),
        destination: "live".to_owned(),
    };
    let install = Install {
        application: "shop".to_owned(),
        group: "web".to_owned(),
        cache: cache("1"),
        deployment: "1".to_owned(),
        files: vec![mapping],
        permissions: Vec::new(),
        on_existing: OnExisting::Disallow,
    };
    assert_succeeded(&instance.outcome("install", Work::Install(install)).1);
    fs::create_dir(instance.path("app-shop/group-web/deploy-0.partial-f1")).unwrap();
    instance.write(".cutover/attempts/.keep", "");

    let mut work = fetch(&instance, "5");
    work.keep = vec![cache("2")];
    work.keep_others = 1;
    assert_succeeded(&instance.outcome("f5", Work::Fetch(work)).1);

    // 1 is installed, 2 is to be kept, 4 is the newest other one.
    assert_eq!(
        cached(&instance, &["1", "2", "3", "4", "5"]),
        [cache("1"), cache("2"), cache("4"), cache("5")]
    );
    assert!(
        !instance
            .path("app-shop/group-web/deploy-0.partial-f1")
            .exists()
    );
}

#[test]
fn a_package_becomes_certain_after_its_outcome_was_told() {
    let instance = Instance::new();
    assert_succeeded(&instance.outcome("a", Work::Fetch(fetch(&instance, "1"))).1);

    let marker = format!(".cutover/packages/{}.json", cache("1"));
    eventually(|| {
        instance
            .read(&marker)
            .contains("\"boot\":null")
            .then_some(())
    });
}

#[test]
fn attempts_are_forgotten_with_the_package_of_their_deployment() {
    let instance = Instance::new();
    for version in ["r1-1", "r2-1", "r3-1"] {
        let work = Fetch {
            keep_others: 1,
            ..fetch(&instance, version)
        };
        let attempt = format!("{version}.web-1.DownloadBundle.1");
        let (_, outcome) = instance.outcome(&attempt, Work::Fetch(work));
        assert_succeeded(&outcome);
    }

    let exists = |deployment: &str| {
        instance
            .path(&format!(
                ".cutover/attempts/{deployment}.web-1.DownloadBundle.1"
            ))
            .exists()
    };
    assert!(!exists("r1-1"), "its package left the cache");
    assert!(exists("r2-1") && exists("r3-1"));
}

#[test]
fn a_clock_that_was_set_makes_nobody_forget_what_just_happened() {
    let instance = Instance::new();
    let work = fetch(&instance, "r1-1");
    let attempts = [
        "r1-1.web-1.DownloadBundle.1",
        "rollback-1.web-1.X.1",
        "rollback-2.web-1.X.1",
    ];
    for attempt in attempts {
        assert_succeeded(&instance.outcome(attempt, Work::Fetch(work.clone())).1);
    }
    let path =
        |attempt: &str, file: &str| instance.path(&format!(".cutover/attempts/{attempt}/{file}"));
    // As if the clock had been a year ahead since.
    for attempt in attempts {
        let outcome = fs::File::open(path(attempt, "outcome.json")).unwrap();
        outcome
            .set_modified(SystemTime::now() - Duration::from_secs(366 * 86400))
            .unwrap();
    }
    // As if one had been filed before the host went down.
    let filed = fs::read_to_string(path(attempts[2], "command.json")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let filed = filed.replace(boot.trim(), "another boot");
    fs::write(path(attempts[2], "command.json"), filed).unwrap();

    assert_succeeded(&instance.outcome("next", Work::Fetch(work)).1);

    assert!(path(attempts[0], "").exists() && path(attempts[1], "").exists());
    assert!(!path(attempts[2], "").exists());
}

#[test]
fn the_order_in_which_packages_came_survives_a_clock_that_is_set_back() {
    let instance = Instance::new();
    let one = |version: &str, keep_others| Fetch {
        keep_others,
        ..fetch(&instance, version)
    };
    assert_succeeded(&instance.outcome("a", Work::Fetch(one("1", 5))).1);
    let marker = instance.path(".cutover/packages/app-shop/group-web/deploy-1.json");
    let text = fs::read_to_string(&marker).unwrap();
    let (before, rest) = text.split_once("\"written_ms\":").unwrap();
    let (_, after) = rest.split_once(',').unwrap();
    let ahead = format!("{before}\"written_ms\":99999999999999,{after}");
    fs::write(&marker, ahead).unwrap();

    assert_succeeded(&instance.outcome("b", Work::Fetch(one("2", 5))).1);
    assert_succeeded(&instance.outcome("c", Work::Fetch(one("3", 1))).1);

    assert_eq!(
        cached(&instance, &["1", "2", "3"]),
        [cache("2"), cache("3")]
    );
}

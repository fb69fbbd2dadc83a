//! What is found of an installation that somebody may have changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use agent::protocol::{
    Answer, FileMapping, Inspect, Inspected, Install, OnExisting, Request, What, Work,
};

use crate::instance::{
    Agent, CACHE, Instance, assert_succeeded, eventually, fifo, hooks, location, release,
};

const INSTALL: &str = "r1-1.web-1.Install.1";

fn inspect(instance: &Instance) -> Inspected {
    let mut agent = Agent::start();
    agent.send(Request::Inspect(Inspect {
        ask: 7,
        rootdir: instance.rootdir(),
        application: "shop".to_owned(),
        group: "web".to_owned(),
        instance: "web-1".to_owned(),
    }));
    match agent.answer() {
        Answer::Inspected(found) => {
            assert_eq!(found.ask, 7);
            found
        }
        other => panic!("{other:?}"),
    }
}

/// What was changed, by its name below `app`.
fn changed(instance: &Instance) -> Vec<(String, What)> {
    let app = fs::canonicalize(instance.path("")).unwrap().join("app");
    let name = |path: &str| {
        let path = Path::new(path);
        let name = path.strip_prefix(&app).unwrap_or(path);
        name.display().to_string()
    };
    let found = inspect(instance).changed;
    found
        .iter()
        .map(|changed| (name(&changed.path), changed.what))
        .collect()
}

/// An instance that has `app/FILE` for each of these, and a link.
fn installed(files: &[&str]) -> Instance {
    let instance = Instance::new();
    for file in files {
        instance.write(&format!("{CACHE}/content/{file}"), "as it was");
    }
    symlink("a", instance.path(&format!("{CACHE}/content/link"))).unwrap();
    let install = Install {
        application: "shop".to_owned(),
        group: "web".to_owned(),
        cache: CACHE.to_owned(),
        deployment: "r1-1".to_owned(),
        files: vec![FileMapping {
            source: "/content".to_owned(),
            destination: "app".to_owned(),
        }],
        permissions: Vec::new(),
        on_existing: OnExisting::default(),
    };
    assert_succeeded(&instance.outcome(INSTALL, Work::Install(install)).1);
    instance
}

/// Waits until what happens on the instance happens, by its clock, after the last attempt has ended. The clock that files
/// get their times from ticks a few hundred times a second.
fn later(instance: &Instance) {
    let attempts = fs::read_dir(instance.path(".cutover/attempts")).unwrap();
    let ended = attempts.filter_map(|entry| {
        let outcome = entry.unwrap().path().join("outcome.json");
        outcome.metadata().ok()?.modified().ok()
    });
    let ended = ended.max().unwrap();
    eventually(|| {
        let probe = instance.write("probe", "");
        (probe.metadata().unwrap().modified().unwrap() > ended).then_some(())
    });
}

/// Runs a hook, after which everything is as it was left.
fn hook(instance: &Instance, text: &str) {
    let work = instance.script("hook.sh", text);
    let id = "r1-1.web-1.AfterInstall.1";
    assert_succeeded(&instance.outcome(id, work).1);
}

#[test]
fn what_is_as_it_was_left_has_no_changes() {
    let instance = installed(&["a", "folder/b"]);

    let found = inspect(&instance);

    let expected = Inspected {
        ask: 7,
        deployment: Some("r1-1".to_owned()),
        is_at_work: false,
        changed: Vec::new(),
        more: 0,
    };
    assert_eq!(found, expected);
}

#[test]
fn nothing_is_installed_where_nothing_was() {
    let instance = Instance::new();

    let found = inspect(&instance);

    assert_eq!((found.deployment, found.changed), (None, Vec::new()));
    assert!(
        !instance.path(".cutover").exists(),
        "looking changes nothing"
    );
}

#[test]
fn files_that_were_changed_replaced_and_removed_by_hand_are_found() {
    let instance = installed(&["a", "b", "c", "folder/d", "untouched"]);
    later(&instance);
    fs::write(instance.path("app/a"), "by hand").unwrap();
    fs::remove_file(instance.path("app/b")).unwrap();
    fs::remove_file(instance.path("app/c")).unwrap();
    fs::create_dir(instance.path("app/c")).unwrap();
    fs::remove_dir_all(instance.path("app/folder")).unwrap();
    fs::remove_file(instance.path("app/link")).unwrap();
    symlink("b", instance.path("app/link")).unwrap();

    let mut found = changed(&instance);

    found.sort();
    let expected = [
        ("a", What::Changed),
        ("b", What::Removed),
        ("c", What::Changed),
        ("folder", What::Removed),
        ("folder/d", What::Removed),
        ("link", What::Changed),
    ];
    let expected = expected.map(|(name, what)| (name.to_owned(), what));
    assert_eq!(found, expected);
}

#[test]
fn what_a_hook_has_changed_is_as_it_was_left() {
    let instance = installed(&["a", "b"]);
    hook(
        &instance,
        "echo configured > ../../../app/a; rm ../../../app/b",
    );
    assert_eq!(changed(&instance), []);

    later(&instance);
    fs::write(instance.path("app/a"), "by hand").unwrap();

    assert_eq!(changed(&instance), [("a".to_owned(), What::Changed)]);
}

#[test]
fn a_file_that_was_touched_and_holds_the_same_is_not_changed() {
    let instance = installed(&["a"]);
    let path = instance.path("app/a");
    let modified = path.metadata().unwrap().modified().unwrap();

    later(&instance);
    // As a backup that is restored does it.
    fs::copy(&path, instance.path("app/copy")).unwrap();
    fs::rename(instance.path("app/copy"), &path).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();

    assert_eq!(changed(&instance), []);
}

#[test]
fn many_changes_are_counted_and_some_of_them_listed() {
    let names: Vec<String> = (0..30).map(|number| format!("f{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let instance = installed(&names);
    later(&instance);
    for name in names {
        fs::write(instance.path(&format!("app/{name}")), "by hand").unwrap();
    }

    let found = inspect(&instance);

    assert_eq!((found.changed.len(), found.more), (20, 10));
}

#[test]
fn files_are_not_compared_while_something_is_under_way() {
    let instance = installed(&["a"]);
    let gate = instance.path("gate");
    fifo(&gate);
    instance.script("wait.sh", &format!("read go < '{}'", gate.display()));
    let mut agent = Agent::start();
    let id = "r1-1.web-1.AfterInstall.1";
    let run = instance.run(id, hooks(vec![location("wait.sh")]));
    agent.send(Request::Run(run));
    instance.worker(id);
    fs::write(instance.path("app/a"), "by the hook").unwrap();

    let found = inspect(&instance);
    release(&gate);
    agent.follow(id, 0);

    assert!(found.is_at_work);
    assert_eq!(found.changed, []);
    assert_eq!(changed(&instance), []);
}

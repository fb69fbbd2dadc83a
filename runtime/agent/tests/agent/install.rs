//! Laying down files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use agent::protocol::{
    Answer, Cause, FileMapping, Install, Installed, Kinds, OnExisting, Outcome, Permission,
    Request, Work,
};

use crate::instance::{Agent, Instance, assert_failed, assert_succeeded, eventually, kill};

pub(crate) fn cache(deployment: &str) -> String {
    format!("app-shop/group-web/deploy-{deployment}")
}

/// Puts a package into the cache; a text that begins with `->` is a link.
pub(crate) fn package(instance: &Instance, deployment: &str, files: &[(&str, &str)]) -> Install {
    for (path, text) in files {
        let path = format!("{}/{path}", cache(deployment));
        match text.strip_prefix("->") {
            Some(target) => {
                let path = instance.path(&path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                symlink(target, path).unwrap();
            }
            None => drop(instance.write(&path, text)),
        }
    }
    Install {
        application: "shop".to_owned(),
        group: "web".to_owned(),
        cache: cache(deployment),
        deployment: deployment.to_owned(),
        files: vec![mapping("/", "live")],
        permissions: Vec::new(),
        on_existing: OnExisting::Disallow,
    }
}

pub(crate) fn mapping(source: &str, destination: &str) -> FileMapping {
    FileMapping {
        source: source.to_owned(),
        destination: destination.to_owned(),
    }
}

pub(crate) fn permission(object: &str) -> Permission {
    Permission {
        object: object.to_owned(),
        pattern: "**".to_owned(),
        except: Vec::new(),
        kinds: Kinds::Both,
        owner: None,
        group: None,
        mode: None,
        acls: Vec::new(),
        context: None,
    }
}

pub(crate) fn outcome(instance: &Instance, attempt: &str, work: &Install) -> Outcome {
    instance.outcome(attempt, Work::Install(work.clone())).1
}

pub(crate) fn installed(instance: &Instance) -> Option<String> {
    let mut agent = Agent::start();
    let (application, group) = ("shop".to_owned(), "web".to_owned());
    agent.send(Request::Installed(Installed {
        ask: 1,
        rootdir: instance.rootdir(),
        application,
        group,
    }));
    let Answer::Installed { deployment, .. } = agent.answer() else {
        panic!("no answer to the question")
    };
    deployment
}

/// Everything below a folder: text of files, `->TARGET` of links, nothing of folders.
pub(crate) fn content(instance: &Instance, folder: &str) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.insert(name, String::new());
                walk(root, &path, found);
            } else if kind.is_symlink() {
                found.insert(
                    name,
                    format!("->{}", fs::read_link(&path).unwrap().display()),
                );
            } else {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&instance.path(folder), &instance.path(folder), &mut found);
    found
}

#[track_caller]
pub(crate) fn assert_content(instance: &Instance, folder: &str, expected: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> = expected
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    assert_eq!(content(instance, folder), expected);
}

#[test]
fn files_go_where_the_mappings_say() {
    let instance = Instance::new();
    let mut work = package(
        &instance,
        "1",
        &[
            ("app/a", "A"),
            ("app/sub/b", "B"),
            ("app/link", "->sub/b"),
            ("one", "1"),
        ],
    );
    let absolute = instance.path("abs");
    work.files = vec![
        mapping("app", "live"),
        mapping("one", absolute.to_str().unwrap()),
        mapping("/one", "live/deep/er"),
    ];

    assert_succeeded(&outcome(&instance, "a", &work));

    let live = [
        ("a", "A"),
        ("sub", ""),
        ("sub/b", "B"),
        ("link", "->sub/b"),
        ("deep", ""),
        ("deep/er", ""),
        ("deep/er/one", "1"),
    ];
    assert_content(&instance, "live", &live);
    assert_content(&instance, "abs", &[("one", "1")]);
    assert_eq!(installed(&instance).as_deref(), Some("1"));
}

#[test]
fn an_upgrade_replaces_and_removes_what_the_old_version_brought_and_nothing_else() {
    let instance = Instance::new();
    let one = package(
        &instance,
        "1",
        &[
            ("same", "s"),
            ("changed", "1"),
            ("old/dropped", "d"),
            ("old/gone", "g"),
            ("l", "->same"),
        ],
    );
    let two = package(
        &instance,
        "2",
        &[
            ("same", "s"),
            ("changed", "2"),
            ("new/file", "n"),
            ("l", "->changed"),
        ],
    );
    assert_succeeded(&outcome(&instance, "a", &one));
    let inode = instance.path("live/same").metadata().unwrap().ino();
    instance.write("live/mine", "m");
    fs::remove_file(instance.path("live/old/gone")).unwrap();

    assert_succeeded(&outcome(&instance, "b", &two));

    let live = [
        ("same", "s"),
        ("changed", "2"),
        ("new", ""),
        ("new/file", "n"),
        ("l", "->changed"),
        ("mine", "m"),
    ];
    assert_content(&instance, "live", &live);
    assert_eq!(
        instance.path("live/same").metadata().unwrap().ino(),
        inode,
        "what is right is not touched"
    );
    assert_succeeded(&outcome(&instance, "c", &one));
    assert_eq!(instance.read("live/old/gone"), "g");
    assert_eq!(installed(&instance).as_deref(), Some("1"));
}

#[test]
fn a_folder_may_become_a_file_and_a_file_a_folder_or_a_link() {
    let instance = Instance::new();
    let one = package(
        &instance,
        "1",
        &[
            ("x/a", "1"),
            ("x/b/c", "1"),
            ("y", "1"),
            ("z/a", "1"),
            ("shared/a", "S"),
        ],
    );
    let two = package(
        &instance,
        "2",
        &[
            ("x", "2"),
            ("y/a", "2"),
            ("z", "->shared"),
            ("shared/a", "S"),
        ],
    );
    assert_succeeded(&outcome(&instance, "a", &one));

    assert_succeeded(&outcome(&instance, "b", &two));
    assert_content(
        &instance,
        "live",
        &[
            ("x", "2"),
            ("y", ""),
            ("y/a", "2"),
            ("z", "->shared"),
            ("shared", ""),
            ("shared/a", "S"),
        ],
    );

    assert_succeeded(&outcome(&instance, "c", &one));
    assert_eq!(
        (instance.read("live/x/b/c"), instance.read("live/y")),
        ("1".to_owned(), "1".to_owned())
    );

    instance.write("live/x/mine", "m");
    let (_, result) = instance.outcome("d", Work::Install(two));
    assert_failed(
        &result,
        Cause::InstallFailed,
        "live/x` is a folder, but a file is to be there",
    );
    assert_eq!(instance.read("live/x/b/c"), "1");
}

#[test]
fn everything_in_the_way_is_listed_before_anything_changes() {
    let instance = Instance::new();
    let work = package(
        &instance,
        "1",
        &[
            ("a", "1"),
            ("b", "1"),
            ("c", "same"),
            ("d/e", "1"),
            ("fresh", "1"),
        ],
    );
    instance.write("live/a", "foreign");
    instance.write("live/b", "foreign");
    instance.write("live/c", "same");
    instance.write("live/d", "a file where a folder goes");

    let result = outcome(&instance, "a", &work);

    for name in [
        "live/a` is there already",
        "live/b` is there already",
        "live/d` is to be a folder",
    ] {
        assert_failed(&result, Cause::InstallFailed, name);
    }
    assert_failed(&result, Cause::InstallFailed, "nothing was changed");
    assert!(!instance.path("live/fresh").exists());
    assert_eq!(installed(&instance), None);
}

#[test]
fn what_makes_no_sense_is_listed_before_anything_changes() {
    let instance = Instance::new();
    let mut work = package(&instance, "1", &[("a", "1"), ("b", "1")]);
    work.files = vec![
        mapping("gone", "live"),
        mapping("../x", "live"),
        mapping("a", "../live"),
        mapping("a", ".cutover/x"),
        mapping("a", "twice/a"),
        mapping("b", "twice/a"),
        mapping("/", "twice"),
    ];
    work.permissions = vec![permission("live"), permission("live")];
    work.permissions[0].owner = Some("nobody-of-that-name".to_owned());
    work.permissions[1].mode = Some(0o70000);

    let result = outcome(&instance, "a", &work);

    for text in [
        "the source `gone` is not in the package",
        "the source `../x` is not in the package",
        "`../live` is not a place for files",
        "is the agent's own",
        "two different sources go to `",
        "there is no user `nobody-of-that-name`",
        "is not a mode",
    ] {
        assert_failed(&result, Cause::Invalid, text);
    }
    assert!(!instance.path("twice").exists());
}

#[test]
fn foreign_files_are_retained_if_so_told() {
    let instance = Instance::new();
    let mut one = package(&instance, "1", &[("a", "1"), ("b", "1")]);
    one.on_existing = OnExisting::Retain;
    instance.write("live/a", "foreign");

    let result = outcome(&instance, "a", &one);

    assert!(
        matches!(&result, Outcome::Succeeded { note: Some(note), .. } if note.contains("live/a` was there already")),
        "{result:?}"
    );
    assert_content(&instance, "live", &[("a", "foreign"), ("b", "1")]);
    let two = package(&instance, "2", &[("c", "2")]);
    assert_succeeded(&outcome(&instance, "b", &two));
    assert_content(&instance, "live", &[("a", "foreign"), ("c", "2")]);
}

#[test]
fn overwritten_files_come_back_when_the_package_has_no_use_for_the_place() {
    let instance = Instance::new();
    let mut one = package(&instance, "1", &[("a", "1"), ("b", "1")]);
    let mut two = package(&instance, "2", &[("a", "2"), ("b", "2")]);
    let mut three = package(&instance, "3", &[("b", "3")]);
    for work in [&mut one, &mut two, &mut three] {
        work.on_existing = OnExisting::Overwrite;
    }
    instance.write("live/a", "foreign");
    instance.write("elsewhere", "untouched");
    symlink("../elsewhere", instance.path("live/b")).unwrap();

    assert_succeeded(&outcome(&instance, "a", &one));
    assert_succeeded(&outcome(&instance, "b", &two));
    assert_content(&instance, "live", &[("a", "2"), ("b", "2")]);
    let kept = instance.path(".cutover/installed/shop/web.kept");
    assert_eq!(kept.metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        instance.read("elsewhere"),
        "untouched",
        "links are replaced, not followed"
    );
    assert_succeeded(&outcome(&instance, "c", &three));
    assert_content(&instance, "live", &[("a", "foreign"), ("b", "3")]);

    let mut four = package(&instance, "4", &[("c", "4")]);
    four.on_existing = OnExisting::Overwrite;
    assert_succeeded(&outcome(&instance, "d", &four));
    assert_content(
        &instance,
        "live",
        &[("a", "foreign"), ("b", "->../elsewhere"), ("c", "4")],
    );
    assert_eq!(
        fs::read_dir(instance.path(".cutover/installed/shop/web.kept"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn nothing_is_written_or_removed_through_a_foreign_link() {
    let instance = Instance::new();
    let one = package(&instance, "1", &[("logs/x", "1")]);
    let two = package(&instance, "2", &[("logs/x", "2")]);
    assert_succeeded(&outcome(&instance, "a", &one));
    fs::remove_dir_all(instance.path("live/logs")).unwrap();
    instance.write("var/log/x", "foreign");
    symlink("../var/log", instance.path("live/logs")).unwrap();

    let result = outcome(&instance, "b", &two);
    assert_failed(
        &result,
        Cause::InstallFailed,
        "live/logs` is to be a folder",
    );

    let three = package(&instance, "3", &[("other", "3")]);
    assert_succeeded(&outcome(&instance, "c", &three));
    assert_eq!(instance.read("var/log/x"), "foreign");
}

#[test]
fn owners_and_modes_are_those_of_the_permissions() {
    let instance = Instance::new();
    let mut work = package(
        &instance,
        "1",
        &[
            ("bin/tool", "#!t"),
            ("bin/data.txt", "d"),
            ("bin/sub/x.txt", "x"),
            ("conf", "c"),
        ],
    );
    work.permissions = vec![
        Permission {
            mode: Some(0o640),
            owner: Some("daemon".to_owned()),
            group: Some("adm".to_owned()),
            kinds: Kinds::Files,
            ..permission("live")
        },
        Permission {
            mode: Some(0o750),
            kinds: Kinds::Directories,
            ..permission("live")
        },
        Permission {
            mode: Some(0o4755),
            pattern: "t*".to_owned(),
            ..permission("live/bin")
        },
        Permission {
            mode: Some(0o600),
            pattern: "*.txt".to_owned(),
            except: vec!["other*".to_owned()],
            ..permission("live/bin")
        },
        Permission {
            mode: Some(0o400),
            ..permission("live/conf")
        },
        permission("nowhere"),
    ];

    let result = outcome(&instance, "a", &work);

    assert!(
        matches!(&result, Outcome::Succeeded { note: Some(note), .. } if note.contains("`nowhere` applies to nothing")),
        "{result:?}"
    );
    let is = |path: &str, mode: u32, uid: u32, gid: u32| {
        let metadata = instance.path(path).metadata().unwrap();
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
            (mode, uid, gid),
            "{path}"
        );
    };
    is("live/bin/tool", 0o4755, 1, 4);
    is("live/bin/data.txt", 0o600, 1, 4);
    is("live/bin/sub/x.txt", 0o640, 1, 4);
    is("live/bin/sub", 0o750, 0, 0);
    is("live", 0o755, 0, 0);
    is("live/conf", 0o400, 1, 4);

    work.permissions.clear();
    assert_succeeded(&outcome(&instance, "b", &work));
    is("live/bin/tool", 0o755, 0, 0);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_found_before_anything_changes() {
    let instance = Instance::new();
    let one = package(&instance, "1", &[("a", "1"), ("gone/b", "1")]);
    assert_succeeded(&outcome(&instance, "a", &one));
    let before = content(&instance, "live");
    let two = package(&instance, "2", &[("a", "2"), ("c/d", "2"), ("z/f", "2")]);
    fs::create_dir(instance.path("live/z")).unwrap();
    let chattr = |flag: &str| {
        let status = std::process::Command::new("chattr")
            .arg(flag)
            .arg(instance.path("live/z"))
            .status();
        status.is_ok_and(|status| status.success())
    };
    if !chattr("+i") {
        return;
    }

    let result = outcome(&instance, "b", &two);

    assert!(chattr("-i"));
    assert_failed(&result, Cause::InstallFailed, "nothing was changed");
    assert_failed(&result, Cause::InstallFailed, "live/z` is immutable");
    fs::remove_dir(instance.path("live/z")).unwrap();
    assert_eq!(content(&instance, "live"), before);
    assert_eq!(installed(&instance).as_deref(), Some("1"));
    assert_succeeded(&outcome(&instance, "c", &two));
}

#[test]
fn a_killed_installation_is_in_nobodys_way() {
    let names: Vec<String> = (0..400)
        .map(|number| format!("d{}/f{number}", number % 7))
        .collect();
    let version = |deployment: &'static str, from: usize, to: usize| -> Vec<(&str, &str)> {
        names[from..to]
            .iter()
            .map(|name| (name.as_str(), deployment))
            .collect()
    };
    for kill_after in [0, 40, 120, 300] {
        let instance = Instance::in_memory();
        let one = package(&instance, "1", &version("1", 0, 200));
        let two = package(&instance, "2", &version("2", 100, 400));
        assert_succeeded(&outcome(&instance, "a", &one));
        let done = || {
            names
                .iter()
                .filter(|name| instance.read(&format!("live/{name}")) == "2")
                .count()
        };

        let mut agent = Agent::start();
        agent.send(Request::Run(instance.run("b", Work::Install(two.clone()))));
        let worker = instance.worker("b");
        eventually(|| (done() >= kill_after).then_some(()));
        if Path::new(&format!("/proc/{worker}")).exists() {
            kill(worker);
        }
        agent.follow("b", 0);

        // Back to the version before, as a rollback does, and forward again.
        assert_succeeded(&outcome(&instance, "c", &one));
        let live = content(&instance, "live");
        assert_eq!(
            live.values().filter(|text| !text.is_empty()).count(),
            200,
            "killed after {kill_after}"
        );
        assert!(live.values().all(|text| text.is_empty() || text == "1"));
        assert!(
            !live.keys().any(|name| name.contains(".cutover-")),
            "no draft is left"
        );
        assert_succeeded(&outcome(&instance, "d", &two));
        assert_eq!(done(), 300);
    }
}

#[test]
fn a_mode_in_the_package_is_the_mode_on_the_instance() {
    let instance = Instance::new();
    let work = package(&instance, "1", &[("run.sh", "#!/bin/sh\n"), ("data", "d")]);
    fs::set_permissions(
        instance.path(&cache("1")).join("data"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();

    assert_succeeded(&outcome(&instance, "a", &work));

    assert_eq!(
        instance.path("live/run.sh").metadata().unwrap().mode() & 0o7777,
        0o755
    );
    assert_eq!(
        instance.path("live/data").metadata().unwrap().mode() & 0o7777,
        0o600
    );
}

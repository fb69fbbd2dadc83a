//! Installations that are killed, or get an error, at every single call that changes something on the disk.
//!
//! After each the tree is looked at three times: as it was left, after an installation that is refused (which takes
//! back what it finds and does nothing else), and after one that goes through.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use agent::protocol::{Cause, Install, Kinds, OnExisting, Outcome, Permission, Run, Work};

use crate::install::{installed, mapping, outcome, package, permission};
use crate::instance::{Instance, assert_failed, assert_succeeded};
use crate::mounts::{Mount, in_private};
use crate::trace::{Fate, carry_out, disturb};

/// What there is to know of a file, a link or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    content: Option<String>,
    mode: u32,
    owner: (u32, u32),
    /// Which file it is, and when its content changed.
    identity: Option<(u64, i64, i64)>,
}

type Tree = BTreeMap<String, Seen>;

/// Everything on the instance but what is the agent's own.
fn tree(instance: &Instance) -> Tree {
    fn walk(root: &Path, dir: &Path, found: &mut Tree) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            if name.starts_with(".cutover/") || name.starts_with("app-") || name == ".cutover" {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_symlink() {
                Some(format!("->{}", fs::read_link(&path).unwrap().display()))
            } else if metadata.is_file() {
                Some(fs::read_to_string(&path).unwrap())
            } else {
                None
            };
            let identity = content
                .is_some()
                .then(|| (metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
            found.insert(
                name.to_owned(),
                Seen {
                    content,
                    mode: metadata.mode(),
                    owner: (metadata.uid(), metadata.gid()),
                    identity,
                },
            );
            if metadata.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = Tree::new();
    walk(&instance.path(""), &instance.path(""), &mut found);
    found
}

/// The tree as a version, whichever files it is made of.
fn version(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for seen in tree.values_mut() {
        seen.identity = None;
    }
    tree
}

/// The tree without what is prepared beside it.
fn without_stages(tree: &Tree) -> Tree {
    tree.iter()
        .filter(|(name, _)| !name.contains(".cutover-"))
        .map(|(name, seen)| (name.clone(), seen.clone()))
        .collect()
}

struct Scenario {
    /// Where another file system is in use.
    _mount: Option<Mount>,
    instance: Instance,
    /// The version that is there, if there is one.
    one: Option<Install>,
    two: Install,
}

/// Nothing is there before.
fn first() -> Scenario {
    let instance = Instance::in_memory();
    let mut two = package(
        &instance,
        "2",
        &[("a", "2"), ("d/b", "2"), ("d/e/c", ""), ("l", "->d/b")],
    );
    fs::create_dir(instance.path("app-shop/group-web/deploy-2/empty")).unwrap();
    two.files.push(mapping("a", "elsewhere/deep"));
    two.permissions = vec![Permission {
        mode: Some(0o4750),
        owner: Some("daemon".to_owned()),
        ..permission("live")
    }];
    Scenario {
        _mount: None,
        instance,
        one: None,
        two,
    }
}

/// A version is there, and everything that can happen to a place happens to one.
fn upgrade() -> Scenario {
    let instance = Instance::in_memory();
    let one = package(
        &instance,
        "1",
        &[
            ("same", "s"),
            ("changed", "1"),
            ("dropped", "1"),
            ("gone/deep/a", "1"),
            ("gone/b", "1"),
            ("shared/a", "1"),
            ("file-to-folder", "1"),
            ("folder-to-file/a", "1"),
            ("l", "->same"),
            ("private/f", "1"),
        ],
    );
    let mut two = package(
        &instance,
        "2",
        &[
            ("same", "s"),
            ("changed", "2"),
            ("added", "2"),
            ("new/deep/a", "2"),
            ("file-to-folder/a", "2"),
            ("folder-to-file", "2"),
            ("l", "->changed"),
            ("private/f", "2"),
        ],
    );
    two.permissions = vec![Permission {
        mode: Some(0o710),
        kinds: Kinds::Directories,
        pattern: "private".to_owned(),
        ..permission("live")
    }];
    assert_succeeded(&outcome(&instance, "one", &one));
    instance.write("live/shared/mine", "m");
    // Somebody has edited it.
    instance.write("live/dropped", "edited");
    Scenario {
        _mount: None,
        instance,
        one: Some(one),
        two,
    }
}

/// A version that overwrote foreign files is there; one of them comes back, and another is overwritten.
fn foreign() -> Scenario {
    foreign_on(Instance::in_memory(), None)
}

/// The same with the files on another file system than the agent's own.
fn foreign_elsewhere() -> Scenario {
    let instance = Instance::in_memory();
    let mount = Mount::new(&instance.path("live"), c"tmpfs", c"");
    foreign_on(instance, Some(mount))
}

fn foreign_on(instance: Instance, mount: Option<Mount>) -> Scenario {
    instance.write("live/a", "foreign");
    instance.write("live/b", "foreign");
    instance.write("live/same", "2");
    symlink("b", instance.path("live/l")).unwrap();
    fs::set_permissions(instance.path("live/b"), fs::Permissions::from_mode(0o600)).unwrap();
    instance.write("live/f", "a file where a folder goes");
    let mut one = package(&instance, "1", &[("a", "1"), ("c", "1"), ("f/a", "1")]);
    let mut two = package(
        &instance,
        "2",
        &[("b", "2"), ("c", "2"), ("l", "2"), ("same", "2")],
    );
    one.on_existing = OnExisting::Overwrite;
    two.on_existing = OnExisting::Overwrite;
    assert_succeeded(&outcome(&instance, "one", &one));
    Scenario {
        _mount: mount,
        instance,
        one: Some(one),
        two,
    }
}

fn attempt(scenario: &Scenario, work: &Install) -> Run {
    scenario.instance.run("traced", Work::Install(work.clone()))
}

/// An installation that is refused, which ends what was begun and does nothing else.
fn refused(work: &Install) -> Install {
    Install {
        files: vec![mapping("not-in-the-package", "live")],
        ..work.clone()
    }
}

#[track_caller]
fn assert_no_place_is_empty(tree: &Tree, old: &Tree, new: &Tree, at: &str) {
    for (name, was) in old {
        if let Some(is) = new.get(name)
            && was.content.is_some()
            && is.content.is_some()
        {
            assert!(tree.contains_key(name), "{at}: there is no `{name}`");
        }
    }
}

/// Looks at an instance whose installation was interrupted.
fn check_recovery(scenario: &Scenario, old: &Tree, new: &Tree, at: &str, number: usize) {
    let instance = &scenario.instance;
    assert_no_place_is_empty(&tree(instance), old, new, at);

    let result = outcome(instance, "refused", &refused(&scenario.two));
    assert_failed(&result, Cause::Invalid, "is not in the package");
    let found = tree(instance);
    if installed(instance).as_deref() == Some("2") {
        assert_eq!(version(&found), *new, "{at}");
    } else {
        assert_eq!(found, *old, "{at}");
    }

    match &scenario.one {
        Some(one) if number.is_multiple_of(2) => {
            assert_succeeded(&outcome(instance, "back", one));
            if installed(instance).as_deref() == Some("1") && found != *old {
                let mut expected = version(old);
                // What was edited is the package's again.
                if let Some(seen) = expected.get_mut("live/dropped") {
                    seen.content = Some("1".to_owned());
                }
                assert_eq!(version(&tree(instance)), expected, "{at}");
            }
        }
        _ => {
            assert_succeeded(&outcome(instance, "again", &scenario.two));
            assert_eq!(version(&tree(instance)), *new, "{at}");
        }
    }
}

/// Runs a scenario to its end and returns the calls and the trees before and after.
fn undisturbed(make: fn() -> Scenario) -> (Vec<libc::c_long>, Tree) {
    let scenario = make();
    let calls = carry_out(&attempt(&scenario, &scenario.two), Fate::Live);
    assert_eq!(installed(&scenario.instance).as_deref(), Some("2"));
    let new = tree(&scenario.instance);
    assert!(
        !new.keys().any(|name| name.contains(".cutover-")),
        "{new:?}"
    );
    (calls, version(&new))
}

fn kill_everywhere(make: fn() -> Scenario) {
    let (calls, new) = undisturbed(make);
    assert!(calls.len() > 30, "{calls:?}");
    for (number, call) in calls.iter().enumerate() {
        let scenario = make();
        let old = tree(&scenario.instance);

        carry_out(&attempt(&scenario, &scenario.two), Fate::Die(number));

        let at = format!("killed before call {number}, {call}");
        check_recovery(&scenario, &old, &new, &at, number);
    }
}

fn fail_everywhere(make: fn() -> Scenario) {
    let (calls, new) = undisturbed(make);
    for (number, call) in calls.iter().enumerate() {
        let scenario = make();
        let old = tree(&scenario.instance);
        let error = [libc::ENOSPC, libc::EIO][number % 2];

        carry_out(
            &attempt(&scenario, &scenario.two),
            Fate::Fail(number, error),
        );

        let at = format!("error {error} at call {number}, {call}");
        let found = without_stages(&tree(&scenario.instance));
        if installed(&scenario.instance).as_deref() == Some("2") {
            assert_eq!(version(&found), new, "{at}");
        } else {
            assert_eq!(found, old, "{at}");
        }
        check_recovery(&scenario, &old, &new, &at, number);
    }
}

#[test]
fn an_installation_over_nothing_can_be_killed_anywhere() {
    kill_everywhere(first);
}

#[test]
fn an_upgrade_can_be_killed_anywhere() {
    kill_everywhere(upgrade);
}

#[test]
fn an_installation_over_foreign_files_can_be_killed_anywhere() {
    kill_everywhere(foreign);
}

#[test]
fn an_installation_over_nothing_can_fail_anywhere() {
    fail_everywhere(first);
}

#[test]
fn an_upgrade_can_fail_anywhere() {
    fail_everywhere(upgrade);
}

#[test]
fn an_installation_over_foreign_files_can_fail_anywhere() {
    fail_everywhere(foreign);
}

#[test]
fn an_installation_on_another_file_system_can_be_killed_and_fail_anywhere() {
    in_private(|| {
        kill_everywhere(foreign_elsewhere);
        fail_everywhere(foreign_elsewhere);
    });
}

/// The number of the call that makes durable what was put in place: an error there takes everything back.
fn flush(calls: &[libc::c_long]) -> usize {
    calls
        .iter()
        .rposition(|call| *call == libc::SYS_syncfs)
        .unwrap()
}

#[test]
fn taking_back_can_be_killed_anywhere() {
    for make in [first as fn() -> Scenario, upgrade, foreign] {
        let (calls, new) = undisturbed(make);
        let failing = flush(&calls);
        let scenario = make();
        let all = carry_out(
            &attempt(&scenario, &scenario.two),
            Fate::Fail(failing, libc::EIO),
        );
        for (number, call) in all.iter().enumerate().skip(failing + 1) {
            let scenario = make();
            let old = tree(&scenario.instance);

            let fate = Fate::FailAndDie(failing, libc::EIO, number);
            carry_out(&attempt(&scenario, &scenario.two), fate);

            let at = format!("killed while taking back, before call {number}, {call}");
            check_recovery(&scenario, &old, &new, &at, number);
        }
    }
}

#[test]
fn recovery_can_be_killed_anywhere() {
    let make = upgrade;
    let (calls, new) = undisturbed(make);
    let killed = || {
        let scenario = make();
        let old = tree(&scenario.instance);
        let fate = Fate::Die(flush(&calls));
        carry_out(&attempt(&scenario, &scenario.two), fate);
        (scenario, old)
    };
    let recover = |scenario: &Scenario, fate| {
        let work = Work::Install(refused(&scenario.two));
        carry_out(&scenario.instance.run("recovery", work), fate)
    };
    let (scenario, _) = killed();
    let all = recover(&scenario, Fate::Live);
    for (number, call) in all.iter().enumerate() {
        let (scenario, old) = killed();

        recover(&scenario, Fate::Die(number));

        let at = format!("recovery killed before call {number}, {call}");
        check_recovery(&scenario, &old, &new, &at, number);
    }
}

#[test]
fn an_error_is_told_with_its_place_and_what_to_do() {
    let (calls, _) = undisturbed(upgrade);
    let written = calls
        .iter()
        .rposition(|call| *call == libc::SYS_pwrite64)
        .unwrap();
    let scenario = upgrade();
    let run = attempt(&scenario, &scenario.two);

    carry_out(&run, Fate::Fail(written, libc::ENOSPC));

    let (_, result) = scenario
        .instance
        .outcome("traced", Work::Install(scenario.two.clone()));
    let Outcome::Failed { reason, .. } = &result else {
        panic!("{result:?}")
    };
    assert!(reason.starts_with("write `"), "{reason}");
    assert!(reason.contains("/live/"), "{reason}");
    assert!(
        reason.ends_with("; make room there and deploy again; nothing was changed"),
        "{reason}"
    );
}

/// The first call of a kind.
fn first_of(calls: &[libc::c_long], wanted: libc::c_long) -> usize {
    calls.iter().position(|call| *call == wanted).unwrap()
}

/// Does something before a call, and says how the installation ends and whether the tree is as it was.
fn disturbed(call: libc::c_long, deed: impl Fn(&Instance)) -> (Outcome, bool) {
    let (calls, _) = undisturbed(upgrade);
    let scenario = upgrade();
    let old = tree(&scenario.instance);
    let run = attempt(&scenario, &scenario.two);
    let instance = &scenario.instance;

    disturb(&run, first_of(&calls, call), || deed(instance));

    let (_, result) = instance.outcome("traced", run.work);
    assert!(
        installed(instance).as_deref() == Some("1") || matches!(result, Outcome::Succeeded { .. })
    );
    let found = tree(instance);
    let is_as_it_was = old.iter().all(|(name, seen)| found.get(name) == Some(seen));
    (result, is_as_it_was)
}

/// When the first stage is made, the plan has been made as well.
const STAGE: libc::c_long = libc::SYS_mkdirat;
/// When the first file is put in place, everything is prepared.
const SWAP: libc::c_long = libc::SYS_renameat2;

#[test]
fn a_file_that_changes_while_it_is_copied_is_not_installed() {
    let (result, is_as_it_was) = disturbed(STAGE, |instance| {
        instance.write("app-shop/group-web/deploy-2/changed", "X");
    });

    assert_failed(
        &result,
        Cause::InstallFailed,
        "deploy-2/changed`: it changed while it was copied: see what writes into the package folder",
    );
    assert!(is_as_it_was);
}

#[test]
fn a_package_that_vanishes_is_an_error_and_changes_nothing() {
    let (result, is_as_it_was) = disturbed(STAGE, |instance| {
        fs::remove_dir_all(instance.path("app-shop/group-web/deploy-2")).unwrap();
    });

    assert_failed(&result, Cause::InstallFailed, "read the package's file `");
    assert_failed(
        &result,
        Cause::InstallFailed,
        "was changed or removed since it was fetched: deploy again",
    );
    assert!(is_as_it_was);
}

#[test]
fn what_appears_or_changes_in_the_meantime_is_not_overwritten() {
    let (result, is_as_it_was) = disturbed(SWAP, |instance| {
        instance.write("live/new", "somebody was faster");
    });
    assert_failed(
        &result,
        Cause::InstallFailed,
        "the files are as they were before",
    );
    assert_failed(&result, Cause::InstallFailed, "live/new`");
    assert!(is_as_it_was);

    let (result, _) = disturbed(SWAP, |instance| {
        instance.write("live/changed", "edited at the last moment");
    });
    assert_failed(
        &result,
        Cause::InstallFailed,
        "live/changed`: it changed while the installation was prepared: deploy again",
    );

    let (result, _) = disturbed(SWAP, |instance| {
        instance.write("live/gone/deep/mine", "m");
    });
    assert_failed(
        &result,
        Cause::InstallFailed,
        "live/gone`: it changed while",
    );
}

#[test]
fn a_link_that_is_put_in_the_place_of_a_folder_leads_nobody_astray() {
    for call in [STAGE, SWAP] {
        let (result, _) = disturbed(call, |instance| {
            fs::rename(instance.path("live"), instance.path("moved")).unwrap();
            fs::create_dir(instance.path("trap")).unwrap();
            symlink("trap", instance.path("live")).unwrap();
        });

        assert!(matches!(result, Outcome::Failed { .. }), "{result:?}");
    }
    let (calls, _) = undisturbed(upgrade);
    let scenario = upgrade();
    let run = attempt(&scenario, &scenario.two);
    let instance = &scenario.instance;
    let at = first_of(&calls, SWAP);

    disturb(&run, at, || {
        fs::rename(instance.path("live"), instance.path("moved")).unwrap();
        fs::create_dir(instance.path("trap")).unwrap();
        symlink("trap", instance.path("live")).unwrap();
    });

    assert_eq!(fs::read_dir(instance.path("trap")).unwrap().count(), 0);
    fs::remove_file(instance.path("live")).unwrap();
    fs::rename(instance.path("moved"), instance.path("live")).unwrap();
    assert_succeeded(&outcome(instance, "again", &scenario.two));
    assert!(!tree(instance).keys().any(|name| name.contains(".cutover-")));
}

#[test]
fn a_disk_that_fills_up_in_the_meantime_takes_nothing_away() {
    in_private(|| {
        let make = || {
            let instance = Instance::in_memory();
            let mount = Mount::new(&instance.path("live"), c"tmpfs", c"size=1m");
            let one = package(&instance, "1", &[("a", "1")]);
            let large = "2".repeat(600 << 10);
            let two = package(&instance, "2", &[("a", "2"), ("b", &large)]);
            assert_succeeded(&outcome(&instance, "one", &one));
            Scenario {
                _mount: Some(mount),
                instance,
                one: Some(one),
                two,
            }
        };
        let scenario = make();
        let calls = carry_out(&attempt(&scenario, &scenario.two), Fate::Live);
        let scenario = make();
        let (instance, run) = (&scenario.instance, attempt(&scenario, &scenario.two));

        disturb(&run, first_of(&calls, STAGE), || {
            instance.write("live/mine", &"m".repeat(700 << 10));
        });

        let (_, result) = instance.outcome("traced", run.work);
        assert_failed(
            &result,
            Cause::InstallFailed,
            "; make room there and deploy again; nothing was changed",
        );
        assert_failed(&result, Cause::InstallFailed, "write `");
        assert_eq!(instance.read("live/a"), "1");
        assert!(!instance.path("live/b").exists());
        assert_eq!(fs::read_dir(instance.path("live")).unwrap().count(), 2);
    });
}

#[test]
fn everything_is_durable_before_what_depends_on_it() {
    let (calls, _) = undisturbed(upgrade);
    let first = |wanted| first_of(&calls, wanted);
    let flushed = flush(&calls);
    let swapped = first(SWAP);
    let between = |from: usize, to: usize, wanted| calls[from..to].contains(&wanted);

    assert!(
        between(0, first(STAGE), libc::SYS_fdatasync) && between(0, first(STAGE), libc::SYS_fsync),
        "the journal, before anything is prepared"
    );
    let prepared = calls[..swapped]
        .iter()
        .rposition(|call| *call == libc::SYS_pwrite64)
        .unwrap();
    assert!(
        between(prepared, swapped, libc::SYS_fsync),
        "its second phase, before anything is put in place"
    );
    let is_swap = |call: &libc::c_long| [SWAP, libc::SYS_linkat].contains(call);
    let last_swap = calls.iter().rposition(is_swap).unwrap();
    assert!(
        last_swap < flushed && between(flushed, calls.len(), libc::SYS_fdatasync),
        "what was put in place, before the record says so"
    );
    let scenario = upgrade();
    let fate = Fate::Fail(flushed, libc::EIO);
    let calls = carry_out(&attempt(&scenario, &scenario.two), fate);
    let after = &calls[flushed + 1..];
    let back = after
        .iter()
        .position(|call| *call == libc::SYS_syncfs)
        .unwrap();
    let taken_back = after[..back].iter().filter(|call| is_swap(call)).count();
    assert!(
        taken_back > 0,
        "what was taken back, before it is forgotten"
    );
    assert!(!after[back..].iter().any(is_swap));
}

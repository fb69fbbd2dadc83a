//! Owners, modes, access control lists and SELinux contexts.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use agent::protocol::{Cause, Context, Install, Kinds, OnExisting, Outcome, Permission, Work};

use crate::install::{assert_content, mapping, outcome, package, permission};
use crate::instance::{Agent, Instance, assert_failed, assert_succeeded};

/// What `getfacl` says, or nothing where it is not installed.
fn getfacl(path: &Path) -> Option<Vec<String>> {
    let output = Command::new("getfacl")
        .args(["--omit-header", "--numeric", "--absolute-names"])
        .arg(path)
        .output()
        .ok()?;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let entries = text.lines().filter(|line| !line.is_empty());
    // Behind a tab it remarks which permissions the mask takes away.
    Some(
        entries
            .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
            .collect(),
    )
}

#[track_caller]
fn assert_acl(path: &Path, expected: &[&str]) {
    if let Some(found) = getfacl(path) {
        assert_eq!(found, expected, "{}", path.display());
    }
}

fn acls(object: &str, kinds: Kinds, entries: &[&str]) -> Permission {
    Permission {
        kinds,
        acls: entries.iter().map(|entry| (*entry).to_owned()).collect(),
        ..permission(object)
    }
}

#[test]
fn access_control_lists_are_those_that_setfacl_would_set() {
    let instance = Instance::new();
    let mut work = package(&instance, "1", &[("bin/tool", "#!t"), ("conf", "c")]);
    work.permissions = vec![
        Permission {
            mode: Some(0o4751),
            owner: Some("daemon".to_owned()),
            ..acls("live/bin/tool", Kinds::Files, &["u:daemon:rw-", "g:adm:7"])
        },
        acls("live/conf", Kinds::Files, &["u:7:rw-", "m::r--"]),
        acls(
            "live",
            Kinds::Directories,
            &["u:daemon:rwx", "d:g:adm:r-x", "d:o::---"],
        ),
    ];

    assert_succeeded(&outcome(&instance, "a", &work));

    let check = |instance: &Instance| {
        let tool = [
            "user::rwx",
            "user:1:rw-",
            "group::r-x",
            "group:4:rwx",
            "mask::r-x",
            "other::--x",
        ];
        assert_acl(&instance.path("live/bin/tool"), &tool);
        let conf = [
            "user::rw-",
            "user:7:rw-",
            "group::r--",
            "mask::r--",
            "other::r--",
        ];
        assert_acl(&instance.path("live/conf"), &conf);
        let bin = [
            "user::rwx",
            "user:1:rwx",
            "group::r-x",
            "mask::r-x",
            "other::r-x",
            "default:user::rwx",
            "default:group::r-x",
            "default:group:4:r-x",
            "default:mask::r-x",
            "default:other::---",
        ];
        assert_acl(&instance.path("live/bin"), &bin);
        let tool = instance.path("live/bin/tool").metadata().unwrap();
        assert_eq!((tool.mode() & 0o7777, tool.uid()), (0o4751, 1));
    };
    check(&instance);

    let inode = instance.path("live/bin/tool").metadata().unwrap().ino();
    assert_succeeded(&outcome(&instance, "b", &work));
    check(&instance);
    assert_eq!(
        instance.path("live/bin/tool").metadata().unwrap().ino(),
        inode,
        "what is right is not touched"
    );

    work.permissions.clear();
    assert_succeeded(&outcome(&instance, "c", &work));
    assert_acl(
        &instance.path("live/conf"),
        &["user::rw-", "group::r--", "other::r--"],
    );
}

#[test]
fn what_a_folder_hands_on_is_no_difference() {
    let instance = Instance::new();
    fs::create_dir(instance.path("live")).unwrap();
    let live = instance.path("live");
    chown(&live, None, Some(4)).unwrap();
    fs::set_permissions(&live, fs::Permissions::from_mode(0o2775)).unwrap();
    let has_acl = Command::new("setfacl")
        .args(["-d", "-m", "u:7:rwx"])
        .arg(&live)
        .status()
        .is_ok_and(|status| status.success());
    let work = package(&instance, "1", &[("a", "1"), ("d/b", "1")]);

    assert_succeeded(&outcome(&instance, "a", &work));

    let look = |path: &str| instance.path(path).metadata().unwrap();
    assert_eq!((look("live/a").gid(), look("live/d").gid()), (4, 4));
    assert_eq!(look("live/d").mode() & 0o7777, 0o2755);
    if has_acl {
        let a = [
            "user::rw-",
            "user:7:rwx",
            "group::rwx",
            "mask::r--",
            "other::r--",
        ];
        assert_acl(&instance.path("live/a"), &a);
    }
    let inode = look("live/a").ino();
    assert_succeeded(&outcome(&instance, "b", &work));
    assert_eq!(look("live/a").ino(), inode, "it is as it would be made");
}

#[test]
fn an_agent_that_is_not_root_installs_what_it_may_and_names_what_it_may_not() {
    let instance = Instance::new();
    let mut one = package(&instance, "1", &[("a", "1"), ("d/b", "1")]);
    one.on_existing = OnExisting::Overwrite;
    let mut two = package(&instance, "2", &[("a", "2"), ("e/c", "2")]);
    let mut three = package(&instance, "3", &[("f", "3")]);
    three.files.push(mapping("f", "roots"));
    // A folder that denies its owner to write, as some archives have them.
    let closed = instance.path("app-shop/group-web/deploy-2/e");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    instance.write("live/a", "foreign");
    fs::create_dir(instance.path("roots")).unwrap();
    let run = |attempt: &str, work: &Install| {
        let run = instance.run(attempt, Work::Install(work.clone()));
        Agent::start_as(1).outcome(run).1
    };
    for path in ["", "live", "app-shop", "app-shop/group-web"] {
        chown(instance.path(path), Some(1), Some(1)).unwrap();
    }

    // The file in the way is root's, so that it can neither be linked nor read by everybody.
    fs::set_permissions(instance.path("live/a"), fs::Permissions::from_mode(0o600)).unwrap();
    let result = run("a", &one);
    assert_failed(&result, Cause::InstallFailed, "put aside `");
    assert_failed(&result, Cause::InstallFailed, "nothing was changed");
    assert_eq!(instance.read("live/a"), "foreign");
    chown(instance.path("live/a"), Some(1), Some(1)).unwrap();
    assert_succeeded(&run("b", &one));
    two.on_existing = OnExisting::Overwrite;
    assert_succeeded(&run("c", &two));
    let live = [("a", "2"), ("e", ""), ("e/c", "2")];
    assert_content(&instance, "live", &live);
    assert_eq!(closed.metadata().unwrap().mode() & 0o777, 0o555);

    let result = run("d", &three);
    assert_failed(
        &result,
        Cause::InstallFailed,
        "roots` cannot be written to by the agent, which runs as the user with the id 1",
    );
    assert_content(&instance, "live", &live);
}

#[test]
fn everything_that_the_permissions_lack_is_listed_at_once() {
    let instance = Instance::new();
    let mut work = package(&instance, "1", &[("a", "1")]);
    work.permissions = vec![
        Permission {
            owner: Some("no-such-user".to_owned()),
            group: Some("no-such-group".to_owned()),
            ..acls(
                "live",
                Kinds::Both,
                &["u:no-such-friend:r", "u::rwx", "u:7:q"],
            )
        },
        acls("live", Kinds::Both, &["d:u:7:rwx"]),
        Permission {
            context: Some(Context {
                user: None,
                kind: "bin_t".to_owned(),
                range: None,
            }),
            ..permission("live/a")
        },
    ];

    let result = outcome(&instance, "a", &work);

    for text in [
        "there is no user `no-such-user`",
        "there is no group `no-such-group`",
        "there is no user `no-such-friend`",
        "the acl entry `u::rwx` is what `mode` says",
        "`u:7:q` is not an acl entry",
        "only folders have default acl entries",
    ] {
        assert_failed(&result, Cause::Invalid, text);
    }
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        assert_failed(&result, Cause::Invalid, "SELinux is not enabled");
    }
    assert!(!instance.path("live").exists());
}

#[test]
fn a_pattern_with_a_slash_is_about_the_whole_path() {
    let instance = Instance::new();
    let files = [("sbin/start", "s"), ("sbin/stop", "s"), ("start", "s")];
    let mut work = package(&instance, "1", &files);
    work.permissions = vec![Permission {
        mode: Some(0o700),
        kinds: Kinds::Files,
        except: vec!["sbin/start".to_owned()],
        ..permission("live")
    }];

    assert_succeeded(&outcome(&instance, "a", &work));

    let mode = |path: &str| fs::metadata(instance.path(path)).unwrap().mode() & 0o777;
    assert_eq!(mode("live/sbin/start"), 0o644);
    assert_eq!(mode("live/sbin/stop"), 0o700);
    assert_eq!(mode("live/start"), 0o700);
}

#[test]
fn a_long_list_of_problems_is_cut_in_the_reason_and_whole_in_the_log() {
    let instance = Instance::new();
    let names: Vec<String> = (0..332).map(|number| format!("f{number:03}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let work = package(&instance, "1", &files);
    for name in &names {
        instance.write(&format!("live/{name}"), "foreign");
    }

    let result = outcome(&instance, "a", &work);

    assert_failed(&result, Cause::InstallFailed, "live/f019` is there already");
    assert_failed(&result, Cause::InstallFailed, "; and 312 others");
    let Outcome::Failed { reason, log, .. } = result else {
        panic!("it failed")
    };
    assert!(!reason.contains("live/f020"), "{reason}");
    let log = fs::read_to_string(log.unwrap()).unwrap();
    assert!(log.contains("live/f331` is there already"), "{log}");
}

#[test]
fn a_folder_gets_back_what_no_permission_mentions_unless_somebody_else_looks_after_it() {
    let instance = Instance::new();
    let plain = package(&instance, "1", &[("d/a", "1"), ("e/a", "1")]);
    let mut other = package(&instance, "2", &[("d/a", "1"), ("e/a", "1")]);
    other.permissions = vec![Permission {
        mode: Some(0o2710),
        group: Some("adm".to_owned()),
        ..acls("live", Kinds::Directories, &["u:7:rwx"])
    }];
    let mut third = package(&instance, "3", &[("d/a", "1"), ("e/a", "1")]);
    third.permissions = vec![Permission {
        mode: Some(0o700),
        kinds: Kinds::Directories,
        ..permission("live")
    }];
    let is = |path: &str| {
        let metadata = instance.path(path).metadata().unwrap();
        (metadata.mode() & 0o7777, metadata.gid())
    };

    for round in ["a", "b"] {
        assert_succeeded(&outcome(&instance, &format!("{round}1"), &plain));
        assert_eq!(is("live/d"), (0o755, 0));
        for again in ["2", "3"] {
            assert_succeeded(&outcome(&instance, &format!("{round}{again}"), &other));
            assert_eq!(is("live/d"), (0o2710, 4));
        }
        assert_succeeded(&outcome(&instance, &format!("{round}4"), &third));
        assert_eq!(is("live/d"), (0o700, 0), "the group goes with the version");
        assert_acl(
            &instance.path("live/d"),
            &["user::rwx", "group::---", "other::---"],
        );
    }
    fs::set_permissions(instance.path("live/e"), fs::Permissions::from_mode(0o711)).unwrap();
    assert_succeeded(&outcome(&instance, "c", &plain));
    assert_eq!(is("live/d"), (0o755, 0));
    assert_eq!(is("live/e"), (0o711, 0));
}

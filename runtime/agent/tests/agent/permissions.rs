//! Owners, modes, access control lists and SELinux contexts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use agent::protocol::{Cause, Context, Kinds, Outcome, Permission};

use crate::install::{outcome, package, permission};
use crate::instance::{Instance, assert_failed, assert_succeeded};

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

//! Links on the way, links in the way, and files of every odd kind.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, lchown, symlink};

use agent::protocol::{Cause, Install, OnExisting, Outcome, Run, Work};

use crate::install::{assert_content, cache, installed, mapping, outcome, package};
use crate::instance::{Agent, Instance, assert_failed, assert_succeeded};

#[test]
fn the_operators_links_to_folders_are_followed() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path("data/www")).unwrap();
    fs::create_dir_all(instance.path("data/logs")).unwrap();
    fs::create_dir_all(instance.path("var")).unwrap();
    symlink("../data/www", instance.path("var/www")).unwrap();
    symlink("../logs", instance.path("data/www/logs")).unwrap();
    let files = [("index", "1"), ("logs/first", "1"), ("sub/page", "1")];
    let mut one = package(&instance, "1", &files);
    one.files = vec![mapping("/", "var/www")];
    let mut two = package(&instance, "2", &[("index", "2")]);
    two.files = vec![mapping("/", "var/www")];

    assert_succeeded(&outcome(&instance, "a", &one));
    assert_eq!(instance.read("data/www/index"), "1");
    assert_eq!(instance.read("data/logs/first"), "1");
    assert!(instance.path("var/www").is_symlink());

    // The files are known by where they are, so a link that leads elsewhere in the meantime makes no orphans.
    fs::create_dir_all(instance.path("data/other")).unwrap();
    fs::remove_file(instance.path("var/www")).unwrap();
    symlink("../data/other", instance.path("var/www")).unwrap();
    assert_succeeded(&outcome(&instance, "b", &two));
    assert_content(&instance, "data/other", &[("index", "2")]);
    assert_content(&instance, "data/www", &[("logs", "->../logs")]);
    assert_content(&instance, "data/logs", &[]);
}

#[test]
fn files_that_were_moved_with_their_folder_are_still_the_packages_own() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path("srv/shop")).unwrap();
    let mut one = package(&instance, "1", &[("a", "1"), ("b", "1")]);
    let mut two = package(&instance, "2", &[("a", "2")]);
    for work in [&mut one, &mut two] {
        work.files = vec![mapping("/", "srv/shop/live")];
    }
    assert_succeeded(&outcome(&instance, "a", &one));
    fs::create_dir(instance.path("data")).unwrap();
    fs::rename(instance.path("srv/shop"), instance.path("data/shop")).unwrap();
    symlink("../data/shop", instance.path("srv/shop")).unwrap();

    assert_succeeded(&outcome(&instance, "b", &two));

    assert_content(&instance, "data/shop/live", &[("a", "2")]);
}

#[test]
fn nothing_is_installed_through_a_link_that_the_package_brought() {
    let instance = Instance::new();
    instance.write("outside/mine", "m");
    let mut one = package(&instance, "1", &[("l", "->../outside"), ("a", "1")]);
    one.files = vec![mapping("a", "live")];
    // The package itself cannot lead out, but where it goes another thing may be beside it.
    let link = instance.path(&cache("1")).join("l");
    fs::remove_file(&link).unwrap();
    symlink("outside", &link).unwrap();
    one.files = vec![mapping("l", ""), mapping("a", "live")];
    one.files[0].destination = instance.rootdir();
    assert_succeeded(&outcome(&instance, "a", &one));
    assert!(instance.path("l").is_symlink());

    let mut two = package(&instance, "2", &[("a", "2"), ("l", "->outside")]);
    two.files = vec![mapping("l", &instance.rootdir()), mapping("a", "l/x")];
    let result = outcome(&instance, "b", &two);
    assert_failed(&result, Cause::Invalid, "two different sources go to `");
    two.files = vec![mapping("a", "l/x")];
    assert_succeeded(&outcome(&instance, "c", &two));

    assert_content(&instance, "outside", &[("mine", "m")]);
    assert!(!instance.path("l").is_symlink());
    assert_eq!(instance.read("l/x/a"), "2");
}

#[test]
fn a_strangers_link_on_the_way_is_refused() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path("etc")).unwrap();
    fs::create_dir_all(instance.path("live")).unwrap();
    symlink("../etc", instance.path("live/logs")).unwrap();
    if lchown(instance.path("live/logs"), Some(12345), None).is_err() {
        return;
    }
    for on_existing in [
        OnExisting::Disallow,
        OnExisting::Overwrite,
        OnExisting::Retain,
    ] {
        let mut work = package(
            &instance,
            "1",
            &[("logs/x", "1"), ("logs/y", "1"), ("a", "1")],
        );
        work.on_existing = on_existing;

        let result = outcome(&instance, &format!("{on_existing:?}"), &work);

        assert_failed(
            &result,
            Cause::InstallFailed,
            "live/logs` is a link of the user with the id 12345",
        );
        assert_content(&instance, "etc", &[]);
        assert_content(&instance, "live", &[("logs", "->../etc")]);
    }
}

#[test]
fn links_in_the_way_are_replaced_and_never_written_through() {
    let instance = Instance::new();
    instance.write("outside", "untouched");
    fs::create_dir_all(instance.path("live")).unwrap();
    symlink("../outside", instance.path("live/a")).unwrap();
    symlink("nowhere", instance.path("live/b")).unwrap();
    symlink("nowhere", instance.path("live/d")).unwrap();
    let mut work = package(&instance, "1", &[("a", "1"), ("b", "1"), ("d/e", "1")]);

    let result = outcome(&instance, "a", &work);
    for name in ["live/a`", "live/b`", "live/d`"] {
        assert_failed(&result, Cause::InstallFailed, name);
    }
    work.on_existing = OnExisting::Overwrite;
    assert_succeeded(&outcome(&instance, "b", &work));

    let live = [("a", "1"), ("b", "1"), ("d", ""), ("d/e", "1")];
    assert_content(&instance, "live", &live);
    assert_eq!(instance.read("outside"), "untouched");
    let two = package(&instance, "2", &[("c", "2")]);
    assert_succeeded(&outcome(&instance, "c", &two));
    let live = [
        ("a", "->../outside"),
        ("b", "->nowhere"),
        ("d", "->nowhere"),
        ("c", "2"),
    ];
    assert_content(&instance, "live", &live);
}

#[test]
fn every_odd_kind_of_file_arrives_and_goes() {
    let instance = Instance::new();
    let odd = [
        OsStr::from_bytes(b"not \xff utf-8"),
        OsStr::new("two\nlines"),
        OsStr::new(" spaces  and 'quotes\" "),
        OsStr::new("ünïcode"),
        OsStr::new("-rf"),
        OsStr::new("*"),
    ];
    let work = package(&instance, "1", &[("empty-file", ""), ("dir/f", "f")]);
    let folder = instance.path(&cache("1"));
    for name in odd {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join(name), "odd").unwrap();
    }
    fs::create_dir(folder.join("empty-folder")).unwrap();
    fs::hard_link(folder.join("dir/f"), folder.join("dir/g")).unwrap();
    symlink(OsStr::from_bytes(b"\xff"), folder.join("odd-link")).unwrap();
    let sparse = fs::File::create_new(folder.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();

    assert_succeeded(&outcome(&instance, "a", &work));

    let live = instance.path("live");
    for name in odd {
        assert_eq!(fs::read(live.join(name).join(name)).unwrap(), b"odd");
    }
    assert!(live.join("empty-folder").is_dir());
    assert_eq!(fs::read(live.join("empty-file")).unwrap(), b"");
    assert_eq!(
        fs::read_link(live.join("odd-link")).unwrap().as_os_str(),
        OsStr::from_bytes(b"\xff")
    );
    let sparse = live.join("sparse").metadata().unwrap();
    assert_eq!(sparse.len(), 64 << 20);
    assert!(sparse.blocks() < 1000, "holes stay holes");
    fs::write(live.join("dir/f"), "changed").unwrap();
    assert_eq!(
        instance.read("live/dir/g"),
        "f",
        "names of one file are files of their own"
    );

    let two = package(&instance, "2", &[("a", "2")]);
    assert_succeeded(&outcome(&instance, "b", &two));
    assert_content(&instance, "live", &[("a", "2")]);
}

#[test]
fn another_name_of_an_overwritten_file_is_not_written_to() {
    let instance = Instance::new();
    instance.write("other/name", "foreign");
    fs::create_dir_all(instance.path("live")).unwrap();
    fs::hard_link(instance.path("other/name"), instance.path("live/a")).unwrap();
    let mut work = package(&instance, "1", &[("a", "1")]);
    work.on_existing = OnExisting::Overwrite;

    assert_succeeded(&outcome(&instance, "a", &work));

    assert_eq!(instance.read("live/a"), "1");
    assert_eq!(instance.read("other/name"), "foreign");
}

#[test]
fn what_was_there_with_the_same_content_stays_when_no_version_has_it() {
    let instance = Instance::new();
    instance.write("live/a", "1");
    let inode = instance.path("live/a").metadata().unwrap().ino();
    let one = package(&instance, "1", &[("a", "1")]);
    let two = package(&instance, "2", &[("a", "2")]);
    let three = package(&instance, "3", &[("b", "3")]);

    assert_succeeded(&outcome(&instance, "a", &one));
    assert_succeeded(&outcome(&instance, "b", &two));
    assert_content(&instance, "live", &[("a", "2")]);
    assert_succeeded(&outcome(&instance, "c", &three));

    assert_content(&instance, "live", &[("a", "1"), ("b", "3")]);
    assert_eq!(instance.path("live/a").metadata().unwrap().ino(), inode);
}

#[test]
fn a_file_that_somebody_changed_is_kept_and_named_when_it_goes() {
    let instance = Instance::new();
    let files = [("conf", "1"), ("gone/dropped", "1"), ("touched-not", "1")];
    let one = package(&instance, "1", &files);
    let two = package(&instance, "2", &[("conf", "2"), ("touched-not", "2")]);
    assert_succeeded(&outcome(&instance, "a", &one));
    instance.write("live/conf", "edited");
    instance.write("live/gone/dropped", "edited as well");

    let result = outcome(&instance, "b", &two);

    let Outcome::Succeeded {
        note: Some(note), ..
    } = &result
    else {
        panic!("{result:?}")
    };
    assert_content(&instance, "live", &[("conf", "2"), ("touched-not", "2")]);
    assert_eq!(note.matches("had been changed since").count(), 2, "{note}");
    let kept = |name: &str| {
        let at = note.split('`').find(|part| part.ends_with(name)).unwrap();
        fs::read_to_string(at).unwrap()
    };
    assert_eq!(kept("-conf"), "edited");
    assert_eq!(kept("-dropped"), "edited as well");
    assert_eq!(installed(&instance).as_deref(), Some("2"));
}

#[test]
fn an_instance_behind_a_link_keeps_and_brings_back_like_any_other() {
    let instance = Instance::new();
    instance.write("real/live/a", "foreign");
    let real = instance.path("real");
    symlink("real", instance.path("root")).unwrap();
    let run = |attempt: &str, work: Install| {
        let run = Run {
            rootdir: instance.path("root").to_str().unwrap().to_owned(),
            ..instance.run(attempt, Work::Install(work))
        };
        Agent::start().outcome(run).1
    };
    let mut one = package(&instance, "1", &[("a", "1")]);
    one.on_existing = OnExisting::Overwrite;
    let two = package(&instance, "2", &[("b", "2")]);
    fs::rename(instance.path("app-shop"), real.join("app-shop")).unwrap();

    assert_succeeded(&run("a", one));
    assert_eq!(instance.read("real/live/a"), "1");
    assert_succeeded(&run("b", two));

    assert_content(&instance, "real/live", &[("a", "foreign"), ("b", "2")]);
}

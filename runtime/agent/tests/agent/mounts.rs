//! Installations on other file systems: full ones, read-only ones, and those that lack something.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use agent::protocol::{Cause, Fetch, Kinds, OnExisting, Permission, Work};
use agent::tree;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::install::{assert_content, installed, outcome, package, permission};
use crate::instance::{Instance, assert_failed, assert_succeeded};

/// Does something where its mounts are nobody else's. Without the right to mount it does nothing.
pub(crate) fn in_private(deed: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            // SAFETY: Both are system calls on constants, and they change this thread alone.
            let is_private = unsafe {
                libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(
                        std::ptr::null(),
                        c"/".as_ptr(),
                        std::ptr::null(),
                        libc::MS_REC | libc::MS_PRIVATE,
                        std::ptr::null(),
                    ) == 0
            };
            if is_private {
                deed();
            }
        });
        if let Err(panic) = done.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A file system that is there as long as this is.
pub(crate) struct Mount {
    path: PathBuf,
}

impl Mount {
    pub(crate) fn new(path: &Path, kind: &CStr, options: &CStr) -> Self {
        fs::create_dir_all(path).unwrap();
        let mount = Self {
            path: path.to_path_buf(),
        };
        mount.mount(kind, 0, options);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        mount
    }

    /// Mounts a file onto itself.
    fn bind(path: &Path) -> Self {
        let mount = Self {
            path: path.to_path_buf(),
        };
        let source = mount.c_path();
        mount.mount(&source, libc::MS_BIND, c"");
        mount
    }

    fn make_read_only(&self) {
        self.mount(c"tmpfs", libc::MS_REMOUNT | libc::MS_RDONLY, c"");
    }

    fn mount(&self, kind: &CStr, flags: libc::c_ulong, options: &CStr) {
        // SAFETY: All texts end with a zero and outlive the call.
        let result = unsafe {
            libc::mount(
                kind.as_ptr(),
                self.c_path().as_ptr(),
                kind.as_ptr(),
                flags,
                options.as_ptr().cast(),
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    fn c_path(&self) -> CString {
        CString::new(self.path.as_os_str().as_bytes()).unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // SAFETY: The text ends with a zero and outlives the call.
        unsafe { libc::umount2(self.c_path().as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    in_private(|| {
        let instance = Instance::new();
        let mount = Mount::new(&instance.path("live"), c"tmpfs", c"size=1m,nr_inodes=20");
        let old = package(&instance, "1", &[("a", "1")]);
        assert_succeeded(&outcome(&instance, "a", &old));
        let large = package(&instance, "2", &[("a", "2"), ("b", &"x".repeat(2 << 20))]);
        let names: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "3")).collect();
        let many = package(&instance, "3", &files);

        let result = outcome(&instance, "b", &large);
        assert_failed(&result, Cause::InstallFailed, "nothing was changed: ");
        assert_failed(
            &result,
            Cause::InstallFailed,
            "has 1020.0 KiB free, and 2.0 MiB are needed",
        );

        let result = outcome(&instance, "c", &many);
        assert_failed(
            &result,
            Cause::InstallFailed,
            "has 18 free inodes, and 41 are needed",
        );

        assert_content(&instance, "live", &[("a", "1")]);
        assert_eq!(installed(&instance).as_deref(), Some("1"));
        drop(mount);
    });
}

#[test]
fn a_read_only_file_system_is_found_beforehand() {
    in_private(|| {
        let instance = Instance::new();
        let mount = Mount::new(&instance.path("live/data"), c"tmpfs", c"");
        let one = package(&instance, "1", &[("a", "1"), ("data/b", "1")]);
        assert_succeeded(&outcome(&instance, "a", &one));
        mount.make_read_only();
        let two = package(&instance, "2", &[("a", "2"), ("data/b", "2")]);

        let result = outcome(&instance, "b", &two);

        assert_failed(
            &result,
            Cause::InstallFailed,
            "live/data` is on a file system that is mounted read-only: mount it writable",
        );
        let live = [("a", "1"), ("data", ""), ("data/b", "1")];
        assert_content(&instance, "live", &live);
        let three = package(&instance, "3", &[("a", "3"), ("data/b", "1")]);
        assert_succeeded(&outcome(&instance, "c", &three));
        drop(mount);
    });
}

#[test]
fn a_file_system_without_access_control_lists_is_found_beforehand() {
    in_private(|| {
        let instance = Instance::new();
        let mount = Mount::new(&instance.path("live"), c"ramfs", c"");
        let mut work = package(&instance, "1", &[("a", "1"), ("d/b", "1")]);
        work.permissions = vec![Permission {
            acls: vec!["u:daemon:rw-".to_owned()],
            kinds: Kinds::Files,
            ..permission("live")
        }];

        let result = outcome(&instance, "a", &work);

        assert_failed(
            &result,
            Cause::InstallFailed,
            "live` keeps no access control lists: leave out `acls`",
        );
        assert_content(&instance, "live", &[]);
        work.permissions.clear();
        assert_succeeded(&outcome(&instance, "b", &work));
        drop(mount);
    });
}

#[test]
fn a_foreign_file_comes_back_from_another_file_system_as_it_was() {
    in_private(|| {
        let instance = Instance::new();
        let mount = Mount::new(&instance.path("live"), c"tmpfs", c"");
        let path = instance.write("live/a", "foreign");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
        chown(&path, Some(7), Some(8)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
        let has_attribute = setxattr(&path, "user.note", b"remember", XattrFlags::empty()).is_ok();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, 42))
            .unwrap();
        let mut one = package(&instance, "1", &[("a", "1")]);
        one.on_existing = OnExisting::Overwrite;
        let two = package(&instance, "2", &[("b", "2")]);

        assert_succeeded(&outcome(&instance, "a", &one));
        assert_content(&instance, "live", &[("a", "1")]);
        assert_succeeded(&outcome(&instance, "b", &two));

        assert_content(&instance, "live", &[("a", "foreign"), ("b", "2")]);
        let is = path.metadata().unwrap();
        assert_eq!(
            (
                is.mode() & 0o7777,
                is.uid(),
                is.gid(),
                is.mtime(),
                is.mtime_nsec()
            ),
            (0o4711, 7, 8, 1_000_000_000, 42)
        );
        let mut value = [0; 16];
        let length = getxattr(&path, "user.note", &mut value[..]);
        assert!(!has_attribute || length.is_ok_and(|length| &value[..length] == b"remember"));
        drop(mount);
    });
}

#[test]
fn a_package_that_does_not_fit_takes_the_place_of_old_ones_or_is_refused() {
    in_private(|| {
        let instance = Instance::new();
        let mount = Mount::new(&instance.path("app-shop"), c"tmpfs", c"size=1m");
        let fetch = |version: &str, size: usize| {
            let folder = format!("source-{version}");
            instance.write(&format!("{folder}/data"), &version.repeat(size));
            let source = instance.path(&folder);
            Work::Fetch(Fetch {
                cache: format!("app-shop/group-web/deploy-{version}"),
                digest: tree::digest(&source).unwrap(),
                source: source.to_str().unwrap().to_owned(),
                keep: Vec::new(),
                keep_others: 0,
                install: None,
            })
        };

        assert_succeeded(&instance.outcome("a", fetch("1", 600 << 10)).1);
        assert_succeeded(&instance.outcome("b", fetch("2", 600 << 10)).1);
        assert!(!instance.path("app-shop/group-web/deploy-1").exists());
        let (_, result) = instance.outcome("c", fetch("3", 2 << 20));

        assert_failed(&result, Cause::FetchFailed, "the package was not fetched: ");
        assert_failed(
            &result,
            Cause::FetchFailed,
            "2.0 MiB are needed: make room there",
        );
        drop(mount);
    });
}

#[test]
fn what_is_mounted_in_the_way_is_named_and_stays() {
    in_private(|| {
        let instance = Instance::new();
        let files = [("a", "1"), ("conf", "1"), ("data/b", "1")];
        let one = package(&instance, "1", &files);
        let two = package(
            &instance,
            "2",
            &[("a", "2"), ("conf", "2"), ("data/b", "1")],
        );
        let three = package(&instance, "3", &[("a", "3"), ("conf", "1")]);
        assert_succeeded(&outcome(&instance, "a", &one));
        let mount = Mount::bind(&instance.path("live/conf"));

        let result = outcome(&instance, "b", &two);

        assert_failed(&result, Cause::InstallFailed, "live/conf`");
        assert_failed(
            &result,
            Cause::InstallFailed,
            "; something is mounted there: ",
        );
        assert_failed(
            &result,
            Cause::InstallFailed,
            "the files are as they were before",
        );
        let live = [("a", "1"), ("conf", "1"), ("data", ""), ("data/b", "1")];
        assert_content(&instance, "live", &live);
        drop(mount);

        let mount = Mount::new(&instance.path("live/data"), c"tmpfs", c"");
        assert_succeeded(&outcome(&instance, "c", &three));
        let live = [("a", "3"), ("conf", "1"), ("data", "")];
        assert_content(&instance, "live", &live);
        drop(mount);
    });
}

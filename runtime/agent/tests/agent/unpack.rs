//! Archives, well-meant and otherwise.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use agent::tree;
use agent::unpack::{Error, Limits, unpack, unpack_within};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("into")
    }

    fn archive(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("archive");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn unpack(&self, bytes: &[u8]) -> Result<(), Error> {
        unpack(&self.archive(bytes), &self.target())
    }
}

/// Writes the name as it is, as a hostile archive would.
fn header(name: &str, kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size as u64);
    header
}

fn member(builder: &mut Builder<Vec<u8>>, name: &str, text: &str) {
    let mut header = header(name, EntryType::Regular, text.len());
    header.set_cksum();
    builder.append(&header, text.as_bytes()).unwrap();
}

fn link(builder: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
    let mut header = header(name, kind, 0);
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    builder.append(&header, std::io::empty()).unwrap();
}

fn tar(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn sample() -> Vec<u8> {
    tar(|builder| {
        member(builder, "./appspec.yml", "version: 0.0\n");
        member(builder, "bin/start.sh", "#!/bin/sh\n");
        link(builder, EntryType::Symlink, "bin/run", "start.sh");
        link(builder, EntryType::Link, "copy", "bin/start.sh");
    })
}

#[test]
fn a_folder_a_tar_and_a_gzipped_tar_make_the_same_tree() {
    let plain = Bench::new();
    let packed = Bench::new();
    let folder = Bench::new();

    plain.unpack(&sample()).unwrap();
    packed.unpack(&gzip(&sample())).unwrap();
    unpack(&plain.target(), &folder.target()).unwrap();

    let digest = tree::digest(&plain.target()).unwrap();
    assert_eq!(tree::digest(&packed.target()).unwrap(), digest);
    assert_eq!(tree::digest(&folder.target()).unwrap(), digest);
    assert_eq!(
        fs::read_to_string(plain.target().join("bin/run")).unwrap(),
        "#!/bin/sh\n"
    );
    assert_eq!(
        fs::read_to_string(plain.target().join("copy")).unwrap(),
        "#!/bin/sh\n"
    );
}

#[test]
fn a_lone_folder_with_an_appspec_is_the_package() {
    let bench = Bench::new();
    bench
        .unpack(&tar(|builder| {
            member(builder, "shop-1.0/jdcloud-codedeploy.yml", "x");
            member(builder, "shop-1.0/bin/a", "a");
        }))
        .unwrap();
    assert!(bench.target().join("bin/a").is_file());

    let bench = Bench::new();
    bench
        .unpack(&tar(|builder| member(builder, "shop-1.0/bin/a", "a")))
        .unwrap();
    assert!(
        bench.target().join("shop-1.0/bin/a").is_file(),
        "without an appspec the folder stays"
    );
}

#[test]
fn real_archives_with_long_names_and_global_headers_unpack() {
    let bench = Bench::new();
    let long = format!("{}/{}/file", "d".repeat(80), "e".repeat(60));
    let source = bench.dir.path().join("source");
    fs::create_dir_all(source.join(&long).parent().unwrap()).unwrap();
    fs::write(source.join(&long), "x").unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let archive = bench.dir.path().join(format!("{format}.tgz"));
        let status = std::process::Command::new("tar")
            .arg("-czf")
            .arg(&archive)
            .arg(format!("--format={format}"))
            .arg("-C")
            .arg(&source)
            .arg(".")
            .status()
            .unwrap();
        assert!(status.success());
        let target = bench.dir.path().join(format);

        unpack(&archive, &target).unwrap();

        assert_eq!(
            fs::read_to_string(target.join(&long)).unwrap(),
            "x",
            "{format}"
        );
    }
}

#[track_caller]
fn check(bytes: &[u8], expected: &str) {
    let bench = Bench::new();
    fs::write(bench.dir.path().join("outside"), "untouched").unwrap();

    let error = bench.unpack(bytes).unwrap_err();

    assert!(
        error.to_string().contains(expected),
        "`{error}` does not say `{expected}`"
    );
    assert_eq!(
        fs::read_to_string(bench.dir.path().join("outside")).unwrap(),
        "untouched"
    );
    assert!(!bench.dir.path().join("evil").exists() && !Path::new("/tmp/evil-of-cutover").exists());
}

#[test]
fn nothing_gets_out() {
    let escape = |name: &'static str| tar(|builder| member(builder, name, "evil"));
    check(&escape("../evil"), "`../evil` has `..` in its path");
    check(&escape("a/../../evil"), "has `..` in its path");
    check(&escape("/tmp/evil-of-cutover"), "has an absolute path");
    let through = |target: &'static str| {
        tar(|builder| {
            link(builder, EntryType::Symlink, "way", target);
            member(builder, "way/evil", "evil");
        })
    };
    check(&through(".."), "`way` is a link that leads out");
    check(&through("/tmp"), "`way` is a link that leads out");
    check(
        &tar(|builder| {
            member(builder, "dir/x", "x");
            link(builder, EntryType::Symlink, "way", "dir");
            member(builder, "way/evil", "evil");
        }),
        "`way/evil` is below a member that is not a folder",
    );
    check(
        &tar(|builder| link(builder, EntryType::Symlink, "a/b/c", "../d/../../../x")),
        "leads out",
    );
    check(
        &tar(|builder| link(builder, EntryType::Link, "hard", "../outside")),
        "not a file of the package",
    );
    check(
        &tar(|builder| link(builder, EntryType::Link, "hard", "/etc/passwd")),
        "not a file of the package",
    );
    check(
        &tar(|builder| {
            link(builder, EntryType::Symlink, "soft", "missing");
            link(builder, EntryType::Link, "hard", "soft");
        }),
        "not a file of the package",
    );
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        check(
            &tar(|builder| link(builder, kind, "dev", "")),
            "`dev` is neither a file",
        );
    }
}

#[test]
fn a_later_member_replaces_an_earlier_one_and_never_what_that_points_to() {
    let bench = Bench::new();
    bench
        .unpack(&tar(|builder| {
            member(builder, "a", "a");
            link(builder, EntryType::Symlink, "l", "a");
            link(builder, EntryType::Link, "h", "a");
            member(builder, "l", "l");
            member(builder, "h", "h");
        }))
        .unwrap();

    let read = |name: &str| fs::read_to_string(bench.target().join(name)).unwrap();
    assert_eq!([read("a"), read("l"), read("h")], ["a", "l", "h"]);
}

#[test]
fn what_is_no_package_says_what_it_is() {
    check(b"", "is empty");
    check(
        b"PK\x03\x04rest",
        "a zip archive, which is not supported yet",
    );
    check(b"\x28\xb5\x2f\xfdrest", "zstd, which is not supported yet");
    check(b"hello", "not an archive");
    check(&[7; 2048], "not an archive");
}

#[test]
fn damage_is_found_and_located() {
    let whole = sample();
    check(&whole[..700], "read the archive at byte");
    let packed = gzip(&whole);
    check(&packed[..packed.len() - 5], "read the archive at byte");
    let mut flipped = packed;
    let last = flipped.len() - 6;
    flipped[last] ^= 0xff;
    check(&flipped, "read the archive at byte");
}

#[test]
fn bombs_do_not_go_off() {
    let bench = Bench::new();
    let zeros = "0".repeat(1 << 20);
    let archive = bench.archive(&gzip(&tar(|builder| {
        for number in 0..8 {
            member(builder, &format!("f{number}"), &zeros);
        }
    })));

    let small = Limits {
        bytes: 3 << 20,
        ..Limits::default()
    };
    let error = unpack_within(&archive, &bench.target(), small).unwrap_err();
    assert!(
        error.to_string().contains("more than 3145728 bytes"),
        "{error}"
    );

    fs::remove_dir_all(bench.target()).unwrap();
    let few = Limits {
        entries: 4,
        ..Limits::default()
    };
    let error = unpack_within(&archive, &bench.target(), few).unwrap_err();
    assert!(error.to_string().contains("more than 4 members"), "{error}");
}

#[test]
fn a_target_that_holds_something_is_left_alone() {
    let bench = Bench::new();
    fs::create_dir(bench.target()).unwrap();
    fs::write(bench.target().join("mine"), "m").unwrap();

    assert!(bench.unpack(&sample()).is_err());

    assert_eq!(
        fs::read_to_string(bench.target().join("mine")).unwrap(),
        "m"
    );
    assert_eq!(fs::read_dir(bench.target()).unwrap().count(), 1);
}

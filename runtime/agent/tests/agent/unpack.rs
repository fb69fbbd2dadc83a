//! Archives, well-meant and otherwise.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::tree;
use agent::unpack::{Error, Format, Limits, Options, Unpacked, unpack, unpack_with};
use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};
use proptest::prelude::*;
use proptest::sample::{Index, select};
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

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, Error> {
        unpack(&self.archive(bytes), &self.target())
    }

    fn within(&self, bytes: &[u8], limits: Limits) -> Result<Unpacked, Error> {
        let options = Options {
            limits,
            appspec: None,
        };
        unpack_with(&self.archive(bytes), &self.target(), &options)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.target().join(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        let metadata = self.target().join(path).symlink_metadata().unwrap();
        metadata.permissions().mode() & 0o7777
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

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// A member of a zip archive, with whatever a hostile one says of itself.
#[derive(Clone)]
struct Zipped {
    name: Vec<u8>,
    mode: u32,
    flags: u16,
    method: u16,
    content: Vec<u8>,
    /// What the directory says is the length.
    size: u32,
    crc: u32,
}

impl Zipped {
    fn stored(name: impl AsRef<[u8]>, mode: u32, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref().to_vec();
        let mut crc = Crc::new();
        crc.update(&content);
        Self {
            name: name.as_ref().to_vec(),
            mode,
            flags: 0x800,
            method: 0,
            size: u32::try_from(content.len()).unwrap(),
            crc: crc.sum(),
            content,
        }
    }

    fn deflated(name: &str, content: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        Self {
            method: 8,
            content: encoder.finish().unwrap(),
            ..Self::stored(name, 0o100_644, content)
        }
    }

    /// The fields that both headers have in common.
    fn fields(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for short in [20, self.flags, self.method, 0, 0x21] {
            out.extend(short.to_le_bytes());
        }
        for long in [self.crc, self.content.len() as u32, self.size] {
            out.extend(long.to_le_bytes());
        }
        out.extend((self.name.len() as u16).to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        out
    }

    fn directory_entry(&self, start: usize) -> Vec<u8> {
        let mut out = b"PK\x01\x02\x14\x03".to_vec();
        out.extend(self.fields());
        out.extend([0; 6]);
        out.extend((self.mode << 16).to_le_bytes());
        out.extend((start as u32).to_le_bytes());
        out.extend(&self.name);
        out
    }
}

fn zip(members: &[Zipped]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for member in members {
        directory.extend(member.directory_entry(out.len()));
        out.extend(b"PK\x03\x04");
        out.extend(member.fields());
        out.extend(&member.name);
        out.extend(&member.content);
    }
    zip_end(out, directory, members.len())
}

fn zip_end(mut out: Vec<u8>, directory: Vec<u8>, members: usize) -> Vec<u8> {
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((members as u16).to_le_bytes());
    out.extend((members as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(0_u16.to_le_bytes());
    out
}

fn zipped_sample() -> Vec<u8> {
    zip(&[
        Zipped::stored("appspec.yml", 0o100_644, "version: 0.0\n"),
        Zipped::stored("bin/", 0o040_755, ""),
        Zipped::deflated("bin/start.sh", b"#!/bin/sh\n"),
        Zipped::stored("bin/run", 0o120_777, "start.sh"),
        Zipped::deflated("copy", b"#!/bin/sh\n"),
    ])
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
fn every_format_makes_the_same_tree() {
    let plain = Bench::new();
    plain.unpack(&sample()).unwrap();
    let digest = tree::digest(&plain.target()).unwrap();
    assert_eq!(plain.read("bin/run"), "#!/bin/sh\n");
    assert_eq!(plain.read("copy"), "#!/bin/sh\n");

    for (bytes, format) in [
        (gzip(&sample()), Format::TarGzip),
        (zstd(&sample()), Format::TarZstd),
        (zipped_sample(), Format::Zip),
    ] {
        let bench = Bench::new();
        let unpacked = bench.unpack(&bytes).unwrap();
        assert_eq!(unpacked.format, format);
        assert_eq!(unpacked.warnings, Vec::<String>::new());
        assert_eq!(tree::digest(&bench.target()).unwrap(), digest, "{format}");
    }
    let folder = Bench::new();
    let unpacked = unpack(&plain.target(), &folder.target()).unwrap();
    assert_eq!(unpacked.format, Format::Folder);
    assert_eq!(tree::digest(&folder.target()).unwrap(), digest);
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

    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(&error) {
        text = format!("{text}: {cause}");
    }
    assert!(
        text.contains(expected),
        "`{text}` does not say `{expected}`"
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
fn nothing_gets_out_of_a_zip() {
    let file = |name: &str| zip(&[Zipped::stored(name, 0o100_644, "evil")]);
    let entry = |name: &str, mode: u32, content: &str| zip(&[Zipped::stored(name, mode, content)]);
    check(&file("../evil"), "`../evil` has `..` in its path");
    check(&file("a/../../evil"), "has `..` in its path");
    check(&file("..\\evil"), "has `..` in its path");
    check(&file("/tmp/evil-of-cutover"), "has an absolute path");
    check(&file("a\0b"), "`a\\u{0}b` has a NUL in its path");
    check(&file(""), "has no name");
    check(&file("."), "has no name");
    check(&entry("way", 0o120_777, ".."), "leads out of the package");
    check(&entry("way", 0o120_777, "/etc"), "leads out of the package");
    check(&entry("way", 0o120_777, ""), "a link without a target");
    check(&entry("way", 0o120_777, &"x".repeat(5000)), "not a path");
    for kind in [0o020_000, 0o060_000, 0o010_000, 0o140_000] {
        check(&entry("dev", kind | 0o644, ""), "`dev` is neither a file");
    }
    check(
        &zip(&[
            Zipped::stored("way", 0o120_777, "dir"),
            Zipped::stored("dir/x", 0o100_644, "x"),
            Zipped::stored("way/evil", 0o100_644, "evil"),
        ]),
        "`way/evil` is below a member that is not a folder",
    );
    check(
        &zip(&[
            Zipped::stored("way/x", 0o100_644, "x"),
            Zipped::stored("way", 0o120_777, "."),
        ]),
        "`way` is in the place of a folder",
    );
    check(
        &zip(&[Zipped::stored(b"caf\xe9", 0o100_644, "x")]),
        "a name that is not UTF-8",
    );
}

#[test]
fn what_a_zip_may_not_hold_is_refused_by_name() {
    let plain = Zipped::stored("secret", 0o100_644, "x");
    check(
        &zip(&[Zipped {
            flags: 0x801,
            ..plain.clone()
        }]),
        "the member `secret` is encrypted",
    );
    for method in [9, 12, 14, 93, 98] {
        check(
            &zip(&[Zipped {
                method,
                ..plain.clone()
            }]),
            "the member `secret` is compressed with",
        );
    }
    check(
        &zip(&[Zipped {
            crc: 1,
            ..plain.clone()
        }]),
        "in the member `secret`",
    );
    check(
        &zip(&[Zipped {
            size: 2,
            ..plain.clone()
        }]),
        "in the member `secret`",
    );
    check(
        &zip(&[Zipped { size: 0, ..plain }]),
        "in the member `secret`",
    );
    let whole = zipped_sample();
    check(
        &whole[..whole.len() - 30],
        "its directory, which is at the end, is missing",
    );
}

#[test]
fn members_that_share_their_bytes_are_refused() {
    let kernel = Zipped::deflated("a", &vec![b'0'; 1 << 16]);
    let one = zip(std::slice::from_ref(&kernel));
    let data = one[..30 + 1 + kernel.content.len()].to_vec();
    let other = Zipped {
        name: b"b".to_vec(),
        ..kernel.clone()
    };
    let mut directory = kernel.directory_entry(0);
    directory.extend(other.directory_entry(0));

    check(
        &zip_end(data, directory, 2),
        "shares its bytes with another member",
    );
}

#[test]
fn members_of_a_zip_keep_their_permissions_and_no_more() {
    let bench = Bench::new();

    let unpacked = bench.unpack(&zip(&[
        Zipped::stored("run", 0o104_755, "x"),
        Zipped::stored("plain", 0, "x"),
        Zipped::stored("dir\\file", 0o100_600, "x"),
        Zipped::stored("closed/", 0o040_000, ""),
        Zipped::stored("twice", 0o100_644, "1"),
        Zipped::stored("twice", 0o100_644, "2"),
    ]));

    let modes = ["run", "plain", "dir/file", "closed"].map(|path| bench.mode(path));
    assert_eq!(modes, [0o755, 0o644, 0o600, 0o755]);
    assert_eq!(bench.read("twice"), "2");
    let warnings = unpacked.unwrap().warnings.join("\n");
    assert!(warnings.contains("`dir\\file`"), "{warnings}");
    assert!(
        warnings.contains("several members have one name"),
        "{warnings}"
    );
}

#[test]
fn names_that_only_look_alike_are_different_files() {
    let bench = Bench::new();
    bench
        .unpack(&tar(|builder| {
            member(builder, "./a//b", "1");
            member(builder, "A/b", "2");
            member(builder, "a/./b", "3");
            member(builder, "caf\u{e9}", "4");
        }))
        .unwrap();

    assert_eq!([bench.read("a/b"), bench.read("A/b")], ["3", "2"]);
    assert_eq!(bench.read("caf\u{e9}"), "4");
}

#[test]
fn names_that_are_none_are_refused() {
    check(&tar(|builder| member(builder, "", "x")), "has no name");
    check(&tar(|builder| member(builder, ".", "x")), "has no name");
    check(
        &tar(|builder| member(builder, "dir/", "x")),
        "`dir/` is a file with the name of a folder",
    );
    let with_path = |path: Vec<u8>| {
        tar(|builder| {
            let extension = [("path", path.as_slice())];
            builder.append_pax_extensions(extension).unwrap();
            member(builder, "x", "x");
        })
    };
    check(&with_path(b"a\0b".to_vec()), "has a NUL in its path");
    check(&with_path(b"../evil".to_vec()), "has `..` in its path");
    check(&with_path(vec![b'x'; 256]), "longer than 255 bytes");
    check(&with_path(b"d/".repeat(600)), "longer than 1024 bytes");
    check(
        &tar(|builder| {
            let extension = [("linkpath", b"/etc/passwd".as_slice())];
            builder.append_pax_extensions(extension).unwrap();
            link(builder, EntryType::Symlink, "l", "fine");
        }),
        "leads out of the package",
    );
}

#[test]
fn a_name_in_any_bytes_is_kept_in_a_tar() {
    let bench = Bench::new();
    let mut bytes = tar(|builder| member(builder, "cafX", "x"));
    bytes[3] = 0xe9;
    bytes[148..156].copy_from_slice(b"        ");
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

    bench.unpack(&bytes).unwrap();

    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    assert!(bench.target().join(name).is_file());
}

#[test]
fn setuid_is_for_the_appspec_to_give() {
    let bench = Bench::new();
    bench
        .unpack(&tar(|builder| {
            let mut header = header("run", EntryType::Regular, 1);
            header.set_mode(0o6755);
            header.set_cksum();
            builder.append(&header, b"x".as_slice()).unwrap();
        }))
        .unwrap();

    assert_eq!(bench.mode("run"), 0o755);
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
    check(b"", "is empty: a package is a folder, a tar archive");
    check(b"\xfd7zXZ\0", "is compressed with xz");
    check(b"BZh9", "is compressed with bzip2");
    check(b"7z\xbc\xaf\x27\x1c", "is a 7z archive");
    check(b"<!DOCTYPE html><html>", "is an HTML page");
    check(b"hello", "is a text file");
    check(b"{\"error\": \"caf\xc3\xa9\"}", "is a text file");
    check(&[7; 2048], "is not an archive");
    check(
        &gzip(b"hello"),
        "is a compressed file that holds no tar archive",
    );
    check(
        &zstd(&[7; 2048]),
        "is a compressed file that holds no tar archive",
    );
    check(&gzip(b""), "is a compressed file that holds no tar archive");
}

#[test]
fn damage_is_found_and_located() {
    let whole = sample();
    check(&whole[..700], "read the archive at byte");
    check(
        &whole[..512],
        "read the archive at byte 512, in the member `./appspec.yml`",
    );
    check(&whole[..1024], "read the archive at byte 1024");
    check(
        &whole[..whole.len() - 1024],
        "read the archive at byte 3072",
    );
    for packed in [gzip(&whole), zstd(&whole)] {
        for left in [20, packed.len() / 2, packed.len() - 5, packed.len() - 1] {
            check(&packed[..left], "read the archive at byte");
        }
    }
    let mut flipped = gzip(&whole);
    let last = flipped.len() - 6;
    flipped[last] ^= 0xff;
    check(&flipped, "read the archive at byte");
    let mut header = whole;
    header[1024 + 148] ^= 1;
    check(&header, "read the archive at byte 1536");
}

#[test]
fn what_follows_the_end_is_ignored_and_told_of() {
    let bench = Bench::new();
    let mut bytes = sample();
    bytes.extend(b"something else");

    let unpacked = bench.unpack(&bytes).unwrap();

    assert_eq!(
        unpacked.warnings,
        ["what follows the end of the archive was ignored"]
    );
}

/// How much a folder holds, with all that was ever written there.
fn held(folder: &Path) -> (u64, usize) {
    let (mut bytes, mut entries) = (0, 0);
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.path().symlink_metadata().unwrap();
            entries += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                bytes += metadata.len();
            }
        }
    }
    (bytes, entries)
}

#[test]
fn bombs_do_not_go_off() {
    let zeros = vec![0; 1 << 20];
    let text = "0".repeat(1 << 20);
    let archive = tar(|builder| {
        for number in 0..40 {
            member(builder, &format!("f{number}"), &text);
        }
    });
    let members: Vec<_> = (0..40)
        .map(|number| Zipped::deflated(&format!("f{number}"), &zeros))
        .collect();
    for bytes in [gzip(&archive), zstd(&archive), zip(&members)] {
        for (limits, expected) in [
            (
                Limits {
                    bytes: 3 << 20,
                    ..Limits::default()
                },
                "more than 3145728 bytes, in the member `f3`",
            ),
            (
                Limits {
                    entries: 4,
                    ..Limits::default()
                },
                "more than 4 members",
            ),
            (Limits::default(), "more than 200 times its own size"),
        ] {
            let bench = Bench::new();
            let error = bench.within(&bytes, limits).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(held(bench.dir.path()).1, 1, "only the archive is left");
        }
        let patient = Limits {
            ratio: 2000,
            ..Limits::default()
        };
        let bench = Bench::new();
        // zstd makes far more of zeros than the other two.
        let _ = bench.within(&bytes, patient);
    }
}

#[test]
fn folders_that_come_with_a_path_count() {
    let bench = Bench::new();
    let few = Limits {
        entries: 50,
        ..Limits::default()
    };

    // Names in a header have 100 bytes.
    let name = format!("{}x", "d/".repeat(49));
    let archive = tar(|builder| member(builder, &name, "x"));

    bench.within(&archive, few).unwrap();

    let bench = Bench::new();
    let fewer = Limits { entries: 49, ..few };
    let error = bench.within(&archive, fewer).unwrap_err();
    assert!(
        error.to_string().contains("more than 49 members"),
        "{error}"
    );
}

#[test]
fn a_directory_of_too_many_members_is_not_even_read() {
    let script = r#"python3 - <<'END'
import os, zipfile
with zipfile.ZipFile(os.environ['OUT'], 'w') as out:
    for number in range(70000):
        out.writestr('f%d' % number, '')
END"#;
    let (bench, out) = packed_by(script);
    let limited = |entries| {
        let options = Options {
            limits: Limits {
                entries,
                ..Limits::default()
            },
            appspec: None,
        };
        unpack_with(&out, &bench.target(), &options)
            .unwrap_err()
            .to_string()
    };

    assert!(limited(1000).contains("more than 1000 members"));
    assert!(limited(69_999).contains("more than 69999 members"));
}

#[test]
fn endless_headers_and_endless_padding_are_refused() {
    let name = vec![b'x'; 3 << 20];
    let long = tar(|builder| {
        let mut header = header("././@LongLink", EntryType::GNULongName, name.len());
        header.set_cksum();
        builder.append(&header, name.as_slice()).unwrap();
        member(builder, "x", "x");
    });
    check(&long, "more than 1 MiB of headers");
    let mut padded = sample();
    padded.resize(padded.len() + (20 << 20), 0);
    check(&gzip(&padded), "more than");
}

#[test]
fn what_a_member_says_of_its_size_is_believed_when_it_is_too_large() {
    check(
        &tar(|builder| {
            let mut header = header("huge", EntryType::Regular, 1 << 33);
            header.set_size(1 << 33);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }),
        "more than 4294967296 bytes, in the member `huge`",
    );
}

#[test]
fn a_folder_has_the_same_limits() {
    let bench = Bench::new();
    let source = bench.dir.path().join("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("dir/file"), "0123456789").unwrap();
    let limited = |limits: Limits| {
        let options = Options {
            limits,
            appspec: None,
        };
        unpack_with(&source, &bench.target(), &options).map_err(|error| error.to_string())
    };
    let usual = Limits::default();

    let bytes = limited(Limits { bytes: 9, ..usual }).unwrap_err();
    let entries = limited(Limits {
        entries: 1,
        ..usual
    })
    .unwrap_err();
    let path = limited(Limits { path: 7, ..usual }).unwrap_err();

    assert!(
        bytes.contains("more than 9 bytes, in the member `dir/file`"),
        "{bytes}"
    );
    assert!(entries.contains("more than 1 members"), "{entries}");
    assert!(
        path.contains("`dir/file` has a path that is longer than 7"),
        "{path}"
    );
    limited(usual).unwrap();
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

#[test]
fn a_refused_archive_leaves_nothing_behind() {
    let bench = Bench::new();
    fs::create_dir(bench.target()).unwrap();

    bench.unpack(&sample()[..1700]).unwrap_err();

    assert_eq!(fs::read_dir(bench.target()).unwrap().count(), 0);
    assert_eq!(
        held(bench.dir.path()).1,
        2,
        "the archive and the empty target"
    );
    bench.unpack(&sample()).unwrap();
}

#[test]
fn a_lone_folder_is_stripped_for_whatever_the_peer_takes_for_an_appspec() {
    for (name, own, stripped) in [
        ("appspec.yml", None, true),
        ("AppSpec.YAML", None, true),
        ("my-appspec-v2.txt", None, true),
        ("jdcloud-codedeploy.yml", None, true),
        ("deploy.yml", None, false),
        ("deploy.yml", Some("deploy.yml"), true),
    ] {
        let bench = Bench::new();
        let archive = bench.archive(&tar(|builder| member(builder, &format!("top/{name}"), "x")));
        let options = Options {
            appspec: own.map(str::to_owned),
            ..Options::default()
        };

        unpack_with(&archive, &bench.target(), &options).unwrap();

        assert_eq!(bench.target().join(name).is_file(), stripped, "{name}");
    }
}

#[test]
fn a_folder_and_an_archive_with_two_top_entries_are_not_stripped() {
    let bench = Bench::new();
    let source = bench.dir.path().join("source");
    fs::create_dir_all(source.join("top")).unwrap();
    fs::write(source.join("top/appspec.yml"), "x").unwrap();

    unpack(&source, &bench.target()).unwrap();
    assert!(bench.target().join("top/appspec.yml").is_file());

    let bench = Bench::new();
    bench
        .unpack(&tar(|builder| {
            member(builder, "top/appspec.yml", "x");
            member(builder, ".hidden", "x");
        }))
        .unwrap();
    assert!(bench.target().join("top/appspec.yml").is_file());
}

#[test]
fn a_link_above_the_stripped_folder_is_refused() {
    check(
        &tar(|builder| {
            member(builder, "top/appspec.yml", "x");
            link(builder, EntryType::Symlink, "top/up", "../top/appspec.yml");
        }),
        "leads out of the folder",
    );
}

/// Packs a folder with a real program; `sh` has the folder as its working directory and `$OUT` for the result.
fn packed_by(script: &str) -> (Bench, PathBuf) {
    let bench = Bench::new();
    let source = bench.dir.path().join("source");
    fs::create_dir_all(source.join("bin")).unwrap();
    fs::write(source.join("appspec.yml"), "version: 0.0\n").unwrap();
    fs::write(source.join("bin/start.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(
        source.join("bin/start.sh"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    std::os::unix::fs::symlink("start.sh", source.join("bin/run")).unwrap();
    fs::write(source.join("na\u{ef}ve name"), "x").unwrap();
    let out = bench.dir.path().join("out");
    let done = Command::new("sh")
        .args(["-euc", script])
        .env("OUT", &out)
        .current_dir(&source)
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}: {done:?}");
    (bench, out)
}

#[test]
fn what_real_programs_pack_is_unpacked() {
    for (script, format) in [
        ("tar -cf $OUT .", Format::Tar),
        ("tar --format=v7 -cf $OUT .", Format::Tar),
        ("tar --format=ustar -cf $OUT .", Format::Tar),
        ("tar --format=pax --xattrs -cf $OUT .", Format::Tar),
        ("tar --hard-dereference -cf $OUT .", Format::Tar),
        ("tar --sparse --format=gnu -cf $OUT .", Format::Tar),
        ("tar -czf $OUT .", Format::TarGzip),
        (
            "tar -cf - . | gzip -1 > $OUT; printf '' | gzip >> $OUT",
            Format::TarGzip,
        ),
        (
            "tar -cf - . | zstd -q -19 --ultra --long=27 -o $OUT",
            Format::TarZstd,
        ),
        ("tar -cf - . | zstd -q --no-check -o $OUT", Format::TarZstd),
        (
            "tar -cf - . > t; split -b 1000 t part.; rm t; for p in part.*; do zstd -q $p; done; cat part.*.zst > $OUT; rm part.*",
            Format::TarZstd,
        ),
        ("zip -qry $OUT.zip . && mv $OUT.zip $OUT", Format::Zip),
        ("zip -qry0 $OUT.zip . && mv $OUT.zip $OUT", Format::Zip),
        ("rm bin/run; zip -qr - . | cat > $OUT", Format::Zip),
    ] {
        let (bench, out) = packed_by(script);

        let unpacked =
            unpack(&out, &bench.target()).unwrap_or_else(|error| panic!("{script}: {error:?}"));

        assert_eq!(unpacked.format, format, "{script}");
        let source = bench.dir.path().join("source");
        assert_eq!(
            tree::digest(&bench.target()).unwrap(),
            tree::digest(&source).unwrap(),
            "{script}"
        );
    }
}

#[test]
fn what_python_zips_is_unpacked() {
    let script = r#"python3 - <<'END'
import os, zipfile
with zipfile.ZipFile(os.environ['OUT'], 'w', zipfile.ZIP_DEFLATED) as out:
    out.write('appspec.yml')
    out.writestr('bin/start.sh', '#!/bin/sh\n')
    # As long as it is not known how long a member is, it is written for zip64.
    with out.open(zipfile.ZipInfo('large'), 'w', force_zip64=True) as member:
        member.write(b'x' * 100000)
END"#;
    let (bench, out) = packed_by(script);

    unpack(&out, &bench.target()).unwrap();

    assert_eq!(bench.read("bin/start.sh"), "#!/bin/sh\n");
    assert_eq!(bench.read("large").len(), 100_000);
}

#[test]
fn sparse_files_come_out_whole_or_are_refused() {
    let make = "truncate -s 5M hole; printf end >> hole; rm -r bin; ";
    let (bench, out) = packed_by(&format!("{make} tar --sparse --format=gnu -cf $OUT ."));
    unpack(&out, &bench.target()).unwrap();
    let content = fs::read(bench.target().join("hole")).unwrap();
    assert_eq!(
        (content.len(), content.ends_with(b"\0end")),
        ((5 << 20) + 3, true)
    );

    let (bench, out) = packed_by(&format!("{make} tar --sparse --format=pax -cf $OUT ."));
    let error = unpack(&out, &bench.target()).unwrap_err().to_string();
    assert!(
        error.contains("hole` is a sparse file in the pax format"),
        "{error}"
    );
}

/// Small enough for a case to be quick, and to be reached.
const TIGHT: Limits = Limits {
    bytes: 1 << 16,
    entries: 40,
    ratio: 200,
    path: 200,
};

/// Unpacks in a folder of its own and checks what must hold of every archive whatsoever.
fn try_hostile(bytes: &[u8]) {
    let bench = Bench::new();
    let outer = bench.dir.path().join("outer");
    fs::create_dir(&outer).unwrap();
    fs::write(outer.join("outside"), "untouched").unwrap();
    let target = outer.join("into");
    let archive = bench.archive(bytes);
    let options = Options {
        limits: TIGHT,
        appspec: None,
    };

    let unpacked = unpack_with(&archive, &target, &options);

    let others: Vec<_> = fs::read_dir(&outer)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "into")
        .collect();
    assert_eq!(others, ["outside"]);
    assert_eq!(
        fs::read_to_string(outer.join("outside")).unwrap(),
        "untouched"
    );
    assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 2);
    assert!(!Path::new("/tmp/evil-of-cutover").exists());
    assert_eq!(target.exists(), unpacked.is_ok());
    if unpacked.is_ok() {
        let (written, entries) = held(&target);
        assert!(written <= TIGHT.bytes, "{written} bytes");
        assert!(entries <= TIGHT.entries, "{entries} entries");
        tree::digest(&target).unwrap();
    }
}

fn names() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a",
        "b",
        "a/b",
        "a/b/c",
        "l",
        "l/x",
        "l/l/x",
        "a/l",
        "a/l/x",
        "../outside",
        "./a",
        "a/../l",
        "a//b/",
        "/tmp/evil-of-cutover",
        ".",
        "",
        "appspec.yml",
        "a/appspec.yml",
    ])
}

fn targets() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a",
        "b",
        "l",
        "a/l",
        "..",
        "../..",
        ".",
        "../outside",
        "../l",
        "a/../..",
        "a/../l",
        "/etc",
        "/tmp/evil-of-cutover",
        "",
        "../l/../..",
        "b/../../outside",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_refused_or_unpacked(head in 0_usize..6, tail in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let heads: [&[u8]; 6] = [b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PK\x05\x06", b"a\0"];
        let mut bytes = heads[head].to_vec();
        bytes.extend(tail);
        try_hostile(&bytes);
        try_hostile(&gzip(&bytes));
    }

    #[test]
    fn damaged_archives_are_refused_or_unpacked(
        kind in 0_usize..4,
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..12),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let mut bytes = [sample(), gzip(&sample()), zstd(&sample()), zipped_sample()][kind].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        try_hostile(&bytes);
        // The checksums of the compression are right here, so that the damage reaches the archive.
        if kind == 0 {
            try_hostile(&gzip(&bytes));
        }
    }

    #[test]
    fn members_in_any_order_never_get_out(
        members in proptest::collection::vec((names(), targets(), 0_usize..6), 1..10),
    ) {
        let tarred = tar(|builder| {
            for (name, target, kind) in &members {
                match kind {
                    0 | 1 => member(builder, name, target),
                    2 | 3 => link(builder, EntryType::Symlink, name, target),
                    4 => link(builder, EntryType::Link, name, target),
                    _ => link(builder, EntryType::Directory, name, ""),
                }
            }
        });
        let zipped: Vec<_> = members
            .iter()
            .map(|(name, target, kind)| match kind {
                0 | 1 | 4 => Zipped::stored(name, 0o100_644, target),
                2 | 3 => Zipped::stored(name, 0o120_777, target),
                _ => Zipped::stored(name, 0o040_755, ""),
            })
            .collect();
        try_hostile(&tarred);
        try_hostile(&zip(&zipped));
    }
}

//! Packages of every format and from every source, their limits, and how long they are kept.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use cutover_tests::{Site, target_folder};

fn shop(before: &str, rest: &str) -> Site {
    let site = Site::with_instances(1, rest);
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    site.write("cutover.yaml", &format!("{before}{groups}"));
    site.traced_package("v1", "1.4.0", "");
    site
}

fn run(site: &Site, script: &str) {
    let done = Command::new("sh")
        .args(["-euc", script])
        .current_dir(site.path(""))
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}: {done:?}");
}

#[test]
fn a_package_of_any_format_is_deployed_and_a_wrong_name_is_told_of() {
    for (name, pack, warning) in [
        ("v1.zip", "(cd v1; zip -qry ../v1.zip .)", ""),
        ("v1.tar.zst", "tar -cf - v1 | zstd -q -o v1.tar.zst", ""),
        (
            "v1.tar",
            "tar -czf v1.tar v1",
            "`v1.tar` is a gzipped tar archive, not a tar archive as its name says",
        ),
    ] {
        let site = shop("", "");
        run(&site, pack);

        let planned = site
            .cutover(&["deploy", "shop/web", "--package", name, "--dry-run"])
            .ok();
        site.cutover(&["deploy", "shop/web", "--package", name])
            .ok();

        assert!(planned.stderr.contains(warning), "{}", planned.stderr);
        assert_eq!(
            planned.stderr.contains("as its name says"),
            !warning.is_empty()
        );
        assert_eq!(
            std::fs::read_to_string(site.path("web-1/app/version.txt")).unwrap(),
            "1.4.0"
        );
    }
}

#[test]
fn limits_of_the_workspace_hold() {
    let site = shop("packages: {limits: {size: 1kB, entries: 100}}\n", "");
    std::fs::write(site.path("v1/large"), vec![b'x'; 2000]).unwrap();

    let answer = site.cutover(&["deploy", "shop/web", "--package", "v1"]);

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    site.assert_untouched();
    assert!(
        answer
            .stderr
            .contains("more than 1000 bytes, in the member `large`"),
        "{}",
        answer.stderr
    );
    assert!(
        answer.stderr.contains("raise `packages.limits`"),
        "{}",
        answer.stderr
    );
}

/// A workspace whose packages of the scheme `stream` are what `archive` holds, `times` over.
fn streaming(archive: &[u8], times: u32, fails: bool, limits: &str) -> Site {
    let component = target_folder().join("../components/streaming.wasm");
    assert!(component.exists(), "run `cargo xtask components` first");
    let hex: String = archive.iter().map(|byte| format!("{byte:02x}")).collect();
    shop(
        &format!(
            "{limits}plugins:\n  stream:\n    component: {}\n    config: {{hex: \"{hex}\", times: {times}, fails: {fails}}}\n",
            component.display()
        ),
        "",
    )
}

/// A packed package, and the site that its hooks write to.
fn archive() -> (Site, Vec<u8>) {
    let site = shop("", "");
    site.pack("v1", "v1.tar.gz");
    let archive = std::fs::read(site.path("v1.tar.gz")).unwrap();
    (site, archive)
}

#[test]
fn a_package_that_its_source_streams_is_deployed() {
    let (_traced, archive) = archive();
    let site = streaming(&archive, 1, false, "");

    site.cutover(&["deploy", "shop/web", "--package", "stream://shop"])
        .ok();

    assert_eq!(
        std::fs::read_to_string(site.path("web-1/app/version.txt")).unwrap(),
        "1.4.0"
    );
}

#[test]
fn a_stream_that_fails_or_never_ends_is_no_package() {
    for (times, fails, expected) in [
        (1, true, "`stream://shop` broke off"),
        (100_000, false, "is larger than 100000 bytes"),
    ] {
        let limits = "packages: {limits: {size: 100kB}}\n";
        let site = streaming(&archive().1, times, fails, limits);

        let answer = site.cutover(&["deploy", "shop/web", "--package", "stream://shop"]);

        assert_eq!(answer.code, 3, "{}", answer.stderr);
        assert!(answer.stderr.contains(expected), "{}", answer.stderr);
        site.assert_untouched();
        let left = std::fs::read_dir(site.path(".cutover/packages")).unwrap();
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn the_store_keeps_what_a_rollback_needs_and_not_more_than_it_is_told() {
    let site = shop("", "        keep_revisions: 1\n");
    let mut digests = Vec::new();
    for number in 1..=5 {
        let name = format!("p{number}");
        let version = format!("1.{number}.0");
        site.traced_package(&name, &version, "");
        site.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            &name,
            "--version",
            &version,
        ])
        .ok();
        let digest = site.report()["deployments"][0]["revision"]["digest"].clone();
        digests.push(digest.as_str().unwrap().replace("sha256:", ""));
    }
    let stored = || {
        let entries = std::fs::read_dir(site.path(".cutover/packages")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };

    // The installed one, one other, and what a rollback of that other returns to.
    let mut expected = digests[2..].to_vec();
    expected.sort();
    assert_eq!(stored(), expected);

    // The sources are gone; what is kept is enough for the way back, twice.
    for number in 1..=5 {
        std::fs::remove_dir_all(site.path(&format!("p{number}"))).unwrap();
    }
    site.cutover(&["rollback", "shop/web", "--yes"]).ok();
    site.cutover(&["rollback", "shop/web", "--yes"]).ok();
    assert_eq!(
        std::fs::read_to_string(site.path("web-1/app/version.txt")).unwrap(),
        "1.3.0"
    );
}

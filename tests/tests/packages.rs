//! Packages of every format and from every source, their limits, and how long they are kept.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use conductor::{Conductor, Options, Plugins};
use cutover_tests::{Site, target_folder, until};
use fleet::LocalFleet;
use journal::Journal;
use model::ReleaseId;
use plugin_host::{Host, HostOptions};

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

#[test]
fn a_folder_has_one_digest_wherever_it_is_and_whoever_has_it() {
    let site = shop("", "");
    let digest = |package: &str| {
        let arguments = ["deploy", "shop/web", "--package", package, "--dry-run"];
        let planned = site
            .cutover(&[&arguments[..], &["--output", "json"]].concat())
            .ok();
        planned.json()["deployments"][0]["revision"]["digest"].clone()
    };
    let first = digest("v1");
    run(
        &site,
        "mkdir -p else && cp -r v1 else/v2 && touch -d @0 else/v2/appspec.yml",
    );
    let absolute = format!("file://{}", site.path("else/v2").display());

    assert_eq!(digest("v1"), first);
    assert_eq!(
        digest(&absolute),
        first,
        "neither its place nor its times count"
    );
    let pinned = format!(
        "{absolute}#sha256={}",
        first.as_str().unwrap().replace("sha256:", "")
    );
    assert_eq!(digest(&pinned), first);
    run(&site, "chmod 600 else/v2/content/version.txt");
    assert_ne!(digest(&absolute), first, "its permissions do");
    let wrong = format!("{absolute}#sha256={}", "0".repeat(64));
    let wrong = site.cutover(&["deploy", "shop/web", "--package", &wrong]);
    assert_eq!(wrong.code, 3);
    assert!(
        wrong.stderr.contains("has digest sha256:"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn a_folder_that_links_out_of_itself_is_refused() {
    for link in ["/etc/passwd", "../../outside", "../inner/../../outside"] {
        let site = shop("", "");
        site.write("outside", "secret");
        run(
            &site,
            &format!("mkdir -p v1/inner && ln -s {link} v1/content/link"),
        );
        run(&site, "ln -s version.txt v1/content/fine");

        let answer = site.cutover(&["deploy", "shop/web", "--package", "v1"]);

        assert_eq!(answer.code, 3, "{link}: {}", answer.stderr);
        assert!(answer.stderr.contains("content/link"), "{}", answer.stderr);
        assert!(answer.stderr.contains("leads out of"), "{}", answer.stderr);
        site.assert_untouched();
    }
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

/// The names in the conductor's store.
fn stored(site: &Site) -> Vec<String> {
    let entries = std::fs::read_dir(site.path(".cutover/packages"));
    let mut names: Vec<_> = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The next connection, when its request is there.
fn asked(listener: &TcpListener) -> TcpStream {
    let (connection, _) = listener.accept().unwrap();
    let head = BufReader::new(connection.try_clone().unwrap()).lines();
    head.map(Result::unwrap).find(String::is_empty).unwrap();
    connection
}

#[test]
fn a_download_that_is_killed_leaves_no_package_and_is_cleared_away() {
    let site = shop("", "");
    let (_traced, archive) = archive();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/shop-1.4.0.tar.gz",
        listener.local_addr().unwrap()
    );
    let mut killed = site.start(&["deploy", "shop/web", "--package", &url]);
    // What may lie beside it is asked for first.
    for _ in 0..2 {
        asked(&listener)
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .unwrap();
    }
    let mut connection = asked(&listener);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
        archive.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&archive[..100]).unwrap();
    let has_begun = || {
        let names = stored(&site);
        names.iter().any(|name| {
            let archive = site.path(&format!(".cutover/packages/{name}/archive"));
            archive
                .metadata()
                .is_ok_and(|metadata| metadata.len() == 100)
        })
    };
    until("the download has begun", has_begun);

    killed.kill().unwrap();
    killed.wait().unwrap();

    let left = stored(&site);
    assert!(
        left.len() == 1 && left[0].starts_with(".download-"),
        "{left:?}"
    );
    site.cutover(&["deploy", "shop/web", "--package", "v1"])
        .ok();
    let digest = site.report()["deployments"][0]["revision"]["digest"].clone();
    assert_eq!(
        stored(&site),
        [digest.as_str().unwrap().replace("sha256:", "")]
    );
}

/// A conductor in this process, on the state of the site's.
fn conductor(site: &Site) -> Conductor {
    let file = site.path("cutover.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let workspace = spec::workspace::parse(&text, Path::new("cutover.yaml"))
        .unwrap()
        .value;
    let state = site.path(".cutover");
    let host = Host::new(HostOptions::new(state.join("compiled"))).unwrap();
    Conductor::new(Options {
        plugins: Plugins::new(host, &workspace, site.path("")),
        workspace,
        journal: Journal::open(&state.join("journal.db")).unwrap(),
        fleet: Arc::new(LocalFleet::new(Vec::new())),
        state,
        operator: "tester@here".to_owned(),
    })
}

#[test]
fn what_a_deleted_release_printed_goes_with_it() {
    let site = shop("", "");
    let mut releases = Vec::new();
    for version in ["1.1.0", "1.2.0"] {
        site.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "v1",
            "--version",
            version,
        ])
        .ok();
        let id = site.report()["id"].as_str().unwrap().to_owned();
        site.write(
            &format!(".cutover/logs/{id}-1/web-1/BeforeInstall.1.log"),
            "said",
        );
        releases.push(id);
    }
    let [old, new] = releases.as_slice() else {
        unreachable!()
    };

    conductor(&site)
        .delete(&ReleaseId::parse(old.as_str()).unwrap())
        .unwrap();

    assert!(!site.path(&format!(".cutover/logs/{old}-1")).exists());
    assert!(site.path(&format!(".cutover/logs/{new}-1")).exists());
    assert!(
        conductor(&site)
            .delete(&ReleaseId::parse(new.as_str()).unwrap())
            .is_err()
    );
    assert!(site.path(&format!(".cutover/logs/{new}-1")).exists());
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
    // The installed one, one other, and what a rollback of that other returns to.
    let mut expected = digests[2..].to_vec();
    expected.sort();
    assert_eq!(stored(&site), expected);

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

//! Packages over HTTP: one that is good, and every way in which one is not.

#![allow(clippy::unwrap_used)]

use cutover_tests::{Site, WebServer, free_ports};

/// A workspace, and a server that has its package as `/shop-1.4.0.tar.gz`, cut short as `/short.tar.gz`, and fails at
/// `/broken.tar.gz`.
fn shop() -> (Site, WebServer) {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.4.0", "");
    site.pack("v1", "v1.tar.gz");
    let archive = std::fs::read(site.path("v1.tar.gz")).unwrap();
    let server = WebServer::start(move |path| match path {
        "/shop-1.4.0.tar.gz" => WebServer::found(&archive),
        "/short.tar.gz" => WebServer::promising(archive.len(), &archive[..archive.len() / 2]),
        "/broken.tar.gz" => WebServer::status("503 Service Unavailable"),
        _ => WebServer::status("404 Not Found"),
    });
    (site, server)
}

/// What `deploy` says to a package that it must refuse.
fn refusal(site: &Site, package: &str) -> String {
    let answer = site.cutover(&["deploy", "shop/web", "--package", package]);

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    site.assert_untouched();
    answer.stderr
}

#[test]
fn an_archive_is_fetched_checked_and_deployed() {
    let (site, server) = shop();
    let url = server.url("/shop-1.4.0.tar.gz");
    site.cutover(&["deploy", "shop/web", "--package", &url])
        .ok();

    let revision = site.report()["deployments"][0]["revision"].clone();
    let digest = revision["digest"].as_str().unwrap();
    let again = format!("{url}#{}", digest.replace(':', "="));
    site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        &again,
        "--version",
        "1.4.1",
    ])
    .ok();

    assert_eq!(revision["version"], "1.4.0", "guessed from the address");
    assert_eq!(
        std::fs::read_to_string(site.path("web-1/app/version.txt")).unwrap(),
        "1.4.0"
    );
}

#[test]
fn a_package_that_is_not_there_is_named_with_the_status() {
    let (site, server) = shop();
    let url = server.url("/shop-9.9.9.tar.gz");

    let said = refusal(&site, &url);

    assert!(said.contains(&format!("download `{url}`")), "{said}");
    assert!(said.contains("404"), "{said}");
}

#[test]
fn a_server_that_fails_is_named_with_the_status() {
    let (site, server) = shop();

    let said = refusal(&site, &server.url("/broken.tar.gz"));

    assert!(said.contains("503"), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let (site, _) = shop();
    let url = format!("http://127.0.0.1:{}/shop.tar.gz", free_ports(1)[0]);

    let said = refusal(&site, &url);

    assert!(said.contains(&format!("download `{url}`")), "{said}");
    assert!(said.contains("Connection refused"), "{said}");
}

#[test]
fn a_body_that_breaks_off_is_no_package() {
    let (site, server) = shop();
    let url = server.url("/short.tar.gz");

    let said = refusal(&site, &url);

    assert!(said.contains(&format!("download `{url}`")), "{said}");
}

#[test]
fn a_digest_in_the_address_is_held_against_the_bytes() {
    let (site, server) = shop();
    let wrong = "0".repeat(64);

    let said = refusal(
        &site,
        &server.url(&format!("/shop-1.4.0.tar.gz#sha256={wrong}")),
    );

    assert!(said.contains(&format!("not sha256:{wrong}")), "{said}");
    assert!(said.contains("has digest sha256:"), "{said}");
}

#[test]
fn a_digest_that_is_none_is_refused() {
    let (site, server) = shop();

    let said = refusal(&site, &server.url("/shop-1.4.0.tar.gz#sha256=12"));

    assert!(said.contains("sha256"), "{said}");
}

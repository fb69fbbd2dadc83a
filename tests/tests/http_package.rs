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

/// Puts plugins into the workspace.
fn with_plugins(site: &Site, plugins: &str) {
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    site.write("cutover.yaml", &format!("{plugins}{groups}"));
}

#[test]
fn a_mirror_is_asked_first_with_the_header_that_is_its_own() {
    let (site, server) = shop();
    let mirror = server.url("/");
    with_plugins(
        &site,
        &format!(
            "plugins:
  packages:
    component: http-package
    grants:
      http: [\"{}\"]
      secrets: [near: file:near.token]
    config:
      mirrors: [{{of: \"http://packages.invalid/\", at: \"{mirror}\"}}]
      headers: [{{url: \"{mirror}\", name: Authorization, value: \"Bearer {{{{secret:near}}}}\"}}]
",
            mirror.trim_end_matches('/')
        ),
    );
    site.write("near.token", "hunter2\n");

    site.cutover(&["check"]).ok();
    let deployed = site
        .cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "http://packages.invalid/shop-1.4.0.tar.gz",
        ])
        .ok();

    let asked = server.asked();
    let paths: Vec<_> = asked
        .iter()
        .map(|it| it.split(' ').nth(1).unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "/shop-1.4.0.tar.gz.sha256",
            "/sha256sums",
            "/shop-1.4.0.tar.gz"
        ]
    );
    assert!(
        asked
            .iter()
            .all(|asked| asked.contains("authorization: bearer hunter2")),
        "{asked:?}"
    );
    assert!(!format!("{}{}", deployed.stdout, deployed.stderr).contains("hunter2"));
    assert!(!site.report().to_string().contains("hunter2"));
}

#[test]
fn a_configuration_that_the_source_cannot_work_with_is_refused() {
    let (site, server) = shop();
    with_plugins(
        &site,
        "plugins:
  packages:
    component: http-package
    config: {mirrors: [{of: \"http://packages.invalid\", at: \"http://near.invalid/\"}]}
",
    );

    let checked = site.cutover(&["check"]);
    let said = refusal(&site, &server.url("/shop-1.4.0.tar.gz"));

    let expected = "plugins.packages.config is not valid: /mirrors/0/of: `http://packages.invalid` must end with `/`";
    assert_eq!(checked.code, 3);
    assert!(checked.stdout.contains(expected), "{}", checked.stdout);
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_redirect_to_the_credentials_of_the_machine_is_refused() {
    let site = Site::with_instances(1, "");
    let server = WebServer::start(|_| {
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/meta-data/\r\ncontent-length: 0\r\n\r\n".to_vec()
    });

    let said = refusal(&site, &server.url("/shop-1.4.0.tar.gz"));

    assert!(
        said.contains("leads where packages may not be fetched from"),
        "{said}"
    );
    assert!(
        said.contains("`169.254.169.254` is at 169.254.169.254"),
        "{said}"
    );
}

#[test]
fn a_redirect_to_another_private_host_names_the_grant() {
    let site = Site::with_instances(1, "");
    let server = WebServer::start(|_| {
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.2:9/\r\ncontent-length: 0\r\n\r\n".to_vec()
    });

    let said = refusal(&site, &server.url("/shop-1.4.0.tar.gz"));

    assert!(said.contains("this machine itself"), "{said}");
    assert!(
        said.contains("plugins.http-package.grants.http: [\"http://127.0.0.2:9\"]"),
        "{said}"
    );
}

#[test]
fn a_body_that_breaks_off_once_is_taken_up_again() {
    let (site, _) = shop();
    let archive = std::fs::read(site.path("v1.tar.gz")).unwrap();
    let half = archive.len() / 2;
    let first = std::sync::atomic::AtomicBool::new(true);
    let server = WebServer::start(move |path| {
        if path != "/shop-1.4.0.tar.gz" {
            return WebServer::status("404 Not Found");
        }
        let (status, range, body) = if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            ("200 OK", String::new(), &archive[..half])
        } else {
            let range = format!(
                "content-range: bytes {half}-{}/{}\r\n",
                archive.len() - 1,
                archive.len()
            );
            ("206 Partial Content", range, &archive[half..])
        };
        let length = if range.is_empty() {
            archive.len()
        } else {
            body.len()
        };
        let mut answer = format!("HTTP/1.1 {status}\r\netag: \"1\"\r\n{range}content-length: {length}\r\nconnection: close\r\n\r\n").into_bytes();
        answer.extend_from_slice(body);
        answer
    });

    site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        &server.url("/shop-1.4.0.tar.gz"),
    ])
    .ok();

    let last = server.asked().pop().unwrap();
    assert!(last.contains(&format!("range: bytes={half}-")), "{last}");
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

/// The paths that a server was asked for.
fn paths(server: &WebServer) -> Vec<String> {
    let asked = server.asked();
    let paths = asked.iter().filter_map(|head| head.split(' ').nth(1));
    paths.map(str::to_owned).collect()
}

fn sha256(path: std::path::PathBuf) -> String {
    let output = std::process::Command::new("sha256sum")
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// A server with the archive of a site, and what lies beside it.
fn with_beside(site: &Site, path: &'static str, text: String) -> WebServer {
    let archive = std::fs::read(site.path("v1.tar.gz")).unwrap();
    WebServer::start(move |asked| match asked {
        "/shop/shop-1.4.0.tar.gz" => WebServer::found(&archive),
        asked if asked == path => WebServer::found(text.as_bytes()),
        _ => WebServer::status("404 Not Found"),
    })
}

#[test]
fn a_digest_that_lies_beside_a_package_counts() {
    let (site, _) = shop();
    let right = sha256(site.path("v1.tar.gz"));
    let wrong = "0".repeat(64);
    for (path, line) in [
        ("/shop/shop-1.4.0.tar.gz.sha256", "HEX\n"),
        (
            "/shop/SHA256SUMS",
            "1111111111111111111111111111111111111111111111111111111111111111  other.tar.gz\nHEX *shop-1.4.0.tar.gz\n",
        ),
    ] {
        let server = with_beside(&site, path, line.replace("HEX", &wrong));
        let said = refusal(&site, &server.url("/shop/shop-1.4.0.tar.gz"));
        let expected = format!(
            "has digest sha256:{right}, not sha256:{wrong} as `{}` says",
            server.url(path)
        );
        assert!(said.contains(&expected), "{said}");
        assert!(said.contains("find out which of the two"), "{said}");

        let (site, _) = shop();
        let hex = sha256(site.path("v1.tar.gz"));
        let server = with_beside(&site, path, line.replace("HEX", &hex));
        let url = server.url("/shop/shop-1.4.0.tar.gz");
        for version in ["1.4.0", "1.4.1"] {
            site.cutover(&[
                "deploy",
                "shop/web",
                "--package",
                &url,
                "--version",
                version,
            ])
            .ok();
        }
        let paths = paths(&server);
        let fetched = paths.iter().filter(|path| path.ends_with(".tar.gz"));
        assert_eq!(fetched.count(), 1, "what is here is not fetched: {paths:?}");
    }
}

#[test]
fn a_digest_that_has_to_be_there_is_missed() {
    let (site, server) = shop();
    with_plugins(
        &site,
        &format!(
            "plugins:
  packages:
    component: http-package
    config: {{checksums: [{{url: \"{}\", file: \"{{folder}}sums\"}}]}}
",
            server.url("/")
        ),
    );

    let said = refusal(&site, &server.url("/shop-1.4.0.tar.gz"));

    assert!(
        said.contains(&format!("download `{}`", server.url("/sums"))),
        "{said}"
    );
    assert!(said.contains("404 Not Found"), "{said}");
    assert_eq!(paths(&server), ["/sums"]);
}

#[test]
fn a_mirror_that_fails_is_passed_over_and_told_of() {
    let (site, server) = shop();
    let (busy, wrong) = (
        WebServer::start(|_| WebServer::status("503 Service Unavailable")),
        WebServer::start(|_| WebServer::found(b"something else")),
    );
    let origin = server.url("/");
    with_plugins(
        &site,
        &format!(
            "plugins:
  packages:
    component: http-package
    grants: {{http: [\"{0}\", \"{1}\"]}}
    config:
      mirrors: [{{of: \"{origin}\", at: \"{0}/\"}}, {{of: \"{origin}\", at: \"{1}/\"}}]
",
            busy.url(""),
            wrong.url("")
        ),
    );
    let digest = sha256(site.path("v1.tar.gz"));
    let package = format!("{origin}shop-1.4.0.tar.gz#sha256={digest}");

    let deployed = site
        .cutover(&["deploy", "shop/web", "--package", &package])
        .ok();

    let said = deployed.stderr;
    assert!(said.contains("give up after 3 tries"), "{said}");
    assert!(said.contains("503 Service Unavailable"), "{said}");
    assert!(said.contains(&format!("not sha256:{digest}")), "{said}");
    let source = site.report()["deployments"][0]["revision"]["source"].clone();
    assert_eq!(source, package);
}

#[test]
fn a_signed_address_is_refused_before_it_gets_into_a_record() {
    let (site, server) = shop();

    let said = refusal(
        &site,
        &server.url("/shop-1.4.0.tar.gz?X-Amz-Expires=60&X-Amz-Signature=hunter2"),
    );

    assert!(said.contains("would end up in records and logs"), "{said}");
    assert!(server.asked().is_empty());
}

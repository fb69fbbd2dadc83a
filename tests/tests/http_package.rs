//! Packages over HTTP: one that is good, and every way in which one is not.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use cutover_tests::{FileServer, Site, WebServer, free_ports, until};

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
fn what_a_server_says_is_unchanged_is_not_fetched_again_and_what_changed_is() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.4.0", "");
    site.traced_package("v2", "1.5.0", "");
    let server = FileServer::start(&site, "web", "");
    site.pack("v1", "web/files/shop.tar.gz");
    let url = server.url("/shop.tar.gz");
    let deploy = |version: &str| {
        let arguments = [
            "deploy",
            "shop/web",
            "--package",
            &url,
            "--version",
            version,
        ];
        site.cutover(&arguments).ok();
        let asked = server.asked();
        let last = asked.last().unwrap().clone();
        let installed = std::fs::read_to_string(site.path("web-1/app/version.txt")).unwrap();
        (last, installed)
    };

    let (first, _) = deploy("1.4.0");
    let (second, installed) = deploy("1.4.1");
    assert!(first.contains("200 \"-\" \"-\""), "{first}");
    assert!(second.starts_with("GET /shop.tar.gz 304 "), "{second}");
    assert_eq!(installed, "1.4.0");

    site.pack("v2", "web/files/shop.tar.gz");
    let (third, installed) = deploy("1.5.0");
    assert!(third.starts_with("GET /shop.tar.gz 200 "), "{third}");
    assert_eq!(installed, "1.5.0");
}

/// Makes the package of a site larger by bytes that no compression shortens.
fn grow(site: &Site, folder: &str, bytes: usize) {
    let mut state = 1_u64;
    let noise = (0..bytes).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    });
    let path = site.path(&format!("{folder}/content/noise"));
    std::fs::write(path, noise.collect::<Vec<_>>()).unwrap();
}

#[test]
fn a_large_package_comes_in_ranges_with_a_password_that_nobody_sees() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.4.0", "");
    grow(&site, "v1", 40 << 20);
    let server = FileServer::start(
        &site,
        "web",
        "auth_basic closed; auth_basic_user_file users; limit_rate 40m;",
    );
    site.write("web/users", "ci:{PLAIN}hunter2\n");
    site.pack("v1", "web/files/shop-1.4.0.tar.gz");
    let url = server.url("/shop-1.4.0.tar.gz");
    let said = refusal(&site, &url);
    assert!(said.contains("401 Unauthorized"), "{said}");
    assert!(said.contains("`headers` with `{{secret:NAME}}`"), "{said}");
    with_plugins(
        &site,
        &format!(
            "plugins:
  packages:
    component: http-package
    grants: {{secrets: [basic: file:basic.txt]}}
    config: {{headers: [{{url: \"{}\", name: Authorization, value: \"Basic {{{{secret:basic}}}}\"}}]}}
",
            server.url("/")
        ),
    );
    // ci:hunter2
    site.write("basic.txt", "Y2k6aHVudGVyMg==\n");

    let deployed = site
        .cutover(&["deploy", "shop/web", "--package", &url])
        .ok();

    assert!(!deployed.stderr.contains("Y2k6aHVudGVyMg"));
    let asked = server.asked();
    let in_ranges = asked.iter().filter(|line| line.contains(" 206 \"bytes="));
    assert!(in_ranges.count() >= 3, "{asked:?}");
    let noise = std::fs::read(site.path("v1/content/noise")).unwrap();
    assert!(std::fs::read(site.path("web-1/app/noise")).unwrap() == noise);
}

/// Takes the next request, and answers what may lie beside a package until it is another one. With its head.
fn asked(listener: &TcpListener) -> (TcpStream, String) {
    loop {
        let (mut connection, _) = listener.accept().unwrap();
        let lines = BufReader::new(connection.try_clone().unwrap()).lines();
        let lines = lines
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty());
        let head = lines.collect::<Vec<_>>().join("\n");
        if head.contains("/shop-1.4.0.tar.gz HTTP") {
            return (connection, head.to_lowercase());
        }
        connection
            .write_all(&WebServer::status("404 Not Found"))
            .unwrap();
    }
}

#[test]
fn a_download_goes_on_after_its_conductor_was_killed() {
    let site = Site::with_instances(1, "");
    site.traced_package("v1", "1.4.0", "");
    grow(&site, "v1", 4 << 20);
    site.pack("v1", "v1.tar.gz");
    let archive = std::fs::read(site.path("v1.tar.gz")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/shop-1.4.0.tar.gz",
        listener.local_addr().unwrap()
    );
    let mut killed = site.start(&["deploy", "shop/web", "--package", &url]);
    let (mut connection, _) = asked(&listener);
    let head = format!(
        "HTTP/1.1 200 OK\r\netag: \"one\"\r\ncontent-length: {}\r\n\r\n",
        archive.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&archive[..3 << 20]).unwrap();
    let state = || {
        let names = std::fs::read_dir(site.path(".cutover/packages")).ok()?;
        let mut folders = names.flatten().map(|entry| entry.path().join("state.json"));
        std::fs::read_to_string(folders.find(|path| path.exists())?).ok()
    };
    until("two MiB are noted", || {
        let state = state().and_then(|it| serde_json::from_str::<serde_json::Value>(&it).ok());
        state.is_some_and(|state| state["done"][0][1].as_u64() >= Some(2 << 20))
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    drop(connection);

    let mut next = site.start(&["deploy", "shop/web", "--package", &url]);
    let (mut connection, head) = asked(&listener);
    let from = head.split("range: bytes=").nth(1).unwrap();
    let from: usize = from.split('-').next().unwrap().parse().unwrap();
    assert!((2 << 20..=3 << 20).contains(&from), "{head}");
    assert!(head.contains("if-range: \"one\""), "{head}");
    let answer = format!(
        "HTTP/1.1 206 Partial Content\r\netag: \"one\"\r\ncontent-range: bytes {from}-{}/{}\r\ncontent-length: {}\r\n\r\n",
        archive.len() - 1,
        archive.len(),
        archive.len() - from
    );
    connection.write_all(answer.as_bytes()).unwrap();
    connection.write_all(&archive[from..]).unwrap();

    assert!(next.wait().unwrap().success());
    let noise = std::fs::read(site.path("v1/content/noise")).unwrap();
    assert!(std::fs::read(site.path("web-1/app/noise")).unwrap() == noise);
    let left = std::fs::read_dir(site.path(".cutover/packages")).unwrap();
    assert_eq!(left.count(), 1, "the package and nothing else");
}

#[test]
fn two_groups_of_one_plan_fetch_a_package_once() {
    let (site, server) = shop();
    let (one, two) = (site.path("web-1"), site.path("web-2"));
    let group = |name: &str, number: u32, rootdir: &std::path::Path| {
        format!(
            "      {name}:\n        service_id: {number}\n        instances: [{{id: {name}-1, host: \"local:\", rootdir: \"{}\"}}]\n",
            rootdir.display()
        )
    };
    site.write(
        "cutover.yaml",
        &format!(
            "applications:\n  shop:\n    groups:\n{}{}",
            group("web", 1, &one),
            group("pay", 2, &two)
        ),
    );
    let url = server.url("/shop-1.4.0.tar.gz");
    let item = |number: u32| {
        format!(
            " - serviceId: {number}\n   priority: 1\n   deployment: HTTP_UPLOAD_DEPLOY\n   httpSrcUri: {url}\n"
        )
    };
    site.write(
        "plan.yaml",
        &format!("comment: both\ndeployPlanItems:\n{}{}", item(1), item(2)),
    );

    site.cutover(&["run", "plan.yaml"]).ok();

    let paths = paths(&server);
    let fetched = paths.iter().filter(|path| path.ends_with(".tar.gz"));
    assert_eq!(fetched.count(), 1, "{paths:?}");
    for folder in ["web-1", "web-2"] {
        assert!(site.path(&format!("{folder}/app/version.txt")).exists());
    }
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

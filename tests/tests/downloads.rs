//! Moving packages' bytes: in ranges, once, and on after a conductor was killed.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use cutover_tests::{FileServer, Site, WebServer, until};

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

    // The server's entity tag is made of a file's second and size: these two have to differ in size.
    grow(&site, "v2", 1_000);
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
    let refused = site.cutover(&["deploy", "shop/web", "--package", &url]);
    let said = refused.stderr;
    assert!(said.contains("401 Unauthorized"), "{said}");
    assert!(said.contains("`headers` with `{{secret:NAME}}`"), "{said}");
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    site.write(
        "cutover.yaml",
        &format!(
            "plugins:
  packages:
    component: http-package
    grants: {{secrets: [basic: file:basic.txt]}}
    config: {{headers: [{{url: \"{}\", name: Authorization, value: \"Basic {{{{secret:basic}}}}\"}}]}}
{groups}",
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
        let mut accepted = None;
        until("the package is asked for", || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let (mut connection, _) = accepted.unwrap();
        connection.set_nonblocking(false).unwrap();
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
    listener.set_nonblocking(true).unwrap();
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
    let site = Site::new();
    site.traced_package("v1", "1.4.0", "");
    site.pack("v1", "v1.tar.gz");
    let archive = std::fs::read(site.path("v1.tar.gz")).unwrap();
    let server = WebServer::start(move |path| match path {
        "/shop-1.4.0.tar.gz" => WebServer::found(&archive),
        _ => WebServer::status("404 Not Found"),
    });
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

    let asked = server.asked();
    let fetched = asked
        .iter()
        .filter(|head| head.starts_with("get /shop-1.4.0.tar.gz http"));
    assert_eq!(fetched.count(), 1, "{asked:?}");
    for folder in ["web-1", "web-2"] {
        assert!(site.path(&format!("{folder}/app/version.txt")).exists());
    }
}

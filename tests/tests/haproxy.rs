//! A real service behind a real HAProxy, rolled forward and back while requests run.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use cutover_tests::{Answer, Clients, HaProxy, Site, copy_folder, free_ports, target_folder};

/// Three instances of the example's service behind HAProxy, with version 1.0.0 deployed.
struct Shop {
    site: Site,
    haproxy: HaProxy,
}

impl Shop {
    /// `named` gives the name of each server in HAProxy's configuration.
    fn deployed(
        named: impl Fn(usize) -> String,
        socket: impl Fn(&Site, &HaProxy) -> String,
    ) -> Self {
        let site = Site::new();
        let ports = free_ports(3);
        let servers: Vec<_> = (1..)
            .zip(&ports)
            .map(|(number, port)| (named(number), SocketAddr::from(([127, 0, 0, 1], *port))))
            .collect();
        let haproxy = HaProxy::start(&site, &servers, "check inter 100ms fall 2 rise 1 disabled");
        for version in ["1.0.0", "1.1.0", "2.0.0"] {
            let package = site.path(version);
            copy_folder(
                &target_folder().join("../../examples/shop/package"),
                &package,
            );
            std::fs::copy(
                target_folder().join("shop-service"),
                package.join("shop-service"),
            )
            .unwrap();
        }
        site.script(
            "2.0.0/bin/validate.sh",
            "#!/bin/sh\necho the database is missing\nexit 1\n",
        );
        let socket = socket(&site, &haproxy);
        let instances: String = (1..)
            .zip(&ports)
            .map(|(number, port)| {
                let rootdir = site.path(&format!("web-{number}"));
                format!(
                    "          - {{id: web-{number}, host: \"local:\", rootdir: \"{}\", address: \"127.0.0.1:{port}\", env: {{PORT: \"{port}\"}}}}\n",
                    rootdir.display()
                )
            })
            .collect();
        site.write(
            "cutover.yaml",
            &format!(
                "plugins:\n  haproxy:\n    component: haproxy\n    grants: {{sockets: [\"{socket}\"]}}\n\
                 applications:\n  shop:\n    groups:\n      web:\n        instances:\n{instances}\
                 \x20       strategy: {{type: rolling, concurrency: 1}}\n\
                 \x20       load_balancer: {{plugin: haproxy, config: {{socket: \"{socket}\", backend: shop}}, timeout: 30s}}\n"
            ),
        );
        site.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "1.0.0",
            "--version",
            "1.0.0",
        ])
        .ok();
        Self { site, haproxy }
    }

    fn over_tcp() -> Self {
        Self::deployed(
            |number| format!("web-{number}"),
            |_, haproxy| format!("tcp:{}", haproxy.socket),
        )
    }

    fn upgrade(&self, version: &str) -> Answer {
        self.site.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            version,
            "--version",
            version,
        ])
    }

    /// What the three servers are, as HAProxy itself says.
    fn states(&self) -> Vec<String> {
        let stat = self.haproxy.ask("show stat -1 4 -1");
        let rows = stat.lines().filter(|line| line.starts_with("shop,"));
        rows.map(|line| line.split(',').nth(17).unwrap().to_owned())
            .collect()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for number in 1..=3 {
            let file = self.site.path(&format!("web-{number}/shop.pid"));
            if let Ok(pid) = std::fs::read_to_string(file) {
                // It may have ended by itself.
                let _ = std::process::Command::new("kill")
                    .args(["-KILL", pid.trim()])
                    .status();
            }
        }
    }
}

#[test]
fn no_request_fails_while_every_instance_is_upgraded_and_rolled_back() {
    let shop = Shop::over_tcp();
    let clients = Clients::start(4, shop.haproxy.front);

    shop.upgrade("1.1.0").ok();
    let upgraded = shop.states();
    shop.site.cutover(&["rollback", "shop/web"]).ok();

    let count = clients.stop();
    assert_eq!(count.failed, 0, "of {} requests", count.sent);
    assert!(count.sent > 100, "only {} requests ran", count.sent);
    assert_eq!(upgraded, ["UP", "UP", "UP"]);
    assert_eq!(shop.states(), ["UP", "UP", "UP"]);
}

/// The same change without the balancer's part: the test above can fail.
#[test]
fn without_draining_requests_do_fail() {
    let shop = Shop::over_tcp();
    let text = std::fs::read_to_string(shop.site.path("cutover.yaml")).unwrap();
    let without: String = text
        .lines()
        .filter(|line| !line.contains("load_balancer:"))
        .map(|line| format!("{line}\n"))
        .collect();
    shop.site.write("cutover.yaml", &without);
    let clients = Clients::start(4, shop.haproxy.front);

    for version in 1..=5 {
        let version = format!("1.1.{version}");
        shop.site
            .cutover(&[
                "deploy",
                "shop/web",
                "--package",
                "1.1.0",
                "--version",
                &version,
            ])
            .ok();
    }

    let count = clients.stop();
    assert!(count.failed > 0, "all of {} requests succeeded", count.sent);
}

#[test]
fn an_instance_that_fails_its_validation_stays_out_of_the_balancer() {
    let shop = Shop::over_tcp();

    let answer = shop.upgrade("2.0.0");

    assert_eq!(answer.code, 4, "{}", answer.stderr);
    assert!(
        answer.stderr.contains("the database is missing"),
        "{}",
        answer.stderr
    );
    assert_eq!(shop.states(), ["MAINT", "UP", "UP"]);

    shop.site.cutover(&["rollback", "shop/web"]).ok();

    assert_eq!(
        shop.states(),
        ["UP", "UP", "UP"],
        "the way back puts it in again"
    );
}

#[test]
fn servers_are_found_by_address_over_a_unix_socket() {
    let shop = Shop::deployed(
        |number| format!("s{number}"),
        |site, _| format!("unix:{}", site.path("haproxy.sock").display()),
    );

    shop.upgrade("1.1.0").ok();

    assert_eq!(shop.states(), ["UP", "UP", "UP"]);
}

#[test]
fn an_unknown_backend_is_refused_before_anything_changes() {
    let shop = Shop::over_tcp();
    let text = std::fs::read_to_string(shop.site.path("cutover.yaml")).unwrap();
    shop.site.write(
        "cutover.yaml",
        &text.replace("backend: shop", "backend: shpo"),
    );

    let checked = shop.site.cutover(&["check"]);
    let answer = shop.upgrade("1.1.0");

    assert_eq!((checked.code, answer.code), (3, 3), "{}", answer.stderr);
    assert!(checked.stdout.contains("shpo"), "{}", checked.stdout);
    assert!(answer.stderr.contains("shpo"), "{}", answer.stderr);
    assert_eq!(shop.states(), ["UP", "UP", "UP"], "nothing was taken out");
}

#[test]
fn an_ungranted_address_is_refused_with_the_line_that_grants_it() {
    let shop = Shop::over_tcp();
    let text = std::fs::read_to_string(shop.site.path("cutover.yaml")).unwrap();
    let ungranted = text.lines().filter(|line| !line.contains("grants:"));
    shop.site.write(
        "cutover.yaml",
        &ungranted
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );
    let grant = format!(
        "plugins.haproxy.grants.sockets: [\"tcp:{}\"]",
        shop.haproxy.socket
    );

    let checked = shop.site.cutover(&["check"]);
    let answer = shop.upgrade("1.1.0");

    assert_eq!((checked.code, answer.code), (3, 3), "{}", answer.stderr);
    assert!(checked.stdout.contains(&grant), "{}", checked.stdout);
    assert!(answer.stderr.contains(&grant), "{}", answer.stderr);
    assert_eq!(shop.states(), ["UP", "UP", "UP"]);
}

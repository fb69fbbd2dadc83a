//! A step that waits for something outside says what it waits for, also where no terminal shows it live.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Stdio;

use cutover_tests::{HaProxy, Site, free_ports, until};

#[test]
fn a_long_wait_is_told_once_with_what_is_waited_for() {
    let site = Site::new();
    // Nothing listens there, so the balancer never calls the instance healthy.
    let address = SocketAddr::from(([127, 0, 0, 1], free_ports(1)[0]));
    let servers = [("web-1".to_owned(), address)];
    let haproxy = HaProxy::start(&site, &servers, "check inter 100ms fall 2 rise 1 disabled");
    let socket = haproxy.socket;
    site.write(
        "cutover.yaml",
        &format!(
            "plugins:\n  haproxy:\n    component: haproxy\n    grants: {{sockets: [\"tcp:{socket}\"]}}\n\
             applications:\n  shop:\n    groups:\n      web:\n        instances:\n\
             \x20         - {{id: web-1, host: \"local:\", rootdir: \"{}\", address: \"{address}\"}}\n\
             \x20       load_balancer: {{plugin: haproxy, config: {{socket: \"tcp:{socket}\", backend: shop}}, timeout: 8s}}\n",
            site.path("web-1").display()
        ),
    );
    site.traced_package("v1", "1.0.0", "");
    let mut conductor = site.command(&["deploy", "shop/web", "--package", "v1"]);
    let conductor = conductor
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waiting_for = || site.report_of_newest()["waiting_for"].clone();

    until("the instance waits to be healthy", || {
        waiting_for()
            .as_str()
            .is_some_and(|what| what.starts_with("AllowTraffic on web-1 for"))
    });
    let ended = conductor.wait_with_output().unwrap();

    let stderr = String::from_utf8(ended.stderr).unwrap();
    let told: Vec<_> = stderr
        .lines()
        .filter(|line| line.trim_start().starts_with("waiting "))
        .collect();
    assert_eq!(ended.status.code(), Some(4), "{stderr}");
    assert_eq!(told.len(), 1, "{stderr}");
    assert!(told[0].contains("web-1 AllowTraffic"), "{told:?}");
    assert!(
        told[0].contains("for the balancer to call the instance healthy"),
        "{told:?}"
    );
}

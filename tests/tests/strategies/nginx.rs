//! What is nginx's own: it is told by files and reloads, and of requests it tells by its workers alone.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use cutover_tests::Nginx;

use super::*;

/// Two instances in one upstream, with version 1.0.0 on both.
struct Shop {
    fleet: Fleet,
    nginx: Nginx,
}

impl Shop {
    fn deployed() -> Self {
        let fleet = Fleet::new(&["web-1", "web-2"]);
        let nginx = Nginx::start(&fleet.site, &[("shop", &[])]);
        let config = nginx.plugin_config(r#", "upstream": "shop""#);
        let plugins = format!(
            "plugins:\n  nginx:\n    component: nginx\n    grants:\n      sockets: [\"tcp:{}\"]\n      \
             programs: [\"{}\", /bin/ps]\n      directories: [{{name: nginx, path: \"{}\", access: read-write}}]\n",
            nginx.status,
            nginx.program(),
            fleet.site.path("nginx/cutover").display()
        );
        let group = format!(
            "strategy: {{type: rolling, concurrency: 1}}\ninstances: {}\n\
             load_balancer: {{plugin: nginx, timeout: 60s, config: {}}}\n",
            fleet.instances("web"),
            config.replace('\n', " ")
        );
        fleet.workspace(&plugins, &group);
        fleet.deploy("1.0.0", "1.0.0").ok();
        Self { fleet, nginx }
    }

    /// Whether the file of the upstream holds this.
    fn says(&self, text: &str) -> bool {
        let file = self.fleet.site.path("nginx/cutover/shop.servers");
        std::fs::read_to_string(file).unwrap().contains(text)
    }

    /// Asserts that an instance, which runs yet, gets no requests that begin.
    fn assert_left(&self, instance: &str) {
        until("requests that begin go elsewhere", || {
            visits(self.nginx.front, Connections::Fresh, 100).of_instances(instance) == 0
        });
        let visits = visits(self.nginx.front, Connections::Fresh, 200);
        assert_eq!(visits.of_instances(instance), 0, "{visits:?}");
        assert_eq!(visits.failed, 0, "{visits:?}");
        let service = self.fleet.site.path(&format!("{instance}/shop.pid"));
        assert!(service.exists(), "an old worker may send it a request");
    }
}

/// A request that nginx has taken and that is not complete.
struct Unfinished(TcpStream);

impl Unfinished {
    fn at(front: SocketAddr) -> Self {
        let mut connection = TcpStream::connect(front).unwrap();
        connection
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(
            connection,
            "POST / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: 4\r\n\r\n12"
        )
        .unwrap();
        Self(connection)
    }

    /// Completes it and gives the answer.
    fn finish(mut self) -> String {
        write!(self.0, "34").unwrap();
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn an_instance_is_stopped_when_no_worker_has_a_request_of_before_also_after_a_crash() {
    let shop = Shop::deployed();
    let unfinished = Unfinished::at(shop.nginx.front);
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    until("web-1 leaves", || shop.says("down; # web-1"));
    shop.assert_left("web-1");

    conductor.kill().unwrap();
    conductor.wait().unwrap();
    let mut conductor = shop.fleet.start(&["resume", &shop.fleet.newest()]);
    until("the release goes on", || {
        shop.fleet.site.report()["status"] == "RUNNING"
    });
    shop.assert_left("web-1");
    let answer = unfinished.finish();

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("shop 1.0.0\n"), "{answer}");
    shop.fleet.await_success(&mut conductor);
}

#[test]
fn a_conductor_killed_before_the_reload_is_resumed_without_a_lost_request() {
    let shop = Shop::deployed();
    let visitors = Visitors::start(shop.nginx.front, Connections::Fresh, Pace::Steady);
    shop.nginx.hold("reload");
    let mut conductor = shop.fleet.start(&deploying("1.1.0", "1.1.0"));
    until("the reload is held", || shop.nginx.is_holding());
    let reloads = shop.nginx.reloads();

    conductor.kill().unwrap();
    conductor.wait().unwrap();
    shop.nginx.kill_held();
    visitors.wait_for(50);
    assert!(shop.says("down; # web-1"), "nobody has read it");
    assert_eq!(shop.nginx.reloads(), reloads);
    shop.fleet
        .site
        .cutover(&["resume", &shop.fleet.newest()])
        .ok();

    let visits = visitors.stop();
    assert_eq!(visits.failed, 0, "{visits:?}");
    let _ = assert_all_at(shop.nginx.front, "1.1.0", "web");
}

#[test]
fn a_release_does_not_begin_where_nginx_would_refuse_every_change() {
    let shop = Shop::deployed();
    let reloads = shop.nginx.reloads();
    shop.fleet
        .site
        .write("nginx/cutover/other.conf", "bogus on;\n");

    let refused = shop.fleet.deploy("1.1.0", "1.1.0");

    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("unknown directive \"bogus\""),
        "{}",
        refused.stderr
    );
    assert_eq!(shop.nginx.reloads(), reloads);
}

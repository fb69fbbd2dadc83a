//! Strategies behind nginx, which is told by files and reloads.
//!
//! A reload of nginx before 1.27.4 closes client connections that are idle at that moment: a client that keeps its connections sees
//! a request fail when it sends it just then. New connections lose nothing.

use cutover_tests::{Nginx, visits};

use super::*;

/// Asserts that nothing failed but requests on kept connections that a reload closed.
fn assert_only_closed(kept: &Visits, fresh: &Visits) {
    let [connect, read, write, status, timeout] = kept.kinds;
    println!(
        "kept connections: {} of {} requests met one that nginx had closed",
        read + write,
        kept.total() + read + write
    );
    println!(
        "fresh connections: none of {} requests failed",
        fresh.total()
    );
    assert_eq!(fresh.failed, 0, "{fresh:?}");
    assert_eq!((connect, status, timeout), (0, 0, 0), "{kept:?}");
}

fn plugins(fleet: &Fleet, nginx: &Nginx) -> String {
    format!(
        "plugins:\n  nginx:\n    component: nginx\n    grants:\n      sockets: [\"tcp:{}\"]\n      \
         programs: [\"{}\", /bin/ps]\n      directories: [{{name: nginx, path: \"{}\", access: read-write}}]\n",
        nginx.status,
        Nginx::program(),
        fleet.site.path("nginx/cutover").display()
    )
}

#[test]
fn blue_green_behind_nginx_loses_no_request_on_fresh_connections() {
    let fleet = Fleet::new(&["blue-1", "blue-2", "green-1", "green-2"]);
    let upstreams = [
        ("shop-green", &fleet.servers("green")[..]),
        ("shop-blue", &fleet.servers("blue")[..]),
    ];
    let nginx = Nginx::start(&fleet.site, &upstreams);
    let group = format!(
        "strategy: {{type: blue-green, concurrency: 100%}}\n\
         sides:\n  blue: {{group: {{upstream: shop-blue}}, instances: {}}}\n  \
         green: {{group: {{upstream: shop-green}}, instances: {}}}\n\
         traffic: {{plugin: nginx, timeout: 60s, config: {}}}\n",
        fleet.instances("blue"),
        fleet.instances("green"),
        nginx.plugin_config("").replace('\n', " "),
    );
    fleet.workspace(&plugins(&fleet, &nginx), &group);
    // nginx says that green is live, so that blue is the colour to deploy to.
    fleet.deploy("1.0.0", "1.0.0").ok();
    let crowd = Crowd::at(nginx.front);

    let refused = fleet.deploy("invalid", "2.0.0");
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    let _ = fleet.site.as_planned(&deploying("1.1.0", "1.1.0"));
    crowd.fresh.wait_for(100);
    let upgraded = visits(nginx.front, Connections::Fresh, 200);
    fleet.rollback().ok();
    let back = visits(nginx.front, Connections::Fresh, 200);
    fleet.deploy_and_die_at("1.1.0", "1.2.0", "switch-started");
    fleet.site.cutover(&["resume", &fleet.newest()]).ok();
    let resumed = visits(nginx.front, Connections::Fresh, 200);

    assert_eq!(
        upgraded.of_version("1.1.0"),
        upgraded.total(),
        "{upgraded:?}"
    );
    assert_eq!(resumed.of_version("1.2.0"), resumed.total(), "{resumed:?}");
    assert_eq!(back.of_version("1.0.0"), back.total(), "{back:?}");
    let (fresh, kept) = (crowd.fresh.stop(), crowd.kept.stop());
    assert_eq!(fresh.of_version("2.0.0"), 0, "{fresh:?}");
    assert_only_closed(&kept, &fresh);
}

#[test]
fn a_canary_behind_nginx_gets_its_share_and_loses_no_request_on_fresh_connections() {
    let fleet = Fleet::new(&["web-1", "web-2", "web-3", "web-4"]);
    let upstreams = [("shop", &fleet.servers("web")[..])];
    let nginx = Nginx::start(&fleet.site, &upstreams);
    let config = nginx
        .plugin_config(", \"upstream\": \"shop\"")
        .replace('\n', " ");
    let group = format!(
        "strategy: {{type: canary, first_batch: 1, remaining_batches: 2, traffic: 20%}}\n\
         instances: {}\n\
         load_balancer: {{plugin: nginx, timeout: 60s, config: {config}}}\n\
         traffic: {{plugin: nginx, timeout: 60s, config: {config}}}\n",
        fleet.instances("web"),
    );
    fleet.workspace(&plugins(&fleet, &nginx), &group);
    let deploy = |version: &str, weigh: &dyn Fn(&str)| {
        let mut conductor = fleet.start(&deploying(version, version));
        fleet.await_hold(&mut conductor, "promotion");
        let id = fleet.newest();
        weigh(&id);
        fleet.site.cutover(&["promote", &id]).ok();
        assert_eq!(conductor.wait().unwrap().code(), Some(0));
    };
    deploy("1.0.0", &|_| {});
    let crowd = Crowd::at(nginx.front);

    deploy("1.1.0", &|id| {
        let share = |percent: f64| {
            let visits = visits(nginx.front, Connections::Fresh, 20_000);
            let share = visits.percent_of_version("1.1.0");
            println!(
                "asked {percent} %, measured {share:.2} % of {}",
                visits.total()
            );
            assert!((share - percent).abs() <= 2.0, "{share} %: {visits:?}");
            assert_eq!(visits.failed, 0, "{visits:?}");
        };
        share(20.0);
        fleet.site.cutover(&["weight", id, "10%"]).ok();
        share(10.0);
    });
    let upgraded = visits(nginx.front, Connections::Fresh, 200);
    fleet.rollback().ok();
    let back = visits(nginx.front, Connections::Fresh, 200);

    assert_eq!(
        upgraded.of_version("1.1.0"),
        upgraded.total(),
        "{upgraded:?}"
    );
    assert_eq!(back.of_version("1.0.0"), back.total(), "{back:?}");
    let (fresh, kept) = (crowd.fresh.stop(), crowd.kept.stop());
    assert_only_closed(&kept, &fresh);
}

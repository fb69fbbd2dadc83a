//! Releases with a real HAProxy behind the fake: requests follow what the control interface says, and none fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use cutover_tests::cloud::elbv2::Elbv2;
use cutover_tests::{Clients, HaProxy, Server, copy_folder, free_ports, target_folder, until};

use crate::shop::{Kind, Shop};

const GROUPS: [&str; 2] = ["blue", "green"];

/// A workspace whose instances are the example's service, behind an HAProxy that does what the fake is told.
fn served(kind: Kind) -> (Shop, HaProxy) {
    let shop = Shop::with_ports(kind, &free_ports(kind.instances()));
    for package in ["a", "b"] {
        let folder = shop.site.path(package);
        std::fs::remove_dir_all(&folder).unwrap();
        let example = target_folder().join("../../examples/shop/package");
        copy_folder(&example, &folder);
        let service = target_folder().join("shop-service");
        std::fs::copy(service, folder.join("shop-service")).unwrap();
        // Two versions are two packages.
        std::fs::write(folder.join("name"), package).unwrap();
    }
    let servers: Vec<Server> = (1..=kind.instances())
        .map(|number| {
            let address = SocketAddr::from(([127, 0, 0, 1], shop.port(number)));
            (format!("i-{number}"), address)
        })
        .collect();
    let haproxy = HaProxy::with_sides(&shop.site, &servers, &servers, "");
    let (socket, map) = (haproxy.socket, shop.site.path("maps/share.map"));
    let map = map.display().to_string();
    shop.server.with(|cloud| {
        let names: Vec<_> = servers.into_iter().map(|(name, _)| name).collect();
        cloud.follow(move |cloud| follow(cloud, &names, socket, &map));
    });
    (shop, haproxy)
}

/// Brings HAProxy to what the cloud says: a target that is healthy has traffic, one that drains keeps what it has.
fn follow(cloud: &Elbv2, names: &[String], socket: SocketAddr, map: &str) {
    let mut commands = Vec::new();
    for group in GROUPS {
        let targets = cloud.targets(group);
        for name in names {
            let target = targets
                .iter()
                .find(|it| it.starts_with(&format!("{name}:")));
            let state = match target.and_then(|it| it.rsplit_once(' ')) {
                Some((_, "healthy")) => "ready",
                Some((_, "draining")) => "drain",
                _ => "maint",
            };
            commands.push(format!("set server shop-{group}/{name} state {state}"));
        }
    }
    let weights = cloud.weights();
    let green = weights.iter().find(|(name, _)| name == "green");
    let share = green.map_or(0, |(_, weight)| *weight);
    commands.push(format!("set map {map} green {share}"));
    let mut connection = TcpStream::connect(socket).unwrap();
    writeln!(connection, "{}", commands.join("; ")).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.trim(), "", "haproxy refuses something");
}

#[test]
fn visitors_lose_nothing_in_releases_of_every_strategy_and_on_the_way_back() {
    for kind in [Kind::Rolling, Kind::BlueGreen, Kind::Canary] {
        let (shop, haproxy) = served(kind);
        // The first version comes up while nobody is there.
        assert_eq!(shop.deploy().code, 0, "{kind:?}");
        if kind == Kind::BlueGreen {
            assert_eq!(shop.deploy().code, 0, "{kind:?}");
        }

        let visitors = Clients::start(4, haproxy.percent_front);
        for answer in [shop.deploy(), shop.rollback()] {
            assert_eq!(answer.code, 0, "{kind:?}: {}", answer.stderr);
        }
        let after = visitors.count().sent;
        until("visitors come to what is there", || {
            visitors.count().sent > after + 50
        });
        let count = visitors.stop();

        assert_eq!(count.failed, 0, "{kind:?}: {count:?}");
        assert!(count.sent > 200, "{kind:?}: {count:?}");
    }
}

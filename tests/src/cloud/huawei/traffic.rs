//! The traffic of the load balancer, carried by a real HAProxy: its servers, and where requests go, follow the state.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use super::elb::{Health, HuaweiElb, Member};

/// A HAProxy with a backend `shop-POOL` for each pool.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    socket: SocketAddr,
    maps: PathBuf,
    /// What was ordered last, by what it is about, so that nothing is ordered twice.
    ordered: BTreeMap<String, String>,
}

/// A server of HAProxy.
struct Server {
    name: String,
    address: String,
}

impl Traffic {
    pub(super) fn new(socket: SocketAddr, maps: &Path) -> Self {
        Self {
            socket,
            maps: maps.to_owned(),
            ordered: BTreeMap::new(),
        }
    }

    /// Makes HAProxy do what the state says.
    pub(super) fn apply(&mut self, elb: &HuaweiElb) {
        for (name, pool) in &elb.pools {
            let backend = format!("shop-{name}");
            for server in self.servers(&backend) {
                let path = format!("{backend}/{}", server.name);
                let here = |it: &&Member| format!("{}:{}", it.address, it.port) == server.address;
                let order = match pool.members.iter().find(here) {
                    None => format!("set server {path} state maint"),
                    Some(member) if member.weight == 0 => format!("set server {path} state drain"),
                    // A check that was made before tells nothing of it.
                    Some(member) if self.is_away(&path) => format!(
                        "set server {path} weight {}; set server {path} health down; set server {path} state ready",
                        member.weight
                    ),
                    Some(member) => format!("set server {path} weight {}", member.weight),
                };
                self.order(path, order);
            }
        }
        let live = match &elb.default_pool {
            Some(pool) => format!("shop-{pool}"),
            None => "none".to_owned(),
        };
        let file = self.maps.join("live.map");
        self.order(
            "live".to_owned(),
            format!("set map {} live {live}", file.display()),
        );
        if elb.policy.exists {
            let total: u32 = elb.policy.pools.iter().map(|(_, weight)| weight).sum();
            let mut pools = elb.policy.pools.iter();
            let green = pools.find(|(pool, _)| pool == "green").map_or(0, |it| it.1);
            let percent = (green * 100).checked_div(total).unwrap_or(0);
            let file = self.maps.join("share.map");
            self.order(
                "share".to_owned(),
                format!("set map {} green {percent}", file.display()),
            );
        }
    }

    /// What HAProxy's checks say of a member; nothing where it has no such server.
    pub(super) fn health(&self, pool: &str, member: &Member) -> Option<Health> {
        let backend = format!("shop-{pool}");
        let address = format!("{}:{}", member.address, member.port);
        let servers = self.servers(&backend);
        let server = servers.iter().find(|server| server.address == address)?;
        let stat = self.ask("show stat");
        let begin = format!("{backend},{},", server.name);
        let line = stat.lines().find(|line| line.starts_with(&begin))?;
        let status = line.split(',').nth(17)?;
        Some(match status {
            "UP" | "DRAIN" => Health::Online,
            // One that was just added has had no check yet.
            _ if matches!(member.health, Health::Initial(_)) => Health::Initial(0),
            _ => Health::Offline,
        })
    }

    fn is_away(&self, path: &str) -> bool {
        let last = self.ordered.get(path);
        last.is_none_or(|order| order.ends_with("state maint") || order.ends_with("state drain"))
    }

    fn order(&mut self, about: String, order: String) {
        if self.ordered.get(&about) != Some(&order) {
            let _ = self.ask(&order);
            self.ordered.insert(about, order);
        }
    }

    fn servers(&self, backend: &str) -> Vec<Server> {
        let state = self.ask(&format!("show servers state {backend}"));
        let lines = state.lines().skip(2).filter(|line| !line.is_empty());
        let server = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            Some(Server {
                name: (*fields.get(3)?).to_owned(),
                address: format!("{}:{}", fields.get(4)?, fields.get(18)?),
            })
        };
        lines.filter_map(server).collect()
    }

    fn ask(&self, command: &str) -> String {
        let mut answer = String::new();
        // A HAProxy that has ended has no traffic any more.
        if let Ok(mut connection) = TcpStream::connect(self.socket) {
            let _ = writeln!(connection, "{command}");
            let _ = connection.read_to_string(&mut answer);
        }
        answer
    }
}

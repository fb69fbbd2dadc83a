//! The real HAProxy behind the fake: what the API was told becomes traffic.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::Server;

/// HAProxy's backend `shop`, of whose servers those get requests that are targets of the attached group.
#[derive(Debug, Clone)]
pub struct Plane {
    /// Where HAProxy takes commands.
    socket: SocketAddr,
    servers: Vec<Server>,
}

impl Plane {
    /// Takes all servers out of traffic.
    ///
    /// # Panics
    /// When HAProxy is gone.
    #[must_use]
    pub fn new(socket: SocketAddr, servers: &[Server]) -> Self {
        let plane = Self {
            socket,
            servers: servers.to_vec(),
        };
        plane.serve(&[]);
        plane
    }

    /// Sends requests to these servers, by their weights, once a health check that comes now has passed.
    pub(super) fn serve(&self, weights: &[(SocketAddr, u32)]) {
        let mut orders = Vec::new();
        // Who joins comes first, so that somebody always serves.
        for (name, address) in &self.servers {
            if let Some((_, weight)) = weights.iter().find(|(known, _)| known == address) {
                orders.push(format!("set server shop/{name} weight {weight}"));
                if !self.is_ready(name) {
                    orders.push(format!("set server shop/{name} state drain"));
                    orders.push(format!("set server shop/{name} health down"));
                    orders.push(format!("set server shop/{name} state ready"));
                }
            }
        }
        for (name, address) in &self.servers {
            if !weights.iter().any(|(known, _)| known == address) {
                orders.push(format!("set server shop/{name} state drain"));
            }
        }
        let _ = self.ask(&orders.join("; "));
    }

    /// Whether a server passes the health checks.
    pub(super) fn is_healthy(&self, address: SocketAddr) -> bool {
        let server = self.servers.iter().find(|(_, known)| *known == address);
        server.is_some_and(|(name, _)| self.status(name).starts_with("UP"))
    }

    /// Whether it was told to send a server requests. The status does not say so of one that does not answer.
    fn is_ready(&self, name: &str) -> bool {
        let table = self.ask("show servers state shop");
        let mut rows = table
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let row = rows.find(|row| row.get(3) == Some(&name));
        row.is_some_and(|row| row.get(6) == Some(&"0"))
    }

    /// The server's status in HAProxy's words.
    fn status(&self, name: &str) -> String {
        let table = self.ask("show stat");
        let row = table
            .lines()
            .find_map(|line| line.strip_prefix(&format!("shop,{name},")));
        let status = row.and_then(|row| row.split(',').nth(15));
        status.unwrap_or_default().to_owned()
    }

    fn ask(&self, command: &str) -> String {
        let mut connection = TcpStream::connect(self.socket).expect("reach haproxy");
        writeln!(connection, "{command}").expect("send the command");
        let mut answer = String::new();
        connection
            .read_to_string(&mut answer)
            .expect("read the answer");
        answer
    }
}

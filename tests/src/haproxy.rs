//! A real HAProxy on loopback.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::{Site, free_ports, until};

/// HAProxy with one backend, `shop`. It ends when it is dropped.
pub struct HaProxy {
    child: Child,
    /// Where it takes commands.
    pub socket: SocketAddr,
    /// Where it takes requests.
    pub front: SocketAddr,
}

impl HaProxy {
    /// Starts it in front of servers `NAME ADDRESS`, each with `options` such as `check inter 100ms`. It neither retries
    /// nor redispatches, so that every fault is seen.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(site: &Site, servers: &[(String, SocketAddr)], options: &str) -> Self {
        let ports = free_ports(2);
        let socket = SocketAddr::from(([127, 0, 0, 1], ports[0]));
        let front = SocketAddr::from(([127, 0, 0, 1], ports[1]));
        let mut configuration = format!(
            "global\n  stats socket ipv4@{socket} level admin\n  stats socket {} mode 600 level admin\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n  retries 0\n\
             frontend front\n  bind {front}\n  default_backend shop\n\
             backend shop\n  option httpchk GET /healthz\n",
            site.path("haproxy.sock").display()
        );
        for (name, address) in servers {
            let _ = writeln!(configuration, "  server {name} {address} {options}");
        }
        site.write("haproxy.cfg", &configuration);
        let child = Command::new("haproxy")
            .env(
                "PATH",
                format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()),
            )
            .args(["-db", "-f"])
            .arg(site.path("haproxy.cfg"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start haproxy");
        let haproxy = Self {
            child,
            socket,
            front,
        };
        until("haproxy takes commands", || {
            TcpStream::connect(socket).is_ok()
        });
        haproxy
    }

    /// Sends a command of the runtime API and returns the answer.
    ///
    /// # Panics
    /// When HAProxy is gone.
    #[must_use]
    pub fn ask(&self, command: &str) -> String {
        let mut connection = TcpStream::connect(self.socket).expect("reach haproxy");
        writeln!(connection, "{command}").expect("send the command");
        let mut answer = String::new();
        connection
            .read_to_string(&mut answer)
            .expect("read the answer");
        answer
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A real HAProxy on loopback.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::{Site, free_ports, until};

/// HAProxy. It ends when it is dropped.
pub struct HaProxy {
    child: Child,
    /// Where it takes commands.
    pub socket: SocketAddr,
    /// Where it takes requests.
    pub front: SocketAddr,
    /// Where it takes requests for the side that a percentage decides, where it has two sides.
    pub percent_front: SocketAddr,
}

/// A server's name and address.
pub type Server = (String, SocketAddr);

impl HaProxy {
    /// Starts it with one backend, `shop`, in front of servers `NAME ADDRESS`, each with `options` such as `check inter 100ms`. It neither retries
    /// nor redispatches, so that every fault is seen.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(site: &Site, servers: &[Server], options: &str) -> Self {
        let backend = backend("shop", servers, options);
        Self::run(site, |front, _| {
            format!("frontend front\n  bind {front}\n  default_backend shop\n{backend}")
        })
    }

    /// Starts it with two backends, `shop-blue` and `shop-green`. Requests at `front` go to the one that `live` in
    /// `maps/live.map` names, at first `shop-blue`; of those at `percent_front`, `green` percent in `maps/share.map` go to
    /// `shop-green`, at first none.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn with_sides(site: &Site, blue: &[Server], green: &[Server], options: &str) -> Self {
        site.write("maps/live.map", "# the live backend\nlive shop-blue\n");
        site.write("maps/share.map", "green 0\n");
        let (live, share) = (site.path("maps/live.map"), site.path("maps/share.map"));
        let (live, share) = (live.display(), share.display());
        let backends = backend("shop-blue", blue, options) + &backend("shop-green", green, options);
        Self::run(site, |front, percent_front| {
            format!(
                "frontend front\n  bind {front}\n  use_backend %[str(live),map({live})]\n\
                 frontend percent_front\n  bind {percent_front}\n  \
                 http-request set-var(txn.green) str(green),map({share},0)\n  \
                 http-request set-var(txn.die) rand(100)\n  \
                 use_backend shop-green if {{ var(txn.die),sub(txn.green) lt 0 }}\n  default_backend shop-blue\n{backends}"
            )
        })
    }

    fn run(site: &Site, sections: impl FnOnce(SocketAddr, SocketAddr) -> String) -> Self {
        let ports = free_ports(3);
        let [socket, front, percent_front] =
            [ports[0], ports[1], ports[2]].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let configuration = format!(
            "global\n  stats socket ipv4@{socket} level admin\n  stats socket {} mode 600 level admin expose-fd listeners\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n  retries 0\n{}",
            site.path("haproxy.sock").display(),
            sections(front, percent_front)
        );
        site.write("haproxy.cfg", &configuration);
        let child = Command::new("haproxy")
            .env(
                "PATH",
                format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()),
            )
            .args(["-W", "-db", "-f"])
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
            percent_front,
        };
        until("haproxy takes commands", || {
            TcpStream::connect(socket).is_ok()
        });
        haproxy
    }

    /// Makes it read its configuration again, and waits until the process that did so answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn reload(&self) {
        let worker = || {
            let mut connection = TcpStream::connect(self.socket).ok()?;
            writeln!(connection, "show info").ok()?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).ok()?;
            let pid = answer.lines().find_map(|line| line.strip_prefix("Pid: "))?;
            Some(pid.to_owned())
        };
        let before = worker().expect("a worker");
        let asked = Command::new("kill")
            .args(["-USR2", &self.child.id().to_string()])
            .status();
        assert!(asked.expect("run kill").success(), "haproxy is gone");
        until("haproxy has reloaded", || {
            worker().is_some_and(|pid| pid != before)
        });
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
        // The master ends its workers. It may be gone already.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

fn backend(name: &str, servers: &[Server], options: &str) -> String {
    let mut text = format!("backend {name}\n  option httpchk GET /healthz\n");
    for (name, address) in servers {
        let _ = writeln!(text, "  server {name} {address} {options}");
    }
    text
}

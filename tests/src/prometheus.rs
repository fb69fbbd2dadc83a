//! A real Prometheus on loopback.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{Site, free_ports, skip, until};

/// Prometheus, which reads the metrics of one target every second. It ends when it is dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it with its data in the workspace, or prints why this machine cannot have it and gives none.
    ///
    /// # Panics
    /// When it should start and does not.
    #[must_use]
    pub fn start(site: &Site, target: SocketAddr) -> Option<Self> {
        site.write(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
                 scrape_configs: [{{job_name: shop, static_configs: [{{targets: [\"{target}\"]}}]}}]\n"
            ),
        );
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports(1)[0]));
        let started = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                site.path("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                site.path("prometheus").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                skip(
                    "there is no `prometheus`: on Debian, apt-get install --no-install-recommends prometheus",
                );
                return None;
            }
            started => started.expect("start prometheus"),
        };
        let prometheus = Self { child, address };
        until("prometheus has read its target", || {
            prometheus.value("up").as_deref() == Some("1")
        });
        Some(prometheus)
    }

    /// Where it takes queries.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first number that a query of plain letters gives; none while there is no data.
    #[must_use]
    pub fn value(&self, query: &str) -> Option<String> {
        let mut connection = TcpStream::connect(self.address).ok()?;
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n");
        connection.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let answer: Value = serde_json::from_str(body).ok()?;
        let value = answer["data"]["result"][0]["value"][1].as_str()?;
        Some(value.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // What it keeps goes with the workspace, so it need not end in order. It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A real nginx on loopback, with the include files that its plugin keeps.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::{Server, Site, free_ports, until};

/// nginx in the folder `nginx` of a site, whose include files are in `nginx/cutover`. It ends when it is dropped.
pub struct Nginx {
    child: Child,
    folder: PathBuf,
    /// Where it takes requests for the upstream that `shop.split.conf` chooses; with one upstream, for that.
    pub front: SocketAddr,
    /// Where `/cutover` tells which version is live.
    pub status: SocketAddr,
}

impl Nginx {
    /// Starts it in front of upstreams, each with its servers, all of them in traffic. All requests go to the first.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(site: &Site, upstreams: &[(&str, &[Server])]) -> Self {
        let ports = free_ports(2);
        let [front, status] =
            [ports[0], ports[1]].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut blocks = String::new();
        for (name, servers) in upstreams {
            let mut lines = String::new();
            for (server, address) in *servers {
                let _ = writeln!(lines, "server {address} weight=100; # {server}");
            }
            site.write(&format!("nginx/cutover/{name}.servers"), &lines);
            let _ = writeln!(
                blocks,
                "  upstream {name} {{ include cutover/{name}.servers; keepalive 16; }}"
            );
        }
        let first = upstreams.first().map_or("", |(name, _)| name);
        site.write(
            "nginx/cutover/shop.split.conf",
            &format!("split_clients \"$request_id\" $shop_upstream {{\n    * {first};\n}}\n"),
        );
        site.write(
            "nginx/cutover/shop.version.conf",
            "map \"\" $shop_version { default \"0\"; }\n",
        );
        let said = Self::said();
        let temporary: String = ["fastcgi", "uwsgi", "scgi"]
            .iter()
            .filter(|module| !said.contains(&format!("--without-http_{module}_module")))
            .map(|module| format!("  {module}_temp_path temp/{module};\n"))
            .collect();
        let keep = if Self::keeps_connections() {
            "keepalive_min_timeout 5s;"
        } else {
            ""
        };
        // Nothing is tried twice, so that every fault is seen.
        let configuration = format!(
            "daemon off;\npid nginx.pid;\nerror_log error.log;\nworker_processes 2;\nworker_shutdown_timeout 10s;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path temp/body;\n  proxy_temp_path temp/proxy;\n{temporary}  \
             include cutover/*.conf;\n{blocks}  \
             server {{\n    listen {front};\n    {keep}\n    location / {{\n      proxy_pass http://$shop_upstream;\n      \
             proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_next_upstream off;\n    }}\n  }}\n  \
             server {{\n    listen {status};\n    location = /cutover {{ return 200 \"$shop_version $pid\\n\"; }}\n  }}\n}}\n"
        );
        site.write("nginx/nginx.conf", &configuration);
        site.write("nginx/temp/kept", "");
        let folder = site.path("nginx");
        let log = File::create(folder.join("stderr.log")).expect("make a log");
        let child = Command::new(Self::program())
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start nginx: on Debian, `apt-get install nginx-light`");
        let nginx = Self {
            child,
            folder,
            front,
            status,
        };
        until("nginx answers", || TcpStream::connect(status).is_ok());
        nginx
    }

    /// The program that is started, for a grant: Debian's, or that of `CUTOVER_TEST_NGINX`.
    #[must_use]
    pub fn program() -> String {
        std::env::var("CUTOVER_TEST_NGINX").unwrap_or_else(|_| "/usr/sbin/nginx".to_owned())
    }

    /// Whether it lets idle client connections be for a while when it reloads.
    #[must_use]
    pub fn keeps_connections() -> bool {
        let said = Self::said();
        let version = said.split_once("nginx/").map_or("", |(_, rest)| rest);
        let numbers = version.split(|c: char| !c.is_ascii_digit()).take(3);
        let numbers: Vec<u32> = numbers.filter_map(|word| word.parse().ok()).collect();
        numbers >= vec![1, 27, 4]
    }

    /// Its version and how it was built.
    fn said() -> String {
        let output = Command::new(Self::program())
            .arg("-V")
            .output()
            .expect("start nginx: on Debian, `apt-get install nginx-light`");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The plugin's configuration as JSON, with further keys.
    #[must_use]
    pub fn plugin_config(&self, more: &str) -> String {
        let (folder, status) = (self.folder.display(), self.status);
        let program = Self::program();
        format!(
            r#"{{"directory": "nginx", "name": "shop", "program": "{program}", "prefix": "{folder}", "config": "{folder}/nginx.conf",
                "ps": "/bin/ps", "status": {{"address": "tcp:{status}", "path": "/cutover"}}{more}}}"#
        )
    }

    /// Sends the master a signal, such as `HUP`.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status();
        assert!(sent.expect("run kill").success(), "nginx is gone");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers. It may be gone already.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

//! A real nginx on loopback, with the include files that its plugin keeps.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
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
    /// Starts it in front of upstreams, each with its servers, all of them in traffic, or with none. All requests go to the
    /// first upstream.
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
            // nginx refuses an upstream without servers.
            let mut lines = match servers {
                [] => "server 127.0.0.1:1 down;\n".to_owned(),
                _ => String::new(),
            };
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
            "daemon off;\npid nginx.pid;\nerror_log error.log notice;\nworker_processes 2;\nworker_shutdown_timeout 30s;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path temp/body;\n  proxy_temp_path temp/proxy;\n{temporary}  \
             include cutover/*.conf;\n{blocks}  \
             server {{\n    listen {front};\n    {keep}\n    location / {{\n      proxy_pass http://$shop_upstream;\n      \
             proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_next_upstream off;\n    }}\n  }}\n  \
             server {{\n    listen {status};\n    location = /cutover {{ return 200 \"$shop_version $pid\\n\"; }}\n    \
             location = /live {{ return 200 \"$shop_upstream\\n\"; }}\n  }}\n}}\n"
        );
        site.write("nginx/nginx.conf", &configuration);
        site.write("nginx/temp/kept", "");
        let folder = site.path("nginx");
        // It holds back one step, before it is taken or after it, while the file `hold` names it.
        site.script(
            "nginx/nginx",
            &format!(
                "#!/bin/sh\nstep=other\nfor word in \"$@\"; do case $word in -t) step=test ;; reload) step=reload ;; esac; done\n\
                 held() {{ [ \"$(cat '{0}/hold' 2>/dev/null)\" = \"$1\" ]; }}\n\
                 wait_while_held() {{ held \"$1\" || return 0; echo $$ >>'{0}/holding'; while held \"$1\"; do sleep 0.02; done; }}\n\
                 wait_while_held $step\n'{1}' \"$@\"\ncode=$?\nwait_while_held ${{step}}ed\nexit $code\n",
                folder.display(),
                Self::installed()
            ),
        );
        let log = File::create(folder.join("stderr.log")).expect("make a log");
        let child = Command::new(Self::installed())
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

    /// The program for a grant. It does what nginx does, when it is not held.
    #[must_use]
    pub fn program(&self) -> String {
        self.folder.join("nginx").display().to_string()
    }

    /// Holds back what the program does for a call: the `test` of a configuration, a `reload`, or the answer of either when
    /// it is done, `tested` and `reloaded`.
    ///
    /// # Panics
    /// When the disk fails.
    pub fn hold(&self, step: &str) {
        let _ = fs::remove_file(self.folder.join("holding"));
        fs::write(self.folder.join("hold"), step).expect("hold the program");
    }

    /// Whether something is held.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.folder.join("holding").exists()
    }

    /// Ends what is held before it does anything, and holds nothing more.
    ///
    /// # Panics
    /// When nothing is held.
    pub fn kill_held(&self) {
        let held = fs::read_to_string(self.folder.join("holding")).expect("something is held");
        for process in held.lines() {
            let killed = Command::new("kill").args(["-KILL", process]).status();
            assert!(killed.expect("run kill").success(), "it is gone");
        }
        self.release();
    }

    /// Lets everything go on.
    pub fn release(&self) {
        let _ = fs::remove_file(self.folder.join("hold"));
    }

    /// The upstream that the next request goes to.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn live_upstream(&self) -> String {
        let mut connection = TcpStream::connect(self.status).expect("reach nginx");
        write!(connection, "GET /live HTTP/1.0\r\n\r\n").expect("ask nginx");
        let mut answer = String::new();
        connection
            .read_to_string(&mut answer)
            .expect("read the answer");
        let body = answer.split_once("\r\n\r\n").expect("an answer").1;
        body.trim().to_owned()
    }

    /// How often it was reloaded.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        let log = fs::read_to_string(self.folder.join("error.log")).expect("nginx's log");
        log.lines()
            .filter(|line| line.ends_with(": reconfiguring"))
            .count() as u64
    }

    /// Debian's, or that of `CUTOVER_TEST_NGINX`.
    fn installed() -> String {
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
        let output = Command::new(Self::installed())
            .arg("-V")
            .output()
            .expect("start nginx: on Debian, `apt-get install nginx-light`");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The plugin's configuration as JSON, with further keys.
    #[must_use]
    pub fn plugin_config(&self, more: &str) -> String {
        let (folder, status) = (self.folder.display(), self.status);
        let program = self.program();
        format!(
            r#"{{"directory": "nginx", "name": "shop", "program": "{program}", "prefix": "{folder}", "config": "{folder}/nginx.conf",
                "ps": "/bin/ps", "status": {{"address": "tcp:{status}", "path": "/cutover"}}{more}}}"#
        )
    }

    /// Makes it read its configuration again, and waits until all that answers has done so.
    ///
    /// # Panics
    /// When it does not.
    pub fn reload(&self) {
        let workers = || {
            let master = self.child.id().to_string();
            let told = Command::new("ps")
                .args(["--ppid", &master, "-o", "pid="])
                .output()
                .expect("run ps");
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            told.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let before = workers();
        self.signal("HUP");
        until("nginx has replaced its workers", || {
            let present = workers();
            !present.is_empty() && before.iter().all(|worker| !present.contains(worker))
        });
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
        self.release();
        // The master ends its workers. It may be gone already.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

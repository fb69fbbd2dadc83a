//! The plugin `jdcloud` against a fake of JD Cloud's API: whole releases, everything that can go wrong with a request, and what
//! operators get to read.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

mod client;
mod faults;
mod refusals;
mod releases;
mod storage;

use std::fmt::Write as _;
use std::net::SocketAddr;

use cutover_tests::cloud::jdcloud::{JdCloud, Plane};
use cutover_tests::cloud::{CloudServer, Visit};
use cutover_tests::{Answer, HaProxy, Server, Site, copy_folder, free_ports, target_folder};

/// A workspace whose group `shop/web` is behind a load balancer of JD Cloud.
struct Shop {
    site: Site,
    servers: Vec<Server>,
    cloud: CloudServer<JdCloud>,
    haproxy: Option<HaProxy>,
}

impl Shop {
    /// Instances that run nothing, behind a load balancer that finds everybody well.
    fn idle(instances: &[&str]) -> Self {
        let site = Site::new();
        for version in ["1.0.0", "1.1.0"] {
            site.write(
                &format!("{version}/appspec.yml"),
                "version: 0.0\nos: linux\nfiles:\n  - {source: /content, destination: app}\n",
            );
            site.write(&format!("{version}/content/version.txt"), version);
        }
        Self::with(site, instances)
    }

    /// Instances of the example's service, behind a real HAProxy.
    fn serving(instances: &[&str]) -> Self {
        let site = Site::new();
        for package in ["1.0.0", "1.1.0", "silent"] {
            let folder = site.path(package);
            let example = target_folder().join("../../examples/shop/package");
            copy_folder(&example, &folder);
            let service = target_folder().join("shop-service");
            std::fs::copy(service, folder.join("shop-service")).unwrap();
        }
        // It runs, and listens where nobody looks.
        site.script(
            "silent/bin/start.sh",
            "#!/bin/sh\ncd \"$CUTOVER_ROOTDIR\"\nnohup sleep 60 >>shop.log 2>&1 &\necho $! >shop.pid\n",
        );
        site.script("silent/bin/validate.sh", "#!/bin/sh\ntrue\n");
        let mut shop = Self::with(site, instances);
        let haproxy = HaProxy::start(&shop.site, &shop.servers, "check inter 100ms rise 1 fall 1");
        let plane = Plane::new(haproxy.socket, &shop.servers);
        shop.cloud.with(|cloud| cloud.carry_by(plane));
        shop.haproxy = Some(haproxy);
        shop
    }

    fn with(site: Site, instances: &[&str]) -> Self {
        site.write("secret", "sk\n");
        site.write("token", "STS-token\n");
        let ports = free_ports(instances.len()).into_iter();
        let servers: Vec<Server> = instances
            .iter()
            .zip(ports)
            .map(|(id, port)| ((*id).to_owned(), SocketAddr::from(([127, 0, 0, 1], port))))
            .collect();
        let mut cloud = JdCloud::new();
        for (id, address) in &servers {
            cloud.machines.insert(format!("i-{id}"), *address);
        }
        Self {
            site,
            servers,
            cloud: CloudServer::start(cloud),
            haproxy: None,
        }
    }

    /// Instances whose names begin so, as the workspace lists them.
    fn instances(&self, beginning: &str) -> String {
        let mut list = String::new();
        for (id, address) in self
            .servers
            .iter()
            .filter(|(id, _)| id.starts_with(beginning))
        {
            let (rootdir, port) = (self.site.path(id), address.port());
            let separator = if list.is_empty() { "" } else { ", " };
            write!(
                list,
                "{separator}{{id: {id}, host: \"local:\", rootdir: \"{}\", address: \"{address}\", provider_id: i-{id}, env: {{PORT: \"{port}\"}}}}",
                rootdir.display()
            )
            .unwrap();
        }
        format!("[{list}]")
    }

    /// The plugin's configuration with these keys beside those that every one has.
    fn config(&self, keys: &str) -> String {
        format!(
            "{{region: cn-north-1, access_key: ak, endpoint: \"{}\", backend: backend-1, {keys}}}",
            self.cloud.endpoint()
        )
    }

    /// Writes a workspace whose group has these lines.
    fn describe(&self, group: &str) {
        let mut text = format!(
            "plugins:\n  jdcloud:\n    component: jdcloud\n    grants:\n      http: [\"{}\"]\n      \
             secrets: [{{secret-key: \"file:{}\"}}, {{session-token: \"file:{}\"}}]\n\
             applications:\n  shop:\n    groups:\n      web:\n",
            self.cloud.endpoint(),
            self.site.path("secret").display(),
            self.site.path("token").display(),
        );
        for line in group.lines() {
            writeln!(text, "        {line}").unwrap();
        }
        self.site.write("cutover.yaml", &text);
    }

    /// A rolling group, one instance at a time.
    fn rolling(&self, keys: &str) {
        self.describe(&format!(
            "strategy: {{type: rolling}}\ninstances: {}\nload_balancer: {{plugin: jdcloud, timeout: 20s, config: {}}}\n",
            self.instances("web"),
            self.config(keys)
        ));
    }

    /// Two colours.
    fn colours(&self, strategy: &str, keys: &str) {
        self.describe(&format!(
            "strategy: {{type: blue-green, concurrency: 100%{strategy}}}\n\
             sides:\n  blue: {{group: {{side: blue}}, instances: {}}}\n  green: {{group: {{side: green}}, instances: {}}}\n\
             traffic: {{plugin: jdcloud, timeout: 20s, config: {}}}\n",
            self.instances("blue"),
            self.instances("green"),
            self.config(keys)
        ));
    }

    /// A canary by the weights of one target group.
    fn canary(&self, strategy: &str, keys: &str) {
        let config = self.config(keys);
        self.describe(&format!(
            "strategy: {{type: canary, first_batch: 1, remaining_batches: 2{strategy}}}\ninstances: {}\n\
             load_balancer: {{plugin: jdcloud, timeout: 20s, config: {config}}}\n\
             traffic: {{plugin: jdcloud, timeout: 20s, config: {config}}}\n",
            self.instances("web"),
        ));
    }

    fn deploy(&self, package: &str, version: &str) -> Answer {
        self.site.cutover(&deploying(package, version))
    }

    fn rollback(&self) -> Answer {
        self.site.cutover(&["rollback", "shop/web", "--yes"])
    }

    /// The targets of the group that the backend has.
    fn live(&self) -> Vec<String> {
        self.cloud.with(|cloud| {
            let attached = cloud.attached().unwrap_or_default();
            cloud.registered().remove(&attached).unwrap_or_default()
        })
    }

    /// Such targets as [`live`](Self::live) lists, of instances with the usual weight.
    fn targets(&self, beginning: &str) -> Vec<String> {
        let servers = self.servers.iter();
        servers
            .filter(|(id, _)| id.starts_with(beginning))
            .map(|(id, address)| format!("i-{id}:{}=10", address.port()))
            .collect()
    }

    fn front(&self) -> SocketAddr {
        self.haproxy.as_ref().unwrap().front
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for (id, _) in &self.servers {
            let file = self.site.path(&format!("{id}/shop.pid"));
            if let Ok(pid) = std::fs::read_to_string(file) {
                // It may have ended by itself.
                let _ = std::process::Command::new("kill")
                    .args(["-KILL", pid.trim()])
                    .stderr(std::process::Stdio::null())
                    .status();
            }
        }
    }
}

fn deploying<'a>(package: &'a str, version: &'a str) -> [&'a str; 6] {
    [
        "deploy",
        "shop/web",
        "--package",
        package,
        "--version",
        version,
    ]
}

/// `METHOD LAST-SEGMENT` of a request.
fn call(visit: &Visit) -> String {
    let path = visit.request.path.trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let verb = last.split_once(':').map_or(last, |(_, verb)| verb);
    format!("{} {verb}", visit.request.method)
}

/// Whether a request changes something.
fn is_write(visit: &Visit) -> bool {
    visit.request.method != "GET"
}

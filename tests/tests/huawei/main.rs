//! Releases behind Huawei Cloud's load balancers: a fake of them that checks every signature, and the program as it is.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

mod faults;
mod refusals;
mod shape;
mod traffic;

use std::net::SocketAddr;

use cutover_tests::cloud::huawei::HuaweiElb;
use cutover_tests::cloud::{CloudServer, Visit};
use cutover_tests::{Answer, Site};

/// A workspace with one group, `shop/web`, on a fake cloud.
struct Shop {
    site: Site,
    cloud: CloudServer<HuaweiElb>,
    versions: std::cell::Cell<u32>,
}

/// The address of an instance by its number; nothing answers there.
fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8080))
}

impl Shop {
    /// `group` are the lines of the group. In them `INSTANCES(1, 2)` stands for instances of these numbers, and `CONFIG` for the keys that
    /// every configuration of the plugin has.
    fn new(elb: HuaweiElb, group: &str) -> Self {
        let site = Site::new();
        let cloud = CloudServer::start(elb);
        site.write("secret", HuaweiElb::SECRET_KEY);
        site.write(
            "package/appspec.yml",
            "version: 0.0\nos: linux\nfiles:\n  - {source: /content, destination: app}\n",
        );
        site.write("package/content/version.txt", "any");
        let shop = Self {
            site,
            cloud,
            versions: std::cell::Cell::new(0),
        };
        shop.describe(group);
        shop
    }

    fn describe(&self, group: &str) {
        let mut group = group.replace("CONFIG", &self.config());
        while let Some((before, rest)) = group.split_once("INSTANCES(") {
            let (numbers, after) = rest.split_once(')').unwrap();
            let instances: Vec<_> = numbers
                .split(", ")
                .map(|number| {
                    let rootdir = self.site.path(&format!("web-{number}"));
                    let address = address(number.parse().unwrap());
                    format!(
                        "{{id: web-{number}, host: \"local:\", rootdir: \"{}\", address: \"{address}\"}}",
                        rootdir.display()
                    )
                })
                .collect();
            group = format!("{before}[{}]{after}", instances.join(", "));
        }
        let mut text = format!(
            "plugins:\n  huawei:\n    component: huawei\n    grants:\n      http: [\"{}\"]\n      \
             secrets: [{{secret-key: \"file:secret\"}}, {{session-token: \"file:token\"}}]\n\
             applications:\n  shop:\n    groups:\n      web:\n",
            self.cloud.endpoint()
        );
        for line in group.lines() {
            text.push_str(&format!("        {line}\n"));
        }
        self.site.write("token", "unused");
        self.site.write("cutover.yaml", &text);
    }

    fn config(&self) -> String {
        format!(
            "region: cn-north-4, endpoint: \"{}\", project_id: {}, access_key: {}",
            self.cloud.endpoint(),
            HuaweiElb::PROJECT,
            HuaweiElb::ACCESS_KEY
        )
    }

    /// Deploys a version of its own.
    fn deploy(&self) -> Answer {
        let number = self.versions.get() + 1;
        self.versions.set(number);
        let version = format!("1.0.{number}");
        self.site.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "package",
            "--version",
            &version,
        ])
    }

    fn rollback(&self) -> Answer {
        self.site.cutover(&["rollback", "shop/web", "--yes"])
    }

    fn members(&self, pool: &str) -> Vec<String> {
        self.cloud.with(|elb| elb.members(pool))
    }
}

/// One pool, `blue`, with these instances in it.
fn rolling(numbers: &[u8], more: &str) -> Shop {
    let mut elb = HuaweiElb::new(&["blue"]);
    for number in numbers {
        elb.add_member("blue", address(*number), 1);
    }
    let numbers: Vec<_> = numbers.iter().map(u8::to_string).collect();
    let group = format!(
        "instances: INSTANCES({})\n\
         load_balancer: {{plugin: huawei, timeout: 30s, config: {{CONFIG, pool: blue, drain: 0s{more}}}}}\n",
        numbers.join(", ")
    );
    Shop::new(elb, &group)
}

/// The requests that changed something, as `METHOD PATH` below the project.
fn changes(visits: &[Visit]) -> Vec<String> {
    let writes = visits
        .iter()
        .filter(|visit| visit.request.method != "GET" && visit.is_done());
    let prefix = format!("/v3/{}/elb", HuaweiElb::PROJECT);
    writes
        .map(|visit| {
            format!(
                "{} {}",
                visit.request.method,
                visit.request.path.replace(&prefix, "")
            )
        })
        .collect()
}

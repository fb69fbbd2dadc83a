//! A workspace that releases to the fake, and what to hold a release against.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use cutover_tests::cloud::elbv2::{Elbv2, action};
use cutover_tests::cloud::{CloudServer, Fault, Request, Visit, When};
use cutover_tests::{Answer, Site};
use serde_json::{Value, json};

use crate::account::{ACCESS_KEY, SECRET_KEY};

/// How a group is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Two instances in `blue`.
    Rolling,
    /// One instance in `blue` with the traffic, one in `green`.
    BlueGreen,
    /// Three instances in `blue`, which move to `green` and back.
    Canary,
}

/// The group `shop/web` and its cloud, with targets that take next to no time.
pub(crate) struct Shop {
    pub(crate) site: Site,
    pub(crate) server: CloudServer<Elbv2>,
    pub(crate) kind: Kind,
    ports: Vec<u16>,
    versions: std::cell::Cell<usize>,
}

/// What the hooks of one instance say in a deployment behind a balancer.
pub(crate) const HOOKS: [&str; 9] = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

impl Shop {
    /// A workspace with version 1.0.0 on every instance of the first side, and in traffic there.
    pub(crate) fn new(kind: Kind) -> Self {
        let ports: Vec<u16> = (8081..).take(kind.instances()).collect();
        Self::with_ports(kind, &ports)
    }

    /// The same, with ports that something may listen on.
    pub(crate) fn with_ports(kind: Kind, ports: &[u16]) -> Self {
        let mut cloud = Elbv2::new(ACCESS_KEY, SECRET_KEY, &["blue", "green"]);
        for group in ["blue", "green"] {
            let group = cloud.group(group);
            group.delay = Duration::from_millis(60);
            group.initial = Duration::from_millis(60);
        }
        for number in 1..=kind.instances() {
            let group = match (kind, number) {
                (Kind::BlueGreen, 2) => "green",
                _ => "blue",
            };
            cloud.register(group, &format!("i-{number}"), ports[number - 1]);
        }
        let shop = Self {
            site: Site::new(),
            server: CloudServer::start(cloud),
            kind,
            ports: ports.to_vec(),
            versions: std::cell::Cell::new(0),
        };
        shop.write(json!({}));
        shop.site.write("secret", SECRET_KEY);
        for package in ["a", "b"] {
            shop.site.traced_package(package, package, "");
        }
        shop
    }

    /// Writes the workspace's file, with further keys of the plugin's configuration.
    pub(crate) fn write(&self, more: Value) {
        let instance = |number: usize| {
            let port = self.port(number);
            format!(
                "{{id: web-{number}, host: \"local:\", rootdir: \"{}\", address: \"127.0.0.1:{port}\", provider_id: i-{number}, \
                 env: {{PORT: \"{port}\"}}}}",
                self.site.path(&format!("web-{number}")).display()
            )
        };
        let config = |own: Value| {
            let mut config = json!({
                "region": "us-east-1", "endpoint": self.server.endpoint(), "access_key": ACCESS_KEY, "timeout": "2s",
            });
            for more in [own, more.clone()] {
                for (key, value) in more.as_object().unwrap() {
                    config[key] = value.clone();
                }
            }
            config
        };
        let (blue, green) = (Elbv2::group_arn("blue"), Elbv2::group_arn("green"));
        let listener = Elbv2::listener_arn();
        let mut text = format!(
            "plugins:\n  aws:\n    component: aws\n    grants: {{http: [\"{}\"], secrets: [{{secret-key: \"file:{}\"}}]}}\n\
             applications:\n  shop:\n    groups:\n      web:\n",
            self.server.endpoint(),
            self.site.path("secret").display()
        );
        let traffic = config(json!({"listener": listener}));
        let rest = match self.kind {
            Kind::Rolling => format!(
                "strategy: {{type: rolling}}\n        load_balancer: {{plugin: aws, timeout: 30s, config: {}}}\n",
                config(json!({"target_group": blue}))
            ),
            Kind::BlueGreen => format!(
                "strategy: {{type: blue-green}}\n        traffic: {{plugin: aws, timeout: 30s, config: {traffic}}}\n        \
                 sides:\n          blue: {{group: {{target_group: \"{blue}\"}}, instances: [{}]}}\n          \
                 green: {{group: {{target_group: \"{green}\"}}, instances: [{}]}}\n",
                instance(1),
                instance(2)
            ),
            Kind::Canary => format!(
                "strategy: {{type: canary, first_batch: 1, remaining_batches: 1, traffic: 30%, promote: {{after: 1s}}}}\n        \
                 load_balancer: {{plugin: aws, timeout: 30s, config: {}}}\n        \
                 traffic: {{plugin: aws, timeout: 30s, config: {traffic}}}\n        \
                 sides: {{current: {{group: {{target_group: \"{blue}\"}}}}, new: {{group: {{target_group: \"{green}\"}}}}}}\n",
                config(json!({}))
            ),
        };
        let _ = write!(text, "        {rest}");
        if self.kind != Kind::BlueGreen {
            text.push_str("        instances:\n");
            for number in 1..=self.kind.instances() {
                let _ = writeln!(text, "          - {}", instance(number));
            }
        }
        self.site.write("cutover.yaml", &text);
    }

    /// The port of an instance.
    pub(crate) fn port(&self, number: usize) -> u16 {
        self.ports[number - 1]
    }

    /// Deploys the next version.
    pub(crate) fn deploy(&self) -> Answer {
        let number = self.versions.replace(self.versions.get() + 1);
        let package = ["a", "b"][number % 2];
        let version = format!("1.0.{number}");
        self.site.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            package,
            "--version",
            &version,
        ])
    }

    pub(crate) fn rollback(&self) -> Answer {
        self.site.cutover(&["rollback", "shop/web"])
    }

    /// Lets something go wrong with a call.
    pub(crate) fn inject(&self, call: &'static str, nth: usize, fault: &Fault) {
        self.server.inject(calling(call).nth(nth), fault.clone());
    }

    /// The targets of both groups, one a line.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.server.with(|cloud| {
            let told = |group| {
                let targets = cloud.targets(group).into_iter();
                targets.map(move |target| format!("{group} {target}"))
            };
            told("blue").chain(told("green")).collect()
        })
    }

    /// The weights of `blue` and `green` in the listener.
    pub(crate) fn weights(&self) -> [u32; 2] {
        let weights = self.server.with(|cloud| cloud.weights());
        ["blue", "green"].map(|name| {
            let weight = weights.iter().find(|(known, _)| known == name);
            weight.map_or(0, |(_, weight)| *weight)
        })
    }

    /// Which of `blue` and `green` has all the traffic.
    pub(crate) fn side(&self) -> usize {
        let weights = self.weights();
        weights.iter().position(|weight| *weight == 100).unwrap()
    }

    /// Why the newest release failed.
    pub(crate) fn reason(&self) -> String {
        let report = self.site.report();
        let mut reasons = vec![report["reason"].as_str().unwrap_or_default().to_owned()];
        let deployments = report["deployments"].as_array().unwrap();
        for deployment in deployments {
            for instance in deployment["instances"].as_array().unwrap() {
                reasons.push(instance["reason"].as_str().unwrap_or_default().to_owned());
                for step in instance["steps"].as_array().unwrap() {
                    reasons.push(step["reason"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        reasons.join("\n")
    }
}

impl Drop for Shop {
    /// Ends the services that hooks have left running.
    fn drop(&mut self) {
        for number in 1..=self.kind.instances() {
            let file = self.site.path(&format!("web-{number}/shop.pid"));
            if let Ok(pid) = std::fs::read_to_string(file) {
                let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
            }
        }
    }
}

impl Kind {
    pub(crate) fn instances(self) -> usize {
        match self {
            Self::Rolling | Self::BlueGreen => 2,
            Self::Canary => 3,
        }
    }
}

/// Requests that make this call.
pub(crate) fn calling(call: &'static str) -> When {
    When::matching(move |request| action(request) == call)
}

/// Whether a request changes something.
fn is_change(request: &Request) -> bool {
    !action(request).starts_with("Describe")
}

/// What a request changes: its action with the target or the place that it is about.
fn change_of(request: &Request) -> String {
    let form = request.form();
    let value = |name: &str| {
        let mut form = form.iter();
        form.find_map(|(known, value)| (known == name).then(|| value.clone()))
            .unwrap_or_default()
    };
    let group = value("TargetGroupArn");
    let group = group.split('/').nth(1).unwrap_or_default();
    match value("Targets.member.1.Id") {
        id if id.is_empty() => {
            let forms = form.iter().filter(|(name, _)| name.ends_with(".Weight"));
            let weights: Vec<_> = forms.map(|(_, weight)| weight.as_str()).collect();
            format!("{} {}", action(request), weights.join(":"))
        }
        id => format!("{} {group} {id}", action(request)),
    }
}

/// The changes that the cloud made, in their order.
pub(crate) fn changes(visits: &[Visit]) -> Vec<String> {
    let made = visits
        .iter()
        .filter(|visit| is_change(&visit.request) && visit.is_done());
    made.map(|visit| change_of(&visit.request)).collect()
}

/// After a change of which nobody knew what became, what is asked next is how things are.
#[track_caller]
pub(crate) fn assert_read_before_retry(visits: &[Visit], about: &str) {
    for (place, visit) in visits.iter().enumerate() {
        let is_unknown = matches!(
            visit.fault,
            Some(
                Fault::ResetBefore
                    | Fault::ResetAfter
                    | Fault::TakenButRefused(_)
                    | Fault::Refused(_)
                    | Fault::Late(_)
            )
        );
        if is_unknown && is_change(&visit.request) {
            let next = &visits[place + 1].request;
            assert!(
                !is_change(next),
                "{about}: {} came right after a lost {}",
                change_of(next),
                change_of(&visit.request)
            );
        }
    }
}

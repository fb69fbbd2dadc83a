//! Gates that plugins decide: web servers that are asked, and a real Prometheus.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use cutover_tests::{Answer, Prometheus, Site, WebServer, free_ports, until};
use serde_json::{Value, json};

/// Two instances with a web server each, and a server of metrics that Prometheus reads.
struct Shop {
    site: Site,
    web: [WebServer; 2],
    prometheus: Prometheus,
    _metrics: WebServer,
}

impl Shop {
    /// A workspace whose releases wait at `gates`. Of versions 1.0.0 to 3.0.0, each says how many of its requests fail as
    /// soon as it starts: 0.002, 0.2, and nothing. None where there is no Prometheus.
    fn new(gates: impl FnOnce(&Prometheus) -> String) -> Option<Self> {
        let site = Site::new();
        let file = site.path("metrics");
        let metrics =
            WebServer::start(move |_| WebServer::found(&std::fs::read(&file).unwrap_or_default()));
        let prometheus = Prometheus::start(&site, metrics.address())?;
        let web = [(); 2].map(|()| WebServer::start(|_| WebServer::found(b"fine")));
        let shop = Self {
            site,
            web,
            prometheus,
            _metrics: metrics,
        };
        let granted = [0, 1].map(|number| shop.web[number].url(""));
        shop.workspace(&granted, &gates(&shop.prometheus));
        for (version, ratio) in [
            ("1.0.0", Some("0.002")),
            ("2.0.0", Some("0.2")),
            ("3.0.0", None),
        ] {
            let says = ratio.map_or_else(String::new, |ratio| shop.says(version, ratio));
            shop.site.traced_package(version, version, &says);
        }
        Some(shop)
    }

    fn workspace(&self, instances_granted: &[String], gates: &str) {
        let mut text = format!(
            "plugins:\n  http-check:\n    component: http-check\n    grants: {{http: {instances_granted:?}, secrets: [key: file:key]}}\n  \
             prometheus:\n    component: prometheus\n    grants: {{http: [\"{}\"]}}\n\
             applications:\n  shop:\n    groups:\n      web:\n        strategy: {{type: rolling, batches: 2}}\n        instances:\n",
            self.prometheus.url()
        );
        for (index, web) in self.web.iter().enumerate() {
            let id = format!("web-{}", index + 1);
            let rootdir = self.site.path(&id);
            let _ = writeln!(
                text,
                "          - {{id: {id}, host: \"local:\", rootdir: \"{}\", address: \"{}\"}}",
                rootdir.display(),
                web.address()
            );
        }
        text.push_str("        gates:\n");
        text.push_str(gates);
        self.site.write("key", "hunter2\n");
        self.site.write("cutover.yaml", &text);
    }

    /// A line of shell that makes a version's share of failed requests known.
    fn says(&self, version: &str, ratio: &str) -> String {
        format!(
            "test $LIFECYCLE_EVENT != ApplicationStart || echo 'shop_errors{{version=\"{version}\"}} {ratio}' > '{}'",
            self.site.path("metrics").display()
        )
    }

    fn deploy(&self, version: &str) -> Answer {
        self.site.cutover(&deploy(version))
    }

    fn versions(&self) -> [String; 2] {
        [1, 2].map(|number| {
            let installed = self.site.path(&format!("web-{number}/app/version.txt"));
            std::fs::read_to_string(installed).unwrap_or_default()
        })
    }
}

fn deploy(version: &str) -> [&str; 6] {
    [
        "deploy",
        "shop/web",
        "--package",
        version,
        "--version",
        version,
    ]
}

/// A gate that every instance with the version has to answer.
const ANSWERS: &str = "          - {name: answers, plugin: http-check, interval: 1s, config: {url: \"http://{{address}}/healthz?version={{version}}\", \
     headers: {x-key: \"{{secret:key}}\"}}}\n";

/// A gate that asks Prometheus for the share of failed requests of the version.
fn errors(prometheus: &Prometheus, more: &str) -> String {
    format!(
        "          - name: errors\n            plugin: prometheus\n            interval: 1s\n{more}            config:\n              \
         url: {}\n              query: 'shop_errors{{version=\"{{{{version}}}}\"}}'\n              pass: \"< 0.01\"\n              fail: \"> 0.05\"\n",
        prometheus.url()
    )
}

fn both(prometheus: &Prometheus) -> String {
    format!(
        "{ANSWERS}{}",
        errors(prometheus, "            on_fail: rollback\n")
    )
}

/// The name, the batch and the status of each hold.
fn holds(deployment: &Value) -> Vec<String> {
    let holds = deployment["holds"].as_array().unwrap();
    holds
        .iter()
        .map(|hold| {
            let text = |key: &str| hold[key].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {}",
                text("name"),
                hold["after_batch"],
                text("status")
            )
        })
        .collect()
}

#[test]
fn a_release_whose_gates_pass_goes_on_with_the_evidence_in_its_report() {
    let Some(shop) = Shop::new(both) else { return };

    shop.deploy("1.0.0").ok();

    assert_eq!(shop.versions(), ["1.0.0", "1.0.0"]);
    let report = shop.site.report();
    let deployment = &report["deployments"][0];
    assert_eq!(
        holds(deployment),
        [
            "answers 1 PASSED",
            "errors 1 PASSED",
            "answers 2 PASSED",
            "errors 2 PASSED"
        ]
    );
    let evidence = |hold: usize| deployment["holds"][hold]["evidence"].clone();
    let answered = |web: usize| json!({"name": format!("GET {}", shop.web[web].url("/healthz")), "value": "status 200", "threshold": "200-299", "verdict": "PASSED"});
    assert_eq!(evidence(0), json!([answered(0)]));
    assert_eq!(evidence(2), json!([answered(0), answered(1)]));
    let measured = evidence(1);
    assert_eq!(measured[0]["value"], "0.002", "{measured}");
    assert_eq!(measured[0]["threshold"], "pass < 0.01, fail > 0.05");
    let series = measured[0]["name"].as_str().unwrap();
    assert!(series.starts_with("shop_errors{instance="), "{series}");
    assert!(series.ends_with("version=\"1.0.0\"}"), "{series}");
    let asked = shop.web[1].asked();
    let asked = asked.last().unwrap();
    assert!(asked.contains("/healthz?version=1.0.0"), "{asked}");
    assert!(asked.contains("x-key: hunter2"), "{asked}");
}

#[test]
fn a_version_with_too_many_errors_is_taken_back_with_the_number_and_its_limit() {
    let Some(shop) = Shop::new(both) else { return };
    shop.deploy("1.0.0").ok();

    let failed = shop.deploy("2.0.0");

    assert_eq!(failed.code, 4, "{}", failed.stderr);
    assert_eq!(shop.versions(), ["1.0.0", "1.0.0"]);
    let report = shop.site.report();
    assert_eq!(report["status"], "FAILED");
    let deployment = &report["deployments"][0];
    assert_eq!(holds(deployment), ["answers 1 PASSED", "errors 1 FAILED"]);
    let reason = deployment["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("gate `errors` failed: shop_errors{"),
        "{reason}"
    );
    assert!(
        reason.ends_with(" is 0.2, wanted pass < 0.01, fail > 0.05"),
        "{reason}"
    );
    assert_eq!(report["deployments"][1]["direction"], "rollback");
    assert_eq!(report["deployments"][1]["status"], "SUCCEEDED");
    let told = " is 0.2, wanted pass < 0.01, fail > 0.05";
    assert!(failed.stderr.contains(told), "{}", failed.stderr);
}

/// A release of 3.0.0 that its gate has paused, because nobody says how many requests fail.
fn undecided() -> Option<(Shop, String)> {
    let timeout = "            timeout: 2s\n            after: first\n";
    let shop = Shop::new(|prometheus| errors(prometheus, timeout))?;

    let paused = shop.deploy("3.0.0");

    assert_eq!(paused.code, 7, "{}", paused.stderr);
    let report = shop.site.report();
    assert_eq!(report["status"], "PAUSED");
    assert_eq!(holds(&report["deployments"][0]), ["errors 1 INCONCLUSIVE"]);
    let reason = report["deployments"][0]["holds"][0]["reason"]
        .as_str()
        .unwrap();
    assert!(
        reason.ends_with("query `shop_errors{version=\"3.0.0\"}` has no data"),
        "{reason}"
    );
    assert_eq!(shop.versions(), ["3.0.0", ""]);
    let id = report["id"].as_str().unwrap().to_owned();
    Some((shop, id))
}

#[test]
fn without_data_a_release_pauses_and_goes_on_when_a_person_approves() {
    let Some((shop, id)) = undecided() else {
        return;
    };

    shop.site
        .cutover(&[
            "approve",
            &id,
            "--gate",
            "errors",
            "--comment",
            "no visitors at night",
        ])
        .ok();

    assert_eq!(shop.versions(), ["3.0.0", "3.0.0"]);
    let report = shop.site.report();
    assert_eq!(report["status"], "SUCCEEDED");
    let deployment = &report["deployments"][0];
    assert_eq!(
        holds(deployment),
        ["errors 1 INCONCLUSIVE", "errors 1 PASSED"]
    );
    let hold = &deployment["holds"][1];
    assert_eq!(hold["reason"], "no visitors at night");
    assert!(hold["by"].as_str().unwrap().starts_with("ann@"), "{hold}");
}

#[test]
fn without_data_a_release_pauses_and_goes_on_when_it_is_resumed_with_data() {
    let Some((shop, id)) = undecided() else {
        return;
    };

    shop.site
        .write("metrics", "shop_errors{version=\"3.0.0\"} 0.001\n");
    until("prometheus has the metric", || {
        shop.prometheus.value("shop_errors").is_some()
    });
    shop.site.cutover(&["resume", &id]).ok();

    assert_eq!(shop.versions(), ["3.0.0", "3.0.0"]);
    let holds = &shop.site.report()["deployments"][0]["holds"];
    let last = holds.as_array().unwrap().last().unwrap();
    assert_eq!(last["status"], "PASSED");
    assert_eq!(last["evidence"][0]["value"], "0.001");
}

#[test]
fn neither_the_headers_nor_the_query_of_a_request_are_in_the_log() {
    let Some(shop) = Shop::new(both) else { return };

    let released = shop
        .site
        .command(&deploy("1.0.0"))
        .env("CUTOVER_LOG", "trace")
        .output()
        .unwrap();
    let released = Answer::from(released).ok();

    let log = &released.stderr;
    let mut lines = log.lines();
    let asked = lines.find(|line| line.contains("HTTP request") && line.contains("/healthz"));
    assert!(asked.is_some(), "nothing was logged: {log}");
    for line in log.lines() {
        // The unescaped query is among the evidence, which is the operator's to see.
        for part in ["hunter2", "x-key", "healthz?", "query?", "shop_errors%7B"] {
            assert!(!line.contains(part), "`{part}` is in: {line}");
        }
    }
}

/// The errors that `check` finds with these grants and gates. A release must not begin with them either.
fn found(shop: &Shop, instances_granted: &[String], gates: &str) -> String {
    shop.workspace(instances_granted, gates);

    let (checked, deployed) = (shop.site.cutover(&["check"]), shop.deploy("1.0.0"));

    assert_eq!((checked.code, deployed.code), (3, 3), "{}", deployed.stderr);
    let place = "error: cutover.yaml:17:13: ";
    assert!(deployed.stderr.contains(place), "{}", deployed.stderr);
    shop.site.assert_untouched();
    let lines = checked.stdout.lines();
    let errors = lines.filter(|line| !line.contains(": warning: "));
    errors.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_check_finds_what_gates_cannot_work_with_at_the_place_of_each() {
    let Some(shop) = Shop::new(both) else { return };
    let gates = format!(
        "{ANSWERS}{}",
        errors(&shop.prometheus, "").replace("> 0.05", "> 0.005")
    );

    let found = found(&shop, &[shop.web[0].url("")], &gates);

    let address = shop.web[1].url("");
    assert_eq!(
        found,
        format!(
            "cutover.yaml:17:13: ask plugin `http-check` about gate `answers` of shop/web: \
             plugin `http-check` may not use HTTP host `{address}`: it is not granted\n  \
             hint: grant it in the workspace file: plugins.http-check.grants.http: [\"{address}\"]\n\
             cutover.yaml:18:13: the config of gate `errors` of shop/web is not valid: \
             /fail: some values would pass and fail: let `pass` and `fail` exclude each other\n"
        )
    );
}

#[test]
fn a_check_asks_prometheus_whether_the_query_can_be_answered() {
    let Some(shop) = Shop::new(both) else { return };
    let gates = errors(&shop.prometheus, "")
        .replace("'shop_errors", "'sum(shop_errors")
        .replace("pass:", "wait: 1m\n              pass:");

    let found = found(&shop, &[], &gates);

    let expected = "cutover.yaml:17:13: ask plugin `prometheus` about gate `errors` of shop/web: \
        query `sum(shop_errors{version=\"0.0.0\"}` cannot be used: ";
    assert!(found.starts_with(expected), "{found}");
    assert!(found.contains("unclosed left parenthesis"), "{found}");
}

#[test]
fn a_check_warns_where_prometheus_does_not_answer() {
    let Some(shop) = Shop::new(both) else { return };
    let away = format!("http://127.0.0.1:{}", free_ports(1)[0]);
    shop.workspace(&[], &errors(&shop.prometheus, ""));
    let text = std::fs::read_to_string(shop.site.path("cutover.yaml")).unwrap();
    let text = text.replace(&shop.prometheus.url(), &away);
    shop.site.write("cutover.yaml", &text);

    let checked = shop.site.cutover(&["check"]).ok();

    let expected = "cutover.yaml:17:13: warning: gate `errors` of shop/web cannot be asked: ";
    assert!(checked.stdout.contains(expected), "{}", checked.stdout);
}

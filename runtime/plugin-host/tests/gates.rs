//! The gates that are shipped, over real HTTP.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::Timestamp;
use plugin_host::gate::{Input, Target, Verdict};
use plugin_host::{
    CallError, FailureClass, Grants, Host, HostOptions, OpContext, Plugin, Secret, Secrets,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

/// The folder of built plugins.
fn plugins() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
    std::env::var_os("CUTOVER_TEST_PLUGINS").map_or_else(default, PathBuf::from)
}

/// A plugin, granted hosts and the secret `token`, in calls of at most two seconds.
async fn load(root: &Path, name: &str, http: &[String]) -> Arc<Plugin> {
    let path = plugins().join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "run `cargo xtask plugins` first: there is no `{}`",
        path.display()
    );
    let mut options = HostOptions::new(root.join("compiled"));
    options.limits.deadline = Duration::from_secs(2);
    options.limits.http_response_body = 1000;
    let grants = Grants {
        http: http.to_vec(),
        secrets: vec!["token".to_owned()],
        ..Grants::default()
    };
    let secrets: Secrets = [("token", Secret::new("hunter2\n"))].into_iter().collect();
    let host = Host::new(options).unwrap();
    host.load(name.parse().unwrap(), &path, &grants, secrets)
        .await
        .unwrap()
}

/// A web server that answers everything with the same bytes, or with nothing.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answer, asking) = (answer.replace('\n', "\r\n"), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut head = String::new();
                let mut lines = BufReader::new(&mut connection);
                while !head.ends_with("\r\n\r\n") && lines.read_line(&mut head).await.unwrap() > 0 {
                }
                asking.lock().unwrap().push(head);
                if answer.is_empty() {
                    silent.push(connection);
                } else {
                    connection.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { url, asked, task }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const HEALTHY: &str =
    "HTTP/1.1 200 OK\ncontent-length: 15\nconnection: close\n\n{\"status\":\"UP\"}";

fn input() -> Input {
    Input {
        group: "shop/web".to_owned(),
        release_id: "r".to_owned(),
        deployment_id: "r-1".to_owned(),
        version: "1.2.0".to_owned(),
        batch: 1,
        of_batches: 2,
        targets: Vec::new(),
        since: Timestamp(0),
        parameters: String::new(),
    }
}

async fn evaluate(plugin: &Plugin, config: &str) -> Result<Verdict, CallError> {
    plugin
        .evaluate_gate(&OpContext::default(), config, &input())
        .await
}

/// What `http-check` says about a server when these hosts are granted.
async fn check(url: &str, granted: &[String]) -> Result<Verdict, CallError> {
    let root = tempfile::tempdir().unwrap();
    let plugin = load(root.path(), "http-check", granted).await;
    evaluate(&plugin, &format!(r#"{{"url":"{url}/health"}}"#)).await
}

#[tokio::test]
async fn a_server_that_answers_as_expected_lets_the_deployment_pass() {
    let server = Server::start(HEALTHY).await;
    let root = tempfile::tempdir().unwrap();
    let plugin = load(root.path(), "http-check", std::slice::from_ref(&server.url)).await;
    let config = format!(
        r#"{{"url":"{}/health?v={{{{version}}}}","body":{{"pointer":"/status","equals":"UP"}},
            "headers":{{"Authorization":"Bearer {{{{secret:token}}}}"}}}}"#,
        server.url,
    );

    let verdict = evaluate(&plugin, &config).await.unwrap();

    let Verdict::Pass(evidence) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(evidence[0].value, "status 200");
    let asked = server.asked();
    assert!(
        asked[0].starts_with("GET /health?v=1.2.0 HTTP/1.1\r\n"),
        "{asked:?}"
    );
    let head = asked[0].to_ascii_lowercase();
    assert!(head.contains("authorization: bearer hunter2\r\n"), "{head}");
}

#[tokio::test]
async fn attempts_are_made_until_enough_are_right_in_a_row() {
    let server = Server::start(HEALTHY).await;
    let root = tempfile::tempdir().unwrap();
    let plugin = load(root.path(), "http-check", std::slice::from_ref(&server.url)).await;
    let config = r#"{"url":"http://{{address}}/","successes":2,"interval":"10ms","status":[200]}"#
        .to_owned();
    let (ctx, mut input) = (OpContext::default(), input());
    input.targets = vec![Target {
        id: "web-1".to_owned(),
        address: Some(server.url.trim_start_matches("http://").to_owned()),
    }];

    let first = plugin.evaluate_gate(&ctx, &config, &input).await.unwrap();
    let Verdict::Pending(pending) = first else {
        panic!("{first:?}")
    };
    let second = plugin
        .poll_gate(&ctx, &config, &input, &pending.token)
        .await
        .unwrap();

    assert_eq!(pending.message, "1 of 2 in a row");
    assert!(matches!(second, Verdict::Pass(_)), "{second:?}");
}

#[tokio::test]
async fn a_host_that_is_not_granted_is_denied_with_the_line_that_grants_it() {
    let server = Server::start(HEALTHY).await;
    let https = server.url.replace("http://", "https://");

    for granted in [Vec::new(), vec![https]] {
        let error = check(&server.url, &granted).await.unwrap_err();

        let failure = error.failure().unwrap();
        assert_eq!(failure.class, FailureClass::Denied);
        let line = format!("plugins.http-check.grants.http: [{:?}]", server.url);
        assert_eq!(failure.hint.as_deref(), Some(&*line), "{failure:?}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_private_address_needs_a_grant_that_names_it() {
    let server = Server::start(HEALTHY).await;

    let error = check(&server.url, &["http://*".to_owned()])
        .await
        .unwrap_err();

    let failure = error.failure().unwrap();
    assert_eq!(failure.class, FailureClass::Denied);
    assert!(
        failure.message.contains("this machine itself"),
        "{failure:?}"
    );
    assert!(failure.hint.as_deref().unwrap().contains(&server.url));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn the_credentials_of_machines_are_out_of_reach_whatever_is_granted() {
    let url = "http://169.254.169.254".to_owned();

    let error = check(&url, std::slice::from_ref(&url)).await.unwrap_err();

    let failure = error.failure().unwrap();
    assert_eq!(failure.class, FailureClass::Denied);
    assert!(
        failure.message.contains("give machines their credentials"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_redirect_leads_nowhere_by_itself() {
    let other = Server::start(HEALTHY).await;
    let redirect = format!(
        "HTTP/1.1 302 Found\nlocation: {}/\ncontent-length: 0\nconnection: close\n\n",
        other.url
    );
    let server = Server::start(&redirect).await;

    let verdict = check(&server.url, std::slice::from_ref(&server.url))
        .await
        .unwrap();

    let Verdict::Fail(evidence) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(evidence[0].value, "status 302");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_too_long_fails_the_check() {
    let long = format!("HTTP/1.1 200 OK\nconnection: close\n\n{}", "x".repeat(1001));
    let server = Server::start(&long).await;

    let verdict = check(&server.url, std::slice::from_ref(&server.url))
        .await
        .unwrap();

    let Verdict::Fail(evidence) = verdict else {
        panic!("{verdict:?}")
    };
    assert!(
        evidence[0]
            .value
            .ends_with("the answer has more than 1000 bytes"),
        "{evidence:?}"
    );
}

#[tokio::test]
async fn a_server_that_never_answers_fails_the_check_before_the_calls_deadline() {
    let server = Server::start("").await;

    let verdict = check(&server.url, std::slice::from_ref(&server.url))
        .await
        .unwrap();

    let Verdict::Fail(evidence) = verdict else {
        panic!("{verdict:?}")
    };
    assert!(
        evidence[0].value.contains("no whole answer came within"),
        "{evidence:?}"
    );
}

#[tokio::test]
async fn a_query_that_prometheus_answers_is_held_against_its_thresholds() {
    let body = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"shop"},"value":[1,"0.5"]}]}}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\ncontent-length: {}\nconnection: close\n\n{body}",
        body.len()
    );
    let server = Server::start(&answer).await;
    let root = tempfile::tempdir().unwrap();
    let plugin = load(root.path(), "prometheus", std::slice::from_ref(&server.url)).await;
    let config = |pass: &str| {
        format!(
            r#"{{"url":"{}","query":"errors{{v=\"{{{{version}}}}\"}}","pass":"{pass}"}}"#,
            server.url
        )
    };

    let passed = evaluate(&plugin, &config("< 1")).await.unwrap();
    let failed = evaluate(&plugin, &config("< 0.1")).await.unwrap();

    assert!(matches!(passed, Verdict::Pass(_)), "{passed:?}");
    assert!(matches!(failed, Verdict::Fail(_)), "{failed:?}");
    let asked = server.asked();
    assert!(
        asked[0].starts_with("GET /api/v1/query?query=errors%7Bv%3D%221.2.0%22%7D HTTP/1.1"),
        "{asked:?}"
    );
}

//! Plugins that crash, hang, eat memory and lie, built from Rust as an author would build them.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plugin_host::load_balancer::{Member, Pool};
use plugin_host::traffic::{Purpose, Share, Side, Split};
use plugin_host::{
    Failure, FailureClass, Grants, Host, HostOptions, OpContext, Plugin, Secrets, code,
};

/// The folder of built components.
fn components() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/components");
    std::env::var_os("CUTOVER_TEST_COMPONENTS").map_or_else(default, PathBuf::from)
}

struct Loaded {
    plugin: Arc<Plugin>,
    _cache: tempfile::TempDir,
}

async fn load(name: &str) -> Loaded {
    let path = components().join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "run `cargo xtask components` first: there is no `{}`",
        path.display()
    );
    let cache = tempfile::tempdir().unwrap();
    let mut options = HostOptions::new(cache.path());
    // Debug builds of the host leave the plugins' own speed alone, so a second is plenty for those that do answer.
    options.limits.deadline = if name == "hanging" {
        Duration::from_millis(500)
    } else {
        Duration::from_secs(30)
    };
    let host = Host::new(options).unwrap();
    let loaded = host
        .load(
            name.parse().unwrap(),
            &path,
            &Grants::default(),
            Secrets::default(),
        )
        .await;
    Loaded {
        plugin: loaded.unwrap(),
        _cache: cache,
    }
}

async fn register(loaded: &Loaded) -> Failure {
    let member = Member {
        target_id: "web-1".to_owned(),
        port: 80,
        ..Member::default()
    };
    let error = loaded
        .plugin
        .register(&OpContext::default(), "{}", &Pool::default(), &[member])
        .await
        .unwrap_err();
    error.failure().unwrap().clone()
}

async fn status(loaded: &Loaded) -> Failure {
    let asked = ["web-1".to_owned()];
    let error = loaded
        .plugin
        .status(&OpContext::default(), "{}", &Pool::default(), &asked)
        .await
        .unwrap_err();
    error.failure().unwrap().clone()
}

#[tokio::test]
async fn a_crash_leaves_the_outcome_unknown() {
    let plugin = load("trapping").await;

    let failure = register(&plugin).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::UnknownOutcome, code::TRAP)
    );
    assert!(
        failure
            .message
            .starts_with("plugin `trapping` crashed in `load-balancer.register`"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_hang_is_ended_at_the_deadline() {
    let plugin = load("hanging").await;

    let failure = register(&plugin).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::UnknownOutcome, code::DEADLINE)
    );
}

#[tokio::test]
async fn hunger_ends_at_the_memory_limit() {
    let plugin = load("hungry").await;

    let failure = register(&plugin).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::UnknownOutcome, code::MEMORY)
    );
    assert!(
        failure.message.contains("memory limit of 256 MiB"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_lie_is_found_out() {
    let plugin = load("lying").await;

    let failure = status(&plugin).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::Permanent, code::PROTOCOL)
    );
    assert!(
        failure.message.contains("which was not asked"),
        "{failure:?}"
    );
}

fn blue_and_green() -> Vec<Side> {
    ["blue", "green"]
        .map(|name| Side {
            name: name.to_owned(),
            group: format!(r#"{{"backend":"shop-{name}"}}"#),
            ..Side::default()
        })
        .to_vec()
}

/// What the host makes of a router's answer: the shares, or the failure's message.
async fn told(loaded: &Loaded, config: &str) -> Result<Split, String> {
    let sides = blue_and_green();
    let split = loaded
        .plugin
        .split(&OpContext::default(), config, &sides)
        .await;
    split.map_err(|error| {
        let failure = error.failure().unwrap();
        assert_eq!(
            (failure.class, failure.code.as_str()),
            (FailureClass::Permanent, code::PROTOCOL)
        );
        failure.message.clone()
    })
}

#[tokio::test]
async fn a_split_that_is_none_is_refused_with_plugin_and_call() {
    let plugin = load("misrouting").await;

    for (shares, problem) in [
        (r#"["blue", 90]"#, "its shares sum to 90, not to 100"),
        (
            r#"["blue", 200], ["green", 56]"#,
            "its shares sum to 256, not to 100",
        ),
        (
            r#"["blue", 50], ["red", 50]"#,
            "it told of side `red`, which was not asked about",
        ),
        (
            r#"["blue", 50], ["blue", 50]"#,
            "it told of side `blue` twice",
        ),
    ] {
        let message = told(&plugin, &format!(r#"{{"shares": [{shares}]}}"#)).await;

        let expected = format!("plugin `misrouting` answered `traffic.get` wrongly: {problem}");
        assert_eq!(message, Err(expected));
    }
    let elsewhere = told(&plugin, r#"{"differs": [["blue", 90]]}"#).await;
    assert!(elsewhere.is_err_and(|message| message.contains("its shares sum to 90, not to 100")));
    let revision = format!(r#"{{"revision": "{}"}}"#, "x".repeat(9000));
    assert!(
        told(&plugin, &revision)
            .await
            .is_err_and(|message| message.contains("its revision has 9000 bytes"))
    );
}

#[tokio::test]
async fn a_split_has_a_share_for_each_side_or_none_at_all() {
    let plugin = load("misrouting").await;

    let green = told(
        &plugin,
        r#"{"shares": [["green", 100]], "revision": "live: green"}"#,
    )
    .await
    .unwrap();
    let nobody = told(&plugin, "{}").await.unwrap();

    let percents: Vec<_> = green
        .shares
        .iter()
        .map(|share| (share.side.as_str(), share.percent))
        .collect();
    assert_eq!(percents, [("blue", 0), ("green", 100)]);
    assert_eq!(
        (green.live(), green.percent("green"), green.percent("blue")),
        (Some("green"), 100, 0)
    );
    assert_eq!(green.revision.as_deref(), Some("live: green"));
    assert!(green.observed_at > model::Timestamp(0));
    assert!(nobody.shares.is_empty() && nobody.live().is_none());
}

#[tokio::test]
async fn another_place_that_says_something_else_is_told_with_words_that_harm_no_terminal() {
    let plugin = load("misrouting").await;

    let config = r#"{"shares": [["green", 100]], "differs": [["blue", 100]]}"#;
    let split = told(&plugin, config).await.unwrap();
    let none = told(&plugin, r#"{"differs": []}"#).await.unwrap();

    let differs = split.differs.unwrap();
    assert_eq!(
        (differs.shares[0].percent, differs.shares[1].percent),
        (100, 0)
    );
    assert!(
        differs.message.contains("disagree") && !differs.message.contains('\u{1b}'),
        "{:?}",
        differs.message
    );
    assert!(none.differs.unwrap().shares.is_empty());
}

#[tokio::test]
async fn a_router_gets_groups_purposes_and_revisions_as_they_are() {
    let plugin = load("misrouting").await;
    let (ctx, sides) = (OpContext::default(), blue_and_green());
    let half = ["blue", "green"].map(|side| Share {
        side: side.to_owned(),
        percent: 50,
    });

    let findings = plugin
        .plugin
        .check_split(&ctx, "{}", &sides, Purpose::Weighted)
        .await
        .unwrap();
    let conflict = plugin
        .plugin
        .set_split(&ctx, "{}", &sides, Some("live: blue"), &half)
        .await
        .unwrap_err();
    let unsupported = plugin
        .plugin
        .poll_split(&ctx, "{}", "token")
        .await
        .unwrap_err();

    assert_eq!(findings[1].path, "/sides/green");
    assert_eq!(
        findings[1].message,
        r#"Purpose::Weighted with {"backend":"shop-green"}"#
    );
    let conflict = conflict.failure().unwrap();
    assert_eq!(conflict.class, FailureClass::Conflict);
    assert_eq!(
        conflict.message,
        r#"expected Some("live: blue") and 2 shares"#
    );
    assert_eq!(
        unsupported.failure().unwrap().class,
        FailureClass::Unsupported
    );
}

#[tokio::test]
async fn a_plugin_that_is_no_router_says_so() {
    let plugin = load("lying").await;

    let error = plugin
        .plugin
        .split(&OpContext::default(), "{}", &[])
        .await
        .unwrap_err();

    assert!(
        error.to_string().contains("cutover:traffic/router"),
        "{error}"
    );
}

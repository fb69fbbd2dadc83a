//! Plugins that crash, hang, eat memory and lie, built from Rust as an author would build them.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plugin_host::load_balancer::{Member, Pool};
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

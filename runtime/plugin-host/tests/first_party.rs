//! The plugins that are shipped, with what they are granted and without.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::LifecycleEvent;
use plugin_host::deployment_kind::Action;
use plugin_host::load_balancer::{Member, Outcome, Phase, Pool};
use plugin_host::package_source::FetchPlan;
use plugin_host::{
    Access, DirectoryGrant, FailureClass, Grants, Host, HostOptions, OpContext, Plugin, Secrets,
};

/// The folder of built plugins.
fn plugins() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
    std::env::var_os("CUTOVER_TEST_PLUGINS").map_or_else(default, PathBuf::from)
}

async fn load(root: &Path, name: &str, grants: &Grants) -> Arc<Plugin> {
    let path = plugins().join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "run `cargo xtask plugins` first: there is no `{}`",
        path.display()
    );
    let host = Host::new(HostOptions::new(root.join("compiled"))).unwrap();
    host.load(name.parse().unwrap(), &path, grants, Secrets::default())
        .await
        .unwrap()
}

#[tokio::test]
async fn the_file_balancer_edits_the_file_that_it_is_granted() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("balancer");
    std::fs::create_dir(&directory).unwrap();
    let grant = DirectoryGrant {
        name: "pools".to_owned(),
        path: directory.clone(),
        access: Access::ReadWrite,
    };
    let grants = Grants {
        directories: vec![grant],
        ..Grants::default()
    };
    let plugin = load(root.path(), "file-balancer", &grants).await;
    let (ctx, pool, config) = (
        OpContext::default(),
        Pool::default(),
        r#"{"directory":"pools"}"#,
    );
    let member = Member {
        target_id: "web-1".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: 8081,
        ..Member::default()
    };
    let asked = ["web-1".to_owned()];

    let registered = plugin
        .register(&ctx, config, &pool, std::slice::from_ref(&member))
        .await
        .unwrap();
    let again = plugin
        .register(&ctx, config, &pool, std::slice::from_ref(&member))
        .await
        .unwrap();
    let before = plugin.status(&ctx, config, &pool, &asked).await.unwrap();
    plugin
        .deregister(&ctx, config, &pool, &[member])
        .await
        .unwrap();
    let after = plugin.status(&ctx, config, &pool, &asked).await.unwrap();

    assert!(
        matches!(registered[0].outcome, Ok(Outcome::Changed(_))),
        "{registered:?}"
    );
    assert_eq!(again[0].outcome, Ok(Outcome::Unchanged));
    assert_eq!(
        (before[0].phase, after[0].phase),
        (Phase::InService, Phase::Absent)
    );
    assert!(before[0].observed_at > model::Timestamp(0));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
}

#[tokio::test]
async fn without_the_grant_the_failure_prints_the_line_to_add() {
    let root = tempfile::tempdir().unwrap();
    let plugin = load(root.path(), "file-balancer", &Grants::default()).await;

    let config = r#"{"directory":"pools"}"#;
    let error = plugin
        .status(&OpContext::default(), config, &Pool::default(), &[])
        .await
        .unwrap_err();

    let failure = error.failure().unwrap();
    assert_eq!(failure.class, FailureClass::Denied);
    assert!(
        failure
            .hint
            .as_deref()
            .unwrap()
            .starts_with("plugins.file-balancer.grants.directories:"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn the_haproxy_adapter_names_the_socket_that_it_needs() {
    let root = tempfile::tempdir().unwrap();
    let plugin = load(root.path(), "haproxy", &Grants::default()).await;

    let config = r#"{"socket":"tcp:127.0.0.1:9999","backend":"shop"}"#;
    let error = plugin
        .status(&OpContext::default(), config, &Pool::default(), &[])
        .await
        .unwrap_err();

    let hint = error.failure().unwrap().hint.clone();
    assert_eq!(
        hint.as_deref(),
        Some(r#"plugins.haproxy.grants.sockets: ["tcp:127.0.0.1:9999"]"#),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_file_package_is_planned_and_may_be_fetched_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    let plugin = load(root.path(), "file-package", &Grants::default()).await;
    let (ctx, reference) = (OpContext::default(), "file:///srv/app-1.2.0.tar.gz");

    let resolved = plugin.resolve(&ctx, "{}", reference).await.unwrap();
    let plan = plugin
        .plan_fetch(&ctx, "{}", &resolved.pinned)
        .await
        .unwrap();

    let FetchPlan::Download(downloads) = plan else {
        panic!("{plan:?}")
    };
    assert_eq!(
        (resolved.version.as_deref(), downloads[0].url.as_str()),
        (Some("1.2.0"), reference)
    );
    assert_eq!(plugin.authorise(reference, &downloads[0]).unwrap(), []);
}

#[tokio::test]
async fn a_kind_of_deployment_becomes_a_recipe() {
    let root = tempfile::tempdir().unwrap();
    let plugin = load(root.path(), "ews-kinds", &Grants::default()).await;

    let kinds = plugin.kinds().await.unwrap();
    let recipe = plugin
        .plan("RESTART", r#"{"serviceId":111,"deployment":"RESTART"}"#)
        .await
        .unwrap();

    assert!(
        kinds.iter().any(|kind| kind.name == "HTTP_UPLOAD_DEPLOY"),
        "{kinds:?}"
    );
    assert_eq!(recipe.reference, None);
    assert!(
        recipe
            .steps
            .iter()
            .any(|step| step.event == LifecycleEvent::ApplicationStop
                && step.action == Action::Hooks)
    );
}

//! What the host says about files that it cannot use.

use std::error::Error as _;

use plugin_host::{Error, Grants, Secrets, embed, inspect};

use crate::guest::{Guest, encode, load_bytes};

/// The whole chain of messages, as a printer would show it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn refusal(bytes: &[u8]) -> String {
    let root = tempfile::tempdir().unwrap();
    let error = load_bytes(
        root.path(),
        bytes,
        |_| {},
        &Grants::default(),
        Secrets::default(),
    )
    .await
    .unwrap_err();
    assert!(error.source().is_some());
    let text = chain(&error);
    let path = root.path().join("stub.wasm");
    text.replace(
        &format!("plugin `stub` in `{}` cannot be used: ", path.display()),
        "",
    )
}

#[tokio::test]
async fn garbage_is_named_as_such() {
    assert_eq!(
        refusal(b"<!doctype html>").await,
        "the file is not WebAssembly"
    );
    assert_eq!(refusal(b"").await, "the file is not WebAssembly");
}

#[tokio::test]
async fn a_module_is_not_a_component() {
    let module = wat::parse_str("(module)").unwrap();

    assert!(
        refusal(&module)
            .await
            .starts_with("the file is a WebAssembly module, not a component")
    );
}

#[tokio::test]
async fn a_cut_component_is_refused_at_every_length() {
    let bytes = Guest::default().bytes();

    for length in (8..bytes.len()).step_by(97) {
        assert!(inspect(&bytes[..length]).is_err(), "{length}");
    }
}

#[tokio::test]
async fn a_component_that_implements_nothing_is_told_what_is_known() {
    let empty = wat::parse_str("(component)").unwrap();
    assert_eq!(
        refusal(&empty).await,
        "the component implements none of `cutover:load-balancer/pool`, `cutover:traffic/router`, \
         `cutover:package-source/source`, `cutover:deployment-kind/kind`, `cutover:gate/evaluation`; it exports nothing"
    );

    let other = wat::parse_str(
        r#"(component (instance $i) (export "acme:other/thing@1.0.0" (instance $i)))"#,
    )
    .unwrap();
    assert!(
        refusal(&other)
            .await
            .ends_with("it exports `acme:other/thing@1.0.0`")
    );
}

#[tokio::test]
async fn another_major_version_is_named() {
    let other =
        r#"(component (instance $i) (export "cutover:load-balancer/pool@0.9.0" (instance $i)))"#;

    assert_eq!(
        refusal(&wat::parse_str(other).unwrap()).await,
        "the component implements `cutover:load-balancer/pool@0.9.0`; this host knows version 0.1.0 of it"
    );
}

#[tokio::test]
async fn unknown_imports_are_listed_before_anything_runs() {
    let imports = r#"(component
        (import "wasi:http/incoming-handler@0.2.0" (instance))
        (import "cutover:plugin/logging@0.1.3" (instance (export "log-all" (func))))
        (import "cutover:plugin/config@2.0.0" (instance (export "get" (func (result string)))))
        (instance $i)
        (export "cutover:plugin/guest@0.1.0" (instance $i))
        (export "cutover:load-balancer/pool@0.1.0" (instance $i)))"#;

    assert_eq!(
        refusal(&wat::parse_str(imports).unwrap()).await,
        "the component needs `wasi:http/incoming-handler@0.2.0`, `log-all` of `cutover:plugin/logging@0.1.3`, \
         `cutover:plugin/config@2.0.0` (provided in version 0.1.0), which this host does not provide"
    );
}

#[tokio::test]
async fn a_component_with_other_types_is_a_mismatch() {
    // A plugin whose `validate-config` answers with a plain string: the names fit, the types do not.
    let wat = r#"(component
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
            (func (export "f") (param i32 i32) (result i32) i32.const 0))
        (core instance $m (instantiate $m))
        (func $f (param "config" string) (result string)
            (canon lift (core func $m "f") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
        (instance $guest (export "validate-config" (func $f)))
        (export "cutover:plugin/guest@0.1.0" (instance $guest))
        (instance $pool
            (export "register" (func $f)) (export "deregister" (func $f))
            (export "status" (func $f)) (export "poll" (func $f)))
        (export "cutover:load-balancer/pool@0.1.0" (instance $pool)))"#;
    let root = tempfile::tempdir().unwrap();
    let bytes = wat::parse_str(wat).unwrap();

    let error = load_bytes(
        root.path(),
        &bytes,
        |_| {},
        &Grants::default(),
        Secrets::default(),
    )
    .await
    .unwrap_err();

    assert!(matches!(error, Error::Mismatch { .. }), "{}", chain(&error));
}

#[tokio::test]
async fn the_manifest_travels_in_the_component() {
    let manifest = r#"{"name":"stub","version":"1.2.3","license":"Apache-2.0"}"#;
    let guest = Guest {
        manifest: Some(manifest),
        ..Guest::default()
    };

    let plugin = guest.load().await;

    assert_eq!(plugin.manifest().unwrap().version, "1.2.3");
    assert!(plugin.provides().load_balancer && !plugin.provides().weights);
    assert_eq!(plugin.digest(), &inspect(&guest.bytes()).unwrap().digest);
}

#[tokio::test]
async fn a_second_manifest_is_refused() {
    let manifest = r#"{"name":"stub","version":"1.2.3"}"#;
    let bytes = embed(&embed(&Guest::default().bytes(), manifest), manifest);

    assert_eq!(
        refusal(&bytes).await,
        "the component has more than one section `cutover:manifest`"
    );
}

#[tokio::test]
async fn a_feature_of_what_is_not_implemented_is_refused() {
    let guest = Guest {
        manifest: Some(
            r#"{"name":"stub","version":"1.0.0","provides":{"traffic-router":{"features":["split-groups"]}}}"#,
        ),
        ..Guest::default()
    };

    assert_eq!(
        refusal(&guest.bytes()).await,
        "the manifest has features of a traffic-router, whose interface `cutover:traffic/router` the component does not implement"
    );
}

#[tokio::test]
async fn a_grant_that_cannot_be_read_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let grants = Grants {
        sockets: vec!["127.0.0.1:9999".to_owned()],
        ..Grants::default()
    };

    let error = load_bytes(
        root.path(),
        &Guest::default().bytes(),
        |_| {},
        &grants,
        Secrets::default(),
    )
    .await
    .unwrap_err();

    assert!(
        chain(&error).contains("`127.0.0.1:9999` is not an address: write `tcp:HOST:PORT`"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_kind_plugin_loads_although_its_target_is_not_carried_out() {
    let module = r#"(module
        (import "cutover:deployment-kind/target@0.1.0" "[method]handle.id" (func (param i32 i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
        (func (export "cutover:plugin/guest@0.1.0#validate-config") (param i32 i32) (result i32) i32.const 0)
        (func (export "cutover:deployment-kind/kind@0.1.0#kinds") (result i32) i32.const 0)
        (func (export "cutover:deployment-kind/kind@0.1.0#validate") (param i32 i32 i32 i32) (result i32) i32.const 0)
        (func (export "cutover:deployment-kind/kind@0.1.0#plan") (param i32 i32 i32 i32) (result i32) i32.const 0)
        (func (export "cutover:deployment-kind/kind@0.1.0#run") (param i32) (result i32) i32.const 0)
        (func (export "cutover:deployment-kind/kind@0.1.0#poll")
            (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0))"#;
    let world = "package test:guest; world guest { include cutover:deployment-kind/deployment-kind@0.1.0; }";
    let root = tempfile::tempdir().unwrap();
    let bytes = encode(module, world);

    let plugin = load_bytes(
        root.path(),
        &bytes,
        |_| {},
        &Grants::default(),
        Secrets::default(),
    )
    .await
    .unwrap();

    assert!(plugin.provides().deployment_kind);
    assert_eq!(plugin.kinds().await.unwrap(), []);
    assert_eq!(plugin.plan("RESTART", "{}").await.unwrap().steps, []);
}

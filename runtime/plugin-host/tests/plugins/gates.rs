//! Gates: what they are told, and what is made of their answers.

use model::Timestamp;
use plugin_host::gate::{Evidence, Input, Target, Verdict};
use plugin_host::{CallError, FailureClass, Grants, OpContext, Plugin, Secrets};

use crate::guest::{Guest, encode, load_bytes};

/// Loads a gate of two function bodies. They get the address of context and input, and return that of the answer:
/// a result at 0, the verdict at 8 and what is in it at 16.
async fn gate(evaluate: &str, poll: &str) -> (std::sync::Arc<Plugin>, tempfile::TempDir) {
    let module = format!(
        r#"(module
        (memory (export "memory") 4)
        (global $next (mut i32) (i32.const 32768))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
            global.get $next
            (global.set $next (i32.add (global.get $next) (local.get 3))))
        (func (export "cutover:plugin/guest@0.1.0#validate-config") (param i32 i32) (result i32) i32.const 0)
        (func (export "cutover:gate/evaluation@0.1.0#evaluate") (param i32) (result i32) {evaluate} i32.const 2048)
        (func (export "cutover:gate/evaluation@0.1.0#poll") (param i32) (result i32) {poll} i32.const 2048))"#
    );
    let world = "package test:guest; world guest { include cutover:gate/gate@0.1.0; }";
    let root = tempfile::tempdir().unwrap();
    let plugin = load_bytes(
        root.path(),
        &encode(&module, world),
        |_| {},
        &Grants::default(),
        Secrets::default(),
    )
    .await
    .unwrap();
    (plugin, root)
}

fn input() -> Input {
    Input {
        group: "shop/web".to_owned(),
        release_id: "r".to_owned(),
        deployment_id: "r-1".to_owned(),
        version: "1.2.0".to_owned(),
        batch: 2,
        of_batches: 3,
        targets: vec![Target {
            id: "web-1".to_owned(),
            address: Some("127.0.0.1:8081".to_owned()),
        }],
        since: Timestamp(5),
        parameters: String::new(),
    }
}

async fn evaluate(body: &str) -> Result<Verdict, CallError> {
    let (plugin, _root) = gate(body, "").await;
    plugin
        .evaluate_gate(&OpContext::default(), "{}", &input())
        .await
}

#[tokio::test]
async fn a_gate_is_told_where_the_deployment_stands() {
    // Answers with one piece of evidence: its name is the group, its value the first target's address, its threshold
    // the parameters; it passed where batch and time are as they should be.
    let body = "(local $e i32)
        (local.set $e (i32.const 4096))
        (i32.store (local.get $e) (i32.load (i32.add (local.get 0) (i32.const 56))))
        (i32.store offset=4 (local.get $e) (i32.load (i32.add (local.get 0) (i32.const 60))))
        (i32.store offset=8 (local.get $e) (i32.load offset=12 (i32.load offset=96 (local.get 0))))
        (i32.store offset=12 (local.get $e) (i32.load offset=16 (i32.load offset=96 (local.get 0))))
        (i32.store8 offset=16 (local.get $e) (i32.const 1))
        (i32.store offset=20 (local.get $e) (i32.load offset=112 (local.get 0)))
        (i32.store offset=24 (local.get $e) (i32.load offset=116 (local.get 0)))
        (i32.store8 offset=28 (local.get $e)
            (i32.and (i32.eq (i32.load offset=88 (local.get 0)) (i32.const 2))
                     (i64.eq (i64.load offset=104 (local.get 0)) (i64.const 5))))
        (i32.store (i32.const 2064) (local.get $e))
        (i32.store (i32.const 2068) (i32.const 1))";

    let verdict = evaluate(body).await.unwrap();

    assert_eq!(
        verdict,
        Verdict::Pass(vec![Evidence {
            name: "shop/web".to_owned(),
            value: "127.0.0.1:8081".to_owned(),
            threshold: Some("{}".to_owned()),
            passed: true,
        }])
    );
}

#[tokio::test]
async fn a_pass_that_shows_nothing_is_not_believed() {
    let error = evaluate("").await.unwrap_err();

    assert_eq!(error.failure().unwrap().code, "host.protocol");
    assert_eq!(
        error.to_string(),
        "plugin `stub` answered `gate.evaluate` wrongly: it passed without any evidence"
    );
}

#[tokio::test]
async fn what_did_not_pass_is_kept_of_too_much_evidence() {
    // 1000 pieces of evidence without names, of which the last alone has not passed.
    let body = "(local $i i32)
        (loop $more
            (i32.store8 (i32.add (i32.const 131100) (i32.mul (local.get $i) (i32.const 32)))
                (i32.lt_u (local.get $i) (i32.const 999)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 1000))))
        (i32.store8 (i32.const 2056) (i32.const 1))
        (i32.store (i32.const 2064) (i32.const 131072))
        (i32.store (i32.const 2068) (i32.const 1000))";

    let Verdict::Fail(evidence) = evaluate(body).await.unwrap() else {
        panic!("no failure")
    };

    assert_eq!(evidence.len(), 200);
    assert_eq!(evidence.iter().filter(|found| !found.passed).count(), 1);
}

#[tokio::test]
async fn an_inconclusive_verdict_always_has_a_reason() {
    let verdict = evaluate("(i32.store8 (i32.const 2056) (i32.const 2))").await;

    assert_eq!(
        verdict.unwrap(),
        Verdict::Inconclusive("the plugin gave no reason".to_owned())
    );
}

#[tokio::test]
async fn a_pending_evaluation_is_continued_with_its_token() {
    let pending = "(i32.store8 (i32.const 2056) (i32.const 3))
        (i32.store (i32.const 2064) (i32.const 1024)) (i32.store (i32.const 2068) (i32.const 1))
        (i64.store (i32.const 2072) (i64.const 250))
        (i32.store8 (i32.const 1024) (i32.const 55))";
    // Inconclusive, with the token for a reason.
    let poll = "(i32.store8 (i32.const 2056) (i32.const 2))
        (i32.store (i32.const 2064) (i32.load offset=120 (local.get 0)))
        (i32.store (i32.const 2068) (i32.load offset=124 (local.get 0)))";
    let (plugin, _root) = gate(pending, poll).await;
    let (ctx, input) = (OpContext::default(), input());

    let Verdict::Pending(pending) = plugin.evaluate_gate(&ctx, "{}", &input).await.unwrap() else {
        panic!("not pending")
    };
    let verdict = plugin
        .poll_gate(&ctx, "{}", &input, &pending.token)
        .await
        .unwrap();

    assert_eq!(pending.poll_after, std::time::Duration::from_millis(250));
    assert_eq!(verdict, Verdict::Inconclusive("7".to_owned()));
}

#[tokio::test]
async fn a_gate_that_crashes_may_be_asked_again() {
    let error = evaluate("unreachable").await.unwrap_err();

    assert_eq!(error.failure().unwrap().class, FailureClass::Transient);
}

#[tokio::test]
async fn a_plugin_that_is_no_gate_says_so() {
    let plugin = Guest::default().load().await;

    let error = plugin
        .evaluate_gate(&OpContext::default(), "{}", &input())
        .await
        .unwrap_err();

    assert!(!plugin.provides().gate);
    assert_eq!(
        error.to_string(),
        "plugin `stub` does not implement `cutover:gate/evaluation`"
    );
}

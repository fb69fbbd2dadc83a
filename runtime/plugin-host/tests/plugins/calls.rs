//! What the host makes of answers, and of calls that end without one.

use std::time::{Duration, Instant};

use plugin_host::load_balancer::{Member, Outcome, Phase, Pool};
use plugin_host::{
    Canceller, Failure, FailureClass, Grants, Limits, OpContext, Secret, Secrets, code,
};

use crate::guest::{Guest, Loaded};

const LOG: &str =
    r#"(import "cutover:plugin/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))"#;

fn members(ids: &[&str]) -> Vec<Member> {
    ids.iter()
        .map(|id| Member {
            target_id: (*id).to_owned(),
            ..Member::default()
        })
        .collect()
}

async fn register(plugin: &Loaded, ctx: &OpContext) -> Failure {
    let error = plugin
        .register(ctx, "{}", &Pool::default(), &members(&["web-1"]))
        .await
        .unwrap_err();
    error.failure().unwrap().clone()
}

async fn status(plugin: &Loaded, asked: &[&str]) -> Result<Vec<(String, Phase)>, Failure> {
    let asked: Vec<_> = asked.iter().map(|id| (*id).to_owned()).collect();
    let statuses = plugin
        .status(&OpContext::default(), "{}", &Pool::default(), &asked)
        .await;
    let statuses = statuses.map_err(|error| error.failure().unwrap().clone())?;
    Ok(statuses
        .into_iter()
        .map(|status| (status.target_id, status.phase))
        .collect())
}

/// A status answer for one target with a name of three letters.
fn answers_for(id: &str) -> Guest {
    let items = format!(
        r#"(data (i32.const 1024) "\00\00\00\00\00\00\00\00\00\08\00\00\01\00\00\00")
           (data (i32.const 2048) "\00\0c\00\00\03\00\00\00\02")
           (data (i32.const 3072) "{id}")"#
    );
    Guest {
        items,
        status: "i32.const 1024",
        ..Guest::default()
    }
}

#[tokio::test]
async fn an_answer_comes_back_in_our_types() {
    let plugin = answers_for("foo").load().await;

    assert_eq!(
        status(&plugin, &["foo"]).await.unwrap(),
        [("foo".to_owned(), Phase::InService)]
    );
    assert_eq!(status(&plugin, &[]).await.unwrap().len(), 1);
    assert_eq!(
        plugin
            .poll(&OpContext::default(), "{}", "token")
            .await
            .unwrap(),
        Outcome::Unchanged
    );
    assert_eq!(plugin.validate_config("{}").await.unwrap(), []);
}

#[tokio::test]
async fn an_answer_for_a_target_that_was_not_asked_is_a_lie() {
    let plugin = answers_for("foo").load().await;

    let failure = status(&plugin, &["web-1"]).await.unwrap_err();

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::Permanent, code::PROTOCOL)
    );
    assert_eq!(
        failure.message,
        "plugin `stub` answered for target `foo`, which was not asked"
    );
}

#[tokio::test]
async fn a_missing_answer_is_not_taken_for_success() {
    let plugin = Guest::default().load().await;

    let failure = register(&plugin, &OpContext::default()).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::Permanent, code::PROTOCOL)
    );
    assert_eq!(
        failure.message,
        "plugin `stub` did not answer for target `web-1`, which was asked"
    );
}

#[tokio::test]
async fn a_trap_leaves_the_outcome_of_a_write_unknown_and_a_read_can_be_repeated() {
    let guest = Guest {
        register: "unreachable",
        status: "unreachable",
        ..Guest::default()
    };
    let plugin = guest.load().await;

    let write = register(&plugin, &OpContext::default()).await;
    let dry_run = register(
        &plugin,
        &OpContext {
            dry_run: true,
            ..OpContext::default()
        },
    )
    .await;
    let read = status(&plugin, &[]).await.unwrap_err();

    assert_eq!(
        (write.class, write.code.as_str()),
        (FailureClass::UnknownOutcome, code::TRAP)
    );
    assert_eq!(
        write.message,
        "plugin `stub` crashed in `load-balancer.register`: wasm `unreachable` instruction executed"
    );
    assert_eq!(
        (dry_run.class, read.class),
        (FailureClass::Transient, FailureClass::Transient)
    );
}

#[tokio::test]
async fn a_call_after_a_trap_gets_a_fresh_instance() {
    let items = "(global $calls (mut i32) (i32.const 0))".to_owned();
    let once =
        "(if (global.get $calls) (then unreachable)) (global.set $calls (i32.const 1)) i32.const 0";
    let plugin = Guest {
        items,
        validate: once,
        register: "unreachable",
        ..Guest::default()
    }
    .load()
    .await;

    register(&plugin, &OpContext::default()).await;

    for _ in 0..3 {
        assert!(plugin.validate_config("{}").await.is_ok());
    }
}

#[tokio::test]
async fn a_trap_carries_what_the_plugin_said_last_without_secrets() {
    let items = format!(r#"{LOG} (data (i32.const 1024) "panicked: hunter2 is wrong")"#);
    let register = "(call $log (i32.const 4) (i32.const 1024) (i32.const 26) (i32.const 0) (i32.const 0)) unreachable";
    let guest = Guest {
        items,
        register,
        ..Guest::default()
    };
    let secrets: Secrets = [("token", Secret::new("hunter2"))].into_iter().collect();
    let plugin = guest.load_with(&Grants::default(), secrets).await;

    let failure = register_failure(&plugin).await;

    assert_eq!(
        failure.output.unwrap(),
        "ERROR panicked: [redacted] is wrong"
    );
}

async fn register_failure(plugin: &Loaded) -> Failure {
    register(plugin, &OpContext::default()).await
}

#[tokio::test]
async fn output_is_bounded_and_its_end_is_kept() {
    let items = format!(r#"{LOG} (data (i32.const 1024) "again and again")"#);
    let register = "(local $i i32)
        (loop $more
            (call $log (i32.const 3) (i32.const 1024) (i32.const 15) (i32.const 0) (i32.const 0))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 10000))))
        unreachable";
    let plugin = Guest {
        items,
        register,
        ..Guest::default()
    }
    .load()
    .await;

    let output = register_failure(&plugin).await.output.unwrap();

    assert!(
        output.len() <= Limits::default().output_tail && output.ends_with("again and again"),
        "{}",
        output.len()
    );
}

#[tokio::test]
async fn a_plugin_that_hangs_is_stopped_at_its_deadline() {
    let guest = Guest {
        register: "(loop $for_ever (br $for_ever)) unreachable",
        ..Guest::default()
    };
    let limit = Duration::from_millis(100);
    let plugin = guest
        .load_in(
            |o| o.limits.deadline = limit,
            &Grants::default(),
            Secrets::default(),
        )
        .await;

    let started = Instant::now();
    let failure = register(&plugin, &OpContext::default()).await;

    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::UnknownOutcome, code::DEADLINE)
    );
    assert_eq!(
        failure.message,
        "plugin `stub` did not answer `load-balancer.register` within 100ms"
    );
    assert!(plugin.validate_config("{}").await.is_ok());
}

#[tokio::test]
async fn a_call_past_its_callers_deadline_never_starts() {
    let plugin = Guest {
        register: "unreachable",
        ..Guest::default()
    }
    .load()
    .await;

    let ctx = OpContext {
        deadline: Some(model::Timestamp(1)),
        ..OpContext::default()
    };
    let failure = register(&plugin, &ctx).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::Cancelled, code::DEADLINE)
    );
}

#[tokio::test]
async fn a_cancelled_call_ends_after_its_grace() {
    let guest = Guest {
        register: "(loop $for_ever (br $for_ever)) unreachable",
        ..Guest::default()
    };
    let options =
        |o: &mut plugin_host::HostOptions| o.limits.cancel_grace = Duration::from_millis(20);
    let plugin = guest
        .load_in(options, &Grants::default(), Secrets::default())
        .await;
    let canceller = Canceller::new();
    canceller.cancel();

    let ctx = OpContext {
        cancellation: canceller.cancellation(),
        ..OpContext::default()
    };
    let failure = register(&plugin, &ctx).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::UnknownOutcome, code::CANCELLED)
    );
}

#[tokio::test]
async fn memory_has_a_limit_that_is_named() {
    let register = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let guest = Guest {
        register,
        ..Guest::default()
    };
    let plugin = guest.load().await;

    let failure = register_failure(&plugin).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::UnknownOutcome, code::MEMORY)
    );
    assert_eq!(
        failure.message,
        "plugin `stub` used up its memory limit of 256 MiB in `load-balancer.register`"
    );
}

#[tokio::test]
async fn an_answer_too_large_to_copy_is_refused() {
    // A failure whose code claims to be longer than all that may be copied.
    let items =
        r#"(data (i32.const 1024) "\01\00\00\00\00\00\00\00\00\00\00\00\00\08\00\00\00\f0\00\00")"#
            .to_owned();
    let guest = Guest {
        items,
        register: "i32.const 1024",
        ..Guest::default()
    };
    let plugin = guest
        .load_in(
            |o| o.limits.copied = 1024,
            &Grants::default(),
            Secrets::default(),
        )
        .await;

    let failure = register_failure(&plugin).await;

    assert_eq!(failure.class, FailureClass::UnknownOutcome);
    assert_eq!(failure.code, code::TRAP);
}

#[tokio::test]
async fn a_plugin_cannot_speak_for_the_host() {
    // A failure of class `transient` with the code `host.trap` and no message.
    let items =
        r#"(data (i32.const 1024) "\01\00\00\00\00\00\00\00\00\00\00\00\00\08\00\00\09\00\00\00")
        (data (i32.const 2048) "host.trap")"#
            .to_owned();
    let plugin = Guest {
        items,
        register: "i32.const 1024",
        ..Guest::default()
    }
    .load()
    .await;

    let failure = register_failure(&plugin).await;

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::Transient, "plugin.host.trap")
    );
    assert_eq!(
        failure.message,
        "plugin `stub` failed in `load-balancer.register` and gave no message"
    );
}

#[tokio::test]
async fn an_interface_that_is_not_implemented_is_named() {
    let plugin = Guest::default().load().await;

    let error = plugin
        .resolve(&OpContext::default(), "{}", "app:1")
        .await
        .unwrap_err();

    assert_eq!(
        error.to_string(),
        "plugin `stub` does not implement `cutover:package-source/source`"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_can_run_on_any_thread_at_the_same_time() {
    let plugin = std::sync::Arc::new(answers_for("foo").load().await);

    let calls: Vec<_> = (0..200)
        .map(|_| {
            let plugin = std::sync::Arc::clone(&plugin);
            tokio::spawn(async move { status(&plugin, &["foo"]).await.is_ok() })
        })
        .collect();

    for call in calls {
        assert!(call.await.unwrap());
    }
}

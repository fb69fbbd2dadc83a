//! The built plugin against the fake, call by call: targets take their time, and answers get lost.

use std::time::Duration;

use cutover_tests::cloud::elbv2::{Elbv2, action};
use cutover_tests::cloud::{CloudServer, Fault, When};
use plugin_host::FailureClass;
use plugin_host::load_balancer::{Outcome, Phase};
use plugin_host::traffic::{Purpose, Side};
use plugin_host::{OpContext, Severity};
use serde_json::json;

use crate::account::{ACCESS_KEY, Account, SECRET_KEY, failure, member, pool, side};

async fn account() -> (CloudServer<Elbv2>, Account) {
    let cloud = Elbv2::new(ACCESS_KEY, SECRET_KEY, &["blue", "green"]);
    let server = CloudServer::start(cloud);
    let account = Account::load(&server.endpoint(), &[("secret-key", SECRET_KEY)]).await;
    let account = account.with("target_group", Elbv2::group_arn("blue"));
    (server, account)
}

fn sides() -> [Side; 2] {
    ["blue", "green"].map(|name| side(name, &Elbv2::group_arn(name), &[]))
}

fn call(name: &'static str) -> When {
    When::matching(move |request| action(request) == name)
}

/// The calls so far, and whether the cloud did what they asked.
fn calls(server: &CloudServer<Elbv2>) -> Vec<(String, bool)> {
    let visits = server.take_visits();
    let told = visits.iter().map(|it| (action(&it.request), it.is_done()));
    told.collect()
}

fn done(names: &[&str]) -> Vec<(String, bool)> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), true))
        .collect()
}

const READ: &str = "DescribeTargetHealth";

#[tokio::test]
async fn a_target_is_initial_then_healthy_drains_for_the_delay_and_is_gone() {
    let (server, account) = account().await;
    let web = member("web-1", "i-1", 80);
    let told = |reason: &str| Some(reason.to_owned());

    assert_eq!(account.phase(&web).await, (Phase::Absent, None));
    let registered = account.register(&web).await;
    assert_eq!(registered.unwrap(), Outcome::Changed(Vec::new()));
    assert_eq!(
        account.phase(&web).await,
        (
            Phase::Registering,
            told("Elb.InitialHealthChecking: Initial health checks in progress")
        )
    );
    server.with(|cloud| cloud.pass(Duration::from_secs(10)));
    assert_eq!(account.phase(&web).await, (Phase::InService, None));
    assert_eq!(account.register(&web).await.unwrap(), Outcome::Unchanged);

    server.with(|cloud| cloud.sicken("blue", "i-1", 80, Some("Target.FailedHealthChecks")));
    assert_eq!(
        account.phase(&web).await,
        (
            Phase::OutOfService,
            told("Target.FailedHealthChecks: Health checks failed")
        )
    );

    account.deregister(&web).await.unwrap();
    server.with(|cloud| cloud.pass(Duration::from_secs(299)));
    assert_eq!(
        account.phase(&web).await,
        (
            Phase::Draining,
            told("Target.DeregistrationInProgress: Target deregistration is in progress")
        )
    );
    assert_eq!(account.deregister(&web).await.unwrap(), Outcome::Unchanged);
    server.with(|cloud| cloud.pass(Duration::from_secs(1)));
    assert_eq!(account.phase(&web).await, (Phase::Absent, None));
}

#[tokio::test]
async fn the_limits_are_those_of_the_target_group() {
    let (server, account) = account().await;
    server.with(|cloud| cloud.group("blue").delay = Duration::from_secs(42));

    assert_eq!(account.delay().await, Some(Duration::from_secs(42)));
}

#[tokio::test]
async fn a_session_token_is_signed_and_sent_and_the_access_key_may_be_a_secret() {
    let (server, _) = account().await;
    server.with(|cloud| cloud.key(ACCESS_KEY).token = Some("a/token+of=many".to_owned()));
    let secrets = [
        ("secret-key", SECRET_KEY),
        ("session-token", "a/token+of=many"),
        ("access-key", ACCESS_KEY),
    ];
    let account = Account::load(&server.endpoint(), &secrets)
        .await
        .with("target_group", Elbv2::group_arn("blue"))
        .with("access_key", "{{secret:access-key}}")
        .with("secrets", json!({"session_token": "session-token"}));

    let web = member("web-1", "i-1", 80);
    account.register(&web).await.unwrap();

    assert_eq!(account.phase(&web).await.0, Phase::Registering);
}

#[tokio::test]
async fn a_deregistration_that_is_not_to_be_seen_yet_is_waited_for() {
    let (server, account) = account().await;
    let web = member("web-1", "i-1", 80);
    server.with(|cloud| {
        cloud.register("blue", "i-1", 80);
        cloud.sicken("blue", "i-1", 80, Some("Target.Timeout"));
    });
    server.inject(call("DeregisterTargets"), Fault::Stale { reads: 2 });

    let outcome = account.deregister(&web).await;

    assert_eq!(outcome.unwrap(), Outcome::Changed(Vec::new()));
    assert_eq!(
        calls(&server),
        done(&[READ, "DeregisterTargets", READ, READ, READ])
    );
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_not_made_twice() {
    for fault in [Fault::ResetAfter, Fault::TakenButRefused(500)] {
        let (server, account) = account().await;
        let web = member("web-1", "i-1", 80);
        server.inject(call("RegisterTargets"), fault.clone());

        let lost = failure(account.register(&web).await);
        let again = account.register(&web).await;

        assert_eq!(
            lost.class,
            FailureClass::UnknownOutcome,
            "{fault:?}: {lost:?}"
        );
        assert_eq!(again.unwrap(), Outcome::Unchanged);
        assert_eq!(calls(&server), done(&[READ, "RegisterTargets", READ]));
    }
}

#[tokio::test]
async fn of_a_change_that_broke_off_in_the_middle_the_rest_is_made() {
    let (server, account) = account().await;
    let members = [member("web-1", "i-1", 80), member("web-2", "i-2", 80)];
    let (ctx, config, pool) = (OpContext::default(), account.config(), pool(&members));
    let register = || account.plugin().register(&ctx, &config, &pool, &members);
    server.inject(call("RegisterTargets"), Fault::Partial { done: 1 });

    let broken = register().await.unwrap();
    let again = register().await.unwrap();

    for result in broken {
        let class = result.outcome.unwrap_err().class;
        assert_eq!(class, FailureClass::UnknownOutcome, "{}", result.target_id);
    }
    let outcomes: Vec<_> = again.into_iter().map(|it| it.outcome.unwrap()).collect();
    assert_eq!(outcomes, [Outcome::Unchanged, Outcome::Changed(Vec::new())]);
    assert_eq!(
        server.with(|cloud| cloud.targets("blue")),
        ["i-1:80 initial", "i-2:80 initial"]
    );
}

#[tokio::test]
async fn what_was_not_taken_can_be_done_again() {
    for (fault, class) in [
        (
            Fault::Throttled {
                retry_after: Some(3),
            },
            FailureClass::Throttled,
        ),
        (Fault::Refused(503), FailureClass::UnknownOutcome),
        (Fault::ResetBefore, FailureClass::UnknownOutcome),
    ] {
        let (server, account) = account().await;
        let web = member("web-1", "i-1", 80);
        server.inject(call("RegisterTargets"), fault.clone());

        let refused = failure(account.register(&web).await);

        assert_eq!(refused.class, class, "{fault:?}: {refused:?}");
        if class == FailureClass::Throttled {
            assert_eq!(refused.retry_after, Some(Duration::from_secs(3)));
            assert_eq!(refused.code, "aws.Throttling");
        }
        assert_eq!(
            account.register(&web).await.unwrap(),
            Outcome::Changed(Vec::new())
        );
    }
}

#[tokio::test]
async fn a_read_that_fails_can_be_made_again_whatever_went_wrong() {
    for fault in [Fault::Refused(500), Fault::ResetAfter, Fault::ResetBefore] {
        let (server, account) = account().await;
        server.inject(call(READ), fault.clone());

        let refused = failure(account.register(&member("web-1", "i-1", 80)).await);

        assert_eq!(
            refused.class,
            FailureClass::Transient,
            "{fault:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_listener_and_a_rule_split_the_traffic_and_keep_the_rest_of_their_actions() {
    let (server, account) = account().await;
    let account = account.with("listener", Elbv2::listener_arn());
    let sides = sides();
    assert_eq!(account.percents(&sides).await, [100, 0]);

    for percents in [[80, 20], [0, 100], [100, 0]] {
        account.set(&sides, None, percents).await.unwrap();
        assert_eq!(account.percents(&sides).await, percents);
    }
    let _ = server.take_visits();
    let again = account.set(&sides, None, [100, 0]).await.unwrap();
    assert_eq!(again, Outcome::Unchanged);
    assert_eq!(calls(&server), done(&["DescribeListeners"]));

    let ruled = Account::load(&server.endpoint(), &[("secret-key", SECRET_KEY)]).await;
    let ruled = ruled.with("rule", Elbv2::rule_arn());
    ruled.set(&sides, None, [10, 90]).await.unwrap();
    let weights = server.with(|cloud| (cloud.weights(), cloud.rule_weights()));
    let named = |blue, green| vec![("blue".to_owned(), blue), ("green".to_owned(), green)];
    assert_eq!(weights, (named(100, 0), named(10, 90)));
}

#[tokio::test]
async fn a_split_that_somebody_changed_in_between_is_left() {
    let (server, account) = account().await;
    let account = account.with("listener", Elbv2::listener_arn());
    let sides = sides();
    let read = account.get(&sides).await.unwrap();
    server.with(|cloud| cloud.weigh(&[("blue", 50), ("green", 50)]));

    let refused = failure(
        account
            .set(&sides, read.revision.as_deref(), [0, 100])
            .await,
    );

    assert_eq!(refused.class, FailureClass::Conflict);
    assert!(
        refused.message.contains("`blue=50 green=50`"),
        "{}",
        refused.message
    );
    assert_eq!(account.percents(&sides).await, [50, 50]);
}

#[tokio::test]
async fn a_split_whose_answer_was_lost_or_is_not_to_be_seen_yet_is_made_once() {
    let sides = sides();
    for fault in [Fault::ResetAfter, Fault::TakenButRefused(500)] {
        let (server, account) = account().await;
        let account = account.with("listener", Elbv2::listener_arn());
        let revision = account.get(&sides).await.unwrap().revision;
        server.inject(call("ModifyListener"), fault);
        let _ = server.take_visits();

        let lost = failure(account.set(&sides, revision.as_deref(), [0, 100]).await);
        let again = account.set(&sides, revision.as_deref(), [0, 100]).await;

        assert_eq!(lost.class, FailureClass::UnknownOutcome);
        assert_eq!(again.unwrap(), Outcome::Unchanged);
        assert_eq!(
            calls(&server),
            done(&["DescribeListeners", "ModifyListener", "DescribeListeners"])
        );
    }

    let (server, account) = account().await;
    let account = account.with("listener", Elbv2::listener_arn());
    server.inject(call("ModifyListener"), Fault::Stale { reads: 2 });
    let outcome = account.set(&sides, None, [0, 100]).await;
    assert_eq!(outcome.unwrap(), Outcome::Changed(Vec::new()));
    let modified = calls(&server);
    let modified = modified.iter().filter(|(name, _)| name == "ModifyListener");
    assert_eq!(modified.count(), 1);
}

#[tokio::test]
async fn a_check_finds_what_could_not_work() {
    let (server, account) = account().await;
    let account = account.with("listener", Elbv2::listener_arn());
    server.with(|cloud| cloud.weigh(&[("blue", 1)]));
    let check = |sides: [Side; 2]| {
        let (plugin, config) = (account.plugin(), account.config());
        let ctx = OpContext::default();
        async move {
            let findings = plugin
                .check_split(&ctx, &config, &sides, Purpose::Weighted)
                .await;
            let errors = findings.unwrap().into_iter();
            let errors = errors.filter(|it| it.severity == Severity::Error);
            errors
                .map(|it| format!("{}: {}", it.path, it.message))
                .collect::<Vec<_>>()
        }
    };

    let idle = check(sides()).await;
    let one = check(["a", "b"].map(|name| side(name, &Elbv2::group_arn("blue"), &[]))).await;

    assert_eq!(
        idle,
        [
            "/sides/green: target group `green` is attached to no load balancer, so nothing tells whether its targets are healthy; add it to the \
             forward action of `listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2` with weight 0"
        ]
    );
    assert_eq!(
        one,
        [
            ": sides `a` and `b` have one target group, `blue`, and AWS has no weights for targets; give each side a target group of its \
             own: `group: {target_group: ARN}`"
        ]
    );
}

//! What goes wrong for good: each says the code of AWS and the request, whether it was tried again, and what to do.

use std::time::Duration;

use cutover_tests::cloud::Fault;
use cutover_tests::cloud::elbv2::Elbv2;
use cutover_tests::until;
use serde_json::json;

use crate::account::{ACCESS_KEY, SECRET_KEY};
use crate::shop::{Kind, Shop, calling, changes};

/// What a deployment says that is refused before anything has changed.
#[track_caller]
fn refusal(shop: &Shop, parts: &[&str]) {
    let answer = shop.deploy();

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    for part in parts {
        assert!(answer.stderr.contains(part), "{part}\n{}", answer.stderr);
    }
    shop.site.assert_untouched();
    assert_eq!(changes(&shop.server.visits()), [""; 0]);
}

#[test]
fn credentials_that_aws_refuses_are_told_before_a_release() {
    let shop = Shop::new(Kind::Rolling);

    shop.site.write("secret", "wrong");
    refusal(
        &shop,
        &[
            "SignatureDoesNotMatch",
            "(request id `00000000-0000-4000-8000-",
            "check the granted secret key: it is not that of `access_key`",
        ],
    );
    shop.site.write("secret", SECRET_KEY);
    shop.write(json!({"access_key": "AKIAUNKNOWN"}));
    refusal(
        &shop,
        &[
            "InvalidClientTokenId",
            "check `access_key`: AWS knows no such key",
        ],
    );
    shop.write(json!({}));
    shop.server
        .with(|cloud| cloud.key(ACCESS_KEY).is_expired = true);
    refusal(&shop, &["ExpiredToken", "get new temporary credentials"]);
    shop.server.with(|cloud| {
        let key = cloud.key(ACCESS_KEY);
        (key.is_expired, key.allowed) = (false, vec!["RegisterTargets".to_owned()]);
    });
    refusal(
        &shop,
        &[
            "AccessDenied",
            "allow `elasticloadbalancing:DescribeTargetHealth`",
        ],
    );
}

#[test]
fn a_clock_that_is_wrong_is_told_with_both_times() {
    let shop = Shop::new(Kind::Rolling);
    shop.server
        .with(|cloud| cloud.skew = jiff::SignedDuration::from_hours(1));

    refusal(
        &shop,
        &[
            "Signature expired",
            "set this machine's clock: the request was signed at 2",
            "and for AWS it is ",
            "GMT",
        ],
    );
    shop.server
        .with(|cloud| cloud.skew = jiff::SignedDuration::from_hours(-1));
    refusal(
        &shop,
        &["Signature not yet current", "set this machine's clock"],
    );
}

#[test]
fn a_target_group_or_a_listener_that_is_not_there_is_told() {
    let shop = Shop::new(Kind::Rolling);
    shop.write(json!({"target_group": Elbv2::group_arn("red")}));
    refusal(
        &shop,
        &["TargetGroupNotFound", "check `target_group` and `region`"],
    );
    shop.write(json!({"target_group": "red"}));
    refusal(
        &shop,
        &[
            "`red` is not the ARN of this: write `arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/…`",
        ],
    );

    let shop = Shop::new(Kind::BlueGreen);
    shop.write(json!({"listener": Elbv2::listener_arn() + "0"}));
    refusal(
        &shop,
        &["ListenerNotFound", "check `listener` and `region`"],
    );
}

#[test]
fn a_machine_that_is_registered_with_another_port_is_told_before_a_release() {
    let shop = Shop::new(Kind::Rolling);
    shop.server.with(|cloud| {
        cloud.remove("blue", "i-1", 8081);
        cloud.register("blue", "i-1", 9000);
    });

    refusal(
        &shop,
        &[
            "`i-1` is registered in target group `blue` with port 9000, not with port 8081",
            "see who registered `i-1:9000`",
            "several_per_host: true",
        ],
    );
    shop.write(json!({"several_per_host": true}));
    assert_eq!(shop.deploy().code, 0);
}

/// Deploys once, lets something happen, and tells why the next deployment failed.
fn broken(shop: &Shop, trouble: impl FnOnce(&Shop)) -> String {
    assert_eq!(shop.deploy().code, 0);
    let _ = shop.server.take_visits();
    trouble(shop);

    let answer = shop.deploy();

    assert_eq!(answer.code, 4, "{}", answer.stderr);
    shop.reason()
}

#[test]
fn a_quota_that_is_reached_in_a_release_is_told_and_not_tried_again() {
    let shop = Shop::new(Kind::Rolling);

    // Somebody else takes the place of the instance while it is away.
    let reason = broken(&shop, |shop| {
        shop.server.with(|cloud| cloud.group("blue").most = 0);
    });

    for part in [
        "aws refused `RegisterTargets` with `TooManyTargets`: You've reached the limit on the number of targets (request id `00000000-",
        "(not retried); raise the quota in the Service Quotas console, or remove what is not used",
    ] {
        assert!(reason.contains(part), "{part}\n{reason}");
    }
    let visits = shop.server.visits();
    let tried = visits
        .iter()
        .filter(|it| cutover_tests::cloud::elbv2::action(&it.request) == "RegisterTargets");
    assert_eq!(tried.count(), 1);
    assert_eq!(
        shop.targets(),
        ["blue i-2:8082 healthy"],
        "the rest of the group has its traffic"
    );
}

#[test]
fn throttling_that_does_not_end_is_told_with_how_often_it_was_tried() {
    let shop = Shop::new(Kind::Rolling);

    let reason = broken(&shop, |shop| {
        let fault = Fault::Throttled {
            retry_after: Some(0),
        };
        shop.server
            .inject(calling("DeregisterTargets").always(), fault);
    });

    let part = "aws refused `DeregisterTargets` with `Throttling`: Rate exceeded (request id `";
    assert!(reason.contains(part), "{reason}");
    assert!(reason.contains("(tried 7 times)"), "{reason}");
    assert_eq!(
        shop.targets(),
        ["blue i-1:8081 healthy", "blue i-2:8082 healthy"]
    );
}

#[test]
fn a_target_that_is_not_well_is_told_in_the_words_of_aws() {
    let shop = Shop::new(Kind::Rolling);
    assert_eq!(shop.deploy().code, 0);
    let text = std::fs::read_to_string(shop.site.path("cutover.yaml")).unwrap();
    shop.site
        .write("cutover.yaml", &text.replace("timeout: 30s", "timeout: 2s"));
    shop.server
        .with(|cloud| cloud.sicken("blue", "i-1", 8081, Some("Target.FailedHealthChecks")));

    assert_eq!(shop.deploy().code, 4);

    let reason = shop.reason();
    let part = "not healthy in time; the balancer says: out of service, Target.FailedHealthChecks: Health checks failed";
    assert!(reason.contains(part), "{reason}");
}

/// Deploys, and lets something happen while the first instance starts and is out of traffic; tells why it failed.
fn broken_meanwhile(shop: &Shop, trouble: impl FnOnce(&mut Elbv2)) -> String {
    assert_eq!(shop.deploy().code, 0);
    let hook = "test \"$LIFECYCLE_EVENT\" != ApplicationStart || { touch \"$CUTOVER_ROOTDIR/../waits\"; \
                while ! test -e \"$CUTOVER_ROOTDIR/../goes\"; do sleep 0.02; done; }";
    shop.site.traced_package("c", "c", hook);

    let arguments = ["deploy", "shop/web", "--package", "c", "--version", "3.0.0"];
    let mut release = shop.site.start(&arguments);
    until("the instance starts", || shop.site.path("waits").exists());
    shop.server.with(trouble);
    shop.site.write("goes", "");

    assert_eq!(release.wait().unwrap().code(), Some(4));
    shop.reason()
}

#[test]
fn a_token_that_expires_in_a_release_is_told_and_a_new_one_mends_what_it_left() {
    let shop = Shop::new(Kind::Rolling);

    let reason = broken_meanwhile(&shop, |cloud| cloud.key(ACCESS_KEY).is_expired = true);

    for part in [
        "with `ExpiredToken`: The security token included in the request is expired (request id `00000000-",
        "(not retried); get new temporary credentials, and replace access key, secret key and session token together",
    ] {
        assert!(reason.contains(part), "{part}\n{reason}");
    }
    assert_eq!(shop.targets(), ["blue i-2:8082 healthy"]);
    shop.server
        .with(|cloud| cloud.key(ACCESS_KEY).is_expired = false);
    let mended = shop.deploy();
    assert_eq!(mended.code, 0, "{}", mended.stderr);
    assert_eq!(
        shop.targets(),
        ["blue i-1:8081 healthy", "blue i-2:8082 healthy"]
    );
}

#[test]
fn a_machine_that_somebody_registered_otherwise_in_a_release_is_told_and_left() {
    let shop = Shop::new(Kind::Rolling);

    let reason = broken_meanwhile(&shop, |cloud| cloud.register("blue", "i-1", 9000));

    let part = "`i-1` is registered in target group `blue` with port 9000, not with port 8081 (not retried); see who registered `i-1:9000`";
    assert!(reason.contains(part), "{reason}");
    assert_eq!(
        shop.targets(),
        ["blue i-1:9000 healthy", "blue i-2:8082 healthy"]
    );
}

#[test]
fn weights_that_somebody_changed_in_a_release_are_told_and_left() {
    let shop = Shop::new(Kind::BlueGreen);
    assert_eq!(shop.deploy().code, 0);
    let live = shop.weights();
    // The side that gains is not well until the other hand has done its work.
    let [side, id, port] = match live[0] {
        100 => ["green", "i-2", "8082"],
        _ => ["blue", "i-1", "8081"],
    };
    let port = port.parse().unwrap();
    shop.server
        .with(|cloud| cloud.sicken(side, id, port, Some("Target.Timeout")));
    let _ = shop.server.take_visits();

    let mut release =
        shop.site
            .start(&["deploy", "shop/web", "--package", "b", "--version", "3.0.0"]);
    until("the switch waits for health", || {
        let visits = shop.server.visits();
        let asked = visits.iter().filter(|it| {
            cutover_tests::cloud::elbv2::action(&it.request) == "DescribeTargetHealth"
        });
        asked.count() > 3
    });
    shop.server.with(|cloud| {
        cloud.weigh(&[("blue", 60), ("green", 40)]);
        cloud.sicken(side, id, port, None);
        cloud.pass(Duration::from_secs(1));
    });
    let status = release.wait().unwrap();

    assert_eq!(status.code(), Some(4));
    let reason = shop.reason();
    assert!(reason.contains("somebody else moved it"), "{reason}");
    assert_eq!(shop.weights(), [60, 40]);
}

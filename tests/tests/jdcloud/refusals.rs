//! What operators get to read: JD Cloud's code and request id, whether it was tried again, and what to do.

use cutover_tests::cloud::{Fault, When};
use cutover_tests::until;

use super::*;

/// A shop with 1.0.0 on two instances.
fn deployed() -> Shop {
    let shop = Shop::idle(&["web-1", "web-2"]);
    shop.rolling("group: web, drain: 0");
    shop.deploy("1.0.0", "1.0.0").ok();
    let _ = shop.cloud.take_visits();
    shop
}

/// Asserts that a command fails and says all of this.
#[track_caller]
fn assert_says(answer: &Answer, code: i32, parts: &[&str]) {
    let said = format!("{}{}", answer.stdout, answer.stderr);
    assert_eq!(answer.code, code, "{said}");
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn wrong_credentials_are_found_before_anything_changes() {
    let shop = deployed();
    shop.site.write("secret", "another");

    for answer in [shop.site.cutover(&["check"]), shop.deploy("1.1.0", "1.1.0")] {
        assert_says(
            &answer,
            3,
            &[
                "401 UNAUTHENTICATED",
                "the signature does not match",
                "request id `c0",
                "`secret-key`",
            ],
        );
    }

    assert!(!shop.cloud.visits().iter().any(is_write));
}

#[test]
fn an_expired_token_is_to_be_replaced_with_its_key() {
    let shop = deployed();
    shop.rolling("group: web, drain: 0, secrets: {session_token: session-token}");
    shop.cloud.with(|cloud| cloud.want_token("STS-token"));
    shop.deploy("1.1.0", "1.1.0").ok();
    shop.cloud.with(JdCloud::expire_token);

    let answer = shop.deploy("1.1.0", "1.2.0");

    assert_says(
        &answer,
        3,
        &[
            "401 UNAUTHENTICATED",
            "the security token has expired",
            "request id `c0",
            "`session-token`",
        ],
    );
    let told = format!("{}{}", answer.stdout, answer.stderr);
    assert!(!told.contains("STS-token"));
}

#[test]
fn a_clock_that_is_wrong_is_told_with_both_times() {
    let shop = deployed();
    shop.cloud.with(|cloud| cloud.clock_offset_seconds = 3600);

    let answer = shop.site.cutover(&["check"]);

    assert_says(
        &answer,
        3,
        &[
            "401 UNAUTHENTICATED",
            "set the clock: JD Cloud's says",
            "this machine's says",
        ],
    );
}

#[test]
fn a_backend_or_group_that_is_not_there_is_named() {
    let shop = deployed();
    shop.rolling("target_group: tg-none");
    assert_says(
        &shop.site.cutover(&["check"]),
        3,
        &["404 NOT_FOUND", "tg-none", "request id `c0", "`region`"],
    );

    shop.cloud.with(|cloud| cloud.backends.clear());
    assert_says(
        &shop.site.cutover(&["check"]),
        3,
        &["404 NOT_FOUND", "backend `backend-1`"],
    );
}

#[test]
fn a_full_quota_ends_the_release_at_once_with_nothing_left_behind() {
    let shop = Shop::idle(&["web-1", "web-2"]);
    shop.rolling("group: web, drain: 0");
    shop.cloud.with(|cloud| cloud.most_groups = 0);

    let answer = shop.deploy("1.0.0", "1.0.0");

    assert_says(
        &answer,
        4,
        &[
            "429 QUOTA_EXCEEDED",
            "request id `c0",
            "not retried",
            "delete what is not used",
        ],
    );
    let creations = shop.cloud.visits().iter().filter(|it| is_write(it)).count();
    assert_eq!(creations, 1, "nothing else was tried");
    assert!(shop.cloud.with(|cloud| cloud.groups.is_empty()));
}

#[test]
fn throttling_is_waited_for_and_then_told() {
    let shop = deployed();
    let throttled = Fault::Throttled {
        retry_after: Some(1),
    };
    shop.cloud
        .inject(When::call("POST", ":registerTargets").times(2), throttled);
    shop.deploy("1.1.0", "1.1.0").ok();
    assert_eq!(shop.live(), shop.targets("web"));

    shop.cloud.inject(
        When::call("POST", ":deregisterTargets").always(),
        Fault::Throttled { retry_after: None },
    );
    let answer = shop.deploy("1.0.0", "1.2.0");

    assert_says(
        &answer,
        4,
        &[
            "429 RATE_LIMIT",
            "request id `c0",
            "tried 7 times",
            "`concurrency`",
        ],
    );
    assert_eq!(shop.live(), shop.targets("web"), "nobody was taken out");
}

#[test]
fn a_machine_that_is_registered_with_another_port_is_not_released_to() {
    let shop = deployed();
    shop.cloud.with(|cloud| {
        let id = cloud.backend().groups[0].clone();
        let group = cloud.groups.get_mut(&id).unwrap();
        group.targets[0].port = 9090;
    });

    let answer = shop.deploy("1.1.0", "1.1.0");

    assert_says(
        &answer,
        4,
        &[
            "`i-web-1` is registered in",
            "with port 9090",
            "not retried",
            "several_per_host",
        ],
    );
    assert!(!shop.cloud.visits().iter().any(is_write));
}

#[test]
fn a_target_that_somebody_registers_during_a_release_is_told_and_left_alone() {
    let shop = deployed();
    let go_on = shop.site.path("go-on");
    shop.site.write(
        "1.1.0/appspec.yml",
        "version: 0.0\nos: linux\nfiles:\n  - {source: /content, destination: app}\nhooks:\n  AfterInstall:\n    - {location: bin/wait.sh, timeout: 60}\n",
    );
    shop.site.script(
        "1.1.0/bin/wait.sh",
        &format!(
            "#!/bin/sh\n: > '{0}.waits'\nwhile ! [ -e '{0}' ]; do sleep 0.02; done\n",
            go_on.display()
        ),
    );
    let mut command = shop.site.command(&deploying("1.1.0", "1.1.0"));
    let log = std::fs::File::create(shop.site.path("conductor.log")).unwrap();
    let mut conductor = command.stderr(log).spawn().unwrap();
    let waits = shop.site.path("go-on.waits");
    until("web-1 is out", || waits.exists());
    let port = shop.servers[0].1.port();
    shop.cloud.with(|cloud| {
        let id = cloud.backend().groups[0].clone();
        cloud.add_target(&id, "vm", "i-web-1", port, 77);
    });

    std::fs::write(&go_on, "").unwrap();

    let code = conductor.wait().unwrap().code();
    let log = std::fs::read_to_string(shop.site.path("conductor.log")).unwrap();
    assert_eq!(code, Some(4), "{log}");
    for part in ["with weight 77, expected was 10", "somebody else"] {
        assert!(log.contains(part), "{log}");
    }
    assert!(
        shop.live().contains(&format!("i-web-1:{port}=77")),
        "it is left as it is"
    );
}

#[test]
fn a_backend_with_a_group_of_somebody_else_is_refused_unless_it_is_to_be_replaced() {
    let shop = Shop::idle(&["web-1"]);
    shop.cloud.with(|cloud| {
        cloud.add_group("tg-other", "of-others", "instance");
        cloud.attach("tg-other");
    });
    shop.rolling("group: web, drain: 0");
    assert_says(
        &shop.deploy("1.0.0", "1.0.0"),
        3,
        &["`tg-other`", "foreign_group: replace"],
    );
    assert!(!shop.cloud.visits().iter().any(is_write));

    shop.rolling("group: web, drain: 0, foreign_group: replace");
    shop.deploy("1.0.0", "1.0.0").ok();

    assert_eq!(shop.live(), shop.targets("web"));
    assert!(
        shop.cloud
            .with(|cloud| cloud.groups.contains_key("tg-other"))
    );
}

#[test]
fn a_split_between_groups_and_one_on_an_nlb_are_refused_before_anything_changes() {
    let shop = Shop::idle(&["web-1", "web-2", "web-3"]);
    let config = shop.config("group: web");
    shop.describe(&format!(
        "strategy: {{type: canary, first_batch: 1, remaining_batches: 1, traffic: 20%}}\ninstances: {}\n\
         sides: {{current: {{group: {{side: blue}}}}, new: {{group: {{side: green}}}}}}\n\
         load_balancer: {{plugin: jdcloud, config: {config}}}\ntraffic: {{plugin: jdcloud, config: {config}}}\n",
        shop.instances("web")
    ));
    assert_says(
        &shop.site.cutover(&["check"]),
        3,
        &["cannot be split between two", "weights"],
    );

    shop.cloud.with(|cloud| cloud.kind = "nlb".to_owned());
    shop.canary(", traffic: 20%", "group: web");
    assert_says(
        &shop.site.cutover(&["check"]),
        3,
        &["is an nlb", "only targets of an alb may have"],
    );

    assert!(!shop.cloud.visits().iter().any(is_write));
}

#[test]
fn traffic_that_somebody_moves_during_a_release_is_left_where_it_is() {
    let shop = Shop::idle(&["blue-1", "green-1"]);
    shop.colours("", "group: web");
    shop.deploy("1.0.0", "1.0.0").ok();
    shop.cloud.with(|cloud| {
        cloud.add_group("tg-maintenance", "maintenance", "instance");
        cloud.attach("tg-maintenance");
    });

    let answer = shop.deploy("1.1.0", "1.1.0");

    assert_says(&answer, 3, &["`tg-maintenance`"]);
    assert_eq!(
        shop.cloud.with(|cloud| cloud.attached()).as_deref(),
        Some("maintenance")
    );
}

#[test]
fn what_is_written_wrong_is_found_with_its_key() {
    let shop = Shop::idle(&["web-1"]);
    for (keys, part) in [
        (
            "group: a-group-that-is-too-long",
            "/group: `a-group-that-is-too-long` has 24 characters",
        ),
        ("group: web, weight: 200", "/weight"),
        ("group: web, signature: JDCLOUD1", "signature"),
        ("group: web, wieght: 1", "wieght"),
        ("drain: 5s", "`target_group`"),
    ] {
        shop.rolling(keys);
        assert_says(&shop.site.cutover(&["check"]), 3, &[part]);
    }
    let config = shop.config("group: web");
    let instances = shop.instances("web").replace(", provider_id: i-web-1", "");
    shop.describe(&format!(
        "instances: {instances}\nload_balancer: {{plugin: jdcloud, config: {config}}}\n"
    ));
    assert_says(
        &shop.site.cutover(&["check"]),
        3,
        &["`web-1` has no `provider_id`"],
    );
}

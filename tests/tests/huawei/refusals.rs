//! What the vendor refuses, and what somebody else did: the operator is told the vendor's code and request id, whether it was tried
//! again, and what to do.

use cutover_tests::cloud::{Fault, When};

use super::*;

/// Asserts what a command that failed says.
#[track_caller]
fn assert_told(answer: &Answer, code: i32, words: &[&str]) {
    assert_eq!(answer.code, code, "{}", answer.stderr);
    for words in words {
        assert!(
            answer.stderr.contains(words),
            "`{words}` is not in {}",
            answer.stderr
        );
    }
}

/// Asserts what a command that failed says, and that nothing was changed.
#[track_caller]
fn assert_says(shop: &Shop, answer: &Answer, code: i32, words: &[&str]) {
    assert_told(answer, code, words);
    assert_eq!(changes(&shop.cloud.visits()), [""; 0]);
}

/// How often a path was asked with this method.
fn asked(shop: &Shop, method: &str) -> usize {
    let visits = shop.cloud.visits();
    visits
        .iter()
        .filter(|visit| visit.request.method == method)
        .count()
}

/// Has the workspace say something else.
fn reword(shop: &Shop, words: &str, others: &str) {
    let text = std::fs::read_to_string(shop.site.path("cutover.yaml")).unwrap();
    shop.site
        .write("cutover.yaml", &text.replace(words, others));
}

/// Deploys, and has something happen while the answer to the first change is held: by then the weight of its member is 0.
fn deploy_while(shop: &Shop, happens: impl FnOnce(&mut HuaweiElb)) -> Answer {
    let Shop { site, cloud, .. } = shop;
    cloud.inject(When::call("PUT", "/members/"), Fault::Held);
    std::thread::scope(|scope| {
        let releasing = scope.spawn(|| {
            site.cutover(&[
                "deploy",
                "shop/web",
                "--package",
                "package",
                "--version",
                "1.0.0",
            ])
        });
        cutover_tests::until("the answer is held", || cloud.holding() == 1);
        cloud.with(happens);
        cloud.release();
        releasing.join().unwrap()
    })
}

/// A pool without members.
fn empty() -> Shop {
    let group =
        "instances: INSTANCES(1)\nload_balancer: {plugin: huawei, config: {CONFIG, pool: blue}}\n";
    Shop::new(HuaweiElb::new(&["blue", "green"]), group)
}

#[test]
fn wrong_credentials_are_told_and_not_tried_again() {
    let shop = rolling(&[1], "");
    shop.site.write("secret", "another");

    let answer = shop.deploy();

    assert_says(
        &shop,
        &answer,
        3,
        &[
            "read the members of pool `blue`: Huawei Cloud answered 401 APIGW.0301: Incorrect IAM authentication information: verify aksk \
             signature fail (request 00000000000000000000000000000001)",
            "hint: check that the granted secret `secret-key` is the secret of access key `AKEXAMPLE`",
            "after five wrong signatures the vendor locks the key",
        ],
    );
    assert_eq!(
        asked(&shop, "GET"),
        1,
        "a key must not be locked by trying again"
    );
}

#[test]
fn an_unknown_access_key_is_told() {
    let shop = rolling(&[1], "");
    reword(&shop, "AKEXAMPLE", "AKNOBODY");

    let answer = shop.deploy();

    let words = [
        "ak AKNOBODY not exist",
        "hint: there is no access key `AKNOBODY`: check `access_key`",
    ];
    assert_says(&shop, &answer, 3, &words);
}

#[test]
fn temporary_credentials_are_signed_with_their_token_and_told_when_they_expire() {
    let shop = rolling(&[1], ", secrets: {session_token: session-token}");
    shop.cloud
        .with(|elb| elb.add_temporary_key("AKTEMPORARY", "SKTEMPORARY", "the token"));
    reword(&shop, "AKEXAMPLE", "AKTEMPORARY");
    shop.site.write("secret", "SKTEMPORARY");
    shop.site.write("token", "the token");
    shop.deploy().ok();
    shop.cloud.with(HuaweiElb::expire_tokens);
    let _ = shop.cloud.take_visits();

    let answer = shop.deploy();

    let words = [
        "401 APIGW.0301: Incorrect IAM authentication information: token expires",
        "hint: the session token has expired",
        "get new temporary credentials",
    ];
    assert_says(&shop, &answer, 3, &words);
    assert!(!answer.stderr.contains("the token"), "{}", answer.stderr);
}

#[test]
fn a_clock_that_is_off_is_told_with_both_times() {
    let shop = rolling(&[1], "");
    shop.cloud.with(|elb| elb.set_clock_ahead(20 * 60));

    let answer = shop.deploy();

    let words = [
        "calc aksk signature fail:signature expired, signature time:",
        "hint: this machine's clock says 20",
        "Z, the vendor's 20",
        "set the clock, they may be 15 minutes apart",
    ];
    assert_says(&shop, &answer, 3, &words);
    assert_eq!(asked(&shop, "GET"), 1);
}

#[test]
fn an_unknown_pool_is_told_before_anything_changes() {
    let shop = rolling(&[1], "");
    reword(&shop, "pool: blue", "pool: bleu");

    let answer = shop.deploy();

    let words = [
        "404 ELB.8904: pool bleu could not be found. (request ",
        "hint: check the id, `region` and `project_id`",
    ];
    assert_says(&shop, &answer, 3, &words);
}

#[test]
fn a_missing_permission_is_told() {
    let shop = rolling(&[1], "");
    shop.cloud
        .with(|elb| elb.denied.push("elb:members:put".to_owned()));

    let answer = shop.deploy();

    let words = [
        "give `10.0.0.1:8080` in pool `blue` weight 0: Huawei Cloud answered 403 ELB.9403: Policy doesn't allow elb:members:put to be performed.",
        "(not retried)",
        "the policy of the plugin's README",
    ];
    assert_says(&shop, &answer, 4, &words);
    assert_eq!(asked(&shop, "PUT"), 1);
}

#[test]
fn a_quota_that_is_used_up_is_told_and_not_tried_again() {
    let shop = rolling(&[1], "");
    shop.cloud.with(|elb| {
        elb.pools.get_mut("blue").unwrap().members.clear();
        elb.member_quota = 0;
    });

    let answer = shop.deploy();

    let words = [
        "add `10.0.0.1:8080` to pool `blue`: Huawei Cloud answered 403 ELB.8905: Quota exceeded for resources: ['member'].",
        "(not retried)",
        "the quota is used up",
    ];
    assert_says(&shop, &answer, 4, &words);
    assert_eq!(asked(&shop, "POST"), 1);
}

#[test]
fn throttling_is_waited_out_as_long_as_the_vendor_says() {
    let shop = rolling(&[1], "");
    let throttled = Fault::Throttled {
        retry_after: Some(1),
    };
    shop.cloud.inject(When::call("PUT", "/members/"), throttled);
    let began = std::time::Instant::now();

    shop.deploy().ok();

    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
    assert_eq!(asked(&shop, "PUT"), 2, "once in vain, and once more");
    assert_eq!(shop.members("blue"), ["10.0.0.1:8080=1"]);
}

#[test]
fn throttling_without_an_end_is_told_with_how_often_it_was_tried() {
    let shop = rolling(&[1], "");
    let throttled = Fault::Throttled { retry_after: None };
    shop.cloud
        .inject(When::call("PUT", "/members/").always(), throttled);

    let answer = shop.deploy();

    let words = [
        "429 APIGW.0308: The throttling threshold has been reached: policy user over ratelimit (request ",
        "(tried 7 times)",
        "lower `concurrency`",
    ];
    assert_says(&shop, &answer, 4, &words);
}

#[test]
fn an_instance_with_another_port_in_the_pool_is_told_before_anything_changes() {
    let shop = empty();
    let other = SocketAddr::from(([10, 0, 0, 1], 9090));
    shop.cloud.with(|elb| elb.add_member("blue", other, 1));

    let answer = shop.deploy();

    let words = [
        "`10.0.0.1:8080` is no member of pool `blue`, but the same address is with port 9090 (request ",
        "hint: correct the port in the instance's `address`",
    ];
    assert_says(&shop, &answer, 3, &words);
}

#[test]
fn an_instance_of_another_pool_is_told_and_stays_there() {
    let shop = empty();
    shop.cloud
        .with(|elb| elb.add_member("green", address(1), 3));

    let answer = shop.deploy();

    let words = [
        "`10.0.0.1:8080` gets requests as a member of pool `green` already",
        "(tried 7 times)",
        "remove it there by hand, or write `other_pools: allow`",
    ];
    assert_says(&shop, &answer, 4, &words);
    assert_eq!(shop.members("green"), ["10.0.0.1:8080=3"]);
}

#[test]
fn a_weight_that_somebody_set_before_a_release_is_told_and_kept() {
    let shop = rolling(&[1], "");
    shop.cloud
        .with(|elb| elb.member("blue", address(1)).unwrap().weight = 7);

    let answer = shop.deploy();

    let words = [
        "member 10.0.0.1:8080 of pool `blue` has weight 7, and the config says 1: somebody else set it (request ",
        "hint: write `weight: 7`",
    ];
    assert_says(&shop, &answer, 3, &words);
    assert_eq!(shop.members("blue"), ["10.0.0.1:8080=7"]);
}

#[test]
fn a_member_that_somebody_gives_traffic_while_it_drains_is_told_and_kept() {
    let shop = rolling(&[1], "");

    let answer = deploy_while(&shop, |elb| {
        elb.member("blue", address(1)).unwrap().weight = 5;
    });

    let words = [
        "member 10.0.0.1:8080 of pool `blue` has weight 5, and the config says 1: somebody else set it (request ",
        "(tried 7 times)",
        "or set the member back to 1",
    ];
    assert_told(&answer, 4, &words);
    assert_eq!(shop.members("blue"), ["10.0.0.1:8080=5"]);
}

#[test]
fn a_member_that_somebody_removes_while_it_drains_is_no_trouble() {
    let shop = rolling(&[1], "");

    deploy_while(&shop, |elb| {
        elb.pools.get_mut("blue").unwrap().members.clear();
    })
    .ok();

    assert_eq!(shop.members("blue"), ["10.0.0.1:8080=1"]);
}

#[test]
fn a_pool_that_protects_its_members_is_told_before_anything_changes() {
    let shop = rolling(&[1], "");
    shop.cloud
        .with(|elb| elb.pools.get_mut("blue").unwrap().is_protected = true);

    let answer = shop.deploy();

    let words = [
        "pool `blue` (shop-blue) protects its members from removal (request ",
        "hint: turn the removal protection of the pool's members off, or write `remove: never`",
    ];
    assert_says(&shop, &answer, 3, &words);
}

#[test]
fn members_of_a_protected_pool_may_stay_with_weight_0() {
    let shop = rolling(&[1], ", remove: never");
    shop.cloud
        .with(|elb| elb.pools.get_mut("blue").unwrap().is_protected = true);

    shop.deploy().ok();

    assert_eq!(shop.members("blue"), ["10.0.0.1:8080=1"]);
    let changes = changes(&shop.cloud.visits());
    let member = "PUT /pools/blue/members/member-1".to_owned();
    assert_eq!(changes, [member.clone(), member]);
}

#[test]
fn a_pool_that_is_protected_while_a_member_drains_is_told_in_the_vendors_words() {
    let shop = rolling(&[1], "");

    let answer = deploy_while(&shop, |elb| {
        elb.pools.get_mut("blue").unwrap().is_protected = true;
    });

    let words = [
        "remove `10.0.0.1:8080` from pool `blue`: Huawei Cloud answered 409 ELB.8907: Member member-1 cannot be deleted",
        "(not retried)",
        "turn the removal protection of the pool's members off",
    ];
    assert_told(&answer, 4, &words);
    assert_eq!(
        shop.members("blue"),
        ["10.0.0.1:8080=0"],
        "out of traffic, and still there"
    );
}

#[test]
fn a_wait_that_is_longer_than_the_step_has_time_is_told_before_it_begins() {
    let shop = rolling(&[1], "");
    shop.cloud
        .with(|elb| elb.pools.get_mut("blue").unwrap().connection_drain = Some(300));
    shop.describe("instances: INSTANCES(1)\nload_balancer: {plugin: huawei, timeout: 20s, config: {CONFIG, pool: blue}}\n");

    let answer = shop.deploy();

    let words = [
        "draining a member of pool `blue` takes 300 s, and the step has ",
        "(not retried)",
        "raise `timeout` of the load balancer, or set `drain`",
    ];
    assert_says(&shop, &answer, 4, &words);
}

#[test]
fn what_a_weighted_canary_needs_is_checked_before_anything_changes() {
    let group = "strategy: {type: canary, first_batch: 1, remaining_batches: 1, traffic: 50%}\n\
         instances: INSTANCES(1, 2)\n\
         sides: {current: {group: {pool: blue}}, new: {group: {pool: green}}}\n\
         load_balancer: {plugin: huawei, config: {CONFIG, drain: 0s}}\n\
         traffic: {plugin: huawei, config: {CONFIG, policy: policy-1}}\n";
    let elb = || HuaweiElb::new(&["blue", "green"]).with_policy(&[("blue", 100), ("green", 0)]);
    type Spoil = fn(&mut HuaweiElb);
    let cases: [(Spoil, &str); 4] = [
        (
            |elb| elb.has_advanced_forwarding = false,
            "has no advanced forwarding",
        ),
        (
            |elb| elb.is_dedicated = false,
            "load balancer `lb-1` (shop) is a shared one",
        ),
        (
            |elb| elb.policy.path = "/api".to_owned(),
            "policy `policy-1` does not match every request",
        ),
        (
            |elb| elb.policy.exists = false,
            "l7policy policy-1 could not be found.",
        ),
    ];
    for (spoil, words) in cases {
        let mut elb = elb();
        spoil(&mut elb);
        let shop = Shop::new(elb, group);

        let answer = shop.deploy();

        assert_says(&shop, &answer, 3, &[words]);
    }
    let shop = Shop::new(
        elb(),
        &group.replace("policy: policy-1", "listener: listener-1"),
    );
    let answer = shop.deploy();
    assert_says(&shop, &answer, 3, &["name a `policy` to give pools shares"]);
}

#[test]
fn the_example_is_a_workspace_that_the_cloud_finds_nothing_wrong_with() {
    let mut elb = HuaweiElb::new(&[
        "pool-rolling",
        "pool-blue",
        "pool-green",
        "pool-current",
        "pool-new",
    ]);
    elb.default_pool = Some("pool-blue".to_owned());
    let mut elb = elb.with_policy(&[("pool-current", 100), ("pool-new", 0)]);
    elb.default_pool = Some("pool-blue".to_owned());
    let shop = Shop::new(elb, "instances: INSTANCES(1)\n");
    let example =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/huawei/cutover.yaml");
    let text = std::fs::read_to_string(example).unwrap();
    let endpoint = format!("endpoint: \"{}\", region:", shop.cloud.endpoint());
    let text = text
        .replace(
            "https://elb.cn-north-4.myhuaweicloud.com",
            &shop.cloud.endpoint(),
        )
        .replace("env:HUAWEI_SECRET_KEY", "file:secret")
        .replace("HPUAEXAMPLE", HuaweiElb::ACCESS_KEY)
        .replace("listener-front", "listener-1")
        .replace("policy-shares", "policy-1")
        .replace("region:", &endpoint);
    shop.site.write("cutover.yaml", &text);

    let answer = shop.site.cutover(&["check"]).ok();

    assert!(asked(&shop, "GET") > 10, "{}", answer.stdout);
}

use cutover_plugin_sdk::{Attribute, Member as Target};
use serde_json::{Value, json};

use super::*;
use crate::fake::{Script, context};

const LIST: &str = "GET /pools/blue/members?address=10.0.0.1&limit=500";
const ALL: &str = "GET /pools/blue/members?limit=500";
const POOL: &str = "GET /pools/blue";
const ANYWHERE: &str = "GET /members?address=10.0.0.1&protocol_port=8080&limit=500";
const ADD: &str =
    r#"POST /pools/blue/members {"member":{"address":"10.0.0.1","protocol_port":8080,"weight":1}}"#;
const TO_0: &str = r#"PUT /pools/blue/members/m-1 {"member":{"weight":0}}"#;
const TO_1: &str = r#"PUT /pools/blue/members/m-1 {"member":{"weight":1}}"#;
const DELETE: &str = "DELETE /pools/blue/members/m-1";

fn member(weight: u32) -> Value {
    json!({
        "id": "m-1", "address": "10.0.0.1", "protocol_port": 8080, "weight": weight, "subnet_cidr_id": null,
        "operating_status": "ONLINE", "status": [], "reason": null, "updated_at": "2024-01-02T03:04:00Z", "pool_id": "blue",
    })
}

fn with(mut value: Value, key: &str, new: impl Into<Value>) -> Value {
    value[key] = new.into();
    value
}

fn list(members: &[Value]) -> Value {
    json!({"members": members, "page_info": {"current_count": members.len()}, "request_id": "r1"})
}

fn one(member: Value) -> Value {
    json!({"member": member, "request_id": "r1"})
}

fn pool(more: Value) -> Value {
    let mut pool = json!({
        "id": "blue", "name": "shop", "lb_algorithm": "ROUND_ROBIN", "listeners": [{"id": "l-1"}], "loadbalancers": [{"id": "lb-1"}],
        "member_deletion_protection_enable": false, "connection_drain": {"enable": true, "timeout": 20},
    });
    for (key, value) in more.as_object().unwrap() {
        pool[key] = value.clone();
    }
    json!({"pool": pool, "request_id": "r1"})
}

fn error(code: &str, message: &str) -> Value {
    json!({"error_code": code, "error_msg": message, "request_id": "r1"})
}

fn target() -> Target {
    Target {
        target_id: "web-1".to_owned(),
        provider_id: None,
        address: "10.0.0.1".to_owned(),
        port: 8080,
        weight: None,
        zone: None,
        attributes: Vec::new(),
    }
}

fn pool_ref() -> PoolRef {
    PoolRef {
        id: String::new(),
        attributes: vec![Attribute {
            key: "address.web-1".to_owned(),
            value: "10.0.0.1:8080".to_owned(),
        }],
    }
}

#[track_caller]
fn run<T>(script: &Script, more: &str, operation: impl FnOnce(Members<'_>) -> T) -> T {
    let ctx = context(false);
    script.run(more, |elb| {
        operation(Members::of(elb, &ctx, &pool_ref()).unwrap())
    })
}

#[track_caller]
fn allow(script: &Script, more: &str) -> Result<Outcome, Failure> {
    run(script, more, |members| members.allow(&target()))
}

#[track_caller]
fn block(script: &Script, more: &str) -> Result<Outcome, Failure> {
    run(script, more, |members| members.block(&target()))
}

#[track_caller]
fn pending(outcome: Result<Outcome, Failure>) -> Pending {
    match outcome {
        Ok(Outcome::Pending(pending)) => pending,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(
    result: Result<T, Failure>,
    class: FailureClass,
    words: &str,
    hint: &str,
) {
    let failure = result.unwrap_err();
    assert_eq!(failure.class, class, "{failure:?}");
    assert!(failure.message.contains(words), "{failure:?}");
    let told = failure.hint.as_deref().unwrap_or_default();
    assert!(told.contains(hint), "{failure:?}");
}

fn finish(script: &Script, more: &str, token: &str) -> Result<Outcome, Failure> {
    let ctx = context(false);
    script.run(more, |elb| super::finish(elb, &ctx, token))
}

#[test]
fn a_member_that_is_not_there_is_added() {
    let script = Script::new([
        (LIST, 200, list(&[])),
        (ANYWHERE, 200, list(&[])),
        (ADD, 201, one(member(1))),
    ]);

    assert_eq!(allow(&script, ""), Ok(Outcome::changed()));
}

#[test]
fn a_member_is_added_with_its_subnet_and_weight() {
    let add = r#"POST /pools/blue/members {"member":{"address":"10.0.0.1","protocol_port":8080,"subnet_cidr_id":"sub-1","weight":10}}"#;
    let script = Script::new([
        (LIST, 200, list(&[])),
        (ANYWHERE, 200, list(&[])),
        (add, 201, one(member(10))),
    ]);

    let outcome = allow(&script, r#", "subnet": "sub-1", "weights": {"web-1": 10}"#);

    assert_eq!(outcome, Ok(Outcome::changed()));
}

#[test]
fn a_member_that_is_there_is_unchanged() {
    let script = Script::new([(LIST, 200, list(&[member(1)]))]);

    assert_eq!(allow(&script, ""), Ok(Outcome::Unchanged));
}

#[test]
fn a_member_that_was_left_with_weight_0_gets_its_weight_back() {
    let script = Script::new([(LIST, 200, list(&[member(0)])), (TO_1, 200, one(member(1)))]);

    assert_eq!(allow(&script, ""), Ok(Outcome::changed()));
}

#[test]
fn a_weight_of_somebody_elses_is_told_and_kept() {
    for operation in [allow, block] {
        let script = Script::new([(LIST, 200, list(&[member(7)]))]);

        refused(
            operation(&script, ""),
            FailureClass::Conflict,
            "member 10.0.0.1:8080 of pool `blue` has weight 7, and the config says 1: somebody else set it (request r1)",
            "`weight: 7`",
        );
    }
}

#[test]
fn a_subnet_of_somebody_elses_is_told_and_kept() {
    let elsewhere = with(member(1), "subnet_cidr_id", "sub-2");
    let script = Script::new([(LIST, 200, list(&[elsewhere]))]);

    refused(
        allow(&script, r#", "subnet": "sub-1""#),
        FailureClass::Conflict,
        "with subnet `sub-2`, and the config says `sub-1`",
        "`subnet`",
    );
}

#[test]
fn the_same_address_with_another_port_is_told() {
    let other = with(member(1), "protocol_port", 9090);
    for operation in [allow, block] {
        let script = Script::new([(LIST, 200, list(std::slice::from_ref(&other)))]);

        refused(
            operation(&script, ""),
            FailureClass::Conflict,
            "`10.0.0.1:8080` is no member of pool `blue`, but the same address is with port 9090 (request r1)",
            "several_per_host",
        );
    }
    let shared = Script::new([(LIST, 200, list(&[other]))]);
    assert_eq!(
        block(&shared, r#", "several_per_host": true"#),
        Ok(Outcome::Unchanged)
    );
}

#[test]
fn a_member_of_another_pool_is_told() {
    let green = with(member(5), "pool_id", "green");
    let found = list(&[green]);
    let script = Script::new([(LIST, 200, list(&[])), (ANYWHERE, 200, found)]);

    refused(
        allow(&script, ""),
        FailureClass::Conflict,
        "gets requests as a member of pool `green` already",
        "other_pools: allow",
    );
    let allowed = Script::new([(LIST, 200, list(&[])), (ADD, 201, one(member(1)))]);
    assert_eq!(
        allow(&allowed, r#", "other_pools": "allow""#),
        Ok(Outcome::changed())
    );
}

#[test]
fn a_member_that_was_added_meanwhile_is_no_conflict() {
    let taken = error("ELB.8907", "already has a member");
    let script = Script::new([
        (LIST, 200, list(&[])),
        (ANYWHERE, 200, list(&[])),
        (ADD, 409, taken.clone()),
        (LIST, 200, list(&[member(1)])),
    ]);
    assert_eq!(allow(&script, ""), Ok(Outcome::changed()));

    let unseen = Script::new([
        (LIST, 200, list(&[])),
        (ANYWHERE, 200, list(&[])),
        (ADD, 409, taken),
        (LIST, 200, list(&[])),
    ]);
    refused(
        allow(&unseen, ""),
        FailureClass::Conflict,
        "ELB.8907",
        "console",
    );
}

#[test]
fn a_member_leaves_by_weight_0_a_wait_and_its_removal() {
    let script = Script::new([
        (LIST, 200, list(&[member(1)])),
        (POOL, 200, pool(json!({}))),
        (TO_0, 200, one(member(0))),
    ]);

    let first = pending(block(&script, ""));
    assert_eq!(first.poll_after, 20_000, "as the pool grants connections");
    assert_eq!(first.message, "weight 0, 20 s left to finish requests");

    script.pass(19);
    let second = pending(finish(&script, "", &first.token));
    assert_eq!((second.poll_after, &second.token), (1000, &first.token));

    let over = Script::new([(LIST, 200, list(&[member(0)])), (DELETE, 204, json!({}))]);
    over.pass(20);
    assert_eq!(finish(&over, "", &first.token), Ok(Outcome::changed()));
}

#[test]
fn a_wait_that_had_begun_is_not_begun_again() {
    // Five seconds ago by the vendor's clock, whatever that of this machine says.
    let script = Script::new([
        (LIST, 200, list(&[member(0)])),
        (POOL, 200, pool(json!({}))),
    ]);
    script.pass(1000);
    let ctx = OpContext {
        deadline: 0,
        ..context(false)
    };

    let left = script.run("", |elb| {
        pending(
            Members::of(elb, &ctx, &pool_ref())
                .unwrap()
                .block(&target()),
        )
    });

    assert_eq!(left.poll_after, 15_000);
}

#[test]
fn the_wait_is_that_of_the_pool_unless_the_config_says_another() {
    let wait = |more: &str, pool: Value| {
        let script = Script::new([
            (LIST, 200, list(&[member(1)])),
            (POOL, 200, pool),
            (TO_0, 200, one(member(0))),
        ]);
        pending(block(&script, more)).poll_after
    };
    let none = || pool(json!({"connection_drain": {"enable": false, "timeout": 20}}));

    assert_eq!(wait("", pool(json!({}))), 20_000);
    assert_eq!(wait(r#", "drain": "5s""#, pool(json!({}))), 5000);
    assert_eq!(wait("", none()), 30_000);
    assert_eq!(wait("", pool(json!({"connection_drain": null}))), 30_000);
}

#[test]
fn a_wait_that_cannot_end_in_time_is_refused_before_it_begins() {
    let script = Script::new([
        (LIST, 200, list(&[member(1)])),
        (
            POOL,
            200,
            pool(json!({"connection_drain": {"enable": true, "timeout": 300}})),
        ),
    ]);

    refused(
        block(&script, ""),
        FailureClass::Invalid,
        "takes 300 s, and the step has 60 s left",
        "raise `timeout`",
    );
}

#[test]
fn a_member_that_somebody_gave_traffic_while_it_drained_stays() {
    let token = r#"{"pool": "blue", "host": "10.0.0.1", "port": 8080, "until": 0}"#;
    let script = Script::new([(LIST, 200, list(&[member(3)]))]);

    refused(
        finish(&script, "", token),
        FailureClass::Conflict,
        "was given weight 3 while it drained: somebody else changed it (request r1)",
        "console",
    );
    let gone = Script::new([(LIST, 200, list(&[]))]);
    assert_eq!(finish(&gone, "", token), Ok(Outcome::changed()));
}

#[test]
fn a_member_may_stay_with_weight_0() {
    let token = r#"{"pool": "blue", "host": "10.0.0.1", "port": 8080, "until": 0}"#;
    let script = Script::new([(LIST, 200, list(&[member(0)]))]);

    assert_eq!(
        finish(&script, r#", "remove": "never""#, token),
        Ok(Outcome::changed())
    );
}

#[test]
fn a_protected_member_is_refused_before_it_loses_its_weight() {
    let protected = || pool(json!({"member_deletion_protection_enable": true}));
    let script = Script::new([(LIST, 200, list(&[member(1)])), (POOL, 200, protected())]);

    refused(
        block(&script, ""),
        FailureClass::Invalid,
        "pool `blue` (shop) protects its members from removal (request r1)",
        "remove: never",
    );
    let kept = Script::new([
        (LIST, 200, list(&[member(1)])),
        (POOL, 200, protected()),
        (TO_0, 200, one(member(0))),
    ]);
    pending(block(&kept, r#", "remove": "never""#));
}

#[test]
fn a_member_that_was_protected_while_it_drained_is_told_in_the_vendors_words() {
    let token = r#"{"pool": "blue", "host": "10.0.0.1", "port": 8080, "until": 0}"#;
    let protected = pool(json!({"member_deletion_protection_enable": true}));
    let script = Script::new([
        (LIST, 200, list(&[member(0)])),
        (DELETE, 409, error("ELB.8907", "deletion protection is on")),
        (POOL, 200, protected),
    ]);

    refused(
        finish(&script, "", token),
        FailureClass::Denied,
        "answered 409 ELB.8907: deletion protection is on (request r1)",
        "turn the removal protection",
    );
}

#[test]
fn where_weights_count_for_nothing_a_member_is_removed_before_the_wait() {
    let script = Script::new([
        (LIST, 200, list(&[member(1)])),
        (POOL, 200, pool(json!({"lb_algorithm": "SOURCE_IP"}))),
        (
            DELETE,
            404,
            error("ELB.8904", "member m-1 could not be found."),
        ),
    ]);

    assert_eq!(pending(block(&script, "")).poll_after, 20_000);
}

#[test]
fn a_request_that_may_have_been_taken_is_an_unknown_outcome() {
    let lost = || Failure::unknown_outcome("http.reset", "the connection was reset");
    let script = Script::new([
        (LIST, 200, list(&[member(1)])),
        (POOL, 200, pool(json!({}))),
    ])
    .then_fails(TO_0, lost());
    refused(
        block(&script, ""),
        FailureClass::UnknownOutcome,
        "give `10.0.0.1:8080` in pool `blue` weight 0: the connection was reset",
        "",
    );
    // What only reads has no outcome.
    let reading = Script::new([]).then_fails(LIST, lost());
    refused(
        allow(&reading, ""),
        FailureClass::Transient,
        "was reset",
        "",
    );
    let garbled = Script::new([
        (LIST, 200, list(&[member(0)])),
        (TO_1, 200, json!({"membr": 1})),
    ]);
    refused(
        allow(&garbled, ""),
        FailureClass::UnknownOutcome,
        "`member`",
        "",
    );
    let late = Script::new([(LIST, 200, list(&[member(0)])), (TO_1, 200, one(member(0)))]);
    refused(
        allow(&late, ""),
        FailureClass::UnknownOutcome,
        "the answer says 0",
        "",
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let ctx = context(true);
    let adding = Script::new([(LIST, 200, list(&[])), (ANYWHERE, 200, list(&[]))]);
    let leaving = Script::new([
        (LIST, 200, list(&[member(1)])),
        (POOL, 200, pool(json!({}))),
    ]);
    let of = |script: &Script, run: fn(&Members<'_>) -> Result<Outcome, Failure>| {
        script.run("", |elb| run(&Members::of(elb, &ctx, &pool_ref()).unwrap()))
    };

    assert_eq!(
        of(&adding, |it| it.allow(&target())),
        Ok(Outcome::changed())
    );
    assert_eq!(
        of(&leaving, |it| it.block(&target())),
        Ok(Outcome::changed())
    );
}

#[test]
fn an_instance_without_an_address_is_told() {
    let script = Script::new([]);
    let named = Target {
        address: "web-1.internal".to_owned(),
        ..target()
    };
    let bare = Target {
        port: 0,
        ..target()
    };

    refused(
        run(&script, "", |members| members.allow(&named)),
        FailureClass::Invalid,
        "of instance `web-1` `web-1.internal` is no IP address",
        "`address: IP:PORT`",
    );
    refused(
        run(&script, "", |members| members.block(&bare)),
        FailureClass::Invalid,
        "it has no `address`",
        "",
    );
}

fn status(script: &Script, more: &str) -> (Phase, Option<String>) {
    let asked = ["web-1".to_owned()];
    let mut statuses = run(script, more, |members| {
        members.statuses(&pool_ref(), &asked)
    })
    .unwrap();
    let status = statuses.pop().unwrap();
    (status.phase, status.reason)
}

#[test]
fn a_member_is_as_the_balancer_says_and_why() {
    let refused = json!({"reason_code": "RESPONSE_MISMATCH", "expected_response": "200", "healthcheck_response": "503"});
    let cases: [(Value, Phase, Option<&str>); 6] = [
        (member(1), Phase::InService, None),
        (member(0), Phase::OutOfService, Some("weight 0")),
        (
            with(member(1), "operating_status", "INITIAL"),
            Phase::Registering,
            Some("INITIAL"),
        ),
        (
            with(
                with(member(1), "operating_status", "OFFLINE"),
                "reason",
                refused,
            ),
            Phase::OutOfService,
            Some("OFFLINE RESPONSE_MISMATCH (expected 200, was 503)"),
        ),
        (
            with(member(1), "operating_status", "NO_MONITOR"),
            Phase::InService,
            Some("not checked: the pool has no health check"),
        ),
        (with(member(1), "address", "10.0.0.9"), Phase::Absent, None),
    ];
    for (member, phase, reason) in cases {
        let script = Script::new([(ALL, 200, list(&[member]))]);

        assert_eq!(status(&script, ""), (phase, reason.map(str::to_owned)));
    }
    let other = with(member(1), "protocol_port", 9090);
    let script = Script::new([(ALL, 200, list(&[other]))]);
    let words = "the same address is with port 9090".to_owned();
    assert_eq!(status(&script, ""), (Phase::Absent, Some(words)));
}

#[test]
fn what_a_listener_says_of_a_member_counts_before_what_is_said_of_it_at_large() {
    let by_listener = json!([
        {"listener_id": "l-1", "operating_status": "ONLINE", "reason": null},
        {"listener_id": "l-2", "operating_status": "OFFLINE", "reason": {"reason_code": "CONNECT_REFUSED"}},
    ]);
    let member = with(member(1), "status", by_listener);
    let of = |more: &str| {
        status(
            &Script::new([(ALL, 200, list(std::slice::from_ref(&member)))]),
            more,
        )
    };

    assert_eq!(
        of(""),
        (
            Phase::OutOfService,
            Some("OFFLINE CONNECT_REFUSED".to_owned())
        )
    );
    assert_eq!(of(r#", "listener": "l-1""#).0, Phase::InService);
}

#[test]
fn members_of_a_pool_that_no_listener_has_are_not_checked() {
    let unknown = list(&[with(member(1), "operating_status", "UNKNOWN")]);
    let of = |listeners: Value| {
        let script = Script::new([
            (ALL, 200, unknown.clone()),
            (POOL, 200, pool(json!({"listeners": listeners}))),
        ]);
        status(&script, "").0
    };

    assert_eq!(of(json!([])), Phase::InService);
    assert_eq!(of(json!([{"id": "l-1"}])), Phase::Registering);
}

#[test]
fn a_look_ahead_finds_what_would_stop_a_release() {
    let ahead = |members: &[Value], more: Value, config: &str| {
        let script = Script::new([(ALL, 200, list(members)), (POOL, 200, pool(more))]);
        let (ctx, asked) = (context(true), ["web-1".to_owned()]);
        script.run(config, |elb| {
            let members = Members::of(elb, &ctx, &pool_ref()).unwrap();
            members.statuses(&pool_ref(), &asked)
        })
    };
    let protected = json!({"member_deletion_protection_enable": true});
    let other = with(member(1), "protocol_port", 9090);
    let hashing = json!({"lb_algorithm": "SOURCE_IP"});
    let never = r#", "remove": "never""#;

    assert!(ahead(&[member(1)], json!({}), "").is_ok());
    assert!(ahead(&[], json!({}), "").is_ok());
    let invalid = FailureClass::Invalid;
    refused(
        ahead(&[member(1)], protected, ""),
        invalid,
        "protects its members",
        "remove: never",
    );
    refused(
        ahead(&[member(7)], json!({}), ""),
        invalid,
        "has weight 7",
        "`weight: 7`",
    );
    refused(
        ahead(&[other], json!({}), ""),
        invalid,
        "with port 9090",
        "several_per_host",
    );
    refused(
        ahead(&[], hashing, never),
        invalid,
        "balances by SOURCE_IP",
        "remove: delete",
    );
}

#[test]
fn all_pages_of_a_list_are_read() {
    let first =
        json!({"members": [member(1)], "page_info": {"next_marker": "m-1", "current_count": 1}});
    let second = with(member(1), "protocol_port", 8081);
    let script = Script::new([
        (ALL, 200, first),
        (
            "GET /pools/blue/members?limit=500&marker=m-1",
            200,
            list(&[second]),
        ),
    ]);

    let all = run(&script, "", |members| members.statuses(&pool_ref(), &[])).unwrap();

    let names: Vec<_> = all.iter().map(|status| status.target_id.as_str()).collect();
    assert_eq!(names, ["10.0.0.1:8080", "10.0.0.1:8081"]);
}

#[test]
fn a_weight_is_set_as_it_is_told() {
    let set = |script: &Script, weight: u32| {
        run(script, "", |members| {
            members.set_weight(&pool_ref(), "web-1", weight)
        })
    };

    let script = Script::new([(LIST, 200, list(&[member(7)])), (TO_1, 200, one(member(1)))]);
    assert_eq!(set(&script, 1), Ok(Outcome::changed()));
    let script = Script::new([(LIST, 200, list(&[member(7)]))]);
    assert_eq!(set(&script, 7), Ok(Outcome::Unchanged));
    refused(
        set(&Script::new([]), 101),
        FailureClass::Invalid,
        "more than ELB takes",
        "",
    );
    let script = Script::new([(LIST, 200, list(&[]))]);
    refused(
        set(&script, 1),
        FailureClass::NotFound,
        "has no member `10.0.0.1:8080`",
        "",
    );
}

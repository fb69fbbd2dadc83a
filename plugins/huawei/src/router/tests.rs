use cutover_plugin_sdk::{FailureClass, Severity};
use serde_json::{Value, json};

use super::*;
use crate::fake::{Script, context};

const SWITCHED: &str = r#", "listener": "l-1""#;
const WEIGHED: &str = r#", "policy": "p-1""#;
const LISTENER: &str = "GET /listeners/l-1";
const POLICY: &str = "GET /l7policies/p-1";
const TO_GREEN: &str = r#"PUT /listeners/l-1 {"listener":{"default_pool_id":"green"}}"#;
const TO_80_20: &str = r#"PUT /l7policies/p-1 {"l7policy":{"redirect_pools_config":[{"pool_id":"blue","weight":80},{"pool_id":"green","weight":20}]}}"#;

fn sides() -> Vec<Side> {
    ["blue", "green"]
        .map(|name| Side {
            name: name.to_owned(),
            group: format!(r#"{{"pool": "{name}"}}"#),
            members: Vec::new(),
        })
        .into()
}

fn shares(blue: u8, green: u8) -> Vec<Share> {
    let share = |(side, percent): (&str, u8)| Share {
        side: side.to_owned(),
        percent,
    };
    [("blue", blue), ("green", green)].map(share).into()
}

fn listener(pool: Value) -> Value {
    json!({"listener": {
        "id": "l-1", "name": "front", "default_pool_id": pool, "protocol": "HTTP", "enhance_l7policy_enable": true,
        "loadbalancers": [{"id": "lb-1"}],
    }})
}

fn policy(pools: &[(&str, u32)]) -> Value {
    let pools: Vec<_> = pools
        .iter()
        .map(|(pool, weight)| json!({"pool_id": pool, "weight": weight}))
        .collect();
    json!({"l7policy": {
        "id": "p-1", "name": "all", "action": "REDIRECT_TO_POOL", "listener_id": "l-1", "provisioning_status": "ACTIVE",
        "redirect_pool_id": "blue", "redirect_pools_config": pools,
    }})
}

fn write(
    script: &Script,
    config: &str,
    expected: Option<&str>,
    shares: &[Share],
) -> Result<Outcome, Failure> {
    script.run(config, |elb| {
        set(&elb, &context(false), &sides(), expected, shares)
    })
}

#[test]
fn the_default_pool_is_the_live_side() {
    let of = |pool: Value| {
        let script = Script::new([(LISTENER, 200, listener(pool))]);
        script.run(SWITCHED, |elb| get(&elb, &sides())).unwrap()
    };

    let split = of(json!("green"));
    assert_eq!(percent_of(&split.shares, "green"), 100);
    assert_eq!(
        (split.revision.as_deref(), split.settled),
        (Some("green=100"), true)
    );
    assert!(of(json!(null)).shares.is_empty(), "no side is live");
    assert!(of(json!("legacy")).shares.is_empty(), "no side is live");
}

#[test]
fn the_weights_of_a_policy_are_the_shares() {
    let of = |policy: Value| {
        let script = Script::new([(POLICY, 200, policy)]);
        script.run(WEIGHED, |elb| get(&elb, &sides()))
    };

    let split = of(policy(&[("green", 1), ("blue", 4)])).unwrap();
    assert_eq!(
        (
            percent_of(&split.shares, "blue"),
            percent_of(&split.shares, "green")
        ),
        (80, 20)
    );
    assert_eq!(split.revision.as_deref(), Some("blue=4,green=1"));
    let single = of(policy(&[])).unwrap();
    assert_eq!(
        percent_of(&single.shares, "blue"),
        100,
        "by redirect_pool_id"
    );
    let foreign = of(policy(&[("blue", 50), ("legacy", 50)])).unwrap_err();
    assert_eq!(foreign.class, FailureClass::Conflict);
    assert!(
        foreign
            .message
            .contains("pool `legacy`, which is no side's"),
        "{foreign:?}"
    );
}

#[test]
fn a_switch_is_one_request() {
    let script = Script::new([
        (LISTENER, 200, listener(json!("blue"))),
        (TO_GREEN, 200, listener(json!("green"))),
    ]);
    assert_eq!(
        write(&script, SWITCHED, Some("blue=100"), &shares(0, 100)),
        Ok(Outcome::changed())
    );

    let again = Script::new([(LISTENER, 200, listener(json!("green")))]);
    assert_eq!(
        write(&again, SWITCHED, Some("blue=100"), &shares(0, 100)),
        Ok(Outcome::Unchanged)
    );
}

#[test]
fn a_split_names_every_side() {
    let script = Script::new([
        (POLICY, 200, policy(&[("blue", 100), ("green", 0)])),
        (TO_80_20, 200, policy(&[("blue", 80), ("green", 20)])),
    ]);
    assert_eq!(
        write(&script, WEIGHED, Some("blue=100"), &shares(80, 20)),
        Ok(Outcome::changed())
    );

    let again = Script::new([(POLICY, 200, policy(&[("green", 20), ("blue", 80)]))]);
    assert_eq!(
        write(&again, WEIGHED, None, &shares(80, 20)),
        Ok(Outcome::Unchanged)
    );
}

#[test]
fn what_somebody_else_changed_is_not_written_over() {
    let script = Script::new([(POLICY, 200, policy(&[("blue", 50), ("green", 50)]))]);

    let failure = write(&script, WEIGHED, Some("blue=100"), &shares(80, 20)).unwrap_err();

    assert_eq!(failure.class, FailureClass::Conflict);
    let words = "policy `p-1` is at blue=50,green=50, not at blue=100: somebody else changed it (request r1)";
    assert_eq!(failure.message, words);
}

#[test]
fn an_answer_that_says_something_else_is_an_unknown_outcome() {
    let script = Script::new([
        (LISTENER, 200, listener(json!("blue"))),
        (TO_GREEN, 200, listener(json!("blue"))),
    ]);

    let failure = write(&script, SWITCHED, None, &shares(0, 100)).unwrap_err();

    assert_eq!(failure.class, FailureClass::UnknownOutcome);
}

#[test]
fn a_default_pool_cannot_be_weighed() {
    let script = Script::new([(LISTENER, 200, listener(json!("blue")))]);

    let failure = write(&script, SWITCHED, None, &shares(80, 20)).unwrap_err();

    assert_eq!(failure.class, FailureClass::Unsupported);
    assert!(failure.hint.unwrap().contains("`policy`"));
}

/// What a policy and all around it are, and what is found wrong with it.
struct Ground {
    policy: Value,
    listener: Value,
    balancer: Value,
    rules: Value,
    pool: Value,
}

impl Ground {
    fn sound() -> Self {
        Self {
            policy: policy(&[("blue", 100), ("green", 0)]),
            listener: listener(json!("spare")),
            balancer: json!({"loadbalancer": {"name": "shop", "guaranteed": true}}),
            rules: json!({"rules": [{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/", "invert": false, "conditions": []}]}),
            pool: json!({"pool": {"listeners": [{"id": "l-1"}], "loadbalancers": [{"id": "lb-1"}]}}),
        }
    }

    #[track_caller]
    fn check(self, severity: Severity, words: &str) {
        let script = Script::new([
            (POLICY, 200, self.policy),
            (LISTENER, 200, self.listener),
            ("GET /loadbalancers/lb-1", 200, self.balancer),
            ("GET /l7policies/p-1/rules?limit=500", 200, self.rules),
            ("GET /pools/blue", 200, self.pool.clone()),
            ("GET /pools/green", 200, self.pool),
        ]);

        let found = script
            .run(WEIGHED, |elb| check(&elb, &sides(), Purpose::Weighted))
            .unwrap();

        if words.is_empty() {
            assert_eq!(found, []);
            return;
        }
        let is_meant = |it: &&Diagnostic| it.severity == severity && it.message.contains(words);
        assert!(found.iter().any(|it| is_meant(&it)), "{found:?}");
    }
}

#[test]
fn what_a_weighted_split_needs_is_checked() {
    use Severity::{Error, Warning};
    Ground::sound().check(Error, "");
    let mut ground = Ground::sound();
    ground.listener["listener"]["enhance_l7policy_enable"] = json!(false);
    ground.check(Error, "no advanced forwarding");
    let mut ground = Ground::sound();
    ground.listener["listener"]["protocol"] = json!("TCP");
    ground.check(Error, "is TCP");
    let mut ground = Ground::sound();
    ground.balancer["loadbalancer"]["guaranteed"] = json!(false);
    ground.check(Error, "is a shared one");
    let mut ground = Ground::sound();
    ground.policy["l7policy"]["action"] = json!("FIXED_RESPONSE");
    ground.check(Error, "does FIXED_RESPONSE");
    let mut ground = Ground::sound();
    ground.policy["l7policy"]["provisioning_status"] = json!("ERROR");
    ground.check(Error, "is in ERROR");
    for rules in [
        json!([]),
        json!([{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/api"}]),
        json!([{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/", "invert": true}]),
        json!([{"type": "PATH", "compare_type": "STARTS_WITH", "value": "/"}, {"type": "METHOD", "compare_type": "EQUAL_TO", "value": "GET"}]),
    ] {
        let mut ground = Ground::sound();
        ground.rules["rules"] = rules;
        ground.check(Error, "does not match every request");
    }
    let mut ground = Ground::sound();
    ground.rules["rules"][0]["conditions"] =
        json!([{"key": "", "value": "/"}, {"key": "", "value": "/api"}]);
    ground.check(Error, "");
    let mut ground = Ground::sound();
    ground.policy = policy(&[("blue", 90), ("legacy", 10)]);
    ground.check(Error, "sends requests to pool `legacy`, which is no side's");
    let mut ground = Ground::sound();
    ground.pool["pool"]["loadbalancers"] = json!([{"id": "lb-2"}]);
    ground.check(Error, "another load balancer");
    let mut ground = Ground::sound();
    ground.pool["pool"]["listeners"] = json!([]);
    ground.check(Warning, "nothing checks its members");
    let mut ground = Ground::sound();
    ground.listener = listener(json!("blue"));
    ground.check(Warning, "is the default pool");
}

#[test]
fn a_policy_takes_five_pools_and_each_once() {
    let names = ["a", "b", "c", "d", "e", "e"];
    let sides: Vec<_> = (0..)
        .zip(names)
        .map(|(number, pool)| Side {
            name: format!("s{number}"),
            group: format!(r#"{{"pool": "{pool}"}}"#),
            members: Vec::new(),
        })
        .collect();
    let Ground {
        policy,
        listener,
        balancer,
        rules,
        pool,
    } = Ground::sound();
    let script = Script::new([
        (POLICY, 200, policy),
        (LISTENER, 200, listener),
        ("GET /loadbalancers/lb-1", 200, balancer),
        ("GET /l7policies/p-1/rules?limit=500", 200, rules),
        ("GET /pools/a", 200, pool.clone()),
        ("GET /pools/b", 200, pool.clone()),
        ("GET /pools/c", 200, pool.clone()),
        ("GET /pools/d", 200, pool.clone()),
        ("GET /pools/e", 200, pool.clone()),
        ("GET /pools/e", 200, pool),
    ]);

    let found = script
        .run(WEIGHED, |elb| check(&elb, &sides, Purpose::Weighted))
        .unwrap();

    let says = |words: &str| found.iter().any(|it| it.message.contains(words));
    assert!(says("takes 5 pools, and there are 6 sides"), "{found:?}");
    assert!(says("pool `e` is another side's already"), "{found:?}");
}

#[test]
fn a_listener_cannot_weigh_and_its_policies_are_told() {
    let pool =
        || json!({"pool": {"listeners": [{"id": "l-1"}], "loadbalancers": [{"id": "lb-1"}]}});
    let policies = json!({"l7policies": [policy(&[])["l7policy"]], "page_info": {}});
    let script = Script::new([
        (LISTENER, 200, listener(json!("blue"))),
        ("GET /pools/blue", 200, pool()),
        ("GET /pools/green", 200, pool()),
        ("GET /l7policies?listener_id=l-1&limit=500", 200, policies),
    ]);

    let found = script
        .run(SWITCHED, |elb| check(&elb, &sides(), Purpose::Weighted))
        .unwrap();

    let messages: Vec<_> = found
        .iter()
        .map(|it| (it.severity, it.message.as_str()))
        .collect();
    assert_eq!(messages.len(), 2, "{found:?}");
    assert!(messages[0].0 == Severity::Error && messages[0].1.contains("name a `policy`"));
    assert!(
        messages[1].0 == Severity::Warning && messages[1].1.contains("policy `all` (p-1) matches")
    );
}

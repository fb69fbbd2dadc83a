//! Targets as they come and go, whatever goes wrong with the requests.

use cutover_plugin_sdk::{
    Attribute, Failure, FailureClass, Member, MemberStatus, Outcome, Phase, PoolRef, Weight,
};

use super::Pool;
use super::joining::JOINS_ASIDE;
use crate::config::Config;
use crate::memory::{Fault, Memory, PASSING, config, context};
use crate::waits::Wait;

fn member(id: &str) -> Member {
    Member {
        target_id: id.to_owned(),
        provider_id: Some(format!("i-{id}")),
        address: "10.0.0.1".to_owned(),
        port: 8080,
        weight: None,
        zone: None,
        attributes: Vec::new(),
    }
}

fn pool_ref(ids: &[&str]) -> PoolRef {
    let attributes = ids.iter().flat_map(|id| {
        [
            (format!("provider-id.{id}"), format!("i-{id}")),
            (format!("address.{id}"), "10.0.0.1:8080".to_owned()),
        ]
    });
    PoolRef {
        id: String::new(),
        attributes: attributes
            .map(|(key, value)| Attribute { key, value })
            .collect(),
    }
}

fn register(jd: &Memory, config: &Config, members: &[Member]) -> Result<Outcome, Failure> {
    let lb = jd.lb();
    let results = Pool::read(&lb, config)?.register(&context(), members)?;
    results.into_iter().next_back().unwrap().outcome
}

fn deregister(jd: &Memory, config: &Config, members: &[Member]) -> Result<Outcome, Failure> {
    let lb = jd.lb();
    let results = Pool::read(&lb, config)?.deregister(&context(), members)?;
    results.into_iter().next_back().unwrap().outcome
}

fn status(jd: &Memory, config: &Config, id: &str) -> Result<MemberStatus, Failure> {
    let lb = jd.lb();
    let ids = [id.to_owned()];
    let statuses = Pool::read(&lb, config)?.statuses(&pool_ref(&[id]), &ids)?;
    Ok(statuses.into_iter().next().unwrap())
}

/// One pool with `web-1` registered and attached.
fn serving() -> (Memory, Config) {
    let jd = Memory::alb();
    let config = config(r#""target_group": "tg-a""#);
    jd.add_group("tg-a", "shop");
    jd.add_target("tg-a", "i-web-1", 8080, 10);
    jd.state.borrow_mut().attached = vec!["tg-a".to_owned()];
    (jd, config)
}

#[test]
fn the_first_registration_makes_a_group_and_attaches_it_and_the_second_finds_it() {
    let jd = Memory::alb();
    let config = config(r#""group": "group-MWd2XvpgEj""#);
    assert_eq!(status(&jd, &config, "web-1").unwrap().phase, Phase::Absent);
    assert_eq!(
        deregister(&jd, &config, &[member("web-1")]),
        Ok(Outcome::Unchanged)
    );

    assert_eq!(
        register(&jd, &config, &[member("web-1")]),
        Ok(Outcome::changed())
    );
    assert_eq!(
        register(&jd, &config, &[member("web-2")]),
        Ok(Outcome::changed())
    );

    let state = jd.state.borrow();
    let [(id, name)] = state.groups.as_slice() else {
        panic!("{:?}", state.groups);
    };
    assert!(name.starts_with("deploy_R_group-MWd2XvpgEj_"), "{name}");
    assert_eq!(&state.attached, std::slice::from_ref(id));
    let body = r#"{"targetSpecs":[{"instanceId":"i-web-1","port":8080,"type":"vm","weight":10}]}"#;
    assert_eq!(
        jd.writes()[1..3],
        [
            format!("POST targetGroups/{id}:registerTargets {body}"),
            format!(r#"PATCH backends/backend-1 {{"targetGroupIds":["{id}"]}}"#),
        ]
    );
    drop(state);
    assert_eq!(jd.targets("tg-1"), ["i-web-1:8080=10", "i-web-2:8080=10"]);
    assert_eq!(
        status(&jd, &config, "web-2").unwrap().phase,
        Phase::InService
    );
}

#[test]
fn a_registered_target_is_unchanged_also_with_the_port_of_its_backend() {
    let (jd, config) = serving();
    assert_eq!(
        register(&jd, &config, &[member("web-1")]),
        Ok(Outcome::Unchanged)
    );

    let own = Member {
        port: 80,
        ..member("web-3")
    };
    jd.add_target("tg-a", "i-web-3", 0, 10);
    assert_eq!(register(&jd, &config, &[own]), Ok(Outcome::Unchanged));

    assert!(jd.writes().is_empty(), "{:?}", jd.writes());
}

#[test]
fn a_target_leaves_by_its_own_id_and_is_given_time() {
    let (jd, config) = serving();
    jd.add_target("tg-a", "i-web-2", 8080, 10);

    let Ok(Outcome::Pending(pending)) = deregister(&jd, &config, &[member("web-1")]) else {
        panic!("connections are open");
    };

    assert_eq!(
        jd.writes(),
        [r#"POST targetGroups/tg-a:deregisterTargets {"targetIds":["target-1"]}"#]
    );
    assert_eq!(
        Wait::parse(&pending.token),
        Ok(Wait::Drain {
            until_ms: 1_010_000
        })
    );
    assert_eq!(jd.targets("tg-a"), ["i-web-2:8080=10"]);
    assert_eq!(status(&jd, &config, "web-1").unwrap().phase, Phase::Absent);
}

#[test]
fn an_nlb_drains_as_long_as_its_backend_says_and_knows_no_weight_0() {
    let (jd, config) = serving();
    jd.state.borrow_mut().kind = "nlb";
    let aside = Member {
        weight: Some(0),
        ..member("web-2")
    };

    let refused = register(&jd, &config, &[aside]).unwrap_err();
    let Ok(Outcome::Pending(pending)) = deregister(&jd, &config, &[member("web-1")]) else {
        panic!("connections are open");
    };

    assert_eq!(refused.code, "jd.weight-0");
    assert_eq!(
        Wait::parse(&pending.token),
        Ok(Wait::Drain {
            until_ms: 1_020_000
        })
    );
    assert_eq!(jd.writes().len(), 1);
}

#[test]
fn an_instance_that_joins_aside_has_weight_0_until_the_switch() {
    let (jd, config) = serving();
    let mut aside = member("web-2");
    aside.attributes.push(Attribute {
        key: JOINS_ASIDE.to_owned(),
        value: "true".to_owned(),
    });

    assert_eq!(register(&jd, &config, &[aside]), Ok(Outcome::changed()));

    assert_eq!(jd.targets("tg-a"), ["i-web-1:8080=10", "i-web-2:8080=0"]);
}

#[test]
fn what_somebody_registered_otherwise_is_told_and_left_alone() {
    let (jd, config) = serving();
    jd.add_target("tg-a", "i-web-2", 8080, 55);
    jd.add_target("tg-a", "i-web-3", 9090, 10);

    let weight = register(&jd, &config, &[member("web-2")]).unwrap_err();
    let port = register(&jd, &config, &[member("web-3")]).unwrap_err();
    let leaving = deregister(&jd, &config, &[member("web-3")]).unwrap_err();

    assert_eq!(
        (weight.code.as_str(), weight.class),
        ("jd.target-differs", FailureClass::Permanent)
    );
    assert!(
        weight.message.contains("weight 55, expected was 10"),
        "{}",
        weight.message
    );
    for failure in [port, leaving] {
        assert_eq!(failure.code, "jd.target-elsewhere");
        assert!(
            failure.message.contains("port 9090, expected was 8080"),
            "{}",
            failure.message
        );
    }
    assert!(jd.writes().is_empty(), "{:?}", jd.writes());
}

#[test]
fn several_instances_of_one_machine_are_told_apart_by_their_ports() {
    let (jd, _) = serving();
    let config = config(r#""target_group": "tg-a", "several_per_host": true, "drain": 0"#);
    let other = Member {
        port: 8081,
        ..member("web-1")
    };

    assert_eq!(
        register(&jd, &config, std::slice::from_ref(&other)),
        Ok(Outcome::changed())
    );
    assert_eq!(deregister(&jd, &config, &[other]), Ok(Outcome::changed()));

    assert_eq!(jd.targets("tg-a"), ["i-web-1:8080=10"]);
}

#[test]
fn a_backend_with_a_group_of_somebody_else_is_left_alone_unless_it_is_to_be_replaced() {
    let (jd, _) = serving();
    let refusing = config(r#""group": "web""#);
    let replacing = config(r#""group": "web", "foreign_group": "replace""#);

    let refused = register(&jd, &refusing, &[member("web-1")]).unwrap_err();
    let asked = status(&jd, &refusing, "web-1").unwrap_err();
    assert!(jd.writes().is_empty(), "{:?}", jd.writes());
    register(&jd, &replacing, &[member("web-1")]).unwrap();

    for failure in [refused, asked] {
        assert_eq!(failure.code, "jd.foreign-group");
        assert!(failure.hint.unwrap().contains("foreign_group: replace"));
    }
    assert_eq!(jd.state.borrow().attached, ["tg-2"]);
    assert_eq!(
        jd.targets("tg-a"),
        ["i-web-1:8080=10"],
        "the group of others is not touched"
    );
}

#[test]
fn health_has_the_reasons_of_the_health_check() {
    let (jd, config) = serving();
    jd.state.borrow_mut().unwell.push("i-web-1".to_owned());

    let unwell = status(&jd, &config, "web-1").unwrap();
    jd.state.borrow_mut().has_health_check = false;
    let unprobed = status(&jd, &config, "web-1").unwrap();

    assert_eq!(unwell.phase, Phase::OutOfService);
    assert_eq!(unwell.reason.as_deref(), Some("CONNECT_FAILED: refused"));
    assert_eq!(unprobed.phase, Phase::InService);
}

#[test]
fn of_a_colour_that_no_backend_has_nobody_can_tell() {
    let (jd, _) = serving();
    let green = config(r#""group": "web", "side": "green""#);
    jd.add_group("tg-g", "deploy_G_web_abc");
    jd.add_target("tg-g", "i-green-1", 8080, 10);

    assert_eq!(
        status(&jd, &green, "green-1").unwrap().phase,
        Phase::Unknown
    );
    assert_eq!(
        status(&jd, &green, "green-2").unwrap().phase,
        Phase::Unknown
    );
}

#[test]
fn weights_are_set_by_the_ids_of_targets() {
    let (jd, config) = serving();
    let lb = jd.lb();
    let weight = |weight| Weight {
        target_id: "web-1".to_owned(),
        weight,
    };
    let set = |value| {
        let pool = Pool::read(&lb, &config).unwrap();
        let results = pool.weigh(&context(), &pool_ref(&["web-1"]), &[weight(value)]);
        results.unwrap().pop().unwrap().outcome
    };

    assert_eq!(set(10), Ok(Outcome::Unchanged));
    assert_eq!(set(0), Ok(Outcome::changed()));
    assert_eq!(set(101).unwrap_err().code, "jd.weight");

    assert_eq!(jd.targets("tg-a"), ["i-web-1:8080=0"]);
}

#[test]
fn a_member_without_what_it_is_registered_by_is_invalid() {
    let (jd, config) = serving();
    let nameless = Member {
        provider_id: None,
        ..member("web-1")
    };

    let failure = register(&jd, &config, &[nameless]).unwrap_err();

    assert_eq!(failure.code, "jd.no-provider-id");
    assert!(failure.hint.unwrap().contains("provider_id"));
}

#[test]
fn several_leave_by_one_request_that_takes_all_or_none_out() {
    let (jd, config) = serving();
    jd.add_target("tg-a", "i-web-2", 8080, 10);
    let lb = jd.lb();
    let members = [member("web-1"), member("web-2")];
    let leave = || {
        Pool::read(&lb, &config)
            .unwrap()
            .deregister(&context(), &members)
    };
    jd.fail(2, Fault::Quota);

    let refused = leave().unwrap();
    let there = jd.targets("tg-a").len();
    let left = leave().unwrap();

    assert!(refused.iter().all(|result| result.outcome.is_err()));
    assert_eq!(there, 2);
    assert!(left.iter().all(|result| result.outcome.is_ok()));
    assert_eq!(jd.targets("tg-a"), [""; 0]);
    assert_eq!(jd.writes().len(), 2, "{:?}", jd.writes());
}

/// What the host does with failures: it reads, and calls again where that may help.
fn host(
    mut operation: impl FnMut() -> Result<Outcome, Failure>,
    read: impl Fn() -> Result<MemberStatus, Failure>,
) -> Result<(), Failure> {
    for _ in 0..6 {
        match operation() {
            Ok(_) => return Ok(()),
            Err(failure) => match failure.class {
                FailureClass::Transient | FailureClass::Throttled => {}
                FailureClass::UnknownOutcome | FailureClass::Conflict => {
                    read()?;
                }
                _ => return Err(failure),
            },
        }
    }
    panic!("it never ends");
}

#[test]
fn whatever_fails_in_a_registration_nothing_is_made_twice_and_nothing_is_left_half() {
    for fault in PASSING {
        for number in 0.. {
            let jd = Memory::alb();
            let config = config(r#""group": "web""#);
            jd.fail(number, fault);

            host(
                || register(&jd, &config, &[member("web-1")]),
                || status(&jd, &config, "web-1"),
            )
            .unwrap();
            let is_over = jd.disarm();

            let place = format!("{fault:?} at {number}");
            let state = jd.state.borrow();
            assert_eq!(state.groups.len(), 1, "{place}: {:?}", jd.log.borrow());
            assert_eq!(state.attached, ["tg-1"], "{place}");
            drop(state);
            assert_eq!(jd.targets("tg-1"), ["i-web-1:8080=10"], "{place}");
            if is_over {
                assert!(number > 5, "there are more calls than {number}");
                break;
            }
        }
    }
}

#[test]
fn whatever_fails_in_leaving_a_lost_answer_is_read_back_before_anything_is_done_again() {
    for fault in PASSING {
        for number in 0.. {
            let (jd, config) = serving();
            jd.add_target("tg-a", "i-web-2", 8080, 10);
            jd.fail(number, fault);

            host(
                || deregister(&jd, &config, &[member("web-1")]),
                || status(&jd, &config, "web-1"),
            )
            .unwrap();
            let is_over = jd.disarm();

            assert_eq!(
                jd.targets("tg-a"),
                ["i-web-2:8080=10"],
                "{fault:?} at {number}"
            );
            let log = jd.log.borrow();
            let mut writes = log
                .iter()
                .enumerate()
                .filter(|(_, line)| !line.starts_with("GET"));
            let (first, _) = writes.next().unwrap();
            if let Some((second, _)) = writes.next() {
                assert!(
                    log[first..second]
                        .iter()
                        .any(|line| line.contains("describeTargets")),
                    "{log:?}"
                );
            }
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_full_quota_is_told_and_nothing_is_left_behind() {
    let jd = Memory::alb();
    let config = config(r#""group": "web""#);
    jd.fail(3, Fault::Quota);

    let failure = register(&jd, &config, &[member("web-1")]).unwrap_err();

    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("jd.QUOTA_EXCEEDED", FailureClass::Permanent)
    );
    assert!(failure.message.contains("`bm1`"), "{}", failure.message);
    assert!(jd.state.borrow().groups.is_empty());
}

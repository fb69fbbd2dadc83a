//! Switches and splits, whatever goes wrong with the requests.

use cutover_plugin_sdk::Severity;

use super::*;
use crate::memory::{Fault, Memory, PASSING, config, context};
use crate::switch;
use crate::waits::Wait;

fn side(name: &str, group: &str, members: &[&str]) -> Side {
    Side {
        name: name.to_owned(),
        group: group.to_owned(),
        members: members
            .iter()
            .map(|id| SideMember {
                target_id: (*id).to_owned(),
                provider_id: Some(format!("i-{id}")),
                address: "10.0.0.1".to_owned(),
                port: 8080,
            })
            .collect(),
    }
}

fn colours() -> Vec<Side> {
    vec![
        side("blue", r#"{"side": "blue"}"#, &["blue-1", "blue-2"]),
        side("green", r#"{"side": "green"}"#, &["green-1"]),
    ]
}

fn all_to(side: &str) -> Vec<Share> {
    vec![Share {
        side: side.to_owned(),
        percent: 100,
    }]
}

fn told(split: &Split) -> String {
    let shares = split.shares.iter();
    let shares: Vec<_> = shares
        .map(|share| format!("{} {}", share.side, share.percent))
        .collect();
    shares.join(", ")
}

fn get(jd: &Memory, sides: &[Side]) -> Split {
    let config = config(r#""group": "web""#);
    Router::new(&jd.lb(), &config, sides)
        .unwrap()
        .get()
        .unwrap()
}

fn set(
    jd: &Memory,
    sides: &[Side],
    expected: Option<&str>,
    shares: &[Share],
) -> Result<Outcome, Failure> {
    let config = config(r#""group": "web""#);
    Router::new(&jd.lb(), &config, sides)?.set(&context(), expected, shares)
}

/// Sets, and looks at what is pending until it is over.
fn switch_to(jd: &Memory, side: &str) -> Result<(), Failure> {
    let revision = get(jd, &colours()).revision;
    settle(jd, set(jd, &colours(), revision.as_deref(), &all_to(side))?)
}

fn settle(jd: &Memory, mut outcome: Outcome) -> Result<(), Failure> {
    while let Outcome::Pending(pending) = outcome {
        jd.now_ms.set(jd.now_ms.get() + 5000);
        let Wait::Probe(probe) = Wait::parse(&pending.token).unwrap() else {
            panic!("{pending:?}");
        };
        outcome = switch::probe(&jd.lb(), &probe)?;
    }
    Ok(())
}

fn problems(jd: &Memory, keys: &str, sides: &[Side], purpose: Purpose) -> Vec<String> {
    let config = config(keys);
    let found = Router::new(&jd.lb(), &config, sides)
        .unwrap()
        .check(purpose)
        .unwrap();
    found
        .into_iter()
        .map(|it| {
            let severity = if it.severity == Severity::Error {
                "error"
            } else {
                "warning"
            };
            format!("{severity} {} {}", it.path, it.message)
        })
        .collect()
}

#[test]
fn the_first_colour_gets_a_group_the_next_another_and_both_stay_for_the_way_back() {
    let jd = Memory::alb();
    assert_eq!(told(&get(&jd, &colours())), "");

    switch_to(&jd, "blue").unwrap();
    assert_eq!(told(&get(&jd, &colours())), "blue 100");
    switch_to(&jd, "green").unwrap();
    assert_eq!(told(&get(&jd, &colours())), "green 100");
    let made = jd.writes().len();
    switch_to(&jd, "blue").unwrap();

    assert_eq!(
        jd.writes().len(),
        made + 1,
        "only the backend changes: {:?}",
        jd.writes()
    );
    let names: Vec<_> = jd
        .state
        .borrow()
        .groups
        .iter()
        .map(|it| it.1[..13].to_owned())
        .collect();
    assert_eq!(names, ["deploy_B_web_", "deploy_G_web_"]);
    assert_eq!(jd.targets("tg-1"), ["i-blue-1:8080=10", "i-blue-2:8080=10"]);
    assert_eq!(told(&get(&jd, &colours())), "blue 100");
}

#[test]
fn a_side_has_its_targets_before_it_gets_the_traffic() {
    let jd = Memory::alb();

    switch_to(&jd, "blue").unwrap();

    let kinds: Vec<_> = jd
        .writes()
        .iter()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        kinds,
        [
            "POST targetGroups/",
            "POST targetGroups/tg-1:registerTargets",
            "PATCH backends/backend-1"
        ]
    );
}

#[test]
fn traffic_that_somebody_moved_is_not_moved_again() {
    let jd = Memory::alb();
    switch_to(&jd, "blue").unwrap();
    let before = get(&jd, &colours()).revision;
    jd.add_group("tg-x", "maintenance");
    jd.state.borrow_mut().attached = vec!["tg-x".to_owned()];

    let refused = set(&jd, &colours(), before.as_deref(), &all_to("green")).unwrap_err();
    let foreign = set(&jd, &colours(), None, &all_to("green")).unwrap_err();

    assert_eq!(refused.class, FailureClass::Conflict);
    assert!(
        refused.message.contains("`tg-x`, expected was `tg-1`"),
        "{}",
        refused.message
    );
    assert_eq!(foreign.code, "jd.foreign-group");
    assert_eq!(told(&get(&jd, &colours())), "");
}

#[test]
fn a_side_of_which_nobody_passes_the_health_check_gives_the_traffic_back() {
    let jd = Memory::alb();
    switch_to(&jd, "blue").unwrap();
    jd.state.borrow_mut().unwell.push("i-green-1".to_owned());

    let failure = switch_to(&jd, "green").unwrap_err();

    assert_eq!(failure.code, "jd.unhealthy");
    for part in ["`i-green-1:8080` CONNECT_FAILED: refused", "back at `tg-1`"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    assert_eq!(told(&get(&jd, &colours())), "blue 100");
}

#[test]
fn a_side_of_which_a_part_is_well_keeps_the_traffic_after_the_time_for_probes() {
    let jd = Memory::alb();
    jd.state.borrow_mut().unwell.push("i-blue-2".to_owned());

    switch_to(&jd, "blue").unwrap();

    assert_eq!(told(&get(&jd, &colours())), "blue 100");
    assert!(jd.now_ms.get() > 1_000_000 + 39_000);
}

#[test]
fn a_stranger_in_the_group_of_a_side_gets_no_traffic() {
    let jd = Memory::alb();
    jd.add_group("tg-g", "deploy_G_web_abc");
    jd.add_target("tg-g", "i-old", 8080, 10);

    let failure = set(&jd, &colours(), None, &all_to("green")).unwrap_err();
    let found = problems(&jd, r#""group": "web""#, &colours(), Purpose::Switch);

    assert_eq!(failure.code, "jd.stranger");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("error /sides/green") && found[0].contains("i-old:8080"),
        "{found:?}"
    );
    assert!(jd.writes().is_empty());
}

#[test]
fn what_cannot_be_done_is_found_before_anything_changes() {
    let own = colours();
    let shared = [side("current", "{}", &["web-1"]), side("new", "{}", &[])];
    let named = [
        side("blue", r#"{"target_group": "tg-a"}"#, &[]),
        side("green", r#"{"target_group": "tg-z"}"#, &[]),
    ];
    for (kind, keys, sides, purpose, expected) in [
        ("alb", r#""group": "web""#, &own[..], Purpose::Switch, ""),
        (
            "alb",
            r#""group": "web""#,
            &shared[..],
            Purpose::Weighted,
            "",
        ),
        (
            "alb",
            r#""group": "web""#,
            &own[..],
            Purpose::Weighted,
            "cannot be split between two",
        ),
        (
            "nlb",
            r#""group": "web""#,
            &shared[..],
            Purpose::Weighted,
            "only targets of an alb may have",
        ),
        (
            "dnlb",
            r#""group": "web""#,
            &own[..],
            Purpose::Switch,
            "`lb-1` is a dnlb",
        ),
        (
            "alb",
            "",
            &own[..],
            Purpose::Switch,
            "neither `target_group` nor `group`",
        ),
        (
            "alb",
            "",
            &named[..],
            Purpose::Switch,
            "error /sides/green read target group `tg-z`",
        ),
        (
            "alb",
            r#""group": "web", "target": "ip", "target_group": "tg-a""#,
            &shared[..],
            Purpose::Weighted,
            "takes targets of type `instance`",
        ),
    ] {
        let jd = Memory::of(kind);
        jd.add_group("tg-a", "shop");

        let found = problems(&jd, keys, sides, purpose).join("; ");

        assert!(found.contains(expected), "{expected}: {found}");
        assert_eq!(found.is_empty(), expected.is_empty(), "{found}");
        assert!(jd.writes().is_empty());
    }
}

#[test]
fn a_group_of_somebody_else_is_an_error_before_the_first_switch() {
    let jd = Memory::alb();
    jd.state.borrow_mut().attached = vec!["tg-x".to_owned()];

    let refused = problems(&jd, r#""group": "web""#, &colours(), Purpose::Switch);
    let replaced = problems(
        &jd,
        r#""group": "web", "foreign_group": "replace""#,
        &colours(),
        Purpose::Switch,
    );

    assert!(
        refused[0].starts_with("error") && refused[0].contains("`tg-x`"),
        "{refused:?}"
    );
    assert!(
        replaced[0].starts_with("warning") && replaced[0].contains("`tg-x`"),
        "{replaced:?}"
    );
}

/// One group with three targets of `current` and one of `new`.
fn canary() -> (Memory, [Side; 2]) {
    let jd = Memory::alb();
    jd.add_group("tg-a", "deploy_R_web_abc");
    for host in ["web-1", "web-2", "web-3"] {
        jd.add_target("tg-a", &format!("i-{host}"), 8080, 10);
    }
    jd.add_target("tg-a", "i-web-4", 8080, 0);
    jd.state.borrow_mut().attached = vec!["tg-a".to_owned()];
    let sides = [
        side("current", "{}", &["web-1", "web-2", "web-3"]),
        side("new", "{}", &["web-4"]),
    ];
    (jd, sides)
}

fn shares(current: u8, new: u8) -> Vec<Share> {
    let share = |side: &str, percent| Share {
        side: side.to_owned(),
        percent,
    };
    vec![share("current", current), share("new", new)]
}

#[test]
fn a_canary_is_split_by_the_weights_of_one_group() {
    let (jd, sides) = canary();
    assert_eq!(told(&get(&jd, &sides)), "current 100, new 0");

    let revision = get(&jd, &sides).revision;
    set(&jd, &sides, revision.as_deref(), &shares(80, 20)).unwrap();

    assert_eq!(told(&get(&jd, &sides)), "current 80, new 20");
    assert_eq!(
        jd.targets("tg-a"),
        [
            "i-web-1:8080=4",
            "i-web-2:8080=4",
            "i-web-3:8080=4",
            "i-web-4:8080=3"
        ]
    );
    assert_eq!(
        set(&jd, &sides, None, &shares(80, 20)),
        Ok(Outcome::Unchanged)
    );
    assert_eq!(jd.writes().len(), 1);

    let all = [
        side("current", "{}", &[]),
        side("new", "{}", &["web-1", "web-2", "web-3", "web-4"]),
    ];
    set(&jd, &all, None, &shares(0, 100)).unwrap();
    assert_eq!(
        jd.targets("tg-a")[0],
        "i-web-1:8080=10",
        "as others are registered"
    );
}

#[test]
fn a_weight_that_somebody_changed_is_not_written_over() {
    let (jd, sides) = canary();
    let revision = get(&jd, &sides).revision;
    jd.state.borrow_mut().targets[1].4 = 77;

    let failure = set(&jd, &sides, revision.as_deref(), &shares(80, 20)).unwrap_err();

    assert_eq!(
        (failure.code.as_str(), failure.class),
        ("jd.weight-changed", FailureClass::Conflict)
    );
    assert!(
        failure
            .message
            .contains("`i-web-2:8080` has weight 77, expected was 10 or 4"),
        "{}",
        failure.message
    );
    assert!(jd.writes().is_empty());
}

#[test]
fn a_side_whose_targets_are_gone_gets_no_share() {
    let (jd, sides) = canary();
    jd.state.borrow_mut().targets.pop();

    let failure = set(&jd, &sides, None, &shares(80, 20)).unwrap_err();

    assert_eq!(failure.code, "jd.no-targets");
    assert!(jd.writes().is_empty());
}

/// What the host does with a failed write.
fn host(jd: &Memory, mut operation: impl FnMut() -> Result<Outcome, Failure>) {
    for _ in 0..6 {
        match operation().and_then(|outcome| settle(jd, outcome)) {
            Ok(()) => return,
            Err(failure) => assert!(
                matches!(
                    failure.class,
                    FailureClass::Transient
                        | FailureClass::Throttled
                        | FailureClass::UnknownOutcome
                ),
                "{failure:?}"
            ),
        }
    }
    panic!("it never ends");
}

#[test]
fn whatever_fails_in_a_switch_it_is_made_once_and_whole() {
    for fault in PASSING {
        for number in 0.. {
            let jd = Memory::alb();
            switch_to(&jd, "blue").unwrap();
            let revision = get(&jd, &colours()).revision;
            jd.fail(number, fault);

            host(&jd, || {
                set(&jd, &colours(), revision.as_deref(), &all_to("green"))
            });

            let is_over = jd.disarm();
            let place = format!("{fault:?} at {number}: {:?}", jd.log.borrow());
            assert_eq!(told(&get(&jd, &colours())), "green 100", "{place}");
            let green = jd.state.borrow().groups[1].0.clone();
            assert_eq!(jd.targets(&green), ["i-green-1:8080=10"], "{place}");
            assert_eq!(jd.state.borrow().groups.len(), 2, "{place}");
            if is_over {
                assert!(number > 8, "there are more calls than {number}");
                break;
            }
        }
    }
}

#[test]
fn whatever_fails_in_a_split_all_weights_change_together() {
    for fault in PASSING {
        for number in 0.. {
            let (jd, sides) = canary();
            let revision = get(&jd, &sides).revision;
            jd.fail(number, fault);

            host(&jd, || {
                set(&jd, &sides, revision.as_deref(), &shares(80, 20))
            });

            let is_over = jd.disarm();
            assert_eq!(
                told(&get(&jd, &sides)),
                "current 80, new 20",
                "{fault:?} at {number}"
            );
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn a_switch_that_the_quota_forbids_moves_nothing() {
    for number in 3.. {
        let jd = Memory::alb();
        switch_to(&jd, "blue").unwrap();
        let begin = jd.log.borrow().len();
        jd.fail(number, Fault::Quota);

        let result = set(&jd, &colours(), None, &all_to("green"));

        if jd.disarm() {
            assert!(number > 8, "there are more calls than {number}");
            break;
        }
        // What reads has no quota.
        if !jd.log.borrow()[begin + number].starts_with("GET") {
            assert_eq!(result.unwrap_err().class, FailureClass::Permanent);
            assert_eq!(told(&get(&jd, &colours())), "blue 100");
        }
    }
}

//! Whole releases, with each thing that can go wrong at each call: no target is left half-registered, nothing is done twice,
//! and what became of a lost change is read before it is made again.

use std::time::Duration;

use cutover_tests::cloud::{Fault, every_fault};
use cutover_tests::{Answer, until};

use crate::shop::{HOOKS, Kind, Shop, assert_read_before_retry, changes};

const HEALTH: &str = "DescribeTargetHealth";
const LISTENERS: &str = "DescribeListeners";

fn faults() -> Vec<Fault> {
    vec![
        Fault::Throttled {
            retry_after: Some(0),
        },
        Fault::Refused(503),
        Fault::TakenButRefused(500),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Stale { reads: 3 },
        Fault::Late(Duration::from_millis(100)),
    ]
}

/// Each call of a release with each fault. What reads is met several times in one, before and after changes; whether it was
/// taken makes no difference to it, and what was so before it is so after it.
fn troubles(
    changes: &[&'static str],
    reads: &[(&'static str, usize)],
) -> Vec<(&'static str, usize, Fault)> {
    let mut troubles = Vec::new();
    for fault in faults() {
        for change in changes {
            troubles.push((*change, 1, fault.clone()));
        }
        let matters = matches!(
            fault,
            Fault::Throttled { .. } | Fault::Refused(_) | Fault::ResetBefore
        );
        for (read, most) in reads.iter().filter(|_| matters) {
            troubles.extend((1..=*most).map(|nth| (*read, nth, fault.clone())));
        }
    }
    troubles
}

/// Troubles, each with whether it befalls a rollback: one in a few, or where all are asked for each both ways.
fn ways<T: Clone>(troubles: &[T], one_in: usize) -> Vec<(T, bool)> {
    let mut ways = Vec::new();
    for (place, trouble) in troubles.iter().enumerate() {
        if every_fault() {
            ways.extend([false, true].map(|is_rollback| (trouble.clone(), is_rollback)));
        } else {
            ways.push((trouble.clone(), place % one_in == one_in - 1));
        }
    }
    ways
}

/// What the hooks of instances have said, each line once and none left out.
#[track_caller]
fn assert_hooks(trace: &[String], instances: &[&str], hooks: &[&str], about: &str) {
    let mut found: Vec<String> = trace
        .iter()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    found.sort_unstable();
    let mut expected: Vec<String> = instances
        .iter()
        .flat_map(|instance| hooks.iter().map(move |hook| format!("{instance} {hook}")))
        .collect();
    expected.sort_unstable();
    assert_eq!(found, expected, "{about}");
}

#[track_caller]
fn succeeded(answer: &Answer, about: &str) {
    assert_eq!(answer.code, 0, "{about}: {}", answer.stderr);
}

#[test]
fn a_rolling_release_and_its_rollback_come_through_every_fault() {
    let shop = Shop::new(Kind::Rolling);
    succeeded(&shop.deploy(), "first");
    let troubles = troubles(&["DeregisterTargets", "RegisterTargets"], &[(HEALTH, 9)]);
    for ((call, nth, fault), is_rollback) in ways(&troubles, 4) {
        let about = format!("{fault:?} at {call} {nth}, rollback: {is_rollback}");
        let _ = (shop.site.take_trace(), shop.server.take_visits());
        shop.inject(call, nth, &fault);

        let answer = match is_rollback {
            true => shop.rollback(),
            false => shop.deploy(),
        };

        shop.server.heal();
        succeeded(&answer, &about);
        let visits = shop.server.take_visits();
        assert!(visits.iter().any(|it| it.fault.is_some()), "{about}");
        assert_eq!(
            changes(&visits),
            [
                "DeregisterTargets blue i-1",
                "RegisterTargets blue i-1",
                "DeregisterTargets blue i-2",
                "RegisterTargets blue i-2"
            ],
            "{about}"
        );
        assert_read_before_retry(&visits, &about);
        assert_eq!(
            shop.targets(),
            ["blue i-1:8081 healthy", "blue i-2:8082 healthy"],
            "{about}"
        );
        assert_hooks(&shop.site.take_trace(), &["web-1", "web-2"], &HOOKS, &about);
    }
}

#[test]
fn a_switch_and_the_way_back_come_through_every_fault() {
    let shop = Shop::new(Kind::BlueGreen);
    succeeded(&shop.deploy(), "first");
    succeeded(&shop.deploy(), "second");
    let mut live = shop.side();
    let troubles = troubles(&["ModifyListener"], &[(LISTENERS, 6), (HEALTH, 2)]);
    for ((call, nth, fault), is_rollback) in ways(&troubles, 4) {
        let about = format!("{fault:?} at {call} {nth}, rollback: {is_rollback}");
        let _ = (shop.site.take_trace(), shop.server.take_visits());
        let before = shop.weights();
        shop.inject(call, nth, &fault);

        let mut answer = match is_rollback {
            true => shop.rollback(),
            false => shop.deploy(),
        };
        if answer.code == 3 {
            // Who cannot read which side is live plans nothing.
            assert_eq!(shop.weights(), before, "{about}: {}", answer.stderr);
            assert!(changes(&shop.server.visits()).is_empty(), "{about}");
            assert!(shop.site.take_trace().is_empty(), "{about}");
            answer = match is_rollback {
                true => shop.rollback(),
                false => shop.deploy(),
            };
        }

        shop.server.heal();
        succeeded(&answer, &about);
        live = 1 - live;
        let weights = [["100", "0"], ["0", "100"]][live].join(":");
        let visits = shop.server.take_visits();
        assert!(visits.iter().any(|it| it.fault.is_some()), "{about}");
        assert_eq!(
            changes(&visits),
            [format!("ModifyListener {weights}")],
            "{about}"
        );
        assert_read_before_retry(&visits, &about);
        assert_eq!(
            shop.targets(),
            ["blue i-1:8081 healthy", "green i-2:8082 healthy"],
            "{about}"
        );
        let _ = shop.site.take_trace();
    }
}

/// Troubles that befall a canary together: each fault at all of its changes, or where all are asked for each at each request.
fn of_a_canary() -> Vec<Vec<(&'static str, usize, Fault)>> {
    let changes = ["DeregisterTargets", "RegisterTargets", "ModifyListener"];
    if every_fault() {
        let reads = [(HEALTH, 12), (LISTENERS, 8)];
        let first = troubles(&changes, &reads).into_iter();
        let later = faults().into_iter().flat_map(|fault| {
            let nth = |nth| changes.map(|change| (change, nth, fault.clone()));
            [nth(2), nth(3)].concat()
        });
        return first.chain(later).map(|trouble| vec![trouble]).collect();
    }
    let mut faults = faults();
    faults.retain(|fault| !matches!(fault, Fault::Late(_)));
    let together = faults.iter().enumerate();
    together
        .map(|(place, fault)| {
            changes
                .map(|change| (change, 1 + place % 2, fault.clone()))
                .to_vec()
        })
        .collect()
}

#[test]
fn a_canary_and_its_rollback_come_through_every_fault() {
    let shop = Shop::new(Kind::Canary);
    succeeded(&shop.deploy(), "first");
    let mut side = shop.side();
    for (troubles, is_rollback) in ways(&of_a_canary(), 3) {
        let about = format!("{troubles:?}, rollback: {is_rollback}");
        let _ = (shop.site.take_trace(), shop.server.take_visits());
        for (call, nth, fault) in &troubles {
            shop.inject(call, *nth, fault);
        }

        let give = || match is_rollback {
            true => shop.rollback(),
            false => shop.deploy(),
        };
        let mut answer = give();
        if answer.code == 3 {
            // Who cannot read how the traffic is split plans nothing.
            assert!(changes(&shop.server.visits()).is_empty(), "{about}");
            answer = give();
        }

        shop.server.heal();
        succeeded(&answer, &about);
        side = 1 - side;
        let group = ["blue", "green"][side];
        let healthy = (1..=3).map(|number| format!("{group} i-{number}:808{number} healthy"));
        assert_eq!(shop.targets(), healthy.collect::<Vec<_>>(), "{about}");
        assert_eq!(shop.weights(), [[100, 0], [0, 100]][side], "{about}");
        let visits = shop.server.take_visits();
        assert_read_before_retry(&visits, &about);
        let changes = changes(&visits);
        for action in ["RegisterTargets", "DeregisterTargets"] {
            let mut made: Vec<_> = changes.iter().filter(|it| it.starts_with(action)).collect();
            made.sort_unstable();
            let count = made.len();
            made.dedup();
            assert_eq!((made.len(), count), (3, 3), "{about}: {changes:?}");
        }
        let instances = ["web-1", "web-2", "web-3"];
        assert_hooks(&shop.site.take_trace(), &instances, &HOOKS, &about);
    }
}

#[test]
fn a_change_that_takes_longer_than_an_answer_may_is_made_once() {
    let shop = Shop::new(Kind::Rolling);
    succeeded(&shop.deploy(), "first");
    let _ = shop.server.take_visits();
    for call in ["DeregisterTargets", "RegisterTargets"] {
        shop.inject(call, 1, &Fault::Late(Duration::from_secs(3)));
    }

    succeeded(&shop.deploy(), "late");

    let visits = shop.server.take_visits();
    assert_eq!(changes(&visits).len(), 4, "{:?}", changes(&visits));
    assert_read_before_retry(&visits, "late");
}

#[test]
fn a_conductor_that_is_killed_in_a_call_leaves_it_to_the_next_one() {
    let shop = Shop::new(Kind::Rolling);
    succeeded(&shop.deploy(), "first");
    let _ = (shop.site.take_trace(), shop.server.take_visits());
    shop.inject("RegisterTargets", 1, &Fault::Held);

    let mut killed =
        shop.site
            .start(&["deploy", "shop/web", "--package", "b", "--version", "2.0.0"]);
    until("the registration is on its way", || {
        shop.server.holding() == 1
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    shop.server.release();
    let id = shop.site.report_of_newest()["id"].clone();
    let resumed = shop.site.cutover(&["resume", id.as_str().unwrap()]);

    succeeded(&resumed, "resumed");
    assert_eq!(
        changes(&shop.server.visits()),
        [
            "DeregisterTargets blue i-1",
            "RegisterTargets blue i-1",
            "DeregisterTargets blue i-2",
            "RegisterTargets blue i-2"
        ]
    );
    assert_hooks(
        &shop.site.take_trace(),
        &["web-1", "web-2"],
        &HOOKS,
        "killed",
    );
}

//! A switch: what is called next on each answer, and what must never happen whatever is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::split::{Answer, Call, Disagreement, Means, Members, Next, Operation, Past, Switch};
use engine::traffic::Class;
use model::{InstanceId, Shares, SideName, Timestamp};
use proptest::prelude::*;

const TIMEOUT: Duration = Duration::from_secs(10);

fn side(name: &str) -> SideName {
    SideName::parse(name).unwrap()
}

/// So many percent to green, the rest to blue.
fn green(percent: u8) -> Shares {
    Shares::between(side("green"), percent, side("blue"))
}

fn from_blue_to_green() -> Switch {
    Switch {
        from: green(0),
        to: green(100),
        means: Means::Groups,
        past: Past::Nothing,
        whole: Some(side("green")),
    }
}

/// The same, taken up from a conductor that was killed.
fn resumed() -> Switch {
    Switch {
        past: Past::Unknown,
        ..from_blue_to_green()
    }
}

fn by_weights(percent: u8) -> Switch {
    Switch {
        to: green(percent),
        means: Means::Weights,
        ..from_blue_to_green()
    }
}

/// Feeds answers in order and tells every decision; time moves by the waits.
fn check(switch: Switch, answers: Vec<Answer>) -> String {
    let mut now = Timestamp(0);
    let (mut operation, mut call) = Operation::new(switch, now, TIMEOUT);
    let mut lines = vec![format!("{call:?}")];
    for answer in answers {
        match operation.answer(now, &call, answer) {
            Next::Call { after, call: next } => {
                now = later(now, after);
                lines.push(format!("{next:?} after {} ms", after.as_millis()));
                call = next;
            }
            Next::Done { note } => lines.push(format!("done: {}", note.unwrap_or_default())),
            Next::Failed { reason } => lines.push(format!("failed: {reason}")),
        }
    }
    lines.join("\n")
}

fn last(switch: Switch, answers: Vec<Answer>) -> String {
    check(switch, answers).lines().last().unwrap().to_owned()
}

fn later(now: Timestamp, after: Duration) -> Timestamp {
    Timestamp(now.0 + i64::try_from(after.as_millis()).unwrap())
}

fn split(percent: u8) -> Answer {
    Answer::Split {
        shares: green(percent),
        differs: None,
        revision: Some(format!("r{percent}")),
        settled: true,
    }
}

fn unsettled(percent: u8) -> Answer {
    Answer::Split {
        shares: green(percent),
        differs: None,
        revision: Some(format!("r{percent}")),
        settled: false,
    }
}

/// Requests get the one, and another place of the balancer says the other.
fn apart(percent: u8, other: u8) -> Answer {
    Answer::Split {
        shares: green(percent),
        differs: Some(Disagreement {
            shares: green(other),
            message: format!("green has {percent} in the memory and {other} in the file"),
        }),
        revision: Some(format!("r{percent}+{other}")),
        settled: true,
    }
}

fn healthy(name: &str) -> Answer {
    members(name, 2, &[])
}

fn members(name: &str, healthy: usize, down: &[&str]) -> Answer {
    let down = down.iter().map(|id| {
        let words = "registering, L4CON: connection refused".to_owned();
        (InstanceId::parse(id).unwrap(), words)
    });
    let members = Members {
        healthy,
        unknown: 0,
        down: down.collect(),
    };
    Answer::Health(BTreeMap::from([(side(name), members)]))
}

fn failure(class: Class) -> Answer {
    Answer::Failure {
        class,
        message: "no answer".into(),
        hint: None,
        retry_after: None,
    }
}

#[test]
fn a_switch_asks_for_health_reads_writes_what_it_read_and_reads_back() {
    let answers = vec![
        split(0),
        healthy("green"),
        split(0),
        Answer::Changed,
        split(100),
    ];
    insta::assert_snapshot!(check(from_blue_to_green(), answers), @r#"
    Read
    Health { sides: ["green"] } after 0 ms
    Read after 0 ms
    Write { revision: Some("r0") } after 0 ms
    Read after 0 ms
    done:
    "#);
}

#[test]
fn traffic_that_is_there_already_is_left_alone() {
    insta::assert_snapshot!(check(from_blue_to_green(), vec![split(100)]), @r"
    Read
    done: it was green 100% already
    ");
}

#[test]
fn traffic_that_somebody_else_moved_is_left_where_it_is() {
    insta::assert_snapshot!(check(from_blue_to_green(), vec![split(30)]), @r"
    Read
    failed: the traffic is at blue 70%, green 30% and was at blue 100%: somebody else moved it, so it is left where it is
    ");
}

#[test]
fn traffic_that_somebody_else_moved_while_health_was_awaited_is_left_where_it_is() {
    let answers = vec![split(0), healthy("green"), split(30)];
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: the traffic is at blue 70%, green 30% and was at blue 100%: somebody else moved it, so it is left where it is");
}

#[test]
fn traffic_that_somebody_else_moved_after_the_write_is_told() {
    let answers = vec![
        split(0),
        healthy("green"),
        split(0),
        Answer::Changed,
        split(30),
    ];
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: the traffic was brought to green 100% and is at blue 70%, green 30%: somebody else moved it meanwhile");
}

#[test]
fn whatever_is_found_is_replaced_where_nothing_is_believed() {
    let switch = Switch {
        from: Shares::default(),
        ..from_blue_to_green()
    };
    let none = Answer::Split {
        shares: Shares::default(),
        differs: None,
        revision: Some(String::new()),
        settled: true,
    };
    let answers = vec![
        none.clone(),
        healthy("green"),
        none.clone(),
        Answer::Changed,
        none,
        split(100),
    ];
    insta::assert_snapshot!(check(switch, answers), @r#"
    Read
    Health { sides: ["green"] } after 0 ms
    Read after 0 ms
    Write { revision: Some("") } after 0 ms
    Read after 0 ms
    Read after 20 ms
    done:
    "#);
}

#[test]
fn the_new_side_gains_only_when_all_its_members_are_healthy() {
    let answers = vec![
        split(0),
        members("green", 1, &["green-2"]),
        members("green", 2, &[]),
    ];
    insta::assert_snapshot!(check(from_blue_to_green(), answers), @r#"
    Read
    Health { sides: ["green"] } after 0 ms
    Health { sides: ["green"] } after 20 ms
    Read after 0 ms
    "#);
}

#[test]
fn one_healthy_member_is_enough_for_the_way_back() {
    let back = Switch {
        from: green(100),
        to: green(0),
        whole: None,
        ..from_blue_to_green()
    };
    let answers = vec![split(100), members("blue", 1, &["blue-2"])];
    insta::assert_snapshot!(last(back.clone(), answers), @"Read after 0 ms");
    let answers = vec![split(100), members("blue", 0, &["blue-2"])];
    insta::assert_snapshot!(last(back, answers), @r#"Health { sides: ["blue"] } after 20 ms"#);
}

#[test]
fn a_side_without_members_gets_nothing() {
    let answers = std::iter::once(split(0))
        .chain(std::iter::repeat_n(members("green", 0, &[]), 40))
        .collect();
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: not healthy in time, so the traffic stays where it is; the balancer says: green has no instance");
}

#[test]
fn the_deadline_names_the_members_that_are_not_healthy() {
    let answers = std::iter::once(split(0))
        .chain(std::iter::repeat_n(
            members("green", 1, &["green-2", "green-3"]),
            40,
        ))
        .collect();
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: not healthy in time, so the traffic stays where it is; the balancer says: green: green-2 registering, L4CON: connection refused, green-3 registering, L4CON: connection refused");
}

#[test]
fn a_switch_goes_on_where_nothing_knows_of_health() {
    let answers = vec![split(0), Answer::HealthUnknown, split(0)];
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @r#"Write { revision: Some("r0") } after 0 ms"#);
}

#[test]
fn a_call_that_is_cut_short_at_the_deadline_does_not_hide_what_was_waited_for() {
    let sick = members("green", 1, &["green-2"]);
    let answers = std::iter::once(split(0))
        .chain(std::iter::repeat_n(sick, 11))
        .chain([failure(Class::Permanent)])
        .collect();
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: not healthy in time, so the traffic stays where it is; the balancer says: green: green-2 registering, L4CON: connection refused; the last call failed: no answer");
}

#[test]
fn a_split_counts_only_when_it_is_settled() {
    let answers = vec![unsettled(100), unsettled(100), split(100)];
    insta::assert_snapshot!(check(from_blue_to_green(), answers), @r"
    Read
    Read after 20 ms
    Read after 40 ms
    done: it was green 100% already
    ");
}

#[test]
fn a_pending_write_is_polled_and_then_read_back() {
    let pending = Answer::Pending {
        token: "t".into(),
        after: Duration::from_millis(150),
        message: "reloading".into(),
    };
    let answers = vec![
        split(0),
        healthy("green"),
        split(0),
        pending,
        Answer::Changed,
        split(100),
    ];
    insta::assert_snapshot!(check(from_blue_to_green(), answers), @r#"
    Read
    Health { sides: ["green"] } after 0 ms
    Read after 0 ms
    Write { revision: Some("r0") } after 0 ms
    Poll { token: "t" } after 150 ms
    Read after 0 ms
    done:
    "#);
}

#[test]
fn an_unknown_outcome_is_read_back_before_the_write_is_repeated() {
    let answers = vec![
        split(0),
        healthy("green"),
        split(0),
        failure(Class::UnknownOutcome),
        split(0),
        Answer::Changed,
        split(100),
    ];
    insta::assert_snapshot!(check(from_blue_to_green(), answers), @r#"
    Read
    Health { sides: ["green"] } after 0 ms
    Read after 0 ms
    Write { revision: Some("r0") } after 0 ms
    Read after 40 ms
    Write { revision: Some("r0") } after 0 ms
    Read after 0 ms
    done:
    "#);
}

#[test]
fn a_write_that_left_the_places_apart_is_repeated_under_the_revision_of_both() {
    let answers = vec![
        split(0),
        healthy("green"),
        split(0),
        failure(Class::UnknownOutcome),
        apart(0, 100),
        Answer::Changed,
        split(100),
    ];
    insta::assert_snapshot!(check(from_blue_to_green(), answers), @r#"
    Read
    Health { sides: ["green"] } after 0 ms
    Read after 0 ms
    Write { revision: Some("r0") } after 0 ms
    Read after 40 ms
    Write { revision: Some("r0+100") } after 0 ms
    Read after 0 ms
    done:
    "#);
}

#[test]
fn a_switch_of_which_a_killed_conductor_wrote_one_place_is_finished() {
    for (requests, other) in [(0, 100), (100, 0)] {
        let answers = vec![
            apart(requests, other),
            healthy("green"),
            apart(requests, other),
            Answer::Changed,
            split(100),
        ];
        let told = check(resumed(), answers);

        let write = format!("Write {{ revision: Some(\"r{requests}+{other}\") }}");
        assert!(told.contains(&write), "{told}");
        assert!(told.ends_with("done: "), "{told}");
    }
}

#[test]
fn places_of_which_one_is_somebody_elses_are_told_and_left() {
    for (requests, other) in [(0, 30), (30, 0), (100, 30), (30, 40)] {
        let told = check(resumed(), vec![apart(requests, other); 7]);

        assert!(!told.contains("Write"), "{told}");
        let reason = format!(
            "failed: green has {requests} in the memory and {other} in the file (tried 7 times)"
        );
        assert!(told.ends_with(&reason), "{told}");
    }
}

#[test]
fn places_that_disagree_before_anything_was_written_are_told() {
    let answers = vec![apart(0, 100); 7];
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: green has 0 in the memory and 100 in the file (tried 7 times)");
}

#[test]
fn places_that_somebody_takes_apart_after_the_write_are_told() {
    let answers = [split(0), healthy("green"), split(0), Answer::Changed]
        .into_iter()
        .chain(std::iter::repeat_n(apart(100, 0), 7))
        .collect();
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: green has 100 in the memory and 0 in the file (tried 7 times)");
}

#[test]
fn a_side_that_is_not_healthy_keeps_a_switch_half_written_and_the_reason_says_so() {
    let answers = std::iter::once(apart(0, 100))
        .chain(std::iter::repeat_n(members("green", 1, &["green-2"]), 40))
        .collect();
    insta::assert_snapshot!(last(resumed(), answers), @"failed: not healthy in time, so the traffic stays where it is; the balancer says: green: green-2 registering, L4CON: connection refused; green has 0 in the memory and 100 in the file");
}

/// A router that had its files written and was not told to read them.
#[test]
fn a_change_that_a_killed_conductor_left_unread_is_written_again_after_a_while() {
    let answers = |found| {
        let long = std::iter::repeat_n(unsettled(found), 9);
        long.clone()
            .chain([healthy("green")])
            .chain(long)
            .collect::<Vec<_>>()
    };
    insta::assert_snapshot!(last(resumed(), answers(100)[..9].to_vec()), @r#"Health { sides: ["green"] } after 0 ms"#);
    insta::assert_snapshot!(last(resumed(), answers(0)[..18].to_vec()), @r#"Write { revision: Some("r0") } after 0 ms"#);
    insta::assert_snapshot!(last(resumed(), answers(30)[..9].to_vec()), @"Read after 2000 ms");
    insta::assert_snapshot!(last(from_blue_to_green(), answers(100)[..9].to_vec()), @"Read after 2000 ms");
}

#[test]
fn a_conflict_is_read_again_and_judged_by_what_is_found() {
    let until_written = vec![split(0), healthy("green"), split(0)];
    let with = |found: u8| {
        let mut answers = until_written.clone();
        answers.extend([failure(Class::Conflict), split(found)]);
        last(from_blue_to_green(), answers)
    };
    insta::assert_snapshot!(with(100), @"done:");
    insta::assert_snapshot!(with(0), @r#"Write { revision: Some("r0") } after 0 ms"#);
    insta::assert_snapshot!(with(30), @"failed: the traffic was brought to green 100% and is at blue 70%, green 30%: somebody else moved it meanwhile");
}

#[test]
fn a_component_that_always_traps_is_given_up() {
    let round = [failure(Class::UnknownOutcome), split(0)];
    let answers: Vec<_> = [split(0), healthy("green"), split(0)]
        .into_iter()
        .chain(std::iter::repeat_n(round, 7).flatten())
        .take(16)
        .collect();
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: no answer (tried 7 times)");
}

#[test]
fn a_side_of_which_nobody_can_tell_before_it_has_traffic_gets_it_unless_a_member_is_down() {
    let told = |down: Answer| {
        let Answer::Health(mut sides) = down else {
            unreachable!("made above");
        };
        sides.get_mut(&side("green")).unwrap().unknown = 2;
        Answer::Health(sides)
    };
    let answers = |health: Answer| vec![split(0), told(health), split(0)];

    insta::assert_snapshot!(last(from_blue_to_green(), answers(members("green", 0, &[]))), @r#"Write { revision: Some("r0") } after 0 ms"#);
    insta::assert_snapshot!(check(from_blue_to_green(), answers(members("green", 0, &["g1"]))), @r#"
    Read
    Health { sides: ["green"] } after 0 ms
    Health { sides: ["green"] } after 20 ms
    Health { sides: ["green"] } after 0 ms
    "#);
}

#[test]
fn a_final_failure_is_not_retried() {
    insta::assert_snapshot!(last(from_blue_to_green(), vec![failure(Class::Permanent)]), @"failed: no answer (not retried)");
}

#[test]
fn the_deadline_ends_the_wait_with_the_routers_last_word() {
    let answers = [split(0), healthy("green"), split(0), Answer::Changed]
        .into_iter()
        .chain(std::iter::repeat_n(unsettled(0), 40))
        .collect();
    insta::assert_snapshot!(last(from_blue_to_green(), answers), @"failed: the traffic is not at green 100% in time; the router says: blue 100%, not settled yet");
}

#[test]
fn weights_need_only_come_near_but_nothing_is_nothing() {
    let answers = |found| {
        vec![
            split(55),
            healthy("green"),
            split(55),
            Answer::Changed,
            split(found),
        ]
    };
    insta::assert_snapshot!(last(by_weights(33), answers(35)), @"done: the weights make it blue 65%, green 35%");
    insta::assert_snapshot!(last(by_weights(33), answers(36)), @"Read after 20 ms");
    insta::assert_snapshot!(last(by_weights(100), answers(99)), @"Read after 20 ms");
}

/// What a router and a balancer may do to a switch.
#[derive(Debug, Clone)]
enum Event {
    /// The call is carried out and answered.
    Answered,
    /// The call is carried out, and its answer is lost.
    Swallowed,
    /// A write reaches one of the balancer's two places, the one that requests follow or the other, and breaks off.
    Halved(Place),
    /// The call is not carried out.
    Broken(Class),
    /// A change is begun, and a poll ends it.
    Delayed(u64),
    /// Somebody else moves the traffic before the call.
    Moved(u8),
    /// Somebody else changes one of the places before the call.
    Torn(Place, u8),
    /// A read tells of a state that is still being applied.
    Unsettled,
    /// The new side is not healthy.
    Sick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Requests,
    Other,
}

fn event() -> impl Strategy<Value = Event> {
    let place = || prop_oneof![Just(Place::Requests), Just(Place::Other)];
    let percent = || prop_oneof![Just(0u8), Just(100), 0..=100u8];
    let class = prop_oneof![
        Just(Class::Transient),
        Just(Class::Throttled),
        Just(Class::UnknownOutcome),
        Just(Class::Conflict),
    ];
    prop_oneof![
        12 => Just(Event::Answered),
        2 => Just(Event::Swallowed),
        2 => class.prop_map(Event::Broken),
        1 => (0..5000u64).prop_map(Event::Delayed),
        2 => place().prop_map(Event::Halved),
        1 => percent().prop_map(Event::Moved),
        1 => (place(), percent()).prop_map(|(place, percent)| Event::Torn(place, percent)),
        2 => Just(Event::Unsettled),
        2 => Just(Event::Sick),
    ]
}

fn switch() -> impl Strategy<Value = Switch> {
    let means = prop_oneof![Just(Means::Groups), Just(Means::Weights)];
    let from = prop_oneof![Just(None), (0..=100u8).prop_map(Some)];
    let past = prop_oneof![Just(Past::Nothing), Just(Past::Unknown)];
    (from, 0..=100u8, means, past).prop_map(|(from, to, means, past)| Switch {
        from: from.map(green).unwrap_or_default(),
        to: green(to),
        means,
        past,
        whole: Some(side("green")),
    })
}

/// A member of the side with everything that has no weight yet is in none of the shares.
#[test]
fn weights_are_written_once_even_where_the_shares_are_right() {
    let switch = Switch {
        from: green(100),
        ..by_weights(100)
    };

    assert_eq!(
        check(switch, vec![split(100), Answer::Unchanged, split(100)]),
        "Read\nWrite { revision: Some(\"r100\") } after 0 ms\nRead after 0 ms\ndone: it was green 100% already"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_happens_a_switch_ends_in_time_writes_over_nobody_and_is_done_only_when_it_was_read(
        switch in switch(),
        // As it was left by whoever began: each place where it was, where it should be, or anywhere.
        start in (0..4u8, 0..4u8, 0..=100u8),
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let deadline = later(Timestamp(0), TIMEOUT);
        let mut now = Timestamp(0);
        let (mut operation, mut call) = Operation::new(switch.clone(), now, TIMEOUT);
        let begun = |kind: u8| match kind {
            0 | 1 => switch.from.clone(),
            2 => switch.to.clone(),
            _ => green(start.2),
        };
        let (mut requests, mut other) = (begun(start.0), begun(start.1));
        // What was read before each write, and whether one of them may have broken off.
        let mut written_over: Vec<Shares> = Vec::new();
        let mut may_be_own = switch.past == Past::Unknown;
        let mut events = events.into_iter().cycle();
        for turn in 0.. {
            prop_assert!(turn < 5000, "it never ends");
            let event = events.next().unwrap_or(Event::Answered);
            match event {
                Event::Moved(percent) => (requests, other) = (green(percent), green(percent)),
                Event::Torn(Place::Requests, percent) => requests = green(percent),
                Event::Torn(Place::Other, percent) => other = green(percent),
                _ => {}
            }
            let revision = Some(format!("{requests}+{other}"));
            let mut is_refused = false;
            if let Call::Write { revision: expected } = &call {
                // The guard: a plugin writes over nothing but what was read.
                is_refused = *expected != revision;
                let is_carried_out = !is_refused
                    && matches!(event, Event::Answered | Event::Swallowed | Event::Delayed(_) | Event::Halved(_));
                if is_carried_out && !matches!(event, Event::Halved(Place::Other)) {
                    requests = switch.to.clone();
                }
                if is_carried_out && !matches!(event, Event::Halved(Place::Requests)) {
                    other = switch.to.clone();
                }
            }
            let answer = match (&call, event) {
                (_, Event::Broken(class)) => failure(class),
                (_, Event::Swallowed) | (Call::Write { .. }, Event::Halved(_)) => failure(Class::UnknownOutcome),
                (Call::Read, event) => Answer::Split {
                    shares: requests.clone(),
                    differs: (requests != other).then(|| Disagreement {
                        shares: other.clone(),
                        message: "two truths".to_owned(),
                    }),
                    revision,
                    settled: !matches!(event, Event::Unsettled),
                },
                (Call::Health { sides }, Event::Sick) => members(sides[0].as_str(), 0, &["sick"]),
                (Call::Health { sides }, _) => {
                    let sides = sides.iter().map(|side| (side.clone(), Members { healthy: 1, ..Members::default() }));
                    Answer::Health(sides.collect())
                }
                (Call::Write { .. }, Event::Delayed(ms)) => Answer::Pending {
                    token: "t".into(),
                    after: Duration::from_millis(ms),
                    message: "reloading".into(),
                },
                (Call::Write { .. }, _) if is_refused => failure(Class::Conflict),
                (Call::Write { .. } | Call::Poll { .. }, _) => Answer::Changed,
            };
            let is_write = matches!(call, Call::Write { .. } | Call::Poll { .. });
            if is_write && matches!(answer, Answer::Failure { class: Class::UnknownOutcome | Class::Conflict, .. }) {
                may_be_own = true;
            }
            // What the call read, if it was a read that was answered.
            let read = match &answer {
                Answer::Split { shares, differs, settled, .. } => {
                    Some((shares.clone(), differs.as_ref().map(|differs| differs.shares.clone()), *settled))
                }
                _ => None,
            };
            match operation.answer(now, &call, answer) {
                Next::Call { after, call: next } => {
                    now = later(now, after);
                    prop_assert!(now <= deadline, "it waits beyond its deadline");
                    match (&next, &read) {
                        (Call::Write { .. }, None) => {
                            // The one before it did not reach the balancer.
                            prop_assert!(matches!(call, Call::Write { .. }), "it writes without having read");
                        }
                        (Call::Write { .. }, Some((found, differs, settled))) => {
                            let is_believed = |shares: &Shares| {
                                *shares == switch.from || written_over.contains(shares)
                                    || (may_be_own && *shares == switch.to)
                            };
                            let is_free = switch.means == Means::Weights || switch.from.is_empty();
                            prop_assert!(is_free || is_believed(found), "it writes over {found}");
                            prop_assert!(*settled || may_be_own, "it writes over a change that is under way");
                            match differs {
                                Some(other) => {
                                    prop_assert!(may_be_own, "it goes on with what it did not begin");
                                    let is_known = is_believed(found) && is_believed(other);
                                    prop_assert!(switch.means == Means::Weights || is_known, "it writes over {other}");
                                }
                                None => prop_assert!(
                                    switch.means == Means::Weights || *found != switch.to || !settled,
                                    "it writes what is there"
                                ),
                            }
                            written_over.push(found.clone());
                        }
                        _ => {}
                    }
                    call = next;
                }
                Next::Done { .. } => {
                    let (found, differs, settled) = read.unwrap();
                    prop_assert!(settled && differs.is_none());
                    prop_assert!(switch.means == Means::Weights || found == switch.to);
                    return Ok(());
                }
                Next::Failed { .. } => return Ok(()),
            }
        }
    }
}

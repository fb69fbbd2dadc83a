//! Block and allow: what is called next on each answer of the plugin.

use std::time::Duration;

use engine::traffic::{Answer, Call, Class, Goal, Next, Operation, Phase};
use model::Timestamp;

/// Feeds answers in order and tells every decision; time moves by the waits.
fn check(goal: Goal, answers: Vec<Answer>) -> String {
    let mut now = Timestamp(0);
    let mut operation = Operation::new(goal, now, Duration::from_secs(10));
    let mut call = Call::Change;
    let mut lines = Vec::new();
    for answer in answers {
        match operation.answer(now, &call, answer) {
            Next::Call { after, call: next } => {
                now = Timestamp(now.0 + i64::try_from(after.as_millis()).unwrap());
                lines.push(format!("{next:?} after {} ms", after.as_millis()));
                call = next;
            }
            done => lines.push(format!("{done:?}")),
        }
    }
    lines.join("\n")
}

fn member(phase: Phase, connections: u32) -> Answer {
    Answer::Member {
        phase,
        connections: Some(connections),
        reason: None,
    }
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
fn block_waits_until_the_last_connection_is_gone() {
    let answers = vec![
        Answer::Changed,
        member(Phase::Draining, 3),
        member(Phase::OutOfService, 1),
        member(Phase::OutOfService, 0),
    ];
    insta::assert_snapshot!(check(Goal::Blocked, answers), @r"
    Read after 0 ms
    Read after 20 ms
    Read after 40 ms
    Done { note: None }
    ");
}

#[test]
fn a_pending_change_is_polled_and_then_read_back() {
    let pending = Answer::Pending {
        token: "t".into(),
        after: Duration::from_millis(150),
        message: "3 sessions left".into(),
    };
    insta::assert_snapshot!(check(Goal::Blocked, vec![pending, Answer::Changed, member(Phase::Absent, 0)]), @r#"
    Poll { token: "t" } after 150 ms
    Read after 0 ms
    Done { note: None }
    "#);
}

#[test]
fn an_unknown_outcome_is_read_back_before_the_change_is_repeated() {
    let answers = vec![
        failure(Class::UnknownOutcome),
        member(Phase::Absent, 0),
        Answer::Changed,
        member(Phase::InService, 0),
    ];
    insta::assert_snapshot!(check(Goal::Allowed, answers), @r"
    Read after 40 ms
    Change after 0 ms
    Read after 0 ms
    Done { note: None }
    ");
}

#[test]
fn an_unknown_outcome_that_took_effect_is_not_repeated() {
    let answers = vec![failure(Class::UnknownOutcome), member(Phase::InService, 0)];
    insta::assert_snapshot!(check(Goal::Allowed, answers), @r#"
    Read after 40 ms
    Done { note: Some("it was in service already") }
    "#);
}

#[test]
fn an_instance_that_is_out_of_service_for_another_cause_is_still_taken_out() {
    let answers = vec![
        failure(Class::UnknownOutcome),
        member(Phase::OutOfService, 0),
        Answer::Changed,
        member(Phase::OutOfService, 0),
    ];
    insta::assert_snapshot!(check(Goal::Blocked, answers), @r"
    Read after 40 ms
    Change after 0 ms
    Read after 0 ms
    Done { note: None }
    ");
}

#[test]
fn a_component_that_always_traps_is_given_up() {
    let round = [failure(Class::UnknownOutcome), member(Phase::Absent, 0)];
    let answers: Vec<_> = std::iter::repeat_n(round, 7).flatten().take(13).collect();

    let last = check(Goal::Allowed, answers)
        .lines()
        .last()
        .unwrap()
        .to_owned();

    insta::assert_snapshot!(last, @r#"Failed { reason: "no answer (tried 7 times)" }"#);
}

#[test]
fn a_final_failure_is_not_retried() {
    insta::assert_snapshot!(check(Goal::Allowed, vec![failure(Class::Permanent)]), @r#"Failed { reason: "no answer (not retried)" }"#);
}

#[test]
fn a_failure_ends_with_what_to_do_about_it() {
    let failure = |class| Answer::Failure {
        class,
        message: "no answer".to_owned(),
        hint: Some("start it".to_owned()),
        retry_after: None,
    };
    insta::assert_snapshot!(check(Goal::Allowed, vec![failure(Class::Permanent)]), @r#"Failed { reason: "no answer (not retried); start it" }"#);

    let answers = vec![failure(Class::Transient), failure(Class::Permanent)];
    let last = check(Goal::Allowed, answers)
        .lines()
        .last()
        .unwrap()
        .to_owned();
    insta::assert_snapshot!(last, @r#"Failed { reason: "no answer (tried 2 times); start it" }"#);
}

#[test]
fn throttling_waits_as_long_as_it_is_told() {
    let throttled = Answer::Failure {
        class: Class::Throttled,
        message: "slow down".into(),
        hint: None,
        retry_after: Some(Duration::from_secs(3)),
    };
    insta::assert_snapshot!(check(Goal::Allowed, vec![throttled]), @"Change after 3000 ms");
}

#[test]
fn the_deadline_ends_the_wait_with_the_balancers_last_word() {
    let unhealthy = Answer::Member {
        phase: Phase::Registering,
        connections: None,
        reason: Some("L4CON: connection refused".into()),
    };
    let answers = std::iter::once(Answer::Changed)
        .chain(std::iter::repeat_n(unhealthy, 40))
        .collect();

    let last = check(Goal::Allowed, answers)
        .lines()
        .last()
        .unwrap()
        .to_owned();

    insta::assert_snapshot!(last, @r#"Failed { reason: "not healthy in time; the balancer says: registering, L4CON: connection refused" }"#);
}

#[test]
fn the_deadline_names_a_call_that_kept_failing() {
    let slow = Answer::Failure {
        class: Class::Throttled,
        message: "slow down".into(),
        hint: None,
        retry_after: Some(Duration::from_secs(6)),
    };

    let last = check(Goal::Allowed, vec![slow.clone(), slow.clone(), slow])
        .lines()
        .last()
        .unwrap()
        .to_owned();

    insta::assert_snapshot!(last, @r#"Failed { reason: "not healthy in time; the balancer says: nothing yet; the last call failed: slow down" }"#);
}

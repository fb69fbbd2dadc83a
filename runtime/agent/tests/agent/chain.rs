//! Attempts that follow others by themselves.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::protocol::{Answer, Cause, Request, Run, Then, Work};

use crate::instance::{
    Agent, Instance, assert_failed, assert_succeeded, eventually, fifo, is_alive, release,
};

/// A run that another one follows.
pub(crate) fn followed(run: Run, id: &str, work: &Work) -> Run {
    let then = Then {
        attempt: id.to_owned(),
        work: work.clone(),
    };
    Run {
        then: Some(Box::new(then)),
        ..run
    }
}

/// Waits until a worker is ready to begin an attempt. Answers which.
pub(crate) fn is_ready(instance: &Instance, id: &str) -> i32 {
    let lock = instance.path(&format!(".cutover/attempts/{id}/lock"));
    eventually(|| {
        let signed = fs::read_to_string(&lock).ok()?;
        signed.split(' ').next()?.parse().ok()
    })
}

pub(crate) fn has_begun(instance: &Instance, id: &str) -> bool {
    let log = instance.path(&format!(".cutover/attempts/{id}/log"));
    log.exists()
}

/// Waits until an attempt works and a worker is ready for the one that follows it.
pub(crate) fn is_under_way(instance: &Instance, id: &str, next: &str) -> i32 {
    eventually(|| has_begun(instance, id).then_some(()));
    is_ready(instance, next)
}

/// Work that waits, and what lets it end.
pub(crate) fn gated(instance: &Instance, text: &str) -> (Work, PathBuf) {
    let gate = instance.path("gate");
    fifo(&gate);
    let text = format!("read go < '{}'; {text}", gate.display());
    (instance.script("gated.sh", &text), gate)
}

#[test]
fn what_follows_begins_when_the_other_one_has_succeeded_and_not_before() {
    let instance = Instance::new();
    let (first, gate) = gated(&instance, "echo first >> ../../../ran");
    let second = instance.script("second.sh", "echo second >> ../../../ran; echo hello");
    let mut agent = Agent::start();

    agent.send(Request::Run(followed(
        instance.run("a", first),
        "b",
        &second,
    )));
    let worker = is_under_way(&instance, "a", "b");
    assert!(!has_begun(&instance, "b"));
    release(&gate);
    eventually(|| (instance.read("ran") == "first\nsecond\n").then_some(()));
    assert_succeeded(&agent.follow("a", 0).1);
    let (log, outcome) = agent.outcome(instance.run("b", second));

    assert_succeeded(&outcome);
    assert!(log.contains("Z\nhello\n<== exit 0"), "{log}");
    assert_eq!(instance.read("ran"), "first\nsecond\n");
    assert_eq!(instance.worker("b"), worker, "the one that waited did it");
}

#[test]
fn what_follows_may_be_followed_in_its_turn() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut agent = Agent::start();
    for number in 0..20 {
        let run = instance.run(&format!("attempt-{number}"), work.clone());
        let next = format!("attempt-{}", number + 1);

        assert_succeeded(&agent.outcome(followed(run, &next, &work)).1);
    }

    eventually(|| (instance.read("count").lines().count() == 21).then_some(()));
}

#[test]
fn nothing_follows_what_failed() {
    let instance = Instance::new();
    let first = instance.script("first.sh", "exit 1");
    let second = instance.script("second.sh", "echo second >> ../../../ran");
    let mut agent = Agent::start();

    let (_, outcome) = agent.outcome(followed(instance.run("a", first), "b", &second));
    assert_failed(&outcome, Cause::ScriptFailed, "");
    let worker = is_ready(&instance, "b");
    assert!(agent.close());
    eventually(|| (!is_alive(worker)).then_some(()));

    assert!(!has_begun(&instance, "b"));
    // Whoever wants it nevertheless asks for it.
    assert_succeeded(&instance.outcome("b", second).1);
    assert_eq!(instance.read("ran"), "second\n");
}

#[test]
fn nothing_follows_when_whoever_gave_the_two_is_gone() {
    let instance = Instance::new();
    let (first, gate) = gated(&instance, "echo first >> ../../../ran");
    let second = instance.script("second.sh", "echo second >> ../../../ran");
    let mut agent = Agent::start();
    let run = followed(instance.run("a", first.clone()), "b", &second);
    agent.send(Request::Run(run));
    let worker = is_under_way(&instance, "a", "b");

    agent.kill();
    eventually(|| (!is_alive(worker)).then_some(()));
    release(&gate);
    assert_succeeded(&instance.outcome("a", first).1);

    assert!(!has_begun(&instance, "b"));
    assert_succeeded(&instance.outcome("b", second).1);
    assert_eq!(instance.read("ran"), "first\nsecond\n");
}

#[test]
fn nothing_follows_when_something_else_has_been_asked_for() {
    let instance = Instance::new();
    let (first, gate) = gated(&instance, "echo first >> ../../../ran");
    let second = instance.script("second.sh", "echo second >> ../../../ran");
    let other = instance.script("other.sh", "echo other >> ../../../ran");
    let (mut agent, mut successor) = (Agent::start(), Agent::start());
    agent.send(Request::Run(followed(
        instance.run("a", first),
        "b",
        &second,
    )));
    is_under_way(&instance, "a", "b");

    successor.send(Request::Run(instance.run("c", other)));
    let waits = instance.path(".cutover/attempts/c/waits");
    eventually(|| waits.exists().then_some(()));
    release(&gate);
    assert_succeeded(&agent.follow("a", 0).1);
    assert_succeeded(&successor.follow("c", 0).1);

    assert!(!has_begun(&instance, "b"));
    assert_eq!(instance.read("ran"), "first\nother\n");
}

#[test]
fn what_is_asked_for_counts_and_not_what_was_to_follow() {
    let instance = Instance::new();
    let (first, gate) = gated(&instance, "");
    let planned = instance.script("planned.sh", "echo planned >> ../../../ran");
    let asked = instance.script("asked.sh", "echo asked >> ../../../ran");
    let mut agent = Agent::start();
    agent.send(Request::Run(followed(
        instance.run("a", first),
        "b",
        &planned,
    )));
    is_under_way(&instance, "a", "b");

    agent.send(Request::Run(instance.run("b", asked)));
    let waits = instance.path(".cutover/attempts/b/waits");
    eventually(|| waits.exists().then_some(()));
    release(&gate);

    assert_succeeded(&agent.follow("b", 0).1);
    assert_eq!(instance.read("ran"), "asked\n");
}

/// Nobody is known to have the outcome of what was followed until what followed is asked for.
#[test]
fn the_line_knows_what_was_followed_until_what_followed_is_asked_for() {
    let instance = Instance::new();
    let first = instance.script("first.sh", ":");
    let (second, gate) = gated(&instance, "");
    let asked = || {
        instance
            .read(".cutover/fences/shop/web.asked")
            .trim_end()
            .to_owned()
    };
    let mut agent = Agent::start();

    let run = followed(instance.run("a", first), "b", &second);
    assert_succeeded(&agent.outcome(run).1);
    assert_eq!(asked(), "b a");
    agent.send(Request::Run(instance.run("b", second)));
    eventually(|| (asked() == "b").then_some(()));
    release(&gate);

    assert_succeeded(&agent.follow("b", 0).1);
}

#[test]
fn no_moment_of_a_kill_makes_what_follows_run_twice_or_not_at_all() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let id = |number: usize| format!("attempt-{number}");
    for number in (0..60).step_by(2) {
        let run = followed(
            instance.run(&id(number), work.clone()),
            &id(number + 1),
            &work,
        );
        for _ in 0..2 {
            let mut agent = Agent::start();
            agent.send(Request::Run(run.clone()));
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let kill_at = Instant::now() + Duration::from_micros(seed % 12_000);
            if agent.has_ended(&id(number), kill_at) {
                agent.send(Request::Run(instance.run(&id(number + 1), work.clone())));
            }
            // No synchronisation: the moments of the kill are spread over the life of both attempts.
            std::thread::sleep(kill_at.saturating_duration_since(Instant::now()));
            agent.kill();
        }

        let mut agent = Agent::start();
        assert_succeeded(&agent.outcome(run).1);
        assert_succeeded(&agent.outcome(instance.run(&id(number + 1), work.clone())).1);
        let ran = instance.read("count").lines().count();
        assert_eq!(ran, number + 2, "after `{}`", id(number));
    }
}

#[track_caller]
fn unbegun(agent: &mut Agent, run: Run) {
    let id = run.attempt.clone();
    agent.send(Request::Run(Run { join: true, ..run }));
    loop {
        match agent.answer() {
            Answer::Unbegun { attempt } if attempt == id => return,
            Answer::Ended { attempt, outcome } if attempt == id => panic!("{outcome:?}"),
            _ => {}
        }
    }
}

#[test]
fn what_has_not_begun_is_not_begun_by_whoever_joins_it() {
    let instance = Instance::new();
    let (first, gate) = gated(&instance, "");
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut agent = Agent::start();

    unbegun(&mut agent, instance.run("b", work.clone()));
    // In the hands of a worker that is ready for it, of this agent and of another one.
    let run = followed(instance.run("a", first.clone()), "b", &work);
    agent.send(Request::Run(run));
    is_under_way(&instance, "a", "b");
    let mut other = Agent::start();
    other.send(Request::Run(Run {
        join: true,
        ..instance.run("b", work.clone())
    }));
    agent.kill();
    assert_eq!(
        other.answer(),
        Answer::Unbegun {
            attempt: "b".to_owned()
        }
    );
    release(&gate);

    assert_succeeded(&other.outcome(instance.run("a", first)).1);
    assert_eq!(instance.read("count"), "");
    assert_succeeded(&other.outcome(instance.run("b", work)).1);
}

#[test]
fn what_followed_by_itself_is_told_to_whoever_joins_it() {
    let instance = Instance::new();
    let first = instance.script("first.sh", ":");
    let (second, gate) = gated(&instance, "echo second >> ../../../ran");
    let mut agent = Agent::start();
    let run = followed(instance.run("a", first), "b", &second);
    assert_succeeded(&agent.outcome(run).1);
    eventually(|| has_begun(&instance, "b").then_some(()));
    agent.kill();

    let mut heir = Agent::start();
    let join = Run {
        join: true,
        ..instance.run("b", second)
    };
    heir.send(Request::Run(join.clone()));
    release(&gate);
    assert_succeeded(&heir.follow("b", 0).1);
    // It is over by now.
    assert_succeeded(&heir.outcome(join).1);

    assert_eq!(instance.read("ran"), "second\n");
}

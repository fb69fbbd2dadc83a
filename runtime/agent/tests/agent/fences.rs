//! Commands of conductors that have been succeeded.

use std::fs;
use std::path::PathBuf;

use agent::protocol::{Answer, Fence, Outcome, Request, Run, Work};

use crate::chain::{followed, gated, has_begun, is_under_way};
use crate::fetch::fetch;
use crate::instance::{Agent, CACHE, Instance, assert_succeeded, eventually, release};

fn fence(journal: &str, number: u64) -> Option<Fence> {
    Some(Fence {
        journal: journal.to_owned(),
        number,
        release: format!("r{number}"),
    })
}

/// A run of the first journal, in this turn.
fn in_turn(instance: &Instance, number: u64, attempt: &str, work: &Work) -> Run {
    Run {
        fence: fence("one", number),
        ..instance.run(attempt, work.clone())
    }
}

#[track_caller]
fn refusal(agent: &mut Agent, run: Run) -> String {
    let id = run.attempt.clone();
    agent.send(Request::Run(run));
    match agent.answer() {
        Answer::Refused {
            attempt, reason, ..
        } if attempt.as_deref() == Some(&id) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_has_been_succeeded_is_refused_before_anything_is_started() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let (mut zombie, mut heir) = (Agent::start(), Agent::start());
    assert_succeeded(&zombie.outcome(in_turn(&instance, 5, "a", &work)).1);
    assert_succeeded(&heir.outcome(in_turn(&instance, 7, "b", &work)).1);

    let run = followed(in_turn(&instance, 5, "c", &work), "d", &work);
    let refused = refusal(&mut zombie, run);

    assert_eq!(
        refused,
        "the conductor of release `r5` has been succeeded: it acts in turn 5, and release `r7` has acted on `shop/web` of this instance in turn 7"
    );
    assert_eq!(instance.read("count"), "x\nx\n");
    for attempt in ["c", "d"] {
        let filed = instance.path(&format!(".cutover/attempts/{attempt}"));
        assert!(!filed.exists(), "{attempt}");
    }
    // What became of an attempt is no business of its either.
    refusal(&mut zombie, in_turn(&instance, 5, "b", &work));
    assert_succeeded(&heir.outcome(in_turn(&instance, 7, "c", &work)).1);
}

#[test]
fn the_latest_turn_is_remembered_by_every_agent_that_follows() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut agent = Agent::start();
    agent.outcome(in_turn(&instance, 7, "a", &work));
    agent.kill();

    refusal(&mut Agent::start(), in_turn(&instance, 6, "b", &work));

    assert_eq!(instance.read("count"), "x\n");
}

#[test]
fn journals_groups_and_instances_have_turns_of_their_own() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let other = CACHE.replace("group-web", "group-api");
    instance.write(
        &format!("{other}/count.sh"),
        "#!/bin/sh\necho y >> ../../../count\n",
    );
    let mut of_other = work.clone();
    if let Work::Hooks(hooks) = &mut of_other {
        hooks.cache = other;
    }
    let elsewhere = Instance::new();
    let there = elsewhere.script("count.sh", "echo z >> ../../../count");
    let mut agent = Agent::start();
    agent.outcome(in_turn(&instance, 7, "a", &work));

    let of_another_journal = Run {
        fence: fence("two", 1),
        ..instance.run("b", work)
    };
    assert_succeeded(&agent.outcome(of_another_journal).1);
    assert_succeeded(&agent.outcome(in_turn(&instance, 1, "c", &of_other)).1);
    assert_succeeded(&agent.outcome(in_turn(&elsewhere, 1, "d", &there)).1);

    assert_eq!(instance.read("count"), "x\nx\ny\n");
}

/// An agent at work on `a` in turn 5, with a worker at the ready for `b`, and what lets `a` end.
fn at_work(instance: &Instance, work: &Work) -> (Agent, PathBuf) {
    let (wait, gate) = gated(instance, ":");
    let mut agent = Agent::start();
    let run = followed(in_turn(instance, 5, "a", &wait), "b", work);
    agent.send(Request::Run(run));
    is_under_way(instance, "a", "b");
    (agent, gate)
}

fn turn_7_has_come(instance: &Instance) {
    eventually(|| {
        let turns = instance.read(".cutover/fences/shop/web.json");
        turns.contains(":7").then_some(())
    });
}

/// The conductor that gave the two may be frozen, and its agent with a worker at the ready is not.
#[test]
fn what_was_to_follow_in_an_earlier_turn_does_not() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let (mut zombie, gate) = at_work(&instance, &work);
    let mut heir = Agent::start();
    heir.send(Request::Run(in_turn(&instance, 7, "c", &work)));
    turn_7_has_come(&instance);

    release(&gate);
    assert_succeeded(&zombie.follow("a", 0).1);
    assert_succeeded(&heir.follow("c", 0).1);

    refusal(&mut zombie, in_turn(&instance, 5, "b", &work));
    zombie.kill();
    assert_eq!(instance.read("count"), "x\n");
}

/// Whoever ends the release asks for nothing else.
#[test]
fn what_was_to_follow_does_not_when_the_other_one_is_waited_for_in_a_later_turn() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let (mut zombie, gate) = at_work(&instance, &work);
    let mut heir = Agent::start();
    heir.send(Request::Run(in_turn(&instance, 7, "a", &work)));
    turn_7_has_come(&instance);

    release(&gate);
    assert_succeeded(&zombie.follow("a", 0).1);
    assert_succeeded(&heir.follow("a", 0).1);

    refusal(&mut zombie, in_turn(&instance, 5, "b", &work));
    assert!(!has_begun(&instance, "b"));
    assert_succeeded(&heir.outcome(in_turn(&instance, 7, "b", &work)).1);
    assert_eq!(instance.read("count"), "x\n");
}

#[test]
fn what_was_to_follow_in_an_earlier_turn_makes_way_for_whoever_asks_for_it() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let (mut zombie, gate) = at_work(&instance, &work);
    let mut heir = Agent::start();
    heir.send(Request::Run(in_turn(&instance, 7, "b", &work)));
    // It waits for `a`, in the hands of a worker of the heir's.
    let waits = instance.path(".cutover/attempts/b/waits");
    eventually(|| waits.exists().then_some(()));

    release(&gate);

    assert_succeeded(&heir.follow("b", 0).1);
    assert_succeeded(&zombie.follow("a", 0).1);
    refusal(&mut zombie, in_turn(&instance, 5, "b", &work));
    assert_eq!(instance.read("count"), "x\n");
}

/// As above, of a worker that has carried out others before, here and elsewhere.
#[test]
fn a_worker_that_took_several_attempts_makes_way_as_well() {
    let (here, there) = (Instance::new(), Instance::new());
    let work = here.script("count.sh", "echo x >> ../../../count");
    there.script("count.sh", "echo x >> ../../../count");
    let (wait, gate) = gated(&here, ":");
    let (mut zombie, mut heir) = (Agent::start(), Agent::start());
    for number in 0..20 {
        for (instance, place) in [(&there, "there"), (&here, "here")] {
            let run = in_turn(instance, 5, &format!("{place}-{number}"), &work);
            let next = format!("{place}-{}", number + 1);
            assert_succeeded(&zombie.outcome(followed(run, &next, &work)).1);
        }
    }
    assert_succeeded(&zombie.outcome(in_turn(&there, 5, "there-20", &work)).1);
    assert_succeeded(&zombie.outcome(in_turn(&here, 5, "here-20", &work)).1);
    let last = followed(in_turn(&here, 5, "here-21", &wait), "here-22", &work);
    zombie.send(Request::Run(last));
    is_under_way(&here, "here-21", "here-22");

    heir.send(Request::Run(in_turn(&here, 7, "here-22", &work)));
    let waits = here.path(".cutover/attempts/here-22/waits");
    eventually(|| waits.exists().then_some(()));
    release(&gate);

    assert_succeeded(&heir.follow("here-22", 0).1);
    assert_succeeded(&zombie.follow("here-21", 0).1);
    refusal(&mut zombie, in_turn(&here, 5, "here-22", &work));
    assert_eq!(here.read("count").lines().count(), 22);
    assert_eq!(there.read("count").lines().count(), 21);
}

#[test]
fn what_is_under_way_goes_on_and_is_told_to_whoever_asked_in_time() {
    let instance = Instance::new();
    let (wait, gate) = gated(&instance, ":");
    let (mut zombie, mut heir) = (Agent::start(), Agent::start());
    zombie.send(Request::Run(in_turn(&instance, 5, "a", &wait)));
    instance.worker("a");

    heir.send(Request::Run(in_turn(&instance, 7, "a", &wait)));
    turn_7_has_come(&instance);
    release(&gate);

    assert_succeeded(&heir.follow("a", 0).1);
    assert_succeeded(&zombie.follow("a", 0).1);
}

#[test]
fn a_conductor_that_names_no_turn_is_refused_where_turns_are_known() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut agent = Agent::start();
    assert_succeeded(&agent.outcome(instance.run("a", work.clone())).1);
    agent.outcome(in_turn(&instance, 7, "b", &work));

    let refused = refusal(&mut agent, instance.run("c", work));

    assert!(
        refused.starts_with("the conductor is too old for this agent"),
        "{refused}"
    );
    assert_eq!(instance.read("count"), "x\nx\n");
}

/// Makes it look as if the host had been down since the group was first acted on.
fn boot_again(instance: &Instance) {
    let turns = instance.read(".cutover/fences/shop/web.json");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(turns.contains(boot.trim()), "{turns}");
    let turns = turns.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    instance.write(".cutover/fences/shop/web.json", &turns);
}

#[test]
fn an_attempt_that_a_host_may_have_forgotten_by_going_down_is_lost() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    assert_succeeded(&Agent::start().outcome(in_turn(&instance, 5, "a", &work)).1);
    boot_again(&instance);

    // The same conductor asks again, and the one that takes the release over.
    for (number, attempt) in [(5, "b"), (6, "c")] {
        let run = Run {
            fence: Some(Fence {
                release: "r5".to_owned(),
                ..fence("one", number).unwrap()
            }),
            ..instance.run(attempt, work.clone())
        };
        let (_, outcome) = Agent::start().outcome(run);
        assert_eq!(
            outcome,
            Outcome::Lost {
                reason: "the attempt was asked for before, and the host has been down since the release came to it: it \
                         may have begun"
                    .to_owned()
            }
        );
    }

    assert_eq!(instance.read("count"), "x\n");
}

#[test]
fn what_is_asked_for_for_the_first_time_was_not_begun_before_the_host_went_down() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    assert_succeeded(&Agent::start().outcome(in_turn(&instance, 5, "a", &work)).1);
    boot_again(&instance);

    let fresh = Run {
        fresh: true,
        ..in_turn(&instance, 5, "b", &work)
    };
    let mut agent = Agent::start();
    assert_succeeded(&agent.outcome(fresh).1);
    // What is there is told, whoever asks.
    assert_succeeded(&agent.outcome(in_turn(&instance, 5, "b", &work)).1);
    // Another release comes to a host that has not been down since.
    assert_succeeded(&agent.outcome(in_turn(&instance, 7, "c", &work)).1);

    assert_eq!(instance.read("count"), "x\nx\nx\n");
}

#[test]
fn what_may_have_followed_before_the_host_went_down_does_not_follow_again() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    assert_succeeded(&Agent::start().outcome(in_turn(&instance, 5, "a", &work)).1);
    boot_again(&instance);

    // It ended before, and nothing is left of what followed it.
    let mut agent = Agent::start();
    let again = followed(in_turn(&instance, 5, "a", &work), "b", &work);
    assert_succeeded(&agent.outcome(again).1);
    let (_, outcome) = agent.outcome(in_turn(&instance, 5, "b", &work));

    assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome:?}");
    assert_eq!(instance.read("count"), "x\n");
}

#[test]
fn a_package_that_a_host_may_have_forgotten_by_going_down_is_brought_again() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    assert_succeeded(&Agent::start().outcome(in_turn(&instance, 5, "a", &work)).1);
    boot_again(&instance);

    let work = Work::Fetch(fetch(&instance, "2"));
    let (_, outcome) = Agent::start().outcome(in_turn(&instance, 5, "b", &work));

    assert_succeeded(&outcome);
}

/// Whoever finds it flushed does not flush it.
#[test]
fn a_turn_is_known_to_be_flushed_when_its_first_attempt_has_ended() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let is_durable = || {
        let turns = instance.read(".cutover/fences/shop/web.json");
        turns.contains(r#""durable":true"#) && !turns.contains(r#""durable":false"#)
    };
    let mut agent = Agent::start();

    for number in 5..8 {
        let attempt = format!("attempt-{number}");
        assert_succeeded(&agent.outcome(in_turn(&instance, number, &attempt, &work)).1);
        assert!(is_durable(), "turn {number}");
    }
}

#[test]
fn turns_of_an_earlier_agent_count() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let turns = r#"{"v":1,"turns":[{"journal":"one","number":7,"release":"r7"}]}"#;
    instance.write(".cutover/fences/shop/web.json", turns);
    let mut agent = Agent::start();

    refusal(&mut agent, in_turn(&instance, 6, "a", &work));
    assert_succeeded(&agent.outcome(in_turn(&instance, 8, "b", &work)).1);

    assert_eq!(instance.read("count"), "x\n");
}

#[test]
fn turns_that_cannot_be_read_let_nobody_pass() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    instance.write(".cutover/fences/shop/web.json", "{");

    let refused = refusal(&mut Agent::start(), in_turn(&instance, 7, "a", &work));

    assert!(
        refused.contains("remove it when no conductor is at work"),
        "{refused}"
    );
    assert_eq!(instance.read("count"), "");
}

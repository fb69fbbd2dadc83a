//! Attempts of one group that are asked for while another one works.

use agent::protocol::{Answer, Cause, Request};

use crate::instance::{
    Agent, CACHE, Instance, assert_failed, assert_succeeded, eventually, fifo, kill, release,
};

/// What an agent says that an attempt waits for.
#[track_caller]
fn wait_of(agent: &Agent, id: &str) -> String {
    loop {
        match agent.answer() {
            Answer::Waiting { attempt, what } if attempt == id => return what,
            Answer::Ended { attempt, outcome } if attempt == id => panic!("{outcome:?}"),
            _ => {}
        }
    }
}

#[test]
fn what_is_asked_for_waits_for_what_was_given_up_and_still_works() {
    let instance = Instance::new();
    let gate = instance.path("gate");
    fifo(&gate);
    let slow = format!("read go < '{}'; echo old >> ../../../trace", gate.display());
    let old = instance.script("old.sh", &slow);
    let back = instance.script("back.sh", "echo back >> ../../../trace");
    let mut cut_off = Agent::start();
    cut_off.send(Request::Run(instance.run("old", old)));
    instance.worker("old");

    let mut agent = Agent::start();
    agent.send(Request::Run(instance.run("back", back)));
    let what = wait_of(&agent, "back");
    release(&gate);
    let (_, outcome) = agent.follow("back", 0);

    assert_eq!(
        what,
        "attempt `old`, which was given up and still runs on the instance, to end"
    );
    assert_succeeded(&outcome);
    assert_succeeded(&cut_off.follow("old", 0).1);
    assert_eq!(instance.read("trace"), "old\nback\n");
}

#[test]
fn of_those_that_wait_the_one_that_was_asked_for_last_begins() {
    let instance = Instance::new();
    let gate = instance.path("gate");
    fifo(&gate);
    let old = instance.script("old.sh", &format!("read go < '{}'", gate.display()));
    let work = instance.script("count.sh", "echo x >> ../../../trace");
    let mut cut_off = Agent::start();
    cut_off.send(Request::Run(instance.run("old", old)));
    instance.worker("old");

    let (mut first, mut second) = (Agent::start(), Agent::start());
    first.send(Request::Run(instance.run("first", work.clone())));
    wait_of(&first, "first");
    second.send(Request::Run(instance.run("second", work)));
    wait_of(&second, "second");
    release(&gate);

    assert_succeeded(&second.follow("second", 0).1);
    assert_failed(
        &first.follow("first", 0).1,
        Cause::Invalid,
        "attempt `second` was asked for before this one could begin",
    );
    assert_eq!(instance.read("trace").lines().count(), 1);
}

#[test]
fn a_wait_outlives_the_agent_that_told_of_it() {
    let instance = Instance::new();
    let gate = instance.path("gate");
    fifo(&gate);
    let old = instance.script("old.sh", &format!("read go < '{}'", gate.display()));
    let work = instance.script("count.sh", "echo x >> ../../../trace");
    let mut cut_off = Agent::start();
    cut_off.send(Request::Run(instance.run("old", old)));
    instance.worker("old");
    let mut agent = Agent::start();
    agent.send(Request::Run(instance.run("back", work.clone())));
    wait_of(&agent, "back");
    agent.kill();

    let mut heir = Agent::start();
    heir.send(Request::Run(instance.run("back", work)));
    wait_of(&heir, "back");
    release(&gate);

    assert_succeeded(&heir.follow("back", 0).1);
    assert_eq!(instance.read("trace"), "x\n");
}

#[test]
fn what_a_killed_worker_left_is_ended_before_anything_else_begins() {
    let instance = Instance::new();
    let old = instance.script("old.sh", "sleep 1000 & echo $! > ../../../pid; wait");
    let check = instance.script(
        "check.sh",
        "for stat in $(cut -d' ' -f3 /proc/$(cat ../../../pid)/stat 2>/dev/null); do test $stat = Z || echo alive > ../../../alive; done",
    );
    let mut cut_off = Agent::start();
    cut_off.send(Request::Run(instance.run("old", old)));
    eventually(|| (!instance.read("pid").is_empty()).then_some(()));
    kill(instance.worker("old"));

    let (_, outcome) = instance.outcome("back", check);

    assert_succeeded(&outcome);
    assert_eq!(instance.read("alive"), "");
}

#[test]
fn other_groups_of_the_instance_have_lines_of_their_own() {
    let instance = Instance::new();
    let gate = instance.path("gate");
    fifo(&gate);
    let old = instance.script("old.sh", &format!("read go < '{}'", gate.display()));
    let mut cut_off = Agent::start();
    cut_off.send(Request::Run(instance.run("old", old)));
    instance.worker("old");
    let other = CACHE.replace("group-web", "group-api");
    instance.write(&format!("{other}/x.sh"), "#!/bin/sh\necho x > ../../../x\n");
    let mut work = instance.script("x.sh", "false");
    if let agent::protocol::Work::Hooks(hooks) = &mut work {
        hooks.cache = other;
    }

    assert_succeeded(&instance.outcome("other", work).1);

    assert_eq!(instance.read("x"), "x\n");
    release(&gate);
}

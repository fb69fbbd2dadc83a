//! Who does the work of attempts that come one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{Duration, Instant};

use agent::protocol::{Request, Run, Work};
use rustix::fs::inotify;

use crate::chain::followed;
use crate::instance::{
    Agent, Instance, assert_succeeded, eventually, fifo, is_alive, kill, release,
};

/// The attempt with this number, which the one after it follows where it is not the last.
fn link(instance: &Instance, number: usize, last: usize, work: &Work) -> Run {
    let run = instance.run(&format!("attempt-{number}"), work.clone());
    if number == last {
        return run;
    }
    followed(run, &format!("attempt-{}", number + 1), work)
}

fn worker(instance: &Instance, number: usize) -> i32 {
    instance.worker(&format!("attempt-{number}"))
}

#[test]
fn workers_that_left_nothing_running_take_further_attempts() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut agent = Agent::start();

    let workers = (0..20).map(|number| {
        assert_succeeded(&agent.outcome(link(&instance, number, 19, &work)).1);
        worker(&instance, number)
    });
    let workers: BTreeSet<i32> = workers.collect();

    assert!(workers.len() < 20, "{workers:?}");
    assert_eq!(instance.read("count").lines().count(), 20);
    assert!(agent.close());
    for worker in workers {
        eventually(|| (!is_alive(worker)).then_some(()));
    }
}

/// Agents that start remove the control groups that nobody has a use for.
#[test]
fn a_worker_keeps_its_control_group_while_other_agents_start() {
    let (instance, elsewhere) = (Instance::new(), Instance::new());
    let work = instance.script("group.sh", "cat /proc/self/cgroup >> ../../../groups");
    let other = elsewhere.script("nothing.sh", ":");
    let mut agent = Agent::start();
    let mut groups: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();

    for number in 0..10 {
        let run = instance.run(&format!("attempt-{number}"), work.clone());
        assert_succeeded(&agent.outcome(run).1);
        let told = instance.read("groups");
        let group = told.lines().last().unwrap().to_owned();
        groups
            .entry(worker(&instance, number))
            .or_default()
            .insert(group);
        let next = elsewhere.run(&format!("attempt-{number}"), other.clone());
        assert_succeeded(&Agent::start().outcome(next).1);
    }

    assert!(groups.len() < 10, "{groups:?}");
    assert!(
        groups.values().all(|groups| groups.len() == 1),
        "{groups:?}"
    );
}

#[test]
fn a_worker_whose_script_left_something_running_ends_and_leaves_it() {
    let instance = Instance::new();
    let work = instance.script(
        "start.sh",
        "sleep 600 > /dev/null 2>&1 &\necho $! > ../../../service",
    );
    let mut agent = Agent::start();

    assert_succeeded(&agent.outcome(instance.run("attempt-0", work)).1);

    let worker = worker(&instance, 0);
    eventually(|| (!is_alive(worker)).then_some(()));
    let service = instance.read("service").trim().parse().unwrap();
    assert!(is_alive(service));
    kill(service);
}

#[test]
fn a_worker_whose_script_failed_ends() {
    let instance = Instance::new();
    let work = instance.script("fail.sh", "exit 1");
    let mut agent = Agent::start();

    agent.outcome(instance.run("attempt-0", work));

    let worker = worker(&instance, 0);
    eventually(|| (!is_alive(worker)).then_some(()));
}

#[test]
fn a_worker_that_is_killed_while_it_waits_costs_nothing() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut agent = Agent::start();
    for number in 0..12 {
        let attempt = instance.run(&format!("attempt-{number}"), work.clone());
        assert_succeeded(&agent.outcome(attempt).1);
        let idle = worker(&instance, number);
        kill(idle);
        if number % 2 == 0 {
            // Whoever is given an attempt while it dies is another case.
            eventually(|| (!is_alive(idle)).then_some(()));
        }
    }

    assert_eq!(instance.read("count").lines().count(), 12);
}

#[test]
fn no_moment_of_a_kill_makes_a_hook_of_a_chain_run_twice_or_not_at_all() {
    const CHAIN: usize = 5;
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for first in (0..20).map(|round| round * CHAIN) {
        let mut agent = Agent::start();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let kill_at = Instant::now() + Duration::from_micros(seed % 40_000);
        for number in first..first + CHAIN {
            agent.send(Request::Run(link(
                &instance,
                number,
                first + CHAIN - 1,
                &work,
            )));
            if !agent.has_ended(&format!("attempt-{number}"), kill_at) {
                break;
            }
        }
        agent.kill();

        let mut agent = Agent::start();
        for number in first..first + CHAIN {
            let run = link(&instance, number, first + CHAIN - 1, &work);
            assert_succeeded(&agent.outcome(run).1);
        }
        let ran = instance.read("count").lines().count();
        assert_eq!(ran, first + CHAIN, "from `attempt-{first}` on");
    }
}

/// Tells how often the file with this name is opened in a folder from now on.
fn opened(folder: &Path, name: &str) -> impl FnMut() -> usize + use<> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let events = inotify::init(flags).unwrap();
    inotify::add_watch(&events, folder, inotify::WatchFlags::OPEN).unwrap();
    let name = CString::new(name).unwrap();
    let mut count = 0;
    move || {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&events, &mut buffer);
        while let Ok(event) = reader.next() {
            count += usize::from(event.file_name() == Some(&*name));
        }
        count
    }
}

#[test]
fn what_became_of_an_attempt_is_made_durable_while_its_worker_does_another() {
    let (here, there) = (Instance::new(), Instance::new());
    let gates = [here.path("gate"), there.path("gate")];
    let [first, second] = [(&here, &gates[0]), (&there, &gates[1])].map(|(instance, gate)| {
        fifo(gate);
        instance.script("wait.sh", &format!("read go < '{}'", gate.display()))
    });
    let mut agent = Agent::start();
    agent.send(Request::Run(here.run("attempt-0", first)));
    here.worker("attempt-0");
    let mut opened = opened(&here.path(".cutover/attempts/attempt-0"), "outcome.json");
    release(&gates[0]);
    assert_succeeded(&agent.follow("attempt-0", 0).1);
    let by_the_front = 1;

    // The same worker takes it, most likely: it is free when it has told the outcome.
    agent.send(Request::Run(there.run("attempt-1", second)));
    eventually(|| (opened() > by_the_front).then_some(()));
    release(&gates[1]);

    assert_succeeded(&agent.follow("attempt-1", 0).1);
}

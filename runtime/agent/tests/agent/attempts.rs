//! At most once, and never forgotten.

use std::fs;
use std::time::Duration;

use agent::protocol::{Answer, Cached, Cause, Installed, Outcome, Ping, Request};

use crate::instance::{
    Agent, Instance, assert_failed, assert_succeeded, eventually, fifo, hooks, is_alive, kill,
    location, release,
};

#[test]
fn an_attempt_runs_once_however_often_it_is_sent() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count; echo hello");
    let mut agent = Agent::start();

    let first = agent.outcome(instance.run("a", work.clone()));
    let second = agent.outcome(instance.run("a", work.clone()));
    let third = instance.outcome("a", work);

    assert_eq!(instance.read("count"), "x\n");
    assert!(
        first.0.starts_with("==> count.sh at 20") && first.0.contains("Z\nhello\n<== exit 0 in 0."),
        "{}",
        first.0
    );
    assert_eq!(first, second);
    assert_eq!(first, third);
    assert!(agent.close());
}

#[test]
fn a_killed_agent_loses_nothing() {
    let instance = Instance::new();
    let gate = instance.path("gate");
    fifo(&gate);
    let text = format!(
        "echo x >> ../../../count; echo before; read go < '{}'; echo after",
        gate.display()
    );
    let work = instance.script("wait.sh", &text);
    let mut agent = Agent::start();
    agent.send(Request::Run(instance.run("a", work.clone())));
    eventually(|| (instance.read("count") == "x\n").then_some(()));

    agent.kill();
    let mut agent = Agent::start();
    agent.send(Request::Run(instance.run("a", work)));
    release(&gate);
    let (log, outcome) = agent.follow("a", 0);

    assert_succeeded(&outcome);
    assert!(log.contains("\nbefore\nafter\n<== exit 0"), "{log}");
    assert_eq!(instance.read("count"), "x\n");
}

#[test]
fn a_closed_connection_ends_the_agent_and_not_the_work() {
    let instance = Instance::new();
    let gate = instance.path("gate");
    fifo(&gate);
    let work = instance.script("wait.sh", &format!("read go < '{}'", gate.display()));
    let mut agent = Agent::start();
    agent.send(Request::Run(instance.run("a", work.clone())));
    let worker = instance.worker("a");

    assert!(agent.close());
    assert!(is_alive(worker));
    release(&gate);

    assert_succeeded(&instance.outcome("a", work).1);
}

#[test]
fn no_moment_of_a_kill_makes_a_hook_run_twice_or_not_at_all() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for number in 0..30 {
        let id = format!("attempt-{number}");
        for _ in 0..2 {
            let mut agent = Agent::start();
            agent.send(Request::Run(instance.run(&id, work.clone())));
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // No synchronisation: the moments of the kill are spread over the life of the attempt.
            std::thread::sleep(Duration::from_micros(seed % 6_000));
            agent.kill();
        }

        let (_, outcome) = instance.outcome(&id, work.clone());

        assert_succeeded(&outcome);
        assert_eq!(
            instance.read("count").lines().count(),
            number + 1,
            "after `{id}`"
        );
    }
}

#[test]
fn of_two_agents_with_one_attempt_one_works_and_both_answer() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count; echo out");
    let mut agents = [Agent::start(), Agent::start()];
    for number in 0..20 {
        let run = instance.run(&format!("attempt-{number}"), work.clone());

        for agent in &mut agents {
            agent.send(Request::Run(run.clone()));
        }
        let [one, other] = agents.each_ref().map(|agent| agent.follow(&run.attempt, 0));

        assert_succeeded(&one.1);
        assert_eq!(one, other);
        assert_eq!(instance.read("count").lines().count(), number + 1);
    }
}

#[test]
fn a_killed_worker_is_a_lost_attempt_for_everybody_who_waits() {
    let instance = Instance::new();
    let work = instance.script("wait.sh", "echo $$ > ../../../pid; exec sleep 1000");
    let mut agents = [Agent::start(), Agent::start()];
    for agent in &mut agents {
        agent.send(Request::Run(instance.run("a", work.clone())));
    }
    let script: i32 = eventually(|| instance.read("pid").trim().parse().ok());

    kill(instance.worker("a"));

    for agent in &agents {
        let (_, outcome) = agent.follow("a", 0);
        assert!(
            matches!(&outcome, Outcome::Lost { reason } if reason.contains("went down")),
            "{outcome:?}"
        );
    }
    let (_, again) = instance.outcome("a", work);
    assert!(
        matches!(again, Outcome::Lost { .. }),
        "it is never begun again"
    );
    if is_alive(script) {
        kill(script);
    }
}

#[test]
fn what_a_killed_worker_left_is_ended_before_the_attempt_is_lost() {
    let instance = Instance::new();
    let text =
        "cat /proc/self/cgroup > ../../../groups; setsid sleep 1000 & echo $! > ../../../pid; wait";
    let work = instance.script("wait.sh", text);
    let mut agent = Agent::start();
    agent.send(Request::Run(instance.run("a", work)));
    let left: i32 = eventually(|| instance.read("pid").trim().parse().ok());

    kill(instance.worker("a"));
    let (_, outcome) = agent.follow("a", 0);

    assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome:?}");
    if instance.read("groups").contains("/cutover-") {
        eventually(|| (!is_alive(left)).then_some(()));
    } else {
        // A host without the unified hierarchy, or a user who may not make groups in it.
        kill(left);
    }
}

#[test]
fn what_was_filed_before_another_boot_is_lost_even_if_no_trace_of_a_beginning_is_there() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    let dir = ".cutover/attempts/a";
    instance.write(&format!("{dir}/lock"), "1");
    instance.write(&format!("{dir}/command.json"), "");

    let (_, outcome) = instance.outcome("a", work);

    assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome:?}");
    assert_eq!(instance.read("count"), "");
}

#[test]
fn an_unreadable_outcome_is_a_lost_attempt_that_says_why() {
    let instance = Instance::new();
    let work = instance.script("count.sh", "echo x >> ../../../count");
    instance.outcome("a", work.clone());
    for garbage in ["", "{", r#"{"v":1,"status":"dancing"}"#, r#"{"v":9}"#] {
        fs::write(instance.path(".cutover/attempts/a/outcome.json"), garbage).unwrap();

        let (_, outcome) = instance.outcome("a", work.clone());

        assert!(
            matches!(&outcome, Outcome::Lost { reason } if reason.contains("cannot be read")),
            "{outcome:?}"
        );
    }
    assert_eq!(instance.read("count"), "x\n");
}

#[test]
fn a_log_is_resumed_where_the_asker_left_it() {
    let instance = Instance::new();
    let gate = instance.path("gate");
    fifo(&gate);
    let work = instance.script(
        "talk.sh",
        &format!("echo one; read go < '{}'; echo two", gate.display()),
    );
    let mut agent = Agent::start();
    agent.send(Request::Run(instance.run("a", work.clone())));
    let Answer::Log { text: first, .. } = agent.answer() else {
        panic!("no log while the script runs")
    };
    agent.kill();

    let mut run = instance.run("a", work);
    run.log_from = first.len() as u64;
    let mut agent = Agent::start();
    agent.send(Request::Run(run.clone()));
    release(&gate);
    let (rest, outcome) = agent.follow("a", run.log_from);

    assert_succeeded(&outcome);
    assert!(
        rest.contains("two") && !rest.contains("==> talk.sh"),
        "{rest}"
    );
    assert_eq!(
        format!("{first}{rest}"),
        instance.read(".cutover/attempts/a/log")
    );
}

#[test]
fn many_attempts_share_a_connection() {
    let instances: Vec<Instance> = (0..40).map(|_| Instance::new()).collect();
    let mut agent = Agent::start();
    for (number, instance) in instances.iter().enumerate() {
        let work = instance.script(
            "talk.sh",
            "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done",
        );
        agent.send(Request::Run(
            instance.run(&format!("attempt-{number}"), work),
        ));
    }

    let mut ended = 0;
    while ended < instances.len() {
        match agent.answer() {
            Answer::Ended { attempt, outcome } => {
                assert_succeeded(&outcome);
                let number: usize = attempt["attempt-".len()..].parse().unwrap();
                let log = format!(".cutover/attempts/{attempt}/log");
                assert_eq!(instances[number].read(&log).lines().count(), 202);
                ended += 1;
            }
            Answer::Log { .. } => {}
            answer => panic!("{answer:?}"),
        }
    }
}

#[test]
fn an_asker_that_reads_slowly_holds_up_nobody_and_loses_nothing() {
    let instance = Instance::new();
    let work = instance.script("flood.sh", "yes 0123456789 | head -c 3000000");
    let mut agent = Agent::start();
    agent.send(Request::Run(instance.run("a", work)));
    let other = Instance::new();
    let quick = other.script("quick.sh", "true");

    assert_succeeded(&other.outcome("b", quick).1);
    let (log, outcome) = agent.follow("a", 0);

    assert_succeeded(&outcome);
    assert_eq!(log, instance.read(".cutover/attempts/a/log"));
    assert!(log.len() > 3_000_000);
}

#[test]
fn garbage_is_refused_and_the_connection_goes_on() {
    let instance = Instance::new();
    let work = hooks(vec![location("gone.sh")]);
    let mut agent = Agent::start();
    agent.send_line(b"hello\n\n{\"v\":1,\"type\":\"run\",\"attempt\":\"x\"}\n");
    let mut evil = instance.run("../x", work.clone());
    agent.send(Request::Run(evil.clone()));
    evil.attempt = "x".to_owned();
    evil.rootdir = "relative".to_owned();
    agent.send(Request::Run(evil));

    let mut reasons = Vec::new();
    for _ in 0..4 {
        let Answer::Refused { reason, .. } = agent.answer() else {
            panic!("not refused")
        };
        reasons.push(reason);
    }

    let expected = [
        "expected value",
        "missing field",
        "`../x` is not a valid attempt id",
        "not an absolute path",
    ];
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(
            reason.contains(expected),
            "`{reason}` does not say `{expected}`"
        );
    }
    fs::create_dir_all(instance.path(crate::instance::CACHE)).unwrap();
    assert_failed(
        &agent.outcome(instance.run("a", work)).1,
        Cause::ScriptMissing,
        "`gone.sh` is not in the package",
    );
}

#[test]
fn questions_are_answered_by_their_number() {
    let instance = Instance::new();
    let mut agent = Agent::start();
    let caches = vec!["app-a/group-b/deploy-c".to_owned(), "../..".to_owned()];
    agent.send(Request::Cached(Cached {
        ask: 7,
        rootdir: instance.rootdir(),
        caches,
    }));
    let (application, group) = ("shop".to_owned(), "web".to_owned());
    agent.send(Request::Installed(Installed {
        ask: 8,
        rootdir: instance.rootdir(),
        application,
        group,
    }));

    assert_eq!(
        agent.answer(),
        Answer::Cached {
            ask: 7,
            caches: Vec::new()
        }
    );
    assert_eq!(
        agent.answer(),
        Answer::Installed {
            ask: 8,
            deployment: None
        }
    );
    agent.send(Request::Ping(Ping { ask: 9 }));
    assert_eq!(agent.answer(), Answer::Pong { ask: 9 });
}

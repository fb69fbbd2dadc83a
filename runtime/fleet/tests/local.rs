//! A fleet with a real agent: this program itself, started again with the argument `agent`.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet::{Asked, Command, Fence, Fleet, LocalFleet, LogSink, Then, Work};
use model::{AttemptId, Cause, Digest, Ending, Host, ReleaseId, Run, Script};
use rustix::process::{Pid, Signal, kill_process};

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

const CACHE: &str = "app-shop/group-web/deploy-r1-1";

type Test = (&'static str, fn());

const TESTS: [Test; 14] = [
    (
        "an_attempt_brings_its_log_and_its_ending",
        an_attempt_brings_its_log_and_its_ending,
    ),
    ("failures_keep_their_cause", failures_keep_their_cause),
    (
        "a_log_goes_on_where_the_sink_is",
        a_log_goes_on_where_the_sink_is,
    ),
    (
        "many_attempts_share_one_agent",
        many_attempts_share_one_agent,
    ),
    (
        "an_agent_that_dies_is_replaced_and_nothing_is_lost",
        an_agent_that_dies_is_replaced_and_nothing_is_lost,
    ),
    (
        "what_an_agent_was_given_that_died_is_lost_when_its_host_has_been_down",
        what_an_agent_was_given_that_died_is_lost_when_its_host_has_been_down,
    ),
    (
        "an_agent_that_keeps_dying_is_unreachable",
        an_agent_that_keeps_dying_is_unreachable,
    ),
    (
        "an_agent_that_hangs_is_unreachable_and_one_that_works_is_not",
        an_agent_that_hangs_is_unreachable_and_one_that_works_is_not,
    ),
    (
        "an_agent_that_speaks_something_else_is_unreachable",
        an_agent_that_speaks_something_else_is_unreachable,
    ),
    (
        "what_comes_in_an_earlier_turn_fails_and_says_who_came_between",
        what_comes_in_an_earlier_turn_fails_and_says_who_came_between,
    ),
    (
        "an_agent_that_is_too_old_for_a_command_is_named",
        an_agent_that_is_too_old_for_a_command_is_named,
    ),
    (
        "what_was_given_with_another_attempt_is_joined",
        what_was_given_with_another_attempt_is_joined,
    ),
    (
        "a_package_is_cached_after_it_was_fetched",
        a_package_is_cached_after_it_was_fetched,
    ),
    (
        "a_dropped_fleet_ends_the_agent_and_not_the_work",
        a_dropped_fleet_ends_the_agent_and_not_the_work,
    ),
];

#[allow(clippy::print_stdout, reason = "this is the test harness")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "agent") {
        agent::serve(std::io::stdin(), std::io::stdout()).unwrap();
        return;
    }
    // What test runners say to a test program.
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let is_value = |at: usize| {
        at > 0 && ["--format", "--test-threads", "--color"].contains(&arguments[at - 1].as_str())
    };
    let filters: Vec<&String> = arguments
        .iter()
        .enumerate()
        .filter(|(at, argument)| !argument.starts_with('-') && !is_value(*at))
        .map(|(_, argument)| argument)
        .collect();
    let (is_listing, is_exact) = (has("--list"), has("--exact"));
    for (name, test) in TESTS {
        let is_meant = |filter: &&String| {
            if is_exact {
                *filter == name
            } else {
                name.contains(filter.as_str())
            }
        };
        if has("--ignored") || !filters.is_empty() && !filters.iter().any(is_meant) {
            continue;
        }
        if is_listing {
            println!("{name}: test");
        } else {
            test();
            println!("test {name} ... ok");
        }
    }
}

struct Bench {
    root: tempfile::TempDir,
}

/// Keeps a log, and complains about bytes that come twice or out of order.
#[derive(Default)]
struct Kept {
    from: u64,
    bytes: Mutex<Vec<u8>>,
}

impl LogSink for Kept {
    fn position(&self) -> u64 {
        self.from + self.bytes.lock().unwrap().len() as u64
    }

    fn append(&self, offset: u64, bytes: &[u8]) {
        assert_eq!(offset, self.position());
        self.bytes.lock().unwrap().extend_from_slice(bytes);
    }
}

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }
}

impl Bench {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path(CACHE).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A fleet whose agents leave their process ids in `agents`.
    fn fleet(&self) -> LocalFleet {
        self.fleet_that(":")
    }

    /// The same, with a command that each agent begins with.
    fn fleet_that(&self, command: &str) -> LocalFleet {
        let start = format!(
            "echo $$ >> '{}'; {command}; exec \"$0\" agent",
            self.path("agents").display()
        );
        let own = std::env::current_exe().unwrap().into_os_string();
        LocalFleet::new(vec!["/bin/sh".into(), "-c".into(), start.into(), own])
    }

    fn agents(&self) -> Vec<i32> {
        self.read("agents")
            .lines()
            .map(|line| line.parse().unwrap())
            .collect()
    }

    fn command(&self, attempt: &str, work: Work) -> Command {
        let rootdir = self.root.path().to_str().unwrap().to_owned();
        Command {
            attempt: AttemptId::parse(attempt).unwrap(),
            rootdir,
            work,
            asked: Asked::Never,
            then: None,
            fence: Fence {
                journal: "one".to_owned(),
                number: 7,
                release: ReleaseId::parse("r1").unwrap(),
            },
        }
    }

    fn hook(&self, attempt: &str, script: &str) -> Command {
        let run = Run::Location(script.to_owned());
        let scripts = vec![Script {
            run,
            timeout: Duration::from_secs(20),
            runas: None,
        }];
        self.command(
            attempt,
            Work::Hooks {
                cache: CACHE.to_owned(),
                scripts,
                env: Vec::new(),
            },
        )
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, future)
            .await
            .expect("an answer in time")
    })
}

async fn eventually(mut look: impl FnMut() -> bool) {
    let start = Instant::now();
    while !look() {
        assert!(start.elapsed() < PATIENCE, "it did not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[track_caller]
fn assert_succeeded(ending: &Ending) {
    assert!(matches!(ending, Ending::Succeeded { .. }), "{ending:?}");
}

fn an_attempt_brings_its_log_and_its_ending() {
    let bench = Bench::new();
    bench.script("bin/start.sh", "echo hello");
    let fleet = bench.fleet();
    let log = Arc::new(Kept::default());

    let ending = wait(fleet.run(&Host::Local, bench.hook("a", "bin/start.sh"), log.clone()));

    let Ending::Succeeded {
        exit_code: Some(0),
        log: Some(path),
        note: None,
    } = ending
    else {
        panic!("{ending:?}")
    };
    assert!(log.text().contains("Z\nhello\n<== exit 0 in "));
    assert_eq!(fs::read_to_string(path).unwrap(), log.text());
}

fn failures_keep_their_cause() {
    let bench = Bench::new();
    bench.script("bin/start.sh", "echo no; exit 4");
    let fleet = bench.fleet();
    let mut refused = bench.hook("c", "bin/start.sh");
    refused.rootdir = "relative".to_owned();

    let endings = wait(async {
        let mut endings = Vec::new();
        for command in [
            bench.hook("a", "bin/start.sh"),
            bench.hook("b", "bin/gone.sh"),
            refused,
        ] {
            endings.push(
                fleet
                    .run(&Host::Local, command, Arc::new(Kept::default()))
                    .await,
            );
        }
        endings
    });

    let causes: Vec<_> = endings
        .iter()
        .map(|ending| match ending {
            Ending::Failed {
                cause, exit_code, ..
            } => (*cause, *exit_code),
            ending => panic!("{ending:?}"),
        })
        .collect();
    assert_eq!(
        causes,
        [
            (Cause::ScriptFailed, Some(4)),
            (Cause::ScriptMissing, None),
            (Cause::Invalid, None)
        ]
    );
}

fn a_log_goes_on_where_the_sink_is() {
    let bench = Bench::new();
    bench.script("bin/start.sh", "echo hello");
    let first = Arc::new(Kept::default());
    wait(
        bench
            .fleet()
            .run(&Host::Local, bench.hook("a", "bin/start.sh"), first.clone()),
    );
    let rest = Arc::new(Kept {
        from: 20,
        ..Kept::default()
    });

    let ending = wait(bench.fleet().run(
        &Host::Local,
        bench.hook("a", "bin/start.sh"),
        rest.clone(),
    ));

    assert_succeeded(&ending);
    assert_eq!(rest.text(), first.text()[20..]);
}

fn many_attempts_share_one_agent() {
    let bench = Bench::new();
    let fleet = bench.fleet();
    let instances: Vec<_> = (0..50).map(|_| Bench::new()).collect();

    wait(async {
        let mut runs = Vec::new();
        for (number, instance) in instances.iter().enumerate() {
            instance.script("bin/start.sh", "echo x >> ../../../count; echo out");
            let command = instance.hook(&format!("attempt-{number}"), "bin/start.sh");
            let log = Arc::new(Kept::default());
            runs.push(tokio::spawn(fleet.run(&Host::Local, command, log)));
        }
        for run in runs {
            assert_succeeded(&run.await.unwrap());
        }
    });

    assert!(instances.iter().all(|it| it.read("count") == "x\n"));
    assert_eq!(bench.agents().len(), 1);
}

fn an_agent_that_dies_is_replaced_and_nothing_is_lost() {
    let bench = Bench::new();
    let go = bench.path("go");
    let text = format!(
        "echo x >> ../../../count; echo before; until [ -e '{}' ]; do sleep 0.01; done; echo after",
        go.display()
    );
    bench.script("bin/wait.sh", &text);
    let fleet = bench.fleet();
    let log = Arc::new(Kept::default());

    let ending = wait(async {
        let run =
            tokio::spawn(fleet.run(&Host::Local, bench.hook("a", "bin/wait.sh"), log.clone()));
        eventually(|| log.text().contains("before")).await;
        kill(bench.agents()[0]);
        eventually(|| bench.agents().len() == 2).await;
        fs::write(&go, "").unwrap();
        run.await.unwrap()
    });

    assert_succeeded(&ending);
    assert_eq!(bench.read("count"), "x\n");
    assert_eq!(log.text(), bench.read(".cutover/attempts/a/log"));
}

fn what_an_agent_was_given_that_died_is_lost_when_its_host_has_been_down() {
    let bench = Bench::new();
    bench.script("count.sh", "echo x >> ../../../count");
    let turns = bench.path(".cutover/fences/shop/web.json");
    let dies = format!(
        "if [ -e '{0}/dies' ]; then rm '{0}/dies'; read line; exit 1; fi",
        bench.root.path().display()
    );
    let (fleet, mortal) = (bench.fleet(), bench.fleet_that(&dies));

    let (first, fresh, given) = wait(async {
        let run = |fleet: &LocalFleet, attempt| {
            let log = Arc::new(Kept::default());
            fleet.run(&Host::Local, bench.hook(attempt, "count.sh"), log)
        };
        let first = run(&fleet, "a").await;
        let before = fs::read_to_string(&turns).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        fs::write(&turns, before.replace(boot.trim(), "another boot")).unwrap();
        let fresh = run(&fleet, "b").await;
        fs::write(bench.path("dies"), "").unwrap();
        (first, fresh, run(&mortal, "c").await)
    });

    assert_succeeded(&first);
    assert_succeeded(&fresh);
    assert!(matches!(given, Ending::Lost { .. }), "{given:?}");
    assert_eq!(bench.read("count"), "x\nx\n");
}

#[track_caller]
fn assert_unreachable(agent: &[&str], expected: &str) {
    let bench = Bench::new();
    let fleet = LocalFleet::new(agent.iter().map(Into::into).collect());

    let ending = wait(fleet.run(
        &Host::Local,
        bench.hook("a", "x"),
        Arc::new(Kept::default()),
    ));
    let cached = wait(async {
        let fleet = LocalFleet::new(agent.iter().map(Into::into).collect());
        fleet.cached(&Host::Local, "/".to_owned(), Vec::new()).await
    });

    let Ending::Unreachable { reason } = ending else {
        panic!("{ending:?}")
    };
    assert!(
        reason.contains(expected),
        "`{reason}` does not say `{expected}`"
    );
    assert!(cached.is_err());
}

fn an_agent_that_keeps_dying_is_unreachable() {
    assert_unreachable(
        &[
            "/bin/sh",
            "-c",
            "echo first >&2; echo out of luck >&2; exit 7",
        ],
        "(exit status: 7): out of luck",
    );
    assert_unreachable(&["/no/such/agent"], "start the agent `/no/such/agent`");
    assert_unreachable(&[], "no agent command");
}

fn an_agent_that_hangs_is_unreachable_and_one_that_works_is_not() {
    let bench = Bench::new();
    bench.script("bin/slow.sh", "sleep 4");
    let own = std::env::current_exe().unwrap();
    let agents: [Vec<OsString>; 2] = [
        vec!["/bin/sleep".into(), "1000".into()],
        vec![own.into(), "agent".into()],
    ];
    let endings = wait(async {
        let mut endings = Vec::new();
        for (number, agent) in agents.into_iter().enumerate() {
            let fleet = LocalFleet::with_max_silence(agent, Duration::from_millis(1500));
            let command = bench.hook(&format!("a{number}"), "bin/slow.sh");
            let ending = fleet.run(&Host::Local, command, Arc::new(Kept::default()));
            endings.push(ending.await);
        }
        endings
    });

    assert!(
        matches!(&endings[0], Ending::Unreachable { reason } if reason.contains("has not answered for 3s")),
        "{endings:?}"
    );
    assert!(
        matches!(&endings[1], Ending::Succeeded { .. }),
        "{endings:?}"
    );
}

fn an_agent_that_speaks_something_else_is_unreachable() {
    assert_unreachable(
        &["/bin/sh", "-c", "echo hello; cat > /dev/null"],
        "the agent is not understood",
    );
    assert_unreachable(
        &["/bin/sh", "-c", "echo '{\"v\":2}'; cat > /dev/null"],
        "version 2",
    );
}

fn what_comes_in_an_earlier_turn_fails_and_says_who_came_between() {
    let bench = Bench::new();
    bench.script("count.sh", "echo x >> ../../../count");
    let fleet = bench.fleet();
    let run = |command| fleet.run(&Host::Local, command, Arc::new(Kept::default()));
    let mut late = bench.hook("b", "count.sh");
    late.fence.number -= 1;

    let (first, ending) = wait(async {
        let first = run(bench.hook("a", "count.sh")).await;
        (first, run(late).await)
    });

    assert_succeeded(&first);
    let Ending::Failed {
        cause: Cause::Invalid,
        reason,
        ..
    } = ending
    else {
        panic!("{ending:?}")
    };
    assert!(reason.contains("has been succeeded"), "{reason}");
    assert_eq!(bench.read("count"), "x\n");
}

fn an_agent_that_is_too_old_for_a_command_is_named() {
    let bench = Bench::new();
    // What the first version says to a field that it does not know.
    let refusal = r#"{"v":1,"type":"refused","attempt":"a","reason":"the line is not a message of the agent's protocol: unknown field `fence`, expected `next`"}"#;
    let script = format!("read request; cat <<'END'\n{refusal}\nEND\ncat > /dev/null");
    let fleet = LocalFleet::new(vec!["/bin/sh".into(), "-c".into(), script.into()]);

    let ending = wait(fleet.run(
        &Host::Local,
        bench.hook("a", "count.sh"),
        Arc::new(Kept::default()),
    ));

    let Ending::Failed { reason, .. } = ending else {
        panic!("{ending:?}")
    };
    assert!(
        reason.ends_with("; the agent is too old for this conductor"),
        "{reason}"
    );
}

fn what_was_given_with_another_attempt_is_joined() {
    let bench = Bench::new();
    bench.script("hook.sh", "echo ran >> ../../../ran");
    let fleet = bench.fleet();
    let hook = bench.hook("b", "hook.sh");
    let then = Then {
        attempt: hook.attempt.clone(),
        work: hook.work.clone(),
    };
    let both = Command {
        then: Some(then),
        ..bench.hook("a", "hook.sh")
    };

    let (before, after) = wait(async {
        let join = || fleet.join(&Host::Local, hook.clone(), Arc::new(Kept::default()));
        let before = join().await;
        let ending = fleet.run(&Host::Local, both, Arc::new(Kept::default()));
        assert!(matches!(ending.await, Ending::Succeeded { .. }));
        (before, join().await)
    });

    assert_eq!(before, None);
    assert!(matches!(after, Some(Ending::Succeeded { .. })), "{after:?}");
    assert_eq!(bench.read("ran"), "ran\nran\n");
}

fn a_package_is_cached_after_it_was_fetched() {
    let bench = Bench::new();
    fs::create_dir(bench.path("source")).unwrap();
    fs::write(bench.path("source/appspec.yml"), "version: 0.0\n").unwrap();
    let source = bench.path("source");
    let digest = Digest::parse(&agent::tree::digest(&source).unwrap()).unwrap();
    let work = Work::Fetch {
        cache: CACHE.to_owned(),
        source,
        digest,
        keep: Vec::new(),
        keep_others: 5,
        installation: None,
    };
    let fleet = bench.fleet();
    let rootdir = bench.root.path().to_str().unwrap().to_owned();
    let ask = || fleet.cached(&Host::Local, rootdir.clone(), vec![CACHE.to_owned()]);

    let (before, ending, after) = wait(async {
        let before = ask().await;
        let ending = fleet
            .run(
                &Host::Local,
                bench.command("a", work),
                Arc::new(Kept::default()),
            )
            .await;
        (before, ending, ask().await)
    });

    assert_eq!(before, Ok(Vec::new()));
    assert_succeeded(&ending);
    assert_eq!(after, Ok(vec![CACHE.to_owned()]));
    assert!(
        Path::new(&rootdir)
            .join(CACHE)
            .join("appspec.yml")
            .is_file()
    );
}

fn a_dropped_fleet_ends_the_agent_and_not_the_work() {
    let bench = Bench::new();
    let go = bench.path("go");
    bench.script(
        "bin/wait.sh",
        &format!(
            "echo up; until [ -e '{}' ]; do sleep 0.01; done",
            go.display()
        ),
    );
    let log = Arc::new(Kept::default());

    wait(async {
        let fleet = bench.fleet();
        let run =
            tokio::spawn(fleet.run(&Host::Local, bench.hook("a", "bin/wait.sh"), log.clone()));
        eventually(|| log.text().contains("up")).await;
        drop(fleet);
        assert!(matches!(run.await.unwrap(), Ending::Unreachable { .. }));
        let agent = bench.agents()[0];
        eventually(|| !is_alive(agent)).await;
    });
    fs::write(go, "").unwrap();
    let ending = wait(bench.fleet().run(
        &Host::Local,
        bench.hook("a", "bin/wait.sh"),
        Arc::new(Kept::default()),
    ));

    assert_succeeded(&ending);
}

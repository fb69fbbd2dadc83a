//! Scripts, their limits and what they leave behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use agent::protocol::{Cause, Hooks, Outcome, Script, Work};

use crate::instance::{
    Agent, CACHE, Instance, assert_failed, assert_succeeded, command, eventually, hooks, is_alive,
    kill, location,
};

#[test]
fn scripts_run_in_order_until_one_fails() {
    let instance = Instance::new();
    instance.script("one.sh", "echo one; echo noise >&2");
    instance.script("two.sh", "echo why it failed; echo; exit 3");
    let work = hooks(vec![
        location("one.sh"),
        location("two.sh"),
        command("touch never"),
    ]);

    let (log, outcome) = instance.outcome("a", work);

    assert_failed(
        &outcome,
        Cause::ScriptFailed,
        "`two.sh` exited with 3: why it failed",
    );
    assert!(
        matches!(
            &outcome,
            Outcome::Failed {
                script: Some(script),
                exit_code: Some(3),
                log: Some(_),
                ..
            } if script == "two.sh"
        ),
        "{outcome:?}"
    );
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with("==> one.sh at 20"), "{log}");
    assert_eq!(lines[1..3], ["one", "noise"]);
    assert!(
        lines[3].starts_with("<== exit 0 in ") && lines[7].starts_with("<== exit 3 in "),
        "{log}"
    );
    assert!(!instance.path(&format!("{CACHE}/never")).exists());
}

#[test]
fn a_script_has_a_clean_environment_and_the_package_as_its_place() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path(CACHE)).unwrap();
    let env = [("B", "1"), ("A", "two words"), ("B", "2")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let script = "pwd; echo $A$B; env | cut -d= -f1 | grep -v _ | sort | tr '\\n' ' '; cat; ps -o pgid= $$ | tr -d ' '; echo $$";
    let work = Work::Hooks(Hooks {
        cache: CACHE.to_owned(),
        scripts: vec![command(script)],
        env: env.to_vec(),
    });

    let (log, outcome) = instance.outcome("a", work);

    assert_succeeded(&outcome);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[1], instance.path(CACHE).to_str().unwrap());
    assert_eq!(lines[2], "two words2");
    let allowed = ["A", "B", "HOME", "LANG", "LOGNAME", "PATH", "PWD", "USER"];
    let (names, group) = lines[3].rsplit_once(' ').unwrap();
    assert!(
        names.split(' ').all(|name| allowed.contains(&name)) && names.contains("PATH"),
        "{names}"
    );
    assert_eq!(group, lines[4], "it leads a process group of its own");
}

#[test]
fn files_are_made_executable_and_read_by_a_shell_if_they_do_not_say_by_whom() {
    let instance = Instance::new();
    instance.write(
        &format!("{CACHE}/bin/plain file"),
        "echo plain $0 | grep -c 'plain file'\n",
    );

    let (log, outcome) = instance.outcome(
        "a",
        hooks(vec![location("bin/plain file"), command("bin/plain file")]),
    );

    assert_succeeded(&outcome);
    assert_eq!(log.lines().filter(|line| *line == "1").count(), 2, "{log}");
}

#[test]
fn what_cannot_be_executed_says_why() {
    let instance = Instance::new();
    instance.write(&format!("{CACHE}/dos.sh"), "#!/bin/sh\r\necho\r\n");
    instance.write(&format!("{CACHE}/odd.sh"), "#!/opt/no/such/thing -x\n");
    fs::create_dir(instance.path(&format!("{CACHE}/folder"))).unwrap();
    let cases = [
        ("dos.sh", Cause::NotExecutable, "carriage return"),
        (
            "odd.sh",
            Cause::NotExecutable,
            "its interpreter `/opt/no/such/thing` is not on this instance",
        ),
        (
            "gone.sh",
            Cause::ScriptMissing,
            "`gone.sh` is not in the package",
        ),
        ("folder", Cause::ScriptMissing, "is not a file"),
        ("../../../x", Cause::Invalid, "leads out of the package"),
    ];
    for (number, (name, cause, text)) in cases.into_iter().enumerate() {
        let (_, outcome) = instance.outcome(&format!("a{number}"), hooks(vec![location(name)]));
        assert_failed(&outcome, cause, text);
    }

    let missing = Hooks {
        cache: "app-shop/group-web/deploy-none".to_owned(),
        scripts: Vec::new(),
        env: Vec::new(),
    };
    let (_, outcome) = instance.outcome("b", Work::Hooks(missing));
    assert_failed(
        &outcome,
        Cause::Invalid,
        "deploy-none` is not on this instance",
    );
}

#[test]
fn a_signal_is_named() {
    let instance = Instance::new();
    let work = instance.script("die.sh", "echo dying; kill -SEGV $$");

    let (log, outcome) = instance.outcome("a", work);

    assert_failed(
        &outcome,
        Cause::ScriptFailed,
        "`die.sh` was killed by SIGSEGV: dying",
    );
    assert!(log.contains("<== killed by SIGSEGV in "), "{log}");
}

/// A script that leaves stubborn processes in every way there is, and never ends.
const STUBBORN: &str = r#"
stubborn='trap "" TERM; echo $$ >> pids; while :; do sleep 0.05; done'
sh -c "$stubborn" &
setsid sh -c "$stubborn" &
(setsid sh -c "$stubborn" > /dev/null 2>&1 &)
(nohup sh -c "(sh -c '$(echo "$stubborn" | sed "s/\"\"/\\\\\"\\\\\"/")' &)" > /dev/null 2>&1 &)
trap "" TERM
echo $$ >> pids
echo last words
while :; do sleep 0.05; done
"#;

#[track_caller]
fn times_out(agent: &mut Agent, runas: Option<&str>) {
    let instance = Instance::new();
    let Work::Hooks(mut work) = instance.script("stubborn.sh", STUBBORN) else {
        unreachable!()
    };
    work.scripts[0].timeout_ms = 2_500;
    work.scripts[0].runas = runas.map(str::to_owned);
    fs::set_permissions(instance.path(CACHE), Permissions::from_mode(0o777)).unwrap();
    let start = Instant::now();

    let (log, outcome) = agent.outcome(instance.run("a", Work::Hooks(work)));

    assert_failed(
        &outcome,
        Cause::TimedOut,
        "`stubborn.sh` was ended because it took longer than 2500ms: last words",
    );
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(7_400) && took < Duration::from_secs(20),
        "{took:?}"
    );
    assert!(log.contains("<== timed out in "), "{log}");
    let pids: Vec<i32> = instance
        .read(&format!("{CACHE}/pids"))
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert!(pids.len() >= 4, "{pids:?}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "{pids:?}");
}

#[test]
fn a_time_out_ends_everything_that_the_script_started() {
    times_out(&mut Agent::start(), None);
}

#[test]
fn a_time_out_ends_everything_under_another_account_too() {
    times_out(&mut Agent::start(), Some("nobody"));
}

#[test]
fn a_time_out_ends_everything_without_control_groups_too() {
    let setup = "mount -t tmpfs none /sys/fs/cgroup";
    times_out(&mut Agent::start_in_own_mounts(setup), None);
}

#[test]
fn a_process_that_is_never_the_same_for_long_is_ended_too() {
    let instance = Instance::new();
    let Work::Hooks(mut work) =
        instance.script("relay.sh", "trap '' TERM; sleep 0.005; setsid ./relay.sh &")
    else {
        unreachable!()
    };
    let hold = command("./relay.sh; sleep 1000");
    work.scripts = vec![Script {
        timeout_ms: 300,
        ..hold
    }];

    let (_, outcome) = instance.outcome("a", Work::Hooks(work));

    assert_failed(
        &outcome,
        Cause::TimedOut,
        "`./relay.sh; sleep 1000` was ended",
    );
    let folder = instance.path(CACHE);
    let runners: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|place| place == folder))
        .collect();
    assert!(runners.is_empty(), "{runners:?}");
}

#[test]
fn a_script_that_obeys_is_ended_at_once() {
    let instance = Instance::new();
    let Work::Hooks(mut work) = instance.script("sleep.sh", "sleep 1000") else {
        unreachable!()
    };
    work.scripts[0].timeout_ms = 100;
    let start = Instant::now();

    let (_, outcome) = instance.outcome("a", Work::Hooks(work));

    assert_failed(&outcome, Cause::TimedOut, "longer than 100ms");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn what_an_earlier_script_started_outlives_the_time_out_of_a_later_one() {
    let instance = Instance::new();
    instance.script(
        "start.sh",
        "setsid sleep 1000 > /dev/null 2>&1 & echo $! > ../../../pid",
    );
    instance.script("slow.sh", "sleep 1000");
    let mut slow = location("slow.sh");
    slow.timeout_ms = 100;

    let (_, outcome) = instance.outcome("a", hooks(vec![location("start.sh"), slow]));

    assert_failed(&outcome, Cause::TimedOut, "slow.sh");
    let pid = instance.read("pid").trim().parse().unwrap();
    assert!(is_alive(pid));
    kill(pid);
}

#[test]
fn who_holds_the_output_is_named() {
    let instance = Instance::new();
    let work = instance.script(
        "start.sh",
        "sleep 1007 & echo $! > ../../../pid; echo started",
    );
    let start = Instant::now();

    let (_, outcome) = instance.outcome("a", work);

    let pid: i32 = instance.read("pid").trim().parse().unwrap();
    let holder = format!("process {pid} (`sleep 1007`) still holds its output");
    assert_failed(&outcome, Cause::OutputsLeftOpen, &holder);
    assert!(
        matches!(&outcome, Outcome::Failed { script: Some(script), exit_code: Some(0), .. } if script == "start.sh"),
        "{outcome:?}"
    );
    assert!(is_alive(pid), "what holds it is left alone");
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    kill(pid);
}

#[test]
fn output_that_is_closed_within_the_grace_is_no_failure() {
    let instance = Instance::new();
    let work = instance.script("start.sh", "(sleep 0.2; echo late) & echo early");

    let (log, outcome) = instance.outcome("a", work);

    assert_succeeded(&outcome);
    assert!(log.contains("early\nlate\n"), "{log}");
}

#[test]
fn a_service_that_redirected_its_output_survives() {
    let instance = Instance::new();
    let work = instance.script(
        "start.sh",
        "setsid sleep 1000 > /dev/null 2>&1 & echo $! > ../../../pid",
    );
    let start = Instant::now();

    let (_, outcome) = instance.outcome("a", work);

    assert_succeeded(&outcome);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    let worker = instance.worker("a");
    eventually(|| (!is_alive(worker)).then_some(()));
    let pid = instance.read("pid").trim().parse().unwrap();
    assert!(is_alive(pid));
    kill(pid);
}

#[test]
fn output_is_bounded_and_never_blocks_the_script() {
    let instance = Instance::new();
    let work = instance.script(
        "flood.sh",
        "yes 0123456789012345 | head -c 20000000; echo; echo the end; exit 1",
    );

    let (log, outcome) = instance.outcome("a", work);

    assert_failed(
        &outcome,
        Cause::ScriptFailed,
        "exited with 1: 0123456789012345 | 0123456789 | the end",
    );
    assert!(log.len() < (4 << 20) + 500, "{}", log.len());
    assert!(log.contains(" bytes are left out here]\n"));
    assert!(log.contains("\nthe end\n<== exit 1 in "));
}

#[test]
fn a_script_runs_as_who_it_says() {
    let instance = Instance::new();
    instance.script("who.sh", "id -un; id -G; echo $HOME $USER $LOGNAME; pwd");
    let mut script = location("who.sh");
    script.runas = Some("daemon".to_owned());

    let (log, outcome) = instance.outcome("a", hooks(vec![script]));

    assert_succeeded(&outcome);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[1..4], ["daemon", "1", "/usr/sbin daemon daemon"]);
    assert_eq!(lines[4], instance.path(CACHE).to_str().unwrap());
}

#[test]
fn an_unknown_account_is_found_before_anything_runs() {
    let instance = Instance::new();
    instance.script("one.sh", "touch ../../../ran");
    let mut second = location("one.sh");
    second.runas = Some("nobody-of-that-name".to_owned());

    let (_, outcome) = instance.outcome("a", hooks(vec![location("one.sh"), second]));

    assert_failed(
        &outcome,
        Cause::Invalid,
        "run `one.sh` as `nobody-of-that-name`: there is no user",
    );
    assert!(!instance.path("ran").exists());
}

#[test]
fn an_environment_that_cannot_be_is_refused() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path(CACHE)).unwrap();
    for key in ["", "A=B", "A\0"] {
        let env = vec![(key.to_owned(), "x".to_owned())];
        let work = Hooks {
            cache: CACHE.to_owned(),
            scripts: vec![command("true")],
            env,
        };
        let (_, outcome) = instance.outcome(&format!("a{}", key.len()), Work::Hooks(work));
        assert_failed(&outcome, Cause::Invalid, "cannot be set");
    }
}

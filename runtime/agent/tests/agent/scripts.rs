//! What a script is, who it runs as and what it inherits.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use agent::protocol::{Cause, Outcome, Work};

use crate::instance::{
    Agent, CACHE, Instance, assert_failed, assert_succeeded, command, hooks, location,
};

#[track_caller]
fn assert_script(outcome: &Outcome, expected: &str) {
    match outcome {
        Outcome::Failed { script, .. } => assert_eq!(script.as_deref(), Some(expected)),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn what_the_kernel_refuses_is_explained() {
    let instance = Instance::new();
    let file = |name: &str, bytes: &[u8]| {
        let path = instance.write(&format!("{CACHE}/{name}"), "#!");
        fs::write(path, bytes).unwrap();
    };
    file(
        "other",
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\xff",
    );
    file("marked.sh", b"\xef\xbb\xbf#!/bin/sh\n");
    file("folder.sh", b"#!/tmp\n");
    file("endless.sh", b"#!/opt/no/such/shell");
    file("env.sh", b"#!/usr/bin/env no-such-program\n");
    let cases = [
        (
            "other",
            Cause::NotExecutable,
            "no program that this machine can run",
        ),
        ("marked.sh", Cause::NotExecutable, "byte order mark"),
        (
            "folder.sh",
            Cause::NotExecutable,
            "or its interpreter `/tmp`",
        ),
        (
            "endless.sh",
            Cause::NotExecutable,
            "its interpreter `/opt/no/such/shell` is not on",
        ),
        ("env.sh", Cause::ScriptFailed, "`env.sh` exited with 127: "),
    ];
    for (number, (name, cause, text)) in cases.into_iter().enumerate() {
        let (_, outcome) = instance.outcome(&format!("a{number}"), hooks(vec![location(name)]));
        assert_failed(&outcome, cause, text);
        assert_script(&outcome, name);
    }
}

#[test]
fn a_link_out_of_the_package_is_refused() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path(CACHE)).unwrap();
    std::os::unix::fs::symlink("/bin/true", instance.path(&format!("{CACHE}/out"))).unwrap();

    let (_, outcome) = instance.outcome("a", hooks(vec![location("out")]));

    assert_failed(&outcome, Cause::Invalid, "`out` leads out of the package");
    assert_script(&outcome, "out");
}

#[test]
fn a_script_may_make_the_next_and_take_it_away() {
    let instance = Instance::new();
    instance.script("make.sh", "printf '#!/bin/sh\\necho made\\n' > next.sh");
    instance.script("take.sh", "rm next.sh");
    let scripts = ["make.sh", "next.sh", "take.sh", "next.sh"].map(location);

    let (log, outcome) = instance.outcome("a", hooks(scripts.to_vec()));

    assert!(log.contains("\nmade\n"), "{log}");
    assert_failed(
        &outcome,
        Cause::ScriptMissing,
        "`next.sh` is not in the package",
    );
    assert_script(&outcome, "next.sh");
}

#[test]
fn a_package_that_vanishes_between_scripts_is_named() {
    let instance = Instance::new();
    let scripts = vec![command("rm -rf \"$PWD\""), command("echo never")];
    fs::create_dir_all(instance.path(CACHE)).unwrap();

    let (log, outcome) = instance.outcome("a", hooks(scripts));

    let place = instance.path(CACHE);
    let reason = format!(
        "`echo never` has no place to run in: enter `{}`",
        place.display()
    );
    assert_failed(&outcome, Cause::Invalid, &reason);
    assert!(!log.contains("\nnever\n"), "{log}");
}

#[test]
fn a_script_inherits_nothing_but_limits() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path(CACHE)).unwrap();
    let text = "umask; ulimit -n; grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2; cat; ls /proc/self/fd | wc -l";
    let setup = "umask 077 && ulimit -n 777 && exec 9< /dev/null && export EVIL=1 && trap '' HUP INT TERM QUIT USR1";
    let mut agent = Agent::start_through(setup, "env --block-signal=HUP,USR2,TERM");

    let (log, outcome) = agent.outcome(instance.run(
        "a",
        hooks(vec![command(text), command("env | grep -c EVIL || true")]),
    ));

    assert_succeeded(&outcome);
    let lines: Vec<&str> = log.lines().collect();
    let none = "0000000000000000";
    // `ls` has its folder open beside the standard three.
    assert_eq!(lines[1..6], ["0022", "777", none, none, "4"], "{log}");
    assert_eq!(lines[8], "0", "{log}");
}

#[test]
fn scripts_leave_nothing_in_their_worker() {
    let instance = Instance::new();
    // One that the kernel refuses and the shell takes, so that each is started twice.
    instance.write(&format!("{CACHE}/plain"), "true\n");
    // The folders of their control groups are the worker's as long as it may have to end what is in them.
    let count =
        command("wc -l < /proc/$PPID/maps; ls -l /proc/$PPID/fd | grep -v /cutover- | wc -l");
    let mut scripts = vec![location("plain"); 102];
    scripts[1] = count.clone();
    scripts.push(count);

    let (log, outcome) = instance.outcome("a", hooks(scripts));

    assert_succeeded(&outcome);
    let numbers: Vec<usize> = log.lines().filter_map(|line| line.parse().ok()).collect();
    let [maps, files, more_maps, more_files] = numbers[..] else {
        panic!("{log}");
    };
    assert!(more_maps < maps + 20, "{maps} and then {more_maps}");
    assert_eq!(files, more_files);
}

#[test]
fn no_script_is_in_a_session_that_the_agent_did_not_begin() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path(CACHE)).unwrap();
    let work = hooks(vec![command("ps -o sid=,tty= $$")]);
    let session = |log: &str| -> (u32, String) {
        let mut words = log.lines().nth(1).unwrap().split_whitespace();
        (
            words.next().unwrap().parse().unwrap(),
            words.next().unwrap().to_owned(),
        )
    };
    let mut free = Agent::start();
    let mut leader = Agent::start_as_leader();

    let (shared, tty) = session(&free.outcome(instance.run("a", work.clone())).0);
    assert_eq!((shared, tty.as_str()), (free.pid(), "?"));
    let (own, tty) = session(&leader.outcome(instance.run("b", work)).0);
    assert!(own != leader.pid() && own == instance.worker("b") as u32);
    assert_eq!(tty, "?");
}

#[test]
fn an_agent_without_a_home_gives_scripts_that_of_its_account() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path(CACHE)).unwrap();
    let mut agent = Agent::start_after("unset HOME USER LOGNAME PATH LANG");
    let text = "set -u; echo $(eval echo ~$(id -un)):$HOME:$(id -un):$USER:$LOGNAME";

    let (log, outcome) = agent.outcome(instance.run("a", hooks(vec![command(text)])));

    assert_succeeded(&outcome);
    let words: Vec<&str> = log.lines().nth(1).unwrap().split(':').collect();
    assert!(words[0] == words[1] && words[0].starts_with('/'), "{log}");
    assert!(words[2] == words[3] && words[3] == words[4], "{log}");
}

fn as_nobody(instance: &Instance, scripts: &[&str]) -> Work {
    instance.script("first.sh", "touch ../../../ran");
    let mut all = vec![location("first.sh")];
    for name in scripts {
        let mut script = location(name);
        script.runas = Some("nobody".to_owned());
        all.push(script);
    }
    hooks(all)
}

#[test]
fn a_folder_that_an_account_may_not_enter_is_named_before_anything_runs() {
    let instance = Instance::new();
    instance.script("mine.sh", "true");
    let closed = instance.path("app-shop");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();

    let (_, outcome) = instance.outcome("a", as_nobody(&instance, &["mine.sh"]));

    let reason = format!(
        "run `mine.sh` as `nobody`: the account may not enter the folder `{}`",
        closed.display()
    );
    assert_failed(&outcome, Cause::Invalid, &reason);
    assert_script(&outcome, "mine.sh");
    assert!(!instance.path("ran").exists());
}

#[test]
fn a_script_that_an_account_may_not_execute_is_named_before_anything_runs() {
    let instance = Instance::new();
    instance.script("mine.sh", "true");
    let file = instance.path(&format!("{CACHE}/mine.sh"));
    fs::set_permissions(&file, Permissions::from_mode(0o700)).unwrap();

    let (_, outcome) = instance.outcome("a", as_nobody(&instance, &["mine.sh"]));

    assert_failed(
        &outcome,
        Cause::Invalid,
        "the account may not read and execute",
    );
    assert!(!instance.path("ran").exists());
}

#[test]
fn a_clock_that_jumps_changes_no_time_out_and_no_duration() {
    let instance = Instance::new();
    let source = instance.write(
        "jump.c",
        r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int days;
    int result = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME) {
        days = days > 0 ? -40 : 40;
        time->tv_sec += days * 24L * 3600;
    }
    return result;
}
"#,
    );
    let library = instance.path("jump.so");
    // The compiler is what links this test.
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(compiled.unwrap().success());
    instance.script("wait.sh", "sleep 0.3; echo done");
    let mut slow = command("sleep 1000");
    slow.timeout_ms = 400;
    let mut agent = Agent::start_after(&format!("export LD_PRELOAD='{}'", library.display()));

    let work = hooks(vec![location("wait.sh"), slow]);
    let (log, outcome) = agent.outcome(instance.run("a", work));

    let days: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once(" at ")?.1.get(..10))
        .collect();
    assert!(
        days.len() == 4 && days[0] != days[1],
        "the clock does jump: {log}"
    );
    assert!(log.contains("\ndone\n<== exit 0 in 0."), "{log}");
    assert!(log.contains("\n<== timed out in 0."), "{log}");
    assert_failed(&outcome, Cause::TimedOut, "longer than 400ms");
}

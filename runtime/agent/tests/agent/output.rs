//! Logs: what is in them, and how much at most.

use std::fs;

use agent::protocol::{Answer, Cause, Outcome, Request};

use crate::instance::{
    Agent, CACHE, Instance, assert_failed, assert_succeeded, command, eventually, fifo, hooks,
    location, release,
};

/// Whether a text is a time of day in UTC.
fn is_time(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[test]
fn every_script_has_its_start_its_end_its_exit_code_and_its_duration() {
    let instance = Instance::new();
    instance.script("one.sh", "echo one");
    let mut second = command("echo two; exit 7");
    second.runas = Some("root".to_owned());

    let (log, _) = instance.outcome("a", hooks(vec![location("one.sh"), second]));

    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 6, "{log}");
    for (index, beginning) in [
        (0, "==> one.sh at "),
        (3, "==> echo two; exit 7 as root at "),
    ] {
        let time = lines[index].strip_prefix(beginning);
        assert!(time.is_some_and(is_time), "{log}");
    }
    for (index, beginning) in [(2, "<== exit 0 in "), (5, "<== exit 7 in ")] {
        let rest = lines[index].strip_prefix(beginning).unwrap();
        let (seconds, time) = rest.split_once("s at ").unwrap();
        assert!(seconds.parse::<f64>().is_ok() && is_time(time), "{log}");
    }
}

#[test]
fn a_flood_takes_no_more_of_the_disk_than_its_bound_even_while_it_lasts() {
    let instance = Instance::new();
    let gate = instance.path("gate");
    fifo(&gate);
    let text = format!(
        "echo the beginning; yes 'a line of a flood' | head -c 39999996; touch ../../../flooded; read go < '{}'; \
         echo the end",
        gate.display()
    );
    let mut agent = Agent::start();
    agent.send(Request::Run(
        instance.run("a", instance.script("flood.sh", &text)),
    ));
    eventually(|| instance.path("flooded").exists().then_some(()));

    let size = fs::metadata(instance.path(".cutover/attempts/a/log"))
        .unwrap()
        .len();
    assert!(size < (3 << 20) + 500, "{size}");
    release(&gate);
    let (log, outcome) = agent.follow("a", 0);

    assert_succeeded(&outcome);
    assert!(log.len() < (4 << 20) + 500, "{}", log.len());
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[1..3], ["the beginning", "a line of a flood"]);
    assert_eq!(lines[lines.len() - 2], "the end");
    assert!(log.contains("\n[there is more output than is kept: its end follows"));
    assert!(log.contains(" bytes are left out here]\na line of a flood\n"));
}

#[test]
fn a_log_is_plain_text_whatever_a_script_writes() {
    let instance = Instance::new();
    let work = instance.script(
        "odd.sh",
        r"printf '\033[31mred\033[0m \377 \346\211\247 \a\033]0;title\007\n10%%\r20%%\r\n'; exit 1",
    );

    let (log, outcome) = instance.outcome("a", work);

    assert_failed(
        &outcome,
        Cause::ScriptFailed,
        "exited with 1: red \u{fffd} 执 | 10% | 20%",
    );
    assert!(
        log.contains("Z\nred \u{fffd} 执 \n10%\n20%\n<== exit 1"),
        "{log}"
    );
}

/// An agent whose instance is on a disk of 256 kB, with the files of the package.
fn on_a_small_disk(instance: &Instance, options: &str) -> Agent {
    let root = instance.rootdir();
    let setup = format!(
        "cp -a '{root}' '{root}.copy' && mount -t tmpfs -o mode=755,{options} none '{root}' && cp -a '{root}.copy/.' \
         '{root}' && rm -r '{root}.copy'"
    );
    Agent::start_in_own_mounts(&setup)
}

#[test]
fn a_full_disk_costs_the_log_and_not_the_outcome() {
    let instance = Instance::new();
    let work = instance.script(
        "fill.sh",
        "echo before; until grep -q before ../../../.cutover/attempts/*/log; do sleep 0.01; done; \
         cat /dev/zero > fill 2> /dev/null; yes 'more than fits' | head -c 100000; exit 3",
    );
    let mut agent = on_a_small_disk(&instance, "size=256k");

    let (log, outcome) = agent.outcome(instance.run("a", work.clone()));

    assert_failed(
        &outcome,
        Cause::ScriptFailed,
        "`fill.sh` exited with 3: more than fits",
    );
    assert!(log.contains("\nbefore\n") && log.len() < 10_000, "{log}");
    agent.send(Request::Run(instance.run("b", work)));
    match agent.answer() {
        Answer::Refused { reason, .. } => {
            assert!(reason.contains("No space left on device"), "{reason}");
        }
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn a_log_says_what_a_full_disk_did_not_take() {
    let instance = Instance::new();
    let work = instance.script(
        "fill.sh",
        "cat /dev/zero > fill 2> /dev/null; yes 0123456 | head -c 200000; rm fill; echo after",
    );
    let mut agent = on_a_small_disk(&instance, "size=256k");

    let (log, outcome) = agent.outcome(instance.run("a", work));

    assert_succeeded(&outcome);
    assert!(
        log.contains(" bytes could not be written here: No space left on device"),
        "{log}"
    );
    assert!(log.contains("\nafter\n<== exit 0 in "), "{log}");
}

#[test]
fn a_file_system_that_executes_nothing_is_named() {
    let instance = Instance::new();
    let work = instance.script("start.sh", "true");
    let mut agent = on_a_small_disk(&instance, "size=256k,noexec");

    let (_, outcome) = agent.outcome(instance.run("a", work));

    assert_failed(&outcome, Cause::NotExecutable, "is mounted with `noexec`");
    assert!(
        matches!(&outcome, Outcome::Failed { script: Some(script), .. } if script == "start.sh")
    );
    let shell = hooks(vec![command(&format!(
        "cd {CACHE} 2> /dev/null; echo shell"
    ))]);
    assert_succeeded(&agent.outcome(instance.run("b", shell)).1);
}

#[test]
fn a_hook_without_scripts_says_so() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path(CACHE)).unwrap();

    let (log, outcome) = instance.outcome("a", hooks(Vec::new()));

    assert_eq!(log, "");
    assert!(
        matches!(&outcome, Outcome::Succeeded { exit_code: None, note: Some(note), .. } if note.contains("no scripts")),
        "{outcome:?}"
    );
}

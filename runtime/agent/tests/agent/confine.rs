//! Jobs whose writes stay in their folder and whose processes end with them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::confine::{Confinement, Ending, Job, Step, Told, Verdict, clear};

const LONG: Duration = Duration::from_secs(60);

fn shell(folder: &Path, script: &str) -> Step {
    Step {
        title: "build".to_owned(),
        words: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        folder: folder.to_owned(),
        timeout_ms: 60_000,
        memory: None,
    }
}

fn start(folder: &Path, steps: Vec<Step>) -> Child {
    let job = Job {
        name: "test".to_owned(),
        folder: folder.to_owned(),
        steps,
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_cutover-agent"))
        .arg("confine")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = serde_json::to_string(&job).unwrap();
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    child
}

/// How a job ended.
struct Ended {
    confinement: Confinement,
    verdict: Verdict,
    log: String,
}

fn end(mut child: Child) -> Ended {
    let lifeline = child.stdin.take();
    let (mut log, mut told) = (String::new(), String::new());
    let mut stdout = child.stdout.take().unwrap();
    let reading = std::thread::spawn(move || {
        stdout.read_to_string(&mut log).unwrap();
        log
    });
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    let log = reading.join().unwrap();
    child.wait().unwrap();
    drop(lifeline);
    let told: Vec<Told> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [Told::Confined(confinement), Told::Ended(verdict)] = told.as_slice() else {
        panic!("{told:?}");
    };
    Ended {
        confinement: *confinement,
        verdict: verdict.clone(),
        log,
    }
}

fn run(folder: &Path, steps: Vec<Step>) -> Ended {
    end(start(folder, steps))
}

/// Whether a process has ended; one that nobody waits for stays as a zombie.
fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LONG, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

#[test]
fn steps_run_in_order_until_one_fails() {
    let folder = tempfile::tempdir().unwrap();
    let steps = [
        "echo one > log",
        "echo two >> log; exit 3",
        "echo three >> log",
    ];
    let steps = steps.map(|script| shell(folder.path(), script)).to_vec();

    let ended = run(folder.path(), steps);

    let expected = Verdict::Failed {
        step: 1,
        ending: Ending::Exited { code: 3 },
    };
    assert_eq!(ended.verdict, expected);
    assert_eq!(
        fs::read_to_string(folder.path().join("log")).unwrap(),
        "one\ntwo\n"
    );
    assert!(ended.log.contains("<== exit 3 in "), "{}", ended.log);
}

#[test]
fn nothing_outside_the_folder_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    let out = outside.path().display();
    let script = format!(
        "echo x > inside && mkdir a && mv inside a/ && echo x > /dev/null || exit 9
         echo x > {out}/new
         echo x > {out}/kept
         rm -f {out}/kept
         mkdir {out}/made
         mv {out}/kept here
         ln -s {out} link; echo x > link/new
         truncate -s 0 {out}/kept
         echo x > /tmp/cutover-confine-test
         true"
    );

    let ended = run(folder.path(), vec![shell(folder.path(), &script)]);

    assert_eq!(ended.verdict, Verdict::Succeeded, "{}", ended.log);
    assert!(folder.path().join("a/inside").exists());
    if ended.confinement == Confinement::None {
        // A kernel without Landlock can only say so.
        return;
    }
    let left: Vec<_> = fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert!(!Path::new("/tmp/cutover-confine-test").exists());
    if ended.confinement == Confinement::Full {
        assert_eq!(
            fs::read_to_string(outside.path().join("kept")).unwrap(),
            "kept"
        );
    }
}

#[test]
fn what_a_step_leaves_running_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let script = "setsid sh -c 'echo $$ > pid; exec sleep 600' & while ! [ -s pid ]; do :; done";

    let ended = run(folder.path(), vec![shell(folder.path(), script)]);

    assert_eq!(ended.verdict, Verdict::Succeeded, "{}", ended.log);
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(is_gone(&pid));
}

#[test]
fn a_step_past_its_time_is_ended_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 1; done' & echo begun; sleep 600";
    let step = Step {
        timeout_ms: 1_000,
        ..shell(folder.path(), script)
    };

    let ended = run(folder.path(), vec![step]);

    let expected = Verdict::Failed {
        step: 0,
        ending: Ending::TimedOut,
    };
    assert_eq!(ended.verdict, expected);
    assert!(ended.log.contains("begun\n") && ended.log.contains("<== timed out"));
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(is_gone(&pid));
}

#[test]
fn when_who_asked_is_gone_everything_ends_and_the_folder_goes() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    let pid_file = folder.path().join("scratch/pid");
    let mut child = start(&scratch, vec![shell(&scratch, "echo $$ > pid; sleep 600")]);
    until("it has begun", || {
        fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let pid = fs::read_to_string(&pid_file).unwrap();

    drop(child.stdin.take());
    child.wait().unwrap();

    assert!(is_gone(&pid));
    assert!(!scratch.exists());
}

#[test]
fn a_step_with_more_memory_than_it_may_have_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    // What is read from the device stays in the memory of `tail`, which waits for an end of line.
    let script = "(sleep 0.2; head -c 300000000 /dev/zero; sleep 600) | tail";
    let step = Step {
        memory: Some(100 << 20),
        ..shell(folder.path(), script)
    };

    let ended = run(folder.path(), vec![step]);

    let Verdict::Failed {
        ending: Ending::OverMemory { bytes },
        ..
    } = ended.verdict
    else {
        panic!("{:?} {}", ended.verdict, ended.log);
    };
    assert!(bytes > 100 << 20);
}

#[test]
fn a_flood_of_output_is_cut_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo first; yes | head -c 12000000; echo last";

    let ended = run(folder.path(), vec![shell(folder.path(), script)]);

    assert_eq!(ended.verdict, Verdict::Succeeded);
    assert!(ended.log.len() < 8 << 20, "{}", ended.log.len());
    assert!(ended.log.contains("first\n") && ended.log.contains("\nlast\n"));
    assert!(ended.log.contains("bytes are left out here"));
}

#[test]
fn a_step_sees_its_own_environment_and_no_input() {
    let folder = tempfile::tempdir().unwrap();

    let ended = run(
        folder.path(),
        vec![shell(
            folder.path(),
            "cat; env | cut -d= -f1 | sort | tr '\\n' ' '; umask",
        )],
    );

    let lines: Vec<_> = ended.log.lines().collect();
    assert_eq!(lines[2], "PATH PWD 0022", "{}", ended.log);
}

#[test]
fn a_program_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let step = Step {
        words: vec!["/bin/no-such-program".to_owned()],
        ..shell(folder.path(), "")
    };

    let ended = run(folder.path(), vec![step]);

    let Verdict::Failed {
        ending: Ending::NotStarted { reason },
        ..
    } = ended.verdict
    else {
        panic!("{:?}", ended.verdict);
    };
    assert_eq!(reason, "execute it: No such file or directory (os error 2)");
}

#[test]
fn a_folder_that_was_closed_is_removed_and_what_links_lead_to_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch");
    let kept = folder.path().join("kept");
    fs::create_dir_all(scratch.join("cache/module")).unwrap();
    fs::write(scratch.join("cache/module/file"), "").unwrap();
    fs::create_dir(&kept).unwrap();
    std::os::unix::fs::symlink(&kept, scratch.join("link")).unwrap();
    for closed in ["cache/module", "cache"] {
        let permissions = fs::Permissions::from_mode(0o555);
        fs::set_permissions(scratch.join(closed), permissions).unwrap();
    }

    clear(&scratch).unwrap();
    clear(&scratch).unwrap();

    assert!(!scratch.exists() && kept.exists());
}

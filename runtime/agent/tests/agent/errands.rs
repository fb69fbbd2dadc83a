//! What a plugin has done on an instance.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use agent::protocol::{
    Answer, Deed, Errand, ErrandAnswer, Exec, Fence, FileStat, Outcome, Request, Run, Spot, Why,
    Work,
};

use crate::instance::{Agent, CACHE, Instance, is_alive};

fn spot(path: &str) -> Spot {
    at("data", path)
}

fn at(folder: &str, path: &str) -> Spot {
    Spot {
        folder: folder.to_owned(),
        path: path.to_owned(),
    }
}

fn exec(words: &[&str]) -> Exec {
    Exec {
        words: words.iter().map(|&word| word.to_owned()).collect(),
        folder: None,
        env: Vec::new(),
        stdin: Vec::new(),
        timeout_ms: 20_000,
        max_output: 1024,
    }
}

fn work(deed: Deed) -> Work {
    Work::Errand(Errand {
        cache: CACHE.to_owned(),
        deed,
    })
}

/// Does one errand, as an attempt of its own.
fn run(instance: &Instance, deed: Deed) -> (String, ErrandAnswer) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (log, outcome) = instance.outcome(&format!("e{number}"), work(deed));
    match outcome {
        Outcome::Answered { answer, .. } => (log, answer),
        outcome => panic!("{outcome:?}"),
    }
}

fn answer(instance: &Instance, deed: Deed) -> ErrandAnswer {
    run(instance, deed).1
}

#[track_caller]
fn undone(instance: &Instance, deed: Deed, expected: Why, text: &str) {
    match answer(instance, deed) {
        ErrandAnswer::Undone { why, reason } => {
            assert_eq!(why, expected, "{reason}");
            assert!(reason.contains(text), "`{reason}` does not say `{text}`");
        }
        answer => panic!("{answer:?}"),
    }
}

fn written(path: &str, text: &str) -> Deed {
    Deed::Write {
        at: spot(path),
        data: text.as_bytes().to_vec(),
        mode: 0o640,
    }
}

fn read(at: Spot) -> Deed {
    Deed::Read { at, max: 100 }
}

#[test]
fn a_program_has_its_input_and_its_streams_apart_and_any_exit_code_is_an_answer() {
    let instance = Instance::new();
    instance.script(
        "bin/job.sh",
        "cat; echo \"$1 $COLOUR in $(basename \"$PWD\")\"; echo oops >&2; exit 7",
    );
    let deed = Deed::Exec(Exec {
        env: vec![("COLOUR".to_owned(), "blue".to_owned())],
        stdin: b"in\xff\n".to_vec(),
        ..exec(&["bin/job.sh", "two words"])
    });

    let (log, answer) = run(&instance, deed);

    let ErrandAnswer::Exited {
        exit_code,
        signal,
        stdout,
        stderr,
        truncated,
    } = answer
    else {
        panic!("{answer:?}")
    };
    assert_eq!((exit_code, signal, truncated), (7, None, false));
    assert_eq!(stdout, b"in\xff\ntwo words blue in deploy-r1-1\n");
    assert_eq!(stderr, b"oops\n");
    let lines: Vec<_> = log.lines().collect();
    assert!(
        lines[0].starts_with("==> bin/job.sh two words at 20"),
        "{log}"
    );
    assert!(log.contains("\noops\n"), "{log}");
    assert!(lines.last().unwrap().starts_with("<== exit 7 in "), "{log}");
}

#[test]
fn a_program_is_found_on_the_search_path_or_not_at_all() {
    let instance = Instance::new();
    fs::create_dir_all(instance.path(CACHE)).unwrap();
    fs::create_dir(instance.path(CACHE).join("bin")).unwrap();
    symlink("/bin/true", instance.path(CACHE).join("bin/out")).unwrap();

    let found = answer(&instance, Deed::Exec(exec(&["true"])));

    assert!(matches!(found, ErrandAnswer::Exited { exit_code: 0, .. }));
    let refused = |word: &str, why, text: &str| {
        undone(&instance, Deed::Exec(exec(&[word])), why, text);
    };
    refused("no-such-program", Why::NotFound, "not on the search path");
    refused(
        "/no/such/program",
        Why::NotFound,
        "execute `/no/such/program`",
    );
    refused("bin/out", Why::Denied, "out of the package");
    refused("bin/../../x", Why::Denied, "out of the package");
    refused("bin/gone", Why::NotFound, "find `bin/gone`");
    refused("", Why::Invalid, "no name");
}

#[test]
fn output_is_kept_up_to_a_limit_and_the_log_has_more() {
    let instance = Instance::new();
    let deed = Deed::Exec(Exec {
        max_output: 5,
        ..exec(&["printf", "0123456789"])
    });

    let (log, answer) = run(&instance, deed);

    let ErrandAnswer::Exited {
        stdout, truncated, ..
    } = answer
    else {
        panic!("{answer:?}")
    };
    assert_eq!((stdout.as_slice(), truncated), (&b"01234"[..], true));
    assert!(log.contains("0123456789"), "{log}");
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_what_it_started() {
    let instance = Instance::new();
    let pid = instance.path("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", pid.display());
    instance.script("bin/slow.sh", &script);
    let deed = Deed::Exec(Exec {
        timeout_ms: 300,
        ..exec(&["bin/slow.sh"])
    });
    let begun = Instant::now();

    undone(&instance, deed, Why::TimedOut, "took longer than 300ms");

    assert!(begun.elapsed() < Duration::from_secs(15));
    let sleeper = instance.read("pid").trim().parse().unwrap();
    assert!(!is_alive(sleeper));
}

#[test]
fn an_attempt_that_is_asked_for_again_answers_again_and_runs_nothing() {
    let instance = Instance::new();
    let count = instance.path("count");
    instance.script(
        "bin/once.sh",
        &format!("echo x >> {}; echo done", count.display()),
    );
    let mut agent = Agent::start();
    let run = instance.run("once", work(Deed::Exec(exec(&["bin/once.sh"]))));

    let first = agent.outcome(run.clone());
    let second = Agent::start().outcome(run);

    assert_eq!(first, second);
    assert_eq!(instance.read("count"), "x\n");
}

#[test]
fn a_file_is_replaced_whole_with_its_mode_and_read_again() {
    let instance = Instance::new();

    assert_eq!(
        answer(&instance, written("a/b/f", "one")),
        ErrandAnswer::Done
    );
    assert_eq!(
        answer(&instance, written("a/b/f", "two")),
        ErrandAnswer::Done
    );

    assert_eq!(
        answer(&instance, read(spot("a/b/f"))),
        ErrandAnswer::Content {
            data: b"two".to_vec()
        }
    );
    let stat = answer(&instance, Deed::Stat { at: spot("a/b/f") });
    let expected = FileStat {
        size: 3,
        mode: 0o640,
        is_dir: false,
        link: None,
    };
    assert_eq!(
        stat,
        ErrandAnswer::Stat {
            stat: Some(expected)
        }
    );
    let left = fs::read_dir(instance.path("data/a/b")).unwrap().count();
    assert_eq!(left, 1, "nothing but the file");
}

#[test]
fn what_is_not_there_is_told_apart_from_what_cannot_be_had() {
    let instance = Instance::new();
    instance.write("data/long", &"x".repeat(101));
    fs::create_dir(instance.path("data/folder")).unwrap();
    let stat = |at| answer(&instance, Deed::Stat { at });

    assert_eq!(stat(spot("no/such")), ErrandAnswer::Stat { stat: None });
    assert_eq!(stat(at("nowhere", "")), ErrandAnswer::Stat { stat: None });
    undone(&instance, read(spot("no")), Why::NotFound, "open `data/no`");
    undone(&instance, read(spot("long")), Why::Invalid, "has 101 bytes");
    undone(&instance, read(spot("folder")), Why::Invalid, "not a file");
    undone(
        &instance,
        written("folder", ""),
        Why::Invalid,
        "is a folder",
    );
    let odd = Deed::Write {
        at: spot("f"),
        data: Vec::new(),
        mode: 0o4755,
    };
    undone(&instance, odd, Why::Invalid, "not the mode");
}

#[test]
fn no_path_and_no_link_leads_out_of_the_folder() {
    let instance = Instance::new();
    instance.write("secret", "secret");
    instance.write("data/in/f", "fine");
    symlink("..", instance.path("data/up")).unwrap();
    symlink(instance.path("secret"), instance.path("data/absolute")).unwrap();
    symlink("in", instance.path("data/inside")).unwrap();

    assert!(matches!(
        answer(&instance, read(spot("inside/f"))),
        ErrandAnswer::Content { .. }
    ));
    let leads = "leads out of the folder";
    undone(&instance, read(spot("up/secret")), Why::Denied, leads);
    undone(&instance, read(spot("absolute")), Why::Denied, leads);
    undone(&instance, written("up/x", ""), Why::Denied, leads);
    let remove = |at| Deed::Remove { at };
    undone(&instance, remove(spot("up/secret")), Why::Denied, leads);
    let link = Deed::SwapLink {
        link: spot("new"),
        to: spot("up/secret"),
    };
    undone(&instance, link, Why::Denied, leads);
    let cwd = Deed::Exec(Exec {
        folder: Some(spot("up")),
        ..exec(&["true"])
    });
    undone(&instance, cwd, Why::Denied, leads);
    for path in ["../secret", "a/../../secret", "/etc/passwd", "a//b", "./a"] {
        undone(
            &instance,
            read(spot(path)),
            Why::Invalid,
            "not a plain path",
        );
    }
    undone(
        &instance,
        remove(spot("")),
        Why::Invalid,
        "the folder that is granted",
    );
    assert_eq!(instance.read("secret"), "secret");
}

#[test]
fn what_the_agent_keeps_is_out_of_reach() {
    let instance = Instance::new();
    instance.write(&format!("{CACHE}/f"), "package");
    instance.write(
        ".cutover/packages/app-shop/group-web/deploy-r1-1.json",
        "{}",
    );
    let own = "what the agent keeps for itself";

    undone(
        &instance,
        read(at(
            ".",
            ".cutover/packages/app-shop/group-web/deploy-r1-1.json",
        )),
        Why::Denied,
        own,
    );
    let remove = |path: &str| Deed::Remove { at: at(".", path) };
    undone(&instance, remove(".cutover"), Why::Denied, own);
    undone(&instance, remove("app-shop"), Why::Denied, own);
    undone(&instance, remove(&format!("{CACHE}/f")), Why::Denied, own);
    assert!(matches!(
        answer(&instance, read(at(".", &format!("{CACHE}/f")))),
        ErrandAnswer::Content { .. }
    ));
}

#[test]
fn a_link_moves_from_one_folder_to_the_next() {
    let instance = Instance::new();
    instance.write("data/releases/1/f", "one");
    instance.write("data/releases/2/f", "two");
    let link = |to: &str| Deed::SwapLink {
        link: spot("app/current"),
        to: spot(to),
    };

    for (to, content) in [
        ("releases/1", "one"),
        ("releases/2", "two"),
        ("releases/2", "two"),
    ] {
        assert_eq!(answer(&instance, link(to)), ErrandAnswer::Done);
        assert_eq!(instance.read("data/app/current/f"), content);
        let through = answer(&instance, read(spot("app/current/f")));
        let data = content.as_bytes().to_vec();
        assert_eq!(through, ErrandAnswer::Content { data });
    }
    let text = fs::read_link(instance.path("data/app/current")).unwrap();
    assert_eq!(text.to_str(), Some("../releases/2"));
    undone(&instance, link("releases/3"), Why::NotFound, "releases/3");
    instance.write("data/file", "");
    let onto_file = Deed::SwapLink {
        link: spot("file"),
        to: spot("releases/1"),
    };
    undone(&instance, onto_file, Why::Invalid, "not a link");
}

#[test]
fn removing_takes_whole_folders_and_nothing_is_fine() {
    let instance = Instance::new();
    instance.write("data/a/b/f", "f");
    instance.write("data/keep", "k");
    symlink("../keep", instance.path("data/a/link")).unwrap();
    let remove = || Deed::Remove { at: spot("a") };

    assert_eq!(answer(&instance, remove()), ErrandAnswer::Done);
    assert_eq!(answer(&instance, remove()), ErrandAnswer::Done);

    assert!(!instance.path("data/a").exists());
    assert_eq!(instance.read("data/keep"), "k");
}

#[test]
fn files_and_folders_of_the_package_are_placed() {
    let instance = Instance::new();
    instance.script("tree/run.sh", "true");
    instance.write(&format!("{CACHE}/tree/f"), "f");
    symlink("f", instance.path(CACHE).join("tree/link")).unwrap();
    symlink("/etc", instance.path(CACHE).join("etc")).unwrap();
    let place = |artifact: &str, path: &str| Deed::Place {
        artifact: artifact.to_owned(),
        at: spot(path),
    };

    assert_eq!(answer(&instance, place("tree", "r/7")), ErrandAnswer::Done);
    assert_eq!(
        answer(&instance, place("tree/f", "one")),
        ErrandAnswer::Done
    );
    assert_eq!(
        answer(&instance, place("tree/f", "one")),
        ErrandAnswer::Done
    );
    assert_eq!(answer(&instance, place(".", "all")), ErrandAnswer::Done);

    assert_eq!(instance.read("data/r/7/link"), "f");
    let mode = fs::metadata(instance.path("data/r/7/run.sh"))
        .unwrap()
        .permissions();
    assert_eq!(mode, Permissions::from_mode(0o100_755));
    assert_eq!(instance.read("data/all/tree/f"), "f");
    undone(
        &instance,
        place("tree", "r/7"),
        Why::Invalid,
        "there already",
    );
    undone(&instance, place("gone", "x"), Why::NotFound, "find `gone`");
    undone(
        &instance,
        place("../x", "x"),
        Why::Invalid,
        "not a path in the package",
    );
    undone(
        &instance,
        place("etc/passwd", "x"),
        Why::Denied,
        "out of the package",
    );
}

#[test]
fn whoever_has_been_succeeded_has_no_errand_done() {
    let instance = Instance::new();
    let mut agent = Agent::start();
    let in_turn = |number: u64, path: &str| Run {
        fence: Some(Fence {
            journal: "one".to_owned(),
            number,
            release: format!("r{number}"),
        }),
        ..instance.run(path, work(written(path, "")))
    };
    agent.outcome(in_turn(7, "heir"));

    agent.send(Request::Run(in_turn(5, "zombie")));

    let answer = agent.answer();
    assert!(
        matches!(&answer, Answer::Refused { reason, .. } if reason.contains("has been succeeded")),
        "{answer:?}"
    );
    assert!(!instance.path("data/zombie").exists());
}

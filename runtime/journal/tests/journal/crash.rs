//! A conductor that is killed at any moment.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use journal::Journal;
use model::Timestamp;

use crate::scenario::{Workspace, me, opened, release_id, remark};

/// Where the child of this test finds the journal.
const JOURNAL: &str = "CUTOVER_JOURNAL_CRASH_TEST";

const THIS_TEST: &str = "crash::every_acknowledged_record_survives_a_kill";

#[test]
fn every_acknowledged_record_survives_a_kill() {
    if let Some(path) = env::var_os(JOURNAL) {
        append_until_killed(Path::new(&path));
    }
    let workspace = Workspace::new();
    let release = release_id("r1");
    let mut acknowledged = 0;

    for round in 1..=4 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", THIS_TEST, "--nocapture"])
            .env(JOURNAL, workspace.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let durable = |line: std::io::Result<String>| {
            line.unwrap().strip_prefix("durable ")?.parse::<u64>().ok()
        };
        let enough = acknowledged + 50 * round;
        for line in lines.by_ref() {
            if let Some(seq) = durable(line) {
                acknowledged = seq;
            }
            if acknowledged >= enough {
                break;
            }
        }
        child.kill().unwrap();
        // What the child had said before it died counts too, but not a line that it did not finish.
        acknowledged = lines
            .filter_map(durable)
            .max()
            .unwrap_or(0)
            .max(acknowledged);
        assert!(acknowledged >= enough);

        let records = workspace.journal.records(&release, 0).unwrap();

        assert!(records.len() as u64 > acknowledged, "round {round}");
        assert_eq!(records[0], opened("r1"));
        for (seq, record) in (1..).zip(&records[1..]) {
            assert_eq!(*record, remark(seq));
        }
        child.wait().unwrap();
    }
}

/// Takes the release over at once, since the one before is known to be dead, and goes on where that one ended.
fn append_until_killed(path: &Path) -> ! {
    let journal = Journal::open(path).unwrap();
    let release = release_id("r1");
    let tenure = match journal.take_over(&release, &me(), Timestamp(1)) {
        Err(journal::Error::UnknownRelease { .. }) => journal
            .open_release(vec![opened("r1")], &[], &me())
            .unwrap(),
        taken => taken.unwrap(),
    };
    let mut out = std::io::stdout().lock();
    let first = journal.records(&release, 0).unwrap().len() as u64;
    let mut pending = std::collections::VecDeque::new();
    for seq in first.. {
        pending.push_back((seq, journal.append(&tenure, vec![remark(seq)])));
        if pending.len() > 3
            && let Some((seq, appended)) = pending.pop_front()
        {
            appended.wait().unwrap();
            writeln!(out, "durable {seq}").unwrap();
            out.flush().unwrap();
        }
    }
    unreachable!("the parent kills this process first")
}

/// The log beside the journal, which commits are written to.
fn log(workspace: &Workspace) -> PathBuf {
    workspace.path().with_file_name("journal.db-wal")
}

#[test]
fn commits_go_where_the_log_has_room_and_make_it_no_longer() {
    let workspace = Workspace::new();
    let mut driver = workspace.open("r1", &[]);
    let length = || fs::metadata(log(&workspace)).unwrap().len();
    let before = length();

    for seq in 1..=10 {
        driver.append(remark(seq).fact);
    }

    assert!(before > 0);
    assert_eq!(length(), before);
}

#[test]
fn a_machine_that_goes_down_leaves_a_journal_that_is_read_whole_and_goes_on() {
    let workspace = Workspace::new();
    let mut driver = workspace.open("r1", &[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("journal.db");

    // Over the end of several rooms.
    for seq in 1..=200 {
        driver.append(remark(seq).fact);
    }
    fs::copy(workspace.path(), &path).unwrap();
    fs::copy(log(&workspace), path.with_file_name("journal.db-wal")).unwrap();

    let journal = Journal::open(&path).unwrap();
    let release = release_id("r1");
    let later = Timestamp(1_000_000_000_000_000);
    let tenure = journal.take_over(&release, &me(), later).unwrap();
    journal.append(&tenure, vec![remark(201)]).wait().unwrap();
    let records = journal.records(&release, 0).unwrap();
    let expected: Vec<_> = [opened("r1")]
        .into_iter()
        .chain((1..=201).map(remark))
        .collect();
    assert_eq!(records, expected);
}

//! Order, grouping and waiting.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use journal::{Appended, Error, Journal, OpenError};
use model::{Direction, Fact, ReleaseStatus};
use rusqlite::Connection;

use crate::scenario::{Workspace, deployment, group, me, opened, record, release_id, remark};

#[test]
fn records_come_back_in_order_from_any_position() {
    let workspace = Workspace::new();
    let tenure = workspace.open("r1", &[]).tenure;
    let records: Vec<_> = (1..5).map(remark).collect();

    workspace
        .journal
        .append(&tenure, records[..3].to_vec())
        .wait()
        .unwrap();
    workspace
        .journal
        .append(&tenure, records[3..].to_vec())
        .wait()
        .unwrap();

    let release = release_id("r1");
    assert_eq!(
        workspace.journal.records(&release, 0).unwrap()[0],
        opened("r1")
    );
    assert_eq!(workspace.journal.records(&release, 1).unwrap(), records);
    assert_eq!(
        workspace.journal.records(&release, 4).unwrap(),
        records[3..]
    );
    assert_eq!(workspace.journal.records(&release, 9).unwrap(), []);
}

#[test]
fn a_gap_or_a_repetition_is_refused_and_poisons_the_tenure() {
    for (index, wrong) in [
        vec![remark(2)],
        vec![remark(0)],
        vec![remark(1), remark(1)],
        vec![remark(1), remark(3)],
    ]
    .into_iter()
    .enumerate()
    {
        let workspace = Workspace::new();
        let tenure = workspace.open("r1", &[]).tenure;

        let refused = workspace.journal.append(&tenure, wrong).wait();

        assert!(
            matches!(refused, Err(Error::Misordered { .. })),
            "case {index}: {refused:?}"
        );
        assert!(tenure.is_poisoned());
        let next = workspace.journal.append(&tenure, vec![remark(1)]).wait();
        assert!(
            matches!(next, Err(Error::Poisoned { .. })),
            "case {index}: {next:?}"
        );
        assert_eq!(
            workspace
                .journal
                .records(&release_id("r1"), 0)
                .unwrap()
                .len(),
            1
        );
    }
}

#[test]
fn a_refused_append_does_not_harm_the_others_of_its_transaction() {
    let workspace = Workspace::new();
    let good = workspace.open("good", &[]).tenure;
    let bad = workspace.open("bad", &[]).tenure;
    let appends = while_locked(&workspace, || {
        vec![
            workspace.journal.append(&good, vec![remark(1)]),
            workspace.journal.append(&bad, vec![remark(7)]),
            workspace.journal.append(&good, vec![remark(2)]),
        ]
    });

    let results: Vec<_> = appends.into_iter().map(Appended::wait).collect();

    assert!(
        matches!(results[..], [Ok(()), Err(Error::Misordered { .. }), Ok(())]),
        "{results:?}"
    );
    assert_eq!(
        workspace
            .journal
            .records(&release_id("good"), 0)
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn appends_of_many_threads_share_transactions() {
    let workspace = Workspace::new();
    let tenures: Vec<_> = (0..8)
        .map(|n| workspace.open(&format!("r{n}"), &[]).tenure)
        .collect();
    let before = workspace.journal.stats();

    let appends = while_locked(&workspace, || {
        thread::scope(|scope| {
            let threads: Vec<_> = tenures
                .iter()
                .map(|tenure| {
                    let append = |seq| workspace.journal.append(tenure, vec![remark(seq)]);
                    scope.spawn(move || (1..=125).map(append).collect::<Vec<_>>())
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        })
    });
    appends
        .into_iter()
        .for_each(|append| append.wait().unwrap());

    let after = workspace.journal.stats();
    assert_eq!(after.writes - before.writes, 1000);
    assert!(after.commits - before.commits <= 10, "{after:?}");
    for n in 0..8 {
        assert_eq!(
            workspace
                .journal
                .records(&release_id(&format!("r{n}")), 0)
                .unwrap()
                .len(),
            126
        );
    }
}

#[test]
fn an_append_can_be_awaited() {
    let workspace = Workspace::new();
    let tenure = workspace.open("r1", &[]).tenure;

    let appends = while_locked(&workspace, || {
        vec![workspace.journal.append(&tenure, vec![remark(1)])]
    });

    for append in appends {
        block_on(append).unwrap();
    }
    assert_eq!(
        workspace.journal.records(&release_id("r1"), 1).unwrap(),
        [remark(1)]
    );
}

#[test]
fn what_was_queued_is_written_before_the_last_handle_is_gone() {
    let workspace = Workspace::new();
    let path = workspace.path();
    let second = Journal::open(&path).unwrap();
    let tenure = second.open_release(vec![opened("r1")], &[], &me()).unwrap();

    let appends: Vec<_> = (1..50)
        .map(|seq| second.append(&tenure, vec![remark(seq)]))
        .collect();
    drop(second);

    assert_eq!(
        workspace
            .journal
            .records(&release_id("r1"), 0)
            .unwrap()
            .len(),
        50
    );
    drop(appends);
}

#[test]
fn another_process_learns_that_something_was_appended() {
    let workspace = Workspace::new();
    let watcher = Journal::open(&workspace.path()).unwrap();
    let mut driver = workspace.open("r1", &[]);
    let (before, unchanged) = (
        watcher.data_version().unwrap(),
        watcher.data_version().unwrap(),
    );
    let own_before = workspace.journal.data_version().unwrap();

    driver.change(ReleaseStatus::Running);

    assert_eq!(before, unchanged);
    assert_ne!(watcher.data_version().unwrap(), before);
    assert_ne!(workspace.journal.data_version().unwrap(), own_before);
}

#[test]
fn a_release_is_opened_whole_or_not_at_all() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;

    let headless = journal.open_release(vec![remark(0)], &[group("shop/web")], &me());
    let gap = journal.open_release(vec![opened("r1"), remark(2)], &[group("shop/web")], &me());

    assert!(
        matches!(headless, Err(OpenError::Journal(Error::Headless))),
        "{headless:?}"
    );
    assert!(
        matches!(gap, Err(OpenError::Journal(Error::Misordered { .. }))),
        "{gap:?}"
    );
    assert_eq!(journal.holder(&group("shop/web")).unwrap(), None);
    assert!(matches!(
        journal.records(&release_id("r1"), 0),
        Err(Error::UnknownRelease { .. })
    ));
    workspace.open("r1", &["shop/web"]);
    let again = journal.open_release(vec![opened("r1")], &[], &me());
    assert!(matches!(again, Err(OpenError::Exists { .. })), "{again:?}");
}

#[test]
fn records_that_contradict_the_journal_are_refused() {
    let deploy = |id: &str, on: &str| {
        Fact::DeploymentOpened(Arc::new(deployment(
            id,
            on,
            "1.0.0",
            Direction::Deploy,
            id,
            &["i"],
        )))
    };
    let install = |deployment: &str, instance: &str| Fact::StepEnded {
        deployment: deployment.parse().unwrap(),
        instance: instance.parse().unwrap(),
        event: model::LifecycleEvent::Install,
        attempt: 1,
        ending: model::Ending::Succeeded {
            exit_code: None,
            log: None,
            note: None,
        },
    };
    let ended = Fact::DeploymentEnded {
        deployment: "r1-7".parse().unwrap(),
        status: ReleaseStatus::Failed,
        reason: None,
    };
    for wrong in [
        opened("r1").fact,
        deploy("r1-2", "shop/other"),
        deploy("r1-1", "shop/web"),
        install("r1-7", "i"),
        install("r1-1", "j"),
        ended,
    ] {
        let workspace = Workspace::new();
        let mut driver = workspace.open("r1", &["shop/web"]);
        driver.append(deploy("r1-1", "shop/web"));

        let refused = workspace
            .journal
            .append(&driver.tenure, vec![record(2, wrong.clone())])
            .wait();

        let is_refused = matches!(
            refused,
            Err(Error::Inconsistent { .. } | Error::NotHeld { .. })
        );
        assert!(is_refused, "{wrong:?}: {refused:?}");
    }
}

#[test]
fn broken_content_is_an_error_that_names_release_and_record() {
    let workspace = Workspace::new();
    workspace
        .open("r1", &[])
        .change(ReleaseStatus::Running)
        .change(ReleaseStatus::Running);
    let raw = Connection::open(workspace.path()).unwrap();

    raw.execute(
        "UPDATE records SET body = '{\"unheard-of\":{}}' WHERE seq = 1",
        [],
    )
    .unwrap();
    let unknown = workspace.journal.records(&release_id("r1"), 0).unwrap_err();
    raw.execute("DELETE FROM records WHERE seq = 1", [])
        .unwrap();
    let missing = workspace.journal.records(&release_id("r1"), 0).unwrap_err();

    assert_eq!(unknown.to_string(), "read record 1 of release `r1`");
    assert_eq!(missing.to_string(), "record 1 of release `r1` is missing");
}

/// Holds the file's write lock while something is queued, so that all of it waits for one transaction.
fn while_locked(workspace: &Workspace, queue: impl FnOnce() -> Vec<Appended>) -> Vec<Appended> {
    let other = Connection::open(workspace.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let queued = queue();
    other.execute_batch("COMMIT").unwrap();
    queued
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

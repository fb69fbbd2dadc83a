//! Orders from one process to the one that drives the release.

use std::thread;

use journal::{Error, GivenOrder, Journal, LEASE, OrderAnswer, OrderId, OrderOutcome, Tenure};
use model::{Capacity, InstanceId, Order, ReleaseStatus, Timestamp};
use rusqlite::Connection;

use crate::scenario::{Workspace, departed, me, opened, release_id, remark, stranger};

const NOW: Timestamp = Timestamp(1);

fn give(journal: &Journal, order: &Order) -> OrderId {
    journal
        .order(&release_id("r1"), order, "eve@desk", NOW)
        .unwrap()
}

fn told(journal: &Journal, tenure: &Tenure) -> Vec<Order> {
    let orders = journal.orders(tenure, NOW).unwrap();
    orders.into_iter().map(|given| given.order).collect()
}

fn refused(reason: &str) -> OrderOutcome {
    OrderOutcome::Refused {
        reason: reason.to_owned(),
    }
}

fn answer(id: OrderId, outcome: OrderOutcome) -> OrderAnswer {
    OrderAnswer {
        id,
        at: NOW,
        outcome,
    }
}

#[test]
fn an_order_of_another_process_reaches_the_owner_once_and_is_answered_with_its_records() {
    let workspace = Workspace::new();
    let tenure = workspace.open("r1", &[]).tenure;
    let elsewhere = Journal::open(&workspace.path()).unwrap();
    let orders = [
        Order::Weight {
            percent: 40,
            capacity: Capacity::Exceed,
        },
        Order::Skip {
            instance: InstanceId::parse("web-1").unwrap(),
        },
    ];

    let ids = orders.clone().map(|order| give(&elsewhere, &order));
    let given = workspace.journal.orders(&tenure, NOW).unwrap();

    let expected = |id, order: &Order| GivenOrder {
        id,
        order: order.clone(),
        operator: "eve@desk".to_owned(),
        given_at: NOW,
    };
    assert_eq!(
        given,
        [expected(ids[0], &orders[0]), expected(ids[1], &orders[1])]
    );
    assert_eq!(told(&workspace.journal, &tenure), []);
    assert_eq!(elsewhere.answer(ids[0]).unwrap(), None);
    let answers = vec![
        answer(ids[0], OrderOutcome::Taken),
        answer(ids[1], refused("it has started")),
    ];
    workspace
        .journal
        .append_answering(&tenure, vec![remark(1)], answers)
        .wait()
        .unwrap();
    assert_eq!(elsewhere.answer(ids[0]).unwrap(), Some(OrderOutcome::Taken));
    assert_eq!(
        elsewhere.answer(ids[1]).unwrap(),
        Some(refused("it has started"))
    );
}

#[test]
fn an_append_that_fails_answers_nothing() {
    let workspace = Workspace::new();
    let tenure = workspace.open("r1", &[]).tenure;
    let id = give(&workspace.journal, &Order::Promote);
    let answers = vec![answer(id, OrderOutcome::Taken)];

    let misordered = workspace
        .journal
        .append_answering(&tenure, vec![remark(7)], answers)
        .wait();

    assert!(
        matches!(misordered, Err(Error::Misordered { .. })),
        "{misordered:?}"
    );
    assert_eq!(workspace.journal.answer(id).unwrap(), None);
}

#[test]
fn looking_for_orders_writes_nothing_where_there_are_none() {
    let workspace = Workspace::new();
    let tenure = workspace.open("r1", &[]).tenure;
    let other = workspace.open("r2", &[]).tenure;
    give(&workspace.journal, &Order::Pause { at: None });
    let before = workspace.journal.stats();

    let none = told(&workspace.journal, &other);

    assert_eq!(none, []);
    assert_eq!(workspace.journal.stats(), before);
    assert_eq!(
        told(&workspace.journal, &tenure),
        [Order::Pause { at: None }]
    );
}

#[test]
fn an_order_that_a_dead_owner_was_told_is_told_the_next_one() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let dead = journal
        .open_release(vec![opened("r1")], &[], &departed())
        .unwrap();
    let id = give(journal, &Order::Stop { at: None });
    assert_eq!(told(journal, &dead), [Order::Stop { at: None }]);

    let heir = journal.take_over(&release_id("r1"), &me(), NOW).unwrap();

    assert_eq!(told(journal, &heir), [Order::Stop { at: None }]);
    let fenced = journal.orders(&dead, NOW);
    assert!(
        matches!(fenced, Ok(ref orders) if orders.is_empty()),
        "{fenced:?}"
    );
    give(journal, &Order::Pause { at: None });
    let fenced = journal.orders(&dead, NOW);
    assert!(matches!(fenced, Err(Error::Fenced { .. })), "{fenced:?}");
    assert_eq!(journal.answer(id).unwrap(), None);
}

#[test]
fn a_release_that_ends_answers_what_waits_and_takes_no_more_orders() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let mut driver = workspace.open("r1", &[]);
    let (told_one, waiting) = (
        give(journal, &Order::Promote),
        give(journal, &Order::Pause { at: None }),
    );
    assert_eq!(told(journal, &driver.tenure).len(), 2);
    let other = workspace.open("r2", &[]);
    let elsewhere = journal
        .order(
            &release_id("r2"),
            &Order::Pause { at: None },
            "eve@desk",
            NOW,
        )
        .unwrap();

    driver.end(ReleaseStatus::Failed);

    let ended = Some(refused("the release has ended with FAILED"));
    assert_eq!(journal.answer(told_one).unwrap(), ended);
    assert_eq!(journal.answer(waiting).unwrap(), ended);
    assert_eq!(journal.answer(elsewhere).unwrap(), None);
    let late = journal.order(
        &release_id("r1"),
        &Order::Stop { at: None },
        "eve@desk",
        NOW,
    );
    assert!(
        matches!(
            late,
            Err(Error::Ended {
                status: ReleaseStatus::Failed,
                ..
            })
        ),
        "{late:?}"
    );
    let unknown = journal.order(
        &release_id("r3"),
        &Order::Stop { at: None },
        "eve@desk",
        NOW,
    );
    assert!(
        matches!(unknown, Err(Error::UnknownRelease { .. })),
        "{unknown:?}"
    );
    drop(other);
}

#[test]
fn an_order_is_taken_back_unless_somebody_may_be_carrying_it_out() {
    let after_lease = Timestamp(i64::try_from(LEASE.as_millis()).unwrap());
    for (owner, is_told, now, is_withdrawn) in [
        (me(), false, NOW, true),
        (me(), true, NOW, false),
        (stranger(), true, NOW, false),
        (stranger(), true, after_lease, true),
        (departed(), true, NOW, true),
    ] {
        let workspace = Workspace::new();
        let journal = &workspace.journal;
        let tenure = journal
            .open_release(vec![opened("r1")], &[], &owner)
            .unwrap();
        let id = give(journal, &Order::Promote);
        if is_told {
            assert_eq!(told(journal, &tenure), [Order::Promote]);
        }

        let outcome = journal.withdraw(id, now).unwrap();

        let expected = is_withdrawn.then_some(OrderOutcome::Withdrawn);
        assert_eq!(outcome, expected, "{owner:?}, told: {is_told}, at {now:?}");
        assert_eq!(journal.answer(id).unwrap(), expected);
        if is_withdrawn {
            assert_eq!(told(journal, &tenure), []);
        }
    }
}

#[test]
fn an_answer_is_not_taken_back() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let tenure = workspace.open("r1", &[]).tenure;
    let id = give(journal, &Order::Promote);
    let answers = vec![answer(id, OrderOutcome::Taken)];
    journal
        .append_answering(&tenure, Vec::new(), answers)
        .wait()
        .unwrap();
    journal.leave(&tenure).unwrap();

    assert_eq!(
        journal.withdraw(id, NOW).unwrap(),
        Some(OrderOutcome::Taken)
    );
}

#[test]
fn orders_given_at_the_same_moment_are_all_told_in_one_order() {
    let workspace = Workspace::new();
    let tenure = workspace.open("r1", &[]).tenure;

    let mut given: Vec<(OrderId, u8)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u8)
            .map(|percent| {
                let path = workspace.path();
                scope.spawn(move || {
                    let order = Order::Weight {
                        percent,
                        capacity: Capacity::Respect,
                    };
                    (give(&Journal::open(&path).unwrap(), &order), percent)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });

    given.sort();
    let expected: Vec<Order> = given
        .into_iter()
        .map(|(_, percent)| Order::Weight {
            percent,
            capacity: Capacity::Respect,
        })
        .collect();
    assert_eq!(told(&workspace.journal, &tenure), expected);
}

#[test]
fn an_order_that_cannot_be_read_is_refused() {
    let workspace = Workspace::new();
    let tenure = workspace.open("r1", &[]).tenure;
    let id = give(&workspace.journal, &Order::Pause { at: None });
    let raw = Connection::open(workspace.path()).unwrap();
    raw.execute("UPDATE orders SET body = '\"dance\"'", [])
        .unwrap();

    let told = told(&workspace.journal, &tenure);

    assert_eq!(told, []);
    let outcome = workspace.journal.answer(id).unwrap();
    assert!(
        matches!(&outcome, Some(OrderOutcome::Refused { reason }) if reason.contains("cannot read")),
        "{outcome:?}"
    );
}

#[test]
fn the_orders_of_a_deleted_release_are_gone() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let mut driver = workspace.open("r1", &[]);
    let id = give(journal, &Order::Pause { at: None });
    driver.change(ReleaseStatus::Paused);

    journal.delete(&release_id("r1"), "eve@desk", NOW).unwrap();

    let gone = journal.answer(id);
    assert!(matches!(gone, Err(Error::UnknownOrder { .. })), "{gone:?}");
    let gone = journal.withdraw(id, NOW);
    assert!(matches!(gone, Err(Error::UnknownOrder { .. })), "{gone:?}");
}

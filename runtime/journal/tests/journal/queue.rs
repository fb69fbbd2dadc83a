//! Waiting for groups.

use journal::{LEASE, Owner, Turn, WaiterId};
use model::{GroupRef, ReleaseStatus, Timestamp};

use crate::scenario::{Workspace, departed, group, me, release_id, stranger};

const START: Timestamp = Timestamp(0);

fn join(workspace: &Workspace, groups: &[&str], owner: &Owner) -> WaiterId {
    join_at(workspace, groups, owner, START)
}

fn join_at(workspace: &Workspace, groups: &[&str], owner: &Owner, now: Timestamp) -> WaiterId {
    let groups: Vec<GroupRef> = groups.iter().map(|text| group(text)).collect();
    let joined = workspace
        .journal
        .join_queue(&groups, owner, "ann@build", "deploy v2", now);
    joined.unwrap()
}

fn turn(workspace: &Workspace, waiter: WaiterId) -> Turn {
    workspace.journal.turn(waiter, START).unwrap()
}

/// Whom a waiter waits behind.
fn behind(workspace: &Workspace, waiter: WaiterId, now: Timestamp) -> Option<WaiterId> {
    match workspace.journal.turn(waiter, now).unwrap() {
        Turn::Behind { waiter, .. } => Some(waiter.id),
        Turn::Come => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn those_who_wait_go_on_in_the_order_in_which_they_came_when_the_release_ends() {
    let workspace = Workspace::new();
    let mut driver = workspace.open("r1", &["shop/web"]);
    let first = join(&workspace, &["shop/web"], &me());
    let second = join(&workspace, &["shop/web"], &stranger());

    for waiter in [first, second] {
        let Turn::Held {
            group: held,
            holder,
        } = turn(&workspace, waiter)
        else {
            panic!("the release has not ended")
        };
        assert_eq!(
            (held, holder.release),
            (group("shop/web"), release_id("r1"))
        );
    }
    driver.end(ReleaseStatus::Succeeded);

    assert_eq!(turn(&workspace, first), Turn::Come);
    let Turn::Behind { waiter, .. } = turn(&workspace, second) else {
        panic!("somebody came before")
    };
    assert_eq!(
        (waiter.id, waiter.operator.as_str(), waiter.purpose.as_str()),
        (first, "ann@build", "deploy v2")
    );
    workspace.journal.leave_queue(first).unwrap();
    assert_eq!(turn(&workspace, second), Turn::Come);
}

#[test]
fn whoever_waits_for_several_groups_goes_on_when_all_are_free() {
    let workspace = Workspace::new();
    let mut driver = workspace.open("r1", &["shop/api"]);
    let both = join(&workspace, &["shop/web", "shop/api"], &me());
    let web = join(&workspace, &["shop/web"], &me());
    let db = join(&workspace, &["shop/db"], &me());

    assert!(matches!(turn(&workspace, both), Turn::Held { .. }));
    // Else those who need one group could keep whoever needs two from ever getting them.
    assert_eq!(behind(&workspace, web, START), Some(both));
    assert_eq!(turn(&workspace, db), Turn::Come);
    driver.end(ReleaseStatus::Failed);

    assert_eq!(turn(&workspace, both), Turn::Come);
}

#[test]
fn a_waiter_that_died_or_is_late_is_passed_over_and_goes_when_somebody_joins() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let lease = i64::try_from(LEASE.as_millis()).unwrap();
    let (soon, late) = (Timestamp(lease - 1), Timestamp(lease));
    let far = join(&workspace, &["shop/web"], &stranger());
    let dead = join(&workspace, &["shop/web"], &departed());
    let me_too = join(&workspace, &["shop/web"], &me());

    assert_eq!(behind(&workspace, me_too, soon), Some(far));
    journal.keep_place(me_too, soon).unwrap();
    assert_eq!(behind(&workspace, me_too, late), None);
    let waiting: Vec<_> = journal.queue(&group("shop/web"), late).unwrap();
    assert_eq!(waiting.iter().map(|it| it.id).collect::<Vec<_>>(), [me_too]);

    let last = join_at(&workspace, &["shop/web"], &me(), late);

    assert_eq!(journal.turn(far, late).unwrap(), Turn::Lost);
    assert_eq!(journal.turn(dead, late).unwrap(), Turn::Lost);
    journal.keep_place(far, late).unwrap();
    assert_eq!(journal.turn(far, late).unwrap(), Turn::Lost);
    assert_eq!(behind(&workspace, last, late), Some(me_too));
}

#[test]
fn a_waiter_that_is_late_and_comes_back_has_its_place_while_nobody_joined() {
    let workspace = Workspace::new();
    let lease = i64::try_from(LEASE.as_millis()).unwrap();
    let late = Timestamp(2 * lease);
    let slept = join(&workspace, &["shop/web"], &stranger());
    let next = join(&workspace, &["shop/web"], &stranger());
    workspace
        .journal
        .keep_place(next, Timestamp(lease))
        .unwrap();
    assert_eq!(behind(&workspace, next, Timestamp(lease)), None);

    workspace.journal.keep_place(slept, late).unwrap();

    assert_eq!(behind(&workspace, slept, late), None);
    assert_eq!(behind(&workspace, next, Timestamp(lease)), Some(slept));
}

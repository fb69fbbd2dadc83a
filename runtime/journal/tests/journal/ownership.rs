//! Groups, leases, fences and succession.

use std::sync::Arc;

use journal::{Error, Journal, LEASE, OpenError, Owner};
use model::{Direction, Fact, ReleaseStatus, Target, Timestamp};

use crate::scenario::{
    Workspace, departed, deployment, deployment_id, group, me, opened, record, release_id, remark,
    stranger,
};

fn after_lease() -> Timestamp {
    Timestamp(i64::try_from(LEASE.as_millis()).unwrap())
}

fn just_before(time: Timestamp) -> Timestamp {
    Timestamp(time.0 - 1)
}

#[test]
fn a_held_group_keeps_other_releases_out_and_says_who_holds_it() {
    let workspace = Workspace::new();
    workspace.open("r1", &["shop/web", "shop/api"]);

    let groups = [group("shop/db"), group("shop/api")];
    let busy = workspace
        .journal
        .open_release(vec![opened("r2")], &groups, &me());

    let Err(OpenError::Busy {
        group: held,
        holder,
    }) = busy
    else {
        panic!("{busy:?}")
    };
    assert_eq!(held, group("shop/api"));
    assert_eq!(
        (holder.release, holder.owner),
        (release_id("r1"), Some(me()))
    );
    assert_eq!(
        (holder.since, holder.expires_at),
        (Timestamp(0), after_lease())
    );
    assert_eq!(workspace.journal.holder(&group("shop/db")).unwrap(), None);
    workspace.open("r3", &["shop/db"]);
}

#[test]
fn groups_are_free_when_the_release_ends_and_not_before() {
    use ReleaseStatus::{
        Failed, Interrupted, Paused, Pausing, Running, Stopped, Stopping, Succeeded,
    };
    let workspace = Workspace::new();
    let web = group("shop/web");

    for (name, last) in [("a", Succeeded), ("b", Failed), ("c", Stopped)] {
        let mut driver = workspace.open(name, &["shop/web"]);
        for status in [Pausing, Paused, Running, Interrupted, Running, Stopping] {
            driver.change(status);
            assert_eq!(
                workspace.journal.holder(&web).unwrap().unwrap().status,
                status
            );
        }
        match last {
            Stopped => driver.change(Stopped),
            other => driver.end(other),
        };

        assert_eq!(workspace.journal.holder(&web).unwrap(), None);
        let more = workspace
            .journal
            .append(&driver.tenure, vec![remark(driver.next)])
            .wait();
        assert!(matches!(more, Err(Error::Ended { .. })), "{more:?}");
        let taken = workspace
            .journal
            .take_over(&release_id(name), &me(), after_lease());
        assert!(matches!(taken, Err(Error::Ended { .. })), "{taken:?}");
        workspace.journal.leave(&driver.tenure).unwrap();
    }
}

#[test]
fn a_release_is_taken_over_when_its_owner_is_dead_gone_or_late() {
    let soon = Timestamp(1);
    for (owner, now, succeeds) in [
        (me(), soon, false),
        (me(), just_before(after_lease()), false),
        (me(), after_lease(), true),
        (stranger(), soon, false),
        (stranger(), just_before(after_lease()), false),
        (stranger(), after_lease(), true),
        (departed(), soon, true),
    ] {
        let workspace = Workspace::new();
        workspace
            .journal
            .open_release(vec![opened("r1")], &[group("shop/web")], &owner)
            .unwrap();
        let heir = Owner {
            name: "heir".into(),
            ..me()
        };

        let result = workspace.journal.take_over(&release_id("r1"), &heir, now);

        match result {
            Ok(tenure) => {
                assert!(succeeds, "{owner:?} at {now:?}");
                workspace
                    .journal
                    .append(&tenure, vec![remark(1)])
                    .wait()
                    .unwrap();
                let holder = workspace
                    .journal
                    .holder(&group("shop/web"))
                    .unwrap()
                    .unwrap();
                assert_eq!((holder.owner, holder.since), (Some(heir), now));
            }
            Err(Error::Owned {
                owner: present,
                expires_at,
                ..
            }) => {
                assert!(!succeeds, "{owner:?} at {now:?}");
                assert_eq!((present, expires_at), (owner, after_lease()));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn an_owner_that_was_succeeded_cannot_write_any_more() {
    let workspace = Workspace::new();
    let zombie = workspace.open("r1", &["shop/web"]).tenure;
    let elsewhere = Journal::open(&workspace.path()).unwrap();
    let heir = elsewhere
        .take_over(&release_id("r1"), &stranger(), after_lease())
        .unwrap();

    let late = workspace.journal.append(&zombie, vec![remark(1)]).wait();
    let renewed = workspace.journal.renew(&zombie, after_lease());
    let left = workspace.journal.leave(&zombie);

    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    assert!(matches!(renewed, Err(Error::Fenced { .. })), "{renewed:?}");
    assert!(matches!(left, Err(Error::Fenced { .. })), "{left:?}");
    elsewhere.append(&heir, vec![remark(1)]).wait().unwrap();
    assert_eq!(
        elsewhere.records(&release_id("r1"), 1).unwrap(),
        [remark(1)]
    );
}

#[test]
fn a_renewed_lease_holds_from_then_on() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let tenure = workspace.open("r1", &[]).tenure;

    journal.renew(&tenure, Timestamp(10)).unwrap();

    let early = journal.take_over(
        &release_id("r1"),
        &stranger(),
        Timestamp(after_lease().0 + 9),
    );
    assert!(matches!(early, Err(Error::Owned { .. })), "{early:?}");
    journal
        .take_over(
            &release_id("r1"),
            &stranger(),
            Timestamp(after_lease().0 + 10),
        )
        .unwrap();
}

#[test]
fn a_release_that_was_left_is_anyones_but_keeps_its_groups() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let tenure = workspace.open("r1", &["shop/web"]).tenure;

    journal.leave(&tenure).unwrap();

    let late = journal.append(&tenure, vec![remark(1)]).wait();
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    assert_eq!(
        journal.holder(&group("shop/web")).unwrap().unwrap().owner,
        None
    );
    journal
        .take_over(&release_id("r1"), &stranger(), Timestamp(1))
        .unwrap();
}

#[test]
fn a_tenure_is_confirmed_until_somebody_takes_the_release_over_or_it_ends() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let zombie = workspace.open("r1", &["shop/web"]).tenure;
    let mut ended = workspace.open("r2", &["shop/api"]);
    journal.confirm(&zombie).unwrap();
    journal.confirm(&ended.tenure).unwrap();

    let elsewhere = Journal::open(&workspace.path()).unwrap();
    let heir = elsewhere
        .take_over(&release_id("r1"), &stranger(), after_lease())
        .unwrap();
    ended.end(ReleaseStatus::Succeeded);

    let late = journal.confirm(&zombie);
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    let over = journal.confirm(&ended.tenure);
    assert!(matches!(over, Err(Error::Ended { .. })), "{over:?}");
    elsewhere.confirm(&heir).unwrap();
}

#[test]
fn every_change_of_owner_gives_a_larger_fence_whichever_release_it_is_of() {
    let workspace = Workspace::new();
    let journal = &workspace.journal;
    let take = |release: &str, now: i64| {
        let taken = journal.take_over(&release_id(release), &me(), Timestamp(now));
        taken.unwrap().fence()
    };

    let first = workspace.open("r1", &["shop/web"]).tenure;
    let second = workspace.open("r2", &["shop/api"]).tenure;
    journal.leave(&first).unwrap();
    journal.leave(&second).unwrap();
    let fences = [
        first.fence(),
        second.fence(),
        take("r1", 5),
        take("r2", after_lease().0),
        take("r1", after_lease().0 + 5),
    ];

    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

/// What an instance has seen of the days that are lost must not shut the restored journal's conductors out.
#[test]
fn a_journal_restored_from_an_older_copy_goes_on_behind_the_fences_it_gave_since() {
    let workspace = Workspace::new();
    let tenure = workspace.open("r1", &["shop/web"]).tenure;
    workspace.journal.leave(&tenure).unwrap();
    let copy = workspace.path().with_extension("copy");
    let backup = rusqlite::Connection::open(workspace.path()).unwrap();
    backup
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    let take = |journal: &Journal, now: i64| {
        let taken = journal.take_over(&release_id("r1"), &me(), Timestamp(now));
        taken.unwrap().fence()
    };

    let mut now = 1000;
    let mut lost = 0;
    for _ in 0..3 {
        lost = take(&workspace.journal, now);
        now += after_lease().0;
    }
    let restored = Journal::open(&copy).unwrap();

    assert_eq!(restored.id(), workspace.journal.id());
    assert!(take(&restored, now) > lost);
}

#[test]
fn an_unknown_release_cannot_be_taken_over() {
    let workspace = Workspace::new();

    let result = workspace
        .journal
        .take_over(&release_id("r1"), &me(), Timestamp(0));

    assert!(
        matches!(result, Err(Error::UnknownRelease { .. })),
        "{result:?}"
    );
}

#[test]
fn a_version_is_brought_once_more_only_while_nothing_came_after_it() {
    let workspace = Workspace::new();
    let ended = |release: &str, version: &str| {
        let id = format!("{release}-1");
        workspace
            .open(release, &["shop/web"])
            .deploy(&id, "shop/web", version, &["web-1"])
            .end_deployment(&id, ReleaseStatus::Failed)
            .end(ReleaseStatus::Failed);
    };
    let retry = |release: &str| {
        let id = format!("{release}-1");
        let planned = deployment(
            &id,
            "shop/web",
            "1.0.0",
            Direction::Deploy,
            "r1-1",
            &["web-2"],
        );
        let records = vec![
            opened(release),
            record(1, Fact::DeploymentOpened(Arc::new(planned))),
        ];
        workspace
            .journal
            .open_release(records, &[group("shop/web")], &me())
            .map(|tenure| {
                let stopped = Fact::StatusChanged {
                    status: ReleaseStatus::Stopped,
                    reason: String::new(),
                };
                let ended = workspace.journal.append(&tenure, vec![record(2, stopped)]);
                ended.wait().unwrap();
            })
    };

    ended("r1", "1.0.0");
    retry("r2").unwrap();
    retry("r3").unwrap();
    ended("r4", "1.1.0");
    let refused = retry("r5");

    assert!(
        matches!(refused, Err(OpenError::Outdated { .. })),
        "{refused:?}"
    );
}

/// A release is planned before its group is taken; what was true then must be true when it is.
#[test]
fn a_release_planned_before_another_one_had_the_group_is_not_opened() {
    let workspace = Workspace::new();
    workspace
        .open("r1", &["shop/web"])
        .deploy("r1-1", "shop/web", "1.0.0", &["web-1"])
        .end_deployment("r1-1", ReleaseStatus::Succeeded)
        .end(ReleaseStatus::Succeeded);
    let open = |release: &str, version: &str, outgoing: Option<&str>| {
        let id = format!("{release}-1");
        let mut planned = deployment(&id, "shop/web", version, Direction::Deploy, &id, &["web-1"]);
        let mut target = Target::clone(&planned.targets[0]);
        target.outgoing = outgoing.map(deployment_id);
        planned.targets = vec![Arc::new(target)];
        let records = vec![
            opened(release),
            record(1, Fact::DeploymentOpened(Arc::new(planned))),
        ];
        workspace
            .journal
            .open_release(records, &[group("shop/web")], &me())
    };

    for (release, version, outgoing) in [
        ("r2", "1.1.0", None),
        ("r3", "1.0.0", Some("r1-1")),
        ("r4", "1.1.0", Some("r0-1")),
    ] {
        let refused = open(release, version, outgoing);
        assert!(
            matches!(refused, Err(OpenError::Outdated { .. })),
            "{refused:?}"
        );
    }
    assert!(
        workspace
            .journal
            .holder(&group("shop/web"))
            .unwrap()
            .is_none()
    );
    open("r5", "1.1.0", Some("r1-1")).unwrap();
}

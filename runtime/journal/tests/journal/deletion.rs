//! What may be deleted, and what stays.

use journal::{DeleteError, Error, OpenError};
use model::{ReleaseStatus, Timestamp};
use rusqlite::Connection;

use crate::scenario::{Workspace, deployment_id, group, me, opened, release_id, remark};

const WEB: &str = "shop/web";

#[test]
fn a_release_at_work_is_not_deleted() {
    use ReleaseStatus::{Pausing, Running, Stopping};
    for status in [Running, Pausing, Stopping] {
        let workspace = Workspace::new();
        workspace.open("r1", &[WEB]).change(status);

        let refused = workspace
            .journal
            .delete(&release_id("r1"), "ada", Timestamp(5));

        assert!(
            matches!(refused, Err(DeleteError::Active { .. })),
            "{status}: {refused:?}"
        );
    }
}

#[test]
fn a_release_whose_package_an_instance_runs_is_not_deleted() {
    let workspace = Workspace::new();
    workspace
        .open("r1", &[WEB])
        .deploy("r1-1", WEB, "1.0.0", &["i1", "i2"])
        .end(ReleaseStatus::Succeeded);
    workspace
        .open("r2", &[WEB])
        .deploy("r2-1", WEB, "1.1.0", &["i1"])
        .end(ReleaseStatus::Failed);

    let refused = workspace
        .journal
        .delete(&release_id("r1"), "ada", Timestamp(5));

    let Err(error) = refused else {
        panic!("deleted")
    };
    assert_eq!(
        error.to_string(),
        "`i2` of `shop/web` runs what deployment `r1-1` of release `r1` brought"
    );
    workspace
        .open("r3", &[WEB])
        .deploy("r3-1", WEB, "1.2.0", &["i1", "i2"])
        .end(ReleaseStatus::Succeeded);
    workspace
        .journal
        .delete(&release_id("r1"), "ada", Timestamp(5))
        .unwrap();
    workspace
        .journal
        .delete(&release_id("r2"), "ada", Timestamp(5))
        .unwrap();
    assert_eq!(
        workspace.journal.package(&deployment_id("r1-1")).unwrap(),
        None
    );
}

#[test]
fn a_deleted_release_leaves_an_audit_row_and_nothing_else() {
    let workspace = Workspace::new();
    let mut driver = workspace.open("r1", &[WEB]);
    driver
        .change(ReleaseStatus::Pausing)
        .change(ReleaseStatus::Paused);

    workspace
        .journal
        .delete(&release_id("r1"), "bob@desk", Timestamp(5))
        .unwrap();

    let raw = Connection::open(workspace.path()).unwrap();
    let audit: String = raw
        .query_row("SELECT concat_ws('|', id, comment, operator, status, deleted_at, deleted_by) FROM audit", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(audit, "r1|about r1|ada@build|PAUSED|5|bob@desk");
    for table in [
        "releases",
        "records",
        "release_groups",
        "locks",
        "deployments",
        "targets",
    ] {
        let left: i64 = raw
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(left, 0, "{table}");
    }
    assert_eq!(workspace.journal.holder(&group(WEB)).unwrap(), None);
    let late = workspace
        .journal
        .append(&driver.tenure, vec![remark(driver.next)])
        .wait();
    assert!(
        matches!(late, Err(Error::UnknownRelease { .. })),
        "{late:?}"
    );
    let again = workspace
        .journal
        .open_release(vec![opened("r1")], &[], &me());
    assert!(matches!(again, Err(OpenError::Exists { .. })), "{again:?}");
}

#[test]
fn an_unknown_release_cannot_be_deleted() {
    let workspace = Workspace::new();

    let refused = workspace
        .journal
        .delete(&release_id("r1"), "ada", Timestamp(5));

    assert!(
        matches!(
            refused,
            Err(DeleteError::Journal(Error::UnknownRelease { .. }))
        ),
        "{refused:?}"
    );
}

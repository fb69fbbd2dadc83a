//! Projections and look-ups.

use std::collections::BTreeMap;
use std::sync::Arc;

use journal::{DeploymentSummary, Filter, FindError, Journal};
use model::{DeploymentId, Direction, Fact, InstanceId, ReleaseStatus, Timestamp};
use rusqlite::Connection;

use crate::scenario::{
    Workspace, departed, deployment, deployment_id, group, opened, package, release_id,
};

const WEB: &str = "shop/web";

/// Two good releases, and one that fails and is rolled back by itself, on three instances.
fn eventful() -> Workspace {
    use ReleaseStatus::{Failed, Succeeded};
    let workspace = Workspace::new();
    workspace
        .open("aa1", &[WEB])
        .deploy("aa1-1", WEB, "1.0.0", &["i1", "i2"])
        .end_deployment("aa1-1", Succeeded)
        .end(Succeeded);
    workspace
        .open("ab2", &[WEB])
        .deploy("ab2-1", WEB, "1.1.0", &["i1", "i2", "i3"])
        .end_deployment("ab2-1", Succeeded)
        .end(Succeeded);
    workspace
        .open("b3", &[WEB, "shop/api"])
        .deploy("b3-1", WEB, "1.2.0", &["i1"])
        .end_deployment("b3-1", Failed)
        .roll_back("b3-2", "b3-1", ("ab2-1", "1.1.0"), &["i1"])
        .end_deployment("b3-2", Succeeded)
        .end(Failed);
    workspace
}

fn installed(journal: &Journal) -> BTreeMap<InstanceId, DeploymentId> {
    journal.installed(&group(WEB)).unwrap()
}

fn on(pairs: &[(&str, &str)]) -> BTreeMap<InstanceId, DeploymentId> {
    pairs
        .iter()
        .map(|(instance, id)| (instance.parse().unwrap(), deployment_id(id)))
        .collect()
}

#[test]
fn the_installed_package_is_that_of_the_last_finished_install() {
    let workspace = eventful();

    assert_eq!(
        installed(&workspace.journal),
        on(&[("i1", "ab2-1"), ("i2", "ab2-1"), ("i3", "ab2-1")])
    );

    workspace
        .open("c4", &[WEB])
        .deploy("c4-1", WEB, "1.3.0", &["i2"]);

    assert_eq!(
        installed(&workspace.journal),
        on(&[("i1", "ab2-1"), ("i2", "c4-1"), ("i3", "ab2-1")])
    );
    assert_eq!(
        workspace.journal.installed(&group("shop/api")).unwrap(),
        BTreeMap::new()
    );
}

#[test]
fn releases_are_listed_newest_first_with_their_status() {
    let workspace = eventful();
    workspace
        .open("c4", &["shop/api"])
        .change(ReleaseStatus::Pausing)
        .change(ReleaseStatus::Paused);
    let (api, db) = (group("shop/api"), group("shop/db"));
    let (failed, unknown) = (release_id("b3"), release_id("zz"));
    let list = |filter, limit| -> Vec<String> {
        let summaries = workspace.journal.releases(filter, limit).unwrap();
        summaries
            .iter()
            .map(|summary| format!("{} {}", summary.id, summary.status))
            .collect()
    };

    assert_eq!(
        list(Filter::All, 9),
        ["c4 PAUSED", "b3 FAILED", "ab2 SUCCEEDED", "aa1 SUCCEEDED"]
    );
    assert_eq!(list(Filter::All, 2), ["c4 PAUSED", "b3 FAILED"]);
    assert_eq!(list(Filter::Group(&api), 9), ["c4 PAUSED", "b3 FAILED"]);
    assert_eq!(list(Filter::Group(&db), 9), Vec::<String>::new());
    assert_eq!(list(Filter::Release(&failed), 9), ["b3 FAILED"]);
    assert_eq!(list(Filter::Release(&unknown), 9), Vec::<String>::new());

    let summaries = workspace.journal.releases(Filter::All, 2).unwrap();
    assert_eq!(summaries[1].groups, [group("shop/api"), group(WEB)]);
    assert_eq!(
        (
            summaries[1].comment.as_str(),
            summaries[1].operator.as_str()
        ),
        ("about b3", "ada@build")
    );
    assert!(summaries[0].owner.is_some() && summaries[0].ended_at.is_none());
    assert!(summaries[1].owner.is_none() && summaries[1].ended_at.is_some());
}

#[test]
fn a_running_release_of_a_dead_owner_is_abandoned() {
    let workspace = Workspace::new();
    workspace
        .journal
        .open_release(vec![opened("r1")], &[], &departed())
        .unwrap();
    workspace.open("r2", &[]);

    let summaries = workspace.journal.releases(Filter::All, 9).unwrap();

    let abandoned: Vec<_> = summaries
        .iter()
        .map(|summary| summary.is_abandoned(Timestamp(1)))
        .collect();
    assert_eq!(abandoned, [false, true]);
}

#[test]
fn deployments_tell_what_was_taken_back() {
    let workspace = eventful();

    let deployments = workspace.journal.deployments(&group(WEB), 9).unwrap();

    let lines: Vec<_> = deployments
        .iter()
        .map(|d| {
            format!(
                "{} {} {} {} {}",
                d.id,
                d.release,
                d.version,
                d.direction.name(),
                d.status
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "b3-2 b3 1.1.0 rollback SUCCEEDED",
            "b3-1 b3 1.2.0 deploy FAILED",
            "ab2-1 ab2 1.1.0 deploy SUCCEEDED",
            "aa1-1 aa1 1.0.0 deploy SUCCEEDED",
        ]
    );
    assert_eq!(
        deployments[0].direction,
        Direction::Rollback {
            of: deployment_id("b3-1")
        }
    );
    let taken_back: Vec<_> = deployments
        .iter()
        .map(|d| d.rolled_back_by.clone())
        .collect();
    assert_eq!(taken_back, [None, Some(deployment_id("b3-2")), None, None]);
}

#[test]
fn a_rollback_that_failed_takes_nothing_back() {
    use ReleaseStatus::Failed;
    let workspace = Workspace::new();
    workspace
        .open("r1", &[WEB])
        .deploy("r1-1", WEB, "1.0.0", &["i1"])
        .end_deployment("r1-1", Failed)
        .roll_back("r1-2", "r1-1", ("r0-1", "0.9.0"), &[])
        .end_deployment("r1-2", Failed)
        .end(Failed);

    let deployments = workspace.journal.deployments(&group(WEB), 9).unwrap();

    assert!(
        deployments
            .iter()
            .all(|deployment| deployment.rolled_back_by.is_none())
    );
}

#[test]
fn who_returns_to_an_older_version_takes_back_everything_since() {
    use ReleaseStatus::Succeeded;
    let workspace = Workspace::new();
    for (release, version) in [("r1", "1.0.0"), ("r2", "1.1.0"), ("r3", "1.2.0")] {
        let id = format!("{release}-1");
        workspace
            .open(release, &[WEB])
            .deploy(&id, WEB, version, &["i1"])
            .end_deployment(&id, Succeeded)
            .end(Succeeded);
    }
    let taken_back = || {
        let deployments = workspace.journal.deployments(&group(WEB), 9).unwrap();
        let deploys = deployments
            .into_iter()
            .filter(|deployment| deployment.direction == Direction::Deploy);
        let by = |deployment: DeploymentSummary| deployment.rolled_back_by.map(|by| by.to_string());
        deploys.map(by).collect::<Vec<_>>()
    };

    workspace
        .open("r4", &[WEB])
        .roll_back("r4-1", "r3-1", ("r1-1", "1.0.0"), &["i1"])
        .end_deployment("r4-1", Succeeded)
        .end(Succeeded);
    let back = taken_back();
    workspace
        .open("r5", &[WEB])
        .roll_back("r5-1", "r1-1", ("r2-1", "1.1.0"), &["i1"])
        .end_deployment("r5-1", Succeeded)
        .end(Succeeded);
    let forth = taken_back();

    let by = |id: &str| Some(id.to_owned());
    assert_eq!(back, [by("r4-1"), by("r4-1"), None]);
    assert_eq!(forth, [by("r4-1"), None, by("r5-1")]);
}

#[test]
fn a_retry_brings_no_version_and_is_taken_back_with_what_it_retries() {
    use ReleaseStatus::{Failed, Succeeded};
    let workspace = Workspace::new();
    workspace
        .open("r1", &[WEB])
        .deploy("r1-1", WEB, "1.0.0", &["i1"])
        .end_deployment("r1-1", Failed)
        .end(Failed);
    let retry = deployment("r2-1", WEB, "1.0.0", Direction::Deploy, "r1-1", &["i2"]);
    workspace
        .open("r2", &[WEB])
        .append(Fact::DeploymentOpened(Arc::new(retry)))
        .end_deployment("r2-1", Succeeded)
        .end(Succeeded);
    workspace
        .open("r3", &[WEB])
        .roll_back("r3-1", "r1-1", ("r0-1", "0.9.0"), &["i1", "i2"])
        .end_deployment("r3-1", Succeeded)
        .end(Succeeded);

    let deployments = workspace.journal.deployments(&group(WEB), 9).unwrap();
    let versions = workspace.journal.versions(&group(WEB)).unwrap();

    assert_eq!(deployments[1].retries, Some(deployment_id("r1-1")));
    let by = Some(deployment_id("r3-1"));
    assert_eq!(
        (
            &deployments[1].rolled_back_by,
            &deployments[2].rolled_back_by
        ),
        (&by, &by)
    );
    let brought: Vec<_> = versions
        .iter()
        .map(|used| used.deployment.as_str())
        .collect();
    assert_eq!(brought, ["r1-1"]);
}

#[test]
fn a_deployment_tells_why_it_ended() {
    use ReleaseStatus::Failed;
    let workspace = Workspace::new();
    workspace
        .open("r1", &[WEB])
        .deploy("r1-1", WEB, "1.0.0", &["i1"])
        .append(Fact::DeploymentEnded {
            deployment: deployment_id("r1-1"),
            status: Failed,
            reason: Some("web-1 failed".to_owned()),
        })
        .end(Failed);
    workspace
        .open("r2", &[WEB])
        .deploy("r2-1", WEB, "1.1.0", &["i1"])
        .change(ReleaseStatus::Paused)
        .change(ReleaseStatus::Stopped);
    workspace
        .open("r3", &[WEB])
        .deploy("r3-1", WEB, "1.2.0", &["i1"]);

    let reasons = ["r1-1", "r2-1", "r3-1", "r9-1"]
        .map(|id| workspace.journal.reason(&deployment_id(id)).unwrap());

    let told = |text: &str| Some(text.to_owned());
    assert_eq!(
        reasons,
        [told("web-1 failed"), told("asked for"), None, None]
    );
}

#[test]
fn versions_are_those_that_deployments_brought() {
    let workspace = eventful();

    let versions = workspace.journal.versions(&group(WEB)).unwrap();

    let lines: Vec<_> = versions
        .iter()
        .map(|v| format!("{} {} {}", v.version, v.deployment, v.status))
        .collect();
    assert_eq!(
        lines,
        [
            "1.2.0 b3-1 FAILED",
            "1.1.0 ab2-1 SUCCEEDED",
            "1.0.0 aa1-1 SUCCEEDED"
        ]
    );
}

#[test]
fn a_package_is_found_by_the_deployment_that_fetched_it() {
    let workspace = eventful();
    let found = |id: &str| workspace.journal.package(&deployment_id(id)).unwrap();

    assert_eq!(found("ab2-1").as_deref(), Some(&package("ab2-1", "1.1.0")));
    assert_eq!(found("b3-2"), None);
    assert_eq!(found("z9-1"), None);
}

#[test]
fn stopping_a_paused_release_ends_its_deployments() {
    let workspace = Workspace::new();
    workspace
        .open("r1", &[WEB])
        .deploy("r1-1", WEB, "1.0.0", &["i1"])
        .change(ReleaseStatus::Paused)
        .change(ReleaseStatus::Stopped);

    let deployments = workspace.journal.deployments(&group(WEB), 9).unwrap();

    assert_eq!(deployments[0].status, ReleaseStatus::Stopped);
}

#[test]
fn ids_are_found_by_a_prefix_that_fits_one() {
    let workspace = eventful();
    let find = |prefix: &str| match workspace.journal.find(prefix) {
        Ok(found) => match found.deployment {
            Some(deployment) => format!("{deployment} of {}", found.release),
            None => found.release.to_string(),
        },
        Err(FindError::NotFound { .. }) => "nothing".to_owned(),
        Err(FindError::Ambiguous { matches, .. }) => matches.join(" or "),
        Err(FindError::Journal(error)) => panic!("{error}"),
    };

    for (prefix, expected) in [
        ("aa1", "aa1"),
        ("aa", "aa1"),
        ("a", "aa1 or ab2"),
        ("b", "b3"),
        ("b3", "b3"),
        ("b3-", "b3-1 or b3-2"),
        ("b3-2", "b3-2 of b3"),
        ("ab2-", "ab2-1 of ab2"),
        ("z", "nothing"),
        ("", "nothing"),
        ("%", "nothing"),
        ("~", "nothing"),
    ] {
        assert_eq!(find(prefix), expected, "`{prefix}`");
    }
}

/// Everything that is not a record, an owner or a lock.
fn projections(raw: &Connection) -> Vec<String> {
    let mut lines = Vec::new();
    for sql in [
        "SELECT concat_ws('|', id, opened_at, ended_at, comment, operator, status) FROM releases ORDER BY 1",
        "SELECT concat_ws('|', id, release, seq, position, application, grp, version, kind, strategy, direction, of,
            status, opened_at, ended_at) FROM deployments ORDER BY 1",
        "SELECT concat_ws('|', deployment, instance, incoming) FROM targets ORDER BY 1",
        "SELECT concat_ws('|', application, grp, instance, deployment, position) FROM installed ORDER BY 1",
    ] {
        let mut sql = raw.prepare(sql).unwrap();
        lines.extend(sql.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
    }
    lines
}

#[test]
fn projections_are_what_a_rebuild_makes_of_the_records() {
    let workspace = eventful();
    workspace
        .open("c4", &[WEB])
        .deploy("c4-1", WEB, "1.3.0", &["i2"])
        .change(ReleaseStatus::Paused);
    workspace
        .open("d5", &["shop/db"])
        .deploy("d5-1", "shop/db", "1.0.0", &["i1"])
        .change(ReleaseStatus::Stopped);
    // What this one installed has no record to follow from any more.
    workspace
        .journal
        .delete(&release_id("b3"), "ada@build", Timestamp(9))
        .unwrap();
    let raw = Connection::open(workspace.path()).unwrap();
    let live = projections(&raw);

    raw.execute_batch(
        "PRAGMA foreign_keys = ON;
         DELETE FROM targets WHERE deployment = 'aa1-1';
         UPDATE deployments SET status = 'FAILED', version = '9.9.9';
         UPDATE installed SET deployment = 'lost' WHERE instance = 'i2';
         UPDATE releases SET status = 'FAILED', comment = '', ended_at = 1;",
    )
    .unwrap();
    assert_ne!(projections(&raw), live);
    workspace.journal.rebuild().unwrap();

    assert_eq!(projections(&raw), live);
    assert_eq!(
        installed(&workspace.journal),
        on(&[("i1", "ab2-1"), ("i2", "c4-1"), ("i3", "ab2-1")])
    );
    assert!(workspace.journal.holder(&group(WEB)).unwrap().is_some());
}

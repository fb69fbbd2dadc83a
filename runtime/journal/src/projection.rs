//! What follows from the records: the tables that answer questions quickly. Each changes in the transaction of the
//! record that it follows from, by [`apply`] alone, so that [`rebuild`] arrives at the same content.

use model::{
    Direction, Ending, Fact, GroupRef, LifecycleEvent, Record, ReleaseId, ReleaseStatus, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::history::{record_of, text};
use crate::journal::{Error, Fault};

/// Where a record stands.
pub(crate) struct Place<'a> {
    pub(crate) release: &'a ReleaseId,
    /// The release's key in the file.
    pub(crate) number: i64,
    /// Among the records of all releases.
    pub(crate) position: i64,
}

impl Place<'_> {
    fn inconsistent(&self, record: &Record, problem: &'static str) -> Fault {
        Error::Inconsistent {
            release: self.release.clone(),
            seq: record.seq,
            problem,
        }
        .into()
    }
}

/// Whether nothing may follow the fact.
pub(crate) fn is_end(fact: &Fact) -> bool {
    match fact {
        Fact::ReleaseEnded { .. } => true,
        Fact::StatusChanged { status, .. } => status.is_terminal(),
        _ => false,
    }
}

/// Refuses to open a deployment that exists, or on a group that the release does not hold.
pub(crate) fn authorise(
    connection: &Connection,
    place: &Place<'_>,
    record: &Record,
) -> Result<(), Fault> {
    let Fact::DeploymentOpened(deployment) = &record.fact else {
        return Ok(());
    };
    let GroupRef { application, group } = &deployment.group;
    let is_held = connection
        .prepare_cached("SELECT 1 FROM locks WHERE release = ?1 AND application = ?2 AND grp = ?3")?
        .exists(params![place.number, application.as_str(), group.as_str()])?;
    if !is_held {
        return Err(Error::NotHeld {
            release: place.release.clone(),
            deployment: deployment.id.clone(),
            group: deployment.group.clone(),
        }
        .into());
    }
    let is_known = connection
        .prepare_cached("SELECT 1 FROM deployments WHERE id = ?1")?
        .exists([deployment.id.as_str()])?;
    if is_known {
        return Err(place.inconsistent(record, "a deployment with this id exists already"));
    }
    Ok(())
}

/// Carries one record into the projections.
pub(crate) fn apply(
    connection: &Connection,
    place: &Place<'_>,
    record: &Record,
) -> Result<(), Fault> {
    let at = record.at;
    match &record.fact {
        Fact::ReleaseOpened(release) => {
            connection
                .prepare_cached(
                    "UPDATE releases SET opened_at = ?2, comment = ?3, operator = ?4, status = ?5, ended_at = NULL
                     WHERE number = ?1",
                )?
                .execute(params![
                    place.number,
                    at.0,
                    release.comment,
                    release.operator,
                    ReleaseStatus::Running.name()
                ])?;
        }
        Fact::DeploymentOpened(deployment) => {
            open_deployment(connection, place, record, deployment)?;
        }
        Fact::StepEnded {
            deployment,
            instance,
            event: LifecycleEvent::Install,
            ending: Ending::Succeeded { .. },
            attempt: _,
        } => {
            let changed = connection
                .prepare_cached(
                    "INSERT INTO installed (application, grp, instance, deployment, position)
                     SELECT application, grp, instance, incoming, ?3
                     FROM targets JOIN deployments ON id = deployment WHERE deployment = ?1 AND instance = ?2
                     ON CONFLICT DO UPDATE SET deployment = excluded.deployment, position = excluded.position
                     WHERE excluded.position >= installed.position",
                )?
                .execute(params![deployment.as_str(), instance.as_str(), place.position])?;
            if changed == 0 && !is_target(connection, deployment.as_str(), instance.as_str())? {
                return Err(
                    place.inconsistent(record, "the instance is no target of the deployment")
                );
            }
        }
        Fact::DeploymentEnded {
            deployment, status, ..
        } => {
            let changed = connection
                .prepare_cached("UPDATE deployments SET status = ?3, ended_at = ?4 WHERE id = ?1 AND release = ?2")?
                .execute(params![deployment.as_str(), place.number, status.name(), at.0])?;
            if changed == 0 {
                return Err(place
                    .inconsistent(record, "the deployment has not been opened in this release"));
            }
        }
        Fact::StatusChanged { status, .. } | Fact::ReleaseEnded { status, .. } => {
            change_status(connection, place, *status, at)?;
        }
        Fact::StepStarted { .. }
        | Fact::StepEnded { .. }
        | Fact::StepSkipped { .. }
        | Fact::SwitchStarted { .. }
        | Fact::SwitchEnded { .. }
        | Fact::SwitchSkipped { .. }
        | Fact::HoldOpened { .. }
        | Fact::HoldClosed { .. }
        | Fact::HealthObserved { .. }
        | Fact::Ordered { .. }
        | Fact::InstanceEnded { .. } => {}
    }
    Ok(())
}

/// Makes every projection again. What deleted releases left installed has no record to follow from, and stays.
pub(crate) fn rebuild(connection: &Connection) -> Result<(), Fault> {
    connection.execute_batch(
        "DELETE FROM deployments;
         DELETE FROM installed WHERE position IN (SELECT position FROM records);",
    )?;
    let mut sql = connection.prepare(
        "SELECT seq, at, body, id, number, position FROM records JOIN releases ON number = release ORDER BY position",
    )?;
    let mut rows = sql.query([])?;
    while let Some(row) = rows.next()? {
        let release: ReleaseId = text(row, 3)?;
        let record = record_of(row, &release)?;
        let place = Place {
            release: &release,
            number: row.get(4)?,
            position: row.get(5)?,
        };
        apply(connection, &place, &record)?;
    }
    Ok(())
}

fn open_deployment(
    connection: &Connection,
    place: &Place<'_>,
    record: &Record,
    deployment: &model::Deployment,
) -> Result<(), Fault> {
    let of = match &deployment.direction {
        Direction::Deploy | Direction::Operate => None,
        Direction::Rollback { of } | Direction::Retire { of } => Some(of.as_str()),
    };
    connection
        .prepare_cached(
            "INSERT INTO deployments
             (id, release, seq, position, application, grp, version, kind, strategy, direction, of, status, opened_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            deployment.id.as_str(),
            place.number,
            record.seq.cast_signed(),
            place.position,
            deployment.group.application.as_str(),
            deployment.group.group.as_str(),
            deployment.revision.version.as_str(),
            deployment.kind,
            deployment.strategy.name(),
            deployment.direction.name(),
            of,
            ReleaseStatus::Running.name(),
            record.at.0
        ])?;
    let mut sql = connection.prepare_cached(
        "INSERT INTO targets (deployment, instance, incoming) VALUES (?1, ?2, ?3)",
    )?;
    for target in &deployment.targets {
        sql.execute([
            deployment.id.as_str(),
            target.instance.id.as_str(),
            target.incoming.as_str(),
        ])?;
    }
    Ok(())
}

fn is_target(connection: &Connection, deployment: &str, instance: &str) -> Result<bool, Fault> {
    let found = connection
        .prepare_cached("SELECT 1 FROM targets WHERE deployment = ?1 AND instance = ?2")?
        .query_row([deployment, instance], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

fn change_status(
    connection: &Connection,
    place: &Place<'_>,
    status: ReleaseStatus,
    at: Timestamp,
) -> Result<(), Fault> {
    let ended_at = status.is_terminal().then_some(at.0);
    connection
        .prepare_cached("UPDATE releases SET status = ?2, ended_at = ?3 WHERE number = ?1")?
        .execute(params![place.number, status.name(), ended_at])?;
    if status.is_terminal() {
        // A paused release that is stopped ends without another word on the deployments it was in.
        connection
            .prepare_cached(
                "UPDATE deployments SET status = ?2, ended_at = ?3 WHERE release = ?1 AND ended_at IS NULL",
            )?
            .execute(params![place.number, status.name(), at.0])?;
    }
    Ok(())
}

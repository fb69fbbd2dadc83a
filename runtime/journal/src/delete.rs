//! Deleting a release. An audit row remains.

use model::{DeploymentId, GroupRef, InstanceId, ReleaseId, ReleaseStatus, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::history::text;
use crate::journal::{Error, Fault, Journal};
use crate::tenure::standing;

/// A release that cannot be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("release `{release}` is {status}: stop it first")]
    Active {
        release: ReleaseId,
        status: ReleaseStatus,
    },
    /// Its record is what says how that package is stopped, and where it came from.
    #[error(
        "`{instance}` of `{group}` runs what deployment `{deployment}` of release `{release}` brought"
    )]
    StillInstalled {
        release: ReleaseId,
        group: GroupRef,
        instance: InstanceId,
        deployment: DeploymentId,
    },
    #[error(transparent)]
    Journal(#[from] Error),
}

impl Journal {
    /// Deletes a release's records and frees its groups; keeps who deleted what and when. What the release installed
    /// of other releases' packages stays known.
    ///
    /// # Errors
    /// [`DeleteError::Active`], [`DeleteError::StillInstalled`] or [`Error::UnknownRelease`].
    pub fn delete(&self, release: &ReleaseId, by: &str, now: Timestamp) -> Result<(), DeleteError> {
        let (release, by) = (release.clone(), by.to_owned());
        self.write("delete a release", move |connection| {
            delete(connection, release, &by, now)
        })?
    }
}

fn delete(
    connection: &Connection,
    release: ReleaseId,
    by: &str,
    now: Timestamp,
) -> Result<Result<(), DeleteError>, Fault> {
    let standing = standing(connection, &release)?;
    if standing.status.is_active() {
        return Ok(Err(DeleteError::Active {
            release,
            status: standing.status,
        }));
    }
    let installed = connection
        .prepare_cached(
            "SELECT i.application, i.grp, i.instance, i.deployment
             FROM deployments d JOIN installed i ON i.deployment = d.id WHERE d.release = ?1 ORDER BY 1, 2, 3 LIMIT 1",
        )?
        .query_row([standing.number], |row| {
            let group = GroupRef { application: text(row, 0)?, group: text(row, 1)? };
            Ok((group, text(row, 2)?, text(row, 3)?))
        })
        .optional()?;
    if let Some((group, instance, deployment)) = installed {
        return Ok(Err(DeleteError::StillInstalled {
            release,
            group,
            instance,
            deployment,
        }));
    }
    connection
        .prepare_cached(
            "INSERT INTO audit (id, comment, operator, status, opened_at, ended_at, deleted_at, deleted_by)
             SELECT id, comment, operator, status, opened_at, ended_at, ?2, ?3 FROM releases WHERE number = ?1",
        )?
        .execute(params![standing.number, now.0, by])?;
    connection
        .prepare_cached("DELETE FROM releases WHERE number = ?1")?
        .execute([standing.number])?;
    Ok(Ok(()))
}

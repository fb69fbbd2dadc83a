//! Reading: releases with their records, deployments, and what is installed where.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

use model::{
    Deployment, DeploymentId, Direction, Fact, GroupRef, InstanceId, Package, Record, ReleaseId,
    ReleaseStatus, Timestamp, Version,
};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::journal::{Error, Fault, Journal};
use crate::owner::Owner;
use crate::taken_back::{Past, Return, taken_back_by};
use crate::tenure::{may_be_succeeded, owner_of, standing};
use crate::wire;

/// The deployments of a group, the newest first. A deployment that brings another one's package retries that.
const DEPLOYMENTS: &str = "
SELECT d.id, r.id, d.application, d.grp, d.version, d.kind, d.strategy, d.of, d.status, d.opened_at, d.ended_at,
    r.operator, d.direction,
    CASE WHEN d.direction = 'deploy' THEN
        (SELECT incoming FROM targets WHERE deployment = d.id AND incoming <> d.id LIMIT 1) END,
    d.position
FROM deployments d JOIN releases r ON r.number = d.release
WHERE d.application = ?1 AND d.grp = ?2 ORDER BY d.position DESC LIMIT ?3";

/// What the rollbacks of a group that succeeded have brought to instances, from a position on.
const RETURNS: &str = "
SELECT back.position, back.incoming, p.position FROM (
    SELECT DISTINCT b.position, t.incoming FROM deployments b JOIN targets t ON t.deployment = b.id
    WHERE b.application = ?1 AND b.grp = ?2 AND b.position >= ?3 AND b.direction = 'rollback' AND b.status = 'SUCCEEDED'
) back LEFT JOIN deployments p ON p.id = back.incoming";

/// Which releases to list.
#[derive(Debug, Clone, Copy)]
pub enum Filter<'a> {
    All,
    Group(&'a GroupRef),
    Release(&'a ReleaseId),
}

/// A release in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub id: ReleaseId,
    pub comment: String,
    pub operator: String,
    /// As the records say it. See [`Summary::is_abandoned`].
    pub status: ReleaseStatus,
    pub opened_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub groups: Vec<GroupRef>,
    /// The process that drives it; none when it has ended or was left.
    pub owner: Option<Owner>,
    pub expires_at: Timestamp,
}

impl Summary {
    /// Whether it should be driven and is not: its conductor died before it could say so.
    #[must_use]
    pub fn is_abandoned(&self, now: Timestamp) -> bool {
        self.status.is_active() && self.may_be_succeeded(now)
    }

    /// Whether nobody drives it, or certainly nobody who lives.
    #[must_use]
    pub fn may_be_succeeded(&self, now: Timestamp) -> bool {
        may_be_succeeded(self.owner.as_ref(), self.expires_at, now)
    }
}

/// A deployment in a group's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentSummary {
    pub id: DeploymentId,
    pub release: ReleaseId,
    pub group: GroupRef,
    pub version: Version,
    pub kind: String,
    /// The strategy's word.
    pub strategy: String,
    pub direction: Direction,
    pub status: ReleaseStatus,
    pub opened_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub operator: String,
    /// The rollback that succeeded in taking this one back, by naming it or by returning to what was before it.
    pub rolled_back_by: Option<DeploymentId>,
    /// The deployment whose package this one brings once more, to the instances that did not get it.
    pub retries: Option<DeploymentId>,
}

/// A version that a group has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionUse {
    pub version: Version,
    /// The deployment that brought it.
    pub deployment: DeploymentId,
    pub status: ReleaseStatus,
}

impl Journal {
    /// The records of a release from `from_seq` on, in order and without gaps.
    ///
    /// # Errors
    /// [`Error::UnknownRelease`]; [`Error::Record`] or [`Error::Missing`] when the journal's content is broken.
    pub fn records(&self, release: &ReleaseId, from_seq: u64) -> Result<Vec<Record>, Error> {
        self.read("read the records of a release", |connection| {
            let number = standing(connection, release)?.number;
            let mut sql = connection.prepare_cached(
                "SELECT seq, at, body FROM records WHERE release = ?1 AND seq >= ?2 ORDER BY seq",
            )?;
            let from = i64::try_from(from_seq).unwrap_or(i64::MAX);
            let mut rows = sql.query([number, from])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                let record = record_of(row, release)?;
                let expected = from_seq + records.len() as u64;
                if record.seq != expected {
                    return Err(Error::Missing {
                        release: release.clone(),
                        seq: expected,
                    }
                    .into());
                }
                records.push(record);
            }
            Ok(records)
        })
    }

    /// Releases, the newest first.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn releases(&self, filter: Filter<'_>, limit: usize) -> Result<Vec<Summary>, Error> {
        let columns = "SELECT number, id, comment, operator, status, opened_at, ended_at, owner, expires_at FROM releases";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read("list the releases", |connection| {
            let summaries: Vec<(i64, Summary)> = match filter {
                Filter::All => connection
                    .prepare_cached(&format!("{columns} ORDER BY number DESC LIMIT ?1"))?
                    .query_map([limit], summary_of)?
                    .collect::<Result<_, _>>()?,
                Filter::Group(GroupRef { application, group }) => connection
                    .prepare_cached(&format!(
                        "{columns} JOIN release_groups ON release = number
                         WHERE application = ?2 AND grp = ?3 ORDER BY release DESC LIMIT ?1"
                    ))?
                    .query_map(
                        params![limit, application.as_str(), group.as_str()],
                        summary_of,
                    )?
                    .collect::<Result<_, _>>()?,
                Filter::Release(id) => connection
                    .prepare_cached(&format!("{columns} WHERE id = ?2 LIMIT ?1"))?
                    .query_map(params![limit, id.as_str()], summary_of)?
                    .collect::<Result<_, _>>()?,
            };
            let mut sql = connection
                .prepare_cached("SELECT application, grp FROM release_groups WHERE release = ?1")?;
            summaries
                .into_iter()
                .map(|(number, mut summary)| {
                    summary.groups = sql
                        .query_map([number], |row| group_of(row, 0))?
                        .collect::<Result<_, _>>()?;
                    Ok(summary)
                })
                .collect()
        })
    }

    /// The deployments of a group, the newest first.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn deployments(
        &self,
        group: &GroupRef,
        limit: usize,
    ) -> Result<Vec<DeploymentSummary>, Error> {
        self.read("list the deployments of a group", |connection| {
            deployments(connection, group, limit)
        })
    }

    /// The versions that deployments have brought to a group, the newest first. Rollbacks and retries bring none.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn versions(&self, group: &GroupRef) -> Result<Vec<VersionUse>, Error> {
        self.read("list the versions of a group", |connection| {
            let mut sql = connection.prepare_cached(
                "SELECT version, id, status FROM deployments
                 WHERE application = ?1 AND grp = ?2 AND of IS NULL
                     AND NOT EXISTS (SELECT 1 FROM targets WHERE deployment = id AND incoming <> id)
                 ORDER BY position DESC",
            )?;
            let rows =
                sql.query_map([group.application.as_str(), group.group.as_str()], |row| {
                    Ok(VersionUse {
                        version: version_of(row, 0)?,
                        deployment: text(row, 1)?,
                        status: status_of(row, 2)?,
                    })
                })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// What each instance of a group has installed, as the key of its package.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn installed(&self, group: &GroupRef) -> Result<BTreeMap<InstanceId, DeploymentId>, Error> {
        self.read("list what is installed in a group", |connection| {
            let mut sql = connection.prepare_cached(
                "SELECT instance, deployment FROM installed WHERE application = ?1 AND grp = ?2",
            )?;
            let rows = sql
                .query_map([group.application.as_str(), group.group.as_str()], |row| {
                    Ok((text(row, 0)?, text(row, 1)?))
                })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// A deployment as it was opened; none when the journal does not hold it.
    ///
    /// # Errors
    /// [`Error::Record`] when its record cannot be read; [`Error::Damaged`] or [`Error::Storage`].
    pub fn deployment(&self, id: &DeploymentId) -> Result<Option<Arc<Deployment>>, Error> {
        self.read("read a deployment", |connection| deployment(connection, id))
    }

    /// Why a deployment ended as it did; none while it has not ended, and where there is nothing to tell.
    ///
    /// # Errors
    /// As [`Journal::deployment`].
    pub fn reason(&self, id: &DeploymentId) -> Result<Option<String>, Error> {
        self.read("read how a deployment ended", |connection| {
            reason(connection, id)
        })
    }

    /// The package that a deployment fetched. Rollbacks and retries fetch none.
    ///
    /// # Errors
    /// As [`Journal::deployment`].
    pub fn package(&self, id: &DeploymentId) -> Result<Option<Arc<Package>>, Error> {
        Ok(self
            .deployment(id)?
            .and_then(|deployment| deployment.packages.get(id).cloned()))
    }
}

/// Reads the columns seq, at and body, which come first.
pub(crate) fn record_of(row: &Row<'_>, release: &ReleaseId) -> Result<Record, Fault> {
    let seq = row.get::<_, i64>(0)?.cast_unsigned();
    let body = row
        .get_ref(2)?
        .as_str()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, Type::Text, error.into()))?;
    let fact = wire::decode(body).map_err(|source| Error::Record {
        release: release.clone(),
        seq,
        source,
    })?;
    Ok(Record {
        seq,
        at: Timestamp(row.get(1)?),
        fact,
    })
}

/// Reads a column that holds an id.
pub(crate) fn text<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error: T::Err| unreadable(column, error))
}

/// Reads a column that holds a status.
pub(crate) fn status_of(row: &Row<'_>, column: usize) -> rusqlite::Result<ReleaseStatus> {
    let name: String = row.get(column)?;
    ReleaseStatus::from_name(&name).ok_or_else(|| unreadable(column, UnknownStatus { name }))
}

#[derive(Debug, thiserror::Error)]
#[error("`{name}` is not the status of a release")]
struct UnknownStatus {
    name: String,
}

fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

fn version_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Version> {
    let text: String = row.get(column)?;
    Version::parse(&text).map_err(|error| unreadable(column, error))
}

fn group_of(row: &Row<'_>, column: usize) -> rusqlite::Result<GroupRef> {
    Ok(GroupRef {
        application: text(row, column)?,
        group: text(row, column + 1)?,
    })
}

fn summary_of(row: &Row<'_>) -> rusqlite::Result<(i64, Summary)> {
    let summary = Summary {
        id: text(row, 1)?,
        comment: row.get(2)?,
        operator: row.get(3)?,
        status: status_of(row, 4)?,
        opened_at: Timestamp(row.get(5)?),
        ended_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        groups: Vec::new(),
        owner: owner_of(row, 7)?,
        expires_at: Timestamp(row.get(8)?),
    };
    Ok((row.get(0)?, summary))
}

/// The deployments of a group, the newest first. Reads several times, of what has to be one state of the journal.
pub(crate) fn deployments(
    connection: &Connection,
    group: &GroupRef,
    limit: usize,
) -> Result<Vec<DeploymentSummary>, Fault> {
    let (application, name) = (group.application.as_str(), group.group.as_str());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let history: Vec<Past> = connection
        .prepare_cached(DEPLOYMENTS)?
        .query_map(params![application, name, limit], past_of)?
        .collect::<Result<_, _>>()?;
    let Some(oldest) = history.last() else {
        return Ok(Vec::new());
    };
    let returns: Vec<Return> = connection
        .prepare_cached(RETURNS)?
        .query_map(params![application, name, oldest.position], |row| {
            Ok(Return {
                rollback: row.get(0)?,
                to: text(row, 1)?,
                to_position: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let installed: BTreeSet<DeploymentId> = connection
        .prepare_cached(
            "SELECT DISTINCT deployment FROM installed WHERE application = ?1 AND grp = ?2",
        )?
        .query_map([application, name], |row| text(row, 0))?
        .collect::<Result<_, _>>()?;
    let by = taken_back_by(&history, &returns, &installed);
    let summaries = history.into_iter().zip(by);
    Ok(summaries
        .map(|(past, rolled_back_by)| DeploymentSummary {
            rolled_back_by,
            ..past.summary
        })
        .collect())
}

/// Reads a deployment without what took it back.
fn past_of(row: &Row<'_>) -> rusqlite::Result<Past> {
    let optional_id = |column: usize| match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => text(row, column).map(Some),
    };
    let summary = DeploymentSummary {
        id: text(row, 0)?,
        release: text(row, 1)?,
        group: group_of(row, 2)?,
        version: version_of(row, 4)?,
        kind: row.get(5)?,
        strategy: row.get(6)?,
        direction: match (optional_id(7)?, row.get_ref(12)?.as_str()?) {
            (None, "operate") => Direction::Operate,
            (None, _) => Direction::Deploy,
            (Some(of), "retire") => Direction::Retire { of },
            (Some(of), _) => Direction::Rollback { of },
        },
        status: status_of(row, 8)?,
        opened_at: Timestamp(row.get(9)?),
        ended_at: row.get::<_, Option<i64>>(10)?.map(Timestamp),
        operator: row.get(11)?,
        rolled_back_by: None,
        retries: optional_id(13)?,
    };
    Ok(Past {
        position: row.get(14)?,
        summary,
    })
}

fn deployment(
    connection: &Connection,
    id: &DeploymentId,
) -> Result<Option<Arc<Deployment>>, Fault> {
    let mut sql = connection.prepare_cached(
        "SELECT records.seq, at, body, releases.id
         FROM deployments JOIN records USING (release, seq) JOIN releases ON number = release WHERE deployments.id = ?1",
    )?;
    let record = sql
        .query_row([id.as_str()], |row| {
            let release: ReleaseId = text(row, 3)?;
            Ok(record_of(row, &release))
        })
        .optional()?
        .transpose()?;
    Ok(match record.map(|record| record.fact) {
        Some(Fact::DeploymentOpened(deployment)) => Some(deployment),
        _ => None,
    })
}

/// The reason of the record that ended the deployment: its own, or that of the release that ended with it.
fn reason(connection: &Connection, id: &DeploymentId) -> Result<Option<String>, Fault> {
    let mut sql = connection.prepare_cached(
        "SELECT records.seq, at, body, releases.id
         FROM deployments JOIN records ON records.release = deployments.release AND records.seq > deployments.seq
             JOIN releases ON number = records.release
         WHERE deployments.id = ?1 AND deployments.ended_at IS NOT NULL
             AND (body LIKE '{\"deployment-ended\":%' OR body LIKE '{\"status-changed\":%')
         ORDER BY records.seq DESC",
    )?;
    let mut rows = sql.query([id.as_str()])?;
    let mut of_release = None;
    while let Some(row) = rows.next()? {
        let release: ReleaseId = text(row, 3)?;
        match record_of(row, &release)?.fact {
            Fact::DeploymentEnded {
                deployment, reason, ..
            } if deployment == *id => return Ok(reason),
            Fact::StatusChanged { status, reason } if status.is_terminal() => {
                of_release = Some(reason);
            }
            _ => {}
        }
    }
    Ok(of_release)
}

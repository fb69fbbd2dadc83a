//! Who may append to a release: owners, leases, fences, and the groups that a release holds.
//!
//! A release holds its groups from its first record to its end, however often its owner changes or dies. Its owner
//! holds it for the time of a lease. Each change of owner gives a fence that is larger than any that the journal gave
//! before, to whichever release, and every append names the fence it was given, so that an owner that only slept loses:
//! here, and with whoever else remembers the largest fence that it has seen.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{
    DeploymentId, Direction, Fact, GroupRef, Record, ReleaseId, ReleaseStatus, Target, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};

use crate::append::{Entry, insert};
use crate::history::{status_of, text};
use crate::journal::{Error, Fault, Journal};
use crate::owner::Owner;

/// How long a release stays its owner's without being renewed.
pub const LEASE: Duration = Duration::from_millis(LEASE_MS.cast_unsigned());

const LEASE_MS: i64 = 30_000;

/// The right to append to one release, until somebody takes it over. Clones are one and the same right.
#[derive(Clone)]
pub struct Tenure {
    release: ReleaseId,
    number: i64,
    fence: i64,
    poisoned: Arc<AtomicBool>,
}

/// What keeps a group from other releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub release: ReleaseId,
    pub status: ReleaseStatus,
    pub operator: String,
    /// The process that drives the release; none when the last one left it.
    pub owner: Option<Owner>,
    /// When that process took it.
    pub since: Timestamp,
    /// When others may take it over, unless it is renewed.
    pub expires_at: Timestamp,
}

/// A release that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("group `{group}` is held by release `{}`", holder.release)]
    Busy {
        group: GroupRef,
        holder: Box<Holder>,
    },
    #[error("release `{release}` exists already, or did")]
    Exists { release: ReleaseId },
    /// Another release had the group between planning and opening.
    #[error("another release has changed `{group}` since deployment `{deployment}` was planned")]
    Outdated {
        group: GroupRef,
        deployment: DeploymentId,
    },
    #[error(transparent)]
    Journal(#[from] Error),
}

impl Tenure {
    #[must_use]
    pub fn release(&self) -> &ReleaseId {
        &self.release
    }

    /// Whether an append failed, so that no other will succeed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    /// The release's key in the file.
    pub(crate) fn number(&self) -> i64 {
        self.number
    }

    /// The number that orders this right among all that the journal has given: later ones are larger.
    #[must_use]
    pub fn fence(&self) -> i64 {
        self.fence
    }

    pub(crate) fn poisoned(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.poisoned)
    }

    fn new(release: ReleaseId, number: i64, fence: i64) -> Self {
        Self {
            release,
            number,
            fence,
            poisoned: Arc::new(AtomicBool::new(false)),
        }
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenure({}, fence {})", self.release, self.fence)
    }
}

impl Holder {
    /// Whether another process may take the release over.
    #[must_use]
    pub fn may_be_succeeded(&self, now: Timestamp) -> bool {
        may_be_succeeded(self.owner.as_ref(), self.expires_at, now)
    }

    /// When its process last said that it is there.
    #[must_use]
    pub fn renewed_at(&self) -> Timestamp {
        Timestamp(self.expires_at.0.saturating_sub(LEASE_MS))
    }
}

/// The rule of succession: nobody is there, the time is over, or the owner is certainly gone.
pub(crate) fn may_be_succeeded(
    owner: Option<&Owner>,
    expires_at: Timestamp,
    now: Timestamp,
) -> bool {
    owner.is_none_or(|owner| expires_at <= now || owner.is_known_dead())
}

impl Journal {
    /// Opens the release of the first record with all of `records`, and takes `groups` for it: all or none. The
    /// lease counts from the first record's time.
    ///
    /// # Errors
    /// [`OpenError::Busy`] when a release that has not ended holds a group, [`OpenError::Exists`] when the id has
    /// been used, [`OpenError::Outdated`] when a deployment among the records was planned on what is no longer
    /// installed, or with a version that has been given since, or brings a version once more after another one came, [`Error::Headless`] when the first record does not open a release; else as an append.
    pub fn open_release(
        &self,
        records: Vec<Record>,
        groups: &[GroupRef],
        owner: &Owner,
    ) -> Result<Tenure, OpenError> {
        let Some(Record {
            at,
            fact: Fact::ReleaseOpened(release),
            ..
        }) = records.first()
        else {
            return Err(Error::Headless.into());
        };
        let (at, release, groups, owner) =
            (*at, release.id.clone(), groups.to_vec(), owner.clone());
        let entries = Entry::all(&release, records)?;
        self.write("open a release", move |connection| {
            if let Some(obstacle) = obstacle(connection, &release, &groups)? {
                return Ok(Err(obstacle));
            }
            for entry in &entries {
                if let Some(outdated) = outdated(connection, entry.fact())? {
                    return Ok(Err(outdated));
                }
            }
            let tenure = create(connection, release, at, &groups, &owner)?;
            insert(
                connection,
                &tenure.release,
                &authorise(connection, &tenure)?,
                &entries,
            )?;
            Ok(Ok(tenure))
        })?
    }

    /// Takes over a release whose owner left it, is known to be dead, or has let its lease run out.
    ///
    /// # Errors
    /// [`Error::Owned`], [`Error::Ended`] or [`Error::UnknownRelease`].
    pub fn take_over(
        &self,
        release: &ReleaseId,
        owner: &Owner,
        now: Timestamp,
    ) -> Result<Tenure, Error> {
        let (release, owner) = (release.clone(), owner.clone());
        self.write("take a release over", move |connection| {
            let Standing { number, status, owner: present, expires_at, .. } = standing(connection, &release)?;
            if status.is_terminal() {
                return Err(Error::Ended { release, status }.into());
            }
            if !may_be_succeeded(present.as_ref(), expires_at, now)
                && let Some(owner) = present
            {
                return Err(Error::Owned { release, owner, expires_at }.into());
            }
            let fence = next_fence(connection, now)?;
            connection
                .prepare_cached(
                    "UPDATE releases SET fence = ?2, owner = ?3, owner_since = ?4, expires_at = ?5 WHERE number = ?1",
                )?
                .execute(params![number, fence, owner_json(&owner), now.0, lease_from(now)])?;
            Ok(Tenure::new(release, number, fence))
        })
    }

    /// Prolongs the lease by [`LEASE`] from now.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Ended`] or [`Error::UnknownRelease`].
    pub fn renew(&self, tenure: &Tenure, now: Timestamp) -> Result<(), Error> {
        let tenure = tenure.clone();
        self.write("renew a lease", move |connection| {
            authorise(connection, &tenure)?;
            connection
                .prepare_cached("UPDATE releases SET expires_at = ?2 WHERE number = ?1")?
                .execute(params![tenure.number, lease_from(now)])?;
            Ok(())
        })
    }

    /// Makes sure that a tenure still counts, without writing anything: at this moment nobody has taken the release over.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Ended`] or [`Error::UnknownRelease`].
    pub fn confirm(&self, tenure: &Tenure) -> Result<(), Error> {
        self.read("look whose a release is", |connection| {
            authorise(connection, tenure).map(drop)
        })
    }

    /// Gives the release up, so that anyone may take it over at once. It keeps its groups.
    ///
    /// # Errors
    /// [`Error::Fenced`] or [`Error::UnknownRelease`]. A release that has ended has nobody to leave it: that is fine.
    pub fn leave(&self, tenure: &Tenure) -> Result<(), Error> {
        let tenure = tenure.clone();
        self.write("leave a release", move |connection| match authorise(connection, &tenure) {
            Err(Fault::Known(Error::Ended { .. })) => Ok(()),
            Err(fault) => Err(fault),
            Ok(_) => {
                let fence = next_fence(connection, Timestamp(0))?;
                connection
                    .prepare_cached(
                        "UPDATE releases SET fence = ?2, owner = NULL, expires_at = 0 WHERE number = ?1",
                    )?
                    .execute([tenure.number, fence])?;
                Ok(())
            }
        })
    }

    /// The release that holds a group.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn holder(&self, group: &GroupRef) -> Result<Option<Holder>, Error> {
        self.read("look for the holder of a group", |connection| {
            holder(connection, group)
        })
    }
}

/// The part of a release's row that appends depend on.
pub(crate) struct Standing {
    pub(crate) number: i64,
    pub(crate) next_seq: i64,
    pub(crate) status: ReleaseStatus,
    pub(crate) fence: i64,
    pub(crate) owner: Option<Owner>,
    pub(crate) expires_at: Timestamp,
}

pub(crate) fn standing(connection: &Connection, release: &ReleaseId) -> Result<Standing, Fault> {
    connection
        .prepare_cached(
            "SELECT number, next_seq, status, fence, owner, expires_at FROM releases WHERE id = ?1",
        )?
        .query_row([release.as_str()], |row| {
            Ok(Standing {
                number: row.get(0)?,
                next_seq: row.get(1)?,
                status: status_of(row, 2)?,
                fence: row.get(3)?,
                owner: owner_of(row, 4)?,
                expires_at: Timestamp(row.get(5)?),
            })
        })
        .optional()?
        .ok_or_else(|| {
            Error::UnknownRelease {
                release: release.clone(),
            }
            .into()
        })
}

/// The release's standing, if the tenure still counts.
pub(crate) fn authorise(connection: &Connection, tenure: &Tenure) -> Result<Standing, Fault> {
    let standing = standing(connection, &tenure.release)?;
    if standing.fence != tenure.fence || standing.number != tenure.number {
        return Err(Error::Fenced {
            release: tenure.release.clone(),
        }
        .into());
    }
    if standing.status.is_terminal() {
        return Err(Error::Ended {
            release: tenure.release.clone(),
            status: standing.status,
        }
        .into());
    }
    Ok(standing)
}

/// Frees what an ended release held.
pub(crate) fn release_ended(connection: &Connection, number: i64) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM locks WHERE release = ?1")?
        .execute([number])?;
    connection
        .prepare_cached("UPDATE releases SET owner = NULL, expires_at = 0 WHERE number = ?1")?
        .execute([number])?;
    Ok(())
}

/// Reads a column that holds an owner or nothing.
pub(crate) fn owner_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Owner>> {
    let json: Option<String> = row.get(column)?;
    json.map(|json| serde_json::from_str(&json))
        .transpose()
        .map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(
                column,
                rusqlite::types::Type::Text,
                error.into(),
            )
        })
}

pub(crate) fn owner_json(owner: &Owner) -> String {
    serde_json::json!(owner).to_string()
}

pub(crate) fn lease_from(now: Timestamp) -> i64 {
    now.0.saturating_add(LEASE_MS)
}

/// A fence that is larger than any before. It is at least the time, so that a journal that was restored from an older
/// copy goes on behind the fences that it has forgotten giving.
fn next_fence(connection: &Connection, now: Timestamp) -> Result<i64, Fault> {
    Ok(connection
        .prepare_cached(
            "UPDATE journal SET last_fence = max(last_fence + 1, ?1) RETURNING last_fence",
        )?
        .query_row([now.0], |row| row.get(0))?)
}

pub(crate) fn holder(connection: &Connection, group: &GroupRef) -> Result<Option<Holder>, Fault> {
    let holder = connection
        .prepare_cached(
            "SELECT id, status, operator, owner, owner_since, expires_at
             FROM locks JOIN releases ON number = release WHERE application = ?1 AND grp = ?2",
        )?
        .query_row(
            params![group.application.as_str(), group.group.as_str()],
            |row| {
                Ok(Holder {
                    release: text(row, 0)?,
                    status: status_of(row, 1)?,
                    operator: row.get(2)?,
                    owner: owner_of(row, 3)?,
                    since: Timestamp(row.get(4)?),
                    expires_at: Timestamp(row.get(5)?),
                })
            },
        )
        .optional()?;
    Ok(holder)
}

/// Compares what a deployment was planned on with what holds in this transaction.
fn outdated(connection: &Connection, fact: &Fact) -> Result<Option<OpenError>, Fault> {
    let Fact::DeploymentOpened(deployment) = fact else {
        return Ok(None);
    };
    let GroupRef { application, group } = &deployment.group;
    let mut installed = connection.prepare_cached(
        "SELECT deployment FROM installed WHERE application = ?1 AND grp = ?2 AND instance = ?3",
    )?;
    let mut is_outdated = false;
    for target in &deployment.targets {
        let place = [
            application.as_str(),
            group.as_str(),
            target.instance.id.as_str(),
        ];
        let found: Option<String> = installed.query_row(place, |row| row.get(0)).optional()?;
        is_outdated |= found.as_deref() != target.outgoing.as_ref().map(DeploymentId::as_str);
    }
    let retries = |target: &Arc<Target>| target.incoming != deployment.id;
    let is_retry =
        deployment.direction == Direction::Deploy && deployment.targets.iter().any(retries);
    if is_retry {
        // A version is brought once more only as long as nothing else came after it.
        let newest: Option<String> = connection
            .prepare_cached(
                "SELECT version FROM deployments WHERE application = ?1 AND grp = ?2 AND direction != ?3 ORDER BY position DESC LIMIT 1",
            )?
            .query_row(
                [application.as_str(), group.as_str(), Direction::Operate.name()],
                |row| row.get(0),
            )
            .optional()?;
        is_outdated |= newest.as_deref() != Some(deployment.revision.version.as_str());
    } else if deployment.direction == Direction::Deploy {
        is_outdated |= connection
            .prepare_cached(
                "SELECT 1 FROM deployments WHERE application = ?1 AND grp = ?2 AND version = ?3 AND direction = ?4",
            )?
            .exists([
                application.as_str(),
                group.as_str(),
                deployment.revision.version.as_str(),
                Direction::Deploy.name(),
            ])?;
    }
    Ok(is_outdated.then(|| OpenError::Outdated {
        group: deployment.group.clone(),
        deployment: deployment.id.clone(),
    }))
}

/// What keeps a release from being opened.
fn obstacle(
    connection: &Connection,
    release: &ReleaseId,
    groups: &[GroupRef],
) -> Result<Option<OpenError>, Fault> {
    let is_used = connection
        .prepare_cached(
            "SELECT 1 FROM releases WHERE id = ?1 UNION ALL SELECT 1 FROM audit WHERE id = ?1",
        )?
        .exists([release.as_str()])?;
    if is_used {
        return Ok(Some(OpenError::Exists {
            release: release.clone(),
        }));
    }
    for group in groups {
        if let Some(holder) = holder(connection, group)? {
            return Ok(Some(OpenError::Busy {
                group: group.clone(),
                holder: Box::new(holder),
            }));
        }
    }
    Ok(None)
}

/// Makes a release without records, with its owner and groups.
fn create(
    connection: &Connection,
    release: ReleaseId,
    now: Timestamp,
    groups: &[GroupRef],
    owner: &Owner,
) -> Result<Tenure, Fault> {
    let fence = next_fence(connection, now)?;
    connection
        .prepare_cached(
            "INSERT INTO releases
             (id, next_seq, fence, owner, owner_since, expires_at, opened_at, comment, operator, status)
             VALUES (?1, 0, ?6, ?2, ?3, ?4, ?3, '', '', ?5)",
        )?
        .execute(params![
            release.as_str(),
            owner_json(owner),
            now.0,
            lease_from(now),
            ReleaseStatus::Running.name(),
            fence
        ])?;
    let number = connection.last_insert_rowid();
    for GroupRef { application, group } in groups {
        for sql in [
            "INSERT OR IGNORE INTO release_groups (release, application, grp) VALUES (?1, ?2, ?3)",
            "INSERT OR IGNORE INTO locks (release, application, grp) VALUES (?1, ?2, ?3)",
        ] {
            connection.prepare_cached(sql)?.execute(params![
                number,
                application.as_str(),
                group.as_str()
            ])?;
        }
    }
    Ok(Tenure::new(release, number, fence))
}

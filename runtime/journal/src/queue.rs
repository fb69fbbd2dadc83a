//! Who waits for groups that a release holds, in the order in which they came.
//!
//! A waiter keeps its place for the time of a lease and renews it, as an owner does with its release. One whose process
//! is known to be dead, or whose lease has run out, is passed over, and removed when the next one joins. The order is
//! among those who wait: a release that is opened without waiting asks nobody.

use std::fmt;

use model::{GroupRef, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::history::text;
use crate::journal::{Error, Fault, Journal};
use crate::owner::Owner;
use crate::tenure::{Holder, holder, lease_from, may_be_succeeded, owner_json, owner_of};

/// The most commands that wait at a time.
const MOST_WAITERS: i64 = 1000;

/// A waiter's key in the journal. Who comes later has a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(i64);

impl fmt::Display for WaiterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Somebody who waits for groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    pub id: WaiterId,
    /// The process that waits.
    pub owner: Owner,
    /// Who it works for, `user@host`.
    pub operator: String,
    /// What it will do, in a few words.
    pub purpose: String,
    pub since: Timestamp,
    /// When it loses its place, unless it is renewed.
    pub expires_at: Timestamp,
}

/// Whether it is a waiter's turn, or what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Its groups are free, and nobody who came before it waits for one of them.
    Come,
    /// A release holds one of its groups.
    Held {
        group: GroupRef,
        holder: Box<Holder>,
    },
    /// Somebody who came before waits for one of its groups.
    Behind {
        group: GroupRef,
        waiter: Box<Waiter>,
    },
    /// It has lost its place: it was taken for dead when somebody else joined.
    Lost,
}

impl Journal {
    /// Takes the last place among those who wait, for all of `groups` together. `purpose` says what for.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::Damaged`] or [`Error::Storage`].
    pub fn join_queue(
        &self,
        groups: &[GroupRef],
        owner: &Owner,
        operator: &str,
        purpose: &str,
        now: Timestamp,
    ) -> Result<WaiterId, Error> {
        let (groups, owner) = (groups.to_vec(), owner.clone());
        let (operator, purpose) = (operator.to_owned(), purpose.to_owned());
        self.write("wait for a group", move |connection| {
            remove_dead(connection, now)?;
            let count = connection.query_row("SELECT count(*) FROM waiters", [], |row| row.get(0))?;
            if count >= MOST_WAITERS {
                return Err(Error::QueueFull { count }.into());
            }
            connection
                .prepare_cached(
                    "INSERT INTO waiters (owner, operator, purpose, since, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![owner_json(&owner), operator, purpose, now.0, lease_from(now)])?;
            let id = WaiterId(connection.last_insert_rowid());
            let mut sql = connection.prepare_cached(
                "INSERT OR IGNORE INTO waiter_groups (waiter, application, grp) VALUES (?1, ?2, ?3)",
            )?;
            for GroupRef { application, group } in &groups {
                sql.execute(params![id.0, application.as_str(), group.as_str()])?;
            }
            Ok(id)
        })
    }

    /// Whether a waiter may go on. It keeps its place until it leaves, so that nobody comes between this answer and what
    /// follows from it.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn turn(&self, waiter: WaiterId, now: Timestamp) -> Result<Turn, Error> {
        self.read("look whose turn it is", |connection| {
            turn(connection, waiter, now)
        })
    }

    /// Keeps a waiter's place for another [`LEASE`](crate::LEASE). A place that was lost stays lost.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn keep_place(&self, waiter: WaiterId, now: Timestamp) -> Result<(), Error> {
        self.write("keep a place among those who wait", move |connection| {
            connection
                .prepare_cached("UPDATE waiters SET expires_at = ?2 WHERE number = ?1")?
                .execute([waiter.0, lease_from(now)])?;
            Ok(())
        })
    }

    /// Gives a waiter's place up.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn leave_queue(&self, waiter: WaiterId) -> Result<(), Error> {
        self.write("stop waiting for a group", move |connection| {
            remove(connection, waiter)
        })
    }

    /// Those who wait for a group, first come first.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn queue(&self, group: &GroupRef, now: Timestamp) -> Result<Vec<Waiter>, Error> {
        self.read("look who waits for a group", |connection| {
            let mut waiters = before(connection, group, WaiterId(i64::MAX))?;
            waiters.retain(|waiter| !waiter.is_dead(now));
            Ok(waiters)
        })
    }
}

impl Waiter {
    fn is_dead(&self, now: Timestamp) -> bool {
        may_be_succeeded(Some(&self.owner), self.expires_at, now)
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let Some(owner) = owner_of(row, 1)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            id: WaiterId(row.get(0)?),
            owner,
            operator: row.get(2)?,
            purpose: row.get(3)?,
            since: Timestamp(row.get(4)?),
            expires_at: Timestamp(row.get(5)?),
        }))
    }
}

fn turn(connection: &Connection, waiter: WaiterId, now: Timestamp) -> Result<Turn, Fault> {
    let is_there = connection
        .prepare_cached("SELECT 1 FROM waiters WHERE number = ?1")?
        .exists([waiter.0])?;
    if !is_there {
        return Ok(Turn::Lost);
    }
    let groups = groups_of(connection, waiter)?;
    for group in &groups {
        if let Some(holder) = holder(connection, group)? {
            let (group, holder) = (group.clone(), Box::new(holder));
            return Ok(Turn::Held { group, holder });
        }
    }
    for group in groups {
        let mut earlier = before(connection, &group, waiter)?.into_iter();
        if let Some(earlier) = earlier.find(|earlier| !earlier.is_dead(now)) {
            let waiter = Box::new(earlier);
            return Ok(Turn::Behind { group, waiter });
        }
    }
    Ok(Turn::Come)
}

fn groups_of(connection: &Connection, waiter: WaiterId) -> Result<Vec<GroupRef>, Fault> {
    let mut sql = connection.prepare_cached(
        "SELECT application, grp FROM waiter_groups WHERE waiter = ?1 ORDER BY application, grp",
    )?;
    let groups = sql.query_map([waiter.0], |row| {
        Ok(GroupRef {
            application: text(row, 0)?,
            group: text(row, 1)?,
        })
    })?;
    Ok(groups.collect::<Result<_, _>>()?)
}

/// Those who wait for a group and came before somebody, dead ones too.
fn before(
    connection: &Connection,
    group: &GroupRef,
    waiter: WaiterId,
) -> Result<Vec<Waiter>, Fault> {
    let mut sql = connection.prepare_cached(
        "SELECT number, owner, operator, purpose, since, expires_at
         FROM waiter_groups JOIN waiters ON number = waiter
         WHERE application = ?1 AND grp = ?2 AND number < ?3 ORDER BY number",
    )?;
    let place = params![group.application.as_str(), group.group.as_str(), waiter.0];
    let waiters = sql.query_map(place, Waiter::from_row)?;
    Ok(waiters
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?)
}

fn remove(connection: &Connection, waiter: WaiterId) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM waiters WHERE number = ?1")?
        .execute([waiter.0])?;
    Ok(())
}

fn remove_dead(connection: &Connection, now: Timestamp) -> Result<(), Fault> {
    let mut sql = connection.prepare_cached(
        "SELECT number, owner, operator, purpose, since, expires_at FROM waiters",
    )?;
    let waiters: Vec<Option<Waiter>> = sql
        .query_map([], Waiter::from_row)?
        .collect::<Result<_, _>>()?;
    for waiter in waiters.into_iter().flatten() {
        if waiter.is_dead(now) {
            remove(connection, waiter.id)?;
        }
    }
    Ok(())
}

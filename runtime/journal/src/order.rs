//! Orders to a release that goes on: how they get to whoever drives it, and what became of them.
//!
//! Anyone may give an order. The owner of the release is told each order once in a tenure, so that an order that a
//! killed conductor has left comes to the next one. It is answered in the transaction of the records that follow from
//! it, or when the release ends; until then whoever gave it may take it back.

use std::fmt;

use model::{Order, ReleaseId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::journal::{Error, Fault, Journal};
use crate::tenure::{Tenure, authorise, may_be_succeeded, standing};
use crate::wire;

/// The most orders that the owner of a release is told at once.
const TOLD_AT_ONCE: i64 = 100;

/// An order's key in the journal. No two orders share one, and later orders have larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(i64);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An order, as the owner of its release is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenOrder {
    pub id: OrderId,
    pub order: Order,
    /// Who gave it, `user@host`.
    pub operator: String,
    pub given_at: Timestamp,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderOutcome {
    /// It is carried out.
    Taken,
    /// It is not, and nothing has changed.
    Refused { reason: String },
    /// Whoever gave it took it back in time.
    Withdrawn,
}

/// The answer to an order, for [`Journal::append_answering`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderAnswer {
    pub id: OrderId,
    pub at: Timestamp,
    pub outcome: OrderOutcome,
}

impl Journal {
    /// Gives an order to a release, whoever drives it, or will.
    ///
    /// # Errors
    /// [`Error::Ended`] or [`Error::UnknownRelease`].
    pub fn order(
        &self,
        release: &ReleaseId,
        order: &Order,
        operator: &str,
        now: Timestamp,
    ) -> Result<OrderId, Error> {
        let body = wire::encode_order(order).map_err(|source| Error::Order { source })?;
        let (release, operator) = (release.clone(), operator.to_owned());
        self.write("give an order", move |connection| {
            let standing = standing(connection, &release)?;
            if standing.status.is_terminal() {
                let status = standing.status;
                return Err(Error::Ended { release, status }.into());
            }
            connection
                .prepare_cached(
                    "INSERT INTO orders (release, body, operator, given_at) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![standing.number, body, operator, now.0])?;
            Ok(OrderId(connection.last_insert_rowid()))
        })
    }

    /// The orders to a release that wait for an answer and that this tenure has not been told, in the order in which
    /// they were given, and a limited number at once. It writes only when there are any.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Ended`] or [`Error::UnknownRelease`].
    pub fn orders(&self, tenure: &Tenure, now: Timestamp) -> Result<Vec<GivenOrder>, Error> {
        let is_any = self.read("look for orders", |connection| {
            Ok(connection
                .prepare_cached(
                    "SELECT 1 FROM orders WHERE release = ?1 AND outcome IS NULL AND told < ?2 LIMIT 1",
                )?
                .exists([tenure.number(), tenure.fence()])?)
        })?;
        if !is_any {
            return Ok(Vec::new());
        }
        let tenure = tenure.clone();
        self.write("take orders", move |connection| {
            authorise(connection, &tenure)?;
            told(connection, &tenure, now)
        })
    }

    /// What became of an order; none while it waits.
    ///
    /// # Errors
    /// [`Error::UnknownOrder`] when its release has been deleted.
    pub fn answer(&self, order: OrderId) -> Result<Option<OrderOutcome>, Error> {
        self.read("look for an answer", |connection| answer(connection, order))
    }

    /// Takes an order back, unless it has been answered, or told to a process that may be alive. Gives what has become
    /// of it, as [`Journal::answer`] does.
    ///
    /// # Errors
    /// [`Error::UnknownOrder`] when its release has been deleted.
    pub fn withdraw(&self, order: OrderId, now: Timestamp) -> Result<Option<OrderOutcome>, Error> {
        self.write("take an order back", move |connection| {
            let (release, told): (String, i64) = connection
                .prepare_cached(
                    "SELECT releases.id, told FROM orders JOIN releases ON number = release WHERE orders.id = ?1",
                )?
                .query_row([order.0], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?
                .ok_or(Error::UnknownOrder { order })?;
            let release: ReleaseId = release
                .parse()
                .map_err(|_| Error::UnknownOrder { order })?;
            let standing = standing(connection, &release)?;
            let is_free = told < standing.fence
                || may_be_succeeded(standing.owner.as_ref(), standing.expires_at, now);
            if is_free && answer(connection, order)?.is_none() {
                settle(connection, order, &OrderOutcome::Withdrawn, now)?;
            }
            answer(connection, order)
        })
    }
}

/// Notes that a tenure is told what waits. An order that cannot be read is refused here and now: a later program gave
/// it, and nobody else could answer it.
fn told(
    connection: &Connection,
    tenure: &Tenure,
    now: Timestamp,
) -> Result<Vec<GivenOrder>, Fault> {
    let mut sql = connection.prepare_cached(
        "SELECT id, body, operator, given_at FROM orders
         WHERE release = ?1 AND outcome IS NULL AND told < ?2 ORDER BY id LIMIT ?3",
    )?;
    let mut rows = sql.query([tenure.number(), tenure.fence(), TOLD_AT_ONCE])?;
    let mut orders = Vec::new();
    while let Some(row) = rows.next()? {
        let id = OrderId(row.get(0)?);
        match wire::decode_order(&row.get::<_, String>(1)?) {
            Ok(order) => orders.push(GivenOrder {
                id,
                order,
                operator: row.get(2)?,
                given_at: Timestamp(row.get(3)?),
            }),
            Err(broken) => {
                let reason =
                    format!("the program that drives the release cannot read the order: {broken}");
                settle(connection, id, &OrderOutcome::Refused { reason }, now)?;
            }
        }
    }
    for order in &orders {
        connection
            .prepare_cached("UPDATE orders SET told = ?2 WHERE id = ?1")?
            .execute([order.id.0, tenure.fence()])?;
    }
    Ok(orders)
}

fn answer(connection: &Connection, order: OrderId) -> Result<Option<OrderOutcome>, Fault> {
    let found = connection
        .prepare_cached("SELECT outcome, reason FROM orders WHERE id = ?1")?
        .query_row([order.0], |row| {
            let outcome: Option<String> = row.get(0)?;
            let reason: Option<String> = row.get(1)?;
            Ok((outcome, reason))
        })
        .optional()?;
    let (outcome, reason) = found.ok_or(Error::UnknownOrder { order })?;
    Ok(outcome.map(|outcome| match outcome.as_str() {
        TAKEN => OrderOutcome::Taken,
        WITHDRAWN => OrderOutcome::Withdrawn,
        _ => OrderOutcome::Refused {
            reason: reason.unwrap_or_default(),
        },
    }))
}

const TAKEN: &str = "taken";
const REFUSED: &str = "refused";
const WITHDRAWN: &str = "withdrawn";

/// Answers an order. Whoever drives the release knows best: its answer stands over a withdrawal that went by its
/// lease.
pub(crate) fn settle(
    connection: &Connection,
    order: OrderId,
    outcome: &OrderOutcome,
    now: Timestamp,
) -> Result<(), Fault> {
    let (word, reason) = match outcome {
        OrderOutcome::Taken => (TAKEN, None),
        OrderOutcome::Refused { reason } => (REFUSED, Some(reason)),
        OrderOutcome::Withdrawn => (WITHDRAWN, None),
    };
    connection
        .prepare_cached(
            "UPDATE orders SET outcome = ?2, reason = ?3, answered_at = ?4 WHERE id = ?1",
        )?
        .execute(params![order.0, word, reason, now.0])?;
    Ok(())
}

/// Refuses what waits for an answer of a release that ends.
pub(crate) fn release_ended(
    connection: &Connection,
    number: i64,
    now: Timestamp,
) -> Result<(), Fault> {
    connection
        .prepare_cached(
            "UPDATE orders SET outcome = ?2, reason = 'the release has ended with ' || status, answered_at = ?3
             FROM releases WHERE number = release AND release = ?1 AND outcome IS NULL",
        )?
        .execute(params![number, REFUSED, now.0])?;
    Ok(())
}

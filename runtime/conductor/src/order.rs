//! Orders: giving one to whoever drives a release, and hearing those that arrive while this process drives one.

use std::time::Duration;

use journal::{Filter, GivenOrder, Journal, OrderId, OrderOutcome, Summary, Tenure};
use model::{Order, ReleaseId, ReleaseStatus};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::Conductor;
use crate::drive::now;

/// How often the journal is asked whether somebody wrote. `SQLite` has no wake-up across processes.
const INTERVAL: Duration = Duration::from_millis(100);

/// An order that is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("release {release}: {reason}")]
    Refused { release: ReleaseId, reason: String },
    #[error("release {release} has ended already: it is {status}")]
    Ended {
        release: ReleaseId,
        status: ReleaseStatus,
    },
    /// There is nobody to carry it out. It is not left waiting.
    #[error("release {release} is {status}, and nobody drives it")]
    NotDriven {
        release: ReleaseId,
        status: ReleaseStatus,
    },
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

impl Conductor {
    /// Gives an order to whoever drives a release, and waits for the answer. Dropping the future takes the order back,
    /// unless it has been heard.
    ///
    /// # Errors
    /// [`OrderError`] when it is not carried out.
    pub async fn order(&self, release: &ReleaseId, order: &Order) -> Result<(), OrderError> {
        let found = self.going_on(release)?;
        if found.may_be_succeeded(now()) {
            return Err(not_driven(&found));
        }
        let mut waiting = Waiting {
            journal: &self.journal,
            id: self
                .journal
                .order(release, order, &self.operator, now())
                .map_err(ended)?,
            is_answered: false,
        };
        match self.outcome(release, &mut waiting).await? {
            OrderOutcome::Taken => Ok(()),
            OrderOutcome::Refused { reason } => Err(OrderError::Refused {
                release: release.clone(),
                reason,
            }),
            OrderOutcome::Withdrawn => Err(not_driven(&self.going_on(release)?)),
        }
    }

    /// Waits until an order is answered, or takes it back when nobody is left to answer it.
    async fn outcome(
        &self,
        release: &ReleaseId,
        waiting: &mut Waiting<'_>,
    ) -> Result<OrderOutcome, OrderError> {
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut version = None;
        loop {
            ticks.tick().await;
            let current = self.journal.data_version()?;
            let mut outcome = None;
            if version.replace(current) != Some(current) {
                outcome = self.journal.answer(waiting.id)?;
            }
            if outcome.is_none() && self.going_on(release)?.may_be_succeeded(now()) {
                outcome = self.journal.withdraw(waiting.id, now())?;
            }
            if let Some(outcome) = outcome {
                waiting.is_answered = true;
                return Ok(outcome);
            }
        }
    }

    /// The release, when it has not ended.
    fn going_on(&self, release: &ReleaseId) -> Result<Summary, OrderError> {
        let found = self.journal.releases(Filter::Release(release), 1)?.pop();
        let summary = found.ok_or_else(|| journal::Error::UnknownRelease {
            release: release.clone(),
        })?;
        if summary.status.is_terminal() {
            return Err(OrderError::Ended {
                release: release.clone(),
                status: summary.status,
            });
        }
        Ok(summary)
    }
}

fn not_driven(summary: &Summary) -> OrderError {
    let status = if summary.is_abandoned(now()) {
        ReleaseStatus::Interrupted
    } else {
        summary.status
    };
    OrderError::NotDriven {
        release: summary.id.clone(),
        status,
    }
}

fn ended(error: journal::Error) -> OrderError {
    match error {
        journal::Error::Ended { release, status } => OrderError::Ended { release, status },
        other => other.into(),
    }
}

/// An order that waits for its answer. Whoever stops waiting takes it back.
struct Waiting<'a> {
    journal: &'a Journal,
    id: OrderId,
    is_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered
            && let Err(error) = self.journal.withdraw(self.id, now())
        {
            tracing::warn!(order = %self.id, %error, "an order that nobody waits for stays in the journal");
        }
    }
}

/// Hands the orders that arrive in the journal to the loop that drives the release, until that loop is gone.
pub(crate) async fn listen(journal: Journal, tenure: Tenure, told: mpsc::Sender<GivenOrder>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut version = None;
    loop {
        ticks.tick().await;
        let orders = match arrived(&journal, &tenure, &mut version).await {
            Ok(orders) => orders,
            // The loop writes to the same journal, so it learns of whatever matters itself.
            Err(error) => {
                tracing::warn!(release = %tenure.release(), %error, "cannot look for orders");
                continue;
            }
        };
        for order in orders {
            if told.send(order).await.is_err() {
                return;
            }
        }
    }
}

async fn arrived(
    journal: &Journal,
    tenure: &Tenure,
    version: &mut Option<i64>,
) -> Result<Vec<GivenOrder>, journal::Error> {
    let current = journal.data_version()?;
    if version.replace(current) == Some(current) {
        return Ok(Vec::new());
    }
    let (journal, tenure) = (journal.clone(), tenure.clone());
    let looking = tokio::task::spawn_blocking(move || journal.orders(&tenure, now()));
    match looking.await {
        Ok(orders) => orders,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests;

//! The right to act for a release: a lease that this process knows to be its own, and a turn that others can check.
//!
//! Nothing is begun on a lease that has run out. It is renewed first, and where that fails because somebody else has the
//! release, or the journal cannot be written, whoever asked waits for ever: the loop that drives the release learns of
//! it and ends. What no agent can check, the calls of plugins, is preceded by a look into the journal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use journal::{Journal, LEASE, Tenure};
use model::ReleaseId;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::drive::now;

/// How long before its end a lease is not acted on any more: what is begun takes time to arrive.
const MARGIN: Duration = Duration::from_secs(5);

/// How often a lease is renewed; a third of its length.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);

/// The right to act for one release. Clones are one and the same.
#[derive(Clone)]
pub(crate) struct Authority {
    journal: Journal,
    tenure: Tenure,
    lease: Arc<Mutex<Lease>>,
    lost: mpsc::Sender<journal::Error>,
}

/// How long this process may act. Times are those of a clock that is never set and goes on while the machine sleeps, so
/// that a process which slept knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    until: Duration,
}

impl Lease {
    /// The lease of a tenure that is asked for after this.
    pub(crate) fn asked_for_now() -> Self {
        Self::asked_for(since_boot())
    }

    fn asked_for(at: Duration) -> Self {
        Self {
            until: at + LEASE.saturating_sub(MARGIN),
        }
    }

    fn is_over(self, now: Duration) -> bool {
        now >= self.until
    }

    /// Whether it should have been renewed by now.
    fn is_due(self, now: Duration) -> bool {
        self.is_over(now + LEASE.saturating_sub(MARGIN + HEARTBEAT))
    }
}

impl Authority {
    /// The authority of a tenure with its lease, which is renewed when it is not fresh, and where it is told that the
    /// authority is lost.
    ///
    /// # Errors
    /// As [`Journal::renew`].
    pub(crate) fn new(
        journal: Journal,
        tenure: Tenure,
        lease: Lease,
    ) -> Result<(Self, mpsc::Receiver<journal::Error>), journal::Error> {
        // One message ends everything.
        let (lost, losing) = mpsc::channel(1);
        let authority = Self {
            journal,
            tenure,
            lease: Arc::new(Mutex::new(lease)),
            lost,
        };
        if lease.is_due(since_boot()) {
            authority.renew()?;
        }
        Ok((authority, losing))
    }

    /// The release.
    pub(crate) fn release(&self) -> &ReleaseId {
        self.tenure.release()
    }

    /// The turn, for agents.
    pub(crate) fn fence(&self) -> fleet::Fence {
        fleet::Fence {
            journal: self.journal.id().to_owned(),
            number: u64::try_from(self.tenure.fence()).unwrap_or_default(),
            release: self.tenure.release().clone(),
        }
    }

    /// Prolongs the lease. A journal that cannot be written just now is an error only when the lease is over.
    ///
    /// # Errors
    /// As [`Journal::renew`].
    pub(crate) fn keep(&self) -> Result<(), journal::Error> {
        match self.renew() {
            Err(error @ journal::Error::Storage { .. }) if !self.is_over() => {
                tracing::warn!(release = %self.tenure.release(), %error, "the lease was not renewed");
                Ok(())
            }
            renewed => renewed,
        }
    }

    /// Waits until something may be begun whose turn an agent checks.
    pub(crate) async fn claim(&self) {
        if self.is_over() {
            let authority = self.clone();
            let renewing = tokio::task::spawn_blocking(move || authority.renew());
            self.unless_lost(joined(renewing.await)).await;
        }
    }

    /// Waits until something may be begun that nobody else checks: at this moment the journal says that the release is
    /// this process's.
    pub(crate) async fn confirm(&self) {
        self.claim().await;
        self.unless_lost(self.journal.confirm(&self.tenure)).await;
    }

    fn renew(&self) -> Result<(), journal::Error> {
        let asked = Lease::asked_for_now();
        self.journal.renew(&self.tenure, now())?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        Ok(())
    }

    fn is_over(&self) -> bool {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        lease.is_over(since_boot())
    }

    async fn unless_lost(&self, outcome: Result<(), journal::Error>) {
        if let Err(error) = outcome {
            // The first one that is told counts.
            let _ = self.lost.try_send(error);
            std::future::pending::<()>().await;
        }
    }
}

fn joined(
    outcome: Result<Result<(), journal::Error>, tokio::task::JoinError>,
) -> Result<(), journal::Error> {
    match outcome {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and everything with it.
        Err(_) => Err(journal::Error::Closed),
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use journal::Owner;
    use model::{Fact, Record, Release, Scope, Timestamp};

    use super::*;

    fn release() -> ReleaseId {
        ReleaseId::parse("r1").unwrap()
    }

    fn open(path: &Path) -> (Authority, mpsc::Receiver<journal::Error>) {
        let journal = Journal::open(path).unwrap();
        let fact = Fact::ReleaseOpened(Release {
            id: release(),
            comment: String::new(),
            operator: "ann@build".to_owned(),
            scope: Scope::Service,
        });
        let opening = Record {
            seq: 0,
            at: now(),
            fact,
        };
        let owner = Owner::current().unwrap();
        let lease = Lease::asked_for_now();
        let tenure = journal.open_release(vec![opening], &[], &owner).unwrap();
        Authority::new(journal, tenure, lease).unwrap()
    }

    /// Another process with a clock that says that the lease is over.
    fn take_over(path: &Path) {
        let late = Timestamp(now().0 + 2 * i64::try_from(LEASE.as_millis()).unwrap());
        let elsewhere = Journal::open(path).unwrap();
        let owner = Owner::current().unwrap();
        elsewhere.take_over(&release(), &owner, late).unwrap();
    }

    fn sleep_through_the_lease(authority: &Authority) {
        let long_ago = Lease {
            until: Duration::ZERO,
        };
        *authority.lease.lock().unwrap() = long_ago;
    }

    /// Whether the call comes back, and the error that the loop is told otherwise.
    async fn outcome(
        call: impl Future<Output = ()>,
        losing: &mut mpsc::Receiver<journal::Error>,
    ) -> Result<(), journal::Error> {
        tokio::select! {
            biased;
            () = call => Ok(()),
            Some(error) = losing.recv() => Err(error),
        }
    }

    #[test]
    fn a_lease_is_over_before_others_may_take_it() {
        let asked = Duration::from_secs(100);
        let lease = Lease::asked_for(asked);

        assert!(!lease.is_over(asked));
        assert!(!lease.is_over(asked + LEASE - MARGIN - Duration::from_millis(1)));
        assert!(lease.is_over(asked + LEASE - MARGIN));
        assert!(lease.is_over(asked + LEASE));
    }

    #[test]
    fn a_lease_is_due_after_a_heartbeat() {
        let asked = Duration::from_secs(100);
        let lease = Lease::asked_for(asked);

        assert!(!lease.is_due(asked));
        assert!(!lease.is_due(asked + HEARTBEAT - Duration::from_millis(1)));
        assert!(lease.is_due(asked + HEARTBEAT));
    }

    #[tokio::test]
    async fn a_lease_that_ran_out_is_renewed_before_anything_is_begun() {
        let folder = tempfile::tempdir().unwrap();
        let (authority, mut losing) = open(&folder.path().join("journal.db"));
        sleep_through_the_lease(&authority);

        outcome(authority.claim(), &mut losing).await.unwrap();

        assert!(!authority.is_over());
    }

    #[tokio::test]
    async fn whoever_slept_while_the_release_was_taken_over_begins_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let (authority, mut losing) = open(&path);
        take_over(&path);

        sleep_through_the_lease(&authority);
        let claimed = outcome(authority.claim(), &mut losing).await;

        assert!(
            matches!(claimed, Err(journal::Error::Fenced { .. })),
            "{claimed:?}"
        );
    }

    /// The lease seems good, for a clock elsewhere was wrong, or this process was stopped after it had looked.
    #[tokio::test]
    async fn what_no_agent_checks_is_not_begun_once_the_release_was_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let (authority, mut losing) = open(&path);
        outcome(authority.confirm(), &mut losing).await.unwrap();
        take_over(&path);

        outcome(authority.claim(), &mut losing).await.unwrap();
        let confirmed = outcome(authority.confirm(), &mut losing).await;

        assert!(
            matches!(confirmed, Err(journal::Error::Fenced { .. })),
            "{confirmed:?}"
        );
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_written_for_a_moment_does_not_end_a_release() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let (authority, _losing) = open(&path);
        let breaker = rusqlite::Connection::open(&path).unwrap();
        let refuse =
            "CREATE TRIGGER refuse BEFORE UPDATE ON releases BEGIN SELECT raise(FAIL, 'no'); END";
        breaker.execute_batch(refuse).unwrap();

        authority.keep().unwrap();
        sleep_through_the_lease(&authority);
        let late = authority.keep();

        assert!(
            matches!(late, Err(journal::Error::Storage { .. })),
            "{late:?}"
        );
    }
}

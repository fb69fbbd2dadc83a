//! Appending records, and the promise that they are durable.

use std::pin::Pin;
use std::task::{Context, Poll};

use model::{Fact, Record, ReleaseId};
use rusqlite::{Connection, params};

use crate::journal::{Error, Fault, Journal};
use crate::order::{self, OrderAnswer};
use crate::projection::{self, Place};
use crate::promise::Awaited;
use crate::tenure::{Standing, Tenure, authorise};
use crate::wire;

/// Records on their way to the disk. Wait for it by blocking, or as a future; dropping it takes nothing back.
#[must_use = "an action may start only when its record is durable"]
pub struct Appended(Awaited<Result<(), Error>>);

impl Appended {
    /// Blocks until the records are durable, or are known not to be.
    ///
    /// # Errors
    /// What kept the records out of the journal.
    pub fn wait(self) -> Result<(), Error> {
        self.0.wait().unwrap_or(Err(Error::Closed))
    }
}

impl Future for Appended {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(ctx)
            .map(|outcome| outcome.unwrap_or(Err(Error::Closed)))
    }
}

impl Journal {
    /// Appends records to a release, all or none, in the order of the calls. The call returns when they are queued;
    /// appends that are queued together become durable together.
    ///
    /// An append that fails poisons its tenure. The records of a failed append are not in the journal, except that
    /// after a failure of the disk itself they may be found there once the machine has restarted: whoever takes the
    /// release over reads the records again.
    ///
    /// Blocks while as many writes are queued as a transaction takes.
    ///
    /// Errors arrive in the answer: [`Error::Fenced`], [`Error::Poisoned`], [`Error::Misordered`],
    /// [`Error::Inconsistent`], [`Error::NotHeld`], [`Error::Ended`], [`Error::UnknownRelease`], [`Error::Damaged`],
    /// [`Error::Storage`].
    pub fn append(&self, tenure: &Tenure, records: Vec<Record>) -> Appended {
        self.append_answering(tenure, records, Vec::new())
    }

    /// Appends as [`Journal::append`] does, and answers orders in the same transaction: an order is taken when what
    /// follows from it is durable.
    pub fn append_answering(
        &self,
        tenure: &Tenure,
        records: Vec<Record>,
        answers: Vec<OrderAnswer>,
    ) -> Appended {
        // Encoding here leaves the one writing thread more time to write.
        let entries = Entry::all(tenure.release(), records);
        let poisoned = tenure.poisoned();
        let tenure = tenure.clone();
        Appended(
            self.writer()
                .submit("append records", Some(poisoned), move |connection| {
                    if tenure.is_poisoned() {
                        return Err(Error::Poisoned {
                            release: tenure.release().clone(),
                        }
                        .into());
                    }
                    let standing = authorise(connection, &tenure)?;
                    // First, for the end of the release answers what is left.
                    for OrderAnswer { id, at, outcome } in &answers {
                        order::settle(connection, *id, outcome, *at)?;
                    }
                    insert(connection, tenure.release(), &standing, &entries?)
                }),
        )
    }
}

/// A record, ready to be written.
pub(crate) struct Entry {
    record: Record,
    body: String,
}

impl Entry {
    pub(crate) fn fact(&self) -> &Fact {
        &self.record.fact
    }

    pub(crate) fn all(release: &ReleaseId, records: Vec<Record>) -> Result<Vec<Self>, Error> {
        let entry = |record: Record| match wire::encode(&record.fact) {
            Ok(body) => Ok(Self { record, body }),
            Err(source) => Err(Error::Record {
                release: release.clone(),
                seq: record.seq,
                source,
            }),
        };
        records.into_iter().map(entry).collect()
    }
}

/// Writes records after those that are there, with all that follows from them.
pub(crate) fn insert(
    connection: &Connection,
    release: &ReleaseId,
    standing: &Standing,
    entries: &[Entry],
) -> Result<(), Fault> {
    let mut next_seq = standing.next_seq;
    for Entry { record, body } in entries {
        if i64::try_from(record.seq) != Ok(next_seq) {
            let (expected, found) = (next_seq.cast_unsigned(), record.seq);
            return Err(Error::Misordered {
                release: release.clone(),
                expected,
                found,
            }
            .into());
        }
        if matches!(record.fact, Fact::ReleaseOpened(_)) != (next_seq == 0) {
            let problem = "a release opens with its first record, and only with that";
            return Err(Error::Inconsistent {
                release: release.clone(),
                seq: record.seq,
                problem,
            }
            .into());
        }
        connection
            .prepare_cached("INSERT INTO records (release, seq, at, body) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![standing.number, next_seq, record.at.0, body])?;
        let place = Place {
            release,
            number: standing.number,
            position: connection.last_insert_rowid(),
        };
        projection::authorise(connection, &place, record)?;
        projection::apply(connection, &place, record)?;
        next_seq += 1;
    }
    connection
        .prepare_cached("UPDATE releases SET next_seq = ?2 WHERE number = ?1")?
        .execute([standing.number, next_seq])?;
    let end = entries
        .iter()
        .find(|entry| projection::is_end(&entry.record.fact));
    if let Some(end) = end {
        crate::tenure::release_ended(connection, standing.number)?;
        order::release_ended(connection, standing.number, end.record.at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{Release, Scope, Timestamp};

    use super::*;
    use crate::owner::Owner;

    fn change(seq: u64) -> Record {
        let reason = "x".repeat(2000);
        Record {
            seq,
            at: Timestamp(0),
            fact: Fact::StatusChanged {
                status: model::ReleaseStatus::Running,
                reason,
            },
        }
    }

    fn limit_pages(journal: &Journal, pages: i64) {
        journal
            .write("limit the pages", move |connection| {
                Ok(connection.execute_batch(&format!("PRAGMA max_page_count = {pages}"))?)
            })
            .unwrap();
    }

    #[test]
    fn a_full_disk_poisons_the_tenure_and_leaves_the_journal_usable() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
        let release = ReleaseId::parse("r1").unwrap();
        let opening = Fact::ReleaseOpened(Release {
            id: release.clone(),
            comment: String::new(),
            operator: "o".into(),
            scope: Scope::Service,
        });
        let owner = Owner::current().unwrap();
        let opened = vec![Record {
            seq: 0,
            at: Timestamp(0),
            fact: opening,
        }];
        let tenure = journal.open_release(opened, &[], &owner).unwrap();

        limit_pages(&journal, 60);
        let results: Vec<_> = (1..400)
            .map(|seq| journal.append(&tenure, vec![change(seq)]))
            .collect();
        let results: Vec<_> = results.into_iter().map(Appended::wait).collect();

        let durable = results.iter().take_while(|result| result.is_ok()).count();
        let (first, later) = results[durable..].split_first().unwrap();
        assert!(matches!(first, Err(Error::Storage { .. })), "{first:?}");
        assert!(
            later.iter().all(|result| matches!(
                result,
                Err(Error::Storage { .. } | Error::Poisoned { .. })
            ))
        );
        assert_eq!(journal.records(&release, 0).unwrap().len(), durable + 1);
        assert!(tenure.is_poisoned());

        limit_pages(&journal, 1_000_000);
        let refused = journal
            .append(&tenure, vec![change(durable as u64 + 1)])
            .wait();
        assert!(matches!(refused, Err(Error::Poisoned { .. })));
        journal.leave(&tenure).unwrap();
        let tenure = journal.take_over(&release, &owner, Timestamp(1)).unwrap();
        journal
            .append(&tenure, vec![change(durable as u64 + 1)])
            .wait()
            .unwrap();
        assert_eq!(journal.records(&release, 0).unwrap().len(), durable + 2);
    }
}

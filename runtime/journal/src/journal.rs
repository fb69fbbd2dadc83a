//! The journal's handle, and what can go wrong with the file under it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::{DeploymentId, GroupRef, ReleaseId, ReleaseStatus};
use rusqlite::{Connection, ErrorCode};

use crate::order::OrderId;
use crate::owner::Owner;
use crate::promise::Awaited;
use crate::wire::Broken;
use crate::writer::Writer;
use crate::{projection, schema};

/// A failure of the journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("create the journal `{}`", path.display())]
    Create {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` is not a journal of cutover: name another file, or move this one away", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "the journal `{}` has format {found} and this program knows formats up to {known}: use the program that wrote it, or a later one",
        path.display()
    )]
    Newer {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("the journal `{}` is damaged: restore it from a copy", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The disk is full, failing or locked, or the like. The transaction has been rolled back.
    #[error("{action} in the journal `{}`", path.display())]
    Storage {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    #[error("read record {seq} of release `{release}`")]
    Record {
        release: ReleaseId,
        seq: u64,
        #[source]
        source: Broken,
    },
    #[error("record {seq} of release `{release}` is missing")]
    Missing { release: ReleaseId, seq: u64 },
    #[error("the journal holds no release `{release}`")]
    UnknownRelease { release: ReleaseId },
    #[error("open a release with records of which the first does not open one")]
    Headless,
    #[error("append record {found} to release `{release}`, whose next record is {expected}")]
    Misordered {
        release: ReleaseId,
        expected: u64,
        found: u64,
    },
    #[error("append record {seq} to release `{release}`: {problem}")]
    Inconsistent {
        release: ReleaseId,
        seq: u64,
        problem: &'static str,
    },
    #[error("open deployment `{deployment}` on `{group}`, which release `{release}` does not hold")]
    NotHeld {
        release: ReleaseId,
        deployment: DeploymentId,
        group: GroupRef,
    },
    /// Another process took the release over; whatever this one still wants to do, it must not.
    #[error("release `{release}` has been taken over by another process")]
    Fenced { release: ReleaseId },
    #[error(
        "an earlier append to release `{release}` failed: nothing more is appended until it is taken over"
    )]
    Poisoned { release: ReleaseId },
    #[error("release `{release}` has ended with {status}")]
    Ended {
        release: ReleaseId,
        status: ReleaseStatus,
    },
    /// Its owner is, or may be, alive.
    #[error("release `{release}` is driven by {owner}")]
    Owned {
        release: ReleaseId,
        owner: Owner,
        expires_at: model::Timestamp,
    },
    #[error("the journal holds no order {order}: its release has been deleted")]
    UnknownOrder { order: OrderId },
    #[error("write an order down")]
    Order {
        #[source]
        source: Broken,
    },
    #[error("{count} commands wait for groups already")]
    QueueFull { count: i64 },
    #[error("the journal's writing thread has ended")]
    Closed,
}

/// Counts since the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Appends and other writes that were carried out.
    pub writes: u64,
    /// Transactions that they took, and so flushes to the disk.
    pub commits: u64,
}

/// An open journal. Clones share one file, one writing thread and one reading connection.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

struct Shared {
    path: Arc<Path>,
    id: String,
    writer: Writer,
    /// Never writes, so that `data_version` tells it of every commit, this process's own too.
    reader: Mutex<Connection>,
}

impl Journal {
    /// Opens a journal, and makes it and its folder when there is none. The file is readable by its owner only.
    ///
    /// # Errors
    /// [`Error::Create`], [`Error::Foreign`], [`Error::Newer`], [`Error::Damaged`] or [`Error::Storage`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        schema::create_if_absent(path)?;
        let path: Arc<Path> = path.into();
        let writing = schema::connect(&path)?;
        let reading = schema::connect(&path)?;
        let id = reading
            .query_row("SELECT id FROM journal", [], |row| row.get(0))
            .map_err(|error| Fault::from(error).at(&path, "read the journal's id"))?;
        let writer = Writer::start(writing, Arc::clone(&path)).map_err(|source| Error::Create {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                id,
                writer,
                reader: Mutex::new(reading),
            }),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// What tells this journal from every other one. It stays with the file, wherever that goes.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// How many writes shared how many transactions.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.writer.stats()
    }

    /// A number that differs from the last answer when something was committed since, by whatever process.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Storage`].
    pub fn data_version(&self) -> Result<i64, Error> {
        self.read("look for changes", |connection| {
            Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
        })
    }

    /// Makes every projection again from the records. Owners and the groups they hold stay as they are.
    ///
    /// # Errors
    /// [`Error::Record`] when a record cannot be read; [`Error::Damaged`] or [`Error::Storage`]. Nothing changes then.
    pub fn rebuild(&self) -> Result<(), Error> {
        self.write("rebuild the projections", projection::rebuild)
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.shared.writer
    }

    /// Carries out a write in the writing thread, and waits until it is durable.
    pub(crate) fn write<T, W>(&self, action: &'static str, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let pending: Awaited<Result<T, Error>> = self.shared.writer.submit(action, None, work);
        pending.wait().unwrap_or(Err(Error::Closed))
    }

    /// Reads one state of the journal, however many queries that takes.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let reader = self
            .shared
            .reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let in_transaction = || {
            let transaction = reader.unchecked_transaction()?;
            work(&transaction)
        };
        in_transaction().map_err(|fault| fault.at(&self.shared.path, action))
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Journal({})", self.shared.path.display())
    }
}

/// An error within a transaction, which knows neither the file nor what it was all for.
#[derive(Debug)]
pub(crate) enum Fault {
    Sql(Arc<rusqlite::Error>),
    Known(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sql(Arc::new(error))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Known(error)
    }
}

impl Fault {
    /// The error for people.
    pub(crate) fn at(self, path: &Path, action: &'static str) -> Error {
        let path = path.to_path_buf();
        match self {
            Fault::Known(error) => error,
            Fault::Sql(source) => match source.sqlite_error_code() {
                Some(ErrorCode::NotADatabase) => Error::Foreign { path },
                Some(ErrorCode::DatabaseCorrupt) => Error::Damaged { path, source },
                _ => Error::Storage {
                    path,
                    action,
                    source,
                },
            },
        }
    }
}

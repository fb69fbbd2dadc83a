//! The file: how it is created, recognised, and brought from one format to the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::journal::{Error, Fault};

/// Marks the file as a journal: the bytes of `cuto`.
const APPLICATION_ID: i64 = 0x6375_746f;

/// How long a transaction waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The steps from an empty file to the present format. The number of those taken is the file's `user_version`, so a
/// released step never changes.
const MIGRATIONS: &[&str] = &[FORMAT_1, FORMAT_2, FORMAT_3];

// Positions are never used twice (AUTOINCREMENT), so they order the records of all releases even after a deletion.
const FORMAT_1: &str = "
CREATE TABLE releases (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    next_seq INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    owner TEXT,
    owner_since INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    ended_at INTEGER,
    comment TEXT NOT NULL,
    operator TEXT NOT NULL,
    status TEXT NOT NULL
) STRICT;
CREATE TABLE records (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    release INTEGER NOT NULL REFERENCES releases (number) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (release, seq)
) STRICT;
CREATE TABLE release_groups (
    release INTEGER NOT NULL REFERENCES releases (number) ON DELETE CASCADE,
    application TEXT NOT NULL,
    grp TEXT NOT NULL,
    PRIMARY KEY (release, application, grp)
) STRICT, WITHOUT ROWID;
CREATE INDEX release_groups_by_group ON release_groups (application, grp, release);
CREATE TABLE locks (
    application TEXT NOT NULL,
    grp TEXT NOT NULL,
    release INTEGER NOT NULL REFERENCES releases (number) ON DELETE CASCADE,
    PRIMARY KEY (application, grp)
) STRICT, WITHOUT ROWID;
CREATE INDEX locks_by_release ON locks (release);
CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    release INTEGER NOT NULL REFERENCES releases (number) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    application TEXT NOT NULL,
    grp TEXT NOT NULL,
    version TEXT NOT NULL,
    kind TEXT NOT NULL,
    strategy TEXT NOT NULL,
    direction TEXT NOT NULL,
    of TEXT,
    status TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX deployments_by_group ON deployments (application, grp, position);
CREATE INDEX deployments_by_release ON deployments (release, seq);
CREATE INDEX deployments_by_template ON deployments (of) WHERE of IS NOT NULL;
CREATE TABLE targets (
    deployment TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    instance TEXT NOT NULL,
    incoming TEXT NOT NULL,
    PRIMARY KEY (deployment, instance)
) STRICT, WITHOUT ROWID;
CREATE TABLE installed (
    application TEXT NOT NULL,
    grp TEXT NOT NULL,
    instance TEXT NOT NULL,
    deployment TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (application, grp, instance)
) STRICT, WITHOUT ROWID;
CREATE INDEX installed_by_deployment ON installed (deployment);
CREATE TABLE audit (
    id TEXT PRIMARY KEY,
    comment TEXT NOT NULL,
    operator TEXT NOT NULL,
    status TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    ended_at INTEGER,
    deleted_at INTEGER NOT NULL,
    deleted_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

// `told` is the fence of the tenure that was told the order last. Also keeps programs away that know no records of sides,
// gates, holds and orders.
const FORMAT_2: &str = "
CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    release INTEGER NOT NULL REFERENCES releases (number) ON DELETE CASCADE,
    body TEXT NOT NULL,
    operator TEXT NOT NULL,
    given_at INTEGER NOT NULL,
    told INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    reason TEXT,
    answered_at INTEGER
) STRICT;
CREATE INDEX orders_by_release ON orders (release);
CREATE INDEX orders_waiting ON orders (release, id) WHERE outcome IS NULL;
";

// Fences grow over the whole journal. Those that were given before grew within their release, so that the largest of
// them all comes before any that follows.
const FORMAT_3: &str = "
CREATE TABLE journal (
    id TEXT NOT NULL,
    last_fence INTEGER NOT NULL
) STRICT;
INSERT INTO journal SELECT lower(hex(randomblob(16))), (SELECT coalesce(max(fence), 0) FROM releases);
CREATE TABLE waiters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    operator TEXT NOT NULL,
    purpose TEXT NOT NULL,
    since INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE TABLE waiter_groups (
    application TEXT NOT NULL,
    grp TEXT NOT NULL,
    waiter INTEGER NOT NULL REFERENCES waiters (number) ON DELETE CASCADE,
    PRIMARY KEY (application, grp, waiter)
) STRICT, WITHOUT ROWID;
CREATE INDEX waiter_groups_by_waiter ON waiter_groups (waiter);
";

/// Makes an empty journal where no file is. It appears whole under its name or not at all, so that neither a crash
/// nor a second process can meet half of one.
pub(crate) fn create_if_absent(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Create {
        path: path.to_path_buf(),
        source,
    };
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_folder(folder).map_err(failed)?;
    let draft = tempfile::Builder::new()
        .prefix(".journal-")
        .tempfile_in(folder)
        .map_err(failed)?
        .into_temp_path();
    fill(&draft).map_err(|fault| fault.at(path, "create the tables"))?;
    match draft.persist_noclobber(path) {
        Ok(()) => sync(folder).map_err(failed),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error.error)),
    }
}

/// Opens a connection to a journal, of this format when it returns.
pub(crate) fn connect(path: &Path) -> Result<Connection, Error> {
    let attempt = || -> Result<Connection, Fault> {
        let connection = dial(path)?;
        if number(&connection, "application_id")? != APPLICATION_ID {
            return Err(Error::Foreign {
                path: path.to_path_buf(),
            }
            .into());
        }
        configure(&connection)?;
        migrate(&connection, path, MIGRATIONS)?;
        Ok(connection)
    };
    attempt().map_err(|fault| fault.at(path, "open the database"))
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let absent: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .map(Path::to_path_buf)
        .collect();
    fs::create_dir_all(folder)?;
    // A folder is durable when the one above it is on the disk.
    for created in absent {
        if let Some(parent) = created.parent() {
            sync(if parent == Path::new("") {
                Path::new(".")
            } else {
                parent
            })?;
        }
    }
    Ok(())
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn fill(draft: &Path) -> Result<(), Fault> {
    let connection = dial(draft)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    configure(&connection)?;
    migrate(&connection, draft, MIGRATIONS)?;
    // Closing folds the log into the file; nothing of the draft stays beside it.
    connection.close().map_err(|(_, error)| Fault::from(error))
}

fn dial(path: &Path) -> Result<Connection, Fault> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), Fault> {
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(())
}

fn number(connection: &Connection, pragma: &str) -> Result<i64, Fault> {
    Ok(connection.pragma_query_value(None, pragma, |row| row.get(0))?)
}

fn migrate(connection: &Connection, path: &Path, migrations: &[&str]) -> Result<(), Fault> {
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if number(connection, "user_version")? == known {
        return Ok(());
    }
    let transaction =
        rusqlite::Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have been faster: what counts is the number under the lock.
    let found = number(connection, "user_version")?;
    let taken = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(steps) = migrations.get(taken..) else {
        return Err(Error::Newer {
            path: path.to_path_buf(),
            found,
            known,
        }
        .into());
    };
    for step in steps {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;
    use crate::Journal;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_journal_is_created_with_its_folders_for_its_owner_only() {
        let folder = folder();
        let path = folder.path().join("a/b/journal.db");

        drop(Journal::open(&path).unwrap());

        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        Journal::open(&path).unwrap();
    }

    #[test]
    fn processes_that_open_at_once_get_the_same_journal() {
        let folder = folder();
        let path = folder.path().join("journal.db");

        let journals: Vec<Journal> = std::thread::scope(|scope| {
            let openings: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Journal::open(&path)))
                .collect();
            openings
                .into_iter()
                .map(|opening| opening.join().unwrap().unwrap())
                .collect()
        });

        assert_eq!(journals.len(), 8);
    }

    #[test]
    fn commits_are_flushed_and_foreign_keys_hold() {
        let folder = folder();
        let path = folder.path().join("journal.db");
        create_if_absent(&path).unwrap();

        let connection = connect(&path).unwrap();

        let mode: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "wal");
        assert_eq!(number(&connection, "synchronous").unwrap(), 2);
        assert_eq!(number(&connection, "foreign_keys").unwrap(), 1);
    }

    #[test]
    fn files_that_are_not_journals_are_refused_and_left_alone() {
        let folder = folder();
        let other = folder.path().join("other.db");
        Connection::open(&other)
            .unwrap()
            .execute_batch("CREATE TABLE mine (a)")
            .unwrap();
        let text = folder.path().join("notes.txt");
        fs::write(
            &text,
            "not a database, but long enough to hold a header\n".repeat(99),
        )
        .unwrap();
        let empty = folder.path().join("empty.db");
        fs::write(&empty, "").unwrap();

        for path in [other, text, empty] {
            let before = fs::read(&path).unwrap();

            let result = Journal::open(&path);

            assert!(
                matches!(result, Err(Error::Foreign { .. })),
                "{}",
                path.display()
            );
            assert_eq!(fs::read(&path).unwrap(), before);
        }
    }

    #[test]
    fn a_damaged_journal_is_refused() {
        let folder = folder();
        let path = folder.path().join("journal.db");
        drop(Journal::open(&path).unwrap());
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        // The first page's tree begins right after the file's header of 100 bytes.
        file.write_all_at(&[0xff; 200], 100).unwrap();

        let result = Journal::open(&path);

        assert!(
            matches!(result, Err(Error::Damaged { .. })),
            "{:?}",
            result.err()
        );
    }

    #[test]
    fn a_newer_journal_is_refused() {
        let folder = folder();
        let path = folder.path().join("journal.db");
        drop(Journal::open(&path).unwrap());
        let known = i64::try_from(MIGRATIONS.len()).unwrap();
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", known + 1)
            .unwrap();

        let result = Journal::open(&path);

        assert!(matches!(result, Err(Error::Newer { found, .. }) if found == known + 1));
    }

    #[test]
    fn a_journal_of_the_first_format_keeps_its_releases_takes_orders_and_goes_on_with_its_fences() {
        let folder = folder();
        let path = folder.path().join("journal.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "application_id", APPLICATION_ID)
            .unwrap();
        connection
            .pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))
            .unwrap();
        migrate(&connection, &path, &MIGRATIONS[..1]).unwrap();
        connection
            .execute_batch(
                "INSERT INTO releases (id, next_seq, fence, owner_since, expires_at, opened_at, comment, operator, status)
                 VALUES ('r1', 1, 7, 0, 0, 0, '', 'ada@build', 'PAUSED');
                 INSERT INTO records (release, seq, at, body)
                 VALUES (1, 0, 0, '{\"release-opened\":{\"id\":\"r1\",\"comment\":\"\",\"operator\":\"ada@build\"}}');",
            )
            .unwrap();
        drop(connection);

        let journal = Journal::open(&path).unwrap();

        let release = model::ReleaseId::parse("r1").unwrap();
        assert_eq!(journal.records(&release, 0).unwrap().len(), 1);
        let now = model::Timestamp(1);
        let order = journal.order(&release, &model::Order::Promote, "ada@build", now);
        assert_eq!(journal.answer(order.unwrap()).unwrap(), None);
        let owner = crate::Owner::current().unwrap();
        let tenure = journal.take_over(&release, &owner, now).unwrap();
        assert_eq!(tenure.fence(), 8);
    }

    #[test]
    fn a_journal_is_known_by_an_id_of_its_own() {
        let folder = folder();
        let open = |name: &str| Journal::open(&folder.path().join(name)).unwrap();

        let (one, again, other) = (open("a.db"), open("a.db"), open("b.db"));

        assert_eq!(one.id().len(), 32);
        assert_eq!(one.id(), again.id());
        assert_ne!(one.id(), other.id());
    }

    #[test]
    fn an_older_journal_takes_the_steps_that_it_lacks() {
        let connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE one (a)", "CREATE TABLE two (a)"];

        migrate(&connection, Path::new("memory"), &steps[..1]).unwrap();
        migrate(&connection, Path::new("memory"), &steps).unwrap();

        assert_eq!(number(&connection, "user_version").unwrap(), 2);
        connection
            .execute_batch("INSERT INTO one VALUES (1); INSERT INTO two VALUES (1)")
            .unwrap();
    }
}

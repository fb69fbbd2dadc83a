//! The folder that a build has to itself, and the log beside it.
//!
//! `builds/ID` is the folder, closed to other accounts and removed when the build is over; `builds/ID.log` stays. Who
//! builds holds a lock on the log, so that what a killed conductor left behind is told apart and cleared away.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How many logs are kept.
const KEPT_LOGS: usize = 20;

/// The folder of one build.
#[derive(Debug)]
pub(crate) struct Scratch {
    id: String,
    folder: PathBuf,
    /// The log; the lock on it says that the folder is in use.
    pub(crate) log: File,
    pub(crate) log_path: PathBuf,
}

impl Scratch {
    /// Makes a folder in `builds`, and clears away those that nobody builds in any more.
    pub(crate) fn make(builds: &Path, run: &str) -> io::Result<Self> {
        closed(builds)?;
        tidy(builds);
        let mut number = 1;
        loop {
            let id = match number {
                1 => run.to_owned(),
                number => format!("{run}.{number}"),
            };
            let log_path = builds.join(format!("{id}.log"));
            match File::options()
                .append(true)
                .create_new(true)
                .open(&log_path)
            {
                Ok(log) => {
                    log.lock()?;
                    let folder = builds.join(&id);
                    let scratch = Self {
                        id,
                        folder,
                        log,
                        log_path,
                    };
                    agent::confine::clear(&scratch.folder)?;
                    for folder in [
                        scratch.folder.clone(),
                        scratch.source(),
                        scratch.home(),
                        scratch.temporary(),
                    ] {
                        closed(&folder)?;
                    }
                    // The root of a package is for everybody, as in any other.
                    fs::set_permissions(
                        scratch.source(),
                        std::os::unix::fs::PermissionsExt::from_mode(0o755),
                    )?;
                    return Ok(scratch);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// No two builds at a time have the same.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The only folder that the build may write to.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the source is brought into.
    pub(crate) fn source(&self) -> PathBuf {
        self.folder.join("source")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.folder.join("tmp")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clear(&self.folder);
    }
}

/// Makes a folder that is its owner's alone, unless it is there.
fn closed(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn clear(folder: &Path) {
    if let Err(error) = agent::confine::clear(folder) {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove the folder of a build");
    }
}

/// Removes the folders of builds that are over, and the oldest logs.
fn tidy(builds: &Path) {
    let mut logs = Vec::new();
    for entry in fs::read_dir(builds).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            if is_over(&log_of(&path)) {
                clear(&path);
            }
        } else if path.extension().is_some_and(|extension| extension == "log")
            && let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified())
        {
            logs.push((modified, path));
        }
    }
    logs.sort();
    let surplus = logs.len().saturating_sub(KEPT_LOGS - 1);
    for (_, log) in &logs[..surplus] {
        if is_over(log) {
            // One that stays costs a little room.
            let _ = fs::remove_file(log);
        }
    }
}

fn log_of(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".log");
    name.into()
}

/// Whether nobody holds the lock on a log.
fn is_over(log: &Path) -> bool {
    match File::open(log) {
        Ok(log) => !matches!(log.try_lock(), Err(fs::TryLockError::WouldBlock)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_build_left_goes_when_the_next_one_begins_and_its_log_stays() {
        let folder = tempfile::tempdir().unwrap();
        let builds = folder.path().join("builds");
        let killed = Scratch::make(&builds, "one").unwrap();
        fs::write(killed.source().join("half"), "").unwrap();
        let (path, log) = (killed.folder().to_owned(), killed.log.try_clone().unwrap());
        let running = Scratch::make(&builds, "two").unwrap();
        assert!(path.exists(), "it is being built in");

        // As a kill leaves it: the lock is let go, the folder stays.
        std::mem::forget(killed);
        log.unlock().unwrap();
        let again = Scratch::make(&builds, "one").unwrap();

        assert!(!path.exists() && running.folder().exists());
        assert_eq!(again.id(), "one.2");
        assert!(builds.join("one.log").exists());
    }

    #[test]
    fn a_folder_goes_with_its_build() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::make(folder.path(), "one").unwrap();
        let (path, log) = (scratch.folder().to_owned(), scratch.log_path.clone());

        drop(scratch);

        assert!(!path.exists() && log.exists());
    }

    #[test]
    fn the_oldest_logs_go() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..30 {
            drop(Scratch::make(folder.path(), &format!("run-{number}")).unwrap());
        }

        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), KEPT_LOGS);
    }
}

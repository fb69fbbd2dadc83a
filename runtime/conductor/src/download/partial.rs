//! An archive on its way here, on the disk: its bytes, and what tells that others belong to them.
//!
//! Whoever brings it holds a lock, so two who want the same package bring it one after the other, and the second finds it.
//! When a conductor ends in between, the next one that wants the package goes on with what is here.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ranges::Ranges;
use crate::packages::boot;

const LOCK: &str = "lock";
const STATE: &str = "state.json";

/// The folder of an archive on its way.
#[derive(Debug)]
pub(crate) struct Partial {
    folder: PathBuf,
    /// Locked for as long as this lives.
    _lock: File,
    pub(super) file: File,
    /// What an earlier download left.
    pub(super) left: Left,
}

/// How far a download has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// What tells that the rest belongs to the beginning. Without it there is no going on.
    pub(super) validator: Option<String>,
    pub(super) total: Option<u64>,
    pub(super) ranges: Ranges,
}

impl Partial {
    /// Opens the folder, alone. Waits while somebody else has it.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        let lock = locked(&folder)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join("archive"))?;
        let left = read(&folder, file.metadata()?.len()).unwrap_or_default();
        let partial = Self {
            folder,
            _lock: lock,
            file,
            left,
        };
        if partial.left == Left::default() {
            partial.clear()?;
        }
        Ok(partial)
    }

    /// The archive.
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.join("archive")
    }

    /// Whether an earlier download left something.
    pub(crate) fn has_some(&self) -> bool {
        self.left.ranges.bytes() > 0
    }

    /// Whether there is something to go on with.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.folder.join(STATE).exists()
    }

    /// Forgets all that is here.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match fs::remove_file(self.folder.join(STATE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file.set_len(0)
    }

    /// Notes how far the download has come. Without the note it is merely begun again.
    pub(super) fn save(&self, left: &Left) {
        let (Some(validator), Some(total)) = (&left.validator, left.total) else {
            return;
        };
        let done = left.ranges.done().iter();
        let done: Vec<_> = done.map(|range| json!([range.start, range.end])).collect();
        let state =
            json!({"v": 1, "boot": boot(), "validator": validator, "total": total, "done": done});
        let aside = self.folder.join("state.aside");
        let saved = fs::write(&aside, state.to_string())
            .and_then(|()| fs::rename(&aside, self.folder.join(STATE)));
        if let Err(error) = saved {
            tracing::debug!(folder = %self.folder.display(), %error, "cannot note how far a download has come");
        }
    }

    /// Removes the folder. What waits for it makes one of its own.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot remove a download that is done");
        }
    }
}

/// When something of a download last came that can be gone on with. None where nothing can, or where somebody is at it.
pub(crate) fn since(folder: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(folder.join(STATE)).ok()?.modified().ok()
}

/// The lock on a folder that nobody has. It is held while the folder is removed.
pub(crate) fn claim(folder: &Path) -> Option<File> {
    let lock = File::open(folder.join(LOCK)).ok()?;
    lock.try_lock().ok()?;
    Some(lock)
}

fn locked(folder: &Path) -> io::Result<File> {
    loop {
        fs::create_dir_all(folder)?;
        let path = folder.join(LOCK);
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let lock = match opened {
            // The folder was removed since it was made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        lock.lock()?;
        // Who had the lock before may have removed the folder.
        let there = fs::metadata(&path).map(|there| there.ino());
        if there.is_ok_and(|there| lock.metadata().is_ok_and(|held| held.ino() == there)) {
            return Ok(lock);
        }
    }
}

/// What an earlier download left, where it can be relied on.
fn read(folder: &Path, length: u64) -> Option<Left> {
    let state: Value = serde_json::from_slice(&fs::read(folder.join(STATE)).ok()?).ok()?;
    // After another boot, what was written may not have reached the disk.
    let is_ours = state["v"] == 1 && state["boot"] == boot().as_str();
    let validator = state["validator"].as_str()?.to_owned();
    let total = state["total"].as_u64()?;
    let done = state["done"].as_array()?.iter();
    let done: Option<Vec<Range<u64>>> = done
        .map(|range| Some(range[0].as_u64()?..range[1].as_u64()?))
        .collect();
    let ranges = Ranges::left(done?, total.min(length))?;
    is_ours.then_some(Left {
        validator: Some(validator),
        total: Some(total),
        ranges,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn left() -> Left {
        let mut ranges = Ranges::default();
        ranges.claim_first(10, 4);
        ranges.arrived(0..4);
        Left {
            validator: Some("\"one\"".to_owned()),
            total: Some(10),
            ranges,
        }
    }

    #[test]
    fn what_is_here_is_taken_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut partial = Partial::open(folder.path().join("a")).unwrap();
        assert!(!partial.has_some());
        partial.file.write_all(b"0123").unwrap();
        partial.save(&left());
        drop(partial);

        let partial = Partial::open(folder.path().join("a")).unwrap();

        assert_eq!(partial.left, left());
        assert!(since(&folder.path().join("a")).is_some());
    }

    #[test]
    fn what_cannot_be_relied_on_is_begun_again() {
        let spoil: [fn(&Path); 4] = [
            |folder| fs::write(folder.join("archive"), "012").unwrap(),
            |folder| fs::write(folder.join(STATE), "{").unwrap(),
            |folder| {
                let text = fs::read_to_string(folder.join(STATE)).unwrap();
                fs::write(folder.join(STATE), text.replace(&boot(), "another")).unwrap();
            },
            |folder| fs::remove_file(folder.join(STATE)).unwrap(),
        ];
        for spoil in spoil {
            let folder = tempfile::tempdir().unwrap();
            let mut partial = Partial::open(folder.path().to_owned()).unwrap();
            partial.file.write_all(b"0123").unwrap();
            partial.save(&left());
            drop(partial);
            spoil(folder.path());

            let partial = Partial::open(folder.path().to_owned()).unwrap();

            assert_eq!(partial.left, Left::default());
            assert_eq!(partial.file.metadata().unwrap().len(), 0);
        }
    }

    #[test]
    fn who_waits_for_it_gets_a_folder_of_its_own_when_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let first = Partial::open(path.clone()).unwrap();
        assert!(claim(&path).is_none());
        let (begun, begins) = mpsc::channel();
        let other = path.clone();
        let waiting = thread::spawn(move || {
            begun.send(()).unwrap();
            Partial::open(other).unwrap()
        });
        begins.recv().unwrap();

        first.remove();

        let second = waiting.join().unwrap();
        assert!(second.archive().exists() && path.exists());
    }
}

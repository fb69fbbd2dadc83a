//! Room at the end of SQLite's write-ahead log.
//!
//! A flush costs several times as much when the file has become longer, for then the file system writes down where its
//! new end is as well. So the log is given room in advance, much at a time and full of zeroes, and commits write into
//! that. SQLite takes the log to end at the first frame that does not belong to it by its salt and checksum, and zeroes
//! never do; a log whose header is zeroes is an empty one.
//!
//! Deliberately absent: any knowledge of what is in the log. Its length alone says whether the room is used up.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The length of a log that nobody has written beyond its room is a multiple of this. When SQLite itself arrives at such
/// a length, once in 135 MB, one commit goes without room.
const ROOM: u64 = 256 << 10;

/// The log of a journal.
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    pub(crate) fn of(journal: &Path) -> Self {
        let mut path = OsString::from(journal);
        path.push("-wal");
        Self { path: path.into() }
    }

    /// Makes room when what there was is used up.
    ///
    /// INVARIANT: the caller is in a write transaction that has written nothing yet, so no other process writes to the
    /// log, and nothing is where the zeroes go.
    pub(crate) fn make_room(&self) -> io::Result<()> {
        let log = OpenOptions::new().write(true).open(&self.path)?;
        let length = log.metadata()?.len();
        if length > 0 && length.is_multiple_of(ROOM) {
            return Ok(());
        }
        let end = (length / ROOM + 1) * ROOM;
        let zeroes = vec![0; usize::try_from(end - length).unwrap_or_default()];
        log.write_all_at(&zeroes, length)
    }
}

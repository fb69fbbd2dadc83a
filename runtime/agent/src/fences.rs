//! Whose turn it is on an instance: `ROOTDIR/.cutover/fences/APPLICATION/GROUP.json` keeps, for each journal, the latest
//! turn in which the application's group was acted on.
//!
//! A conductor that is taken for dead may only have slept, and wake up with commands in its hands. Its successor acts in
//! a later turn, so from its successor's first command on whatever it asks for is refused. The file is durable before
//! anything is done in a turn.
//!
//! The file also tells in which boot of the host a release first acted on the group. So what the host has forgotten about
//! an attempt by going down is known to be forgotten, and nothing else has to be durable before an attempt begins.
//!
//! A turn has a block of the file to itself, padded with blanks. When the next turn of its journal takes its place,
//! which is what happens at every release, that block alone is written and flushed: a disk writes a block wholly or not at
//! all, and a file that gets no longer costs its file system nothing. Whoever lets a command pass writes; the worker that
//! carries it out flushes, before anything else.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, inotify};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::attempt;
use crate::cache::Folder;
use crate::protocol::{self, Fence, Run, Work};
use crate::small;

/// How many journals are remembered for a group, the latest ones.
const MAX_JOURNALS: usize = 16;

/// What a disk writes wholly or not at all, in bytes.
const BLOCK: usize = 512;

/// How long another agent may be busy with the same file.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a command is not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "the conductor of release `{release}` has been succeeded: it acts in turn {number}, and release `{by}` has acted \
         on `{group}` of this instance in turn {latest}"
    )]
    Succeeded {
        release: String,
        number: u64,
        by: String,
        latest: u64,
        group: String,
    },
    #[error(
        "the conductor is too old for this agent: it does not say in which turn it acts on `{group}`, and release `{by}` \
         has acted in turn {latest}"
    )]
    Unnumbered {
        group: String,
        by: String,
        latest: u64,
    },
    #[error("{doing} `{path}`", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}`, which says whose turn it is, cannot be read: remove it when no conductor is at work", path = path.display())]
    Garbage {
        path: PathBuf,
        #[source]
        source: protocol::Garbage,
    },
}

/// The turns of a group, the latest last.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Turns {
    turns: Vec<Turn>,
}

/// The latest turn of a journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Turn {
    journal: String,
    number: u64,
    release: String,
    /// The boot of the host in which the release first acted on the group; empty when it is not known.
    #[serde(default)]
    boot: String,
    /// Whether the turn is known to be on the disk.
    #[serde(default)]
    durable: bool,
}

impl Turns {
    fn of(&self, journal: &str) -> Option<&Turn> {
        self.turns.iter().find(|turn| turn.journal == journal)
    }

    /// Whether a later turn than this one has begun.
    fn are_after(&self, fence: &Fence) -> bool {
        self.of(&fence.journal)
            .is_some_and(|latest| latest.number > fence.number)
    }

    /// Puts a turn in the place of the one before it, and forgets the oldest when there are too many.
    fn take(&mut self, turn: Turn) {
        self.turns.retain(|known| known.journal != turn.journal);
        let surplus = (self.turns.len() + 1).saturating_sub(MAX_JOURNALS);
        self.turns.drain(..surplus);
        self.turns.push(turn);
    }

    /// The file's text: a message of the protocol, with each turn in blocks of its own.
    fn text(&self) -> Vec<u8> {
        let mut text = format!("{{\"v\":{},\"turns\":[", protocol::VERSION).into_bytes();
        for (number, turn) in self.turns.iter().enumerate() {
            // A turn holds nothing that JSON cannot say.
            let turn = serde_json::to_vec(turn).unwrap_or_default();
            pad(&mut text);
            text.extend_from_slice(&turn);
            if number + 1 < self.turns.len() {
                text.push(b',');
            }
        }
        pad(&mut text);
        text.extend_from_slice(b"]}\n");
        text
    }
}

fn pad(text: &mut Vec<u8>) {
    text.resize(text.len().next_multiple_of(BLOCK), b' ');
}

/// Where a group's turns are kept, and what else is to be known of who acts on it.
pub(crate) struct Shelf {
    root: PathBuf,
    dir: PathBuf,
    path: PathBuf,
    group: String,
}

impl Shelf {
    /// The place for a command's group; none for a command that names no group, which its work refuses by itself.
    pub(crate) fn of(run: &Run) -> Option<Self> {
        let cache = match &run.work {
            Work::Fetch(work) => &work.cache,
            Work::Hooks(work) => &work.cache,
            Work::Install(work) => &work.cache,
            Work::Errand(work) => &work.cache,
        };
        let folder = Folder::at(&run.rootdir, cache).ok()?;
        let dir = folder.root().join(".cutover/fences").join(folder.app());
        Some(Self {
            root: folder.root().to_owned(),
            path: dir.join(format!("{}.json", folder.group())),
            dir,
            group: format!("{}/{}", folder.app(), folder.group()),
        })
    }

    /// A file of the group beside its turns.
    pub(crate) fn file(&self, ending: &str) -> PathBuf {
        self.path.with_extension(ending)
    }

    /// Makes the folder, which is there from the first turn on.
    pub(crate) fn make(&self) -> io::Result<()> {
        make(&self.root, &self.dir).map(drop)
    }
}

/// A command that passed. Others of the group do not pass before this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    _lock: Option<File>,
    /// Whether the host has been down since the command's release first acted on the group: of an attempt that was asked
    /// for before nothing may be left then.
    pub(crate) has_been_down: bool,
}

/// Lets a command pass that comes in its turn. `boot` is the host's.
pub(crate) fn admit(run: &Run, boot: &str) -> Result<Admission, Error> {
    let unfenced = Admission {
        _lock: None,
        has_been_down: false,
    };
    let Some(Shelf {
        root,
        dir,
        path,
        group,
    }) = Shelf::of(run)
    else {
        return Ok(unfenced);
    };
    let Some(fence) = &run.fence else {
        return match load(&path)?.turns.pop() {
            Some(latest) => Err(Error::Unnumbered {
                group,
                by: latest.release,
                latest: latest.number,
            }),
            None => Ok(unfenced),
        };
    };
    let lock = lock(&root, &dir)?;
    let mut known = load(&path)?;
    let admitted = |turn: &Turn| Admission {
        _lock: Some(lock),
        has_been_down: boot.is_empty() || turn.boot != boot,
    };
    let latest = known.of(&fence.journal);
    match latest {
        Some(latest) if latest.number > fence.number => Err(Error::Succeeded {
            release: fence.release.clone(),
            number: fence.number,
            by: latest.release.clone(),
            latest: latest.number,
            group,
        }),
        Some(latest) if latest.number == fence.number => Ok(admitted(latest)),
        latest => {
            let same_release = latest.filter(|turn| turn.release == fence.release);
            let turn = Turn {
                journal: fence.journal.clone(),
                number: fence.number,
                release: fence.release.clone(),
                boot: same_release.map_or_else(|| boot.to_owned(), |turn| turn.boot.clone()),
                durable: false,
            };
            known.take(turn.clone());
            save(&dir, &path, &mut known).map_err(|source| Error::Io {
                doing: "write",
                path,
                source,
            })?;
            Ok(admitted(&turn))
        }
    }
}

/// Makes sure that the turn of a command is durable. Answers whether it is over.
pub(crate) fn settle(run: &Run) -> Result<bool, Error> {
    let (Some(fence), Some(shelf)) = (&run.fence, Shelf::of(run)) else {
        return Ok(false);
    };
    let is_its =
        |turn: &Turn| turn.journal == fence.journal && turn.number == fence.number && !turn.durable;
    let known = load(&shelf.path)?;
    if !known.turns.iter().any(is_its) {
        return Ok(known.are_after(fence));
    }
    let failed = |doing| {
        let path = shelf.path.clone();
        move |source| Error::Io {
            doing,
            path,
            source,
        }
    };
    File::open(&shelf.path)
        .and_then(|file| file.sync_data())
        .map_err(failed("flush"))?;
    // So that it is not flushed again. Should the host forget that, it is.
    let _lock = lock(&shelf.root, &shelf.dir)?;
    let mut known = load(&shelf.path)?;
    if let Some(turn) = known.turns.iter_mut().find(|turn| is_its(turn)) {
        turn.durable = true;
        write_in_place(&shelf.path, &known.text()).map_err(failed("write"))?;
    }
    Ok(known.are_after(fence))
}

/// Whether somebody has acted in a later turn than a command's.
pub(crate) fn is_over(run: &Run) -> bool {
    let (Some(fence), Some(shelf)) = (&run.fence, Shelf::of(run)) else {
        return false;
    };
    load(&shelf.path).is_ok_and(|known| known.are_after(fence))
}

/// The turns of the groups that commands are for, watched. One watch serves one command after the other: closing it waits
/// until the kernel has let go of it, which is left to the end of the process.
#[derive(Default)]
pub(crate) struct Watch {
    events: Option<ManuallyDrop<OwnedFd>>,
    /// The files that are watched, until something happens to one of them.
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches the turns for a command, where that can be done. They are written into and replaced.
    pub(crate) fn turn_to(&mut self, run: &Run) {
        let Some(shelf) = run.fence.as_ref().and_then(|_| Shelf::of(run)) else {
            return;
        };
        if self.watched.contains(&shelf.path) {
            return;
        }
        if self.events.is_none() {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            self.events = inotify::init(flags).ok().map(ManuallyDrop::new);
        }
        let Some(events) = &self.events else { return };
        let dir = inotify::add_watch(&**events, &shelf.dir, inotify::WatchFlags::MOVED_TO);
        let file = inotify::add_watch(&**events, &shelf.path, inotify::WatchFlags::MODIFY);
        if dir.is_ok() && file.is_ok() {
            self.watched.insert(shelf.path);
        }
    }

    /// What becomes readable when a turn begins.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(|events| events.as_fd())
    }

    /// Takes what there is to tell, which only says that something has happened.
    pub(crate) fn drain(&mut self) {
        self.watched.clear();
        let mut events = [0; 1024];
        while self
            .events()
            .is_some_and(|watch| matches!(rustix::io::read(watch, &mut events), Ok(1..)))
        {}
    }
}

fn load(path: &Path) -> Result<Turns, Error> {
    match small::read(path) {
        Ok(text) => protocol::decode(&text).map_err(|source| Error::Garbage {
            path: path.to_owned(),
            source,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Turns::default()),
        Err(source) => Err(Error::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Locks the folder, which is held for no longer than it takes to file an attempt.
fn lock(root: &Path, dir: &Path) -> Result<File, Error> {
    let failed = |doing| {
        move |source| Error::Io {
            doing,
            path: dir.to_owned(),
            source,
        }
    };
    let dir = match File::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(root, dir),
        opened => opened,
    };
    let dir = dir.map_err(failed("open"))?;
    let begun = Instant::now();
    loop {
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(dir),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(errno) => return Err(failed("lock")(errno.into())),
        }
    }
}

fn make(root: &Path, dir: &Path) -> io::Result<File> {
    let state = root.join(".cutover");
    attempt::make_private(root, &[&state, &state.join("fences"), dir])?;
    File::open(dir)
}

/// Writes the turns. Where the file has to be replaced they are durable then.
fn save(dir: &Path, path: &Path, turns: &mut Turns) -> io::Result<()> {
    if write_in_place(path, &turns.text())? {
        return Ok(());
    }
    turns.turns.iter_mut().for_each(|turn| turn.durable = true);
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(&turns.text())?;
    file.sync_data()?;
    fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()
}

/// Writes the one block that differs. Answers false when there is not just one.
fn write_in_place(path: &Path, text: &[u8]) -> io::Result<bool> {
    let Some((file, at)) = place_for(path, text)? else {
        return Ok(false);
    };
    file.write_all_at(&text[at..at + BLOCK], at as u64)?;
    Ok(true)
}

/// The file, and the one block of it that the text differs in, where there is just one.
fn place_for(path: &Path, text: &[u8]) -> io::Result<Option<(File, usize)>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if file.metadata()?.len() != text.len() as u64 {
        return Ok(None);
    }
    let mut before = vec![0; text.len()];
    file.read_exact_at(&mut before, 0)?;
    let blocks = before.chunks_exact(BLOCK).zip(text.chunks_exact(BLOCK));
    let mut differing = blocks
        .enumerate()
        .filter(|(_, (before, after))| before != after);
    let (Some((block, _)), None) = (differing.next(), differing.next()) else {
        return Ok(None);
    };
    Ok(Some((file, block * BLOCK)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn turn(journal: &str, number: u64) -> Turn {
        Turn {
            journal: journal.to_owned(),
            number,
            release: format!("r{number}"),
            boot: "b".to_owned(),
            durable: false,
        }
    }

    /// Saves turns one after the other. Says after each whether the file is the one before it.
    fn saved(turns: &[Turn]) -> Vec<bool> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.json");
        let mut known = Turns::default();
        let mut inode = 0;
        turns
            .iter()
            .map(|turn| {
                known.take(turn.clone());
                save(folder.path(), &path, &mut known).unwrap();

                let read = load(&path).unwrap();
                assert_eq!(format!("{read:?}"), format!("{known:?}"));
                let before = inode;
                inode = fs::metadata(&path).unwrap().ino();
                inode == before
            })
            .collect()
    }

    #[test]
    fn the_next_turn_of_the_latest_journal_is_written_in_its_place() {
        assert_eq!(
            saved(&[turn("one", 1), turn("one", 2), turn("one", 4_000_000)]),
            [false, true, true]
        );
    }

    #[test]
    fn turns_in_another_order_are_another_file() {
        assert_eq!(
            saved(&[
                turn("one", 1),
                turn("two", 1),
                turn("two", 2),
                turn("one", 2)
            ]),
            [false, false, true, false]
        );
    }

    #[test]
    fn a_turn_that_is_too_long_for_a_block_is_another_file() {
        let long = |number| Turn {
            release: "r".repeat(2 * BLOCK),
            ..turn("one", number)
        };
        assert_eq!(
            saved(&[turn("one", 1), long(2), long(3), turn("one", 4)]),
            [false, false, false, false]
        );
    }

    #[test]
    fn no_more_journals_are_remembered_than_have_room() {
        let mut known = Turns::default();
        for number in 0..MAX_JOURNALS + 3 {
            known.take(turn(&number.to_string(), 1));
        }

        assert_eq!(known.turns.len(), MAX_JOURNALS);
        assert_eq!(known.turns[0].journal, "3");
    }
}

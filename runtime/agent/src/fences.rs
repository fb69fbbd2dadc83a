//! Whose turn it is on an instance: `ROOTDIR/.cutover/fences/APPLICATION/GROUP.json` keeps, for each journal, the latest
//! turn in which the application's group was acted on.
//!
//! A conductor that is taken for dead may only have slept, and wake up with commands in its hands. Its successor acts in
//! a later turn, so from its successor's first command on whatever it asks for is refused. The file is durable before
//! anything is done in a turn.

use std::fs::{self, File};
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, inotify};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::attempt;
use crate::cache::Folder;
use crate::protocol::{self, Fence, Run, Work};

/// How many journals are remembered for a group, the latest ones.
const MAX_JOURNALS: usize = 16;

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
    turns: Vec<Fence>,
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

/// Lets a command pass that comes in its turn, and keeps others from passing as long as the result is held.
pub(crate) fn admit(run: &Run) -> Result<Option<File>, Error> {
    let Some(Shelf {
        root,
        dir,
        path,
        group,
    }) = Shelf::of(run)
    else {
        return Ok(None);
    };
    let Some(fence) = &run.fence else {
        return match load(&path)?.turns.pop() {
            Some(latest) => Err(Error::Unnumbered {
                group,
                by: latest.release,
                latest: latest.number,
            }),
            None => Ok(None),
        };
    };
    let lock = lock(&root, &dir)?;
    let mut known = load(&path)?;
    let same_journal = |turn: &Fence| turn.journal == fence.journal;
    match known.turns.iter().find(|turn| same_journal(turn)) {
        Some(latest) if latest.number > fence.number => Err(Error::Succeeded {
            release: fence.release.clone(),
            number: fence.number,
            by: latest.release.clone(),
            latest: latest.number,
            group,
        }),
        Some(latest) if latest.number == fence.number => Ok(Some(lock)),
        _ => {
            known.turns.retain(|turn| !same_journal(turn));
            let surplus = (known.turns.len() + 1).saturating_sub(MAX_JOURNALS);
            known.turns.drain(..surplus);
            known.turns.push(fence.clone());
            save(&dir, &path, &known).map_err(|source| Error::Io {
                doing: "write",
                path,
                source,
            })?;
            Ok(Some(lock))
        }
    }
}

/// Whether somebody has acted in a later turn than a command's.
pub(crate) fn is_over(run: &Run) -> bool {
    let (Some(fence), Some(shelf)) = (&run.fence, Shelf::of(run)) else {
        return false;
    };
    let is_later = |turn: &Fence| turn.journal == fence.journal && turn.number > fence.number;
    load(&shelf.path).is_ok_and(|known| known.turns.iter().any(is_later))
}

/// The turns of the application that a command is for, watched. One watch serves one command after the other: closing it
/// waits until the kernel has let go of it, which is left to the end of the process.
#[derive(Default)]
pub(crate) struct Watch {
    events: Option<ManuallyDrop<OwnedFd>>,
    watched: Option<(PathBuf, i32)>,
}

impl Watch {
    /// Watches the turns for a command, where that can be done.
    pub(crate) fn turn_to(&mut self, run: &Run) {
        let Some(shelf) = run.fence.as_ref().and_then(|_| Shelf::of(run)) else {
            return;
        };
        if self
            .watched
            .as_ref()
            .is_some_and(|(dir, _)| *dir == shelf.dir)
        {
            return;
        }
        if self.events.is_none() {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            self.events = inotify::init(flags).ok().map(ManuallyDrop::new);
        }
        let Some(events) = &self.events else { return };
        if let Some((_, former)) = self.watched.take() {
            // The folder may be gone, and its watch with it.
            let _ = inotify::remove_watch(&**events, former);
        }
        let watch = inotify::add_watch(&**events, &shelf.dir, inotify::WatchFlags::MOVED_TO);
        self.watched = watch.ok().map(|watch| (shelf.dir, watch));
    }

    /// What becomes readable when a turn begins.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(|events| events.as_fd())
    }

    /// Takes what there is to tell, which only says that something has happened.
    pub(crate) fn drain(&self) {
        let mut events = [0; 1024];
        while self
            .events()
            .is_some_and(|watch| matches!(rustix::io::read(watch, &mut events), Ok(1..)))
        {}
    }
}

fn load(path: &Path) -> Result<Turns, Error> {
    match fs::read(path) {
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

fn save(dir: &Path, path: &Path, turns: &Turns) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(&protocol::encode(turns))?;
    file.sync_data()?;
    fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()
}

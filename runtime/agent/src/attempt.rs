//! What the disk knows of an attempt: `ROOTDIR/.cutover/attempts/ID/`.
//!
//! | file | holds |
//! |---|---|
//! | `lock` | the id of the process that does the work, which holds an exclusive lock on the file as long as it lives, and a nonce that names its control groups |
//! | `command.json` | the request, and which boot of the host it was taken in |
//! | `waits` | what the attempt waits for before it begins, where it has to |
//! | `log` | captured output; made when the work begins |
//! | `outcome.json` | the outcome; made, whole, by a rename |
//!
//! INVARIANT: the folder appears by one rename, with its lock held, so that of several agents that are given one
//! attempt exactly one begins it. Whoever may begin it and finds a `log` does not: an attempt is never executed twice.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::control_group::Names;
use crate::protocol::{self, Outcome, Run};
use crate::small;

/// The longest attempt id, in bytes: what a file name can hold, with room for a prefix.
const MAX_ID: usize = 240;

/// A request that cannot be carried out because of where or how it is filed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{id}` is not a valid attempt id")]
    Id { id: String },
    #[error("rootdir `{rootdir}` is not an absolute path without `..`")]
    Rootdir { rootdir: String },
    #[error("{doing} `{path}`", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// An attempt's place on disk.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    attempts: PathBuf,
    dir: PathBuf,
    id: String,
}

/// How an attempt stands.
pub(crate) enum Standing {
    /// There is no trace of it.
    Absent,
    /// It ended.
    Ended,
    /// Somebody holds its lock: a process with this id, if it has said so yet.
    Held(Option<Pid>),
    /// Whoever filed it was killed before anything was done. The lock is the caller's.
    Unbegun(OwnedFd),
    /// It began and nobody works on it.
    Lost(String),
}

#[derive(Serialize, Deserialize)]
struct Command {
    boot: String,
    run: Run,
}

/// Whether a text is safe as a file name and cannot be taken for anything else.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Checks the folder of an instance.
pub(crate) fn root(rootdir: &str) -> Result<&Path, Error> {
    let path = Path::new(rootdir);
    let plain = path.is_absolute()
        && !rootdir.contains('\0')
        && path.components().all(|part| part.as_os_str() != "..");
    if plain {
        Ok(path)
    } else {
        Err(Error::Rootdir {
            rootdir: rootdir.to_owned(),
        })
    }
}

/// The id of the running kernel's boot, or an empty text, which never counts as the same boot.
pub(crate) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned()
    })
}

impl Attempt {
    /// The place of an attempt of an instance.
    pub(crate) fn at(rootdir: &str, id: &str) -> Result<Self, Error> {
        if !is_name(id) {
            return Err(Error::Id { id: id.to_owned() });
        }
        let attempts = root(rootdir)?.join(".cutover/attempts");
        let dir = attempts.join(id);
        Ok(Self {
            attempts,
            dir,
            id: id.to_owned(),
        })
    }

    /// The attempt's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file with the captured output.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Files an attempt that has no folder yet and returns its lock, or `None` when somebody else was faster.
    pub(crate) fn file(&self, run: &Run, boot: &str) -> Result<Option<OwnedFd>, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let draft = self
            .attempts
            .join(format!(".draft-{}-{number}", std::process::id()));

        if let Err(source) = DirBuilder::new().mode(0o700).create(&draft) {
            if source.kind() != io::ErrorKind::NotFound {
                return Err(Error::Io {
                    doing: "create",
                    path: draft,
                    source,
                });
            }
            make_attempts(&self.attempts)
                .and_then(|()| DirBuilder::new().mode(0o700).create(&draft))
                .map_err(|source| Error::Io {
                    doing: "create",
                    path: draft.clone(),
                    source,
                })?;
        }
        let filed =
            self.fill(&draft, run, boot)
                .and_then(|lock| match fs::rename(&draft, &self.dir) {
                    Ok(()) => Ok(Some(lock)),
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                        ) =>
                    {
                        Ok(None)
                    }
                    Err(error) => Err(error),
                });
        if !matches!(filed, Ok(Some(_))) {
            // A draft that stays is never taken for an attempt.
            let _ = fs::remove_dir_all(&draft);
        }
        filed.map_err(|source| Error::Io {
            doing: "file the attempt",
            path: self.dir.clone(),
            source,
        })
    }

    fn fill(&self, draft: &Path, run: &Run, boot: &str) -> io::Result<OwnedFd> {
        let lock = private(&draft.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let command = Command {
            boot: boot.to_owned(),
            run: Run {
                then: None,
                ..run.clone()
            },
        };
        private(&draft.join("command.json"))?.write_all(&protocol::encode(&command))?;
        Ok(lock.into())
    }

    /// Says who does the work. Called by the process itself, with the lock in its hands.
    pub(crate) fn sign(lock: &OwnedFd, groups: &Names) -> io::Result<()> {
        let text = format!("{} {}", std::process::id(), groups.nonce());
        rustix::io::pwrite(lock, text.as_bytes(), 0)?;
        Ok(())
    }

    /// The names of the control groups of whoever signed, if somebody did.
    pub(crate) fn groups(&self) -> Option<Names> {
        let lock = File::open(self.dir.join("lock")).ok()?;
        let text = signature(&lock)?;
        let nonce = text.split(' ').nth(1)?;
        is_name(nonce).then(|| Names::new(nonce))
    }

    /// Makes it certain that the host remembers, whatever happens to it, that this attempt was taken up.
    pub(crate) fn settle(&self) -> io::Result<()> {
        File::open(&self.attempts)?.sync_all()
    }

    /// Says what the attempt waits for. It is for people alone, so that it may fail.
    pub(crate) fn wait_for(&self, what: &str) {
        let file = private(&self.dir.join("waits"));
        let _ = file.and_then(|mut file| file.write_all(what.as_bytes()));
    }

    /// What the attempt waited for, if it had to.
    pub(crate) fn waited_for(&self) -> Option<String> {
        let what = fs::read_to_string(self.dir.join("waits")).ok()?;
        (!what.is_empty()).then_some(what)
    }

    /// Begins the log. It comes after [`Attempt::settle`], and what the attempt does comes after it.
    pub(crate) fn begin(&self) -> io::Result<File> {
        private(&self.log())
    }

    /// Keeps the outcome, visible at once and to everybody who watches the folder. [`Attempt::sync`] makes it durable.
    /// `tell_log` comes when all but the outcome's name is there: whoever is woken by it finds the outcome as well.
    pub(crate) fn end(&self, outcome: &Outcome, tell_log: impl FnOnce()) -> io::Result<()> {
        let text = protocol::encode(outcome);
        let path = self.dir.join("outcome.json");
        // Outside the folder, so that whoever watches that is woken once.
        let draft = self.attempts.join(format!(".outcome-{}", self.id));
        let drafted = private(&draft).and_then(|mut file| file.write_all(&text));
        tell_log();
        if drafted.is_ok() {
            return fs::rename(draft, path);
        }
        // The disk is full, most likely. The request's file has room that is already ours.
        let command = self.dir.join("command.json");
        let file = OpenOptions::new().write(true).open(&command)?;
        file.write_all_at(&text, 0)?;
        file.set_len(text.len() as u64)?;
        fs::rename(command, path)
    }

    /// Makes the outcome durable. The name that it got before goes to the disk with it: file systems write what
    /// happened to a file in the order in which it happened.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(self.dir.join("outcome.json"))?.sync_data()
    }

    /// The outcome, if there is one.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let path = self.dir.join("outcome.json");
        let read = match small::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            read => read,
        };
        let outcome = read
            .map_err(|error| error.to_string())
            .and_then(|text| protocol::decode(&text).map_err(|error| error.to_string()));
        Some(outcome.unwrap_or_else(|error| Outcome::Lost {
            reason: format!(
                "the outcome kept in `{}` cannot be read: {error}",
                path.display()
            ),
        }))
    }

    /// Finds out how the attempt stands.
    pub(crate) fn standing(&self, boot: &str) -> io::Result<Standing> {
        if self.has_ended() {
            return Ok(Standing::Ended);
        }
        let path = self.dir.join("lock");
        let lock = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let lost = format!("`{}` is not what an agent leaves", self.dir.display());
                return Ok(if self.dir.exists() {
                    Standing::Lost(lost)
                } else {
                    Standing::Absent
                });
            }
            Err(error) => return Err(error),
        };
        // A shared lock, so that two who look do not take each other for the one who works.
        if !try_lock(&lock, FlockOperation::NonBlockingLockShared)? {
            return Ok(Standing::Held(holder(&lock)));
        }
        if self.has_ended() {
            return Ok(Standing::Ended);
        }
        if self.has_begun(boot) {
            let reason =
                "the host or the agent's worker went down in the middle of the attempt".to_owned();
            return Ok(Standing::Lost(reason));
        }
        // Taking over is not one step with the look above: look again with the lock in hand.
        if !try_lock(&lock, FlockOperation::NonBlockingLockExclusive)? || self.has_begun(boot) {
            return Ok(Standing::Held(None));
        }
        // Whoever signed it is dead, and the number may be somebody else's by now.
        lock.set_len(0)?;
        Ok(Standing::Unbegun(lock.into()))
    }

    /// Whether there is an outcome.
    pub(crate) fn has_ended(&self) -> bool {
        self.dir.join("outcome.json").exists()
    }

    /// Whether the work may have begun. Within one boot the log says so; after another boot the log may be missing
    /// because it never reached the disk.
    fn has_begun(&self, boot: &str) -> bool {
        let same_boot = small::read(&self.dir.join("command.json"))
            .ok()
            .and_then(|text| protocol::decode::<Command>(&text).ok())
            .is_some_and(|command| !boot.is_empty() && command.boot == boot);
        !same_boot || self.log().exists()
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Creates the folder of all attempts.
fn make_attempts(attempts: &Path) -> io::Result<()> {
    let Some((state, root)) = attempts
        .parent()
        .and_then(|state| Some((state, state.parent()?)))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    make_private(root, &[state, attempts])
}

/// Creates folders below an instance's, each within the one before, their ancestors too, so that a crash leaves all of
/// them or none that matter. Environments of hooks may hold secrets, so `.cutover` is for its owner alone.
pub(crate) fn make_private(root: &Path, dirs: &[&Path]) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for dir in dirs {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let parents = dirs.iter().rev().skip(1).copied();
    for dir in root.ancestors().take(2).chain(parents) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn holder(lock: &File) -> Option<Pid> {
    Pid::from_raw(signature(lock)?.split(' ').next()?.parse().ok()?)
}

fn signature(lock: &File) -> Option<String> {
    let mut text = [0; 64];
    let length = lock.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    Some(text.trim().to_owned())
}

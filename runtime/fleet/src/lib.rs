//! Reaching instances: commands go out, log and ending come back.
//!
//! [`Fleet`] is what a conductor sees, [`MixedFleet`] the one for every kind of host, made of [`LocalFleet`] for instances
//! on this machine and [`SshFleet`] for hosts with an SSH server. An attempt that has been
//! sent may be sent again at any time, by this process or by its successor: the agent executes it once and answers
//! every time. Deliberately absent: deciding what to do, plans, plugins and the journal.

mod connection;
mod local;
mod mixed;
mod process;
mod ssh;
mod wire;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use model::{
    AttemptId, DeploymentId, Digest, Done, Ending, Errand, FileMapping, GroupRef, Host, InstanceId,
    OnExisting, Permission, ReleaseId, Script, Undone, Why,
};

pub use local::LocalFleet;
pub use mixed::MixedFleet;
pub use ssh::{SshFleet, SshOptions};

/// The reason why an attempt has no ending when nobody waits for it any more.
const DROPPED: &str = "the conductor let go of its agent before the attempt ended";

/// A future that can be kept in a list.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One attempt of a step, for the agent of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub attempt: AttemptId,
    /// Absolute folder of the instance.
    pub rootdir: String,
    pub work: Work,
    /// Whether somebody may have asked for it before.
    pub asked: Asked,
    /// What the instance's agent may begin by itself as soon as this has succeeded. It is given as well, in its time.
    pub then: Option<Then>,
    /// In whose turn it is given.
    pub fence: Fence,
}

/// Whether an attempt may have been asked for before. Of one that may, an agent that finds nothing says that it is lost
/// when its host has been down: it may have begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Never,
    Perhaps,
}

/// The turn of a conductor. Once an instance has been acted on in a later one of the same journal, its agent refuses
/// what comes in an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The journal's id.
    pub journal: String,
    /// Later turns have larger numbers.
    pub number: u64,
    pub release: ReleaseId,
}

/// An attempt that begins when another one has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Then {
    pub attempt: AttemptId,
    pub work: Work,
}

/// What an attempt does. `cache` is a package folder, `app-A/group-G/deploy-D` below the instance's `rootdir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Puts a package into the cache and prunes the cache.
    Fetch {
        cache: String,
        /// Absolute path of the unpacked package on this machine. It is brought to the instance's host when it is needed
        /// there.
        source: PathBuf,
        /// What `agent::tree::digest` says of it.
        digest: Digest,
        /// Package folders that must stay.
        keep: Vec<String>,
        /// How many of the group's others stay, the newest.
        keep_others: u32,
        /// The installation that is to follow: what stands in its way is found here, before anything changes.
        installation: Option<Installation>,
    },
    /// Runs the scripts of a hook.
    Hooks {
        cache: String,
        scripts: Vec<Script>,
        /// Environment in order; a later entry wins.
        env: Vec<(String, String)>,
    },
    /// Lays down the files of a package.
    Install(Installation),
    /// Does one thing for a plugin. See [`Fleet::errand`].
    Errand { cache: String, errand: Errand },
}

/// The files of a package, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub group: GroupRef,
    pub cache: String,
    /// What the instance has installed afterwards.
    pub deployment: DeploymentId,
    pub files: Vec<FileMapping>,
    pub permissions: Vec<Permission>,
    pub on_existing: OnExisting,
}

/// Where something is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Absolute folder of the instance.
    pub rootdir: String,
    pub group: GroupRef,
    pub instance: InstanceId,
}

/// What an instance has installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The deployment that brought it, by whichever journal; none when nothing is installed.
    pub deployment: Option<String>,
    /// Whether something is under way, so that files cannot be compared.
    pub is_at_work: bool,
    /// The first files that somebody has changed or removed since the last attempt on the instance ended.
    pub files: Vec<ChangedFile>,
    /// How many more there are.
    pub more: u64,
}

/// A file or folder that is not as it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    pub path: String,
    pub change: FileChange,
}

/// What became of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChange {
    Changed,
    Removed,
}

/// A host that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreachable {
    /// What was attempted and why it failed, in one line.
    pub reason: String,
}

/// Where an attempt's log goes as it comes.
pub trait LogSink: Send + Sync {
    /// How many bytes of the log are there already.
    fn position(&self) -> u64;

    /// Takes the bytes at a position of the log. Bytes come in order and none comes twice. It is called on the way
    /// between agents and conductor and must not wait.
    fn append(&self, offset: u64, bytes: &[u8]);

    /// Takes note of what is waited for while the host does not answer. It must not wait.
    fn waiting(&self, what: &str) {
        let _ = what;
    }
}

/// The instances that can be reached.
pub trait Fleet: Send + Sync + 'static {
    /// Carries out an attempt, or joins the one that is under way or over, and waits for its end. Its whole log has
    /// been handed to the sink by then. Dropping the future does not stop the work.
    fn run(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Ending>;

    /// Joins an attempt that is under way or over, and waits for its end; of one that has not begun there is none, and it does
    /// not begin.
    fn join(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Option<Ending>> {
        let _ = (host, command, log);
        Box::pin(std::future::ready(None))
    }

    /// Carries out an attempt that is an errand, as [`Fleet::run`] does any other one.
    fn errand(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Result<Done, Undone>> {
        let _ = (host, command, log);
        let undone = Undone::new(Why::Unreachable, "this fleet runs no errands");
        Box::pin(std::future::ready(Err(undone)))
    }

    /// Asks what an instance has installed, and whether somebody has changed it since. Nothing changes.
    fn inspect(
        &self,
        host: &Host,
        place: Place,
    ) -> BoxFuture<'static, Result<Condition, Unreachable>> {
        let _ = (host, place);
        let reason = "this fleet cannot ask what is installed".to_owned();
        Box::pin(std::future::ready(Err(Unreachable { reason })))
    }

    /// Asks which package folders are complete.
    fn cached(
        &self,
        host: &Host,
        rootdir: String,
        caches: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<String>, Unreachable>>;
}

//! Steps that a plugin carries out, and the errands that it has done on an instance for them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{LifecycleEvent, PluginName};

/// The lifecycle events of a deployment at which its kind's plugin is called in place of hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    pub plugin: PluginName,
    /// The plugin's configuration, a JSON object.
    pub config: String,
    /// The item of the release plan, as the plugin gets it: a JSON object.
    pub item: String,
    /// Each with the longest that its step may take.
    pub events: BTreeMap<LifecycleEvent, Duration>,
}

/// A place on an instance: a path below a folder that is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Absolute, or relative to the instance's `rootdir`; `.` is that folder itself.
    pub folder: String,
    /// Below the folder; empty for the folder itself.
    pub path: String,
}

/// One thing that a call has done on its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    /// Runs a program and waits for it.
    Exec(Exec),
    Stat {
        at: Spot,
    },
    /// Reads a whole file of at most `max` bytes.
    Read {
        at: Spot,
        max: u32,
    },
    /// Replaces a file atomically.
    Write {
        at: Spot,
        data: Vec<u8>,
        mode: u32,
    },
    /// Copies a file or folder of the incoming package.
    Place {
        /// In the package; `.` is all of it.
        artifact: String,
        at: Spot,
    },
    /// Points a link at something that is there, atomically.
    SwapLink {
        link: Spot,
        to: Spot,
    },
    /// Removes a file, a link, or a folder with all that is in it.
    Remove {
        at: Spot,
    },
}

/// The program of an errand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// A name on the search path, an absolute path, or a path with a `/` in it in the package; then its arguments.
    pub words: Vec<String>,
    /// Where it runs; in the package where this is absent.
    pub folder: Option<Spot>,
    /// In order; a later entry wins.
    pub env: Vec<(String, String)>,
    pub stdin: Vec<u8>,
    pub timeout: Duration,
    /// The most bytes that are kept of each stream.
    pub max_output: u32,
}

/// What an errand led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// There is nothing to tell.
    Nothing,
    Exited(Exited),
    /// None where nothing is there.
    Stat(Option<FileStat>),
    Content(Vec<u8>),
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// -1 where a signal ended it.
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Whether it wrote more than was kept.
    pub is_truncated: bool,
}

/// What is at a place, links not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    pub is_folder: bool,
    /// The text of a link.
    pub link: Option<String>,
}

/// Why an errand was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Undone {
    pub why: Why,
    pub reason: String,
}

/// What may be done about an errand that was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// What it is about is not there.
    NotFound,
    /// The instance does not let the agent do it, or it leads out of what is granted.
    Denied,
    /// It makes no sense as it is asked for.
    Invalid,
    /// The program took too long, and was ended.
    TimedOut,
    /// The instance failed at it; nothing of it happened.
    Failed,
    /// It may have been done: nobody knows.
    Lost,
    /// The instance does not answer. It may have been done.
    Unreachable,
}

impl Why {
    /// All of them.
    pub const ALL: [Why; 7] = [
        Self::NotFound,
        Self::Denied,
        Self::Invalid,
        Self::TimedOut,
        Self::Failed,
        Self::Lost,
        Self::Unreachable,
    ];
}

impl Undone {
    /// An errand that was not done.
    pub fn new(why: Why, reason: impl Into<String>) -> Self {
        Self {
            why,
            reason: reason.into(),
        }
    }
}

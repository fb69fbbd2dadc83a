//! What goes between a confined run and who asked for it: one line of JSON in, a few out.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Commands that run one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What the control groups of it are called; no two jobs at a time have the same.
    pub name: String,
    /// The only folder that may be written to, an absolute path. It is removed when who asked is gone before the end.
    pub folder: PathBuf,
    pub steps: Vec<Step>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What the log calls it.
    pub title: String,
    /// The program, an absolute path, and its arguments.
    pub words: Vec<String>,
    /// All that is in its environment.
    pub environment: Vec<(String, String)>,
    /// Where it runs, below the folder of the job.
    pub folder: PathBuf,
    pub timeout_ms: u64,
    /// The most memory that all its processes together may have resident, in bytes.
    pub memory: Option<u64>,
}

/// How far writes are confined to the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confinement {
    /// Nothing else can be written to.
    Full,
    /// As `Full`, but for files elsewhere that can be made empty.
    NotTruncation,
    /// The kernel has no means for it.
    None,
}

impl Confinement {
    /// What the log says of it.
    pub(super) fn sentence(self, folder: &Path) -> String {
        let folder = folder.display();
        match self {
            Self::Full => format!("writes outside `{folder}` are refused"),
            Self::NotTruncation => {
                format!("writes outside `{folder}` are refused, but for making files empty")
            }
            Self::None => format!(
                "writes outside `{folder}` are not refused: this kernel has no means for it"
            ),
        }
    }
}

/// What a confined run says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// Before the first step.
    Confined(Confinement),
    /// At the end. Nothing that was started is left, but for what cannot be killed.
    Ended(Verdict),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Succeeded,
    /// A step ended otherwise than with 0; those after it did not run.
    Failed {
        /// Counted from 0.
        step: usize,
        ending: Ending,
    },
    /// The run itself could not do its work.
    Broken {
        reason: String,
    },
}

/// How a step ended that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    Exited {
        code: i32,
    },
    /// By a signal of somebody else's.
    Killed {
        signal: String,
    },
    TimedOut,
    /// It had more memory than it may.
    OverMemory {
        bytes: u64,
    },
    NotStarted {
        reason: String,
    },
    /// Who asked is gone.
    Abandoned,
}

/// Why a confined run tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job cannot be read.
    #[error("read the job from stdin")]
    Read(#[source] io::Error),
    /// The job is none.
    #[error("understand the job")]
    Job(#[source] serde_json::Error),
    /// The process is not what it has to be.
    #[error("prepare the process")]
    Prepare(#[source] io::Error),
    /// Nobody takes the verdict.
    #[error("tell how it ended")]
    Tell(#[source] io::Error),
}

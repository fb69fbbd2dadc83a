//! Running a build: the process that confines it, and what its end means.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use agent::confine::{Confinement, Ending, Job, Step, Told, Verdict};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::log::Log;
use super::scratch::Scratch;
use crate::progress::OnProgress;

/// How long the process that confines a build may take beyond what the build may.
const GRACE: Duration = Duration::from_secs(60);
/// The most that it tells of itself, in bytes.
const MOST_TOLD: u64 = 64 << 10;

/// A source that did not become a package.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("build `{reference}`: this conductor has no program to confine it with")]
    NoConfiner { reference: String },
    #[error(
        "how `{reference}` is built is not known: its group is not in the workspace file any more"
    )]
    NoGroup { reference: String },
    #[error("`{program}`, which brings `{reference}`, is in no folder of PATH")]
    NoProgram { program: String, reference: String },
    #[error("prepare a folder for a build in `{}`", folder.display())]
    Scratch { folder: PathBuf, source: io::Error },
    #[error("run what confines the build of `{reference}`")]
    Confiner {
        reference: String,
        source: io::Error,
    },
    #[error("the build of `{reference}` was lost: {reason}")]
    Lost { reference: String, reason: String },
    #[error("bring `{reference}`: `{title}` {how}; its log is `{}`", log.display())]
    Checkout {
        reference: String,
        title: String,
        how: String,
        log: PathBuf,
        /// What the package source advises.
        hint: Option<Box<str>>,
        #[source]
        last: Option<Box<LastLines>>,
    },
    #[error("build `{reference}`: `{command}` {how}; its log is `{}`", log.display())]
    Failed {
        reference: String,
        command: String,
        how: String,
        log: PathBuf,
        #[source]
        last: Option<Box<LastLines>>,
    },
    #[error("the build of `{reference}` made no `{output}`; its log is `{}`", log.display())]
    NoOutput {
        reference: String,
        output: String,
        log: PathBuf,
        source: io::Error,
    },
    #[error(
        "`{output}`, which the build of `{reference}` made, leads out of the folder that it was built in"
    )]
    OutputLeaves { reference: String, output: String },
    #[error(
        "the build of `{reference}` is not reproducible: it gave {found}, and {expected} is needed"
    )]
    NotReproduced {
        reference: String,
        found: String,
        expected: String,
    },
}

/// The last lines that a build printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLines(pub Vec<String>);

impl std::fmt::Display for LastLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(" | "))
    }
}

impl std::error::Error for LastLines {}

/// What a conductor builds with.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    /// Where builds have their folders.
    pub(crate) folder: PathBuf,
    /// The command line of a process that runs [`agent::confine::serve`].
    pub(crate) confiner: Vec<OsString>,
}

/// How a job ended.
pub(super) struct Ran {
    pub(super) confinement: Confinement,
    /// The step that failed, and how.
    pub(super) failed: Option<(usize, String)>,
    pub(super) last: LastLines,
}

impl Builder {
    /// Carries out the steps of a build. When this is given up, so is the build.
    pub(super) async fn run(
        &self,
        reference: &str,
        scratch: &Scratch,
        steps: Vec<Step>,
        progress: OnProgress,
    ) -> Result<Ran, BuildError> {
        let failed = |source| BuildError::Confiner {
            reference: reference.to_owned(),
            source,
        };
        let lost = |reason: &str| BuildError::Lost {
            reference: reference.to_owned(),
            reason: reason.to_owned(),
        };
        let [program, arguments @ ..] = self.confiner.as_slice() else {
            return Err(BuildError::NoConfiner {
                reference: reference.to_owned(),
            });
        };
        let most: u64 = steps.iter().map(|step| step.timeout_ms).sum();
        let timeouts: Vec<_> = steps.iter().map(|step| step.timeout_ms).collect();
        let limits: Vec<_> = steps.iter().map(|step| step.memory).collect();
        let job = Job {
            name: scratch.id().to_owned(),
            folder: scratch.folder().to_owned(),
            steps,
        };
        let mut line = serde_json::to_vec(&job).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // Held to the end: when it is closed, the process ends everything.
        let mut lifeline = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let log = scratch.log.try_clone().map_err(failed)?;
        let mut log = Log::new(log, progress);
        log.say(&format!("build of {reference}")).await;
        let work = async {
            if let Some(lifeline) = &mut lifeline {
                lifeline.write_all(&line).await?;
                lifeline.flush().await?;
            }
            let (_, told) = tokio::join!(
                async {
                    if let Some(stdout) = stdout {
                        log.take(stdout).await;
                    }
                },
                told(stderr)
            );
            child.wait().await?;
            io::Result::Ok(told)
        };
        let limit = Duration::from_millis(most).saturating_add(GRACE);
        let told = tokio::time::timeout(limit, work)
            .await
            .map_err(|_| lost("what confines it does not answer"))?
            .map_err(failed)?;
        drop(lifeline);
        let last = log.last_lines();
        match read(&told) {
            (Some(confinement), Some(Verdict::Succeeded)) => Ok(Ran {
                confinement,
                failed: None,
                last,
            }),
            (Some(confinement), Some(Verdict::Failed { step, ending })) => {
                let timeout = timeouts.get(step).copied().unwrap_or_default();
                let memory = limits.get(step).copied().flatten();
                Ok(Ran {
                    confinement,
                    failed: Some((step, how(&ending, timeout, memory))),
                    last,
                })
            }
            (_, Some(Verdict::Broken { reason })) => Err(lost(&reason)),
            _ => {
                let told = told.lines().last().unwrap_or_default();
                Err(lost(&format!("what confines it ended early: {told}")))
            }
        }
    }
}

async fn told(stderr: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stderr) = stderr {
        // Without its end there is no verdict in it.
        let _ = stderr.take(MOST_TOLD).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read(told: &str) -> (Option<Confinement>, Option<Verdict>) {
    let (mut confinement, mut verdict) = (None, None);
    for line in told.lines() {
        match serde_json::from_str(line) {
            Ok(Told::Confined(how)) => confinement = Some(how),
            Ok(Told::Ended(end)) => verdict = Some(end),
            // What the loader or a panic printed.
            Err(_) => {}
        }
    }
    (confinement, verdict)
}

/// How a step ended, as what follows its name.
fn how(ending: &Ending, timeout_ms: u64, memory: Option<u64>) -> String {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    match ending {
        Ending::Exited { code } => format!("exited with {code}"),
        Ending::Killed { signal } => format!("was killed by {signal}"),
        Ending::TimedOut => format!(
            "was ended because it took longer than {} s",
            timeout_ms / 1000
        ),
        Ending::OverMemory { bytes } => format!(
            "was killed with {} MiB of memory, and {} MiB is its limit",
            mebibytes(*bytes),
            mebibytes(memory.unwrap_or_default())
        ),
        Ending::NotStarted { reason } => format!("could not be started: {reason}"),
        Ending::Abandoned => "was given up".to_owned(),
    }
}

/// Finds a program as a shell would.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    let is_program = |file: &PathBuf| {
        use rustix::fs::{Access, access};
        file.is_file() && access(file, Access::EXEC_OK).is_ok()
    };
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(is_program)
}

/// What to know of how far a build was confined.
pub(super) fn warning(confinement: Confinement, folder: &Path) -> Option<String> {
    let folder = folder.display();
    match confinement {
        Confinement::Full => None,
        Confinement::NotTruncation => Some(format!(
            "the build was kept from writing outside `{folder}`, but not from making other files empty: this kernel cannot do that before Linux 6.2"
        )),
        Confinement::None => Some(format!(
            "the build was not kept from writing outside `{folder}`: this kernel has no Landlock (Linux 5.19 or later, switched on)"
        )),
    }
}

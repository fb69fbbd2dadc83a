//! From a source to a package in the store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::confine::Step;
use plugin_host::package_source::{Checkout, Command};
use spec::workspace::{Build, Group};

use super::recipe::{Recipe, environment};
use super::run::{BuildError, Ran, find_program, warning};
use super::scratch::Scratch;
use crate::Conductor;
use crate::digests::Stated;
use crate::fetch::{self, FetchError, Fetched, Want};
use crate::plan::PlanError;
use crate::progress::{OnProgress, Progress};

/// How long each command that brings the source may take.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The most of a command that a message shows, in characters.
const LONGEST_TITLE: usize = 100;

impl Conductor {
    /// Brings a source, builds it as the group says, and puts the result into the store. What was built in the same way
    /// before and is still there is not built again.
    pub(crate) async fn build(
        &self,
        run: &str,
        checkout: &Checkout,
        group: &Group,
        want: Want,
    ) -> Result<Fetched, PlanError> {
        let reference = want.reference.clone();
        let recipe = Recipe::new(&reference, checkout, group);
        let key = recipe.key();
        let expected = want.stated.sha256();
        if expected.is_none()
            && let Some(stored) = self.packages.find_built(&key)
        {
            (self.progress)(&Progress::BuiltBefore { reference });
            return Ok(Fetched {
                stored,
                warnings: Vec::new(),
            });
        }
        let builds = self.builder.folder.clone();
        let scratch =
            Scratch::make(&builds, &name_of(run)).map_err(|source| BuildError::Scratch {
                folder: builds,
                source,
            })?;
        let _watched = Watched::begin(&self.progress, &reference, &scratch);
        let steps = steps(&recipe, checkout, group.build.as_ref(), &scratch)?;
        let ran = self
            .builder
            .run(&reference, &scratch, steps, self.progress.clone())
            .await?;
        let warning = warning(ran.confinement, scratch.folder());
        judge(ran, &recipe, checkout, &scratch)?;
        let packages = self.packages.clone();
        let leave_out = checkout.leave_out.clone();
        let packing = tokio::task::spawn_blocking(move || {
            let output = packed(&recipe, &leave_out, &scratch)?;
            let mut fetched = keep(&packages, &want, &output)?;
            packages.note_built(&fetched.stored.digest, &key);
            fetched.warnings.extend(warning);
            Ok::<_, PlanError>(fetched)
        });
        match packing.await {
            Ok(packed) => packed,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// Says that a build has ended when it goes out of scope, however that comes about.
struct Watched<'a> {
    progress: &'a OnProgress,
    reference: &'a str,
}

impl<'a> Watched<'a> {
    fn begin(progress: &'a OnProgress, reference: &'a str, scratch: &Scratch) -> Self {
        progress(&Progress::BuildBegun {
            reference: reference.to_owned(),
            log: scratch.log_path.clone(),
        });
        Self {
            progress,
            reference,
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        (self.progress)(&Progress::BuildEnded {
            reference: self.reference.to_owned(),
        });
    }
}

/// The name of a build's folder: what it is done for.
fn name_of(run: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let name: String = run.chars().filter(|c| is_plain(*c)).take(64).collect();
    if name.is_empty() {
        "build".to_owned()
    } else {
        name
    }
}

fn steps(
    recipe: &Recipe,
    checkout: &Checkout,
    build: Option<&Build>,
    scratch: &Scratch,
) -> Result<Vec<Step>, BuildError> {
    let bring = |command: &Command| {
        let program = find_program(&command.program).ok_or_else(|| BuildError::NoProgram {
            program: command.program.clone(),
            reference: recipe.pinned.clone(),
        })?;
        let given = checkout
            .environment
            .iter()
            .map(|(name, value)| (name, value));
        Ok(Step {
            title: command.title.clone(),
            words: std::iter::once(program.display().to_string())
                .chain(command.arguments.iter().cloned())
                .collect(),
            environment: environment(scratch, given),
            folder: scratch.source(),
            timeout_ms: milliseconds(CHECKOUT_TIMEOUT),
            memory: None,
        })
    };
    let mut steps = checkout
        .commands
        .iter()
        .map(bring)
        .collect::<Result<Vec<_>, BuildError>>()?;
    if let (Some(build), Some(command)) = (build, &recipe.command) {
        steps.push(Step {
            title: title(command),
            words: vec!["/bin/sh".to_owned(), "-c".to_owned(), command.clone()],
            environment: environment(scratch, &recipe.variables),
            folder: scratch.source(),
            timeout_ms: milliseconds(build.timeout),
            memory: build.memory,
        });
    }
    Ok(steps)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How messages name a command.
fn title(command: &str) -> String {
    let line = command.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(LONGEST_TITLE).collect();
    if short.len() < command.trim().len() {
        format!("{short}…")
    } else {
        short
    }
}

fn judge(
    ran: Ran,
    recipe: &Recipe,
    checkout: &Checkout,
    scratch: &Scratch,
) -> Result<(), BuildError> {
    let Some((step, how)) = ran.failed else {
        return Ok(());
    };
    let (reference, log) = (recipe.pinned.clone(), scratch.log_path.clone());
    let last = Some(Box::new(ran.last)).filter(|last| !last.0.is_empty());
    Err(match checkout.commands.get(step) {
        Some(command) => BuildError::Checkout {
            reference,
            title: command.title.clone(),
            how,
            log,
            hint: command.hint.clone().map(String::into_boxed_str),
            last,
        },
        None => BuildError::Failed {
            reference,
            command: title(recipe.command.as_deref().unwrap_or_default()),
            how,
            log,
            last,
        },
    })
}

/// What is to be packed: the output, without what is no part of a package. Nothing of the build runs any more.
fn packed(recipe: &Recipe, leave_out: &[String], scratch: &Scratch) -> Result<PathBuf, BuildError> {
    let Recipe { pinned, output, .. } = recipe;
    let missing = |source| BuildError::NoOutput {
        reference: pinned.clone(),
        output: output.clone(),
        log: scratch.log_path.clone(),
        source,
    };
    let source = scratch.source();
    for name in leave_out {
        remove(&source.join(name)).map_err(missing)?;
    }
    let root = source.canonicalize().map_err(missing)?;
    let found = source.join(output).canonicalize().map_err(missing)?;
    if !found.starts_with(&root) {
        return Err(BuildError::OutputLeaves {
            reference: pinned.clone(),
            output: output.clone(),
        });
    }
    Ok(found)
}

/// Removes a folder, a file or a link.
fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => agent::confine::clear(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts the result into the store. Another digest than the one that is needed is told of as what it means for a build.
fn keep(
    packages: &crate::packages::Packages,
    want: &Want,
    output: &Path,
) -> Result<Fetched, PlanError> {
    let stored = |source| FetchError::Store {
        reference: want.reference.clone(),
        source,
    };
    let draft = packages.draft().map_err(stored)?;
    let digests = if output.is_dir() {
        None
    } else {
        Some(fetch::digests_of(output, &Stated::default()).map_err(stored)?)
    };
    let kept = fetch::keep(
        packages,
        draft,
        want,
        &want.reference,
        output,
        digests.as_ref(),
    );
    kept.map_err(|error| match error {
        FetchError::WrongDigest {
            reference,
            found,
            expected,
        } => PlanError::from(BuildError::NotReproduced {
            reference,
            found,
            expected,
        }),
        error => PlanError::Fetch(error),
    })
}

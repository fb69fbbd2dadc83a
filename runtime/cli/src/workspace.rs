//! Finding the workspace and opening what belongs to it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conductor::{Conductor, Options, Plugins};
use fleet::LocalFleet;
use journal::Journal;
use plugin_host::{Host, HostOptions};
use spec::workspace::{JournalLocation, Workspace};

use crate::failure::{Failure, Kind};
use crate::ui::Ui;

const FILE: &str = "cutover.yaml";

/// A workspace file that has been read.
pub(crate) struct Opened {
    pub(crate) file: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) workspace: Workspace,
}

/// Reads the workspace file: the one given, or the first found upwards from the working directory.
pub(crate) fn open(ui: Ui, given: Option<&Path>) -> Result<Opened, Failure> {
    let file = match given {
        Some(file) => file.to_owned(),
        None => find()?,
    };
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Failure::io(
            format!("read the workspace file `{}`", file.display()),
            error,
        )
    })?;
    let parsed = spec::workspace::parse(&text, &file).map_err(problems)?;
    for warning in parsed.warnings.iter() {
        ui.warn(&warning.to_string());
    }
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder)
        .map_err(|error| Failure::io(format!("find the folder of `{}`", file.display()), error))?;
    Ok(Opened {
        file,
        folder,
        workspace: parsed.value,
    })
}

fn find() -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::io("find the working directory".to_owned(), error))?;
    let found = here
        .ancestors()
        .map(|folder| folder.join(FILE))
        .find(|file| file.is_file());
    let missing = || {
        let text = format!("there is no `{FILE}` in `{}` or above it", here.display());
        Failure::new(Kind::Invalid, text)
            .hint("write one: cutover init")
            .hint("name one: --config FILE")
    };
    let file = found.ok_or_else(missing)?;
    // Messages read better with a path from here.
    Ok(file
        .strip_prefix(&here)
        .map_or(file.clone(), Path::to_owned))
}

/// All problems of a file as one failure.
pub(crate) fn problems(problems: spec::Problems) -> Failure {
    let hints: Vec<_> = problems
        .iter()
        .filter_map(|problem| problem.hint.clone())
        .collect();
    let mut failure = Failure::new(Kind::Invalid, problems);
    failure.hints = hints;
    failure
}

/// Where a workspace keeps its journal, packages, logs and compiled plugins.
fn state_folder(opened: &Opened) -> Result<(PathBuf, PathBuf), Failure> {
    match &opened.workspace.journal {
        JournalLocation::Sqlite(path) => {
            let path = opened.folder.join(path);
            let folder = path
                .parent()
                .map_or_else(|| opened.folder.clone(), Path::to_owned);
            Ok((path, folder))
        }
        JournalLocation::Postgres(url) => Err(Failure::new(
            Kind::Invalid,
            format!("the journal `{url}` is not supported by this version of cutover"),
        )
        .hint("use `journal: sqlite:PATH`")),
    }
}

/// Opens the journal alone, for commands that only read.
pub(crate) fn journal(opened: &Opened) -> Result<Journal, Failure> {
    Ok(Journal::open(&state_folder(opened)?.0)?)
}

/// The workspace's plugins.
pub(crate) fn plugins(opened: &Opened) -> Result<Plugins, Failure> {
    let (_, state) = state_folder(opened)?;
    let host = Host::new(HostOptions::new(state.join("compiled")))
        .map_err(|error| Failure::new(Kind::Bug, error))?;
    Ok(Plugins::new(host, &opened.workspace, opened.folder.clone()))
}

/// Opens everything that a release needs.
pub(crate) fn conductor(opened: &Opened) -> Result<Conductor, Failure> {
    let (journal, state) = state_folder(opened)?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::io("find this program's own file".to_owned(), error))?;
    let agent: Vec<OsString> = vec![program.into(), "agent".into(), "run".into()];
    Ok(Conductor::new(Options {
        workspace: opened.workspace.clone(),
        journal: Journal::open(&journal)?,
        fleet: Arc::new(LocalFleet::new(agent)),
        plugins: plugins(opened)?,
        state,
        operator: operator(),
    }))
}

/// Who gives the orders, `user@host`.
pub(crate) fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let user = named
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}

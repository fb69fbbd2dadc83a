//! Finding the workspace and opening what belongs to it.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conductor::{Conductor, Options, Plugins};
use fleet::{LocalFleet, MixedFleet, SshFleet, SshOptions};
use journal::Journal;
use plugin_host::{Host, HostOptions};
use spec::Problems;
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
    let file = file(given)?;
    let (opened, warnings) =
        read(&file)?.map_err(|problems| Failure::new(Kind::Invalid, Faulty { file, problems }))?;
    for warning in &warnings {
        ui.warn(&format!("{warning:#}"));
    }
    Ok(opened)
}

/// The workspace file that is meant.
pub(crate) fn file(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(file) => Ok(file.to_owned()),
        None => find(),
    }
}

/// Reads a workspace file: what it says and its warnings, or all its problems.
pub(crate) fn read(file: &Path) -> Result<Result<(Opened, Problems), Problems>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::io(
            format!("read the workspace file `{}`", file.display()),
            error,
        )
    })?;
    let parsed = match spec::workspace::parse(&text, file) {
        Ok(parsed) => parsed,
        Err(problems) => return Ok(Err(problems)),
    };
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder)
        .map_err(|error| Failure::io(format!("find the folder of `{}`", file.display()), error))?;
    let opened = Opened {
        file: file.to_owned(),
        folder,
        workspace: parsed.value,
    };
    Ok(Ok((opened, parsed.warnings)))
}

#[derive(Debug, thiserror::Error)]
#[error("the workspace file `{}` has problems", file.display())]
struct Faulty {
    file: PathBuf,
    #[source]
    problems: Problems,
}

fn find() -> Result<PathBuf, Failure> {
    let here = env::current_dir()
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
        JournalLocation::Postgres(url) => {
            let text = format!("the journal `{url}` is not supported by this version of cutover");
            Err(Failure::new(Kind::Invalid, text)
                .at(opened, opened.workspace.journal_at)
                .hint("use `journal: sqlite:PATH`"))
        }
    }
}

/// Opens the journal alone, for commands that only read.
pub(crate) fn journal(opened: &Opened) -> Result<Journal, Failure> {
    Ok(Journal::open(&state_folder(opened)?.0)?)
}

/// Opens the journal where there is one.
pub(crate) fn journal_if_any(opened: &Opened) -> Result<Option<Journal>, Failure> {
    if state_folder(opened)?.0.exists() {
        journal(opened).map(Some)
    } else {
        Ok(None)
    }
}

/// The workspace's plugins.
pub(crate) fn plugins(opened: &Opened) -> Result<Plugins, Failure> {
    let (_, state) = state_folder(opened)?;
    let host = Host::new(HostOptions::new(state.join("compiled")))?;
    Ok(Plugins::new(host, &opened.workspace, opened.folder.clone()))
}

/// Opens everything that a release needs.
pub(crate) fn conductor(opened: &Opened) -> Result<Conductor, Failure> {
    let (journal, state) = state_folder(opened)?;
    let ssh = SshFleet::new(ssh_options()?);
    let local = LocalFleet::new(agent_command()?);
    let confiner = vec![own_file()?.into(), "agent".into(), "confine".into()];
    let conductor = Conductor::new(Options {
        workspace: opened.workspace.clone(),
        journal: Journal::open(&journal)?,
        fleet: Arc::new(MixedFleet::new(local, ssh)),
        plugins: plugins(opened)?,
        state,
        operator: operator(),
    });
    Ok(conductor.with_confiner(confiner))
}

/// What serves as the agent of this machine: this program itself.
pub(crate) fn agent_command() -> Result<Vec<OsString>, Failure> {
    Ok(vec![own_file()?.into(), "agent".into(), "run".into()])
}

fn own_file() -> Result<PathBuf, Failure> {
    env::current_exe()
        .map_err(|error| Failure::io("find this program's own file".to_owned(), error))
}

/// How hosts are reached over SSH. `CUTOVER_SSH` names the program, `CUTOVER_AGENT_DIR` folders with agents to look into
/// before those beside this program.
fn ssh_options() -> Result<SshOptions, Failure> {
    let named = |name| env::var_os(name).filter(|value| !value.is_empty());
    let given = named("CUTOVER_AGENT_DIR");
    let mut agents: Vec<PathBuf> = given
        .iter()
        .flat_map(|folders| env::split_paths(folders))
        .collect();
    if let Some(folder) = own_file()?.parent() {
        agents.push(folder.to_owned());
        agents.push(folder.join("agents"));
        agents.push(folder.join("../agents"));
        agents.push(folder.join("../share/cutover/agents"));
    }
    Ok(SshOptions {
        program: named("CUTOVER_SSH").map_or_else(|| "ssh".into(), PathBuf::from),
        agents,
    })
}

/// Who gives the orders, `user@host`.
pub(crate) fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| env::var(name).ok())
        .find(|name| !name.is_empty());
    let user = named
        .or_else(own_name)
        .unwrap_or_else(|| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}

/// The name of this process's user, or its number where it has none.
fn own_name() -> Option<String> {
    let own = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == own).then(|| name.to_owned())
    });
    Some(named.unwrap_or(own))
}

//! What an instance is told to do, and its words in the agent's protocol.

use std::path::PathBuf;

use agent::protocol;
use model::{
    AttemptId, Cause, DeploymentId, Digest, Ending, FileMapping, GroupRef, Kinds, OnExisting, Permission, Run, Script,
};

/// One attempt on one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub attempt: AttemptId,
    /// Absolute folder of the instance.
    pub rootdir: String,
    pub work: Work,
}

/// What an attempt does. Package folders are relative to the instance's `rootdir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Puts a package into the instance's cache.
    Fetch {
        cache: String,
        /// The unpacked package on this machine.
        source: PathBuf,
        /// Digest of the unpacked package.
        digest: Digest,
        /// Package folders that must stay.
        keep: Vec<String>,
        /// How many of the others stay, the newest ones.
        keep_others: u32,
    },
    /// Runs the scripts of a hook.
    Hooks { cache: String, scripts: Vec<Script>, env: Vec<(String, String)> },
    /// Lays the files of a package down.
    Install {
        group: GroupRef,
        /// The deployment that brought the package.
        deployment: DeploymentId,
        cache: String,
        files: Vec<FileMapping>,
        permissions: Vec<Permission>,
        on_existing: OnExisting,
    },
}

/// The command as the agent is told it, with the position from which its log is wanted.
pub(crate) fn request(command: Command, log_from: u64) -> protocol::Run {
    protocol::Run {
        attempt: command.attempt.to_string(),
        rootdir: command.rootdir,
        log_from,
        work: work(command.work),
    }
}

fn work(work: Work) -> protocol::Work {
    match work {
        Work::Fetch { cache, source, digest, keep, keep_others } => protocol::Work::Fetch(protocol::Fetch {
            cache,
            source: source.display().to_string(),
            digest: digest.to_string(),
            keep,
            keep_others,
        }),
        Work::Hooks { cache, scripts, env } => {
            let scripts = scripts.into_iter().map(script).collect();
            protocol::Work::Hooks(protocol::Hooks { cache, scripts, env })
        }
        Work::Install { group, deployment, cache, files, permissions, on_existing } => {
            let files = files.into_iter().map(|file| protocol::FileMapping {
                source: file.source,
                destination: file.destination,
            });
            protocol::Work::Install(protocol::Install {
                application: group.application.to_string(),
                group: group.group.to_string(),
                cache,
                deployment: deployment.to_string(),
                files: files.collect(),
                permissions: permissions.into_iter().map(permission).collect(),
                on_existing: match on_existing {
                    OnExisting::Disallow => protocol::OnExisting::Disallow,
                    OnExisting::Overwrite => protocol::OnExisting::Overwrite,
                    OnExisting::Retain => protocol::OnExisting::Retain,
                },
            })
        }
    }
}

fn script(script: Script) -> protocol::Script {
    protocol::Script {
        run: match script.run {
            Run::Location(path) => protocol::ScriptRun::Location(path),
            Run::Command(text) => protocol::ScriptRun::Command(text),
        },
        timeout_ms: u64::try_from(script.timeout.as_millis()).unwrap_or(u64::MAX),
        runas: script.runas,
    }
}

fn permission(permission: Permission) -> protocol::Permission {
    let Permission { object, pattern, except, kinds, owner, group, mode } = permission;
    let kinds = match kinds {
        Kinds::Files => protocol::Kinds::Files,
        Kinds::Directories => protocol::Kinds::Directories,
        Kinds::Both => protocol::Kinds::Both,
    };
    protocol::Permission { object, pattern, except, kinds, owner, group, mode }
}

/// What the agent said of an attempt.
pub(crate) fn ending(outcome: protocol::Outcome) -> Ending {
    match outcome {
        protocol::Outcome::Succeeded { exit_code, log, note } => Ending::Succeeded { exit_code, log, note },
        protocol::Outcome::Failed { cause: why, reason, exit_code, log } => {
            Ending::Failed { cause: cause(why), reason, exit_code, log }
        }
        protocol::Outcome::Lost { reason } => Ending::Lost { reason },
    }
}

fn cause(cause: protocol::Cause) -> Cause {
    match cause {
        protocol::Cause::ScriptMissing => Cause::ScriptMissing,
        protocol::Cause::NotExecutable => Cause::NotExecutable,
        protocol::Cause::TimedOut => Cause::TimedOut,
        protocol::Cause::ScriptFailed => Cause::ScriptFailed,
        protocol::Cause::OutputsLeftOpen => Cause::OutputsLeftOpen,
        protocol::Cause::Invalid => Cause::Invalid,
        protocol::Cause::FetchFailed => Cause::FetchFailed,
        protocol::Cause::InstallFailed => Cause::InstallFailed,
    }
}

//! Between the nouns of the model and the words of the agent's protocol.

use std::time::Duration;

use agent::protocol;
use model::{
    Cause, Done, Ending, Errand, Exec, Exited, FileStat, Kinds, OnExisting, Run, Script, Spot,
    Undone, Why,
};

use crate::{Asked, ChangedFile, Command, Condition, FileChange, Installation, Place, Then, Work};

/// A command that cannot be put into words.
#[derive(Debug, thiserror::Error)]
#[error("the path `{path}` is not UTF-8")]
pub(crate) struct Unspeakable {
    path: String,
}

impl Unspeakable {
    /// How an attempt ends that was never begun for it.
    pub(crate) fn ending(&self) -> Ending {
        Ending::Failed {
            cause: Cause::Invalid,
            reason: self.to_string(),
            script: None,
            exit_code: None,
            log: None,
        }
    }
}

pub(crate) fn request(command: Command) -> Result<protocol::Run, Unspeakable> {
    let Command {
        attempt,
        rootdir,
        work,
        asked,
        then,
        fence,
    } = command;
    let then = then.map(|then| {
        let Then { attempt, work } = then;
        Ok(Box::new(protocol::Then {
            attempt: attempt.as_str().to_owned(),
            work: words(work)?,
        }))
    });
    Ok(protocol::Run {
        attempt: attempt.as_str().to_owned(),
        rootdir,
        log_from: 0,
        work: words(work)?,
        fresh: asked == Asked::Never,
        join: false,
        then: then.transpose()?,
        fence: Some(protocol::Fence {
            journal: fence.journal,
            number: fence.number,
            release: fence.release.as_str().to_owned(),
        }),
    })
}

fn words(work: Work) -> Result<protocol::Work, Unspeakable> {
    Ok(match work {
        Work::Fetch {
            cache,
            source,
            digest,
            keep,
            keep_others,
            installation,
        } => {
            let source = source
                .into_os_string()
                .into_string()
                .map_err(|path| Unspeakable {
                    path: path.to_string_lossy().into_owned(),
                })?;
            let digest = digest.as_str().to_owned();
            protocol::Work::Fetch(protocol::Fetch {
                cache,
                source,
                digest,
                keep,
                keep_others,
                install: installation.map(|installation| Box::new(install(installation))),
            })
        }
        Work::Hooks {
            cache,
            scripts,
            env,
        } => {
            let scripts = scripts.into_iter().map(script).collect();
            protocol::Work::Hooks(protocol::Hooks {
                cache,
                scripts,
                env,
            })
        }
        Work::Install(installation) => protocol::Work::Install(install(installation)),
        Work::Errand { cache, errand } => protocol::Work::Errand(protocol::Errand {
            cache,
            deed: deed(errand),
        }),
    })
}

fn deed(errand: Errand) -> protocol::Deed {
    use protocol::Deed;
    match errand {
        Errand::Exec(exec) => {
            let Exec {
                words,
                folder,
                env,
                stdin,
                timeout,
                max_output,
            } = exec;
            Deed::Exec(protocol::Exec {
                words,
                folder: folder.map(spot),
                env,
                stdin,
                timeout_ms: milliseconds(timeout),
                max_output,
            })
        }
        Errand::Stat { at } => Deed::Stat { at: spot(at) },
        Errand::Read { at, max } => Deed::Read { at: spot(at), max },
        Errand::Write { at, data, mode } => Deed::Write {
            at: spot(at),
            data,
            mode,
        },
        Errand::Place { artifact, at } => Deed::Place {
            artifact,
            at: spot(at),
        },
        Errand::SwapLink { link, to } => Deed::SwapLink {
            link: spot(link),
            to: spot(to),
        },
        Errand::Remove { at } => Deed::Remove { at: spot(at) },
    }
}

fn spot(spot: Spot) -> protocol::Spot {
    let Spot { folder, path } = spot;
    protocol::Spot { folder, path }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn install(installation: Installation) -> protocol::Install {
    let Installation {
        group,
        cache,
        deployment,
        files,
        permissions,
        on_existing,
    } = installation;
    protocol::Install {
        application: group.application.as_str().to_owned(),
        group: group.group.as_str().to_owned(),
        cache,
        deployment: deployment.as_str().to_owned(),
        files: files
            .into_iter()
            .map(|file| protocol::FileMapping {
                source: file.source,
                destination: file.destination,
            })
            .collect(),
        permissions: permissions.into_iter().map(permission).collect(),
        on_existing: match on_existing {
            OnExisting::Disallow => protocol::OnExisting::Disallow,
            OnExisting::Overwrite => protocol::OnExisting::Overwrite,
            OnExisting::Retain => protocol::OnExisting::Retain,
        },
    }
}

fn script(script: Script) -> protocol::Script {
    protocol::Script {
        run: match script.run {
            Run::Location(text) => protocol::ScriptRun::Location(text),
            Run::Command(text) => protocol::ScriptRun::Command(text),
        },
        timeout_ms: milliseconds(script.timeout),
        runas: script.runas,
    }
}

fn permission(permission: model::Permission) -> protocol::Permission {
    let model::Permission {
        object,
        pattern,
        except,
        kinds,
        owner,
        group,
        mode,
        acls,
        context,
    } = permission;
    let kinds = match kinds {
        Kinds::Files => protocol::Kinds::Files,
        Kinds::Directories => protocol::Kinds::Directories,
        Kinds::Both => protocol::Kinds::Both,
    };
    protocol::Permission {
        object,
        pattern,
        except,
        kinds,
        owner,
        group,
        mode,
        acls,
        context: context.map(|context| protocol::Context {
            user: context.user,
            kind: context.kind,
            range: context.range,
        }),
    }
}

/// The question what is installed somewhere. Whoever asks it gives it its number.
pub(crate) fn inspection(place: Place) -> protocol::Inspect {
    let Place {
        rootdir,
        group,
        instance,
    } = place;
    protocol::Inspect {
        ask: 0,
        rootdir,
        application: group.application.as_str().to_owned(),
        group: group.group.as_str().to_owned(),
        instance: instance.as_str().to_owned(),
    }
}

pub(crate) fn condition(found: protocol::Inspected) -> Condition {
    let file = |changed: protocol::Changed| ChangedFile {
        path: changed.path,
        change: match changed.what {
            protocol::What::Changed => FileChange::Changed,
            protocol::What::Removed => FileChange::Removed,
        },
    };
    Condition {
        deployment: found.deployment,
        is_at_work: found.is_at_work,
        files: found.changed.into_iter().map(file).collect(),
        more: found.more,
    }
}

pub(crate) fn ending(outcome: protocol::Outcome) -> Ending {
    match outcome {
        protocol::Outcome::Succeeded {
            exit_code,
            log,
            note,
        } => Ending::Succeeded {
            exit_code,
            log,
            note,
        },
        protocol::Outcome::Failed {
            cause,
            reason,
            script,
            exit_code,
            log,
        } => Ending::Failed {
            cause: cause_of(cause),
            reason,
            script,
            exit_code,
            log,
        },
        protocol::Outcome::Lost { reason } => Ending::Lost { reason },
        protocol::Outcome::Answered { log, .. } => Ending::Failed {
            cause: Cause::Invalid,
            reason: MISTAKEN.to_owned(),
            script: None,
            exit_code: None,
            log,
        },
    }
}

/// Why an attempt has no end that ended as if it were another one.
const MISTAKEN: &str = "the agent tells the end of another attempt than it was given";

/// The end of an errand.
pub(crate) fn done(outcome: protocol::Outcome) -> Result<Done, Undone> {
    match outcome {
        protocol::Outcome::Answered { answer, .. } => answered(answer),
        protocol::Outcome::Lost { reason } => Err(Undone::new(Why::Lost, reason)),
        protocol::Outcome::Failed { reason, .. } => Err(Undone::new(Why::Failed, reason)),
        protocol::Outcome::Succeeded { .. } => Err(Undone::new(Why::Failed, MISTAKEN)),
    }
}

fn answered(answer: protocol::ErrandAnswer) -> Result<Done, Undone> {
    use protocol::ErrandAnswer;
    Ok(match answer {
        ErrandAnswer::Done => Done::Nothing,
        ErrandAnswer::Exited {
            exit_code,
            signal,
            stdout,
            stderr,
            truncated,
        } => Done::Exited(Exited {
            exit_code,
            signal,
            stdout,
            stderr,
            is_truncated: truncated,
        }),
        ErrandAnswer::Stat { stat } => Done::Stat(stat.map(|stat| FileStat {
            size: stat.size,
            mode: stat.mode,
            is_folder: stat.is_dir,
            link: stat.link,
        })),
        ErrandAnswer::Content { data } => Done::Content(data),
        ErrandAnswer::Undone { why, reason } => {
            let why = match why {
                protocol::Why::NotFound => Why::NotFound,
                protocol::Why::Denied => Why::Denied,
                protocol::Why::Invalid => Why::Invalid,
                protocol::Why::TimedOut => Why::TimedOut,
                protocol::Why::Failed => Why::Failed,
            };
            return Err(Undone { why, reason });
        }
    })
}

fn cause_of(cause: protocol::Cause) -> Cause {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_the_same_code_on_both_sides() {
        use protocol::Cause as Word;
        let words = [
            Word::ScriptMissing,
            Word::NotExecutable,
            Word::TimedOut,
            Word::ScriptFailed,
            Word::OutputsLeftOpen,
            Word::Invalid,
            Word::FetchFailed,
            Word::InstallFailed,
        ];
        for word in words {
            assert_eq!(cause_of(word).code(), word.code());
        }
    }
}

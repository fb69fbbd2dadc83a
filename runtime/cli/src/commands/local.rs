//! `cutover local`: trying a package on this machine, without a workspace.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conductor::{Conductor, LocalRequest, Options, PlanError, Planned, Plugins, Profile, Workflow};
use engine::{DeploymentState, State};
use fleet::LocalFleet;
use journal::Journal;
use model::{
    Amount, Batching, DeploymentId, Direction, Ending, GroupRef, Host, Instance, InstanceId,
    LifecycleEvent, OnFailure, ReleaseStatus, Strategy,
};
use plugin_host::{Host as PluginHost, HostOptions};
use serde::Serialize;
use spec::workspace::{Group, JournalLocation, Packages, Workspace};
use spec::{Position, Problems};

use crate::args::{BundleType, Local, Output};
use crate::commands::{deploy, drive};
use crate::failure::{Failure, Kind};
use crate::progress::Progress;
use crate::script_log::ScriptLog;
use crate::ui::Ui;
use crate::workspace;

/// The one instance.
const INSTANCE: &str = "local";

/// Revisions that stay in the package cache besides those that a rollback needs.
const KEEP_REVISIONS: u32 = 5;

/// The one JSON object of the answer.
#[derive(Debug, Serialize)]
struct Answer {
    v: u32,
    /// `SUCCEEDED`, `FAILED`, or `REFUSED` when nothing has changed on the instance.
    status: &'static str,
    /// A lifecycle event, or `SwitchTraffic`.
    failed_event: Option<String>,
    /// The script that failed, as the appspec names it.
    script: Option<String>,
    exit_code: Option<i32>,
    code: Option<&'static str>,
    message: String,
    /// Whose script failed, `outgoing` or `incoming`.
    revision: Option<&'static str>,
    deployment: Option<String>,
    /// Path of what the scripts printed.
    log: Option<String>,
}

pub(crate) async fn run(ui: Ui, arguments: Local) -> Result<(), Failure> {
    let deployment = arguments.deployment_id.as_ref().map(ToString::to_string);
    match try_out(ui, arguments).await {
        Ok(outcome) => {
            match ui.output {
                Output::Json => ui.answer_json(&outcome.answer),
                Output::Text => ui.answer(&outcome.text),
            }
            outcome.verdict
        }
        Err(Refused { failure, code }) => {
            if ui.output == Output::Json {
                ui.answer_json(&Answer {
                    v: 1,
                    status: "REFUSED",
                    failed_event: (code == FETCH_FAILED)
                        .then(|| LifecycleEvent::DownloadBundle.to_string()),
                    script: None,
                    exit_code: None,
                    code: Some(code),
                    message: message_of(&failure),
                    revision: None,
                    deployment,
                    log: None,
                });
            }
            Err(failure)
        }
    }
}

const FETCH_FAILED: &str = "fetch-failed";
const INVALID: &str = "invalid";

/// Refused before anything changed on the instance.
struct Refused {
    failure: Failure,
    code: &'static str,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            code: INVALID,
        }
    }
}

impl From<PlanError> for Refused {
    fn from(error: PlanError) -> Self {
        let code = match &error {
            PlanError::Fetch(_) => FETCH_FAILED,
            _ => INVALID,
        };
        Self {
            failure: error.into(),
            code,
        }
    }
}

struct Outcome {
    answer: Answer,
    text: String,
    verdict: Result<(), Failure>,
}

async fn try_out(ui: Ui, arguments: Local) -> Result<Outcome, Refused> {
    let group = GroupRef {
        application: arguments.application.clone(),
        group: arguments.group.clone(),
    };
    check_type(&arguments)?;
    let (conductor, state) = conductor(&arguments, &group)?;
    settle_earlier(ui, &conductor, &group).await?;
    let planned = plan(ui, &conductor, &group, arguments).await?;
    deploy::warn(ui, &planned);
    let id = planned.deployment.id.clone();
    let log = state.join("logs").join(id.as_str()).join("scripts.log");
    let running = conductor.open(planned)?;
    let progress = Arc::new(Progress::new(ui));
    let observer = Arc::new(ScriptLog::new(log.clone(), progress.clone()));
    let driven = drive::shown(running, progress, observer).await;
    let log = log.exists().then(|| log.display().to_string());
    Ok(match driven {
        Ok(state) => outcome_of(&state, &id, log),
        Err(failure) => cut_off(failure, &id, log),
    })
}

/// A folder is no archive and an archive no folder; which archive it is says its content.
fn check_type(arguments: &Local) -> Result<(), Refused> {
    let (Some(asked), Some(bundle)) = (arguments.r#type, &arguments.bundle) else {
        return Ok(());
    };
    let is_folder = bundle.is_dir();
    let text = match (asked, is_folder) {
        (BundleType::Directory, false) if bundle.exists() => {
            format!(
                "the bundle `{}` is a file, not a directory",
                bundle.display()
            )
        }
        (BundleType::Tar | BundleType::Tgz | BundleType::Zip, true) => {
            format!(
                "the bundle `{}` is a directory, not an archive",
                bundle.display()
            )
        }
        _ => return Ok(()),
    };
    Err(Failure::new(Kind::Invalid, text)
        .hint("leave --type out: what a bundle is, is seen from its content")
        .into())
}

/// Opens everything below `rootdir`; answers also with the folder for it.
fn conductor(arguments: &Local, group: &GroupRef) -> Result<(Conductor, PathBuf), Failure> {
    let rootdir = std::path::absolute(&arguments.rootdir)
        .map_err(|error| Failure::io("find the folder of the instance".to_owned(), error))?;
    let rootdir_text = rootdir.to_str().ok_or_else(|| {
        let text = format!("the folder `{}` is not UTF-8", rootdir.display());
        Failure::new(Kind::Invalid, text)
    })?;
    let state = rootdir.join(".cutover/local");
    make_private(&state)?;
    let instance = Instance {
        id: InstanceId::parse(INSTANCE).map_err(|error| Failure::new(Kind::Bug, error))?,
        host: Host::Local,
        rootdir: rootdir_text.to_owned(),
        address: None,
        provider_id: None,
        labels: Vec::new(),
        env: arguments.env.iter().cloned().collect(),
    };
    let workspace = Workspace {
        journal: JournalLocation::default(),
        journal_at: Position::START,
        packages: Packages::default(),
        plugins: Vec::new(),
        groups: vec![Group {
            reference: group.clone(),
            service_id: None,
            instances: vec![instance],
            sides: Vec::new(),
            strategy: Strategy::Rolling,
            is_bounded: true,
            batching: Batching::Window(Amount::Count(1)),
            wait_between: Duration::ZERO,
            spread_by: None,
            failure_threshold: Amount::Count(1),
            batch_failure_threshold: None,
            minimum_healthy: None,
            gates: Vec::new(),
            on_failure: OnFailure::Stop,
            balancer: None,
            router: None,
            form: None,
            appspec: arguments.appspec_filename.clone(),
            build: None,
            keep_revisions: KEEP_REVISIONS,
            at: Position::START,
            balancer_at: Position::START,
            router_at: Position::START,
            gates_at: Vec::new(),
        }],
    };
    let host = PluginHost::new(HostOptions::new(state.join("compiled")))?;
    let conductor = Conductor::new(Options {
        journal: Journal::open(&state.join("journal.db"))?,
        fleet: Arc::new(LocalFleet::new(workspace::agent_command()?)),
        plugins: Plugins::new(host, &workspace, rootdir),
        state: state.clone(),
        operator: workspace::operator(),
        workspace,
    });
    Ok((conductor, state))
}

/// Makes the folder, for its owner alone as the agent's: environments and logs may hold secrets.
fn make_private(state: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::io(format!("make the folder `{}`", state.display()), error);
    if let Some(rootdir) = state.ancestors().nth(2) {
        fs::create_dir_all(rootdir).map_err(failed)?;
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .map_err(failed)
}

/// Ends what an earlier run that was killed has left, once its last script has ended.
async fn settle_earlier(ui: Ui, conductor: &Conductor, group: &GroupRef) -> Result<(), Failure> {
    let Some(holder) = conductor.journal().holder(group)? else {
        return Ok(());
    };
    let is_driven = holder
        .owner
        .as_ref()
        .is_some_and(|owner| !owner.is_known_dead());
    if is_driven {
        return Err(PlanError::Busy {
            group: group.clone(),
            holder: Box::new(holder),
        }
        .into());
    }
    ui.warn(&format!(
        "an earlier run was cut off (release {}); it is ended when its last step has",
        holder.release
    ));
    let progress = Arc::new(Progress::new(ui));
    let teller = tokio::spawn(drive::tell_long_waits(progress.clone()));
    let stopped = conductor.stop(&holder.release, progress.clone()).await;
    teller.abort();
    progress.finish();
    stopped?;
    Ok(())
}

async fn plan(
    ui: Ui,
    conductor: &Conductor,
    group: &GroupRef,
    arguments: Local,
) -> Result<Planned, PlanError> {
    let mut workflow = Workflow {
        profile: arguments.profile.map(Profile::from),
        command: arguments.balancer_command,
        events: arguments.events,
        stop_failures: arguments.stop_failures.into(),
    };
    let deployment = arguments.deployment_id;
    match arguments.bundle {
        Some(bundle) if !arguments.rollback => {
            let default = match workflow.command {
                Some(_) => Profile::RollingBalanced,
                None => Profile::Rolling,
            };
            workflow.profile.get_or_insert(default);
            let request = LocalRequest {
                group: group.clone(),
                bundle,
                deployment,
                on_existing: arguments.file_exists_behavior.map(Into::into),
                workflow,
            };
            conductor.plan_local(request).await
        }
        bundle => {
            if let Some(bundle) = bundle {
                ui.warn(&format!(
                    "`{}` is not looked at: a rollback goes to the package that was there before",
                    bundle.display()
                ));
            }
            conductor
                .plan_local_rollback(group, deployment, workflow)
                .await
        }
    }
}

/// What failed: a step or the switch.
struct Failed<'a> {
    stage: &'static str,
    revision: Option<&'static str>,
    ending: &'a Ending,
}

fn failed_of(deployment: &DeploymentState) -> Option<Failed<'_>> {
    let failed = |progress| match progress {
        &engine::Progress::Ended(Ending::Succeeded { .. }) => None,
        engine::Progress::Ended(ending) => Some(ending),
        _ => None,
    };
    let switch = deployment.switches.last().and_then(|switch| {
        Some(Failed {
            stage: "SwitchTraffic",
            revision: None,
            ending: failed(&switch.progress)?,
        })
    });
    switch.or_else(|| {
        let instance = deployment.instances.first()?;
        instance.outcome?;
        let step = instance.steps.last()?;
        let belongs = step.event.takes_hooks() || step.event == LifecycleEvent::Install;
        Some(Failed {
            stage: step.event.name(),
            revision: belongs.then(|| step.event.side().name()),
            ending: failed(&step.progress)?,
        })
    })
}

fn outcome_of(state: &State, id: &DeploymentId, log: Option<String>) -> Outcome {
    let deployment = state.find(id);
    let mut answer = Answer {
        v: 1,
        status: "SUCCEEDED",
        failed_event: None,
        script: None,
        exit_code: None,
        code: None,
        message: deployment.map_or_else(String::new, done),
        revision: None,
        deployment: Some(id.to_string()),
        log: log.clone(),
    };
    let mut verdict = Ok(());
    if state.status != ReleaseStatus::Succeeded {
        answer.status = "FAILED";
        answer.message = state.reason.clone().unwrap_or_default();
        let mut kind = Kind::Failed;
        match deployment.and_then(failed_of) {
            Some(failed) => {
                answer.failed_event = Some(failed.stage.to_owned());
                answer.revision = failed.revision;
                answer.message = format!("{}: {}", failed.stage, reason_of(failed.ending));
                if let Ending::Failed {
                    cause,
                    exit_code,
                    script,
                    ..
                } = failed.ending
                {
                    answer.code = Some(cause.code());
                    answer.exit_code = *exit_code;
                    answer.script.clone_from(script);
                } else {
                    answer.code = Some("interrupted");
                }
                // It comes before everything that changes the instance, and looks ahead at the installation.
                if failed.stage == LifecycleEvent::DownloadBundle.name() {
                    answer.status = "REFUSED";
                    kind = Kind::Invalid;
                    if answer.code != Some(FETCH_FAILED) {
                        answer.failed_event = Some(LifecycleEvent::Install.to_string());
                    }
                }
            }
            None => {
                answer.code = Some("interrupted");
                kind = Kind::Interrupted;
            }
        }
        let mut failure = Failure::new(kind, answer.message.clone());
        if let Some(revision) = answer.revision {
            let version = deployment.and_then(|deployment| version_of(deployment, revision));
            let version = version.unwrap_or_default();
            failure = failure.hint(format!(
                "look at the {revision} revision, {version}: the script is its own"
            ));
            if revision == "outgoing" {
                failure = failure.hint("go on although it fails: --ignore-stop-failures");
            }
        }
        if let Some(log) = &log {
            failure = failure.hint(format!("read what the scripts printed: {log}"));
        }
        verdict = Err(failure);
    }
    let mut text = format!("{}  deployment {id}", answer.status);
    if let Some(log) = &log {
        text.push_str(&format!("  log {log}"));
    }
    text.push('\n');
    Outcome {
        answer,
        text,
        verdict,
    }
}

fn done(deployment: &DeploymentState) -> String {
    let version = &deployment.plan.revision.version;
    match deployment.plan.direction {
        Direction::Deploy => format!("deployed {version}"),
        Direction::Operate => format!("worked on {version}"),
        Direction::Rollback { .. } => format!("returned to {version}"),
        Direction::Retire { .. } => format!("retired {version}"),
    }
}

/// The journal could not be written: nothing went on without its record.
fn cut_off(failure: Failure, id: &DeploymentId, log: Option<String>) -> Outcome {
    Outcome {
        answer: Answer {
            v: 1,
            status: "FAILED",
            failed_event: None,
            script: None,
            exit_code: None,
            code: Some("interrupted"),
            message: message_of(&failure),
            revision: None,
            deployment: Some(id.to_string()),
            log,
        },
        text: format!("FAILED  deployment {id}\n"),
        verdict: Err(failure),
    }
}

fn reason_of(ending: &Ending) -> &str {
    match ending {
        Ending::Succeeded { .. } => "",
        Ending::Failed { reason, .. }
        | Ending::Lost { reason }
        | Ending::Unreachable { reason } => reason,
    }
}

fn version_of(deployment: &DeploymentState, side: &str) -> Option<String> {
    let target = deployment.plan.targets.first()?;
    let key = match side {
        "outgoing" => target.outgoing.as_ref()?,
        _ => &target.incoming,
    };
    let package = deployment.plan.packages.get(key)?;
    Some(package.revision.version.to_string())
}

/// A failure with its causes and problems, on one line.
fn message_of(failure: &Failure) -> String {
    let mut text = failure.error.to_string();
    let mut cause = failure.error.source();
    while let Some(error) = cause {
        match error.downcast_ref::<Problems>() {
            Some(problems) => {
                let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                text.push_str(&format!(": {}", problems.join("; ")));
            }
            None => text.push_str(&format!(": {error}")),
        }
        cause = error.source();
    }
    text
}

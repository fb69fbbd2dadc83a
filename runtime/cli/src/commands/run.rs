//! `cutover run`: a release plan, from the file to the end of its release.

use std::path::Path;
use std::sync::Arc;

use conductor::{Conductor, PlannedRun, RunError};
use model::GroupRef;
use report::Document;
use spec::Problems;
use spec::release_plan::{self, ReleasePlan};

use crate::args::{Output, Run};
use crate::commands::{deploy, drive, queue};
use crate::download;
use crate::failure::{Failure, Kind};
use crate::standing;
use crate::ui::Ui;
use crate::workspace::{self, Opened};

/// A release plan with problems.
#[derive(Debug, thiserror::Error)]
#[error("the release plan `{file}` has problems")]
struct Faulty {
    file: String,
    #[source]
    problems: Problems,
}

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: Run) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let mut plan = read(ui, &arguments.plan)?;
    if let Some(comment) = arguments.comment {
        plan.comment = comment;
    }
    let conductor = workspace::conductor(&opened)?.with_progress(download::progress(ui));
    let planned = async || {
        let planned = conductor.plan_run(&plan).await;
        let planned = planned.map_err(|error| failure(&opened, &plan, error))?;
        for warning in &planned.warnings {
            ui.warn(warning);
        }
        Ok::<_, Failure>(planned)
    };
    if arguments.dry_run {
        return show_plan(ui, &opened, &conductor, &planned().await?);
    }
    let purpose = format!("run {}", arguments.plan.display());
    let groups = groups(&opened, &plan);
    let running = queue::in_turn(
        ui,
        &conductor,
        &groups,
        arguments.wait.patience,
        &purpose,
        async || Ok(conductor.open_run(planned().await?)?),
    );
    drive::to_the_end(ui, running.await?).await
}

/// The groups that a plan needs. A service that the workspace does not know is for the planning to refuse.
fn groups(opened: &Opened, plan: &ReleasePlan) -> Vec<GroupRef> {
    let is_meant = |service_id: Option<u64>| {
        let mut items = plan.items.iter();
        items.any(|item| Some(item.service_id) == service_id)
    };
    let groups = opened.workspace.groups.iter();
    groups
        .filter(|group| is_meant(group.service_id))
        .map(|group| group.reference.clone())
        .collect()
}

fn read(ui: Ui, file: &Path) -> Result<ReleasePlan, Failure> {
    let bytes = std::fs::read(file).map_err(|error| {
        Failure::io(format!("read the release plan `{}`", file.display()), error)
    })?;
    let parsed =
        release_plan::parse_bytes(&bytes, file).map_err(|problems| faulty(file, problems))?;
    for warning in &parsed.warnings {
        ui.warn(&format!("{warning:#}"));
    }
    Ok(parsed.value)
}

fn faulty(file: &Path, problems: Problems) -> Failure {
    let file = file.display().to_string();
    Failure::new(Kind::Invalid, Faulty { file, problems })
}

fn failure(opened: &Opened, plan: &ReleasePlan, error: RunError) -> Failure {
    match error {
        RunError::Problems(problems) => faulty(&plan.file, problems),
        RunError::Plan(error) => error.into(),
        RunError::Service {
            file,
            line,
            service_id,
            group,
            source,
        } => {
            let mut failure = Failure::planning(opened, &group, *source);
            failure.error = Box::new(Service {
                place: format!("{}:{line}", file.display()),
                service_id,
                group: group.to_string(),
                source: failure.error,
            });
            failure
        }
    }
}

/// A service of a plan that cannot be planned.
#[derive(Debug, thiserror::Error)]
#[error("{place}: service {service_id} ({group})")]
struct Service {
    place: String,
    service_id: u64,
    group: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Prints what would happen to each service, in the order of their turn.
pub(crate) fn show_plan(
    ui: Ui,
    opened: &Opened,
    conductor: &Conductor,
    planned: &PlannedRun,
) -> Result<(), Failure> {
    let mut document = document(conductor, planned);
    for (deployment, plan) in document.deployments.iter_mut().zip(&planned.deployments) {
        deployment.mixed_versions = standing::mixed(opened, conductor.journal(), &plan.group)?;
    }
    match ui.output {
        Output::Json => ui.answer_json(&document),
        Output::Text => ui.answer(&report::render(&document)),
    }
    Ok(())
}

/// What the plan comes to.
pub(crate) fn document(conductor: &Conductor, planned: &PlannedRun) -> Document {
    let deployments: Vec<_> = planned.deployments.iter().cloned().map(Arc::new).collect();
    deploy::document_of(conductor, &planned.release, &deployments)
}

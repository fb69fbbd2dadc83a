//! `cutover redeploy`.

use std::path::Path;

use conductor::RedeployRequest;
use journal::Journal;
use model::{DeploymentId, Direction};

use crate::args::Redeploy;
use crate::commands::{deploy, drive, queue};
use crate::download;
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: Redeploy) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?.with_progress(download::progress(ui));
    let template = template(conductor.journal(), &arguments.id)?;
    let of = conductor.journal().deployment(&template)?;
    let request = RedeployRequest {
        template,
        version: arguments.version,
        choices: arguments.choices.into(),
        stop_failures: arguments.stop_failures.into(),
        comment: arguments.comment,
    };
    let planned = async || {
        let planned = conductor.plan_redeploy(request.clone()).await;
        let planned = planned.map_err(|error| match &of {
            Some(of) => Failure::planning(&opened, &of.group, error),
            None => error.into(),
        })?;
        deploy::warn(ui, &planned);
        Ok::<_, Failure>(planned)
    };
    if arguments.dry_run {
        return deploy::show_plan(ui, &opened, &conductor, &planned().await?);
    }
    let groups: Vec<_> = of.iter().map(|of| of.group.clone()).collect();
    let purpose = format!("redeploy {}", request.template);
    let running = queue::in_turn(
        ui,
        &conductor,
        &groups,
        arguments.wait.patience,
        &purpose,
        async || Ok(conductor.open(planned().await?)?),
    );
    drive::to_the_end(ui, running.await?).await
}

/// The deployment that an id means. A release means the one that it deployed.
fn template(journal: &Journal, id: &str) -> Result<DeploymentId, Failure> {
    let found = journal.find(id)?;
    if let Some(deployment) = found.deployment {
        return Ok(deployment);
    }
    let state = engine::State::fold(&journal.records(&found.release, 0)?)?;
    let plans = || state.deployments.iter().map(|deployment| &deployment.plan);
    let deployed: Vec<_> = plans()
        .filter(|plan| plan.direction == Direction::Deploy)
        .collect();
    match (deployed.as_slice(), plans().next()) {
        ([only], _) => Ok(only.id.clone()),
        // A rollback is refused with the deployment that brought what it returned to.
        ([], Some(first)) => Ok(first.id.clone()),
        ([], None) => {
            let text = format!("release {} has no deployment", found.release);
            Err(Failure::new(Kind::Invalid, text))
        }
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|plan| plan.id.as_str()).collect();
            let text = format!("release {} has several deployments", found.release);
            let hint = format!("choose one of {}", ids.join(", "));
            Err(Failure::new(Kind::Invalid, text).hint(hint))
        }
    }
}

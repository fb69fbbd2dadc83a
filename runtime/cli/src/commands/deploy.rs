//! `cutover deploy`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use conductor::{Conductor, DeployRequest, Planned};
use model::{Deployment, PluginName, Release};
use report::Document;

use crate::args::{Deploy, Output};
use crate::commands::{drive, queue};
use crate::download;
use crate::failure::Failure;
use crate::standing;
use crate::ui::Ui;
use crate::workspace::{self, Opened};

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: Deploy) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?.with_progress(download::progress(ui));
    let request = DeployRequest {
        group: arguments.group,
        package: arguments.package,
        version: arguments.version,
        digest: arguments.digest,
        choices: arguments.choices.into(),
        stop_failures: arguments.stop_failures.into(),
        comment: arguments.comment,
    };
    let group = request.group.clone();
    let planned = async || {
        let planned = conductor.plan_deploy(request.clone()).await;
        let planned = planned.map_err(|error| Failure::planning(&opened, &group, error))?;
        warn(ui, &planned);
        Ok::<_, Failure>(planned)
    };
    if arguments.dry_run {
        return show_plan(ui, &opened, &conductor, &planned().await?);
    }
    opened.workspace.group(&group)?;
    let purpose = format!("deploy {}", request.package);
    let groups = [group.clone()];
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

pub(crate) fn warn(ui: Ui, planned: &Planned) {
    for warning in &planned.warnings {
        ui.warn(warning);
    }
}

/// Prints what would happen: exact batches, every step, whose revision each hook comes from, and the grants.
pub(crate) fn show_plan(
    ui: Ui,
    opened: &Opened,
    conductor: &Conductor,
    planned: &Planned,
) -> Result<(), Failure> {
    let mut document = document(conductor, planned);
    for deployment in &mut document.deployments {
        deployment.mixed_versions =
            standing::mixed(opened, conductor.journal(), &planned.deployment.group)?;
    }
    match ui.output {
        Output::Json => ui.answer_json(&document),
        Output::Text => ui.answer(&report::render(&document)),
    }
    Ok(())
}

/// What a plan comes to.
pub(crate) fn document(conductor: &Conductor, planned: &Planned) -> Document {
    let deployment = Arc::new(planned.deployment.clone());
    document_of(conductor, &planned.release, &[deployment])
}

/// What a release of these deployments comes to, with what their plugins are granted.
pub(crate) fn document_of(
    conductor: &Conductor,
    release: &Release,
    deployments: &[Arc<Deployment>],
) -> Document {
    let plugins = deployments
        .iter()
        .flat_map(|deployment| deployment.plugins.keys());
    let granted = |name: &PluginName| (name.to_string(), conductor.plugins().granted(name));
    let grants: BTreeMap<_, _> = plugins.map(granted).collect();
    Document::planned(release, deployments, grants)
}

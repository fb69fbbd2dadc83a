//! `cutover deploy`.

use std::collections::BTreeMap;
use std::path::Path;

use conductor::{Conductor, DeployRequest, Planned};
use model::PluginName;
use report::Document;

use crate::args::{Deploy, Output};
use crate::commands::drive;
use crate::download;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: Deploy) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?.with_progress(download::progress(ui));
    let request = DeployRequest {
        group: arguments.group,
        package: arguments.package,
        version: arguments.version,
        digest: arguments.digest,
        live: arguments.live,
        stop_failures: arguments.stop_failures.into(),
        comment: arguments.comment,
    };
    let group = request.group.clone();
    let planned = conductor
        .plan_deploy(request)
        .await
        .map_err(|error| Failure::planning(&opened, &group, error))?;
    warn(ui, &planned);
    if arguments.dry_run {
        show_plan(ui, &conductor, &planned);
        return Ok(());
    }
    drive::to_the_end(ui, conductor.open(planned)?).await
}

pub(crate) fn warn(ui: Ui, planned: &Planned) {
    for warning in &planned.warnings {
        ui.warn(warning);
    }
}

/// Prints what would happen: exact batches, every step, whose revision each hook comes from, and the grants.
pub(crate) fn show_plan(ui: Ui, conductor: &Conductor, planned: &Planned) {
    let granted = |name: &PluginName| (name.to_string(), conductor.plugins().granted(name));
    let grants: BTreeMap<_, _> = planned.deployment.plugins.keys().map(granted).collect();
    let document = Document::planned(&planned.release, &planned.deployment, grants);
    match ui.output {
        Output::Json => ui.answer_json(&document),
        Output::Text => ui.answer(&report::render(&document)),
    }
}

//! `cutover rollback`.

use std::path::Path;

use conductor::RollbackRequest;

use crate::args::Rollback;
use crate::commands::{deploy, drive};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: Rollback) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let request = RollbackRequest {
        group: arguments.group,
        stop_failures: arguments.stop_failures.into(),
        comment: arguments.comment,
    };
    let group = request.group.clone();
    let planned = conductor
        .plan_rollback(request)
        .await
        .map_err(|error| Failure::planning(&opened, &group, error))?;
    deploy::warn(ui, &planned);
    if arguments.dry_run {
        deploy::show_plan(ui, &conductor, &planned);
        return Ok(());
    }
    if !arguments.yes {
        let deployment = &planned.deployment;
        let question = format!(
            "Return {} of {} to {}?",
            report::count(deployment.targets.len(), "instance"),
            deployment.group,
            deployment.revision.version
        );
        // Without a terminal the command itself is the answer: a rollback destroys nothing, and scripts need it.
        if ui.ask(&question) == Some(false) {
            return Err(Failure::new(Kind::Usage, "not confirmed"));
        }
    }
    drive::to_the_end(ui, conductor.open(planned)?).await
}

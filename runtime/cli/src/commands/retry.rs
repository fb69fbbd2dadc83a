//! `cutover retry`.

use std::path::Path;

use conductor::RetryRequest;

use crate::args::Retry;
use crate::commands::{deploy, drive};
use crate::download;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: Retry) -> Result<(), Failure> {
    // There is nothing else to retry.
    let Retry { failed: _, .. } = arguments;
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?.with_progress(download::progress(ui));
    let found = conductor.journal().find(&arguments.id)?;
    let request = RetryRequest {
        release: found.release,
        deployment: found.deployment,
        stop_failures: arguments.stop_failures.into(),
        comment: arguments.comment,
    };
    let planned = conductor.plan_retry(request).await?;
    deploy::warn(ui, &planned);
    if arguments.dry_run {
        return deploy::show_plan(ui, &opened, &conductor, &planned);
    }
    drive::to_the_end(ui, conductor.open(planned)?).await
}

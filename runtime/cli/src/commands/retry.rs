//! `cutover retry`.

use std::path::Path;

use conductor::RetryRequest;
use journal::Filter;

use crate::args::Retry;
use crate::commands::{deploy, drive, queue};
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
    let planned = async || {
        let planned = conductor.plan_retry(request.clone()).await?;
        deploy::warn(ui, &planned);
        Ok::<_, Failure>(planned)
    };
    if arguments.dry_run {
        return deploy::show_plan(ui, &opened, &conductor, &planned().await?);
    }
    // Which of the release's groups it will be is for the plan to say.
    let summaries = conductor
        .journal()
        .releases(Filter::Release(&request.release), 1)?;
    let groups = summaries.into_iter().flat_map(|summary| summary.groups);
    let groups: Vec<_> = groups.collect();
    let purpose = format!("retry {}", request.release);
    let running = queue::in_turn(
        ui,
        &conductor,
        &groups,
        arguments.wait.patience,
        &purpose,
        async || Ok::<_, Failure>(conductor.open(planned().await?)?),
    );
    drive::to_the_end(ui, running.await?).await
}

//! `cutover rollback`.

use std::path::Path;
use std::sync::Arc;

use conductor::{Conductor, InverseRequest, Planned, RollbackRequest};
use journal::Filter;
use model::{
    Direction, GroupRef, Order, ReleaseId, ReleaseStatus, StopFailures, Strategy, Version,
};

use crate::args::{Rollback, TakenBack};
use crate::commands::follow::Follower;
use crate::commands::order::Given;
use crate::commands::{deploy, drive, order, queue, run};
use crate::download;
use crate::failure::{Failure, Kind};
use crate::progress::Progress;
use crate::ui::Ui;
use crate::workspace::{self, Opened};

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: Rollback) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?.with_progress(download::progress(ui));
    let group = match &arguments.of {
        TakenBack::Group(group) => group.clone(),
        TakenBack::Release(id) => {
            let release = conductor.journal().find(id)?.release;
            return undo(ui, &opened, &conductor, release, &arguments).await;
        }
    };
    let request = RollbackRequest {
        group,
        to: arguments.to,
        stop_failures: arguments.stop_failures.into(),
        comment: arguments.comment,
    };
    let group = request.group.clone();
    if let Some(canary) = canary_of(&conductor, &group)? {
        check_plain(&canary, &request)?;
        if arguments.dry_run {
            let planned = conductor.plan_taking_back(&canary.release, &group);
            let planned = planned.map_err(|error| Failure::planning(&opened, &group, error))?;
            deploy::warn(ui, &planned);
            return deploy::show_plan(ui, &opened, &conductor, &planned);
        }
        return take_back(ui, &conductor, &canary, &request, arguments.yes).await;
    }
    let planned = async || {
        let planned = conductor.plan_rollback(request.clone()).await;
        let planned = planned.map_err(|error| Failure::planning(&opened, &group, error))?;
        deploy::warn(ui, &planned);
        Ok::<_, Failure>(planned)
    };
    if arguments.dry_run {
        return deploy::show_plan(ui, &opened, &conductor, &planned().await?);
    }
    opened.workspace.group(&group)?;
    let purpose = match &request.to {
        Some(version) => format!("rollback to {version}"),
        None => "rollback".to_owned(),
    };
    let groups = [group.clone()];
    let running = queue::in_turn(
        ui,
        &conductor,
        &groups,
        arguments.wait.patience,
        &purpose,
        async || {
            let planned = planned().await?;
            show_and_confirm(ui, &conductor, &planned, arguments.yes)?;
            Ok(conductor.open(planned)?)
        },
    );
    drive::to_the_end(ui, running.await?).await
}

fn show_and_confirm(
    ui: Ui,
    conductor: &Conductor,
    planned: &Planned,
    yes: bool,
) -> Result<(), Failure> {
    ui.plan(&report::moves(&deploy::document(conductor, planned)));
    if yes {
        return Ok(());
    }
    let deployment = &planned.deployment;
    let question = format!(
        "Return {} of {} to {}?",
        report::count(deployment.targets.len(), "instance"),
        deployment.group,
        deployment.revision.version
    );
    confirm(ui, &question)
}

/// Takes a whole release back, in the opposite order.
async fn undo(
    ui: Ui,
    opened: &Opened,
    conductor: &Conductor,
    release: ReleaseId,
    arguments: &Rollback,
) -> Result<(), Failure> {
    if arguments.to.is_some() {
        let text = "a release is taken back to what each instance had before it";
        return Err(Failure::new(Kind::Usage, text).hint("leave --to out"));
    }
    let request = InverseRequest {
        release: release.clone(),
        stop_failures: arguments.stop_failures.into(),
        comment: arguments.comment.clone(),
    };
    let planned = async || {
        let planned = conductor.plan_inverse(request.clone()).await?;
        for warning in &planned.warnings {
            ui.warn(warning);
        }
        Ok::<_, Failure>(planned)
    };
    if arguments.dry_run {
        return run::show_plan(ui, opened, conductor, &planned().await?);
    }
    let summaries = conductor.journal().releases(Filter::Release(&release), 1)?;
    let groups = summaries.into_iter().flat_map(|summary| summary.groups);
    let groups: Vec<_> = groups.collect();
    let purpose = format!("rollback {release}");
    let running = queue::in_turn(
        ui,
        conductor,
        &groups,
        arguments.wait.patience,
        &purpose,
        async || {
            let planned = planned().await?;
            ui.plan(&report::moves(&run::document(conductor, &planned)));
            if !arguments.yes {
                let services = report::count(planned.deployments.len(), "service");
                confirm(ui, &format!("Take release {release} back, {services}?"))?;
            }
            Ok(conductor.open_run(planned)?)
        },
    );
    drive::to_the_end(ui, running.await?).await
}

/// Without a terminal the command itself is the answer: a rollback destroys nothing, and scripts need it.
fn confirm(ui: Ui, question: &str) -> Result<(), Failure> {
    if ui.ask(question) == Some(false) {
        return Err(Failure::new(Kind::Usage, "not confirmed"));
    }
    Ok(())
}

/// A canary that has not ended.
struct Canary {
    release: ReleaseId,
    version: Version,
    /// The records that are there already.
    records: u64,
}

/// The canary whose release holds a group, while it waits for its promotion or goes on.
fn canary_of(conductor: &Conductor, group: &GroupRef) -> Result<Option<Canary>, Failure> {
    let Some(holder) = conductor.journal().holder(group)? else {
        return Ok(None);
    };
    let state = order::state(conductor, &holder.release)?;
    let canary = state.deployments.iter().find(|deployment| {
        let plan = &deployment.plan;
        plan.group == *group
            && deployment.ended_at.is_none()
            && plan.direction == Direction::Deploy
            && matches!(plan.strategy, Strategy::Canary { .. })
    });
    Ok(canary.map(|canary| Canary {
        release: holder.release,
        version: canary.plan.revision.version.clone(),
        records: state.next_seq,
    }))
}

/// Refuses what a release that goes on has its own rule for.
fn check_plain(canary: &Canary, request: &RollbackRequest) -> Result<(), Failure> {
    let release = &canary.release;
    if request.stop_failures == StopFailures::Ignore {
        let text = format!(
            "release {release} goes on and has its own rule for scripts that fail to stop a version"
        );
        return Err(Failure::new(Kind::Usage, text).hint("leave --ignore-stop-failures out"));
    }
    if request.to.is_some() {
        let text = format!(
            "release {release} goes on, and each of its instances returns to what it had before"
        );
        return Err(Failure::new(Kind::Usage, text).hint("leave --to out"));
    }
    Ok(())
}

/// Has a canary taken back by the release that it belongs to.
async fn take_back(
    ui: Ui,
    conductor: &Conductor,
    canary: &Canary,
    request: &RollbackRequest,
    yes: bool,
) -> Result<(), Failure> {
    let Canary {
        release, version, ..
    } = canary;
    if !yes {
        let group = &request.group;
        confirm(
            ui,
            &format!("Take {version} of {group} back? Release {release} ends as FAILED."),
        )?;
    }
    let reason = Some(request.comment.clone()).filter(|comment| !comment.is_empty());
    let order = Order::Rollback { reason };
    let (state, seen_as) = match order::give(conductor, release, &order).await? {
        Given::Taken => {
            let journal = conductor.journal().clone();
            let follower = Follower::new(ui, journal, release.clone(), canary.records);
            order::unless_interrupted(follower.to_the_end()).await??
        }
        Given::TakenUp(running, given) => {
            let progress = Arc::new(Progress::new(ui));
            let state = drive::shown(*running, progress.clone(), progress).await?;
            order::warn_if_refused(ui, conductor, given)?;
            let status = state.status;
            (state, status)
        }
    };
    drive::answer(ui, &state, seen_as);
    // The release has failed as it was told to; what counts is the way back.
    let is_back = state.deployments.last().is_some_and(|last| {
        matches!(last.plan.direction, Direction::Rollback { .. })
            && last.status == ReleaseStatus::Succeeded
    });
    if is_back && seen_as.is_terminal() {
        Ok(())
    } else {
        drive::verdict(&state, seen_as)
    }
}

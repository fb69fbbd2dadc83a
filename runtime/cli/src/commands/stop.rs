//! `cutover stop`: ending a release, whoever drives it.

use std::path::Path;
use std::sync::Arc;

use conductor::{Conductor, OrderError};
use engine::State;
use model::{Order, ReleaseId, ReleaseStatus};
use report::Document;

use crate::args::{Output, Stop};
use crate::commands::follow::Follower;
use crate::commands::{drive, order};
use crate::failure::{Failure, Kind};
use crate::progress::Progress;
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Stop) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let release = conductor.journal().find(&arguments.id)?.release;
    let before = order::state(&conductor, &release)?;
    if before.status.is_terminal() {
        let text = format!(
            "release {release} has ended already: it is {}",
            before.status
        );
        return Err(Failure::new(Kind::Invalid, text));
    }
    if !arguments.yes {
        let question = format!(
            "End release {release}? Its instances stay as they are, and it cannot be resumed."
        );
        match ui.ask(&question) {
            Some(true) => {}
            Some(false) => return Err(Failure::new(Kind::Usage, "not confirmed")),
            None => {
                let failure = Failure::new(
                    Kind::Usage,
                    format!("ending release {release} needs a confirmation"),
                );
                return Err(failure.hint(format!("confirm it: cutover stop {release} --yes")));
            }
        }
    }
    let order = Order::Stop {
        at: arguments.at.map(Into::into),
    };
    match order::unless_interrupted(conductor.order(&release, &order)).await? {
        Ok(()) => {}
        Err(OrderError::NotDriven { .. }) => {
            let state = end(ui, &conductor, &release).await?;
            answer(ui, &state, state.status);
            return Ok(());
        }
        // Somebody else was faster, and that is as good.
        Err(OrderError::Refused { .. })
            if order::is_heading_for(
                &conductor,
                &release,
                [ReleaseStatus::Stopping, ReleaseStatus::Stopped],
            )? => {}
        Err(error) => return Err(error.into()),
    }
    if arguments.no_wait {
        return order::tell(ui, &conductor, &release);
    }
    let from = before.next_seq;
    let follower = Follower::new(ui, conductor.journal().clone(), release, from);
    let (state, seen_as) = order::unless_interrupted(follower.to_the_end()).await??;
    answer(ui, &state, seen_as);
    match seen_as {
        ReleaseStatus::Stopped => Ok(()),
        ReleaseStatus::Succeeded => {
            ui.warn("the release succeeded before it could stop.");
            Ok(())
        }
        _ => drive::verdict(&state, seen_as),
    }
}

/// Ends a release that nobody drives.
async fn end(ui: Ui, conductor: &Conductor, release: &ReleaseId) -> Result<State, Failure> {
    let progress = Arc::new(Progress::new(ui));
    let teller = tokio::spawn(drive::tell_long_waits(progress.clone()));
    let stopped = conductor.stop(release, progress.clone()).await;
    teller.abort();
    progress.finish();
    Ok(stopped?)
}

fn answer(ui: Ui, state: &State, seen_as: ReleaseStatus) {
    match ui.output {
        Output::Json => ui.answer_json(&Document::of(state, seen_as, drive::now())),
        Output::Text => ui.answer(&format!("{seen_as}  release {}\n", state.release.id)),
    }
}

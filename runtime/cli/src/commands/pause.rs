//! `cutover pause`: what is in flight finishes, and nothing more starts until a resume.

use std::path::Path;

use conductor::OrderError;
use model::{Order, ReleaseStatus};

use crate::args::Pause;
use crate::commands::follow::Follower;
use crate::commands::{drive, order};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Pause) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let release = conductor.journal().find(&arguments.id)?.release;
    let from = order::state(&conductor, &release)?.next_seq;
    let order = Order::Pause {
        at: arguments.at.map(Into::into),
    };
    match order::unless_interrupted(conductor.order(&release, &order)).await? {
        Ok(()) => {}
        Err(OrderError::NotDriven {
            status: ReleaseStatus::Paused,
            ..
        }) => return order::tell(ui, &conductor, &release),
        // Somebody else was faster, and that is as good.
        Err(OrderError::Refused { .. })
            if order::is_heading_for(
                &conductor,
                &release,
                [ReleaseStatus::Pausing, ReleaseStatus::Paused],
            )? => {}
        Err(error) => return Err(error.into()),
    }
    if arguments.no_wait {
        return order::tell(ui, &conductor, &release);
    }
    let follower = Follower::new(ui, conductor.journal().clone(), release.clone(), from);
    let (state, seen_as) = order::unless_interrupted(follower.to_the_end()).await??;
    drive::answer(ui, &state, seen_as);
    match seen_as {
        ReleaseStatus::Paused => {
            ui.advise(&format!("go on: cutover resume {release}"));
            Ok(())
        }
        ReleaseStatus::Succeeded => {
            ui.warn("the release succeeded before it could pause.");
            Ok(())
        }
        ReleaseStatus::Stopped => Err(Failure::new(
            Kind::Unfinished,
            format!("release {release} was stopped instead"),
        )),
        _ => drive::verdict(&state, seen_as),
    }
}

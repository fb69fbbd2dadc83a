//! Orders to a release that goes on: `promote`, `weight`, `approve`, `reject`, `skip`, and what other commands share
//! with them.

use std::path::Path;

use conductor::{Conductor, OrderError, PlanError, Running};
use engine::State;
use journal::{OrderId, OrderOutcome};
use model::{Capacity, DeploymentId, Order, ReleaseId, ReleaseStatus};

use crate::args::{Approve, Id, Reject, Skip, Weight};
use crate::commands::{drive, show};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

/// How often a release that somebody else takes up at the same moment is tried again.
const ATTEMPTS: usize = 5;

/// What came of an order.
pub(crate) enum Given {
    /// Whoever drives the release carries it out.
    Taken,
    /// Nobody drove the release. This process does from here on, and carries the order out first.
    TakenUp(Box<Running>, OrderId),
}

pub(crate) async fn promote(ui: Ui, config: Option<&Path>, arguments: &Id) -> Result<(), Failure> {
    carry_out(ui, config, &arguments.id, Order::Promote).await
}

pub(crate) async fn weight(
    ui: Ui,
    config: Option<&Path>,
    arguments: &Weight,
) -> Result<(), Failure> {
    let order = Order::Weight {
        percent: arguments.percent,
        capacity: if arguments.force {
            Capacity::Exceed
        } else {
            Capacity::Respect
        },
    };
    carry_out(ui, config, &arguments.id, order).await
}

pub(crate) async fn approve(
    ui: Ui,
    config: Option<&Path>,
    arguments: Approve,
) -> Result<(), Failure> {
    let order = Order::Approve {
        gate: arguments.gate,
        comment: arguments.comment,
    };
    carry_out(ui, config, &arguments.id, order).await
}

pub(crate) async fn reject(
    ui: Ui,
    config: Option<&Path>,
    arguments: Reject,
) -> Result<(), Failure> {
    let comment = match arguments.comment {
        Some(comment) => comment,
        None => ui.ask_text("Why is it rejected?").ok_or_else(|| {
            Failure::new(Kind::Usage, "a rejection needs a reason").hint("give one: --comment TEXT")
        })?,
    };
    let order = Order::Reject {
        gate: arguments.gate,
        comment: Some(comment),
    };
    carry_out(ui, config, &arguments.id, order).await
}

/// Leaves instances out, each by an order of its own: one that is refused does not keep the others.
pub(crate) async fn skip(ui: Ui, config: Option<&Path>, arguments: Skip) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let found = conductor.journal().find(&arguments.id)?;
    let release = found.release;
    let mut refused = Vec::new();
    for instance in arguments.instances {
        let order = addressed(found.deployment.as_ref(), Order::Skip { instance });
        match unless_interrupted(conductor.order(&release, &order)).await? {
            Ok(()) => {}
            Err(OrderError::Refused { reason, .. }) => refused.push(reason),
            Err(error) => return Err(error.into()),
        }
    }
    if refused.is_empty() {
        return tell(ui, &conductor, &release);
    }
    let text = format!("release {release}: {}", refused.join("; "));
    Err(Failure::new(Kind::Invalid, text)
        .hint(format!("see where it stands: cutover show {release}")))
}

/// The order, for this deployment of a release where one is named.
fn addressed(deployment: Option<&DeploymentId>, order: Order) -> Order {
    match deployment {
        Some(deployment) => Order::For {
            deployment: deployment.clone(),
            order: Box::new(order),
        },
        None => order,
    }
}

/// Gives an order to whoever drives the release, or takes the release up with it.
async fn carry_out(ui: Ui, config: Option<&Path>, id: &str, order: Order) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let found = conductor.journal().find(id)?;
    let release = found.release;
    let order = addressed(found.deployment.as_ref(), order);
    match give(&conductor, &release, &order).await? {
        Given::Taken => tell(ui, &conductor, &release),
        Given::TakenUp(running, given) => {
            let driven = drive::to_the_end(ui, *running).await;
            warn_if_refused(ui, &conductor, given)?;
            driven
        }
    }
}

pub(crate) async fn give(
    conductor: &Conductor,
    release: &ReleaseId,
    order: &Order,
) -> Result<Given, Failure> {
    let mut attempt = 1;
    loop {
        match unless_interrupted(conductor.order(release, order)).await? {
            Ok(()) => return Ok(Given::Taken),
            Err(OrderError::NotDriven { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match conductor.resume_with(release, order).await {
            Ok((running, given)) => return Ok(Given::TakenUp(Box::new(running), given)),
            Err(PlanError::Driven { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(PlanError::Refusal(refusal)) => {
                return Err(OrderError::Refused {
                    release: release.clone(),
                    reason: refusal.to_string(),
                }
                .into());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a release that was taken up with an order refused after all: something came between.
pub(crate) fn warn_if_refused(
    ui: Ui,
    conductor: &Conductor,
    given: OrderId,
) -> Result<(), Failure> {
    if let Some(OrderOutcome::Refused { reason }) = conductor.journal().answer(given)? {
        ui.warn(&format!("the order was not carried out: {reason}."));
    }
    Ok(())
}

/// Tells where a release stands that somebody else drives.
pub(crate) fn tell(ui: Ui, conductor: &Conductor, release: &ReleaseId) -> Result<(), Failure> {
    let state = state(conductor, release)?;
    let seen_as = show::seen_as(conductor.journal(), &state, drive::now())?;
    drive::answer(ui, &state, seen_as);
    if seen_as.is_active() {
        ui.advise(&format!("follow it: cutover watch {release}"));
    }
    Ok(())
}

pub(crate) fn state(conductor: &Conductor, release: &ReleaseId) -> Result<State, Failure> {
    Ok(State::fold(&conductor.journal().records(release, 0)?)?)
}

/// Whether a release is on its way to a status, or there.
pub(crate) fn is_heading_for(
    conductor: &Conductor,
    release: &ReleaseId,
    way: [ReleaseStatus; 2],
) -> Result<bool, Failure> {
    Ok(way.contains(&state(conductor, release)?.status))
}

/// Waits, unless the operator has enough of it. Dropping what waits for an answer takes the order back.
pub(crate) async fn unless_interrupted<T>(waiting: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        outcome = waiting => Ok(outcome),
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::new(Kind::Interrupted, "interrupted while waiting")
            .hint("see where releases stand: cutover ls")),
    }
}

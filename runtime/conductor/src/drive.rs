//! Driving one release.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use engine::{Action, Engine, HoldAction, Input, Output, Refusal, State, SwitchAction};
use journal::{GivenOrder, OrderAnswer, OrderId, OrderOutcome, Tenure};
use model::{Deployment, DeploymentId, Ending, InstanceId, LifecycleEvent, Record, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::authority::{Authority, Lease};
use crate::perform::Performer;
use crate::{Conductor, health, order};

/// The most inputs that one turn answers, and that may wait: more would only wait in the tasks that send them.
const MOST_INPUTS: usize = 4096;

/// The most orders that wait for the loop.
const MOST_ORDERS: usize = 64;

/// The shortest wait for a time, so that one that has passed and waits for something else cannot keep the loop busy.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// How long a commit waits for the endings of other instances, and how many others have to be in flight for that. What PostgreSQL has
/// under these names: the flush is what costs, and an instance that goes on by itself does not wait for it.
const COMMIT_DELAY: Duration = Duration::from_millis(1);
const COMMIT_SIBLINGS: usize = 5;

/// An instance in a deployment: groups may give their instances the same names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub deployment: DeploymentId,
    pub instance: InstanceId,
}

/// Sees what happens, as it happens. Its methods are called from the loop: they must not block.
pub trait Observer: Send + Sync + 'static {
    /// Records that have become durable, with the state after them.
    fn records(&self, state: &State, records: &[Record]);
    /// A step waits for something outside.
    fn waiting(&self, place: &Place, event: LifecycleEvent, what: &str);
    /// A deployment waits for something outside: the traffic's switch, or a gate.
    fn holding(&self, _deployment: &DeploymentId, _what: &str) {}
    /// A script printed something at this stage: a lifecycle event, or `SwitchTraffic`.
    fn output(&self, place: &Place, stage: &'static str, bytes: &[u8]);
}

/// Observes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn records(&self, _: &State, _: &[Record]) {}
    fn waiting(&self, _: &Place, _: LifecycleEvent, _: &str) {}
    fn output(&self, _: &Place, _: &'static str, _: &[u8]) {}
}

/// What the process that drives a release may ask of it. Orders come through the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Leave at once; hooks that are running go on, and a later resume takes them up.
    Interrupt { reason: String },
}

/// Why driving stopped before the release did.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error("write the journal")]
    Journal(#[from] journal::Error),
    #[error("go on with the release")]
    Refusal(#[from] engine::Refusal),
}

/// A release that this process owns.
pub struct Running {
    pub(crate) conductor: Conductor,
    pub(crate) tenure: Tenure,
    pub(crate) lease: Lease,
    pub(crate) engine: Engine,
    /// What the engine has answered already. Its records are in the journal.
    pub(crate) begun: Output,
    /// What the engine is to answer first.
    pub(crate) first: Vec<Input>,
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Running {
    /// The state so far.
    #[must_use]
    pub fn state(&self) -> &State {
        self.engine.state()
    }

    /// Runs the release until it ends, pauses or is interrupted.
    ///
    /// # Errors
    /// [`DriveError`] when the journal cannot be written: nothing goes on without its record.
    pub async fn drive(
        mut self,
        observer: Arc<dyn Observer>,
        mut commands: mpsc::Receiver<Command>,
    ) -> Result<State, DriveError> {
        let release = self.engine.state().release.id.clone();
        let (authority, mut losing) = self.authority()?;
        let performer = Arc::new(Performer::new(
            self.conductor.clone(),
            release.clone(),
            authority.clone(),
            observer.clone(),
        ));
        let (sender, mut inputs) = mpsc::channel(MOST_INPUTS);
        let (teller, mut arriving) = mpsc::channel(MOST_ORDERS);
        let mut tasks = JoinSet::new();
        let (watched, watching) = watch::channel(Vec::new());
        tasks.spawn(health::watch(
            self.conductor.clone(),
            release,
            watching,
            sender.clone(),
        ));
        let heartbeat = self.conductor.heartbeat;
        let mut renewal = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
        let mut begun = std::mem::take(&mut self.begun);
        let mut waiting = std::mem::take(&mut self.first);
        // What a conductor that was killed has left, and what came with the resume.
        let mut told = self.conductor.journal.orders(&self.tenure, now())?;
        tasks.spawn(order::listen(
            self.conductor.journal.clone(),
            self.tenure.clone(),
            teller,
        ));
        let mut listening = true;
        loop {
            let (output, answers) = self.answer(&mut waiting, &mut told)?;
            if !output.records.is_empty() || !answers.is_empty() {
                self.conductor
                    .journal
                    .append_answering(&self.tenure, output.records.clone(), answers)
                    .await?;
            }
            add(&mut begun, output);
            let output = std::mem::take(&mut begun);
            if !output.records.is_empty() {
                observer.records(self.engine.state(), &output.records);
            }
            if self.is_over() {
                // What is in flight is on the instances, under its attempt ids; only our waiting for it ends here.
                tasks.shutdown().await;
                if self.engine.state().status.is_terminal() {
                    self.conductor.prune().await;
                } else {
                    // Whoever waits for an answer to an order need not wait for this process to end.
                    self.conductor.journal.leave(&self.tenure)?;
                }
                return Ok(self.engine.state().clone());
            }
            watched.send_if_modified(|known| is_replaced(known, self.engine.watched()));
            for switch in output.switches {
                let (performer, sender) = (performer.clone(), sender.clone());
                tasks.spawn(async move {
                    // The loop is gone only when the release is over for this process.
                    let _ = sender.send(switch_ended(&performer, &switch).await).await;
                });
            }
            for action in output.actions {
                let (performer, sender) = (performer.clone(), sender.clone());
                tasks.spawn(async move {
                    // As above.
                    let _ = sender.send(step_ended(&performer, &action).await).await;
                });
            }
            for hold in output.holds {
                let (performer, sender) = (performer.clone(), sender.clone());
                tasks.spawn(async move {
                    // As above.
                    let _ = sender.send(hold_ended(&performer, &hold).await).await;
                });
            }
            tokio::select! {
                _ = inputs.recv_many(&mut waiting, MOST_INPUTS) => {}
                Some(order) = arriving.recv() => told.push(order),
                () = alarm(self.engine.next_wake()) => waiting.push(Input::Tick),
                command = commands.recv(), if listening => match command {
                    Some(command) => waiting.push(input_of(command)),
                    None => listening = false,
                },
                _ = renewal.tick() => authority.keep()?,
                Some(error) = losing.recv() => return Err(error.into()),
            }
            let others = self.in_flight().saturating_sub(waiting.len());
            if !waiting.is_empty() && others >= COMMIT_SIBLINGS {
                tokio::time::sleep(COMMIT_DELAY).await;
                while waiting.len() < MOST_INPUTS
                    && let Ok(input) = inputs.try_recv()
                {
                    waiting.push(input);
                }
            }
            while let Some(ended) = tasks.try_join_next() {
                // A bug: its step would never end. The process goes, and a resume finds what became of the attempt.
                if let Err(error) = ended
                    && error.is_panic()
                {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }

    /// Waits for what is in flight, and for what has followed it by itself, keeps the endings and starts nothing more, and
    /// then ends the release.
    pub(crate) async fn settle(mut self, observer: Arc<dyn Observer>) -> Result<State, DriveError> {
        let mut records = Vec::new();
        if self.engine.state().status.is_active() {
            let reason = "the conductor died".to_owned();
            let output = self.engine.handle(now(), Input::Interrupt { reason })?;
            records.extend(output.records);
        }
        let (authority, mut losing) = self.authority()?;
        let performer = Arc::new(Performer::new(
            self.conductor.clone(),
            self.engine.state().release.id.clone(),
            authority.clone(),
            observer.clone(),
        ));
        let (actions, switches) = self.engine.in_flight();
        let mut tasks = JoinSet::new();
        for action in actions {
            let performer = performer.clone();
            let action = Action {
                then: None,
                ..action
            };
            tasks.spawn(async move { Some(step_ended(&performer, &action).await) });
        }
        for switch in switches {
            let performer = performer.clone();
            tasks.spawn(async move { Some(switch_ended(&performer, &switch).await) });
        }
        // Nobody else goes on in an earlier turn once this one has come to an instance.
        let mut is_followed = false;
        let heartbeat = self.conductor.heartbeat;
        let mut renewal = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
        loop {
            if !records.is_empty() {
                let written = self.conductor.journal.append(&self.tenure, records.clone());
                written.await?;
                observer.records(self.engine.state(), &records);
                records.clear();
            }
            let input = tokio::select! {
                joined = tasks.join_next() => match joined {
                    Some(Ok(Some(input))) => input,
                    Some(Ok(None)) => continue,
                    Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                    None if is_followed => break,
                    None => {
                        is_followed = true;
                        for action in self.engine.may_have_begun() {
                            let performer = performer.clone();
                            tasks.spawn(async move {
                                let ending = performer.join(&action).await?;
                                Some(ended(&action, ending))
                            });
                        }
                        continue;
                    }
                },
                _ = renewal.tick() => {
                    authority.keep()?;
                    continue;
                }
                Some(error) = losing.recv() => return Err(error.into()),
            };
            // An instance that is out of reach tells nothing that could be kept.
            if !is_unreachable(&input) {
                records.extend(self.engine.handle(now(), input)?.records);
            }
        }
        let mut output = Output::default();
        for input in std::mem::take(&mut self.first) {
            add(&mut output, self.engine.handle(now(), input)?);
        }
        let written = self
            .conductor
            .journal
            .append(&self.tenure, output.records.clone());
        written.await?;
        observer.records(self.engine.state(), &output.records);
        Ok(self.engine.state().clone())
    }

    /// Lets the engine answer everything that waits: one turn, one group commit. What it refuses of orders is their
    /// answer.
    fn answer(
        &mut self,
        waiting: &mut Vec<Input>,
        told: &mut Vec<GivenOrder>,
    ) -> Result<(Output, Vec<OrderAnswer>), DriveError> {
        let mut all = Output::default();
        let mut answers = Vec::new();
        for input in waiting.drain(..) {
            if let Input::Resume { operator } = &input
                && self.resume(operator, told, &mut answers, &mut all)?
            {
                continue;
            }
            add(&mut all, self.engine.handle(now(), input)?);
        }
        for given in told.drain(..) {
            let GivenOrder {
                id,
                order,
                operator,
                ..
            } = given;
            let input = Input::Order { order, operator };
            answers.push(self.hear(id, input, &mut all)?);
        }
        Ok((all, answers))
    }

    /// Resumes with the first order of those that wait which is not refused, so that nothing starts before it is heard.
    /// Answers whether there was one.
    fn resume(
        &mut self,
        operator: &str,
        told: &mut Vec<GivenOrder>,
        answers: &mut Vec<OrderAnswer>,
        all: &mut Output,
    ) -> Result<bool, DriveError> {
        let mut is_resumed = false;
        while !is_resumed && !told.is_empty() {
            let given = told.remove(0);
            let input = Input::ResumeWith {
                operator: operator.to_owned(),
                order: given.order,
                by: given.operator,
            };
            let answer = self.hear(given.id, input, all)?;
            is_resumed = answer.outcome == OrderOutcome::Taken;
            answers.push(answer);
        }
        Ok(is_resumed)
    }

    /// Gives the engine an order; what it refuses is its answer.
    fn hear(
        &mut self,
        id: OrderId,
        input: Input,
        all: &mut Output,
    ) -> Result<OrderAnswer, DriveError> {
        let outcome = match self.engine.handle(now(), input) {
            Ok(output) => {
                add(all, output);
                OrderOutcome::Taken
            }
            Err(refusal @ (Refusal::Status { .. } | Refusal::Order { .. })) => {
                OrderOutcome::Refused {
                    reason: refusal.to_string(),
                }
            }
            Err(misfit @ Refusal::Misfit(_)) => return Err(misfit.into()),
        };
        Ok(OrderAnswer {
            id,
            at: now(),
            outcome,
        })
    }

    fn authority(&self) -> Result<(Authority, mpsc::Receiver<journal::Error>), journal::Error> {
        let journal = self.conductor.journal.clone();
        Authority::new(journal, self.tenure.clone(), self.lease)
    }

    /// How many instances have started and not ended.
    fn in_flight(&self) -> usize {
        let deployments = self.engine.state().deployments.iter();
        deployments.map(|deployment| deployment.in_flight).sum()
    }

    fn is_over(&self) -> bool {
        !self.engine.state().status.is_active()
    }
}

fn add(all: &mut Output, more: Output) {
    all.records.extend(more.records);
    all.actions.extend(more.actions);
    all.switches.extend(more.switches);
    all.holds.extend(more.holds);
}

/// Waits for a time, or for ever where there is none.
async fn alarm(at: Option<Timestamp>) {
    match at {
        // A clock that is set is noticed at the next turn, and renewals see to it that there is one.
        Some(at) => tokio::time::sleep(at.since(now()).max(SHORTEST_WAIT)).await,
        None => std::future::pending().await,
    }
}

async fn step_ended(performer: &Performer, action: &Action) -> Input {
    ended(action, performer.perform(action).await)
}

fn ended(action: &Action, ending: Ending) -> Input {
    Input::StepEnded {
        deployment: action.deployment.id.clone(),
        instance: action.target.instance.id.clone(),
        event: action.event,
        attempt: action.attempt,
        ending,
    }
}

/// Whether other deployments are watched than those known.
fn is_replaced(known: &mut Vec<Arc<Deployment>>, watched: Vec<Arc<Deployment>>) -> bool {
    let is_same = known
        .iter()
        .map(|deployment| &deployment.id)
        .eq(watched.iter().map(|deployment| &deployment.id));
    *known = watched;
    !is_same
}

async fn switch_ended(performer: &Performer, switch: &SwitchAction) -> Input {
    Input::SwitchEnded {
        deployment: switch.deployment.id.clone(),
        attempt: switch.attempt,
        ending: performer.switch(switch).await,
    }
}

async fn hold_ended(performer: &Performer, hold: &HoldAction) -> Input {
    Input::HoldEnded {
        deployment: hold.deployment.id.clone(),
        stage: hold.stage,
        decision: performer.hold(hold).await,
    }
}

fn is_unreachable(input: &Input) -> bool {
    matches!(
        input,
        Input::StepEnded {
            ending: Ending::Unreachable { .. },
            ..
        }
    )
}

fn input_of(command: Command) -> Input {
    match command {
        Command::Interrupt { reason } => Input::Interrupt { reason },
    }
}

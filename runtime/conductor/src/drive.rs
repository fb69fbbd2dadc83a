//! Driving one release.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use engine::{Action, Engine, Input, Output, State, SwitchAction};
use journal::Tenure;
use model::{Ending, InstanceId, LifecycleEvent, Record, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Conductor;
use crate::perform::Performer;

/// The most inputs that one turn answers, and that may wait: more would only wait in the tasks that send them.
const MOST_INPUTS: usize = 4096;

/// How often the lease is renewed; a third of its length.
const RENEWAL: Duration = Duration::from_secs(10);

/// Sees what happens, as it happens. Its methods are called from the loop: they must not block.
pub trait Observer: Send + Sync + 'static {
    /// Records that have become durable, with the state after them.
    fn records(&self, state: &State, records: &[Record]);
    /// A step waits for something outside.
    fn waiting(&self, instance: &InstanceId, event: LifecycleEvent, what: &str);
    /// A script printed something at this stage: a lifecycle event, or `SwitchTraffic`.
    fn output(&self, instance: &InstanceId, stage: &'static str, bytes: &[u8]);
}

/// Observes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn records(&self, _: &State, _: &[Record]) {}
    fn waiting(&self, _: &InstanceId, _: LifecycleEvent, _: &str) {}
    fn output(&self, _: &InstanceId, _: &'static str, _: &[u8]) {}
}

/// What an operator may ask of a running release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Pause,
    Stop,
    /// Leave at once; hooks that are running go on, and a later resume takes them up.
    Interrupt {
        reason: String,
    },
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
    pub(crate) engine: Engine,
    pub(crate) first: Input,
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
        let performer = Arc::new(Performer::new(
            self.conductor.clone(),
            release,
            observer.clone(),
        ));
        let (sender, mut inputs) = mpsc::channel(MOST_INPUTS);
        let mut tasks = JoinSet::new();
        let mut renewal = tokio::time::interval(RENEWAL);
        let mut waiting = vec![self.first.clone()];
        let mut listening = true;
        loop {
            let output = self.answer(&mut waiting)?;
            if !output.records.is_empty() {
                self.conductor
                    .journal
                    .append(&self.tenure, output.records.clone())
                    .await?;
                observer.records(self.engine.state(), &output.records);
            }
            if self.is_over() {
                // What is in flight is on the instances, under its attempt ids; only our waiting for it ends here.
                tasks.shutdown().await;
                if self.engine.state().status.is_terminal() {
                    self.conductor.prune().await;
                }
                return Ok(self.engine.state().clone());
            }
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
            tokio::select! {
                _ = inputs.recv_many(&mut waiting, MOST_INPUTS) => {}
                command = commands.recv(), if listening => match command {
                    Some(command) => waiting.push(input_of(command)),
                    None => listening = false,
                },
                _ = renewal.tick() => self.conductor.journal.renew(&self.tenure, now())?,
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

    /// Waits for what is in flight, keeps its endings and starts nothing more, and then ends the release.
    pub(crate) async fn settle(mut self, observer: Arc<dyn Observer>) -> Result<State, DriveError> {
        let mut records = Vec::new();
        if self.engine.state().status.is_active() {
            let reason = "the conductor died".to_owned();
            let output = self.engine.handle(now(), Input::Interrupt { reason })?;
            records.extend(output.records);
        }
        let performer = Arc::new(Performer::new(
            self.conductor.clone(),
            self.engine.state().release.id.clone(),
            observer.clone(),
        ));
        let (actions, switches) = self.engine.in_flight();
        let mut tasks = JoinSet::new();
        for action in actions {
            let performer = performer.clone();
            tasks.spawn(async move { step_ended(&performer, &action).await });
        }
        for switch in switches {
            let performer = performer.clone();
            tasks.spawn(async move { switch_ended(&performer, &switch).await });
        }
        let mut renewal = tokio::time::interval(RENEWAL);
        loop {
            if !records.is_empty() {
                let written = self.conductor.journal.append(&self.tenure, records.clone());
                written.await?;
                observer.records(self.engine.state(), &records);
                records.clear();
            }
            let input = tokio::select! {
                ended = tasks.join_next() => match ended {
                    Some(Ok(input)) => input,
                    Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                    None => break,
                },
                _ = renewal.tick() => {
                    self.conductor.journal.renew(&self.tenure, now())?;
                    continue;
                }
            };
            // An instance that is out of reach tells nothing that could be kept.
            if !is_unreachable(&input) {
                records.extend(self.engine.handle(now(), input)?.records);
            }
        }
        let output = self.engine.handle(now(), self.first.clone())?;
        let written = self
            .conductor
            .journal
            .append(&self.tenure, output.records.clone());
        written.await?;
        observer.records(self.engine.state(), &output.records);
        Ok(self.engine.state().clone())
    }

    /// Lets the engine answer everything that waits: one turn, one group commit.
    fn answer(&mut self, waiting: &mut Vec<Input>) -> Result<Output, DriveError> {
        let mut all = Output::default();
        for input in waiting.drain(..) {
            let is_command = matches!(input, Input::Pause | Input::Stop);
            match self.engine.handle(now(), input) {
                Ok(output) => {
                    all.records.extend(output.records);
                    all.actions.extend(output.actions);
                    all.switches.extend(output.switches);
                }
                Err(refusal) if is_command => {
                    tracing::warn!(%refusal, "an operator's command came too late");
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(all)
    }

    fn is_over(&self) -> bool {
        !self.engine.state().status.is_active()
    }
}

async fn step_ended(performer: &Performer, action: &Action) -> Input {
    Input::StepEnded {
        deployment: action.deployment.id.clone(),
        instance: action.target.instance.id.clone(),
        event: action.event,
        attempt: action.attempt,
        ending: performer.perform(action).await,
    }
}

async fn switch_ended(performer: &Performer, switch: &SwitchAction) -> Input {
    Input::SwitchEnded {
        deployment: switch.deployment.id.clone(),
        attempt: switch.attempt,
        ending: performer.switch(switch).await,
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
        Command::Pause => Input::Pause,
        Command::Stop => Input::Stop,
        Command::Interrupt { reason } => Input::Interrupt { reason },
    }
}

//! Waiting for groups that other releases hold, for commands with `--wait`.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use conductor::Conductor;
use journal::{Holder, Journal, Owner, Turn, Waiter, WaiterId};
use model::GroupRef;
use report::{Line, Tone, rfc3339};

use crate::args::Patience;
use crate::commands::drive::now;
use crate::commands::{order, show};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;

/// How often the journal is asked whether somebody wrote. `SQLite` has no wake-up across processes.
const INTERVAL: Duration = Duration::from_millis(100);

/// How often it is looked whose turn it is although nobody wrote: a process that died writes nothing.
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);

/// How often a place is renewed; a third of a lease.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Makes an attempt that needs groups, once where nobody is patient, else when the groups are free and as often as
/// another release is faster nevertheless. Whoever waits goes on in the order in which they came, and keeps the place
/// until the attempt is through. `purpose` says to others what for.
pub(crate) async fn in_turn<T>(
    ui: Ui,
    conductor: &Conductor,
    groups: &[GroupRef],
    patience: Option<Patience>,
    purpose: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(patience) = patience else {
        return attempt().await;
    };
    let mut waiting = Waiting::join(ui, conductor, groups, patience, purpose)?;
    let attempts = async {
        loop {
            waiting.for_turn().await?;
            let place = waiting.place.id;
            let outcome = tokio::select! {
                outcome = attempt() => outcome,
                never = waiting.keep_place(place) => match never? {},
            };
            match outcome {
                // Somebody who did not wait came between.
                Err(failure) if failure.kind == Kind::Busy && !waiting.is_over() => {
                    tokio::time::sleep(INTERVAL).await;
                }
                outcome => return outcome,
            }
        }
    };
    order::unless_interrupted(attempts).await?
}

/// A place among those who wait. It is given up when it is dropped.
struct Place {
    journal: Journal,
    id: WaiterId,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.journal.leave_queue(self.id) {
            tracing::warn!(waiter = %self.id, %error, "a place stays in the queue until others see that it is nobody's");
        }
    }
}

struct Waiting<'a> {
    ui: Ui,
    conductor: &'a Conductor,
    groups: &'a [GroupRef],
    purpose: &'a str,
    patience: Patience,
    began: Instant,
    place: Place,
    /// What was told last.
    told: Option<Reason>,
}

/// Why it is not its turn, as far as it is worth telling again.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    Release { id: String, status: &'static str },
    Waiter(WaiterId),
}

impl<'a> Waiting<'a> {
    fn join(
        ui: Ui,
        conductor: &'a Conductor,
        groups: &'a [GroupRef],
        patience: Patience,
        purpose: &'a str,
    ) -> Result<Self, Failure> {
        Ok(Self {
            ui,
            conductor,
            groups,
            purpose,
            patience,
            began: Instant::now(),
            place: join(conductor, groups, purpose)?,
            told: None,
        })
    }

    /// Waits until it is this one's turn.
    async fn for_turn(&mut self) -> Result<(), Failure> {
        let mut version = None;
        let (mut looked, mut renewed) = (Instant::now(), Instant::now());
        loop {
            let current = self.conductor.journal().data_version()?;
            let is_due = looked.elapsed() >= LONGEST_INTERVAL || self.is_over();
            if version.replace(current) != Some(current) || is_due {
                looked = Instant::now();
                match self.conductor.journal().turn(self.place.id, now())? {
                    Turn::Come => return Ok(()),
                    Turn::Lost => {
                        self.place = join(self.conductor, self.groups, self.purpose)?;
                    }
                    Turn::Held { group, holder } => self.held(&group, &holder)?,
                    Turn::Behind { group, waiter } => self.behind(&group, &waiter)?,
                }
            }
            if renewed.elapsed() >= HEARTBEAT {
                renewed = Instant::now();
                self.conductor.journal().keep_place(self.place.id, now())?;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Renews a place, for ever.
    async fn keep_place(&self, place: WaiterId) -> Result<Infallible, Failure> {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            self.conductor.journal().keep_place(place, now())?;
        }
    }

    fn held(&mut self, group: &GroupRef, holder: &Holder) -> Result<(), Failure> {
        let document = show::document(self.conductor.journal(), &holder.release)?;
        let release = format!("release {} of {}", document.id, holder.operator);
        self.unless_over(group, || {
            format!("{release} holds {group} and is {}", document.status)
        })?;
        let doing = match &document.waiting_for {
            Some(what) => format!("{}: {what}", document.status),
            None => document.status.to_owned(),
        };
        let reason = Reason::Release {
            id: document.id.clone(),
            status: document.status,
        };
        self.tell(reason, group, format!("for {release}, {doing}"));
        Ok(())
    }

    fn behind(&mut self, group: &GroupRef, waiter: &Waiter) -> Result<(), Failure> {
        let Waiter {
            id,
            owner,
            operator,
            purpose,
            since,
            ..
        } = waiter;
        let who = format!("{operator}, process {} on {}", owner.pid, owner.host);
        self.unless_over(group, || {
            format!("{who} waits for {group} as well, and came before")
        })?;
        let detail = format!("behind {who} ({purpose}), since {}", rfc3339(*since));
        self.tell(Reason::Waiter(*id), group, detail);
        Ok(())
    }

    fn tell(&mut self, reason: Reason, group: &GroupRef, detail: String) {
        if self.told.as_ref() == Some(&reason) {
            return;
        }
        self.told = Some(reason);
        let line = Line {
            tone: Tone::Attention,
            verb: "Waiting",
            target: group.to_string(),
            detail,
            took: None,
        };
        self.ui.progress(&line, 0);
    }

    fn unless_over(&self, group: &GroupRef, what: impl Fn() -> String) -> Result<(), Failure> {
        let Patience::AtMost(patience) = self.patience else {
            return Ok(());
        };
        if !self.is_over() {
            return Ok(());
        }
        let waited = spec::duration::print(patience);
        let failure = Failure::new(Kind::Busy, format!("waited {waited} in vain: {}", what()));
        Err(failure.hint(format!("see who has it: cutover lock {group}")))
    }

    fn is_over(&self) -> bool {
        match self.patience {
            Patience::Forever => false,
            Patience::AtMost(patience) => self.began.elapsed() >= patience,
        }
    }
}

fn join(conductor: &Conductor, groups: &[GroupRef], purpose: &str) -> Result<Place, Failure> {
    let owner = Owner::current()
        .map_err(|error| Failure::io("find out which process this is".to_owned(), error))?;
    let journal = conductor.journal().clone();
    let operator = crate::workspace::operator();
    let id = journal.join_queue(groups, &owner, &operator, purpose, now())?;
    Ok(Place { journal, id })
}

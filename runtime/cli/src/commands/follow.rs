//! Following a release that another process drives.

use std::time::Duration;

use engine::State;
use journal::Journal;
use model::{Record, ReleaseId, ReleaseStatus};

use crate::commands::drive::now;
use crate::commands::show::seen_as;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::ui::Ui;

/// How often the journal is asked whether somebody wrote. `SQLite` has no wake-up across processes.
const INTERVAL: Duration = Duration::from_millis(100);

/// Reads a release as it grows.
pub(crate) struct Follower {
    ui: Ui,
    journal: Journal,
    release: ReleaseId,
    progress: Progress,
    /// Records before this one are not shown.
    from: u64,
}

impl Follower {
    pub(crate) fn new(ui: Ui, journal: Journal, release: ReleaseId, from: u64) -> Self {
        Self {
            ui,
            journal,
            release,
            progress: Progress::new(ui),
            from,
        }
    }

    /// Shows lines of progress until the release rests or ends. Gives it with the status that it is seen as.
    pub(crate) async fn to_the_end(&self) -> Result<(State, ReleaseStatus), Failure> {
        let lines = |state: &State, record: &Record| {
            self.progress.show(state, std::slice::from_ref(record));
        };
        self.until_heard(lines).await
    }

    /// The same with another way to show a record. Ends early, with an active status, when nobody reads the answer.
    pub(crate) async fn until_heard(
        &self,
        show: impl Fn(&State, &Record),
    ) -> Result<(State, ReleaseStatus), Failure> {
        let mut state: Option<State> = None;
        let mut version = None;
        loop {
            let current = self.journal.data_version()?;
            if version.replace(current) != Some(current) {
                let from = state.as_ref().map_or(0, |state| state.next_seq);
                for record in self.journal.records(&self.release, from)? {
                    match &mut state {
                        Some(state) => state.apply(&record)?,
                        None => state = Some(State::open(&record)?),
                    }
                    if let Some(state) = state.as_ref().filter(|_| record.seq >= self.from) {
                        show(state, &record);
                    }
                }
            }
            if let Some(known) = &state {
                let seen_as = seen_as(&self.journal, known, now())?;
                if !seen_as.is_active() || !self.ui.is_heard() {
                    self.progress.finish();
                    return Ok((known.clone(), seen_as));
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

//! `cutover watch`: another process's release, as it goes.

use std::path::Path;
use std::time::Duration;

use engine::State;
use model::Record;
use report::Document;
use serde_json::json;

use crate::args::{Id, Output};
use crate::commands::drive::{self, now};
use crate::commands::show::seen_as;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::ui::Ui;
use crate::workspace;

/// How often the journal is asked whether somebody wrote. `SQLite` has no wake-up across processes.
const INTERVAL: Duration = Duration::from_millis(100);

/// Text: progress lines on stderr and the summary on stdout. JSON Lines: `{"v":1,"type":"line","data":{at, verb,
/// target, detail, took_ms}}` for each line, then `{"v":1,"type":"report","data":…}` with the document of `report`.
pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Id) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let release = journal.find(&arguments.id)?.release;
    let progress = Progress::new(ui);
    let mut state: Option<State> = None;
    let mut version = None;
    loop {
        let current = journal.data_version()?;
        if version != Some(current) || state.is_none() {
            version = Some(current);
            let from = state.as_ref().map_or(0, |state| state.next_seq);
            for record in journal.records(&release, from)? {
                match &mut state {
                    Some(state) => state.apply(&record)?,
                    None => state = Some(State::open(&record)?),
                }
                if let Some(state) = &state {
                    show(ui, &progress, state, &record);
                    if !ui.is_heard() {
                        return Ok(());
                    }
                }
            }
        }
        if let Some(state) = &state {
            let now = now();
            let seen_as = seen_as(&journal, state, now)?;
            if !seen_as.is_active() {
                progress.finish();
                match ui.output {
                    Output::Json => {
                        let document = Document::of(state, seen_as, now);
                        ui.answer_json_line(&json!({"v": 1, "type": "report", "data": document}));
                    }
                    Output::Text => ui.answer(&drive::headline(state, seen_as)),
                }
                return drive::verdict(state, seen_as);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn show(ui: Ui, progress: &Progress, state: &State, record: &Record) {
    match ui.output {
        Output::Text => progress.show(state, std::slice::from_ref(record)),
        Output::Json => {
            for line in report::lines(state, record) {
                ui.answer_json_line(&json!({"v": 1, "type": "line", "data": {
                    "at": report::rfc3339(record.at),
                    "verb": line.verb,
                    "target": line.target,
                    "detail": line.detail,
                    "took_ms": line.took.map(|took| took.as_millis()),
                }}));
            }
        }
    }
}

//! `cutover watch`: another process's release, as it goes.

use std::path::Path;

use engine::State;
use model::Record;
use report::Document;
use serde_json::json;

use crate::args::{Id, Output};
use crate::commands::drive;
use crate::commands::follow::Follower;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workspace;

/// Text: progress lines on stderr and the summary on stdout. JSON Lines: `{"v":1,"type":"line","data":{at, verb,
/// target, detail, took_ms}}` for each line, then `{"v":1,"type":"report","data":…}` with the document of `report`.
pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Id) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let release = journal.find(&arguments.id)?.release;
    let follower = Follower::new(ui, journal, release, 0);
    let (state, seen_as) = match ui.output {
        Output::Text => follower.to_the_end().await?,
        Output::Json => {
            follower
                .until_heard(|state, record| show(ui, state, record))
                .await?
        }
    };
    if !ui.is_heard() {
        return Ok(());
    }
    match ui.output {
        Output::Json => {
            let document = Document::of(&state, seen_as, drive::now());
            ui.answer_json_line(&json!({"v": 1, "type": "report", "data": document}));
        }
        Output::Text => ui.answer(&drive::headline(&state, seen_as)),
    }
    drive::verdict(&state, seen_as)
}

fn show(ui: Ui, state: &State, record: &Record) {
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

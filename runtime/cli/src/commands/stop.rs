//! `cutover stop`: ending a release that nobody drives.

use std::path::Path;
use std::sync::Arc;

use engine::State;
use report::Document;

use crate::args::{Output, Stop};
use crate::commands::drive;
use crate::failure::{Failure, Kind};
use crate::progress::Progress;
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Stop) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let release = conductor.journal().find(&arguments.id)?.release;
    let status = State::fold(&conductor.journal().records(&release, 0)?)?.status;
    if status.is_terminal() {
        let text = format!("release {release} has ended already: it is {status}");
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
    let progress = Arc::new(Progress::new(ui));
    let teller = tokio::spawn(drive::tell_long_waits(progress.clone()));
    let stopped = conductor.stop(&release, progress.clone()).await;
    teller.abort();
    progress.finish();
    let state = stopped?;
    match ui.output {
        Output::Json => ui.answer_json(&Document::of(&state, state.status, drive::now())),
        Output::Text => ui.answer(&format!("{}  release {release}\n", state.status)),
    }
    Ok(())
}

//! `cutover delete`: forgetting a release.

use std::path::Path;

use serde_json::json;

use crate::args::{Delete, Output};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

pub(crate) fn run(ui: Ui, config: Option<&Path>, arguments: &Delete) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let release = conductor.journal().find(&arguments.id)?.release;
    if !arguments.yes {
        let question = format!(
            "Delete release {release} with its records and what its hooks printed? Nothing changes on any instance."
        );
        match ui.ask(&question) {
            Some(true) => {}
            Some(false) => return Err(Failure::new(Kind::Usage, "not confirmed")),
            None => {
                let text = format!("deleting release {release} needs a confirmation");
                return Err(Failure::new(Kind::Usage, text)
                    .hint(format!("confirm it: cutover delete {release} --yes")));
            }
        }
    }
    conductor.delete(&release)?;
    match ui.output {
        Output::Json => ui.answer_json(&json!({"v": 1, "deleted": release.as_str()})),
        Output::Text => ui.answer(&format!("DELETED  release {release}\n")),
    }
    Ok(())
}

//! `cutover logs`.

use std::path::Path;

use conductor::Log;
use engine::State;
use serde_json::json;

use crate::args::{Logs, Output};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

pub(crate) fn run(ui: Ui, config: Option<&Path>, arguments: &Logs) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let conductor = workspace::conductor(&opened)?;
    let found = conductor.journal().find(&arguments.id)?;
    let state = State::fold(&conductor.journal().records(&found.release, 0)?)?;
    let mut logs = Vec::new();
    for deployment in &state.deployments {
        let plan = &deployment.plan;
        if found
            .deployment
            .as_ref()
            .is_some_and(|wanted| *wanted != plan.id)
        {
            continue;
        }
        if let Some(instance) = &arguments.instance
            && deployment.position(instance).is_none()
        {
            let known: Vec<_> = plan
                .targets
                .iter()
                .map(|target| target.instance.id.to_string())
                .collect();
            let text = format!("deployment {} has no instance `{instance}`", plan.id);
            return Err(Failure::new(Kind::Invalid, text)
                .hint(format!("choose one of {}", known.join(", "))));
        }
        let of_deployment = conductor
            .logs()
            .of(&plan.id)
            .map_err(|error| Failure::io(format!("list the logs of {}", plan.id), error))?;
        logs.extend(
            of_deployment
                .into_iter()
                .filter(|log| is_wanted(arguments, log)),
        );
    }
    for log in &logs {
        print(ui, log)?;
        if !ui.is_heard() {
            return Ok(());
        }
    }
    if logs.is_empty() && ui.output == Output::Text {
        ui.warn("there are no such logs.");
    }
    Ok(())
}

fn is_wanted(arguments: &Logs, log: &Log) -> bool {
    arguments
        .instance
        .as_ref()
        .is_none_or(|instance| *instance == log.instance)
        && arguments.event.is_none_or(|event| event == log.event)
}

/// Text: a heading and the bytes as they are. JSON: one line a log, `{"v":1,"type":"log","data":{…}}`.
fn print(ui: Ui, log: &Log) -> Result<(), Failure> {
    let bytes = std::fs::read(&log.path)
        .map_err(|error| Failure::io(format!("read the log `{}`", log.path.display()), error))?;
    if ui.output == Output::Json {
        ui.answer_json_line(&json!({"v": 1, "type": "log", "data": {
            "instance": log.instance.as_str(),
            "event": log.event.name(),
            "attempt": log.attempt,
            "path": log.path.display().to_string(),
            "text": String::from_utf8_lossy(&bytes),
        }}));
        return Ok(());
    }
    ui.answer(&format!(
        "--- {} {} (attempt {})\n",
        log.instance, log.event, log.attempt
    ));
    ui.answer_bytes(&bytes);
    if !bytes.ends_with(b"\n") {
        ui.answer("\n");
    }
    Ok(())
}

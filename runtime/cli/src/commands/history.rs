//! `cutover history`.

use std::path::Path;

use journal::DeploymentSummary;
use model::Direction;
use report::{Table, rfc3339, short_time};
use serde_json::json;

use crate::args::{History, Output};
use crate::commands::ls::shortest_prefixes;
use crate::failure::Failure;
use crate::ui::Ui;
use crate::workspace;

pub(crate) fn run(ui: Ui, config: Option<&Path>, arguments: &History) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let deployments = journal.deployments(&arguments.group, arguments.limit.get())?;
    if deployments.is_empty() {
        // A group without a history is no mistake, an unknown one is.
        opened.workspace.group(&arguments.group)?;
    }
    match ui.output {
        Output::Json => {
            let deployments: Vec<_> = deployments.iter().map(as_json).collect();
            ui.answer_json(
                &json!({"v": 1, "group": arguments.group.to_string(), "deployments": deployments}),
            );
        }
        Output::Text if deployments.is_empty() => {
            let group = &arguments.group;
            ui.advise(&format!(
                "deploy to it first: cutover deploy {group} --package FOLDER"
            ));
        }
        Output::Text => {
            let mut table = Table::new([
                "DEPLOYMENT",
                "VERSION",
                "DIRECTION",
                "STATUS",
                "STARTED",
                "OPERATOR",
                "NOTE",
            ]);
            for deployment in &deployments {
                table.row([
                    deployment.id.to_string(),
                    deployment.version.to_string(),
                    deployment.direction.name().to_owned(),
                    deployment.status.to_string(),
                    short_time(deployment.opened_at),
                    deployment.operator.clone(),
                    note(deployment),
                ]);
            }
            let releases = deployments
                .iter()
                .map(|deployment| deployment.release.as_str());
            ui.answer_ids(&table, &shortest_prefixes(ui, &journal, releases));
        }
    }
    Ok(())
}

fn note(deployment: &DeploymentSummary) -> String {
    match (&deployment.direction, &deployment.rolled_back_by) {
        (Direction::Rollback { of }, _) => format!("takes {of} back"),
        (Direction::Retire { of }, _) => format!("retires what {of} replaced"),
        (Direction::Deploy, Some(by)) => format!("rolled back by {by}"),
        (Direction::Deploy, None) => String::new(),
    }
}

fn as_json(deployment: &DeploymentSummary) -> serde_json::Value {
    let rolls_back = match &deployment.direction {
        Direction::Deploy | Direction::Retire { .. } => None,
        Direction::Rollback { of } => Some(of.to_string()),
    };
    json!({
        "id": deployment.id.as_str(),
        "release": deployment.release.as_str(),
        "version": deployment.version.as_str(),
        "kind": deployment.kind,
        "strategy": deployment.strategy,
        "direction": deployment.direction.name(),
        "rolls_back": rolls_back,
        "rolled_back_by": deployment.rolled_back_by.as_ref().map(ToString::to_string),
        "status": deployment.status.name(),
        "operator": deployment.operator,
        "started_at": rfc3339(deployment.opened_at),
        "ended_at": deployment.ended_at.map(rfc3339),
    })
}

//! `cutover check`: everything that can be known to be wrong before a release.

use std::path::Path;

use conductor::{PreflightError, chain};
use serde_json::json;
use spec::{Problem, Problems, Severity};

use crate::args::{Check, Output};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Check) -> Result<(), Failure> {
    let mut found = Vec::new();
    if arguments.files.is_empty() {
        check_workspace(ui, config, &mut found).await?;
    }
    for file in &arguments.files {
        if file.is_dir() {
            check_package(file, &mut found)?;
        } else {
            check_workspace(ui, Some(file), &mut found).await?;
        }
    }
    let failed = found
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    match ui.output {
        Output::Json => ui.answer_json(&json!({"v": 1, "ok": !failed, "problems": found.iter().map(as_json).collect::<Vec<_>>()})),
        Output::Text => {
            for problem in &found {
                ui.answer(&format!("{problem}\n"));
                if let Some(hint) = &problem.hint {
                    ui.answer(&format!("  {hint}\n"));
                }
            }
        }
    }
    if failed {
        let errors = found
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count();
        return Err(Failure::new(
            Kind::Invalid,
            format!("found {errors} errors"),
        ));
    }
    if ui.output == Output::Text && found.is_empty() {
        ui.answer("No problems found.\n");
    }
    Ok(())
}

fn as_json(problem: &Problem) -> serde_json::Value {
    json!({
        "file": problem.file.display().to_string(),
        "line": problem.line,
        "column": problem.column,
        "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "message": problem.message,
        "hint": problem.hint,
    })
}

fn collect(result: Result<Problems, Problems>, found: &mut Vec<Problem>) {
    let (Ok(problems) | Err(problems)) = result;
    found.extend(problems.0);
}

/// A workspace with its plugins: each is loaded, held against its grants, and asked about its configurations.
async fn check_workspace(
    ui: Ui,
    file: Option<&Path>,
    found: &mut Vec<Problem>,
) -> Result<(), Failure> {
    let opened = match workspace::open(ui, file) {
        Ok(opened) => opened,
        Err(failure) => match failure.error.downcast::<Problems>() {
            Ok(problems) => {
                collect(Err(*problems), found);
                return Ok(());
            }
            Err(error) => {
                return Err(Failure {
                    error,
                    ..failure_head(failure.kind, failure.hints)
                });
            }
        },
    };
    let plugins = workspace::plugins(&opened)?;
    let problem = |line: usize, severity, message: String, hint| Problem {
        file: opened.file.clone(),
        line,
        column: 1,
        severity,
        message,
        hint,
    };
    for declared in &opened.workspace.plugins {
        match plugins.get(&declared.name).await {
            Ok(plugin) => {
                for mismatch in plugins.mismatches(&plugin) {
                    found.push(problem(
                        declared.line,
                        Severity::Warning,
                        mismatch.to_string(),
                        None,
                    ));
                }
            }
            Err(error) => found.push(problem(declared.line, Severity::Error, chain(&error), None)),
        }
    }
    for group in &opened.workspace.groups {
        let mut warnings = Vec::new();
        match conductor::preflight::balancer(&plugins, group, &mut warnings).await {
            // A plugin that does not load has been told of.
            Ok(_) | Err(PreflightError::Plugin(_)) => {}
            Err(error) => {
                let hint = match &error {
                    PreflightError::Status { hint, .. } => hint.clone(),
                    _ => None,
                };
                found.push(problem(group.line, Severity::Error, chain(&error), hint));
            }
        }
        found.extend(
            warnings
                .into_iter()
                .map(|text| problem(group.line, Severity::Warning, text, None)),
        );
    }
    Ok(())
}

fn failure_head(kind: Kind, hints: Vec<String>) -> Failure {
    let mut head = Failure::new(kind, "");
    head.hints = hints;
    head
}

fn check_package(folder: &Path, found: &mut Vec<Problem>) -> Result<(), Failure> {
    let path = spec::appspec::find(folder).map_err(|error| Failure::new(Kind::Invalid, error))?;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::io(format!("read `{}`", path.display()), error))?;
    match spec::appspec::parse(&text, &path) {
        Ok(parsed) => {
            found.extend(parsed.warnings.0);
            collect(Ok(spec::appspec::check(&parsed.value, folder)), found);
        }
        Err(problems) => collect(Err(problems), found),
    }
    Ok(())
}

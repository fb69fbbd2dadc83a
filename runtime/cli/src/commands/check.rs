//! `cutover check`: everything that can be known to be wrong before a release.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use conductor::{PlanError, PreflightError, chain, check_run, preflight};
use serde_json::json;
use spec::appspec::{self, FindError};
use spec::{Position, Problem, Severity, release_plan};

use crate::args::{Check, Output};
use crate::failure::{Failure, Kind, hints_of};
use crate::standing;
use crate::ui::Ui;
use crate::workspace::{self, Opened};

pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Check) -> Result<(), Failure> {
    let mut found = Vec::new();
    if arguments.files.is_empty() {
        check_workspace(&workspace::file(config)?, &mut found).await?;
    }
    let named = arguments.appspec_filename.as_deref();
    for file in &arguments.files {
        let content = if arguments.plan {
            Content::Plan
        } else {
            content_of(file)?
        };
        match content {
            Content::Workspace => check_workspace(file, &mut found).await?,
            Content::Plan => check_plan(config, file, &mut found).await?,
            Content::Folder => check_package(file, file, named, &mut found)?,
            Content::AppSpec => {
                let shown = file.parent().unwrap_or(Path::new(""));
                let folder = if shown.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    shown
                };
                let name = file.file_name().and_then(|name| name.to_str());
                check_package(folder, shown, name, &mut found)?;
            }
            Content::Archive => check_archive(file, named, &mut found)?,
            Content::Component => {
                let failure = Failure::new(
                    Kind::Invalid,
                    format!("`{}` is a component", file.display()),
                );
                return Err(failure.hint(format!(
                    "look at it: cutover plugin inspect {}",
                    file.display()
                )));
            }
        }
    }
    tell(ui, &found);
    let errors = found
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    if errors == 0 {
        return Ok(());
    }
    let text = format!("the check found {}", report::count(errors, "error"));
    Err(Failure::new(Kind::Invalid, text))
}

fn tell(ui: Ui, found: &[Problem]) {
    let failed = found
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    match ui.output {
        Output::Json => {
            let problems: Vec<_> = found.iter().map(as_json).collect();
            ui.answer_json(&json!({"v": 1, "ok": !failed, "problems": problems}));
        }
        Output::Text if found.is_empty() => ui.answer("No problems found.\n"),
        Output::Text => {
            for problem in found {
                ui.answer(&format!("{problem:#}\n"));
            }
        }
    }
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

/// What there is to check.
enum Content {
    Workspace,
    Plan,
    Folder,
    AppSpec,
    Archive,
    Component,
}

/// How much of a file is looked at. A plan may begin with a long comment.
const HEAD: u64 = 64 * 1024;

/// Looks at what a path is: archives are known by not being text, as every other file is.
fn content_of(path: &Path) -> Result<Content, Failure> {
    let failed = |error| Failure::io(format!("read `{}`", path.display()), error);
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(Content::Folder);
    }
    let mut head = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(HEAD).read_to_end(&mut head).map_err(failed)?;
    let name = path.file_name().and_then(|name| name.to_str());
    let is_yaml = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    let text = String::from_utf8_lossy(&head);
    Ok(if head.starts_with(b"\0asm") {
        Content::Component
    } else if name.is_some_and(|name| appspec::NAMES.contains(&name)) {
        Content::AppSpec
    } else if (is_yaml || !is_binary(&head)) && release_plan::is_likely(&text) {
        Content::Plan
    } else if is_binary(&head) {
        Content::Archive
    } else if appspec::is_likely(&text) {
        Content::AppSpec
    } else {
        Content::Workspace
    })
}

/// Whether the beginning of a file is none of a text. A character may be cut at its end.
fn is_binary(head: &[u8]) -> bool {
    let is_broken = |error: std::str::Utf8Error| error.error_len().is_some();
    head.contains(&0) || head.starts_with(b"PK") || std::str::from_utf8(head).is_err_and(is_broken)
}

/// A release plan, held against the workspace and the kinds of its plugins where there is one.
async fn check_plan(
    config: Option<&Path>,
    file: &Path,
    found: &mut Vec<Problem>,
) -> Result<(), Failure> {
    let bytes = std::fs::read(file).map_err(|error| {
        Failure::io(format!("read the release plan `{}`", file.display()), error)
    })?;
    let parsed = match release_plan::parse_bytes(&bytes, file) {
        Ok(parsed) => parsed,
        Err(problems) => {
            found.extend(problems);
            return Ok(());
        }
    };
    let mut problems = parsed.warnings.0;
    match workspace::file(config) {
        Ok(workspace_file) => match workspace::read(&workspace_file)? {
            Ok((opened, _)) => {
                let plugins = workspace::plugins(&opened)?;
                match check_run(&opened.workspace, &plugins, &parsed.value).await {
                    Ok(more) => problems.extend(more),
                    Err(error) => problems.push(whole(file, chain(&error), None)),
                }
            }
            Err(faults) => {
                // Another plan, or the workspace itself, may have been checked before.
                let untold: Vec<_> = faults
                    .into_iter()
                    .filter(|fault| !found.contains(fault))
                    .collect();
                found.extend(untold);
            }
        },
        Err(failure) => problems.push(Problem {
            severity: Severity::Warning,
            ..whole(
                file,
                format!("the services are not checked: {}", failure.error),
                Some("name the workspace: --config FILE".to_owned()),
            )
        }),
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    found.extend(problems);
    Ok(())
}

/// A workspace with its plugins: each is loaded, held against its grants, and asked about its configurations.
async fn check_workspace(file: &Path, found: &mut Vec<Problem>) -> Result<(), Failure> {
    let opened = match workspace::read(file)? {
        Ok((opened, warnings)) => {
            found.extend(warnings);
            opened
        }
        Err(problems) => {
            found.extend(problems);
            return Ok(());
        }
    };
    let plugins = workspace::plugins(&opened)?;
    for declared in &opened.workspace.plugins {
        match plugins.get(&declared.name).await {
            Ok(plugin) => {
                let mismatches = plugins.mismatches(&plugin);
                found.extend(mismatches.iter().map(|mismatch| {
                    problem(&opened, declared.at, Severity::Warning, mismatch, None)
                }));
                let missing = plugins.missing_programs(&declared.name);
                found.extend(missing.iter().map(|program| {
                    let text = format!("the program `{program}`, which plugin `{}` is granted, is not on this machine", declared.name);
                    let hint = format!("install `{program}` where releases are run");
                    problem(&opened, declared.at, Severity::Warning, &text, Some(hint))
                }));
                let mut warnings = Vec::new();
                let checked = preflight::source(&plugin, &declared.config, &mut warnings).await;
                if let Err(error) = checked {
                    let text = chain(&error);
                    found.push(problem(&opened, declared.at, Severity::Error, &text, None));
                }
                found.extend(
                    warnings
                        .iter()
                        .map(|text| problem(&opened, declared.at, Severity::Warning, text, None)),
                );
            }
            Err(error) => {
                let text = chain(&error);
                found.push(problem(&opened, declared.at, Severity::Error, &text, None));
            }
        }
    }
    let journal = workspace::journal_if_any(&opened)?;
    for group in &opened.workspace.groups {
        if let Some(journal) = &journal {
            let mixed = standing::mixed(&opened, journal, &group.reference)?;
            let sentence = standing::sentence(&group.reference, &mixed);
            found.extend(
                sentence
                    .iter()
                    .map(|text| problem(&opened, group.at, Severity::Warning, text, None)),
            );
        }
        let mut tell = |at: Position, checked: Option<PreflightError>, warnings: Vec<String>| {
            // A plugin that does not load has been told of.
            if let Some(error) = checked.filter(|error| !matches!(error, PreflightError::Plugin(_)))
            {
                let text = chain(&error);
                let hint = hints_of(&PlanError::from(error)).into_iter().next();
                found.push(problem(&opened, at, Severity::Error, &text, hint));
            }
            found.extend(
                warnings
                    .iter()
                    .map(|text| problem(&opened, at, Severity::Warning, text, None)),
            );
        };
        let mut warnings = Vec::new();
        let checked = preflight::balancer(&plugins, group, &mut warnings).await;
        tell(group.balancer_at, checked.err(), warnings);
        let mut warnings = Vec::new();
        let checked = preflight::router(&plugins, group, &mut warnings).await;
        tell(group.router_at, checked.err(), warnings);
        for gate in &group.gates {
            let mut warnings = Vec::new();
            let checked = preflight::gate(&plugins, group, gate, &mut warnings).await;
            tell(group.gate_at(&gate.name), checked.err(), warnings);
        }
    }
    Ok(())
}

fn problem(
    opened: &Opened,
    at: Position,
    severity: Severity,
    message: &impl ToString,
    hint: Option<String>,
) -> Problem {
    Problem {
        file: opened.file.clone(),
        line: at.line,
        column: at.column,
        severity,
        message: message.to_string(),
        hint,
    }
}

/// A package in a folder; messages call the folder `shown`.
fn check_package(
    folder: &Path,
    shown: &Path,
    name: Option<&str>,
    found: &mut Vec<Problem>,
) -> Result<(), Failure> {
    match appspec::examine(folder, shown, name) {
        Ok(examined) => {
            let mut problems = examined.problems.0;
            if let Some(located) = &examined.located {
                problems.extend(appspec::check_here(located, folder, Path::new("/")));
            }
            problems.sort_by_key(|problem| (problem.line, problem.column));
            found.extend(problems);
            Ok(())
        }
        Err(error @ (FindError::Missing { .. } | FindError::NotThere { .. })) => {
            let workspace = shown.join("cutover.yaml");
            let hint = if folder.join("cutover.yaml").is_file() {
                format!("check the workspace: cutover check {}", workspace.display())
            } else {
                "name another file: --appspec-filename NAME".to_owned()
            };
            found.push(whole(shown, error.to_string(), Some(hint)));
            Ok(())
        }
        Err(error) => Err(Failure::new(Kind::Invalid, error)),
    }
}

/// A problem of something as a whole.
fn whole(file: &Path, message: String, hint: Option<String>) -> Problem {
    Problem {
        file: file.to_owned(),
        line: Position::START.line,
        column: Position::START.column,
        severity: Severity::Error,
        message,
        hint,
    }
}

fn check_archive(file: &Path, name: Option<&str>, found: &mut Vec<Problem>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io(format!("unpack `{}`", file.display()), error);
    let folder = tempfile::tempdir().map_err(failed)?;
    let tree = folder.path().join("package");
    let options = agent::unpack::Options {
        appspec: name.map(str::to_owned),
        ..agent::unpack::Options::default()
    };
    match agent::unpack::unpack_with(file, &tree, &options) {
        Ok(unpacked) => {
            let told = unpacked.warnings.into_iter().map(|message| Problem {
                severity: Severity::Warning,
                ..whole(file, message, None)
            });
            found.extend(told);
            check_package(&tree, file, name, found)
        }
        Err(error) => {
            found.push(whole(file, chain(&error), None));
            Ok(())
        }
    }
}

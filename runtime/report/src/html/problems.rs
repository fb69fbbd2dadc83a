//! What went wrong, first and in words: failures, what is lost or cannot be reached, gates that did not pass.

use maud::{Markup, html};

use crate::document::{Deployment, Evidence, Instance, Step};
use crate::html::standing::{badge, look};
use crate::line::count;
use crate::view::View;

/// The most problems that are told one by one, and instances of one problem that are named.
const MOST_PROBLEMS: usize = 20;
const MOST_NAMES: usize = 12;

/// Something that somebody should look at. Instances with the same problem are told of together.
struct Problem<'d> {
    status: &'static str,
    deployment: usize,
    /// What failed: an event, a gate, the traffic.
    what: String,
    reason: Option<&'d str>,
    evidence: &'d [Evidence],
    exit_code: Option<i32>,
    /// What came after it, where it was not the end.
    then: Option<&'static str>,
    at: Option<&'d str>,
    instances: Vec<usize>,
    log: Option<&'d str>,
}

pub(super) fn section(view: &View) -> Markup {
    let problems = problems(view);
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    html! {
        @if !problems.is_empty() {
            section.problems aria-labelledby="problems" {
                h2 #problems { "What went wrong" }
                @for problem in problems.iter().take(MOST_PROBLEMS) {
                    (article(view, problem))
                }
                @if more > 0 {
                    p.note { "And " (count(more, "more problem")) ", in the timeline and the table of steps below." }
                }
            }
        }
    }
}

fn article(view: &View, problem: &Problem) -> Markup {
    let deployment = &view.document.deployments[problem.deployment];
    let many = problem.instances.len();
    let named = problem.instances.iter().take(MOST_NAMES);
    html! {
        article.(look(problem.status).class) {
            h3 {
                (badge(problem.status)) " " (problem.what)
                @if many > 0 {
                    " on "
                    @for (number, index) in named.enumerate() {
                        @if number > 0 { ", " }
                        a href=(format!("#d{}i{index}", problem.deployment)) {
                            (deployment.instances[*index].id)
                        }
                    }
                    @if many > MOST_NAMES { " and " (many - MOST_NAMES) " more" }
                }
            }
            @if let Some(reason) = problem.reason {
                (words(reason))
            }
            @for evidence in problem.evidence {
                p.evidence {
                    (badge(evidence.verdict)) " " (evidence.name) " = " (evidence.value)
                    @if let Some(threshold) = &evidence.threshold { " (" (threshold) ")" }
                }
            }
            p.where {
                (deployment.name()) " " (deployment.direction) " " (deployment.revision.version)
                @if let Some(at) = problem.at { " · " (view.time(at)) }
                @if let Some(code) = problem.exit_code { " · exit code " (code) }
                @if let Some(then) = problem.then { " · " (then) }
                @if let (Some(log), 1) = (problem.log, many) { " · log " code { (log) } }
            }
        }
    }
}

/// A reason. The last lines of a script, which an outcome quotes in one, are lines.
fn words(reason: &str) -> Markup {
    let quoted = reason
        .split_once(": ")
        .filter(|(script, _)| script.starts_with('`') && script.contains(" exited with "));
    html! {
        @match quoted {
            Some((script, lines)) => {
                p { (script) ", and said at the end" }
                pre { (lines.replace(" | ", "\n")) }
            }
            None => pre { (reason) }
        }
    }
}

fn problems<'d>(view: &View<'d>) -> Vec<Problem<'d>> {
    let mut problems: Vec<Problem<'d>> = Vec::new();
    for (number, deployment) in view.document.deployments.iter().enumerate() {
        let mut of_instances: Vec<Problem<'d>> = Vec::new();
        for (index, instance) in deployment.instances.iter().enumerate() {
            for problem in of_instance(number, instance) {
                let same = of_instances.iter_mut().find(|other| {
                    other.status == problem.status
                        && other.what == problem.what
                        && other.reason == problem.reason
                        && other.then == problem.then
                });
                match same {
                    Some(same) => same.instances.push(index),
                    None => of_instances.push(Problem {
                        instances: vec![index],
                        ..problem
                    }),
                }
            }
        }
        problems.extend(of_deployment(number, deployment));
        problems.extend(of_instances);
    }
    // What was overcome is of less interest than what stopped the release.
    problems.sort_by_key(|problem| (problem.then.is_some(), look(problem.status).class != "bad"));
    problems
}

fn of_instance<'d>(deployment: usize, instance: &'d Instance) -> impl Iterator<Item = Problem<'d>> {
    let is_bad = |step: &&Step| matches!(step.status, "FAILED" | "LOST");
    let has_failed = matches!(instance.outcome, Some("FAILED" | "UNREACHABLE"));
    // What ended it is the last thing that was tried, and is called as the outcome is.
    let decisive = instance.steps.iter().rposition(|step| is_bad(&step));
    let decisive = decisive.filter(|_| has_failed);
    let steps = instance.steps.iter().enumerate();
    let told = steps
        .filter(move |(_, step)| is_bad(step))
        .map(move |(index, step)| {
            let ended_it = decisive == Some(index);
            Problem {
                status: match instance.outcome {
                    Some("UNREACHABLE") if ended_it => "UNREACHABLE",
                    _ => step.status,
                },
                deployment,
                what: step.event.to_owned(),
                reason: step.reason.as_deref(),
                evidence: &[],
                exit_code: step.exit_code,
                then: (!ended_it).then(|| followed_by(instance, index)),
                at: step.ended_at.as_deref().or(step.started_at.as_deref()),
                instances: Vec::new(),
                log: step.log.as_deref(),
            }
        });
    let without_step = (has_failed && decisive.is_none()).then(|| Problem {
        status: instance.outcome.unwrap_or("FAILED"),
        deployment,
        what: "instance".to_owned(),
        reason: instance.reason.as_deref(),
        evidence: &[],
        exit_code: None,
        then: None,
        at: None,
        instances: Vec::new(),
        log: None,
    });
    told.chain(without_step)
}

/// What came after an attempt that did not end an instance.
fn followed_by(instance: &Instance, index: usize) -> &'static str {
    let event = instance.steps[index].event;
    let is_again = |step: &Step| step.event == event;
    match instance.steps[index + 1..].iter().any(is_again) {
        true => "tried again",
        false => "the instance went on",
    }
}

/// Failed switches and waits, instances without traffic, and a reason that none of the instances has told.
fn of_deployment<'d>(number: usize, deployment: &'d Deployment) -> Vec<Problem<'d>> {
    let blank = |status, what: String, reason: Option<&'d str>| Problem {
        status,
        deployment: number,
        what,
        reason,
        evidence: &[],
        exit_code: None,
        then: None,
        at: None,
        instances: Vec::new(),
        log: None,
    };
    let mut problems = Vec::new();
    let last = deployment.switches.len().saturating_sub(1);
    for (index, switch) in deployment.switches.iter().enumerate() {
        if matches!(switch.status, "FAILED" | "LOST") {
            problems.push(Problem {
                at: switch.at.as_deref(),
                then: (index < last).then_some("tried again"),
                ..blank(
                    switch.status,
                    "SwitchTraffic".to_owned(),
                    switch.reason.as_deref(),
                )
            });
        }
    }
    for hold in &deployment.holds {
        if matches!(hold.status, "FAILED" | "INCONCLUSIVE") {
            let name = hold.name.as_ref().map(|name| format!(" {name}"));
            problems.push(Problem {
                at: hold.closed_at.as_deref(),
                evidence: &hold.evidence,
                then: (deployment.status == "SUCCEEDED").then_some("the deployment went on"),
                ..blank(
                    hold.status,
                    format!("{}{}", hold.kind, name.unwrap_or_default()),
                    hold.reason.as_deref(),
                )
            });
        }
    }
    for (instance, words) in &deployment.down {
        let what = format!("{instance} has no traffic");
        problems.push(Problem {
            then: (deployment.status == "SUCCEEDED").then_some("the deployment went on"),
            ..blank("UNREACHABLE", what, Some(words))
        });
    }
    let is_told = !problems.is_empty()
        || deployment
            .instances
            .iter()
            .any(|instance| matches!(instance.outcome, Some("FAILED" | "UNREACHABLE")));
    if deployment.status == "FAILED" && deployment.started_at.is_some() && !is_told {
        problems.push(blank(
            "FAILED",
            deployment.direction.to_owned(),
            deployment.reason.as_deref(),
        ));
    }
    problems
}

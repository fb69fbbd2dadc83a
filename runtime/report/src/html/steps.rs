//! Every step in a table: the timeline in words.

use maud::{Markup, html};

use crate::document::{Deployment, Instance, Step};
use crate::html::standing::badge;
use crate::line::count;
use crate::view::View;

pub(super) fn section(view: &View) -> Markup {
    let deployments = || view.document.deployments.iter().enumerate();
    html! {
        section.steps aria-labelledby="steps" {
            h2 #steps { "Every step" }
            p.note { "The timeline in words: each attempt of each step, with what it said." }
            @for (number, deployment) in deployments() {
                details {
                    summary {
                        (deployment.name()) " " (deployment.direction) " "
                        (deployment.revision.version) ", "
                        (count(view.detailed[number].len(), "instance"))
                    }
                    (stops(view, deployment))
                    (table(view, number, deployment))
                    @if view.left_out(number) > 0 { (left_out(view, number)) }
                }
            }
        }
    }
}

/// What is not in the page, and where it is.
pub(super) fn left_out(view: &View, deployment: usize) -> Markup {
    let many = view.left_out(deployment);
    html! {
        p.note {
            (count(many, "more instance"))
            " without failures " (if many == 1 { "is" } else { "are" })
            " left out here to keep the page readable: "
            code { "cutover report " (view.document.id) " --output json" } " has all of them."
        }
    }
}

fn stops(view: &View, deployment: &Deployment) -> Markup {
    let is_empty = deployment.switches.is_empty() && deployment.holds.is_empty();
    html! {
        @if !is_empty {
            table {
                caption { "Traffic and waits" }
                thead { tr {
                    @for name in ["What", "Status", "Begin", "End", "Note"] { th scope="col" { (name) } }
                } }
                tbody {
                    @for stop in crate::html::timeline::stops(deployment) {
                        tr {
                            th scope="row" { (stop.name) }
                            td { (badge(stop.status)) }
                            td { (stop.start.map(|at| view.time(at)).unwrap_or_default()) }
                            td { (stop.end.map(|at| view.time(at)).unwrap_or_default()) }
                            td.note { (stop.note) }
                        }
                    }
                }
            }
        }
    }
}

fn table(view: &View, number: usize, deployment: &Deployment) -> Markup {
    html! {
        table {
            caption { "Instances and their steps" }
            thead { tr {
                @for name in ["Event", "Status", "Revision", "Begin", "Took", "Exit code", "Note"] {
                    th scope="col" { (name) }
                }
            } }
            @for index in &view.detailed[number] {
                @let instance = &deployment.instances[*index];
                tbody {
                    tr.instance { th colspan="7" scope="rowgroup" { (heading(view, deployment, instance)) } }
                    @for step in &instance.steps { (row(view, step)) }
                }
            }
        }
    }
}

fn heading(view: &View, deployment: &Deployment, instance: &Instance) -> Markup {
    let from = instance.from_version.as_deref().unwrap_or("nothing");
    let to = instance.to_version.as_deref().unwrap_or("nothing");
    html! {
        (instance.id) " " (badge(instance.standing(deployment, view.document))) " "
        span.dim { (from) " → " (to) }
        @if let Some(reason) = &instance.reason { " " span.note { (reason) } }
    }
}

fn row(view: &View, step: &Step) -> Markup {
    html! {
        tr {
            th scope="row" {
                (step.event)
                @if step.attempt > 1 { " (attempt " (step.attempt) ")" }
            }
            td { (badge(step.standing(view.document))) }
            td {
                @if let (Some(revision), Some(version)) = (step.revision, &step.version) {
                    (revision) " " (version)
                }
            }
            td { @if step.status != "SKIPPED" { (step.started_at.as_deref().map(|at| view.time(at)).unwrap_or_default()) } }
            td.number { @if step.standing(view.document) != "UNFINISHED" && let Some(span) = view.step(step) { (span.took()) } }
            td.number { @if let Some(code) = step.exit_code { (code) } }
            td.note {
                @if let Some(reason) = &step.reason { (reason) }
                @if step.status == "FAILED" && let Some(log) = &step.log { " Log: " code { (log) } }
            }
        }
    }
}

//! The page: its frame, its head, and the order of its parts.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::document::Document;
use crate::html::standing::{badge, look, sign};
use crate::html::{problems, services, steps, timeline};
use crate::line::count;
use crate::view::{View, date_time};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// What every page begins with, and so tells a report from any other file.
pub const BEGINNING: &str = "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"generator\" content=\"cutover report\">";

/// The document as a page of its own.
#[must_use]
pub fn render(document: &Document) -> String {
    let view = View::of(document);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="generator" content="cutover report";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (document.status) " " (title(document)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (head(&view))
                    (problems::section(&view))
                    (timeline::section(&view))
                    (services::section(&view))
                    (steps::section(&view))
                }
                footer {
                    "cutover report of release " code { (document.id) } ". All times are UTC."
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    legible(page.into_string())
}

/// Nothing is fetched and nothing runs but what these digests stand for, whatever finds its way into the page.
fn policy() -> String {
    let digest = |text: &str| BASE64.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        digest(STYLE),
        digest(SCRIPT)
    )
}

/// What the release is called: its comment, or what it deploys.
fn title(document: &Document) -> String {
    if !document.comment.is_empty() {
        return document.comment.clone();
    }
    let mut names: Vec<_> = document
        .deployments
        .iter()
        .map(|deployment| {
            format!(
                "{} {} {}",
                deployment.direction,
                deployment.name(),
                deployment.revision.version
            )
        })
        .collect();
    let more = names.len().saturating_sub(2);
    names.truncate(2);
    if more > 0 {
        names.push(format!("and {}", count(more, "more service")));
    }
    match names.is_empty() {
        true => document.id.clone(),
        false => names.join(", "),
    }
}

fn head(view: &View) -> Markup {
    let document = view.document;
    let span = view.span(document.started_at.as_deref(), document.ended_at.as_deref());
    html! {
        header.(look(document.status).class) {
            p.status {
                (sign(document.status)) " "
                strong { (document.status) } " "
                span lang="zh" { (document.status_zh) }
            }
            h1 { (title(document)) }
            @if let Some(reason) = &document.reason {
                p.reason { (reason) }
            }
            @if let Some(waiting_for) = &document.waiting_for {
                p.waiting { strong { "Waiting for " } (waiting_for) }
            }
            dl.facts {
                (fact("Release", html! { code { (document.id) } }))
                (fact("Operator", html! { (document.operator) }))
                @if let Some(at) = &document.started_at {
                    (fact("Started", html! { time datetime=(at) { (date_time(at)) } }))
                }
                @if let Some(at) = &document.ended_at {
                    (fact("Ended", html! { time datetime=(at) { (date_time(at)) } }))
                } @else if let Some(at) = &document.as_of {
                    (fact("As of", html! { time datetime=(at) { (date_time(at)) } ", not ended" }))
                }
                @if let Some(span) = span {
                    (fact(if document.ended_at.is_some() { "Took" } else { "So far" }, html! { (span.took()) }))
                }
            }
            (outcomes(document))
        }
    }
}

/// One fact of a list.
pub(super) fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// How many services and instances stand how.
fn outcomes(document: &Document) -> Markup {
    let services = document
        .deployments
        .iter()
        .map(|deployment| deployment.standing(document));
    let instances = document.deployments.iter().flat_map(|deployment| {
        let instances = deployment.instances.iter();
        instances.map(|instance| instance.standing(deployment, document))
    });
    html! {
        div.outcomes {
            @if document.deployments.len() > 1 { (tally("service", services)) }
            (tally("instance", instances))
        }
    }
}

fn tally<'s>(thing: &str, standings: impl Iterator<Item = &'s str>) -> Markup {
    let mut counts: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for standing in standings {
        *counts.entry((place(standing), standing)).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    let mut at = 0.0;
    let parts = counts.iter().map(|((_, standing), number)| {
        let width = *number as f64 / all as f64 * 100.0;
        let part = (*standing, *number, at, width);
        at += width;
        part
    });
    let parts: Vec<_> = parts.collect();
    html! {
        @if all > 0 {
            div.tally {
                svg aria-hidden="true" width="100%" height="10" {
                    @for (standing, _, at, width) in &parts {
                        rect.(look(standing).class) x=(percent(*at)) width=(percent(*width)) height="10" {}
                    }
                }
                p {
                    strong { (count(all, thing)) } ": "
                    @for (number, (standing, many, ..)) in parts.iter().enumerate() {
                        @if number > 0 { ", " }
                        span { (many) " " (badge(standing)) }
                    }
                }
            }
        }
    }
}

/// What is to be looked at first comes first.
pub(super) fn place(standing: &str) -> usize {
    let order = ["bad", "odd", "run", "wait", "dim", "ok"];
    let class = look(standing).class;
    order
        .iter()
        .position(|other| *other == class)
        .unwrap_or(order.len())
}

/// A length or place as SVG reads it.
pub(super) fn percent(value: f64) -> String {
    format!("{value:.2}%")
}

/// The page with what cannot be read, or turns the reading around, replaced by a sign for it.
fn legible(page: String) -> String {
    let is_hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    match page.contains(is_hidden) {
        true => page.replace(is_hidden, "\u{fffd}"),
        false => page,
    }
}

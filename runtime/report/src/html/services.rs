//! The services in words: how each stands, since when, and the facts that it went by.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::document::Deployment;
use crate::html::page::fact;
use crate::html::standing::{badge, look};
use crate::text::{mixed_phrases, split};
use crate::view::{View, date_time};

/// The most names of a batch, and batches, that are spelt out.
const MOST_NAMES: usize = 12;
const MOST_BATCHES: usize = 12;

pub(super) fn section(view: &View) -> Markup {
    let document = view.document;
    html! {
        section.services aria-labelledby="services" {
            h2 #services { "Services" }
            @for deployment in &document.deployments {
                (service(view, deployment))
            }
            @if !document.orders.is_empty() {
                h2 #orders { "Orders" }
                table aria-labelledby="orders" {
                    thead { tr { th scope="col" { "Time" } th scope="col" { "Order" } th scope="col" { "Operator" } } }
                    tbody {
                        @for order in &document.orders {
                            tr {
                                td { time datetime=(order.at) { (date_time(&order.at)) } }
                                td { (order.order) }
                                td { (order.operator) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn service(view: &View, deployment: &Deployment) -> Markup {
    let standing = deployment.standing(view.document);
    let span = view.deployment(deployment);
    html! {
        article.(look(standing).class) {
            h3 {
                (badge(standing)) " " (deployment.name())
                @if let Some(id) = deployment.service_id { " " span.dim { "service " (id) } }
            }
            @if let Some(reason) = &deployment.reason { p.reason { (reason) } }
            @if let Some(waiting_for) = &deployment.waiting_for {
                p.waiting { strong { "Waiting for " } (waiting_for) }
            }
            dl.facts {
                @if let Some(at) = &deployment.started_at { (fact("Started", html! { (date_time(at)) })) }
                @if let Some(at) = &deployment.ended_at { (fact("Ended", html! { (date_time(at)) })) }
                @if let Some(span) = span {
                    (fact(if deployment.ended_at.is_some() { "Took" } else { "So far" }, html! { (span.took()) }))
                }
                (fact("Version", html! { (versions(deployment)) }))
                (fact("Kind", html! { (deployment.kind) }))
                (fact("Strategy", html! { (deployment.strategy) ", " (deployment.direction) }))
                (fact("Priority", html! { (deployment.priority) }))
                @if let Some(amount) = &deployment.minimum_healthy {
                    (fact("Healthy at any time", html! { "at least " (amount) }))
                }
                @if let Some(side) = &deployment.side {
                    (fact("Side", html! { (side) @if !deployment.shares.is_empty() { ": " (split(&deployment.shares)) } }))
                }
                @if let Some(of) = &deployment.rolls_back { (fact("Takes back", html! { code { (of) } })) }
                @if deployment.ignore_stop_failures {
                    (fact("Ignored", html! { "failures of the version being left" }))
                }
                (fact("Deployment", html! { code { (deployment.id) } }))
            }
            (more(deployment))
        }
    }
}

/// What is longer than a few words.
fn more(deployment: &Deployment) -> Markup {
    html! {
        dl.more {
            (fact("Package", html! { (deployment.revision.source) " " code { (deployment.revision.digest) } }))
            @if !deployment.plugins.is_empty() {
                (fact("Plugins", html! {
                    @for (number, (plugin, digest)) in deployment.plugins.iter().enumerate() {
                        @if number > 0 { br; }
                        (plugin) " " code { (digest) }
                        @if let Some(grants) = deployment.grants.get(plugin) { " granted " (grants.join(", ")) }
                    }
                }))
            }
            @if !deployment.batches.is_empty() { (fact("Batches", batches(deployment))) }
            @if !deployment.excluded.is_empty() {
                (fact("Left out", html! { (names(&deployment.excluded)) }))
            }
            @if !deployment.mixed_versions.is_empty() {
                (fact("Mixed versions", html! {
                    @for (number, phrase) in mixed_phrases(&deployment.mixed_versions).iter().enumerate() {
                        @if number > 0 { br; }
                        (phrase)
                    }
                }))
            }
            @for (instance, words) in &deployment.down {
                (fact("Without traffic", html! { (instance) ": " (words) }))
            }
        }
    }
}

fn batches(deployment: &Deployment) -> Markup {
    let all = deployment.batches.len();
    html! {
        (if all == 1 { "1 batch".to_owned() } else { format!("{all} batches") })
        @if all <= MOST_BATCHES {
            ": "
            @for (number, batch) in deployment.batches.iter().enumerate() {
                @if number > 0 { " · " }
                (names(batch))
            }
        } @else {
            " of " (sizes(&deployment.batches))
        }
    }
}

fn sizes(batches: &[Vec<String>]) -> String {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for batch in batches {
        *sizes.entry(batch.len()).or_default() += 1;
    }
    let sizes = sizes.into_iter().rev();
    let phrases = sizes.map(|(size, many)| format!("{size} ({many}x)"));
    phrases.collect::<Vec<_>>().join(", ")
}

/// Names one after the other, the first and the last of many.
fn names(all: &[String]) -> String {
    match all {
        [first, .., last] if all.len() > MOST_NAMES => {
            format!("{first} … {last} ({})", all.len())
        }
        all => all.join(" "),
    }
}

/// What the instances leave, and what they get.
pub(super) fn versions(deployment: &Deployment) -> String {
    let from = deployment.versions_left();
    let to = &deployment.revision.version;
    match from.as_slice() {
        [] => to.clone(),
        [same] if same == to => to.clone(),
        from => format!("{} → {to}", from.join(", ")),
    }
}

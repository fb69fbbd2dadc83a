//! The timeline: services that unfold to their waits, switches and instances, and instances that unfold to their steps.

use maud::{Markup, html};

use crate::document::{Deployment, Document, Hold, Step, Switch};
use crate::html::page::percent;
use crate::html::services::versions;
use crate::html::standing::{bar_class, legend, look, sign};
use crate::html::steps::left_out;
use crate::line::count;
use crate::scale::{Scale, Span};
use crate::text::split;
use crate::view::{View, instant, is_troubled, time};

/// A service with more instances shows them in groups.
const MOST_UNGROUPED: usize = 30;
/// Instances of a group, where the batches are no groups to look at.
const GROUP: usize = 25;
/// Services are unfolded where all of their rows fit on a screen or two.
const MOST_UNFOLDED: usize = 40;
/// The most instances with trouble whose steps are unfolded.
const MOST_TROUBLED: usize = 3;
/// What is shorter could not be seen, in percent of the line.
const LEAST_WIDTH: f64 = 0.25;
/// The most lines of an overview.
const MOST_LINES: usize = 60;

/// A row of the timeline.
struct Row {
    level: u8,
    id: Option<String>,
    status: &'static str,
    name: Markup,
    detail: Option<Markup>,
    lane: Markup,
    took: Option<String>,
    note: Option<String>,
}

pub(super) fn section(view: &View) -> Markup {
    html! {
        section.timeline aria-labelledby="timeline" {
            h2 #timeline { "Timeline" }
            @if let Some(scale) = &view.scale {
                div.tools {
                    (legend())
                    p.buttons hidden {
                        button type="button" data-unfold="service" { "Unfold services" }
                        button type="button" data-unfold="*" { "Unfold everything" }
                        button type="button" data-unfold="" { "Fold" }
                    }
                }
                div.scroll { (chart(view, scale)) }
            } @else {
                p.note { "Nothing has happened yet." }
            }
        }
    }
}

fn chart(view: &View, scale: &Scale) -> Markup {
    let deployments = view.document.deployments.iter().enumerate();
    html! {
        div.chart data-scale=(scale.for_script()) {
            svg.defs aria-hidden="true" width="0" height="0" { defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect.under width="6" height="6" {} rect.over width="2" height="6" {}
                }
                pattern #gap width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)" {
                    rect.over width="1" height="6" {}
                }
            } }
            (axis(view, scale))
            (grid(view, scale))
            @if has_statuses(view.document) { (release(view, scale)) }
            @for (number, deployment) in deployments {
                (service(view, scale, number, deployment))
            }
        }
    }
}

fn axis(view: &View, scale: &Scale) -> Markup {
    let day = view.document.started_at.as_deref().unwrap_or_default();
    html! {
        div.row.axis aria-hidden="true" {
            div.label { span.dim {
                    (day.get(..10).unwrap_or_default()) " UTC"
                    @if let (None, Some(at)) = (&view.document.ended_at, &view.document.as_of) {
                        ", as of " (time(at).get(..8).unwrap_or_default())
                    }
                } }
            svg.lane {
                @for tick in scale.ticks() {
                    @if let Some(label) = &tick.label {
                        text x=(percent(tick.percent)) y="12" { (label) }
                    }
                }
                @for cut in scale.cuts() {
                    text.cut x=(percent(cut.percent + cut.width / 2.0)) y="26" text-anchor="middle" {
                        (cut.took)
                    }
                }
            }
            div.took { "took" }
        }
    }
}

/// The lines behind the rows.
fn grid(view: &View, scale: &Scale) -> Markup {
    html! {
        svg.grid aria-hidden="true" width="100%" height="100%" {
            @for cut in scale.cuts() {
                rect.gap x=(percent(cut.percent)) width=(percent(cut.width)) height="100%" {}
            }
            @for tick in scale.ticks() {
                line x1=(percent(tick.percent)) x2=(percent(tick.percent)) y1="0" y2="100%" {}
            }
            @if view.document.ended_at.is_none() {
                line.now x1="100%" x2="100%" y1="0" y2="100%" {}
            }
        }
    }
}

/// Whether there is more to tell of the release than of its services.
fn has_statuses(document: &Document) -> bool {
    !document.orders.is_empty()
        || document
            .changes
            .iter()
            .any(|change| Some(&change.at) != document.ended_at.as_ref())
}

/// The statuses of the release, and the orders that it was given.
fn release(view: &View, scale: &Scale) -> Markup {
    let document = view.document;
    let mut statuses: Vec<(i64, &'static str)> = vec![(scale.whole().start, "RUNNING")];
    for change in &document.changes {
        if let Some(at) = instant(Some(&change.at)) {
            statuses.push((at, change.status));
        }
    }
    let ends = statuses.iter().skip(1).map(|(at, _)| *at);
    let ends: Vec<_> = ends.chain([scale.whole().end]).collect();
    let lane = html! {
        @for ((start, status), end) in statuses.iter().zip(ends) {
            @let span = Span::new(*start, end);
            // The last status of a release that is over begins when the line ends.
            @if span.length() > 0 || statuses.len() == 1 {
                @let class = if *status == "RUNNING" { "whole" } else { look(status).class };
                (bar(scale, span, class, status, &told(status, span)))
            }
        }
        @for order in &document.orders {
            @if let Some(at) = instant(Some(&order.at)) {
                (marker(scale, at, "order", &format!("{} by {} at {}", order.order, order.operator, time(&order.at))))
            }
        }
    };
    let span = view.span(document.started_at.as_deref(), document.ended_at.as_deref());
    let orders = document.orders.len();
    row(&Row {
        level: 0,
        id: None,
        status: document.status,
        name: html! { strong { "release" } },
        detail: (orders > 0).then(|| html! { (count(orders, "order")) " (▾)" }),
        lane: html! { svg.lane aria-hidden="true" { (lane) } },
        took: span.map(Span::took),
        note: None,
    })
}

fn service(view: &View, scale: &Scale, number: usize, deployment: &Deployment) -> Markup {
    let standing = deployment.standing(view.document);
    let rows: usize = view.detailed.iter().map(Vec::len).sum();
    let is_unfolded = rows <= MOST_UNFOLDED || deployment.instances.iter().any(is_troubled);
    let service_id = deployment.service_id.map(|id| format!(" service {id}"));
    let head = Row {
        level: 0,
        id: Some(format!("d{number}")),
        status: standing,
        name: html! {
            strong { (deployment.name()) } span.dim { (service_id.unwrap_or_default()) }
        },
        detail: Some(detail(deployment, standing)),
        lane: html! {
            @if let Some(waiting_for) = &deployment.waiting_for {
                div.lane.words.wait { "waiting for " (waiting_for) }
            } @else {
                svg.lane.overview aria-hidden="true" { (overview(view, scale, number, deployment)) }
            }
        },
        took: view.deployment(deployment).map(Span::took),
        note: None,
    };
    html! {
        details.service open[is_unfolded] {
            summary { (row(&head)) }
            @for stop in stops(deployment) { (stop_row(view, scale, &stop)) }
            (instances(view, scale, number, deployment))
            @if view.left_out(number) > 0 { (left_out(view, number)) }
        }
    }
}

/// What a service does, and how far it is.
fn detail(deployment: &Deployment, standing: &str) -> Markup {
    let all = deployment.instances.len();
    let done = deployment
        .instances
        .iter()
        .filter(|instance| instance.outcome == Some("SUCCEEDED"))
        .count();
    html! {
        span.badge.(look(standing).class) { (standing) }
        " " (deployment.kind) " " (versions(deployment)) ", "
        (done) " of " (count(all, "instance"))
    }
}

/// The whole deployment in one lane: a line an instance, waits across all of them, marks for switches.
fn overview(view: &View, scale: &Scale, number: usize, deployment: &Deployment) -> Markup {
    let Some(whole) = view.deployment(deployment) else {
        return html! {};
    };
    let standing = deployment.standing(view.document);
    let indices: Vec<usize> = (0..deployment.instances.len()).collect();
    html! {
        (bar(scale, whole, "whole", "", &told(standing, whole)))
        @for hold in &deployment.holds {
            @if let Some(span) = view.span(hold.opened_at.as_deref(), hold.closed_at.as_deref().or(deployment.ended_at.as_deref())) {
                (bar(scale, span, hold_class(hold), "", &told(&title_of(hold), span)))
            }
        }
        (lines(view, scale, number, &indices))
        @for switch in &deployment.switches {
            @if let Some(at) = instant(switch.at.as_deref()) {
                (marker(scale, at, look(switch.status).class, &format!("traffic {} {}", switch.status, split(&switch.to))))
            }
        }
    }
}

/// A line for each of these instances below the other, so that their shape shows how the work went over them.
fn lines(view: &View, scale: &Scale, number: usize, indices: &[usize]) -> Markup {
    let deployment = &view.document.deployments[number];
    let many = indices.len().clamp(1, MOST_LINES);
    // Of many instances several share a line, on which what is to be looked at is on top.
    let mut bars: Vec<(bool, usize, Span, &'static str)> = Vec::new();
    for (place, index) in indices.iter().enumerate() {
        let instance = &deployment.instances[*index];
        if let Some(span) = view.instance(instance) {
            let line = place * many / indices.len();
            let class = look(instance.standing(deployment, view.document)).class;
            match bars
                .iter_mut()
                .rev()
                .find(|bar| bar.1 == line && bar.3 == class)
            {
                Some(bar) if bar.2.end >= span.start => {
                    bar.2 = Span::new(bar.2.start.min(span.start), bar.2.end.max(span.end));
                }
                _ => bars.push((is_troubled(instance), line, span, class)),
            }
        }
    }
    bars.sort_by_key(|bar| bar.0);
    let height = 100.0 / many as f64;
    html! {
        @for (_, line, span, class) in bars {
            @let (x, width) = scale.place(span);
            // Few lines stay apart from each other; what went wrong is never too thin to be seen.
            @let thin = if many <= 12 { height * 0.8 } else { height };
            @let thick = if matches!(class, "bad" | "odd") { thin.max(9.0) } else { thin };
            @let y = (line as f64 * height).min(100.0 - thick);
            rect.(class) x=(percent(x)) width=(percent(width.max(LEAST_WIDTH))) y=(percent(y)) height=(percent(thick)) {}
        }
    }
}

fn instances(view: &View, scale: &Scale, number: usize, deployment: &Deployment) -> Markup {
    let detailed = &view.detailed[number];
    html! {
        @if detailed.len() <= MOST_UNGROUPED {
            @for index in detailed { (instance(view, scale, number, *index, 1)) }
        } @else {
            @for (name, members) in groups(deployment, detailed) {
                (group(view, scale, number, &name, &members))
            }
        }
    }
}

/// The instances by batch, or by their order where batches are too many or too large.
fn groups(deployment: &Deployment, detailed: &[usize]) -> Vec<(String, Vec<usize>)> {
    let batches = &deployment.batches;
    let many = deployment.instances.len();
    let sizes = batches.iter().map(Vec::len);
    let is_telling =
        (2..=MOST_UNGROUPED).contains(&batches.len()) && sizes.clone().sum::<usize>() == many;
    let sizes: Vec<usize> = if is_telling {
        sizes.collect()
    } else {
        (0..many)
            .step_by(GROUP)
            .map(|at| GROUP.min(many - at))
            .collect()
    };
    let mut first = 0;
    let mut groups = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let range = first..first + size;
        first += size;
        let members: Vec<_> = detailed
            .iter()
            .copied()
            .filter(|index| range.contains(index))
            .collect();
        let ids = match &deployment.instances[range.clone()] {
            [] => continue,
            [only] => only.id.clone(),
            [first, .., last] => format!("{} … {}", first.id, last.id),
        };
        let name = match is_telling {
            true => format!("batch {}: {ids}", number + 1),
            false => ids,
        };
        if !members.is_empty() {
            groups.push((name, members));
        }
    }
    groups
}

fn group(view: &View, scale: &Scale, number: usize, name: &str, members: &[usize]) -> Markup {
    let deployment = &view.document.deployments[number];
    let of_group = || members.iter().map(|index| &deployment.instances[*index]);
    let troubled = of_group().filter(|instance| is_troubled(instance)).count();
    let ordered = {
        let mut ordered = members.to_vec();
        ordered.sort_unstable();
        ordered
    };
    // The group stands as what is to be looked at first in it.
    let standing = of_group()
        .map(|instance| instance.standing(deployment, view.document))
        .min_by_key(|standing| crate::html::page::place(standing))
        .unwrap_or("WAITING");
    let span = Span::around(of_group().filter_map(|instance| view.instance(instance)));
    let head = Row {
        level: 1,
        id: None,
        status: standing,
        name: html! { (name) },
        detail: (troubled > 0).then(|| html! { (troubled) " with trouble" }),
        lane: html! {
            svg.lane.group aria-hidden="true" {
                (lines(view, scale, number, &ordered))
            }
        },
        took: span.map(Span::took),
        note: None,
    };
    html! {
        details.group open[troubled > 0] {
            summary { (row(&head)) }
            @for index in members { (instance(view, scale, number, *index, 2)) }
        }
    }
}

fn instance(view: &View, scale: &Scale, number: usize, index: usize, level: u8) -> Markup {
    let deployment = &view.document.deployments[number];
    let instance = &deployment.instances[index];
    let standing = instance.standing(deployment, view.document);
    let troubled = &view.detailed[number];
    let is_open = matches!(standing, "FAILED" | "UNREACHABLE")
        && troubled
            .iter()
            .take(MOST_TROUBLED)
            .any(|other| *other == index);
    let lane = html! {
        svg.lane aria-hidden="true" {
            @for step in &instance.steps {
                @if let Some(span) = view.step(step) {
                    (bar(scale, span, bar_class(step.event, step.standing(view.document)), step.event, &step_title(view, step, span)))
                }
            }
        }
    };
    let head = Row {
        level,
        id: Some(format!("d{number}i{index}")),
        status: standing,
        name: html! { (instance.id) },
        detail: match standing {
            "SUCCEEDED" => None,
            standing => Some(html! { (standing) }),
        },
        lane,
        took: view.instance(instance).map(Span::took),
        note: (standing == "SKIPPED")
            .then(|| instance.reason.clone())
            .flatten(),
    };
    html! {
        @if instance.steps.is_empty() {
            (row(&head))
        } @else {
            details.instance open[is_open] {
                summary { (row(&head)) }
                @for step in &instance.steps { (step_row(view, scale, step, level + 1)) }
            }
        }
    }
}

fn step_row(view: &View, scale: &Scale, step: &Step, level: u8) -> Markup {
    let attempt = (step.attempt > 1).then(|| format!(" (attempt {})", step.attempt));
    let span = view.step(step);
    let standing = step.standing(view.document);
    let is_quiet = matches!(standing, "SUCCEEDED" | "SKIPPED");
    row(&Row {
        level,
        id: None,
        status: standing,
        name: html! { (step.event) (attempt.unwrap_or_default()) },
        detail: (!is_quiet).then(|| html! { (standing) }),
        lane: html! {
            @if let Some(span) = span {
                svg.lane.thin aria-hidden="true" {
                    (bar(scale, span, bar_class(step.event, standing), "", &step_title(view, step, span)))
                }
            } @else {
                div.lane.words { @if let Some(reason) = &step.reason { (step.status) ": " (reason) } }
            }
        },
        took: span.filter(|_| standing != "UNFINISHED").map(Span::took),
        note: step.reason.clone().filter(|_| span.is_some()),
    })
}

/// A switch or a wait of a deployment.
pub(super) struct Stop<'d> {
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) start: Option<&'d str>,
    pub(super) end: Option<&'d str>,
    pub(super) note: String,
    is_switch: bool,
    class: &'static str,
    after_batch: Option<u32>,
}

/// The switches and waits of a deployment in the order in which they came, or would.
pub(super) fn stops(deployment: &Deployment) -> Vec<Stop<'_>> {
    let switches = deployment.switches.iter().map(switch_stop);
    let holds = deployment
        .holds
        .iter()
        .map(|hold| hold_stop(deployment, hold));
    let mut stops: Vec<_> = switches.chain(holds).collect();
    stops.sort_by(|one, other| match (one.start, other.start) {
        (Some(one), Some(other)) => one.cmp(other),
        _ => one.after_batch.cmp(&other.after_batch),
    });
    stops
}

fn switch_stop(switch: &Switch) -> Stop<'_> {
    let to = match split(&switch.to) {
        to if to.is_empty() => "traffic".to_owned(),
        to => format!("traffic to {to}"),
    };
    let from = split(&switch.from);
    let from = (!from.is_empty()).then(|| format!("from {from}"));
    let notes = from.into_iter().chain(switch.reason.clone());
    Stop {
        name: match switch.attempt {
            0 | 1 => to,
            attempt => format!("{to} (attempt {attempt})"),
        },
        status: switch.status,
        start: switch.started_at.as_deref().or(switch.at.as_deref()),
        end: switch.ended_at.as_deref(),
        note: notes.collect::<Vec<_>>().join("; "),
        is_switch: true,
        class: bar_class("AllowTraffic", switch.status),
        after_batch: switch.after_batch,
    }
}

fn hold_stop<'d>(deployment: &'d Deployment, hold: &'d Hold) -> Stop<'d> {
    let by = hold.by.as_ref().map(|by| format!("by {by}"));
    let until = hold.until.as_ref().filter(|_| hold.status == "WAITING");
    let until = until.map(|until| format!("until {}", time(until)));
    let evidence = hold.evidence.iter().map(|one| match &one.threshold {
        Some(threshold) => format!("{} = {} ({threshold})", one.name, one.value),
        None => format!("{} = {}", one.name, one.value),
    });
    let notes = by.into_iter().chain(until).chain(hold.reason.clone());
    Stop {
        name: title_of(hold),
        status: hold.status,
        start: hold.opened_at.as_deref(),
        end: hold.closed_at.as_deref().or(deployment.ended_at.as_deref()),
        note: notes.chain(evidence).collect::<Vec<_>>().join("; "),
        is_switch: false,
        class: hold_class(hold),
        after_batch: Some(hold.after_batch),
    }
}

fn title_of(hold: &Hold) -> String {
    let what = match hold.kind {
        "interval" => "time between batches",
        "promotion" => "wait for promotion",
        "health" => "wait for healthy instances",
        "bake" => "bake",
        kind => kind,
    };
    match &hold.name {
        Some(name) => format!("{what} {name}"),
        None => what.to_owned(),
    }
}

/// Waiting looks like waiting, however it ended; only what did not pass stands out.
fn hold_class(hold: &Hold) -> &'static str {
    match hold.status {
        "FAILED" => "bad",
        "INCONCLUSIVE" => "odd",
        _ => "wait",
    }
}

fn stop_row(view: &View, scale: &Scale, stop: &Stop) -> Markup {
    let span = view.span(stop.start, stop.end);
    row(&Row {
        level: 1,
        id: None,
        status: stop.status,
        name: html! { (stop.name) },
        detail: (!matches!(stop.status, "SUCCEEDED" | "PASSED")).then(|| html! { (stop.status) }),
        lane: html! {
            svg.lane aria-hidden="true" {
                @if let Some(span) = span {
                    (bar(scale, span, stop.class, "", &told(&stop.name, span)))
                    @if stop.is_switch { (marker(scale, span.end, stop.class, &stop.name)) }
                }
            }
        },
        took: span.map(Span::took),
        note: (!stop.note.is_empty()).then(|| stop.note.clone()),
    })
}

fn row(row: &Row) -> Markup {
    // What went well has little to say, and says it beside its name.
    let is_quiet = look(row.status).class == "ok";
    html! {
        div.row.{ "level" (row.level) } id=[row.id.as_deref()] {
            div.label {
                (sign(row.status)) " " (row.name)
                @if is_quiet && let Some(note) = &row.note { " " span.words { (note) } }
                @if let Some(detail) = &row.detail { " " span.detail.(look(row.status).class) { (detail) } }
            }
            (row.lane)
            div.took { @if let Some(took) = &row.took { (took) } }
            @if !is_quiet && let Some(note) = &row.note { div.words.(look(row.status).class) { (note) } }
        }
    }
}

/// A bar with its name in it, where there is room.
fn bar(scale: &Scale, span: Span, class: &str, name: &str, title: &str) -> Markup {
    let (x, width) = scale.place(span);
    // About what a letter takes on a line of usual width.
    let has_room = !name.is_empty() && width > name.chars().count() as f64 * 0.8 + 1.0;
    html! {
        @if has_room {
            svg x=(percent(x)) width=(percent(width)) height="100%" {
                rect.bar.(class) width="100%" { title { (title) } }
                text x="4" y="12" { (name) }
            }
        } @else {
            rect.bar.(class) x=(percent(x)) width=(percent(width.max(LEAST_WIDTH))) { title { (title) } }
        }
    }
}

/// Something that happened at one instant.
fn marker(scale: &Scale, at: i64, class: &str, title: &str) -> Markup {
    html! {
        svg.marker x=(percent(scale.percent(at))) overflow="visible" {
            path.(class) d="M-5 0H5L0 7Z M-.6 6V32H.6V6Z" { title { (title) } }
        }
    }
}

fn step_title(view: &View, step: &Step, span: Span) -> String {
    let attempt = (step.attempt > 1).then(|| format!(" (attempt {})", step.attempt));
    told(
        &format!(
            "{}{} {}",
            step.event,
            attempt.unwrap_or_default(),
            step.standing(view.document)
        ),
        span,
    )
}

fn told(what: &str, span: Span) -> String {
    format!("{what}, {}", span.took())
}

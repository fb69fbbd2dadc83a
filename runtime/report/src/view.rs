//! A document with its instants read: when everything was, the line of time, and what there is room to show in detail.

use crate::document::{Deployment, Document, Instance, Step, Switch};
use crate::scale::{DAY_MS, Scale, Span};

/// The most attempts of steps that are shown one by one.
const MOST_STEPS: usize = 10_000;

/// A document, ready to be drawn.
pub(crate) struct View<'d> {
    pub(crate) document: &'d Document,
    /// Absent where nothing has happened, as in a dry run.
    pub(crate) scale: Option<Scale>,
    /// The end of what has not ended.
    now: i64,
    /// The end of attempts that have not ended. Of a release that nobody drives nothing is known since the last record.
    known: i64,
    /// Of each deployment the instances that are shown in detail, those with trouble first.
    pub(crate) detailed: Vec<Vec<usize>>,
}

impl<'d> View<'d> {
    pub(crate) fn of(document: &'d Document) -> Self {
        let now = instant(document.ended_at.as_deref().or(document.as_of.as_deref()))
            .or_else(|| latest(document))
            .unwrap_or_default();
        let mut view = Self {
            document,
            scale: None,
            now,
            known: match document.status {
                "INTERRUPTED" => latest(document).unwrap_or(now),
                _ => now,
            },
            detailed: detailed(document),
        };
        view.scale = view.line();
        view
    }

    fn line(&self) -> Option<Scale> {
        let document = self.document;
        let deployments = || document.deployments.iter();
        let mut busy: Vec<_> = deployments()
            .flat_map(|deployment| &deployment.instances)
            .flat_map(|instance| &instance.steps)
            .filter_map(|step| self.step(step))
            .collect();
        let switches = deployments().flat_map(|deployment| &deployment.switches);
        busy.extend(switches.filter_map(|switch| self.switch(switch)));
        let release = self.span(document.started_at.as_deref(), document.ended_at.as_deref());
        let of_deployments = deployments().filter_map(|deployment| self.deployment(deployment));
        let whole = Span::around(busy.iter().copied().chain(release).chain(of_deployments))?;
        Some(Scale::of(whole, busy))
    }

    /// From an instant to another, or to the end of what is told.
    pub(crate) fn span(&self, start: Option<&str>, end: Option<&str>) -> Option<Span> {
        Some(Span::new(instant(start)?, instant(end).unwrap_or(self.now)))
    }

    /// When an attempt was made. What was skipped took no time.
    pub(crate) fn step(&self, step: &Step) -> Option<Span> {
        if step.status == "SKIPPED" {
            return None;
        }
        self.attempt(step.started_at.as_deref(), step.ended_at.as_deref())
    }

    pub(crate) fn switch(&self, switch: &Switch) -> Option<Span> {
        self.attempt(switch.started_at.as_deref(), switch.ended_at.as_deref())
    }

    fn attempt(&self, start: Option<&str>, end: Option<&str>) -> Option<Span> {
        let end = instant(end).unwrap_or(self.known);
        Some(Span::new(instant(start)?, end))
    }

    pub(crate) fn instance(&self, instance: &Instance) -> Option<Span> {
        Span::around(instance.steps.iter().filter_map(|step| self.step(step)))
    }

    pub(crate) fn deployment(&self, deployment: &Deployment) -> Option<Span> {
        self.span(
            deployment.started_at.as_deref(),
            deployment.ended_at.as_deref(),
        )
    }

    /// The time of day, with the day where the release takes more than one.
    pub(crate) fn time(&self, text: &str) -> String {
        let is_of_one_day = self.scale.as_ref().is_none_or(|scale| {
            let Span { start, end } = scale.whole();
            start.div_euclid(DAY_MS) == end.div_euclid(DAY_MS)
        });
        match text.split_once('T') {
            Some((day, _)) if !is_of_one_day => format!("{day} {}", time(text)),
            _ => time(text),
        }
    }

    /// How many instances of a deployment are not shown in detail.
    pub(crate) fn left_out(&self, deployment: usize) -> usize {
        let instances = self.document.deployments[deployment].instances.len();
        instances - self.detailed[deployment].len()
    }
}

/// Whether an instance is to be looked at.
pub(crate) fn is_troubled(instance: &Instance) -> bool {
    matches!(instance.outcome, Some("FAILED" | "UNREACHABLE"))
        || instance
            .steps
            .iter()
            .any(|step| matches!(step.status, "FAILED" | "LOST"))
}

fn detailed(document: &Document) -> Vec<Vec<usize>> {
    let all: Vec<_> = document
        .deployments
        .iter()
        .enumerate()
        .flat_map(|(number, deployment)| {
            let instances = deployment.instances.iter().enumerate();
            instances.map(move |(index, instance)| (number, index, instance))
        })
        .collect();
    let mut chosen = vec![Vec::new(); document.deployments.len()];
    let mut left = MOST_STEPS;
    for with_trouble in [true, false] {
        for (number, index, instance) in &all {
            if is_troubled(instance) == with_trouble && instance.steps.len() <= left {
                left -= instance.steps.len();
                chosen[*number].push(*index);
            }
        }
    }
    chosen
}

/// The last instant that anything tells of.
fn latest(document: &Document) -> Option<i64> {
    let deployments = document.deployments.iter();
    let steps = deployments
        .flat_map(|deployment| &deployment.instances)
        .flat_map(|instance| &instance.steps);
    let told = steps.flat_map(|step| [step.started_at.as_deref(), step.ended_at.as_deref()]);
    told.filter_map(instant).max()
}

/// An instant in milliseconds of the Unix epoch.
pub(crate) fn instant(text: Option<&str>) -> Option<i64> {
    let at = text?.parse::<jiff::Timestamp>().ok()?;
    Some(at.as_millisecond())
}

/// An instant for people, with its date: `2026-11-21 12:00:03`.
pub(crate) fn date_time(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(
        |_| text.to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// The time of day: `12:00:03.250`.
pub(crate) fn time(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(
        |_| text.to_owned(),
        |at| at.strftime("%H:%M:%S%.3f").to_string(),
    )
}

//! Live progress: lines for what happened, bars for what is happening.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstream::adapter::strip_str;
use conductor::Observer;
use engine::State;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::{Fact, InstanceId, LifecycleEvent, Record};
use report::{Tone, lines};

use crate::ui::Ui;

/// Up to this many instances every step has a line; beyond it only instances have.
const FEW_INSTANCES: usize = 20;
/// The most bars that are shown at once.
const MOST_BARS: usize = 16;

/// Shows a release as it goes.
pub(crate) struct Progress {
    ui: Ui,
    bars: Option<Bars>,
    /// Output of hooks that is not a whole line yet.
    partial: Mutex<HashMap<InstanceId, Vec<u8>>>,
}

impl Progress {
    pub(crate) fn new(ui: Ui) -> Self {
        Self {
            ui,
            bars: ui.is_live().then(Bars::default),
            partial: Mutex::default(),
        }
    }

    fn print(&self, line: &report::Line) {
        match &self.bars {
            Some(bars) => bars.print(self.ui.styled(line)),
            None => self.ui.progress(line),
        }
    }

    /// Shows the deployments that were open before the first record comes.
    pub(crate) fn opened(&self, state: &State) {
        for deployment in state
            .deployments
            .iter()
            .filter(|deployment| deployment.ended_at.is_none())
        {
            let fact = Fact::DeploymentOpened(deployment.plan.clone());
            self.show(
                state,
                &[Record {
                    seq: 0,
                    at: deployment.started_at,
                    fact,
                }],
            );
        }
    }

    /// Shows records, live or replayed.
    pub(crate) fn show(&self, state: &State, records: &[Record]) {
        let few = state
            .deployments
            .last()
            .is_none_or(|deployment| deployment.instances.len() <= FEW_INSTANCES);
        for record in records {
            let is_step = matches!(
                record.fact,
                Fact::StepEnded { .. } | Fact::StepSkipped { .. }
            );
            for line in lines(state, record) {
                let wanted = match line.tone {
                    Tone::Dim => self.ui.verbose,
                    Tone::Done if is_step => few || self.ui.verbose,
                    _ => true,
                };
                if wanted {
                    self.print(&line);
                }
            }
            if let Some(bars) = &self.bars {
                bars.update(state, record);
            }
        }
    }

    /// Takes the bars off the terminal.
    pub(crate) fn finish(&self) {
        if let Some(bars) = &self.bars {
            bars.clear();
        }
    }
}

impl Observer for Progress {
    fn records(&self, state: &State, records: &[Record]) {
        self.show(state, records);
    }

    fn waiting(&self, instance: &InstanceId, event: LifecycleEvent, what: &str) {
        if let Some(bars) = &self.bars {
            bars.message(instance, format!("{event}: waiting for {what}"));
        }
    }

    fn output(&self, instance: &InstanceId, event: LifecycleEvent, bytes: &[u8]) {
        if !self.ui.verbose {
            return;
        }
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = partial.entry(instance.clone()).or_default();
        rest.extend_from_slice(bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let text: Vec<u8> = rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&text);
            self.print(&report::Line {
                tone: Tone::Dim,
                verb: "output",
                target: format!("{instance} {event}"),
                detail: strip_str(text.trim_end()).to_string(),
            });
        }
    }
}

/// One bar for the deployment, and one for each instance in flight.
#[derive(Default)]
struct Bars {
    multi: MultiProgress,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    deployment: Option<ProgressBar>,
    instances: HashMap<InstanceId, ProgressBar>,
}

impl Bars {
    fn print(&self, line: String) {
        // The terminal is gone: nobody is left to tell.
        let _ = self.multi.println(line);
    }

    fn update(&self, state: &State, record: &Record) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &record.fact {
            Fact::DeploymentOpened(plan) => {
                let bar = self.multi.add(ProgressBar::new(plan.targets.len() as u64));
                if let Ok(style) = ProgressStyle::with_template(
                    "{prefix:>11} [{bar:30}] {pos}/{len} instances  {elapsed}",
                ) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(plan.group.to_string());
                bar.enable_steady_tick(Duration::from_millis(250));
                shown.deployment = Some(bar);
            }
            Fact::StepStarted {
                deployment,
                instance,
                event,
                ..
            } => {
                if shown.instances.len() >= MOST_BARS && !shown.instances.contains_key(instance) {
                    return;
                }
                let Some(plan) = state.find(deployment).map(|deployment| &deployment.plan) else {
                    return;
                };
                let bar = shown.instances.entry(instance.clone()).or_insert_with(|| {
                    let bar = self.multi.add(ProgressBar::new(plan.sequence.len() as u64));
                    if let Ok(style) =
                        ProgressStyle::with_template("{prefix:>11} [{bar:30}] {msg}  {elapsed}")
                    {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.set_prefix(instance.to_string());
                    bar.enable_steady_tick(Duration::from_millis(250));
                    bar
                });
                let position = plan
                    .sequence
                    .iter()
                    .position(|planned| planned == event)
                    .unwrap_or(0);
                bar.set_position(position as u64);
                bar.set_message(event.name());
            }
            Fact::InstanceEnded { instance, .. } => {
                if let Some(bar) = shown.instances.remove(instance) {
                    bar.finish_and_clear();
                }
                if let Some(bar) = &shown.deployment {
                    bar.inc(1);
                }
            }
            Fact::DeploymentEnded { .. } => {
                if let Some(bar) = shown.deployment.take() {
                    bar.finish_and_clear();
                }
            }
            Fact::ReleaseOpened(_)
            | Fact::StepEnded { .. }
            | Fact::StepSkipped { .. }
            | Fact::StatusChanged { .. }
            | Fact::ReleaseEnded { .. } => {}
        }
    }

    fn message(&self, instance: &InstanceId, message: String) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = shown.instances.get(instance) {
            bar.set_message(message);
        }
    }

    fn clear(&self) {
        // As in `print`.
        let _ = self.multi.clear();
    }
}

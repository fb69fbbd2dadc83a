//! Live progress: lines for what happened, bars for what is happening.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use conductor::Observer;
use engine::State;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::{DeploymentId, Fact, InstanceId, LifecycleEvent, Record};
use report::{Line, Tone, lines, target_width};

use crate::ui::Ui;

/// Up to this many instances every step has a line; beyond it only instances have.
const FEW_INSTANCES: usize = 20;
/// The most bars that are shown at once.
const MOST_BARS: usize = 16;
/// The longest line of output that is held back until its end comes.
const LONGEST_LINE: usize = 16 << 10;
/// A step that waits longer than this for something outside says so, where no bar does.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// Shows a release as it goes.
pub(crate) struct Progress {
    ui: Ui,
    bars: Option<Bars>,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    /// The column that targets are padded to.
    width: usize,
    /// Output of hooks that is not a whole line yet.
    partial: HashMap<InstanceId, Vec<u8>>,
    /// What each instance in flight waits for. A step leaves it when it ends.
    waits: HashMap<InstanceId, Wait>,
    /// What each deployment waits for: the switch of its traffic, or a gate.
    holds: HashMap<DeploymentId, Held>,
}

struct Held {
    since: Instant,
    what: String,
    is_told: bool,
}

struct Wait {
    event: LifecycleEvent,
    since: Instant,
    what: String,
    is_told: bool,
}

impl Progress {
    pub(crate) fn new(ui: Ui) -> Self {
        Self {
            ui,
            bars: ui.is_live().then(Bars::default),
            lines: Mutex::default(),
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print(&self, line: &Line, width: usize) {
        match &self.bars {
            Some(bars) => bars.print(self.ui.progress_text(line, width)),
            None => self.ui.progress(line, width),
        }
    }

    /// Tells, once a step, what has been waited for too long to be silent about it.
    pub(crate) fn tell_long_waits(&self) {
        if self.bars.is_some() {
            return;
        }
        let mut lines = self.lines();
        let width = lines.width;
        for (instance, wait) in &mut lines.waits {
            if !wait.is_told && wait.since.elapsed() >= LONG_WAIT {
                wait.is_told = true;
                let line = Line {
                    tone: Tone::Attention,
                    verb: "waiting",
                    target: format!("{instance} {}", wait.event),
                    detail: format!("for {}", wait.what),
                    took: None,
                };
                self.print(&line, width);
            }
        }
        for (deployment, held) in &mut lines.holds {
            if !held.is_told && held.since.elapsed() >= LONG_WAIT {
                held.is_told = true;
                let line = Line {
                    tone: Tone::Attention,
                    verb: "waiting",
                    target: deployment.to_string(),
                    detail: format!("for {}", held.what),
                    took: None,
                };
                self.print(&line, width);
            }
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
                    at: deployment.started_at.unwrap_or(state.opened_at),
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
            let width = self.note(record);
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
                    self.print(&line, width);
                }
            }
            if let Some(bars) = &self.bars {
                bars.update(state, record);
            }
        }
    }

    /// Takes from a record what later lines depend on, and tells the width of targets.
    fn note(&self, record: &Record) -> usize {
        let mut lines = self.lines();
        match &record.fact {
            Fact::DeploymentOpened(plan) => lines.width = target_width(plan),
            Fact::StepEnded {
                instance, event, ..
            } => {
                lines.waits.remove(instance);
                let (rest, width) = (lines.partial.remove(instance), lines.width);
                drop(lines);
                if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                    self.print_output(instance, event.name(), &rest, width);
                }
                return width;
            }
            Fact::SwitchEnded { deployment, .. } => {
                lines.holds.remove(deployment);
                let (rest, width) = (std::mem::take(&mut lines.partial), lines.width);
                drop(lines);
                for (instance, rest) in rest.iter().filter(|(_, rest)| !rest.is_empty()) {
                    self.print_output(instance, "SwitchTraffic", rest, width);
                }
                return width;
            }
            _ => {}
        }
        if let Fact::HoldClosed { deployment, .. } = &record.fact {
            lines.holds.remove(deployment);
        }
        lines.width
    }

    fn print_output(&self, instance: &InstanceId, stage: &str, bytes: &[u8], width: usize) {
        let text = String::from_utf8_lossy(bytes);
        let line = Line {
            tone: Tone::Dim,
            verb: "output",
            target: format!("{instance} {stage}"),
            detail: strip_str(text.trim_end()).to_string(),
            took: None,
        };
        self.print(&line, width);
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
            return;
        }
        let mut lines = self.lines();
        let wait = lines.waits.entry(instance.clone()).or_insert_with(|| Wait {
            event,
            since: Instant::now(),
            what: String::new(),
            is_told: false,
        });
        what.clone_into(&mut wait.what);
    }

    fn holding(&self, deployment: &DeploymentId, what: &str) {
        if let Some(bars) = &self.bars {
            bars.hold(what);
            return;
        }
        let mut lines = self.lines();
        let held = lines
            .holds
            .entry(deployment.clone())
            .or_insert_with(|| Held {
                since: Instant::now(),
                what: String::new(),
                is_told: false,
            });
        what.clone_into(&mut held.what);
    }

    fn output(&self, instance: &InstanceId, stage: &'static str, bytes: &[u8]) {
        if !self.ui.verbose {
            return;
        }
        let mut lines = self.lines();
        let width = lines.width;
        let rest = lines.partial.entry(instance.clone()).or_default();
        rest.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            whole.push(rest.drain(..=end).collect::<Vec<_>>());
        }
        // A line without an end must not fill the memory.
        if rest.len() > LONGEST_LINE {
            whole.push(std::mem::take(rest));
        }
        drop(lines);
        for bytes in whole {
            self.print_output(instance, stage, &bytes, width);
        }
    }
}

/// One bar for the deployment, one for its batch, and one for each instance in flight.
#[derive(Default)]
struct Bars {
    multi: MultiProgress,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    deployment: Option<ProgressBar>,
    batch: Option<ProgressBar>,
    instances: HashMap<InstanceId, ProgressBar>,
}

impl Bars {
    fn print(&self, line: String) {
        // The terminal is gone: nobody is left to tell.
        let _ = self.multi.println(line);
    }

    /// Says beside the deployment's bar what it waits for.
    fn hold(&self, what: &str) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = &shown.deployment {
            bar.set_message(if what.is_empty() {
                String::new()
            } else {
                format!("waiting for {what}")
            });
        }
    }

    fn update(&self, state: &State, record: &Record) {
        if let Fact::SwitchEnded { .. } | Fact::HoldClosed { .. } = &record.fact {
            self.hold("");
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &record.fact {
            Fact::DeploymentOpened(plan) => {
                let bar = self.multi.add(ProgressBar::new(plan.targets.len() as u64));
                if let Ok(style) = ProgressStyle::with_template(
                    "{prefix:>11} [{bar:30}] {pos}/{len} instances  {elapsed}  {msg}",
                ) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(plan.group.to_string());
                bar.enable_steady_tick(Duration::from_millis(250));
                let batch = self.multi.add(ProgressBar::no_length());
                if let Ok(style) =
                    ProgressStyle::with_template("{prefix:>11} [{bar:30}] {pos}/{len} instances")
                {
                    batch.set_style(style.progress_chars("=> "));
                }
                show_batch(&batch, plan, bar.position());
                shown.deployment = Some(bar);
                shown.batch = Some(batch);
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
            Fact::InstanceEnded {
                instance,
                deployment,
                ..
            } => {
                if let Some(bar) = shown.instances.remove(instance) {
                    bar.finish_and_clear();
                }
                if let Some(bar) = &shown.deployment {
                    bar.inc(1);
                    if let (Some(batch), Some(state)) = (&shown.batch, state.find(deployment)) {
                        show_batch(batch, &state.plan, bar.position());
                    }
                }
            }
            Fact::DeploymentEnded { .. } => {
                for bar in [shown.batch.take(), shown.deployment.take()]
                    .into_iter()
                    .flatten()
                {
                    bar.finish_and_clear();
                }
            }
            Fact::ReleaseOpened(_)
            | Fact::StepEnded { .. }
            | Fact::StepSkipped { .. }
            | Fact::SwitchStarted { .. }
            | Fact::SwitchEnded { .. }
            | Fact::SwitchSkipped { .. }
            | Fact::HoldOpened { .. }
            | Fact::HoldClosed { .. }
            | Fact::HealthObserved { .. }
            | Fact::Ordered { .. }
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

/// Sets a bar to the batch that is under way when so many instances have ended.
fn show_batch(bar: &ProgressBar, plan: &model::Deployment, ended: u64) {
    let sizes = plan.batching.sizes(plan.targets.len());
    let mut first = 0;
    for (number, size) in (1..).zip(&sizes) {
        let size = *size as u64;
        // After the last instance the last batch stays, full.
        if ended < first + size || number == sizes.len() {
            bar.set_prefix(format!("batch {number}/{}", sizes.len()));
            bar.set_length(size);
            bar.set_position(ended - first);
            return;
        }
        first += size;
    }
}

//! Live progress: lines for what happened, bars for what is happening.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use conductor::{Observer, Place};
use engine::State;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::{DeploymentId, Fact, LifecycleEvent, Record, Scope};
use report::{Line, Tone, lines, service_prefix, target_width};

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
    /// What lines call the instances of each deployment, where a release has several: the name in front of theirs.
    prefixes: HashMap<DeploymentId, String>,
    /// Output of hooks that is not a whole line yet.
    partial: HashMap<Place, Vec<u8>>,
    /// What each instance in flight waits for. A step leaves it when it ends.
    waits: HashMap<Place, Wait>,
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

impl Lines {
    fn name_of(&self, place: &Place) -> String {
        let prefix = self.prefixes.get(&place.deployment);
        format!("{}{}", prefix.map_or("", String::as_str), place.instance)
    }
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
        let mut long = Vec::new();
        for (place, wait) in &mut lines.waits {
            if !wait.is_told && wait.since.elapsed() >= LONG_WAIT {
                wait.is_told = true;
                long.push((place.clone(), wait.event, format!("for {}", wait.what)));
            }
        }
        for (place, event, detail) in long {
            let line = Line {
                tone: Tone::Attention,
                verb: "waiting",
                target: format!("{} {event}", lines.name_of(&place)),
                detail,
                took: None,
            };
            self.print(&line, width);
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
        let mut instances = state.deployments.iter().map(|one| one.instances.len());
        let few = match state.release.scope {
            Scope::Service => instances
                .next_back()
                .is_none_or(|many| many <= FEW_INSTANCES),
            Scope::Plan => instances.sum::<usize>() <= FEW_INSTANCES,
        };
        for record in records {
            let width = self.note(state, record);
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
    fn note(&self, state: &State, record: &Record) -> usize {
        let mut lines = self.lines();
        match &record.fact {
            Fact::DeploymentOpened(plan) => {
                let prefix = service_prefix(state, plan);
                let width = target_width(plan) + prefix.chars().count();
                lines.width = match state.release.scope {
                    Scope::Service => width,
                    Scope::Plan => width.max(lines.width),
                };
                lines.prefixes.insert(plan.id.clone(), prefix);
            }
            Fact::StepEnded {
                deployment,
                instance,
                event,
                ..
            } => {
                let place = Place {
                    deployment: deployment.clone(),
                    instance: instance.clone(),
                };
                lines.waits.remove(&place);
                let (rest, width) = (lines.partial.remove(&place), lines.width);
                let name = lines.name_of(&place);
                drop(lines);
                if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                    self.print_output(&name, event.name(), &rest, width);
                }
                return width;
            }
            Fact::SwitchEnded { deployment, .. } => {
                lines.holds.remove(deployment);
                let is_its = |place: &Place| place.deployment == *deployment;
                let partial = std::mem::take(&mut lines.partial);
                let (ended, others) = partial.into_iter().partition(|(place, _)| is_its(place));
                lines.partial = others;
                let ended: HashMap<Place, Vec<u8>> = ended;
                let names: Vec<_> = ended
                    .into_iter()
                    .filter(|(_, rest)| !rest.is_empty())
                    .map(|(place, rest)| (lines.name_of(&place), rest))
                    .collect();
                let width = lines.width;
                drop(lines);
                for (name, rest) in names {
                    self.print_output(&name, "SwitchTraffic", &rest, width);
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

    fn print_output(&self, name: &str, stage: &str, bytes: &[u8], width: usize) {
        let text = String::from_utf8_lossy(bytes);
        let line = Line {
            tone: Tone::Dim,
            verb: "output",
            target: format!("{name} {stage}"),
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

    fn waiting(&self, place: &Place, event: LifecycleEvent, what: &str) {
        if let Some(bars) = &self.bars {
            bars.message(place, format!("{event}: waiting for {what}"));
            return;
        }
        let mut lines = self.lines();
        let wait = lines.waits.entry(place.clone()).or_insert_with(|| Wait {
            event,
            since: Instant::now(),
            what: String::new(),
            is_told: false,
        });
        what.clone_into(&mut wait.what);
    }

    fn holding(&self, deployment: &DeploymentId, what: &str) {
        if let Some(bars) = &self.bars {
            bars.hold(deployment, what);
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

    fn output(&self, place: &Place, stage: &'static str, bytes: &[u8]) {
        if !self.ui.verbose {
            return;
        }
        let mut lines = self.lines();
        let width = lines.width;
        let name = lines.name_of(place);
        let rest = lines.partial.entry(place.clone()).or_default();
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
            self.print_output(&name, stage, &bytes, width);
        }
    }
}

/// One bar for each deployment that has begun, one for its batch, and one for each instance in flight.
#[derive(Default)]
struct Bars {
    multi: MultiProgress,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    deployments: HashMap<DeploymentId, DeploymentBars>,
    instances: HashMap<Place, ProgressBar>,
}

struct DeploymentBars {
    whole: ProgressBar,
    batch: ProgressBar,
}

impl Bars {
    fn print(&self, line: String) {
        // The terminal is gone: nobody is left to tell.
        let _ = self.multi.println(line);
    }

    /// Says beside the deployment's bar what it waits for.
    fn hold(&self, deployment: &DeploymentId, what: &str) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bars) = shown.deployments.get(deployment) {
            bars.whole.set_message(if what.is_empty() {
                String::new()
            } else {
                format!("waiting for {what}")
            });
        }
    }

    fn update(&self, state: &State, record: &Record) {
        if let Fact::SwitchEnded { deployment, .. } | Fact::HoldClosed { deployment, .. } =
            &record.fact
        {
            self.hold(deployment, "");
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &record.fact {
            Fact::DeploymentOpened(plan) => {
                let whole = self.multi.add(ProgressBar::new(plan.targets.len() as u64));
                if let Ok(style) = ProgressStyle::with_template(
                    "{prefix:>11} [{bar:30}] {pos}/{len} instances  {elapsed}  {msg}",
                ) {
                    whole.set_style(style.progress_chars("=> "));
                }
                whole.set_prefix(plan.group.to_string());
                whole.enable_steady_tick(Duration::from_millis(250));
                let batch = self.multi.add(ProgressBar::no_length());
                if let Ok(style) =
                    ProgressStyle::with_template("{prefix:>11} [{bar:30}] {pos}/{len} instances")
                {
                    batch.set_style(style.progress_chars("=> "));
                }
                show_batch(&batch, plan, whole.position());
                let bars = DeploymentBars { whole, batch };
                shown.deployments.insert(plan.id.clone(), bars);
            }
            Fact::StepStarted {
                deployment,
                instance,
                event,
                ..
            } => {
                let place = Place {
                    deployment: deployment.clone(),
                    instance: instance.clone(),
                };
                if shown.instances.len() >= MOST_BARS && !shown.instances.contains_key(&place) {
                    return;
                }
                let Some(plan) = state.find(deployment).map(|deployment| &deployment.plan) else {
                    return;
                };
                let bar = shown.instances.entry(place).or_insert_with(|| {
                    let bar = self.multi.add(ProgressBar::new(plan.sequence.len() as u64));
                    if let Ok(style) =
                        ProgressStyle::with_template("{prefix:>11} [{bar:30}] {msg}  {elapsed}")
                    {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.set_prefix(format!("{}{instance}", service_prefix(state, plan)));
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
                let place = Place {
                    deployment: deployment.clone(),
                    instance: instance.clone(),
                };
                if let Some(bar) = shown.instances.remove(&place) {
                    bar.finish_and_clear();
                }
                if let Some(bars) = shown.deployments.get(deployment) {
                    bars.whole.inc(1);
                    if let Some(state) = state.find(deployment) {
                        show_batch(&bars.batch, &state.plan, bars.whole.position());
                    }
                }
            }
            Fact::DeploymentEnded { deployment, .. } => {
                if let Some(bars) = shown.deployments.remove(deployment) {
                    bars.batch.finish_and_clear();
                    bars.whole.finish_and_clear();
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

    fn message(&self, place: &Place, message: String) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = shown.instances.get(place) {
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

//! `cutover:plugin/progress`: the status line of a step. It never blocks: what comes too fast is replaced by what
//! comes later.

use std::sync::Arc;
use std::time::Duration;

use model::PluginName;
use tokio::time::Instant;

use crate::bindings::cutover::plugin::progress;
use crate::call::State;
use crate::limits;
use crate::plugin::Shared;
use crate::text;

/// A plugin's word about how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub plugin: PluginName,
    pub run_id: String,
    pub step_id: String,
    pub message: String,
    /// 0 to 100, if known.
    pub percent: Option<u8>,
}

/// The shortest time between two lines of one call.
const INTERVAL: Duration = Duration::from_millis(100);

/// Passes on the first and the last line of a call, and not too many in between.
pub(crate) struct Throttle {
    plugin: Arc<Shared>,
    run_id: String,
    step_id: String,
    last: Option<Instant>,
    held: Option<Progress>,
}

impl Throttle {
    pub(crate) fn new(plugin: &Arc<Shared>, run_id: &str, step_id: &str) -> Self {
        Self {
            plugin: Arc::clone(plugin),
            run_id: run_id.to_owned(),
            step_id: step_id.to_owned(),
            last: None,
            held: None,
        }
    }

    fn report(&mut self, message: &str, percent: Option<u8>) {
        if self.plugin.progress.is_none() {
            return;
        }
        let now = Instant::now();
        if self
            .last
            .is_none_or(|last| now.duration_since(last) >= INTERVAL)
        {
            self.last = Some(now);
            self.held = None;
            self.send(self.line(message, percent));
        } else {
            self.held = Some(self.line(message, percent));
        }
    }

    fn line(&self, message: &str, percent: Option<u8>) -> Progress {
        Progress {
            plugin: self.plugin.name.clone(),
            run_id: self.run_id.clone(),
            step_id: self.step_id.clone(),
            message: text::line(message, limits::MESSAGE, &self.plugin.secrets),
            percent: percent.map(|percent| percent.min(100)),
        }
    }

    fn send(&self, progress: Progress) {
        if let Some(sink) = &self.plugin.progress {
            // A full channel means that nobody can read that fast; the next line says more anyway.
            let _ = sink.try_send(progress);
        }
    }

    /// Passes on the line that was held back, at the end of the call.
    pub(crate) fn flush(&self) {
        if let Some(held) = &self.held {
            self.send(held.clone());
        }
    }
}

impl progress::Host for State {
    fn report(&mut self, message: String, percent: Option<u8>) -> wasmtime::Result<()> {
        self.progress.report(&message, percent);
        Ok(())
    }
}

//! `cutover:plugin/logging`: a plugin's log lines, with its name on them, bounded and redacted.

use std::fmt::Write as _;
use std::sync::PoisonError;

use crate::bindings::cutover::plugin::logging::{self, Level};
use crate::bindings::cutover::plugin::types::Attribute;
use crate::call::State;
use crate::limits;
use crate::text;

impl logging::Host for State {
    fn log(
        &mut self,
        level: Level,
        message: String,
        fields: Vec<Attribute>,
    ) -> wasmtime::Result<()> {
        if !is_enabled(level) && level == Level::Trace {
            return Ok(());
        }
        let secrets = &self.plugin.secrets;
        let mut line = text::line(&message, limits::MESSAGE, secrets);
        for field in fields.iter().take(limits::ATTRIBUTES) {
            let key = text::line(&field.key, limits::NAME, secrets);
            let value = text::line(&field.value, limits::MESSAGE, secrets);
            // Writing to a `String` cannot fail.
            let _ = write!(line, " {key}={value:?}");
        }
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if output.take(&format!("{} {line}\n", name(level))) {
            if let (Some(target), Level::Info | Level::Warn | Level::Error) = (&self.target, level)
            {
                target.note(&format!("{} {line}", name(level)));
            }
            let (plugin, run, step) = (&self.plugin.name, &self.run_id, &self.step_id);
            match level {
                Level::Trace => tracing::trace!(target: TARGET, %plugin, %run, %step, "{line}"),
                Level::Debug => tracing::debug!(target: TARGET, %plugin, %run, %step, "{line}"),
                Level::Info => tracing::info!(target: TARGET, %plugin, %run, %step, "{line}"),
                Level::Warn => tracing::warn!(target: TARGET, %plugin, %run, %step, "{line}"),
                Level::Error => tracing::error!(target: TARGET, %plugin, %run, %step, "{line}"),
            }
        }
        Ok(())
    }

    fn enabled(&mut self, level: Level) -> wasmtime::Result<bool> {
        Ok(is_enabled(level))
    }
}

/// The tracing target of everything that plugins say.
pub(crate) const TARGET: &str = "cutover::plugin";

/// Errors and warnings always count: a failure carries the last lines even where no log is kept.
fn is_enabled(level: Level) -> bool {
    match level {
        Level::Trace => tracing::enabled!(target: TARGET, tracing::Level::TRACE),
        Level::Debug => tracing::enabled!(target: TARGET, tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(target: TARGET, tracing::Level::INFO),
        Level::Warn | Level::Error => true,
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    }
}

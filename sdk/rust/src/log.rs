//! Log lines to the host, which adds the plugin, the run and the step and redacts secrets.

use crate::Attribute;
pub use crate::bindings::host::cutover::plugin::logging::Level;

/// Writes a log line with fields. The macros ([`info!`](crate::info) and its siblings) are shorter where there are none.
///
/// Natively, in unit tests, the line goes to stderr.
///
/// ```
/// use cutover_plugin_sdk::{Level, log};
///
/// log(Level::Info, "server is drained", &[("server", "web-1"), ("elapsed_ms", "120")]);
/// ```
pub fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
    let fields: Vec<Attribute> = fields
        .iter()
        .map(|&(key, value)| Attribute {
            key: key.to_owned(),
            value: value.to_owned(),
        })
        .collect();
    write(level, message, &fields);
}

/// Whether a line of this level goes anywhere.
#[must_use]
pub fn enabled(level: Level) -> bool {
    is_enabled(level)
}

#[cfg(target_family = "wasm")]
fn write(level: Level, message: &str, fields: &[Attribute]) {
    crate::bindings::host::cutover::plugin::logging::log(level, message, fields);
}

#[cfg(target_family = "wasm")]
fn is_enabled(level: Level) -> bool {
    crate::bindings::host::cutover::plugin::logging::enabled(level)
}

#[cfg(not(target_family = "wasm"))]
#[expect(clippy::print_stderr, reason = "a unit test has no host to log to")]
fn write(level: Level, message: &str, fields: &[Attribute]) {
    eprintln!("{level:?} {message} {fields:?}");
}

#[cfg(not(target_family = "wasm"))]
fn is_enabled(_level: Level) -> bool {
    true
}

/// Logs a branch that was taken. See [`info!`](crate::info).
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => {
        if $crate::enabled($crate::Level::Debug) {
            $crate::log($crate::Level::Debug, &::std::format!($($message)+), &[]);
        }
    };
}

/// Logs a change of state.
///
/// ```
/// cutover_plugin_sdk::info!("server `{}` is ready", "web-1");
/// ```
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => {
        if $crate::enabled($crate::Level::Info) {
            $crate::log($crate::Level::Info, &::std::format!($($message)+), &[]);
        }
    };
}

/// Logs what is odd but was coped with. See [`info!`](crate::info).
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => {
        if $crate::enabled($crate::Level::Warn) {
            $crate::log($crate::Level::Warn, &::std::format!($($message)+), &[]);
        }
    };
}

//! What every plugin is: something with a configuration.

use serde::de::DeserializeOwned;

use crate::bindings::guest::exports::cutover::plugin::guest;
use crate::config::parse;
use crate::{Diagnostic, Failure, panic_message};

/// The part that every plugin has.
///
/// ```
/// use cutover_plugin_sdk::{Diagnostic, Plugin};
/// use serde::Deserialize;
///
/// struct Balancer;
///
/// #[derive(Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     backend: String,
/// }
///
/// impl Plugin for Balancer {
///     type Config = Config;
///
///     fn check(config: &Config) -> Vec<Diagnostic> {
///         match config.backend.as_str() {
///             "" => vec![Diagnostic::error("/backend", "name a backend")],
///             _ => Vec::new(),
///         }
///     }
/// }
/// ```
pub trait Plugin: 'static {
    /// The configuration that an operator writes. Use `deny_unknown_fields`, so that a misspelt key is found.
    type Config: DeserializeOwned;

    /// Checks a configuration beyond what its type says. Nothing is granted during this call.
    fn check(_config: &Self::Config) -> Vec<Diagnostic> {
        Vec::new()
    }
}

impl<T: Plugin> guest::Guest for T {
    fn validate_config(text: String) -> Result<Vec<Diagnostic>, Failure> {
        panic_message::send_to_host();
        Ok(match parse::<T::Config>(&text) {
            Ok(config) => T::check(&config),
            Err(error) => vec![Diagnostic::error(&error.pointer, &error.message)],
        })
    }
}

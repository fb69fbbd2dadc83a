//! Reading the plugin's configuration, with errors that name the key.

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::bindings::host::cutover::plugin::config as host;
use crate::{Diagnostic, Failure, Severity};

/// Reads the configuration that the operator gave the plugin.
///
/// # Errors
/// `invalid` with the key and what was expected, when the configuration does not have the type's shape.
///
/// ```no_run
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Config {
///     backend: String,
/// }
///
/// # fn main() -> Result<(), cutover_plugin_sdk::Failure> {
/// let config: Config = cutover_plugin_sdk::config()?;
/// cutover_plugin_sdk::info!("backend is `{}`", config.backend);
/// # Ok(())
/// # }
/// ```
pub fn config<T: DeserializeOwned>() -> Result<T, Failure> {
    parse_config(&host::get())
}

/// Reads a configuration from its JSON text. An empty text is an empty object.
///
/// # Errors
/// As [`config()`].
///
/// ```
/// #[derive(serde::Deserialize, Debug)]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     backend: String,
/// }
///
/// let failure = cutover_plugin_sdk::parse_config::<Config>(r#"{"backend": 7}"#).unwrap_err();
/// assert_eq!(failure.message, "config key `backend`: invalid type: integer `7`, expected a string");
/// ```
pub fn parse_config<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    parse(text).map_err(|error| {
        let place = if error.key.is_empty() {
            "config".to_owned()
        } else {
            format!("config key `{}`", error.key)
        };
        Failure::invalid("plugin.config", format!("{place}: {}", error.message))
    })
}

/// A configuration that has not the expected shape.
pub(crate) struct Mismatch {
    /// The key as an operator would write it, for example `mirrors[1].url`.
    key: String,
    /// The same as a JSON pointer.
    pub(crate) pointer: String,
    pub(crate) message: String,
}

pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Mismatch> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let mut pointer = String::new();
        for segment in error.path() {
            pointer.push('/');
            match segment {
                Segment::Seq { index } => pointer.push_str(&index.to_string()),
                Segment::Map { key } => {
                    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                }
                Segment::Enum { variant } => pointer.push_str(variant),
                Segment::Unknown => pointer.push('?'),
            }
        }
        let key = if pointer.is_empty() {
            String::new()
        } else {
            error.path().to_string()
        };
        Mismatch {
            key,
            pointer,
            message: without_position(&error.into_inner().to_string()),
        }
    })
}

/// The position is one in JSON that the host made; the operator wrote YAML.
fn without_position(message: &str) -> String {
    match message.rsplit_once(" at line ") {
        Some((text, position))
            if position
                .bytes()
                .all(|b| b.is_ascii_digit() || b" column".contains(&b)) =>
        {
            text.to_owned()
        }
        _ => message.to_owned(),
    }
}

impl Diagnostic {
    /// Makes a finding that keeps the configuration from being used.
    #[must_use]
    pub fn error(path: &str, message: &str) -> Self {
        Self {
            severity: Severity::Error,
            path: path.to_owned(),
            message: message.to_owned(),
        }
    }

    /// Makes a finding that an operator should know about.
    #[must_use]
    pub fn warning(path: &str, message: &str) -> Self {
        Self {
            severity: Severity::Warning,
            path: path.to_owned(),
            message: message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[serde(rename = "socket")]
        _socket: String,
        #[serde(default, rename = "mirrors")]
        _mirrors: Vec<Mirror>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Mirror {
        #[serde(rename = "url")]
        _url: String,
    }

    fn check(text: &str, pointer: &str, message: &str) {
        let mismatch = parse::<Example>(text).unwrap_err();

        assert_eq!(
            (mismatch.pointer.as_str(), mismatch.message.as_str()),
            (pointer, message)
        );
    }

    #[test]
    fn names_the_key_and_what_was_expected() {
        check(
            r#"{"socket": 5}"#,
            "/socket",
            "invalid type: integer `5`, expected a string",
        );
        check(
            r#"{"socket": "x", "mirrors": [{"url": "a"}, {"url": []}]}"#,
            "/mirrors/1/url",
            "invalid type: sequence, expected a string",
        );
    }

    #[test]
    fn names_missing_and_unknown_keys() {
        check("", "", "missing field `socket`");
        check(
            r#"{"socket": "x", "backnd": ""}"#,
            "/backnd",
            "unknown field `backnd`, expected `socket` or `mirrors`",
        );
    }
}

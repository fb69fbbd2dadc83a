//! Durations as operators write them.

use std::fmt;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// Reads a duration: `500ms`, `30s`, `5m`, `1h`, or a number of seconds. The key may be an `Option`.
///
/// ```
/// use std::time::Duration;
///
/// #[derive(serde::Deserialize)]
/// struct Config {
///     #[serde(deserialize_with = "cutover_plugin_sdk::duration")]
///     interval: Duration,
///     #[serde(default, deserialize_with = "cutover_plugin_sdk::duration")]
///     longest: Option<Duration>,
/// }
///
/// let config: Config = cutover_plugin_sdk::parse_config(r#"{"interval": "5m"}"#)?;
/// assert_eq!(config.interval, Duration::from_secs(300));
/// assert_eq!(config.longest, None);
/// # Ok::<(), cutover_plugin_sdk::Failure>(())
/// ```
///
/// # Errors
/// Those of the deserializer, with what was expected.
pub fn duration<'de, D: Deserializer<'de>, T: From<Duration>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(Reader).map(T::from)
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like `500ms`, `30s`, `5m` or `1h`")
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Duration, E> {
        Ok(Duration::from_secs(seconds))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", Some(Duration::from_secs(30))),
            ("5m", Some(Duration::from_secs(300))),
            ("1h", Some(Duration::from_secs(3600))),
            ("30", None),
            ("-1s", None),
            ("1.5s", None),
            ("", None),
            ("s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}

//! Durations as files write them: `500ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

/// The longest duration. It keeps every deadline within what a clock can represent.
pub const MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    #[error(
        "`{text}` is not a duration: write a whole number and `ms`, `s`, `m` or `h`, for example `30s`"
    )]
    Malformed { text: String },
    #[error("`{text}` is longer than 366 days")]
    TooLong { text: String },
}

/// Reads a duration.
///
/// # Errors
/// [`InvalidDuration`] unless the text is a whole number followed at once by `ms`, `s`, `m` or `h`.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => {
            return Err(InvalidDuration::Malformed {
                text: text.to_owned(),
            });
        }
    };
    if number.is_empty() {
        return Err(InvalidDuration::Malformed {
            text: text.to_owned(),
        });
    }
    let duration = number
        .parse()
        .ok()
        .and_then(|count: u64| count.checked_mul(milliseconds));
    match duration.map(Duration::from_millis) {
        Some(duration) if duration <= MAX => Ok(duration),
        _ => Err(InvalidDuration::TooLong {
            text: text.to_owned(),
        }),
    }
}

/// Writes a duration in the largest unit that loses nothing above a millisecond.
#[must_use]
pub fn print(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if milliseconds > 0 && milliseconds.is_multiple_of(unit) {
            return format!("{}{name}", milliseconds / unit);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_unit() {
        let cases = [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ];

        for (text, milliseconds) in cases {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "5d", "5S", "5s5", "٣s"] {
            assert!(
                matches!(parse(text), Err(InvalidDuration::Malformed { .. })),
                "{text}"
            );
        }
        for text in ["8785h", "99999999999999999999s"] {
            assert!(
                matches!(parse(text), Err(InvalidDuration::TooLong { .. })),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(milliseconds in 0u64..=31_622_400_000) {
            let duration = Duration::from_millis(milliseconds);

            prop_assert_eq!(parse(&print(duration)), Ok(duration));
        }
    }
}

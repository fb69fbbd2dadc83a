//! Sizes as files write them: `500MB`, `2GiB`, or a number of bytes.

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    #[error(
        "`{text}` is not a size: write a whole number, and `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` or `TB`, for example `2GiB`"
    )]
    Malformed { text: String },
    #[error("`{text}` is more than can be counted")]
    TooLarge { text: String },
}

/// Reads a size in bytes.
///
/// # Errors
/// [`InvalidSize`] unless the text is a whole number with at most a unit behind it.
pub fn parse(text: &str) -> Result<u64, InvalidSize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let malformed = || InvalidSize::Malformed {
        text: text.to_owned(),
    };
    let factor: u64 = match unit.trim_start_matches(' ') {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(malformed()),
    };
    if number.is_empty() {
        return Err(malformed());
    }
    let size = number
        .parse()
        .ok()
        .and_then(|count: u64| count.checked_mul(factor));
    size.filter(|size| i64::try_from(*size).is_ok())
        .ok_or_else(|| InvalidSize::TooLarge {
            text: text.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, size) in [
            ("0", 0),
            ("512", 512),
            ("10B", 10),
            ("2GiB", 2 << 30),
            ("2 GiB", 2 << 30),
            ("500MB", 500_000_000),
            ("1kB", 1000),
        ] {
            assert_eq!(parse(text), Ok(size), "{text}");
        }
        for text in [
            "",
            "GiB",
            "2G",
            "2gib",
            "1.5GiB",
            "-1",
            "99999999TiB",
            "18446744073709551615",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

//! The file that says how traffic is split: `SIDE PERCENT` a line.

use cutover_plugin_sdk::{Failure, Share, Side, percent_of};

/// Reads the shares of the sides. A file that is empty, or only names others, says that no side is live; the error is the
/// number of the line that is none.
pub(crate) fn parse(text: &str, sides: &[Side]) -> Result<Vec<Share>, usize> {
    let mut shares: Vec<Share> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (side, percent) = line.split_once(char::is_whitespace).ok_or(index + 1)?;
        let percent = percent.trim().parse().map_err(|_| index + 1)?;
        if percent > 100 || shares.iter().any(|share| share.side == side) {
            return Err(index + 1);
        }
        shares.push(Share {
            side: side.to_owned(),
            percent,
        });
    }
    shares.retain(|share| sides.iter().any(|side| side.name == share.side));
    Ok(shares)
}

/// The file for these shares, with every side in the order in which they were named.
pub(crate) fn text(sides: &[Side], shares: &[Share]) -> String {
    sides
        .iter()
        .map(|side| format!("{} {}\n", side.name, percent_of(shares, &side.name)))
        .collect()
}

/// The content of a file on one line.
pub(crate) fn revision(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.trim().replace(char::is_control, " "))
        .collect();
    lines.join(", ")
}

/// Whether the file may be written over.
pub(crate) fn check_present(
    present: &str,
    expected: Option<&str>,
    wanted: &str,
) -> Result<(), Failure> {
    let found = revision(present);
    match expected {
        Some(expected) if found != expected && present != wanted => {
            let message = format!("somebody else changed the split: it is `{found}`");
            Err(Failure::conflict("file-balancer.split", message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides() -> Vec<Side> {
        ["blue", "green"]
            .into_iter()
            .map(|name| Side {
                name: name.to_owned(),
                group: "{}".to_owned(),
                members: Vec::new(),
            })
            .collect()
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let shares = parse("# by hand\ngreen 30\nblue 70 # most\nother 5\n", &sides()).unwrap();

        assert_eq!(text(&sides(), &shares), "blue 70\ngreen 30\n");
        assert!(parse("", &sides()).unwrap().is_empty());
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for (file, line) in [
            ("blue", 1),
            ("blue 100\ngreen x", 2),
            ("blue 101", 1),
            ("blue 1\nblue 2", 2),
        ] {
            assert_eq!(parse(file, &sides()).err(), Some(line), "{file}");
        }
    }

    #[test]
    fn only_what_was_read_is_written_over() {
        assert!(check_present("a 1\nb 99\n", Some("a 1, b 99"), "b").is_ok());
        assert!(check_present("a", Some("a"), "b").is_ok());
        assert!(check_present("b", Some("a"), "b").is_ok());
        assert!(check_present("c", None, "b").is_ok());
        assert!(check_present("c", Some("a"), "b").is_err());
    }
}

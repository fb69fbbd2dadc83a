//! Generated versions.

use jiff::civil::DateTime;
use model::Version;

/// The version `yyyy.mmdd.hhmms` of an instant, where `s` is the last digit of the seconds. While it is taken, a fourth
/// number counts up.
pub(crate) fn generated(at: DateTime, is_taken: impl Fn(&Version) -> bool) -> Version {
    let base = format!(
        "{}.{:02}{:02}.{:02}{:02}{}",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second() % 10
    );
    let candidates = std::iter::once(base.clone()).chain((1u64..).map(|n| format!("{base}.{n}")));
    candidates
        .filter_map(|text| Version::parse(&text).ok())
        .find(|version| !is_taken(version))
        .unwrap_or_else(|| unreachable!("natural numbers do not end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(at: &str, taken: &[&str], expected: &str) {
        let version = generated(at.parse().unwrap(), |version| {
            taken.contains(&version.as_str())
        });
        assert_eq!(version.as_str(), expected);
    }

    #[test]
    fn a_version_is_the_published_example() {
        check("2022-12-14T17:23:18", &[], "2022.1214.17238");
    }

    #[test]
    fn a_collision_is_resolved() {
        check(
            "2022-12-14T17:23:18",
            &["2022.1214.17238", "2022.1214.17238.1"],
            "2022.1214.17238.2",
        );
    }
}

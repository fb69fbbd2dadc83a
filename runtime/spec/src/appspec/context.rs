//! SELinux contexts.

use std::collections::BTreeSet;

use model::Context;

use crate::fields::{Field, Fields, Shape};
use crate::problem::{Collector, excerpt};

static CONTEXT: Shape = Shape {
    name: "context",
    keys: &["type", "user", "range"],
    // What the peer reads; its documentation says `user`.
    aliases: &["name"],
};

/// The highest category.
const MAX_CATEGORY: u32 = 1023;

pub(super) fn parse(field: Field<'_>, problems: &mut Collector) -> Option<Context> {
    let fields = field.shared_fields(&CONTEXT, problems)?;
    let kind = fields
        .required("type", problems)
        .and_then(|field| identifier(field, problems));
    let range = fields.get("range").and_then(|field| {
        let text = field.text(problems)?;
        match range(text) {
            Ok(range) => Some(range),
            Err(invalid) => {
                let message = format!("`range`: `{}` {invalid}", excerpt(text));
                problems.error_with_hint(
                    field.at(),
                    message,
                    "write `sN[-sM][:cA[.cB],…]`, for example `s0-s2:c0,c256.c512`",
                );
                None
            }
        }
    });
    Some(Context {
        user: user(&fields, problems),
        kind: kind?,
        range,
    })
}

/// The user, under either of its names.
fn user(fields: &Fields<'_>, problems: &mut Collector) -> Option<String> {
    let user = fields.get("user");
    let name = fields.get("name");
    if let (Some(_), Some(name)) = (user, name) {
        problems.error(name.name_at, "`user` and `name` exclude each other");
    }
    identifier(user.or(name)?, problems)
}

fn identifier(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    let is_identifier = text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if !is_identifier {
        field.mismatch("an SELinux name such as `httpd_sys_content_t`", problems);
    }
    is_identifier.then(|| text.to_owned())
}

/// Why a text is not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum InvalidRange {
    #[error("is not a range")]
    Malformed,
    #[error("goes down from `{low}` to `{high}`")]
    Descending { low: String, high: String },
    #[error("has the category `{0}`; the highest is `c1023`")]
    TooHigh(String),
    #[error("has the category `c{0}` twice")]
    Twice(u32),
}

/// The range in its shortest form.
fn range(text: &str) -> Result<String, InvalidRange> {
    let (levels, categories) = match text.split_once(':') {
        Some((levels, categories)) => (levels, Some(categories)),
        None => (text, None),
    };
    let (low, high) = bounds(levels, '-', 's')?;
    let mut canonical = format!("s{low}");
    if low != high {
        canonical.push_str(&format!("-s{high}"));
    }
    let Some(categories) = categories else {
        return Ok(canonical);
    };
    let mut all = BTreeSet::new();
    for part in categories.split(',') {
        let (low, high) = bounds(part, '.', 'c')?;
        if high > MAX_CATEGORY {
            return Err(InvalidRange::TooHigh(format!("c{high}")));
        }
        for category in low..=high {
            if !all.insert(category) {
                return Err(InvalidRange::Twice(category));
            }
        }
    }
    canonical.push(':');
    canonical.push_str(&runs(&all));
    Ok(canonical)
}

/// Two numbers with a letter before each, or one for both.
fn bounds(text: &str, separator: char, letter: char) -> Result<(u32, u32), InvalidRange> {
    let number = |text: &str| {
        let digits = text.strip_prefix(letter).ok_or(InvalidRange::Malformed)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidRange::Malformed);
        }
        digits
            .parse::<u32>()
            .map_err(|_| InvalidRange::TooHigh(excerpt(text)))
    };
    let Some((low, high)) = text.split_once(separator) else {
        return number(text).map(|both| (both, both));
    };
    let (first, last) = (number(low)?, number(high)?);
    if last < first {
        return Err(InvalidRange::Descending {
            low: low.to_owned(),
            high: high.to_owned(),
        });
    }
    Ok((first, last))
}

/// Numbers with neighbours joined: `c0.c2,c5`.
fn runs(categories: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for category in categories {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *category => *last = *category,
            _ => runs.push((*category, *category)),
        }
    }
    runs.into_iter()
        .map(|(first, last)| {
            if first == last {
                format!("c{first}")
            } else {
                format!("c{first}.c{last}")
            }
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn check(ranges: &[&str]) -> String {
        ranges
            .iter()
            .map(|text| match range(text) {
                Ok(range) => format!("{text} = {range}\n"),
                Err(invalid) => format!("{text} {invalid}\n"),
            })
            .collect()
    }

    #[test]
    fn ranges_have_one_canonical_form() {
        assert_snapshot!(check(&["s0", "s0-s0", "s0-s15", "s0:c1", "s1-s2:c3.c5,c1,c2,c9", "s0:c0.c1023"]), @"
        s0 = s0
        s0-s0 = s0
        s0-s15 = s0-s15
        s0:c1 = s0:c1
        s1-s2:c3.c5,c1,c2,c9 = s1-s2:c1.c5,c9
        s0:c0.c1023 = s0:c0.c1023
        ");
    }

    #[test]
    fn refuses_what_is_no_range() {
        assert_snapshot!(check(&[
            "", "0", "s", "s-1", "s2-s1", "s0-", "s0:", "s0:c1,", "s0:c1,c1", "s0:c1.c3,c2", "s0:c3.c1", "s0:c1024",
            "s0:c0.c9999999999", "s0:x1", "s0:c1:c2", "s0-s1-s2",
        ]), @"
         is not a range
        0 is not a range
        s is not a range
        s-1 is not a range
        s2-s1 goes down from `s2` to `s1`
        s0- is not a range
        s0: is not a range
        s0:c1, is not a range
        s0:c1,c1 has the category `c1` twice
        s0:c1.c3,c2 has the category `c2` twice
        s0:c3.c1 goes down from `c3` to `c1`
        s0:c1024 has the category `c1024`; the highest is `c1023`
        s0:c0.c9999999999 has the category `c9999999999`; the highest is `c1023`
        s0:x1 is not a range
        s0:c1:c2 is not a range
        s0-s1-s2 is not a range
        ");
    }
}

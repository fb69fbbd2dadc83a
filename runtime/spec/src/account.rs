//! Names of users and groups, as far as a name alone shows whether an account can have it.

use crate::fields::Field;
use crate::problem::{Collector, excerpt};

/// The longest name that the C library's tools take, in bytes.
const MAX_LENGTH: usize = 256;

/// Reads the name of a user or group. A name that no account can have is an error.
pub(crate) fn name(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    if let Some(reason) = impossible(text) {
        let message = format!(
            "`{}`: `{}` cannot be the name of an account: {reason}",
            excerpt(field.name),
            excerpt(text)
        );
        problems.error(field.at(), message);
        return None;
    }
    if is_number(text) {
        let message = format!(
            "`{}`: `{text}` is taken for a name, not for an id",
            excerpt(field.name)
        );
        problems.warn(field.at(), message, "write the name of the account");
    }
    Some(text.to_owned())
}

/// Why no account can have a name.
pub(crate) fn impossible(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.starts_with(['-', '+']) {
        Some("it begins with a sign")
    } else if name.len() > MAX_LENGTH {
        Some("it is longer than 256 bytes")
    } else if name
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ','))
    {
        Some("it contains white space, `:`, `,` or `/`")
    } else {
        None
    }
}

/// Whether a name consists of digits alone, as an id does.
pub(crate) fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_names_that_no_account_can_have() {
        for name in [
            "root",
            "_www",
            "web-01",
            "a.b",
            "svc$",
            "EXAMPLE\\shop",
            "shop@example",
        ] {
            assert_eq!(impossible(name), None, "{name}");
        }
        for name in ["", "-x", "+x", "a b", "a:b", "a/b", "a,b", &"x".repeat(257)] {
            assert!(impossible(name).is_some(), "{name}");
        }
    }
}

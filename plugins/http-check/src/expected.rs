//! What a right answer looks like.

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Statuses that are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status(Vec<(u16, u16)>);

impl Default for Status {
    fn default() -> Self {
        Self(vec![(200, 299)])
    }
}

impl Status {
    pub(crate) fn includes(&self, status: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let one = |value: &Value| {
            range(value).ok_or_else(|| {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                serde::de::Error::custom(format!(
                    "`{text}` is no status: write `200`, `200-299` or a list of them"
                ))
            })
        };
        match &value {
            Value::Array(values) if !values.is_empty() => {
                Ok(Self(values.iter().map(one).collect::<Result<_, _>>()?))
            }
            value => Ok(Self(vec![one(value)?])),
        }
    }
}

fn range(value: &Value) -> Option<(u16, u16)> {
    let (first, last) = match value {
        Value::Number(number) => {
            let status = u16::try_from(number.as_u64()?).ok()?;
            (status, status)
        }
        Value::String(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            (first.trim().parse().ok()?, last.trim().parse().ok()?)
        }
        _ => return None,
    };
    (first >= 100 && last <= 599 && first <= last).then_some((first, last))
}

/// What a right body holds. Nothing is said about it by default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    /// A text that occurs in it.
    contains: Option<String>,
    /// A place in it, as JSON pointer.
    pointer: Option<String>,
    /// What stands there.
    equals: Option<Value>,
}

/// Longest value that is shown of what was found.
const SHOWN: usize = 120;

impl Body {
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match (&self.pointer, &self.equals) {
            (Some(pointer), Some(_)) if !pointer.is_empty() && !pointer.starts_with('/') => {
                Err("a JSON pointer begins with `/`: write `/status`, or nothing for all of it")
            }
            (Some(_), None) => Err("`pointer` needs `equals`: what stands at that place"),
            (None, Some(_)) => Err("`equals` needs `pointer`: the place where it stands"),
            _ => Ok(()),
        }
    }

    /// What is wrong with a body.
    pub(crate) fn mismatch(&self, body: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(body);
        if let Some(wanted) = &self.contains
            && !text.contains(wanted)
        {
            return Some(format!("the body does not contain `{wanted}`"));
        }
        let (Some(pointer), Some(wanted)) = (&self.pointer, &self.equals) else {
            return None;
        };
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Some("the body is no JSON".to_owned());
        };
        match value.pointer(pointer) {
            Some(found) if found == wanted => None,
            Some(found) => Some(format!("`{pointer}` is {}", shown(found))),
            None => Some(format!("the body has no `{pointer}`")),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.contains {
            write!(f, ", body contains `{text}`")?;
        }
        if let (Some(pointer), Some(value)) = (&self.pointer, &self.equals) {
            write!(f, ", `{pointer}` is {}", shown(value))?;
        }
        Ok(())
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_ranges_and_lists() {
        for (text, right, wrong, shown) in [
            ("200", 200, 201, "200"),
            (r#""200-299""#, 299, 300, "200-299"),
            (r#"[200, "301-302"]"#, 302, 303, "200, 301-302"),
            (r#""204""#, 204, 200, "204"),
        ] {
            let status: Status = serde_json::from_str(text).unwrap();

            assert!(status.includes(right) && !status.includes(wrong), "{text}");
            assert_eq!(status.to_string(), shown);
        }
        for text in ["[]", "99", "600", r#""300-200""#, r#""2xx""#, "true", "-1"] {
            assert!(serde_json::from_str::<Status>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_body_is_held_against_text_and_value() {
        for (expected, body, mismatch) in [
            ("{}", "anything", None),
            (r#"{"contains": "ok"}"#, "all ok", None),
            (
                r#"{"contains": "ok"}"#,
                "down",
                Some("the body does not contain `ok`"),
            ),
            (
                r#"{"pointer": "/status", "equals": "UP"}"#,
                r#"{"status": "UP"}"#,
                None,
            ),
            (
                r#"{"pointer": "/status", "equals": "UP"}"#,
                r#"{"status": "DOWN"}"#,
                Some("`/status` is \"DOWN\""),
            ),
            (
                r#"{"pointer": "/nodes/0", "equals": 3}"#,
                r#"{"nodes": [3]}"#,
                None,
            ),
            (
                r#"{"pointer": "/a", "equals": 1}"#,
                "{}",
                Some("the body has no `/a`"),
            ),
            (
                r#"{"pointer": "/a", "equals": 1}"#,
                "<html>",
                Some("the body is no JSON"),
            ),
        ] {
            let body_expected: Body = serde_json::from_str(expected).unwrap();
            assert_eq!(
                body_expected.mismatch(body.as_bytes()).as_deref(),
                mismatch,
                "{expected} {body}"
            );
        }
    }
}

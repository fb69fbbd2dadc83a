//! Secrets that the operator lends to a plugin. The plugin gets handles; the values stay here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::{Digest as _, Sha256};

const REDACTED: &str = "[redacted]";

/// The shortest value that is looked for in the answers of servers. A shorter one is likely to stand there by chance, and
/// to whoever can have it hashed it is no secret anyhow.
const SHORTEST_ECHO: usize = 8;

/// What is written as it is in no part of a URL.
const IN_URL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The value of a secret. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Takes a value.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(value.into().into())
    }

    /// The value itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as it is used: a file that somebody wrote ends in a line feed, which is no part of what it holds.
    pub(crate) fn trimmed(&self) -> &[u8] {
        self.0.trim_ascii()
    }

    /// A short id of the value, the same for the same value and safe to log.
    pub(crate) fn version(&self, name: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(b"cutover secret version\0");
        hash.update(name.as_bytes());
        hash.update(b"\0");
        hash.update(&self.0);
        // 32 bits tell versions apart and say next to nothing about the value.
        hash.finalize()[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// The secrets of one plugin, by the name that its manifest uses.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    by_name: BTreeMap<String, Secret>,
}

impl Secrets {
    /// Adds a secret, or replaces the one of that name.
    pub fn insert(&mut self, name: impl Into<String>, value: Secret) {
        self.by_name.insert(name.into(), value);
    }

    /// The secret of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.by_name.get(name)
    }

    /// Replaces every occurrence of a secret's value.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for value in self.texts() {
            if text.contains(value) {
                text = Cow::Owned(text.replace(value, REDACTED));
            }
        }
        text
    }

    /// Whether a text holds a secret's value.
    pub(crate) fn occur_in(&self, text: &str) -> bool {
        self.texts().any(|value| text.contains(value))
    }

    /// What is left of an answer without the secrets that a server sends back, where there are any: as they are, as base64,
    /// and as they stand in a URL. A granted server that means harm can send them in other forms.
    pub(crate) fn redact_echo(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let mut redacted: Option<Vec<u8>> = None;
        for value in self.by_name.values().map(Secret::trimmed) {
            if value.len() < SHORTEST_ECHO {
                continue;
            }
            let forms = [
                value.to_vec(),
                BASE64_STANDARD.encode(value).into_bytes(),
                percent_encode(value, IN_URL)
                    .collect::<String>()
                    .into_bytes(),
            ];
            for form in &forms {
                let answer = redacted.as_deref().unwrap_or(answer);
                if let Some(without) = replaced(answer, form) {
                    redacted = Some(without);
                }
            }
        }
        redacted
    }

    /// The values without surrounding white space: files of secrets mostly end in a line feed, which nobody echoes.
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.by_name
            .values()
            .filter_map(|secret| std::str::from_utf8(secret.expose()).ok())
            .map(str::trim)
            .filter(|value| !value.is_empty())
    }
}

/// A text with every occurrence of a part redacted, where there is one.
fn replaced(text: &[u8], part: &[u8]) -> Option<Vec<u8>> {
    let mut without = Vec::new();
    let mut rest = text;
    while let Some(at) = memmem::find(rest, part) {
        without.extend_from_slice(&rest[..at]);
        without.extend_from_slice(REDACTED.as_bytes());
        rest = &rest[at + part.len()..];
    }
    if rest.len() == text.len() {
        return None;
    }
    without.extend_from_slice(rest);
    Some(without)
}

impl<N: Into<String>> FromIterator<(N, Secret)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (N, Secret)>>(secrets: I) -> Self {
        Self {
            by_name: secrets
                .into_iter()
                .map(|(name, secret)| (name.into(), secret))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let secrets: Secrets = [("token", Secret::new("hunter2"))].into_iter().collect();

        assert!(!format!("{secrets:?}").contains("hunter2"));
    }

    #[test]
    fn a_version_changes_with_the_value_and_the_name() {
        let secret = Secret::new("hunter2");

        assert_eq!(secret.version("a"), secret.version("a"));
        assert_ne!(secret.version("a"), secret.version("b"));
        assert_ne!(secret.version("a"), Secret::new("hunter3").version("a"));
    }

    #[test]
    fn what_a_server_sends_back_is_taken_out_of_its_answer() {
        let secrets: Secrets = [
            ("token", Secret::new("to/ken+1\n")),
            ("short", Secret::new("admin")),
        ]
        .into_iter()
        .collect();
        for (answer, expected) in [
            ("to/ken+1", Some("[redacted]")),
            ("a to/ken+1, to/ken+1.", Some("a [redacted], [redacted].")),
            ("x=to%2Fken%2B1&y", Some("x=[redacted]&y")),
            ("dG8va2VuKzE=", Some("[redacted]")),
            ("to/ken+", None),
            ("an admin", None),
            ("", None),
        ] {
            let redacted = secrets.redact_echo(answer.as_bytes());
            assert_eq!(redacted.as_deref(), expected.map(str::as_bytes), "{answer}");
        }
    }
}

//! Secrets that the operator lends to a plugin. The plugin gets handles; the values stay here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

const REDACTED: &str = "[redacted]";

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

    /// The values without surrounding white space: files of secrets mostly end in a line feed, which nobody echoes.
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.by_name
            .values()
            .filter_map(|secret| std::str::from_utf8(secret.expose()).ok())
            .map(str::trim)
            .filter(|value| !value.is_empty())
    }
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
}

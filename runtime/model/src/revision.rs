//! Packages and their revisions.

use std::fmt;
use std::sync::Arc;

use crate::{AppSpec, DeploymentId};

/// A version: three or four natural numbers, `A.B.C` or `A.B.C.D`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Arc<str>);

/// A text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a version: write A.B.C or A.B.C.D with natural numbers, for example 1.4.0"
)]
pub struct InvalidVersion {
    /// The text as it was given.
    pub text: String,
}

impl Version {
    /// Checks and takes a text.
    ///
    /// # Errors
    /// [`InvalidVersion`] unless the text is three or four dot-separated natural numbers.
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let numbers = text.split('.');
        let is_number = |part: &str| {
            !part.is_empty() && part.len() <= 18 && part.bytes().all(|b| b.is_ascii_digit())
        };
        if matches!(numbers.clone().count(), 3 | 4) && numbers.clone().all(is_number) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidVersion {
                text: text.to_owned(),
            })
        }
    }

    /// Whether two versions have the same numbers, however many zeros they are written with.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let numbers = |version: &Self| -> Vec<u64> {
            let parts = version.0.split('.');
            parts.filter_map(|part| part.parse().ok()).collect()
        };
        numbers(self) == numbers(other)
    }

    /// The text of the version.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Arc<str>);

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: write sha256: and 64 hexadecimal digits")]
pub struct InvalidDigest {
    /// The text as it was given.
    pub text: String,
}

impl Digest {
    /// Checks and takes a text; upper-case digits are folded to lower case.
    ///
    /// # Errors
    /// [`InvalidDigest`] unless the text is `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(InvalidDigest {
                text: text.to_owned(),
            })
        }
    }

    /// The whole text, with its `sha256:`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A package at a version: what is put on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    pub version: Version,
    /// Immutable reference that the package source can fetch again.
    pub source: String,
    /// Digest of the package: of the archive's bytes, or of the folder's tree.
    pub digest: Digest,
}

/// A revision with its appspec, as one deployment brought it to the instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The deployment that fetched it; names its folder in the instances' package cache.
    pub deployment: DeploymentId,
    pub revision: Revision,
    /// The appspec in force: the package's own, or the group's form.
    pub appspec: AppSpec,
}

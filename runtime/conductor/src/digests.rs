//! The digests of an archive, and what is said of them beforehand.

use model::Digest;
use sha2::{Digest as _, Sha256, Sha512};

use crate::fetch::FetchError;

/// The digests of bytes as they pass.
#[derive(Debug, Clone)]
pub(crate) struct Digests {
    sha256: Sha256,
    /// Where it is asked for.
    sha512: Option<Sha512>,
    length: u64,
}

/// What an archive must be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stated {
    /// What the operator asks for, or the journal recorded.
    pub(crate) expected: Option<Digest>,
    /// What the package source says.
    pub(crate) by_source: Option<plugin_host::package_source::Digest>,
    pub(crate) size: Option<u64>,
}

impl Digests {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
        self.length += bytes.len() as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Stated {
    /// Digests of nothing, to be updated with what comes.
    pub(crate) fn digests(&self) -> Digests {
        let stated = self.by_source.as_ref();
        let sha512 = stated.is_some_and(|stated| stated.algorithm == "sha512");
        Digests {
            sha256: Sha256::new(),
            sha512: sha512.then(Sha512::new),
            length: 0,
        }
    }

    /// The SHA-256 that the package must have, where one is known.
    pub(crate) fn sha256(&self) -> Option<Digest> {
        self.expected.clone().or_else(|| {
            let stated = self.by_source.as_ref()?;
            (stated.algorithm == "sha256")
                .then(|| Digest::parse(&format!("sha256:{}", stated.hex)).ok())
                .flatten()
        })
    }

    /// Whether it is said what digest the package has, in an algorithm that is checked.
    pub(crate) fn is_certain(&self) -> bool {
        let is_known = |stated: &plugin_host::package_source::Digest| {
            ["sha256", "sha512"].contains(&stated.algorithm.as_str())
        };
        self.expected.is_some() || self.by_source.as_ref().is_some_and(is_known)
    }

    /// What is said and cannot be checked.
    pub(crate) fn unchecked(&self) -> Option<String> {
        let stated = self.by_source.as_ref()?;
        let known = ["sha256", "sha512"].contains(&stated.algorithm.as_str());
        (!known).then(|| {
            format!(
                "the package source states a digest of the algorithm `{}`, which is not checked: give one with `--digest sha256:…`",
                stated.algorithm
            )
        })
    }

    /// Holds an archive against what is said of it.
    pub(crate) fn check(&self, reference: &str, found: &Digests) -> Result<Digest, FetchError> {
        if let Some(size) = self.size
            && size != found.length
        {
            return Err(FetchError::WrongSize {
                reference: reference.to_owned(),
                found: found.length,
                expected: size,
            });
        }
        let sha256 = hex(&found.sha256.clone().finalize());
        if let Some(stated) = &self.by_source {
            let sha512 = found.sha512.clone();
            let sha512 = sha512.map_or_else(String::new, |sha512| hex(&sha512.finalize()));
            let found = match stated.algorithm.as_str() {
                "sha256" => &sha256,
                "sha512" => &sha512,
                _ => &stated.hex,
            };
            if *found != stated.hex {
                let algorithm = &stated.algorithm;
                return Err(FetchError::WrongDigest {
                    reference: reference.to_owned(),
                    found: format!("{algorithm}:{found}"),
                    expected: format!("{algorithm}:{}", stated.hex),
                });
            }
        }
        let digest = Digest::parse(&format!("sha256:{sha256}"))
            .unwrap_or_else(|error| unreachable!("a digest of ours: {error}"));
        self.check_expected(reference, &digest)?;
        Ok(digest)
    }

    /// Holds a folder against what is said of it. Its digest is that of its tree.
    pub(crate) fn check_tree(&self, reference: &str, found: &Digest) -> Result<(), FetchError> {
        let expected = self.sha256();
        match expected {
            Some(expected) if expected != *found => Err(FetchError::WrongDigest {
                reference: reference.to_owned(),
                found: found.to_string(),
                expected: expected.to_string(),
            }),
            _ => Ok(()),
        }
    }

    fn check_expected(&self, reference: &str, found: &Digest) -> Result<(), FetchError> {
        match &self.expected {
            Some(expected) if expected != found => Err(FetchError::WrongDigest {
                reference: reference.to_owned(),
                found: found.to_string(),
                expected: expected.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(algorithm: &str, hex: &str) -> Stated {
        Stated {
            by_source: Some(plugin_host::package_source::Digest {
                algorithm: algorithm.to_owned(),
                hex: hex.to_owned(),
            }),
            ..Stated::default()
        }
    }

    fn of(stated: &Stated, bytes: &[u8]) -> Result<Digest, FetchError> {
        let mut digests = stated.digests();
        digests.update(bytes);
        stated.check("package", &digests)
    }

    #[test]
    fn what_the_source_states_is_checked_beside_what_the_operator_asks_for() {
        let right = hex(&Sha512::digest("content"));
        let sha256 = of(&Stated::default(), b"content").unwrap();

        assert_eq!(of(&stated("sha512", &right), b"content").unwrap(), sha256);
        let wrong = of(&stated("sha512", &right), b"other").unwrap_err();
        assert!(wrong.to_string().contains(&format!("not sha512:{right}")));
        let both = Stated {
            expected: Some(sha256),
            ..stated("sha512", &hex(&Sha512::digest("other")))
        };
        assert!(of(&both, b"content").is_err());
    }

    #[test]
    fn a_digest_that_cannot_be_checked_is_told_of() {
        let md5 = stated("md5", "9a0364b9e99bb480dd25e1f0284c8555");

        assert!(md5.unchecked().is_some_and(|text| text.contains("`md5`")));
        assert!(of(&md5, b"anything").is_ok());
        assert_eq!(stated("sha256", "").unchecked(), None);
    }

    #[test]
    fn a_stated_size_is_checked() {
        let stated = Stated {
            size: Some(8),
            ..Stated::default()
        };

        let error = of(&stated, b"content").unwrap_err();

        assert!(error.to_string().contains("7 bytes, not 8"), "{error}");
    }
}

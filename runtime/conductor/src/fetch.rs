//! Moving a package's bytes: the plugin says where they are, the host fetches, checks and unpacks them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Digest;
use plugin_host::Secret;
use sha2::{Digest as _, Sha256};

use crate::packages::{Draft, Packages, Stored};

/// The largest archive that is fetched.
const MOST_BYTES: u64 = 8 << 30;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const WHOLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often one address is tried.
const TRIES: u32 = 3;

/// A package that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("find the package `{reference}`")]
    NotFound {
        reference: String,
        source: io::Error,
    },
    #[error("download `{url}`")]
    Download {
        url: String,
        source: Box<ureq::Error>,
    },
    #[error("download `{url}`: the server broke off after {received} of {expected} bytes")]
    BrokenOff {
        url: String,
        received: u64,
        expected: u64,
    },
    #[error("`{url}` is larger than the limit of {MOST_BYTES} bytes")]
    TooLarge { url: String },
    #[error("the package at `{reference}` has digest {found}, not {expected}")]
    WrongDigest {
        reference: String,
        found: Digest,
        expected: Digest,
    },
    #[error("unpack the package `{reference}`")]
    Unpack {
        reference: String,
        source: agent::unpack::Error,
    },
    #[error("digest the package `{reference}`")]
    Tree {
        reference: String,
        source: agent::tree::Error,
    },
    #[error("store the package `{reference}`")]
    Store {
        reference: String,
        source: io::Error,
    },
    #[error(
        "`{url}` is not an address to fetch from: use http:, https: or file: with an absolute path"
    )]
    Address { url: String },
    #[error("the package source offers no place to fetch `{reference}` from")]
    NoPlace { reference: String },
}

/// One place to fetch from, with the headers to send.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    /// Values may be secret, and are sent nowhere else.
    pub(crate) headers: Vec<(String, Secret)>,
}

/// Fetches a package into the store, from the first place that gives it. Blocking: call it off the async threads.
pub(crate) fn fetch(
    packages: &Packages,
    reference: &str,
    places: &[Place],
    expected: Option<&Digest>,
) -> Result<Stored, FetchError> {
    let mut last = FetchError::NoPlace {
        reference: reference.to_owned(),
    };
    for place in places {
        match fetch_from(packages, place, expected) {
            Ok(stored) => return Ok(stored),
            Err(error) => {
                tracing::debug!(url = place.url, %error, "a place did not give the package");
                last = error;
            }
        }
    }
    Err(last)
}

fn fetch_from(
    packages: &Packages,
    place: &Place,
    expected: Option<&Digest>,
) -> Result<Stored, FetchError> {
    let url = place.url.as_str();
    let stored = |source| FetchError::Store {
        reference: url.to_owned(),
        source,
    };
    let draft = packages.draft().map_err(stored)?;
    let (source, found) = if let Some(path) = url.strip_prefix("file://") {
        let path = PathBuf::from(path);
        let metadata = std::fs::metadata(&path).map_err(|source| FetchError::NotFound {
            reference: url.to_owned(),
            source,
        })?;
        let digest = if metadata.is_dir() {
            None
        } else {
            Some(digest_of(&path).map_err(stored)?)
        };
        (path, digest)
    } else if url.starts_with("http://") || url.starts_with("https://") {
        let digest = download(place, &draft)?;
        (draft.archive(), Some(digest))
    } else {
        return Err(FetchError::Address {
            url: url.to_owned(),
        });
    };
    if let Some(found) = &found {
        compare(url, found, expected)?;
    }
    agent::unpack::unpack(&source, &draft.tree()).map_err(|source| FetchError::Unpack {
        reference: url.to_owned(),
        source,
    })?;
    if found.is_some() && draft.archive().exists() {
        std::fs::remove_file(draft.archive()).map_err(stored)?;
    }
    let tree = agent::tree::digest(&draft.tree()).map_err(|source| FetchError::Tree {
        reference: url.to_owned(),
        source,
    })?;
    let tree =
        Digest::parse(&tree).unwrap_or_else(|error| unreachable!("a digest of ours: {error}"));
    let digest = found.unwrap_or_else(|| tree.clone());
    compare(url, &digest, expected)?;
    packages.keep(draft, digest, tree).map_err(stored)
}

fn compare(reference: &str, found: &Digest, expected: Option<&Digest>) -> Result<(), FetchError> {
    match expected {
        Some(expected) if expected != found => Err(FetchError::WrongDigest {
            reference: reference.to_owned(),
            found: found.clone(),
            expected: expected.clone(),
        }),
        _ => Ok(()),
    }
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    copy(&mut File::open(path)?, &mut io::sink(), &mut hasher)?;
    Ok(finish(hasher))
}

fn finish(hasher: Sha256) -> Digest {
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Digest::parse(&format!("sha256:{hex}"))
        .unwrap_or_else(|error| unreachable!("a digest of ours: {error}"))
}

fn copy(from: &mut dyn Read, to: &mut dyn Write, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        total += read as u64;
    }
}

fn download(place: &Place, draft: &Draft) -> Result<Digest, FetchError> {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(WHOLE_TIMEOUT))
        .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let mut tried = 1;
    loop {
        match attempt(&agent, place, draft) {
            Err(FetchError::Download { source, .. }) if tried < TRIES && is_transient(&source) => {
                tried += 1;
            }
            Err(FetchError::BrokenOff { .. }) if tried < TRIES => {
                tried += 1;
            }
            done => return done,
        }
    }
}

fn is_transient(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::StatusCode(status) => *status == 429 || *status >= 500,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

fn attempt(agent: &ureq::Agent, place: &Place, draft: &Draft) -> Result<Digest, FetchError> {
    let url = || place.url.clone();
    let failed = |source: ureq::Error| FetchError::Download {
        url: place.url.clone(),
        source: Box::new(source),
    };
    let mut request = agent.get(&place.url);
    for (name, value) in &place.headers {
        request = request.header(name, value.expose());
    }
    let response = request.call().map_err(failed)?;
    let expected = response.body().content_length();
    if expected.is_some_and(|length| length > MOST_BYTES) {
        return Err(FetchError::TooLarge { url: url() });
    }
    let mut body = response
        .into_body()
        .into_with_config()
        .limit(MOST_BYTES)
        .reader();
    let mut file = File::create(draft.archive()).map_err(|source| FetchError::Store {
        reference: url(),
        source,
    })?;
    let mut hasher = Sha256::new();
    let received =
        copy(&mut body, &mut file, &mut hasher).map_err(|error| failed(ureq::Error::Io(error)))?;
    match expected {
        Some(expected) if expected != received => Err(FetchError::BrokenOff {
            url: url(),
            received,
            expected,
        }),
        _ => Ok(finish(hasher)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> (tempfile::TempDir, Packages, Place) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("appspec.yml"), "version: 0.0\nos: linux\n").unwrap();
        let packages = Packages::new(folder.path().join("store"));
        let place = Place {
            url: format!("file://{}", source.display()),
            headers: Vec::new(),
        };
        (folder, packages, place)
    }

    #[test]
    fn a_folder_is_kept_under_the_digest_of_its_tree() {
        let (_folder, packages, place) = package();

        let stored = fetch(&packages, "source", &[place], None).unwrap();

        assert_eq!(stored.digest, stored.tree_digest);
        let found = packages.find(&stored.digest).unwrap();
        assert!(found.tree.join("appspec.yml").exists());
    }

    #[test]
    fn another_digest_than_the_expected_is_refused_and_nothing_is_kept() {
        let (folder, packages, place) = package();
        let expected = Digest::parse(&format!("sha256:{:064}", 1)).unwrap();

        let error = fetch(&packages, "source", &[place], Some(&expected)).unwrap_err();

        assert!(matches!(error, FetchError::WrongDigest { .. }), "{error}");
        assert_eq!(
            std::fs::read_dir(folder.path().join("store"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn the_next_mirror_is_asked_when_one_has_nothing() {
        let (folder, packages, place) = package();
        let gone = Place {
            url: format!("file://{}/gone", folder.path().display()),
            headers: Vec::new(),
        };

        fetch(&packages, "source", &[gone, place], None).unwrap();
    }
}

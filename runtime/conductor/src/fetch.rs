//! Moving a package's bytes: the plugin says where they are, the host fetches, checks and unpacks them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use agent::unpack::{Format, Options};
use model::Digest;
use plugin_host::Secret;

use crate::digests::{Digests, Stated};
use crate::download::{Rules, download};
use crate::packages::{Draft, Packages, Stored};
use crate::plan::chain;

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
    #[error(
        "`{url}` is larger than {limit} bytes, which is all that a package may hold (`packages.limits.size` in cutover.yaml)"
    )]
    TooLarge { url: String, limit: u64 },
    #[error("`{url}` redirects to `{to}`: {problem}")]
    Redirect {
        url: String,
        to: String,
        problem: &'static str,
    },
    #[error("`{url}` leads where packages may not be fetched from")]
    RefusedAddress {
        url: String,
        /// The line that would change it, where one would.
        grant: Option<String>,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the package at `{reference}` has digest {found}, not {expected}")]
    WrongDigest {
        reference: String,
        found: String,
        expected: String,
    },
    #[error("the package at `{reference}` has {found} bytes, not {expected} as its source says")]
    WrongSize {
        reference: String,
        found: u64,
        expected: u64,
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
    #[error("fetch `{reference}` from any of its places: {}", problems.join("; "))]
    NoneGives {
        reference: String,
        /// Why those before the last did not give it.
        problems: Vec<String>,
        source: Box<FetchError>,
    },
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

/// What is wanted of a package.
#[derive(Clone)]
pub(crate) struct Want {
    /// As the release records it.
    pub(crate) reference: String,
    pub(crate) stated: Stated,
    pub(crate) unpacking: Options,
    pub(crate) rules: Rules,
}

/// A package that was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) stored: Stored,
    /// What is odd about it.
    pub(crate) warnings: Vec<String>,
}

/// Fetches a package into the store, from the first place that gives it. Blocking: call it off the async threads.
pub(crate) fn fetch(
    packages: &Packages,
    want: &Want,
    places: &[Place],
) -> Result<Fetched, FetchError> {
    let mut problems = Vec::new();
    for place in places {
        match fetch_from(packages, want, place) {
            Ok(mut fetched) => {
                let told = problems.iter().map(|problem| chain(problem));
                fetched.warnings.extend(told);
                return Ok(fetched);
            }
            Err(error) => problems.push(error),
        }
    }
    match problems.pop() {
        None => Err(FetchError::NoPlace {
            reference: want.reference.clone(),
        }),
        Some(only) if problems.is_empty() => Err(only),
        Some(last) => Err(FetchError::NoneGives {
            reference: want.reference.clone(),
            problems: problems.iter().map(|problem| chain(problem)).collect(),
            source: Box::new(last),
        }),
    }
}

fn fetch_from(packages: &Packages, want: &Want, place: &Place) -> Result<Fetched, FetchError> {
    let url = place.url.as_str();
    let draft = packages.draft().map_err(failed(url))?;
    if let Some(path) = url.strip_prefix("file://") {
        let path = PathBuf::from(path);
        let metadata = std::fs::metadata(&path).map_err(|source| FetchError::NotFound {
            reference: url.to_owned(),
            source,
        })?;
        let digests = if metadata.is_dir() {
            None
        } else {
            Some(digests_of(&path, &want.stated).map_err(failed(url))?)
        };
        keep(packages, draft, want, url, &path, digests.as_ref())
    } else if url.starts_with("http://") || url.starts_with("https://") {
        let archive = draft.archive();
        let digests = download(place, &want.rules, &want.stated, &archive)?;
        keep(packages, draft, want, url, &archive, Some(&digests))
    } else {
        Err(FetchError::Address {
            url: url.to_owned(),
        })
    }
}

/// Checks what was fetched, unpacks it, and puts it into the store.
pub(crate) fn keep(
    packages: &Packages,
    draft: Draft,
    want: &Want,
    url: &str,
    source: &Path,
    digests: Option<&Digests>,
) -> Result<Fetched, FetchError> {
    let digest = digests
        .map(|digests| want.stated.check(url, digests))
        .transpose()?;
    let unpacked = agent::unpack::unpack_with(source, &draft.tree(), &want.unpacking);
    let unpacked = unpacked.map_err(|source| FetchError::Unpack {
        reference: url.to_owned(),
        source,
    })?;
    if draft.archive().exists() {
        std::fs::remove_file(draft.archive()).map_err(failed(url))?;
    }
    let tree = agent::tree::digest(&draft.tree()).map_err(|source| FetchError::Tree {
        reference: url.to_owned(),
        source,
    })?;
    let tree =
        Digest::parse(&tree).unwrap_or_else(|error| unreachable!("a digest of ours: {error}"));
    let digest = match digest {
        Some(digest) => digest,
        None => {
            want.stated.check_tree(url, &tree)?;
            tree.clone()
        }
    };
    let mut warnings = unpacked.warnings;
    warnings.extend(wrong_label(url, unpacked.format));
    warnings.extend(want.stated.unchecked());
    let stored = packages.keep(draft, digest, tree).map_err(failed(url))?;
    Ok(Fetched { stored, warnings })
}

/// What to say of a package whose name claims another format than it has.
fn wrong_label(url: &str, format: Format) -> Option<String> {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let name = url[..end].rsplit('/').next()?;
    let claimed = Format::of_name(name).filter(|claimed| *claimed != format)?;
    Some(format!(
        "`{name}` is {format}, not {claimed} as its name says: it is unpacked as what it is"
    ))
}

fn failed(reference: &str) -> impl FnOnce(io::Error) -> FetchError {
    let reference = reference.to_owned();
    move |source| FetchError::Store { reference, source }
}

pub(crate) fn digests_of(path: &Path, stated: &Stated) -> io::Result<Digests> {
    let mut file = File::open(path)?;
    let mut digests = stated.digests();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(digests),
            Ok(read) => digests.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn want(expected: Option<Digest>) -> Want {
        Want {
            reference: "source".to_owned(),
            stated: Stated {
                expected,
                ..Stated::default()
            },
            unpacking: Options::default(),
            rules: Rules {
                most_bytes: 1 << 20,
                grant: Arc::new(|_| Err(String::new())),
                progress: Arc::new(|_| {}),
            },
        }
    }

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

        let stored = fetch(&packages, &want(None), &[place]).unwrap().stored;

        assert_eq!(stored.digest, stored.tree_digest);
        let found = packages.find(&stored.digest).unwrap();
        assert!(found.tree.join("appspec.yml").exists());
    }

    #[test]
    fn another_digest_than_the_expected_is_refused_and_nothing_is_kept() {
        let (folder, packages, place) = package();
        let expected = Digest::parse(&format!("sha256:{:064}", 1)).unwrap();

        let error = fetch(&packages, &want(Some(expected)), &[place]).unwrap_err();

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

        let fetched = fetch(&packages, &want(None), &[gone, place]).unwrap();

        let [warning] = fetched.warnings.as_slice() else {
            panic!("{:?}", fetched.warnings);
        };
        assert!(warning.contains("/gone`: No such file"), "{warning}");
    }

    #[test]
    fn where_no_place_gives_it_each_is_told_of() {
        let (folder, packages, _) = package();
        let gone = |name: &str| Place {
            url: format!("file://{}/{name}", folder.path().display()),
            headers: Vec::new(),
        };

        let error = fetch(&packages, &want(None), &[gone("one"), gone("two")]).unwrap_err();

        let text = chain(&error);
        assert!(text.contains("/one`") && text.contains("/two`"), "{text}");
    }

    #[test]
    fn a_name_that_claims_another_format_is_told_of() {
        let warning = |url, format| wrong_label(url, format).unwrap_or_default();

        assert_eq!(
            warning("https://h/a/shop.tar?sign=x.zip", Format::TarGzip),
            "`shop.tar` is a gzipped tar archive, not a tar archive as its name says: it is unpacked as what it is"
        );
        assert_eq!(warning("file:///srv/shop.tgz", Format::TarGzip), "");
        assert_eq!(warning("file:///srv/shop-1.0", Format::Zip), "");
    }
}

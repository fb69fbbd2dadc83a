//! Moving a package's bytes: the plugin says where they are, the host fetches, checks and unpacks them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::unpack::{Format, Options};
use model::{Digest, Timestamp};
use plugin_host::Secret;
use sha2::{Digest as _, Sha256};

use crate::digests::{Digests, Stated};
use crate::download::{self, Answer, Job, Outcome, Partial, Rules};
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
    #[error("download `{url}`")]
    Network {
        url: String,
        source: plugin_host::NetworkError,
    },
    #[error("download `{url}`")]
    Answer { url: String, source: Box<Answer> },
    #[error("`{url}` does not have what it had when the package was looked up")]
    Changed { url: String },
    #[error("`{url}` has something else each time that it is asked")]
    Restless { url: String },
    #[error("give up after {times} tries")]
    GivenUp { times: u32, source: Box<FetchError> },
    #[error("ask the package source where `{url}` is by now")]
    Renew { url: String, source: Problem },
    #[error("the file of checksums `{url}` {problem}")]
    NoChecksum { url: String, problem: String },
    #[error("the package at `{reference}` has digest {found}, not {expected} as `{file}` says")]
    WrongChecksum {
        reference: String,
        found: String,
        expected: String,
        file: String,
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

/// Whatever kept somebody else from answering.
pub(crate) type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Gives a place anew.
pub(crate) type Renew<'a> = dyn Fn() -> Result<Place, Problem> + Send + Sync + 'a;

/// Gives the places anew, by their numbers.
pub(crate) type Renewal = Arc<dyn Fn(usize) -> Result<Place, Problem> + Send + Sync>;

/// One place to fetch from, with the headers to send.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    /// Values may be secret, and are sent nowhere else.
    pub(crate) headers: Vec<(String, Secret)>,
    /// From when on it is of no use. The query of such a URL is a credential.
    pub(crate) expires_at: Option<Timestamp>,
    /// Files that may say what digest the package has.
    pub(crate) beside: Vec<Beside>,
}

/// A file beside a package that may say its digest.
#[derive(Debug, Clone)]
pub(crate) struct Beside {
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, Secret)>,
    /// The name of the package in it.
    pub(crate) name: String,
    pub(crate) needed: bool,
}

impl Place {
    pub(crate) fn of(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            headers: Vec::new(),
            expires_at: None,
            beside: Vec::new(),
        }
    }

    /// As messages, logs and records name it.
    pub(crate) fn shown(&self) -> &str {
        match self.expires_at {
            Some(_) => download::without_query(&self.url),
            None => &self.url,
        }
    }
}

/// What is wanted of a package.
#[derive(Clone)]
pub(crate) struct Want {
    /// As the release records it.
    pub(crate) reference: String,
    pub(crate) stated: Stated,
    pub(crate) unpacking: Options,
    pub(crate) rules: Rules,
    pub(crate) renewal: Option<Renewal>,
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
    for (number, place) in places.iter().enumerate() {
        let renew = want.renewal.as_ref().map(|renewal| move || renewal(number));
        let renew = renew.as_ref().map(|renew| renew as &Renew<'_>);
        match fetch_from(packages, want, place, renew) {
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

fn fetch_from(
    packages: &Packages,
    want: &Want,
    place: &Place,
    renew: Option<&Renew<'_>>,
) -> Result<Fetched, FetchError> {
    let url = place.url.as_str();
    if let Some(path) = url.strip_prefix("file://") {
        let path = PathBuf::from(path);
        let draft = packages.draft().map_err(failed(url))?;
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
        checked_by_what_lies_beside(packages, want, place, renew)
    } else {
        Err(FetchError::Address {
            url: url.to_owned(),
        })
    }
}

/// Brings an archive over HTTP. What a file beside it says counts where nobody else says what digest it has.
fn checked_by_what_lies_beside(
    packages: &Packages,
    want: &Want,
    place: &Place,
    renew: Option<&Renew<'_>>,
) -> Result<Fetched, FetchError> {
    if want.stated.is_certain() {
        return bring(packages, want, place, renew);
    }
    let Some(found) = download::digest_beside(&place.beside, &want.rules)? else {
        return bring(packages, want, place, renew);
    };
    if let Some(stored) = packages.find(&found.digest) {
        let warnings = Vec::new();
        return Ok(Fetched { stored, warnings });
    }
    let mut want = want.clone();
    let file = found.file.clone();
    want.stated.expected = Some(found.digest);
    bring(packages, &want, place, renew).map_err(|error| match error {
        FetchError::WrongDigest {
            reference,
            found,
            expected,
        } => FetchError::WrongChecksum {
            reference,
            found,
            expected,
            file,
        },
        error => error,
    })
}

/// Brings an archive over HTTP, unless it is what was brought from there before.
fn bring(
    packages: &Packages,
    want: &Want,
    place: &Place,
    renew: Option<&Renew<'_>>,
) -> Result<Fetched, FetchError> {
    let url = place.shown();
    let key = key_of(&want.reference, url);
    let partial = packages.partial(&key).map_err(failed(url))?;
    // Somebody else may have brought it while this waited for them.
    let known = if want.stated.is_certain() {
        if let Some(stored) = want
            .stated
            .sha256()
            .and_then(|digest| packages.find(&digest))
        {
            let warnings = Vec::new();
            return Ok(Fetched { stored, warnings });
        }
        Vec::new()
    } else {
        packages.fetched_from(&key)
    };
    let tags: Vec<_> = known.iter().map(|(tag, _)| tag.clone()).collect();
    let job = Job {
        place,
        renew,
        rules: &want.rules,
        known: &tags,
    };
    let was_begun = partial.has_some();
    let outcome = match download::download(&job, &partial) {
        Ok(outcome) => outcome,
        Err(error) => {
            if !partial.is_worth_keeping() || !may_go_on(&error) {
                partial.remove();
            }
            return Err(error);
        }
    };
    let tag = match outcome {
        Outcome::Unchanged(tag) => {
            let stored = known.into_iter().find(|(known, _)| *known == tag);
            let stored = stored.map(|(_, stored)| stored);
            partial.remove();
            return stored
                .map(|stored| Fetched {
                    stored,
                    warnings: Vec::new(),
                })
                .ok_or_else(|| FetchError::Restless {
                    url: url.to_owned(),
                });
        }
        Outcome::Here(tag) => tag,
    };
    match keep_partial(packages, want, url, &partial) {
        Ok(fetched) => {
            if let Some(tag) = tag {
                packages.note_fetched(&fetched.stored.digest, &key, &tag);
            }
            partial.remove();
            Ok(fetched)
        }
        // What an earlier conductor left may not have been what it said.
        Err(error) if was_begun => {
            tracing::warn!(url, %error, "a download that was taken up again is not a package and is begun anew");
            partial.clear().map_err(failed(url))?;
            drop(partial);
            bring(packages, want, place, renew)
        }
        Err(error) => {
            partial.remove();
            Err(error)
        }
    }
}

/// Whether what has come is of use to whoever tries again.
fn may_go_on(error: &FetchError) -> bool {
    !matches!(
        error,
        FetchError::Changed { .. } | FetchError::Restless { .. } | FetchError::TooLarge { .. }
    )
}

fn keep_partial(
    packages: &Packages,
    want: &Want,
    url: &str,
    partial: &Partial,
) -> Result<Fetched, FetchError> {
    let archive = partial.archive();
    let draft = packages.draft().map_err(failed(url))?;
    let digests = digests_of(&archive, &want.stated).map_err(failed(url))?;
    keep(packages, draft, want, url, &archive, Some(&digests))
}

/// The name of what a reference has at a place.
fn key_of(reference: &str, url: &str) -> String {
    let digest = Sha256::digest(format!("{reference}\0{url}"));
    digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
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
                network: Arc::default(),
            },
            renewal: None,
        }
    }

    fn package() -> (tempfile::TempDir, Packages, Place) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("appspec.yml"), "version: 0.0\nos: linux\n").unwrap();
        let packages = Packages::new(folder.path().join("store"));
        let place = Place::of(&format!("file://{}", source.display()));
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
        let gone = Place::of(&format!("file://{}/gone", folder.path().display()));

        let fetched = fetch(&packages, &want(None), &[gone, place]).unwrap();

        let [warning] = fetched.warnings.as_slice() else {
            panic!("{:?}", fetched.warnings);
        };
        assert!(warning.contains("/gone`: No such file"), "{warning}");
    }

    #[test]
    fn where_no_place_gives_it_each_is_told_of() {
        let (folder, packages, _) = package();
        let gone = |name: &str| Place::of(&format!("file://{}/{name}", folder.path().display()));

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

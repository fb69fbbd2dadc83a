//! References: `git+URL#REVISION`.

use cutover_plugin_sdk::{Digest, Failure, split_digest};

const CODE: &str = "git-build.reference";

/// How the repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Https,
    Http,
    Ssh,
    File,
}

/// What is behind the `#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Revision {
    /// The whole id of a commit, in lower case.
    Commit(String),
    /// A branch or a tag, or the whole name of a reference (`refs/…`).
    Name(String),
}

/// A checked reference.
#[derive(Debug, PartialEq)]
pub(crate) struct Reference<'a> {
    /// As git takes it.
    pub(crate) url: &'a str,
    pub(crate) transport: Transport,
    pub(crate) revision: Revision,
    /// What the package has to have, where that is asked for.
    pub(crate) digest: Option<Digest>,
}

impl Transport {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Https, "https://"),
        (Self::Http, "http://"),
        (Self::Ssh, "ssh://"),
        (Self::File, "file://"),
    ];

    /// What git calls what may be spoken on the way: a server may send from `http` to `https`, and nowhere else.
    pub(crate) fn protocols(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http:https",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}

impl<'a> Reference<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Failure> {
        let (place, digest) = split_digest(text)?;
        let (address, revision) = place.split_once('#').unwrap_or((place, ""));
        let url = address.strip_prefix("git+").unwrap_or_default();
        let found = Transport::ALL
            .into_iter()
            .find_map(|(transport, prefix)| Some((transport, url.strip_prefix(prefix)?)));
        let Some((transport, rest)) = found else {
            return Err(Failure::invalid(CODE, format!("`{}` names no repository", shown(address)))
                .hint("write `git+https://HOST/PATH#BRANCH`, or the same with `git+ssh`, `git+http` or `git+file`"));
        };
        check_place(transport, rest)
            .map_err(|why| Failure::invalid(CODE, format!("`{}` {why}", shown(address))))?;
        Ok(Self {
            url,
            transport,
            revision: Revision::parse(revision)
                .map_err(|why| Failure::invalid(CODE, format!("`{}` {why}", shown(place))))
                .map_err(|failure| {
                    failure.hint("write a branch, a tag or the whole id of a commit behind `#`")
                })?,
            digest,
        })
    }

    /// The reference of a commit in the same repository.
    pub(crate) fn pinned(&self, commit: &str) -> String {
        format!("git+{}#{commit}", self.url)
    }
}

/// Checks what follows the scheme. What git or ssh could take for an option never gets to them.
fn check_place(transport: Transport, rest: &str) -> Result<(), &'static str> {
    if rest
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == '\\')
    {
        return Err("has a space, a control character or a backslash in it");
    }
    if transport == Transport::File {
        return match rest.strip_prefix('/') {
            None | Some("") => Err("is no absolute path of this machine: write `git+file:///PATH`"),
            Some(path) if path.split('/').any(|part| part == "..") => {
                Err("is not a plain path: write it without `..`")
            }
            Some(_) => Ok(()),
        };
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    match (transport, user) {
        (_, None) => {}
        (Transport::Ssh, Some(user)) if user.contains(':') => {
            return Err("carries a password, which would end up in records and logs");
        }
        (Transport::Ssh, Some(user)) if user.is_empty() || user.starts_with('-') => {
            return Err("names no user before the `@`");
        }
        (Transport::Ssh, Some(_)) => {}
        (_, Some(_)) => {
            return Err(
                "carries a user or password, which would end up in records and logs: put them into the file that `config_file` of this plugin names",
            );
        }
    }
    if host.is_empty() || host.starts_with(['-', ':']) {
        return Err("names no host");
    }
    if path.is_empty() {
        return Err("names no path on the host");
    }
    Ok(())
}

impl Revision {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("names no branch");
        }
        if matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self::Commit(text.to_ascii_lowercase()));
        }
        // As `git check-ref-format` has it.
        let has_bad = text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c));
        let is_bad_part =
            |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
        if has_bad
            || text.len() > 255
            || text.starts_with('-')
            || text.ends_with('.')
            || text.contains("..")
            || text.contains("@{")
            || text == "@"
            || text.split('/').any(is_bad_part)
        {
            return Err("has no name of a branch behind the `#`");
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// An address without what stands before `@`, so that a password does not get into a message.
fn shown(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_repository_and_a_revision() {
        let commit = "0123456789abcdef0123456789ABCDEF01234567";
        for (text, url, transport, revision) in [
            (
                "git+file:///srv/shop#main",
                "file:///srv/shop",
                Transport::File,
                "main",
            ),
            (
                "git+https://h:8443/a/b.git#feature/x#1",
                "https://h:8443/a/b.git",
                Transport::Https,
                "feature/x#1",
            ),
            (
                "git+http://h/a#v1.2.0",
                "http://h/a",
                Transport::Http,
                "v1.2.0",
            ),
            (
                "git+ssh://git@h:22/a.git#refs/tags/v1",
                "ssh://git@h:22/a.git",
                Transport::Ssh,
                "refs/tags/v1",
            ),
        ] {
            let reference = Reference::parse(text).unwrap();

            assert_eq!((reference.url, reference.transport), (url, transport));
            assert_eq!(reference.revision, Revision::Name(revision.to_owned()));
        }
        let text = format!("git+file:///srv/shop#{commit}");
        let pinned = Reference::parse(&text).unwrap();
        assert_eq!(pinned.revision, Revision::Commit(commit.to_lowercase()));
        let hex = "a".repeat(64);
        let text = format!("git+file:///srv/shop#main#sha256={hex}");
        let digested = Reference::parse(&text).unwrap();
        assert_eq!(digested.digest.unwrap().hex, hex);
    }

    #[test]
    fn what_is_no_reference_says_why() {
        for (text, expected) in [
            ("git+ftp://h/a#main", "names no repository"),
            ("https://h/a#main", "names no repository"),
            ("git+https:h/a#main", "names no repository"),
            ("git+file://srv/shop#main", "is no absolute path"),
            ("git+file:///srv/../etc#main", "without `..`"),
            ("git+https:///a#main", "names no host"),
            ("git+ssh://-oProxyCommand=x/a#main", "names no host"),
            ("git+ssh://-l@h/a#main", "names no user"),
            ("git+https://h#main", "names no path"),
            ("git+https://h/a b#main", "a space"),
            ("git+https://h/a", "names no branch"),
            ("git+https://h/a#", "names no branch"),
            ("git+https://h/a#-x", "no name of a branch"),
            ("git+https://h/a#a..b", "no name of a branch"),
            ("git+https://h/a#a*", "no name of a branch"),
            ("git+https://h/a#main^{}", "no name of a branch"),
            ("git+https://h/a#main#sha256=12", "is no SHA-256 digest"),
        ] {
            let failure = Reference::parse(text).unwrap_err();

            assert!(
                failure.message.contains(expected),
                "{text}: {}",
                failure.message
            );
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for text in [
            "git+https://me:hunter2@h/a#main",
            "git+ssh://me:hunter2@h/a#main",
        ] {
            let failure = Reference::parse(text).unwrap_err();

            assert!(failure.message.contains("password"), "{}", failure.message);
            assert!(!failure.message.contains("hunter2"), "{}", failure.message);
        }
    }
}

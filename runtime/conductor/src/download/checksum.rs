//! Files beside a package that say its digest, as `sha256sum` and its relatives write them.

use std::io::Read;
use std::time::{Duration, Instant};

use model::Digest;
use ureq::http::StatusCode;

use super::Rules;
use super::answer::Answer;
use super::request::{Asker, To, failed, without_query};
use crate::fetch::{Beside, FetchError};

/// How much of such a file is read.
const MOST: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Between a word and its digest, in the form of BSD: `SHA256 (app.tgz) = …`.
const BSD: &str = "SHA256 (";

/// What such a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) digest: Digest,
    /// Which file, for messages.
    pub(crate) file: String,
}

/// Asks for the files that may say what digest a package has, until one does.
pub(crate) fn digest_beside(files: &[Beside], rules: &Rules) -> Result<Option<Found>, FetchError> {
    let mut asker = Asker::new(rules, Instant::now() + TIMEOUT);
    for file in files {
        let shown = without_query(&file.url);
        let found = match text_of(file, shown, &mut asker) {
            Ok(text) => digest_of(&text, &file.name).map_err(|problem| FetchError::NoChecksum {
                url: shown.to_owned(),
                problem,
            }),
            Err(error) => Err(error),
        };
        match found {
            Ok(digest) => {
                let file = shown.to_owned();
                return Ok(Some(Found { digest, file }));
            }
            Err(error) if file.needed => return Err(error),
            Err(error) => {
                tracing::debug!(url = shown, %error, "there is no file with a digest");
            }
        }
    }
    Ok(None)
}

fn text_of(file: &Beside, shown: &str, asker: &mut Asker<'_>) -> Result<String, FetchError> {
    let to = To {
        url: &file.url,
        shown,
        headers: &file.headers,
    };
    let response = asker.send(&to, &[])?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Answer {
            url: shown.to_owned(),
            source: Box::new(Answer::of(response)),
        });
    }
    let mut text = Vec::new();
    response
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .reader()
        .take(MOST + 1)
        .read_to_end(&mut text)
        .map_err(|error| failed(shown, ureq::Error::Io(error)))?;
    if text.len() as u64 > MOST {
        return Err(FetchError::NoChecksum {
            url: shown.to_owned(),
            problem: format!("has more than {MOST} bytes"),
        });
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The digest in the line for a file, or the only one where it stands alone.
fn digest_of(text: &str, name: &str) -> Result<Digest, String> {
    let lines: Vec<_> = text.lines().filter_map(line).collect();
    let of_name = |(_, file): &&(Digest, &str)| file.rsplit('/').next() == Some(name);
    let mut found: Vec<_> = lines.iter().filter(of_name).map(|(it, _)| it).collect();
    found.dedup();
    match (found.as_slice(), lines.as_slice()) {
        ([digest], _) => Ok((*digest).clone()),
        ([], [(digest, "")]) => Ok(digest.clone()),
        ([], []) => Err("has no SHA-256 digest in it".to_owned()),
        ([], _) => Err(format!("has no line for `{name}`")),
        _ => Err(format!("has several digests for `{name}`")),
    }
}

/// A digest and the file that it is of, which is empty where the digest stands alone.
fn line(line: &str) -> Option<(Digest, &str)> {
    let line = line.trim();
    let (hex, file) = match line.strip_prefix(BSD) {
        Some(rest) => {
            let (file, hex) = rest.rsplit_once(") = ")?;
            (hex, file)
        }
        None => match line.split_once(char::is_whitespace) {
            // A star before the name says that the bytes were read as they are.
            Some((hex, file)) => (hex, file.trim_start().trim_start_matches('*')),
            None => (line, ""),
        },
    };
    let digest = Digest::parse(&format!("sha256:{}", hex.to_ascii_lowercase())).ok()?;
    Some((digest, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<char, &str>) {
        let found = digest_of(text, "app.tgz");

        match (found, expected) {
            (Ok(digest), Ok(c)) => assert_eq!(digest.hex(), c.to_string().repeat(64), "{text}"),
            (Err(problem), Err(words)) => assert!(problem.contains(words), "{text}: {problem}"),
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_digest_is_read_in_every_form_that_is_in_use() {
        let [a, b] = ["a", "b"].map(|digit| digit.repeat(64));

        check(&format!("{a}\n"), Ok('a'));
        check(&a.to_uppercase(), Ok('a'));
        check(&format!("{b}  other.tgz\n{a}  app.tgz\n"), Ok('a'));
        check(&format!("{a} *dist/app.tgz\n"), Ok('a'));
        check(&format!("SHA256 (app.tgz) = {a}\n"), Ok('a'));
        check(
            &format!("# made today\n\n{a}  app.tgz\n{a}  app.tgz\n"),
            Ok('a'),
        );
    }

    #[test]
    fn what_says_nothing_of_the_file_is_not_taken_for_it() {
        let [a, b] = ["a", "b"].map(|digit| digit.repeat(64));

        check("<html>not found</html>", Err("no SHA-256 digest"));
        check(
            "d41d8cd98f00b204e9800998ecf8427e  app.tgz",
            Err("no SHA-256"),
        );
        check(&format!("{b}  other.tgz\n"), Err("no line for `app.tgz`"));
        check(&format!("{b}  my-app.tgz\n"), Err("no line for `app.tgz`"));
        check(&format!("{a}\n{b}\n"), Err("no line for"));
        check(
            &format!("{a}  app.tgz\n{b}  x/app.tgz\n"),
            Err("several digests"),
        );
    }
}

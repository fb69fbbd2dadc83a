//! What the name of a package tells: its version, its format, and the digest that an operator wrote behind it.

use crate::{Digest, Failure};

/// Between a reference and the digest that it must have.
const DIGEST_MARK: &str = "#sha256=";

/// Endings of archives and what they hold.
const FORMATS: [(&str, &str); 5] = [
    (".tar.gz", "application/gzip"),
    (".tgz", "application/gzip"),
    (".tar", "application/x-tar"),
    (".zip", "application/zip"),
    (".jar", "application/java-archive"),
];

/// Takes the digest off a reference that ends in `#sha256=HEX`.
///
/// # Errors
/// `invalid` when what stands there is no digest.
///
/// ```
/// let hex = "9".repeat(64);
/// let reference = format!("https://packages.example/app.zip#sha256={hex}");
///
/// let (place, digest) = cutover_plugin_sdk::split_digest(&reference).unwrap();
///
/// assert_eq!(place, "https://packages.example/app.zip");
/// assert_eq!(digest.unwrap().hex, hex);
/// ```
pub fn split_digest(reference: &str) -> Result<(&str, Option<Digest>), Failure> {
    let Some((place, hex)) = reference.rsplit_once(DIGEST_MARK) else {
        return Ok((reference, None));
    };
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(
            Failure::invalid("package.digest", format!("`{hex}` is no SHA-256 digest")).hint(
                "write 64 hexadecimal digits behind `#sha256=`, as `sha256sum FILE` prints them",
            ),
        );
    }
    Ok((
        place,
        Some(Digest {
            algorithm: "sha256".to_owned(),
            hex: hex.to_ascii_lowercase(),
        }),
    ))
}

/// Finds the version in a path such as `app-1.2.0.tar.gz` or `app/1.2.0/app.zip`: three or four natural numbers with
/// dots between them, from the last part of the path to the first.
///
/// ```
/// use cutover_plugin_sdk::version_in;
///
/// assert_eq!(version_in("/srv/app-1.2.0.tar.gz").as_deref(), Some("1.2.0"));
/// assert_eq!(version_in("/srv/app.zip"), None);
/// ```
#[must_use]
pub fn version_in(path: &str) -> Option<String> {
    path.rsplit('/')
        .find_map(|part| {
            let stem = FORMATS
                .iter()
                .find_map(|(ending, _)| part.strip_suffix(ending))
                .unwrap_or(part);
            stem.rsplit(['-', '_', '@'])
                .map(|word| word.strip_prefix('v').unwrap_or(word))
                .find(|word| is_version(word))
        })
        .map(str::to_owned)
}

fn is_version(word: &str) -> bool {
    let is_number = |text: &str| {
        !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit())
    };
    matches!(word.split('.').count(), 3 | 4) && word.split('.').all(is_number)
}

/// Tells the media type of an archive by its name, or nothing where the name has no archive's ending.
///
/// ```
/// assert_eq!(cutover_plugin_sdk::media_type_of("app-1.2.0.tgz"), Some("application/gzip"));
/// ```
#[must_use]
pub fn media_type_of(path: &str) -> Option<&'static str> {
    let name = path.to_ascii_lowercase();
    FORMATS
        .iter()
        .find(|(ending, _)| name.ends_with(ending))
        .map(|(_, media_type)| *media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, version: Option<&str>) {
        assert_eq!(version_in(path).as_deref(), version, "{path}");
    }

    #[test]
    fn a_version_is_three_or_four_numbers() {
        check("app-1.2.0.tar.gz", Some("1.2.0"));
        check("app_v1.2.0-linux-amd64.zip", Some("1.2.0"));
        check("release-2022.1214.17238.tgz", Some("2022.1214.17238"));
        check("app-1.2.3.4", Some("1.2.3.4"));
        check("/packages/1.2.0/app.zip", Some("1.2.0"));
        check("/packages/9.9.9/app-1.2.0.zip", Some("1.2.0"));
        check("app-1.2.zip", None);
        check("app-1.2.0.4.5.zip", None);
        check("app-1.2.x.zip", None);
        check("app-1..2.zip", None);
        check("", None);
    }

    #[test]
    fn a_digest_must_be_one() {
        for hex in ["", "abc", &"g".repeat(64), &"a".repeat(63)] {
            assert!(
                split_digest(&format!("file:///app.zip#sha256={hex}")).is_err(),
                "{hex}"
            );
        }
        let upper = format!("file:///app.zip#sha256={}", "A".repeat(64));
        assert_eq!(split_digest(&upper).unwrap().1.unwrap().hex, "a".repeat(64));
        assert_eq!(
            split_digest("file:///app.zip").unwrap(),
            ("file:///app.zip", None)
        );
    }
}

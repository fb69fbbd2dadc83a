//! References: `s3://BUCKET/KEY`, and what pins them behind it.

use super::Vendor;
use crate::{Digest, Failure, split_digest};

const VERSION: &str = "?versionId=";
const TAG: &str = "?etag=";
/// The longest key that S3 has, in bytes.
const MOST: usize = 1024;

/// A checked reference.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reference<'a> {
    pub(super) bucket: &'a str,
    /// As it is, without any encoding.
    pub(super) key: &'a str,
    pub(super) pin: Pin<'a>,
    /// What the package has to have, where that is asked for.
    pub(super) digest: Option<Digest>,
}

/// Which of the contents that an object has over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pin<'a> {
    Latest,
    Version(&'a str),
    /// A strong tag without its quotes.
    Tag(&'a str),
}

impl<'a> Reference<'a> {
    pub(super) fn parse(vendor: &Vendor, text: &'a str) -> Result<Self, Failure> {
        let scheme = vendor.scheme;
        let invalid = |why: &str| {
            let code = format!("{}.reference", vendor.code);
            Failure::invalid(code, format!("`{text}` {why}")).hint(format!(
                "write `{scheme}://BUCKET/KEY`, and `{VERSION}ID` behind it for one version"
            ))
        };
        let (place, digest) = split_digest(text)?;
        let rest = place
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"))
            .ok_or_else(|| invalid(&format!("does not begin with `{scheme}://`")))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if bucket.is_empty() || !bucket.bytes().all(is_name) || bucket.starts_with(['.', '-']) {
            return Err(invalid("names no bucket"));
        }
        let (key, pin) = if let Some((key, version)) = key.rsplit_once(VERSION) {
            (key, Pin::Version(version))
        } else if let Some((key, tag)) = key.rsplit_once(TAG) {
            (key, Pin::Tag(tag))
        } else {
            (key, Pin::Latest)
        };
        if key.is_empty() || key.ends_with('/') {
            return Err(invalid("names no object in the bucket"));
        }
        if key.len() > MOST || key.chars().any(char::is_control) {
            return Err(invalid("has a key that no object can have"));
        }
        // Whatever is between here and there may take such a path for another one.
        if key.split('/').any(|part| part == "." || part == "..") {
            return Err(invalid("has `.` or `..` in its key"));
        }
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
        };
        match pin {
            Pin::Version(version) if !is_plain(version) => Err(invalid("names no version")),
            Pin::Tag(tag) if !is_plain(tag) => Err(invalid("names no tag")),
            _ => Ok(Self {
                bucket,
                key,
                pin,
                digest,
            }),
        }
    }

    /// As it was written, without what pins it.
    pub(super) fn plain(&self, vendor: &Vendor) -> String {
        format!("{}://{}/{}", vendor.scheme, self.bucket, self.key)
    }

    /// With another pin, and the digest that was asked for.
    pub(super) fn pinned(&self, vendor: &Vendor, pin: Pin<'_>) -> String {
        let pin = match pin {
            Pin::Latest => String::new(),
            Pin::Version(version) => format!("{VERSION}{version}"),
            Pin::Tag(tag) => format!("{TAG}{tag}"),
        };
        let digest = match &self.digest {
            Some(digest) => format!("#sha256={}", digest.hex),
            None => String::new(),
        };
        format!("{}{pin}{digest}", self.plain(vendor))
    }
}

#[cfg(test)]
mod tests {
    use super::super::AWS;
    use super::*;

    #[test]
    fn a_reference_is_a_bucket_a_key_and_a_pin() {
        for (text, bucket, key, pin) in [
            (
                "s3://shop/app-1.2.0.tgz",
                "shop",
                "app-1.2.0.tgz",
                Pin::Latest,
            ),
            ("s3://a.b/x/y z?w=1", "a.b", "x/y z?w=1", Pin::Latest),
            (
                "s3://shop/a?versionId=3/L4kqt",
                "shop",
                "a",
                Pin::Version("3/L4kqt"),
            ),
            (
                "s3://shop/a?etag=9bb58f26-2",
                "shop",
                "a",
                Pin::Tag("9bb58f26-2"),
            ),
        ] {
            let reference = Reference::parse(&AWS, text).unwrap();

            assert_eq!(
                (reference.bucket, reference.key, reference.pin),
                (bucket, key, pin)
            );
            assert_eq!(reference.pinned(&AWS, reference.pin), text);
        }
        let hex = "a".repeat(64);
        let text = format!("s3://shop/a#sha256={hex}");
        let reference = Reference::parse(&AWS, &text).unwrap();
        assert_eq!(
            reference.pinned(&AWS, Pin::Version("7")),
            format!("s3://shop/a?versionId=7#sha256={hex}")
        );
    }

    #[test]
    fn what_is_no_reference_says_why() {
        for (text, why) in [
            ("https://shop/a", "does not begin with `s3://`"),
            ("s3:shop/a", "does not begin with"),
            ("s3:///a", "names no bucket"),
            ("s3://u:p@shop/a", "names no bucket"),
            ("s3://shop", "names no object"),
            ("s3://shop/folder/", "names no object"),
            ("s3://shop/?versionId=1", "names no object"),
            ("s3://shop/a/../b", "has `.` or `..`"),
            ("s3://shop/a?versionId=", "names no version"),
            ("s3://shop/a?etag=\"x\"", "names no tag"),
        ] {
            let failure = Reference::parse(&AWS, text).unwrap_err();

            assert!(failure.message.contains(why), "{text}: {}", failure.message);
            assert!(failure.hint.unwrap().contains("s3://BUCKET/KEY"));
        }
    }
}

//! Looking an object up, and the request that brings it.

use std::time::Duration;

use super::answer::{self, About};
use super::client::{Client, SERVICE};
use super::near;
use super::reference::{Pin, Reference};
use crate::http::{Request, Response, percent_encode};
use crate::signing::{Key, aws};
use crate::{Attribute, Digest, Download, Failure, Header, Resolved, media_type_of, version_in};

/// What an object is whose key and type say nothing.
const UNKNOWN: &str = "application/octet-stream";

/// How long the service takes a request that was signed by its headers.
const SIGNED_FOR: Duration = Duration::from_secs(15 * 60);

/// The version of an object in a bucket that has none.
const NO_VERSION: &str = "null";

pub(super) fn resolve<K: Key>(client: &Client<'_, K>, text: &str) -> Result<Resolved, Failure> {
    let reference = Reference::parse(client.vendor, text)?;
    let url = url_of(client, &reference);
    let asked = |method: &str| {
        let mut request = Request::new(method, url.clone());
        if let Pin::Tag(tag) = reference.pin {
            request = request.header("If-Match", format!("\"{tag}\""));
        }
        request
    };
    let answer = client.ask(asked("HEAD").header("x-amz-checksum-mode", "ENABLED"))?;
    if answer.status == 200 {
        return found(client, &reference, &answer);
    }
    // An answer to HEAD has no body, and so does not say what is wrong.
    let told = client.ask(asked("GET").header("range", "bytes=0-0"))?;
    let about = About {
        vendor: client.vendor,
        reference: &reference,
        access_key: client.credentials.as_ref().map(|it| it.access_key.as_str()),
        region: client.region(),
        now: client.now,
    };
    if told.status < 300 {
        let code = format!("{}.unsteady", client.vendor.code);
        let message = format!("`{text}` was not there at first, and then it was");
        return Err(Failure::transient(code, message));
    }
    let failure = about.failure(&answer, &told);
    Err(match answer::code_of(&told).as_deref() {
        Some("NoSuchKey") => near::with_keys(client, &reference, failure),
        Some("NoSuchBucket") => near::with_buckets(client, &reference, failure),
        _ => failure,
    })
}

fn found<K>(
    client: &Client<'_, K>,
    reference: &Reference<'_>,
    answer: &Response,
) -> Result<Resolved, Failure> {
    let vendor = client.vendor;
    if let Some(class) = answer
        .header("x-amz-storage-class")
        .filter(|it| is_archived(it))
        && !answer
            .header("x-amz-restore")
            .is_some_and(|it| it.contains("ongoing-request=\"false\""))
    {
        let message = format!("`{}` is archived ({class})", reference.plain(vendor));
        return Err(
            Failure::permanent(format!("{}.InvalidObjectState", vendor.code), message)
                .hint("restore the object, and try again when that is done"),
        );
    }
    let version = answer
        .header("x-amz-version-id")
        .filter(|version| *version != NO_VERSION && !version.is_empty());
    // A weak tag does not tell one content from another.
    let tag = answer
        .header("etag")
        .and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'))
        .filter(|tag| !tag.is_empty() && !tag.contains('"'));
    let pin = match (version, tag) {
        (Some(version), _) => Pin::Version(version),
        (None, Some(tag)) => Pin::Tag(tag),
        (None, None) => Pin::Latest,
    };
    let checksum = answer
        .header("x-amz-checksum-sha256")
        .and_then(whole_checksum);
    let asked_for = reference.digest.clone();
    if let (Some(asked_for), Some(checksum)) = (&asked_for, &checksum)
        && asked_for != checksum
    {
        let message = format!(
            "`{}` has the checksum sha256:{}, not sha256:{}",
            reference.plain(vendor),
            checksum.hex,
            asked_for.hex
        );
        return Err(
            Failure::invalid(format!("{}.checksum", vendor.code), message)
                .hint("check that the package is the one that was meant"),
        );
    }
    let attribute = |key: &str, value: &str| Attribute {
        key: format!("{}.{key}", vendor.code),
        value: value.to_owned(),
    };
    let attributes = [
        version.map(|version| attribute("version-id", version)),
        tag.map(|tag| attribute("etag", tag)),
        answer::request_id(answer).map(|id| attribute("request-id", &id)),
    ];
    Ok(Resolved {
        pinned: reference.pinned(vendor, pin),
        version: version_in(reference.key),
        media_type: media_type_of(reference.key)
            .or(answer.header("content-type"))
            .unwrap_or(UNKNOWN)
            .to_owned(),
        size: answer
            .header("content-length")
            .and_then(|it| it.trim().parse().ok()),
        digest: asked_for.or(checksum),
        attributes: attributes.into_iter().flatten().collect(),
    })
}

/// Whether bytes have to be brought back before they can be read.
fn is_archived(class: &str) -> bool {
    matches!(class, "GLACIER" | "DEEP_ARCHIVE")
}

/// The request that brings a pinned object. Where the credentials are temporary, the URL cannot be signed, because the
/// token would have to be in it: then the headers are.
pub(super) fn download<K: Key>(client: &Client<'_, K>, pinned: &str) -> Result<Download, Failure> {
    let reference = Reference::parse(client.vendor, pinned)?;
    let url = url_of(client, &reference);
    let mut download = Download::of(url.clone());
    let after = |time: Duration| {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some(client.now.unix_ms().saturating_add(ms))
    };
    match &client.credentials {
        None => {}
        // What the host fills in cannot be in a URL.
        Some(credentials)
            if credentials.session_token.is_some()
                || credentials.access_key.contains("{{secret:") =>
        {
            let request = client.signed(Request::get(url))?;
            let headers = request.headers.into_iter();
            download.headers = headers
                .map(|(name, value)| Header { name, value })
                .collect();
            download.expires_at = after(SIGNED_FOR.min(client.config.valid_for));
        }
        Some(credentials) => {
            let (region, valid_for) = (client.region(), client.config.valid_for);
            let request = Request::get(url);
            download.url = aws::presign(
                &request,
                credentials,
                region,
                SERVICE,
                client.now,
                valid_for,
            )?;
            download.expires_at = after(valid_for);
        }
    }
    if let Pin::Tag(tag) = reference.pin {
        download.headers.push(Header {
            name: "If-Match".to_owned(),
            value: format!("\"{tag}\""),
        });
    }
    Ok(download)
}

fn url_of<K: Key>(client: &Client<'_, K>, reference: &Reference<'_>) -> String {
    let url = client.url(reference.bucket, reference.key);
    match reference.pin {
        Pin::Version(version) => format!("{url}?versionId={}", percent_encode(version)),
        Pin::Latest | Pin::Tag(_) => url,
    }
}

/// The digest in a checksum of a whole object. One of an object in parts, which ends in their number, is none of its bytes.
fn whole_checksum(text: &str) -> Option<Digest> {
    let text = text.trim();
    let digits = text.strip_suffix('=')?;
    if digits.len() != 43 {
        return None;
    }
    let mut bits: u32 = 0;
    let mut count = 0;
    let mut hex = String::with_capacity(64);
    for byte in digits.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            hex.push_str(&format!("{:02x}", bits >> count & 0xff));
        }
    }
    Some(Digest {
        algorithm: "sha256".to_owned(),
        hex,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_checksum_of_a_whole_object_is_a_digest() {
        // Of `abc`.
        let digest = whole_checksum("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=").unwrap();

        assert_eq!(
            digest.hex,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        for other in ["", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=-3", "q80="] {
            assert_eq!(whole_checksum(other), None, "{other}");
        }
    }
}

//! Signature version 4 of AWS, which many others take as well: in headers, or in the query of a URL.

use std::time::Duration;

use super::canonical::{
    Headers, Inner, Plus, Target, decode, encode, parameters, query, remove_header, set_header,
};
use super::key::{Credentials, Key, hex, hmac_sha256, sha256};
use crate::http::Request;
use crate::{Failure, Time};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What changes on the way, or is added to a request after it was signed.
const NEVER_SIGNED: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "range",
    "te",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-amzn-trace-id",
];

/// How a service writes the path of a request down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paths {
    /// Encoded once, and every slash and dot counts: they may be in the name of an object.
    AsTheyAre,
    /// Tidied up, and encoded once more.
    EncodedTwice,
}

impl Paths {
    fn of(service: &str) -> Self {
        if service.starts_with("s3") {
            Self::AsTheyAre
        } else {
            Self::EncodedTwice
        }
    }
}

/// Signs a request by headers that it adds. Signing it again replaces them.
///
/// All headers that the request has are signed, except for a few that change on the way and `range`. The name of a
/// service is the one that it signs with: `elasticloadbalancing`, `s3`.
///
/// ```
/// use cutover_plugin_sdk::Time;
/// use cutover_plugin_sdk::http::Request;
/// use cutover_plugin_sdk::signing::{Credentials, Plain, aws};
///
/// let credentials = Credentials {
///     access_key: "AKIDEXAMPLE".to_owned(),
///     secret_key: Plain::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
///     session_token: None,
/// };
/// let mut request = Request::get("https://elasticloadbalancing.us-east-1.amazonaws.com/");
/// let at = Time::parse("20240102T030405Z").unwrap();
///
/// aws::sign(&mut request, &credentials, "us-east-1", "elasticloadbalancing", at)?;
///
/// let (name, value) = request.headers.last().unwrap();
/// assert_eq!(name, "Authorization");
/// assert!(value.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240102/us-east-1/elasticloadbalancing/aws4_request, "));
/// # Ok::<_, cutover_plugin_sdk::Failure>(())
/// ```
///
/// # Errors
/// `invalid` when the URL is none, `denied` when the session token is not granted.
pub fn sign<K: Key>(
    request: &mut Request,
    credentials: &Credentials<K>,
    region: &str,
    service: &str,
    at: Time,
) -> Result<(), Failure> {
    let target = Target::of(&request.url)?;
    let body = hex(&sha256(&request.body));
    set_header(request, "X-Amz-Date", at.basic());
    if Paths::of(service) == Paths::AsTheyAre {
        set_header(request, "X-Amz-Content-Sha256", body.clone());
    }
    remove_header(request, "X-Amz-Security-Token");
    if let Some(token) = credentials.token_header("") {
        set_header(request, "X-Amz-Security-Token", token);
    }
    let headers = Headers::of(request, Inner::OneSpace, is_signed).with("host", &target.host);
    let names = headers.names();
    let canonical = [
        request.method.to_ascii_uppercase(),
        path(&target.path, Paths::of(service)),
        query(&parameters(&target.query)),
        headers.lines(),
        names.clone(),
        body,
    ];
    let scope = Scope {
        region,
        service,
        at,
    };
    let signature = scope.signature(credentials, &canonical.join("\n"))?;
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key
    );
    set_header(request, "Authorization", authorization);
    Ok(())
}

/// Signs a URL, so that whoever has it may ask for it until it expires. The headers of the request are part of what is
/// signed, and so have to be sent with it; its body is not.
///
/// ```
/// use std::time::Duration;
///
/// use cutover_plugin_sdk::Time;
/// use cutover_plugin_sdk::http::Request;
/// use cutover_plugin_sdk::signing::{Credentials, Plain, aws};
///
/// let credentials = Credentials {
///     access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
///     secret_key: Plain::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
///     session_token: None,
/// };
/// let request = Request::get("https://examplebucket.s3.amazonaws.com/test.txt");
/// let at = Time::parse("20130524T000000Z").unwrap();
///
/// let url = aws::presign(&request, &credentials, "us-east-1", "s3", at, Duration::from_secs(86400))?;
///
/// // The example in the documentation of S3.
/// assert!(url.ends_with("&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"));
/// # Ok::<_, cutover_plugin_sdk::Failure>(())
/// ```
///
/// # Errors
/// `unsupported` with a session token, which would have to stand in the URL: [`sign`] the request instead. `invalid` when
/// the URL is none, or the time is not between a second and seven days.
pub fn presign<K: Key>(
    request: &Request,
    credentials: &Credentials<K>,
    region: &str,
    service: &str,
    at: Time,
    valid_for: Duration,
) -> Result<String, Failure> {
    const MOST: u64 = 7 * 24 * 60 * 60;
    if credentials.session_token.is_some() {
        let message = "a URL cannot be signed with a session token, which would have to be in it";
        return Err(Failure::unsupported("signing.session-token", message)
            .hint("sign the headers of the request instead"));
    }
    let seconds = valid_for.as_secs();
    if !(1..=MOST).contains(&seconds) {
        let message = format!("a URL is signed for 1 to {MOST} seconds, not for {seconds}");
        return Err(Failure::invalid("signing.expiry", message));
    }
    let target = Target::of(&request.url)?;
    let headers = Headers::of(request, Inner::OneSpace, is_signed).with("host", &target.host);
    let names = headers.names();
    let scope = Scope {
        region,
        service,
        at,
    };
    let mut all = parameters(&target.query);
    for (name, value) in [
        ("X-Amz-Algorithm", ALGORITHM.to_owned()),
        (
            "X-Amz-Credential",
            format!("{}/{scope}", credentials.access_key),
        ),
        ("X-Amz-Date", at.basic()),
        ("X-Amz-Expires", seconds.to_string()),
        ("X-Amz-SignedHeaders", names.clone()),
    ] {
        all.push((name.to_owned(), Some(encode(value.as_bytes(), b""))));
    }
    all.sort();
    let parameters = query(&all);
    let body = match Paths::of(service) {
        Paths::AsTheyAre => UNSIGNED.to_owned(),
        Paths::EncodedTwice => hex(&sha256(&request.body)),
    };
    let canonical = [
        request.method.to_ascii_uppercase(),
        path(&target.path, Paths::of(service)),
        parameters.clone(),
        headers.lines(),
        names,
        body,
    ];
    let signature = scope.signature(credentials, &canonical.join("\n"))?;
    let end = request.url.find(['?', '#']).unwrap_or(request.url.len());
    let base = &request.url[..end];
    Ok(format!("{base}?{parameters}&X-Amz-Signature={signature}"))
}

/// What a signature is good for, written as `20240102/us-east-1/s3/aws4_request`.
struct Scope<'a> {
    region: &'a str,
    service: &'a str,
    at: Time,
}

impl std::fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (date, region, service) = (self.at.basic_date(), self.region, self.service);
        write!(f, "{date}/{region}/{service}/aws4_request")
    }
}

impl Scope<'_> {
    fn signature<K: Key>(
        &self,
        credentials: &Credentials<K>,
        canonical: &str,
    ) -> Result<String, Failure> {
        let digest = hex(&credentials.digest(canonical)?);
        let text = format!("{ALGORITHM}\n{}\n{self}\n{digest}", self.at.basic());
        Ok(hex(&hmac_sha256(
            &self.key(&credentials.secret_key),
            text.as_bytes(),
        )))
    }

    /// The key that signs for one day, region and service. The host makes its first step.
    fn key(&self, secret: &impl Key) -> [u8; 32] {
        let date = secret.hmac_sha256(b"AWS4", self.at.basic_date().as_bytes());
        let region = hmac_sha256(&date, self.region.as_bytes());
        let service = hmac_sha256(&region, self.service.as_bytes());
        hmac_sha256(&service, b"aws4_request")
    }
}

fn is_signed(name: &str) -> bool {
    !NEVER_SIGNED.contains(&name)
}

fn path(sent: &str, paths: Paths) -> String {
    match paths {
        Paths::AsTheyAre => encode(&decode(sent, Plus::Itself), b"/"),
        Paths::EncodedTwice => encode(tidy(sent).as_bytes(), b"/"),
    }
}

/// Without `.`, `..` and empty parts, as RFC 3986 has it and AWS wants it.
fn tidy(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::Plain;

    #[test]
    fn the_key_is_derived_as_published() {
        let scope = Scope {
            region: "us-east-1",
            service: "elasticloadbalancing",
            at: Time::parse("20240102T030405Z").unwrap(),
        };

        let key = scope.key(&Plain::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"));

        assert_eq!(
            hex(&key),
            "e888b1e775996e680581a1960414c0ce090d1491a1f2a0d2d758c8f5519e3d23"
        );
    }

    #[test]
    fn paths_are_written_down_as_the_service_does() {
        for (sent, s3, other) in [
            ("/", "/", "/"),
            ("/a//b/../c", "/a//b/../c", "/a/c"),
            ("/a/./b/", "/a/./b/", "/a/b/"),
            ("/a%20b", "/a%20b", "/a%2520b"),
            ("/a+b:c", "/a%2Bb%3Ac", "/a%2Bb%3Ac"),
            ("/%e5%80%bc", "/%E5%80%BC", "/%25e5%2580%25bc"),
            ("/..", "/..", "/"),
        ] {
            assert_eq!(path(sent, Paths::AsTheyAre), s3, "{sent}");
            assert_eq!(path(sent, Paths::EncodedTwice), other, "{sent}");
        }
    }
}

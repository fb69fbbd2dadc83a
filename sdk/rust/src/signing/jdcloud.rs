//! JDCLOUD2-HMAC-SHA256 and JDCLOUD3-HMAC-SHA256 of JD Cloud.
//!
//! Both are in use: the documentation and the SDK for Go sign with the second, the SDK for Python with the third. They
//! differ in the names that enter the signature, and in what becomes of white space inside a header.

use serde::{Deserialize, Serialize};

use super::canonical::{
    Headers, Inner, Parameter, Plus, Target, decode, encode, parameters, query, remove_header,
    set_header,
};
use super::key::{Credentials, Key, hex, hmac_sha256, sha256};
use crate::http::Request;
use crate::{Failure, Time};

/// Which of the two a signature is made by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dialect {
    /// The documented one.
    #[default]
    #[serde(rename = "JDCLOUD2")]
    Two,
    #[serde(rename = "JDCLOUD3")]
    Three,
}

impl Dialect {
    fn algorithm(self) -> &'static str {
        match self {
            Self::Two => "JDCLOUD2-HMAC-SHA256",
            Self::Three => "JDCLOUD3-HMAC-SHA256",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Two => "JDCLOUD2",
            Self::Three => "JDCLOUD3",
        }
    }

    fn terminator(self) -> &'static str {
        match self {
            Self::Two => "jdcloud2_request",
            Self::Three => "jdcloud3_request",
        }
    }

    fn inner(self) -> Inner {
        match self {
            Self::Two => Inner::OneSpace,
            Self::Three => Inner::AsItIs,
        }
    }
}

/// The region of calls that have none.
pub const NO_REGION: &str = "jdcloud-api";

/// What is told of a signature beside it, changes on the way, or is added after signing.
const NEVER_SIGNED: [&str; 7] = [
    "authorization",
    "content-length",
    "range",
    "user-agent",
    "x-jdcloud-algorithm",
    "x-jdcloud-content-sha256",
    "x-jdcloud-request-id",
];

/// Signs a request by headers that it adds. Signing it again replaces them.
///
/// `nonce` has to be another for each request: [`nonce`](super::nonce) makes one.
///
/// ```
/// use cutover_plugin_sdk::Time;
/// use cutover_plugin_sdk::http::Request;
/// use cutover_plugin_sdk::signing::{Credentials, Plain};
/// use cutover_plugin_sdk::signing::jdcloud::{self, Dialect};
///
/// let credentials = Credentials {
///     access_key: "ak".to_owned(),
///     secret_key: Plain::new("sk"),
///     session_token: None,
/// };
/// let url = "https://lb.jdcloud-api.com/v1/regions/cn-north-1/targetGroups/tg-1:describeTargets?filters.1.name=instanceId&filters.1.values.1=i-abc123";
/// let mut request = Request::get(url).header("Content-Type", "application/json");
/// let at = Time::parse("20190917T064708Z").unwrap();
/// let nonce = "ed558a3b-9808-4edb-8597-187bda63a4f2";
///
/// jdcloud::sign(&mut request, &credentials, Dialect::Two, "cn-north-1", "lb", at, nonce)?;
///
/// let (name, value) = request.headers.last().unwrap();
/// assert_eq!(name, "Authorization");
/// assert!(value.ends_with("Signature=8a9a64fb13bae73f618dc6901bff78ddd432737de5152cfd09f19e5a0ca9bf44"));
/// # Ok::<_, cutover_plugin_sdk::Failure>(())
/// ```
///
/// # Errors
/// `invalid` when the URL is none, `denied` when the session token is not granted.
pub fn sign<K: Key>(
    request: &mut Request,
    credentials: &Credentials<K>,
    dialect: Dialect,
    region: &str,
    service: &str,
    at: Time,
    nonce: &str,
) -> Result<(), Failure> {
    let target = Target::of(&request.url)?;
    set_header(request, "x-jdcloud-date", at.basic());
    set_header(request, "x-jdcloud-nonce", nonce);
    remove_header(request, "x-jdcloud-security-token");
    if let Some(token) = credentials.token_header("|base64") {
        set_header(request, "x-jdcloud-security-token", token);
    }
    let is_signed = |name: &str| !NEVER_SIGNED.contains(&name);
    let headers = Headers::of(request, dialect.inner(), is_signed).with("host", &target.host);
    let scope = Scope {
        dialect,
        region,
        service,
        at,
    };
    let canonical = canonical_request(request, &target, &headers);
    let signature = scope.signature(credentials, &canonical)?;
    let authorization = format!(
        "{} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
        dialect.algorithm(),
        credentials.access_key,
        headers.names()
    );
    let body = hex(&sha256(&request.body));
    set_header(request, "x-jdcloud-algorithm", dialect.algorithm());
    set_header(request, "x-jdcloud-content-sha256", body);
    set_header(request, "Authorization", authorization);
    Ok(())
}

fn canonical_request(request: &Request, target: &Target, headers: &Headers) -> String {
    // The SDK signs no parameter without a name or without a value.
    let is_signed = |(name, value): &Parameter| !name.is_empty() && value.is_some();
    let mut parameters = parameters(&target.query);
    parameters.retain(is_signed);
    [
        request.method.to_ascii_uppercase(),
        path(&target.path),
        query(&parameters),
        headers.lines(),
        headers.names(),
        hex(&sha256(&request.body)),
    ]
    .join("\n")
}

/// Decoded, each run of slashes one, and encoded again: a colon becomes `%3A`.
fn path(sent: &str) -> String {
    let mut path = vec![b'/'];
    for byte in decode(sent, Plus::Space) {
        if byte != b'/' || !path.ends_with(b"/") {
            path.push(byte);
        }
    }
    encode(&path, b"/")
}

/// What a signature is good for, written as `20190917/cn-north-1/lb/jdcloud2_request`.
struct Scope<'a> {
    dialect: Dialect,
    region: &'a str,
    service: &'a str,
    at: Time,
}

impl std::fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (date, region, service) = (self.at.basic_date(), self.region, self.service);
        write!(f, "{date}/{region}/{service}/{}", self.dialect.terminator())
    }
}

impl Scope<'_> {
    fn signature<K: Key>(
        &self,
        credentials: &Credentials<K>,
        canonical: &str,
    ) -> Result<String, Failure> {
        let digest = hex(&credentials.digest(canonical)?);
        let (algorithm, at) = (self.dialect.algorithm(), self.at.basic());
        let text = format!("{algorithm}\n{at}\n{self}\n{digest}");
        Ok(hex(&hmac_sha256(
            &self.key(&credentials.secret_key),
            text.as_bytes(),
        )))
    }

    /// The key that signs for one day, region and service. The host makes its first step.
    fn key(&self, secret: &impl Key) -> [u8; 32] {
        let prefix = self.dialect.prefix().as_bytes();
        let date = secret.hmac_sha256(prefix, self.at.basic_date().as_bytes());
        let region = hmac_sha256(&date, self.region.as_bytes());
        let service = hmac_sha256(&region, self.service.as_bytes());
        hmac_sha256(&service, self.dialect.terminator().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::Plain;

    fn credentials() -> Credentials<Plain> {
        Credentials {
            access_key: "ak".to_owned(),
            secret_key: Plain::new("sk"),
            session_token: None,
        }
    }

    #[test]
    fn the_keys_are_derived_as_published() {
        for (dialect, expected) in [
            (
                Dialect::Two,
                "efb19b0a9caf7e202af5faf977c1f14f44c36a1ed3b156e8c5772020fa8d0c85",
            ),
            (
                Dialect::Three,
                "55c0d36e2cd08d3af72f85649a1bff305f0f69db088d4c346572841febdfeab0",
            ),
        ] {
            let scope = Scope {
                dialect,
                region: "cn-north-1",
                service: "lb",
                at: Time::parse("20190917T064708Z").unwrap(),
            };

            assert_eq!(hex(&scope.key(&Plain::new("sk"))), expected);
        }
    }

    /// The vector of the signer for Rust, which leaves the host unsigned.
    #[test]
    fn the_published_signature_without_a_host_reproduces() {
        let url =
            "http://www.jdcloud-api.com/v1/regions/cn-north-1/instances?pageNumber=2&pageSize=10";
        let request = Request::get(url)
            .header("content-type", "application/json")
            .header("x-jdcloud-date", "20180405T010203Z")
            .header("x-jdcloud-nonce", "55f3919e-3a7d-4174-b117-f150ff25e274");
        let scope = Scope {
            dialect: Dialect::Two,
            region: "cn-north-1",
            service: "service_name",
            at: Time::parse("20180405T010203Z").unwrap(),
        };
        let headers = Headers::of(&request, Inner::OneSpace, |_| true);

        let canonical = canonical_request(&request, &Target::of(url).unwrap(), &headers);
        let signature = scope.signature(&credentials(), &canonical).unwrap();

        assert_eq!(
            signature,
            "cea138630c57ba3de51933926e3b1657c34b4d1b6f86d360511bf40a09f63729"
        );
    }

    #[test]
    fn paths_are_written_down_in_one_way() {
        for (sent, expected) in [
            ("/", "/"),
            ("/tg-1:registerTargets", "/tg-1%3AregisterTargets"),
            ("/tg-1%3aregisterTargets", "/tg-1%3AregisterTargets"),
            ("//v1///regions//", "/v1/regions/"),
            ("/v1%2F%2fregions", "/v1/regions"),
            ("/a+b%20c", "/a%20b%20c"),
            ("/%2/%2b%f", "/%252/%2B%25f"),
        ] {
            assert_eq!(path(sent), expected, "{sent}");
        }
    }
}

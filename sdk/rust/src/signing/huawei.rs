//! SDK-HMAC-SHA256 of Huawei Cloud.

use super::canonical::{
    Headers, Inner, Plus, Target, decode, encode, parameters, query, remove_header, set_header,
};
use super::key::{Credentials, Key, hex, sha256};
use crate::http::Request;
use crate::{Failure, Time};

const ALGORITHM: &str = "SDK-HMAC-SHA256";
const BODY_HASH: &str = "X-Sdk-Content-Sha256";

/// What changes on the way, or is added to a request after it was signed.
const NEVER_SIGNED: [&str; 5] = [
    "authorization",
    "connection",
    "content-length",
    "range",
    "user-agent",
];

/// Signs a request by headers that it adds. Signing it again replaces them.
///
/// `project_id` may be empty, for services that know no projects. A header `X-Sdk-Content-Sha256` that the request has
/// stands for the hash of its body.
///
/// ```
/// use cutover_plugin_sdk::Time;
/// use cutover_plugin_sdk::http::Request;
/// use cutover_plugin_sdk::signing::{Credentials, Plain, huawei};
///
/// let credentials = Credentials {
///     access_key: "AKEXAMPLE".to_owned(),
///     secret_key: Plain::new("SKEXAMPLE"),
///     session_token: None,
/// };
/// let project = "0605767f9a8e4b2c8f0d2f5c6a7b8c9d";
/// let url = format!("https://elb.cn-north-4.myhuaweicloud.com/v3/{project}/elb/pools/pool-blue/members/m-1");
/// let mut request = Request::new("DELETE", url).header("Content-Type", "application/json");
/// let at = Time::parse("20240102T030405Z").unwrap();
///
/// huawei::sign(&mut request, &credentials, project, at)?;
///
/// let (name, value) = request.headers.last().unwrap();
/// assert_eq!(name, "Authorization");
/// assert!(value.ends_with("Signature=698f8bfd2675a6c1c66d43ade57784a8808f3c4fa41b388de0e469b1d974c676"));
/// # Ok::<_, cutover_plugin_sdk::Failure>(())
/// ```
///
/// # Errors
/// `invalid` when the URL is none, `denied` when the session token is not granted.
pub fn sign<K: Key>(
    request: &mut Request,
    credentials: &Credentials<K>,
    project_id: &str,
    at: Time,
) -> Result<(), Failure> {
    let target = Target::of(&request.url)?;
    set_header(request, "X-Sdk-Date", at.basic());
    if !project_id.is_empty() {
        set_header(request, "X-Project-Id", project_id);
    }
    remove_header(request, "X-Security-Token");
    if let Some(token) = credentials.token_header("") {
        set_header(request, "X-Security-Token", token);
    }
    // The vendor's gateway hands headers with an underscore on under another name.
    let is_signed = |name: &str| !NEVER_SIGNED.contains(&name) && !name.contains('_');
    let headers = Headers::of(request, Inner::AsItIs, is_signed).with("host", &target.host);
    let names = headers.names();
    let canonical = [
        request.method.to_ascii_uppercase(),
        path(&target.path),
        query(&parameters(&target.query)),
        headers.lines(),
        names.clone(),
        body_hash(request),
    ];
    let digest = hex(&credentials.digest(&canonical.join("\n"))?);
    let text = format!("{ALGORITHM}\n{}\n{digest}", at.basic());
    let signature = credentials.secret_key.hmac_sha256(b"", text.as_bytes());
    let authorization = format!(
        "{ALGORITHM} Access={}, SignedHeaders={names}, Signature={}",
        credentials.access_key,
        hex(&signature)
    );
    set_header(request, "Authorization", authorization);
    Ok(())
}

fn body_hash(request: &Request) -> String {
    let mut headers = request.headers.iter();
    let given = headers.find(|(name, _)| name.eq_ignore_ascii_case(BODY_HASH));
    match given {
        Some((_, hash)) if !request.body.is_empty() => hash.trim().to_owned(),
        _ => hex(&sha256(&request.body)),
    }
}

/// Decoded and encoded again, with a slash at the end whether it has one or not.
fn path(sent: &str) -> String {
    let path = encode(&decode(sent, Plus::Itself), b"/");
    if path.ends_with('/') {
        path
    } else {
        path + "/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_down_in_one_way() {
        for (sent, expected) in [
            ("/", "/"),
            ("/v3/members", "/v3/members/"),
            ("/v3/members/", "/v3/members/"),
            ("//v3//members", "//v3//members/"),
            ("/a:b%20c+d~", "/a%3Ab%20c%2Bd~/"),
            ("/a%2fb", "/a/b/"),
        ] {
            assert_eq!(path(sent), expected, "{sent}");
        }
    }

    #[test]
    fn a_hash_of_the_body_may_be_given() {
        let request = |body: &str| {
            Request::new("PUT", "https://x")
                .header("x-sdk-content-sha256", "UNSIGNED-PAYLOAD")
                .body(body)
        };

        assert_eq!(body_hash(&request("{}")), "UNSIGNED-PAYLOAD");
        assert_eq!(body_hash(&request("")), hex(&sha256(b"")));
    }
}

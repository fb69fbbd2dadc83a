//! Whether a request is signed by a key that there is, with SDK-HMAC-SHA256, and not too long ago.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use crate::cloud::Request;

/// What is left as it is in paths and queries.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const ALGORITHM: &str = "SDK-HMAC-SHA256 ";
/// How far two clocks may be apart, in seconds.
const TOLERANCE: i64 = 15 * 60;
/// After so many wrong signatures in a row a key is locked.
const WRONG_AT_MOST: u32 = 5;

/// Access keys, by their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    keys: BTreeMap<String, Key>,
}

#[derive(Debug, Clone)]
struct Key {
    secret: String,
    /// Where it is a temporary one: its token, and whether it is still good.
    token: Option<(String, bool)>,
    wrong: u32,
}

impl Keys {
    pub(super) fn add(&mut self, id: &str, secret: &str, token: Option<&str>) {
        let key = Key {
            secret: secret.to_owned(),
            token: token.map(|token| (token.to_owned(), true)),
            wrong: 0,
        };
        self.keys.insert(id.to_owned(), key);
    }

    /// Lets all tokens expire.
    pub(super) fn expire(&mut self) {
        for key in self.keys.values_mut() {
            if let Some((_, is_good)) = &mut key.token {
                *is_good = false;
            }
        }
    }

    /// Checks a request; otherwise says why nobody believes it, as the vendor's gateway does.
    pub(super) fn check(&mut self, request: &Request, now: Timestamp) -> Result<(), String> {
        let header = request.header("authorization").unwrap_or_default();
        let parts = header.strip_prefix(ALGORITHM).and_then(parts_of);
        let Some((id, names, signature)) = parts else {
            return Err("Authorization is not SDK-HMAC-SHA256".to_owned());
        };
        let Some(key) = self.keys.get_mut(id) else {
            return Err(format!("ak {id} not exist"));
        };
        if key.wrong >= WRONG_AT_MOST {
            return Err("AK access failed to reach the limit,forbidden.".to_owned());
        }
        let told = request.header("x-sdk-date").unwrap_or_default();
        let signed_at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", told)
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC));
        let Ok(signed_at) = signed_at else {
            return Err("verify aksk signature fail, x-sdk-date is no time".to_owned());
        };
        if (signed_at.timestamp().as_second() - now.as_second()).abs() > TOLERANCE {
            return Err(format!(
                "calc aksk signature fail:signature expired, signature time:{told},server time:{}",
                now.strftime("%Y%m%dT%H%M%SZ")
            ));
        }
        let sent = request.header("x-security-token");
        match (&key.token, sent) {
            (None, None) => {}
            (Some((token, true)), Some(sent)) if token == sent => {}
            (Some((token, false)), Some(sent)) if token == sent => {
                return Err("token expires, expires_at: a moment ago".to_owned());
            }
            _ => return Err("decrypt token fail".to_owned()),
        }
        let names: Vec<&str> = names.split(';').collect();
        let is_whole = ["host", "x-sdk-date"]
            .iter()
            .chain(sent.map(|_| &"x-security-token"))
            .all(|name| names.contains(name));
        if !is_whole || sign(&key.secret, request, &names) != signature {
            key.wrong += 1;
            return Err("verify aksk signature fail".to_owned());
        }
        key.wrong = 0;
        Ok(())
    }
}

/// `Access=ID, SignedHeaders=a;b, Signature=HEX`
fn parts_of(text: &str) -> Option<(&str, &str, &str)> {
    let mut parts = text.split(", ");
    let id = parts.next()?.strip_prefix("Access=")?;
    let names = parts.next()?.strip_prefix("SignedHeaders=")?;
    let signature = parts.next()?.strip_prefix("Signature=")?;
    Some((id, names, signature))
}

/// The signature that a request should have.
fn sign(secret: &str, request: &Request, names: &[&str]) -> String {
    let headers: String = names
        .iter()
        .map(|name| {
            format!(
                "{name}:{}\n",
                request.header(name).unwrap_or_default().trim()
            )
        })
        .collect();
    let canonical = [
        request.method.clone(),
        path(&request.path),
        query(&request.query),
        headers,
        names.join(";"),
        hex(&Sha256::digest(&request.body)),
    ];
    let date = request.header("x-sdk-date").unwrap_or_default();
    let digest = hex(&Sha256::digest(canonical.join("\n")));
    let text = format!("{}\n{date}\n{digest}", ALGORITHM.trim_end());
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// Each segment encoded anew, with a slash at the end.
fn path(sent: &str) -> String {
    let decoded = percent_decode_str(sent).decode_utf8_lossy();
    let segments = decoded.split('/').map(encode);
    let path = segments.collect::<Vec<_>>().join("/");
    match path.ends_with('/') {
        true => path,
        false => path + "/",
    }
}

fn query(sent: &str) -> String {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut pairs: Vec<(String, String)> = sent
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect();
    pairs.sort();
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that the vendor's own signer signed.
    fn vector() -> Request {
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Sdk-Date", "20240102T030405Z"),
            ("X-Project-Id", "0605767f9a8e4b2c8f0d2f5c6a7b8c9d"),
            ("Host", "elb.cn-north-4.myhuaweicloud.com"),
            (
                "Authorization",
                "SDK-HMAC-SHA256 Access=AKEXAMPLE, SignedHeaders=content-type;host;x-project-id;x-sdk-date, \
                 Signature=9191f87736a32833f05cbd0cdb94b21fb8788abae93a689fe9cbda073424a3eb",
            ),
        ];
        Request {
            method: "GET".to_owned(),
            path: "/v3/0605767f9a8e4b2c8f0d2f5c6a7b8c9d/elb/pools/pool-blue/members".to_owned(),
            query: "limit=100&address=192.168.0.10".to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            body: Vec::new(),
        }
    }

    #[track_caller]
    fn check(keys: &mut Keys, request: &Request, seconds_later: i64, problem: Option<&str>) {
        let now: Timestamp = "2024-01-02T03:04:05Z".parse().unwrap();
        let now = Timestamp::from_second(now.as_second() + seconds_later).unwrap();

        let found = keys.check(request, now).err();

        match problem {
            None => assert_eq!(found, None),
            Some(problem) => {
                let found = found.unwrap_or_default();
                assert!(found.contains(problem), "{found}");
            }
        }
    }

    #[test]
    fn only_who_signed_is_believed() {
        let mut keys = Keys::default();
        keys.add("AKEXAMPLE", "SKEXAMPLE", None);
        let mut other = vector();
        other.query = "limit=101&address=192.168.0.10".to_owned();
        let mut bare = vector();
        bare.headers.pop();

        check(&mut keys, &vector(), 0, None);
        check(&mut keys, &vector(), 899, None);
        check(
            &mut keys,
            &vector(),
            901,
            Some("server time:20240102T031906Z"),
        );
        check(&mut keys, &vector(), -901, Some("signature expired"));
        check(&mut keys, &bare, 0, Some("not SDK-HMAC-SHA256"));
        check(
            &mut Keys::default(),
            &vector(),
            0,
            Some("ak AKEXAMPLE not exist"),
        );
        for _ in 0..5 {
            check(&mut keys, &other, 0, Some("verify aksk signature fail"));
        }
        check(&mut keys, &vector(), 0, Some("reach the limit"));
    }

    #[test]
    fn a_temporary_key_needs_its_token_signed() {
        let mut keys = Keys::default();
        keys.add("AKEXAMPLE", "SKEXAMPLE", Some("token"));
        let mut unsigned = vector();
        let header = ("X-Security-Token".to_owned(), "token".to_owned());
        unsigned.headers.push(header);

        check(&mut keys, &vector(), 0, Some("decrypt token fail"));
        check(&mut keys, &unsigned, 0, Some("verify aksk signature fail"));
        keys.expire();
        check(&mut keys, &unsigned, 0, Some("token expires"));
    }
}

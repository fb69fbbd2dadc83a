//! What a request has to be signed with, computed from the request as it came.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};

use super::super::Request;

/// How far a request's time may be from the cloud's.
const LARGEST_SKEW_SECONDS: i64 = 15 * 60;

/// Who may ask.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) token: Option<String>,
    pub(super) is_token_expired: bool,
}

/// Finds what is wrong with a signature.
pub(super) fn problem(
    request: &Request,
    account: &Account,
    region: &str,
    now_seconds: i64,
) -> Result<(), String> {
    let header = |name: &str| {
        let value = request.header(name);
        value.ok_or_else(|| format!("header {name} is missing"))
    };
    let authorization = header("authorization")?;
    let (algorithm, rest) = authorization
        .split_once(' ')
        .ok_or("the authorization has no algorithm")?;
    let (dialect, terminator) = match algorithm {
        "JDCLOUD2-HMAC-SHA256" => ("JDCLOUD2", "jdcloud2_request"),
        "JDCLOUD3-HMAC-SHA256" => ("JDCLOUD3", "jdcloud3_request"),
        other => return Err(format!("algorithm {other} is not known")),
    };
    let part = |name: &str| {
        let mut parts = rest.split(", ");
        let value = parts.find_map(|part| part.strip_prefix(name));
        value.ok_or_else(|| format!("the authorization has no {name}"))
    };
    let credential = part("Credential=")?;
    let signed = part("SignedHeaders=")?;
    let signature = part("Signature=")?;
    let date = header("x-jdcloud-date")?;
    header("x-jdcloud-nonce")?;
    let time: jiff::civil::DateTime = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .map_err(|_| format!("x-jdcloud-date {date} is no time"))?;
    let seconds = time
        .to_zoned(jiff::tz::TimeZone::UTC)
        .map_err(|_| "the time has no place in UTC")?
        .timestamp()
        .as_second();
    if (seconds - now_seconds).abs() > LARGEST_SKEW_SECONDS {
        return Err(format!("the request of {date} has expired"));
    }
    let scope = format!("{}/{region}/lb/{terminator}", &date[..8]);
    let (access_key, given) = credential
        .split_once('/')
        .ok_or("the credential has no scope")?;
    if access_key != account.access_key {
        return Err(format!("access key {access_key} does not exist"));
    }
    if given != scope {
        return Err(format!("the scope is {given}, and {scope} is meant"));
    }
    token_problem(request, account)?;
    let canonical = canonical(request, signed)?;
    let text = format!(
        "{algorithm}\n{date}\n{scope}\n{}",
        hex(&sha256(canonical.as_bytes()))
    );
    let mut key = format!("{dialect}{}", account.secret_key).into_bytes();
    for part in scope.split('/') {
        key = hmac(&key, part.as_bytes());
    }
    if hex(&hmac(&key, text.as_bytes())) == signature {
        Ok(())
    } else {
        Err("the signature does not match".to_owned())
    }
}

fn token_problem(request: &Request, account: &Account) -> Result<(), String> {
    let sent = request.header("x-jdcloud-security-token");
    let expected = account
        .token
        .as_ref()
        .map(|token| BASE64_STANDARD.encode(token));
    if sent != expected.as_deref() {
        return Err("the security token is invalid".to_owned());
    }
    match account.is_token_expired {
        true => Err("the security token has expired".to_owned()),
        false => Ok(()),
    }
}

fn canonical(request: &Request, signed: &str) -> Result<String, String> {
    let names: Vec<_> = signed.split(';').collect();
    if !names.contains(&"host") {
        return Err("host is not signed".to_owned());
    }
    let mut lines = String::new();
    for name in names {
        let value = request
            .header(name)
            .ok_or_else(|| format!("signed header {name} is missing"))?;
        lines.push_str(&format!("{name}:{}\n", value.trim()));
    }
    let mut pairs: Vec<String> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            format!("{}={}", recoded(name, ""), recoded(value, ""))
        })
        .collect();
    pairs.sort();
    Ok(format!(
        "{}\n{}\n{}\n{lines}\n{signed}\n{}",
        request.method,
        recoded(&request.path, "/"),
        pairs.join("&"),
        hex(&sha256(&request.body))
    ))
}

/// Decodes, and encodes all but letters, digits, `-_.~` and what is kept.
fn recoded(text: &str, kept: &str) -> String {
    let text = text.replace('+', " ");
    let decoded: Vec<u8> = percent_decode_str(&text).collect();
    let mut encoded = String::new();
    for byte in decoded {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.~".contains(c) || kept.contains(c) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn sha256(data: &[u8]) -> Vec<u8> {
    Sha256::digest(data).to_vec()
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of the vendors' vectors, signed as `signature` says.
    fn request(authorization: &str) -> Request {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Request {
            method: "POST".to_owned(),
            path: "/v1/regions/cn-north-1/targetGroups/tg-0123456789:deregisterTargets".to_owned(),
            query: String::new(),
            headers: vec![
                header("Host", "lb.jdcloud-api.com"),
                header("Content-Type", "application/json"),
                header("X-Jdcloud-Date", "20190917T064708Z"),
                header("X-Jdcloud-Nonce", "ed558a3b-9808-4edb-8597-187bda63a4f2"),
                header("Authorization", authorization),
            ],
            body: br#"{"targetIds":["t-1","t-2"]}"#.to_vec(),
        }
    }

    fn check(dialect: u8, signature: &str, now: &str) -> Result<(), String> {
        let account = Account {
            access_key: "ak".to_owned(),
            secret_key: "sk".to_owned(),
            token: None,
            is_token_expired: false,
        };
        let now: jiff::Timestamp = now.parse().unwrap();
        let authorization = format!(
            "JDCLOUD{dialect}-HMAC-SHA256 Credential=ak/20190917/cn-north-1/lb/jdcloud{dialect}_request, \
             SignedHeaders=content-type;host;x-jdcloud-date;x-jdcloud-nonce, Signature={signature}"
        );
        problem(
            &request(&authorization),
            &account,
            "cn-north-1",
            now.as_second(),
        )
    }

    #[test]
    fn signatures_of_both_dialects_are_those_of_the_vendors_own_clients() {
        let two = "08ebf0e842dc4ee4e051af2ce568104e2ce5815738472e68ec338e8c50d60beb";
        let three = "ba26fff648a9a5bf75ddfd8d58291237fcd309ec2211a2972e1a5c05d5f2f61d";
        let then = "2019-09-17T06:47:08Z";

        assert_eq!(check(2, two, then), Ok(()));
        assert_eq!(check(3, three, then), Ok(()));
        assert!(check(3, two, then).unwrap_err().contains("does not match"));
        assert!(
            check(2, two, "2019-09-17T07:47:08Z")
                .unwrap_err()
                .contains("expired")
        );
    }
}

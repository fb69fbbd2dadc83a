//! Checking signatures of AWS, version 4, from the request as it came.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::message::Request;

/// What a request is signed with, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) access_key: String,
    /// `yyyymmdd`, region, service and `aws4_request`.
    scope: Vec<String>,
    signed: Vec<String>,
    signature: String,
    /// As the request writes it.
    pub(super) date: String,
    pub(super) at: Timestamp,
}

/// What is wrong with a request's signature, before any key is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    Missing,
    Incomplete,
}

impl Signature {
    /// The signature that a request's headers tell of.
    pub(super) fn of(request: &Request) -> Result<Self, Malformed> {
        let header = request.header("authorization").ok_or(Malformed::Missing)?;
        let parts = header
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .ok_or(Malformed::Incomplete)?;
        let part = |name: &str| {
            let mut parts = parts.split(',').map(str::trim);
            parts
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
                .ok_or(Malformed::Incomplete)
        };
        let (access_key, scope) = part("Credential")?
            .split_once('/')
            .ok_or(Malformed::Incomplete)?;
        let date = request.header("x-amz-date").ok_or(Malformed::Incomplete)?;
        let at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date)
            .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC))
            .map_err(|_| Malformed::Incomplete)?;
        Ok(Self {
            access_key: access_key.to_owned(),
            scope: scope.split('/').map(str::to_owned).collect(),
            signed: part("SignedHeaders")?
                .split(';')
                .map(str::to_owned)
                .collect(),
            signature: part("Signature")?.to_owned(),
            date: date.to_owned(),
            at: at.timestamp(),
        })
    }

    /// Whether a request is signed with this key for a region and a service, with what has to be in it.
    pub(super) fn is_good(
        &self,
        request: &Request,
        key: &str,
        region: &str,
        service: &str,
    ) -> bool {
        let day = self.date.split('T').next().unwrap_or_default();
        let scope = [day, region, service, "aws4_request"];
        let has_to = ["host", "x-amz-date", "x-amz-security-token"]
            .iter()
            .filter(|name| request.header(name).is_some());
        if self.scope != scope
            || !has_to
                .into_iter()
                .all(|name| self.signed.iter().any(|it| it == name))
        {
            return false;
        }
        let text = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.date,
            scope.join("/"),
            hex(&Sha256::digest(self.canonical(request)))
        );
        let key = format!("AWS4{key}").into_bytes();
        let key = scope.iter().fold(key, |key, part| hmac(&key, part));
        hex(&hmac(&key, &text)) == self.signature
    }

    fn canonical(&self, request: &Request) -> String {
        let headers = self.signed.iter().map(|name| {
            let value = request.header(name).unwrap_or_default();
            let words: Vec<_> = value.split_whitespace().collect();
            format!("{name}:{}\n", words.join(" "))
        });
        let mut query: Vec<&str> = request
            .query
            .split('&')
            .filter(|it| !it.is_empty())
            .collect();
        query.sort_unstable();
        format!(
            "{}\n{}\n{}\n{}\n{}\n{}",
            request.method,
            request.path,
            query.join("&"),
            headers.collect::<String>(),
            self.signed.join(";"),
            hex(&Sha256::digest(&request.body))
        )
    }
}

fn hmac(key: &[u8], data: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call as botocore signs it.
    fn signed(body: &str, signature: &str) -> Request {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240102/us-east-1/elasticloadbalancing/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, Signature={signature}"
        );
        let headers = [
            (
                "Content-Type",
                "application/x-www-form-urlencoded; charset=utf-8",
            ),
            ("Host", "elasticloadbalancing.us-east-1.amazonaws.com"),
            ("X-Amz-Date", "20240102T030405Z"),
            ("Authorization", &authorization),
        ];
        Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn what_botocore_signed_is_good_and_what_somebody_changed_is_not() {
        const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let service = "elasticloadbalancing";
        let mut request = signed(
            "Action=DescribeTargetHealth&Version=2015-12-01&TargetGroupArn=arn%3Aaws%3Aelasticloadbalancing%3Aus-east-1%3A123456789012%3Atargetgroup%2Ftg-blue%2F73e2d6bc24d8a067",
            "0257f874a80b0f42dd222e39132f98df72ea558c3e31b1d42333a2dbebd73f66",
        );
        let signature = Signature::of(&request).unwrap();

        assert_eq!(signature.access_key, "AKIDEXAMPLE");
        assert_eq!(signature.at.to_string(), "2024-01-02T03:04:05Z");
        assert!(signature.is_good(&request, KEY, "us-east-1", service));
        assert!(!signature.is_good(&request, "another", "us-east-1", service));
        assert!(!signature.is_good(&request, KEY, "eu-west-1", service));
        request.body.push(b'0');
        assert!(!signature.is_good(&request, KEY, "us-east-1", service));
        request.headers.truncate(2);
        assert_eq!(Signature::of(&request), Err(Malformed::Missing));
    }
}

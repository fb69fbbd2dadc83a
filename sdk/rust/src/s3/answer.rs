//! What the service says of a request that it refuses, and what can be done about it.

use super::Vendor;
use super::reference::{Pin, Reference};
use crate::http::Response;
use crate::{Failure, FailureClass, Time};

/// How much of a text a message has, in characters.
const QUOTED: usize = 300;

/// What a request was about.
pub(super) struct About<'a> {
    pub(super) vendor: &'a Vendor,
    pub(super) reference: &'a Reference<'a>,
    pub(super) access_key: Option<&'a str>,
    pub(super) region: &'a str,
    pub(super) now: Time,
}

/// The code in an answer's body.
pub(super) fn code_of(answer: &Response) -> Option<String> {
    element(&answer.text(), "Code")
}

/// What the service calls a request.
pub(super) fn request_id(answer: &Response) -> Option<String> {
    let id = answer.header("x-amz-request-id").map(str::to_owned);
    id.or_else(|| element(&answer.text(), "RequestId"))
}

/// The text of the first element of a name.
pub(super) fn element(text: &str, name: &str) -> Option<String> {
    elements(text, name).next()
}

/// The texts of all elements of a name, which hold no others.
pub(super) fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = String> + use<'a> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once(&open)?;
            let (inner, after) = after.split_once(&close)?;
            rest = after;
            let inner = unescaped(inner);
            if !inner.trim().is_empty() {
                return Some(inner.trim().to_owned());
            }
        }
    })
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

impl About<'_> {
    /// What became of a request: `head` was answered first, `told` has a body.
    pub(super) fn failure(&self, head: &Response, told: &Response) -> Failure {
        let text = told.text();
        let code = element(&text, "Code").unwrap_or_else(|| told.status.to_string());
        let said = element(&text, "Message");
        let mut message = format!(
            "{} refuses `{}`: {code}",
            self.vendor.name,
            self.reference.plain(self.vendor)
        );
        if let Some(said) = said {
            let said: String = said
                .chars()
                .filter(|c| !c.is_control())
                .take(QUOTED)
                .collect();
            message.push_str(&format!(": {said}"));
        }
        if code == "RequestTimeTooSkewed" {
            message.push_str(&self.both_times(told, &text));
        }
        let id = request_id(told);
        if let Some(id) = &id {
            message.push_str(&format!(" (request id {id})"));
        }
        let class = class(told.status, &code);
        let mut failure = Failure::new(class, format!("{}.{code}", self.vendor.code), message);
        if let Some(hint) = self.hint(&code, head, told, &text) {
            failure = failure.hint(hint);
        }
        if let Some(id) = id {
            failure = failure.attribute(format!("{}.request-id", self.vendor.code), id);
        }
        match told.retry_after() {
            Some(wait) => failure.retry_after(wait),
            None => failure,
        }
    }

    fn both_times(&self, told: &Response, text: &str) -> String {
        let there = element(text, "ServerTime");
        let there = there.or_else(|| told.header("date").map(str::to_owned));
        let there = there.unwrap_or_else(|| "another time".to_owned());
        format!(": it is {} here and {there} there", self.now)
    }

    fn hint(&self, code: &str, head: &Response, told: &Response, text: &str) -> Option<String> {
        let key = self.access_key.unwrap_or_default();
        Some(match code {
            "InvalidAccessKeyId" | "InvalidClientTokenId" => format!(
                "check `access_key`: {} knows no key `{key}`; one that begins with `ASIA` needs `secrets.session_token` too",
                self.vendor.name
            ),
            "SignatureDoesNotMatch" => format!(
                "check the secret `secret-key`: it is not the one of the access key `{key}`"
            ),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                "get new temporary credentials, and replace access key, secret key and session token together".to_owned()
            }
            "RequestTimeTooSkewed" => {
                "set the clock of this machine by a time server, and try again".to_owned()
            }
            "AccessDenied" | "403" | "AllAccessDisabled" if self.access_key.is_none() => {
                "the object is not public: name an `access_key`, and grant its secret".to_owned()
            }
            "AccessDenied" | "403" | "AllAccessDisabled" => self.permission(),
            "NoSuchKey" if head.header("x-amz-delete-marker") == Some("true") => format!(
                "the object was deleted: name one of its earlier versions, as `{}?versionId=ID`",
                self.reference.plain(self.vendor)
            ),
            "PreconditionFailed" | "412" => {
                "the object was replaced since its tag was noted: name it without `?etag=`, or switch versions of the bucket on".to_owned()
            }
            "NoSuchVersion" | "InvalidArgument" if matches!(self.reference.pin, Pin::Version(_)) => {
                "check the id behind `?versionId=`: the object has no such version".to_owned()
            }
            "InvalidObjectState" => {
                "restore the object, and try again when that is done".to_owned()
            }
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "TemporaryRedirect"
            | "IllegalLocationConstraintException" | "301" | "307" => {
                let region = element(text, "Region")
                    .or_else(|| told.header("x-amz-bucket-region").map(str::to_owned))
                    .or_else(|| head.header("x-amz-bucket-region").map(str::to_owned));
                match region {
                    Some(region) if region != self.region => {
                        format!("write `region: {region}`: the bucket is not in `{}`", self.region)
                    }
                    _ => format!(
                        "check `region` and `endpoint`: the bucket is not in `{}`",
                        self.region
                    ),
                }
            }
            _ => return None,
        })
    }

    fn permission(&self) -> String {
        let action = match self.reference.pin {
            Pin::Version(_) => "s3:GetObjectVersion",
            _ => "s3:GetObject",
        };
        let Reference { bucket, key, .. } = self.reference;
        format!(
            "allow `{action}` on `arn:aws:s3:::{bucket}/{key}`; without `s3:ListBucket` on the bucket, an object that is not there is denied as well"
        )
    }
}

fn class(status: u16, code: &str) -> FailureClass {
    match (code, status) {
        ("SlowDown" | "TooManyRequests" | "RequestLimitExceeded" | "ServiceUnavailable", _)
        | (_, 429 | 503) => FailureClass::Throttled,
        ("RequestTimeout", _) | (_, 408 | 500..) => FailureClass::Transient,
        ("InvalidObjectState", _) => FailureClass::Permanent,
        ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", _) | (_, 401 | 403) => {
            FailureClass::Denied
        }
        (_, 404) => FailureClass::NotFound,
        (_, 412) => FailureClass::Conflict,
        (_, 301 | 307 | 400) => FailureClass::Invalid,
        _ => FailureClass::Permanent,
    }
}

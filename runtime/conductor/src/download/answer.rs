//! What a server says of a request that it does not fulfil.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use ureq::Body;
use ureq::http::header::RETRY_AFTER;
use ureq::http::{Response, StatusCode};

/// How much of an answer is read.
const READ: u64 = 16 << 10;
/// How much of a text a message shows, in characters.
const SHOWN: usize = 300;

/// An answer that is no package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// What an object storage writes into the body: its code, its words, the id of the request.
    pub said: Option<String>,
    /// How long to wait at least before the next request.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// Reads what there is to read of it.
    pub(super) fn of(response: Response<Body>) -> Self {
        let status = response.status().as_u16();
        let seconds = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut text = Vec::new();
        // What breaks off says less, and is not why there is no package.
        let _ = response
            .into_body()
            .into_reader()
            .take(READ)
            .read_to_end(&mut text);
        Self {
            status,
            said: said(&String::from_utf8_lossy(&text)),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    /// Whether the same request may be answered otherwise a little later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 425 | 429 | 500..)
    }
}

/// Whether a server does not take the credentials that came with a request. To some, what has expired is a bad request.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403)
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered with {}", self.status)?;
        let status = StatusCode::from_u16(self.status).ok();
        if let Some(reason) = status.and_then(|status| status.canonical_reason()) {
            write!(f, " {reason}")?;
        }
        match &self.said {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Answer {}

/// What S3 and what is compatible with it say: `<Error><Code>…</Code><Message>…</Message>…</Error>`.
fn said(text: &str) -> Option<String> {
    let error = text.split_once("<Error>")?.1;
    let mut said = element(error, "Code")?;
    if let Some(message) = element(error, "Message") {
        said.push_str(&format!(": {message}"));
    }
    if let (Some(sent), Some(there)) = (element(error, "RequestTime"), element(error, "ServerTime"))
    {
        said.push_str(&format!(" (this machine says {sent}, the server {there})"));
    }
    if let Some(id) = element(error, "RequestId") {
        said.push_str(&format!(" (request id {id})"));
    }
    Some(said)
}

fn element(text: &str, name: &str) -> Option<String> {
    let inner = text.split_once(&format!("<{name}>"))?.1;
    let inner = inner.split_once(&format!("</{name}>"))?.0;
    let plain = inner
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    let shown = plain.chars().filter(|c| !c.is_control()).take(SHOWN);
    let shown: String = shown.collect();
    (!shown.trim().is_empty()).then(|| shown.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_storage_says_why_and_which_request_it_was() {
        let skewed = "<?xml version=\"1.0\"?>\n<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is &gt; 15 min</Message>\
                      <RequestTime>20260101T000000Z</RequestTime><ServerTime>2026-01-01T02:00:00Z</ServerTime><RequestId>4442587FB7D0A2F9</RequestId></Error>";

        assert_eq!(
            said(skewed).unwrap(),
            "RequestTimeTooSkewed: The difference is > 15 min (this machine says 20260101T000000Z, the server 2026-01-01T02:00:00Z) (request id 4442587FB7D0A2F9)"
        );
        assert_eq!(
            said("<Error><Code>NoSuchKey</Code></Error>").as_deref(),
            Some("NoSuchKey")
        );
        assert_eq!(said("<html><h1>403 Forbidden</h1></html>"), None);
    }

    #[test]
    fn a_status_has_its_name() {
        let answer = |status| {
            let answer = Answer {
                status,
                said: None,
                retry_after: None,
            };
            answer.to_string()
        };

        assert_eq!(answer(404), "the server answered with 404 Not Found");
        assert_eq!(answer(299), "the server answered with 299");
    }
}

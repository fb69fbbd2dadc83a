//! A client for HTTP: one request, one answer, through the host.
//!
//! The host sends a request only to what the operator granted, fills `{{secret:NAME}}` into header values, checks where
//! names lead, trusts the operator's roots, uses the proxy, and bounds time and sizes. It follows no redirects.

use std::borrow::Cow;
use std::time::Duration;

use crate::Failure;
use crate::bindings::host::cutover::plugin::http as host;
use crate::bindings::http::wasi::http::outgoing_handler;
use crate::bindings::http::wasi::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme,
};
use crate::bindings::http::wasi::io::streams::StreamError;

/// How much one read or write moves: what a stream takes at once at most.
const CHUNK: usize = 4096;

/// A request, built step by step.
///
/// ```
/// use std::time::Duration;
///
/// use cutover_plugin_sdk::http::Request;
///
/// let request = Request::get("https://api.example.com/v1/pools?name=shop")
///     .header("Authorization", "Bearer {{secret:api-token}}")
///     .timeout(Duration::from_secs(5));
///
/// assert_eq!(request.method, "GET");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The time for the whole answer; without it the time that the call has left.
    pub timeout: Option<Duration>,
}

impl Request {
    /// Makes a request without headers and body.
    #[must_use]
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
        }
    }

    /// Makes a request that reads.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// Adds a header. `{{secret:NAME}}` in the value is filled in by the host.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Bounds the time for the whole answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// An answer, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of a name, where it is text.
    ///
    /// ```
    /// use cutover_plugin_sdk::http::Response;
    ///
    /// let response = Response {
    ///     headers: vec![("retry-after".to_owned(), b"5".to_vec())],
    ///     ..Response::default()
    /// };
    ///
    /// assert_eq!(response.header("Retry-After"), Some("5"));
    /// ```
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// How long a `Retry-After` header asks to wait, where it is a number of seconds and no date.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use cutover_plugin_sdk::http::Response;
    ///
    /// let response = Response {
    ///     headers: vec![("retry-after".to_owned(), b"5".to_vec())],
    ///     ..Response::default()
    /// };
    ///
    /// assert_eq!(response.retry_after(), Some(Duration::from_secs(5)));
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// The body as text; what is no text is replaced.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// Sends a request and waits for the whole answer. Any status is an answer, also a redirect.
///
/// ```no_run
/// use cutover_plugin_sdk::http::{Request, send};
///
/// # fn main() -> Result<(), cutover_plugin_sdk::Failure> {
/// let response = send(&Request::get("https://api.example.com/v1/pools"))?;
/// cutover_plugin_sdk::info!("answered with {}", response.status);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `denied` with the line that would grant the host, `transient` when nothing answers, `unknown-outcome` when a request
/// that may change something was sent and no answer came.
pub fn send(request: &Request) -> Result<Response, Failure> {
    let (scheme, authority, path) = parts(&request.url)?;
    let invalid = |what: &str| {
        let message = format!("the {what} of the request to `{authority}` is not valid");
        Failure::invalid("http.request", message)
    };
    let headers = Fields::new();
    for (name, value) in &request.headers {
        headers
            .append(name, value.as_bytes())
            .map_err(|_| invalid(&format!("header `{name}`")))?;
    }
    if !request.body.is_empty() {
        let length = request.body.len().to_string();
        headers
            .append("content-length", length.as_bytes())
            .map_err(|_| invalid("body's length"))?;
    }
    let outgoing = OutgoingRequest::new(headers);
    outgoing
        .set_method(&method(&request.method))
        .map_err(|()| invalid("method"))?;
    outgoing
        .set_scheme(Some(&scheme))
        .map_err(|()| invalid("scheme"))?;
    outgoing
        .set_authority(Some(authority))
        .map_err(|()| invalid("host"))?;
    outgoing
        .set_path_with_query(Some(&path))
        .map_err(|()| invalid("path"))?;
    let options = RequestOptions::new();
    if let Some(timeout) = request.timeout {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        options
            .set_first_byte_timeout(Some(nanos))
            .map_err(|()| invalid("timeout"))?;
    }
    let body = outgoing.body().map_err(|()| invalid("body"))?;
    let answer = outgoing_handler::handle(outgoing, Some(options)).map_err(failure)?;
    write(body, &request.body)?;
    answer.subscribe().block();
    match answer.get() {
        Some(Ok(Ok(response))) => read(&response),
        Some(Ok(Err(error))) => Err(failure(error)),
        // The host broke its word; nothing is known of the request.
        Some(Err(())) | None => Err(Failure::unknown_outcome(
            "http.no-answer",
            format!("the host has no answer of `{authority}`"),
        )),
    }
}

fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), Failure> {
    if !bytes.is_empty() {
        let stream = body
            .write()
            .map_err(|()| Failure::invalid("http.request", "the request has no body to write"))?;
        for chunk in bytes.chunks(CHUNK) {
            // The answer says why a host would not take the body.
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
    }
    // As above: what is wrong with the request comes with its answer.
    let _ = OutgoingBody::finish(body, None);
    Ok(())
}

fn read(response: &IncomingResponse) -> Result<Response, Failure> {
    let broken = |_| Failure::transient("http.body", "the body of the answer broke off");
    let headers = response.headers().entries();
    let body: IncomingBody = response.consume().map_err(broken)?;
    let stream = body.stream().map_err(broken)?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(1 << 20) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => return Err(broken(())),
        }
    }
    Ok(Response {
        status: response.status(),
        headers,
        body: bytes,
    })
}

/// What the host says about it; its error codes alone where it says nothing.
fn failure(error: ErrorCode) -> Failure {
    host::last_failure().unwrap_or_else(|| {
        let message = format!("the request failed: {error:?}");
        match error {
            ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
                Failure::denied("http.denied", message)
            }
            _ => Failure::unknown_outcome("http.failed", message),
        }
    })
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// Scheme, host with port, and path with query of a URL.
pub(crate) fn parts(url: &str) -> Result<(Scheme, &str, Cow<'_, str>), Failure> {
    let invalid = |why: &str| {
        // What stands behind the host may be confidential.
        let until = url.find(['?', '#']).unwrap_or(url.len());
        Failure::invalid("http.url", format!("`{}` {why}", &url[..until]))
    };
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        _ => return Err(invalid("does not begin with `https://` or `http://`")),
    };
    let rest = rest.split('#').next().unwrap_or(rest);
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() {
        return Err(invalid("names no host"));
    }
    if authority.contains('@') {
        return Err(Failure::invalid(
            "http.url",
            "a URL holds a user or a password: put them into a header, with `{{secret:NAME}}`",
        ));
    }
    let path = match path.as_bytes().first() {
        Some(b'/') => Cow::Borrowed(path),
        _ => Cow::Owned(format!("/{path}")),
    };
    Ok((scheme, authority, path))
}

/// Whether a text is a scheme and a host, as operators name where an API is: without a path, a query or a user.
///
/// ```
/// use cutover_plugin_sdk::http::is_origin;
///
/// assert!(is_origin("https://api.example.com") && is_origin("http://127.0.0.1:8080/"));
/// assert!(!is_origin("api.example.com") && !is_origin("https://api.example.com/v1"));
/// ```
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .map(|host| host.trim_end_matches('/'));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']))
}

/// Writes a text so that it stands for itself in the path or the query of a URL.
///
/// ```
/// assert_eq!(cutover_plugin_sdk::http::percent_encode("a b/ü&c"), "a%20b%2F%C3%BC%26c");
/// ```
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, host, path) in [
            ("https://a.example", "a.example", "/"),
            ("https://a.example:8443/x?y=1#z", "a.example:8443", "/x?y=1"),
            ("http://[::1]:80?q", "[::1]:80", "/?q"),
        ] {
            let (_, found, rest) = parts(url).unwrap();
            assert_eq!((found, &*rest), (host, path), "{url}");
        }
    }

    #[test]
    fn a_url_that_is_none_is_named_without_its_query() {
        for (url, message) in [
            (
                "ftp://a/b?token=1",
                "`ftp://a/b` does not begin with `https://` or `http://`",
            ),
            ("https:///x", "`https:///x` names no host"),
        ] {
            assert_eq!(parts(url).unwrap_err().message, message);
        }
        let with_password = parts("https://user:hunter2@a/").unwrap_err();
        assert!(!with_password.message.contains("hunter2"));
    }
}

//! The parts of a request in the forms that the schemes agree on.

use std::collections::BTreeMap;

use crate::Failure;
use crate::http::{Request, parts};

/// Where a request goes, as the host sends it.
pub(super) struct Target {
    /// The value of the header `host`: with the port where it is not the scheme's usual one.
    pub(super) host: String,
    /// Percent-encoded as in the URL.
    pub(super) path: String,
    /// Likewise, without the question mark.
    pub(super) query: String,
}

impl Target {
    pub(super) fn of(url: &str) -> Result<Self, Failure> {
        let (_, authority, path) = parts(url)?;
        let usual = if url.starts_with("https:") {
            ":443"
        } else {
            ":80"
        };
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        Ok(Self {
            host: authority
                .strip_suffix(usual)
                .unwrap_or(authority)
                .to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }
}

/// What a plus stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    Itself,
    Space,
}

/// The bytes that a percent-encoded text stands for. A percent sign that encodes nothing stands for itself.
pub(super) fn decode(text: &str, plus: Plus) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let byte = match (first, after) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                    continue;
                }
                _ => first,
            },
            (b'+', _) if plus == Plus::Space => b' ',
            _ => first,
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// Percent-encodes all but letters, digits, `-._~` and what is in `keep`.
pub(super) fn encode(bytes: &[u8], keep: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// One name of a query with its value, both encoded in the one way that is signed. Without `=` there is no value.
pub(super) type Parameter = (String, Option<String>);

/// The parameters of a query, sorted.
pub(super) fn parameters(query: &str) -> Vec<Parameter> {
    let canonical = |text: &str| encode(&decode(text, Plus::Space), b"");
    let mut parameters: Vec<_> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| match parameter.split_once('=') {
            Some((name, value)) => (canonical(name), Some(canonical(value))),
            None => (canonical(parameter), None),
        })
        .collect();
    parameters.sort();
    parameters
}

/// Parameters as a query. One without a value has an empty one.
pub(super) fn query(parameters: &[Parameter]) -> String {
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or_default()))
        .collect();
    parameters.join("&")
}

/// Whether runs of white space in a header's value count as one space.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Inner {
    AsItIs,
    OneSpace,
}

/// The headers that are signed, by their names in lower case.
#[derive(Default)]
pub(super) struct Headers(BTreeMap<String, String>);

impl Headers {
    /// Those of a request whose names `is_signed` takes, trimmed. Several of one name become a list.
    pub(super) fn of(request: &Request, inner: Inner, is_signed: impl Fn(&str) -> bool) -> Self {
        let mut headers = BTreeMap::<String, String>::new();
        for (name, value) in &request.headers {
            let name = name.to_ascii_lowercase();
            if !is_signed(&name) {
                continue;
            }
            let value = match inner {
                Inner::AsItIs => value.trim().to_owned(),
                Inner::OneSpace => value.split_whitespace().collect::<Vec<_>>().join(" "),
            };
            headers
                .entry(name)
                .and_modify(|list| {
                    list.push(',');
                    list.push_str(&value);
                })
                .or_insert(value);
        }
        Self(headers)
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// `name:value` and a line feed for each.
    pub(super) fn lines(&self) -> String {
        let lines = self.0.iter();
        lines
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect()
    }

    /// `one;other`
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.0.keys().map(String::as_str).collect();
        names.join(";")
    }
}

/// Sets a header that there is once.
pub(super) fn set_header(request: &mut Request, name: &str, value: impl Into<String>) {
    remove_header(request, name);
    request.headers.push((name.to_owned(), value.into()));
}

pub(super) fn remove_header(request: &mut Request, name: &str) {
    request
        .headers
        .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_is_sent() {
        for (url, host, path, query) in [
            ("https://a.example", "a.example", "/", ""),
            ("https://a.example:443/x?y=1", "a.example", "/x", "y=1"),
            ("http://a.example:80", "a.example", "/", ""),
            ("http://127.0.0.1:8080/a/b", "127.0.0.1:8080", "/a/b", ""),
            ("http://a.example:443/", "a.example:443", "/", ""),
            ("http://[::1]:80/", "[::1]", "/", ""),
        ] {
            let target = Target::of(url).unwrap();
            assert_eq!(
                (&*target.host, &*target.path, &*target.query),
                (host, path, query),
                "{url}"
            );
        }
    }

    #[test]
    fn parameters_are_encoded_in_one_way_and_sorted() {
        for (raw, expected) in [
            ("", ""),
            ("b=2&a=1", "a=1&b=2"),
            ("a=2&a=1&a=", "a=&a=1&a=2"),
            ("a=b c&d=e+f", "a=b%20c&d=e%20f"),
            ("x=%7e%2f%2B", "x=~%2F%2B"),
            ("A=1&a=2&_=3", "A=1&_=3&a=2"),
            ("name=值", "name=%E5%80%BC"),
            ("half=%2&end=%", "end=%25&half=%252"),
            ("flag", "flag="),
            ("a=b=c", "a=b%3Dc"),
        ] {
            assert_eq!(query(&parameters(raw)), expected, "{raw}");
        }
    }

    #[test]
    fn headers_are_trimmed_joined_and_sorted() {
        let request = Request::get("http://x")
            .header("X-B", "  two  words ")
            .header("x-a", "1")
            .header("X-A", "2")
            .header("User-Agent", "me");

        let squeezed = Headers::of(&request, Inner::OneSpace, |name| name != "user-agent");
        let trimmed = Headers::of(&request, Inner::AsItIs, |name| name == "x-b");

        assert_eq!(squeezed.lines(), "x-a:1,2\nx-b:two words\n");
        assert_eq!(squeezed.names(), "x-a;x-b");
        assert_eq!(trimmed.lines(), "x-b:two  words\n");
    }
}

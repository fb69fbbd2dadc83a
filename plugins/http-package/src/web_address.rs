//! The parts of a web address that matter here.

use cutover_plugin_sdk::Failure;

/// A checked `http` or `https` URL without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WebAddress<'a> {
    path: &'a str,
}

impl<'a> WebAddress<'a> {
    pub(crate) fn parse(url: &'a str) -> Result<Self, Failure> {
        let invalid = |why: &str| {
            Failure::invalid(
                "http-package.reference",
                format!("{why}: `{}`", redacted(url)),
            )
        };
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"))
            .ok_or_else(|| invalid("not a URL that begins with `https://` or `http://`"))?;
        if url
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '\\')
        {
            return Err(invalid("a URL has neither spaces nor backslashes"));
        }
        if url.contains('#') {
            return Err(invalid("a fragment other than `#sha256=HEX` means nothing"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(invalid("a URL must not carry a user or password").hint(
                "write a header with `{{secret:NAME}}` in the plugin's config and grant the secret",
            ));
        }
        let host = authority
            .split_once(':')
            .map_or(authority, |(host, _)| host);
        if host.is_empty() {
            return Err(invalid("a URL needs a host"));
        }
        Ok(Self {
            path: path.split('?').next().unwrap_or_default(),
        })
    }

    pub(crate) fn path(&self) -> &'a str {
        self.path
    }
}

/// The URL without what stands before `@`, so that a password does not get into a message.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://…{}", &rest[at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_path_apart() {
        for (url, path) in [
            ("https://packages.example/a/app.zip", "/a/app.zip"),
            ("http://127.0.0.1:8080/app.zip?x=/y", "/app.zip"),
            ("https://[::1]:8443/app.zip", "/app.zip"),
            ("https://packages.example", ""),
            ("https://packages.example?x", ""),
        ] {
            assert_eq!(WebAddress::parse(url).unwrap().path(), path, "{url}");
        }
    }

    #[test]
    fn refuses_what_is_no_plain_web_address() {
        for url in [
            "ftp://h/a",
            "https:///a",
            "https://:80/a",
            "https://h/a b",
            "https://h\\@evil/a",
            "https://h/a#b",
            "app.zip",
        ] {
            assert!(WebAddress::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn refuses_credentials_and_does_not_repeat_them() {
        let failure =
            WebAddress::parse("https://user:hunter2@packages.example/app.zip").unwrap_err();

        assert!(!failure.message.contains("hunter2"), "{}", failure.message);
        assert!(failure.hint.unwrap().contains("{{secret:NAME}}"));
    }
}

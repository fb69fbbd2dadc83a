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
        if is_signed(rest[end..].split_once('?').map_or("", |(_, query)| query)) {
            let until = url.find('?').unwrap_or(url.len());
            return Err(Failure::invalid(
                "http-package.signed",
                format!("a signed URL would end up in records and logs: `{}`", &url[..until]),
            )
            .hint("name the object, as `s3://BUCKET/KEY`, with a plugin that has the credentials, or name a file that was downloaded"));
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

/// Whether a query is a credential, as those that object storages sign are.
fn is_signed(query: &str) -> bool {
    let has = |name: &str| {
        let mut parameters = query.split('&');
        parameters.any(|parameter| {
            let key = parameter.split('=').next().unwrap_or_default();
            key.eq_ignore_ascii_case(name)
        })
    };
    // As S3, Google's, Huawei's and Azure's storage write them.
    has("x-amz-signature")
        || has("x-goog-signature")
        || has("x-obs-signature")
        || has("signature") && has("expires")
        || has("sig") && has("se")
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
    fn refuses_a_signed_url_and_does_not_repeat_the_signature() {
        for query in [
            "X-Amz-Expires=60&X-Amz-Signature=hunter2",
            "Expires=1&Signature=hunter2",
            "sv=1&se=2&sig=hunter2",
        ] {
            let failure = WebAddress::parse(&format!("https://h/a?{query}")).unwrap_err();

            assert!(!failure.message.contains("hunter2"), "{}", failure.message);
            assert!(failure.hint.unwrap().contains("s3://BUCKET/KEY"));
        }
        assert!(WebAddress::parse("https://h/a?signature=of-the-painter").is_ok());
    }

    #[test]
    fn refuses_credentials_and_does_not_repeat_them() {
        let failure =
            WebAddress::parse("https://user:hunter2@packages.example/app.zip").unwrap_err();

        assert!(!failure.message.contains("hunter2"), "{}", failure.message);
        assert!(failure.hint.unwrap().contains("{{secret:NAME}}"));
    }
}

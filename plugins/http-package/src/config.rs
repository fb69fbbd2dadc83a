//! Mirrors, headers, and where checksums are.

use cutover_plugin_sdk::{Checksum, Diagnostic, Download, Header};
use serde::Deserialize;

use crate::web_address::WebAddress;

/// The configuration. All of it may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    mirrors: Vec<Mirror>,
    #[serde(default)]
    headers: Vec<HeaderRule>,
    #[serde(default)]
    checksums: Vec<ChecksumRule>,
}

/// Which file says the digests of all packages below a URL. Without a rule the host looks for the usual ones.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChecksumRule {
    /// The beginning of the URLs, with a slash at its end.
    url: String,
    /// Its URL, with `{url}`, `{folder}` and `{name}` for those of the package; or `none`.
    file: String,
}

/// No file is looked for.
const NONE: &str = "none";

/// What is looked for without a rule.
const USUAL: [&str; 2] = ["{url}.sha256", "{folder}SHA256SUMS"];

/// A second place for all packages below a URL. It is asked before the place that the reference names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    /// The beginning of the references that it holds, with a slash at its end.
    of: String,
    /// What stands in its place.
    at: String,
}

/// A header that is sent to all URLs below one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderRule {
    /// The beginning of the URLs, with a slash at its end.
    url: String,
    name: String,
    /// May hold `{{secret:NAME}}`, which the host fills in.
    value: String,
}

impl Config {
    /// Where a package can be had, in order of preference: mirrors as listed, then the reference itself.
    pub(crate) fn downloads(&self, url: &str) -> Vec<Download> {
        let mirrored = self
            .mirrors
            .iter()
            .filter_map(|mirror| Some(format!("{}{}", mirror.at, url.strip_prefix(&mirror.of)?)));
        mirrored
            .chain([url.to_owned()])
            .map(|url| Download {
                headers: self.headers_for(&url),
                checksums: self.checksums_of(&url),
                ..Download::of(url)
            })
            .collect()
    }

    fn headers_for(&self, url: &str) -> Vec<Header> {
        self.headers
            .iter()
            .filter(|rule| url.starts_with(&rule.url))
            .map(|rule| Header {
                name: rule.name.clone(),
                value: rule.value.clone(),
            })
            .collect()
    }

    fn checksums_of(&self, url: &str) -> Vec<Checksum> {
        let Ok(address) = WebAddress::parse(url) else {
            return Vec::new();
        };
        let name = address.path().rsplit('/').next().unwrap_or_default();
        let checksum = |template: &str, needed| {
            let whole = url.split('?').next().unwrap_or(url);
            let folder = whole.strip_suffix(name).unwrap_or(whole);
            let url = template
                .replace("{url}", whole)
                .replace("{folder}", folder)
                .replace("{name}", name);
            Checksum {
                headers: self.headers_for(&url),
                url,
                file_name: name.to_owned(),
                needed,
            }
        };
        let mut rules = self.checksums.iter();
        match rules.find(|rule| url.starts_with(&rule.url)) {
            Some(rule) if rule.file == NONE => Vec::new(),
            Some(rule) => vec![checksum(&rule.file, true)],
            // What a program answers with has nothing lying beside it.
            None if name.is_empty() || url.contains('?') => Vec::new(),
            None => USUAL.iter().map(|usual| checksum(usual, false)).collect(),
        }
    }

    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        for (index, mirror) in self.mirrors.iter().enumerate() {
            findings.extend(prefix_finding(&format!("/mirrors/{index}/of"), &mirror.of));
            findings.extend(prefix_finding(&format!("/mirrors/{index}/at"), &mirror.at));
        }
        for (index, rule) in self.headers.iter().enumerate() {
            findings.extend(prefix_finding(&format!("/headers/{index}/url"), &rule.url));
            if rule.name.is_empty()
                || !rule
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            {
                let message = format!("`{}` is no header name", rule.name);
                findings.push(Diagnostic::error(
                    &format!("/headers/{index}/name"),
                    &message,
                ));
            }
            let place = format!("/headers/{index}/value");
            if rule.value.chars().any(char::is_control) {
                findings.push(Diagnostic::error(&place, "a header value is one line"));
            }
            if rule.value.contains("{{secret:") && rule.url.starts_with("http://") {
                findings.push(Diagnostic::warning(
                    &place,
                    "the secret would travel unencrypted",
                ));
            }
        }
        for (index, rule) in self.checksums.iter().enumerate() {
            findings.extend(prefix_finding(
                &format!("/checksums/{index}/url"),
                &rule.url,
            ));
            findings.extend(file_finding(
                &format!("/checksums/{index}/file"),
                &rule.file,
            ));
        }
        findings
    }
}

fn file_finding(place: &str, file: &str) -> Option<Diagnostic> {
    if file == NONE {
        return None;
    }
    let url = file
        .replace("{url}", "https://host/folder/name")
        .replace("{folder}", "https://host/folder/")
        .replace("{name}", "name");
    if let Some(open) = url.find('{') {
        let end = url[open..].find('}').map_or(url.len(), |at| open + at + 1);
        let message = format!(
            "`{}` stands for nothing: use `{{url}}`, `{{folder}}` or `{{name}}`",
            &url[open..end]
        );
        return Some(Diagnostic::error(place, &message));
    }
    let failure = WebAddress::parse(&url).err()?;
    Some(Diagnostic::error(place, &failure.message))
}

/// Without the slash, `https://packages.example` would also stand for `https://packages.example.net`.
fn prefix_finding(place: &str, prefix: &str) -> Option<Diagnostic> {
    match WebAddress::parse(prefix) {
        Err(failure) => Some(Diagnostic::error(place, &failure.message)),
        Ok(address) if !address.path().ends_with('/') || !prefix.ends_with('/') => Some(
            Diagnostic::error(place, &format!("`{prefix}` must end with `/`")),
        ),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::{Severity, parse_config};

    use super::*;

    const CONFIG: &str = r#"{
        "mirrors": [
            {"of": "https://packages.example/", "at": "https://near.example/packages/"},
            {"of": "https://elsewhere.example/", "at": "https://near.example/elsewhere/"}
        ],
        "headers": [
            {"url": "https://near.example/", "name": "Authorization", "value": "Bearer {{secret:near}}"}
        ]
    }"#;

    #[test]
    fn mirrors_come_first_and_headers_go_where_they_belong() {
        let config: Config = parse_config(CONFIG).unwrap();

        let downloads = config.downloads("https://packages.example/app-1.2.0.zip");

        let found: Vec<_> = downloads
            .iter()
            .map(|d| (d.url.as_str(), d.headers.len()))
            .collect();
        assert_eq!(
            found,
            [
                ("https://near.example/packages/app-1.2.0.zip", 1),
                ("https://packages.example/app-1.2.0.zip", 0),
            ]
        );
        assert_eq!(downloads[0].headers[0].value, "Bearer {{secret:near}}");
    }

    #[test]
    fn without_a_configuration_the_reference_is_the_only_place() {
        let config: Config = parse_config("{}").unwrap();

        let downloads = config.downloads("https://packages.example/app.zip?x=1");

        assert_eq!(
            downloads,
            [Download::of("https://packages.example/app.zip?x=1")]
        );
    }

    fn checksums(config: &str, url: &str) -> Vec<(String, bool, usize)> {
        let config: Config = parse_config(config).unwrap();
        let [download] = &config.downloads(url)[..] else {
            panic!("{url}");
        };
        let checksums = download.checksums.iter();
        checksums
            .map(|it| (it.url.clone(), it.needed, it.headers.len()))
            .collect()
    }

    #[test]
    fn checksums_are_looked_for_beside_a_package_or_where_a_rule_says() {
        let url = "https://h/shop/app.zip";
        let usual = [
            ("https://h/shop/app.zip.sha256".to_owned(), false, 0),
            ("https://h/shop/SHA256SUMS".to_owned(), false, 0),
        ];
        assert_eq!(checksums("{}", url), usual);
        let rule = |file: &str| {
            format!(
                r#"{{"checksums": [{{"url": "https://h/", "file": "{file}"}}],
                    "headers": [{{"url": "https://sums/", "name": "X", "value": "y"}}]}}"#
            )
        };
        let found = checksums(&rule("https://sums/{name}.sum"), url);
        assert_eq!(found, [("https://sums/app.zip.sum".to_owned(), true, 1)]);
        assert_eq!(checksums(&rule("none"), url), []);
        assert_eq!(checksums("{}", "https://h/"), []);
    }

    fn check(config: &str, expected: &[(&str, Severity)]) {
        let config: Config = parse_config(config).unwrap();

        let findings = config.check();

        let found: Vec<_> = findings
            .iter()
            .map(|finding| (finding.path.as_str(), finding.severity))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn finds_what_would_go_to_the_wrong_place() {
        check(CONFIG, &[]);
        check(
            r#"{"mirrors": [{"of": "https://packages.example", "at": "https://u:p@near.example/"}]}"#,
            &[
                ("/mirrors/0/of", Severity::Error),
                ("/mirrors/0/at", Severity::Error),
            ],
        );
        check(
            r#"{"headers": [{"url": "http://h/", "name": "X Y", "value": "a\nb"}]}"#,
            &[
                ("/headers/0/name", Severity::Error),
                ("/headers/0/value", Severity::Error),
            ],
        );
        check(
            r#"{"headers": [{"url": "http://h/", "name": "X", "value": "{{secret:s}}"}]}"#,
            &[("/headers/0/value", Severity::Warning)],
        );
        check(
            r#"{"checksums": [{"url": "http://h/", "file": "{folder}{sum}"}, {"url": "http://h", "file": "sums"}]}"#,
            &[
                ("/checksums/0/file", Severity::Error),
                ("/checksums/1/url", Severity::Error),
                ("/checksums/1/file", Severity::Error),
            ],
        );
    }

    fn known(wrong: &str) -> Vec<String> {
        let message = parse_config::<Config>(wrong).unwrap_err().message;
        let (_, known) = message.split_once("expected ").unwrap();
        let known = known.trim_start_matches("one of ").replace(" or ", ", ");
        let mut keys: Vec<_> = known.split(", ").map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../config.schema.json")).unwrap();
        let keys = |schema: &serde_json::Value| {
            let properties = schema["properties"].as_object().unwrap();
            let mut keys: Vec<_> = properties.keys().map(|key| format!("`{key}`")).collect();
            keys.sort_unstable();
            keys
        };

        assert_eq!(keys(&schema), known(r#"{"?": 1}"#));
        for list in ["mirrors", "headers", "checksums"] {
            assert_eq!(
                keys(&schema["properties"][list]["items"]),
                known(&format!(r#"{{"{list}": [{{"?": 1}}]}}"#)),
                "{list}"
            );
        }
    }
}

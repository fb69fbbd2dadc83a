//! The keys of a plan item that matter to these kinds. All others are the host's.

use cutover_plugin_sdk::{Diagnostic, Failure};
use serde_json::{Map, Value, json};

/// Where the package of a deployment is.
const PACKAGE: &str = "httpSrcUri";
/// The repository that a deployment is built from.
const REPOSITORY: &str = "compileRepoPath";
const BRANCH: &str = "compileRepoBranch";

/// What a kind needs besides the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// It goes by what is installed.
    Nothing,
    Package,
    Sources,
}

impl Needs {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Package => &[PACKAGE],
            Self::Sources => &[REPOSITORY, BRANCH],
        }
    }

    /// Why other keys are idle.
    fn because(self) -> String {
        match self {
            Self::Nothing => "installs nothing".to_owned(),
            Self::Package => format!("deploys what is at `{PACKAGE}`"),
            Self::Sources => format!("builds what is in `{REPOSITORY}`"),
        }
    }
}

/// A plan item.
pub(crate) struct Item {
    keys: Map<String, Value>,
}

impl Item {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        match serde_json::from_str(text) {
            Ok(Value::Object(keys)) => Ok(Self { keys }),
            Ok(_) => Err(Failure::invalid(
                "ews-kinds.item",
                "a plan item is an object",
            )),
            Err(error) => Err(Failure::invalid(
                "ews-kinds.item",
                format!("a plan item is JSON: {error}"),
            )),
        }
    }

    /// The reference of the package that the kind needs, if it needs one.
    pub(crate) fn reference(&self, kind: &str, needs: Needs) -> Result<Option<String>, Failure> {
        let value = |key| {
            self.value(kind, key)
                .map_err(|message| Failure::invalid("ews-kinds.package", message))
        };
        Ok(match needs {
            Needs::Nothing => None,
            Needs::Package => Some(value(PACKAGE)?),
            Needs::Sources => Some(format!("git+{}#{}", value(REPOSITORY)?, value(BRANCH)?)),
        })
    }

    /// Finds what is wrong with the item, and what has no effect.
    pub(crate) fn check(&self, kind: &str, needs: Needs) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for key in [PACKAGE, REPOSITORY, BRANCH] {
            let place = format!("/{key}");
            if needs.keys().contains(&key) {
                let value = self.value(kind, key);
                found.extend(value.err().map(|error| Diagnostic::error(&place, &error)));
            } else if self.keys.contains_key(key) {
                let message = format!("`{key}` has no effect: {kind} {}", needs.because());
                found.push(Diagnostic::warning(&place, &message));
            }
        }
        found
    }

    /// The value of a key that the kind needs, as it goes into a reference.
    fn value(&self, kind: &str, key: &str) -> Result<String, String> {
        match self.keys.get(key) {
            Some(Value::String(text)) => match key {
                PACKAGE => package(text),
                REPOSITORY => repository(text),
                _ => branch(text),
            },
            Some(other) => Err(format!("`{key}` is `{other}`, expected text in quotes")),
            None => Err(self.missing(kind, key)),
        }
    }

    fn missing(&self, kind: &str, key: &str) -> String {
        let mut keys = self.keys.keys();
        match keys.find(|other| other.eq_ignore_ascii_case(key)) {
            Some(other) => {
                format!(
                    "`{key}` is required for {kind}; keys are case-sensitive, this is `{other}`"
                )
            }
            None => format!("`{key}` is required for {kind}"),
        }
    }
}

fn package(text: &str) -> Result<String, String> {
    if has_scheme(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{PACKAGE}` is `{text}`, expected a URI such as `https://…`"
    ))
}

/// The URL of a repository. A path of this machine becomes one.
fn repository(text: &str) -> Result<String, String> {
    const SCHEMES: [&str; 4] = ["https", "http", "ssh", "file"];
    if text.starts_with('/') {
        return repository(&format!("file://{text}"));
    }
    if text.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
        return Err(format!("`{REPOSITORY}` has a `#` or a blank in it"));
    }
    match text.split_once("://") {
        Some((_, place)) if has_password(place) => Err(format!(
            "`{REPOSITORY}` carries a password, which would end up in records and logs"
        )),
        Some((scheme, place)) if SCHEMES.contains(&scheme) && !place.is_empty() => {
            Ok(text.to_owned())
        }
        _ => Err(match secure_shell(text) {
            Some(url) => format!("`{REPOSITORY}` is `{text}`, write `{url}`"),
            None => format!(
                "`{REPOSITORY}` is `{text}`, expected a URL that begins with `https://`, `http://`, `ssh://` or `file://`"
            ),
        }),
    }
}

/// Whether what follows a scheme names a password before the host.
fn has_password(place: &str) -> bool {
    let authority = place.split('/').next().unwrap_or_default();
    authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
}

/// The URL of `USER@HOST:PATH`. Where the path begins is the host's to say, so it is for a person to decide.
fn secure_shell(text: &str) -> Option<String> {
    let (place, path) = text.split_once(':')?;
    let is_place = place.contains('@') && !place.contains('/');
    let path = path.trim_start_matches('/');
    (is_place && !path.is_empty()).then(|| format!("ssh://{place}/{path}"))
}

fn branch(text: &str) -> Result<String, String> {
    if text.is_empty()
        || text.starts_with('-')
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(format!(
            "`{BRANCH}` is `{text}`, expected the name of a branch"
        ));
    }
    Ok(text.to_owned())
}

/// Whether a package source can be chosen for the text.
fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            && !rest.is_empty()
    })
}

/// The JSON Schema of a kind's own keys.
pub(crate) fn schema(needs: Needs) -> String {
    let properties: Map<String, Value> = needs
        .keys()
        .iter()
        .map(|key| ((*key).to_owned(), property(key)))
        .collect();
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": needs.keys(),
        "properties": properties,
    });
    schema.to_string()
}

fn property(key: &str) -> Value {
    match key {
        PACKAGE => json!({
            "type": "string",
            "format": "uri",
            "description": "Where the package is. `#sha256=HEX` behind it pins its content."
        }),
        REPOSITORY => json!({
            "type": "string",
            "description": "The Git repository that has the sources, as a URL or an absolute path."
        }),
        _ => json!({ "type": "string", "description": "The branch that is built." }),
    }
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::Severity;

    use super::*;

    fn check(item: &str, needs: Needs, expected: Option<(Severity, &str)>) {
        let findings = Item::parse(item).unwrap().check("KIND", needs);

        let found = findings
            .first()
            .map(|finding| (finding.severity, finding.message.as_str()));
        assert_eq!(found, expected, "{item}");
    }

    #[test]
    fn a_deployment_without_a_package_names_the_key() {
        check(
            "{}",
            Needs::Package,
            Some((Severity::Error, "`httpSrcUri` is required for KIND")),
        );
        check(
            r#"{"httpsrcuri": "http://h/a"}"#,
            Needs::Package,
            Some((
                Severity::Error,
                "`httpSrcUri` is required for KIND; keys are case-sensitive, this is `httpsrcuri`",
            )),
        );
        check(
            r#"{"httpSrcUri": "app.zip"}"#,
            Needs::Package,
            Some((
                Severity::Error,
                "`httpSrcUri` is `app.zip`, expected a URI such as `https://…`",
            )),
        );
        check(
            r#"{"httpSrcUri": 5}"#,
            Needs::Package,
            Some((
                Severity::Error,
                "`httpSrcUri` is `5`, expected text in quotes",
            )),
        );
        check(r#"{"httpSrcUri": "http://h/a"}"#, Needs::Package, None);
    }

    #[test]
    fn a_package_that_nothing_installs_is_pointed_out() {
        check(
            r#"{"httpSrcUri": "http://h/a"}"#,
            Needs::Nothing,
            Some((
                Severity::Warning,
                "`httpSrcUri` has no effect: KIND installs nothing",
            )),
        );
        check("{}", Needs::Nothing, None);
    }

    #[test]
    fn a_build_needs_a_repository_and_a_branch() {
        let findings = Item::parse(r#"{"httpSrcUri": "http://h/a", "CompileRepoBranch": "main"}"#)
            .unwrap()
            .check("KIND", Needs::Sources);

        let found: Vec<_> = findings
            .iter()
            .map(|finding| (finding.path.as_str(), finding.message.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "/httpSrcUri",
                    "`httpSrcUri` has no effect: KIND builds what is in `compileRepoPath`"
                ),
                ("/compileRepoPath", "`compileRepoPath` is required for KIND"),
                (
                    "/compileRepoBranch",
                    "`compileRepoBranch` is required for KIND; keys are case-sensitive, this is `CompileRepoBranch`"
                ),
            ]
        );
    }

    #[test]
    fn a_repository_is_a_url_without_a_password() {
        let refused = |path: &str| repository(path).unwrap_err();

        assert_eq!(repository("/srv/a.git").unwrap(), "file:///srv/a.git");
        for url in ["https://h/a.git", "ssh://git@h:22/a", "file:///srv/a"] {
            assert_eq!(repository(url).unwrap(), url);
        }
        assert!(refused("git@h:a/b.git").contains("write `ssh://git@h/a/b.git`"));
        assert!(refused("../shop").contains("expected a URL"));
        assert!(refused("ftp://h/a").contains("expected a URL"));
        assert!(refused("https://h/a#main").contains('#'));
        let message = refused("https://me:hunter2@h/a");
        assert!(message.contains("password") && !message.contains("hunter2"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(Item::parse("[]").is_err());
        assert!(Item::parse("{").is_err());
    }
}

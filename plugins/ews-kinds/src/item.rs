//! The keys of a plan item that matter to these kinds. All others are the host's.

use cutover_plugin_sdk::{Diagnostic, Failure};
use serde_json::{Map, Value, json};

/// Where the package of a deployment is.
const PACKAGE: &str = "httpSrcUri";

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

    /// The reference of the package that the kind needs.
    pub(crate) fn package(&self, kind: &str) -> Result<String, Failure> {
        self.reference(kind)
            .map_err(|message| Failure::invalid("ews-kinds.package", message))
    }

    /// Finds what is wrong with the item, and what has no effect.
    pub(crate) fn check(&self, kind: &str, needs_package: bool) -> Vec<Diagnostic> {
        let place = format!("/{PACKAGE}");
        match self.reference(kind) {
            Err(message) if needs_package => vec![Diagnostic::error(&place, &message)],
            _ if !needs_package && self.keys.contains_key(PACKAGE) => {
                vec![Diagnostic::warning(
                    &place,
                    &format!("`{PACKAGE}` has no effect: {kind} installs nothing"),
                )]
            }
            _ => Vec::new(),
        }
    }

    fn reference(&self, kind: &str) -> Result<String, String> {
        match self.keys.get(PACKAGE) {
            Some(Value::String(text)) if has_scheme(text) => Ok(text.clone()),
            Some(Value::String(text)) => Err(format!(
                "`{PACKAGE}` is `{text}`, expected a URI such as `https://…`"
            )),
            Some(other) => Err(format!(
                "`{PACKAGE}` is `{other}`, expected a URI in quotes"
            )),
            None => Err(
                match self
                    .keys
                    .keys()
                    .find(|key| key.eq_ignore_ascii_case(PACKAGE))
                {
                    Some(key) => format!(
                        "`{PACKAGE}` is required for {kind}; keys are case-sensitive, this is `{key}`"
                    ),
                    None => format!("`{PACKAGE}` is required for {kind}"),
                },
            ),
        }
    }
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
pub(crate) fn schema(needs_package: bool) -> String {
    let schema = if needs_package {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": [PACKAGE],
            "properties": {
                PACKAGE: {
                    "type": "string",
                    "format": "uri",
                    "description": "Where the package is. `#sha256=HEX` behind it pins its content."
                }
            }
        })
    } else {
        json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" })
    };
    schema.to_string()
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::Severity;

    use super::*;

    fn check(item: &str, needs_package: bool, expected: Option<(Severity, &str)>) {
        let findings = Item::parse(item).unwrap().check("KIND", needs_package);

        let found = findings
            .first()
            .map(|finding| (finding.severity, finding.message.as_str()));
        assert_eq!(found, expected, "{item}");
    }

    #[test]
    fn a_deployment_without_a_package_names_the_key() {
        check(
            "{}",
            true,
            Some((Severity::Error, "`httpSrcUri` is required for KIND")),
        );
        check(
            r#"{"httpsrcuri": "http://h/a"}"#,
            true,
            Some((
                Severity::Error,
                "`httpSrcUri` is required for KIND; keys are case-sensitive, this is `httpsrcuri`",
            )),
        );
        check(
            r#"{"httpSrcUri": "app.zip"}"#,
            true,
            Some((
                Severity::Error,
                "`httpSrcUri` is `app.zip`, expected a URI such as `https://…`",
            )),
        );
        check(
            r#"{"httpSrcUri": 5}"#,
            true,
            Some((
                Severity::Error,
                "`httpSrcUri` is `5`, expected a URI in quotes",
            )),
        );
        check(r#"{"httpSrcUri": "http://h/a"}"#, true, None);
    }

    #[test]
    fn a_package_that_nothing_installs_is_pointed_out() {
        check(
            r#"{"httpSrcUri": "http://h/a"}"#,
            false,
            Some((
                Severity::Warning,
                "`httpSrcUri` has no effect: KIND installs nothing",
            )),
        );
        check("{}", false, None);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(Item::parse("[]").is_err());
        assert!(Item::parse("{").is_err());
    }
}

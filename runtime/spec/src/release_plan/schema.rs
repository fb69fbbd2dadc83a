//! Holding an item of a plugin's kind against the JSON Schema that the plugin gives for it.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError};
use serde_json::{Map, Value as Json};

use super::keys::COMMON;
use super::plan::{Item, ReleasePlan};
use crate::problem::{Position, Problem, Severity, excerpt, suggestion};

/// The most steps that a pattern of a schema may take on one text. Schemas come from plugins.
const MOST_BACKTRACKS: usize = 100_000;
/// The most problems told of one item.
const MOST_PROBLEMS: usize = 20;

impl ReleasePlan {
    /// Finds what the schema of a kind, JSON, refuses in an item. It describes the item's own keys: all but
    /// `serviceId`, `deployment`, `priority`, `containerExecMethod` and `deployLabel`.
    #[must_use]
    pub fn validate_schema(&self, item: &Item, schema: &str) -> Vec<Problem> {
        let parsed = serde_json::from_str(schema).map_err(|error| error.to_string());
        let built = parsed.and_then(|schema: Json| {
            let patterns = PatternOptions::fancy_regex().backtrack_limit(MOST_BACKTRACKS);
            let validator = jsonschema::options()
                .offline()
                .with_pattern_options(patterns)
                .build(&schema)
                .map_err(|error| error.to_string())?;
            Ok((schema, validator))
        });
        let (schema, validator) = match built {
            Ok(built) => built,
            Err(reason) => return vec![self.unusable_schema(item, &reason)],
        };
        let own = Json::Object(own_keys(item));
        let mut problems: Vec<_> = validator
            .iter_errors(&own)
            .flat_map(|error| self.refusals(item, &error, &schema))
            .take(MOST_PROBLEMS)
            .collect();
        problems.extend(self.nearly_common(item, &schema));
        problems.sort_by_key(|problem| (problem.line, problem.column));
        // A misspelt key may be refused for itself and for what it seems to be.
        problems.dedup();
        problems
    }

    fn unusable_schema(&self, item: &Item, reason: &str) -> Problem {
        let message = format!(
            "`deployment`: the schema that the plugin of the kind `{}` gives cannot be used: {}",
            excerpt(&item.kind),
            one_line(reason)
        );
        let hint = "tell the plugin's author".to_owned();
        self.problem(item, "/deployment", Severity::Error, &message, Some(hint))
    }

    /// The problems that one refusal of the schema amounts to.
    fn refusals(&self, item: &Item, error: &ValidationError<'_>, schema: &Json) -> Vec<Problem> {
        let pointer = error.instance_path().as_str();
        let refused = |at: Position, message: &str, hint| {
            self.problem_at(item, at, Severity::Error, message, hint)
        };
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                if let Some(written) = misspelt(item, pointer, key, schema) {
                    return vec![self.unknown_key(item, pointer, &written, schema)];
                }
                let message = format!("missing key `{}`: `{}` needs it", excerpt(key), item.kind);
                vec![refused(item.place(pointer), &message, None)]
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected
                .iter()
                .map(|key| self.unknown_key(item, pointer, key, schema))
                .collect(),
            kind => {
                let found = excerpt(&plain(error.instance()));
                let message = match pointer.trim_start_matches('/') {
                    "" => format!(
                        "the item does not fit `{}`: {}",
                        item.kind,
                        requirement(kind, error)
                    ),
                    key => format!(
                        "`{}`: {}, found `{found}`",
                        excerpt(key),
                        requirement(kind, error)
                    ),
                };
                vec![refused(item.place(pointer), &message, None)]
            }
        }
    }

    fn unknown_key(&self, item: &Item, pointer: &str, key: &str, schema: &Json) -> Problem {
        let message = format!(
            "unknown key `{}`: `{}` has none of this name",
            excerpt(key),
            item.kind
        );
        let hint = suggestion(key, &known_keys(schema, pointer))
            .map(|meant| format!("did you mean `{meant}`?"));
        let at = item.key_place(pointer, key);
        self.problem_at(item, at, Severity::Error, &message, hint)
    }

    /// Keys that the schema lets pass without knowing them, and that are nearly those of every item.
    fn nearly_common(&self, item: &Item, schema: &Json) -> Vec<Problem> {
        let known = known_keys(schema, "");
        let unknown = item
            .extra
            .keys()
            .filter(|key| !known.contains(&key.as_str()));
        unknown
            .filter_map(|key| {
                let meant = suggestion(key, &COMMON)?;
                let message = format!("`{}` is no key that `{}` knows", excerpt(key), item.kind);
                let hint = format!("did you mean `{meant}`?");
                let at = item.key_place("", key);
                Some(self.problem_at(item, at, Severity::Warning, &message, Some(hint)))
            })
            .collect()
    }
}

/// What the schema is about.
fn own_keys(item: &Item) -> Map<String, Json> {
    let whole: Map<String, Json> = serde_json::from_str(&item.json).unwrap_or_default();
    whole
        .into_iter()
        .filter(|(key, _)| !COMMON.contains(&key.as_str()))
        .collect()
}

/// The key that seems to stand for a missing one.
fn misspelt(item: &Item, pointer: &str, missing: &str, schema: &Json) -> Option<String> {
    let known = known_keys(schema, pointer);
    let own = Json::Object(own_keys(item));
    let mapping = own.pointer(pointer)?.as_object()?;
    let mut unknown = mapping.keys().filter(|key| !known.contains(&key.as_str()));
    unknown
        .find(|key| suggestion(key, &known) == Some(missing))
        .cloned()
}

/// The keys that a schema describes for the object at a place, as far as they are plain to see.
fn known_keys<'s>(schema: &'s Json, pointer: &str) -> Vec<&'s str> {
    let mut at = schema;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        at = match at["properties"].get(&token) {
            Some(property) => property,
            None => &at["items"],
        };
    }
    let properties = at["properties"].as_object();
    properties
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// What the schema asks of a value.
fn requirement(kind: &ValidationErrorKind, error: &ValidationError<'_>) -> String {
    match kind {
        ValidationErrorKind::Type { .. } => {
            let text = error.masked_with("").to_string();
            let types = text.split('"').skip(1).step_by(2).collect::<Vec<_>>();
            format!("expected {}", alternatives(&types))
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<_> = options
                .as_array()
                .map(|options| options.iter().map(plain).collect())
                .unwrap_or_default();
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            format!("expected {}", alternatives(&options))
        }
        ValidationErrorKind::Constant { expected_value } => {
            format!("expected `{}`", excerpt(&plain(expected_value)))
        }
        ValidationErrorKind::Pattern { pattern } => {
            format!("expected text that matches `{}`", excerpt(pattern))
        }
        ValidationErrorKind::Minimum { limit } => format!("expected at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("expected at most {limit}"),
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
            "it is none of the alternatives".to_owned()
        }
        ValidationErrorKind::FalseSchema => "nothing is allowed here".to_owned(),
        _ => one_line(&error.masked_with("the value").to_string()),
    }
}

/// A message of the validator, within bounds.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = text.replace('"', "`");
    let mut line: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

fn alternatives(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{}`", excerpt(name)))
        .collect::<Vec<_>>()
        .join(" or ")
}

/// A value without the quotes that JSON puts around text.
fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use insta::assert_snapshot;

    const SCHEMA: &str = r##"{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["region", "function"],
        "additionalProperties": false,
        "properties": {
            "region": {"enum": ["north", "south"]},
            "function": {"type": "string", "pattern": "^[a-z-]+$"},
            "memory": {"type": ["integer", "string"], "minimum": 128},
            "tags": {"type": "array", "items": {"type": "object", "properties": {"key": {"type": "string"}}, "additionalProperties": false}}
        }
    }"##;

    /// What a schema finds in an item that has these lines.
    fn check_with(schema: &str, lines: &str) -> String {
        let lines = lines.replace('\n', "\n    ");
        let text = format!(
            "deployPlanItems:\n  - serviceId: 111\n    deployment: FUNCTION\n    priority: 1\n    {lines}\n"
        );
        let plan = super::super::parse(&text, Path::new("plan.yaml"))
            .unwrap()
            .value;
        let mut out = String::new();
        for problem in plan.validate_schema(&plan.items[0], schema) {
            writeln!(out, "{problem:#}").unwrap();
        }
        out
    }

    #[test]
    fn what_fits_the_schema_is_taken() {
        let lines = "region: north\nfunction: resize\nmemory: 256\ntags: [{key: a}]";

        assert_eq!(check_with(SCHEMA, lines), "");
        assert_eq!(check_with("{}", lines), "");
        assert_eq!(check_with("true", "a: 1"), "");
    }

    #[test]
    fn what_the_schema_refuses_is_shown_on_its_line() {
        assert_snapshot!(check_with(SCHEMA, "regoin: north\nfunction: 7\nmemory: 1.5"), @"
        plan.yaml:5:5: service 111: unknown key `regoin`: `FUNCTION` has none of this name
          hint: did you mean `region`?
        plan.yaml:6:15: service 111: `function`: expected `string`, found `7`
        plan.yaml:7:13: service 111: `memory`: expected `integer` or `string`, found `1.5`
        plan.yaml:7:13: service 111: `memory`: expected at least 128, found `1.5`
        ");
        assert_snapshot!(check_with(SCHEMA, "region: east\nfunction: Resize\nmemory: 64\ntags:\n  - key: a\n  - keys: [b]\n    key: [1]"), @"
        plan.yaml:5:13: service 111: `region`: expected `north` or `south`, found `east`
        plan.yaml:6:15: service 111: `function`: expected text that matches `^[a-z-]+$`, found `Resize`
        plan.yaml:7:13: service 111: `memory`: expected at least 128, found `64`
        plan.yaml:10:9: service 111: unknown key `keys`: `FUNCTION` has none of this name
          hint: did you mean `key`?
        plan.yaml:11:14: service 111: `tags/1/key`: expected `string`, found `[1]`
        ");
        assert_snapshot!(check_with(r#"{"minProperties": 2}"#, "a: 1"), @"plan.yaml:2:5: service 111: the item does not fit `FUNCTION`: the value has less than 2 properties");
        assert_snapshot!(check_with(r#"{"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}"#, "c: 1"), @"plan.yaml:2:5: service 111: the item does not fit `FUNCTION`: it is none of the alternatives");
        assert_snapshot!(check_with("false", "a: 1"), @"plan.yaml:2:5: service 111: the item does not fit `FUNCTION`: nothing is allowed here");
    }

    #[test]
    fn a_slip_in_a_key_of_every_item_is_not_taken_for_one_of_the_kind() {
        assert_snapshot!(check_with("{}", "prioritty: 5\nregion: north"), @"
        plan.yaml:5:5: warning: service 111: `prioritty` is no key that `FUNCTION` knows
          hint: did you mean `priority`?
        ");
        assert_eq!(
            check_with(r#"{"properties": {"prioritty": {}}}"#, "prioritty: 5"),
            ""
        );
    }

    #[test]
    fn a_schema_that_is_none_is_the_plugins_mistake() {
        assert_snapshot!(check_with("{", "a: 1"), @"
        plan.yaml:3:17: service 111: `deployment`: the schema that the plugin of the kind `FUNCTION` gives cannot be used: EOF while parsing an object at line 1 column 1
          hint: tell the plugin's author
        ");
        assert_snapshot!(check_with(r#"{"type": "thing"}"#, "a: 1"), @"
        plan.yaml:3:17: service 111: `deployment`: the schema that the plugin of the kind `FUNCTION` gives cannot be used: `thing` is not valid under any of the schemas listed in the 'anyOf' keyword
          hint: tell the plugin's author
        ");
        assert_snapshot!(check_with(r#"{"$ref": "https://example.com/schema.json"}"#, "a: 1"), @"
        plan.yaml:3:17: service 111: `deployment`: the schema that the plugin of the kind `FUNCTION` gives cannot be used: Resource 'https://example.com/schema.json' is not present in a registry and retrieving it failed: Retrieval is disabled, cannot fetch https://example.com/schema.json
          hint: tell the plugin's author
        ");
        assert_snapshot!(check_with(r#"{"properties": {"a": {"pattern": "("}}}"#, "a: x"), @"
        plan.yaml:3:17: service 111: `deployment`: the schema that the plugin of the kind `FUNCTION` gives cannot be used: `(` is not a `regex`
          hint: tell the plugin's author
        ");
    }

    #[test]
    fn a_hostile_schema_neither_hangs_nor_overflows() {
        let schema = r#"{"properties": {"a": {"pattern": "^(([a-z])+.)+(?=x)[A-Z]([a-z])+$"}}}"#;
        let text = format!("a: {}", "a".repeat(5000));

        assert!(!check_with(schema, &text).is_empty());
        check_with(r##"{"$ref": "#"}"##, "a: 1");
        check_with(r##"{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}"##, "a: 1");
        check_with(
            &format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
            "a: 1",
        );
    }
}

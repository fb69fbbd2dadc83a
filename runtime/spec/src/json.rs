//! YAML values as JSON, for configuration that only a plugin understands.

use serde_json::{Map, Number, Value as Json};

use crate::fields::Field;
use crate::problem::{Collector, excerpt};
use crate::yaml::{Node, Style, Value};

/// The JSON document of a plugin's `config`, which is a mapping; an empty one where it is left out.
pub(crate) fn config(field: Option<Field<'_>>, problems: &mut Collector) -> Option<String> {
    let Some(field) = field else {
        return Some("{}".to_owned());
    };
    if !matches!(field.node.value, Value::Mapping(_)) {
        field.mismatch("a mapping", problems);
        return None;
    }
    Some(from_node(field.node, problems)?.to_string())
}

/// Converts a tree. Plain scalars are typed by the core schema of YAML 1.2, so `yes` stays text.
pub(crate) fn from_node(node: &Node, problems: &mut Collector) -> Option<Json> {
    match &node.value {
        Value::Scalar {
            text,
            style: Style::Quoted,
        } => Some(Json::String(text.clone())),
        Value::Scalar {
            text,
            style: Style::Plain,
        } => {
            let json = from_plain(text);
            if json.is_none() {
                problems.error(
                    node.at,
                    format!("the number `{}` cannot be passed on as JSON", excerpt(text)),
                );
            }
            json
        }
        Value::Sequence(items) => {
            let items: Vec<_> = items.iter().map(|item| from_node(item, problems)).collect();
            items
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .map(Json::Array)
        }
        Value::Mapping(entries) => {
            let mut object = Map::new();
            for entry in entries {
                object.insert(
                    entry.key.clone(),
                    from_node(&entry.value, problems).unwrap_or_default(),
                );
            }
            Some(Json::Object(object))
        }
    }
}

/// `None` for numbers that JSON lacks.
fn from_plain(text: &str) -> Option<Json> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Json::Null),
        "true" | "True" | "TRUE" => return Some(Json::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Json::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ if matches!(
            text.trim_start_matches(['-', '+']),
            ".inf" | ".Inf" | ".INF"
        ) =>
        {
            return None;
        }
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Some(Json::Number(number));
    }
    let is_float = text.bytes().any(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match text.parse::<f64>() {
        Ok(float) if is_float => Number::from_f64(float).map(Json::Number),
        _ => Some(Json::String(text.to_owned())),
    }
}

fn integer(text: &str) -> Option<Number> {
    let radix = |prefix: &str, radix: u32| {
        let digits = text.strip_prefix(prefix)?;
        let plain = digits.chars().all(|digit| digit.is_digit(radix));
        plain
            .then(|| u64::from_str_radix(digits, radix).ok())
            .flatten()
            .map(Number::from)
    };
    let unsigned = text.parse::<u64>().ok().map(Number::from);
    unsigned
        .or_else(|| text.parse::<i64>().ok().map(Number::from))
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0x", 16))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use insta::assert_snapshot;

    use super::*;

    fn check(text: &str) -> String {
        let mut problems = Collector::new(Path::new("f.yaml"));
        let json = crate::yaml::parse(text, &mut problems)
            .and_then(|node| from_node(&node, &mut problems));
        format!(
            "{}\n{}",
            json.map(|json| json.to_string()).unwrap_or_default(),
            problems.into_problems()
        )
    }

    #[test]
    fn types_plain_scalars_by_the_core_schema() {
        assert_snapshot!(check("[1, -2, +3, 0o17, 0x1F, 1.5, 1e3, .5, 99999999999999999999]"), @"[1,-2,3,15,31,1.5,1000.0,0.5,1e+20]");
        assert_snapshot!(check("[true, False, null, ~, yes, on, '1', 1.2.3, 1_000, 0b1, 12:30]"), @r#"[true,false,null,null,"yes","on","1","1.2.3","1_000","0b1","12:30"]"#);
        assert_snapshot!(check("{b: {x: }, a: [{}, []]}"), @r#"{"a":[{},[]],"b":{"x":null}}"#);
    }

    #[test]
    fn refuses_numbers_that_json_lacks() {
        assert_snapshot!(check("[.inf, -.Inf, .nan, 1e999]"), @"
        f.yaml:1:2: the number `.inf` cannot be passed on as JSON
        f.yaml:1:8: the number `-.Inf` cannot be passed on as JSON
        f.yaml:1:15: the number `.nan` cannot be passed on as JSON
        f.yaml:1:21: the number `1e999` cannot be passed on as JSON
        ");
    }
}

//! The JSON Schema of the workspace file, for editors.
//!
//! It is kept by hand for the sake of its descriptions; a test holds it against what the decoder knows.

/// JSON Schema 2020-12 of `cutover.yaml`.
pub const WORKSPACE: &str = include_str!("schema/workspace.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::LifecycleEvent;
    use serde_json::Value;

    use super::*;
    use crate::workspace::shapes;

    fn schema() -> Value {
        serde_json::from_str(WORKSPACE).unwrap()
    }

    fn keys(object: &Value) -> BTreeSet<&str> {
        object
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect()
    }

    #[test]
    fn has_the_keys_that_the_decoder_knows() {
        let schema = schema();
        for shape in shapes() {
            let mapping = if shape.name == "workspace" {
                &schema
            } else {
                &schema["$defs"][shape.name]
            };

            assert_eq!(
                keys(&mapping["properties"]),
                shape.keys.iter().copied().collect(),
                "{}",
                shape.name
            );
            assert_eq!(mapping["additionalProperties"], false, "{}", shape.name);
            for required in mapping["required"].as_array().into_iter().flatten() {
                assert!(
                    shape.keys.contains(&required.as_str().unwrap()),
                    "{}: {required}",
                    shape.name
                );
            }
        }
    }

    #[test]
    fn has_no_mapping_that_the_decoder_lacks() {
        let schema = schema();
        let known: BTreeSet<_> = shapes().into_iter().map(|shape| shape.name).collect();

        let closed = keys(&schema["$defs"]).into_iter().filter(|name| {
            schema["$defs"][name]["additionalProperties"] == false && *name != "scripts"
        });

        for name in closed {
            assert!(known.contains(name), "{name}");
        }
    }

    #[test]
    fn lists_the_events_that_take_hooks() {
        let hookable = LifecycleEvent::ALL
            .into_iter()
            .filter(|event| event.takes_hooks());

        assert_eq!(
            keys(&schema()["$defs"]["scripts"]["properties"]),
            hookable.map(LifecycleEvent::name).collect::<BTreeSet<_>>()
        );
    }

    #[test]
    fn describes_every_key() {
        let schema = schema();
        for shape in shapes() {
            let mapping = if shape.name == "workspace" {
                &schema
            } else {
                &schema["$defs"][shape.name]
            };
            for (key, property) in mapping["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{}.{key}", shape.name);
            }
        }
    }

    #[test]
    fn refers_to_definitions_that_exist() {
        let schema = schema();
        for reference in WORKSPACE.split("\"#/$defs/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schema["$defs"].get(name).is_some(), "{name}");
        }
    }
}

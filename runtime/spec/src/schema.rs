//! The JSON Schemas of the workspace file and of release plans, for editors.
//!
//! They are kept by hand for the sake of their descriptions; tests hold them against what the decoders know.

/// JSON Schema 2020-12 of `cutover.yaml`.
pub const WORKSPACE: &str = include_str!("schema/workspace.json");

/// JSON Schema 2020-12 of release plans.
pub const RELEASE_PLAN: &str = include_str!("schema/plan.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use model::LifecycleEvent;
    use serde_json::{Value, json};

    use super::*;
    use crate::release_plan;
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
    #[test]
    fn the_schema_of_plans_has_the_keys_that_the_decoder_knows() {
        let schema: Value = serde_json::from_str(RELEASE_PLAN).unwrap();
        for shape in release_plan::shapes() {
            let mapping = match shape.name {
                "plan" => &schema,
                name => &schema["$defs"][name],
            };

            let properties = &mapping["properties"];
            let known = shape.keys.iter().copied().collect();
            assert_eq!(keys(properties), known, "{}", shape.name);
            for (key, property) in properties.as_object().unwrap() {
                assert!(property["description"].is_string(), "{}.{key}", shape.name);
            }
        }
    }

    #[test]
    fn the_schema_of_plans_takes_what_the_decoder_takes() {
        let schema = serde_json::from_str(RELEASE_PLAN).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let item = |item: Value| json!({"deployPlanItems": [item]});
        let cases = [
            item(json!({"serviceId": 1, "deployment": "STOP"})),
            item(
                json!({"serviceId": 1, "deployment": "STOP", "priority": -1, "containerExecMethod": "PARALLEL", "deployLabel": "a,b"}),
            ),
            item(
                json!({"serviceId": 1, "deployment": "HTTP_UPLOAD_DEPLOY", "httpSrcUri": "http://h/a"}),
            ),
            item(
                json!({"serviceId": 1, "deployment": "COMPILE_DEPLOY", "compileRepoPath": "p", "compileRepoBranch": "b"}),
            ),
            item(json!({"serviceId": 1, "deployment": "FUNCTION", "region": {"a": [1]}})),
            json!({"comment": null, "deployPlanItems": [{"serviceId": 1, "deployment": "STOP"}]}),
            json!({}),
            json!([]),
            json!({"deployPlanItems": []}),
            json!({"deployPlanItems": [1]}),
            json!({"deployPlanItems": [{"serviceId": 1, "deployment": "STOP"}], "x": 1}),
            item(json!({"serviceId": -1, "deployment": "STOP"})),
            item(json!({"serviceId": "web", "deployment": "STOP"})),
            item(json!({"serviceId": 1})),
            item(json!({"deployment": "STOP"})),
            item(json!({"serviceId": 1, "deployment": "A B"})),
            item(json!({"serviceId": 1, "deployment": "STOP", "region": 1})),
            item(json!({"serviceId": 1, "deployment": "STOP", "priority": 1.5})),
            item(json!({"serviceId": 1, "deployment": "STOP", "containerExecMethod": "parallel"})),
            item(json!({"serviceId": 1, "deployment": "STOP", "deployLabel": ["a"]})),
            item(json!({"serviceId": 1, "deployment": "HTTP_UPLOAD_DEPLOY"})),
            item(json!({"serviceId": 1, "deployment": "HTTP_UPLOAD_DEPLOY", "httpSrcUri": null})),
            item(json!({"serviceId": 1, "deployment": "COMPILE_DEPLOY", "compileRepoPath": "p"})),
        ];
        for (index, case) in cases.iter().enumerate() {
            let parsed = release_plan::parse(&case.to_string(), Path::new("plan.json"));

            assert_eq!(validator.is_valid(case), index < 6, "{case}");
            assert_eq!(parsed.is_ok(), index < 6, "{case}");
        }
    }
}

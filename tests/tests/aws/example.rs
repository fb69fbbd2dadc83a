//! The example is a workspace, and the plugin finds nothing wrong with what it is configured with.

use std::path::Path;

use model::{Balancer, Router};
use serde_json::{Map, Value};

use crate::account::Account;

#[tokio::test]
async fn the_example_is_a_workspace_that_the_plugin_takes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/aws/cutover.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let account = Account::load("http://127.0.0.1:1", &[]).await;

    let parsed = spec::workspace::parse(&text, &file).unwrap();

    assert_eq!(parsed.warnings.to_string(), "");
    let object = |text: &str| -> Map<String, Value> { serde_json::from_str(text).unwrap() };
    let mut checked = 0;
    for group in &parsed.value.groups {
        let mut configs = Vec::new();
        if let Some(Balancer::Plugin { config, .. }) = &group.balancer {
            configs.push(object(config));
        }
        if let Some(Router::Plugin { config, .. }) = &group.router {
            configs.push(object(config));
        }
        for side in &group.sides {
            let mut config = configs[0].clone();
            config.extend(object(&side.group));
            configs.push(config);
        }
        for config in configs {
            let config = Value::Object(config).to_string();
            let findings = account.plugin().validate_config(&config).await.unwrap();
            assert!(findings.is_empty(), "{config}: {findings:?}");
            checked += 1;
        }
    }
    assert_eq!(checked, 8);
}

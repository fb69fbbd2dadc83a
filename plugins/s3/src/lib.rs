//! Packages in buckets of S3 and of whatever else speaks its protocol: `s3://BUCKET/KEY`.
//!
//! The plugin looks an object up and signs the URL that the host fetches it by; all of that is the SDK's [`s3`].

use cutover_plugin_sdk::s3::{self, AWS};
use cutover_plugin_sdk::{
    Diagnostic, Failure, FetchPlan, OpContext, PackageSource, Plugin, Resolved, config, export,
};

struct S3;

impl Plugin for S3 {
    type Config = s3::Config;

    fn check(config: &s3::Config) -> Vec<Diagnostic> {
        config.check("")
    }
}

impl PackageSource for S3 {
    fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
        config::<s3::Config>()?.resolve(&AWS, reference)
    }

    fn plan_fetch(_ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure> {
        config::<s3::Config>()?.plan_fetch(&AWS, pinned)
    }
}

export!(S3: PackageSource);

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::parse_config;

    use super::*;

    fn keys(schema: &serde_json::Value) -> Vec<String> {
        let properties = schema["properties"].as_object().unwrap();
        let mut keys: Vec<_> = properties.keys().map(|key| format!("`{key}`")).collect();
        keys.sort_unstable();
        keys
    }

    /// The keys that the configuration knows, as its error for another one names them.
    fn known(wrong: &str) -> Vec<String> {
        let message = parse_config::<s3::Config>(wrong).unwrap_err().message;
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

        assert_eq!(keys(&schema), known(r#"{"?": 1}"#));
        assert_eq!(
            keys(&schema["properties"]["secrets"]),
            known(r#"{"secrets": {"?": 1}}"#)
        );
    }
}

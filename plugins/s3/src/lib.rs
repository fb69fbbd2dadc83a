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

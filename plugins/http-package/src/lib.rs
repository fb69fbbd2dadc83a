//! Packages on web servers: `https://…` or `http://…`, with mirrors and headers that name secrets.
//!
//! The plugin opens no connection. It says where the bytes are, and the host fetches them, fills secrets into the
//! headers and checks the digest.

mod config;
mod web_address;

use cutover_plugin_sdk::{
    Diagnostic, Failure, FetchPlan, OpContext, PackageSource, Plugin, Resolved, export,
    media_type_of, split_digest, version_in,
};

use config::Config;
use web_address::WebAddress;

/// What a reference means that has no archive's ending.
const UNKNOWN: &str = "application/octet-stream";

struct HttpPackage;

impl Plugin for HttpPackage {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

impl PackageSource for HttpPackage {
    fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
        let (url, digest) = split_digest(reference)?;
        let address = WebAddress::parse(url)?;
        Ok(Resolved {
            pinned: reference.to_owned(),
            version: version_in(address.path()),
            media_type: media_type_of(address.path()).unwrap_or(UNKNOWN).to_owned(),
            size: None,
            digest,
            attributes: Vec::new(),
        })
    }

    fn plan_fetch(_ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure> {
        let (url, _) = split_digest(pinned)?;
        WebAddress::parse(url)?;
        let config: Config = cutover_plugin_sdk::config()?;
        Ok(FetchPlan::Download(config.downloads(url)))
    }
}

export!(HttpPackage: PackageSource);

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(reference: &str) -> Result<Resolved, Failure> {
        let ctx = OpContext {
            run_id: String::new(),
            step_id: String::new(),
            idempotency_key: String::new(),
            attempt: 1,
            deadline: 0,
            dry_run: false,
            traceparent: None,
        };
        HttpPackage::resolve(&ctx, reference)
    }

    #[test]
    fn the_path_tells_version_and_format_whatever_the_query_says() {
        let resolved =
            resolve("https://packages.example/app-1.2.0.zip?from=app-9.9.9.tgz").unwrap();

        assert_eq!(resolved.version.as_deref(), Some("1.2.0"));
        assert_eq!(resolved.media_type, "application/zip");
    }

    #[test]
    fn a_digest_behind_the_reference_is_the_package_s() {
        let hex = "0".repeat(64);

        let resolved = resolve(&format!("http://packages.example:8080/app#sha256={hex}")).unwrap();

        assert_eq!(resolved.digest.unwrap().hex, hex);
        assert_eq!(
            (resolved.media_type.as_str(), resolved.version),
            (UNKNOWN, None)
        );
    }
}

//! A package source that hands over the bytes itself: those of its configuration, as often as that says.

use cutover_plugin_sdk::{
    ArtifactSink, Failure, FetchPlan, OpContext, PackageSource, Plugin, Resolved, Streaming, export,
};
use serde::Deserialize;

struct Stream;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The bytes in hexadecimal digits.
    hex: String,
    times: u32,
    /// Whether to fail when they are handed over.
    fails: bool,
}

impl Plugin for Stream {
    type Config = Config;
}

impl PackageSource for Stream {
    fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
        Ok(Resolved {
            pinned: reference.to_owned(),
            version: Some("1.4.0".to_owned()),
            media_type: "application/gzip".to_owned(),
            size: None,
            digest: None,
            attributes: Vec::new(),
        })
    }

    fn plan_fetch(_ctx: &OpContext, _pinned: &str) -> Result<FetchPlan, Failure> {
        Ok(FetchPlan::Streamed)
    }
}

impl Streaming for Stream {
    fn fetch(_ctx: &OpContext, pinned: &str, to: &ArtifactSink) -> Result<(), Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let digits: Vec<_> = config.hex.chars().collect();
        let bytes: Vec<_> = digits
            .chunks(2)
            .filter_map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok())
            .collect();
        for _ in 0..config.times {
            to.write(&bytes)?;
        }
        if config.fails {
            return Err(Failure::invalid(
                "streaming.broken",
                format!("`{pinned}` broke off"),
            ));
        }
        Ok(())
    }
}

export!(Stream: PackageSource, Streaming);

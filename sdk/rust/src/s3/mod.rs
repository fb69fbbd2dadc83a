//! Packages in S3, and in whatever else speaks its protocol.
//!
//! A package source whose packages are objects of a bucket implements [`PackageSource`](crate::PackageSource) by handing
//! both of its calls to a [`Config`]. `resolve` asks for the object's size, tag, version and checksum, and pins it;
//! `plan_fetch` signs a URL, or the headers of a request where the credentials are temporary ones, and the host fetches the
//! object by it. Neither needs the key: see [`signing`](crate::signing).
//!
//! ```
//! use cutover_plugin_sdk::s3::{self, AWS};
//! use cutover_plugin_sdk::{Diagnostic, Failure, FetchPlan, OpContext, PackageSource, Plugin, Resolved, export};
//!
//! struct Objects;
//!
//! impl Plugin for Objects {
//!     type Config = s3::Config;
//!
//!     fn check(config: &s3::Config) -> Vec<Diagnostic> {
//!         config.check("")
//!     }
//! }
//!
//! impl PackageSource for Objects {
//!     fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
//!         cutover_plugin_sdk::config::<s3::Config>()?.resolve(&AWS, reference)
//!     }
//!
//!     fn plan_fetch(_ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure> {
//!         cutover_plugin_sdk::config::<s3::Config>()?.plan_fetch(&AWS, pinned)
//!     }
//! }
//!
//! export!(Objects: PackageSource);
//! ```
//!
//! The secrets are granted as `secret-key` and, for temporary credentials, `session-token`; the manifest has to declare
//! them, and the hosts.

mod answer;
mod client;
mod near;
mod object;
mod reference;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Deserialize;

use crate::http::{self, Request, Response};
use crate::signing::Secrets;
use crate::{Diagnostic, Failure, FetchPlan, Resolved};
use client::Client;

/// A service that speaks the protocol of S3.
#[derive(Debug)]
pub struct Vendor {
    /// What its failures' codes begin with.
    pub code: &'static str,
    /// As messages name it.
    pub name: &'static str,
    /// What its references begin with, without `://`.
    pub scheme: &'static str,
    /// The region where the configuration names none.
    pub region: &'static str,
    /// Where it is, for a region, without a slash at its end.
    pub endpoint: fn(region: &str) -> String,
    /// How it wants buckets named, where the configuration does not say.
    pub style: Style,
}

/// Amazon S3.
pub const AWS: Vendor = Vendor {
    code: "aws",
    name: "S3",
    scheme: "s3",
    region: "us-east-1",
    endpoint: |region| {
        let domain = if region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        format!("https://s3.{region}.{domain}")
    },
    style: Style::VirtualHost,
};

/// The object storage of JD Cloud.
pub const JDCLOUD: Vendor = Vendor {
    code: "jd",
    name: "the object storage of JD Cloud",
    scheme: "jd-oss",
    region: "cn-north-1",
    endpoint: |region| format!("https://s3.{region}.jcloudcs.com"),
    style: Style::Path,
};

/// Where a URL names the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// `https://HOST/BUCKET/KEY`
    Path,
    /// `https://BUCKET.HOST/KEY`
    VirtualHost,
}

/// How to reach the objects: the whole configuration of a plugin, or a part of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The vendor's usual one where it is left out.
    pub region: Option<String>,
    /// `https://HOST` or `http://HOST:PORT`; the vendor's own where it is left out.
    pub endpoint: Option<String>,
    /// The vendor's where it is left out; with an `endpoint`, [`Style::Path`].
    pub style: Option<Style>,
    /// The id of the access key. Without it requests are not signed, which is enough for public objects.
    pub access_key: Option<String>,
    #[serde(default)]
    pub secrets: Secrets,
    /// How long a fetch that was planned may begin. A fetch that takes longer is planned again.
    #[serde(default = "an_hour", deserialize_with = "crate::duration")]
    pub valid_for: Duration,
    /// For one answer.
    #[serde(default = "ten_seconds", deserialize_with = "crate::duration")]
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: None,
            endpoint: None,
            style: None,
            access_key: None,
            secrets: Secrets::default(),
            valid_for: an_hour(),
            timeout: ten_seconds(),
        }
    }
}

fn an_hour() -> Duration {
    Duration::from_secs(3600)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// How long a signed URL may be good for.
const MOST_VALID: Duration = Duration::from_secs(7 * 24 * 3600);

impl Config {
    /// What is wrong with it, below the JSON pointer of where it stands.
    #[must_use]
    pub fn check(&self, at: &str) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        let mut find = |key: &str, message: &str| {
            findings.push(Diagnostic::error(&format!("{at}/{key}"), message));
        };
        let is_region_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if let Some(region) = &self.region
            && (region.is_empty() || !region.bytes().all(is_region_byte))
        {
            find("region", "write a region such as `eu-central-1`");
        }
        let is_misplaced = |c: char| c == '\\' || c.is_whitespace();
        if let Some(endpoint) = &self.endpoint
            && (!http::is_origin(endpoint) || endpoint.contains(is_misplaced))
        {
            find(
                "endpoint",
                "write `https://HOST` or `https://HOST:PORT`, without a bucket",
            );
        }
        match self.access_key.as_deref() {
            Some(key) if key.is_empty() || key.contains(|c: char| !c.is_ascii_graphic()) => {
                find(
                    "access_key",
                    "write the id of an access key, such as `AKIA…`",
                );
            }
            None if self.secrets.session_token.is_some() => {
                find("access_key", "a session token goes with an access key");
            }
            _ => {}
        }
        if self.valid_for < Duration::from_secs(60) || self.valid_for > MOST_VALID {
            find("valid_for", "write a time from `1m` to `168h`");
        }
        if self.timeout.is_zero() {
            find("timeout", "an answer takes some time");
        }
        findings
    }

    /// Looks an object up and pins it: to its version, or else to its tag.
    ///
    /// # Errors
    /// `invalid` for a reference that is none, `not-found` for an object that is not there, `denied` for credentials that
    /// are not taken, each with the service's code and the id of the request.
    pub fn resolve(&self, vendor: &Vendor, reference: &str) -> Result<Resolved, Failure> {
        self.with_client(vendor, |client| object::resolve(client, reference))
    }

    /// Says by which request the host gets a pinned object.
    ///
    /// # Errors
    /// As [`Config::resolve`]; nothing is asked.
    pub fn plan_fetch(&self, vendor: &Vendor, pinned: &str) -> Result<FetchPlan, Failure> {
        self.with_client(vendor, |client| {
            object::download(client, pinned).map(|download| FetchPlan::Download(vec![download]))
        })
    }

    fn with_client<T>(
        &self,
        vendor: &Vendor,
        act: impl FnOnce(&Client<'_, crate::secrets::Secret>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let credentials = match &self.access_key {
            None => None,
            Some(access_key) => Some(self.secrets.credentials(access_key)?),
        };
        act(&Client {
            vendor,
            config: self,
            credentials,
            now: crate::now(),
            send: &|request: &Request| -> Result<Response, Failure> { http::send(request) },
        })
    }
}

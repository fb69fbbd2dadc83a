//! Package sources: from a reference to bytes that the host can fetch.

use crate::bindings::source::exports::cutover::package_source::source;
use crate::bindings::streaming::cutover::package_source::sink;
use crate::bindings::streaming::exports::cutover::package_source::streaming;
use crate::{Failure, OpContext, Plugin, panic_message};

pub use sink::ArtifactSink;
pub use source::{
    Checkout, Checksum, Command, Digest, Download, FetchPlan, Header, Resolved, Variable,
};

/// A place that packages come from.
pub trait PackageSource: Plugin {
    /// Turns a reference that may change its meaning (`app:stable`) into one that does not.
    ///
    /// # Errors
    /// `invalid` for a reference that is none, `not-found` for a package that is not there.
    fn resolve(ctx: &OpContext, reference: &str) -> Result<Resolved, Failure>;

    /// Says where the host gets the bytes of a resolved reference.
    ///
    /// # Errors
    /// As [`PackageSource::resolve`].
    fn plan_fetch(ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure>;
}

/// A source that hands over the bytes itself, because no URL leads to them.
pub trait Streaming: PackageSource {
    /// Writes the whole package into `to`, at most 1 MiB a call.
    ///
    /// # Errors
    /// As [`PackageSource::resolve`], and what the sink says.
    fn fetch(ctx: &OpContext, pinned: &str, to: &ArtifactSink) -> Result<(), Failure>;
}

impl Download {
    /// Makes a download without headers and checksums that does not expire.
    #[must_use]
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: Vec::new(),
            expires_at: None,
            checksums: Vec::new(),
        }
    }
}

impl From<String> for FetchPlan {
    fn from(url: String) -> Self {
        Self::Download(vec![Download::of(url)])
    }
}

impl<T: PackageSource> source::Guest for T {
    fn resolve(ctx: OpContext, reference: String) -> Result<Resolved, Failure> {
        panic_message::send_to_host();
        <T as PackageSource>::resolve(&ctx, &reference)
    }

    fn plan_fetch(ctx: OpContext, pinned: String) -> Result<FetchPlan, Failure> {
        panic_message::send_to_host();
        <T as PackageSource>::plan_fetch(&ctx, &pinned)
    }
}

impl<T: Streaming> streaming::Guest for T {
    fn fetch(ctx: OpContext, pinned: String, to: &ArtifactSink) -> Result<(), Failure> {
        panic_message::send_to_host();
        <T as Streaming>::fetch(&ctx, &pinned, to)
    }
}

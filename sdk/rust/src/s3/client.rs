//! Requests to the service: where they go and how they are signed.

use super::{Config, Style, Vendor};
use crate::http::{Request, Response, percent_encode};
use crate::signing::{Credentials, Key, aws};
use crate::{Failure, Time};

/// The name that requests are signed for.
pub(super) const SERVICE: &str = "s3";

/// Who asks.
pub(super) struct Client<'a, K> {
    pub(super) vendor: &'a Vendor,
    pub(super) config: &'a Config,
    /// Without them requests are not signed.
    pub(super) credentials: Option<Credentials<K>>,
    pub(super) now: Time,
    pub(super) send: &'a dyn Fn(&Request) -> Result<Response, Failure>,
}

impl<K: Key> Client<'_, K> {
    pub(super) fn region(&self) -> &str {
        self.config.region.as_deref().unwrap_or(self.vendor.region)
    }

    fn endpoint(&self) -> String {
        match &self.config.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => (self.vendor.endpoint)(self.region()),
        }
    }

    /// The URL of a bucket or of an object, of which the key is given as it is.
    pub(super) fn url(&self, bucket: &str, key: &str) -> String {
        let endpoint = self.endpoint();
        let style = self.config.style.unwrap_or(match &self.config.endpoint {
            Some(_) => Style::Path,
            None => self.vendor.style,
        });
        let parts: Vec<_> = key.split('/').map(percent_encode).collect();
        let key = parts.join("/");
        // Neither a certificate nor a name server knows a host for other names.
        let is_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        match endpoint.split_once("://") {
            Some((scheme, host)) if style == Style::VirtualHost && bucket.bytes().all(is_label) => {
                format!("{scheme}://{bucket}.{host}/{key}")
            }
            _ => format!("{endpoint}/{bucket}/{key}"),
        }
    }

    /// The URL of the list of buckets.
    pub(super) fn root(&self) -> String {
        format!("{}/", self.endpoint())
    }

    /// Signs a request, where there are credentials, by its headers.
    pub(super) fn signed(&self, mut request: Request) -> Result<Request, Failure> {
        if let Some(credentials) = &self.credentials {
            aws::sign(&mut request, credentials, self.region(), SERVICE, self.now)?;
        }
        Ok(request.timeout(self.config.timeout))
    }

    /// Signs a request and sends it.
    pub(super) fn ask(&self, request: Request) -> Result<Response, Failure> {
        (self.send)(&self.signed(request)?)
    }
}

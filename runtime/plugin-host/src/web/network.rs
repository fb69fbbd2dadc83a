//! What the machine says of the network: whom to trust, and which proxies to go through. Requests of plugins and downloads
//! go by the same.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ureq::Proxy;
use ureq::tls::RootCerts;

use super::proxy::{self, Proxies};
use super::roots;

/// The environment variable that names a file of further roots.
const EXTRA_ROOTS: &str = "CUTOVER_EXTRA_ROOTS";

/// Whom to trust, and which proxies to go through.
#[derive(Debug, Default)]
pub struct Network {
    extra_roots: Option<PathBuf>,
    proxies: Proxies,
    /// Read when they are first needed: that takes longer than a call of a plugin.
    trusted: OnceLock<RootCerts>,
}

/// A file of roots or a proxy that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Unusable);

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Roots(roots::Error),
    #[error(transparent)]
    Proxy(proxy::Error),
}

impl Network {
    /// What is said without the environment: a PEM file of roots that are trusted besides the system's.
    #[must_use]
    pub fn new(extra_roots: Option<PathBuf>, proxies: Proxies) -> Self {
        Self {
            extra_roots,
            proxies,
            trusted: OnceLock::new(),
        }
    }

    /// What the environment of this process says: `CUTOVER_EXTRA_ROOTS`, and the variables of [`Proxies`].
    #[must_use]
    pub fn of_process() -> Arc<Self> {
        static NETWORK: OnceLock<Arc<Network>> = OnceLock::new();
        let network = NETWORK.get_or_init(|| {
            let extra_roots = std::env::var_os(EXTRA_ROOTS)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from);
            Arc::new(Self::new(extra_roots, Proxies::from_environment()))
        });
        Arc::clone(network)
    }

    /// The roots of the system, and the further ones.
    ///
    /// # Errors
    /// [`Error`] when the file of further roots cannot be read, or has no certificate.
    pub fn roots(&self) -> Result<RootCerts, Error> {
        if let Some(trusted) = self.trusted.get() {
            return Ok(trusted.clone());
        }
        let trusted = roots::trusted(self.extra_roots.as_deref()).map_err(Unusable::Roots)?;
        Ok(self.trusted.get_or_init(|| trusted).clone())
    }

    /// The proxy for a scheme, where there is one.
    ///
    /// # Errors
    /// [`Error`] when what is named is none, or of another kind than HTTP.
    pub fn proxy(&self, scheme: &str) -> Result<Option<Proxy>, Error> {
        Ok(self.proxies.of(scheme).map_err(Unusable::Proxy)?)
    }
}

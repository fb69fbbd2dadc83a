//! Where packages come from: asking the package source, and fetching what it names into the store.

use std::path::PathBuf;

use model::{Digest, Package, Version};
use plugin_host::package_source::FetchPlan;
use plugin_host::{CallError, OpContext};

use crate::Conductor;
use crate::fetch::{self, Place};
use crate::packages::Stored;
use crate::plan::PlanError;

/// What a package source said of a reference.
pub(crate) struct Source {
    pub(crate) pinned: String,
    pub(crate) version: Option<Version>,
    pub(crate) digest: Option<Digest>,
    pub(crate) places: Vec<Place>,
}

/// A package reference with its scheme; a path becomes absolute.
pub(crate) fn absolute(package: &str) -> String {
    let path = match package.split_once(':') {
        Some(("file", path)) => path.strip_prefix("//").unwrap_or(path),
        Some((scheme, rest)) if rest.starts_with("//") && !scheme.contains('/') => {
            return package.to_owned();
        }
        _ => package,
    };
    let path = std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| PathBuf::from(path));
    format!("file://{}", path.display())
}

impl Conductor {
    /// The package as the conductor stores it, fetched again from the recorded source when it is gone.
    pub(crate) async fn stored(&self, package: &Package) -> Result<Stored, PlanError> {
        let revision = &package.revision;
        if let Some(stored) = self.packages.find(&revision.digest) {
            return Ok(stored);
        }
        let source = self
            .resolve(package.deployment.as_str(), &revision.source)
            .await?;
        self.fetch(&source.pinned, source.places, Some(revision.digest.clone()))
            .await
    }

    pub(crate) async fn fetch(
        &self,
        pinned: &str,
        places: Vec<Place>,
        expected: Option<Digest>,
    ) -> Result<Stored, PlanError> {
        let (packages, pinned) = (self.packages.clone(), pinned.to_owned());
        let stored = tokio::task::spawn_blocking(move || {
            fetch::fetch(&packages, &pinned, &places, expected.as_ref())
        })
        .await;
        match stored {
            Ok(stored) => Ok(stored?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Asks the package source where a package is.
    pub(crate) async fn resolve(&self, run: &str, reference: &str) -> Result<Source, PlanError> {
        let scheme = reference
            .split_once(':')
            .map_or("file", |(scheme, _)| scheme);
        let plugin = self.plugins.source(scheme).await?;
        let failed = |source: CallError| PlanError::Source {
            plugin: plugin.name().to_string(),
            reference: reference.to_owned(),
            source: Box::new(source),
        };
        let context = OpContext {
            run_id: run.to_owned(),
            step_id: "package".to_owned(),
            idempotency_key: format!("{run}.package"),
            attempt: 1,
            ..OpContext::default()
        };
        let resolved = plugin
            .resolve(&context, "{}", reference)
            .await
            .map_err(failed)?;
        let downloads = plugin
            .plan_fetch(&context, "{}", &resolved.pinned)
            .await
            .map_err(failed)?;
        let FetchPlan::Download(downloads) = downloads else {
            return Err(PlanError::Streamed {
                plugin: plugin.name().to_string(),
            });
        };
        let mut places = Vec::new();
        for download in downloads {
            let headers = plugin.authorise(reference, &download).map_err(failed)?;
            places.push(Place {
                url: download.url,
                headers,
            });
        }
        let version = resolved
            .version
            .as_deref()
            .and_then(|text| Version::parse(text).ok());
        let digest = match resolved.digest {
            Some(digest) if digest.algorithm == "sha256" => {
                Digest::parse(&format!("sha256:{}", digest.hex)).ok()
            }
            _ => None,
        };
        Ok(Source {
            pinned: resolved.pinned,
            version,
            digest,
            places,
        })
    }
}

//! Where packages come from: asking the package source, and fetching what it names into the store.

use std::path::PathBuf;
use std::sync::Arc;

use agent::unpack::{Limits, Options};
use model::{Digest, GroupRef, Package, Version};
use plugin_host::package_source::{Checkout, FetchPlan};
use plugin_host::{CallError, OpContext, Plugin};
use spec::workspace::Group;

use crate::Conductor;
use crate::build::BuildError;
use crate::digests::Stated;
use crate::download::Rules;
use crate::fetch::{self, Fetched, Place, Want};
use crate::packages::Stored;
use crate::plan::PlanError;
use crate::preflight;
use crate::stream;

/// What a package source said of a reference.
pub(crate) struct Source {
    pub(crate) pinned: String,
    pub(crate) version: Option<Version>,
    /// What is odd about the source.
    warnings: Vec<String>,
    plugin: Arc<Plugin>,
    config: String,
    context: OpContext,
    stated: Stated,
    route: Route,
}

/// How the package comes here.
enum Route {
    Places(Vec<Place>),
    Stream,
    Build(Checkout),
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
    pub(crate) async fn stored(
        &self,
        group: &GroupRef,
        package: &Package,
    ) -> Result<Stored, PlanError> {
        let revision = &package.revision;
        if let Some(stored) = self.packages.find(&revision.digest) {
            return Ok(stored);
        }
        let source = self
            .resolve(package.deployment.as_str(), &revision.source)
            .await?;
        let group = self.workspace.group(group).ok();
        let expected = Some(revision.digest.clone());
        let fetched = self.fetch(&source, expected, group).await?;
        Ok(fetched.stored)
    }

    /// Brings a package into the store, unless one of the digest that it must have is there. What is built is built as
    /// the group says.
    pub(crate) async fn fetch(
        &self,
        source: &Source,
        expected: Option<Digest>,
        group: Option<&Group>,
    ) -> Result<Fetched, PlanError> {
        let mut stated = source.stated.clone();
        stated.expected = expected;
        if let Some(stored) = stated
            .sha256()
            .and_then(|digest| self.packages.find(&digest))
        {
            let warnings = source.warnings.clone();
            return Ok(Fetched { stored, warnings });
        }
        let limits = self.limits();
        let appspec = group.and_then(|group| group.appspec.clone());
        let plugin = source.plugin.clone();
        let want = Want {
            reference: source.pinned.clone(),
            stated,
            unpacking: Options { limits, appspec },
            rules: Rules {
                most_bytes: limits.bytes,
                grant: Arc::new(move |url| {
                    plugin
                        .may_fetch(url)
                        .map_err(|failure| failure.hint.unwrap_or_default())
                }),
                progress: self.progress.clone(),
            },
        };
        let mut fetched = match &source.route {
            Route::Places(places) => self.fetch_from(want, places.clone()).await?,
            Route::Stream => {
                let (context, config) = (&source.context, &source.config);
                stream::fetch(&self.packages, want, &source.plugin, context, config).await?
            }
            Route::Build(checkout) => {
                let group = group.ok_or_else(|| BuildError::NoGroup {
                    reference: source.pinned.clone(),
                })?;
                let run = &source.context.run_id;
                self.build(run, checkout, group, want).await?
            }
        };
        fetched.warnings.extend(source.warnings.iter().cloned());
        Ok(fetched)
    }

    /// Brings a folder or an archive of this machine into the store, without asking a package source.
    pub(crate) async fn fetch_file(
        &self,
        url: &str,
        appspec: Option<String>,
    ) -> Result<Fetched, PlanError> {
        let limits = self.limits();
        let want = Want {
            reference: url.to_owned(),
            stated: Stated::default(),
            unpacking: Options { limits, appspec },
            rules: Rules {
                most_bytes: limits.bytes,
                grant: Arc::new(|_| Err(String::new())),
                progress: self.progress.clone(),
            },
        };
        let place = Place {
            url: url.to_owned(),
            headers: Vec::new(),
        };
        self.fetch_from(want, vec![place]).await
    }

    async fn fetch_from(&self, want: Want, places: Vec<Place>) -> Result<Fetched, PlanError> {
        let packages = self.packages.clone();
        let fetching = tokio::task::spawn_blocking(move || fetch::fetch(&packages, &want, &places));
        match fetching.await {
            Ok(fetched) => Ok(fetched?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// What a package may hold, as the workspace says it.
    pub(crate) fn limits(&self) -> Limits {
        let usual = Limits::default();
        let own = &self.workspace.packages.limits;
        Limits {
            bytes: own.size.unwrap_or(usual.bytes),
            entries: own.entries.unwrap_or(usual.entries),
            ratio: own.ratio.unwrap_or(usual.ratio),
            path: own.path.unwrap_or(usual.path),
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
        let config = self.plugins.config(plugin.name());
        let mut warnings = Vec::new();
        preflight::source(&plugin, &config, &mut warnings).await?;
        let resolved = plugin
            .resolve(&context, &config, reference)
            .await
            .map_err(failed)?;
        let planned = plugin
            .plan_fetch(&context, &config, &resolved.pinned)
            .await
            .map_err(failed)?;
        let route = match planned {
            FetchPlan::Streamed if plugin.provides().streaming => Route::Stream,
            FetchPlan::Streamed => {
                return Err(PlanError::NoStream {
                    plugin: plugin.name().to_string(),
                });
            }
            FetchPlan::Build(checkout) => {
                for command in &checkout.commands {
                    plugin
                        .may_run(&command.program)
                        .map_err(|denied| failed(denied.into()))?;
                }
                Route::Build(checkout)
            }
            FetchPlan::Download(downloads) => {
                let mut places = Vec::new();
                for download in downloads {
                    let headers = plugin.authorise(reference, &download).map_err(failed)?;
                    places.push(Place {
                        url: download.url,
                        headers,
                    });
                }
                Route::Places(places)
            }
        };
        let version = resolved
            .version
            .as_deref()
            .and_then(|text| Version::parse(text).ok());
        Ok(Source {
            pinned: resolved.pinned,
            version,
            warnings,
            plugin: plugin.clone(),
            config,
            context,
            stated: Stated {
                expected: None,
                by_source: resolved.digest,
                size: resolved.size,
            },
            route,
        })
    }
}

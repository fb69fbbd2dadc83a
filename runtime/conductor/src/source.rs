//! Where packages come from: asking the package source, and fetching what it names into the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::unpack::{Limits, Options};
use model::{Digest, GroupRef, Package, Version};
use plugin_host::package_source::{Checkout, Download, FetchPlan};
use plugin_host::{CallError, FailureClass, Network, OpContext, Plugin};
use spec::workspace::Group;

use crate::Conductor;
use crate::build::BuildError;
use crate::digests::Stated;
use crate::download::Rules;
use crate::fetch::{self, Beside, Fetched, Place, Problem, Renewal, Want};
use crate::packages::Stored;
use crate::plan::PlanError;
use crate::preflight;
use crate::stream;

/// How often a package source is asked that says that another time may be better.
const TRIES: u32 = 3;
/// How long to wait before the second time, halved; twice as long before the next.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest wait that a package source may ask for.
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// What a package source said of a reference.
pub(crate) struct Source {
    /// As the operator or the journal has it.
    reference: String,
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

impl Source {
    /// The release that it was asked for: what is before the number of the deployment.
    fn release(&self) -> &str {
        let run = &self.context.run_id;
        run.rsplit_once('-').map_or(run, |(release, _)| release)
    }

    /// Asks the package source anew where the package is. It is called off the async threads.
    fn renewal(&self) -> Renewal {
        let (plugin, config, context) = (
            self.plugin.clone(),
            self.config.clone(),
            self.context.clone(),
        );
        let (reference, pinned) = (self.reference.clone(), self.pinned.clone());
        let runtime = tokio::runtime::Handle::current();
        Arc::new(move |number| {
            let planned = runtime.block_on(plugin.plan_fetch(&context, &config, &pinned))?;
            let FetchPlan::Download(downloads) = planned else {
                return Err(Problem::from("it plans another kind of fetch"));
            };
            let mut places = places(&plugin, &reference, downloads)?;
            if number < places.len() {
                Ok(places.swap_remove(number))
            } else {
                Err(Problem::from("it names fewer places than before"))
            }
        })
    }
}

/// How long to wait before a package source is asked again, where it says that this may help. It only reads.
fn pause_before_another(error: &CallError, tries: u32) -> Option<Duration> {
    let failure = error.failure()?;
    let may_help = matches!(
        failure.class,
        FailureClass::Transient | FailureClass::Throttled
    );
    let wanted = failure.retry_after.unwrap_or_default().min(MOST_PAUSE);
    (may_help && tries < TRIES).then(|| wanted.max(PAUSE * 2_u32.pow(tries)))
}

/// The places of a plan, each of them granted, with the secrets that go there.
fn places(
    plugin: &Plugin,
    reference: &str,
    downloads: Vec<Download>,
) -> Result<Vec<Place>, CallError> {
    let place = |download: Download| {
        let beside = download.checksums.iter().map(|checksum| {
            Ok(Beside {
                url: checksum.url.clone(),
                headers: plugin.authorise_checksum(&download, checksum)?,
                name: checksum.file_name.clone(),
                needed: checksum.needed,
            })
        });
        Ok(Place {
            beside: beside.collect::<Result<_, CallError>>()?,
            headers: plugin.authorise(reference, &download)?,
            url: download.url,
            expires_at: download.expires_at,
        })
    };
    downloads.into_iter().map(place).collect()
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
        let release = source.release();
        let is_built = matches!(source.route, Route::Build(_));
        if !is_built
            && !stated.is_certain()
            && let Some(stored) = self.packages.fetched_for(release, &source.pinned)
        {
            let warnings = Vec::new();
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
                network: Network::of_process(),
            },
            renewal: Some(source.renewal()),
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
        if !is_built {
            let digest = &fetched.stored.digest;
            self.packages
                .note_fetched_for(release, &source.pinned, digest);
        }
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
                network: Network::of_process(),
            },
            renewal: None,
        };
        self.fetch_from(want, vec![Place::of(url)]).await
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
        let failed_after = |source: CallError, tries| PlanError::Source {
            plugin: plugin.name().to_string(),
            reference: reference.to_owned(),
            tries,
            source: Box::new(source),
        };
        let failed = |source: CallError| failed_after(source, 1);
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
        let mut tries = 1;
        let resolved = loop {
            let error = match plugin.resolve(&context, &config, reference).await {
                Ok(resolved) => break resolved,
                Err(error) => error,
            };
            match pause_before_another(&error, tries) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(failed_after(error, tries)),
            }
            tries += 1;
        };
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
                let places = places(&plugin, reference, downloads).map_err(failed)?;
                Route::Places(places)
            }
        };
        let version = resolved
            .version
            .as_deref()
            .and_then(|text| Version::parse(text).ok());
        Ok(Source {
            reference: reference.to_owned(),
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

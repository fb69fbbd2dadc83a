//! The host of plugins: one engine, one linker, one cache of compiled code for all of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use model::PluginName;
use tokio::sync::{Semaphore, mpsc};
use wasmtime::component::{Component, Linker};

use crate::cache::{self, Cache};
use crate::call::State;
use crate::capabilities::{self, progress::Progress};
use crate::engine::Engine;
use crate::grants::{Grants, Permissions};
use crate::inspect::{self, Inspection};
use crate::limits::Limits;
use crate::pattern;
use crate::plugin::{self, Directory, Exports, Plugin};
use crate::secret::Secrets;
use crate::web::{Client, Network};

/// The largest component, in bytes: several times the size of one with an interpreter in it.
const MAX_COMPONENT: u64 = 256 << 20;

/// What a host needs to know.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Where compiled code is kept between runs.
    pub cache_dir: PathBuf,
    /// Bounds on every call.
    pub limits: Limits,
    /// Where the plugins' status lines go. Lines are dropped while it is full.
    pub progress: Option<mpsc::Sender<Progress>>,
    /// Whom plugins' requests trust, and what they go through.
    pub network: Arc<Network>,
}

impl HostOptions {
    /// Options with the default limits, nobody listening, and the network as the environment says it.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            limits: Limits::default(),
            progress: None,
            network: Network::of_process(),
        }
    }
}

/// Loads plugins.
pub struct Host {
    shared: Arc<Shared>,
    linker: Linker<State>,
    limits: Limits,
    progress: Option<mpsc::Sender<Progress>>,
    web: Arc<Client>,
}

/// What loaded plugins go on using.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    cache: Cache,
}

/// Why a plugin was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start the WebAssembly engine")]
    Engine(#[source] wasmtime::Error),
    #[error(transparent)]
    Cache(cache::Error),
    #[error("read plugin `{plugin}` from `{}`", path.display())]
    Read {
        plugin: PluginName,
        path: PathBuf,
        source: io::Error,
    },
    #[error("plugin `{plugin}` in `{}` cannot be used", path.display())]
    Unusable {
        plugin: PluginName,
        path: PathBuf,
        source: inspect::Error,
    },
    #[error("compile plugin `{plugin}`")]
    Compile {
        plugin: PluginName,
        source: cache::Error,
    },
    #[error("plugin `{plugin}` does not fit this host: it was built against other interfaces")]
    Mismatch {
        plugin: PluginName,
        source: wasmtime::Error,
    },
    #[error("plugin `{plugin}` cannot be started")]
    Start {
        plugin: PluginName,
        source: crate::CallError,
    },
    #[error("read what plugin `{plugin}` asks for and is granted")]
    Grants {
        plugin: PluginName,
        source: pattern::Error,
    },
    #[error("open directory `{name}` of plugin `{plugin}`, `{}`", path.display())]
    Directory {
        plugin: PluginName,
        name: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the thread that loaded plugin `{plugin}` broke off")]
    Interrupted { plugin: PluginName },
}

impl Host {
    /// Starts the engine and opens the cache.
    ///
    /// # Errors
    /// [`Error`] when the machine cannot run compiled code, or the cache directory cannot be made private.
    pub fn new(options: HostOptions) -> Result<Self, Error> {
        let engine = Engine::new().map_err(Error::Engine)?;
        let mut linker = Linker::new(engine.wasm());
        capabilities::link(&mut linker).map_err(Error::Engine)?;
        let cache = Cache::open(&options.cache_dir, engine.wasm()).map_err(Error::Cache)?;
        let HostOptions {
            limits,
            progress,
            network,
            ..
        } = options;
        Ok(Self {
            shared: Arc::new(Shared { engine, cache }),
            linker,
            limits,
            progress,
            web: Arc::new(Client::new(network)),
        })
    }

    /// Reads, checks, compiles and links a component, and makes one instance to see that it fits.
    ///
    /// # Errors
    /// [`Error`] with the reason; the component's own code has had no chance to do harm.
    pub async fn load(
        &self,
        name: PluginName,
        path: &Path,
        grants: &Grants,
        secrets: Secrets,
    ) -> Result<Arc<Plugin>, Error> {
        let (inspection, component) = self.compile(&name, path).await?;
        let refuse = |source| Error::Grants {
            plugin: name.clone(),
            source,
        };
        let permissions =
            Permissions::new(name.clone(), inspection.manifest.as_ref(), grants).map_err(refuse)?;
        if let Some(manifest) = &inspection.manifest {
            for mismatch in grants.check_declared(manifest) {
                tracing::debug!(plugin = %name, "{mismatch}");
            }
        }
        let directories = open_directories(&name, grants)?;

        let mismatch = |source| Error::Mismatch {
            plugin: name.clone(),
            source,
        };
        let pre = self.linker.instantiate_pre(&component).map_err(mismatch)?;
        let exports = Exports::of(&pre, &inspection.provides).map_err(mismatch)?;
        let shared = plugin::Shared {
            name: name.clone(),
            limits: self.limits.clone(),
            http_turns: Arc::new(Semaphore::new(self.limits.http_requests)),
            web: Arc::clone(&self.web),
            permissions,
            directories,
            secrets,
            progress: self.progress.clone(),
        };
        let plugin = Plugin::new(
            Arc::clone(&self.shared),
            Arc::new(shared),
            pre,
            exports,
            inspection,
        );
        let fits = plugin.try_exports().await.map_err(|source| Error::Start {
            plugin: name.clone(),
            source,
        })?;
        fits.map_err(mismatch)?;
        Ok(Arc::new(plugin))
    }

    /// Compiling is the machine's work for a while, so it is done where it holds nothing up.
    async fn compile(
        &self,
        name: &PluginName,
        path: &Path,
    ) -> Result<(Inspection, Component), Error> {
        let (host, plugin, path) = (Arc::clone(&self.shared), name.clone(), path.to_owned());
        let work = move || {
            let bytes = read(&path).map_err(|source| Error::Read {
                plugin: plugin.clone(),
                path: path.clone(),
                source,
            })?;
            let inspection = inspect::inspect(&bytes).map_err(|source| Error::Unusable {
                plugin: plugin.clone(),
                path,
                source,
            })?;
            let component = host
                .cache
                .load(host.engine.wasm(), &inspection.digest, &bytes)
                .map_err(|source| Error::Compile { plugin, source })?;
            Ok((inspection, component))
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| {
            Err(Error::Interrupted {
                plugin: name.clone(),
            })
        })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > MAX_COMPONENT {
        let message = format!("it has {length} bytes, the limit is {MAX_COMPONENT}");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    std::fs::read(path)
}

fn open_directories(
    plugin: &PluginName,
    grants: &Grants,
) -> Result<BTreeMap<String, Directory>, Error> {
    grants
        .directories
        .iter()
        .map(|grant| {
            let failed = |source| Error::Directory {
                plugin: plugin.clone(),
                name: grant.name.clone(),
                path: grant.path.clone(),
                source,
            };
            let handle = Dir::open_ambient_dir(&grant.path, ambient_authority()).map_err(failed)?;
            Ok((
                grant.name.clone(),
                Directory {
                    handle: Arc::new(handle),
                    path: grant.path.clone(),
                },
            ))
        })
        .collect()
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

//! The workspace's plugins: finding them, pinning them by digest, loading each once.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{Digest, PluginName};
use plugin_host::{
    CallError, DirectoryGrant, Grants, Host, Mismatch, PathGrant, Plugin, Provides, Secret, Secrets,
};
use spec::lock::{Entry, Lock};
use spec::workspace::{self, SecretSource, Workspace};

use crate::build::find_program;

/// First-party package sources, used for schemes that no plugin of the workspace serves.
const FIRST_PARTY_SOURCES: [(&str, &str); 3] = [
    ("file", "file-package"),
    ("http", "http-package"),
    ("https", "http-package"),
];

/// The first-party plugin that provides the kinds of deployment which no plugin of the workspace does.
const FIRST_PARTY_KINDS: &str = "ews-kinds";

/// A plugin that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("the workspace declares no plugin `{name}`")]
    Unknown { name: PluginName },
    #[error(
        "there is no first-party plugin `{component}`; looked in {}",
        listed(looked_in)
    )]
    NotFound {
        component: String,
        looked_in: Vec<PathBuf>,
    },
    #[error(
        "component `{component}` of plugin `{name}`: fetching plugins from a registry is not supported by this version of cutover; name a file"
    )]
    Remote { name: PluginName, component: String },
    #[error("load plugin `{name}`")]
    Load {
        name: PluginName,
        source: Box<plugin_host::Error>,
    },
    #[error(
        "plugin `{name}` has changed: `cutover.lock` pins {pinned} and `{}` is {found}; if the change is wanted, remove its entry from `cutover.lock`",
        path.display()
    )]
    Changed {
        name: PluginName,
        path: PathBuf,
        pinned: Digest,
        found: Digest,
    },
    #[error(
        "the release began with plugin `{name}` {began_with}, and now it is {found}; put the former back to resume"
    )]
    NotTheSame {
        name: PluginName,
        began_with: Digest,
        found: Digest,
    },
    #[error("read secret `{secret}` of plugin `{name}` from {from}")]
    Secret {
        name: PluginName,
        secret: String,
        from: String,
        source: io::Error,
    },
    #[error("read the lock file `{}`", path.display())]
    ReadLock { path: PathBuf, source: io::Error },
    #[error("understand the lock file")]
    Lock(#[from] spec::Problems),
    #[error("write the lock file `{}`", path.display())]
    WriteLock { path: PathBuf, source: io::Error },
    #[error("no plugin serves packages of scheme `{scheme}:`")]
    NoSource { scheme: String },
    #[error("ask plugin `{name}` for its kinds of deployment")]
    Kinds {
        name: PluginName,
        source: Box<CallError>,
    },
}

fn listed(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A kind of deployment.
#[derive(Clone)]
pub struct Kind {
    pub plugin: Arc<Plugin>,
    /// JSON Schema of a plan item's own keys.
    pub item_schema: String,
}

/// The plugins of a workspace.
pub struct Plugins {
    host: Host,
    folder: PathBuf,
    declared: Vec<workspace::Plugin>,
    loaded: tokio::sync::Mutex<BTreeMap<PluginName, Arc<Plugin>>>,
}

impl Plugins {
    /// Prepares for the plugins that a workspace declares; none is loaded before it is needed. `folder` is where
    /// `cutover.yaml` is.
    #[must_use]
    pub fn new(host: Host, workspace: &Workspace, folder: PathBuf) -> Self {
        Self {
            host,
            folder,
            declared: workspace.plugins.clone(),
            loaded: tokio::sync::Mutex::default(),
        }
    }

    /// The folder that `cutover.yaml` is in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The plugin with this name, loaded.
    ///
    /// # Errors
    /// [`PluginError`] when it is not declared, cannot be found, loaded, or is not the one that the lock file pins.
    pub async fn get(&self, name: &PluginName) -> Result<Arc<Plugin>, PluginError> {
        // Held while loading, so that a plugin is compiled once however many instances wait for it.
        let mut loaded = self.loaded.lock().await;
        if let Some(plugin) = loaded.get(name) {
            return Ok(plugin.clone());
        }
        let declared = self.declaration(name);
        let (component, grants, secrets) = match declared {
            Some(plugin) => (
                plugin.component.clone(),
                self.grants_of(plugin),
                self.secrets_of(plugin)?,
            ),
            None if name.as_str() == FIRST_PARTY_KINDS
                || FIRST_PARTY_SOURCES
                    .iter()
                    .any(|(_, source)| *source == name.as_str()) =>
            {
                (name.to_string(), Grants::default(), Secrets::default())
            }
            None => return Err(PluginError::Unknown { name: name.clone() }),
        };
        let path = self.locate(name, &component)?;
        let plugin = self
            .host
            .load(name.clone(), &path, &grants, secrets)
            .await
            .map_err(|source| PluginError::Load {
                name: name.clone(),
                source: Box::new(source),
            })?;
        if declared.is_some() {
            self.pin(name, &component, &path, &plugin)?;
        }
        loaded.insert(name.clone(), plugin.clone());
        Ok(plugin)
    }

    /// The package source for a scheme: the first declared plugin that serves it, else the first-party one.
    ///
    /// # Errors
    /// [`PluginError::NoSource`] when there is none, or what [`Plugins::get`] says of it.
    pub async fn source(&self, scheme: &str) -> Result<Arc<Plugin>, PluginError> {
        for declared in &self.declared {
            let plugin = self.get(&declared.name).await?;
            let offer = plugin
                .manifest()
                .and_then(|manifest| manifest.provides.get("package-source"));
            if offer.is_some_and(|offer| offer.schemes.iter().any(|served| served == scheme)) {
                return Ok(plugin);
            }
        }
        let first_party = FIRST_PARTY_SOURCES
            .iter()
            .find(|(served, _)| *served == scheme);
        let (_, name) = first_party.ok_or_else(|| PluginError::NoSource {
            scheme: scheme.to_owned(),
        })?;
        let name =
            PluginName::parse(name).unwrap_or_else(|error| unreachable!("a name of ours: {error}"));
        self.get(&name).await
    }

    /// The kinds of deployment that release plans may name, each with the plugin that provides it: the first of the
    /// workspace's that does, else the first-party one.
    ///
    /// # Errors
    /// What [`Plugins::get`] says of a plugin, and [`PluginError::Kinds`] of one that cannot tell its kinds.
    pub async fn kinds(&self) -> Result<BTreeMap<String, Kind>, PluginError> {
        let first_party = PluginName::parse(FIRST_PARTY_KINDS)
            .unwrap_or_else(|error| unreachable!("a name of ours: {error}"));
        let mut kinds = BTreeMap::new();
        for name in self.names().chain([&first_party]) {
            let plugin = self.get(name).await?;
            if !plugin.provides().deployment_kind {
                continue;
            }
            let offered = plugin.kinds().await.map_err(|source| PluginError::Kinds {
                name: name.clone(),
                source: Box::new(source),
            })?;
            for description in offered {
                kinds
                    .entry(description.name.clone())
                    .or_insert_with(|| Kind {
                        plugin: plugin.clone(),
                        item_schema: description.item_schema,
                    });
            }
        }
        Ok(kinds)
    }

    /// The configuration of a package source, a JSON document.
    #[must_use]
    pub(crate) fn config(&self, name: &PluginName) -> String {
        let declared = self.declaration(name);
        declared.map_or_else(|| "{}".to_owned(), |plugin| plugin.config.clone())
    }

    /// Everything that does not fit between what a plugin declares and what it is granted.
    #[must_use]
    pub fn mismatches(&self, plugin: &Plugin) -> Vec<Mismatch> {
        match (plugin.manifest(), self.declaration(plugin.name())) {
            (Some(manifest), Some(declared)) => self.grants_of(declared).check_declared(manifest),
            _ => Vec::new(),
        }
    }

    /// The programs that a plugin is granted and that this machine does not have.
    #[must_use]
    pub fn missing_programs(&self, name: &PluginName) -> Vec<String> {
        let declared = self.declaration(name);
        let granted = declared.map_or(&[][..], |plugin| plugin.grants.programs.as_slice());
        let is_missing = |program: &&String| {
            program.as_str() != "*" && !find_program(program).is_some_and(|file| file.is_file())
        };
        granted.iter().filter(is_missing).cloned().collect()
    }

    /// What the operator grants a plugin, one line a grant.
    #[must_use]
    pub fn granted(&self, name: &PluginName) -> Vec<String> {
        let Some(plugin) = self.declaration(name) else {
            return Vec::new();
        };
        let workspace::Grants {
            sockets,
            http,
            directories,
            secrets,
            programs,
            commands,
            paths,
        } = &plugin.grants;
        let directories = directories.iter().map(|directory| {
            let access = access(directory.access).name();
            format!(
                "directory {} = {} ({access})",
                directory.name, directory.path
            )
        });
        let sockets = sockets.iter().map(|address| format!("socket {address}"));
        let http = http.iter().map(|host| format!("http {host}"));
        let secrets = secrets
            .iter()
            .map(|secret| format!("secret {}", secret.name));
        let programs = programs.iter().map(|program| format!("program {program}"));
        let commands = commands
            .iter()
            .map(|command| format!("command {command} on instances"));
        let paths = paths.iter().map(|path| {
            let access = access(path.access).name();
            format!("path {} on instances ({access})", path.path)
        });
        sockets
            .chain(http)
            .chain(directories)
            .chain(secrets)
            .chain(programs)
            .chain(commands)
            .chain(paths)
            .collect()
    }

    fn declaration(&self, name: &PluginName) -> Option<&workspace::Plugin> {
        self.declared.iter().find(|plugin| plugin.name == *name)
    }

    /// Checks that the plugins in use are those that a release began with.
    ///
    /// # Errors
    /// [`PluginError::NotTheSame`] at the first that differs.
    pub async fn check_same(
        &self,
        began_with: &BTreeMap<PluginName, Digest>,
    ) -> Result<(), PluginError> {
        for (name, digest) in began_with {
            let found = self.get(name).await?.digest().clone();
            if found != *digest {
                return Err(PluginError::NotTheSame {
                    name: name.clone(),
                    began_with: digest.clone(),
                    found,
                });
            }
        }
        Ok(())
    }

    /// The names that the workspace declares, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &PluginName> {
        self.declared.iter().map(|plugin| &plugin.name)
    }

    fn locate(&self, name: &PluginName, component: &str) -> Result<PathBuf, PluginError> {
        if component.starts_with("oci://")
            || component.starts_with("https://")
            || component.starts_with("http://")
        {
            return Err(PluginError::Remote {
                name: name.clone(),
                component: component.to_owned(),
            });
        }
        if component.contains('/') || component.ends_with(".wasm") {
            return Ok(self.folder.join(component));
        }
        let looked_in = first_party_folders();
        let file = format!("{component}.wasm");
        let found = looked_in
            .iter()
            .map(|folder| folder.join(&file))
            .find(|path| path.exists());
        found.ok_or(PluginError::NotFound {
            component: component.to_owned(),
            looked_in,
        })
    }

    fn secrets_of(&self, plugin: &workspace::Plugin) -> Result<Secrets, PluginError> {
        let mut secrets = Secrets::default();
        for secret in &plugin.grants.secrets {
            let (from, value) = match &secret.source {
                SecretSource::Variable(variable) => {
                    let value = env::var(variable).map_err(io::Error::other);
                    (format!("the environment variable `{variable}`"), value)
                }
                SecretSource::File(file) => {
                    let path = self.folder.join(file);
                    let value = fs::read_to_string(&path)
                        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
                    (format!("the file `{}`", path.display()), value)
                }
            };
            let value = value.map_err(|source| PluginError::Secret {
                name: plugin.name.clone(),
                secret: secret.name.clone(),
                from,
                source,
            })?;
            secrets.insert(secret.name.clone(), Secret::new(value.into_bytes()));
        }
        Ok(secrets)
    }

    fn grants_of(&self, plugin: &workspace::Plugin) -> Grants {
        let grants = &plugin.grants;
        let directories = grants.directories.iter().map(|directory| DirectoryGrant {
            name: directory.name.clone(),
            path: self.folder.join(&directory.path),
            access: access(directory.access),
        });
        Grants {
            sockets: grants.sockets.clone(),
            http: grants.http.clone(),
            directories: directories.collect(),
            secrets: grants
                .secrets
                .iter()
                .map(|secret| secret.name.clone())
                .collect(),
            programs: grants.programs.clone(),
            commands: grants.commands.clone(),
            paths: grants
                .paths
                .iter()
                .map(|grant| PathGrant {
                    path: grant.path.clone(),
                    access: access(grant.access),
                })
                .collect(),
        }
    }

    /// Holds a plugin to the digest in the lock file; a plugin that is not in it is added.
    fn pin(
        &self,
        name: &PluginName,
        component: &str,
        path: &Path,
        plugin: &Plugin,
    ) -> Result<(), PluginError> {
        let file = self.folder.join("cutover.lock");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(PluginError::ReadLock { path: file, source }),
        };
        let mut lock = if text.is_empty() {
            Lock::default()
        } else {
            spec::lock::parse(&text, &file)?.value
        };
        let found = plugin.digest().clone();
        match lock.plugins.get(name) {
            Some(locked) if locked.digest == found => Ok(()),
            Some(locked) => Err(PluginError::Changed {
                name: name.clone(),
                path: path.to_owned(),
                pinned: locked.digest.clone(),
                found,
            }),
            None => {
                let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
                lock.plugins.insert(
                    name.clone(),
                    Entry {
                        component: component.to_owned(),
                        digest: found,
                        size,
                    },
                );
                let draft = self
                    .folder
                    .join(format!(".cutover.lock.{}", std::process::id()));
                fs::write(&draft, lock.to_string())
                    .and_then(|()| fs::rename(&draft, &file))
                    .map_err(|source| PluginError::WriteLock { path: file, source })
            }
        }
    }
}

fn access(access: workspace::Access) -> plugin_host::Access {
    match access {
        workspace::Access::Read => plugin_host::Access::Read,
        workspace::Access::ReadWrite => plugin_host::Access::ReadWrite,
    }
}

/// Where components of first-party plugins are looked for.
fn first_party_folders() -> Vec<PathBuf> {
    let given = env::var_os("CUTOVER_PLUGIN_PATH");
    let mut folders: Vec<_> = given
        .iter()
        .flat_map(|paths| env::split_paths(paths))
        .collect();
    if let Some(folder) = env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.to_owned()))
    {
        folders.push(folder.join("plugins"));
        folders.push(folder.join("../plugins"));
        folders.push(folder.join("../share/cutover/plugins"));
    }
    folders
}

/// The interfaces that a plugin implements, for people.
#[must_use]
pub fn implements(provides: &Provides) -> String {
    let Provides {
        load_balancer,
        limits,
        weights,
        router,
        package_source,
        streaming,
        deployment_kind,
        gate,
    } = *provides;
    let names = [
        (load_balancer, "load-balancer"),
        (limits, "load-balancer limits"),
        (weights, "load-balancer weights"),
        (router, "traffic router"),
        (package_source, "package-source"),
        (streaming, "package-source streaming"),
        (deployment_kind, "deployment-kind"),
        (gate, "gate"),
    ];
    names
        .iter()
        .filter(|(has, _)| *has)
        .map(|(_, name)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

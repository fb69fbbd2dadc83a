//! Packages with their appspecs on disk.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{AppSpec, DeploymentId, LifecycleEvent};
use serde::{Deserialize, Serialize};

use super::fact::Broken;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    deployment: DeploymentId,
    revision: Revision,
    appspec: Spec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revision {
    version: String,
    source: String,
    digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    files: Vec<FileMapping>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    permissions: Vec<Permission>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    hooks: BTreeMap<LifecycleEvent, Vec<Script>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    #[serde(with = "OnExisting")]
    on_existing: model::OnExisting,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMapping {
    source: String,
    destination: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::OnExisting", rename_all = "kebab-case")]
enum OnExisting {
    Disallow,
    Overwrite,
    Retain,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Permission {
    object: String,
    pattern: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    except: Vec<String>,
    #[serde(with = "Kinds")]
    kinds: model::Kinds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<Context>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Kinds", rename_all = "kebab-case")]
enum Kinds {
    Files,
    Directories,
    Both,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    #[serde(with = "Run")]
    run: model::Run,
    timeout: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runas: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Run", rename_all = "kebab-case")]
enum Run {
    Location(String),
    Command(String),
}

impl From<&model::Package> for Package {
    fn from(package: &model::Package) -> Self {
        let model::Package {
            deployment,
            revision,
            appspec,
        } = package;
        Self {
            deployment: deployment.clone(),
            revision: revision.into(),
            appspec: appspec.into(),
        }
    }
}

impl TryFrom<Package> for model::Package {
    type Error = Broken;

    fn try_from(package: Package) -> Result<Self, Broken> {
        let Package {
            deployment,
            revision,
            appspec,
        } = package;
        Ok(Self {
            deployment,
            revision: revision.try_into()?,
            appspec: appspec.into(),
        })
    }
}

impl From<&model::Revision> for Revision {
    fn from(revision: &model::Revision) -> Self {
        let model::Revision {
            version,
            source,
            digest,
        } = revision;
        Self {
            version: version.to_string(),
            source: source.clone(),
            digest: digest.to_string(),
        }
    }
}

impl TryFrom<Revision> for model::Revision {
    type Error = Broken;

    fn try_from(revision: Revision) -> Result<Self, Broken> {
        let Revision {
            version,
            source,
            digest,
        } = revision;
        Ok(Self {
            version: model::Version::parse(&version)?,
            source,
            digest: model::Digest::parse(&digest)?,
        })
    }
}

impl From<&AppSpec> for Spec {
    fn from(appspec: &AppSpec) -> Self {
        let AppSpec {
            files,
            permissions,
            hooks,
            env,
            on_existing,
        } = appspec.clone();
        Self {
            files: files
                .into_iter()
                .map(
                    |model::FileMapping {
                         source,
                         destination,
                     }| FileMapping {
                        source,
                        destination,
                    },
                )
                .collect(),
            permissions: permissions.into_iter().map(Permission::from).collect(),
            hooks: hooks
                .into_iter()
                .map(|(event, scripts)| (event, scripts.into_iter().map(Script::from).collect()))
                .collect(),
            env,
            on_existing,
        }
    }
}

impl From<Spec> for AppSpec {
    fn from(spec: Spec) -> Self {
        let Spec {
            files,
            permissions,
            hooks,
            env,
            on_existing,
        } = spec;
        Self {
            files: files
                .into_iter()
                .map(
                    |FileMapping {
                         source,
                         destination,
                     }| model::FileMapping {
                        source,
                        destination,
                    },
                )
                .collect(),
            permissions: permissions
                .into_iter()
                .map(model::Permission::from)
                .collect(),
            hooks: hooks
                .into_iter()
                .map(|(event, scripts)| {
                    (
                        event,
                        scripts.into_iter().map(model::Script::from).collect(),
                    )
                })
                .collect(),
            env,
            on_existing,
        }
    }
}

impl From<model::Permission> for Permission {
    fn from(permission: model::Permission) -> Self {
        let model::Permission {
            object,
            pattern,
            except,
            kinds,
            owner,
            group,
            mode,
            acls,
            context,
        } = permission;
        Self {
            object,
            pattern,
            except,
            kinds,
            owner,
            group,
            mode,
            acls,
            context: context.map(|model::Context { user, kind, range }| Context {
                user,
                kind,
                range,
            }),
        }
    }
}

impl From<Permission> for model::Permission {
    fn from(permission: Permission) -> Self {
        let Permission {
            object,
            pattern,
            except,
            kinds,
            owner,
            group,
            mode,
            acls,
            context,
        } = permission;
        Self {
            object,
            pattern,
            except,
            kinds,
            owner,
            group,
            mode,
            acls,
            context: context.map(|Context { user, kind, range }| model::Context {
                user,
                kind,
                range,
            }),
        }
    }
}

impl From<model::Script> for Script {
    fn from(script: model::Script) -> Self {
        let model::Script {
            run,
            timeout,
            runas,
        } = script;
        Self {
            run,
            timeout,
            runas,
        }
    }
}

impl From<Script> for model::Script {
    fn from(script: Script) -> Self {
        let Script {
            run,
            timeout,
            runas,
        } = script;
        Self {
            run,
            timeout,
            runas,
        }
    }
}

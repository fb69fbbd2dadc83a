//! The package cache of an instance: `ROOTDIR/app-A/group-G/deploy-D/`.
//!
//! A package folder gets its name by a rename when it is whole. Beside it,
//! `ROOTDIR/.cutover/packages/app-A/group-G/deploy-D.json` keeps its digest, and, until the content is known to be on
//! the disk, the boot in which it was written: after another boot such a folder may look whole and not be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::attempt;
use crate::protocol;
use crate::small;

/// Why there is no package to work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{cache}` is not a package folder: it must be `app-A/group-G/deploy-D`")]
    Name { cache: String },
    #[error(transparent)]
    Root(#[from] attempt::Error),
    #[error("the package folder `{path}` is not on this instance", path = path.display())]
    Missing { path: PathBuf },
    #[error("the package folder `{path}` is not whole: the host went down while it was written", path = path.display())]
    Torn { path: PathBuf },
}

/// What is known of a package folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) digest: String,
    /// When it was written, in milliseconds since the Unix epoch.
    pub(crate) written_ms: u64,
    /// The boot that wrote it, while it is not known to be on the disk.
    pub(crate) boot: Option<String>,
}

/// The place of a package folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
    app: String,
    group: String,
    deployment: String,
}

/// Whether a package folder is there and whole.
pub(crate) fn is_complete(rootdir: &str, cache: &str, boot: &str) -> bool {
    Folder::at(rootdir, cache)
        .is_ok_and(|folder| folder.path().is_dir() && folder.digest(boot).is_some())
}

impl Folder {
    /// The place of a package folder of an instance.
    pub(crate) fn at(rootdir: &str, cache: &str) -> Result<Self, Error> {
        let root = attempt::root(rootdir)?.to_path_buf();
        let mut parts = cache.split('/');
        let mut part = |prefix: &str| {
            let name = parts.next()?.strip_prefix(prefix)?;
            attempt::is_name(name).then(|| name.to_owned())
        };
        let named = part("app-").zip(part("group-")).zip(part("deploy-"));
        match named {
            Some(((app, group), deployment)) if parts.next().is_none() => Ok(Self {
                root,
                app,
                group,
                deployment,
            }),
            _ => Err(Error::Name {
                cache: cache.to_owned(),
            }),
        }
    }

    /// The same group's folder of another deployment.
    pub(crate) fn of(&self, deployment: &str) -> Self {
        Self {
            deployment: deployment.to_owned(),
            ..self.clone()
        }
    }

    pub(crate) fn app(&self) -> &str {
        &self.app
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn deployment(&self) -> &str {
        &self.deployment
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the group's packages.
    pub(crate) fn group_path(&self) -> PathBuf {
        self.root
            .join(format!("app-{}/group-{}", self.app, self.group))
    }

    /// The package folder itself.
    pub(crate) fn path(&self) -> PathBuf {
        self.group_path()
            .join(format!("deploy-{}", self.deployment))
    }

    fn marker_path(&self) -> PathBuf {
        let group = format!(".cutover/packages/app-{}/group-{}", self.app, self.group);
        self.root
            .join(group)
            .join(format!("deploy-{}.json", self.deployment))
    }

    /// The package folder, for use.
    pub(crate) fn open(&self, boot: &str) -> Result<PathBuf, Error> {
        let path = self.path();
        if !path.is_dir() {
            return Err(Error::Missing { path });
        }
        // A folder without a marker is somebody's own work, and is taken as it is.
        match self.marker() {
            Some(marker) if !marker.holds(boot) => Err(Error::Torn { path }),
            _ => Ok(path),
        }
    }

    /// The digest that the folder was written with, if it is whole.
    pub(crate) fn digest(&self, boot: &str) -> Option<String> {
        self.marker()
            .filter(|marker| marker.holds(boot))
            .map(|marker| marker.digest)
    }

    /// When the folder was written, in milliseconds since the Unix epoch; 0 where that is not known.
    pub(crate) fn written_ms(&self) -> u64 {
        self.marker().map_or(0, |marker| marker.written_ms)
    }

    fn marker(&self) -> Option<Marker> {
        protocol::decode(&small::read(&self.marker_path()).ok()?).ok()
    }

    /// Keeps what is known of the folder.
    pub(crate) fn mark(&self, marker: &Marker) -> io::Result<()> {
        let path = self.marker_path();
        let draft = path.with_extension("draft");
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&draft, protocol::encode(marker))?;
        fs::rename(draft, path)
    }

    /// Removes the folder and what is known of it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.marker_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::remove_dir_all(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Marker {
    fn holds(&self, boot: &str) -> bool {
        self.boot
            .as_ref()
            .is_none_or(|written_in| !boot.is_empty() && written_in == boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_package_folders_are_package_folders() {
        for cache in ["app-a/group-g/deploy-d", "app-a.b/group-g_1/deploy-k7m2-1"] {
            assert!(Folder::at("/srv", cache).is_ok(), "{cache}");
        }
        for cache in [
            "",
            "app-a/group-g",
            "app-a/group-g/deploy-",
            "app-../group-g/deploy-d/../x",
            "/etc",
            "app-a/group-g/deploy-d/x",
            "app-a/group-../deploy-d",
        ] {
            assert!(Folder::at("/srv", cache).is_err(), "{cache}");
        }
        assert!(Folder::at("srv", "app-a/group-g/deploy-d").is_err());
        assert!(Folder::at("/srv/../x", "app-a/group-g/deploy-d").is_err());
    }

    #[test]
    fn a_folder_that_may_not_have_reached_the_disk_counts_in_its_own_boot_only() {
        let root = tempfile::tempdir().unwrap();
        let rootdir = root.path().to_str().unwrap();
        let folder = Folder::at(rootdir, "app-a/group-g/deploy-d").unwrap();
        fs::create_dir_all(folder.path()).unwrap();
        let digest = "sha256:0".to_owned();

        assert!(!is_complete(rootdir, "app-a/group-g/deploy-d", "one"));
        folder
            .mark(&Marker {
                digest: digest.clone(),
                written_ms: 1,
                boot: Some("one".to_owned()),
            })
            .unwrap();
        assert!(is_complete(rootdir, "app-a/group-g/deploy-d", "one"));
        assert!(!is_complete(rootdir, "app-a/group-g/deploy-d", "two"));
        assert!(matches!(folder.open("two"), Err(Error::Torn { .. })));
        folder
            .mark(&Marker {
                digest,
                written_ms: 1,
                boot: None,
            })
            .unwrap();
        assert!(is_complete(rootdir, "app-a/group-g/deploy-d", "two"));
    }
}

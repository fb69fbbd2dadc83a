//! What an application's group has installed: `ROOTDIR/.cutover/installed/APPLICATION/GROUP.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::attempt::{self, is_name};
use crate::protocol;

/// Why it is not known what is installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Root(#[from] attempt::Error),
    #[error("`{name}` is not a valid name of an application or group")]
    Name { name: String },
    #[error("{doing} `{path}`", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the record of what is installed, `{path}`, cannot be read", path = path.display())]
    Garbage {
        path: PathBuf,
        #[source]
        source: protocol::Garbage,
    },
    #[error("another installation of the same group is at work")]
    Busy,
}

/// A path as JSON: text where it is UTF-8, otherwise a list of bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(pub(crate) PathBuf);

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => self.0.as_os_str().as_bytes().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = match Spelling::deserialize(deserializer)? {
            Spelling::Text(text) => PathBuf::from(text),
            Spelling::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        };
        Ok(Self(path))
    }
}

/// What belongs to one installation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) deployment: String,
    /// Files and links.
    pub(crate) files: BTreeSet<Place>,
    /// Folders that were made for it, with those made for its predecessors.
    pub(crate) directories: BTreeSet<Place>,
    /// Foreign files that it replaced, with the name under which each is kept.
    pub(crate) kept: Vec<(Place, String)>,
}

/// The record of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The last finished installation.
    pub(crate) installed: Option<Content>,
    /// The one that began after it and has not finished.
    pub(crate) pending: Option<Content>,
}

/// Where a group's record and the files that go with it are.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    dir: PathBuf,
    group: String,
}

/// The deployment that a group has installed.
pub(crate) fn installed(
    rootdir: &str,
    application: &str,
    group: &str,
) -> Result<Option<String>, Error> {
    let record = Shelf::at(rootdir, application, group)?.load()?;
    Ok(record.installed.map(|content| content.deployment))
}

/// The deployments whose packages the group's files come from or are about to.
pub(crate) fn needed(rootdir: &str, application: &str, group: &str) -> Result<Vec<String>, Error> {
    let record = Shelf::at(rootdir, application, group)?.load()?;
    Ok([record.installed, record.pending]
        .into_iter()
        .flatten()
        .map(|content| content.deployment)
        .collect())
}

impl Shelf {
    pub(crate) fn at(rootdir: &str, application: &str, group: &str) -> Result<Self, Error> {
        if let Some(name) = [application, group].into_iter().find(|name| !is_name(name)) {
            return Err(Error::Name {
                name: name.to_owned(),
            });
        }
        let dir = attempt::root(rootdir)?
            .join(".cutover/installed")
            .join(application);
        Ok(Self {
            dir,
            group: group.to_owned(),
        })
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.group))
    }

    /// The folder of foreign files that were replaced and may come back.
    pub(crate) fn kept(&self) -> PathBuf {
        self.path("kept")
    }

    /// The folder of files that are replaced or removed, for the time of one installation.
    pub(crate) fn undo(&self) -> PathBuf {
        self.path("undo")
    }

    /// Keeps other installations of the group out as long as the file is open.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let path = self.path("lock");
        let open = || {
            fs::create_dir_all(&self.dir)?;
            File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
        };
        let file = open().map_err(|source| Error::Io {
            doing: "open",
            path: path.clone(),
            source,
        })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Busy),
            Err(errno) => Err(Error::Io {
                doing: "lock",
                path,
                source: errno.into(),
            }),
        }
    }

    pub(crate) fn load(&self) -> Result<Record, Error> {
        let path = self.path("json");
        match fs::read(&path) {
            Ok(text) => protocol::decode(&text).map_err(|source| Error::Garbage { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(source) => Err(Error::Io {
                doing: "read",
                path,
                source,
            }),
        }
    }

    /// Replaces the record. It is whole on the disk whenever it is there; that it is there at all is certain only
    /// after [`Shelf::sync`].
    pub(crate) fn save(&self, record: &Record) -> Result<(), Error> {
        let path = self.path("json");
        let save = || {
            let draft = self.path("draft");
            let mut file = File::create(&draft)?;
            file.write_all(&protocol::encode(record))?;
            file.sync_data()?;
            fs::rename(draft, &path)
        };
        save().map_err(|source| Error::Io {
            doing: "write",
            path: path.clone(),
            source,
        })
    }

    /// Makes the last [`Shelf::save`] durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| Error::Io {
            doing: "sync",
            path: self.dir.clone(),
            source,
        })
    }
}

impl Record {
    /// The files that are the group's own, an unfinished installation's included.
    ///
    /// A foreign file that was about to be replaced is its own only when it has been put aside.
    pub(crate) fn files(&self, shelf: &Shelf) -> BTreeSet<PathBuf> {
        let kept = shelf.kept();
        let is_put_aside = |name: &str| kept.join(name).symlink_metadata().is_ok();
        let mut files = BTreeSet::new();
        if let Some(pending) = &self.pending {
            let left: BTreeSet<&Place> = pending
                .kept
                .iter()
                .filter(|(_, name)| !is_put_aside(name))
                .map(|(place, _)| place)
                .collect();
            files.extend(
                pending
                    .files
                    .iter()
                    .filter(|place| !left.contains(place))
                    .map(|place| place.0.clone()),
            );
        }
        files.extend(
            self.installed
                .iter()
                .flat_map(|content| content.files.iter().map(|place| place.0.clone())),
        );
        files
    }

    /// The folders that were made for the group.
    pub(crate) fn directories(&self) -> BTreeSet<PathBuf> {
        let contents = [&self.installed, &self.pending].into_iter().flatten();
        contents
            .flat_map(|content| content.directories.iter().map(|place| place.0.clone()))
            .collect()
    }

    /// The foreign files that were put aside.
    pub(crate) fn kept(&self, shelf: &Shelf) -> BTreeMap<PathBuf, String> {
        let kept = shelf.kept();
        let contents = [&self.installed, &self.pending].into_iter().flatten();
        contents
            .flat_map(|content| content.kept.iter())
            .filter(|(_, name)| kept.join(name).symlink_metadata().is_ok())
            .map(|(place, name)| (place.0.clone(), name.clone()))
            .collect()
    }

    /// A name under which no foreign file is kept.
    pub(crate) fn free_name(&self) -> u64 {
        let contents = [&self.installed, &self.pending].into_iter().flatten();
        let names = contents
            .flat_map(|content| content.kept.iter())
            .filter_map(|(_, name)| name.parse::<u64>().ok());
        names.max().map_or(0, |highest| highest + 1)
    }
}

/// The sorted places of paths.
pub(crate) fn places<'a>(paths: impl IntoIterator<Item = &'a Path>) -> BTreeSet<Place> {
    paths
        .into_iter()
        .map(|path| Place(path.to_path_buf()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file_whatever_the_names() {
        let root = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(root.path().to_str().unwrap(), "shop", "web").unwrap();
        let odd = PathBuf::from(OsString::from_vec(b"/srv/\xff\"\n".to_vec()));
        let content = Content {
            deployment: "r1-1".to_owned(),
            files: places([Path::new("/srv/ü"), odd.as_path()]),
            directories: places([Path::new("/srv")]),
            kept: vec![(Place(odd.clone()), "3".to_owned())],
        };
        let record = Record {
            installed: None,
            pending: Some(content),
        };
        drop(shelf.lock().unwrap());

        shelf.save(&record).unwrap();

        assert_eq!(shelf.load().unwrap(), record);
        assert_eq!(record.free_name(), 4);
        assert!(
            !record.files(&shelf).contains(&odd),
            "what was not put aside is still foreign"
        );
    }

    #[test]
    fn garbage_is_an_error_and_absence_is_not() {
        let root = tempfile::tempdir().unwrap();
        let rootdir = root.path().to_str().unwrap();
        assert_eq!(installed(rootdir, "shop", "web").unwrap(), None);
        let shelf = Shelf::at(rootdir, "shop", "web").unwrap();
        drop(shelf.lock().unwrap());
        fs::write(shelf.path("json"), "{").unwrap();

        assert!(
            installed(rootdir, "shop", "web")
                .unwrap_err()
                .to_string()
                .contains("web.json`, cannot be read")
        );
        assert!(installed(rootdir, "..", "web").is_err());
    }
}

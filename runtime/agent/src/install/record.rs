//! What an application's group has installed: `ROOTDIR/.cutover/installed/APPLICATION/GROUP.json`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::attributes::Found;
use super::copy::Stamp;
use super::journal::Journal;
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
    #[error("the record of what is installed, `{path}`, cannot be read: restore it, or remove it and let the files be \
             overwritten", path = path.display())]
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

/// A file or link of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Laid {
    pub(crate) place: Place,
    /// A file as it was left. When it is another one, somebody has changed it since.
    pub(crate) stamp: Option<Stamp>,
}

/// A foreign file that an installation took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) place: Place,
    /// Its name in [`Shelf::kept`].
    pub(crate) name: String,
}

/// A folder that was there and got other attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adjusted {
    pub(crate) place: Place,
    /// What it had before the first version that has something to say of it.
    pub(crate) had: Found,
    /// What it was left with. When it has something else, somebody else looks after it.
    pub(crate) gave: Found,
    /// What the permissions said, so that the same is known as the same.
    pub(crate) said: String,
}

/// What belongs to one installation. All lists are sorted by place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) deployment: String,
    /// Files and links.
    pub(crate) files: Vec<Laid>,
    /// Folders that were made for it, with those made for its predecessors.
    pub(crate) directories: Vec<Place>,
    pub(crate) kept: Vec<Kept>,
    #[serde(default)]
    pub(crate) adjusted: Vec<Adjusted>,
}

/// The record of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// How many installations have finished.
    pub(crate) serial: u64,
    /// The last one that has.
    pub(crate) installed: Option<Content>,
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
    let shelf = Shelf::at(rootdir, application, group)?;
    let installed = shelf.load()?.installed;
    let begun = Journal::load(&shelf)?;
    Ok(installed
        .map(|content| content.deployment)
        .into_iter()
        .chain(begun.map(|(journal, _)| journal.deployment))
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

    /// The folder of the records of an application's groups.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.group))
    }

    /// The folder of foreign files that were replaced and may come back.
    pub(crate) fn kept(&self) -> PathBuf {
        self.path("kept")
    }

    /// The folder of what is to be removed when there is time.
    pub(crate) fn trash(&self) -> PathBuf {
        self.path("trash")
    }

    /// The folder of files that somebody had changed before they were replaced or removed, by installation.
    pub(crate) fn changed(&self) -> PathBuf {
        self.path("changed")
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

    /// The same shelf by where it really is: no link leads to it. It must have been locked before.
    pub(crate) fn found(self) -> Result<Self, Error> {
        match self.dir.canonicalize() {
            Ok(dir) => Ok(Self { dir, ..self }),
            Err(source) => Err(Error::Io {
                doing: "find",
                path: self.dir,
                source,
            }),
        }
    }

    pub(crate) fn load(&self) -> Result<Record, Error> {
        Ok(self.read("json")?.unwrap_or_default())
    }

    /// Reads a document of the group, if it is there.
    pub(super) fn read<T: DeserializeOwned>(&self, extension: &str) -> Result<Option<T>, Error> {
        let path = self.path(extension);
        match fs::read(&path) {
            Ok(text) => protocol::decode(&text)
                .map(Some)
                .map_err(|source| Error::Garbage { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
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
        self.write("json", record)
    }

    /// Replaces a document of the group, like [`Shelf::save`].
    pub(super) fn write<T: Serialize>(&self, extension: &str, document: &T) -> Result<(), Error> {
        let path = self.path(extension);
        let draft = self.path("draft");
        let write = || {
            let mut file = File::create(&draft)?;
            file.write_all(&protocol::encode(document))?;
            file.sync_data()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|source| {
            // On a full disk every byte counts.
            let _ = fs::remove_file(&draft);
            Error::Io {
                doing: "write",
                path: path.clone(),
                source,
            }
        })
    }

    /// Makes durable what was last renamed on the shelf.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| Error::Io {
            doing: "sync",
            path: self.dir.clone(),
            source,
        })
    }
}

impl Content {
    /// Whether a file or link was installed there.
    pub(crate) fn has_file(&self, place: &Path) -> bool {
        self.files
            .binary_search_by(|laid| laid.place.0.as_path().cmp(place))
            .is_ok()
    }

    /// Whether a folder was made there.
    pub(crate) fn has_directory(&self, place: &Path) -> bool {
        self.directories
            .binary_search_by(|directory| directory.0.as_path().cmp(place))
            .is_ok()
    }

    /// A name under which no foreign file is kept.
    pub(crate) fn free_name(&self) -> u64 {
        let names = self.kept.iter().filter_map(|kept| kept.name.parse().ok());
        names.max().map_or(0, |highest: u64| highest + 1)
    }
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
            files: vec![
                Laid {
                    place: Place(odd.clone()),
                    stamp: None,
                },
                Laid {
                    place: Place(PathBuf::from("/srv/ü")),
                    stamp: None,
                },
            ],
            directories: vec![Place(PathBuf::from("/srv"))],
            kept: vec![Kept {
                place: Place(odd),
                name: "3".to_owned(),
            }],
            adjusted: Vec::new(),
        };
        let record = Record {
            serial: 7,
            installed: Some(content.clone()),
        };
        drop(shelf.lock().unwrap());

        shelf.save(&record).unwrap();

        assert_eq!(shelf.load().unwrap(), record);
        assert_eq!(content.free_name(), 4);
        assert!(!content.has_file(Path::new("/srv")) && content.has_directory(Path::new("/srv")));
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

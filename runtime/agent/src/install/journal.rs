//! What an installation is about to change, written before it changes anything.
//!
//! The whole list is durable before the first entry of it is carried out, so one write and one flush serve any number
//! of files. How far it got is not written at all: every change moves what it replaces to a name of its own, and the
//! names that are there tell the rest. The journal is
//!
//! * `GROUP.staging` while the files are prepared beside their places: nothing is in place yet, and whoever finds this
//!   removes what was prepared;
//! * `GROUP.swapping`, the same file renamed, while they are put in place: whoever finds this takes back what was done,
//!   unless the record says that the installation finished.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attributes::Found;
use super::record::{Error, Place, Shelf};

/// What is at a place, as far as putting something else there goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Thing {
    Nothing,
    /// A file or a link.
    Leaf,
    Folder,
}

/// Something in a folder that is put in place as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) place: Place,
    pub(crate) thing: Thing,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub(crate) enum Change {
    /// Something takes the place of something else, either of which may be nothing.
    Swap {
        place: Place,
        /// Names what is prepared, and what was there before, in the stage of the place's folder.
        number: u32,
        was: Thing,
        is: Thing,
        /// What is in the folder that is put there, a folder before what is in it.
        members: Vec<Member>,
    },
    /// A folder that stays gets other attributes.
    Adjust { place: Place, had: Found },
}

/// What an installation is about to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The serial of the record when it has finished.
    pub(crate) serial: u64,
    pub(crate) deployment: String,
    /// The name of the stages.
    pub(crate) stage: String,
    /// The folders that have a stage.
    pub(crate) folders: Vec<Place>,
    /// In the order in which they are carried out.
    pub(crate) changes: Vec<Change>,
}

/// How far an installation has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Staging,
    Swapping,
}

const STAGING: &str = "staging";
const SWAPPING: &str = "swapping";

impl Journal {
    /// The journal of an installation that has begun, if one has.
    pub(crate) fn load(shelf: &Shelf) -> Result<Option<(Self, Phase)>, Error> {
        // The later phase first: a journal that is being renamed is found under one name or the other.
        for (extension, phase) in [(SWAPPING, Phase::Swapping), (STAGING, Phase::Staging)] {
            if let Some(journal) = shelf.read(extension)? {
                return Ok(Some((journal, phase)));
            }
        }
        Ok(None)
    }

    /// Makes the journal durable; from here on files may be prepared.
    pub(crate) fn begin(&self, shelf: &Shelf) -> Result<(), Error> {
        shelf.write(STAGING, self)?;
        shelf.sync()
    }

    /// Goes from one phase to the other, durably.
    pub(crate) fn enter(phase: Phase, shelf: &Shelf) -> Result<(), Error> {
        let (from, to) = match phase {
            Phase::Staging => (SWAPPING, STAGING),
            Phase::Swapping => (STAGING, SWAPPING),
        };
        let path = shelf.path(to);
        fs::rename(shelf.path(from), &path).map_err(|source| Error::Io {
            doing: "write",
            path,
            source,
        })?;
        shelf.sync()
    }

    /// Forgets the journal of an installation that needs no other end.
    pub(crate) fn close(shelf: &Shelf) -> Result<(), Error> {
        for extension in [STAGING, SWAPPING] {
            let path = shelf.path(extension);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Io {
                        doing: "remove",
                        path,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The stage of a place's folder.
    pub(crate) fn stage_of(&self, place: &Path) -> PathBuf {
        place.parent().unwrap_or(Path::new("/")).join(&self.stage)
    }
}

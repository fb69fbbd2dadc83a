//! Putting in place what is prepared, and taking that back.
//!
//! A place changes hands in two calls: what is there gets the name `N.old` in the stage, and what is prepared as `N`
//! is renamed over it, so a file is replaced without a moment in which there is none. Taking back needs no memory of
//! what was done, for the names say it:
//!
//! | `N.old` | `N` | what happened to the place |
//! |---|---|---|
//! | no | yes | nothing |
//! | yes | yes | what was there has been put away, and perhaps is still there as well |
//! | yes | no | it has changed hands |
//! | no | no | it has changed hands, and there was nothing before |
//!
//! So it can be interrupted and begun again any number of times.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, linkat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::attributes;
use super::compare::{Plan, Source, Step};
use super::copy::Stamp;
use super::folder::{self, Folders, look, rename_to_free, split};
use super::journal::{Change, Journal, Member, Thing};
use super::owned::Owned;
use super::stage::{self, SET, old, prepared};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} `{path}`", path = path.display())]
pub(crate) struct Error {
    pub(crate) doing: &'static str,
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) source: io::Error,
}

pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error {
        doing,
        path,
        source,
    }
}

/// The folder of a place and its stage.
struct Table<'a> {
    folder: &'a OwnedFd,
    stage: &'a OwnedFd,
}

/// Carries out the changes of a plan.
pub(crate) fn carry_out(plan: &Plan, journal: &Journal, owned: &Owned) -> Result<(), Error> {
    let mut folders = Folders::default();
    for step in &plan.steps {
        match &step.change {
            Change::Swap { place, .. } => {
                let (parent, name) = split(&place.0);
                let folder = folders.open(parent).map_err(failed("open", parent))?;
                let stage = stage::open(&folder, &journal.stage)
                    .map_err(failed("open the stage in", parent))?;
                let table = Table {
                    folder: &folder,
                    stage: &stage,
                };
                table
                    .swap(step, name, owned)
                    .map_err(failed("put in place", &place.0))?;
            }
            Change::Adjust { place, .. } => {
                let Some(entry) = plan.entries.get(&place.0) else {
                    continue;
                };
                let mut set = || {
                    let dir = readable(&mut folders, &place.0)?;
                    if let Source::Had(had) = &step.source {
                        attributes::give_back(&dir, had)?;
                    }
                    attributes::give(dir, &entry.attributes)
                };
                set().map_err(failed(SET, &place.0))?;
            }
        }
    }
    Ok(())
}

/// Takes back all changes that were made, the last one first, and says what cannot be.
pub(crate) fn take_back(journal: &Journal) -> Vec<Error> {
    let mut folders = Folders::default();
    let mut problems = Vec::new();
    for change in journal.changes.iter().rev() {
        let (place, result) = match change {
            Change::Swap {
                place,
                number,
                was,
                is,
                members,
            } => {
                let (parent, name) = split(&place.0);
                let result = folders.open(parent).and_then(|folder| {
                    // Whoever may write to the folder may have given the stage to somebody else since.
                    let stage = match stage::open_anyones(&folder, &journal.stage) {
                        // Without a stage nothing was changed here.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                        stage => stage?,
                    };
                    let table = Table {
                        folder: &folder,
                        stage: &stage,
                    };
                    table.take_back(name, *number, (*was, *is), (&place.0, members))
                });
                (place, result)
            }
            Change::Adjust { place, had } => {
                let result = readable(&mut folders, &place.0)
                    .and_then(|dir| attributes::give_back(dir, had));
                (place, result)
            }
        };
        problems.extend(result.map_err(failed("put back", &place.0)).err());
    }
    problems
}

/// Clears the stages away, and says what cannot be. Removing many files can take its time, so where one call does it
/// they only go to a folder for that.
pub(crate) fn clear(journal: &Journal, trash: &Path) -> Vec<Error> {
    let trash = folder::make_private(trash).and_then(|()| File::open(trash));
    let mut problems = Vec::new();
    for (number, folder) in journal.folders.iter().enumerate() {
        let stage = OsStr::new(&journal.stage);
        let cleared = folder::open(&folder.0).and_then(|dir| {
            let name = format!("{}-{number}", journal.serial);
            match &trash {
                Ok(trash) if renameat(&dir, stage, trash, &name).is_ok() => Ok(()),
                _ => folder::remove_all(&dir, stage),
            }
        });
        match cleared {
            Err(error) if !super::place::is_absent(&error) => {
                let path = folder.0.join(&journal.stage);
                problems.push(failed("remove", &path)(error));
            }
            _ => {}
        }
    }
    problems
}

impl Table<'_> {
    fn swap(&self, step: &Step, name: &OsStr, owned: &Owned) -> io::Result<()> {
        let Change::Swap {
            place,
            number,
            was,
            is,
            ..
        } = &step.change
        else {
            return Ok(());
        };
        let (new, old) = (prepared(*number), old(*number));
        let is_linked = *was == Thing::Leaf
            && *is == Thing::Leaf
            && linkat(self.folder, name, self.stage, &old, AtFlags::empty()).is_ok();
        if !is_linked && *was != Thing::Nothing {
            renameat(self.folder, name, self.stage, &old)?;
        }
        self.verify(step, &old, &place.0, owned)?;
        match is {
            Thing::Nothing => Ok(()),
            Thing::Leaf if is_linked => Ok(renameat(self.stage, &new, self.folder, name)?),
            Thing::Leaf => rename_to_free((self.stage, &new), (self.folder, name)),
            Thing::Folder => self.put_folder(&new, name),
        }
    }

    /// What was there is what the plan was made for: anything else would be lost.
    fn verify(&self, step: &Step, old: &OsStr, place: &Path, owned: &Owned) -> io::Result<()> {
        const CHANGED: &str = "it changed while the installation was prepared: deploy again";
        if let Some(seen) = step.seen
            && !look(self.stage, old)?.is_some_and(|stat| Stamp::of(&stat).is_content_of(&seen))
        {
            return Err(io::Error::other(CHANGED));
        }
        let is_folder = matches!(
            step.change,
            Change::Swap {
                was: Thing::Folder,
                ..
            }
        );
        if is_folder && !holds_only(self.stage, old, place, owned)? {
            return Err(io::Error::other(CHANGED));
        }
        Ok(())
    }

    /// A folder changes its parent only while its owner may write to it.
    fn put_folder(&self, new: &OsStr, name: &OsStr) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = look(self.stage, new)?.map_or(0o700, |stat| stat.st_mode & 0o7777);
        if mode & 0o200 != 0 {
            return rename_to_free((self.stage, new), (self.folder, name));
        }
        let dir = openat(self.stage, new, flags, Mode::empty())?;
        fchmod(&dir, Mode::from_raw_mode(mode | 0o200))?;
        rename_to_free((self.stage, new), (self.folder, name))?;
        Ok(fchmod(&dir, Mode::from_raw_mode(mode))?)
    }

    fn take_back(
        &self,
        name: &OsStr,
        number: u32,
        (was, is): (Thing, Thing),
        (place, members): (&Path, &[Member]),
    ) -> io::Result<()> {
        let (new, old) = (prepared(number), old(number));
        let is_put_away = look(self.stage, &old)?.is_some();
        let is_taken = look(self.stage, &new)?.is_none();
        if was != Thing::Nothing && !is_put_away {
            return Ok(());
        }
        if is_taken {
            match is {
                Thing::Nothing => {}
                // One call brings back what was there.
                Thing::Leaf if was == Thing::Leaf => {}
                Thing::Leaf => match renameat(self.folder, name, self.stage, &new) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                },
                Thing::Folder => self.withdraw(name, place, members)?,
            }
        }
        match was {
            Thing::Nothing => Ok(()),
            Thing::Leaf if is == Thing::Leaf => {
                renameat(self.stage, &old, self.folder, name)?;
                // Both names may be those of one file, and then nothing was renamed.
                match unlinkat(self.stage, &old, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            }
            Thing::Leaf | Thing::Folder => rename_to_free((self.stage, &old), (self.folder, name)),
        }
    }

    /// Removes what was put in place as a folder, but nothing that others have made in it since.
    fn withdraw(&self, name: &OsStr, place: &Path, members: &[Member]) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = match openat(self.folder, name, flags, Mode::empty()) {
            Ok(top) => top,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        for member in members.iter().rev() {
            let below = member.place.0.strip_prefix(place).unwrap_or(Path::new(""));
            let (parent, name) = split(below);
            let Ok(dir) = below_of(&top, parent) else {
                continue;
            };
            remove(&dir, name, member.thing)?;
        }
        drop(top);
        remove(self.folder, name, Thing::Folder)
    }
}

/// Removes one thing. A folder that is not empty stays.
fn remove(dir: &OwnedFd, name: &OsStr, thing: Thing) -> io::Result<()> {
    let flags = match thing {
        Thing::Folder => AtFlags::REMOVEDIR,
        Thing::Leaf | Thing::Nothing => AtFlags::empty(),
    };
    match unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn below_of(top: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = top.try_clone()?;
    for part in path.components() {
        dir = openat(&dir, part.as_os_str(), flags, Mode::empty())?;
    }
    Ok(dir)
}

/// Whether a folder that was put away holds nothing but what was installed in its place.
fn holds_only(parent: &OwnedFd, name: &OsStr, place: &Path, owned: &Owned) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(parent, name, flags, Mode::empty())?;
    for entry in folder::names(dir.as_fd())? {
        let path = place.join(&entry);
        let is_folder = look(&dir, &entry)?.is_some_and(|stat| folder::is_folder(&stat));
        let is_ours = if is_folder {
            owned.directories.contains(&path) && holds_only(&dir, &entry, &path, owned)?
        } else {
            owned.files.contains_key(&path)
        };
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

fn readable(folders: &mut Folders, place: &Path) -> io::Result<OwnedFd> {
    let (parent, name) = split(place);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = if name.is_empty() {
        OsStr::new(".")
    } else {
        name
    };
    Ok(openat(&folders.open(parent)?, name, flags, Mode::empty())?)
}

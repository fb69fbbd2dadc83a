//! Doing what a plan says, and undoing it when that fails.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink,
};
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

use super::attributes::{self, Attributes};
use super::plan::{Entry, Existing, What};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} `{path}`", path = path.display())]
pub(crate) struct Error {
    pub(crate) doing: &'static str,
    pub(crate) path: PathBuf,
    #[source]
    pub(crate) source: io::Error,
}

/// How a change is taken back.
enum Undo {
    Remove(PathBuf),
    RemoveDirectory(PathBuf),
    PutBack { place: PathBuf, backup: PathBuf },
    Remake { place: PathBuf, was: Metadata },
    Restore { place: PathBuf, was: Metadata },
}

/// Changes files and remembers how to take it back.
pub(crate) struct Changes {
    /// Folder for what is replaced or removed.
    backups: PathBuf,
    /// Begins the name of files that are not in their place yet.
    draft_prefix: String,
    undo: Vec<Undo>,
    count: u64,
    pub(crate) written: usize,
    pub(crate) removed: usize,
}

impl Changes {
    /// Nothing changed yet. Backups of an earlier installation are dropped.
    pub(crate) fn new(backups: PathBuf, draft_prefix: String) -> Result<Self, Error> {
        remove_tree(&backups)?;
        fs::create_dir_all(&backups).map_err(failed("create", &backups))?;
        Ok(Self {
            backups,
            draft_prefix,
            undo: Vec::new(),
            count: 0,
            written: 0,
            removed: 0,
        })
    }

    /// Brings about what a plan says of one place. Something foreign there is put aside as `keep`.
    pub(crate) fn bring(
        &mut self,
        place: &Path,
        entry: &Entry,
        keep: Option<&Path>,
        owned: &BTreeSet<PathBuf>,
    ) -> Result<(), Error> {
        match entry.existing {
            Existing::Same => return self.adjust(place, entry),
            Existing::Absent => {}
            Existing::Foreign => {
                if let Some(keep) = keep {
                    preserve_whole(place, keep).map_err(failed("put aside", place))?;
                }
            }
            Existing::Ours => {}
        }
        let was_there = entry.existing != Existing::Absent;
        if was_there
            && place
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir())
        {
            self.clear(place, owned)?;
        } else if was_there {
            self.back_up(place)?;
        }
        if entry.what == What::Directory {
            if was_there {
                fs::remove_file(place).map_err(failed("replace", place))?;
            }
            DirBuilder::new()
                .mode(0o700)
                .create(place)
                .map_err(failed("create", place))?;
            self.undo.push(Undo::RemoveDirectory(place.to_path_buf()));
            let mode = entry.attributes.mode.unwrap_or(entry.mode);
            let wanted = Attributes {
                mode: Some(mode),
                ..entry.attributes.clone()
            };
            return set_attributes(place, &wanted).map_err(failed(SET, place));
        }
        let draft = self.draft(place);
        let made = self
            .make(&draft, entry)
            .and_then(|()| fs::rename(&draft, place).map_err(failed("put in place", place)));
        if made.is_err() {
            // A later installation clears it away otherwise.
            let _ = fs::remove_file(&draft);
        }
        made?;
        self.undo.push(Undo::Remove(place.to_path_buf()));
        self.written += 1;
        Ok(())
    }

    /// Removes a file that an earlier installation laid down, if it is a file.
    pub(crate) fn remove(&mut self, place: &Path) -> Result<(), Error> {
        match place.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => {}
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(failed("look at", place)(error)),
        }
        self.back_up(place)?;
        fs::remove_file(place).map_err(failed("remove", place))?;
        self.removed += 1;
        Ok(())
    }

    /// Brings back what was put aside when an earlier installation replaced it.
    pub(crate) fn bring_back(&mut self, kept: &Path, place: &Path) -> Result<(), Error> {
        if place
            .symlink_metadata()
            .is_ok_and(|metadata| !metadata.is_dir())
        {
            self.back_up(place)?;
        }
        let draft = self.draft(place);
        preserve(kept, &draft)
            .and_then(|()| fs::rename(&draft, place))
            .map_err(failed("bring back", place))?;
        self.undo.push(Undo::Remove(place.to_path_buf()));
        Ok(())
    }

    /// Removes a folder that an earlier installation made, if nothing is left in it.
    pub(crate) fn remove_directory(&mut self, place: &Path) -> Result<(), Error> {
        let was = match place.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => metadata,
            _ => return Ok(()),
        };
        match fs::remove_dir(place) {
            Ok(()) => {
                self.undo.push(Undo::Remake {
                    place: place.to_path_buf(),
                    was,
                });
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty || is_gone(&error) => {
                Ok(())
            }
            Err(error) => Err(failed("remove", place)(error)),
        }
    }

    /// Takes everything back, the last change first, and says what could not be.
    pub(crate) fn take_back(mut self) -> Vec<Error> {
        let mut problems = Vec::new();
        while let Some(undo) = self.undo.pop() {
            let (place, result) = match undo {
                Undo::Remove(place) => {
                    let result = fs::remove_file(&place);
                    (place, result)
                }
                Undo::RemoveDirectory(place) => {
                    let result = fs::remove_dir(&place);
                    (place, result)
                }
                Undo::PutBack { place, backup } => {
                    let draft = self.draft(&place);
                    let result =
                        preserve(&backup, &draft).and_then(|()| fs::rename(&draft, &place));
                    // Renaming one name of a file to another of the same file leaves both.
                    let _ = fs::remove_file(draft);
                    (place, result)
                }
                Undo::Remake { place, was } => {
                    let result = fs::create_dir(&place).and_then(|()| restore(&place, &was));
                    (place, result)
                }
                Undo::Restore { place, was } => {
                    let result = restore(&place, &was);
                    (place, result)
                }
            };
            problems.extend(result.map_err(failed("put back", &place)).err());
        }
        // The next installation does it otherwise.
        let _ = remove_tree(&self.backups);
        problems
    }

    /// Makes everything final.
    pub(crate) fn settle(self) {
        // The next installation does it otherwise.
        let _ = remove_tree(&self.backups);
    }

    fn draft(&mut self, place: &Path) -> PathBuf {
        self.count += 1;
        place.with_file_name(format!("{}{}", self.draft_prefix, self.count))
    }

    fn back_up(&mut self, place: &Path) -> Result<(), Error> {
        self.count += 1;
        let backup = self.backups.join(self.count.to_string());
        preserve(place, &backup).map_err(failed("back up", place))?;
        self.undo.push(Undo::PutBack {
            place: place.to_path_buf(),
            backup,
        });
        Ok(())
    }

    /// Empties and removes a folder that holds nothing but the group's own.
    fn clear(&mut self, dir: &Path, owned: &BTreeSet<PathBuf>) -> Result<(), Error> {
        for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
            let path = entry.map_err(failed("list", dir))?.path();
            if path
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir())
            {
                self.clear(&path, owned)?;
            } else if owned.contains(&path) {
                self.remove(&path)?;
            }
        }
        self.remove_directory(dir)
    }

    fn make(&self, draft: &Path, entry: &Entry) -> Result<(), Error> {
        match fs::remove_file(draft) {
            Err(error) if !is_gone(&error) => return Err(failed("replace", draft)(error)),
            _ => {}
        }
        match &entry.what {
            What::Directory => Ok(()),
            What::Link { target } => {
                symlink(target, draft).map_err(failed("create the link", draft))
            }
            What::File { source } => {
                let mut from = File::open(source).map_err(failed("open", source))?;
                let mut to = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(draft)
                    .map_err(failed("create", draft))?;
                io::copy(&mut from, &mut to).map_err(failed("write", draft))?;
                let wanted = Attributes {
                    mode: Some(entry.attributes.mode.unwrap_or(entry.mode)),
                    ..entry.attributes.clone()
                };
                attributes::give(&to, &wanted).map_err(failed(SET, draft))
            }
        }
    }

    /// Gives what is there already the owner and mode that it is to have.
    fn adjust(&mut self, place: &Path, entry: &Entry) -> Result<(), Error> {
        let mut wanted = entry.attributes.clone();
        match entry.what {
            What::Link { .. } => return Ok(()),
            // A folder that was there keeps what the permissions do not mention.
            What::Directory => {}
            What::File { .. } => {
                if geteuid().is_root() {
                    wanted.owner = wanted.owner.or(Some(geteuid()));
                    wanted.group = wanted.group.or(Some(getegid()));
                }
                wanted.mode = Some(wanted.mode.unwrap_or(entry.mode));
            }
        }
        if wanted == Attributes::default() {
            return Ok(());
        }
        let was = place.symlink_metadata().map_err(failed("look at", place))?;
        let found = open(place)
            .and_then(attributes::look)
            .map_err(failed("look at", place))?;
        if found.meets(&wanted) {
            return Ok(());
        }
        self.undo.push(Undo::Restore {
            place: place.to_path_buf(),
            was,
        });
        self.written += 1;
        set_attributes(place, &wanted).map_err(failed(SET, place))
    }
}

/// Removes what an installation that was killed had not put in its place yet.
pub(crate) fn remove_drafts<'a>(places: impl Iterator<Item = &'a Path>, prefix: &str) {
    let folders: BTreeSet<&Path> = places.filter_map(Path::parent).collect();
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                // It is in nobody's way.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

const SET: &str = "set owner and mode of";

fn set_attributes(path: &Path, wanted: &Attributes) -> io::Result<()> {
    attributes::give(open(path)?, wanted)
}

fn open(path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new()
        .read(true)
        .custom_flags(no_follow)
        .open(path)
}

fn restore(path: &Path, was: &Metadata) -> io::Result<()> {
    if was.uid() != geteuid().as_raw() || was.gid() != getegid().as_raw() {
        chown(path, Some(was.uid()), Some(was.gid()))?;
    }
    fs::set_permissions(path, Permissions::from_mode(was.mode() & 0o7777))
}

/// Gives a file a second name, or copies it with everything that it has where that cannot be. Links stay links.
fn preserve(from: &Path, to: &Path) -> io::Result<()> {
    let was = from.symlink_metadata()?;
    if was.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return lchown(to, Some(was.uid()), Some(was.gid()));
    }
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to)?;
    restore(to, &was)
}

/// [`preserve`] so that the second name appears only when it is whole.
fn preserve_whole(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    let draft = to.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if !is_gone(&error) => return Err(error),
        _ => {}
    }
    preserve(from, &draft)?;
    fs::rename(draft, to)
}

fn remove_tree(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if !is_gone(&error) => Err(failed("remove", dir)(error)),
        _ => Ok(()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error {
        doing,
        path,
        source,
    }
}

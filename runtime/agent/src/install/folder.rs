//! Folders as open descriptors, reached without following a link.
//!
//! Whoever may write to a folder on the way can put a link in the place of the next one at any time. Between the look
//! that a plan takes and the change that follows from it, nothing here is named by a path that a link could redirect.

use std::ffi::{CStr, OsStr};
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, chmodat, openat, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

const PASS: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a folder that is one all the way, links nowhere.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let mut dir = openat(CWD, c"/", PASS, Mode::empty())?;
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => dir = openat(&dir, name, PASS, Mode::empty())?,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(dir)
}

/// Makes a folder that nobody else can look into: what is kept there may be secret, or an old program with the right to
/// become root.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The folder and the name of a place.
pub(crate) fn split(place: &Path) -> (&Path, &OsStr) {
    (
        place.parent().unwrap_or(Path::new("/")),
        place.file_name().unwrap_or_default(),
    )
}

/// Opens folders one after the other. Neighbours share one, so the last is kept open.
#[derive(Default)]
pub(crate) struct Folders {
    last: Option<(PathBuf, Rc<OwnedFd>)>,
}

impl Folders {
    /// [`open`], or the same descriptor again.
    pub(crate) fn open(&mut self, path: &Path) -> io::Result<Rc<OwnedFd>> {
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Ok(dir.clone());
        }
        let dir = Rc::new(open(path)?);
        self.last = Some((path.to_path_buf(), dir.clone()));
        Ok(dir)
    }

    /// The same for a folder below links that are known to be harmless.
    pub(crate) fn open_through_links(&mut self, path: &Path) -> io::Result<Rc<OwnedFd>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let dir = Rc::new(open(&path.canonicalize()?)?);
            self.last = Some((path.to_path_buf(), dir));
        }
        self.open(path)
    }
}

/// What is at a name, if anything is.
pub(crate) fn look(dir: impl AsFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether this is a folder.
pub(crate) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Whether this is a file, and not a link to one.
pub(crate) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Renames to a name that must be free.
pub(crate) fn rename_to_free(from: (impl AsFd, &OsStr), to: (impl AsFd, &OsStr)) -> io::Result<()> {
    match renameat_with(&from.0, from.1, &to.0, to.1, RenameFlags::NOREPLACE) {
        // Not every file system can promise it.
        Err(Errno::INVAL | Errno::NOSYS) => match look(&to.0, to.1)? {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(renameat(from.0, from.1, to.0, to.1)?),
        },
        result => Ok(result?),
    }
}

/// Removes whatever is at a name, with everything in it. Nothing there is no error.
pub(crate) fn remove_all(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    match look(&dir, name)? {
        None => return Ok(()),
        Some(stat) if !is_folder(&stat) => return Err(Errno::PERM.into()),
        // A folder may deny its own owner to empty it.
        Some(stat) if stat.st_mode & 0o700 != 0o700 => {
            chmodat(&dir, name, Mode::RWXU, AtFlags::empty())?;
        }
        Some(_) => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = openat(&dir, name, flags, Mode::empty())?;
    for entry in names(inside.as_fd())? {
        remove_all(&inside, &entry)?;
    }
    match unlinkat(&dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The names in a folder.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<std::ffi::OsString>> {
    let is_entry = |name: &CStr| name != c"." && name != c"..";
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if is_entry(entry.file_name()) {
            names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_os_string());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_is_followed_on_the_way() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a", root.join("l")).unwrap();

        assert!(open(&root.join("a/b")).is_ok());
        assert!(open(&root.join("l/b")).is_err());
        assert!(open(&root.join("l")).is_err());
        assert!(open(&root.join("a/../a/b")).is_err());
    }

    #[test]
    fn a_tree_is_removed_without_what_its_links_lead_to() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("t/u/v")).unwrap();
        fs::write(dir.join("t/u/f"), "f").unwrap();
        fs::create_dir(dir.join("other")).unwrap();
        fs::write(dir.join("other/f"), "f").unwrap();
        symlink("../other", dir.join("t/l")).unwrap();
        let dir_fd = open(&dir).unwrap();

        remove_all(&dir_fd, OsStr::new("t")).unwrap();
        remove_all(&dir_fd, OsStr::new("t")).unwrap();

        assert!(!dir.join("t").exists());
        assert!(dir.join("other/f").exists());
    }
}

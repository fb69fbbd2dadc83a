//! Writing members of an archive, whatever they claim to be, below one folder and nowhere else.
//!
//! INVARIANT: every folder on the way to a member is a real folder that this writer made, and every link that it made
//! passes [`tree::link_stays_inside`]. So no path below the root leaves it, in whatever order the members come.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::limits::{Exceeded, Limits};
use super::package::{Error, failed, shown, too_large};
use crate::tree;

/// The longest name of a file on the file systems that matter.
const MOST_NAME: usize = 255;

/// Writes below one folder.
pub(super) struct Writer {
    root: PathBuf,
    pub(super) limits: Limits,
    bytes: u64,
    entries: usize,
    /// Modes that folders get when nothing is written into them any more.
    folders: Vec<(PathBuf, u32)>,
    buffer: Vec<u8>,
}

/// A member whose name has been checked.
#[derive(Debug)]
pub(super) struct Member {
    /// Its name, for messages.
    pub(super) shown: String,
    /// Relative to the package; empty for the package itself.
    path: PathBuf,
}

/// Why a file's content did not become a file.
pub(super) enum Broken {
    /// The archive could not be read.
    Read(io::Error),
    /// Anything else.
    Other(Error),
}

impl Member {
    pub(super) fn refused(&self, problem: impl Into<String>) -> Error {
        Error::Member {
            member: self.shown.clone(),
            problem: problem.into(),
        }
    }

    /// Whether it is the package itself.
    pub(super) fn is_root(&self) -> bool {
        self.path.as_os_str().is_empty()
    }
}

impl Writer {
    pub(super) fn create(root: &Path, limits: Limits) -> Result<Self, Error> {
        fs::create_dir(root).map_err(failed("create", root))?;
        Ok(Self {
            root: root.to_path_buf(),
            limits,
            bytes: 0,
            entries: 0,
            folders: Vec::new(),
            buffer: vec![0; 128 << 10],
        })
    }

    /// Counts a member and checks its name.
    pub(super) fn member(&mut self, name: &[u8]) -> Result<Member, Error> {
        self.count()?;
        let mut member = Member {
            shown: shown(name),
            path: PathBuf::new(),
        };
        match inside(name, &self.limits) {
            Ok(path) => member.path = path,
            Err(problem) => return Err(member.refused(problem)),
        }
        Ok(member)
    }

    /// Counts what is about to be made.
    fn count(&mut self) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(too_large(Exceeded::entries(&self.limits), None));
        }
        Ok(())
    }

    /// How many bytes may still be written.
    pub(super) fn room(&self) -> u64 {
        self.limits.bytes - self.bytes
    }

    pub(super) fn folder(&mut self, member: &Member, mode: u32) -> Result<(), Error> {
        if member.is_root() {
            return Ok(());
        }
        let target = self.place(member)?;
        match fs::create_dir(&target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !target
                    .symlink_metadata()
                    .is_ok_and(|metadata| metadata.is_dir())
                {
                    return Err(member.refused("is a folder in the place of another member"));
                }
            }
            Err(error) => return Err(failed("create", &target)(error)),
        }
        tree::set_mode(&target, 0o700)?;
        // A folder that its owner cannot enter could not even be removed.
        self.folders.push((target, mode & 0o777 | 0o700));
        Ok(())
    }

    /// Writes a file and says how long it is.
    pub(super) fn file(
        &mut self,
        member: &Member,
        mode: u32,
        content: &mut dyn Read,
    ) -> Result<u64, Broken> {
        let target = self.free_place(member).map_err(Broken::Other)?;
        let other = |doing| {
            let target = &target;
            move |error| Broken::Other(failed(doing, target)(error))
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&target)
            .map_err(other("create"))?;
        let mut written = 0;
        loop {
            let length = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Read(error)),
            };
            // Before it is written: the disk may be smaller than what the archive unpacks to.
            if length as u64 > self.room() {
                let exceeded = Exceeded::bytes(&self.limits);
                return Err(Broken::Other(too_large(
                    exceeded,
                    Some(member.shown.clone()),
                )));
            }
            file.write_all(&self.buffer[..length])
                .map_err(other("write"))?;
            self.bytes += length as u64;
            written += length as u64;
        }
        tree::set_mode(&target, mode & 0o777).map_err(|error| Broken::Other(error.into()))?;
        Ok(written)
    }

    pub(super) fn symlink(&mut self, member: &Member, link: &[u8]) -> Result<(), Error> {
        let link = path_of_link(member, link)?;
        if !tree::link_stays_inside(&member.path, &link) {
            let link = shown(link.as_os_str().as_bytes());
            return Err(member.refused(format!(
                "is a link that leads out of the package, or could by way of another: `{link}`"
            )));
        }
        let target = self.free_place(member)?;
        symlink(link, &target).map_err(failed("create the link", &target))
    }

    pub(super) fn hard_link(&mut self, member: &Member, link: &[u8]) -> Result<(), Error> {
        let out = || {
            let link = shown(link);
            member.refused(format!(
                "is a link to `{link}`, which is not a file of the package that came before"
            ))
        };
        path_of_link(member, link)?;
        let original = Member {
            shown: member.shown.clone(),
            path: inside(link, &self.limits).map_err(|_| out())?,
        };
        if original.is_root() {
            return Err(out());
        }
        let original = self.existing(&original).ok_or_else(out)?;
        if self.root.join(&member.path) == original {
            return Ok(());
        }
        let target = self.free_place(member)?;
        fs::hard_link(&original, &target).map_err(failed("create the link", &target))
    }

    /// Gives the folders their modes.
    pub(super) fn finish(self) -> Result<(), Error> {
        for (folder, mode) in self.folders.iter().rev() {
            tree::set_mode(folder, *mode)?;
        }
        Ok(())
    }

    /// Where a member goes, below folders that are made as needed and are no links.
    fn place(&mut self, member: &Member) -> Result<PathBuf, Error> {
        let mut place = self.root.clone();
        let mut parts = member.path.components().peekable();
        while let Some(part) = parts.next() {
            place.push(part);
            if parts.peek().is_none() {
                break;
            }
            match place.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return Err(member.refused("is below a member that is not a folder")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // One member with a long path would otherwise bring hundreds of folders.
                    self.count()?;
                    fs::create_dir(&place).map_err(failed("create", &place))?;
                    tree::set_mode(&place, 0o755)?;
                }
                Err(error) => return Err(failed("look at", &place)(error)),
            }
        }
        Ok(place)
    }

    /// [`Self::place`], with room made there: of members with one name the last counts.
    fn free_place(&mut self, member: &Member) -> Result<PathBuf, Error> {
        if member.is_root() {
            return Err(member.refused("has no name"));
        }
        let target = self.place(member)?;
        match target.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target),
            Err(error) => Err(failed("look at", &target)(error)),
            Ok(metadata) if metadata.is_dir() => Err(member.refused("is in the place of a folder")),
            Ok(_) => match fs::remove_file(&target) {
                Ok(()) => Ok(target),
                Err(error) => Err(failed("replace", &target)(error)),
            },
        }
    }

    /// A file that has been written, reached by no link.
    fn existing(&self, member: &Member) -> Option<PathBuf> {
        let mut place = self.root.clone();
        let mut parts = member.path.components().peekable();
        while let Some(part) = parts.next() {
            place.push(part);
            let kind = place.symlink_metadata().ok()?.file_type();
            let fits = if parts.peek().is_some() {
                kind.is_dir()
            } else {
                kind.is_file()
            };
            if !fits {
                return None;
            }
        }
        Some(place)
    }
}

/// The path of a member in the package; empty for the package itself.
fn inside(name: &[u8], limits: &Limits) -> Result<PathBuf, String> {
    if name.contains(&0) {
        return Err("has a NUL in its path".to_owned());
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) if part.len() > MOST_NAME => {
                return Err(format!(
                    "has a name in its path that is longer than {MOST_NAME} bytes"
                ));
            }
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("has `..` in its path".to_owned()),
            Component::RootDir | Component::Prefix(_) => {
                return Err("has an absolute path".to_owned());
            }
        }
    }
    if path.as_os_str().len() > limits.path.min(tree::MAX_PATH) {
        return Err(format!(
            "has a path that is longer than {} bytes",
            limits.path
        ));
    }
    Ok(path)
}

fn path_of_link(member: &Member, link: &[u8]) -> Result<PathBuf, Error> {
    if link.is_empty() {
        return Err(member.refused("is a link without a target"));
    }
    if link.len() >= tree::MAX_PATH || link.contains(&0) {
        return Err(member.refused("is a link whose target is not a path"));
    }
    Ok(PathBuf::from(OsStr::from_bytes(link)))
}

//! Places on an instance: a path below a granted folder, reached without leaving it.
//!
//! Links on the way are followed as long as they stay below the folder, which the kernel sees to (`RESOLVE_BENEATH`).
//! Where it is too old for that no link is followed. What the agent keeps for itself is out of reach in any case.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2};
use rustix::io::Errno;

use super::{Site, Undone};
use crate::protocol::{Spot, Why};

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What is done about folders that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Refuse,
}

/// What is to be done at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Look,
    Change,
}

/// A name in an open folder.
pub(super) struct Place {
    pub(super) folder: OwnedFd,
    pub(super) name: OsString,
}

/// How logs and messages name a place.
pub(super) fn name(spot: &Spot) -> String {
    match spot.path.as_str() {
        "" => spot.folder.clone(),
        path if spot.folder == "." => path.to_owned(),
        path => format!("{}/{path}", spot.folder),
    }
}

/// Whether a relative path has one spelling and leads nowhere but down.
pub(super) fn is_plain(path: &str) -> bool {
    !path.contains('\0')
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

impl Site<'_> {
    /// Opens the granted folder of a place. It is the operator's word, so links in it are followed.
    pub(super) fn folder(&self, spot: &Spot, missing: Missing) -> Result<OwnedFd, Undone> {
        let is_fine = match spot.folder.as_str() {
            "." | "/" => true,
            folder => is_plain(folder.strip_prefix('/').unwrap_or(folder)),
        };
        if !is_fine || !(spot.path.is_empty() || is_plain(&spot.path)) {
            let reason = format!("`{}` is not a plain path", name(spot));
            return Err(Undone::new(Why::Invalid, reason));
        }
        let path = self.package.root().join(&spot.folder);
        match open(&path, FOLDER, Mode::empty()) {
            Err(Errno::NOENT) if missing == Missing::Make => {
                let doing = format!("make the folder `{}`", path.display());
                fs::create_dir_all(&path).map_err(|error| Undone::of_io(&doing, &error))?;
                open(&path, FOLDER, Mode::empty()).map_err(|errno| Undone::of_call(&doing, errno))
            }
            opened => opened.map_err(|errno| {
                Undone::of_call(&format!("open the folder `{}`", path.display()), errno)
            }),
        }
    }

    /// Opens the folder that a place is in.
    pub(super) fn place(
        &self,
        spot: &Spot,
        purpose: Purpose,
        missing: Missing,
    ) -> Result<Place, Undone> {
        let granted = self.folder(spot, missing)?;
        let (above, last) = match spot.path.rsplit_once('/') {
            Some((above, last)) => (Some(above), last),
            None => (None, spot.path.as_str()),
        };
        if last.is_empty() {
            let reason = format!(
                "`{}` is the folder that is granted, not a place in it",
                name(spot)
            );
            return Err(Undone::new(Why::Invalid, reason));
        }
        let folder = match (above, missing) {
            (None, _) => granted,
            (Some(above), Missing::Refuse) => beneath(granted.as_fd(), above, FOLDER)
                .map_err(|errno| Undone::of_call(&format!("reach `{}`", name(spot)), errno))?,
            (Some(above), Missing::Make) => make_beneath(&granted, above)
                .map_err(|errno| Undone::of_call(&format!("reach `{}`", name(spot)), errno))?,
        };
        let place = Place {
            folder,
            name: last.into(),
        };
        self.check_own(spot, &place.real_path()?, purpose)?;
        Ok(place)
    }

    /// Opens what is at a place, following links.
    pub(super) fn open(&self, spot: &Spot, flags: OFlags) -> Result<OwnedFd, Undone> {
        let granted = self.folder(spot, Missing::Refuse)?;
        let doing = format!("open `{}`", name(spot));
        let path = if spot.path.is_empty() {
            "."
        } else {
            &spot.path
        };
        let opened = beneath(granted.as_fd(), path, flags | OFlags::CLOEXEC)
            .map_err(|errno| Undone::of_call(&doing, errno))?;
        self.check_own(spot, &real_path(&opened)?, Purpose::Look)?;
        Ok(opened)
    }

    /// Refuses what the agent keeps: its own state, and changes of packages in the cache.
    fn check_own(&self, spot: &Spot, real: &Path, purpose: Purpose) -> Result<(), Undone> {
        let root = self.package.root();
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let first = real
            .strip_prefix(&root)
            .ok()
            .and_then(|below| below.components().next());
        let Some(first) = first else { return Ok(()) };
        let state = root.join(".cutover");
        let is_state = first.as_os_str() == ".cutover";
        let is_package = || state.join("packages").join(first.as_os_str()).exists();
        if is_state || purpose == Purpose::Change && is_package() {
            let reason = format!("`{}` is in what the agent keeps for itself", name(spot));
            return Err(Undone::new(Why::Denied, reason));
        }
        Ok(())
    }
}

impl Place {
    /// Where it really is.
    pub(super) fn real_path(&self) -> Result<PathBuf, Undone> {
        Ok(real_path(&self.folder)?.join(&self.name))
    }
}

/// Where something open really is.
pub(super) fn real_path(opened: &OwnedFd) -> Result<PathBuf, Undone> {
    fs::read_link(through(opened)).map_err(|error| Undone::of_io("see what was opened", &error))
}

/// A path by which something open is reached, whatever becomes of its name.
pub(super) fn through(opened: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

/// Opens what is at a path that does not lead out of a folder.
fn beneath(folder: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS) => return without_links(folder, path, flags),
            // Something on the way was renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

fn without_links(folder: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut opened = openat(folder, ".", FOLDER, Mode::empty())?;
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_some() {
            FOLDER
        } else {
            flags
        };
        opened = openat(&opened, part, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(opened)
}

/// Opens a folder below another one, and makes those on the way that are not there.
fn make_beneath(folder: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let mut opened = openat(folder, ".", FOLDER, Mode::empty())?;
    let ends = path.match_indices('/').map(|(index, _)| index);
    for end in ends.chain([path.len()]) {
        let so_far = &path[..end];
        opened = match beneath(folder.as_fd(), so_far, FOLDER) {
            Err(Errno::NOENT) => {
                let name = so_far.rsplit('/').next().unwrap_or(so_far);
                match mkdirat(&opened, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                beneath(folder.as_fd(), so_far, FOLDER)?
            }
            opened => opened?,
        };
    }
    Ok(opened)
}

/// Makes the names in a folder durable.
pub(super) fn settle(folder: &OwnedFd) -> Result<(), Errno> {
    let readable = openat(
        folder,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::fsync(readable)
}

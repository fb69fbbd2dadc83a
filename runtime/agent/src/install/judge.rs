//! Whether what is at a place may stay, has to go, or stands in the way.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::{Gid, getegid, geteuid};

use super::attributes::{self, Found};
use super::copy::Stamp;
use super::journal::Thing;
use super::owned::Owned;
use super::place::is_absent;
use super::plan::{Entry, What};
use crate::protocol::OnExisting;

/// What is to be done about a place.
pub(crate) enum Verdict {
    /// It is there.
    Same,
    /// Something has to be done.
    Differs(Thing),
    /// The place keeps what it has, and is not planned for.
    Retained,
    Conflict(&'static str),
}

/// Looks at a place.
pub(crate) fn judge(
    place: &Path,
    entry: &Entry,
    on_existing: OnExisting,
    owned: &Owned,
) -> io::Result<Verdict> {
    let metadata = match place.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if is_absent(&error) => return Ok(Verdict::Differs(Thing::Nothing)),
        Err(error) => return Err(error),
    };
    if is_special(&metadata) {
        return Ok(Verdict::Conflict("is a device, a socket or a pipe"));
    }
    let is_ours = owned.files.contains_key(place);
    Ok(match entry.what {
        What::Directory if metadata.is_dir() => Verdict::Same,
        What::Directory if is_ours => Verdict::Differs(Thing::Leaf),
        What::Directory if on_existing == OnExisting::Overwrite => Verdict::Differs(Thing::Leaf),
        What::Directory => Verdict::Conflict(
            "is to be a folder, but there is a file or link that this package did not install",
        ),
        What::File { .. } | What::Link { .. } if metadata.is_dir() => {
            if owned.is_all_of(place)? {
                Verdict::Differs(Thing::Folder)
            } else {
                Verdict::Conflict(
                    "is a folder, but a file is to be there, and not all that it holds is of this package",
                )
            }
        }
        What::File { .. } | What::Link { .. } if has_content(place, &metadata, &entry.what)? => {
            if !is_ours && on_existing == OnExisting::Retain {
                Verdict::Retained
            } else if has_attributes(place, entry)? {
                Verdict::Same
            } else {
                Verdict::Differs(Thing::Leaf)
            }
        }
        What::File { .. } | What::Link { .. } if is_ours => Verdict::Differs(Thing::Leaf),
        What::File { .. } | What::Link { .. } => match on_existing {
            OnExisting::Disallow => {
                Verdict::Conflict("is there already and was not installed by this package")
            }
            OnExisting::Overwrite => Verdict::Differs(Thing::Leaf),
            OnExisting::Retain => Verdict::Retained,
        },
    })
}

fn is_special(metadata: &Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket()
}

fn has_content(place: &Path, metadata: &Metadata, what: &What) -> io::Result<bool> {
    match what {
        What::Directory => Ok(metadata.is_dir()),
        What::Link { target } => Ok(metadata.is_symlink() && fs::read_link(place)? == *target),
        What::File { source, stat } => {
            if !metadata.is_file() || metadata.len() != Stamp::of(stat).size {
                return Ok(false);
            }
            have_equal_bytes(&mut open(source)?, &mut open(place)?)
        }
    }
}

/// Whether a file has what it would have if it were made.
fn has_attributes(place: &Path, entry: &Entry) -> io::Result<bool> {
    if matches!(entry.what, What::Link { .. }) {
        return Ok(true);
    }
    let found = attributes::look(open(place)?)?;
    let mut wanted = entry.wanted();
    if geteuid().is_root() {
        wanted.owner = wanted.owner.or(Some(geteuid()));
        wanted.group = wanted
            .group
            .or_else(|| Some(group_of_what_is_made_beside(place)));
    }
    Ok(found.meets(&wanted) && (wanted.acl.is_some() || !has_list_of_its_own(place, &found)))
}

fn group_of_what_is_made_beside(place: &Path) -> Gid {
    const SET_GROUP_ID: u32 = 0o2000;
    match place.parent().and_then(|parent| parent.metadata().ok()) {
        Some(parent) if parent.mode() & SET_GROUP_ID != 0 => Gid::from_raw(parent.gid()),
        _ => getegid(),
    }
}

/// Whether a file has an access control list that its folder does not explain.
fn has_list_of_its_own(place: &Path, found: &Found) -> bool {
    found.has_list()
        && !place
            .parent()
            .and_then(|parent| attributes::look(open(parent).ok()?).ok())
            .is_some_and(|parent| parent.has_default_list())
}

/// The attributes of a folder.
pub(crate) fn attributes_of(place: &Path) -> io::Result<Found> {
    attributes::look(open(place)?)
}

/// Opens what is no link, and waits for nobody who might write into a pipe that has just taken its place.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    Ok(File::from(file))
}

fn have_equal_bytes(a: &mut File, b: &mut File) -> io::Result<bool> {
    const CHUNK: u64 = 64 << 10;
    let (mut in_a, mut in_b) = (Vec::new(), Vec::new());
    loop {
        in_a.clear();
        in_b.clear();
        a.take(CHUNK).read_to_end(&mut in_a)?;
        b.take(CHUNK).read_to_end(&mut in_b)?;
        if in_a != in_b {
            return Ok(false);
        }
        if in_a.is_empty() {
            return Ok(true);
        }
    }
}

//! Preparing files beside their places, where nobody takes notice of them.
//!
//! Every folder that something changes in gets a stage: a folder of the group's own, closed to everybody else, on the
//! same file system. What is prepared under a number N takes its place by a rename, and what was there goes to `N.old`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstat, mkdirat, openat, symlinkat};
use rustix::process::geteuid;

use super::attributes;
use super::compare::{Plan, Source, Step};
use super::copy::{self, Copier, Stamp};
use super::folder::{self, Folders, split};
use super::journal::{Change, Journal, Member, Thing};
use super::plan::{Entry, What};
use super::record::Shelf;
use super::swap::{Error, failed};

/// The name of what is prepared.
pub(crate) fn prepared(number: u32) -> OsString {
    OsString::from(number.to_string())
}

/// The name of what was there.
pub(crate) fn old(number: u32) -> OsString {
    OsString::from(format!("{number}.old"))
}

/// Opens the stage of a folder, which must be the agent's own.
pub(crate) fn open(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let stage = open_anyones(folder, name)?;
    if fstat(&stage)?.st_uid != geteuid().as_raw() {
        return Err(io::Error::other("it is not the agent's own"));
    }
    Ok(stage)
}

/// Opens the stage of a folder.
pub(crate) fn open_anyones(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

/// Prepares everything that a plan puts in place.
pub(crate) fn prepare(plan: &Plan, journal: &Journal, shelf: &Shelf) -> Result<(), Error> {
    let mut folders = Folders::default();
    for folder in &journal.folders {
        let path = folder.0.join(&journal.stage);
        let made = folders.open(&folder.0).and_then(|dir| {
            // Nothing is known of one that is there already, so nobody needs it.
            folder::remove_all(dir.as_fd(), OsStr::new(&journal.stage))?;
            Ok(mkdirat(dir.as_fd(), &journal.stage, Mode::RWXU)?)
        });
        made.map_err(failed("create", &path))?;
    }
    let (mut copier, mut sources) = (Copier::default(), Folders::default());
    put_aside(plan, journal, shelf, &mut copier)?;
    for step in &plan.steps {
        let Change::Swap {
            place,
            number,
            is,
            members,
            ..
        } = &step.change
        else {
            continue;
        };
        let place = &place.0;
        let (parent, _) = split(place);
        let open = folders
            .open(parent)
            .and_then(|folder| open(&folder, &journal.stage));
        let stage = open.map_err(failed("open the stage in", parent))?;
        let name = prepared(*number);
        match (&step.source, is) {
            (_, Thing::Nothing) | (Source::Nothing | Source::Had(_), _) => {}
            (Source::Kept(kept), _) => {
                let from = folder::open(&shelf.kept()).map_err(failed("open", &shelf.kept()))?;
                copier
                    .preserve((&from, OsStr::new(kept)), (&stage, &name))
                    .map_err(failed("bring back", place))?;
            }
            (Source::Entry, _) => {
                let Some(entry) = plan.entries.get(place) else {
                    continue;
                };
                make(entry, place, (&stage, &name), (&mut copier, &mut sources))?;
                let top = journal.stage_of(place).join(&name);
                fill(plan, place, &top, members, (&mut copier, &mut sources))?;
                if matches!(entry.what, What::Directory) {
                    set(entry, place, (&stage, &name))?;
                }
            }
        }
    }
    Ok(())
}

/// The folders in which something changes.
pub(crate) fn folders(steps: &[Step]) -> BTreeSet<PathBuf> {
    let swaps = steps.iter().filter_map(|step| match &step.change {
        Change::Swap { place, .. } => Some(split(&place.0).0.to_path_buf()),
        Change::Adjust { .. } => None,
    });
    swaps.collect()
}

/// Keeps foreign files, and files that somebody has changed.
fn put_aside(
    plan: &Plan,
    journal: &Journal,
    shelf: &Shelf,
    copier: &mut Copier,
) -> Result<(), Error> {
    let mut keep = |place: &Path, dir: &Path, name: &OsStr| {
        let mut keep = || {
            folder::make_private(dir)?;
            let (parent, file) = split(place);
            let (from, to) = (folder::open(parent)?, File::open(dir)?);
            // Left over from an installation that was interrupted.
            folder::remove_all(&to, name)?;
            copier.preserve((&from, file), (&to, name))
        };
        keep().map_err(failed("put aside", place))
    };
    for (place, name) in &plan.keep {
        keep(place, &shelf.kept(), OsStr::new(name))?;
    }
    let changed = shelf.changed().join(journal.serial.to_string());
    for (number, place) in plan.changed.iter().enumerate() {
        keep(place, &changed, &changed_name(number, place))?;
    }
    Ok(())
}

/// The name under which a changed file is kept.
pub(crate) fn changed_name(number: usize, place: &Path) -> OsString {
    let mut name = OsString::from(format!("{number}-"));
    name.push(split(place).1);
    name
}

/// Makes everything in a folder that is put in place as a whole.
fn fill(
    plan: &Plan,
    place: &Path,
    top: &Path,
    members: &[Member],
    (copier, sources): (&mut Copier, &mut Folders),
) -> Result<(), Error> {
    let mut folders = Folders::default();
    let staged = |member: &Path| top.join(member.strip_prefix(place).unwrap_or(member));
    for member in members {
        let path = &member.place.0;
        let target = staged(path);
        let (parent, name) = split(&target);
        let dir = folders.open(parent).map_err(failed("open", parent))?;
        if let Some(entry) = plan.entries.get(path) {
            make(entry, path, (dir.as_fd(), name), (copier, sources))?;
        }
    }
    // Innermost first, and last of all: a folder may deny its owner to write, and what a folder's access control list
    // says of what is made in it is about what others make.
    for member in members.iter().rev() {
        let path = &member.place.0;
        if member.thing != Thing::Folder {
            continue;
        }
        let target = staged(path);
        let (parent, name) = split(&target);
        let dir = folders.open(parent).map_err(failed("open", parent))?;
        if let Some(entry) = plan.entries.get(path) {
            set(entry, path, (dir.as_fd(), name))?;
        }
    }
    Ok(())
}

fn make(
    entry: &Entry,
    place: &Path,
    (dir, name): (impl AsFd, &OsStr),
    (copier, sources): (&mut Copier, &mut Folders),
) -> Result<(), Error> {
    match &entry.what {
        What::Directory => mkdirat(dir, name, Mode::RWXU)
            .map_err(|errno| failed("prepare the folder", place)(errno.into())),
        What::Link { target } => symlinkat(target, dir, name)
            .map_err(|errno| failed("prepare the link", place)(errno.into())),
        What::File { source, .. } => {
            let (parent, file) = split(source);
            let from = sources
                .open_through_links(parent)
                .and_then(|parent| copy::read(parent.as_fd(), file))
                .map_err(failed(PACKAGE, source))?;
            let stamp = |file: &File| fstat(file).map(|stat| Some(Stamp::of(&stat)));
            let before = stamp(&from).map_err(|errno| failed(PACKAGE, source)(errno.into()))?;
            let to = copy::create(dir, name).map_err(failed("prepare", place))?;
            let length = copier.fill(&from, &to).map_err(failed("write", place))?;
            let after = stamp(&from).map_err(|errno| failed(PACKAGE, source)(errno.into()))?;
            let planned = entry.stamp();
            if before != planned
                || after != planned
                || planned.map(|stamp| stamp.size) != Some(length)
            {
                return Err(failed("copy", source)(io::Error::other(
                    "it changed while it was copied: see what writes into the package folder, and deploy again",
                )));
            }
            attributes::give(&to, &entry.wanted()).map_err(failed(SET, place))
        }
    }
}

fn set(entry: &Entry, place: &Path, (dir, name): (impl AsFd, &OsStr)) -> Result<(), Error> {
    const SET_GROUP_ID: u32 = 0o2000;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let set = || -> io::Result<()> {
        let dir = openat(dir, name, flags, Mode::empty())?;
        let mut wanted = entry.wanted();
        if entry.attributes.mode.is_none() {
            // A folder in one that hands on its group does so as well, as with `mkdir`.
            let inherited = fstat(&dir)?.st_mode & SET_GROUP_ID;
            wanted.mode = wanted.mode.map(|mode| mode | inherited);
        }
        attributes::give(dir, &wanted)
    };
    set().map_err(failed(SET, place))
}

pub(crate) const SET: &str = "set the attributes of";

/// What a file of the package that is gone or unreadable is about.
pub(crate) const PACKAGE: &str = "read the package's file";

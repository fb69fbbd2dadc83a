//! Whether the instance can take an installation: room, names, write permission, access control lists.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::attributes;
use super::compare::{Plan, Source};
use super::folder;
use super::journal::{Change, Thing};
use super::plan::{Entry, What};
use super::record::Shelf;
use crate::room::{self, Free, Need};

/// What a file system is asked for.
#[derive(Debug)]
struct Ask {
    /// A folder on it.
    folder: PathBuf,
    need: Need,
    free: Free,
}

#[derive(Default)]
struct Needs {
    by_device: BTreeMap<u64, Ask>,
    /// The folders that were looked at, with their file systems.
    folders: BTreeMap<PathBuf, u64>,
    problems: Vec<String>,
}

/// Says everything that keeps a plan from being carried out. Nothing is changed to find that out.
pub(crate) fn check(plan: &Plan, shelf: &Shelf) -> Vec<String> {
    let mut needs = Needs::default();
    for step in &plan.steps {
        let (place, members) = match &step.change {
            Change::Swap { place, members, .. } => (&place.0, &members[..]),
            Change::Adjust { place, .. } => (&place.0, &[][..]),
        };
        let Some(device) = needs.look_at(folder::split(place).0) else {
            continue;
        };
        // The stage has room for what is prepared, and names for what was there before.
        let is_made = step.source == Source::Entry && matches!(step.change, Change::Swap { .. });
        let places = std::iter::once(place).chain(members.iter().map(|member| &member.place.0));
        for entry in places.filter_map(|place| plan.entries.get(place)) {
            if is_made {
                needs.take(device, entry);
            }
            if entry.attributes.acl.is_some() {
                needs.need_lists(place);
            }
        }
        if let Source::Kept(name) = &step.source {
            needs.take_copy(device, &shelf.kept().join(name));
        }
    }
    let aside = plan.keep.iter().map(|(place, _)| place);
    let aside: Vec<&PathBuf> = aside.chain(&plan.changed).collect();
    if !aside.is_empty()
        && let Some(device) = needs.look_at(shelf.dir())
    {
        for place in aside {
            needs.take_copy(device, place);
        }
    }
    let Needs {
        by_device,
        mut problems,
        ..
    } = needs;
    let short = |ask: &Ask| ask.free.short_of(ask.need, &ask.folder);
    problems.extend(by_device.values().flat_map(short));
    problems
}

impl Needs {
    /// The file system of a folder, if it can be written to.
    fn look_at(&mut self, folder: &Path) -> Option<u64> {
        if let Some(device) = self.folders.get(folder) {
            return Some(*device).filter(|device| *device != 0);
        }
        let looked = look(folder);
        let device = match looked {
            Ok((device, free)) => {
                let ask = self.by_device.entry(device).or_insert_with(|| Ask {
                    folder: folder.to_path_buf(),
                    need: Need::default(),
                    free,
                });
                // The stage itself.
                ask.need.bytes += ask.free.block;
                ask.need.names += 1;
                device
            }
            Err(problem) => {
                self.problems.push(problem);
                0
            }
        };
        self.folders.insert(folder.to_path_buf(), device);
        Some(device).filter(|device| *device != 0)
    }

    fn take(&mut self, device: u64, entry: &Entry) {
        if let Some(ask) = self.by_device.get_mut(&device) {
            ask.need.names += 1;
            ask.need.bytes += match &entry.what {
                What::File { stat, .. } => room::taken(stat, ask.free.block),
                What::Directory => ask.free.block,
                What::Link { .. } => 0,
            };
        }
    }

    /// What is on the same file system gets a second name; anything else is copied.
    fn take_copy(&mut self, device: u64, path: &Path) {
        if let (Some(ask), Ok(Some(stat))) = (
            self.by_device.get_mut(&device),
            folder::look(CWD, path.as_os_str()),
        ) && stat.st_dev != device
        {
            ask.need.names += 1;
            ask.need.bytes += room::taken(&stat, ask.free.block);
        }
    }

    fn need_lists(&mut self, place: &Path) {
        let folder = folder::split(place).0;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let keeps = folder::open(folder)
            .and_then(|dir| Ok(openat(dir, c".", flags, Mode::empty())?))
            // What cannot be opened is another problem.
            .is_ok_and(|dir| attributes::keeps_lists(dir.as_fd()));
        let problem = format!(
            "the file system of `{}` keeps no access control lists: leave out `acls`, or mount it with them",
            folder.display()
        );
        if !keeps && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

fn look(path: &Path) -> Result<(u64, Free), String> {
    let dir = folder::open(path).map_err(|error| {
        let error = match error.raw_os_error() {
            Some(code)
                if [Errno::LOOP, Errno::NOTDIR]
                    .map(Errno::raw_os_error)
                    .contains(&code) =>
            {
                io::Error::other("a link or file has just taken its place")
            }
            _ => error,
        };
        format!("open the folder `{}`: {error}", path.display())
    })?;
    match accessat(
        &dir,
        c".",
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::empty(),
    ) {
        Ok(()) => {}
        Err(Errno::ROFS) => {
            return Err(format!(
                "`{}` is on a file system that is mounted read-only: mount it writable",
                path.display()
            ));
        }
        Err(Errno::PERM) => {
            return Err(format!(
                "`{}` is immutable: `lsattr -d` shows it, `chattr -i` takes it away",
                path.display()
            ));
        }
        Err(errno) => {
            return Err(format!(
                "`{}` cannot be written to by the agent, which runs as the user with the id {}: {}",
                path.display(),
                geteuid().as_raw(),
                io::Error::from(errno)
            ));
        }
    }
    let looked = fstat(&dir)
        .map_err(io::Error::from)
        .and_then(|stat| Ok((stat.st_dev, Free::of(&dir)?)));
    looked.map_err(|error| format!("look at `{}`: {error}", path.display()))
}

/// Whether something of a plan is put in place at all.
pub(crate) fn is_idle(plan: &Plan) -> bool {
    plan.steps.is_empty() && plan.keep.is_empty() && plan.changed.is_empty()
}

/// How many files and links a plan puts in place, and how many it takes away.
pub(crate) fn counts(plan: &Plan) -> (usize, usize) {
    let (mut written, mut removed) = (0, 0);
    for step in &plan.steps {
        match &step.change {
            Change::Adjust { .. } => written += 1,
            Change::Swap {
                is: Thing::Leaf, ..
            } => written += 1,
            Change::Swap {
                is: Thing::Folder,
                members,
                ..
            } => {
                let leaves = members.iter().filter(|member| member.thing == Thing::Leaf);
                written += leaves.count();
            }
            Change::Swap {
                was: Thing::Leaf,
                is: Thing::Nothing,
                ..
            } => removed += 1,
            Change::Swap {
                is: Thing::Nothing, ..
            } => {}
        }
    }
    (written, removed)
}

//! What an installation has to change: the difference between what is to be there and what is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};
use rustix::process::{Gid, getegid, geteuid};

use super::attributes::{self, Attributes, Found};
use super::copy::Stamp;
use super::folder;
use super::journal::{Change, Member, Thing};
use super::place::{Resolver, is_absent};
use super::plan::{Draft, Entries, Entry, What};
use super::record::{Adjusted, Content, Kept, Laid, Place, Shelf};
use crate::protocol::{Install, OnExisting};

/// What the group has on the instance, by where it really is.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    pub(crate) files: BTreeMap<PathBuf, Option<Stamp>>,
    pub(crate) directories: BTreeSet<PathBuf>,
    /// Foreign files that were put aside, with their names there.
    pub(crate) kept: BTreeMap<PathBuf, String>,
    /// Folders that got other attributes.
    pub(crate) adjusted: BTreeMap<PathBuf, Adjusted>,
    /// What cannot be reached.
    pub(crate) notes: Vec<String>,
}

impl Owned {
    /// Finds out where things are.
    pub(crate) fn find(
        content: Option<&Content>,
        shelf: &Shelf,
        resolver: &mut Resolver<'_>,
    ) -> Self {
        let mut owned = Self::default();
        let Some(content) = content else {
            return owned;
        };
        for laid in &content.files {
            match resolver.file(&laid.place.0) {
                Ok(place) => drop(owned.files.insert(place, laid.stamp)),
                Err(problem) => owned.notes.push(format!(
                    "`{}` of the version before stays where it is: {problem}",
                    laid.place.0.display()
                )),
            }
        }
        for directory in &content.directories {
            if let Ok(place) = resolver.file(&directory.0)
                && place
                    .symlink_metadata()
                    .is_ok_and(|metadata| metadata.is_dir())
            {
                owned.directories.insert(place);
            }
        }
        for adjusted in &content.adjusted {
            if let Ok(place) = resolver.file(&adjusted.place.0) {
                owned.adjusted.insert(place, adjusted.clone());
            }
        }
        for kept in &content.kept {
            let is_there = shelf.kept().join(&kept.name).symlink_metadata().is_ok();
            if let (true, Ok(place)) = (is_there, resolver.file(&kept.place.0)) {
                owned.kept.insert(place, kept.name.clone());
            }
        }
        owned
    }

    /// Whether a folder, all of it on one file system, holds nothing but what would go with it.
    pub(crate) fn is_all_of(&self, dir: &Path) -> io::Result<bool> {
        let device = dir.symlink_metadata()?.dev();
        let is_mounted = dir
            .parent()
            .is_some_and(|parent| parent.metadata().is_ok_and(|above| above.dev() != device));
        let is_awaited = below(&self.kept, dir).any(|(place, _)| place != dir);
        if !self.directories.contains(dir) || is_mounted || is_awaited {
            return Ok(false);
        }
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            let is_ours = if entry.file_type()?.is_dir() {
                self.is_all_of(&path)?
            } else {
                self.files.contains_key(&path)
            };
            if !is_ours {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What takes the place of what was there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Nothing,
    /// What the plan says of the place.
    Entry,
    /// A foreign file that was put aside.
    Kept(String),
    /// What a folder had, and over it what the plan says.
    Had(Box<Found>),
}

/// One change, with what carrying it out needs to know.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) change: Change,
    pub(crate) source: Source,
    /// The file or link that it takes the place of.
    pub(crate) seen: Option<Stamp>,
}

/// Everything that an installation does.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) entries: Entries,
    pub(crate) steps: Vec<Step>,
    /// Foreign files that are put aside, with their names there.
    pub(crate) keep: Vec<(PathBuf, String)>,
    /// Files that somebody has changed since they were installed, and that go.
    pub(crate) changed: Vec<PathBuf>,
    /// What is installed afterwards. The stamps of what is not there yet are missing.
    pub(crate) content: Content,
    pub(crate) notes: Vec<String>,
}

enum Verdict {
    /// It is there.
    Same,
    /// Something has to be done.
    Differs(Thing),
    /// The place keeps what it has, and is not planned for.
    Retained,
    Conflict(&'static str),
}

/// Compares what is to be there with what is, and says either what to do or everything that stands in the way.
pub(crate) fn compare(
    draft: Draft,
    work: &Install,
    owned: &Owned,
    first_name: u64,
) -> Result<Plan, Vec<String>> {
    let mut comparison = Comparison {
        on_existing: work.on_existing,
        owned,
        next_name: first_name,
        adjustments: Vec::new(),
        conflicts: draft.conflicts,
        plan: Plan {
            entries: Entries::new(),
            steps: Vec::new(),
            keep: Vec::new(),
            changed: Vec::new(),
            content: Content::default(),
            notes: draft.notes,
        },
    };
    comparison.bring(draft.entries);
    comparison.let_go();
    comparison.settle(&work.deployment);
    if comparison.conflicts.is_empty() {
        Ok(comparison.plan)
    } else {
        Err(comparison.conflicts)
    }
}

struct Comparison<'a> {
    on_existing: OnExisting,
    owned: &'a Owned,
    next_name: u64,
    adjustments: Vec<Step>,
    conflicts: Vec<String>,
    plan: Plan,
}

impl Comparison<'_> {
    /// What is to be there.
    fn bring(&mut self, entries: Entries) {
        // The last folder that is made: what is in it is made with it.
        let mut made: Option<PathBuf> = None;
        for (place, entry) in entries {
            if made.as_ref().is_some_and(|made| place.starts_with(made)) {
                self.join(&place, &entry);
                self.plan.entries.insert(place, entry);
                continue;
            }
            let verdict = judge(&place, &entry, self.on_existing, self.owned);
            let is_directory = matches!(entry.what, What::Directory);
            match verdict {
                Ok(Verdict::Same) => {
                    if !is_directory {
                        self.keep_foreign(&place);
                    } else if let Err(error) = self.adjust(&place, &entry) {
                        self.refuse(&place, &error);
                    }
                }
                Ok(Verdict::Differs(was)) => {
                    if was == Thing::Leaf {
                        self.keep_foreign(&place);
                    }
                    if was != Thing::Nothing {
                        self.save_changed(&place);
                    }
                    let is = if is_directory {
                        made = Some(place.clone());
                        Thing::Folder
                    } else {
                        Thing::Leaf
                    };
                    self.swap(&place, was, is, Source::Entry);
                }
                Ok(Verdict::Retained) => {
                    self.plan.notes.push(format!(
                        "`{}` was there already and was left as it is",
                        place.display()
                    ));
                    continue;
                }
                Ok(Verdict::Conflict(problem)) => {
                    self.conflicts
                        .push(format!("`{}` {problem}", place.display()));
                    made = is_directory.then(|| place.clone());
                }
                Err(error) => self.refuse(&place, &error),
            }
            self.plan.entries.insert(place, entry);
        }
    }

    fn refuse(&mut self, place: &Path, error: &io::Error) {
        self.conflicts
            .push(format!("look at `{}`: {error}", place.display()));
    }

    /// Adds something to the folder that is made last.
    fn join(&mut self, place: &Path, entry: &Entry) {
        if let Some(Step {
            change: Change::Swap { members, .. },
            ..
        }) = self.plan.steps.last_mut()
        {
            let thing = match entry.what {
                What::Directory => Thing::Folder,
                What::File { .. } | What::Link { .. } => Thing::Leaf,
            };
            members.push(Member {
                place: Place(place.to_path_buf()),
                thing,
            });
        }
    }

    fn swap(&mut self, place: &Path, was: Thing, is: Thing, source: Source) {
        let seen = match was {
            Thing::Leaf => look(place).ok().flatten(),
            Thing::Nothing | Thing::Folder => None,
        };
        self.plan.steps.push(Step {
            change: Change::Swap {
                place: Place(place.to_path_buf()),
                number: u32::try_from(self.plan.steps.len()).unwrap_or(u32::MAX),
                was,
                is,
                members: Vec::new(),
            },
            source,
            seen,
        });
    }

    /// Puts a foreign file aside, for the time when no version has a use for its place.
    fn keep_foreign(&mut self, place: &Path) {
        if self.owned.files.contains_key(place) {
            return;
        }
        self.plan
            .keep
            .push((place.to_path_buf(), self.next_name.to_string()));
        self.next_name += 1;
    }

    /// Notes the group's files at or below a place that somebody has changed.
    fn save_changed(&mut self, place: &Path) {
        for (path, stamp) in below(&self.owned.files, place) {
            if let (Some(stamp), Ok(Some(found))) = (stamp, look(path))
                && !found.is_content_of(stamp)
            {
                self.plan.changed.push(path.clone());
            }
        }
    }

    /// A folder that is there keeps what the permissions do not mention, and gets back what they do not mention any
    /// longer, unless somebody else has changed it since.
    fn adjust(&mut self, place: &Path, entry: &Entry) -> io::Result<()> {
        let earlier = self.owned.adjusted.get(place);
        let wants = entry.attributes != Attributes::default();
        if !wants && earlier.is_none() {
            return Ok(());
        }
        let is = attributes::look(open(place)?)?;
        let earlier = earlier.filter(|earlier| earlier.gave == is);
        let said = format!("{:?}", entry.attributes);
        let had = match earlier {
            Some(earlier) if earlier.said == said => {
                self.plan.content.adjusted.push(earlier.clone());
                return Ok(());
            }
            Some(earlier) => Some(earlier.had.clone()),
            None if !wants || is.meets(&entry.attributes) => return Ok(()),
            None => None,
        };
        if wants {
            self.plan.content.adjusted.push(Adjusted {
                place: Place(place.to_path_buf()),
                had: had.clone().unwrap_or_else(|| is.clone()),
                gave: is.clone(),
                said,
            });
        }
        self.adjustments.push(Step {
            change: Change::Adjust {
                place: Place(place.to_path_buf()),
                had: is,
            },
            source: had.map_or(Source::Entry, |had| Source::Had(Box::new(had))),
            seen: None,
        });
        Ok(())
    }

    /// What the version before had and this one has not.
    fn let_go(&mut self) {
        let owned = self.owned;
        // What goes with a folder.
        let mut gone: Vec<PathBuf> = self.replaced_folders();
        for dir in &owned.directories {
            let is_covered = gone.iter().any(|gone| dir.starts_with(gone));
            if is_covered || holds_some(&self.plan.entries, dir) {
                continue;
            }
            match owned.is_all_of(dir) {
                Ok(true) => {
                    match owned.kept.get(dir) {
                        Some(name) => self.bring_back(dir, name, Thing::Folder),
                        None => {
                            self.save_changed(dir);
                            self.swap(dir, Thing::Folder, Thing::Nothing, Source::Nothing);
                        }
                    }
                    gone.push(dir.clone());
                }
                Ok(false) => {}
                Err(error) => self.refuse(dir, &error),
            }
        }
        for place in owned.files.keys() {
            let is_covered = gone.iter().any(|gone| place.starts_with(gone));
            if is_covered || self.plan.entries.contains_key(place) {
                continue;
            }
            let was = match what_is(place) {
                Ok(was) => was,
                Err(error) => {
                    self.refuse(place, &error);
                    continue;
                }
            };
            match (owned.kept.get(place), was) {
                (_, Thing::Folder) => self.plan.notes.push(format!(
                    "`{}` was a file of the version before, is a folder, and stays",
                    place.display()
                )),
                (Some(name), was) => self.bring_back(place, name, was),
                (None, Thing::Leaf) => {
                    self.save_changed(place);
                    self.swap(place, was, Thing::Nothing, Source::Nothing);
                }
                (None, Thing::Nothing) => {}
            }
        }
        self.bring_back_the_rest(&gone);
    }

    /// What was put aside and whose place somebody has cleared in the meantime.
    fn bring_back_the_rest(&mut self, gone: &[PathBuf]) {
        for (place, name) in &self.owned.kept {
            let is_settled = self.plan.entries.contains_key(place)
                || self.owned.files.contains_key(place)
                || gone.iter().any(|gone| place.starts_with(gone));
            if is_settled {
                continue;
            }
            match what_is(place) {
                Ok(Thing::Nothing) => self.bring_back(place, name, Thing::Nothing),
                Ok(Thing::Leaf | Thing::Folder) => self.plan.notes.push(format!(
                    "what was at `{}` before this package cannot come back, for there is something else: it is kept",
                    place.display()
                )),
                Err(error) => self.refuse(place, &error),
            }
        }
    }

    fn bring_back(&mut self, place: &Path, name: &str, was: Thing) {
        let has_folder = place
            .parent()
            .is_some_and(|parent| what_is(parent).is_ok_and(|thing| thing == Thing::Folder));
        if was == Thing::Nothing && !has_folder {
            self.plan.notes.push(format!(
                "what was at `{}` before this package cannot come back, for its folder is gone: it is kept",
                place.display()
            ));
            return;
        }
        self.save_changed(place);
        self.swap(place, was, Thing::Leaf, Source::Kept(name.to_owned()));
    }

    fn replaced_folders(&self) -> Vec<PathBuf> {
        let swaps = self
            .plan
            .steps
            .iter()
            .filter_map(|step| match &step.change {
                Change::Swap {
                    place,
                    was: Thing::Folder,
                    ..
                } => Some(place.0.clone()),
                Change::Swap { .. } | Change::Adjust { .. } => None,
            });
        swaps.collect()
    }

    /// What is installed afterwards.
    fn settle(&mut self, deployment: &str) {
        self.plan.steps.append(&mut self.adjustments);
        let mut back = BTreeSet::new();
        let mut gone = Vec::new();
        for step in &self.plan.steps {
            if let (Change::Swap { place, was, .. }, source) = (&step.change, &step.source) {
                if let Source::Kept(name) = source {
                    back.insert(name.clone());
                }
                if *was == Thing::Folder {
                    gone.push(place.0.clone());
                }
            }
        }
        let mut files = Vec::new();
        let mut directories: BTreeSet<PathBuf> = BTreeSet::new();
        for (place, entry) in &self.plan.entries {
            match entry.what {
                What::Directory => {
                    let is_foreign = what_is(place).is_ok_and(|thing| thing == Thing::Folder)
                        && !self.owned.directories.contains(place);
                    if !is_foreign {
                        directories.insert(place.clone());
                    }
                }
                What::File { .. } | What::Link { .. } => files.push(Laid {
                    place: Place(place.clone()),
                    stamp: None,
                }),
            }
        }
        // Folders that are not the group's alone stay, and stay known.
        let stays = |dir: &&PathBuf| !gone.iter().any(|gone| dir.starts_with(gone));
        directories.extend(self.owned.directories.iter().filter(stays).cloned());
        let mut kept: BTreeMap<PathBuf, String> = self.owned.kept.clone();
        kept.retain(|_, name| !back.contains(name));
        kept.extend(self.plan.keep.iter().cloned());
        self.plan.content = Content {
            deployment: deployment.to_owned(),
            files,
            directories: directories.into_iter().map(Place).collect(),
            kept: kept
                .into_iter()
                .map(|(place, name)| Kept {
                    place: Place(place),
                    name,
                })
                .collect(),
            adjusted: std::mem::take(&mut self.plan.content.adjusted),
        };
    }
}

fn judge(
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

fn look(path: &Path) -> io::Result<Option<Stamp>> {
    Ok(folder::look(CWD, path.as_os_str())?.map(|stat| Stamp::of(&stat)))
}

fn what_is(path: &Path) -> io::Result<Thing> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(Thing::Folder),
        Ok(_) => Ok(Thing::Leaf),
        Err(error) if is_absent(&error) => Ok(Thing::Nothing),
        Err(error) => Err(error),
    }
}

/// What a map of paths has at a place and below it.
fn below<'a, T>(
    map: &'a BTreeMap<PathBuf, T>,
    place: &'a Path,
) -> impl Iterator<Item = (&'a PathBuf, &'a T)> {
    map.range::<Path, _>((std::ops::Bound::Included(place), std::ops::Bound::Unbounded))
        .take_while(move |(path, _)| path.starts_with(place))
}

fn holds_some<T>(map: &BTreeMap<PathBuf, T>, place: &Path) -> bool {
    below(map, place).next().is_some()
}

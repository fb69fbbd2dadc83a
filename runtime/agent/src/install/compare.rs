//! What an installation has to change: the difference between what is to be there and what is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use super::attributes::{Attributes, Found};
use super::copy::Stamp;
use super::folder;
use super::journal::{Change, Member, Thing};
use super::judge::{Verdict, attributes_of, judge};
use super::owned::{Owned, below, holds_some};
use super::place::is_absent;
use super::plan::{Draft, Entries, Entry, What};
use super::record::{Adjusted, Content, Kept, Laid, Place};
use crate::protocol::{Install, OnExisting};

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
        let is = attributes_of(place)?;
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

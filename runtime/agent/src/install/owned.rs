//! What a group has on an instance.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::copy::Stamp;
use super::place::Resolver;
use super::record::{Adjusted, Content, Shelf};

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

/// What a map of paths has at a place and below it.
pub(crate) fn below<'a, T>(
    map: &'a BTreeMap<PathBuf, T>,
    place: &'a Path,
) -> impl Iterator<Item = (&'a PathBuf, &'a T)> {
    map.range::<Path, _>((std::ops::Bound::Included(place), std::ops::Bound::Unbounded))
        .take_while(move |(path, _)| path.starts_with(place))
}

pub(crate) fn holds_some<T>(map: &BTreeMap<PathBuf, T>, place: &Path) -> bool {
    below(map, place).next().is_some()
}

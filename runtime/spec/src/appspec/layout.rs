//! Where the files of a package are going to be, and which permission is for which of them.
//!
//! This is the plan that an instance makes of an installation, as far as the package alone decides it: two sources
//! for one place and two permissions for one file show here, before there is an instance.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use model::{Kinds, Permission};

use super::dialect::Dialect;
use super::file::Located;
use super::permission::PermissionAt;
use crate::problem::{Collector, Position, excerpt};

/// The most entries of a package that are looked at; an instance takes no more.
const MAX_ENTRIES: usize = 200_000;

/// The most places that are planned for.
const MAX_PLACES: usize = 400_000;

/// The most comparisons of a permission with a place.
const MAX_COMPARISONS: usize = 4_000_000;

/// How much of the appspec could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    Whole,
    /// Parts are missing, so that what is not there proves nothing.
    Partial,
}

/// What something in a package is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Link,
}

/// A place on the instance.
#[derive(Debug)]
struct Place {
    kind: Kind,
    /// Where it comes from in the package; for a folder on the way to a destination, nowhere.
    source: Option<PathBuf>,
    /// The pair of `files` that brings it.
    mapping: usize,
}

/// Checks that no two pairs of `files` and no two permissions get in each other's way.
pub(super) fn check(located: &Located, root: &Path, coverage: Coverage, problems: &mut Collector) {
    let tree = match tree(root) {
        Ok(tree) => {
            report_links(&tree, root, problems);
            tree
        }
        Err(Unwalkable { path, reason }) => {
            let message = format!("`{}` in the package {reason}", path.display());
            problems.error(Position::START, message);
            return;
        }
    };
    let mut layout = Layout {
        located,
        places: BTreeMap::new(),
        collisions: BTreeMap::new(),
    };
    for mapping in 0..located.appspec.files.len() {
        if !layout.map(mapping, &tree) {
            problems.warn(
                Position::START,
                format!("`files` lead to more than {MAX_PLACES} places"),
                "collisions and permissions are not checked",
            );
            return;
        }
    }
    layout.report_collisions(problems);
    layout.check_permissions(coverage, problems);
}

/// Something in a package that cannot be installed.
struct Unwalkable {
    path: PathBuf,
    reason: String,
}

/// Everything in the package but its root, by path.
fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Kind>, Unwalkable> {
    let mut tree = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let unwalkable = |error: io::Error| Unwalkable {
            path: folder.clone(),
            reason: format!("cannot be read: {error}"),
        };
        for entry in fs::read_dir(root.join(&folder)).map_err(unwalkable)? {
            let entry = entry.map_err(unwalkable)?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().map_err(unwalkable)?;
            let kind = if kind.is_dir() {
                folders.push(path.clone());
                Kind::Directory
            } else if kind.is_symlink() {
                Kind::Link
            } else if kind.is_file() {
                Kind::File
            } else {
                return Err(Unwalkable {
                    path,
                    reason: "is neither a file, a folder nor a link".to_owned(),
                });
            };
            if tree.len() == MAX_ENTRIES {
                return Err(Unwalkable {
                    path,
                    reason: format!("is one more than the {MAX_ENTRIES} entries it may have"),
                });
            }
            tree.insert(path, kind);
        }
    }
    Ok(tree)
}

/// Tells of links that lead out of the package, for which no instance takes it.
fn report_links(tree: &BTreeMap<PathBuf, Kind>, root: &Path, problems: &mut Collector) {
    let links = tree.iter().filter(|(_, kind)| **kind == Kind::Link);
    for (path, _) in links {
        if let Ok(target) = fs::read_link(root.join(path))
            && !stays_inside(path, &target)
        {
            let message = format!(
                "the link `{}` in the package leads out of it, to `{}`",
                excerpt(&path.to_string_lossy()),
                excerpt(&target.to_string_lossy())
            );
            problems.error(Position::START, message);
        }
    }
}

/// Whether a link at a path of the package leads to a place in the package, there or not. As on an instance, a target
/// that goes up after it went down is taken for one that leaves: what it passes may be a link as well.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    let mut went_down = false;
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => went_down = true,
            Component::ParentDir if !went_down && depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// A path as the agent takes it: without `.` and doubled separators.
fn normal(text: &str) -> PathBuf {
    Path::new(text)
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

/// An example of something that happens at several places.
struct Example {
    place: PathBuf,
    count: usize,
}

impl Example {
    /// The place, and how many others there are.
    fn text(&self) -> String {
        let place = excerpt(&self.place.to_string_lossy());
        match self.count {
            1 => format!("`{place}`"),
            2 => format!("`{place}` and 1 more place"),
            count => format!("`{place}` and {} more places", count - 1),
        }
    }
}

/// Counts one more place of something.
fn count<K: Ord>(examples: &mut BTreeMap<K, Example>, key: K, place: &Path) {
    let new = || Example {
        place: place.to_owned(),
        count: 0,
    };
    examples.entry(key).or_insert_with(new).count += 1;
}

struct Layout<'a> {
    located: &'a Located,
    places: BTreeMap<PathBuf, Place>,
    /// By the two pairs of `files`.
    collisions: BTreeMap<(usize, usize), Example>,
}

impl Layout<'_> {
    /// Plans one pair of `files`; `false` when that leads to too many places.
    fn map(&mut self, mapping: usize, tree: &BTreeMap<PathBuf, Kind>) -> bool {
        let file = &self.located.appspec.files[mapping];
        let destination = normal(&file.destination);
        let source = PathBuf::from(file.source.trim_start_matches('/'));
        let kind = if source.as_os_str().is_empty() {
            Kind::Directory
        } else if let Some(kind) = tree.get(&source) {
            *kind
        } else {
            return true;
        };
        for folder in destination.ancestors() {
            if !folder.as_os_str().is_empty() {
                self.lay(folder.to_owned(), Kind::Directory, None, mapping);
            }
        }
        if kind != Kind::Directory {
            let name = source.file_name().unwrap_or_default();
            self.lay(destination.join(name), kind, Some(&source), mapping);
            return self.places.len() <= MAX_PLACES;
        }
        let below = tree
            .range(source.clone()..)
            .take_while(|(path, _)| path.starts_with(&source));
        for (path, kind) in below {
            let Ok(inner) = path.strip_prefix(&source) else {
                continue;
            };
            if !inner.as_os_str().is_empty() {
                self.lay(destination.join(inner), *kind, Some(path), mapping);
            }
            if self.places.len() > MAX_PLACES {
                return false;
            }
        }
        true
    }

    fn lay(&mut self, place: PathBuf, kind: Kind, source: Option<&Path>, mapping: usize) {
        let Some(first) = self.places.get_mut(&place) else {
            let source = source.map(Path::to_owned);
            self.places.insert(
                place,
                Place {
                    kind,
                    source,
                    mapping,
                },
            );
            return;
        };
        let agree = match (first.kind, kind) {
            (Kind::Directory, Kind::Directory) => {
                first.source = first.source.take().or_else(|| source.map(Path::to_owned));
                true
            }
            (first_kind, kind) => first_kind == kind && first.source.as_deref() == source,
        };
        if !agree {
            count(&mut self.collisions, (first.mapping, mapping), &place);
        }
    }

    fn report_collisions(&self, problems: &mut Collector) {
        for ((first, second), example) in &self.collisions {
            let line = self.located.files[*first].source.line;
            let message = format!(
                "this pair of `files` and the one on line {line} both bring {}",
                example.text()
            );
            problems.error_with_hint(
                self.located.files[*second].destination,
                message,
                "give them destinations that do not meet, or leave one of them out",
            );
        }
    }

    fn check_permissions(&self, coverage: Coverage, problems: &mut Collector) {
        let permissions = &self.located.appspec.permissions;
        let mut first_of: BTreeMap<&Path, usize> = BTreeMap::new();
        let mut overlaps: BTreeMap<(usize, usize), Example> = BTreeMap::new();
        let mut comparisons = 0;
        for (index, permission) in permissions.iter().enumerate() {
            let at = &self.located.permissions[index];
            let object = normal(&permission.object);
            self.check_object(permission, &object, at, problems);
            let mut applies = false;
            let mut file = None;
            let mut closed_folder = None;
            let below = self
                .places
                .range(object.clone()..)
                .take_while(|(path, _)| path.starts_with(&object));
            for (path, place) in below {
                comparisons += 1;
                if !is_meant(permission, &object, path, place) {
                    continue;
                }
                applies = true;
                // Whether a folder on the way to a destination is made or there already, only an instance knows.
                if place.source.is_none() {
                    continue;
                }
                if place.kind == Kind::File {
                    file = file.or(Some(path));
                }
                if place.kind == Kind::Directory
                    && permission.mode.is_some_and(|mode| mode & 0o111 == 0)
                {
                    closed_folder = closed_folder.or(Some(path));
                }
                match first_of.get(path.as_path()) {
                    Some(first) => count(&mut overlaps, (*first, index), path),
                    None => {
                        first_of.insert(path, index);
                    }
                }
            }
            if let (Some(folder), Some(mode)) = (closed_folder, at.mode) {
                let message = format!(
                    "the folder `{}` gets this mode as well, which lets nobody enter it",
                    excerpt(&folder.to_string_lossy())
                );
                problems.warn(mode, message, "add `type: [file]`, or a mode with `x`");
            }
            if let (Some(file), Some(acls)) = (file, at.acls)
                && permission.kinds != Kinds::Files
                && let Some(entry) = at.acl.iter().find(|entry| entry.is_default)
            {
                // A list for files alone is refused where it is read.
                let message = format!(
                    "`{}` is a file, and only folders have default entries such as `{entry}`",
                    excerpt(&file.to_string_lossy())
                );
                problems.error_with_hint(acls, message, "add `type: [directory]`");
            }
            if !applies && coverage == Coverage::Whole && self.can_tell(&object) {
                problems.warn(
                    at.object,
                    "the permission applies to nothing",
                    "a permission is for what `files` bring to or below its object, the folder itself left out",
                );
            }
            if comparisons > MAX_COMPARISONS {
                let hint = "the permissions that follow are not checked";
                problems.warn(at.object, "`permissions` apply to very many places", hint);
                break;
            }
        }
        self.report_overlaps(&overlaps, problems);
    }

    /// Whether what is not planned below an object is really not there: how a relative path and an absolute one meet,
    /// only an instance knows.
    fn can_tell(&self, object: &Path) -> bool {
        let files = &self.located.appspec.files;
        files
            .iter()
            .all(|file| Path::new(&file.destination).is_absolute() == object.is_absolute())
    }

    /// Checks what holds only where the object is a file.
    fn check_object(
        &self,
        permission: &Permission,
        object: &Path,
        at: &PermissionAt,
        problems: &mut Collector,
    ) {
        let Some(Place {
            kind: Kind::File | Kind::Link,
            ..
        }) = self.places.get(object)
        else {
            return;
        };
        let object = excerpt(&permission.object);
        let hint = "name its folder as `object`, or leave the pattern out";
        if permission.pattern != "**" {
            let message = format!("`{object}` is a file, so `pattern` has nothing to choose from");
            problems.error_with_hint(at.pattern.unwrap_or(at.object), message, hint);
        }
        if !permission.except.is_empty() {
            let message = format!("`{object}` is a file, so `except` has nothing to leave out");
            problems.error_with_hint(at.except.unwrap_or(at.object), message, hint);
        }
    }

    fn report_overlaps(
        &self,
        overlaps: &BTreeMap<(usize, usize), Example>,
        problems: &mut Collector,
    ) {
        for ((first, second), example) in overlaps {
            let line = self.located.permissions[*first].whole.line;
            let message = format!(
                "this permission and the one on line {line} both apply to {}",
                example.text()
            );
            let at = self.located.permissions[*second].object;
            match self.located.dialect {
                Dialect::Aws => problems.error_with_hint(
                    at,
                    message,
                    "narrow one of them with `pattern`, `except` or `type`",
                ),
                Dialect::Jd => problems.warn(at, message, "the later one wins"),
            }
        }
    }
}

/// Whether a permission is for a place at or below its object.
fn is_meant(permission: &Permission, object: &Path, path: &Path, place: &Place) -> bool {
    let is_kind = matches!(
        (place.kind, permission.kinds),
        (Kind::Directory, Kinds::Directories | Kinds::Both)
            | (Kind::File, Kinds::Files | Kinds::Both)
    );
    let Ok(below) = path.strip_prefix(object) else {
        return false;
    };
    if below.as_os_str().is_empty() {
        return is_kind && place.kind == Kind::File;
    }
    let matches = |pattern: &String| matches(pattern, below);
    is_kind && matches(&permission.pattern) && !permission.except.iter().any(matches)
}

/// Whether a path below a folder matches a pattern: `**` is everything, and in any other pattern `*` stands for any
/// part of one name.
fn matches(pattern: &str, below: &Path) -> bool {
    if pattern == "**" {
        return true;
    }
    let mut names = below.components();
    pattern.split('/').all(|part| {
        names
            .next()
            .is_some_and(|name| matches_name(part, &name.as_os_str().to_string_lossy()))
    }) && names.next().is_none()
}

fn matches_name(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = name.find(piece) else {
            return false;
        };
        name = &name[at + piece.len()..];
    }
    name.ends_with(last)
}

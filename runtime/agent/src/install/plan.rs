//! What an installation is to bring about: everything that a package puts on the instance. Finding that out changes
//! nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Stat};

use super::attributes::Attributes;
use super::copy::Stamp;
use super::folder;
use super::owned::Owned;
use super::permission;
use super::place::{self, Resolver};
use crate::protocol::Install;
use crate::reason::chain;
use crate::tree::{self, Kind, Node};

/// What is to be at a place.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A folder.
    Directory,
    /// A copy of a file of the package.
    File { source: PathBuf, stat: Stat },
    /// A link.
    Link { target: PathBuf },
}

impl What {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (What::Directory, What::Directory) => true,
            (What::File { source: a, .. }, What::File { source: b, .. }) => a == b,
            (What::Link { target: a }, What::Link { target: b }) => a == b,
            (What::Directory | What::File { .. } | What::Link { .. }, _) => false,
        }
    }
}

/// One place of an installation.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) what: What,
    /// The mode in the package; `None` for a folder that only leads to a destination.
    pub(crate) mode: Option<u32>,
    /// What the permissions say.
    pub(crate) attributes: Attributes,
}

impl Entry {
    /// What it is made with.
    pub(crate) fn wanted(&self) -> Attributes {
        Attributes {
            mode: self.attributes.mode.or(self.mode).or(Some(0o755)),
            ..self.attributes.clone()
        }
    }

    /// The package's file as it was when the plan was made.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match &self.what {
            What::File { stat, .. } => Some(Stamp::of(stat)),
            What::Directory | What::Link { .. } => None,
        }
    }
}

/// Everything that is to be there; a folder comes before what is in it.
pub(crate) type Entries = BTreeMap<PathBuf, Entry>;

/// What a package puts on the instance.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) entries: Entries,
    /// What makes no sense.
    pub(crate) problems: Vec<String>,
    /// What is in the way.
    pub(crate) conflicts: Vec<String>,
    /// What is worth telling.
    pub(crate) notes: Vec<String>,
}

/// Lists everything that a package puts on the instance, and all that makes no sense about it.
pub(crate) fn draft(
    work: &Install,
    root: &Path,
    package: &Path,
    owned: &Owned,
    resolver: &mut Resolver<'_>,
) -> Draft {
    let mut mapping = Mapping {
        package,
        root,
        agents_own: [
            root.join(".cutover"),
            root.join(format!("app-{}/group-{}", work.application, work.group)),
        ],
        owned,
        resolver,
        draft: Draft::default(),
    };
    for pair in &work.files {
        if let Err(problem) = mapping.map(&pair.source, &pair.destination) {
            mapping.draft.problems.push(problem);
        }
    }
    let mut draft = mapping.draft;
    let problems = permission::assign(
        &work.permissions,
        |object| resolver.folder(&place::named(object, root)?),
        &mut draft.entries,
        &mut draft.notes,
    );
    draft.problems.extend(problems);
    draft
}

struct Mapping<'a, 'b> {
    package: &'a Path,
    root: &'a Path,
    agents_own: [PathBuf; 2],
    owned: &'a Owned,
    resolver: &'a mut Resolver<'b>,
    draft: Draft,
}

impl Mapping<'_, '_> {
    fn map(&mut self, source: &str, into: &str) -> Result<(), String> {
        let destination = place::named(into, self.root)?;
        let path: PathBuf = Path::new(source.trim_start_matches('/'))
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        if source.is_empty()
            || source.contains('\0')
            || path.components().any(|part| part == Component::ParentDir)
        {
            return Err(format!(
                "the source `{}` is not in the package",
                source.escape_debug()
            ));
        }
        let broken = |error: tree::Error| match error {
            tree::Error::Io { source: cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
                format!("the source `{source}` is not in the package")
            }
            error => format!("the source `{source}`: {}", chain(&error)),
        };
        let top = tree::node(self.package, path.clone()).map_err(broken)?;
        match self.resolver.folder(&destination) {
            Ok(real) => self.lead_to(&real),
            Err(problem) => {
                self.draft.conflicts.push(problem);
                return Ok(());
            }
        }
        match top.kind {
            Kind::File | Kind::Link(_) => {
                let name = path.file_name().unwrap_or_default();
                self.lay(&destination.join(name), top);
            }
            Kind::Directory => {
                for node in tree::walk_from(self.package, &path).map_err(broken)? {
                    let below = node
                        .path
                        .strip_prefix(&path)
                        .map_err(|error| error.to_string())?;
                    self.lay(&destination.join(below), node);
                }
            }
        }
        Ok(())
    }

    /// Plans the folders that lead to a place, the place itself included: those that are missing, and those that were
    /// made for the group, which would not stay otherwise.
    fn lead_to(&mut self, real: &Path) {
        let mut ancestors: Vec<&Path> = real.ancestors().collect();
        ancestors.reverse();
        for dir in ancestors {
            let is_there = dir
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir());
            if !is_there || self.owned.directories.contains(dir) {
                self.add(dir.to_path_buf(), What::Directory, None);
            }
        }
    }

    fn lay(&mut self, place: &Path, node: Node) {
        let is_folder = node.kind == Kind::Directory;
        let real = if is_folder {
            self.resolver.folder(place)
        } else {
            self.resolver.file(place)
        };
        let real = match real {
            Ok(real) => real,
            Err(problem) => {
                // The same link stands in the way of everything below it.
                if !self.draft.conflicts.contains(&problem) {
                    self.draft.conflicts.push(problem);
                }
                return;
            }
        };
        if self.agents_own.iter().any(|own| real.starts_with(own)) {
            self.draft
                .problems
                .push(format!("`{}` is the agent's own", real.display()));
            return;
        }
        let what = match node.kind {
            Kind::Directory => What::Directory,
            Kind::Link(target) => What::Link { target },
            Kind::File => {
                let source = self.package.join(&node.path);
                match stat(&source) {
                    Ok(stat) => What::File { source, stat },
                    Err(error) => {
                        self.draft
                            .problems
                            .push(format!("look at `{}`: {error}", source.display()));
                        return;
                    }
                }
            }
        };
        self.add(real, what, Some(node.mode));
    }

    fn add(&mut self, place: PathBuf, what: What, mode: Option<u32>) {
        match self.draft.entries.get_mut(&place) {
            Some(entry) if entry.what.is_like(&what) => entry.mode = entry.mode.or(mode),
            Some(_) => self.draft.problems.push(format!(
                "two different sources go to `{}`: remove one of them from `files`",
                place.display()
            )),
            None => {
                let attributes = Attributes::default();
                let entry = Entry {
                    what,
                    mode,
                    attributes,
                };
                self.draft.entries.insert(place, entry);
            }
        }
    }
}

fn stat(path: &Path) -> io::Result<Stat> {
    folder::look(CWD, path.as_os_str())?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

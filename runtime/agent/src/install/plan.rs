//! What an installation is going to do. Finding that out changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use super::attributes::Attributes;
use super::permission;
use crate::protocol::{Cause, Install, OnExisting};
use crate::reason::chain;
use crate::tree::{self, Kind, Node};

/// What is to be at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A folder.
    Directory,
    /// A copy of a file of the package.
    File { source: PathBuf },
    /// A link.
    Link { target: PathBuf },
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Absent,
    /// What is to be there; only its attributes may differ.
    Same,
    /// Something that the group installed before.
    Ours,
    /// Something else, which is put aside.
    Foreign,
}

/// One place of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) what: What,
    /// The mode in the package.
    pub(crate) mode: u32,
    /// What the permissions say.
    pub(crate) attributes: Attributes,
    pub(crate) existing: Existing,
}

/// Everything that an installation is going to lay down.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// A folder comes before what is in it.
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
    /// What is worth telling.
    pub(crate) notes: Vec<String>,
}

/// Everything that stands in the way of an installation.
#[derive(Debug)]
pub(crate) struct Obstacles {
    pub(crate) cause: Cause,
    pub(crate) problems: Vec<String>,
}

/// What the group has on the instance.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    pub(crate) files: BTreeSet<PathBuf>,
    pub(crate) directories: BTreeSet<PathBuf>,
}

/// Plans an installation.
pub(crate) fn plan(
    work: &Install,
    root: &Path,
    package: &Path,
    owned: &Owned,
) -> Result<Plan, Obstacles> {
    let mut draft = Draft {
        package,
        root,
        plan: Plan::default(),
        problems: Vec::new(),
    };
    for mapping in &work.files {
        if let Err(problem) = draft.map(&mapping.source, &mapping.destination) {
            draft.problems.push(problem);
        }
    }
    let Draft {
        mut plan,
        mut problems,
        ..
    } = draft;
    problems.extend(permission::assign(
        &work.permissions,
        root,
        &mut plan.entries,
        &mut plan.notes,
    ));
    if !problems.is_empty() {
        return Err(Obstacles {
            cause: Cause::Invalid,
            problems,
        });
    }
    let conflicts = compare(&mut plan, work.on_existing, owned);
    if conflicts.is_empty() {
        Ok(plan)
    } else {
        Err(Obstacles {
            cause: Cause::InstallFailed,
            problems: conflicts,
        })
    }
}

/// The place on the instance that an appspec names.
pub(crate) fn destination(text: &str, root: &Path) -> Result<PathBuf, String> {
    let path: PathBuf = root
        .join(text)
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect();
    if text.is_empty()
        || text.contains('\0')
        || path.components().any(|part| part == Component::ParentDir)
    {
        return Err(format!(
            "`{}` is not a place for files",
            text.escape_debug()
        ));
    }
    if path.starts_with(root.join(".cutover")) {
        return Err(format!("`{}` is the agent's own", path.display()));
    }
    Ok(path)
}

struct Draft<'a> {
    package: &'a Path,
    root: &'a Path,
    plan: Plan,
    problems: Vec<String>,
}

impl Draft<'_> {
    fn map(&mut self, source: &str, into: &str) -> Result<(), String> {
        let destination = destination(into, self.root)?;
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
        self.lead_to(&destination)?;
        match top.kind {
            Kind::File | Kind::Link(_) => {
                let name = path.file_name().unwrap_or_default();
                self.lay(destination.join(name), top)
            }
            Kind::Directory => {
                for node in tree::walk_from(self.package, &path).map_err(broken)? {
                    let below = node
                        .path
                        .strip_prefix(&path)
                        .map_err(|error| error.to_string())?;
                    self.lay(destination.join(below), node)?;
                }
                Ok(())
            }
        }
    }

    /// Plans the folders that lead to a place, the place itself included. Links on the way are followed: whoever
    /// wrote the appspec named that way.
    fn lead_to(&mut self, place: &Path) -> Result<(), String> {
        let mut ancestors: Vec<&Path> = place.ancestors().collect();
        ancestors.reverse();
        for dir in ancestors {
            let is_folder = match dir.metadata() {
                Ok(metadata) => metadata.is_dir(),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    if dir.symlink_metadata().is_ok() {
                        return Err(format!(
                            "the destination `{}` is below a link that leads nowhere",
                            place.display()
                        ));
                    }
                    false
                }
                Err(error) => {
                    return Err(format!(
                        "look at the destination `{}`: {error}",
                        dir.display()
                    ));
                }
            };
            // A file of the group's own may become a folder; the comparison with the instance decides.
            if !is_folder {
                let node = Node {
                    path: PathBuf::new(),
                    kind: Kind::Directory,
                    mode: 0o755,
                };
                self.lay(dir.to_path_buf(), node)?;
            }
        }
        Ok(())
    }

    fn lay(&mut self, place: PathBuf, node: Node) -> Result<(), String> {
        let what = match node.kind {
            Kind::Directory => What::Directory,
            Kind::File => What::File {
                source: self.package.join(&node.path),
            },
            Kind::Link(target) => What::Link { target },
        };
        match self.plan.entries.get(&place) {
            Some(entry) if entry.what == what => Ok(()),
            Some(_) => Err(format!("two different sources go to `{}`", place.display())),
            None => {
                let attributes = Attributes::default();
                let entry = Entry {
                    what,
                    mode: node.mode,
                    attributes,
                    existing: Existing::Absent,
                };
                self.plan.entries.insert(place, entry);
                Ok(())
            }
        }
    }
}

enum Verdict {
    Is(Existing),
    /// The place keeps what it has, and is not planned for.
    Retained,
    Conflict(&'static str),
}

/// Compares a plan with what is on the instance and returns the conflicts.
fn compare(plan: &mut Plan, on_existing: OnExisting, owned: &Owned) -> Vec<String> {
    let mut conflicts = Vec::new();
    let mut retained = Vec::new();
    // The last folder that takes the place of something else: below it there is nothing, whatever a look may show.
    let mut fresh: Option<PathBuf> = None;
    for (place, entry) in &mut plan.entries {
        if fresh.as_ref().is_some_and(|fresh| place.starts_with(fresh)) {
            continue;
        }
        match judge(place, &entry.what, on_existing, owned) {
            Ok(Verdict::Is(existing)) => entry.existing = existing,
            Ok(Verdict::Retained) => retained.push(place.clone()),
            Ok(Verdict::Conflict(problem)) => {
                conflicts.push(format!("`{}` {problem}", place.display()));
            }
            Err(error) => conflicts.push(format!("look at `{}`: {error}", place.display())),
        }
        if entry.what == What::Directory && entry.existing != Existing::Same {
            fresh = Some(place.clone());
        }
    }
    for place in retained {
        plan.notes.push(format!(
            "`{}` was there already and was left as it is",
            place.display()
        ));
        plan.entries.remove(&place);
    }
    conflicts
}

fn judge(place: &Path, what: &What, on_existing: OnExisting, owned: &Owned) -> io::Result<Verdict> {
    let metadata = match place.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Verdict::Is(Existing::Absent));
        }
        Err(error) => return Err(error),
    };
    if is_special(&metadata) {
        return Ok(Verdict::Conflict("is a device, a socket or a pipe"));
    }
    let is_ours = owned.files.contains(place);
    Ok(match what {
        What::Directory if metadata.is_dir() => Verdict::Is(Existing::Same),
        What::Directory if is_ours => Verdict::Is(Existing::Ours),
        What::Directory if on_existing == OnExisting::Overwrite => Verdict::Is(Existing::Foreign),
        What::Directory => Verdict::Conflict(
            "is to be a folder, but there is a file or link that this package did not install",
        ),
        What::File { .. } | What::Link { .. } if metadata.is_dir() => {
            if owned.directories.contains(place) && holds_only(place, owned)? {
                Verdict::Is(Existing::Ours)
            } else {
                Verdict::Conflict("is a folder, but a file is to be there")
            }
        }
        What::File { .. } | What::Link { .. } if is_same(place, &metadata, what)? => {
            let stays_foreign = !is_ours && on_existing == OnExisting::Retain;
            if stays_foreign {
                Verdict::Retained
            } else {
                Verdict::Is(Existing::Same)
            }
        }
        What::File { .. } | What::Link { .. } if is_ours => Verdict::Is(Existing::Ours),
        What::File { .. } | What::Link { .. } => match on_existing {
            OnExisting::Disallow => {
                Verdict::Conflict("is there already and was not installed by this package")
            }
            OnExisting::Overwrite => Verdict::Is(Existing::Foreign),
            OnExisting::Retain => Verdict::Retained,
        },
    })
}

fn is_special(metadata: &Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket()
}

fn holds_only(dir: &Path, owned: &Owned) -> io::Result<bool> {
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() && owned.directories.contains(&path) {
                dirs.push(path);
            } else if !owned.files.contains(&path) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn is_same(place: &Path, metadata: &Metadata, what: &What) -> io::Result<bool> {
    match what {
        What::Directory => Ok(metadata.is_dir()),
        What::Link { target } => Ok(metadata.is_symlink() && fs::read_link(place)? == *target),
        What::File { source } => {
            if !metadata.is_file() || metadata.len() != source.symlink_metadata()?.len() {
                return Ok(false);
            }
            have_equal_bytes(&mut File::open(source)?, &mut File::open(place)?)
        }
    }
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

//! Where a path on the instance really is, and whether an installation may go there.
//!
//! The operator's own links to folders are followed, as with `/var/www` leading to `/data/www`, wherever on the way
//! they are. A link that a package brought is not: to this package it is a file like any other, and a folder that is to
//! be there takes its place. Refused is a link that stands where a folder of the group was, and one that belongs to a
//! user who is neither root nor the agent's own: an application that was broken into could choose with it where files
//! go.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::process::geteuid;

use super::record::Content;

/// The most links on the way to one place, as in the kernel.
const MAX_LINKS: usize = 40;

/// The place on the instance that an appspec names.
pub(crate) fn named(text: &str, root: &Path) -> Result<PathBuf, String> {
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
            "`{}` is not a place for files: it must be a path without `..`",
            text.escape_debug()
        ));
    }
    Ok(path)
}

/// Follows the links that may be followed.
pub(crate) struct Resolver<'a> {
    installed: Option<&'a Content>,
    known: BTreeMap<PathBuf, Result<PathBuf, String>>,
}

impl<'a> Resolver<'a> {
    /// Links among what is installed are not followed.
    pub(crate) fn new(installed: Option<&'a Content>) -> Self {
        Self {
            installed,
            known: BTreeMap::new(),
        }
    }

    /// Where a folder is, or will be: links to folders are followed to the end of the path.
    pub(crate) fn folder(&mut self, path: &Path) -> Result<PathBuf, String> {
        if let Some(known) = self.known.get(path) {
            return known.clone();
        }
        let found = self.follow(path);
        self.known.insert(path.to_path_buf(), found.clone());
        found
    }

    /// Where a file or link is, or will be: links are followed on the way to it.
    pub(crate) fn file(&mut self, path: &Path) -> Result<PathBuf, String> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(self.folder(parent)?.join(name)),
            _ => Ok(path.to_path_buf()),
        }
    }

    fn follow(&self, path: &Path) -> Result<PathBuf, String> {
        let mut todo: VecDeque<OsString> = parts(path).collect();
        let mut reached = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                reached.pop();
                continue;
            }
            let next = reached.join(&part);
            let metadata = match next.symlink_metadata() {
                Ok(metadata) => metadata,
                Err(error) if is_absent(&error) => {
                    reached = next;
                    continue;
                }
                Err(error) => return Err(format!("look at `{}`: {error}", next.display())),
            };
            if !metadata.is_symlink() {
                reached = next;
                continue;
            }
            if self
                .installed
                .is_some_and(|content| content.has_file(&next))
            {
                // What a package brought is in the way as any file is; below it there is nothing to look at.
                reached = next;
                reached.extend(todo);
                return Ok(reached);
            }
            let leads_to_folder = next.metadata().is_ok_and(|metadata| metadata.is_dir());
            if !leads_to_folder && todo.is_empty() {
                // It is in the way rather than on it.
                reached = next;
                continue;
            }
            if let Err(problem) = self.is_followed(&next, &metadata) {
                return Err(format!("`{}` {problem}", next.display()));
            }
            links += 1;
            if !leads_to_folder || links > MAX_LINKS {
                return Err(format!(
                    "`{}` is below `{}`, a link that leads to no folder",
                    path.display(),
                    next.display()
                ));
            }
            let target = fs::read_link(&next)
                .map_err(|error| format!("read the link `{}`: {error}", next.display()))?;
            if target.is_absolute() {
                reached = PathBuf::from("/");
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                todo.push_front(part);
            }
        }
        Ok(reached)
    }

    fn is_followed(&self, link: &Path, metadata: &fs::Metadata) -> Result<(), String> {
        if self
            .installed
            .is_some_and(|content| content.has_directory(link))
        {
            return Err(
                "is to be a folder that this package installed, but there is a link in its place: \
                 remove the link, or name the folder that it leads to"
                    .to_owned(),
            );
        }
        if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
            return Err(format!(
                "is a link of the user with the id {}, and only links of root and of the agent's \
                 own user are followed: change its owner, or name the folder that it leads to",
                metadata.uid()
            ));
        }
        Ok(())
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Whether an error says that there is nothing, be it that something on the way is no folder.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    #[test]
    fn links_of_the_operator_are_followed_wherever_they_are() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("data/www/deep")).unwrap();
        fs::create_dir(root.join("var")).unwrap();
        symlink("../data/../data/www", root.join("var/www")).unwrap();
        symlink(root.join("var"), root.join("v")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let mut resolver = Resolver::new(None);
        let mut check = |path: &str, expected: &str| {
            let found = resolver.folder(&root.join(path)).unwrap();
            assert_eq!(found, root.join(expected), "{path}");
        };

        check("var/www/deep/x/y", "data/www/deep/x/y");
        check("v/www", "data/www");
        check("plain/x", "plain/x");
        check("dangling", "dangling");
        check("loop", "loop");
        assert_eq!(
            resolver.file(&root.join("var/www")).unwrap(),
            root.join("var/www")
        );
        for below in ["dangling/x", "loop/x"] {
            let problem = resolver.folder(&root.join(below)).unwrap_err();
            assert!(
                problem.contains("a link that leads to no folder"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_strangers_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let link = root.path().join("logs");
        symlink("etc", &link).unwrap();
        if lchown(&link, Some(12345), None).is_err() {
            return;
        }

        let problem = Resolver::new(None).folder(&link).unwrap_err();

        assert!(
            problem.contains("a link of the user with the id 12345"),
            "{problem}"
        );
    }
}

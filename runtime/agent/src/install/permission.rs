//! Owners and modes, as an appspec's `permissions` give them.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::plan::{Entry, What, destination};
use crate::account::{self, Account};
use crate::protocol::{Kinds, Permission};
use crate::reason::chain;

/// What an entry is to be besides its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) owner: Option<Uid>,
    pub(crate) group: Option<Gid>,
    pub(crate) mode: Option<u32>,
}

/// Gives the entries of a plan the attributes of the permissions, in order. Says what is impossible.
pub(crate) fn assign(
    permissions: &[Permission],
    root: &Path,
    entries: &mut BTreeMap<PathBuf, Entry>,
    notes: &mut Vec<String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for permission in permissions {
        match attributes(permission)
            .and_then(|found| Ok((found, destination(&permission.object, root)?)))
        {
            Ok((attributes, object)) => match give(permission, attributes, &object, entries) {
                Ok(0) => notes.push(format!(
                    "the permission for `{}` applies to nothing",
                    permission.object
                )),
                Ok(_) => {}
                Err(problem) => problems.push(problem),
            },
            Err(problem) => problems.push(problem),
        }
    }
    problems
}

fn attributes(permission: &Permission) -> Result<Attributes, String> {
    let about = |problem: String| format!("the permission for `{}`: {problem}", permission.object);
    let owner = permission
        .owner
        .as_deref()
        .map(Account::named)
        .transpose()
        .map_err(|error| about(chain(&error)))?;
    let group = permission
        .group
        .as_deref()
        .map(account::group_named)
        .transpose()
        .map_err(|error| about(chain(&error)))?;
    if let Some(mode) = permission.mode.filter(|mode| *mode > 0o7777) {
        return Err(about(format!("{mode:#o} is not a mode")));
    }
    Ok(Attributes {
        owner: owner.map(|owner| owner.uid),
        group,
        mode: permission.mode,
    })
}

fn give(
    permission: &Permission,
    attributes: Attributes,
    object: &Path,
    entries: &mut BTreeMap<PathBuf, Entry>,
) -> Result<usize, String> {
    if let Some(Entry {
        what: What::File { .. } | What::Link { .. },
        ..
    }) = entries.get(object)
        && (permission.pattern != "**" || !permission.except.is_empty())
    {
        return Err(format!(
            "the permission for `{}` has patterns, but that is a file",
            permission.object
        ));
    }
    let mut count = 0;
    for (path, entry) in entries.iter_mut() {
        let Ok(below) = path.strip_prefix(object) else {
            continue;
        };
        let is_kind = match (&entry.what, permission.kinds) {
            (What::File { .. }, Kinds::Files | Kinds::Both)
            | (What::Directory, Kinds::Directories | Kinds::Both) => true,
            (What::File { .. } | What::Directory | What::Link { .. }, _) => false,
        };
        let is_object = below.as_os_str().is_empty();
        // A folder that is named is not meant itself, only what is in it.
        let is_meant = if is_object {
            !matches!(entry.what, What::Directory)
        } else {
            selects(permission, below)
        };
        if is_kind && is_meant {
            entry.attributes = Attributes {
                owner: attributes.owner.or(entry.attributes.owner),
                group: attributes.group.or(entry.attributes.group),
                mode: attributes.mode.or(entry.attributes.mode),
            };
            count += 1;
        }
    }
    Ok(count)
}

fn selects(permission: &Permission, below: &Path) -> bool {
    let matches = |pattern: &String| matches(pattern.as_bytes(), below.as_os_str().as_bytes());
    matches(&permission.pattern) && !permission.except.iter().any(matches)
}

/// Whether a path below a folder matches a pattern: `**` is everything, and in any other pattern `*` stands for any
/// part of the name of something directly in the folder.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    pattern == b"**" || !path.contains(&b'/') && matches_name(pattern, path)
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let mut rest = name;
    let mut pieces = pattern.split(|byte| *byte == b'*');
    let first = pieces.next().unwrap_or_default();
    let Some(tail) = rest.strip_prefix(first) else {
        return false;
    };
    rest = tail;
    let mut pieces: Vec<&[u8]> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        let Some(at) = rest.windows(piece.len()).position(|window| window == piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_directly_in_the_folder() {
        for (pattern, path) in [
            ("**", "a/b"),
            ("*", "a"),
            ("*.sh", "a.sh"),
            ("a*b*c", "aXbYc"),
            ("a", "a"),
            ("a*a", "aa"),
        ] {
            assert!(
                matches(pattern.as_bytes(), path.as_bytes()),
                "{pattern} {path}"
            );
        }
        for (pattern, path) in [
            ("*", "a/b"),
            ("*.sh", "a.sh.x"),
            ("a", "ab"),
            ("a*a", "a"),
            ("", "a"),
            ("a*b*c", "acb"),
        ] {
            assert!(
                !matches(pattern.as_bytes(), path.as_bytes()),
                "{pattern} {path}"
            );
        }
    }
}

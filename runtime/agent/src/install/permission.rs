//! Owners and modes, as an appspec's `permissions` give them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::acl::Acl;
use super::attributes::{Attributes, has_contexts};
use super::plan::{Entries, Entry, What};
use crate::account::{self, Account};
use crate::protocol::{Context, Kinds, Permission};
use crate::reason::chain;

/// Gives the entries of a plan the attributes of the permissions, in order. Says everything that is impossible.
pub(crate) fn assign(
    permissions: &[Permission],
    mut place_of: impl FnMut(&str) -> Result<PathBuf, String>,
    entries: &mut Entries,
    notes: &mut Vec<String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for permission in permissions {
        let about =
            |problem: String| format!("the permission for `{}`: {problem}", permission.object);
        let attributes = attributes(permission);
        let object = place_of(&permission.object);
        match (attributes, object) {
            (Ok(attributes), Ok(object)) => match give(permission, &attributes, &object, entries) {
                Ok(0) => notes.push(format!(
                    "the permission for `{}` applies to nothing",
                    permission.object
                )),
                Ok(_) => {}
                Err(problem) => problems.push(about(problem)),
            },
            (attributes, object) => {
                problems.extend(attributes.err().into_iter().flatten().map(about));
                problems.extend(object.err());
            }
        }
    }
    problems
}

fn attributes(permission: &Permission) -> Result<Attributes, Vec<String>> {
    let mut problems = Vec::new();
    let mut attributes = Attributes::default();
    match permission.owner.as_deref().map(Account::named) {
        Some(Ok(account)) => attributes.owner = Some(account.uid),
        Some(Err(error)) => problems.push(chain(&error)),
        None => {}
    }
    match permission.group.as_deref().map(account::group_named) {
        Some(Ok(group)) => attributes.group = Some(group),
        Some(Err(error)) => problems.push(chain(&error)),
        None => {}
    }
    match permission.mode {
        Some(mode) if mode > 0o7777 => problems.push(format!("{mode:#o} is not a mode")),
        mode => attributes.mode = mode,
    }
    if !permission.acls.is_empty() {
        match Acl::parse(&permission.acls) {
            Ok(acl) => attributes.acl = Some(acl),
            Err(more) => problems.extend(more),
        }
    }
    if let Some(context) = &permission.context {
        if has_contexts() {
            match label(context) {
                Ok(label) => attributes.context = Some(label),
                Err(problem) => problems.push(problem),
            }
        } else {
            problems.push(
                "`context` cannot be set: SELinux is not enabled on this instance".to_owned(),
            );
        }
    }
    if problems.is_empty() {
        Ok(attributes)
    } else {
        Err(problems)
    }
}

/// A context as the kernel takes it. The role and what is left out are those that `semanage fcontext` takes.
fn label(context: &Context) -> Result<String, String> {
    let user = context.user.as_deref().unwrap_or("system_u");
    let range = context.range.as_deref().unwrap_or("s0");
    let is_word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    let is_range = range
        .split([':', ','])
        .all(|part| is_word(part) && part.starts_with(['s', 'c']));
    if is_word(user) && is_word(&context.kind) && is_range {
        Ok(format!("{user}:object_r:{}:{range}", context.kind))
    } else {
        Err(format!(
            "`{user}:object_r:{}:{range}` is not an SELinux context",
            context.kind.escape_debug()
        ))
    }
}

fn give(
    permission: &Permission,
    attributes: &Attributes,
    object: &Path,
    entries: &mut Entries,
) -> Result<usize, String> {
    if let Some(Entry {
        what: What::File { .. } | What::Link { .. },
        ..
    }) = entries.get(object)
        && (permission.pattern != "**" || !permission.except.is_empty())
    {
        return Err("it has patterns, but that is a file".to_owned());
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
        if !is_kind || !is_meant {
            continue;
        }
        let has_default = attributes.acl.as_ref().is_some_and(Acl::has_default);
        if has_default && matches!(entry.what, What::File { .. }) {
            return Err(format!(
                "`{}` is a file, and only folders have default acl entries: add `type: directory`",
                path.display()
            ));
        }
        let had = std::mem::take(&mut entry.attributes);
        let wanted = attributes.clone();
        entry.attributes = Attributes {
            owner: wanted.owner.or(had.owner),
            group: wanted.group.or(had.group),
            mode: wanted.mode.or(had.mode),
            acl: wanted.acl.or(had.acl),
            context: wanted.context.or(had.context),
        };
        count += 1;
    }
    Ok(count)
}

fn selects(permission: &Permission, below: &Path) -> bool {
    let matches = |pattern: &String| matches(pattern.as_bytes(), below.as_os_str().as_bytes());
    matches(&permission.pattern) && !permission.except.iter().any(matches)
}

/// Whether a path below a folder matches a pattern. `**` is everything. In any other, `*` stands for any part of one
/// name, and the names are those directly in the folder unless the pattern itself has a `/`.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    if pattern == b"**" {
        return true;
    }
    let (patterns, names) = (pattern.split(is_slash), path.split(is_slash));
    patterns.clone().count() == names.clone().count()
        && patterns
            .zip(names)
            .all(|(pattern, name)| matches_name(pattern, name))
}

fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
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
            ("sbin/start", "sbin/start"),
            ("*/*.sh", "a/b.sh"),
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
            ("sbin/start", "start"),
            ("*/*.sh", "a/b/c.sh"),
        ] {
            assert!(
                !matches(pattern.as_bytes(), path.as_bytes()),
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn a_context_is_written_as_the_kernel_takes_it() {
        let context = |user: Option<&str>, kind: &str, range: Option<&str>| Context {
            user: user.map(str::to_owned),
            kind: kind.to_owned(),
            range: range.map(str::to_owned),
        };

        assert_eq!(
            label(&context(None, "httpd_sys_content_t", None)).unwrap(),
            "system_u:object_r:httpd_sys_content_t:s0"
        );
        assert_eq!(
            label(&context(
                Some("unconfined_u"),
                "bin_t",
                Some("s0-s3:c1.c5,c9")
            ))
            .unwrap(),
            "unconfined_u:object_r:bin_t:s0-s3:c1.c5,c9"
        );
        for (kind, range) in [
            ("a:b", "s0"),
            ("", "s0"),
            ("a", "s0 x"),
            ("a\0", "s0"),
            ("a", "t0"),
        ] {
            assert!(
                label(&context(None, kind, Some(range))).is_err(),
                "{kind} {range}"
            );
        }
    }
}

//! POSIX access control lists, as an appspec writes them and as the kernel takes them.
//!
//! They are set as the extended attributes `system.posix_acl_access` and `system.posix_acl_default`: version 2 of the
//! kernel's format, little-endian whatever the machine, and sorted.

use crate::account::{self, Account};

/// The attribute of the list that applies to a file or folder itself.
pub(crate) const ACCESS: &str = "system.posix_acl_access";

/// The attribute of the list that what is made in a folder begins with.
pub(crate) const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
/// The id of an entry that names nobody.
const NOBODY: u32 = u32::MAX;

/// Whom an entry is about, in the order in which the kernel wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: Tag,
    permissions: u16,
}

/// The entries that an appspec adds to those that follow from a mode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Acl {
    access: Vec<Entry>,
    inherited: Vec<Entry>,
}

impl Acl {
    /// Reads `[d:](u|g|m|o):NAME:PERMISSIONS` entries and says everything that is wrong with them.
    pub(crate) fn parse(entries: &[String]) -> Result<Self, Vec<String>> {
        let mut acl = Self::default();
        let mut problems = Vec::new();
        for text in entries {
            match parse(text) {
                Ok((is_default, entry)) => {
                    let list = if is_default {
                        &mut acl.inherited
                    } else {
                        &mut acl.access
                    };
                    if list.iter().any(|other| other.tag == entry.tag) {
                        problems.push(format!("the acl entry `{text}` is there twice"));
                    }
                    list.push(entry);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(acl)
        } else {
            Err(problems)
        }
    }

    /// Whether it says what is made in a folder begins with, which a file cannot have.
    pub(crate) fn has_default(&self) -> bool {
        !self.inherited.is_empty()
    }

    /// The value of [`ACCESS`] beside a mode, or `None` where the mode alone says it.
    pub(crate) fn access(&self, mode: u32) -> Option<Vec<u8>> {
        (!self.access.is_empty()).then(|| encode(complete(&self.access, mode)))
    }

    /// The value of [`DEFAULT`] beside a mode, or `None` where there is none.
    pub(crate) fn inherited(&self, mode: u32) -> Option<Vec<u8>> {
        (!self.inherited.is_empty()).then(|| encode(complete(&self.inherited, mode)))
    }

    /// The mode that a file with this list shows: its group bits are the mask.
    pub(crate) fn shown(&self, mode: u32) -> u32 {
        let mask = complete(&self.access, mode)
            .into_iter()
            .find(|entry| entry.tag == Tag::Mask);
        match mask {
            Some(mask) => mode & !0o070 | u32::from(mask.permissions) << 3,
            None => mode,
        }
    }
}

/// The permissions of the owning group, which a file with a mask does not show in its mode.
pub(crate) fn owning_group(access: &[u8]) -> Option<u32> {
    access.get(4..)?.chunks_exact(8).find_map(|entry| {
        let number = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
        (number(0) == code(Tag::OwningGroup)).then(|| u32::from(number(2) & 7))
    })
}

fn parse(text: &str) -> Result<(bool, Entry), String> {
    let malformed = || format!("`{text}` is not an acl entry like `u:NAME:rwx` or `d:g:NAME:r-x`");
    let (is_default, rest) = match text.split_once(':') {
        Some(("d" | "default", rest)) => (true, rest),
        _ => (false, text),
    };
    let mut fields: Vec<&str> = rest.split(':').collect();
    if let ["m" | "mask" | "o" | "other", _] = fields[..] {
        fields.insert(1, "");
    }
    let [kind, name, permissions] = fields[..] else {
        return Err(malformed());
    };
    let tag = match (kind, name) {
        ("u" | "user", "") => Tag::Owner,
        ("g" | "group", "") => Tag::OwningGroup,
        ("m" | "mask", "") => Tag::Mask,
        ("o" | "other", "") => Tag::Other,
        ("u" | "user", name) => Tag::User(user(name)?),
        ("g" | "group", name) => Tag::Group(group(name)?),
        _ => return Err(malformed()),
    };
    if !is_default && matches!(tag, Tag::Owner | Tag::OwningGroup | Tag::Other) {
        return Err(format!("the acl entry `{text}` is what `mode` says"));
    }
    let permissions = permission_bits(permissions).ok_or_else(malformed)?;
    Ok((is_default, Entry { tag, permissions }))
}

fn user(name: &str) -> Result<u32, String> {
    match (Account::named(name), name.parse()) {
        (Ok(account), _) => Ok(account.uid.as_raw()),
        (Err(_), Ok(id)) if id != NOBODY => Ok(id),
        (Err(error), _) => Err(error.to_string()),
    }
}

fn group(name: &str) -> Result<u32, String> {
    match (account::group_named(name), name.parse()) {
        (Ok(gid), _) => Ok(gid.as_raw()),
        (Err(_), Ok(id)) if id != NOBODY => Ok(id),
        (Err(error), _) => Err(error.to_string()),
    }
}

fn permission_bits(text: &str) -> Option<u16> {
    if let [digit @ b'0'..=b'7'] = text.as_bytes() {
        return Some(u16::from(digit - b'0'));
    }
    let mut bits = 0;
    for letter in text.bytes() {
        bits |= match letter {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => return None,
        };
    }
    (!text.is_empty()).then_some(bits)
}

/// Adds what is not mentioned: owner, group and others from the mode, and the group's permissions as the mask of a
/// list that names somebody.
fn complete(entries: &[Entry], mode: u32) -> Vec<Entry> {
    let mut list = entries.to_vec();
    let has = |list: &[Entry], tag| list.iter().any(|entry| entry.tag == tag);
    for (tag, shift) in [(Tag::Owner, 6), (Tag::OwningGroup, 3), (Tag::Other, 0)] {
        if !has(&list, tag) {
            // Three bits.
            let permissions = (mode >> shift & 7) as u16;
            list.push(Entry { tag, permissions });
        }
    }
    let names = list
        .iter()
        .any(|entry| matches!(entry.tag, Tag::User(_) | Tag::Group(_)));
    if names && !has(&list, Tag::Mask) {
        let group = list.iter().find(|entry| entry.tag == Tag::OwningGroup);
        let permissions = group.map_or(0, |group| group.permissions);
        list.push(Entry {
            tag: Tag::Mask,
            permissions,
        });
    }
    list.sort();
    list
}

fn code(tag: Tag) -> u16 {
    match tag {
        Tag::Owner => 0x01,
        Tag::User(_) => 0x02,
        Tag::OwningGroup => 0x04,
        Tag::Group(_) => 0x08,
        Tag::Mask => 0x10,
        Tag::Other => 0x20,
    }
}

fn encode(entries: Vec<Entry>) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for Entry { tag, permissions } in entries {
        let id = match tag {
            Tag::User(id) | Tag::Group(id) => id,
            Tag::Owner | Tag::OwningGroup | Tag::Mask | Tag::Other => NOBODY,
        };
        bytes.extend(code(tag).to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(entries: &[&str]) -> Result<Acl, Vec<String>> {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        Acl::parse(&entries)
    }

    /// `(code, permissions, id)` of each entry.
    fn decoded(bytes: &[u8]) -> Vec<(u16, u16, u32)> {
        assert_eq!(bytes[..4], [2, 0, 0, 0]);
        bytes[4..]
            .chunks_exact(8)
            .map(|entry| {
                (
                    u16::from_le_bytes([entry[0], entry[1]]),
                    u16::from_le_bytes([entry[2], entry[3]]),
                    u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
                )
            })
            .collect()
    }

    #[test]
    fn the_base_follows_from_the_mode_and_the_mask_from_the_group() {
        let acl = parsed(&["u:1000:rw", "g:root:5", "u:7:r--"]).unwrap();

        let entries = decoded(&acl.access(0o4751).unwrap());

        let expected = [
            (1, 7, NOBODY),
            (2, 4, 7),
            (2, 6, 1000),
            (4, 5, NOBODY),
            (8, 5, 0),
            (16, 5, NOBODY),
            (32, 1, NOBODY),
        ];
        assert_eq!(entries, expected);
        assert_eq!(owning_group(&acl.access(0o4751).unwrap()), Some(5));
        assert_eq!(acl.shown(0o4751), 0o4751);
        assert_eq!(acl.inherited(0o755), None);
    }

    #[test]
    fn a_mask_that_is_given_shows_as_the_group_bits() {
        let acl = parsed(&["m::rwx", "u:7:rwx"]).unwrap();

        assert_eq!(acl.shown(0o640), 0o670);
    }

    #[test]
    fn a_default_list_takes_its_mask_from_its_own_group() {
        let acl = parsed(&["d:u:7:rwx", "d:g::rx"]).unwrap();

        assert!(acl.has_default());
        assert_eq!(acl.access(0o700), None);
        assert_eq!(
            decoded(&acl.inherited(0o702).unwrap()),
            [
                (1, 7, NOBODY),
                (2, 7, 7),
                (4, 5, NOBODY),
                (16, 5, NOBODY),
                (32, 2, NOBODY)
            ]
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let problems = parsed(&[
            "u::rwx",
            "u:nobody-of-that-name:r",
            "g:no-such-group:r",
            "x:y:z",
            "u:7:rwq",
            "u:7:",
            "m:name:r",
            "u:8:r",
            "u:8:w",
            "",
        ])
        .unwrap_err();

        for expected in [
            "`u::rwx` is what `mode` says",
            "no user `nobody-of-that-name`",
            "no group `no-such-group`",
            "`x:y:z` is not an acl entry",
            "`u:7:rwq` is not",
            "`u:7:` is not",
            "`m:name:r` is not",
            "`u:8:w` is there twice",
            "`` is not",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{expected}: {problems:?}"
            );
        }
        assert_eq!(problems.len(), 9);
    }
}

//! Entries of access control lists.

use std::collections::HashMap;
use std::fmt;

use crate::account;
use crate::fields::Field;
use crate::problem::{Collector, excerpt};

/// Whom an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tag {
    User,
    Group,
    Mask,
    Other,
}

/// One entry. It prints in the canonical form of [`model::Permission::acls`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Whether it is what is later made in a folder that gets it, rather than the folder.
    pub(super) is_default: bool,
    tag: Tag,
    /// Empty for the owner, the owning group, the mask and everyone else.
    name: String,
    permissions: u8,
}

/// An entry that may not stand in an appspec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Invalid {
    #[error("is not an entry of an access control list")]
    Malformed,
    #[error("has `{0}` where the permissions are expected")]
    Permissions(String),
    #[error("names an account, which a mask and everyone else do not have")]
    Named,
    #[error("has `{0}` without a name")]
    Unnamed(String),
    #[error("is what the mode of a file is for")]
    Base,
    #[error("has a name that no account can have: {0}")]
    Account(&'static str),
}

impl Invalid {
    fn hint(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Account(_) => {
                "write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`"
            }
            Self::Permissions(_) => {
                "give them as letters out of `rwx-` such as `r-x`, or as one digit from 0 to 7"
            }
            Self::Named => "leave the name out: `m::rwx`, `d:o::r-x`",
            Self::Unnamed(_) => "write `u:NAME:rwx` or `g:NAME:rwx`",
            Self::Base => "use `mode` for the owner, the owning group and everyone else",
        }
    }
}

/// Reads a list of entries into the canonical form, each with where it is written.
pub(super) fn parse(field: Field<'_>, problems: &mut Collector) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines = HashMap::new();
    for item in field.items("entries such as `u:shop:rwx`", problems) {
        let Some(text) = item.text(problems) else {
            continue;
        };
        let entry = match Entry::parse(text) {
            Ok(entry) => entry,
            Err(invalid) => {
                let message = format!("`acls`: `{}` {invalid}", excerpt(text));
                problems.error_with_hint(item.at(), message, invalid.hint());
                continue;
            }
        };
        let subject = (entry.is_default, entry.tag, entry.name.clone());
        if let Some(first) = lines.insert(subject, item.at().line) {
            let message = format!(
                "`acls`: `{}` is about the same account as the entry on line {first}",
                excerpt(text)
            );
            problems.error(item.at(), message);
        }
        entries.push(entry);
    }
    entries
}

impl Entry {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let (is_default, rest) = match parts.as_slice() {
            ["d" | "default", rest @ ..] if rest.len() > 1 => (true, rest),
            rest => (false, rest),
        };
        let (tag, name, permissions) = match rest {
            [word, permissions] => match Tag::of(word) {
                Some(tag @ (Tag::Mask | Tag::Other)) => (tag, "", permissions),
                // The peer takes `u:rwx` for the user `u`. Nobody means that.
                Some(Tag::User | Tag::Group) => return Err(Invalid::Unnamed((*word).to_owned())),
                None => (Tag::User, *word, permissions),
            },
            [word, name, permissions] => {
                (Tag::of(word).ok_or(Invalid::Malformed)?, *name, permissions)
            }
            _ => return Err(Invalid::Malformed),
        };
        match (tag, name.is_empty()) {
            (Tag::Mask | Tag::Other, false) => return Err(Invalid::Named),
            (Tag::User | Tag::Group | Tag::Other, true) if !is_default => {
                return Err(Invalid::Base);
            }
            (Tag::User | Tag::Group, false) => {
                if let Some(reason) = account::impossible(name) {
                    return Err(Invalid::Account(reason));
                }
            }
            _ => {}
        }
        Ok(Self {
            is_default,
            tag,
            name: name.to_owned(),
            permissions: bits(permissions)
                .ok_or_else(|| Invalid::Permissions(excerpt(permissions)))?,
        })
    }

    /// The user whom the entry names.
    pub(super) fn user(&self) -> Option<&str> {
        (self.tag == Tag::User && !self.name.is_empty()).then_some(self.name.as_str())
    }

    /// The group that the entry names.
    pub(super) fn group(&self) -> Option<&str> {
        (self.tag == Tag::Group && !self.name.is_empty()).then_some(self.name.as_str())
    }
}

impl Tag {
    fn of(word: &str) -> Option<Self> {
        match word {
            "u" | "user" => Some(Self::User),
            "g" | "group" => Some(Self::Group),
            "m" | "mask" => Some(Self::Mask),
            "o" | "other" => Some(Self::Other),
            _ => None,
        }
    }
}

/// Permissions as one octal digit, or as letters in any order.
fn bits(text: &str) -> Option<u8> {
    if let [digit @ b'0'..=b'7'] = text.as_bytes() {
        return Some(digit - b'0');
    }
    let letters = (1..=3).contains(&text.len()).then_some(text)?;
    letters.chars().try_fold(0, |bits, letter| {
        Some(
            bits | match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                '-' => 0,
                _ => return None,
            },
        )
    })
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.is_default { "d:" } else { "" };
        let tag = match self.tag {
            Tag::User => 'u',
            Tag::Group => 'g',
            Tag::Mask => 'm',
            Tag::Other => 'o',
        };
        let letter = |bit, letter| {
            if self.permissions & bit == 0 {
                '-'
            } else {
                letter
            }
        };
        let (r, w, x) = (letter(4, 'r'), letter(2, 'w'), letter(1, 'x'));
        write!(f, "{prefix}{tag}:{}:{r}{w}{x}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    /// Each entry with its canonical form, or what is wrong with it.
    fn check(entries: &[&str]) -> String {
        entries
            .iter()
            .map(|text| match Entry::parse(text) {
                Ok(entry) => format!("{text} = {entry}\n"),
                Err(invalid) => format!("{text} {invalid}\n  hint: {}\n", invalid.hint()),
            })
            .collect()
    }

    #[test]
    fn entries_have_one_canonical_form() {
        assert_snapshot!(check(&[
            "u:shop:rwx", "user:shop:xr", "shop:6", "group:ops:r", "g:ops:-", "m:rw", "mask::7",
            "d:u:shop:rwx", "default:shop:rwx", "d:m:rwx", "default:other::r-x", "d:u::rwx", "d:g::5", "d::rwx",
            "u: shop :r", "u:mask:r", "u:1000:r",
        ]), @"
        u:shop:rwx = u:shop:rwx
        user:shop:xr = u:shop:r-x
        shop:6 = u:shop:rw-
        group:ops:r = g:ops:r--
        g:ops:- = g:ops:---
        m:rw = m::rw-
        mask::7 = m::rwx
        d:u:shop:rwx = d:u:shop:rwx
        default:shop:rwx = d:u:shop:rwx
        d:m:rwx = d:m::rwx
        default:other::r-x = d:o::r-x
        d:u::rwx = d:u::rwx
        d:g::5 = d:g::r-x
        d::rwx = d:u::rwx
        u: shop :r = u:shop:r--
        u:mask:r = u:mask:r--
        u:1000:r = u:1000:r--
        ");
    }

    #[test]
    fn refuses_what_is_no_entry() {
        assert_snapshot!(check(&[
            "", "rwx", "u:rwx", "group:rwx", "u::rwx", "g::5", "o:r", "other::r", ":rwx", "m:shop:rwx", "o:x:r",
            "d:d:shop:r", "x:shop:r", "u:shop:", "u:shop:8", "u:shop:rwX", "u:shop:rwxr", "u:shop:r:w", "d:u:a:b:c",
            "u:a b:r", "u:-x:r",
        ]), @"
         is not an entry of an access control list
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        rwx is not an entry of an access control list
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        u:rwx has `u` without a name
          hint: write `u:NAME:rwx` or `g:NAME:rwx`
        group:rwx has `group` without a name
          hint: write `u:NAME:rwx` or `g:NAME:rwx`
        u::rwx is what the mode of a file is for
          hint: use `mode` for the owner, the owning group and everyone else
        g::5 is what the mode of a file is for
          hint: use `mode` for the owner, the owning group and everyone else
        o:r is what the mode of a file is for
          hint: use `mode` for the owner, the owning group and everyone else
        other::r is what the mode of a file is for
          hint: use `mode` for the owner, the owning group and everyone else
        :rwx is what the mode of a file is for
          hint: use `mode` for the owner, the owning group and everyone else
        m:shop:rwx names an account, which a mask and everyone else do not have
          hint: leave the name out: `m::rwx`, `d:o::r-x`
        o:x:r names an account, which a mask and everyone else do not have
          hint: leave the name out: `m::rwx`, `d:o::r-x`
        d:d:shop:r is not an entry of an access control list
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        x:shop:r is not an entry of an access control list
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        u:shop: has `` where the permissions are expected
          hint: give them as letters out of `rwx-` such as `r-x`, or as one digit from 0 to 7
        u:shop:8 has `8` where the permissions are expected
          hint: give them as letters out of `rwx-` such as `r-x`, or as one digit from 0 to 7
        u:shop:rwX has `rwX` where the permissions are expected
          hint: give them as letters out of `rwx-` such as `r-x`, or as one digit from 0 to 7
        u:shop:rwxr has `rwxr` where the permissions are expected
          hint: give them as letters out of `rwx-` such as `r-x`, or as one digit from 0 to 7
        u:shop:r:w is not an entry of an access control list
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        d:u:a:b:c is not an entry of an access control list
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        u:a b:r has a name that no account can have: it contains white space, `:`, `,` or `/`
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        u:-x:r has a name that no account can have: it begins with a sign
          hint: write `[d:](u|g|m|o):NAME:rwx`, for example `u:shop:rwx` or `d:g:ops:r-x`
        ");
    }
}

//! What a package is, by its first bytes.

use std::fmt;

/// The forms in which a package comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Folder,
    Tar,
    TarGzip,
    TarZstd,
    Zip,
}

impl Format {
    /// What a file name claims; none where its ending says nothing.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".tar"]) {
            Some(Self::Tar)
        } else if ends(&[".tar.gz", ".tgz"]) {
            Some(Self::TarGzip)
        } else if ends(&[".tar.zst", ".tzst", ".tar.zstd"]) {
            Some(Self::TarZstd)
        } else if ends(&[".zip", ".jar", ".war"]) {
            Some(Self::Zip)
        } else {
            None
        }
    }

    /// What a file is by its first bytes, or what it is instead. A compressed file may turn out to hold no archive.
    pub(super) fn of_content(head: &[u8]) -> Result<Self, &'static str> {
        match head {
            [] => Err("empty"),
            [0x1f, 0x8b, ..] => Ok(Self::TarGzip),
            // Frames that are to be skipped may come before the first one with content.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::TarZstd),
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Ok(Self::Zip),
            [b'P', b'K', 7, 8, ..] => Err("one part of a zip archive in several parts"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err("compressed with xz"),
            [b'B', b'Z', b'h', ..] => Err("compressed with bzip2"),
            [0x5d, 0, 0, ..] => Err("compressed with lzma"),
            [b'L', b'Z', b'I', b'P', ..] => Err("compressed with lzip"),
            [0x1f, 0x9d, ..] => Err("compressed with compress"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Err("compressed with lz4"),
            [b'7', b'z', 0xbc, 0xaf, ..] => Err("a 7z archive"),
            [b'R', b'a', b'r', b'!', ..] => Err("a rar archive"),
            [0xed, 0xab, 0xee, 0xdb, ..] => Err("an rpm package"),
            head if head.starts_with(b"!<arch>\n") => Err("a Debian package or an archive of ar"),
            head if head.starts_with(b"0707") => Err("a cpio archive"),
            head if head.starts_with(b"\x7fELF") => Err("a program"),
            head if is_tar(head) => Ok(Self::Tar),
            head if looks_like_html(head) => {
                Err("an HTML page, as a server sends in place of a file")
            }
            head if is_text(head) => Err("a text file"),
            _ => Err("not an archive"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Folder => "a folder",
            Self::Tar => "a tar archive",
            Self::TarGzip => "a gzipped tar archive",
            Self::TarZstd => "a tar archive compressed with zstd",
            Self::Zip => "a zip archive",
        })
    }
}

/// Whether a block is the header of a member, or the zeros of an archive without members.
pub(super) fn is_tar(head: &[u8]) -> bool {
    let Some(head) = head.get(..512) else {
        return false;
    };
    if head.iter().all(|byte| *byte == 0) {
        return true;
    }
    // Every header has a sum of its bytes, the sum's own taken as spaces. Only newer ones say `ustar`.
    let sum: u64 = head
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            u64::from(if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            })
        })
        .sum();
    let stored = String::from_utf8_lossy(&head[148..156]);
    head[257..].starts_with(b"ustar")
        || u64::from_str_radix(stored.trim_matches([' ', '\0']), 8) == Ok(sum)
}

fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    valid
        .chars()
        .all(|c| !c.is_control() || c.is_ascii_whitespace())
}

fn looks_like_html(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head)
        .trim_start()
        .to_ascii_lowercase();
    text.starts_with("<!doctype html") || text.starts_with("<html")
}

//! How much a file system can still take.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Stat, fstatvfs};
use rustix::process::geteuid;

/// What a file system has for the agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Free {
    /// The smallest piece of room that a file takes.
    pub(crate) block: u64,
    /// `None` where it does not say.
    bytes: Option<u64>,
    /// Free inodes; `None` where files are limited by room alone.
    names: Option<u64>,
}

/// What is to be put there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Need {
    pub(crate) bytes: u64,
    pub(crate) names: u64,
}

impl Free {
    /// Asks the file system of an open file or folder.
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        let system = fstatvfs(file)?;
        // Some of it is reserved for root.
        let (blocks, names) = if geteuid().is_root() {
            (system.f_bfree, system.f_ffree)
        } else {
            (system.f_bavail, system.f_favail)
        };
        Ok(Self {
            block: system.f_frsize.max(1),
            bytes: (system.f_blocks > 0).then_some(blocks.saturating_mul(system.f_frsize)),
            names: (system.f_files > 0).then_some(names),
        })
    }

    /// Says what is missing on the file system of a folder.
    pub(crate) fn short_of(&self, need: Need, folder: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        let folder = folder.display();
        if let Some(bytes) = self.bytes.filter(|bytes| need.bytes > *bytes) {
            problems.push(format!(
                "the file system of `{folder}` has {} free, and {} are needed: make room there",
                readable(bytes),
                readable(need.bytes)
            ));
        }
        if let Some(names) = self.names.filter(|names| need.names > *names) {
            problems.push(format!(
                "the file system of `{folder}` has {names} free inodes, and {} are needed: remove files there",
                need.names
            ));
        }
        problems
    }
}

/// The room that a file takes on a disk with blocks of this size, holes excepted.
pub(crate) fn taken(stat: &Stat, block: u64) -> u64 {
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    let filled = u64::try_from(stat.st_blocks)
        .unwrap_or_default()
        .saturating_mul(512);
    size.next_multiple_of(block).min(filled.max(block))
}

fn readable(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_numbers() {
        let free = Free {
            block: 4096,
            bytes: Some(1000),
            names: Some(11),
        };
        let need = Need {
            bytes: 3 << 20,
            names: 12,
        };

        assert_eq!(
            free.short_of(need, Path::new("/srv")),
            [
                "the file system of `/srv` has 1000 bytes free, and 3.0 MiB are needed: make room there",
                "the file system of `/srv` has 11 free inodes, and 12 are needed: remove files there"
            ]
        );
        assert!(free.short_of(Need::default(), Path::new("/srv")).is_empty());
    }
}

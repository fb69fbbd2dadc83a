//! Copying what is to be somewhere else, and preserving what was there.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, XattrFlags, chownat, flistxattr,
    fsetxattr, fstat, ftruncate, futimens, ioctl_ficlone, linkat, openat, readlinkat, seek,
    symlinkat, utimensat,
};
use rustix::fs::{FileType, Gid, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attributes;
use super::folder;

const BUFFER: usize = 128 << 10;

/// How much longer than a file's content the room for the names of its attributes can be.
const MAX_NAMES: usize = 64 << 10;

/// By what it is noticed that a file is another one, or has another content. Renaming and linking leave it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    inode: u64,
    pub(crate) size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    /// Whether a file with this stamp holds what one with the other did. A file that was restored from a backup, or
    /// went to another disk, is another one and holds the same.
    pub(crate) fn is_content_of(&self, other: &Self) -> bool {
        Self { inode: 0, ..*self } == Self { inode: 0, ..*other }
    }

    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            seconds: stat.st_mtime,
            nanoseconds: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        }
    }
}

/// Copies contents.
pub(crate) struct Copier {
    buffer: Vec<u8>,
    /// Whether sharing blocks has not been refused yet.
    shares: bool,
}

impl Default for Copier {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER],
            shares: true,
        }
    }
}

impl Copier {
    /// Fills an empty file with the content of another, holes included, and says how much it was.
    pub(crate) fn fill(&mut self, from: &File, to: &File) -> io::Result<u64> {
        let stat = fstat(from)?;
        let size = Stamp::of(&stat).size;
        if self.shares && size > 0 {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(size),
                Err(_) => self.shares = false,
            }
        }
        let has_holes = u64::try_from(stat.st_blocks)
            .is_ok_and(|blocks| blocks.saturating_mul(512) < size && size > 4096);
        if !has_holes {
            return self.range(from, to, 0, u64::MAX);
        }
        let mut end = 0;
        loop {
            let start = match seek(from, SeekFrom::Data(end)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => return self.range(from, to, 0, u64::MAX),
                Err(errno) => return Err(errno.into()),
            };
            end = seek(from, SeekFrom::Hole(start))?;
            self.range(from, to, start, end)?;
        }
        let size = Stamp::of(&fstat(from)?).size;
        ftruncate(to, size)?;
        Ok(size)
    }

    fn range(&mut self, from: &File, to: &File, start: u64, end: u64) -> io::Result<u64> {
        let mut at = start;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
            let length = match from.read_at(&mut self.buffer[..most], at) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            to.write_all_at(&self.buffer[..length], at)?;
            at += length as u64;
        }
        Ok(at - start)
    }

    /// Gives a file or link a second name, or copies it with everything that it has where that cannot be.
    pub(crate) fn preserve(
        &mut self,
        from: (impl AsFd, &OsStr),
        to: (impl AsFd, &OsStr),
    ) -> io::Result<()> {
        if linkat(&from.0, from.1, &to.0, to.1, AtFlags::empty()).is_ok() {
            return Ok(());
        }
        let Some(stat) = folder::look(&from.0, from.1)? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let times = times(&stat);
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            symlinkat(readlinkat(from.0, from.1, Vec::new())?, &to.0, to.1)?;
            chownat(&to.0, to.1, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            utimensat(&to.0, to.1, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            return Ok(());
        }
        let source = read(from.0, from.1)?;
        let target = create(to.0, to.1)?;
        self.fill(&source, &target)?;
        attributes::give_back(&target, &attributes::look(&source)?)?;
        // Changing the owner takes capabilities away, and they are attributes.
        for name in names(&source)? {
            if let Some(value) = attributes::value(&source, &name)? {
                fsetxattr(&target, &name[..], &value, XattrFlags::empty())?;
            }
        }
        futimens(&target, &times)?;
        Ok(())
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The names of a file's attributes but the file system's own.
fn names(file: &File) -> io::Result<Vec<String>> {
    let mut names = vec![0; MAX_NAMES];
    let length = match flistxattr(file, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    Ok(names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

/// Opens a file, and no link, for reading.
pub(crate) fn read(dir: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(openat(dir, name, flags, Mode::empty())?))
}

/// Makes a file that only its owner can read.
pub(crate) fn create(dir: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(File::from(openat(
        dir,
        name,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use super::*;

    #[test]
    fn holes_stay_holes() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        let source = File::create_new(&from).unwrap();
        source.write_all_at(b"middle", 8 << 20).unwrap();
        source.set_len(16 << 20).unwrap();
        let target = File::create_new(&to).unwrap();

        let length = Copier::default()
            .fill(&File::open(&from).unwrap(), &target)
            .unwrap();

        assert_eq!(length, 16 << 20);
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        if from.metadata().unwrap().blocks() < 1000 {
            assert!(to.metadata().unwrap().blocks() < 1000);
        }
    }

    /// Another file system than the one that temporary folders are on, where the machine has one.
    fn elsewhere() -> Option<tempfile::TempDir> {
        let shm = Path::new("/dev/shm");
        (shm.metadata().ok()?.dev() != std::env::temp_dir().metadata().ok()?.dev())
            .then(|| tempfile::tempdir_in(shm).ok())?
    }

    #[test]
    fn what_goes_to_another_file_system_keeps_everything() {
        let (root, Some(far)) = (tempfile::tempdir().unwrap(), elsewhere()) else {
            return;
        };
        let from = root.path().join("from");
        fs::write(&from, "content").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o4750)).unwrap();
        let file = File::open(&from).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 5000))
            .unwrap();
        let has_attribute = fsetxattr(&file, "user.note", b"remember", XattrFlags::empty()).is_ok();
        std::os::unix::fs::symlink("nowhere", root.path().join("link")).unwrap();
        let here = File::open(root.path()).unwrap();
        let there = File::open(far.path()).unwrap();

        for name in ["from", "link"] {
            let name = OsStr::new(name);
            Copier::default()
                .preserve((&here, name), (&there, name))
                .unwrap();
        }

        let to = far.path().join("from");
        let (was, is) = (from.metadata().unwrap(), to.metadata().unwrap());
        assert_eq!(fs::read_to_string(&to).unwrap(), "content");
        assert_eq!(
            (is.mode(), is.uid(), is.gid(), is.mtime(), is.mtime_nsec()),
            (was.mode(), was.uid(), was.gid(), 1_000_000, 5000)
        );
        let copied = attributes::value(File::open(&to).unwrap(), "user.note").unwrap();
        assert!(!has_attribute || copied.as_deref() == Some(b"remember"));
        assert_eq!(
            fs::read_link(far.path().join("link")).unwrap(),
            Path::new("nowhere")
        );
    }
}

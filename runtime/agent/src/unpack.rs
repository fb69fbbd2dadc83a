//! Making a folder out of what a package source delivers: a folder, a tar archive, or a gzipped one.
//!
//! What it is, is seen from the content, never from a name. Nothing is ever written outside the target: absolute
//! paths, `..`, devices and links that leave are refused, and so is writing through a link of the archive itself.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use crate::tree;

/// What an archive may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Unpacked size in bytes.
    pub bytes: u64,
    /// Number of members.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 4 << 30,
            entries: tree::MAX_ENTRIES,
        }
    }
}

/// Why a package cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The package, or a place in the target, cannot be read or written.
    #[error("{doing} `{path}`", path = path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The archive's own bytes are at fault.
    #[error("read the archive at byte {offset}")]
    Damaged {
        /// Position in the unpacked stream.
        offset: u64,
        /// What the reader says.
        #[source]
        source: io::Error,
    },
    /// It is an archive of another kind, or none.
    #[error("`{path}` is {found}: only folders, tar and tar.gz can be unpacked", path = path.display())]
    Unsupported {
        /// The package.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
    },
    /// A member that may not be.
    #[error("the member `{member}` {problem}")]
    Member {
        /// Its name in the archive.
        member: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The folder is not a tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// More than [`Limits`] allow.
    #[error("the archive holds more than {limit}")]
    TooLarge {
        /// The limit, with its unit.
        limit: String,
    },
}

/// Unpacks a package into a folder that does not exist yet, or exists and is empty. If the archive's only top entry
/// is a folder that holds an appspec, the content of that folder is the package.
///
/// # Errors
/// [`Error`]; the target then holds an unfinished copy, which is the caller's to remove.
pub fn unpack(package: &Path, into: &Path) -> Result<(), Error> {
    unpack_within(package, into, Limits::default())
}

/// [`unpack`] with other limits than the usual ones.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_within(package: &Path, into: &Path, limits: Limits) -> Result<(), Error> {
    let metadata = package.metadata().map_err(failed("look at", package))?;
    // An empty folder may have been made for this; a full one is not for mixing.
    match fs::remove_dir(into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("unpack into", into)(error));
        }
        _ => {}
    }
    if metadata.is_dir() {
        tree::copy(package, into)?;
        return Ok(());
    }
    let mut file = File::open(package).map_err(failed("open", package))?;
    let mut head = [0; 512];
    let length = read_head(&mut file, &mut head).map_err(failed("read", package))?;
    file.rewind().map_err(failed("read", package))?;
    let file = BufReader::new(file);
    fs::create_dir(into).map_err(failed("create", into))?;
    tree::set_mode(into, 0o755)?;
    match kind(&head[..length]) {
        Ok(Kind::Tar) => Unpacking::new(into, limits).tar(file)?,
        Ok(Kind::Gzip) => {
            Unpacking::new(into, limits).tar(BufReader::new(MultiGzDecoder::new(file)))?;
        }
        Err(found) => {
            return Err(Error::Unsupported {
                path: package.to_path_buf(),
                found,
            });
        }
    }
    strip_top(into)
}

enum Kind {
    Tar,
    Gzip,
}

/// What a file is by its first bytes, or what it is instead.
fn kind(head: &[u8]) -> Result<Kind, &'static str> {
    match head {
        [0x1f, 0x8b, ..] => Ok(Kind::Gzip),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Err("a zip archive, which is not supported yet"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err("compressed with zstd, which is not supported yet"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err("compressed with xz, which is not supported"),
        [b'B', b'Z', b'h', ..] => Err("compressed with bzip2, which is not supported"),
        [] => Err("empty"),
        head if head.len() == 512
            && (is_tar_header(head) || head.iter().all(|byte| *byte == 0)) =>
        {
            Ok(Kind::Tar)
        }
        _ => Err("not an archive"),
    }
}

fn is_tar_header(head: &[u8]) -> bool {
    if head[257..].starts_with(b"ustar") {
        return true;
    }
    // The oldest form has no magic, but every header has a sum of its bytes, the sum's own taken as spaces.
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
    u64::from_str_radix(stored.trim_matches([' ', '\0']), 8) == Ok(sum)
}

fn read_head(file: &mut File, head: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < head.len() {
        match file.read(&mut head[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

struct Unpacking<'a> {
    into: &'a Path,
    limits: Limits,
    bytes: u64,
    entries: usize,
    /// Modes that folders get when nothing is written into them any more.
    folders: Vec<(PathBuf, u32)>,
}

impl<'a> Unpacking<'a> {
    fn new(into: &'a Path, limits: Limits) -> Self {
        Self {
            into,
            limits,
            bytes: 0,
            entries: 0,
            folders: Vec::new(),
        }
    }

    fn tar(mut self, stream: impl Read) -> Result<(), Error> {
        // The stream itself is bounded too: an archive may consist of headers alone.
        let bound = self
            .limits
            .bytes
            .saturating_add(self.limits.entries as u64 * 4096);
        let mut archive = tar::Archive::new(Bounded {
            stream,
            left: bound,
        });
        let mut offset = 0;
        let entries = archive
            .entries()
            .map_err(|source| Error::Damaged { offset, source })?;
        for entry in entries {
            let mut entry = entry.map_err(|source| self.damaged(offset, source))?;
            offset = entry.raw_file_position();
            self.member(&mut entry)?;
        }
        // Whatever follows is read as well: the checksum of a compressed stream is at its end.
        io::copy(&mut archive.into_inner(), &mut io::sink())
            .map_err(|source| self.damaged(offset, source))?;
        for (folder, mode) in self.folders.iter().rev() {
            tree::set_mode(folder, *mode)?;
        }
        Ok(())
    }

    fn damaged(&self, offset: u64, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::FileTooLarge {
            self.too_large()
        } else {
            Error::Damaged { offset, source }
        }
    }

    fn too_large(&self) -> Error {
        Error::TooLarge {
            limit: format!("{} bytes", self.limits.bytes),
        }
    }

    fn member<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), Error> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = entry.path_bytes().into_owned();
        let name = Path::new(OsStr::from_bytes(&name));
        let Some(path) = inside(name).map_err(|problem| refused(name, problem))? else {
            return Ok(());
        };
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::TooLarge {
                limit: format!("{} members", self.limits.entries),
            });
        }
        let mode = entry
            .header()
            .mode()
            .map_err(|source| self.damaged(entry.raw_header_position(), source))?
            & 0o777;
        let target = self.place(name, &path)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &target, mode)
            }
            EntryType::Directory => self.folder(name, target, mode),
            EntryType::Symlink => {
                let link = link_name(entry, name)?;
                if !tree::link_stays_inside(&path, &link) {
                    return Err(refused(name, "is a link that leads out of the package"));
                }
                make_room(name, &target)?;
                symlink(link, &target).map_err(failed("create the link", &target))
            }
            EntryType::Link => {
                let link = link_name(entry, name)?;
                let out = "is a link to something that is not a file of the package";
                let original = inside(&link)
                    .ok()
                    .flatten()
                    .ok_or_else(|| refused(name, out))?;
                let original = self.place(name, &original)?;
                if !original
                    .symlink_metadata()
                    .is_ok_and(|metadata| metadata.is_file())
                {
                    return Err(refused(name, out));
                }
                if original == target {
                    return Ok(());
                }
                make_room(name, &target)?;
                fs::hard_link(&original, &target).map_err(failed("create the link", &target))
            }
            _ => Err(refused(name, "is neither a file nor a folder nor a link")),
        }
    }

    /// Where a member goes, below folders that are made as needed and are no links.
    fn place(&self, name: &Path, path: &Path) -> Result<PathBuf, Error> {
        let mut place = self.into.to_path_buf();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            place.push(part);
            if parts.peek().is_none() {
                break;
            }
            match place.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return Err(refused(name, "is below a member that is not a folder")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&place).map_err(failed("create", &place))?;
                    tree::set_mode(&place, 0o755)?;
                }
                Err(error) => return Err(failed("look at", &place)(error)),
            }
        }
        Ok(place)
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        target: &Path,
        mode: u32,
    ) -> Result<(), Error> {
        make_room(&entry_name(entry), target)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target)
            .map_err(failed("create", target))?;
        let start = entry.raw_file_position();
        let mut buffer = vec![0; 128 << 10];
        let mut written = 0;
        loop {
            let length = match entry.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(self.damaged(start + written, source)),
            };
            written += length as u64;
            self.bytes += length as u64;
            if self.bytes > self.limits.bytes {
                return Err(self.too_large());
            }
            io::Write::write_all(&mut file, &buffer[..length]).map_err(failed("write", target))?;
        }
        if written < entry.size() {
            return Err(self.damaged(start + written, io::ErrorKind::UnexpectedEof.into()));
        }
        tree::set_mode(target, mode)?;
        Ok(())
    }

    fn folder(&mut self, name: &Path, target: PathBuf, mode: u32) -> Result<(), Error> {
        match fs::create_dir(&target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !target
                    .symlink_metadata()
                    .is_ok_and(|metadata| metadata.is_dir())
                {
                    return Err(refused(name, "is a folder in the place of another member"));
                }
            }
            Err(error) => return Err(failed("create", &target)(error)),
        }
        tree::set_mode(&target, 0o700)?;
        // A folder that its owner cannot enter could not even be removed.
        self.folders.push((target, mode | 0o700));
        Ok(())
    }
}

/// A stream that fails when more is read than it may hold.
struct Bounded<R> {
    stream: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(length)
    }
}

/// The path of a member in the package; none for the package itself.
fn inside(name: &Path) -> Result<Option<PathBuf>, &'static str> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("has `..` in its path"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
    }
    if path.as_os_str().len() > tree::MAX_PATH {
        return Err("has a path that is too long");
    }
    if path.as_os_str().as_bytes().contains(&0) {
        return Err("has a NUL in its path");
    }
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

/// Makes room for a member whose name has come before: the later one counts.
fn make_room(name: &Path, target: &Path) -> Result<(), Error> {
    match target.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", target)(error)),
        Ok(metadata) if metadata.is_dir() => Err(refused(name, "is in the place of a folder")),
        Ok(_) => fs::remove_file(target).map_err(failed("replace", target)),
    }
}

fn link_name<R: Read>(entry: &tar::Entry<'_, R>, name: &Path) -> Result<PathBuf, Error> {
    let target = entry
        .link_name_bytes()
        .ok_or_else(|| refused(name, "is a link without a target"))?;
    let target = PathBuf::from(OsStr::from_bytes(&target));
    if target.as_os_str().len() > tree::MAX_PATH || target.as_os_str().as_bytes().contains(&0) {
        return Err(refused(name, "is a link whose target is not a path"));
    }
    Ok(target)
}

fn entry_name<R: Read>(entry: &tar::Entry<'_, R>) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&entry.path_bytes()))
}

fn refused(name: &Path, problem: &'static str) -> Error {
    Error::Member {
        member: name.display().to_string(),
        problem,
    }
}

/// Whether a name is that of an appspec in any dialect.
fn is_appspec(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_lowercase();
    [
        "appspec.yml",
        "appspec.yaml",
        "jdcloud-codedeploy.yml",
        "jdcloud-codedeploy.yaml",
    ]
    .contains(&name.as_str())
}

/// Lifts the content of a lone top folder with an appspec to the top.
fn strip_top(into: &Path) -> Result<(), Error> {
    let list = |dir: &Path| -> Result<Vec<fs::DirEntry>, Error> {
        fs::read_dir(dir)
            .and_then(Iterator::collect)
            .map_err(failed("list", dir))
    };
    let top = list(into)?;
    let [top] = top.as_slice() else { return Ok(()) };
    if !top.file_type().is_ok_and(|kind| kind.is_dir()) || is_appspec(&top.file_name()) {
        return Ok(());
    }
    if !list(&top.path())?
        .iter()
        .any(|entry| is_appspec(&entry.file_name()))
    {
        return Ok(());
    }
    // A link that goes above the folder leaves the package when that folder is the package.
    tree::walk(&top.path())?;
    let mut aside = into.as_os_str().to_owned();
    aside.push(".top");
    let aside = PathBuf::from(aside);
    fs::rename(top.path(), &aside).map_err(failed("move", &top.path()))?;
    fs::remove_dir(into).map_err(failed("replace", into))?;
    fs::rename(&aside, into).map_err(failed("move", &aside))?;
    tree::set_mode(into, 0o755)?;
    Ok(())
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io {
        doing,
        path,
        source,
    }
}

//! From a package as it was delivered to a folder that is whole or not there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::format::Format;
use super::limits::{Exceeded, Limits};
use super::writer::Writer;
use super::{tar, zip};
use crate::tree;

/// How a package is unpacked.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What it may hold at most.
    pub limits: Limits,
    /// What the appspec is called where that is none of the usual names.
    pub appspec: Option<String>,
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// What the package turned out to be.
    pub format: Format,
    /// What is odd about it and no reason to refuse it.
    pub warnings: Vec<String>,
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
    #[error("read the archive at byte {offset}{}", in_member(member.as_deref()))]
    Damaged {
        /// Position in the archive, or in the tar that comes out of a compressed one.
        offset: u64,
        /// The member that is being read, where that is known.
        member: Option<String>,
        /// What the reader says.
        #[source]
        source: io::Error,
    },
    /// It is an archive of another kind, or none.
    #[error("`{path}` is {found}: a package is a folder, a tar archive (plain, gzip or zstd) or a zip archive", path = path.display())]
    Unsupported {
        /// The package.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// A member that may not be.
    #[error("the member `{member}` {problem}")]
    Member {
        /// Its name in the archive.
        member: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder is not a tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// More than [`Limits`] allow.
    #[error("the package holds more than {limit}{}", in_member(member.as_deref()))]
    TooLarge {
        /// The limit, with its unit.
        limit: String,
        /// The member that reaches it, where it is one.
        member: Option<String>,
    },
}

fn in_member(member: Option<&str>) -> String {
    member.map_or_else(String::new, |member| format!(", in the member `{member}`"))
}

/// Unpacks a package into a folder that does not exist yet, or exists and is empty. If the archive's only top entry
/// is a folder that holds an appspec, the content of that folder is the package.
///
/// # Errors
/// [`Error`]; the target is then as it was.
pub fn unpack(package: &Path, into: &Path) -> Result<Unpacked, Error> {
    unpack_with(package, into, &Options::default())
}

/// [`unpack`] with other limits or another name of the appspec than the usual ones.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_with(package: &Path, into: &Path, options: &Options) -> Result<Unpacked, Error> {
    let metadata = package.metadata().map_err(failed("look at", package))?;
    check_free(into)?;
    let staging = Staging::beside(into)?;
    let tree = staging.tree();
    let (unpacked, root) = if metadata.is_dir() {
        check_folder(package, &options.limits)?;
        tree::copy(package, &tree)?;
        let format = Format::Folder;
        let warnings = Vec::new();
        (Unpacked { format, warnings }, tree)
    } else {
        let unpacked = archive(package, &tree, &options.limits)?;
        let root = top(tree, options.appspec.as_deref())?;
        tree::set_mode(&root, 0o755)?;
        (unpacked, root)
    };
    // An empty folder may have been made for this. The rename takes its place.
    fs::rename(&root, into).map_err(failed("move the package to", into))?;
    Ok(unpacked)
}

/// A full folder is not for mixing.
fn check_free(into: &Path) -> Result<(), Error> {
    match fs::read_dir(into) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(failed("unpack into", into)(
                io::ErrorKind::DirectoryNotEmpty.into(),
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("unpack into", into)(error)),
    }
}

fn check_folder(folder: &Path, limits: &Limits) -> Result<(), Error> {
    let mut bytes = 0;
    let nodes = tree::walk(folder)?;
    if nodes.len() > limits.entries {
        return Err(too_large(Exceeded::entries(limits), None));
    }
    for node in nodes {
        let shown = || Some(shown(node.path.as_os_str().as_bytes()));
        if node.path.as_os_str().len() > limits.path {
            return Err(Error::Member {
                member: shown().unwrap_or_default(),
                problem: format!("has a path that is longer than {} bytes", limits.path),
            });
        }
        if node.kind == tree::Kind::File {
            let path = folder.join(&node.path);
            bytes += path
                .symlink_metadata()
                .map_err(failed("look at", &path))?
                .len();
            if bytes > limits.bytes {
                return Err(too_large(Exceeded::bytes(limits), shown()));
            }
        }
    }
    Ok(())
}

fn archive(package: &Path, tree: &Path, limits: &Limits) -> Result<Unpacked, Error> {
    let mut file = File::open(package).map_err(failed("open", package))?;
    let mut head = Vec::new();
    (&mut file)
        .take(512)
        .read_to_end(&mut head)
        .and_then(|_| file.rewind())
        .map_err(failed("read", package))?;
    let unsupported = |found: String| Error::Unsupported {
        path: package.to_path_buf(),
        found,
    };
    let format = Format::of_content(&head).map_err(|found| unsupported(found.to_owned()))?;
    let writer = Writer::create(tree, *limits)?;
    let warnings = match format {
        Format::Tar | Format::Folder => tar::plain(file, writer),
        Format::TarGzip => tar::gzip(file, writer),
        Format::TarZstd => tar::zstd(file, writer),
        Format::Zip => zip::unpack(file, writer),
    };
    let warnings = warnings.map_err(|error| match error {
        tar::Failure::NoTar => {
            unsupported("a compressed file that holds no tar archive".to_owned())
        }
        tar::Failure::Other(error) => error,
    })?;
    Ok(Unpacked { format, warnings })
}

/// Whether a name is that of an appspec in any dialect. Like the peer, it takes whatever holds the word for one.
fn is_appspec(name: &OsStr, own: Option<&str>) -> bool {
    if own.is_some_and(|own| name == own) {
        return true;
    }
    let name = name.to_string_lossy().to_ascii_lowercase();
    name.contains("appspec") || name.contains("jdcloud-codedeploy")
}

/// The package in what was unpacked: all of it, or a lone top folder with an appspec.
fn top(tree: PathBuf, appspec: Option<&str>) -> Result<PathBuf, Error> {
    let list = |dir: &Path| -> Result<Vec<fs::DirEntry>, Error> {
        fs::read_dir(dir)
            .and_then(Iterator::collect)
            .map_err(failed("list", dir))
    };
    let entries = list(&tree)?;
    let [only] = entries.as_slice() else {
        return Ok(tree);
    };
    if !only.file_type().is_ok_and(|kind| kind.is_dir())
        || !list(&only.path())?
            .iter()
            .any(|entry| is_appspec(&entry.file_name(), appspec))
    {
        return Ok(tree);
    }
    // A link that goes above the folder leaves the package when that folder is the package.
    tree::walk(&only.path())?;
    Ok(only.path())
}

/// Where a package is while it is not whole; removed with all that is left in it.
struct Staging(PathBuf);

impl Staging {
    fn beside(into: &Path) -> Result<Self, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = into.file_name().unwrap_or_default().to_string_lossy();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let staging =
            into.with_file_name(format!(".{name}.unpacking-{}-{number}", std::process::id()));
        // Another process with this id may have been killed here.
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &staging)(error));
            }
            _ => {}
        }
        fs::create_dir(&staging).map_err(failed("create", &staging))?;
        Ok(Self(staging))
    }

    fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Where it cannot be removed it stays under a name that nobody takes for a package.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A member's name, fit for a message.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars()
        .flat_map(|c| {
            let escape = c.is_control().then(|| c.escape_default());
            let plain = escape.is_none().then_some(c);
            escape.into_iter().flatten().chain(plain)
        })
        .take(200)
        .collect()
}

pub(super) fn too_large(exceeded: Exceeded, member: Option<String>) -> Error {
    Error::TooLarge {
        limit: exceeded.0,
        member,
    }
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io {
        doing,
        path,
        source,
    }
}

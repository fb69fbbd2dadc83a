//! Folders as content: walking, the digest, copying.
//!
//! # The digest
//!
//! SHA-256 over the line `cutover-tree 1` and one entry for everything in the folder (not for the folder itself),
//! sorted by the bytes of the path relative to it, written with `/`. An entry is
//!
//! ```text
//! KIND SP MODE SP LENGTH SP PATH SP CONTENT LF
//! ```
//!
//! KIND is `f` (file), `d` (folder) or `l` (symbolic link); MODE the permission bits `mode & 0o777` as three octal
//! digits, `777` for a link; LENGTH the number of bytes of PATH, in decimal; CONTENT the 64 hexadecimal digits of the
//! SHA-256 of a file's bytes, `-` for a folder, or `LENGTH SP TARGET` for a link. Owners and times do not count. The
//! result is written `sha256:` and 64 lower-case hexadecimal digits.
//!
//! A tree may hold files, folders, and links that stay inside it; anything else is an error.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

/// The most entries of a tree.
pub const MAX_ENTRIES: usize = 1_000_000;

/// The longest path in a tree, in bytes.
pub const MAX_PATH: usize = 4096;

/// Why a folder is not a tree, or cannot be read or copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
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
    /// The link's target may be outside.
    #[error("the link `{path}` leads out of the folder, to `{target}`", path = path.display(), target = target.display())]
    LinkLeaves {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A device, a socket or a pipe.
    #[error("`{path}` is neither a file nor a folder nor a link", path = path.display())]
    Special {
        /// What it is called.
        path: PathBuf,
    },
    /// More than [`MAX_ENTRIES`].
    #[error("`{path}` holds more than {MAX_ENTRIES} entries", path = path.display())]
    TooManyEntries {
        /// The folder.
        path: PathBuf,
    },
    /// Longer than [`MAX_PATH`].
    #[error("the path `{path}` is longer than {MAX_PATH} bytes", path = path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Relative to the root of the tree.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    /// Permission bits, `0o777` at most.
    pub(crate) mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link(PathBuf),
}

/// What was copied.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) digest: String,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// The digest of a folder, in the format that the module describes.
///
/// # Errors
/// [`Error`] when the folder is not a tree or cannot be read.
pub fn digest(root: &Path) -> Result<String, Error> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    for node in walk(root)? {
        let content = match &node.kind {
            Kind::File => {
                let path = root.join(&node.path);
                let mut file = File::open(&path).map_err(failed("open", &path))?;
                hash_file(&mut file, &mut io::sink(), &mut buffer, &path, &path)?.0
            }
            Kind::Directory | Kind::Link(_) => String::new(),
        };
        hasher.add(&node, &content);
    }
    Ok(hasher.finish())
}

/// Whether a link at `link` (relative to a root, below real folders only) with this target stays inside the root.
///
/// A target may go up first and then down. Going up again could leave by way of another link that it passes, so that
/// is refused even where it would not leave. Every link of a tree being such, none of them leaves.
#[must_use]
pub fn link_stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    let mut went_down = false;
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => went_down = true,
            Component::ParentDir if !went_down && depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !target.as_os_str().is_empty()
}

/// Everything in a folder, sorted by the bytes of the path.
pub(crate) fn walk(root: &Path) -> Result<Vec<Node>, Error> {
    walk_from(root, Path::new(""))
}

/// Everything below a folder of a tree, sorted by the bytes of the path, which is relative to the tree.
pub(crate) fn walk_from(root: &Path, start: &Path) -> Result<Vec<Node>, Error> {
    let mut nodes = Vec::new();
    let mut folders = vec![start.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let dir = root.join(&folder);
        for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
            let entry = entry.map_err(failed("list", &dir))?;
            let node = node(root, folder.join(entry.file_name()))?;
            if nodes.len() == MAX_ENTRIES {
                return Err(Error::TooManyEntries {
                    path: root.to_path_buf(),
                });
            }
            if node.kind == Kind::Directory {
                folders.push(node.path.clone());
            }
            nodes.push(node);
        }
    }
    nodes.sort_by(|a, b| bytes(&a.path).cmp(bytes(&b.path)));
    Ok(nodes)
}

/// One entry of a folder.
pub(crate) fn node(root: &Path, path: PathBuf) -> Result<Node, Error> {
    if path.as_os_str().len() > MAX_PATH {
        return Err(Error::PathTooLong { path });
    }
    let full = root.join(&path);
    let metadata = full.symlink_metadata().map_err(failed("look at", &full))?;
    let mode = metadata.permissions().mode() & 0o777;
    let kind = metadata.file_type();
    let kind = if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        let target = fs::read_link(&full).map_err(failed("read the link", &full))?;
        if !link_stays_inside(&path, &target) {
            return Err(Error::LinkLeaves { path: full, target });
        }
        Kind::Link(target)
    } else {
        return Err(Error::Special { path: full });
    };
    Ok(Node { path, kind, mode })
}

/// Copies a tree into a folder that does not exist yet, and says what the copy's digest is.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<Copied, Error> {
    fs::create_dir(to).map_err(failed("create", to))?;
    let nodes = walk(from)?;
    let mut hasher = Hasher::new();
    let mut copied = Copied::default();
    let mut buffer = vec![0; BUFFER];
    for node in &nodes {
        let target = to.join(&node.path);
        let mut content = String::new();
        match &node.kind {
            Kind::Directory => fs::create_dir(&target).map_err(failed("create", &target))?,
            Kind::Link(link) => {
                symlink(link, &target).map_err(failed("create the link", &target))?;
            }
            Kind::File => {
                let (digest, bytes) =
                    copy_file(&from.join(&node.path), &target, node.mode, &mut buffer)?;
                content = digest;
                copied.files += 1;
                copied.bytes += bytes;
            }
        }
        hasher.add(node, &content);
    }
    // Innermost first, and last of all: a folder may deny its owner to write.
    for node in nodes
        .iter()
        .rev()
        .filter(|node| node.kind == Kind::Directory)
    {
        set_mode(&to.join(&node.path), node.mode)?;
    }
    set_mode(to, 0o755)?;
    copied.digest = hasher.finish();
    Ok(copied)
}

/// Moves a tree to a name on the same disk that does not exist yet, and says what its digest is.
pub(crate) fn take(from: &Path, to: &Path) -> Result<Copied, Error> {
    let nodes = walk(from)?;
    let files = nodes.iter().filter(|node| node.kind == Kind::File);
    let mut copied = Copied::default();
    for node in files {
        let path = from.join(&node.path);
        copied.files += 1;
        copied.bytes += path
            .symlink_metadata()
            .map_err(failed("look at", &path))?
            .len();
    }
    copied.digest = digest(from)?;
    set_mode(from, 0o755)?;
    fs::rename(from, to).map_err(failed("move", from))?;
    Ok(copied)
}

fn copy_file(from: &Path, to: &Path, mode: u32, buffer: &mut [u8]) -> Result<(String, u64), Error> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut source = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow)
        .open(from)
        .map_err(failed("open", from))?;
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(failed("create", to))?;
    let copied = hash_file(&mut source, &mut target, buffer, from, to)?;
    target
        .set_permissions(Permissions::from_mode(mode))
        .map_err(failed("set the mode of", to))?;
    Ok(copied)
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of", path))
}

const BUFFER: usize = 128 << 10;

/// Passes a file on and hashes what passes.
fn hash_file(
    source: &mut impl Read,
    target: &mut impl Write,
    buffer: &mut [u8],
    from: &Path,
    to: &Path,
) -> Result<(String, u64), Error> {
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    loop {
        let length = match source.read(buffer) {
            Ok(0) => return Ok((hex(&hasher.finalize()), bytes)),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read", from)(error)),
        };
        hasher.update(&buffer[..length]);
        target
            .write_all(&buffer[..length])
            .map_err(failed("write", to))?;
        bytes += length as u64;
    }
}

struct Hasher(Sha256);

impl Hasher {
    fn new() -> Self {
        Self(Sha256::new_with_prefix("cutover-tree 1\n"))
    }

    fn add(&mut self, node: &Node, content: &str) {
        let path = bytes(&node.path);
        let (kind, mode) = match &node.kind {
            Kind::File => ("f", node.mode),
            Kind::Directory => ("d", node.mode),
            Kind::Link(_) => ("l", 0o777),
        };
        self.0.update(format!("{kind} {mode:03o} {} ", path.len()));
        self.0.update(path);
        match &node.kind {
            Kind::File => self.0.update(format!(" {content}\n")),
            Kind::Directory => self.0.update(" -\n"),
            Kind::Link(target) => {
                self.0.update(format!(" {} ", bytes(target).len()));
                self.0.update(bytes(target));
                self.0.update("\n");
            }
        }
    }

    fn finish(self) -> String {
        format!("sha256:{}", hex(&self.0.finalize()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(path: &Path) -> &[u8] {
    OsStr::as_bytes(path.as_os_str())
}

pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io {
        doing,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "content").unwrap();
        fs::write(dir.path().join("a-b"), "").unwrap();
        symlink("a/b", dir.path().join("link")).unwrap();
        symlink("../../a-b", dir.path().join("a/b/up")).unwrap();
        for (path, mode) in [
            ("a", 0o755),
            ("a/b", 0o755),
            ("a/b/file", 0o644),
            ("a-b", 0o755),
        ] {
            set_mode(&dir.path().join(path), mode).unwrap();
        }
        dir
    }

    #[test]
    fn the_digest_is_what_the_module_describes() {
        let dir = sample();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let content = hex(&Sha256::digest("content"));
        let text = format!(
            "cutover-tree 1\nd 755 1 a -\nf 755 3 a-b {empty}\nd 755 3 a/b -\nf 644 8 a/b/file {content}\n\
             l 777 6 a/b/up 9 ../../a-b\nl 777 4 link 3 a/b\n"
        );

        assert_eq!(
            digest(dir.path()).unwrap(),
            format!("sha256:{}", hex(&Sha256::digest(text)))
        );
    }

    #[test]
    fn content_modes_names_and_targets_count() {
        type Change = fn(&Path);
        let changes: [Change; 5] = [
            |root| fs::write(root.join("a/b/file"), "Content").unwrap(),
            |root| set_mode(&root.join("a/b/file"), 0o755).unwrap(),
            |root| fs::rename(root.join("a-b"), root.join("a-c")).unwrap(),
            |root| {
                fs::remove_file(root.join("link"))
                    .and_then(|()| symlink("a", root.join("link")))
                    .unwrap();
            },
            |root| fs::create_dir(root.join("new")).unwrap(),
        ];
        let before = digest(sample().path()).unwrap();

        for change in changes {
            let dir = sample();
            change(dir.path());
            assert_ne!(digest(dir.path()).unwrap(), before);
        }
        assert_eq!(digest(sample().path()).unwrap(), before);
    }

    #[test]
    fn a_copy_has_the_digest_of_its_source() {
        let dir = sample();
        let to = tempfile::tempdir().unwrap();
        set_mode(&dir.path().join("a"), 0o555).unwrap();

        let copied = copy(dir.path(), &to.path().join("copy")).unwrap();

        assert_eq!((copied.files, copied.bytes), (2, 7));
        assert_eq!(copied.digest, digest(dir.path()).unwrap());
        assert_eq!(copied.digest, digest(&to.path().join("copy")).unwrap());
    }

    #[test]
    fn links_stay_inside() {
        let stays = [
            ("link", "a"),
            ("link", "./a/b"),
            ("a/b/link", "../../c"),
            ("a/link", ".."),
        ];
        let leaves = [
            ("link", "/etc"),
            ("link", ".."),
            ("a/link", "../.."),
            ("link", "a/../.."),
            ("link", "a/../b"),
            ("link", ""),
        ];

        for (link, target) in stays {
            assert!(
                link_stays_inside(Path::new(link), Path::new(target)),
                "{link} -> {target}"
            );
        }
        for (link, target) in leaves {
            assert!(
                !link_stays_inside(Path::new(link), Path::new(target)),
                "{link} -> {target}"
            );
        }
    }

    #[test]
    fn what_is_not_a_tree_is_refused_by_name() {
        let dir = sample();
        symlink("/etc/passwd", dir.path().join("a/out")).unwrap();
        assert!(
            digest(dir.path())
                .unwrap_err()
                .to_string()
                .contains("a/out` leads out")
        );

        let dir = sample();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).unwrap();
        assert!(
            digest(dir.path())
                .unwrap_err()
                .to_string()
                .contains("sock` is neither")
        );
    }
}

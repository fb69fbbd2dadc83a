//! Receiving a package from the conductor: `cutover-agent receive`.
//!
//! A line with an [`Offer`] comes in and a line with a [`Reply`] goes out. When that is [`Reply::Send`], the tree comes in
//! as a [`crate::stream`], answered by any number of [`Reply::Taken`] and one [`Reply::Received`].
//!
//! `ROOTDIR/.cutover/inbox/HEX.partial` is a package on its way; it gets the name `HEX` when it is whole and its digest
//! is right. A connection that breaks leaves the partial one, and the next offer goes on with it: entries come in the
//! order in which a tree is walked, so everything that is there is whole, but for the last. Fetching the package into
//! the cache takes it out of the inbox.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::io::Errno;
use rustix::process::{Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::attempt;
use crate::cache::Folder;
use crate::protocol;
use crate::reason::chain;
use crate::stream::{Header, Position, read_header};
use crate::succession::holder;
use crate::tree::{self, Kind};

/// A part of the stream after which the sender is told how much has been taken, in bytes.
const PART: u64 = 64 << 10;

/// How long a receiver may take to end that somebody else has taken over from.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// A package that somebody wants to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Absolute folder of the instance.
    pub rootdir: String,
    /// The package folder that the package is for, `app-A/group-G/deploy-D` below `rootdir`.
    pub cache: String,
    /// What [`tree::digest`] says of it.
    pub digest: String,
    /// How many bytes its files have.
    pub bytes: u64,
    /// Instances on the same host that have the package, most likely.
    #[serde(default)]
    pub siblings: Vec<Sibling>,
}

/// An instance on the same host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sibling {
    /// Absolute folder of the instance.
    pub rootdir: String,
    /// Its package folder.
    pub cache: String,
}

/// What the receiver says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Reply {
    /// The package is in the cache already.
    Present,
    /// The stream is to be sent from here on.
    Send {
        /// Where it begins.
        position: Position,
    },
    /// So many bytes of the stream have been taken in.
    Taken {
        /// How many, headers counted.
        bytes: u64,
    },
    /// The package is here, whole.
    Received {
        /// Its absolute path.
        path: String,
    },
    /// What arrived is not the package. It is gone, and the next offer begins anew.
    Spoiled {
        /// What was found.
        reason: String,
    },
    /// The package cannot be taken here.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Why nothing was received.
enum Stop {
    Spoiled(String),
    Refused(String),
    /// The input ended or nobody listens. What has arrived stays.
    Broken(io::Error),
}

/// Whether a package lies in an instance's inbox.
pub(crate) fn is_inboxed(rootdir: &str, package: &Path) -> bool {
    package.parent() == Some(&*Path::new(rootdir).join(INBOX))
}

const INBOX: &str = ".cutover/inbox";

/// Takes one offer.
///
/// # Errors
/// An I/O error when the input breaks off or nobody reads the replies. A refusal is a reply and no error.
pub fn receive(input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut input = BufReader::with_capacity(128 << 10, input);
    let last = match take(&mut input, &mut output) {
        Ok(reply) => reply,
        Err(Stop::Spoiled(reason)) => Reply::Spoiled { reason },
        Err(Stop::Refused(reason)) => Reply::Refused { reason },
        Err(Stop::Broken(error)) => return Err(error),
    };
    say(&mut output, &last)
}

fn say(output: &mut impl Write, reply: &Reply) -> io::Result<()> {
    output.write_all(&protocol::encode(reply))?;
    output.flush()
}

fn take(input: &mut BufReader<impl Read>, output: &mut impl Write) -> Result<Reply, Stop> {
    let offer: Offer = read_offer(input)?;
    let refused = |error: &dyn std::error::Error| Stop::Refused(chain(error));
    let folder = Folder::at(&offer.rootdir, &offer.cache).map_err(|error| refused(&error))?;
    if holds(&folder, &offer.digest) {
        return Ok(Reply::Present);
    }
    let hex = offer
        .digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| Stop::Refused(format!("`{}` is not a digest", offer.digest)))?;
    let inbox = Inbox::open(folder.root(), hex)?;
    inbox.remove_others();
    if inbox.whole.is_dir() {
        if tree::digest(&inbox.whole).is_ok_and(|digest| digest == offer.digest) {
            return inbox.received();
        }
        inbox.discard(&inbox.whole)?;
    }
    if !inbox.partial.exists() && inbox.copy_from(&offer) {
        return inbox.received();
    }
    let position = inbox.position()?;
    inbox.check_room(&offer)?;
    say(output, &Reply::Send { position }).map_err(Stop::Broken)?;
    match inbox.fill(input, output, position) {
        Ok(()) => {}
        Err(Stop::Broken(error)) => return Err(Stop::Broken(error)),
        Err(stop) => {
            inbox.discard(&inbox.partial)?;
            return Err(stop);
        }
    }
    inbox.complete(&offer.digest)?;
    inbox.received()
}

fn read_offer(input: &mut BufReader<impl Read>) -> Result<Offer, Stop> {
    use std::io::BufRead;
    let mut line = Vec::new();
    let mut limited = input.by_ref().take(protocol::MAX_LINE as u64);
    limited.read_until(b'\n', &mut line).map_err(Stop::Broken)?;
    protocol::decode(&line).map_err(|error| Stop::Refused(error.to_string()))
}

fn holds(folder: &Folder, digest: &str) -> bool {
    folder.path().is_dir() && folder.digest(attempt::boot()).as_deref() == Some(digest)
}

/// The places of one package in the inbox, and the right to use them.
struct Inbox {
    dir: PathBuf,
    hex: String,
    whole: PathBuf,
    partial: PathBuf,
    /// Held as long as this process lives.
    _lock: File,
}

impl Inbox {
    /// Opens the inbox and takes over from whoever still waits for the rest of the same package: its connection is the
    /// older one.
    fn open(root: &Path, hex: &str) -> Result<Self, Stop> {
        let dir = root.join(INBOX);
        let failed = |error: io::Error| {
            Stop::Refused(format!("create the inbox `{}`: {error}", dir.display()))
        };
        // Hooks run as other accounts and reach their package through it.
        fs::create_dir_all(root).map_err(failed)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed)?;
        let path = dir.join(format!("{hex}.lock"));
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let begun = Instant::now();
        while let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if errno != Errno::WOULDBLOCK || begun.elapsed() > TAKE_OVER {
                let reason = format!(
                    "another transfer of the same package holds `{}`: {errno}",
                    path.display()
                );
                return Err(Stop::Refused(reason));
            }
            if let Some(holder) = holder(&lock) {
                // It may have ended since.
                let _ = kill_process(holder, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = std::process::id().to_string();
        lock.set_len(0)
            .and_then(|()| lock.write_all_at(pid.as_bytes(), 0))
            .map_err(failed)?;
        Ok(Self {
            whole: dir.join(hex),
            partial: dir.join(format!("{hex}.partial")),
            dir,
            hex: hex.to_owned(),
            _lock: lock,
        })
    }

    /// Removes packages that were never fetched out of the inbox. What cannot be removed is in nobody's way.
    fn remove_others(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let hex = name.split('.').next().unwrap_or_default();
            if hex == self.hex {
                continue;
            }
            let lock = File::open(self.dir.join(format!("{hex}.lock")));
            let is_in_use = lock
                .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err());
            if !is_in_use {
                let path = entry.path();
                let _ = if path.is_dir() {
                    remove_tree(&path)
                } else {
                    fs::remove_file(&path)
                };
            }
        }
    }

    /// Copies the package from another instance of the host. Whether that worked.
    fn copy_from(&self, offer: &Offer) -> bool {
        offer.siblings.iter().any(|sibling| {
            let Ok(folder) = Folder::at(&sibling.rootdir, &sibling.cache) else {
                return false;
            };
            let inboxed = Path::new(&sibling.rootdir).join(INBOX).join(&self.hex);
            let source = if holds(&folder, &offer.digest) {
                folder.path()
            } else {
                inboxed
            };
            // A hook may have written into it.
            let is_same = source.is_dir()
                && tree::copy(&source, &self.partial)
                    .is_ok_and(|copied| copied.digest == offer.digest)
                && fs::rename(&self.partial, &self.whole).is_ok();
            if !is_same {
                let _ = remove_tree(&self.partial);
            }
            is_same
        })
    }

    /// What of the package is here.
    fn position(&self) -> Result<Position, Stop> {
        let nodes = match tree::walk(&self.partial) {
            Ok(nodes) => nodes,
            Err(_) => {
                self.discard(&self.partial)?;
                DirBuilder::new()
                    .mode(0o700)
                    .create(&self.partial)
                    .map_err(|error| self.failed(&self.partial, &error))?;
                Vec::new()
            }
        };
        let Some(last) = nodes.last() else {
            return Ok(Position::default());
        };
        if last.kind != Kind::File {
            return Ok(Position {
                entry: nodes.len(),
                offset: 0,
            });
        }
        let path = self.partial.join(&last.path);
        let metadata = path
            .symlink_metadata()
            .map_err(|error| self.failed(&path, &error))?;
        Ok(Position {
            entry: nodes.len() - 1,
            offset: metadata.len(),
        })
    }

    /// Refuses early what does not fit.
    fn check_room(&self, offer: &Offer) -> Result<(), Stop> {
        let Ok(disk) = statvfs(&self.dir) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let here = tree::walk(&self.partial).map_or(0, |nodes| {
            let length = |node: &tree::Node| {
                self.partial
                    .join(&node.path)
                    .symlink_metadata()
                    .map_or(0, |metadata| metadata.len())
            };
            let files = nodes.iter().filter(|node| node.kind == Kind::File);
            files.map(length).sum()
        });
        let needed = offer.bytes.saturating_sub(here);
        if needed > free {
            let reason = format!(
                "`{}` has {} free, and the package needs {}",
                self.dir.display(),
                mebibytes(free),
                mebibytes(needed)
            );
            return Err(Stop::Refused(reason));
        }
        Ok(())
    }

    fn fill(
        &self,
        input: &mut BufReader<impl Read>,
        output: &mut impl Write,
        position: Position,
    ) -> Result<(), Stop> {
        let mut input = Counted {
            input,
            bytes: 0,
            told: 0,
        };
        let mut entries = position.entry;
        let mut offset = position.offset;
        loop {
            let header = read_header(&mut input).map_err(of_input)?;
            match header {
                Header::End => return Ok(()),
                Header::Mode { path, mode } => {
                    let path = self.place(&path)?;
                    self.set_mode(&path, mode)?;
                }
                Header::Directory { path } => {
                    let path = self.place(&path)?;
                    DirBuilder::new()
                        .mode(0o700)
                        .create(&path)
                        .map_err(|error| self.failed(&path, &error))?;
                    entries += 1;
                }
                Header::Link { path, target } => {
                    if !tree::link_stays_inside(&path, &target) {
                        return Err(nonsense());
                    }
                    let path = self.place(&path)?;
                    symlink(&target, &path).map_err(|error| self.failed(&path, &error))?;
                    entries += 1;
                }
                Header::File { path, mode, bytes } => {
                    let path = self.place(&path)?;
                    self.write(&path, bytes, offset, &mut input, output)?;
                    self.set_mode(&path, mode)?;
                    entries += 1;
                }
            }
            offset = 0;
            if entries > tree::MAX_ENTRIES {
                return Err(nonsense());
            }
            input.tell(output)?;
        }
    }

    /// Where an entry goes, in a folder that came before it.
    fn place(&self, path: &Path) -> Result<PathBuf, Stop> {
        let is_plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let full = self.partial.join(path);
        let is_in_folder = full.parent().is_some_and(|parent| {
            parent
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir())
        });
        if is_plain && is_in_folder {
            Ok(full)
        } else {
            Err(nonsense())
        }
    }

    fn write(
        &self,
        path: &Path,
        bytes: u64,
        offset: u64,
        input: &mut Counted<'_, impl Read>,
        output: &mut impl Write,
    ) -> Result<(), Stop> {
        let failed = |error: io::Error| self.failed(path, &error);
        if offset > 0 {
            // It may be whole, with a mode that denies its owner to write.
            self.set_mode(path, 0o600)?;
        }
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(no_follow)
            .open(path)
            .map_err(failed)?;
        let mut rest = bytes;
        let mut buffer = vec![0; 64 << 10];
        while rest > 0 {
            let most = buffer
                .len()
                .min(usize::try_from(rest).unwrap_or(usize::MAX));
            let length = match input.read(&mut buffer[..most]) {
                Ok(0) => return Err(Stop::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Broken(error)),
            };
            file.write_all(&buffer[..length]).map_err(failed)?;
            rest -= length as u64;
            input.tell(output)?;
        }
        Ok(())
    }

    fn set_mode(&self, path: &Path, mode: u32) -> Result<(), Stop> {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|error| self.failed(path, &error))
    }

    fn complete(&self, digest: &str) -> Result<(), Stop> {
        let found = tree::digest(&self.partial);
        let reason = match found {
            Ok(found) if found == digest => {
                return fs::rename(&self.partial, &self.whole)
                    .map_err(|error| self.failed(&self.whole, &error));
            }
            Ok(found) => format!("what arrived has the digest `{found}`, not `{digest}`"),
            Err(error) => chain(&error),
        };
        self.discard(&self.partial)?;
        Err(Stop::Spoiled(reason))
    }

    fn discard(&self, tree: &Path) -> Result<(), Stop> {
        remove_tree(tree).map_err(|error| {
            Stop::Refused(format!(
                "remove the unfinished package `{}`: {error}",
                tree.display()
            ))
        })
    }

    fn failed(&self, path: &Path, error: &io::Error) -> Stop {
        Stop::Refused(format!("write `{}`: {error}", path.display()))
    }

    fn received(&self) -> Result<Reply, Stop> {
        match self.whole.to_str() {
            Some(path) => Ok(Reply::Received {
                path: path.to_owned(),
            }),
            None => Err(Stop::Refused(format!(
                "the path `{}` is not UTF-8",
                self.whole.display()
            ))),
        }
    }
}

fn of_input(error: io::Error) -> Stop {
    if error.kind() == io::ErrorKind::InvalidData {
        nonsense()
    } else {
        Stop::Broken(error)
    }
}

fn nonsense() -> Stop {
    Stop::Spoiled("what arrived is not a package".to_owned())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Removes a tree, whatever the modes of its folders are.
fn remove_tree(tree: &Path) -> io::Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let nodes = tree::walk(tree).unwrap_or_default();
            for node in nodes.iter().filter(|node| node.kind == Kind::Directory) {
                fs::set_permissions(tree.join(&node.path), Permissions::from_mode(0o700))?;
            }
            fs::remove_dir_all(tree)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The stream, with a count of what has been taken of it.
struct Counted<'a, R> {
    input: &'a mut BufReader<R>,
    bytes: u64,
    told: u64,
}

impl<R: Read> Counted<'_, R> {
    /// Says how much has been taken, when there is enough to say.
    fn tell(&mut self, output: &mut impl Write) -> Result<(), Stop> {
        if self.bytes - self.told >= PART {
            self.told = self.bytes;
            say(output, &Reply::Taken { bytes: self.bytes }).map_err(Stop::Broken)?;
        }
        Ok(())
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.bytes += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::stream::Outgoing;

    const CACHE: &str = "app-shop/group-web/deploy-r1-1";

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let package = dir.path().join("package");
            fs::create_dir_all(package.join("bin/deep")).unwrap();
            fs::create_dir(package.join("empty")).unwrap();
            fs::write(package.join("appspec.yml"), "version: 0.0\n").unwrap();
            let noise: Vec<u8> = (0..300_000_u32).map(|n| (n * 31 % 251) as u8).collect();
            fs::write(package.join("bin/deep/large"), noise).unwrap();
            fs::write(package.join("bin/nothing"), "").unwrap();
            symlink("bin/deep", package.join("link")).unwrap();
            for (path, mode) in [
                ("bin/nothing", 0o400),
                ("bin/deep", 0o555),
                ("empty", 0o700),
            ] {
                fs::set_permissions(package.join(path), Permissions::from_mode(mode)).unwrap();
            }
            Self { dir }
        }

        fn package(&self) -> PathBuf {
            self.dir.path().join("package")
        }

        fn offer(&self, instance: &str) -> Offer {
            Offer {
                rootdir: self.dir.path().join(instance).display().to_string(),
                cache: CACHE.to_owned(),
                digest: tree::digest(&self.package()).unwrap(),
                bytes: Outgoing::of(&self.package()).unwrap().bytes(),
                siblings: Vec::new(),
            }
        }

        fn stream(&self, position: Position) -> Vec<u8> {
            let mut outgoing = Outgoing::of(&self.package()).unwrap();
            outgoing.skip_to(position);
            let mut all = Vec::new();
            // An odd size, so that headers and files are cut everywhere.
            let mut buffer = [0; 7919];
            loop {
                match outgoing.read(&mut buffer).unwrap() {
                    0 => return all,
                    length => all.extend_from_slice(&buffer[..length]),
                }
            }
        }

        fn received(&self, instance: &str) -> String {
            let hex = tree::digest(&self.package()).unwrap()["sha256:".len()..].to_owned();
            let path = self.dir.path().join(instance).join(INBOX).join(hex);
            path.display().to_string()
        }
    }

    /// What is answered to an offer followed by these bytes, without the counts of what has been taken.
    fn answers(offer: &Offer, stream: &[u8]) -> (Vec<Reply>, io::Result<()>) {
        let input = [protocol::encode(offer), stream.to_vec()].concat();
        let mut output = Vec::new();
        let done = receive(input.as_slice(), &mut output);
        let replies = output
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| protocol::decode(line).unwrap())
            .filter(|reply| !matches!(reply, Reply::Taken { .. }))
            .collect();
        (replies, done)
    }

    #[test]
    fn a_package_arrives_with_its_modes_and_links() {
        let bench = Bench::new();
        let offer = bench.offer("web-1");

        let (replies, done) = answers(&offer, &bench.stream(Position::default()));

        done.unwrap();
        let path = bench.received("web-1");
        let begin = Reply::Send {
            position: Position::default(),
        };
        assert_eq!(replies, [begin, Reply::Received { path: path.clone() }]);
        assert_eq!(tree::digest(Path::new(&path)).unwrap(), offer.digest);
    }

    /// Breaks off after N bytes, for N over the whole stream, and goes on from where the receiver says.
    #[test]
    fn a_transfer_that_breaks_off_anywhere_goes_on_where_it_was() {
        let bench = Bench::new();
        let whole = bench.stream(Position::default());
        let cuts = (0..400).chain((400..whole.len()).step_by(9973));
        for cut in cuts.chain(whole.len() - 60..whole.len()) {
            let instance = format!("web-{cut}");
            let offer = bench.offer(&instance);

            let (_, broken) = answers(&offer, &whole[..cut]);
            assert!(broken.is_err(), "cut at {cut}");
            let (replies, _) = answers(&offer, b"");
            let Some(Reply::Send { position }) = replies.first() else {
                panic!("cut at {cut}: {replies:?}")
            };
            let rest = bench.stream(*position);
            let (replies, done) = answers(&offer, &rest);

            done.unwrap();
            let path = bench.received(&instance);
            assert_eq!(replies.last(), Some(&Reply::Received { path }), "{cut}");
            assert!(
                rest.len() <= whole.len() - cut + 256,
                "cut at {cut}, {} of {} bytes were sent again",
                rest.len(),
                whole.len()
            );
        }
    }

    #[test]
    fn a_package_that_is_there_is_not_sent_again() {
        let bench = Bench::new();
        let offer = bench.offer("web-1");
        let folder = Folder::at(&offer.rootdir, CACHE).unwrap();
        fs::create_dir_all(folder.path()).unwrap();
        let marker = crate::cache::Marker {
            digest: offer.digest.clone(),
            written_ms: 1,
            boot: None,
        };
        folder.mark(&marker).unwrap();
        assert_eq!(answers(&offer, b"").0, [Reply::Present]);

        let other = bench.offer("web-2");
        let path = bench.received("web-2");
        answers(&other, &bench.stream(Position::default()))
            .1
            .unwrap();
        assert_eq!(answers(&other, b"").0, [Reply::Received { path }]);
    }

    #[test]
    fn an_instance_takes_the_package_from_its_sibling() {
        let bench = Bench::new();
        let first = bench.offer("web-1");
        answers(&first, &bench.stream(Position::default()))
            .1
            .unwrap();
        let sibling = Sibling {
            rootdir: first.rootdir,
            cache: CACHE.to_owned(),
        };
        let second = Offer {
            siblings: vec![sibling],
            ..bench.offer("web-2")
        };

        let path = bench.received("web-2");
        assert_eq!(answers(&second, b"").0, [Reply::Received { path }]);

        fs::write(
            Path::new(&bench.received("web-1")).join("appspec.yml"),
            "other",
        )
        .unwrap();
        let third = Offer {
            rootdir: bench.offer("web-3").rootdir,
            ..second
        };
        assert!(matches!(answers(&third, b"").0[..], [Reply::Send { .. }]));
    }

    #[test]
    fn what_is_not_the_package_is_refused_and_nothing_of_it_stays() {
        let bench = Bench::new();
        let good = bench.stream(Position::default());
        let mut flipped = good.clone();
        let middle = good.len() / 2;
        flipped[middle] ^= 1;
        let streams: [&[u8]; 7] = [
            &flipped,
            b"x\n",
            b"d 755 2 ..\ne\n",
            b"d 755 4 /etc\ne\n",
            b"l 4 link 4 /etc\ne\n",
            b"l 1 a 1 .\nf 644 3 a/b 1\nxe\n",
            b"f 99999999999999999999999 1 a 1\nx",
        ];
        for stream in streams {
            let offer = bench.offer("web-1");
            let (replies, done) = answers(&offer, stream);

            done.unwrap();
            assert!(
                matches!(replies[..], [Reply::Send { .. }, Reply::Spoiled { .. }]),
                "{replies:?}"
            );
            let partial = format!("{}.partial", bench.received("web-1"));
            assert!(!Path::new(&partial).exists());
        }
    }

    #[test]
    fn what_does_not_fit_on_the_disk_is_refused_before_it_is_sent() {
        let bench = Bench::new();
        let offer = Offer {
            bytes: u64::MAX / 2,
            ..bench.offer("web-1")
        };

        let (replies, done) = answers(&offer, b"");

        done.unwrap();
        let [Reply::Refused { reason }] = &replies[..] else {
            panic!("{replies:?}")
        };
        assert!(reason.contains("free, and the package needs"), "{reason}");
    }

    #[test]
    fn packages_that_were_never_fetched_leave_the_inbox() {
        let bench = Bench::new();
        let offer = bench.offer("web-1");
        let stream = bench.stream(Position::default());
        answers(&offer, &stream[..stream.len() / 2]).1.unwrap_err();
        let old = format!("{}.partial", bench.received("web-1"));
        assert!(Path::new(&old).exists());
        fs::write(bench.package().join("appspec.yml"), "version: 1\n").unwrap();

        answers(&bench.offer("web-1"), &bench.stream(Position::default()))
            .1
            .unwrap();

        assert!(!Path::new(&old).exists());
    }
}

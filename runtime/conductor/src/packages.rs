//! The conductor's package store: every package is fetched once, checked, unpacked and kept by its digest.
//!
//! Several conductors may share a store. Who brings a package, or plans with one, holds a lock on it, so that nobody
//! prunes it meanwhile; from the moment that a release is in the journal, the journal says that it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::Digest;

use crate::download::{self, Partial};

/// How long a package is held for a plan that has not become a release.
const HOLD: Duration = Duration::from_secs(3600);

/// What says that a package is whole: the digest of its tree, and the boot in which that was last known.
const SEAL: &str = "tree-digest";
/// How many contents a server is asked to tell apart at once.
const MOST_TAGS: usize = 16;
/// The ways in which a package was built, each an empty file.
const BUILT: &str = "built";
/// What came from where, each a file with the tag that the server gave it.
const FETCHED: &str = "fetched";
const DRAFT: &str = ".partial-";
/// An archive on its way.
const DOWNLOAD: &str = ".download-";
/// How long an archive that is not whole is kept for whoever wants the rest.
const KEPT: Duration = Duration::from_secs(24 * 3600);
const PRUNED: &str = ".pruned-";

/// The store's folder: `DIGEST/tree` is the unpacked package, `DIGEST/tree-digest` its seal, `DIGEST/built` how it was
/// built where it was, `DIGEST/fetched` where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Packages {
    folder: PathBuf,
    /// The packages that this process plans with, by digest.
    holds: Arc<Mutex<BTreeMap<String, (Instant, File)>>>,
    /// What the release that is being planned has fetched.
    fetched: Arc<Mutex<Fetched>>,
}

/// The packages of one release, by what it pinned.
#[derive(Debug, Default)]
struct Fetched {
    release: String,
    packages: BTreeMap<String, Digest>,
}

/// A package in the store.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The digest by which the package is known: of the archive's bytes, or of the folder's tree.
    pub(crate) digest: Digest,
    pub(crate) tree: PathBuf,
    pub(crate) tree_digest: Digest,
}

impl Packages {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            holds: Arc::default(),
            fetched: Arc::default(),
        }
    }

    /// Finds a package, and holds it.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Stored> {
        let folder = self.folder.join(digest.hex());
        let mut seal = File::open(folder.join(SEAL)).ok()?;
        seal.lock_shared().ok()?;
        // It may have been pruned before the lock was had.
        let (held, there) = (seal.metadata().ok()?, folder.join(SEAL).metadata().ok()?);
        if held.ino() != there.ino() {
            return None;
        }
        let mut text = String::new();
        seal.read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let tree_digest = Digest::parse(lines.next()?).ok()?;
        let tree = folder.join("tree");
        // After another boot a package may look whole and not be: what was written had not reached the disk.
        if lines.next() != Some(boot().as_str()) {
            let found = agent::tree::digest(&tree).ok()?;
            if found != tree_digest.as_str() {
                tracing::warn!(folder = %folder.display(), "a package in the store is damaged and is fetched again");
                drop(seal);
                self.remove(&folder);
                return None;
            }
            let resealed = fs::write(folder.join(SEAL), sealed(&tree_digest));
            if let Err(error) = resealed {
                tracing::debug!(folder = %folder.display(), %error, "cannot note that a package is whole");
            }
        }
        self.hold(digest, seal);
        Some(Stored {
            digest: digest.clone(),
            tree,
            tree_digest,
        })
    }

    /// Finds a package that was built in a certain way, and holds it.
    pub(crate) fn find_built(&self, key: &str) -> Option<Stored> {
        let is_so = |name: &String| self.folder.join(name).join(BUILT).join(key).exists();
        self.names()
            .filter(is_so)
            .find_map(|name| self.find(&digest_of(&name)?))
    }

    /// Notes in which way a package was built. Without the note it is merely built again.
    pub(crate) fn note_built(&self, digest: &Digest, key: &str) {
        let folder = self.folder.join(digest.hex()).join(BUILT);
        let noted = fs::create_dir_all(&folder).and_then(|()| File::create(folder.join(key)));
        if let Err(error) = noted {
            tracing::debug!(folder = %folder.display(), %error, "cannot note how a package was built");
        }
    }

    /// Finds what a release has fetched: in one release, a reference stands for one package.
    pub(crate) fn fetched_for(&self, release: &str, pinned: &str) -> Option<Stored> {
        let digest = {
            let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            let same = (fetched.release == release).then_some(&fetched.packages)?;
            same.get(pinned)?.clone()
        };
        self.find(&digest)
    }

    /// Notes what a release has fetched. What another one had is forgotten.
    pub(crate) fn note_fetched_for(&self, release: &str, pinned: &str, digest: &Digest) {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if fetched.release != release {
            *fetched = Fetched {
                release: release.to_owned(),
                packages: BTreeMap::new(),
            };
        }
        fetched.packages.insert(pinned.to_owned(), digest.clone());
    }

    /// Finds what was fetched from a place, by the tags that it had there, and holds it.
    pub(crate) fn fetched_from(&self, key: &str) -> Vec<(String, Stored)> {
        let tag_of = |name: &String| {
            let note = self.folder.join(name).join(FETCHED).join(key);
            let tag = fs::read_to_string(note).ok()?;
            // It becomes a header.
            let is_tag = tag.starts_with('"') && tag.bytes().all(|b| (b' '..=b'~').contains(&b));
            is_tag.then_some(tag)
        };
        self.names()
            .filter_map(|name| Some((tag_of(&name)?, self.find(&digest_of(&name)?)?)))
            .take(MOST_TAGS)
            .collect()
    }

    /// Notes where a package was fetched from, and with what tag. Without the note it is merely fetched again.
    pub(crate) fn note_fetched(&self, digest: &Digest, key: &str, tag: &str) {
        let folder = self.folder.join(digest.hex()).join(FETCHED);
        let noted = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(key), tag));
        if let Err(error) = noted {
            tracing::debug!(folder = %folder.display(), %error, "cannot note where a package came from");
        }
    }

    /// Opens the archive on its way from a place. Waits while somebody else brings it.
    pub(crate) fn partial(&self, key: &str) -> io::Result<Partial> {
        Partial::open(self.folder.join(format!("{DOWNLOAD}{key}")))
    }

    /// Makes a fresh folder to bring a package into.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        let number = DRAFTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = self
            .folder
            .join(format!("{DRAFT}{}-{number}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let seal = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(folder.join(SEAL))?;
        seal.lock()?;
        Ok(Draft { folder, seal })
    }

    /// Keeps a draft whose `tree` is complete under its digest. The rename makes it visible whole or not at all.
    pub(crate) fn keep(
        &self,
        mut draft: Draft,
        digest: Digest,
        tree_digest: Digest,
    ) -> io::Result<Stored> {
        draft.seal.rewind()?;
        draft.seal.write_all(sealed(&tree_digest).as_bytes())?;
        let folder = self.folder.join(digest.hex());
        match fs::rename(&draft.folder, &folder) {
            Ok(()) => {
                let seal = draft.seal.try_clone()?;
                // From alone to together with others: the same open file, so it is never let go.
                seal.lock_shared()?;
                self.hold(&digest, seal);
            }
            // Somebody else brought the same package meanwhile; the draft goes when it is dropped.
            Err(error) => return self.find(&digest).ok_or(error),
        }
        Ok(Stored {
            digest,
            tree: folder.join("tree"),
            tree_digest,
        })
    }

    /// Whether there is nothing to prune: no leftovers, and no more than the package that was just used.
    pub(crate) fn is_tidy(&self) -> bool {
        let mut packages = 0;
        self.names().all(|name| {
            packages += usize::from(digest_of(&name).is_some());
            let leftovers = [DRAFT, DOWNLOAD, PRUNED];
            packages < 2 && !leftovers.iter().any(|leftover| name.starts_with(leftover))
        })
    }

    /// Removes every package that is not among those needed and that nobody holds, and what is left of packages that
    /// were not brought or removed to the end. Answers with the digests of those that are gone.
    pub(crate) fn prune(&self, needed: &BTreeSet<Digest>) -> Vec<Digest> {
        self.holds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, (since, _)| since.elapsed() < HOLD);
        let mut gone = Vec::new();
        for name in self.names() {
            let folder = self.folder.join(&name);
            if name.starts_with(PRUNED) {
                remove(&folder);
            } else if name.starts_with(DRAFT) {
                if let Some(_claim) = Claim::on(&folder) {
                    self.remove(&folder);
                }
            } else if name.starts_with(DOWNLOAD) {
                self.prune_download(&folder);
            } else if let Some(digest) = digest_of(&name)
                && !needed.contains(&digest)
                && let Some(_claim) = Claim::on(&folder)
                && self.remove(&folder)
            {
                gone.push(digest);
            }
        }
        gone
    }

    /// Removes an archive that nobody brings and nobody could go on with, or has for long.
    fn prune_download(&self, folder: &Path) {
        let is_wanted = || {
            let age = download::since(folder)?.elapsed().unwrap_or_default();
            Some(age < KEPT)
        };
        if let Some(_claim) = download::claim(folder)
            && is_wanted() != Some(true)
        {
            self.remove(folder);
        }
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    }

    /// Takes the folder's name away before it takes the folder apart: a kill in between leaves nothing that is taken
    /// for a package.
    fn remove(&self, folder: &Path) -> bool {
        let number = DRAFTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let aside = self
            .folder
            .join(format!("{PRUNED}{}-{number}", std::process::id()));
        if aside.exists() {
            remove(&aside);
        }
        match fs::rename(folder, &aside) {
            Ok(()) => {
                remove(&aside);
                true
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove a package");
                false
            }
        }
    }

    fn hold(&self, digest: &Digest, seal: File) {
        self.holds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(digest.hex().to_owned(), (Instant::now(), seal));
    }
}

fn sealed(tree_digest: &Digest) -> String {
    format!("{tree_digest}\n{}\n", boot())
}

/// What tells this boot from others; empty where the system does not say.
pub(crate) fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn digest_of(name: &str) -> Option<Digest> {
    Digest::parse(&format!("sha256:{name}")).ok()
}

/// The sole hold on a package that nobody else holds, for as long as it takes to remove it. Who waits for the lock
/// meanwhile finds the package gone.
struct Claim(#[expect(dead_code, reason = "it is the lock on it that counts")] Option<File>);

impl Claim {
    fn on(folder: &Path) -> Option<Self> {
        match File::open(folder.join(SEAL)) {
            Ok(seal) => match seal.try_lock() {
                Err(TryLockError::WouldBlock) => None,
                // Where there are no locks nobody can hold anything.
                Ok(()) | Err(TryLockError::Error(_)) => Some(Self(Some(seal))),
            },
            // Without a seal it is nobody's, unless it is being made at this moment.
            Err(_) => {
                let modified = fs::metadata(folder).and_then(|metadata| metadata.modified());
                let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > HOLD));
                is_old.then_some(Self(None))
            }
        }
    }
}

static DRAFTS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// A package on its way into the store; it is removed unless it is kept.
#[derive(Debug)]
pub(crate) struct Draft {
    folder: PathBuf,
    seal: File,
}

impl Draft {
    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.join("archive")
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.folder.exists() {
            remove(&self.folder);
        }
    }
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove a package that is not needed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
            }
        }

        /// The store, as another process sees it.
        fn store(&self) -> Packages {
            Packages::new(self.folder.path().join("packages"))
        }

        fn bring(&self, store: &Packages, text: &str) -> Digest {
            let draft = store.draft().unwrap();
            fs::create_dir(draft.tree()).unwrap();
            fs::write(draft.tree().join("file"), text).unwrap();
            let digest = Digest::parse(&agent::tree::digest(&draft.tree()).unwrap()).unwrap();
            let stored = store.keep(draft, digest.clone(), digest).unwrap();
            stored.digest
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = self.store().names().collect();
            names.sort();
            names
        }
    }

    #[test]
    fn what_nobody_needs_is_pruned() {
        let bench = Bench::new();
        let [one, two] = ["one", "two"].map(|text| bench.bring(&bench.store(), text));

        let gone = bench.store().prune(&BTreeSet::from([two.clone()]));

        assert_eq!(gone, std::slice::from_ref(&one));
        assert!(bench.store().find(&one).is_none());
        assert!(bench.store().find(&two).is_some());
        assert_eq!(bench.names(), [two.hex()]);
    }

    #[test]
    fn a_package_is_found_by_how_it_was_built_until_it_is_pruned() {
        let bench = Bench::new();
        let digest = bench.bring(&bench.store(), "one");
        bench.store().note_built(&digest, "key");

        let found = bench.store().find_built("key").map(|stored| stored.digest);
        assert_eq!(found, Some(digest));
        assert!(bench.store().find_built("other").is_none());

        bench.store().prune(&BTreeSet::new());
        assert!(bench.store().find_built("key").is_none());
    }

    #[test]
    fn what_is_being_planned_with_is_not_pruned() {
        let bench = Bench::new();
        let planner = bench.store();
        let brought = bench.bring(&planner, "one");
        let found = bench.bring(&bench.store(), "two");
        planner.find(&found).unwrap();

        assert_eq!(bench.store().prune(&BTreeSet::new()), []);
        drop(planner);

        let mut gone = bench.store().prune(&BTreeSet::new());
        gone.sort();
        let mut expected = vec![brought, found];
        expected.sort();
        assert_eq!(gone, expected);
    }

    #[test]
    fn a_draft_goes_when_its_process_is_gone_and_not_before() {
        let bench = Bench::new();
        let store = bench.store();
        let draft = store.draft().unwrap();
        fs::create_dir(draft.tree()).unwrap();

        bench.store().prune(&BTreeSet::new());
        assert!(draft.tree().is_dir());

        let (folder, seal) = (draft.folder.clone(), draft.seal.try_clone().unwrap());
        // As a kill leaves it: the lock is let go, the folder stays.
        std::mem::forget(draft);
        seal.unlock().unwrap();
        bench.store().prune(&BTreeSet::new());
        assert!(!folder.exists());
        assert_eq!(bench.names(), Vec::<String>::new());
    }

    #[test]
    fn what_a_kill_left_of_a_package_being_removed_is_no_package() {
        let bench = Bench::new();
        let digest = bench.bring(&bench.store(), "one");
        let store = bench.folder.path().join("packages");
        fs::rename(store.join(digest.hex()), store.join(".pruned-1-1")).unwrap();

        assert!(bench.store().find(&digest).is_none());
        bench.store().prune(&BTreeSet::new());

        assert_eq!(bench.names(), Vec::<String>::new());
    }

    #[test]
    fn after_another_boot_a_package_is_looked_at_before_it_is_used() {
        let bench = Bench::new();
        let digests = ["whole", "torn"].map(|text| bench.bring(&bench.store(), text));
        for digest in &digests {
            let folder = bench.folder.path().join("packages").join(digest.hex());
            fs::write(folder.join(SEAL), format!("{digest}\nanother boot\n")).unwrap();
        }
        let torn = bench.folder.path().join("packages").join(digests[1].hex());
        fs::write(torn.join("tree/file"), "").unwrap();

        assert!(bench.store().find(&digests[0]).is_some());
        assert!(bench.store().find(&digests[1]).is_none());

        let seal = bench.folder.path().join("packages").join(digests[0].hex());
        let seal = fs::read_to_string(seal.join(SEAL)).unwrap();
        assert!(seal.contains(&boot()), "it is looked at once a boot");
        assert!(!torn.exists());
    }
}

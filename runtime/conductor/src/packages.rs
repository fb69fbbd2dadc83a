//! The conductor's package store: every package is fetched once, checked, unpacked and kept by its digest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::Digest;

/// The store's folder: `DIGEST/tree` is the unpacked package, `DIGEST/tree-digest` the digest of that tree.
#[derive(Debug, Clone)]
pub(crate) struct Packages {
    folder: PathBuf,
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
        Self { folder }
    }

    /// Finds a package.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Stored> {
        let folder = self.folder.join(digest.hex());
        let tree_digest =
            Digest::parse(fs::read_to_string(folder.join("tree-digest")).ok()?.trim()).ok()?;
        Some(Stored {
            digest: digest.clone(),
            tree: folder.join("tree"),
            tree_digest,
        })
    }

    /// Makes a fresh folder to bring a package into.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        let number = DRAFTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = self
            .folder
            .join(format!(".partial-{}-{number}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Draft { folder })
    }

    /// Keeps a draft whose `tree` is complete under its digest. The rename makes it visible whole or not at all.
    pub(crate) fn keep(
        &self,
        draft: Draft,
        digest: Digest,
        tree_digest: Digest,
    ) -> io::Result<Stored> {
        fs::write(draft.folder.join("tree-digest"), tree_digest.as_str())?;
        let folder = self.folder.join(digest.hex());
        match fs::rename(&draft.folder, &folder) {
            Ok(()) => {}
            // Somebody else brought the same package meanwhile; the draft goes when it is dropped.
            Err(_) if folder.join("tree-digest").exists() => {}
            Err(error) => return Err(error),
        }
        Ok(Stored {
            digest,
            tree: folder.join("tree"),
            tree_digest,
        })
    }
}

static DRAFTS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// A package on its way into the store; it is removed unless it is kept.
#[derive(Debug)]
pub(crate) struct Draft {
    folder: PathBuf,
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
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove a package that was not kept");
    }
}

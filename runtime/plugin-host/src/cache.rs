//! Compiled code, kept by the digest of the component that it was compiled from.
//!
//! Compiling costs 30 ms to many seconds, mapping the result into memory a fraction of one. Loading compiled code is
//! as good as running it, so a file is used only when it lies in a directory that nobody else can write to and has
//! the digest that was noted when it was written. Any other file is compiled again.

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use model::Digest;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

/// How the name of a compiled component ends.
const EXTENSION: &str = "cwasm";

/// Compiled components that are kept. The ones written longest ago make room for others.
const MAX_FILES: usize = 64;

/// A directory of compiled components.
pub(crate) struct Cache {
    directory: PathBuf,
    /// Tells engines apart that cannot run each other's code.
    compatibility: String,
}

/// A cache that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open the cache of compiled plugins in `{}`", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the cache of compiled plugins `{}` belongs to another user", path.display())]
    Foreign { path: PathBuf },
    #[error("compile the component")]
    Compile(#[source] wasmtime::Error),
}

impl Cache {
    /// Opens a directory, and makes it if there is none.
    pub(crate) fn open(directory: &Path, engine: &wasmtime::Engine) -> Result<Self, Error> {
        make_private(directory)?;
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let compatibility = hex(&hasher.0.finalize()[..8]);
        Ok(Self {
            directory: directory.to_owned(),
            compatibility,
        })
    }

    /// The compiled component: from the cache, or compiled and put there.
    pub(crate) fn load(
        &self,
        engine: &wasmtime::Engine,
        digest: &Digest,
        wasm: &[u8],
    ) -> Result<Component, Error> {
        let path = self
            .directory
            .join(format!("{}-{}.cwasm", digest.hex(), self.compatibility));
        match read(engine, &path) {
            Ok(Some(component)) => return Ok(component),
            Ok(None) => {}
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "compiled plugin is compiled again");
            }
        }
        let component = Component::from_binary(engine, wasm).map_err(Error::Compile)?;
        let compiled = component.serialize().map_err(Error::Compile)?;
        // The plugin works without the cache; the next start is slower.
        if let Err(error) = self.write(&path, &compiled) {
            tracing::warn!(path = %path.display(), %error, "compiled plugin was not kept");
        }
        Ok(component)
    }

    fn write(&self, path: &Path, compiled: &[u8]) -> io::Result<()> {
        let note = hex(&Sha256::digest(compiled));
        self.replace(&note_path(path), note.as_bytes())?;
        self.replace(path, compiled)?;
        self.prune()
    }

    /// Removes what is too much. Running code is not disturbed: a mapping outlives the name of its file.
    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
            {
                files.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        files.sort();
        let excess = files.len().saturating_sub(MAX_FILES);
        for (_, path) in files.drain(..excess) {
            fs::remove_file(note_path(&path))?;
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .directory
            .join(format!(".{}-{number}.tmp", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(content))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn note_path(path: &Path) -> PathBuf {
    path.with_extension("cwasm.sha256")
}

/// Maps a compiled component: nothing where there is no file, the reason where there is one that is not trusted.
fn read(engine: &wasmtime::Engine, path: &Path) -> Result<Option<Component>, &'static str> {
    let Ok(mut file) = File::open(path) else {
        return Ok(None);
    };
    let metadata = file.metadata().map_err(|_| "its owner cannot be read")?;
    if !metadata.is_file()
        || metadata.uid() != rustix::process::geteuid().as_raw()
        || metadata.mode() & 0o022 != 0
    {
        return Err("others could have written it");
    }
    let noted = fs::read_to_string(note_path(path)).map_err(|_| "it has no digest beside it")?;
    if file_digest(&mut file).map_err(|_| "it cannot be read")? != noted.trim() {
        return Err("it does not have the digest beside it");
    }
    map(engine, path)
        .map(Some)
        .map_err(|_| "this engine cannot use it")
}

/// The only place where code is taken without compiling it.
#[allow(unsafe_code)]
fn map(engine: &wasmtime::Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written by this program: it lies in a directory that only this user can write to, belongs
    // to this user, and has the digest noted when it was written. Files there are replaced by renaming, never written
    // in place, so the mapping does not change under the running code.
    unsafe { Component::deserialize_file(engine, path) }
}

fn make_private(directory: &Path) -> Result<(), Error> {
    let open = |source| Error::Open {
        path: directory.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(open)?;
    let metadata = fs::metadata(directory).map_err(open)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::Foreign {
            path: directory.to_owned(),
        });
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(open)?;
    }
    Ok(())
}

fn file_digest(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A hash that is the same in every build, unlike that of the standard library.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "(component)";

    struct Fixture {
        _root: tempfile::TempDir,
        directory: PathBuf,
        engine: wasmtime::Engine,
        cache: Cache,
        wasm: Vec<u8>,
        digest: Digest,
    }

    fn fixture() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("compiled");
        let engine = wasmtime::Engine::default();
        let cache = Cache::open(&directory, &engine).unwrap();
        let wasm = wat::parse_str(EMPTY).unwrap();
        let digest = Digest::parse(&format!("sha256:{}", hex(&Sha256::digest(&wasm)))).unwrap();
        Fixture {
            _root: root,
            directory,
            engine,
            cache,
            wasm,
            digest,
        }
    }

    impl Fixture {
        fn load(&self) {
            self.cache
                .load(&self.engine, &self.digest, &self.wasm)
                .unwrap();
        }

        fn compiled(&self) -> PathBuf {
            let files = fs::read_dir(&self.directory)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            files
                .into_iter()
                .find(|path| path.extension().is_some_and(|e| e == "cwasm"))
                .unwrap()
        }
    }

    #[test]
    fn a_second_load_uses_the_kept_file() {
        let fixture = fixture();
        fixture.load();

        let first = fs::metadata(fixture.compiled()).unwrap().ino();
        fixture.load();

        assert_eq!(fs::metadata(fixture.compiled()).unwrap().ino(), first);
        assert!(
            read(&fixture.engine, &fixture.compiled())
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_corrupt_or_foreign_file_is_compiled_again() {
        for damage in [
            |path: &Path| fs::write(path, b"garbage").unwrap(),
            |path: &Path| {
                let mut bytes = fs::read(path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(path, bytes).unwrap();
            },
            |path: &Path| fs::remove_file(note_path(path)).unwrap(),
            |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap(),
        ] {
            let fixture = fixture();
            fixture.load();
            damage(&fixture.compiled());
            assert!(read(&fixture.engine, &fixture.compiled()).is_err());

            fixture.load();

            assert!(
                read(&fixture.engine, &fixture.compiled())
                    .unwrap()
                    .is_some()
            );
        }
    }

    #[test]
    fn the_oldest_files_make_room() {
        let fixture = fixture();
        for number in 0..MAX_FILES + 3 {
            let path = fixture.directory.join(format!("{number:03}.cwasm"));
            fs::write(note_path(&path), b"").unwrap();
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            File::create(&path).unwrap().set_modified(at).unwrap();
        }

        fixture.cache.prune().unwrap();

        assert!(
            !fixture.directory.join("002.cwasm").exists()
                && !fixture.directory.join("002.cwasm.sha256").exists()
        );
        assert!(fixture.directory.join("003.cwasm").exists());
    }

    #[test]
    fn an_open_directory_is_made_private() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();

        Cache::open(root.path(), &wasmtime::Engine::default()).unwrap();

        assert_eq!(fs::metadata(root.path()).unwrap().mode() & 0o777, 0o700);
    }
}

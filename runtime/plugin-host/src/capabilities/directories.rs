//! `cutover:plugin/directories`: files in granted directories. Each directory is opened once, when the plugin is
//! loaded, and every path is resolved beneath it, so that neither `..` nor a link leads out.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{Mode, OFlags};

use crate::bindings::cutover::plugin::directories;
use crate::bindings::cutover::plugin::types::Failure;
use crate::call::State;
use crate::limits;
use crate::manifest::Access;
use crate::pattern::Capability;

impl State {
    fn directory(&mut self, name: &str, access: Access) -> Result<Arc<Dir>, Failure> {
        self.allow(&Capability::Directory {
            name: name.to_owned(),
            access,
        })?;
        match self.plugin.directories.get(name) {
            Some(directory) => Ok(Arc::clone(&directory.handle)),
            None => Err(self.fail_invalid(format!("no directory has the name `{name}`"))),
        }
    }
}

impl directories::Host for State {
    async fn read(
        &mut self,
        directory: String,
        path: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Failure>> {
        let dir = match self.directory(&directory, Access::Read) {
            Ok(dir) => dir,
            Err(failure) => return Ok(Err(failure)),
        };
        let what = format!("read `{path}` in directory `{directory}`");
        let read = blocking(move || read_file(&dir, &path)).await;
        Ok(read.map_err(|error| self.fail_io(&what, &error)))
    }

    async fn write(
        &mut self,
        directory: String,
        path: String,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let dir = match self.directory(&directory, Access::ReadWrite) {
            Ok(dir) => dir,
            Err(failure) => return Ok(Err(failure)),
        };
        if data.len() > limits::FILE {
            return Ok(Err(self.fail_invalid(format!(
                "a file may have {} bytes, not {}",
                limits::FILE,
                data.len()
            ))));
        }
        let what = format!("write `{path}` in directory `{directory}`");
        let written = blocking(move || write_file(&dir, Path::new(&path), &data)).await;
        Ok(written.map_err(|error| self.fail_io(&what, &error)))
    }
}

/// Waits for the disk away from the threads that run everything else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn read_file(dir: &Dir, path: &str) -> io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    // Without the flag, opening a named pipe would wait for a writer that may never come.
    options
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    let file = match dir.open_with(path, &options) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not_a_file());
    }
    let mut content = Vec::with_capacity(
        usize::try_from(metadata.len())
            .unwrap_or(0)
            .min(limits::FILE),
    );
    file.take(limits::FILE as u64 + 1)
        .read_to_end(&mut content)?;
    if content.len() > limits::FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {} bytes", limits::FILE),
        ));
    }
    Ok(Some(content))
}

fn write_file(dir: &Dir, path: &Path, data: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);

    // Through a link the file is replaced that it points at, not the link.
    let resolved;
    let path = if dir
        .symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_symlink())
    {
        resolved = dir.canonicalize(path)?;
        &resolved
    } else {
        path
    };
    let name = path.file_name().ok_or_else(not_a_file)?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => dir.open_dir(parent)?,
        _ => dir.try_clone()?,
    };
    let old = match parent.symlink_metadata(name) {
        Ok(metadata) if !metadata.is_file() => return Err(not_a_file()),
        Ok(metadata) => Some(metadata.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };

    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = format!(".cutover-{}-{number}.tmp", std::process::id());
    // A file left by a killed process of the same number is no obstacle; nothing else has such a name.
    let _ = parent.remove_file(&temporary);
    let written = parent
        .open_with(&temporary, OpenOptions::new().write(true).create_new(true))
        .and_then(|mut file| {
            if let Some(permissions) = old {
                file.set_permissions(permissions)?;
            }
            file.write_all(data)?;
            file.sync_all()
        })
        .and_then(|()| parent.rename(&temporary, &parent, name));
    if written.is_err() {
        let _ = parent.remove_file(&temporary);
    }
    written?;
    // The rename itself is durable only when the directory is.
    let directory = rustix::fs::openat(
        &parent,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::fs::fsync(directory)?;
    Ok(())
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use cap_std::ambient_authority;

    use super::*;

    fn fixture() -> (tempfile::TempDir, Dir) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("granted")).unwrap();
        fs::write(root.path().join("outside"), "secret").unwrap();
        let dir = Dir::open_ambient_dir(root.path().join("granted"), ambient_authority()).unwrap();
        (root, dir)
    }

    #[test]
    fn a_file_is_replaced_and_keeps_its_permission_bits() {
        let (root, dir) = fixture();
        let path = root.path().join("granted/a.map");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

        write_file(&dir, Path::new("a.map"), b"new").unwrap();

        assert_eq!(read_file(&dir, "a.map").unwrap().unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(
            fs::read_dir(root.path().join("granted")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_missing_file_reads_as_none_and_can_be_written() {
        let (_root, dir) = fixture();

        assert_eq!(read_file(&dir, "b").unwrap(), None);
        write_file(&dir, Path::new("b"), b"1").unwrap();
        assert_eq!(read_file(&dir, "b").unwrap().unwrap(), b"1");
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let (root, dir) = fixture();
        symlink("../outside", root.path().join("granted/link")).unwrap();
        symlink("..", root.path().join("granted/up")).unwrap();
        let absolute = root.path().join("outside");

        for path in [
            "../outside",
            "link",
            "up/outside",
            absolute.to_str().unwrap(),
        ] {
            assert!(read_file(&dir, path).is_err(), "{path}");
            assert!(write_file(&dir, Path::new(path), b"x").is_err(), "{path}");
        }
        assert_eq!(
            fs::read_to_string(root.path().join("outside")).unwrap(),
            "secret"
        );
    }

    #[test]
    fn a_link_inside_is_followed_and_stays_a_link() {
        let (root, dir) = fixture();
        fs::write(root.path().join("granted/real"), "old").unwrap();
        symlink("real", root.path().join("granted/link")).unwrap();

        write_file(&dir, Path::new("link"), b"new").unwrap();

        assert_eq!(
            fs::read_to_string(root.path().join("granted/real")).unwrap(),
            "new"
        );
        assert!(
            fs::symlink_metadata(root.path().join("granted/link"))
                .unwrap()
                .is_symlink()
        );
    }

    #[test]
    fn a_named_pipe_is_refused_without_waiting() {
        let (_root, dir) = fixture();
        rustix::fs::mknodat(
            &dir,
            "pipe",
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();

        assert!(read_file(&dir, "pipe").is_err());
        assert!(write_file(&dir, Path::new("pipe"), b"x").is_err());
    }
}

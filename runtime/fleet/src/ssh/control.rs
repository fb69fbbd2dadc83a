//! The folder of the sockets that connections share: private, short, and gone when nobody uses it.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

const PREFIX: &str = "cutover-ssh-";

/// The file whose lock says that the folder is in use.
const LOCK: &str = "lock";

/// The longest path of a socket, in bytes: what an address can hold, without what `ssh` appends while it makes one.
const MAX_PATH: usize = 107 - 18;

/// A folder with mode 0700. It goes when this is dropped; what a killed process left is removed by the next one.
#[derive(Debug)]
pub(crate) struct ControlFolder {
    folder: TempDir,
    count: AtomicU64,
    /// Held as long as the folder is in use.
    _lock: File,
}

impl ControlFolder {
    /// Makes a folder where there is room for a socket's name.
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let places = [runtime, Some(env::temp_dir()), Some("/tmp".into())];
        let mut last = io::Error::other("there is no folder for temporary files");
        for place in places.into_iter().flatten() {
            match Self::inside(&place) {
                Ok(control) => return Ok(control),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn inside(place: &Path) -> io::Result<Self> {
        remove_leftovers(place);
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(8)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(place)?;
        let path = folder.path().as_os_str().as_bytes();
        // A `%` begins a placeholder in a name that `ssh` takes.
        if path.len() + "/18446744073709551615".len() > MAX_PATH || path.contains(&b'%') {
            return Err(io::Error::other(format!(
                "the name of `{}` is too long for a socket",
                folder.path().display()
            )));
        }
        let lock = File::create(folder.path().join(LOCK))?;
        lock.try_lock()?;
        Ok(Self {
            folder,
            count: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// A name for a socket that has never been given.
    pub(crate) fn socket(&self) -> PathBuf {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.folder.path().join(number.to_string())
    }
}

/// Removes the folders of processes that were killed.
fn remove_leftovers(place: &Path) {
    let own = fs::metadata("/proc/self").map(|own| own.uid());
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes())
            && entry.metadata().is_ok_and(|found| {
                found.is_dir() && own.as_ref().is_ok_and(|own| *own == found.uid())
            });
        if !is_ours {
            continue;
        }
        // One without a lock is just being made.
        let is_abandoned =
            File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if is_abandoned {
            // Another process may be at it as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_goes_with_its_owner() {
        let place = tempfile::tempdir().unwrap();
        let control = ControlFolder::inside(place.path()).unwrap();
        let path = control.folder.path().to_owned();

        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_ne!(control.socket(), control.socket());
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
        let place = tempfile::tempdir().unwrap();
        let used = ControlFolder::inside(place.path()).unwrap();
        let left = place.path().join("cutover-ssh-left");
        let young = place.path().join("cutover-ssh-young");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        fs::create_dir(&young).unwrap();

        let _other = ControlFolder::inside(place.path()).unwrap();

        assert!(!left.exists());
        assert!(young.exists());
        assert!(used.folder.path().exists());
    }

    #[test]
    fn a_place_with_a_long_name_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let long = place.path().join("x".repeat(80));
        fs::create_dir(&long).unwrap();

        assert!(ControlFolder::inside(&long).is_err());
        assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
    }
}

//! Removing a folder that a build left behind, whatever it did to the permissions in there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a folder with all that is in it. Folders that may not be written to, as the caches of some tools have them,
/// are opened first. Links are removed and never followed.
///
/// # Errors
/// What keeps it from being removed; a folder that is not there is as good as removed.
pub fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open(folder)?;
            gone(fs::remove_dir_all(folder))
        }
        removed => gone(removed),
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Gives the owner every permission on a folder and those below it.
fn open(folder: &Path) -> io::Result<()> {
    let mut left = vec![folder.to_path_buf()];
    while let Some(folder) = left.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}

//! Copying out of a package.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use super::files::{draft, refuse_folder, replace};
use super::place::{self, Missing, Purpose};
use super::{Site, Undone};
use crate::install::folder::{look, remove_all, rename_to_free};
use crate::protocol::{Spot, Why};

/// Copies a file or folder of the package to a place. A file is replaced; where a folder is to go nothing may be.
pub(super) fn place(site: &Site<'_>, artifact: &str, at: &Spot) -> Result<(), Undone> {
    if artifact != "." && !place::is_plain(artifact) {
        let reason = format!("`{artifact}` is not a path in the package");
        return Err(Undone::new(Why::Invalid, reason));
    }
    let package = site
        .package
        .open(site.boot)
        .map_err(|error| Undone::new(Why::NotFound, crate::reason::chain(&error)))?;
    let finding = format!("find `{artifact}` in the package");
    let canonical = |path: &Path| {
        path.canonicalize()
            .map_err(|error| Undone::of_io(&finding, &error))
    };
    let source = canonical(&package.join(artifact))?;
    if !source.starts_with(canonical(&package)?) {
        let reason = format!("`{artifact}` leads out of the package");
        return Err(Undone::new(Why::Denied, reason));
    }
    let to = site.place(at, Purpose::Change, Missing::Make)?;
    let name = place::name(at);
    let doing = format!("copy `{artifact}` to `{name}`");
    let is_folder = source.is_dir();
    if !is_folder {
        refuse_folder(&to, &name)?;
    } else if look(&to.folder, &to.name).is_ok_and(|there| there.is_some()) {
        return Err(Undone::new(
            Why::Invalid,
            format!("`{name}` is there already"),
        ));
    }
    let draft = draft(site);
    let beside = place::through(&to.folder).join(&draft);
    let copied = copy(&source, &beside).map_err(|error| Undone::of_io(&doing, &error));
    let placed = copied.and_then(|()| {
        if !is_folder {
            return replace(&to, &draft, &doing);
        }
        rename_to_free((&to.folder, &draft), (&to.folder, &to.name))
            .and_then(|()| Ok(place::settle(&to.folder)?))
            .map_err(|error| Undone::of_io(&doing, &error))
    });
    placed.inspect_err(|_| {
        // What stays is hidden, and says by its name whose it is.
        let _ = remove_all(&to.folder, &draft);
    })
}

/// Copies a tree with its permission bits; links as they are. What is copied is on the disk afterwards.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if !metadata.is_dir() {
        let mut options = OpenOptions::new();
        let mut copy = options.write(true).create_new(true).mode(0o600).open(to)?;
        io::copy(&mut File::open(from)?, &mut copy)?;
        copy.set_permissions(Permissions::from_mode(mode))?;
        return copy.sync_all();
    }
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    let folder = File::open(to)?;
    folder.set_permissions(Permissions::from_mode(mode))?;
    folder.sync_all()
}

//! Owner, mode, access control lists and SELinux context: what is wanted, and what is there.
//!
//! Everything works on open files, so that nothing can be put in a file's place between looking and changing.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{
    Gid, Mode, Uid, XattrFlags, fchmod, fchown, fgetxattr, fremovexattr, fsetxattr, fstat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::acl::{self, Acl};

/// The attribute of the SELinux context.
pub(crate) const CONTEXT: &str = "security.selinux";

/// The most that an attribute can hold.
const MAX_VALUE: usize = 64 << 10;

/// What a file or folder is to be besides its content. What is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) owner: Option<Uid>,
    pub(crate) group: Option<Gid>,
    pub(crate) mode: Option<u32>,
    pub(crate) acl: Option<Acl>,
    pub(crate) context: Option<String>,
}

/// What a file or folder is besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
    context: Option<Vec<u8>>,
}

/// Whether the host has SELinux enabled.
pub(crate) fn has_contexts() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Whether the file system of an open file or folder keeps access control lists.
pub(crate) fn keeps_lists(file: impl AsFd) -> bool {
    let looked = fgetxattr(file, acl::ACCESS, &mut [0_u8; 0]);
    !matches!(looked, Err(Errno::OPNOTSUPP))
}

/// Looks at an open file or folder.
pub(crate) fn look(file: impl AsFd) -> io::Result<Found> {
    let file = file.as_fd();
    let stat = fstat(file)?;
    Ok(Found {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        access: value(file, acl::ACCESS)?,
        default: value(file, acl::DEFAULT)?,
        context: value(file, CONTEXT)?,
    })
}

/// Gives an open file or folder what it is to have.
pub(crate) fn give(file: impl AsFd, wanted: &Attributes) -> io::Result<()> {
    let file = file.as_fd();
    if wanted.owner.is_some() || wanted.group.is_some() {
        fchown(file, wanted.owner, wanted.group)?;
    }
    let mut base = wanted.mode;
    if wanted.acl.is_some() && base.is_none() {
        base = Some(look(file)?.base());
    }
    // Changing the owner takes the set-user-id bit away, so the mode comes after it.
    if let Some(mode) = base {
        fchmod(file, Mode::from_raw_mode(mode))?;
    }
    if let Some(acl) = &wanted.acl {
        let mode = base.unwrap_or_default();
        set(file, acl::ACCESS, acl.access(mode).as_deref())?;
        if acl.has_default() {
            set(file, acl::DEFAULT, acl.inherited(mode).as_deref())?;
        }
    }
    if let Some(context) = &wanted.context {
        set(file, CONTEXT, Some(&terminated(context)))?;
    }
    Ok(())
}

/// Gives an open file or folder back what it had.
pub(crate) fn give_back(file: impl AsFd, had: &Found) -> io::Result<()> {
    let file = file.as_fd();
    let is = look(file)?;
    if (is.uid, is.gid) != (had.uid, had.gid) {
        fchown(
            file,
            Some(Uid::from_raw(had.uid)),
            Some(Gid::from_raw(had.gid)),
        )?;
    }
    fchmod(file, Mode::from_raw_mode(had.mode))?;
    for (name, is, had) in [
        (acl::ACCESS, &is.access, &had.access),
        (acl::DEFAULT, &is.default, &had.default),
        (CONTEXT, &is.context, &had.context),
    ] {
        if had.is_some() || is.is_some() {
            set(file, name, had.as_deref())?;
        }
    }
    Ok(())
}

impl Found {
    /// Whether there is nothing to change.
    pub(crate) fn meets(&self, wanted: &Attributes) -> bool {
        let mode = wanted.mode.unwrap_or_else(|| self.base());
        let shown = wanted.acl.as_ref().map_or(mode, |acl| acl.shown(mode));
        let has_list = |acl: &Acl| {
            self.access == acl.access(mode)
                && (!acl.has_default() || self.default == acl.inherited(mode))
        };
        wanted.owner.is_none_or(|uid| uid.as_raw() == self.uid)
            && wanted.group.is_none_or(|gid| gid.as_raw() == self.gid)
            && (wanted.mode.is_none() && wanted.acl.is_none() || shown == self.mode)
            && wanted.acl.as_ref().is_none_or(has_list)
            && wanted
                .context
                .as_ref()
                .is_none_or(|context| self.context.as_deref() == Some(&terminated(context)))
    }

    /// Whether it has an access control list beyond its mode.
    pub(crate) fn has_list(&self) -> bool {
        self.access.is_some()
    }

    /// Whether what is made in it begins with an access control list.
    pub(crate) fn has_default_list(&self) -> bool {
        self.default.is_some()
    }

    /// The mode with the owning group's permissions, where a list shows its mask in their place.
    fn base(&self) -> u32 {
        match self.access.as_deref().and_then(acl::owning_group) {
            Some(group) => self.mode & !0o070 | group << 3,
            None => self.mode,
        }
    }
}

fn terminated(context: &str) -> Vec<u8> {
    let mut value = context.as_bytes().to_vec();
    value.push(0);
    value
}

/// The value of an attribute, if there is such an attribute.
pub(crate) fn value(file: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    // Nearly nothing has one, so the room is made only for what is there.
    let length = match fgetxattr(&file, name, &mut [0_u8; 0]) {
        Ok(length) => length,
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let mut value = vec![0; (length + 256).min(MAX_VALUE)];
    let length = fgetxattr(&file, name, &mut value)?;
    value.truncate(length);
    Ok(Some(value))
}

fn set(file: impl AsFd, name: &str, value: Option<&[u8]>) -> io::Result<()> {
    let set = match value {
        Some(value) => fsetxattr(file, name, value, XattrFlags::empty()),
        None => fremovexattr(file, name),
    };
    match set {
        Err(Errno::NODATA | Errno::OPNOTSUPP) if value.is_none() => Ok(()),
        result => Ok(result?),
    }
}

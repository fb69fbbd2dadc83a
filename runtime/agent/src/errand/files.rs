//! Files and links of an errand. What is replaced is replaced by a rename, after the new content is on the disk.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, fstat, openat, readlinkat, renameat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::place::{self, Missing, Place, Purpose};
use super::{Site, Undone};
use crate::install::folder::remove_all;
use crate::protocol::{FileStat, MAX_CONTENT, Spot, Why};

/// What is at a place, links not followed.
pub(super) fn stat(site: &Site<'_>, at: &Spot) -> Result<Option<FileStat>, Undone> {
    let doing = format!("look at `{}`", place::name(at));
    if at.path.is_empty() {
        let folder = match site.folder(at, Missing::Refuse) {
            Err(undone) if undone.why == Why::NotFound => return Ok(None),
            folder => folder?,
        };
        let stat = fstat(&folder).map_err(|errno| Undone::of_call(&doing, errno))?;
        return Ok(Some(told(&stat, None)));
    }
    let place = match site.place(at, Purpose::Look, Missing::Refuse) {
        Err(undone) if undone.why == Why::NotFound => return Ok(None),
        place => place?,
    };
    let stat = match statat(&place.folder, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        stat => stat.map_err(|errno| Undone::of_call(&doing, errno))?,
    };
    let link = link_text(&place).map(|text| text.to_string_lossy().into_owned());
    Ok(Some(told(&stat, link)))
}

fn told(stat: &rustix::fs::Stat, link: Option<String>) -> FileStat {
    FileStat {
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode & 0o7777,
        is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        link,
    }
}

/// The text of a link, where there is one.
fn link_text(place: &Place) -> Option<OsString> {
    let text = readlinkat(&place.folder, &place.name, Vec::new()).ok()?;
    Some(OsStr::from_bytes(text.as_bytes()).to_owned())
}

/// The whole content of a file.
pub(super) fn read(site: &Site<'_>, at: &Spot, max: u32) -> Result<Vec<u8>, Undone> {
    let name = place::name(at);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(site.open(at, flags)?);
    let doing = format!("read `{name}`");
    let metadata = file
        .metadata()
        .map_err(|error| Undone::of_io(&doing, &error))?;
    if !metadata.is_file() {
        return Err(Undone::new(Why::Invalid, format!("`{name}` is not a file")));
    }
    let max = usize::try_from(max).unwrap_or(MAX_CONTENT).min(MAX_CONTENT);
    let mut data = Vec::new();
    file.take(max as u64 + 1)
        .read_to_end(&mut data)
        .map_err(|error| Undone::of_io(&doing, &error))?;
    if data.len() > max {
        let length = metadata.len();
        let reason = format!("`{name}` has {length} bytes, and {max} may be read");
        return Err(Undone::new(Why::Invalid, reason));
    }
    Ok(data)
}

/// Replaces a file.
pub(super) fn write(site: &Site<'_>, at: &Spot, data: &[u8], mode: u32) -> Result<(), Undone> {
    let name = place::name(at);
    if mode & !0o777 != 0 {
        let reason = format!("`{mode:o}` is not the mode of a file: write 0 to 777");
        return Err(Undone::new(Why::Invalid, reason));
    }
    let place = site.place(at, Purpose::Change, Missing::Make)?;
    refuse_folder(&place, &name)?;
    let doing = format!("write `{name}`");
    let draft = draft(site);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&place.folder, &draft, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| Undone::of_call(&doing, errno))?;
    let written = fchmod(&file, Mode::from_raw_mode(mode))
        .map_err(std::io::Error::from)
        .and_then(|()| {
            let mut file = File::from(file);
            file.write_all(data)?;
            file.sync_all()
        });
    written
        .map_err(|error| Undone::of_io(&doing, &error))
        .and_then(|()| replace(&place, &draft, &doing))
        .inspect_err(|_| clear(&place, &draft))
}

/// Points a link at something that is there.
pub(super) fn swap_link(site: &Site<'_>, link: &Spot, to: &Spot) -> Result<(), Undone> {
    let (name, to_name) = (place::name(link), place::name(to));
    let goal = place::real_path(&site.open(to, OFlags::PATH)?)?;
    let place = site.place(link, Purpose::Change, Missing::Make)?;
    let folder = place::real_path(&place.folder)?;
    // A link that says where to go from where it is holds in other mounts too, and stays below its folder.
    let text = if link.folder == to.folder {
        relative(&folder, &goal)
    } else {
        goal
    };
    let doing = format!("link `{name}` to `{to_name}`");
    match statat(&place.folder, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink => {
            let reason = format!("`{name}` is there and is not a link");
            return Err(Undone::new(Why::Invalid, reason));
        }
        Ok(_) if link_text(&place).is_some_and(|known| Path::new(&known) == text) => return Ok(()),
        Ok(_) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(Undone::of_call(&doing, errno)),
    }
    let draft = draft(site);
    symlinkat(&text, &place.folder, &draft).map_err(|errno| Undone::of_call(&doing, errno))?;
    replace(&place, &draft, &doing).inspect_err(|_| clear(&place, &draft))
}

/// The path from a folder to something else, both without links.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let parts = |path: &Path| -> Vec<OsString> {
        let normal = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            _ => None,
        });
        normal.collect()
    };
    let (from, to) = (parts(from), parts(to));
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[shared..].iter().map(|_| OsString::from(".."));
    let path: PathBuf = up.chain(to[shared..].iter().cloned()).collect();
    if path.as_os_str().is_empty() {
        ".".into()
    } else {
        path
    }
}

/// Removes whatever is at a place.
pub(super) fn remove(site: &Site<'_>, at: &Spot) -> Result<(), Undone> {
    let place = match site.place(at, Purpose::Change, Missing::Refuse) {
        Err(undone) if undone.why == Why::NotFound => return Ok(()),
        place => place?,
    };
    let doing = format!("remove `{}`", place::name(at));
    remove_all(&place.folder, &place.name).map_err(|error| Undone::of_io(&doing, &error))?;
    place::settle(&place.folder).map_err(|errno| Undone::of_call(&doing, errno))
}

/// The name of what is made beside a place before it takes it. An attempt is made once, so nobody else has it.
pub(super) fn draft(site: &Site<'_>) -> OsString {
    format!(".errand-{}", site.attempt).into()
}

/// Refuses to put anything in the place of a folder.
pub(super) fn refuse_folder(place: &Place, name: &str) -> Result<(), Undone> {
    let there = statat(&place.folder, &place.name, AtFlags::SYMLINK_NOFOLLOW);
    if there.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
        let reason = format!("`{name}` is there and is a folder");
        return Err(Undone::new(Why::Invalid, reason));
    }
    Ok(())
}

/// Gives what was made beside a place the place.
pub(super) fn replace(place: &Place, draft: &OsStr, doing: &str) -> Result<(), Undone> {
    renameat(&place.folder, draft, &place.folder, &place.name)
        .and_then(|()| place::settle(&place.folder))
        .map_err(|errno| Undone::of_call(doing, errno))
}

fn clear(place: &Place, draft: &OsStr) {
    // What stays is hidden, and says by its name whose it is.
    let _ = unlinkat(&place.folder, draft, AtFlags::empty());
}

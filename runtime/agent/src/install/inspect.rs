//! Whether what is installed is as it was left. Nothing is changed, and nothing waited for.
//!
//! Hooks may change what was installed, and so may the service that they start. What counts is what was changed after the
//! last attempt on the instance had ended, by the host's own clock: files that have another content and were touched
//! since, and files that are gone from a folder that was touched since.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::CWD;

use super::copy::Stamp;
use super::folder;
use super::journal::Journal;
use super::place::is_absent;
use super::record::{Content, Error, Laid, Shelf};
use crate::attempt::{self, Attempt, Standing};
use crate::protocol::{Changed, Inspect, Inspected, What};

/// The most places that an answer lists.
const MAX_LISTED: usize = 20;

/// A time by the host's clock: seconds and nanoseconds.
type Moment = (i64, i64);

/// Looks at what a group has installed.
pub(crate) fn inspect(question: &Inspect, boot: &str) -> Result<Inspected, Error> {
    let Inspect {
        ask,
        rootdir,
        application,
        group,
        instance,
    } = question;
    let shelf = Shelf::at(rootdir, application, group)?;
    let (is_at_work, last_ended) = attempts(rootdir, instance, boot)?;
    let is_at_work = is_at_work || Journal::load(&shelf)?.is_some();
    let installed = shelf.load()?.installed;
    let mut found = Inspected {
        ask: *ask,
        deployment: installed.as_ref().map(|content| content.deployment.clone()),
        is_at_work,
        changed: Vec::new(),
        more: 0,
    };
    if let (false, Some(content)) = (is_at_work, installed) {
        for (place, what) in changes(&content, last_ended) {
            if found.changed.len() < MAX_LISTED {
                let path = place.to_string_lossy().into_owned();
                found.changed.push(Changed { path, what });
            } else {
                found.more += 1;
            }
        }
    }
    Ok(found)
}

/// Whether an attempt on the instance is under way, and when the last one ended.
fn attempts(rootdir: &str, instance: &str, boot: &str) -> Result<(bool, Moment), Error> {
    let folder = attempt::root(rootdir)?.join(".cutover/attempts");
    // An attempt's id is its deployment's, the instance's, the event's and a number, with dots between them.
    let infix = format!(".{instance}.");
    let (mut is_at_work, mut last_ended) = (false, (0, 0));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().into_string() else {
            continue;
        };
        if !id.contains(&infix) {
            continue;
        }
        if let Ok(outcome) = entry.path().join("outcome.json").metadata() {
            last_ended = last_ended.max((outcome.mtime(), outcome.mtime_nsec()));
            continue;
        }
        let standing = Attempt::at(rootdir, &id)?.standing(boot);
        // One that was announced and not asked for has no log.
        is_at_work |=
            matches!(standing, Ok(Standing::Held(_))) && entry.path().join("log").exists();
    }
    Ok((is_at_work, last_ended))
}

fn changes(content: &Content, since: Moment) -> impl Iterator<Item = (&Path, What)> {
    let files = content.files.iter().filter_map(move |laid| {
        let what = change_of_file(laid, since)?;
        Some((laid.place.0.as_path(), what))
    });
    let folders = content.directories.iter().filter_map(move |place| {
        let is_gone = match place.0.symlink_metadata() {
            Ok(metadata) => !metadata.is_dir() && is_after(&metadata, since),
            Err(error) => is_absent(&error) && is_touched(place.0.parent(), since),
        };
        is_gone.then_some((place.0.as_path(), What::Removed))
    });
    files.chain(folders)
}

fn change_of_file(laid: &Laid, since: Moment) -> Option<What> {
    let path = &laid.place.0;
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if is_absent(&error) => {
            return is_touched(path.parent(), since).then_some(What::Removed);
        }
        // What cannot be seen is not known to be changed.
        Err(_) => return None,
    };
    if !is_after(&metadata, since) {
        return None;
    }
    let is_same = match &laid.stamp {
        Some(stamp) => metadata.is_file() && holds(path, stamp).unwrap_or(true),
        // A link that was made anew is another one.
        None => false,
    };
    (!is_same).then_some(What::Changed)
}

fn holds(path: &Path, stamp: &Stamp) -> io::Result<bool> {
    let found = folder::look(CWD, path.as_os_str())?;
    Ok(found.is_some_and(|stat| Stamp::of(&stat).is_content_of(stamp)))
}

/// Whether the nearest folder that is there was touched.
fn is_touched(folder: Option<&Path>, since: Moment) -> bool {
    let mut ancestors = folder.into_iter().flat_map(Path::ancestors);
    let found = ancestors.find_map(|folder| folder.metadata().ok());
    found.is_none_or(|metadata| is_after(&metadata, since))
}

fn is_after(metadata: &Metadata, since: Moment) -> bool {
    (metadata.ctime(), metadata.ctime_nsec()) > since
}

//! An installation from beginning to end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::apply::{self, Changes};
use super::plan::{self, Existing, Obstacles, Owned, Plan, What};
use super::record::{Content, Place, Record, Shelf, places};
use crate::attempt::{is_name, root};
use crate::capture::Capture;
use crate::protocol::{Cause, Install};
use crate::reason::chain;
use crate::shim::{Done, Failure};

/// The most problems that a reason lists, and the most remarks of a note. The log has all of them.
const MAX_LISTED: usize = 20;

/// Lays down the files of a package in place of those of the version before.
pub(crate) fn install(
    work: &Install,
    rootdir: &str,
    package: &Path,
    log: &mut Capture,
) -> Result<Done, Failure> {
    let invalid = |error: &dyn std::error::Error| Failure::new(Cause::Invalid, chain(error));
    let root = root(rootdir).map_err(|error| invalid(&error))?;
    let shelf =
        Shelf::at(rootdir, &work.application, &work.group).map_err(|error| invalid(&error))?;
    if !is_name(&work.deployment) {
        return Err(Failure::new(
            Cause::Invalid,
            format!("`{}` is not a deployment", work.deployment.escape_debug()),
        ));
    }
    let failed = |error: super::record::Error| Failure::new(Cause::InstallFailed, chain(&error));
    let _lock = shelf.lock().map_err(failed)?;
    let before = shelf.load().map_err(failed)?;
    let owned = Owned {
        files: before.files(&shelf),
        directories: before.directories(),
    };
    let plan =
        plan::plan(work, root, package, &owned).map_err(|obstacles| in_the_way(&obstacles, log))?;

    let draft_prefix = draft_prefix(work);
    if before.pending.is_some() {
        apply::remove_drafts(owned.files.iter().map(PathBuf::as_path), &draft_prefix);
    }
    let intent = intent(work, &plan, &before, &shelf, &owned);
    let pending = Record {
        installed: before.installed.clone(),
        pending: Some(intent.clone()),
    };
    shelf
        .save(&pending)
        .and_then(|()| shelf.sync())
        .map_err(failed)?;

    let mut changes = match Changes::new(shelf.undo(), draft_prefix) {
        Ok(changes) => changes,
        Err(error) => return Err(Failure::new(Cause::InstallFailed, chain(&error))),
    };
    let content = change(&mut changes, &plan, intent, &owned, &shelf);
    let saved = content.map_err(|error| chain(&error)).and_then(|content| {
        let record = Record {
            installed: Some(content.clone()),
            pending: None,
        };
        shelf.save(&record).map_err(|error| chain(&error))?;
        Ok(content)
    });
    match saved {
        Ok(content) => {
            let (written, removed) = (changes.written, changes.removed);
            changes.settle();
            forget_kept(&shelf, &content);
            let files = if written == 1 { "file" } else { "files" };
            let mut note = format!("{written} {files} written, {removed} removed");
            log.say(&note);
            for (number, more) in plan.notes.iter().enumerate() {
                log.say(more);
                if number < MAX_LISTED {
                    note.push_str("; ");
                    note.push_str(more);
                }
            }
            let folders = file_systems(root, &plan);
            Ok(Done {
                note: Some(note),
                afterwork: Some(Box::new(move || sync(&folders))),
                ..Done::default()
            })
        }
        Err(reason) => Err(taken_back(reason, changes, &shelf, &before, log)),
    }
}

fn in_the_way(obstacles: &Obstacles, log: &mut Capture) -> Failure {
    let problems = &obstacles.problems;
    for problem in problems {
        log.say(problem);
    }
    let mut reason = format!(
        "nothing was changed: {}",
        problems[..problems.len().min(MAX_LISTED)].join("; ")
    );
    if problems.len() > MAX_LISTED {
        reason.push_str(&format!("; and {} others", problems.len() - MAX_LISTED));
    }
    Failure::new(obstacles.cause, reason)
}

fn taken_back(
    reason: String,
    changes: Changes,
    shelf: &Shelf,
    before: &Record,
    log: &mut Capture,
) -> Failure {
    log.say(&reason);
    let problems = changes.take_back();
    for problem in &problems {
        log.say(&chain(problem));
    }
    let end = match problems.first() {
        // Files that are neither the old nor the new version's stay known as the group's own through `pending`.
        Some(problem) => format!("not everything could be put back: {}", chain(problem)),
        None => match shelf.save(before) {
            Ok(()) => "the files are as they were before".to_owned(),
            Err(error) => format!("the files are as they were before, but {}", chain(&error)),
        },
    };
    Failure::new(Cause::InstallFailed, format!("{reason}; {end}"))
}

/// What will be the group's own when the plan has been carried out, and may be from the first change on.
fn intent(work: &Install, plan: &Plan, before: &Record, shelf: &Shelf, owned: &Owned) -> Content {
    let mut kept = before.kept(shelf);
    let mut name = before.free_name();
    let mut files = BTreeSet::new();
    let mut directories = BTreeSet::new();
    for (place, entry) in &plan.entries {
        if entry.existing == Existing::Foreign {
            kept.insert(place.clone(), name.to_string());
            name += 1;
        }
        match entry.what {
            What::Directory
                if entry.existing == Existing::Same && !owned.directories.contains(place) => {}
            What::Directory => {
                directories.insert(Place(place.clone()));
            }
            What::File { .. } | What::Link { .. } => {
                files.insert(Place(place.clone()));
            }
        }
    }
    // Folders that could not be removed because something was in them stay known.
    directories.extend(places(owned.directories.iter().map(PathBuf::as_path)));
    let kept = kept
        .into_iter()
        .map(|(place, name)| (Place(place), name))
        .collect();
    Content {
        deployment: work.deployment.clone(),
        files,
        directories,
        kept,
    }
}

/// Makes all changes and says what is installed then.
fn change(
    changes: &mut Changes,
    plan: &Plan,
    mut content: Content,
    owned: &Owned,
    shelf: &Shelf,
) -> Result<Content, apply::Error> {
    let kept_dir = shelf.kept();
    let kept: BTreeMap<PathBuf, PathBuf> = content
        .kept
        .iter()
        .map(|(place, name)| (place.0.clone(), kept_dir.join(name)))
        .collect();
    for (place, entry) in &plan.entries {
        changes.bring(
            place,
            entry,
            kept.get(place).map(PathBuf::as_path),
            &owned.files,
        )?;
    }
    let is_dropped = |place: &&PathBuf| {
        !plan.entries.contains_key(*place) && is_reached(place, &owned.directories)
    };
    for place in owned.files.iter().filter(is_dropped) {
        match kept.get(place) {
            Some(original) => changes.bring_back(original, place)?,
            None => changes.remove(place)?,
        }
    }
    content
        .kept
        .retain(|(place, _)| plan.entries.contains_key(&place.0));
    for place in owned.directories.iter().rev().filter(is_dropped) {
        changes.remove_directory(place)?;
    }
    content.directories.retain(|place| {
        place
            .0
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_dir())
    });
    Ok(content)
}

/// Whether the way to a place still goes through the folders that were made for it, and not through a link that has
/// taken the place of one.
fn is_reached(place: &Path, directories: &BTreeSet<PathBuf>) -> bool {
    let made = place
        .ancestors()
        .skip(1)
        .filter(|ancestor| directories.contains(*ancestor));
    made.into_iter().all(|dir| {
        dir.symlink_metadata()
            .is_ok_and(|metadata| metadata.is_dir())
    })
}

/// Drops foreign files that are back in their places.
fn forget_kept(shelf: &Shelf, content: &Content) {
    let wanted: BTreeSet<&str> = content.kept.iter().map(|(_, name)| name.as_str()).collect();
    for entry in fs::read_dir(shelf.kept()).into_iter().flatten().flatten() {
        if !wanted.contains(entry.file_name().to_string_lossy().as_ref()) {
            // What stays takes room and nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Short and the group's own, so that several groups can install into one folder at the same time.
fn draft_prefix(work: &Install) -> String {
    let digest = Sha256::digest(format!("{}/{}", work.application, work.group));
    let short: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(".cutover-{short}-")
}

/// One folder on each file system that was written to.
fn file_systems(root: &Path, plan: &Plan) -> Vec<PathBuf> {
    let mut devices = BTreeMap::new();
    let folders = plan
        .entries
        .keys()
        .filter_map(|place| place.parent())
        .collect::<BTreeSet<_>>();
    for folder in folders.into_iter().chain([root]) {
        if let Ok(metadata) = folder.metadata() {
            devices
                .entry(metadata.dev())
                .or_insert_with(|| folder.to_path_buf());
        }
    }
    devices.into_values().collect()
}

fn sync(folders: &[PathBuf]) {
    for folder in folders {
        // The kernel writes everything in its own time otherwise.
        let _ = File::open(folder).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
    }
}

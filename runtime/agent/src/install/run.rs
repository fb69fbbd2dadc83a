//! An installation from beginning to end.
//!
//! | what happens | what an installation after a crash at this point does |
//! |---|---|
//! | plan: everything that stands in the way is found | begins anew |
//! | the journal is made durable | removes it |
//! | stage: everything is prepared beside its place | removes what is prepared |
//! | the journal enters its second phase, durably | nothing to take back |
//! | swap: everything takes its place | takes it back |
//! | all file systems are flushed | takes it back |
//! | the record says that it finished, durably | clears up |
//! | clear up: what was replaced is removed | clears up |

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::CWD;
use sha2::{Digest, Sha256};

use super::compare::{self, Plan};
use super::copy::Stamp;
use super::folder;
use super::journal::{Change, Journal, Phase};
use super::judge;
use super::owned::Owned;
use super::place::Resolver;
use super::plan;
use super::preflight;
use super::record::{self, Place, Record, Shelf};
use super::stage;
use super::swap;
use crate::attempt::{is_name, root};
use crate::capture::Capture;
use crate::protocol::{Cause, Install};
use crate::reason::chain;
use crate::shim::{Done, Failure};

/// The most problems that a reason lists, and the most remarks of a note. The log has all of them.
const MAX_LISTED: usize = 20;

/// Of how many installations the files are kept that somebody had changed.
const MAX_CHANGED: usize = 5;

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
    let _lock = shelf.lock().map_err(failed)?;
    let shelf = shelf.found().map_err(failed)?;
    let before = shelf.load().map_err(failed)?;
    recover(&shelf, &before, log)?;
    let real = |path: &Path| {
        path.canonicalize()
            .map_err(|error| failed_with(format!("find `{}`: {error}", path.display())))
    };
    let (root, package) = (real(root)?, real(package)?);

    let (plan, owned) = plan(work, &root, &package, &before, &shelf, log)?;
    let journal = Journal {
        serial: before.serial + 1,
        deployment: work.deployment.clone(),
        stage: stage_name(work, &root),
        folders: stage::folders(&plan.steps).into_iter().map(Place).collect(),
        changes: plan.steps.iter().map(|step| step.change.clone()).collect(),
    };
    if !preflight::is_idle(&plan) {
        journal.begin(&shelf).map_err(failed)?;
        if let Err(error) = stage::prepare(&plan, &journal, &shelf) {
            let reason = format!("{}; nothing was changed", explained(&error));
            log.say(&reason);
            tidy(&journal, &shelf, &before, log);
            empty(&shelf.trash());
            return Err(failed_with(reason));
        }
        Journal::enter(Phase::Swapping, &shelf).map_err(|error| {
            tidy(&journal, &shelf, &before, log);
            failed(error)
        })?;
    }
    let finished = swap::carry_out(&plan, &journal, &owned)
        .map_err(|error| explained(&error))
        .and_then(|()| {
            let has_aside = !plan.keep.is_empty() || !plan.changed.is_empty();
            flush(&journal, has_aside.then_some(shelf.dir()))
        })
        .and_then(|()| commit(&plan, &before, &shelf));
    let after = match finished {
        Ok(after) => after,
        Err(reason) => return Err(taken_back(&reason, &journal, &shelf, &before, log)),
    };
    tidy(&journal, &shelf, &after, log);
    Ok(Done {
        note: Some(note(&plan, &journal, &shelf, log)),
        afterwork: Some(Box::new(move || empty(&shelf.trash()))),
        ..Done::default()
    })
}

/// Finds out what stands in the way of an installation, without changing anything. An installation that was interrupted
/// hides what is there: then only the installation itself can tell.
pub(crate) fn check(
    work: &Install,
    rootdir: &str,
    package: &Path,
    log: &mut Capture,
) -> Result<(), Failure> {
    let invalid = |error: &dyn std::error::Error| Failure::new(Cause::Invalid, chain(error));
    let root = root(rootdir).map_err(|error| invalid(&error))?;
    let shelf =
        Shelf::at(rootdir, &work.application, &work.group).map_err(|error| invalid(&error))?;
    let _lock = shelf.lock().map_err(failed)?;
    let shelf = shelf.found().map_err(failed)?;
    if Journal::load(&shelf).map_err(failed)?.is_some() {
        return Ok(());
    }
    let before = shelf.load().map_err(failed)?;
    let real = |path: &Path| {
        path.canonicalize()
            .map_err(|error| failed_with(format!("find `{}`: {error}", path.display())))
    };
    let (root, package) = (real(root)?, real(package)?);
    plan(work, &root, &package, &before, &shelf, log).map(drop)
}

/// Finds out everything that is to be done, or everything that keeps it from being done.
fn plan(
    work: &Install,
    root: &Path,
    package: &Path,
    before: &Record,
    shelf: &Shelf,
    log: &mut Capture,
) -> Result<(Plan, Owned), Failure> {
    let installed = before.installed.as_ref();
    let mut resolver = Resolver::new(installed);
    let owned = Owned::find(installed, shelf, &mut resolver);
    let mut draft = plan::draft(work, root, package, &owned, &mut resolver);
    draft.notes.extend(owned.notes.iter().cloned());
    let mut problems = std::mem::take(&mut draft.problems);
    let cause = if problems.is_empty() {
        Cause::InstallFailed
    } else {
        Cause::Invalid
    };
    let first_name = installed.map_or(0, record::Content::free_name);
    match compare::compare(draft, work, &owned, first_name) {
        Ok(plan) => {
            if problems.is_empty() {
                problems = preflight::check(&plan, shelf);
            }
            if problems.is_empty() {
                return Ok((plan, owned));
            }
        }
        Err(conflicts) => problems.extend(conflicts),
    }
    for problem in &problems {
        log.say(problem);
    }
    let mut reason = format!(
        "nothing was changed: {}",
        problems[..problems.len().min(MAX_LISTED)].join("; ")
    );
    if problems.len() > MAX_LISTED {
        reason.push_str(&format!("; and {} others", problems.len() - MAX_LISTED));
    }
    Err(Failure::new(cause, reason))
}

/// Ends what an installation that was killed, or whose host went down, had begun.
fn recover(shelf: &Shelf, before: &Record, log: &mut Capture) -> Result<(), Failure> {
    let Some((journal, phase)) = Journal::load(shelf).map_err(failed)? else {
        return Ok(());
    };
    let has_finished = journal.serial <= before.serial;
    if phase == Phase::Swapping && !has_finished {
        let problems = swap::take_back(&journal);
        for problem in &problems {
            log.say(&chain(problem));
        }
        if let Some(problem) = problems.first() {
            return Err(failed_with(format!(
                "the interrupted installation of `{}` could not be taken back: {}; put that right and deploy again",
                journal.deployment,
                chain(problem)
            )));
        }
        back_in_stage(&journal, shelf).map_err(failed_with)?;
        log.say(&format!(
            "the interrupted installation of `{}` was taken back",
            journal.deployment
        ));
    }
    tidy(&journal, shelf, before, log);
    empty(&shelf.trash());
    // What cannot be removed at the second time either is in nobody's way.
    Journal::close(shelf).map_err(failed)
}

/// Removes what an installation needed only for the time that it took.
fn tidy(journal: &Journal, shelf: &Shelf, record: &Record, log: &mut Capture) {
    let problems = swap::clear(journal, &shelf.trash());
    for problem in &problems {
        log.say(&chain(problem));
    }
    forget(shelf, record);
    if problems.is_empty() {
        // What stays is found by the next installation, and still true.
        let _ = Journal::close(shelf);
    }
}

/// Empties the trash. Several may do so at the same time.
fn empty(trash: &Path) {
    if let (Some(parent), Some(name)) = (trash.parent(), trash.file_name()) {
        // What stays takes room and nothing else, and is tried again.
        let _ = File::open(parent).map(|dir| folder::remove_all(dir, name));
    }
}

/// Writes down what is installed. From here on nothing is taken back.
fn commit(plan: &Plan, before: &Record, shelf: &Shelf) -> Result<Record, String> {
    let mut content = plan.content.clone();
    for laid in &mut content.files {
        let place = &laid.place.0;
        let found = folder::look(CWD, place.as_os_str())
            .map_err(|error| format!("look at `{}`: {error}", place.display()))?;
        laid.stamp = found.filter(folder::is_file).map(|stat| Stamp::of(&stat));
    }
    for adjusted in &mut content.adjusted {
        let place = &adjusted.place.0;
        adjusted.gave = judge::attributes_of(place)
            .map_err(|error| format!("look at `{}`: {error}", place.display()))?;
    }
    let after = Record {
        serial: before.serial + 1,
        installed: Some(content),
    };
    shelf.save(&after).map_err(|error| chain(&error))?;
    match shelf.sync() {
        Ok(()) => Ok(after),
        // What is taken back must not be found as finished.
        Err(error) => match shelf.save(before) {
            Ok(()) => Err(chain(&error)),
            Err(_) => Ok(after),
        },
    }
}

fn taken_back(
    reason: &str,
    journal: &Journal,
    shelf: &Shelf,
    before: &Record,
    log: &mut Capture,
) -> Failure {
    log.say(reason);
    let problems = swap::take_back(journal);
    for problem in &problems {
        log.say(&chain(problem));
    }
    let end = match problems.first() {
        Some(problem) => format!(
            "not everything could be put back, and the next installation tries again: {}",
            chain(problem)
        ),
        None => match back_in_stage(journal, shelf) {
            Ok(()) => {
                tidy(journal, shelf, before, log);
                empty(&shelf.trash());
                "the files are as they were before".to_owned()
            }
            Err(error) => format!("the files are as they were before, but {error}"),
        },
    };
    failed_with(format!("{reason}; {end}"))
}

/// Writes down that everything was taken back. What was there must be durable in its place before that, for what stays
/// in the stages is removed afterwards.
fn back_in_stage(journal: &Journal, shelf: &Shelf) -> Result<(), String> {
    flush(journal, None)?;
    Journal::enter(Phase::Staging, shelf).map_err(|error| chain(&error))
}

/// Makes durable what was put in place or taken back: once for each file system, not for each file.
fn flush(journal: &Journal, aside: Option<&Path>) -> Result<(), String> {
    let folders = journal.folders.iter().map(|folder| folder.0.as_path());
    let adjusted = journal.changes.iter().filter_map(|change| match change {
        Change::Adjust { place, .. } => Some(place.0.as_path()),
        Change::Swap { .. } => None,
    });
    let mut devices = BTreeMap::new();
    for folder in folders.chain(adjusted).chain(aside) {
        // One that is gone has nothing to flush.
        if let Ok(metadata) = folder.metadata() {
            devices.entry(metadata.dev()).or_insert(folder);
        }
    }
    for folder in devices.into_values() {
        File::open(folder)
            .and_then(|folder| Ok(rustix::fs::syncfs(folder)?))
            .map_err(|error| format!("flush the file system of `{}`: {error}", folder.display()))?;
    }
    Ok(())
}

/// Says what was done.
fn note(plan: &Plan, journal: &Journal, shelf: &Shelf, log: &mut Capture) -> String {
    let (written, removed) = preflight::counts(plan);
    let files = if written == 1 { "file" } else { "files" };
    let mut note = format!("{written} {files} written, {removed} removed");
    log.say(&note);
    let changed = plan.changed.iter().enumerate().map(|(number, place)| {
        let kept = shelf.changed().join(journal.serial.to_string());
        format!(
            "`{}` had been changed since it was installed: the changed file is kept as `{}`",
            place.display(),
            kept.join(stage::changed_name(number, place)).display()
        )
    });
    let remarks: Vec<String> = changed.chain(plan.notes.iter().cloned()).collect();
    for (number, remark) in remarks.iter().enumerate() {
        log.say(remark);
        if number < MAX_LISTED {
            note.push_str("; ");
            note.push_str(remark);
        }
    }
    if remarks.len() > MAX_LISTED {
        note.push_str(&format!("; and {} others", remarks.len() - MAX_LISTED));
    }
    note
}

/// Drops foreign files that are back in their places, and what was kept of changed files long ago or for nothing.
fn forget(shelf: &Shelf, record: &Record) {
    let kept = record.installed.iter().flat_map(|content| &content.kept);
    let wanted: BTreeSet<&str> = kept.map(|kept| kept.name.as_str()).collect();
    for name in names(&shelf.kept()) {
        if !wanted.contains(name.as_str()) {
            // What stays takes room and nothing else.
            let _ = fs::remove_file(shelf.kept().join(name));
        }
    }
    let mut changed: Vec<u64> = names(&shelf.changed())
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    changed.sort_unstable_by(|a, b| b.cmp(a));
    let finished = changed.iter().filter(|serial| **serial <= record.serial);
    let stays: BTreeSet<u64> = finished.take(MAX_CHANGED).copied().collect();
    for serial in changed.iter().filter(|serial| !stays.contains(serial)) {
        let _ = fs::remove_dir_all(shelf.changed().join(serial.to_string()));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Short and the group's own on this instance, so that several can install into one folder at the same time.
fn stage_name(work: &Install, root: &Path) -> String {
    let identity = format!("{}/{}/{}", work.application, work.group, root.display());
    let digest = Sha256::digest(identity);
    let short: String = digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(".cutover-{short}")
}

/// An error with what can be done about it.
fn explained(error: &swap::Error) -> String {
    let advice = match error.source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there and deploy again"
        }
        io::ErrorKind::ResourceBusy => {
            "; something is mounted there: leave it out of `files`, or unmount it"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable and deploy again",
        io::ErrorKind::AlreadyExists => {
            "; something was put there while the installation was prepared: deploy again to see what"
        }
        io::ErrorKind::NotFound if error.doing == stage::PACKAGE => {
            "; the package folder was changed or removed since it was fetched: deploy again"
        }
        _ => "",
    };
    format!("{}{advice}", chain(error))
}

fn failed(error: record::Error) -> Failure {
    failed_with(chain(&error))
}

fn failed_with(reason: String) -> Failure {
    Failure::new(Cause::InstallFailed, reason)
}

//! Putting a package into the cache, and taking old ones out.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::attempt::{Attempt, Standing};
use crate::cache::{Folder, Marker};
use crate::capture::Capture;
use crate::forget::forget;
use crate::install;
use crate::protocol::{Cause, Fetch};
use crate::reason::chain;
use crate::receive;
use crate::room::{self, Free, Need};
use crate::shim::{Done, Failure};
use crate::tree::{self, Kind};

/// Copies a package into the cache unless it is there, and prunes the cache.
pub(crate) fn fetch(
    work: &Fetch,
    rootdir: &str,
    boot: &str,
    attempt: &str,
    log: &mut Capture,
) -> Result<Done, Failure> {
    let folder = Folder::at(rootdir, &work.cache)
        .map_err(|error| Failure::new(Cause::Invalid, chain(&error)))?;
    let mut done = Done::default();
    if folder.path().is_dir() && folder.digest(boot).as_deref() == Some(work.digest.as_str()) {
        log.say("the package is in the cache already");
        done.note = Some("the package was in the cache already".to_owned());
    } else {
        make_room(&folder, work, boot, log)?;
        let (copied, marker) = bring(&folder, work, boot, attempt)?;
        log.say(&format!(
            "{} files with {} bytes were put into `{}`",
            copied.files,
            copied.bytes,
            folder.path().display()
        ));
        let brought = folder.clone();
        done.afterwork = Some(Box::new(move || make_durable(&brought, marker)));
    }
    if let Some(install) = &work.install {
        install::check(install, rootdir, &folder.path(), log)?;
    }
    for problem in prune(&folder, work, boot) {
        log.say(&problem);
        done.note = Some(match done.note {
            Some(note) => format!("{note}; {problem}"),
            None => problem,
        });
    }
    Ok(done)
}

/// Sees to it that there is room for the package, if need be by removing old ones before instead of afterwards.
fn make_room(folder: &Folder, work: &Fetch, boot: &str, log: &mut Capture) -> Result<(), Failure> {
    let missing = missing_room(folder, work)?;
    if missing.is_empty() {
        return Ok(());
    }
    for problem in prune(folder, work, boot) {
        log.say(&problem);
    }
    let missing = missing_room(folder, work)?;
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!("the package was not fetched: {}", missing.join("; "));
    Err(Failure::new(Cause::FetchFailed, reason))
}

/// What the file system of the cache lacks for a copy of the package.
fn missing_room(folder: &Folder, work: &Fetch) -> Result<Vec<String>, Failure> {
    let source = Path::new(&work.source);
    // What was received is in its file system already. What is no package is another problem.
    if receive::is_inboxed(&folder.root().to_string_lossy(), source) || !source.is_dir() {
        return Ok(Vec::new());
    }
    let target = folder.group_path();
    let failed = |error: &dyn std::error::Error| Failure::new(Cause::FetchFailed, chain(error));
    let free = fs::create_dir_all(&target)
        .and_then(|()| Free::of(File::open(&target)?))
        .map_err(|error| {
            let reason = format!("look at `{}`: {error}", target.display());
            Failure::new(Cause::FetchFailed, reason)
        })?;
    let mut need = Need::default();
    for node in tree::walk(source).map_err(|error| failed(&error))? {
        need.names += 1;
        need.bytes += match node.kind {
            Kind::Link(_) => 0,
            Kind::Directory => free.block,
            // What vanishes is noticed when it is copied.
            Kind::File => rustix::fs::lstat(source.join(&node.path))
                .map_or(0, |stat| room::taken(&stat, free.block)),
        };
    }
    Ok(free.short_of(need, &target))
}

/// INVARIANT: the marker is there before the folder has its name, and the folder has none while another content takes
/// its place. So a folder with a marker is whole whenever the worker is killed.
fn bring(
    folder: &Folder,
    work: &Fetch,
    boot: &str,
    attempt: &str,
) -> Result<(tree::Copied, Marker), Failure> {
    let source = Path::new(&work.source);
    if !source.is_absolute() || !source.is_dir() {
        let reason = format!(
            "the package `{}` is not a folder on this machine",
            work.source
        );
        return Err(Failure::new(Cause::FetchFailed, reason));
    }
    let target = folder.path();
    let partial = folder
        .group_path()
        .join(format!("deploy-{}.partial-{attempt}", folder.deployment()));
    let failed = |error: io::Error| {
        Failure::new(
            Cause::FetchFailed,
            format!("put the package into `{}`: {error}", target.display()),
        )
    };
    fs::create_dir_all(folder.group_path()).map_err(failed)?;

    let bring = if receive::is_inboxed(&folder.root().to_string_lossy(), source) {
        tree::take
    } else {
        tree::copy
    };
    let brought = bring(source, &partial)
        .map_err(|error| Failure::new(Cause::FetchFailed, chain(&error)))
        .and_then(|copied| {
            if copied.digest != work.digest {
                let reason = format!(
                    "the package `{}` has the digest `{}`, not `{}`",
                    work.source, copied.digest, work.digest
                );
                return Err(Failure::new(Cause::FetchFailed, reason));
            }
            folder.remove().map_err(failed)?;
            let marker = Marker {
                digest: copied.digest.clone(),
                written_ms: written_ms(folder),
                boot: Some(boot.to_owned()),
            };
            folder.mark(&marker).map_err(failed)?;
            fs::rename(&partial, &target).map_err(failed)?;
            Ok((copied, marker))
        });
    if brought.is_err() {
        // It is removed by a later fetch otherwise.
        let _ = fs::remove_dir_all(&partial);
    }
    brought
}

/// The time, or what is after every other package of the group when the clock has been set back: the order in which
/// packages came is what counts.
fn written_ms(folder: &Folder) -> u64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let names = names(&folder.group_path());
    let others = names.iter().filter_map(|name| name.strip_prefix("deploy-"));
    let last = others.map(|other| folder.of(other).written_ms()).max();
    last.map_or(now, |last| now.max(last.saturating_add(1)))
}

fn make_durable(folder: &Folder, marker: Marker) {
    let synced = File::open(folder.path()).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    if synced.is_ok() {
        // Without this the folder is fetched again after the next boot.
        let _ = folder.mark(&Marker {
            boot: None,
            ..marker
        });
    }
}

/// Removes packages that nobody needs, and says what could not be removed.
fn prune(folder: &Folder, work: &Fetch, boot: &str) -> Vec<String> {
    let rootdir = folder.root().to_string_lossy();
    let installed = match install::needed(&rootdir, folder.app(), folder.group()) {
        Ok(installed) => installed,
        // What is installed is not known, so anything may be.
        Err(error) => return vec![format!("no old package was removed: {}", chain(&error))],
    };
    let mut problems = Vec::new();
    let mut others = Vec::new();
    for name in names(&folder.group_path()) {
        let Some(deployment) = name.strip_prefix("deploy-") else {
            continue;
        };
        if let Some((_, attempt)) = deployment.split_once(".partial-") {
            if is_abandoned(&rootdir, attempt, boot) {
                problems.extend(removed(&folder.group_path().join(&name)));
            }
            continue;
        }
        let other = folder.of(deployment);
        let cache = format!("app-{}/group-{}/{name}", folder.app(), folder.group());
        let is_needed = deployment == folder.deployment()
            || work.keep.contains(&cache)
            || installed.iter().any(|installed| installed == deployment);
        if !is_needed {
            others.push((other.written_ms(), deployment.to_owned()));
        }
    }
    others.sort();
    let surplus = others.len().saturating_sub(work.keep_others as usize);
    let pruned: Vec<String> = others
        .drain(..surplus)
        .map(|(_, deployment)| deployment)
        .collect();
    for deployment in &pruned {
        let old = folder.of(deployment);
        if let Err(error) = old.remove() {
            problems.push(format!(
                "the old package `{}` could not be removed: {error}",
                old.path().display()
            ));
        }
    }
    forget(&rootdir, boot, &pruned);
    problems
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn is_abandoned(rootdir: &str, attempt: &str, boot: &str) -> bool {
    let standing = Attempt::at(rootdir, attempt)
        .ok()
        .map(|attempt| attempt.standing(boot));
    matches!(
        standing,
        Some(Ok(Standing::Absent | Standing::Ended | Standing::Lost(_)))
    )
}

fn removed(path: &Path) -> Option<String> {
    let error = fs::remove_dir_all(path).err()?;
    Some(format!(
        "the unfinished package `{}` could not be removed: {error}",
        path.display()
    ))
}

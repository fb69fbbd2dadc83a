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
use crate::shim::{Done, Failure};
use crate::tree;

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
    for problem in prune(&folder, work, boot) {
        log.say(&problem);
        done.note = Some(match done.note {
            Some(note) => format!("{note}; {problem}"),
            None => problem,
        });
    }
    Ok(done)
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
            let now = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            let written_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            let marker = Marker {
                digest: copied.digest.clone(),
                written_ms,
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

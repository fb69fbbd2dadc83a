//! Removing the records of attempts that nobody can ask about any more.
//!
//! An attempt's folder is what keeps it from being executed twice, so it stays as long as its deployment could be
//! resumed: until the deployment's package leaves the cache, which a release that holds its group prevents, or, for
//! deployments that brought no package, for [`LONGEST_RELEASE`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use crate::attempt::{Attempt, Standing};
use crate::protocol;

/// A release that has been left alone for longer than this is not resumed.
const LONGEST_RELEASE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Removes the ended attempts of deployments whose packages have just left the cache, and very old ones.
pub(crate) fn forget(rootdir: &str, boot: &str, pruned: &[String]) {
    let attempts = Path::new(rootdir).join(".cutover/attempts");
    for entry in fs::read_dir(attempts).into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().into_string() else {
            continue;
        };
        // A deployment's id has no dot in it, and ends where the attempt's first one is.
        let deployment = id
            .split_once('.')
            .map_or(id.as_str(), |(deployment, _)| deployment);
        let is_pruned = pruned.iter().any(|pruned| pruned == deployment);
        if (is_pruned || is_old(&entry.path(), boot)) && is_left(rootdir, &id, boot) {
            // What stays is tried again with the next package.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A clock that was set forward makes everything look old, so what was filed since the host came up is as old as that
/// at most.
fn is_old(attempt: &Path, boot: &str) -> bool {
    let outcome: PathBuf = attempt.join("outcome.json");
    let ended = fs::metadata(outcome).and_then(|metadata| metadata.modified());
    let looks_old = ended.is_ok_and(|ended| {
        SystemTime::now()
            .duration_since(ended)
            .is_ok_and(|age| age > LONGEST_RELEASE)
    });
    looks_old && (up_time() > LONGEST_RELEASE || boot_of(attempt).is_none_or(|filed| filed != boot))
}

fn up_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default())
}

/// The boot in which an attempt was filed.
fn boot_of(attempt: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Filed {
        boot: String,
    }
    let text = fs::read(attempt.join("command.json")).ok()?;
    protocol::decode(&text).ok().map(|filed: Filed| filed.boot)
}

/// Whether nobody works on an attempt: it ended, was lost, or was announced and never asked for.
fn is_left(rootdir: &str, id: &str, boot: &str) -> bool {
    let standing = Attempt::at(rootdir, id)
        .ok()
        .map(|attempt| attempt.standing(boot));
    matches!(
        standing,
        Some(Ok(Standing::Ended
            | Standing::Lost(_)
            | Standing::Unbegun(_)))
    )
}

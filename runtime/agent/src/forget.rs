//! Removing the records of attempts that nobody can ask about any more.
//!
//! An attempt's folder is what keeps it from being executed twice, so it stays as long as its deployment could be
//! resumed: until the deployment's package leaves the cache, which a release that holds its group prevents, or, for
//! deployments that brought no package, for [`LONGEST_RELEASE`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::attempt::{Attempt, Standing};

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
        if (is_pruned || is_old(&entry.path())) && has_ended(rootdir, &id, boot) {
            // What stays is tried again with the next package.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_old(attempt: &Path) -> bool {
    let outcome: PathBuf = attempt.join("outcome.json");
    let ended = fs::metadata(outcome).and_then(|metadata| metadata.modified());
    ended.is_ok_and(|ended| {
        SystemTime::now()
            .duration_since(ended)
            .is_ok_and(|age| age > LONGEST_RELEASE)
    })
}

fn has_ended(rootdir: &str, id: &str, boot: &str) -> bool {
    let standing = Attempt::at(rootdir, id)
        .ok()
        .map(|attempt| attempt.standing(boot));
    matches!(standing, Some(Ok(Standing::Ended)))
}

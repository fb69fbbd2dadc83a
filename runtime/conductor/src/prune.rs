//! Which packages a conductor keeps, and what goes when a release is deleted.

use std::collections::BTreeSet;

use engine::State;
use journal::{DeleteError, Filter, Journal};
use model::{Digest, GroupRef, ReleaseId};

use crate::Conductor;
use crate::drive::now;

/// How many deployments of a group's history are looked through.
const HISTORY: usize = 1000;

impl Conductor {
    /// Removes the packages that no release needs any more: what is installed stays, what a release that has not ended
    /// needs, what the latest deployment of each group brought, the last `keep_revisions` others, and whatever a rollback
    /// of one of those would return to.
    ///
    /// A store that cannot be pruned is no reason for anything to fail.
    pub async fn prune(&self) {
        let conductor = self.clone();
        let pruning = tokio::task::spawn_blocking(move || conductor.prune_now());
        if let Err(panicked) = pruning.await {
            std::panic::resume_unwind(panicked.into_panic());
        }
    }

    fn prune_now(&self) {
        if self.packages.is_tidy() {
            return;
        }
        match needed(&self.journal, |group| self.keep_revisions(group)) {
            Ok(needed) => {
                for digest in self.packages.prune(&needed) {
                    tracing::info!(%digest, "a package that nobody needs was removed");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot learn which packages are needed: none was removed");
            }
        }
    }

    fn keep_revisions(&self, group: &GroupRef) -> Option<u32> {
        let group = self.workspace.group(group).ok()?;
        Some(group.keep_revisions)
    }

    /// Deletes a release, and with it what its hooks printed. The audit record stays, and so does every package that
    /// another release needs.
    ///
    /// # Errors
    /// What [`Journal::delete`] says.
    pub fn delete(&self, release: &ReleaseId) -> Result<(), DeleteError> {
        let records = self.journal.records(release, 0)?;
        let deployments: Vec<_> = State::fold(&records)
            .map(|state| state.deployments)
            .unwrap_or_default()
            .into_iter()
            .map(|deployment| deployment.plan.id.clone())
            .collect();
        self.journal.delete(release, &self.operator, now())?;
        for deployment in deployments {
            if let Err(error) = self.logs.remove(&deployment) {
                tracing::warn!(deployment = %deployment, %error, "cannot remove the logs of a deleted deployment");
            }
        }
        Ok(())
    }
}

/// The packages that the journal says are needed.
fn needed(
    journal: &Journal,
    keep_revisions: impl Fn(&GroupRef) -> Option<u32>,
) -> Result<BTreeSet<Digest>, journal::Error> {
    let mut groups = BTreeSet::new();
    for release in journal.releases(Filter::All, usize::MAX)? {
        groups.extend(release.groups);
    }
    let mut needed = BTreeSet::new();
    for group in groups {
        let mut installed = BTreeSet::new();
        for deployment in journal.installed(&group)?.values() {
            if let Some(package) = journal.package(deployment)? {
                installed.insert(package.revision.digest.clone());
            }
        }
        let mut others = keep_revisions(&group);
        let mut history = Vec::new();
        for summary in journal.deployments(&group, HISTORY)? {
            let Some(deployment) = journal.deployment(&summary.id)? else {
                continue;
            };
            others.get_or_insert(deployment.keep_revisions);
            let packages = deployment.packages.values();
            history.push(Past {
                is_over: summary.status.is_terminal(),
                brought: deployment.revision.digest.clone(),
                packages: packages
                    .map(|package| package.revision.digest.clone())
                    .collect(),
            });
        }
        needed.extend(needed_of(installed, &history, others.unwrap_or(0)));
    }
    Ok(needed)
}

/// A deployment of a group's history.
struct Past {
    is_over: bool,
    brought: Digest,
    /// What it brought, and what each instance had before: a rollback returns to that.
    packages: Vec<Digest>,
}

/// The packages that one group needs. `history` has the newest first; `others` is how many revisions are kept beside
/// what is installed.
fn needed_of(installed: BTreeSet<Digest>, history: &[Past], mut others: u32) -> BTreeSet<Digest> {
    let mut needed = installed.clone();
    let mut kept = installed;
    for (age, past) in history.iter().enumerate() {
        // The latest one may be retried, whatever became of it.
        if age > 0 && past.is_over && !kept.contains(&past.brought) {
            if others == 0 {
                continue;
            }
            others -= 1;
            kept.insert(past.brought.clone());
        }
        needed.extend(past.packages.iter().cloned());
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> Digest {
        Digest::parse(&format!("sha256:{number:064}")).unwrap()
    }

    /// Deployments of the revisions `newest`, `newest - 1`, … 1, each on what the one before it brought.
    fn history(newest: u64) -> Vec<Past> {
        let past = |number| Past {
            is_over: true,
            brought: digest(number),
            packages: [number, number - 1]
                .into_iter()
                .filter(|number| *number > 0)
                .map(digest)
                .collect(),
        };
        (1..=newest).rev().map(past).collect()
    }

    #[track_caller]
    fn check(installed: &[u64], history: &[Past], others: u32, expected: &[u64]) {
        let installed = installed.iter().copied().map(digest).collect();

        let needed = needed_of(installed, history, others);

        let expected: BTreeSet<_> = expected.iter().copied().map(digest).collect();
        assert_eq!(needed, expected);
    }

    #[test]
    fn the_latest_revisions_stay_and_what_a_rollback_of_them_returns_to() {
        check(&[9], &history(9), 2, &[9, 8, 7, 6]);
        check(&[9], &history(9), 0, &[9, 8]);
        check(&[2], &history(2), 5, &[2, 1]);
        check(&[], &[], 5, &[]);
    }

    #[test]
    fn what_is_installed_stays_however_old_it_is() {
        check(&[9, 3], &history(9), 1, &[9, 8, 7, 3, 2]);
    }

    #[test]
    fn a_release_that_has_not_ended_keeps_what_it_needs() {
        let mut history = history(9);
        history[0].is_over = false;
        history[0].packages.push(digest(1));

        check(&[8], &history, 0, &[9, 8, 7, 1]);
    }

    #[test]
    fn the_latest_deployment_keeps_what_a_retry_of_it_needs() {
        let mut history = history(9);
        history[0].packages = vec![digest(9), digest(8)];

        check(&[8], &history, 0, &[9, 8, 7]);
    }

    /// Revision 9 went to one side while the other one had 8, and took the place of 7.
    #[test]
    fn both_sides_keep_what_they_have_and_what_was_there_before() {
        let mut history = history(9);
        history[0].packages = vec![digest(9), digest(8), digest(7)];
        history[1].packages = vec![digest(8), digest(7), digest(6)];

        check(&[9, 8], &history, 0, &[9, 8, 7, 6]);
    }

    #[test]
    fn a_revision_that_came_twice_counts_once() {
        let mut history = history(4);
        history[1].brought = digest(4);
        history[1].packages = vec![digest(4), digest(2)];

        check(&[4], &history, 1, &[4, 3, 2, 1]);
    }
}

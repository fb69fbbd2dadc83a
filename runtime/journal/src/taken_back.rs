//! Which deployments of a group were taken back, and by which rollback.
//!
//! Start at [`taken_back_by`], which decides without reading anything: [`crate::history`] reads what it goes by.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use model::{DeploymentId, Direction, ReleaseStatus};

use crate::history::DeploymentSummary;

/// A deployment of a group's history.
pub(crate) struct Past {
    /// Where it was opened among all records of the journal.
    pub(crate) position: i64,
    pub(crate) summary: DeploymentSummary,
}

/// That a rollback which succeeded has brought a deployment's package to an instance.
pub(crate) struct Return {
    /// The position of the rollback.
    pub(crate) rollback: i64,
    pub(crate) to: DeploymentId,
    /// The position of that deployment; none when the journal does not hold it.
    pub(crate) to_position: Option<i64>,
}

/// The rollback that took each deployment of a group back, in the order of `history`.
///
/// A rollback takes back the deployment that it names, with the retries of that. One that returns to an older version
/// takes back everything since that has succeeded, as far as no instance has it installed. Who is returned to later is
/// not taken back. The latest that names it is told, and else the first that went past it.
///
/// `history` has the newest first and leaves out nothing that is younger than its last, so that whatever may have taken
/// one of it back is in it. `returns` has those of its rollbacks in any order, and `installed` what any instance of the
/// group has.
pub(crate) fn taken_back_by(
    history: &[Past],
    returns: &[Return],
    installed: &BTreeSet<DeploymentId>,
) -> Vec<Option<DeploymentId>> {
    let mut returned_at: BTreeMap<&DeploymentId, i64> = BTreeMap::new();
    for back in returns {
        let at = returned_at.entry(&back.to).or_insert(back.rollback);
        *at = back.rollback.max(*at);
    }
    let mut naming: BTreeMap<&DeploymentId, &Past> = BTreeMap::new();
    for past in history {
        if let Direction::Rollback { of } = &past.summary.direction
            && past.summary.status == ReleaseStatus::Succeeded
        {
            naming.entry(of).or_insert(past);
        }
    }

    let mut by = vec![None; history.len()];
    let mut not_named = Vec::new();
    for (index, past) in history.iter().enumerate() {
        let summary = &past.summary;
        if summary.direction != Direction::Deploy {
            continue;
        }
        let brought = summary.retries.as_ref().unwrap_or(&summary.id);
        // A rollback counts when it is younger than the deployment and at least as young as the last return to it.
        let since = returned_at
            .get(brought)
            .map_or(past.position, |at| past.position.max(*at));
        let names = [Some(&summary.id), summary.retries.as_ref()];
        let named = names
            .into_iter()
            .flatten()
            .filter_map(|name| naming.get(name))
            .filter(|rollback| rollback.position >= since)
            .max_by_key(|rollback| rollback.position);
        if let Some(rollback) = named {
            by[index] = Some(rollback.summary.id.clone());
        } else if summary.status == ReleaseStatus::Succeeded && !installed.contains(brought) {
            not_named.push((since, index));
        }
    }

    for (index, rollback) in first_past(history, returns, not_named) {
        by[index] = Some(rollback.clone());
    }
    by
}

/// The first rollback from a position on that returned to what is older than a deployment, for each of `asked`: positions
/// with the deployment's place in `history`. Deployments that none went past are left out.
fn first_past<'a>(
    history: &'a [Past],
    returns: &[Return],
    mut asked: Vec<(i64, usize)>,
) -> Vec<(usize, &'a DeploymentId)> {
    // The youngest deployment that a rollback has returned an instance to: what it went past is younger. None, which comes
    // before every position, where all of them have been deleted.
    let mut youngest: BTreeMap<i64, Option<i64>> = BTreeMap::new();
    for back in returns {
        let to = youngest.entry(back.rollback).or_insert(back.to_position);
        *to = back.to_position.max(*to);
    }
    let mut rollbacks = history
        .iter()
        .filter_map(|past| Some((past, *youngest.get(&past.position)?)))
        .peekable();

    // From the youngest on, so that the rollbacks that count for one deployment count for all that follow.
    asked.sort_by_key(|(since, _)| Reverse(*since));
    // The oldest rollback last, which went back the least: a younger one that went back no further than an older one is
    // never the first.
    let mut firsts: Vec<(&Past, Option<i64>)> = Vec::new();
    let mut found = Vec::new();
    for (since, index) in asked {
        while let Some((rollback, to)) =
            rollbacks.next_if(|(rollback, _)| rollback.position >= since)
        {
            firsts.truncate(firsts.partition_point(|(_, other)| *other < to));
            firsts.push((rollback, to));
        }
        let went_past = firsts.partition_point(|(_, to)| *to < Some(history[index].position));
        if let Some((rollback, _)) = firsts[..went_past].last() {
            found.push((index, &rollback.summary.id));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use model::GroupRef;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::TestRunner;
    use rusqlite::{Connection, params};

    use crate::history::deployments;
    use crate::schema;

    /// The rule, word for word, as a query whose time grows with the third power of a history's length.
    const RULE: &str = "
WITH d AS (
    SELECT *, CASE WHEN direction = 'deploy' THEN
        (SELECT incoming FROM targets WHERE deployment = id AND incoming <> id LIMIT 1) END AS retries
    FROM deployments WHERE application = ?1 AND grp = ?2 ORDER BY position DESC LIMIT ?3
)
SELECT d.id, d.retries,
    CASE WHEN d.direction = 'deploy' THEN (
        SELECT b.id FROM deployments b
        WHERE b.application = ?1 AND b.grp = ?2 AND b.position > d.position
            AND b.direction = 'rollback' AND b.status = 'SUCCEEDED'
            AND (b.of = d.id OR b.of = d.retries OR (
                d.status = 'SUCCEEDED'
                AND EXISTS (SELECT 1 FROM targets t WHERE t.deployment = b.id)
                AND NOT EXISTS (
                    SELECT 1 FROM installed i
                    WHERE i.application = ?1 AND i.grp = ?2 AND i.deployment = ifnull(d.retries, d.id))
                AND NOT EXISTS (
                    SELECT 1 FROM targets t JOIN deployments p ON p.id = t.incoming
                    WHERE t.deployment = b.id AND p.position >= d.position)))
            AND NOT EXISTS (
                SELECT 1 FROM deployments c JOIN targets t ON t.deployment = c.id
                WHERE c.application = ?1 AND c.grp = ?2 AND c.position > b.position
                    AND c.direction = 'rollback' AND c.status = 'SUCCEEDED' AND t.incoming = ifnull(d.retries, d.id))
        ORDER BY iif(b.of IN (d.id, d.retries), -b.position, b.position) LIMIT 1) END
FROM d JOIN releases r ON r.number = d.release ORDER BY d.position DESC";

    /// The longest history that is tried.
    const LONGEST: u16 = 14;

    /// A release with one deployment. Others are told by how many releases they are before it: none of them need be there.
    #[derive(Debug, Clone)]
    struct Step {
        group: &'static str,
        direction: &'static str,
        of: Option<u16>,
        status: &'static str,
        /// What each instance gets.
        incoming: Vec<u16>,
        is_deleted: bool,
    }

    fn often<T: std::fmt::Debug + Clone + 'static>(
        usual: T,
        other: impl Strategy<Value = T> + 'static,
    ) -> impl Strategy<Value = T> {
        prop_oneof![4 => Just(usual), 1 => other]
    }

    fn step() -> impl Strategy<Value = Step> {
        let before = || prop_oneof![2 => 1..4_u16, 1 => 1..LONGEST + 2];
        let named = move || before().prop_map(Some);
        let same =
            |count: Range<usize>| before().prop_flat_map(move |one| vec(Just(one), count.clone()));
        let what = prop_oneof![
            4 => (Just("deploy"), Just(None), vec(Just(0), 1..3)),
            2 => (Just("deploy"), Just(None), same(1..3)),
            4 => (Just("rollback"), named(), vec(before(), 0..4)),
            3 => (Just("rollback"), named(), same(1..4)),
            1 => (Just("retire"), named(), vec(before(), 1..3)),
            1 => (Just("operate"), Just(None), vec(before(), 1..3)),
        ];
        let status = often("SUCCEEDED", select(vec!["FAILED", "RUNNING"]));
        let group = often("web", Just("api"));
        (what, status, group, prop::bool::weighted(0.1)).prop_map(
            |((direction, of, incoming), status, group, is_deleted)| Step {
                group,
                direction,
                of,
                status,
                incoming,
                is_deleted,
            },
        )
    }

    /// The id of the deployment so many releases before another one.
    fn before(own: u16, count: u16) -> String {
        match own.checked_sub(count) {
            Some(number) => format!("d{number}"),
            None => format!("gone{count}"),
        }
    }

    fn write(connection: &Connection, steps: &[Step], installed: &[u16]) {
        for (step, number) in steps.iter().zip(0..) {
            let id = before(number, 0);
            connection
                .prepare_cached(
                    "INSERT INTO releases (number, id, next_seq, fence, owner_since, expires_at, opened_at, comment, operator, status)
                     VALUES (?1, ?2, 1, 1, 0, 0, 0, '', 'ada@build', 'SUCCEEDED')",
                )
                .unwrap()
                .execute(params![number, format!("r{number}")])
                .unwrap();
            connection
                .prepare_cached(
                    "INSERT INTO deployments
                     (id, release, seq, position, application, grp, version, kind, strategy, direction, of, status, opened_at)
                     VALUES (?1, ?2, 1, ?3, 'shop', ?4, '1.0.0', 'DEPLOY', 'rolling', ?5, ?6, ?7, 0)",
                )
                .unwrap()
                .execute(params![
                    id,
                    number,
                    10 * (number + 1),
                    step.group,
                    step.direction,
                    step.of.map(|count| before(number, count)),
                    step.status
                ])
                .unwrap();
            for (count, instance) in step.incoming.iter().zip(0_u16..) {
                connection
                    .prepare_cached(
                        "INSERT INTO targets (deployment, instance, incoming) VALUES (?1, ?2, ?3)",
                    )
                    .unwrap()
                    .execute(params![id, format!("i{instance}"), before(number, *count)])
                    .unwrap();
            }
        }
        for (number, instance) in installed.iter().zip(0_u16..) {
            connection
                .prepare_cached(
                    "INSERT INTO installed (application, grp, instance, deployment, position)
                     VALUES ('shop', iif(?1 = 3, 'api', 'web'), ?1, ?2, 0)",
                )
                .unwrap()
                .execute(params![instance, before(*number, 0)])
                .unwrap();
        }
        for (_, number) in steps
            .iter()
            .zip(0_u16..)
            .filter(|(step, _)| step.is_deleted)
        {
            connection
                .execute("DELETE FROM releases WHERE number = ?1", [number])
                .unwrap();
        }
    }

    #[test]
    fn what_took_a_deployment_back_is_what_the_rule_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        schema::create_if_absent(&path).unwrap();
        let connection = schema::connect(&path).unwrap();
        let group: GroupRef = "shop/web".parse().unwrap();
        let histories = (
            vec(step(), 0..=usize::from(LONGEST)),
            vec(0..LONGEST, 0..5),
            often(usize::MAX, 0..usize::from(LONGEST)),
        );
        let config = ProptestConfig {
            cases: 1024,
            failure_persistence: None,
            ..ProptestConfig::default()
        };

        let compared = TestRunner::new(config).run(&histories, |(steps, installed, limit)| {
            // Ends with the case, and takes its history along.
            let case = connection.unchecked_transaction().unwrap();
            write(&case, &steps, &installed);
            let bound = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rule = case.prepare_cached(RULE).unwrap();
            let expected: Vec<[Option<String>; 3]> = rule
                .query_map(params!["shop", "web", bound], |row| {
                    Ok([row.get(0)?, row.get(1)?, row.get(2)?])
                })
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();

            let told = deployments(&case, &group, limit).unwrap();

            let told: Vec<_> = told
                .iter()
                .map(|told| {
                    [
                        Some(told.id.to_string()),
                        told.retries.as_ref().map(ToString::to_string),
                        told.rolled_back_by.as_ref().map(ToString::to_string),
                    ]
                })
                .collect();
            prop_assert_eq!(told, expected);
            Ok(())
        });

        compared.unwrap();
    }
}

//! Asking again and again, within the time that a gate has.

use std::future::pending;
use std::time::Duration;

use engine::HoldAction;
use model::{Decision, Evidence, GateCheck, ReleaseId, Timestamp, Verdict};

use super::{command, plugin};
use crate::drive::now;
use crate::{Conductor, Observer};

/// The longest that one evaluation may take.
const LONGEST_LOOK: Duration = Duration::from_secs(5 * 60);
/// What an evaluation has in any case, also when the time of its gate is over: each is asked at least once.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);

/// What one evaluation led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Looked {
    Decided(Decision),
    /// Neither passed nor failed, for this reason. It may be asked again, not before the given time.
    Undecided {
        why: String,
        evidence: Vec<Evidence>,
        after: Option<Duration>,
    },
}

/// One gate of a release, and what it is evaluated with.
pub(super) struct Question<'a> {
    pub(super) conductor: &'a Conductor,
    pub(super) release: &'a ReleaseId,
    pub(super) action: &'a HoldAction,
}

/// Evaluates a gate until it has passed or failed, or until its time is over.
pub(crate) async fn decide(
    conductor: &Conductor,
    release: &ReleaseId,
    action: &HoldAction,
    observer: &dyn Observer,
) -> Decision {
    let question = Question {
        conductor,
        release,
        action,
    };
    loop {
        let time = time_for_a_look(now(), action.until);
        let looked = match &action.gate.check {
            GateCheck::Command { command } => command::evaluate(&question, command, time).await,
            GateCheck::Plugin { plugin, config } => {
                plugin::evaluate(&question, plugin, config, time).await
            }
            // A person decides it, by an order.
            GateCheck::Approval { .. } => pending().await,
        };
        let (why, evidence, after) = match looked {
            Looked::Decided(decision) => return decision,
            Looked::Undecided {
                why,
                evidence,
                after,
            } => (why, evidence, after),
        };
        match until_next_look(now(), action.until, action.gate.interval, after) {
            Some(wait) => {
                let what = format!("gate `{}` to decide (it says: {why})", action.gate.name);
                observer.holding(&action.deployment.id, &what);
                tokio::time::sleep(wait).await;
            }
            None => {
                return Decision {
                    verdict: Verdict::Inconclusive,
                    by: None,
                    reason: Some(format!("undecided in its time; the last word was: {why}")),
                    evidence,
                };
            }
        }
    }
}

/// How long an evaluation that begins now may take.
fn time_for_a_look(now: Timestamp, until: Option<Timestamp>) -> Duration {
    let left = until.map_or(LONGEST_LOOK, |until| until.since(now));
    left.clamp(SHORTEST_LOOK, LONGEST_LOOK)
}

/// How long to wait before a gate is asked again; `None` when its time is over. The last look is at the very end.
fn until_next_look(
    now: Timestamp,
    until: Option<Timestamp>,
    interval: Duration,
    after: Option<Duration>,
) -> Option<Duration> {
    let wait = after.map_or(interval, |after| after.max(interval));
    match until.map(|until| until.since(now)) {
        Some(left) if left.is_zero() => None,
        Some(left) => Some(wait.min(left)),
        None => Some(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// The wait before the next look, in seconds, with the gate's time over at 100 s and an interval of 10 s.
    fn check(now: i64, after: Option<u64>, expected: Option<u64>) {
        let until = Some(Timestamp(100_000));

        let wait = until_next_look(
            Timestamp(now * 1000),
            until,
            seconds(10),
            after.map(seconds),
        );

        assert_eq!(wait, expected.map(seconds));
    }

    #[test]
    fn a_gate_is_asked_again_after_its_interval_and_for_the_last_time_at_the_end() {
        check(0, None, Some(10));
        check(95, None, Some(5));
        check(100, None, None);
        check(200, None, None);
    }

    #[test]
    fn a_gate_that_asks_for_time_gets_it_within_its_own() {
        check(0, Some(30), Some(30));
        check(0, Some(3), Some(10));
        check(90, Some(30), Some(10));
    }

    #[test]
    fn a_gate_without_a_time_is_asked_for_as_long_as_it_takes() {
        let wait = until_next_look(Timestamp(i64::MAX), None, seconds(10), None);

        assert_eq!(wait, Some(seconds(10)));
        assert_eq!(time_for_a_look(Timestamp(0), None), LONGEST_LOOK);
    }

    #[test]
    fn a_gate_whose_time_is_over_is_asked_once_all_the_same() {
        let time = time_for_a_look(Timestamp(2000), Some(Timestamp(1000)));

        assert_eq!(time, SHORTEST_LOOK);
    }
}

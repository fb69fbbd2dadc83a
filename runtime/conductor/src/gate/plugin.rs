//! A gate that a plugin decides.

use std::time::Duration;

use engine::HoldAction;
use model::{Decision, Evidence, PluginName, ReleaseId, Timestamp, Verdict};
use plugin_host::gate::{self, Input, Target};
use plugin_host::{CallError, FailureClass, OpContext};

use super::decide::{Looked, Question};
use crate::balancer::idempotency_key;
use crate::drive::now;
use crate::plan::chain;

/// The shortest wait before a plugin is asked how its evaluation goes on.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Asks the plugin once, for as long as the evaluation may take.
pub(super) async fn evaluate(
    question: &Question<'_>,
    plugin: &PluginName,
    config: &str,
    time: Duration,
) -> Looked {
    let Question {
        conductor,
        release,
        action,
    } = question;
    let plugin = match conductor.plugins.get(plugin).await {
        Ok(plugin) => plugin,
        Err(error) => return inconclusive(chain(&error)),
    };
    let began = now();
    let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let deadline = Timestamp(began.0.saturating_add(time_ms));
    let context = context(release, action, deadline);
    let input = input(release, action);
    let mut verdict = plugin.evaluate_gate(&context, config, &input).await;
    loop {
        let pending = match verdict {
            Ok(gate::Verdict::Pending(pending)) => pending,
            Ok(verdict) => return judge(verdict),
            Err(error) => return failed(&error),
        };
        let left = deadline.since(now());
        if left.is_zero() {
            return undecided(pending.message, None);
        }
        tokio::time::sleep(pending.poll_after.max(SHORTEST_WAIT).min(left)).await;
        verdict = plugin
            .poll_gate(&context, config, &input, &pending.token)
            .await;
    }
}

fn context(release: &ReleaseId, action: &HoldAction, deadline: Timestamp) -> OpContext {
    let step = format!(
        "{}.gate.{}.{}",
        action.deployment.id, action.stage.boundary, action.stage.index
    );
    OpContext {
        run_id: release.to_string(),
        idempotency_key: idempotency_key(&[release.as_str(), &step]),
        step_id: step,
        attempt: 1,
        deadline: Some(deadline),
        ..OpContext::default()
    }
}

fn input(release: &ReleaseId, action: &HoldAction) -> Input {
    let HoldAction {
        deployment,
        since,
        batches: (batch, of_batches),
        deployed,
        ..
    } = action;
    let target = |id: &model::InstanceId| {
        let mut targets = deployment.targets.iter().map(|target| &target.instance);
        let instance = targets.find(|instance| instance.id == *id);
        Target {
            id: id.to_string(),
            address: instance.and_then(|instance| instance.address.clone()),
        }
    };
    Input {
        group: deployment.group.to_string(),
        release_id: release.to_string(),
        deployment_id: deployment.id.to_string(),
        version: deployment.revision.version.to_string(),
        batch: *batch,
        of_batches: *of_batches,
        targets: deployed.iter().map(target).collect(),
        since: *since,
        parameters: String::new(),
    }
}

fn judge(verdict: gate::Verdict) -> Looked {
    let (verdict, found) = match verdict {
        gate::Verdict::Pass(found) => (Verdict::Passed, found),
        gate::Verdict::Fail(found) => (Verdict::Failed, found),
        gate::Verdict::Inconclusive(why) => return undecided(why, None),
        gate::Verdict::Pending(pending) => return undecided(pending.message, None),
    };
    let reason = found
        .iter()
        .find(|evidence| verdict == Verdict::Failed && !evidence.passed)
        .map(|evidence| match &evidence.threshold {
            Some(threshold) => format!(
                "{} is {}, wanted {threshold}",
                evidence.name, evidence.value
            ),
            None => format!("{} is {}", evidence.name, evidence.value),
        });
    let evidence = found.into_iter().map(|evidence| Evidence {
        name: evidence.name,
        value: evidence.value,
        threshold: evidence.threshold,
        verdict: if evidence.passed {
            Verdict::Passed
        } else {
            Verdict::Failed
        },
    });
    Looked::Decided(Decision {
        verdict,
        by: None,
        reason,
        evidence: evidence.collect(),
    })
}

/// What may pass by itself is asked again; what will not leaves the gate undecided for good.
fn failed(error: &CallError) -> Looked {
    let passing = error.failure().filter(|failure| {
        matches!(
            failure.class,
            FailureClass::Transient | FailureClass::Throttled
        )
    });
    match passing {
        Some(failure) => undecided(chain(error), failure.retry_after),
        None => inconclusive(chain(error)),
    }
}

fn undecided(why: String, after: Option<Duration>) -> Looked {
    Looked::Undecided {
        why,
        evidence: Vec::new(),
        after,
    }
}

fn inconclusive(reason: String) -> Looked {
    Looked::Decided(Decision {
        verdict: Verdict::Inconclusive,
        by: None,
        reason: Some(reason),
        evidence: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use plugin_host::Failure;

    use super::*;

    /// What a verdict or a failure of a plugin means for its gate.
    fn check(looked: Looked) -> String {
        match looked {
            Looked::Decided(decision) => format!(
                "{}: {}",
                decision.verdict,
                decision.reason.unwrap_or_default()
            ),
            Looked::Undecided { why, after, .. } => format!("undecided: {why} {after:?}"),
        }
    }

    fn evidence(name: &str, passed: bool) -> gate::Evidence {
        gate::Evidence {
            name: name.to_owned(),
            value: "0.2".to_owned(),
            threshold: Some("< 0.01".to_owned()),
            passed,
        }
    }

    #[test]
    fn a_gate_that_fails_names_what_did_not_pass() {
        let found = vec![evidence("latency", true), evidence("errors", false)];

        assert_eq!(
            check(judge(gate::Verdict::Fail(found.clone()))),
            "FAILED: errors is 0.2, wanted < 0.01"
        );
        assert_eq!(check(judge(gate::Verdict::Pass(found))), "PASSED: ");
    }

    #[test]
    fn a_gate_without_data_is_asked_again() {
        let verdict = gate::Verdict::Inconclusive("no data".to_owned());

        assert_eq!(check(judge(verdict)), "undecided: no data None");
    }

    #[test]
    fn only_failures_that_may_pass_are_asked_about_again() {
        let failure = |class| {
            let failure = Failure {
                class,
                code: "test".to_owned(),
                message: "no answer".to_owned(),
                hint: None,
                retry_after: Some(Duration::from_secs(3)),
                attributes: Vec::new(),
                output: None,
            };
            check(failed(&CallError::from(failure)))
        };

        assert_eq!(
            failure(FailureClass::Throttled),
            "undecided: no answer Some(3s)"
        );
        assert_eq!(failure(FailureClass::Denied), "INCONCLUSIVE: no answer");
    }
}

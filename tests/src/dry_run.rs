//! Holds what happened against what a dry run said would happen.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::Site;

/// What a dry run cannot know, and what only it tells.
const RUN_ONLY: [&str; 12] = [
    "id",
    "status",
    "reason",
    "started_at",
    "ended_at",
    "grants",
    "instances",
    "switches",
    "holds",
    "shares",
    "down",
    "mixed_versions",
];

impl Site {
    /// Runs a command as a dry run and then for real, and asserts that the report of the release is what the dry run
    /// said. Answers with the report.
    ///
    /// # Panics
    /// When they differ, or when the release did not succeed.
    #[must_use]
    pub fn as_planned(&self, arguments: &[&str]) -> Value {
        let planned = [arguments, &["--dry-run", "--output", "json"]].concat();
        let plan = self.cutover(&planned).ok().json();
        self.cutover(arguments).ok();
        let report = self.report();
        assert_as_planned(&plan, &report);
        report
    }
}

/// Asserts that the first deployments of a release are those of a plan: the same batches, instances in the same order, and
/// on each the same steps of the same versions, of which the same are skipped for the same reasons.
///
/// # Panics
/// When they are not.
pub fn assert_as_planned(plan: &Value, report: &Value) {
    assert_eq!(plan["status"], "PLANNED");
    let planned = list(&plan["deployments"]);
    let happened = list(&report["deployments"]);
    assert!(
        !planned.is_empty() && planned.len() <= happened.len(),
        "{report:#}"
    );
    for (planned, happened) in planned.iter().zip(happened) {
        assert_eq!(head(planned), head(happened));
        let planned_steps: Vec<_> = list(&planned["instances"]).iter().map(instance).collect();
        let happened_steps: Vec<_> = list(&happened["instances"]).iter().map(instance).collect();
        assert_eq!(planned_steps, happened_steps);
        assert_eq!(stops(planned), stops(happened));
        assert_batches_in_order(planned, happened);
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A deployment as far as a plan knows it.
fn head(deployment: &Value) -> Map<String, Value> {
    let mut head = deployment.as_object().cloned().unwrap_or_default();
    head.retain(|key, _| !RUN_ONLY.contains(&key.as_str()));
    head
}

/// The switches and waits of a deployment that are part of its plan, each with the batches before it: not those that an
/// operator asked for, nor what the health of an instance made necessary.
fn stops(deployment: &Value) -> Vec<String> {
    let switches = list(&deployment["switches"]).iter();
    let switches = switches
        .filter(|switch| !switch["after_batch"].is_null() && switch["attempt"].as_u64() < Some(2))
        .map(|switch| {
            format!(
                "{}: {} to {}",
                switch["after_batch"], switch["from"], switch["to"]
            )
        });
    let holds = list(&deployment["holds"]).iter();
    let holds = holds
        .filter(|hold| hold["kind"] != "health")
        .map(|hold| format!("{}: {} {}", hold["after_batch"], hold["kind"], hold["name"]));
    switches.chain(holds).collect()
}

/// An instance with its versions, and each event once: whose revision it is, and why it was skipped.
fn instance(instance: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines = vec![format!(
        "{} {} -> {}",
        text(&instance["id"]),
        text(&instance["from_version"]),
        text(&instance["to_version"])
    )];
    let mut seen = BTreeSet::new();
    for step in list(&instance["steps"]) {
        let event = text(&step["event"]);
        let is_skipped = step["status"] == "SKIPPED";
        let line = format!(
            "{event} {} {} {}",
            text(&step["revision"]),
            text(&step["version"]),
            if is_skipped {
                text(&step["reason"])
            } else {
                "runs".to_owned()
            }
        );
        // A further attempt is no further step.
        if seen.insert(event) {
            lines.push(line);
        }
    }
    lines
}

/// Asserts that no instance started before one of an earlier batch.
fn assert_batches_in_order(planned: &Value, happened: &Value) {
    let started = |id: &Value| {
        let instances = list(&happened["instances"]);
        let of_id = instances.iter().find(|instance| instance["id"] == *id);
        let first = of_id.and_then(|instance| list(&instance["steps"]).first());
        first.and_then(|step| step["started_at"].as_str().map(str::to_owned))
    };
    let mut latest = None;
    for batch in list(&planned["batches"]) {
        let of_batch: Vec<_> = list(batch).iter().map(started).collect();
        let earliest = of_batch.iter().min().cloned().flatten();
        assert!(
            earliest.is_none() || earliest >= latest,
            "batch {batch} began before one ahead of it: {happened:#}"
        );
        latest = latest.max(of_batch.into_iter().max().flatten());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(status: &str, step: &Value, batches: &Value) -> Value {
        let instance = |id: &str, at: &str| {
            let mut step = step.clone();
            step["started_at"] = json!(at);
            json!({"id": id, "from_version": "1.0.0", "to_version": "1.1.0", "steps": [step]})
        };
        json!({"status": status, "deployments": [{
            "status": status, "strategy": "rolling", "batches": batches,
            "instances": [instance("a", "2026-01-01T00:00:01Z"), instance("b", "2026-01-01T00:00:02Z")],
        }]})
    }

    fn differs(plan: &Value, report: &Value) -> bool {
        std::panic::catch_unwind(|| assert_as_planned(plan, report)).is_err()
    }

    #[test]
    fn what_differs_is_found() {
        let runs = json!({"event": "Install", "revision": "incoming", "version": "1.1.0", "status": "PLANNED"});
        let mut ran = runs.clone();
        ran["status"] = json!("SUCCEEDED");
        let mut skipped = runs.clone();
        skipped["status"] = json!("SKIPPED");
        skipped["reason"] = json!("nothing to do");
        let one_by_one = json!([["a"], ["b"]]);
        let plan = document("PLANNED", &runs, &one_by_one);

        assert!(!differs(&plan, &document("SUCCEEDED", &ran, &one_by_one)));
        assert!(differs(
            &plan,
            &document("SUCCEEDED", &skipped, &one_by_one)
        ));
        assert!(differs(
            &plan,
            &document("SUCCEEDED", &ran, &json!([["a", "b"]]))
        ));
        let turned = json!([["b"], ["a"]]);
        let plan = document("PLANNED", &runs, &turned);
        assert!(differs(&plan, &document("SUCCEEDED", &ran, &turned)));
    }
}

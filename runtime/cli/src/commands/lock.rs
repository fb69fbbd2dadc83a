//! `cutover lock`: which release holds a group, and who waits for it.

use std::path::Path;

use journal::{Holder, Owner, Waiter};
use model::Timestamp;
use report::{Document, rfc3339};
use serde_json::{Value, json};

use crate::args::{Lock, Output, Stop};
use crate::commands::drive::now;
use crate::commands::{show, stop};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

/// JSON: `{"v":1,"group":…,"holder":null,"queue":[…]}`, or as holder `{release, status, operator, comment, started_at,
/// waiting_for, deployments, driver, owner}`. `deployments` are those of this group that have not ended, each `{id, direction,
/// version, batch, batches, instances}` with the number of the batch that is at work, or null, and the instances in flight. `driver`
/// is null where nobody drives the release, and else `{host, pid, name, since, renewed_at, expires_at}`; `owner` is the same for
/// the process that had it last, alive or not, or null when that one left it. Who waits is `{operator, host, pid,
/// purpose, since}`, first come first.
pub(crate) async fn run(ui: Ui, config: Option<&Path>, arguments: &Lock) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let journal = workspace::journal(&opened)?;
    let group = &arguments.group;
    let holder = journal.holder(group)?;
    if holder.is_none() {
        // A group that nobody holds is no mistake, an unknown one is.
        opened.workspace.group(group)?;
    }
    let now = now();
    if let (true, Some(holder)) = (arguments.is_to_break, &holder) {
        return break_lock(ui, config, arguments, holder, now).await;
    }
    let queue = journal.queue(group, now)?;
    let held = holder
        .map(|holder| Ok::<_, Failure>((show::document(&journal, &holder.release)?, holder)))
        .transpose()?;
    let name = group.to_string();
    match ui.output {
        Output::Json => ui.answer_json(&json!({
            "v": 1,
            "group": name,
            "holder": held.map(|(document, holder)| as_json(&name, &holder, &document, now)),
            "queue": queue.iter().map(waiter_as_json).collect::<Vec<_>>(),
        })),
        Output::Text => {
            let held = match held {
                Some((document, holder)) => text(&name, &holder, &document, now),
                None => format!("No release holds {name}.\n"),
            };
            ui.answer(&format!("{held}{}", queue_text(&queue)));
        }
    }
    Ok(())
}

/// Ends a release that nobody who lives drives.
async fn break_lock(
    ui: Ui,
    config: Option<&Path>,
    arguments: &Lock,
    holder: &Holder,
    now: Timestamp,
) -> Result<(), Failure> {
    let release = &holder.release;
    if let Some(owner) = driver(holder, now) {
        let text = format!(
            "release {release} is driven by {owner}, whose lease lasts until {} and is renewed as long as it lives",
            rfc3339(holder.expires_at)
        );
        return Err(Failure::new(Kind::Busy, text)
            .hint(format!("have it end the release: cutover stop {release}")));
    }
    let stop = Stop {
        id: release.to_string(),
        yes: arguments.yes,
        at: None,
        no_wait: false,
    };
    stop::run(ui, config, &stop).await
}

/// The process that drives the release, unless it is known to be gone.
fn driver(holder: &Holder, now: Timestamp) -> Option<&Owner> {
    holder
        .owner
        .as_ref()
        .filter(|_| !holder.may_be_succeeded(now))
}

fn text(group: &str, holder: &Holder, document: &Document, now: Timestamp) -> String {
    let driven = match (&holder.owner, driver(holder, now)) {
        (_, Some(owner)) => format!("{owner}, since {}", rfc3339(holder.since)),
        (Some(owner), None) if !owner.is_known_dead() => format!(
            "nobody: the lease of {owner} ran out at {}",
            rfc3339(holder.expires_at)
        ),
        _ => "nobody".to_owned(),
    };
    let heartbeat = driver(holder, now).map(|_| {
        format!(
            "{} ago, lease until {}",
            report::duration(now.since(holder.renewed_at())),
            rfc3339(holder.expires_at)
        )
    });
    let doing = match driver(holder, now) {
        Some(_) => "doing",
        None => "stands at",
    };
    let at_work = at_work(group, document);
    let mut lines = vec![
        ("group", Some(group.to_owned())),
        ("release", Some(document.id.clone())),
        ("status", Some(document.status.to_owned())),
        (
            "comment",
            Some(document.comment.clone()).filter(|comment| !comment.is_empty()),
        ),
        ("operator", Some(holder.operator.clone())),
        ("started", document.started_at.clone()),
    ];
    lines.extend(at_work.iter().map(|at_work| (doing, Some(at_work.text()))));
    lines.extend([
        ("driven by", Some(driven)),
        ("heartbeat", heartbeat),
        ("waiting for", document.waiting_for.clone()),
    ]);
    lines
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:<12} {}\n", value?)))
        .collect()
}

fn queue_text(queue: &[Waiter]) -> String {
    let line = |waiter: &Waiter| {
        let name = "in line";
        let Waiter {
            owner,
            operator,
            purpose,
            since,
            ..
        } = waiter;
        format!(
            "{name:<12} {operator}, process {} on {}, since {}: {purpose}\n",
            owner.pid,
            owner.host,
            rfc3339(*since)
        )
    };
    queue.iter().map(line).collect()
}

/// A deployment of the group that has not ended.
struct AtWork<'a> {
    deployment: &'a report::Deployment,
    /// The batch that has instances in flight, from 1.
    batch: Option<usize>,
    /// Instances in flight.
    instances: Vec<&'a str>,
}

impl AtWork<'_> {
    fn text(&self) -> String {
        let report::Deployment {
            direction,
            revision,
            batches,
            ..
        } = self.deployment;
        let what = format!("{direction} {}", revision.version);
        match self.batch {
            Some(batch) => format!(
                "{what}, batch {batch} of {}: {}",
                batches.len(),
                self.instances.join(", ")
            ),
            None => what,
        }
    }
}

fn at_work<'a>(group: &str, document: &'a Document) -> Vec<AtWork<'a>> {
    let is_meant = |deployment: &&report::Deployment| {
        format!("{}/{}", deployment.application, deployment.group) == group
            && deployment.ended_at.is_none()
    };
    document
        .deployments
        .iter()
        .filter(is_meant)
        .map(|deployment| {
            let in_flight = deployment
                .instances
                .iter()
                .filter(|instance| instance.outcome.is_none() && !instance.steps.is_empty());
            let instances: Vec<_> = in_flight.map(|instance| instance.id.as_str()).collect();
            let is_in =
                |batch: &Vec<String>| instances.iter().any(|id| batch.iter().any(|it| it == id));
            let batch = deployment.batches.iter().position(is_in);
            AtWork {
                deployment,
                batch: batch.map(|index| index + 1),
                instances,
            }
        })
        .collect()
}

fn as_json(group: &str, holder: &Holder, document: &Document, now: Timestamp) -> Value {
    let deployments: Vec<_> = at_work(group, document)
        .iter()
        .map(|at_work| {
            json!({
                "id": at_work.deployment.id,
                "direction": at_work.deployment.direction,
                "version": at_work.deployment.revision.version,
                "batch": at_work.batch,
                "batches": at_work.deployment.batches.len(),
                "instances": at_work.instances,
            })
        })
        .collect();
    let process = |owner: &Owner| {
        json!({
            "host": owner.host,
            "pid": owner.pid,
            "name": owner.name,
            "since": rfc3339(holder.since),
            "renewed_at": rfc3339(holder.renewed_at()),
            "expires_at": rfc3339(holder.expires_at),
        })
    };
    json!({
        "release": document.id,
        "status": document.status,
        "status_zh": document.status_zh,
        "operator": holder.operator,
        "comment": document.comment,
        "started_at": document.started_at,
        "waiting_for": document.waiting_for,
        "deployments": deployments,
        "driver": driver(holder, now).map(process),
        "owner": holder.owner.as_ref().map(process),
    })
}

fn waiter_as_json(waiter: &Waiter) -> Value {
    json!({
        "operator": waiter.operator,
        "host": waiter.owner.host,
        "pid": waiter.owner.pid,
        "purpose": waiter.purpose,
        "since": rfc3339(waiter.since),
    })
}

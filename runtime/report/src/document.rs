//! The JSON of `report`, `show` and `--dry-run` (DESIGN.md §6). Fields may be added, never renamed.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{
    DeploymentState, Doing, HoldState, InstanceState, State, StepState, SwitchState, planned_steps,
};
use model::{
    Gate, GateCheck, Hold as Wait, LifecycleEvent, Package, Promote, ReleaseStatus, Scope, Shares,
    Side, Strategy, Target, Timestamp,
};
use serde::Serialize;

use crate::line::{duration, words_of};

/// A release as people and programs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    pub v: u32,
    pub id: String,
    /// A release status, or `PLANNED` for a dry run.
    pub status: &'static str,
    /// The status in Chinese.
    pub status_zh: &'static str,
    pub comment: String,
    pub operator: String,
    pub started_at: Option<String>,
    pub ended_at: Option<String>,
    /// What an unfinished release waits for.
    pub waiting_for: Option<String>,
    /// Why it ended, or stands, as it does.
    pub reason: Option<String>,
    /// When an unfinished release stood as it is told here.
    pub as_of: Option<String>,
    /// The statuses that followed the first one, which is `RUNNING`.
    pub changes: Vec<Change>,
    /// What operators ordered.
    pub orders: Vec<Order>,
    pub deployments: Vec<Deployment>,
}

/// A status that a release came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub at: String,
    pub status: &'static str,
}

/// What an operator ordered, as it would be typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    pub at: String,
    pub operator: String,
    pub order: String,
}

/// One deployment of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deployment {
    pub id: String,
    pub service_id: Option<u64>,
    pub application: String,
    pub group: String,
    pub kind: String,
    pub priority: i64,
    /// Whether the operator chose to go on when a script of the version being left fails.
    pub ignore_stop_failures: bool,
    pub strategy: &'static str,
    pub direction: &'static str,
    /// The deployment that a rollback takes back.
    pub rolls_back: Option<String>,
    pub revision: Revision,
    /// As a release's; `PLANNED` also for a service of a plan that waits for its turn.
    pub status: &'static str,
    pub reason: Option<String>,
    /// When anything was first done.
    pub started_at: Option<String>,
    pub ended_at: Option<String>,
    /// What a service of a plan waits for that has not begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    pub batches: Vec<Vec<String>>,
    /// Digest of each plugin in use.
    pub plugins: BTreeMap<String, String>,
    /// What each plugin is granted; only in a dry run.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub grants: BTreeMap<String, Vec<String>>,
    /// Instances of the group that the operator left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// The version of each instance of the group, where the group has mixed versions at the moment; null for an instance
    /// without one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mixed_versions: BTreeMap<String, Option<String>>,
    pub instances: Vec<Instance>,
    /// The side that the deployment goes to, where the group has sides.
    pub side: Option<String>,
    /// The percentage of the traffic that each side gets by now.
    pub shares: BTreeMap<String, u32>,
    pub switches: Vec<Switch>,
    /// What the deployment waited for between its batches.
    pub holds: Vec<Hold>,
    /// How many instances have to be healthy at any moment.
    pub minimum_healthy: Option<String>,
    /// Instances without traffic for a cause outside of the deployment, with the balancer's words.
    pub down: BTreeMap<String, String>,
}

/// A revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revision {
    pub version: String,
    pub source: String,
    pub digest: String,
}

/// One instance of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    pub id: String,
    /// Absent until it ended.
    pub outcome: Option<&'static str>,
    pub reason: Option<String>,
    pub from_version: Option<String>,
    pub to_version: Option<String>,
    pub steps: Vec<Step>,
}

/// One attempt of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub event: &'static str,
    /// `outgoing` or `incoming`; absent where the instance has no revision on that side.
    pub revision: Option<&'static str>,
    pub version: Option<String>,
    /// `SUCCEEDED`, `FAILED`, `SKIPPED`, `LOST`, `RUNNING`, or `PLANNED` in a dry run.
    pub status: &'static str,
    pub reason: Option<String>,
    pub attempt: u32,
    pub started_at: Option<String>,
    pub ended_at: Option<String>,
    pub exit_code: Option<i32>,
    pub log: Option<String>,
}

/// One attempt to switch traffic between sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switch {
    /// When it ended, or began where it has not ended; absent in a dry run.
    pub at: Option<String>,
    pub started_at: Option<String>,
    pub ended_at: Option<String>,
    /// How many batches are done before it; absent where an operator asked for it.
    pub after_batch: Option<u32>,
    /// As a step's.
    pub status: &'static str,
    pub reason: Option<String>,
    pub attempt: u32,
    pub from: BTreeMap<String, u32>,
    pub to: BTreeMap<String, u32>,
}

/// A wait of a deployment, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// `interval`, `promotion`, `gate`, `bake` or `health`.
    pub kind: &'static str,
    /// The gate's name.
    pub name: Option<String>,
    pub after_batch: u32,
    /// `PASSED`, `FAILED`, `INCONCLUSIVE`, `WAITING`, `ABANDONED` where the deployment ended first, or `PLANNED` in a dry
    /// run.
    pub status: &'static str,
    pub opened_at: Option<String>,
    /// When it is over, or given up.
    pub until: Option<String>,
    pub closed_at: Option<String>,
    /// The operator who decided.
    pub by: Option<String>,
    pub reason: Option<String>,
    pub evidence: Vec<Evidence>,
}

/// What a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub name: String,
    pub value: String,
    pub threshold: Option<String>,
    pub verdict: &'static str,
}

/// An instant as RFC 3339 in UTC, with milliseconds.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| at.0.to_string(), |at| format!("{at:.3}"))
}

/// An instant for people: RFC 3339 in UTC, to the second.
#[must_use]
pub fn short_time(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.0.div_euclid(1000))
        .map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

impl Document {
    /// The document of a release. `seen_as` is the status to show: a release whose conductor is known to be dead is
    /// seen as interrupted before anybody could record it.
    #[must_use]
    pub fn of(state: &State, seen_as: ReleaseStatus, now: Timestamp) -> Self {
        Self {
            v: 1,
            id: state.release.id.to_string(),
            status: seen_as.name(),
            status_zh: seen_as.chinese_name(),
            comment: state.release.comment.clone(),
            operator: state.release.operator.clone(),
            started_at: Some(rfc3339(state.opened_at)),
            ended_at: state.ended_at.map(rfc3339),
            waiting_for: waiting_for(state, seen_as, now),
            reason: state.reason.clone(),
            as_of: state.ended_at.is_none().then(|| rfc3339(now)),
            changes: state
                .changes
                .iter()
                .map(|(at, status)| Change {
                    at: rfc3339(*at),
                    status: status.name(),
                })
                .collect(),
            orders: state
                .orders
                .iter()
                .map(|given| Order {
                    at: rfc3339(given.at),
                    operator: given.operator.clone(),
                    order: words_of(&given.order),
                })
                .collect(),
            deployments: state
                .deployments
                .iter()
                .map(|deployment| match turn(state, deployment) {
                    Some(turn) => Deployment {
                        // What is over waits for nothing.
                        waiting_for: state.ended_at.is_none().then_some(turn),
                        ..deployment_of(deployment, "PLANNED")
                    },
                    None => deployment_of(deployment, seen_as.name()),
                })
                .collect(),
        }
    }

    /// The document of a dry run: every step that would happen, and what each plugin is granted.
    #[must_use]
    pub fn planned(
        release: &model::Release,
        deployments: &[Arc<model::Deployment>],
        grants: BTreeMap<String, Vec<String>>,
    ) -> Self {
        let rehearsed = engine::rehearse(release, deployments);
        let (deployments, reason) = match &rehearsed {
            Ok(state) => (
                state.deployments.iter().map(planned_deployment).collect(),
                state
                    .reason
                    .clone()
                    .filter(|_| state.status != ReleaseStatus::Succeeded),
            ),
            Err(refusal) => (Vec::new(), Some(refusal.to_string())),
        };
        let mut document = Self {
            v: 1,
            id: release.id.to_string(),
            status: "PLANNED",
            status_zh: "计划",
            comment: release.comment.clone(),
            operator: release.operator.clone(),
            started_at: None,
            ended_at: None,
            waiting_for: None,
            reason,
            as_of: None,
            changes: Vec::new(),
            orders: Vec::new(),
            deployments,
        };
        for deployment in &mut document.deployments {
            deployment.grants = grants
                .iter()
                .filter(|(plugin, _)| deployment.plugins.contains_key(*plugin))
                .map(|(plugin, granted)| (plugin.clone(), granted.clone()))
                .collect();
        }
        document
    }
}

impl Deployment {
    /// `APPLICATION/GROUP`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.application, self.group)
    }

    /// The status, or `WAITING` where it has not begun in a release that goes on, `NOT STARTED` in one that is over.
    pub(crate) fn standing(&self, document: &Document) -> &'static str {
        let has_begun = self.started_at.is_some() || self.ended_at.is_some();
        match (self.status, &document.ended_at) {
            _ if document.status == "PLANNED" => "PLANNED",
            (_, Some(_)) if !has_begun => "NOT STARTED",
            ("PLANNED", _) => "WAITING",
            (status, _) => status,
        }
    }

    /// The versions that its instances leave, in the order of the instances.
    pub(crate) fn versions_left(&self) -> Vec<&str> {
        let mut versions = Vec::new();
        for instance in &self.instances {
            let version = instance.from_version.as_deref().unwrap_or("nothing");
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        versions
    }
}

impl Step {
    /// The status, or `UNFINISHED` where nobody is there to tell how it goes on.
    pub(crate) fn standing(&self, document: &Document) -> &'static str {
        match (self.status, document.status) {
            ("RUNNING", "INTERRUPTED") => "UNFINISHED",
            (status, _) => status,
        }
    }
}

impl Instance {
    /// The last attempt of anything that was not left out.
    pub(crate) fn last(&self) -> Option<&Step> {
        self.steps
            .iter()
            .rev()
            .find(|step| step.status != "SKIPPED")
    }

    /// The outcome, or how far it is.
    pub(crate) fn standing(&self, deployment: &Deployment, document: &Document) -> &'static str {
        let is_over = deployment.ended_at.is_some() || document.ended_at.is_some();
        match (self.outcome, self.last()) {
            _ if document.status == "PLANNED" => "PLANNED",
            (Some(outcome), _) => outcome,
            (None, Some(_)) if is_over || document.status == "INTERRUPTED" => "UNFINISHED",
            (None, Some(_)) => "RUNNING",
            (None, None) if is_over => "NOT STARTED",
            (None, None) => "WAITING",
        }
    }
}

/// A deployment as it would go, given how it went when it was rehearsed.
fn planned_deployment(rehearsed: &DeploymentState) -> Deployment {
    let plan = &rehearsed.plan;
    let instances = plan.targets.iter().map(|target| Instance {
        steps: planned_steps(plan, target)
            .map(|step| planned_step(plan, target, &step))
            .collect(),
        ..instance_head(plan, target)
    });
    Deployment {
        instances: instances.collect(),
        shares: plan
            .sides
            .as_ref()
            .map(|sides| shares(&sides.shares))
            .unwrap_or_default(),
        switches: rehearsed
            .switches
            .iter()
            .map(|switch| {
                let is_skipped = matches!(switch.progress, engine::Progress::Skipped(_));
                Switch {
                    at: None,
                    started_at: None,
                    ended_at: None,
                    status: if is_skipped { "SKIPPED" } else { "PLANNED" },
                    ..switch_of(switch)
                }
            })
            .collect(),
        holds: rehearsed
            .holds
            .iter()
            .map(|hold| Hold {
                status: "PLANNED",
                opened_at: None,
                until: None,
                closed_at: None,
                by: None,
                reason: planned_wait(plan, hold),
                evidence: Vec::new(),
                ..hold_of(plan, hold)
            })
            .collect(),
        ..deployment_head(plan, "PLANNED")
    }
}

/// How long a wait takes, or who ends it.
fn planned_wait(plan: &model::Deployment, hold: &HoldState) -> Option<String> {
    let time = hold
        .until
        .map(|until| duration(until.since(hold.opened_at)));
    match (&hold.hold, time) {
        (Wait::Gate { index }, time) => {
            let gate = plan.gates.get(*index as usize)?;
            let at_most = time.map(|time| format!(", for at most {time}"));
            Some(format!(
                "{}{}",
                decided_by(gate),
                at_most.unwrap_or_default()
            ))
        }
        (_, Some(time)) => Some(format!("for {time}")),
        (_, None) => Some("until an operator ends it".to_owned()),
    }
}

fn decided_by(gate: &Gate) -> String {
    match &gate.check {
        GateCheck::Approval { ask } => format!("an operator is asked: {ask}"),
        GateCheck::Command { command } => format!("decided by `{command}`"),
        GateCheck::Plugin { plugin, .. } => format!("decided by plugin `{plugin}`"),
    }
}

fn deployment_head(plan: &model::Deployment, status: &'static str) -> Deployment {
    let rolls_back = match &plan.direction {
        model::Direction::Deploy | model::Direction::Operate | model::Direction::Retire { .. } => {
            None
        }
        model::Direction::Rollback { of } => Some(of.to_string()),
    };
    Deployment {
        id: plan.id.to_string(),
        service_id: plan.service_id,
        application: plan.group.application.to_string(),
        group: plan.group.group.to_string(),
        kind: plan.kind.clone(),
        priority: plan.priority,
        ignore_stop_failures: plan.stop_failures == model::StopFailures::Ignore,
        strategy: plan.strategy.name(),
        direction: plan.direction.name(),
        rolls_back,
        revision: Revision {
            version: plan.revision.version.to_string(),
            source: plan.revision.source.clone(),
            digest: plan.revision.digest.to_string(),
        },
        status,
        reason: None,
        started_at: None,
        ended_at: None,
        waiting_for: None,
        batches: plan
            .batches()
            .map(|batch| {
                batch
                    .iter()
                    .map(|target| target.instance.id.to_string())
                    .collect()
            })
            .collect(),
        plugins: plan
            .plugins
            .iter()
            .map(|(name, digest)| (name.to_string(), digest.to_string()))
            .collect(),
        grants: BTreeMap::new(),
        excluded: plan.excluded.iter().map(ToString::to_string).collect(),
        mixed_versions: BTreeMap::new(),
        instances: Vec::new(),
        side: plan.sides.as_ref().map(|sides| sides.to.to_string()),
        shares: BTreeMap::new(),
        switches: Vec::new(),
        holds: Vec::new(),
        minimum_healthy: plan.minimum_healthy.map(|amount| amount.to_string()),
        down: texts(&plan.down),
    }
}

fn texts<K: ToString>(map: &BTreeMap<K, String>) -> BTreeMap<String, String> {
    map.iter()
        .map(|(key, text)| (key.to_string(), text.clone()))
        .collect()
}

fn shares(shares: &Shares) -> BTreeMap<String, u32> {
    shares
        .iter()
        .map(|(side, share)| (side.to_string(), u32::from(share)))
        .collect()
}

/// What a service that has not begun waits for.
fn turn(state: &State, deployment: &DeploymentState) -> Option<String> {
    let is_waiting = state.release.scope == Scope::Plan
        && deployment.started_at.is_none()
        && deployment.ended_at.is_none();
    if !is_waiting {
        return None;
    }
    let ahead: Vec<_> = state
        .ahead_of(&deployment.plan)
        .map(|other| format!("{} of priority {}", other.plan.group, other.plan.priority))
        .collect();
    Some(match ahead.as_slice() {
        [] => "the release to go on".to_owned(),
        ahead => ahead.join(", "),
    })
}

fn deployment_of(state: &DeploymentState, seen_as: &'static str) -> Deployment {
    let status = if state.ended_at.is_some() {
        state.status.name()
    } else {
        seen_as
    };
    let instances = state.plan.targets.iter().zip(&state.instances);
    Deployment {
        reason: state.reason.clone(),
        started_at: state.started_at.map(rfc3339),
        ended_at: state.ended_at.map(rfc3339),
        instances: instances
            .map(|(target, instance)| instance_of(&state.plan, target, instance))
            .collect(),
        shares: shares(&state.shares),
        switches: state.switches.iter().map(switch_of).collect(),
        holds: state
            .holds
            .iter()
            .map(|hold| match (&hold.closed, state.ended_at) {
                // What failed while it was open, or an operator, ended the deployment instead.
                (None, Some(_)) => Hold {
                    status: "ABANDONED",
                    ..hold_of(&state.plan, hold)
                },
                _ => hold_of(&state.plan, hold),
            })
            .collect(),
        down: texts(&state.down),
        ..deployment_head(&state.plan, status)
    }
}

fn switch_of(switch: &SwitchState) -> Switch {
    Switch {
        at: Some(rfc3339(switch.ended_at.unwrap_or(switch.started_at))),
        started_at: Some(rfc3339(switch.started_at)),
        ended_at: switch.ended_at.map(rfc3339),
        after_batch: switch
            .stage
            .map(|stage| stage.boundary)
            .filter(|boundary| *boundary != u32::MAX),
        status: switch
            .progress
            .status()
            .map_or("RUNNING", model::StepStatus::name),
        reason: switch.progress.reason().map(str::to_owned),
        attempt: switch.attempt,
        // A command does not say what it moves between.
        from: shares(&switch.from),
        to: shares(&switch.to),
    }
}

fn hold_of(plan: &model::Deployment, hold: &HoldState) -> Hold {
    let decision = hold.closed.as_ref().map(|(_, decision)| decision);
    let evidence = decision.map_or(&[][..], |decision| &decision.evidence);
    Hold {
        kind: kind_of(&hold.hold),
        name: gate_of(plan, &hold.hold).map(|gate| gate.name.clone()),
        after_batch: hold.stage.boundary,
        status: decision.map_or("WAITING", |decision| decision.verdict.name()),
        opened_at: Some(rfc3339(hold.opened_at)),
        until: hold.until.map(rfc3339),
        closed_at: hold.closed.as_ref().map(|(at, _)| rfc3339(*at)),
        by: decision.and_then(|decision| decision.by.clone()),
        reason: decision.and_then(|decision| decision.reason.clone()),
        evidence: evidence
            .iter()
            .map(|evidence| Evidence {
                name: evidence.name.clone(),
                value: evidence.value.clone(),
                threshold: evidence.threshold.clone(),
                verdict: evidence.verdict.name(),
            })
            .collect(),
    }
}

fn kind_of(hold: &Wait) -> &'static str {
    match hold {
        Wait::Interval => "interval",
        Wait::Promotion => "promotion",
        Wait::Gate { .. } => "gate",
        Wait::Bake => "bake",
        Wait::Health => "health",
    }
}

fn gate_of<'p>(plan: &'p model::Deployment, hold: &Wait) -> Option<&'p Gate> {
    match hold {
        Wait::Gate { index } => plan.gates.get(*index as usize),
        Wait::Interval | Wait::Promotion | Wait::Bake | Wait::Health => None,
    }
}

fn version(package: Option<&std::sync::Arc<Package>>) -> Option<String> {
    package.map(|package| package.revision.version.to_string())
}

fn instance_head(plan: &model::Deployment, target: &Target) -> Instance {
    Instance {
        id: target.instance.id.to_string(),
        outcome: None,
        reason: None,
        from_version: version(
            target
                .outgoing
                .as_ref()
                .and_then(|key| plan.packages.get(key)),
        ),
        to_version: version(plan.packages.get(&target.incoming)),
        steps: Vec::new(),
    }
}

fn instance_of(plan: &model::Deployment, target: &Target, state: &InstanceState) -> Instance {
    Instance {
        outcome: state.outcome.map(model::InstanceOutcome::name),
        reason: state.reason.clone(),
        steps: state
            .steps
            .iter()
            .map(|step| step_of(plan, target, step))
            .collect(),
        ..instance_head(plan, target)
    }
}

/// The side and the version that an event belongs to on an instance.
fn side(
    plan: &model::Deployment,
    target: &Target,
    event: LifecycleEvent,
) -> (Option<&'static str>, Option<String>) {
    let key = match event.side() {
        Side::Outgoing => target.outgoing.as_ref(),
        Side::Incoming => Some(&target.incoming),
    };
    let package = key.and_then(|key| plan.packages.get(key));
    (package.map(|_| event.side().name()), version(package))
}

fn step_of(plan: &model::Deployment, target: &Target, step: &StepState) -> Step {
    let (revision, version) = side(plan, target, step.event);
    Step {
        event: step.event.name(),
        revision,
        version,
        status: step.status().map_or("RUNNING", model::StepStatus::name),
        reason: step.reason().map(str::to_owned),
        attempt: step.attempt,
        started_at: Some(rfc3339(step.started_at)),
        ended_at: step.ended_at.map(rfc3339),
        exit_code: step.exit_code(),
        log: step.log().map(str::to_owned),
    }
}

fn planned_step(plan: &model::Deployment, target: &Target, step: &engine::PlannedStep) -> Step {
    let (revision, version) = side(plan, target, step.event);
    let (status, reason) = match &step.doing {
        Doing::Skip(reason) => ("SKIPPED", Some(reason.clone())),
        Doing::Call => ("PLANNED", called_by(plan)),
        Doing::Hook | Doing::BuiltIn => ("PLANNED", None),
    };
    Step {
        event: step.event.name(),
        revision,
        version,
        status,
        reason,
        attempt: u32::from(status == "PLANNED"),
        started_at: None,
        ended_at: None,
        exit_code: None,
        log: None,
    }
}

/// Who does what is planned for a step, where it is neither the host nor the package.
fn called_by(plan: &model::Deployment) -> Option<String> {
    let calls = plan.calls.as_ref()?;
    Some(format!("calls plugin `{}`", calls.plugin))
}

fn waiting_for(state: &State, seen_as: ReleaseStatus, now: Timestamp) -> Option<String> {
    match seen_as {
        ReleaseStatus::Succeeded | ReleaseStatus::Failed | ReleaseStatus::Stopped => None,
        ReleaseStatus::Paused | ReleaseStatus::Interrupted => Some(format!(
            "an operator: `cutover resume {id}` or `cutover stop {id}`",
            id = state.release.id
        )),
        ReleaseStatus::Running | ReleaseStatus::Pausing | ReleaseStatus::Stopping => {
            let current: Vec<_> = state
                .deployments
                .iter()
                .flat_map(|deployment| deployment.plan.targets.iter().zip(&deployment.instances))
                .filter_map(|(target, instance)| Some((target, instance.current()?)))
                .collect();
            if current.is_empty() {
                return waiting_between_batches(state, now);
            }
            let first = current.iter().min_by_key(|(_, step)| step.started_at)?;
            let others = match current.len() {
                1 => String::new(),
                many => format!(" and {} more", many - 1),
            };
            let since = duration(now.since(first.1.started_at));
            Some(format!(
                "{} on {} for {since}{others}",
                first.1.event, first.0.instance.id
            ))
        }
    }
}

/// What a release waits for while none of its instances is being changed.
fn waiting_between_batches(state: &State, now: Timestamp) -> Option<String> {
    let waiting = state
        .deployments
        .iter()
        .filter(|deployment| deployment.ended_at.is_none())
        .filter_map(|deployment| {
            let what = deployment_waits_for(state, deployment, now)?;
            Some(match state.release.scope {
                Scope::Service => what,
                Scope::Plan => format!("{}: {what}", deployment.plan.group),
            })
        });
    let waiting: Vec<_> = waiting.collect();
    (!waiting.is_empty()).then(|| waiting.join("; "))
}

/// What a deployment waits for while none of its instances is being changed.
fn deployment_waits_for(
    state: &State,
    deployment: &DeploymentState,
    now: Timestamp,
) -> Option<String> {
    if let Some(switch) = deployment.current_switch() {
        let since = duration(now.since(switch.started_at));
        return Some(match switch.to.is_empty() {
            true => format!("SwitchTraffic for {since}"),
            false => format!("SwitchTraffic to {} for {since}", switch.to),
        });
    }
    let hold = deployment.current_hold()?;
    let plan = &deployment.plan;
    // In a plan several services may wait for somebody.
    let id = match state.release.scope {
        Scope::Service => state.release.id.as_str(),
        Scope::Plan => plan.id.as_str(),
    };
    let since = duration(now.since(hold.opened_at));
    let left = hold
        .until
        .map(|until| format!(", {} left", duration(until.since(now))));
    let left = left.unwrap_or_default();
    let done = hold.stage.boundary;
    Some(match &hold.hold {
        Wait::Interval => format!("the time between batches {done} and {}{left}", done + 1),
        Wait::Promotion => {
            let share = plan.sides.as_ref().map(|sides| {
                format!(
                    ", {} gets {}% of the traffic",
                    sides.to,
                    deployment.shares.of(&sides.to)
                )
            });
            let who = match plan.strategy {
                Strategy::Canary {
                    promote: Promote::After(_),
                    ..
                } => format!("the canary's promotion by itself{left}"),
                _ => format!("an operator, for {since}: `cutover promote {id}`"),
            };
            format!("{who}{}", share.unwrap_or_default())
        }
        Wait::Gate { index } => {
            let gate = plan.gates.get(*index as usize)?;
            let name = &gate.name;
            match &gate.check {
                GateCheck::Approval { ask } => format!(
                    "an operator, for {since}: gate `{name}` asks: {ask} `cutover approve {id}` or `cutover reject {id}`{left}"
                ),
                GateCheck::Command { .. } | GateCheck::Plugin { .. } => {
                    format!("gate `{name}`, {}, for {since}{left}", decided_by(gate))
                }
            }
        }
        Wait::Bake => format!("problems to show on the side that got the traffic{left}"),
        Wait::Health => {
            let down = deployment.down.iter().take(3);
            let down: Vec<_> = down.map(|(id, words)| format!("{id} is {words}")).collect();
            format!("instances to be healthy: {}{left}", down.join(", "))
        }
    })
}

//! Release plans: from the services of a file to the deployments of one release.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Amount, Batching, Calls, Deployment, DeploymentId, GroupRef, InstanceId, LifecycleEvent,
    OnFailure, Release, Scope, StopFailures, Strategy,
};
use plugin_host::deployment_kind::{Action, Recipe, Step};
use plugin_host::{CallError, Capability, Mismatch, Plugin, Severity as Gravity};
use spec::release_plan::{ExecMethod, Item, KINDS, ReleasePlan, Resolved};
use spec::workspace::Group;
use spec::{Problem, Problems, Severity};

use crate::Conductor;
use crate::choices::Choices;
use crate::plan::{DeployRequest, PlanError, chain};
use crate::plugins::Kind;

/// A release of several services that could start.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    pub release: Release,
    /// In the order of their turn.
    pub deployments: Vec<Deployment>,
    /// What an operator should know before it starts.
    pub warnings: Vec<String>,
}

/// Why nothing of a release plan is started.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the release plan has problems")]
    Problems(#[from] Problems),
    #[error("{}:{line}: service {service_id} ({group})", file.display())]
    Service {
        file: PathBuf,
        line: usize,
        service_id: u64,
        group: GroupRef,
        source: Box<PlanError>,
    },
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// An item with all that its deployment needs.
struct Service<'p> {
    item: &'p Item,
    group: Group,
    /// Instances of the group that its labels do not select.
    left_out: Vec<InstanceId>,
    recipe: Recipe,
    /// What provides its kind.
    plugin: Arc<Plugin>,
}

impl Conductor {
    /// Plans the deployments of a release plan: every package is fetched or built, and everything checked, before
    /// anything changes on any instance.
    ///
    /// # Errors
    /// [`RunError::Problems`] with all that is wrong with the file, then the first service that cannot be planned.
    pub async fn plan_run(&self, plan: &ReleasePlan) -> Result<PlannedRun, RunError> {
        let kinds = self.plugins.kinds().await.map_err(PlanError::from)?;
        let mut problems = unknown_kinds(plan, &kinds);
        let resolved = match plan.resolve(&self.workspace) {
            Ok(resolved) => resolved,
            Err(more) => {
                problems.extend(more);
                return Err(in_order(problems).into());
            }
        };
        problems.extend(resolved.warnings);
        let mut services = Vec::new();
        for resolved in resolved.value {
            services.extend(self.service(plan, resolved, &kinds, &mut problems).await?);
        }
        let problems = in_order(problems);
        if problems.has_errors() {
            return Err(problems.into());
        }
        // Stable: services of one priority stay in the order of the file.
        services.sort_by_key(|service| Reverse(service.item.priority));
        for service in &services {
            self.check_free(&service.group.reference)?;
        }
        let mut warnings: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let release = self.new_release(plan.comment.clone(), Scope::Plan)?;
        let mut deployments = Vec::new();
        for (service, number) in services.iter().zip(1..) {
            let id = DeploymentId::nth(&release.id, number);
            let group = &service.group.reference;
            let mut told = Vec::new();
            let planned = self.deployment_for(service, id, &mut told).await;
            let deployment = planned.map_err(|source| RunError::Service {
                file: plan.file.clone(),
                line: service.item.at.line,
                service_id: service.item.service_id,
                group: group.clone(),
                source: Box::new(source),
            })?;
            warnings.extend(told.into_iter().map(|told| format!("{group}: {told}")));
            deployments.push(deployment);
        }
        Ok(PlannedRun {
            release,
            deployments,
            warnings,
        })
    }

    /// Finds the kind of an item, and what it comes to. `None` where something is wrong, which is then among the
    /// problems.
    async fn service<'p>(
        &self,
        plan: &ReleasePlan,
        resolved: Resolved<'p>,
        kinds: &BTreeMap<String, Kind>,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Service<'p>>, PlanError> {
        let item = resolved.item;
        let Some(kind) = kinds.get(&item.kind) else {
            return Ok(None);
        };
        let Some(recipe) = self.recipe(plan, item, kind, problems).await else {
            return Ok(None);
        };
        let whole = self.workspace.group(&resolved.group)?;
        let is_canary = matches!(whole.strategy, Strategy::Canary { .. });
        if recipe.reference.is_some() && is_canary && item.exec_method.is_some() {
            problems.push(plan.problem(
                item,
                "/containerExecMethod",
                Severity::Error,
                &format!(
                    "`{}` is deployed as a canary, which has batches of its own",
                    resolved.group
                ),
                Some("leave `containerExecMethod` out".to_owned()),
            ));
            return Ok(None);
        }
        let batching = match (item.exec_method, &whole.batching) {
            (Some(ExecMethod::Sequential), _) => Batching::Window(Amount::Count(1)),
            (Some(ExecMethod::Parallel), _) if !whole.is_bounded => {
                Batching::Window(Amount::Percent(100))
            }
            // Batches of a canary say how traffic moves, and none does.
            (_, Batching::FirstThenEven { .. }) if recipe.reference.is_none() => {
                Batching::Window(Amount::Count(1))
            }
            (_, batching) => batching.clone(),
        };
        let is_selected = |id: &InstanceId| resolved.instances.contains(id);
        let instances = whole.instances.iter().map(|instance| instance.id.clone());
        Ok(Some(Service {
            item,
            left_out: instances.filter(|id| !is_selected(id)).collect(),
            group: Group {
                batching,
                ..whole.clone()
            },
            recipe,
            plugin: kind.plugin.clone(),
        }))
    }

    async fn recipe(
        &self,
        plan: &ReleasePlan,
        item: &Item,
        kind: &Kind,
        problems: &mut Vec<Problem>,
    ) -> Option<Recipe> {
        // The format's own kinds have been checked with the file.
        let is_own = !KINDS.contains(&item.kind.as_str());
        let before = problems.len();
        if is_own {
            problems.extend(plan.validate_schema(item, &kind.item_schema));
        }
        let asked = |error: &CallError| {
            let (kind, name) = (&item.kind, kind.plugin.name());
            let message = format!(
                "ask plugin `{name}` about the kind `{kind}`: {}",
                chain(error)
            );
            let hint = error.failure().and_then(|failure| failure.hint.clone());
            plan.problem(item, "/deployment", Severity::Error, &message, hint)
        };
        let found = match kind.plugin.validate(&item.kind, &item.json).await {
            Ok(found) => found,
            Err(error) => {
                problems.push(asked(&error));
                return None;
            }
        };
        for diagnostic in found {
            let severity = match diagnostic.severity {
                Gravity::Error => Severity::Error,
                Gravity::Warning | Gravity::Hint if is_own => Severity::Warning,
                Gravity::Warning | Gravity::Hint => continue,
            };
            let message = &diagnostic.message;
            problems.push(plan.problem(item, &diagnostic.path, severity, message, None));
        }
        let has_errors = problems[before..]
            .iter()
            .any(|problem| problem.severity == Severity::Error);
        if has_errors {
            return None;
        }
        let recipe = match kind.plugin.plan(&item.kind, &item.json).await {
            Ok(recipe) => recipe,
            Err(error) => {
                problems.push(asked(&error));
                return None;
            }
        };
        let refused = unsupported(&recipe).or_else(|| self.ungranted(&recipe, &kind.plugin));
        problems.extend(refused.map(|why| {
            let message = format!(
                "the kind `{}` of plugin `{}` cannot be carried out: {why}",
                item.kind,
                kind.plugin.name()
            );
            plan.problem(item, "/deployment", Severity::Error, &message, None)
        }));
        (problems.len() == before).then_some(recipe)
    }

    async fn deployment_for(
        &self,
        service: &Service<'_>,
        id: DeploymentId,
        warnings: &mut Vec<String>,
    ) -> Result<Deployment, PlanError> {
        let group = &service.group;
        let choices = Choices {
            exclude: service.left_out.clone(),
            ..Choices::default()
        };
        let events: Vec<_> = service.recipe.steps.iter().map(|step| step.event).collect();
        let deployment = match &service.recipe.reference {
            Some(reference) => {
                if group.on_failure == OnFailure::Rollback {
                    warnings.push(
                        "a release plan takes nothing back by itself: `on_failure: rollback` is not used"
                            .to_owned(),
                    );
                }
                let request = DeployRequest {
                    group: group.reference.clone(),
                    package: reference.clone(),
                    version: None,
                    digest: None,
                    choices,
                    stop_failures: StopFailures::Fail,
                    comment: String::new(),
                };
                let mut deployment = self.deploy_to(group, id, request, warnings).await?;
                deployment.sequence.retain(|event| events.contains(event));
                deployment
            }
            None => self.operate(group, &events, id, &choices, warnings).await?,
        };
        let calls = self.calls(service, &deployment, warnings);
        let mut plugins = deployment.plugins.clone();
        if calls.is_some() {
            let plugin = &service.plugin;
            plugins.insert(plugin.name().clone(), plugin.digest().clone());
        }
        Ok(Deployment {
            kind: service.item.kind.clone(),
            priority: service.item.priority,
            on_failure: OnFailure::Stop,
            calls,
            plugins,
            ..deployment
        })
    }

    /// What the plugin of a service's kind does itself, as far as the group has these events.
    fn calls(
        &self,
        service: &Service<'_>,
        deployment: &Deployment,
        warnings: &mut Vec<String>,
    ) -> Option<Calls> {
        let is_call = |step: &&Step| step.action == Action::Call;
        let mut events = BTreeMap::new();
        for step in service.recipe.steps.iter().filter(is_call) {
            let event = step.event;
            if deployment.sequence.contains(&event) {
                events.insert(event, step.timeout.unwrap_or(USUAL_TIMEOUT));
            } else {
                let kind = &service.item.kind;
                warnings.push(format!(
                    "`{kind}` calls its plugin at {event}, which this group does not go through: it is left out"
                ));
            }
        }
        let plugin = service.plugin.name().clone();
        (!events.is_empty()).then(|| Calls {
            config: self.plugins.config(&plugin),
            plugin,
            item: service.item.json.clone(),
            events,
        })
    }

    /// Has a deployment call the plugin that the one before called which it is made after.
    pub(crate) async fn keep_calls(
        &self,
        before: &Deployment,
        deployment: &mut Deployment,
    ) -> Result<(), PlanError> {
        let Some(calls) = &before.calls else {
            return Ok(());
        };
        let plugin = self.plugins.get(&calls.plugin).await?;
        let (name, digest) = (plugin.name().clone(), plugin.digest().clone());
        deployment.plugins.insert(name, digest);
        deployment.calls = Some(Calls {
            config: self.plugins.config(&calls.plugin),
            ..calls.clone()
        });
        Ok(())
    }

    /// What a kind asks for on instances and does not get.
    fn ungranted(&self, recipe: &Recipe, plugin: &Plugin) -> Option<String> {
        let calls = recipe.steps.iter().any(|step| step.action == Action::Call);
        let mismatches = if calls {
            self.plugins.mismatches(plugin)
        } else {
            Vec::new()
        };
        mismatches.into_iter().find_map(|mismatch| match &mismatch {
            Mismatch::NotGranted {
                capability: capability @ (Capability::Command(_) | Capability::Path { .. }),
                ..
            } => Some(format!(
                "{mismatch}; grant it: {}",
                capability.grant_line(plugin.name())
            )),
            _ => None,
        })
    }
}

/// How long a call may take where the recipe does not say.
const USUAL_TIMEOUT: Duration = Duration::from_mins(10);

/// The longest that a recipe may ask for.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

fn unknown_kinds(plan: &ReleasePlan, kinds: &BTreeMap<String, Kind>) -> Vec<Problem> {
    let provided: Vec<_> = kinds.keys().map(String::as_str).collect();
    let unknown = plan
        .items
        .iter()
        .filter(|item| !kinds.contains_key(&item.kind));
    unknown
        .map(|item| plan.unknown_kind(item, &provided))
        .collect()
}

/// The problems in the order of the file.
fn in_order(mut problems: Vec<Problem>) -> Problems {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    Problems(problems)
}

/// Why a recipe cannot be carried out.
fn unsupported(recipe: &Recipe) -> Option<String> {
    let has = |event| recipe.steps.iter().any(|step| step.event == event);
    let installs = has(LifecycleEvent::Install);
    if recipe.reference.is_some() != installs {
        return Some(match installs {
            true => "it installs a package and names none".to_owned(),
            false => "it names a package and does not install it".to_owned(),
        });
    }
    recipe.steps.iter().find_map(|step| {
        let event = step.event;
        match step.action {
            Action::Call if !event.takes_hooks() => Some(format!(
                "it calls the plugin at {event}, which is the host's own to do"
            )),
            Action::Call
                if !installs
                    && matches!(
                        event,
                        LifecycleEvent::BeforeInstall | LifecycleEvent::AfterInstall
                    ) =>
            {
                Some(format!(
                    "it calls the plugin at {event} and installs nothing"
                ))
            }
            Action::Call => match step.timeout {
                Some(timeout) if timeout.is_zero() || timeout > LONGEST_TIMEOUT => Some(format!(
                    "it gives {event} {timeout:?}, and a call takes at most {LONGEST_TIMEOUT:?}"
                )),
                _ => None,
            },
            Action::BuiltIn if event.takes_hooks() => {
                Some(format!("the host has no part of its own in {event}"))
            }
            _ if step.timeout.is_some() => Some(format!(
                "it limits the time of {event}; scripts and balancers have limits of their own"
            )),
            Action::Hooks | Action::BuiltIn => None,
        }
    })
}

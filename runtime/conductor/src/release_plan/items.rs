//! What the items of a release plan come to: the kind of each, by the plugin that provides it, and its group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Amount, Batching, InstanceId, LifecycleEvent, Strategy};
use plugin_host::deployment_kind::{Action, Recipe};
use plugin_host::{CallError, Capability, Mismatch, Plugin, Severity as Gravity};
use spec::release_plan::{ExecMethod, Item, KINDS, ReleasePlan, Resolved};
use spec::workspace::{Group, Workspace};
use spec::{Problem, Problems, Severity};

use crate::plan::{PlanError, chain};
use crate::plugins::{Kind, Plugins};

/// An item with all that its deployment needs.
pub(super) struct Service<'p> {
    pub(super) item: &'p Item,
    pub(super) group: Group,
    /// Instances of the group that its labels do not select.
    pub(super) left_out: Vec<InstanceId>,
    pub(super) recipe: Recipe,
    /// What provides its kind.
    pub(super) plugin: Arc<Plugin>,
}

/// What there is to read items by.
struct Reader<'a> {
    workspace: &'a Workspace,
    plugins: &'a Plugins,
    kinds: BTreeMap<String, Kind>,
}

/// Finds everything that is wrong with a release plan before its packages are looked for. Nothing is fetched.
///
/// # Errors
/// When a plugin of the workspace cannot be used.
pub async fn check_run(
    workspace: &Workspace,
    plugins: &Plugins,
    plan: &ReleasePlan,
) -> Result<Problems, PlanError> {
    let (_, problems) = read(workspace, plugins, plan).await?;
    Ok(problems)
}

/// Reads all items. Those that something is wrong with are left out; what it is, is among the problems, in the order of the
/// file.
pub(super) async fn read<'p>(
    workspace: &Workspace,
    plugins: &Plugins,
    plan: &'p ReleasePlan,
) -> Result<(Vec<Service<'p>>, Problems), PlanError> {
    let kinds = plugins.kinds().await?;
    let mut problems = unknown_kinds(plan, &kinds);
    let reader = Reader {
        workspace,
        plugins,
        kinds,
    };
    let mut services = Vec::new();
    match plan.resolve(workspace) {
        Ok(resolved) => {
            problems.extend(resolved.warnings);
            for resolved in resolved.value {
                services.extend(reader.service(plan, resolved, &mut problems).await?);
            }
        }
        Err(more) => problems.extend(more),
    }
    Ok((services, in_order(problems)))
}

impl Reader<'_> {
    /// Finds the kind of an item, and what it comes to. `None` where something is wrong, which is then among the
    /// problems.
    async fn service<'p>(
        &self,
        plan: &ReleasePlan,
        resolved: Resolved<'p>,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Service<'p>>, PlanError> {
        let item = resolved.item;
        let Some(kind) = self.kinds.get(&item.kind) else {
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

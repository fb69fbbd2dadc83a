//! `cutover:deployment-kind`: from an item of a release plan to the steps that carry it out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use model::{Done, Errand, LifecycleEvent, Undone};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre, Resource};

use crate::answer::Answer;
use crate::bindings::cutover::deployment_kind::lifecycle::Event;
use crate::bindings::exports::cutover::deployment_kind::kind;
use crate::call::{Effect, OpContext, Request, State, wit_context};
use crate::capabilities::target::Handle;
use crate::failure::{CallError, Failure};
use crate::inspect::Provides;
use crate::limits;
use crate::load_balancer::Outcome;
use crate::plugin::{Diagnostic, Plugin};

/// One value of `deployment` in a release plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// For example `RESTART`.
    pub name: String,
    pub summary: String,
    /// JSON Schema of the plan item's own keys.
    pub item_schema: String,
}

/// What to do for a plan item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The package that the item asks for, or none where the kind needs no package.
    pub reference: Option<String>,
    /// In the canonical order. An event left out does not happen.
    pub steps: Vec<Step>,
}

/// What happens at one lifecycle event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub event: LifecycleEvent,
    pub action: Action,
    pub timeout: Option<Duration>,
}

/// Who carries a step out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The hooks of the package, or of the group's form.
    Hooks,
    /// The host's own part of the event.
    BuiltIn,
    /// The plugin.
    Call,
}

/// The deployment that a call is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub deployment_id: String,
    /// The version that the instance leaves, where it has one.
    pub outgoing_version: Option<String>,
    /// The version that it gets, or has where none is brought.
    pub incoming_version: Option<String>,
    /// The item of the release plan, JSON.
    pub item: String,
}

/// What an errand comes to.
pub type Performed<'a> = Pin<Box<dyn Future<Output = Result<Done, Undone>> + Send + 'a>>;

/// The instance of a call, for as long as the call lasts. What it is asked for has been checked against the grants.
pub trait Target: Send + Sync + 'static {
    /// The instance's id.
    fn id(&self) -> String;

    /// What else a plugin may know of it.
    fn attributes(&self) -> Vec<(String, String)>;

    /// Does one thing on it, and tells it in the log of the step.
    fn perform(&self, errand: Errand) -> Performed<'_>;

    /// Adds a line to the log of the step.
    fn note(&self, line: &str);
}

/// Where the exported functions are.
pub(crate) struct Exports {
    kind: Option<kind::GuestIndices>,
}

impl Exports {
    pub(crate) fn of(pre: &InstancePre<State>, provides: &Provides) -> wasmtime::Result<Self> {
        Ok(Self {
            kind: provides
                .deployment_kind
                .then(|| kind::GuestIndices::new(pre))
                .transpose()?,
        })
    }

    pub(crate) fn try_load(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> wasmtime::Result<()> {
        self.kind
            .as_ref()
            .map(|kind| kind.load(&mut *store, instance))
            .transpose()?;
        Ok(())
    }
}

impl Plugin {
    /// What kinds of deployment the plugin offers.
    ///
    /// # Errors
    /// [`CallError`] when the plugin fails, breaks off, or answers with something that cannot be used.
    pub async fn kinds(&self) -> Result<Vec<Description>, CallError> {
        let indices = self.provided(
            self.exports.deployment_kind.kind.as_ref(),
            "cutover:deployment-kind/kind",
        )?;
        self.call(
            self.pure("deployment-kind.kinds"),
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_kinds(&mut *store).await.map(Ok)
            },
            descriptions,
        )
        .await
    }

    /// Checks a plan item, JSON, beyond its schema.
    ///
    /// # Errors
    /// As [`Self::kinds`].
    pub async fn validate(&self, kind: &str, item: &str) -> Result<Vec<Diagnostic>, CallError> {
        let indices = self.provided(
            self.exports.deployment_kind.kind.as_ref(),
            "cutover:deployment-kind/kind",
        )?;
        self.call(
            self.pure("deployment-kind.validate"),
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_validate(&mut *store, kind, item).await
            },
            |answer, diagnostics| Ok(answer.diagnostics(diagnostics)),
        )
        .await
    }

    /// Turns a plan item into a recipe.
    ///
    /// # Errors
    /// As [`Self::kinds`]; also where the steps are not in the canonical order.
    pub async fn plan(&self, kind: &str, item: &str) -> Result<Recipe, CallError> {
        let indices = self.provided(
            self.exports.deployment_kind.kind.as_ref(),
            "cutover:deployment-kind/kind",
        )?;
        self.call(
            self.pure("deployment-kind.plan"),
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_plan(&mut *store, kind, item).await
            },
            recipe,
        )
        .await
    }

    /// Carries out one `call` step on one instance, in at most this time.
    ///
    /// # Errors
    /// As [`Self::kinds`]; where the plugin broke off the outcome is unknown.
    pub async fn run(
        &self,
        ctx: &OpContext,
        config: &str,
        on: Arc<dyn Target>,
        release: &Release,
        event: LifecycleEvent,
        limit: Duration,
    ) -> Result<Outcome, CallError> {
        let indices = self.provided(
            self.exports.deployment_kind.kind.as_ref(),
            "cutover:deployment-kind/kind",
        )?;
        let request = Request {
            function: "deployment-kind.run",
            effect: Effect::Write,
            ctx: Some(ctx),
            config,
            limit,
        };
        let wit_ctx = wit_context(ctx, limit);
        let release = kind::Release {
            deployment_id: release.deployment_id.clone(),
            outgoing_version: release.outgoing_version.clone(),
            incoming_version: release.incoming_version.clone(),
            item: release.item.clone(),
        };
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                let handle = store.data_mut().lend(on)?;
                guest
                    .call_run(&mut *store, &wit_ctx, handle, &release, wit_event(event))
                    .await
            },
            |answer, outcome| answer.outcome(outcome),
        )
        .await
    }

    /// Goes on with a step that answered `pending`, in at most this time.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn poll_run(
        &self,
        ctx: &OpContext,
        config: &str,
        on: Arc<dyn Target>,
        token: &str,
        limit: Duration,
    ) -> Result<Outcome, CallError> {
        let indices = self.provided(
            self.exports.deployment_kind.kind.as_ref(),
            "cutover:deployment-kind/kind",
        )?;
        let request = Request {
            function: "deployment-kind.poll",
            effect: Effect::Write,
            ctx: Some(ctx),
            config,
            limit,
        };
        let wit_ctx = wit_context(ctx, limit);
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                let handle = store.data_mut().lend(on)?;
                guest.call_poll(&mut *store, &wit_ctx, handle, token).await
            },
            |answer, outcome| answer.outcome(outcome),
        )
        .await
    }

    fn pure(&self, function: &'static str) -> Request<'static> {
        Request {
            function,
            effect: Effect::Pure,
            ctx: None,
            config: "{}",
            limit: self.shared.limits.deadline,
        }
    }
}

fn descriptions(
    answer: &Answer<'_>,
    descriptions: Vec<kind::Description>,
) -> Result<Vec<Description>, Failure> {
    if descriptions.len() > limits::ATTRIBUTES {
        let (length, max) = (descriptions.len(), limits::ATTRIBUTES);
        return Err(answer.broken(format_args!("it offers {length} kinds, the limit is {max}")));
    }
    descriptions
        .into_iter()
        .map(|description| {
            if description.item_schema.len() > limits::DOCUMENT {
                let (length, max) = (description.item_schema.len(), limits::DOCUMENT);
                return Err(answer.broken(format_args!(
                    "a schema has {length} bytes, the limit is {max}"
                )));
            }
            Ok(Description {
                name: answer.exact("kind", description.name, limits::NAME)?,
                summary: answer.message(&description.summary),
                item_schema: description.item_schema,
            })
        })
        .collect()
}

fn recipe(answer: &Answer<'_>, recipe: kind::Recipe) -> Result<Recipe, Failure> {
    let reference = recipe
        .reference
        .map(|text| answer.exact("reference", text, limits::VALUE))
        .transpose()?;
    let steps: Vec<Step> = recipe.steps.iter().map(step).collect();
    for pair in steps.windows(2) {
        if pair[0].event >= pair[1].event {
            let (first, second) = (pair[0].event, pair[1].event);
            return Err(answer.broken(format_args!("`{second}` cannot come after `{first}`")));
        }
    }
    for step in &steps {
        if step.action == Action::Hooks && !step.event.takes_hooks() {
            return Err(answer.broken(format_args!("`{}` takes no hooks", step.event)));
        }
    }
    Ok(Recipe { reference, steps })
}

fn step(step: &kind::Step) -> Step {
    Step {
        event: event(step.event),
        action: match step.action {
            kind::Action::Hooks => Action::Hooks,
            kind::Action::BuiltIn => Action::BuiltIn,
            kind::Action::Call => Action::Call,
        },
        timeout: step.timeout_ms.map(Duration::from_millis),
    }
}

impl State {
    /// Gives a call the instance that it is for. It is what the log of the call is about, too.
    fn lend(&mut self, target: Arc<dyn Target>) -> wasmtime::Result<Resource<Handle>> {
        self.target = Some(Arc::clone(&target));
        Ok(self.table.push(Handle { target })?)
    }
}

fn wit_event(event: LifecycleEvent) -> Event {
    match event {
        LifecycleEvent::DownloadBundle => Event::DownloadBundle,
        LifecycleEvent::BeforeBlockTraffic => Event::BeforeBlockTraffic,
        LifecycleEvent::BlockTraffic => Event::BlockTraffic,
        LifecycleEvent::AfterBlockTraffic => Event::AfterBlockTraffic,
        LifecycleEvent::ApplicationStop => Event::ApplicationStop,
        LifecycleEvent::BeforeInstall => Event::BeforeInstall,
        LifecycleEvent::Install => Event::Install,
        LifecycleEvent::AfterInstall => Event::AfterInstall,
        LifecycleEvent::ApplicationStart => Event::ApplicationStart,
        LifecycleEvent::ValidateService => Event::ValidateService,
        LifecycleEvent::BeforeAllowTraffic => Event::BeforeAllowTraffic,
        LifecycleEvent::AllowTraffic => Event::AllowTraffic,
        LifecycleEvent::AfterAllowTraffic => Event::AfterAllowTraffic,
    }
}

fn event(event: Event) -> LifecycleEvent {
    match event {
        Event::DownloadBundle => LifecycleEvent::DownloadBundle,
        Event::BeforeBlockTraffic => LifecycleEvent::BeforeBlockTraffic,
        Event::BlockTraffic => LifecycleEvent::BlockTraffic,
        Event::AfterBlockTraffic => LifecycleEvent::AfterBlockTraffic,
        Event::ApplicationStop => LifecycleEvent::ApplicationStop,
        Event::BeforeInstall => LifecycleEvent::BeforeInstall,
        Event::Install => LifecycleEvent::Install,
        Event::AfterInstall => LifecycleEvent::AfterInstall,
        Event::ApplicationStart => LifecycleEvent::ApplicationStart,
        Event::ValidateService => LifecycleEvent::ValidateService,
        Event::BeforeAllowTraffic => LifecycleEvent::BeforeAllowTraffic,
        Event::AllowTraffic => LifecycleEvent::AllowTraffic,
        Event::AfterAllowTraffic => LifecycleEvent::AfterAllowTraffic,
    }
}

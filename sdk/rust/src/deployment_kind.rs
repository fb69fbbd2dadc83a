//! Kinds of deployment: from an item of a release plan to the steps on each instance.

use crate::bindings::kind::cutover::deployment_kind::{lifecycle, target};
use crate::bindings::kind::exports::cutover::deployment_kind::kind;
use crate::{Diagnostic, Failure, OpContext, Outcome, Plugin, panic_message};

pub use kind::{Action, Description as KindDescription, Recipe, Release as ItemRelease, Step};
pub use lifecycle::Event;
pub use target::Handle as Target;

/// The kinds of deployment that a plugin adds to release plans.
pub trait DeploymentKind: Plugin {
    /// Lists the kinds.
    fn kinds() -> Vec<KindDescription>;

    /// Checks a plan item (JSON) beyond its schema.
    ///
    /// # Errors
    /// When the item cannot be looked at; what is wrong with it goes into the diagnostics.
    fn validate(_kind: &str, _item: &str) -> Result<Vec<Diagnostic>, Failure> {
        Ok(Vec::new())
    }

    /// Says what to do for an item.
    ///
    /// # Errors
    /// `invalid` for an item that is wrong, `unsupported` for a kind that is not offered.
    fn plan(kind: &str, item: &str) -> Result<Recipe, Failure>;

    /// Carries out a step that the recipe marked as [`Action::Call`].
    ///
    /// # Errors
    /// `unsupported` unless a plugin with such steps writes its own.
    fn run(
        _ctx: &OpContext,
        _on: &Target,
        _release: &ItemRelease,
        _event: Event,
    ) -> Result<Outcome, Failure> {
        Err(Failure::unsupported(
            "plugin.run",
            "no step of the plugin's recipes calls it",
        ))
    }

    /// Goes on with a step that returned `pending`, in another instance of the component.
    ///
    /// # Errors
    /// As [`DeploymentKind::run`].
    fn poll(_ctx: &OpContext, _on: &Target, _token: &str) -> Result<Outcome, Failure> {
        Err(Failure::unsupported(
            "plugin.poll",
            "the plugin never leaves a step pending",
        ))
    }
}

impl Event {
    /// All events in the canonical order.
    pub const ALL: [Event; 13] = [
        Self::DownloadBundle,
        Self::BeforeBlockTraffic,
        Self::BlockTraffic,
        Self::AfterBlockTraffic,
        Self::ApplicationStop,
        Self::BeforeInstall,
        Self::Install,
        Self::AfterInstall,
        Self::ApplicationStart,
        Self::ValidateService,
        Self::BeforeAllowTraffic,
        Self::AllowTraffic,
        Self::AfterAllowTraffic,
    ];

    /// Whether packages may bind hooks to the event. The other four are the host's own work.
    #[must_use]
    pub fn takes_hooks(self) -> bool {
        !matches!(
            self,
            Self::DownloadBundle | Self::BlockTraffic | Self::Install | Self::AllowTraffic
        )
    }
}

impl Step {
    /// Makes the usual step of an event: its hooks, or the host's own part of it.
    ///
    /// ```
    /// use cutover_plugin_sdk::{Action, Event, Step};
    ///
    /// assert_eq!(Step::usual(Event::ApplicationStop).action, Action::Hooks);
    /// assert_eq!(Step::usual(Event::Install).action, Action::BuiltIn);
    /// ```
    #[must_use]
    pub fn usual(event: Event) -> Self {
        let action = if event.takes_hooks() {
            Action::Hooks
        } else {
            Action::BuiltIn
        };
        Self {
            event,
            action,
            timeout_ms: None,
        }
    }
}

impl<T: DeploymentKind> kind::Guest for T {
    fn kinds() -> Vec<KindDescription> {
        panic_message::send_to_host();
        <T as DeploymentKind>::kinds()
    }

    fn validate(kind: String, item: String) -> Result<Vec<Diagnostic>, Failure> {
        panic_message::send_to_host();
        <T as DeploymentKind>::validate(&kind, &item)
    }

    fn plan(kind: String, item: String) -> Result<Recipe, Failure> {
        panic_message::send_to_host();
        <T as DeploymentKind>::plan(&kind, &item)
    }

    fn run(
        ctx: OpContext,
        on: &Target,
        release: ItemRelease,
        event: Event,
    ) -> Result<Outcome, Failure> {
        panic_message::send_to_host();
        <T as DeploymentKind>::run(&ctx, on, &release, event)
    }

    fn poll(ctx: OpContext, on: &Target, token: String) -> Result<Outcome, Failure> {
        panic_message::send_to_host();
        <T as DeploymentKind>::poll(&ctx, on, &token)
    }
}

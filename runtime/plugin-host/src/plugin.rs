//! A loaded plugin, and what every plugin can be asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use cap_std::fs::Dir;
use model::{Digest, PluginName};
use tokio::sync::{Semaphore, mpsc};
use wasmtime::component::InstancePre;

use crate::bindings::exports::cutover::plugin::guest;
use crate::call::{Effect, Request, State};
use crate::capabilities::progress::Progress;
use crate::deployment_kind;
use crate::failure::{CallError, Failure, FailureClass, code};
use crate::gate;
use crate::grants::Permissions;
use crate::inspect::{Inspection, Provides};
use crate::limits::Limits;
use crate::load_balancer;
use crate::manifest::Manifest;
use crate::package_source;
use crate::pattern::Capability;
use crate::secret::Secrets;
use crate::traffic;
use crate::web::Client;

/// A component that is compiled, linked and ready to be called. Every call has an instance of its own.
pub struct Plugin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) host: Arc<crate::host::Shared>,
    pub(crate) pre: InstancePre<State>,
    pub(crate) exports: Exports,
    /// Bounds the calls at a time.
    pub(crate) turns: Semaphore,
    inspection: Inspection,
}

/// What the host functions of a plugin's calls need to know about it.
pub(crate) struct Shared {
    pub(crate) name: PluginName,
    pub(crate) limits: Limits,
    pub(crate) permissions: Permissions,
    pub(crate) directories: BTreeMap<String, Directory>,
    pub(crate) secrets: Secrets,
    pub(crate) progress: Option<mpsc::Sender<Progress>>,
    pub(crate) web: Arc<Client>,
    /// Bounds the HTTP requests at a time.
    pub(crate) http_turns: Arc<Semaphore>,
}

impl Shared {
    /// Whether a capability may be used in a function, or the failure that says why not.
    pub(crate) fn check(
        &self,
        effect: Effect,
        function: &str,
        capability: &Capability,
    ) -> Result<(), Failure> {
        if effect == Effect::Pure {
            let plugin = &self.name;
            let message = format!(
                "plugin `{plugin}` may not use {capability} in `{function}`, which only computes an answer"
            );
            return Err(Failure::host(FailureClass::Denied, code::DENIED, message));
        }
        self.permissions.check(capability)
    }
}

/// A granted directory, opened once.
pub(crate) struct Directory {
    pub(crate) handle: Arc<Dir>,
    pub(crate) path: PathBuf,
}

/// Where the exported functions are, looked up once.
pub(crate) struct Exports {
    pub(crate) guest: guest::GuestIndices,
    pub(crate) load_balancer: load_balancer::Exports,
    pub(crate) traffic: traffic::Exports,
    pub(crate) package_source: package_source::Exports,
    pub(crate) deployment_kind: deployment_kind::Exports,
    pub(crate) gate: gate::Exports,
}

impl Exports {
    pub(crate) fn of(pre: &InstancePre<State>, provides: &Provides) -> wasmtime::Result<Self> {
        Ok(Self {
            guest: guest::GuestIndices::new(pre)?,
            load_balancer: load_balancer::Exports::of(pre, provides)?,
            traffic: traffic::Exports::of(pre, provides)?,
            package_source: package_source::Exports::of(pre, provides)?,
            deployment_kind: deployment_kind::Exports::of(pre, provides)?,
            gate: gate::Exports::of(pre, provides)?,
        })
    }
}

/// What a plugin finds in a configuration or a plan item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// JSON pointer, empty for the whole document.
    pub path: String,
    pub message: String,
}

/// How grave a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
    Hint,
}

impl Plugin {
    pub(crate) fn new(
        host: Arc<crate::host::Shared>,
        shared: Arc<Shared>,
        pre: InstancePre<State>,
        exports: Exports,
        inspection: Inspection,
    ) -> Self {
        let turns = Semaphore::new(shared.limits.concurrent_calls);
        Self {
            shared,
            host,
            pre,
            exports,
            turns,
            inspection,
        }
    }

    /// The name in `cutover.yaml`.
    #[must_use]
    pub fn name(&self) -> &PluginName {
        &self.shared.name
    }

    /// The digest of the component, the same on every platform.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.inspection.digest
    }

    /// What the plugin says about itself, if it says anything.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.inspection.manifest.as_ref()
    }

    /// The interfaces that the plugin implements.
    #[must_use]
    pub fn provides(&self) -> &Provides {
        &self.inspection.provides
    }

    /// Lets the plugin check a configuration, JSON, beyond what its schema says.
    ///
    /// # Errors
    /// [`CallError`] when the plugin fails, or breaks off.
    pub async fn validate_config(&self, config: &str) -> Result<Vec<Diagnostic>, CallError> {
        let limit = self.shared.limits.deadline;
        let request = Request {
            function: "plugin.validate-config",
            effect: Effect::Pure,
            ctx: None,
            config,
            limit,
        };
        self.call(
            request,
            async |store, instance| {
                let guest = self.exports.guest.load(&mut *store, instance)?;
                guest.call_validate_config(&mut *store, config).await
            },
            |answer, diagnostics| Ok(answer.diagnostics(diagnostics)),
        )
        .await
    }

    /// Makes one instance and compares the types of its exports: the inner result is the mismatch.
    pub(crate) async fn try_exports(&self) -> Result<wasmtime::Result<()>, CallError> {
        let limit = self.shared.limits.deadline;
        let request = Request {
            function: "the start of it",
            effect: Effect::Pure,
            ctx: None,
            config: "{}",
            limit,
        };
        self.call(
            request,
            async |store, instance| {
                let Exports {
                    guest,
                    load_balancer,
                    traffic,
                    package_source,
                    deployment_kind,
                    gate,
                } = &self.exports;
                let fits = guest
                    .load(&mut *store, instance)
                    .and_then(|_| load_balancer.try_load(store, instance))
                    .and_then(|()| traffic.try_load(store, instance))
                    .and_then(|()| package_source.try_load(store, instance))
                    .and_then(|()| deployment_kind.try_load(store, instance))
                    .and_then(|()| gate.try_load(store, instance));
                Ok(Ok(fits))
            },
            |_, fits| Ok(fits),
        )
        .await
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", self.name())
            .field("digest", self.digest())
            .finish_non_exhaustive()
    }
}

//! Kinds of deployment: from an item of a release plan to the steps on each instance, and the steps that the plugin
//! carries out itself.

use std::time::Duration;

use crate::bindings::kind::cutover::deployment_kind::{lifecycle, target};
use crate::bindings::kind::exports::cutover::deployment_kind::kind;
use crate::{Attribute, Diagnostic, Failure, OpContext, Outcome, Plugin, panic_message};

pub use kind::{Action, Description as KindDescription, Recipe, Release as ItemRelease, Step};
pub use lifecycle::Event;
pub use target::{ExecOptions, ExecResult, FileStat, Handle as Target};

/// The kinds of deployment that a plugin adds to release plans.
///
/// A kind is a recipe: what happens at each lifecycle event. Most steps are the package's hooks or the host's own part.
/// A step marked [`Action::Call`] is carried out by [`DeploymentKind::run`], on one instance, by means of its [`Target`].
///
/// ```
/// use cutover_plugin_sdk::{
///     Action, DeploymentKind, Event, ExecOptions, Failure, ItemRelease, KindDescription, OpContext, Outcome, Plugin,
///     Recipe, Step, Target, export,
/// };
/// use serde::Deserialize;
///
/// /// Deploys a package whose schema has to be migrated before the service starts.
/// struct Migrating;
///
/// impl Plugin for Migrating {
///     type Config = serde_json::Value;
/// }
///
/// #[derive(Deserialize)]
/// struct Item {
///     package: String,
///     schema: u32,
/// }
///
/// fn item(text: &str) -> Result<Item, Failure> {
///     serde_json::from_str(text).map_err(|error| Failure::invalid("migrating.item", error.to_string()))
/// }
///
/// impl DeploymentKind for Migrating {
///     fn kinds() -> Vec<KindDescription> {
///         let item_schema = r#"{
///             "type": "object",
///             "required": ["package", "schema"],
///             "properties": {"package": {"type": "string"}, "schema": {"type": "integer", "minimum": 1}},
///             "additionalProperties": false
///         }"#;
///         vec![KindDescription {
///             name: "MIGRATE".to_owned(),
///             summary: "deploys a package and migrates its schema".to_owned(),
///             item_schema: item_schema.to_owned(),
///         }]
///     }
///
///     fn plan(_kind: &str, text: &str) -> Result<Recipe, Failure> {
///         let mut steps: Vec<_> = Event::ALL.into_iter().map(Step::usual).collect();
///         for step in &mut steps {
///             if step.event == Event::AfterInstall {
///                 step.action = Action::Call;
///                 step.timeout_ms = Some(5 * 60 * 1000);
///             }
///         }
///         Ok(Recipe { reference: Some(item(text)?.package), steps })
///     }
///
///     fn run(_ctx: &OpContext, on: &Target, release: &ItemRelease, _event: Event) -> Result<Outcome, Failure> {
///         let wanted = item(&release.item)?.schema.to_string();
///         // A call may be made again after a crash: what is done already is found before it is done.
///         if on.stat("data/schema")?.is_some() && on.read("data/schema", 100)? == wanted.as_bytes() {
///             return Ok(Outcome::Unchanged);
///         }
///         let words = ["bin/migrate.sh", &wanted].map(str::to_owned);
///         on.exec(&words, &ExecOptions::new())?.must_succeed("migrating.failed")?;
///         on.write("data/schema", wanted.as_bytes(), 0o644)?;
///         Ok(Outcome::changed())
///     }
/// }
///
/// export!(Migrating: DeploymentKind);
/// ```
///
/// Its manifest declares `"commands": [{"name": "bin/migrate.sh"}]` and `"paths": [{"path": "data", "access":
/// "read-write"}]`, and the operator grants both: `grants: {commands: [bin/migrate.sh], paths: [{path: data, access:
/// read-write}]}`. A path that does not begin with `/` is below the instance's `rootdir`; a command with a `/` in the
/// middle is a file of the package.
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

    /// Carries out a step that the recipe marked as [`Action::Call`], on one instance.
    ///
    /// It has to be idempotent under `ctx.idempotency_key`. When the conductor dies in the middle, or the plugin crashes,
    /// nobody knows how far it got: the step is tried again with the same key and `ctx.attempt` one higher, three times
    /// in all. A program that was running on the instance goes on, and the next one waits until it has ended. `transient`
    /// and `throttled` failures are called again within the attempt; any other one fails the step.
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

    /// Goes on with a step that returned `pending`, in another instance of the component. A conductor that dies meanwhile
    /// takes the token with it: the step is tried again from [`DeploymentKind::run`].
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

impl ExecOptions {
    /// Makes the usual options: the package's folder, no input, as long as the step may take, 64 KiB of each stream.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use cutover_plugin_sdk::ExecOptions;
    ///
    /// let options = ExecOptions::new()
    ///     .folder("data")
    ///     .variable("PGHOST", "db-1")
    ///     .input("select 1;")
    ///     .timeout(Duration::from_secs(30));
    ///
    /// assert_eq!(options.timeout, 30_000);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self {
            cwd: None,
            env: Vec::new(),
            stdin: Vec::new(),
            timeout: 0,
            max_output: 64 << 10,
        }
    }

    /// Runs the program in a folder that is granted.
    #[must_use]
    pub fn folder(mut self, path: impl Into<String>) -> Self {
        self.cwd = Some(path.into());
        self
    }

    /// Adds a variable to those that a hook of the event has.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push(Attribute {
            key: name.into(),
            value: value.into(),
        });
        self
    }

    /// Gives the program something to read.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Ends the program, with everything that it started, when it takes longer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self
    }
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ExecResult {
    /// Takes the result of a program that has to exit with 0.
    ///
    /// ```
    /// use cutover_plugin_sdk::ExecResult;
    ///
    /// let ended = ExecResult {
    ///     exit_code: 3,
    ///     signal: None,
    ///     stdout: Vec::new(),
    ///     stderr: b"no such table\n".to_vec(),
    ///     truncated: false,
    /// };
    ///
    /// let failure = ended.must_succeed("migrating.failed").unwrap_err();
    /// assert_eq!(failure.message, "the program exited with 3: no such table");
    /// ```
    ///
    /// # Errors
    /// `permanent` with the code and the last line that the program wrote, for any other end.
    pub fn must_succeed(self, code: &str) -> Result<Self, Failure> {
        if self.exit_code == 0 {
            return Ok(self);
        }
        let end = match self.signal {
            Some(signal) => format!("the program was ended by signal {signal}"),
            None => format!("the program exited with {}", self.exit_code),
        };
        let said = [&self.stderr, &self.stdout].into_iter().find_map(|stream| {
            let text = String::from_utf8_lossy(stream);
            let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
            Some(format!(": {line}"))
        });
        Err(Failure::permanent(
            code,
            format!("{end}{}", said.unwrap_or_default()),
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

//! Why a call did not succeed, as a class that says what the caller may do about it.

use std::time::Duration;

use model::PluginName;

/// What may be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Nothing happened or the effect is safe to repeat: retry with back-off.
    Transient,
    /// As transient, but wait at least `retry_after` first.
    Throttled,
    /// The request may or may not have taken effect: read back before a retry.
    UnknownOutcome,
    /// Someone else changed the resource: plan again.
    Conflict,
    NotFound,
    /// Credentials are missing or insufficient, or the host refused a capability.
    Denied,
    /// The input or configuration is wrong.
    Invalid,
    Unsupported,
    Cancelled,
    /// Everything else: do not retry.
    Permanent,
}

impl FailureClass {
    /// The name used in files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::UnknownOutcome => "unknown-outcome",
            Self::Conflict => "conflict",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Cancelled => "cancelled",
            Self::Permanent => "permanent",
        }
    }
}

/// A key and a value from a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    pub key: String,
    pub value: String,
}

/// A failure, told by the plugin or made by the host in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub class: FailureClass,
    /// Stable and machine-readable. Those that begin with `host.` were made by the host.
    pub code: String,
    /// One line for people.
    pub message: String,
    /// What the operator can do about it.
    pub hint: Option<String>,
    pub retry_after: Option<Duration>,
    pub attributes: Vec<Attribute>,
    /// The last lines that the plugin logged or wrote to stderr, where the host ended the call.
    pub output: Option<String>,
}

/// Codes of the failures that the host makes.
pub mod code {
    /// The plugin crashed.
    pub const TRAP: &str = "host.trap";
    /// The plugin did not answer in time.
    pub const DEADLINE: &str = "host.deadline";
    /// The plugin asked for more memory than it may have.
    pub const MEMORY: &str = "host.memory";
    /// The operator cancelled the call.
    pub const CANCELLED: &str = "host.cancelled";
    /// The plugin's answer breaks the rules of its interface.
    pub const PROTOCOL: &str = "host.protocol";
    /// A capability is not declared or not granted.
    pub const DENIED: &str = "host.denied";
    /// The host does not provide a function yet.
    pub const UNSUPPORTED: &str = "host.unsupported";
    /// A capability was used in a way that it does not allow.
    pub const INVALID: &str = "host.invalid";
    /// An operation of the host on the plugin's behalf failed.
    pub const IO: &str = "host.io";

    pub(crate) const ALL: [&str; 9] = [
        TRAP,
        DEADLINE,
        MEMORY,
        CANCELLED,
        PROTOCOL,
        DENIED,
        UNSUPPORTED,
        INVALID,
        IO,
    ];
}

/// A call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin answered with a failure, or the host made one of the way in which the call ended.
    #[error("{}", .0.message)]
    Plugin(Box<Failure>),
    /// The plugin does not implement the interface.
    #[error("plugin `{plugin}` does not implement `{interface}`")]
    NotProvided {
        plugin: PluginName,
        interface: &'static str,
    },
}

impl CallError {
    /// The failure, where the plugin was called at all.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Plugin(failure) => Some(failure),
            Self::NotProvided { .. } => None,
        }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Plugin(Box::new(failure))
    }
}

impl Failure {
    pub(crate) fn host(
        class: FailureClass,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            class,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            retry_after: None,
            attributes: Vec::new(),
            output: None,
        }
    }

    /// An answer that breaks the rules of its interface.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::host(FailureClass::Permanent, code::PROTOCOL, message)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

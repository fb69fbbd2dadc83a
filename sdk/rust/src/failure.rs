//! Builders for failures: the class says what the host does, the code is for machines, the message for people.

use std::fmt;
use std::time::Duration;

use crate::{Attribute, Failure, FailureClass};

macro_rules! builders {
    ($($(#[$doc:meta])* $name:ident => $class:ident;)*) => {
        impl Failure {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(code: impl Into<String>, message: impl Into<String>) -> Self {
                    Self::new(FailureClass::$class, code, message)
                }
            )*
        }
    };
}

builders! {
    /// Nothing happened, or doing it again is safe: the host retries with back-off.
    transient => Transient;
    /// As [`Failure::transient`], but the host waits first; say how long with [`Failure::retry_after`].
    throttled => Throttled;
    /// The request may or may not have taken effect: the host reads back before it retries.
    unknown_outcome => UnknownOutcome;
    /// Somebody else changed the resource: the host plans anew.
    conflict => Conflict;
    /// What the call names does not exist.
    not_found => NotFound;
    /// Credentials are missing or insufficient, or the host refused a capability.
    denied => Denied;
    /// The caller's input or the configuration is wrong.
    invalid => Invalid;
    /// The provider or the plugin cannot do this.
    unsupported => Unsupported;
    /// The call was cancelled or passed its deadline.
    cancelled => Cancelled;
    /// Everything else: the host does not retry.
    permanent => Permanent;
}

impl Failure {
    /// Makes a failure of any class. Never put a secret into the message.
    ///
    /// ```
    /// use cutover_plugin_sdk::{Failure, FailureClass};
    ///
    /// let failure = Failure::not_found("haproxy.server", "backend `shop` has no server `web-9`")
    ///     .hint("known servers: web-1, web-2");
    ///
    /// assert_eq!(failure.class, FailureClass::NotFound);
    /// ```
    #[must_use]
    pub fn new(class: FailureClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.into(),
            message: message.into(),
            hint: None,
            retry_after: None,
            attributes: Vec::new(),
        }
    }

    /// Says before the message what it is about: what was attempted, or where it was found.
    ///
    /// ```
    /// use cutover_plugin_sdk::Failure;
    ///
    /// let failure = Failure::invalid("haproxy.backend", "no backend is named").about("side `blue`");
    ///
    /// assert_eq!(failure.message, "side `blue`: no backend is named");
    /// ```
    #[must_use]
    pub fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Adds what the operator can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds how long the host waits at least before it tries again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Adds a detail for machines. Keys are lower-kebab-case, a vendor's carry a prefix (`aws.request-id`).
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push(Attribute {
            key: key.into(),
            value: value.into(),
        });
        self
    }
}

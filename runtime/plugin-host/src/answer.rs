//! A plugin's answer, checked. What people read is cleaned and cut; what the host relies on is refused when it
//! breaks the rules of its interface.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bindings::cutover::plugin::types as wit;
use crate::failure::{Attribute, Failure, FailureClass};
use crate::limits;
use crate::load_balancer::{Outcome, Pending};
use crate::plugin::{Diagnostic, Severity, Shared};
use crate::text;

/// Checks the answer of one call.
pub(crate) struct Answer<'a> {
    plugin: &'a Shared,
    function: &'static str,
    /// Codes of the failures that the host gave to the plugin in this call.
    issued: &'a [&'static str],
}

impl<'a> Answer<'a> {
    pub(crate) fn new(
        plugin: &'a Shared,
        function: &'static str,
        issued: &'a [&'static str],
    ) -> Self {
        Self {
            plugin,
            function,
            issued,
        }
    }

    /// The failure for an answer that breaks a rule.
    pub(crate) fn broken(&self, what: impl std::fmt::Display) -> Failure {
        let (plugin, function) = (&self.plugin.name, self.function);
        let message = format!("plugin `{plugin}` answered `{function}` wrongly: {what}");
        Failure::protocol(self.message(&message))
    }

    /// A line for people.
    pub(crate) fn message(&self, text: &str) -> String {
        text::line(text, limits::MESSAGE, &self.plugin.secrets)
    }

    /// A short name or code for people and programs.
    pub(crate) fn name(&self, text: &str) -> String {
        text::line(text, limits::NAME, &self.plugin.secrets)
    }

    /// A text that is used as it is, so that it cannot be cleaned.
    pub(crate) fn exact(&self, what: &str, text: String, max: usize) -> Result<String, Failure> {
        if text.len() > max {
            return Err(self.broken(format_args!(
                "its {what} has {} bytes, the limit is {max}",
                text.len()
            )));
        }
        if !text::is_clean(&text) {
            return Err(self.broken(format_args!("its {what} holds control characters")));
        }
        if self.plugin.secrets.occur_in(&text) {
            return Err(self.broken(format_args!("its {what} holds a secret")));
        }
        Ok(text)
    }

    pub(crate) fn attributes(&self, attributes: Vec<wit::Attribute>) -> Vec<Attribute> {
        attributes
            .into_iter()
            .take(limits::ATTRIBUTES)
            .map(|attribute| Attribute {
                key: self.name(&attribute.key),
                value: text::line(&attribute.value, limits::VALUE, &self.plugin.secrets),
            })
            .collect()
    }

    pub(crate) fn failure(&self, failure: wit::Failure) -> Failure {
        let mut code = self.name(&failure.code);
        // Codes of the host are for what the host has seen; a plugin may only hand on one that it was given.
        if code.starts_with("host.") && !self.issued.contains(&code.as_str()) {
            code.insert_str(0, "plugin.");
        }
        let message = self.message(&failure.message);
        let (plugin, function) = (&self.plugin.name, self.function);
        Failure {
            class: class(failure.class),
            code,
            message: if message.trim().is_empty() {
                format!("plugin `{plugin}` failed in `{function}` and gave no message")
            } else {
                message
            },
            hint: failure
                .hint
                .map(|hint| self.message(&hint))
                .filter(|hint| !hint.trim().is_empty()),
            retry_after: failure.retry_after.map(wait),
            attributes: self.attributes(failure.attributes),
            output: None,
        }
    }

    pub(crate) fn outcome(&self, outcome: wit::Outcome) -> Result<Outcome, Failure> {
        Ok(match outcome {
            wit::Outcome::Unchanged => Outcome::Unchanged,
            wit::Outcome::Changed(attributes) => Outcome::Changed(self.attributes(attributes)),
            wit::Outcome::Pending(pending) => Outcome::Pending(self.pending(pending)?),
        })
    }

    pub(crate) fn pending(&self, pending: wit::Pending) -> Result<Pending, Failure> {
        Ok(Pending {
            token: self.token(pending.token)?,
            poll_after: wait(pending.poll_after),
            message: self.message(&pending.message),
            percent: pending.percent.map(|percent| percent.min(100)),
        })
    }

    fn token(&self, token: String) -> Result<String, Failure> {
        // Opaque, so any character is fine; the journal keeps it, so a secret is not.
        if token.len() > limits::TOKEN {
            let (length, max) = (token.len(), limits::TOKEN);
            return Err(self.broken(format_args!(
                "its token has {length} bytes, the limit is {max}"
            )));
        }
        if self.plugin.secrets.occur_in(&token) {
            return Err(self.broken("its token holds a secret"));
        }
        Ok(token)
    }

    pub(crate) fn diagnostics(&self, diagnostics: Vec<wit::Diagnostic>) -> Vec<Diagnostic> {
        diagnostics
            .into_iter()
            .take(limits::ENTRIES)
            .map(|diagnostic| Diagnostic {
                severity: match diagnostic.severity {
                    wit::Severity::Error => Severity::Error,
                    wit::Severity::Warning => Severity::Warning,
                    wit::Severity::Hint => Severity::Hint,
                },
                path: self.name(&diagnostic.path),
                message: self.message(&diagnostic.message),
            })
            .collect()
    }

    /// Puts the answers in the order of what was asked: exactly one for each.
    pub(crate) fn one_each<T>(
        &self,
        asked: &[&str],
        answers: Vec<T>,
        target_id: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, Failure> {
        let known: BTreeSet<&str> = asked.iter().copied().collect();
        let mut by_id = std::collections::BTreeMap::new();
        for answer in answers {
            let id = target_id(&answer).to_owned();
            if !known.contains(id.as_str()) {
                let plugin = &self.plugin.name;
                let id = self.name(&id);
                let message =
                    format!("plugin `{plugin}` answered for target `{id}`, which was not asked");
                return Err(Failure::protocol(message));
            }
            if by_id.insert(id.clone(), answer).is_some() {
                return Err(self.broken(format_args!("it answered for target `{id}` twice")));
            }
        }
        asked
            .iter()
            .map(|id| {
                by_id.remove(*id).ok_or_else(|| {
                    let plugin = &self.plugin.name;
                    Failure::protocol(format!(
                        "plugin `{plugin}` did not answer for target `{id}`, which was asked"
                    ))
                })
            })
            .collect()
    }
}

/// A wait that a plugin asks for, within reason.
pub(crate) fn wait(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).min(limits::WAIT)
}

fn class(class: wit::FailureClass) -> FailureClass {
    match class {
        wit::FailureClass::Transient => FailureClass::Transient,
        wit::FailureClass::Throttled => FailureClass::Throttled,
        wit::FailureClass::UnknownOutcome => FailureClass::UnknownOutcome,
        wit::FailureClass::Conflict => FailureClass::Conflict,
        wit::FailureClass::NotFound => FailureClass::NotFound,
        wit::FailureClass::Denied => FailureClass::Denied,
        wit::FailureClass::Invalid => FailureClass::Invalid,
        wit::FailureClass::Unsupported => FailureClass::Unsupported,
        wit::FailureClass::Cancelled => FailureClass::Cancelled,
        wit::FailureClass::Permanent => FailureClass::Permanent,
    }
}

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            class: match failure.class {
                FailureClass::Transient => wit::FailureClass::Transient,
                FailureClass::Throttled => wit::FailureClass::Throttled,
                FailureClass::UnknownOutcome => wit::FailureClass::UnknownOutcome,
                FailureClass::Conflict => wit::FailureClass::Conflict,
                FailureClass::NotFound => wit::FailureClass::NotFound,
                FailureClass::Denied => wit::FailureClass::Denied,
                FailureClass::Invalid => wit::FailureClass::Invalid,
                FailureClass::Unsupported => wit::FailureClass::Unsupported,
                FailureClass::Cancelled => wit::FailureClass::Cancelled,
                FailureClass::Permanent => wit::FailureClass::Permanent,
            },
            code: failure.code,
            message: failure.message,
            hint: failure.hint,
            retry_after: failure
                .retry_after
                .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            attributes: Vec::new(),
        }
    }
}

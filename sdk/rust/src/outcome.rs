//! Builders for the results of operations that change something.

use std::time::Duration;

use crate::{Outcome, Pending};

impl Pending {
    /// Makes the answer of an operation that goes on at the provider's. The host keeps `token`, lets the instance go and
    /// calls `poll` with it later, so everything that `poll` needs must be in it.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use cutover_plugin_sdk::{Outcome, Pending};
    ///
    /// let outcome = Outcome::Pending(Pending::new("shop/web-1", Duration::from_millis(50), "3 sessions left"));
    /// ```
    #[must_use]
    pub fn new(token: impl Into<String>, poll_after: Duration, message: impl Into<String>) -> Self {
        Self {
            token: token.into(),
            poll_after: u64::try_from(poll_after.as_millis()).unwrap_or(u64::MAX),
            message: message.into(),
            percent: None,
        }
    }
}

impl Outcome {
    /// Makes the answer of an operation that changed something and has nothing else to say.
    #[must_use]
    pub fn changed() -> Self {
        Self::Changed(Vec::new())
    }
}

//! `cutover:plugin/cancel`: asks a plugin to come back early, and ends its call when it does not.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::bindings::cutover::plugin::cancel;
use crate::call::State;

/// Tells a call that it is to end. The default never does.
#[derive(Debug, Clone, Default)]
pub struct Cancellation {
    /// When the cancellation was asked for.
    since: Option<watch::Receiver<Option<Instant>>>,
}

/// Cancels every call that was given the [`Cancellation`].
#[derive(Debug)]
pub struct Canceller {
    since: watch::Sender<Option<Instant>>,
}

impl Canceller {
    /// Makes a canceller; [`Self::cancellation`] is what calls get.
    #[must_use]
    pub fn new() -> Self {
        Self {
            since: watch::Sender::new(None),
        }
    }

    /// The other end, to be given to any number of calls.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        Cancellation {
            since: Some(self.since.subscribe()),
        }
    }

    /// Cancels. A call then has the grace of its limits to come back by itself.
    pub fn cancel(&self) {
        self.since.send_if_modified(|since| {
            let is_first = since.is_none();
            since.get_or_insert_with(Instant::now);
            is_first
        });
    }
}

impl Default for Canceller {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancellation {
    fn since(&self) -> Option<Instant> {
        self.since.as_ref().and_then(|since| *since.borrow())
    }

    /// Whether the grace is over.
    pub(crate) fn is_cut_off(&self, grace: Duration) -> bool {
        self.since().is_some_and(|since| since.elapsed() >= grace)
    }

    /// Waits until the grace is over; for ever where nothing is cancelled.
    pub(crate) async fn cut_off(mut self, grace: Duration) {
        let cancelled = match &mut self.since {
            Some(since) => since
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|since| *since),
            None => None,
        };
        match cancelled {
            Some(since) => tokio::time::sleep_until(since + grace).await,
            // Nobody can cancel any more.
            None => std::future::pending().await,
        }
    }
}

impl cancel::Host for State {
    fn is_cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.cancellation.since().is_some() || self.is_past_deadline())
    }
}

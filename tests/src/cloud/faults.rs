//! What goes wrong between a client and a cloud, and at which request.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use super::message::Request;

/// Whether every fault is to meet every request, as `cargo xtask faults` asks for, and not each kind of request once.
#[must_use]
pub fn every_fault() -> bool {
    std::env::var_os("CUTOVER_EVERY_FAULT").is_some()
}

/// Something that goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request is taken, and the answer comes so much later; at once when the server ends.
    Late(Duration),
    /// The request is taken, and the answer comes when the test calls [`release`](super::CloudServer::release).
    Held,
    /// The request is refused with 429 before anything is done; `retry_after` is in seconds.
    Throttled { retry_after: Option<u32> },
    /// The request is refused with this status before anything is done.
    Refused(u16),
    /// The request is taken, and answered with this status all the same.
    TakenButRefused(u16),
    /// The connection is reset before anything is done.
    ResetBefore,
    /// The connection is reset after the request was taken.
    ResetAfter,
    /// The request is taken; the next so many reads, of anything, are answered as if it had not been.
    Stale { reads: usize },
    /// The request is taken in part: so many of the things that it names. See [`Cloud::answer_in_part`](super::Cloud::answer_in_part).
    Partial { done: usize },
}

impl Fault {
    /// Whether the request has its effect although something goes wrong.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        match self {
            Self::Late(_)
            | Self::Held
            | Self::TakenButRefused(_)
            | Self::ResetAfter
            | Self::Stale { .. }
            | Self::Partial { .. } => true,
            Self::Throttled { .. } | Self::Refused(_) | Self::ResetBefore => false,
        }
    }
}

/// Which requests a fault is meant for: the first of those that match, unless [`nth`](Self::nth) and [`times`](Self::times) say more.
#[derive(Clone)]
pub struct When {
    matches: Arc<dyn Fn(&Request) -> bool + Send + Sync>,
    from: usize,
    times: usize,
}

impl When {
    /// Any request.
    #[must_use]
    pub fn any() -> Self {
        Self::matching(|_| true)
    }

    /// Requests of this method whose path has this in it.
    #[must_use]
    pub fn call(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self::matching(move |request| request.method == method && request.path.contains(&path))
    }

    /// Requests that this says yes to.
    #[must_use]
    pub fn matching(matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self {
            matches: Arc::new(matches),
            from: 1,
            times: 1,
        }
    }

    /// From the `number`th of them on, counted from one since the fault was injected.
    #[must_use]
    pub fn nth(self, number: usize) -> Self {
        Self {
            from: number,
            ..self
        }
    }

    /// So many in a row.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// All of them.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }
}

impl Debug for When {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} times from number {}", self.times, self.from)
    }
}

/// The faults that are to come.
#[derive(Debug, Default)]
pub(super) struct Script {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    when: When,
    fault: Fault,
    seen: usize,
}

impl Script {
    pub(super) fn add(&mut self, when: When, fault: Fault) {
        let seen = 0;
        self.entries.push(Entry { when, fault, seen });
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// What goes wrong with this request: of several faults the one that was injected first. Each counts the request.
    pub(super) fn next(&mut self, request: &Request) -> Option<Fault> {
        let mut found = None;
        for entry in &mut self.entries {
            if !(entry.when.matches)(request) {
                continue;
            }
            entry.seen += 1;
            let last = (entry.when.from - 1).saturating_add(entry.when.times);
            if (entry.when.from..=last).contains(&entry.seen) && found.is_none() {
                found = Some(entry.fault.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(when: When, expected: &[bool]) {
        let mut script = Script::default();
        script.add(when, Fault::ResetAfter);
        let request = |path: &str| Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        };

        let found: Vec<_> = (0..expected.len())
            .map(|_| {
                assert_eq!(script.next(&request("/other")), None);
                script.next(&request("/pools/a")).is_some()
            })
            .collect();

        assert_eq!(found, expected);
    }

    #[test]
    fn a_fault_comes_at_its_turn_among_those_that_match() {
        check(When::call("GET", "/pools"), &[true, false, false]);
        check(When::call("GET", "/pools").nth(2), &[false, true, false]);
        check(
            When::call("GET", "/pools").nth(2).times(2),
            &[false, true, true, false],
        );
        check(When::call("GET", "/pools").always(), &[true, true, true]);
        check(When::call("PUT", "/pools"), &[false, false]);
    }
}

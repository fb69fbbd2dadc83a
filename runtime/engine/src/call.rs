//! One step that a plugin carries out: which call comes next, and when.
//!
//! The plugin makes one call after the other; waiting and retrying are decided here. A call whose outcome is unknown is
//! not repeated by its attempt: the step is tried again, as one whose outcome is lost, under the same idempotency key.

use std::time::Duration;

use model::{Cause, Timestamp};

use crate::traffic::Class;

/// A call of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `run`.
    Run,
    /// `poll` with the token of a step that is pending.
    Poll { token: String },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Call after this time.
    Call {
        after: Duration,
        call: Call,
    },
    End(End),
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The step is done.
    Done { note: Option<String> },
    /// It is not, and will not be.
    Failed { cause: Cause, reason: String },
    /// Nobody knows how far it got.
    Lost { reason: String },
}

/// What a call answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Changed {
        /// What was changed, for people.
        what: Option<String>,
    },
    Unchanged,
    Pending {
        token: String,
        after: Duration,
        message: String,
    },
    Failure {
        class: Class,
        message: String,
        retry_after: Option<Duration>,
    },
}

/// The first wait before a retry; it doubles up to [`LONGEST_WAIT`].
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a plugin that is pending is asked at most.
const SHORTEST_POLL: Duration = Duration::from_millis(10);
/// How many failures in a row are retried. The deadline bounds them as well.
const MAX_FAILURES: u32 = 6;

/// One attempt at a step, from its first call to its end.
#[derive(Debug, Clone)]
pub struct Operation {
    deadline: Timestamp,
    timeout: Duration,
    failures: u32,
    /// What the plugin waits for, or the last failure.
    last_heard: Option<String>,
}

impl Operation {
    /// Begins an attempt; the first call is always [`Call::Run`].
    #[must_use]
    pub fn new(now: Timestamp, timeout: Duration) -> Self {
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        Self {
            deadline: Timestamp(now.0.saturating_add(timeout_ms)),
            timeout,
            failures: 0,
            last_heard: None,
        }
    }

    /// When the attempt is given up.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// What the attempt waits for, for people.
    #[must_use]
    pub fn waiting_for(&self) -> String {
        let heard = self.last_heard.as_deref();
        heard.unwrap_or("the plugin's answer").to_owned()
    }

    /// Decides on the answer of the last call.
    pub fn answer(&mut self, now: Timestamp, call: &Call, answer: Answer) -> Next {
        let (after, call) = match answer {
            Answer::Changed { what } => return Next::End(End::Done { note: what }),
            Answer::Unchanged => {
                let note = Some("nothing had to be changed".to_owned());
                return Next::End(End::Done { note });
            }
            Answer::Pending {
                token,
                after,
                message,
            } => {
                self.failures = 0;
                self.last_heard = Some(message).filter(|message| !message.is_empty());
                (after.max(SHORTEST_POLL), Call::Poll { token })
            }
            Answer::Failure {
                class,
                message,
                retry_after,
            } => match self.after_failure(now, class, message, retry_after) {
                Ok(after) => (after, call.clone()),
                Err(end) => return Next::End(end),
            },
        };
        let left = self.deadline.since(now);
        if left.is_zero() {
            return Next::End(self.too_late());
        }
        Next::Call {
            after: after.min(left),
            call,
        }
    }

    /// When the call is to be made again, or what became of the attempt.
    fn after_failure(
        &mut self,
        now: Timestamp,
        class: Class,
        message: String,
        retry_after: Option<Duration>,
    ) -> Result<Duration, End> {
        self.failures += 1;
        let is_over = self.deadline.since(now).is_zero();
        self.last_heard = Some(message.clone());
        match class {
            _ if is_over => Err(self.too_late()),
            Class::UnknownOutcome => Err(End::Lost { reason: message }),
            Class::Conflict | Class::Permanent => Err(End::Failed {
                cause: Cause::CallFailed,
                reason: message,
            }),
            Class::Transient | Class::Throttled if self.failures > MAX_FAILURES => {
                Err(End::Failed {
                    cause: Cause::CallFailed,
                    reason: format!("{message} (tried {} times)", self.failures),
                })
            }
            Class::Transient | Class::Throttled => {
                let doubled = SHORTEST_WAIT * 2u32.pow(self.failures - 1);
                let backed_off = doubled.min(LONGEST_WAIT);
                Ok(retry_after.unwrap_or(backed_off).max(backed_off))
            }
        }
    }

    fn too_late(&self) -> End {
        let heard = self.last_heard.as_deref();
        let heard = heard.map(|heard| format!("; the last that was heard: {heard}"));
        End::Failed {
            cause: Cause::TimedOut,
            reason: format!(
                "it took longer than {:?}{}",
                self.timeout,
                heard.unwrap_or_default()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Timestamp = Timestamp(1_000);
    const END: Timestamp = Timestamp(61_000);

    fn operation() -> Operation {
        Operation::new(BEGIN, Duration::from_mins(1))
    }

    fn failure(class: Class) -> Answer {
        Answer::Failure {
            class,
            message: "no luck".to_owned(),
            retry_after: None,
        }
    }

    fn pending(after: Duration) -> Answer {
        Answer::Pending {
            token: "t".to_owned(),
            after,
            message: "half of it".to_owned(),
        }
    }

    #[test]
    fn a_pending_step_is_polled_with_its_token_and_says_what_it_waits_for() {
        let mut operation = operation();

        let next = operation.answer(BEGIN, &Call::Run, pending(Duration::from_secs(9)));

        let token = "t".to_owned();
        let call = Call::Poll { token };
        let after = Duration::from_secs(9);
        assert_eq!(next, Next::Call { after, call });
        assert_eq!(operation.waiting_for(), "half of it");
    }

    #[test]
    fn what_is_safe_to_repeat_is_called_again_so_many_times() {
        let mut operation = operation();
        let mut waits = Vec::new();

        let end = loop {
            match operation.answer(BEGIN, &Call::Run, failure(Class::Transient)) {
                Next::Call { after, call } => {
                    assert_eq!(call, Call::Run);
                    waits.push(after.as_millis());
                }
                end => break end,
            }
        };

        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400]);
        let reason = "no luck (tried 7 times)".to_owned();
        let cause = Cause::CallFailed;
        assert_eq!(end, Next::End(End::Failed { cause, reason }));
    }

    #[test]
    fn an_unknown_outcome_is_lost_and_not_repeated() {
        let next = operation().answer(BEGIN, &Call::Run, failure(Class::UnknownOutcome));

        let reason = "no luck".to_owned();
        assert_eq!(next, Next::End(End::Lost { reason }));
    }

    #[test]
    fn nothing_goes_on_after_the_deadline() {
        let answers = [
            pending(Duration::ZERO),
            failure(Class::Transient),
            failure(Class::UnknownOutcome),
        ];
        for answer in answers {
            let next = operation().answer(END, &Call::Run, answer);

            let Next::End(End::Failed { cause, reason }) = next else {
                panic!("{next:?}")
            };
            assert_eq!(cause, Cause::TimedOut);
            assert!(reason.starts_with("it took longer than 60s; "), "{reason}");
        }
        let late = operation().answer(END, &Call::Run, Answer::Unchanged);
        assert!(matches!(late, Next::End(End::Done { .. })));
    }

    #[test]
    fn no_wait_is_longer_than_what_is_left() {
        let long = Duration::from_hours(1);

        let next = operation().answer(Timestamp(60_000), &Call::Run, pending(long));

        assert!(matches!(next, Next::Call { after, .. } if after.as_secs() == 1));
    }
}

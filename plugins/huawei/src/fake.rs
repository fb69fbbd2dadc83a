//! A carrier that knows beforehand what is asked, and what the answers are.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use cutover_plugin_sdk::http::{Request, Response};
use cutover_plugin_sdk::{Failure, OpContext, Time, parse_config};
use serde_json::Value;

use crate::config::Config;
use crate::elb::{Carrier, Elb};

/// 2024-01-02T03:04:05Z, by both clocks.
pub(crate) const NOW: u64 = 1_704_164_645_000;
const BEGIN: &str = "https://elb.cn-north-4.myhuaweicloud.com/v3/p/elb";

/// Requests in their order: method and path, with the body behind it, and what is answered.
pub(crate) struct Script {
    expected: RefCell<VecDeque<(&'static str, Result<Response, Failure>)>>,
    now: Cell<u64>,
}

impl Script {
    pub(crate) fn new<const N: usize>(exchanges: [(&'static str, u16, Value); N]) -> Self {
        let answer = |(request, status, body): (&'static str, u16, Value)| {
            let response = Response {
                status,
                headers: vec![
                    ("Date".to_owned(), b"Tue, 02 Jan 2024 03:04:05 GMT".to_vec()),
                    ("X-Request-Id".to_owned(), b"r1".to_vec()),
                ],
                body: body.to_string().into_bytes(),
            };
            (request, Ok(response))
        };
        Self {
            expected: RefCell::new(exchanges.into_iter().map(answer).collect()),
            now: Cell::new(NOW),
        }
    }

    /// The next request gets no answer.
    pub(crate) fn then_fails(self, request: &'static str, failure: Failure) -> Self {
        let mut expected = self.expected.borrow_mut();
        expected.push_back((request, Err(failure)));
        drop(expected);
        self
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.now.set(self.now.get() + seconds * 1000);
    }

    /// Runs an operation, which has to ask all that was expected.
    #[track_caller]
    pub(crate) fn run<T>(&self, more: &str, operation: impl FnOnce(Elb<'_>) -> T) -> T {
        let config: Config = parse_config(&format!(
            r#"{{"region": "cn-north-4", "project_id": "p", "access_key": "AKEXAMPLE", "pool": "blue"{more}}}"#
        ))
        .unwrap();
        assert_eq!(config.check(), []);
        let result = operation(Elb {
            config: &config,
            carrier: self,
        });
        let left = self.expected.borrow();
        assert!(left.is_empty(), "nobody asked {:?}", left.front());
        result
    }
}

impl Carrier for Script {
    fn send(&self, request: Request) -> Result<Response, Failure> {
        let path = request.url.strip_prefix(BEGIN).unwrap();
        let body = String::from_utf8(request.body).unwrap();
        let asked = format!("{} {path} {body}", request.method);
        let next = self.expected.borrow_mut().pop_front();
        let (expected, answer) = next.unwrap_or_else(|| panic!("nobody expected {asked}"));
        assert_eq!(asked.trim_end(), expected);
        answer
    }

    fn now(&self) -> Time {
        Time::from_unix_ms(self.now.get())
    }
}

pub(crate) fn context(dry_run: bool) -> OpContext {
    OpContext {
        run_id: String::new(),
        step_id: String::new(),
        idempotency_key: String::new(),
        attempt: 1,
        deadline: NOW + 60_000,
        dry_run,
        traceparent: None,
    }
}

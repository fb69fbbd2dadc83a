//! The API in memory, for tests: it answers in JD Cloud's envelopes, keeps a log, and fails when it is told to.

use std::cell::{Cell, RefCell};

use cutover_plugin_sdk::Failure;
use cutover_plugin_sdk::http::{Request, Response};
use serde_json::{Value, json};

use crate::config::Config;
use crate::lb::{Lb, Wire};

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody took it, and nobody knows.
    Lost,
    /// It was taken, and nobody knows.
    AnswerLost,
    /// Taken, and answered with 502.
    BadGateway,
    /// Not taken, and answered with 429.
    Throttled,
    /// Not taken, and refused for the quota.
    Quota,
}

pub(crate) const PASSING: [Fault; 4] = [
    Fault::Lost,
    Fault::AnswerLost,
    Fault::BadGateway,
    Fault::Throttled,
];

pub(crate) struct Memory {
    pub(crate) state: RefCell<State>,
    /// `METHOD PATH` without what is the same everywhere, and the body.
    pub(crate) log: RefCell<Vec<String>>,
    pub(crate) now_ms: Cell<u64>,
    fault: Cell<Option<(usize, Fault)>>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) kind: &'static str,
    pub(crate) attached: Vec<String>,
    pub(crate) has_health_check: bool,
    pub(crate) draining: u32,
    pub(crate) groups: Vec<(String, String)>,
    /// Group, target id, machine, port, weight.
    pub(crate) targets: Vec<(String, String, String, u16, u32)>,
    /// Machines that fail the health check.
    pub(crate) unwell: Vec<String>,
    made: usize,
}

impl Memory {
    /// An alb `lb-1` with the backend `backend-1` on port 80, which has no target group.
    pub(crate) fn alb() -> Self {
        Self::of("alb")
    }

    pub(crate) fn of(kind: &'static str) -> Self {
        Self {
            state: RefCell::new(State {
                kind,
                has_health_check: true,
                draining: 20,
                ..State::default()
            }),
            log: RefCell::default(),
            now_ms: Cell::new(1_000_000),
            fault: Cell::new(None),
        }
    }

    pub(crate) fn lb(&self) -> Lb<'_> {
        Lb::new(self, "https://lb.jdcloud-api.com", "cn-north-1")
    }

    /// Has the request of this number fail, counted from 0.
    pub(crate) fn fail(&self, number: usize, fault: Fault) {
        self.fault
            .set(Some((self.log.borrow().len() + number, fault)));
    }

    /// Takes back a fault that has not happened. Answers whether there was one.
    pub(crate) fn disarm(&self) -> bool {
        self.fault.take().is_some()
    }

    pub(crate) fn add_group(&self, id: &str, name: &str) {
        let mut state = self.state.borrow_mut();
        state.groups.push((id.to_owned(), name.to_owned()));
    }

    pub(crate) fn add_target(&self, group: &str, host: &str, port: u16, weight: u32) {
        let mut state = self.state.borrow_mut();
        state.add(group, host, port, weight);
    }

    /// `HOST:PORT=WEIGHT` of each target of a group.
    pub(crate) fn targets(&self, group: &str) -> Vec<String> {
        let state = self.state.borrow();
        let targets = state.targets.iter().filter(|it| it.0 == group);
        targets
            .map(|(_, _, host, port, weight)| format!("{host}:{port}={weight}"))
            .collect()
    }

    /// The requests that change something.
    pub(crate) fn writes(&self) -> Vec<String> {
        let log = self.log.borrow();
        log.iter()
            .filter(|line| !line.starts_with("GET"))
            .cloned()
            .collect()
    }

    fn answer(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut state = self.state.borrow_mut();
        let path = path.split('?').next().unwrap_or_default();
        let words = |key: &str| -> Vec<String> {
            let list = body[key].as_array().cloned().unwrap_or_default();
            list.iter()
                .map(|it| it.as_str().unwrap_or_default().to_owned())
                .collect()
        };
        match (method, path) {
            ("GET", "backends/backend-1") => (200, state.backend()),
            ("PATCH", "backends/backend-1") => {
                state.attached = words("targetGroupIds");
                (200, json!({}))
            }
            ("GET", "backends/backend-1/health") => (200, state.health()),
            ("GET", "targetGroups/") => (200, state.listed()),
            ("POST", "targetGroups/") => {
                state.made += 1;
                let id = format!("tg-{}", state.made);
                let name = body["targetGroupName"].as_str().unwrap_or_default();
                state.groups.push((id.clone(), name.to_owned()));
                (200, json!({ "targetGroupId": id }))
            }
            (_, path) => {
                let path = path.strip_prefix("targetGroups/").unwrap_or_default();
                let (id, verb) = path.split_once(':').unwrap_or((path, ""));
                let Some((id, name)) = state.groups.iter().find(|group| group.0 == id).cloned()
                else {
                    return refusal(404, "NOT_FOUND", "no such resource");
                };
                match verb {
                    "" => (200, json!({ "targetGroup": group(&id, &name) })),
                    "describeTargets" => (200, state.of_group(&id)),
                    "registerTargets" => state.register(&id, body),
                    "deregisterTargets" => state.deregister(&id, &words("targetIds")),
                    "updateTargets" => state.update(body),
                    other => panic!("{method} {other}"),
                }
            }
        }
    }
}

impl Wire for Memory {
    fn send(&self, request: Request) -> Result<Response, Failure> {
        let prefix = "https://lb.jdcloud-api.com/v1/regions/cn-north-1/";
        let path = request.url.strip_prefix(prefix).unwrap();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let number = self.log.borrow().len();
        let line = format!(
            "{} {path} {}",
            request.method,
            String::from_utf8_lossy(&request.body)
        );
        self.log.borrow_mut().push(line.trim_end().to_owned());
        let fault = self.fault.get().filter(|(at, _)| *at == number);
        if fault.is_some() {
            self.fault.set(None);
        }
        let lost = || {
            let message = "no answer came";
            Err(match request.method.as_str() {
                "GET" => Failure::transient("http.no-answer", message),
                _ => Failure::unknown_outcome("http.no-answer", message),
            })
        };
        match fault.map(|(_, fault)| fault) {
            Some(Fault::Lost) => return lost(),
            Some(Fault::Throttled) => return Ok(response(refusal(429, "RATE_LIMIT", "slow down"))),
            Some(Fault::Quota) => return Ok(response(refusal(429, "QUOTA_EXCEEDED", "20 of 20"))),
            Some(Fault::AnswerLost) => {
                self.answer(&request.method, path, &body);
                return lost();
            }
            Some(Fault::BadGateway) => {
                self.answer(&request.method, path, &body);
                return Ok(Response {
                    status: 502,
                    body: b"<html>bad gateway".to_vec(),
                    ..Response::default()
                });
            }
            None => {}
        }
        Ok(response(self.answer(&request.method, path, &body)))
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }
}

fn response((status, value): (u16, Value)) -> Response {
    let body = if status == 200 {
        json!({ "requestId": "bm1", "result": value })
    } else {
        json!({ "requestId": "bm1", "error": value })
    };
    Response {
        status,
        body: body.to_string().into_bytes(),
        ..Response::default()
    }
}

fn refusal(code: u16, status: &str, message: &str) -> (u16, Value) {
    (
        code,
        json!({ "code": code, "status": status, "message": message }),
    )
}

fn group(id: &str, name: &str) -> Value {
    json!({ "targetGroupId": id, "targetGroupName": name, "loadBalancerId": "lb-1", "type": "instance", "createdTime": id })
}

impl State {
    fn add(&mut self, group: &str, host: &str, port: u16, weight: u32) {
        self.made += 1;
        let id = format!("target-{}", self.made);
        self.targets
            .push((group.to_owned(), id, host.to_owned(), port, weight));
    }

    fn backend(&self) -> Value {
        let check =
            json!({ "intervalSeconds": 5, "healthyThresholdCount": 3, "checkTimeoutSeconds": 3 });
        json!({ "backend": {
            "backendId": "backend-1", "loadBalancerId": "lb-1", "loadBalancerType": self.kind, "port": 80,
            "targetGroupIds": self.attached, "agIds": null, "connectionDrainingSeconds": self.draining,
            "healthCheck": if self.has_health_check { check } else { Value::Null },
        } })
    }

    fn health(&self) -> Value {
        let targets = self
            .targets
            .iter()
            .filter(|it| self.attached.contains(&it.0));
        let health: Vec<_> = targets
            .map(|(group, _, host, port, weight)| {
                let is_well = !self.unwell.contains(host);
                json!({
                    "targetGroupId": group, "instanceId": host, "type": "vm", "weight": weight,
                    "port": if *port == 0 { 80 } else { *port },
                    "status": if is_well { "healthy" } else { "unhealthy" },
                    "unhealthReason": if is_well { Value::Null } else { json!({ "reason": "CONNECT_FAILED", "detail": "refused" }) },
                })
            })
            .collect();
        json!({ "totalCount": health.len(), "targetHealths": health })
    }

    fn listed(&self) -> Value {
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|(id, name)| group(id, name))
            .collect();
        json!({ "totalCount": groups.len(), "targetGroups": groups })
    }

    fn of_group(&self, group: &str) -> Value {
        let targets: Vec<_> = self
            .targets
            .iter()
            .filter(|it| it.0 == group)
            .map(|(_, id, host, port, weight)| {
                json!({ "targetId": id, "type": "vm", "instanceId": host, "port": port, "weight": weight, "ipAddress": null })
            })
            .collect();
        json!({ "totalCount": targets.len(), "targets": targets })
    }

    fn register(&mut self, group: &str, body: &Value) -> (u16, Value) {
        for spec in body["targetSpecs"].as_array().unwrap() {
            let host = spec["instanceId"].as_str().unwrap().to_owned();
            let port = u16::try_from(spec["port"].as_u64().unwrap()).unwrap();
            let weight = u32::try_from(spec["weight"].as_u64().unwrap()).unwrap();
            if self
                .targets
                .iter()
                .any(|it| it.0 == group && it.2 == host && it.3 == port)
            {
                return refusal(409, "ALREADY_EXISTS", "the target is registered");
            }
            self.add(group, &host, port, weight);
        }
        (200, json!({}))
    }

    fn deregister(&mut self, group: &str, ids: &[String]) -> (u16, Value) {
        let is_there = |id: &String| self.targets.iter().any(|it| it.0 == group && it.1 == *id);
        if !ids.iter().all(is_there) {
            return refusal(
                404,
                "NOT_FOUND",
                "a target is not registered; nothing was removed",
            );
        }
        self.targets.retain(|it| !ids.contains(&it.1));
        (200, json!({}))
    }

    fn update(&mut self, body: &Value) -> (u16, Value) {
        for update in body["targetUpdateSpecs"].as_array().unwrap() {
            let target = self
                .targets
                .iter_mut()
                .find(|it| update["targetId"] == it.1.as_str());
            target.unwrap().4 = u32::try_from(update["weight"].as_u64().unwrap()).unwrap();
        }
        (200, json!({}))
    }
}

/// A configuration with these keys beside the ones that all have.
pub(crate) fn config(keys: &str) -> Config {
    let comma = if keys.is_empty() { "" } else { ", " };
    let text = format!(
        r#"{{"region": "cn-north-1", "access_key": "ak", "backend": "backend-1"{comma}{keys}}}"#
    );
    cutover_plugin_sdk::parse_config(&text).unwrap()
}

/// The context of an operation of one release.
pub(crate) fn context() -> cutover_plugin_sdk::OpContext {
    cutover_plugin_sdk::OpContext {
        run_id: "k3n5".to_owned(),
        step_id: "k3n5-1.web-1".to_owned(),
        idempotency_key: "key".to_owned(),
        attempt: 1,
        deadline: 0,
        dry_run: false,
        traceparent: None,
    }
}

//! The API's state, and its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::super::{Cloud, Request, Response};
use super::plane::Plane;
use super::signature::{self, Account};

/// The most target groups of a load balancer.
const MOST_GROUPS: usize = 20;
/// The most targets of a target group.
const MOST_TARGETS: usize = 100;

/// A backend service.
#[derive(Debug, Clone)]
pub struct Backend {
    pub load_balancer: String,
    pub port: u16,
    pub groups: Vec<String>,
    pub has_health_check: bool,
}

/// A target group.
#[derive(Debug, Clone)]
pub struct TargetGroup {
    pub name: String,
    pub load_balancer: String,
    /// `instance` or `ip`.
    pub target_type: String,
    pub targets: Vec<Target>,
    /// Orders groups by age.
    made: usize,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub id: String,
    /// `vm` or `ip`.
    pub target_type: String,
    /// The id of the machine, or the address.
    pub host: String,
    pub port: u16,
    pub weight: u32,
}

/// The API of one region, to one account.
#[derive(Debug, Clone)]
pub struct JdCloud {
    region: String,
    account: Account,
    /// `alb` or `nlb`.
    pub kind: String,
    pub backends: BTreeMap<String, Backend>,
    pub groups: BTreeMap<String, TargetGroup>,
    /// Machines by their ids, with their addresses.
    pub machines: BTreeMap<String, SocketAddr>,
    /// Hosts that fail the health check, where no HAProxy makes it.
    pub unwell: BTreeSet<String>,
    pub clock_offset_seconds: i64,
    pub most_groups: usize,
    plane: Option<Plane>,
    nonces: BTreeSet<String>,
    count: usize,
}

/// An error: HTTP's status, JD Cloud's, and a message.
type Refusal = (u16, &'static str, String);

impl JdCloud {
    /// A region `cn-north-1` with an alb `alb-1`, whose backend `backend-1` has no target group, for the key `ak` and the
    /// secret `sk`.
    #[must_use]
    pub fn new() -> Self {
        let backend = Backend {
            load_balancer: "alb-1".to_owned(),
            port: 80,
            groups: Vec::new(),
            has_health_check: true,
        };
        Self {
            region: "cn-north-1".to_owned(),
            account: Account {
                access_key: "ak".to_owned(),
                secret_key: "sk".to_owned(),
                token: None,
                is_token_expired: false,
            },
            kind: "alb".to_owned(),
            backends: BTreeMap::from([("backend-1".to_owned(), backend)]),
            groups: BTreeMap::new(),
            machines: BTreeMap::new(),
            unwell: BTreeSet::new(),
            clock_offset_seconds: 0,
            most_groups: MOST_GROUPS,
            plane: None,
            nonces: BTreeSet::new(),
            count: 0,
        }
    }

    /// Wants a session token with each request.
    pub fn want_token(&mut self, token: &str) {
        self.account.token = Some(token.to_owned());
    }

    /// Lets the session token expire.
    pub fn expire_token(&mut self) {
        self.account.is_token_expired = true;
    }

    /// Lets a real HAProxy carry the traffic.
    pub fn carry_by(&mut self, plane: Plane) {
        self.plane = Some(plane);
        self.apply();
    }

    /// Adds a target group behind the clients' backs.
    pub fn add_group(&mut self, id: &str, name: &str, target_type: &str) {
        self.count += 1;
        let group = TargetGroup {
            name: name.to_owned(),
            load_balancer: "alb-1".to_owned(),
            target_type: target_type.to_owned(),
            targets: Vec::new(),
            made: self.count,
        };
        self.groups.insert(id.to_owned(), group);
    }

    /// Adds a target behind the clients' backs.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn add_target(
        &mut self,
        group: &str,
        target_type: &str,
        host: &str,
        port: u16,
        weight: u32,
    ) {
        self.count += 1;
        let target = Target {
            id: format!("target-{:08x}", self.count),
            target_type: target_type.to_owned(),
            host: host.to_owned(),
            port,
            weight,
        };
        let group = self.groups.get_mut(group).expect("the target group");
        group.targets.push(target);
        self.apply();
    }

    /// Gives the backend `backend-1` a target group behind the clients' backs.
    ///
    /// # Panics
    /// When the backend was taken away.
    pub fn attach(&mut self, group: &str) {
        self.backend_mut().groups = vec![group.to_owned()];
        self.apply();
    }

    /// The backend that the traffic comes through.
    ///
    /// # Panics
    /// When it was taken away.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backends["backend-1"]
    }

    /// As [`backend`](Self::backend).
    ///
    /// # Panics
    /// When it was taken away.
    pub fn backend_mut(&mut self) -> &mut Backend {
        self.backends.get_mut("backend-1").expect("the backend")
    }

    /// `HOST:PORT=WEIGHT` of each target of each group, under the group's name.
    #[must_use]
    pub fn registered(&self) -> BTreeMap<String, Vec<String>> {
        let groups = self.groups.values().map(|group| {
            let mut targets: Vec<_> = group
                .targets
                .iter()
                .map(|target| format!("{}:{}={}", target.host, target.port, target.weight))
                .collect();
            targets.sort();
            (group.name.clone(), targets)
        });
        groups.collect()
    }

    /// The name of the group that the backend `backend-1` has.
    #[must_use]
    pub fn attached(&self) -> Option<String> {
        let id = self.backend().groups.first()?;
        self.groups.get(id).map(|group| group.name.clone())
    }

    fn now_seconds(&self) -> i64 {
        jiff::Timestamp::now().as_second() + self.clock_offset_seconds
    }

    /// Tells HAProxy what the state comes to.
    fn apply(&self) {
        let Some(plane) = &self.plane else {
            return;
        };
        let attached = self.backend().groups.iter();
        let targets = attached.filter_map(|id| self.groups.get(id));
        let weights: Vec<_> = targets
            .flat_map(|group| &group.targets)
            .filter_map(|target| Some((self.address(target)?, target.weight)))
            .collect();
        plane.serve(&weights);
    }

    fn address(&self, target: &Target) -> Option<SocketAddr> {
        let port = match target.port {
            0 => self.backend().port,
            port => port,
        };
        match target.target_type.as_str() {
            "ip" => Some(SocketAddr::new(target.host.parse().ok()?, port)),
            _ => {
                let machine = self.machines.get(&target.host)?;
                Some(SocketAddr::new(machine.ip(), port))
            }
        }
    }

    fn carry_out(&mut self, request: &Request) -> Result<Value, Refusal> {
        let account = &self.account;
        signature::problem(request, account, &self.region, self.now_seconds())
            .map_err(|problem| (401, "UNAUTHENTICATED", problem))?;
        let nonce = request.header("x-jdcloud-nonce").unwrap_or_default();
        if !self.nonces.insert(nonce.to_owned()) {
            return Err((
                401,
                "UNAUTHENTICATED",
                "the nonce was used before".to_owned(),
            ));
        }
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["v1", "regions", region, rest @ ..] = segments.as_slice() else {
            return Err(not_found("path"));
        };
        if *region != self.region {
            return Err(not_found("region"));
        }
        let body = request.json();
        match (request.method.as_str(), rest) {
            ("GET", ["backends", id]) => self.describe_backend(id),
            ("PATCH", ["backends", id]) => self.update_backend(id, &body),
            ("GET", ["backends", id, "health"]) => self.health(request, id),
            ("GET", ["targetGroups", ""] | ["targetGroups"]) => self.list_groups(request),
            ("POST", ["targetGroups", ""] | ["targetGroups"]) => self.create_group(&body),
            (method, ["targetGroups", last]) => {
                let (id, verb) = last.split_once(':').unwrap_or((last, ""));
                if !self.groups.contains_key(id) {
                    return Err(not_found(&format!("target group {id}")));
                }
                match (method, verb) {
                    ("GET", "") => Ok(json!({ "targetGroup": self.described(id) })),
                    ("DELETE", "") => self.delete_group(id),
                    ("GET", "describeTargets") => self.describe_targets(request, id),
                    ("POST", "registerTargets") => self.register(id, &body, usize::MAX),
                    ("POST", "deregisterTargets") => self.deregister(id, &body),
                    ("POST", "updateTargets") => self.update_targets(id, &body),
                    _ => Err(not_found("path")),
                }
            }
            _ => Err(not_found("path")),
        }
    }

    fn known_backend(&self, id: &str) -> Result<&Backend, Refusal> {
        let backend = self.backends.get(id);
        backend.ok_or_else(|| not_found(&format!("backend {id}")))
    }

    fn describe_backend(&self, id: &str) -> Result<Value, Refusal> {
        let backend = self.known_backend(id)?;
        let check = backend.has_health_check.then(|| {
            json!({ "protocol": "Http", "intervalSeconds": 1, "checkTimeoutSeconds": 1, "healthyThresholdCount": 1, "unhealthyThresholdCount": 1 })
        });
        Ok(json!({ "backend": {
            "backendId": id, "backendName": "shop", "loadBalancerId": backend.load_balancer, "loadBalancerType": self.kind,
            "protocol": "Http", "port": backend.port, "algorithm": "RoundRobin", "targetGroupIds": backend.groups,
            "agIds": null, "connectionDrainingSeconds": 0, "healthCheck": check, "createdTime": "2026-01-01T00:00:00Z",
        } }))
    }

    fn update_backend(&mut self, id: &str, body: &Value) -> Result<Value, Refusal> {
        let load_balancer = self.known_backend(id)?.load_balancer.clone();
        let Some(groups) = body["targetGroupIds"].as_array() else {
            return Ok(json!({}));
        };
        let groups: Vec<String> = groups
            .iter()
            .map(|group| group.as_str().unwrap_or_default().to_owned())
            .collect();
        if groups.len() > 1 {
            return Err(invalid("only one target group is supported"));
        }
        for group in &groups {
            match self.groups.get(group) {
                Some(known) if known.load_balancer == load_balancer => {}
                Some(_) => {
                    return Err(invalid("the target group belongs to another load balancer"));
                }
                None => return Err(not_found(&format!("target group {group}"))),
            }
        }
        if let Some(backend) = self.backends.get_mut(id) {
            backend.groups = groups;
        }
        self.apply();
        Ok(json!({}))
    }

    fn health(&self, request: &Request, id: &str) -> Result<Value, Refusal> {
        let backend = self.known_backend(id)?;
        let mut all = Vec::new();
        for group in &backend.groups {
            for target in &self.groups[group].targets {
                let is_well = match (&self.plane, self.address(target)) {
                    (Some(plane), Some(address)) => plane.is_healthy(address),
                    _ => !self.unwell.contains(&target.host),
                };
                let (machine, address) = target.names();
                let reason = json!({ "reason": "CONNECT_FAILED", "detail": "connection refused" });
                all.push(json!({
                    "targetGroupId": group, "agId": null, "instanceId": machine, "type": target.target_type,
                    "port": if target.port == 0 { backend.port } else { target.port }, "weight": target.weight,
                    "status": if is_well { "healthy" } else { "unhealthy" }, "ipAddress": address,
                    "unhealthReason": if is_well { Value::Null } else { reason },
                }));
            }
        }
        page(request, "targetHealths", all, usize::MAX)
    }

    fn described(&self, id: &str) -> Value {
        let group = &self.groups[id];
        json!({
            "targetGroupId": id, "targetGroupName": group.name, "loadBalancerId": group.load_balancer,
            "loadBalancerType": self.kind, "description": "", "type": group.target_type, "targets": null,
            "createdTime": format!("2026-01-01T00:00:{:02}Z", group.made.min(59)),
        })
    }

    fn list_groups(&self, request: &Request) -> Result<Value, Refusal> {
        let filters = filters(request);
        let meets = |id: &str, group: &TargetGroup| {
            filters.iter().all(|(name, values)| {
                let value = match name.as_str() {
                    "targetGroupIds" => id,
                    "targetGroupNames" => &group.name,
                    "loadBalancerId" => &group.load_balancer,
                    "loadBalancerType" => &self.kind,
                    _ => return false,
                };
                values.iter().any(|wanted| wanted == value)
            })
        };
        let found = self.groups.iter().filter(|(id, group)| meets(id, group));
        let found = found.map(|(id, _)| self.described(id)).collect();
        page(request, "targetGroups", found, 20)
    }

    fn create_group(&mut self, body: &Value) -> Result<Value, Refusal> {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let name = text("targetGroupName");
        let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.chars().count() > 32 || !name.chars().all(is_of_name) {
            return Err(invalid("targetGroupName is not valid"));
        }
        let load_balancer = text("loadBalancerId");
        if !self
            .backends
            .values()
            .any(|it| it.load_balancer == load_balancer)
        {
            return Err(not_found(&format!("load balancer {load_balancer}")));
        }
        let of_balancer = self
            .groups
            .values()
            .filter(|it| it.load_balancer == load_balancer);
        if of_balancer.count() >= self.most_groups {
            let message = format!("the quota of target groups is {}", self.most_groups);
            return Err((429, "QUOTA_EXCEEDED", message));
        }
        let target_type = match text("type").as_str() {
            "" | "instance" => "instance",
            "ip" => "ip",
            _ => return Err(invalid("type is not valid")),
        };
        let id = format!("tg-{:08x}", self.count + 1);
        self.add_group(&id, &name, target_type);
        Ok(json!({ "targetGroupId": id }))
    }

    fn delete_group(&mut self, id: &str) -> Result<Value, Refusal> {
        if self
            .backends
            .values()
            .any(|it| it.groups.iter().any(|group| group == id))
        {
            return Err((
                400,
                "FAILED_PRECONDITION",
                "the target group is in use".to_owned(),
            ));
        }
        self.groups.remove(id);
        Ok(json!({}))
    }

    fn describe_targets(&self, request: &Request, id: &str) -> Result<Value, Refusal> {
        let filters = filters(request);
        let meets = |target: &&Target| {
            let (machine, address) = target.names();
            filters.iter().all(|(name, values)| {
                let value = match name.as_str() {
                    "targetIds" => Some(target.id.clone()),
                    "instanceId" => machine.clone(),
                    "ipAddress" => address.clone(),
                    "port" => Some(target.port.to_string()),
                    "type" => Some(target.target_type.clone()),
                    _ => None,
                };
                value.is_some_and(|value| values.contains(&value))
            })
        };
        let found = self.groups[id].targets.iter().filter(meets).map(|target| {
            let (machine, address) = target.names();
            json!({
                "targetId": target.id, "targetGroupId": id, "agId": null, "type": target.target_type, "instanceId": machine,
                "port": target.port, "weight": target.weight, "privateIpAddress": null, "ipAddress": address,
            })
        });
        page(request, "targets", found.collect(), 20)
    }

    /// Registers the targets of a request, at most so many of them.
    fn register(&mut self, id: &str, body: &Value, most: usize) -> Result<Value, Refusal> {
        let specs = body["targetSpecs"].as_array().cloned().unwrap_or_default();
        if specs.is_empty() {
            return Err(invalid("targetSpecs is missing"));
        }
        let group = &self.groups[id];
        if group.targets.len() + specs.len() > MOST_TARGETS {
            return Err((
                429,
                "QUOTA_EXCEEDED",
                format!("the quota of targets is {MOST_TARGETS}"),
            ));
        }
        let mut targets = Vec::new();
        for spec in &specs {
            let target_type = spec["type"].as_str().unwrap_or("vm");
            let key = if target_type == "ip" {
                "ipAddress"
            } else {
                "instanceId"
            };
            let host = spec[key].as_str().unwrap_or_default();
            let is_fitting = (target_type == "ip") == (group.target_type == "ip");
            if host.is_empty() || !is_fitting {
                return Err(invalid(&format!(
                    "{key} is missing, or the type does not fit the group's"
                )));
            }
            if target_type == "vm" && !self.machines.is_empty() && !self.machines.contains_key(host)
            {
                return Err(not_found(&format!("instance {host}")));
            }
            let port = u16::try_from(spec["port"].as_u64().unwrap_or(0))
                .map_err(|_| invalid("port is not valid"))?;
            let weight = self.weight(spec)?;
            if group
                .targets
                .iter()
                .any(|it| it.host == host && it.port == port)
            {
                return Err((
                    409,
                    "ALREADY_EXISTS",
                    format!("{host}:{port} is registered already"),
                ));
            }
            targets.push((target_type.to_owned(), host.to_owned(), port, weight));
        }
        for (target_type, host, port, weight) in targets.into_iter().take(most) {
            self.add_target(id, &target_type, &host, port, weight);
        }
        self.apply();
        Ok(json!({}))
    }

    fn weight(&self, spec: &Value) -> Result<u32, Refusal> {
        let weight = spec["weight"].as_u64().unwrap_or(10);
        match (weight, self.kind.as_str()) {
            (0, "alb") | (1..=100, _) => Ok(u32::try_from(weight).unwrap_or(0)),
            (0, kind) => Err(invalid(&format!("weight 0 is not supported by {kind}"))),
            _ => Err(invalid("weight is not valid")),
        }
    }

    fn deregister(&mut self, id: &str, body: &Value) -> Result<Value, Refusal> {
        let ids = body["targetIds"].as_array().cloned().unwrap_or_default();
        let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
        let Some(group) = self.groups.get_mut(id) else {
            return Err(not_found(id));
        };
        if ids.is_empty() {
            return Err(invalid("targetIds is missing"));
        }
        for wanted in &ids {
            if !group.targets.iter().any(|target| target.id == *wanted) {
                return Err(not_found(&format!(
                    "target {wanted}; no target was removed"
                )));
            }
        }
        group
            .targets
            .retain(|target| !ids.contains(&target.id.as_str()));
        self.apply();
        Ok(json!({}))
    }

    fn update_targets(&mut self, id: &str, body: &Value) -> Result<Value, Refusal> {
        let specs = body["targetUpdateSpecs"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut weights = Vec::new();
        for spec in &specs {
            let wanted = spec["targetId"].as_str().unwrap_or_default();
            let targets = &self.groups[id].targets;
            let index = targets.iter().position(|target| target.id == wanted);
            weights.push((
                index.ok_or_else(|| not_found(&format!("target {wanted}")))?,
                self.weight(spec)?,
            ));
        }
        if let Some(group) = self.groups.get_mut(id) {
            for (index, weight) in weights {
                group.targets[index].weight = weight;
            }
        }
        self.apply();
        Ok(json!({}))
    }

    fn envelope(&mut self, outcome: Result<Value, Refusal>) -> Response {
        self.count += 1;
        let id = format!("c{:015x}", self.count);
        let date = jiff::Timestamp::from_second(self.now_seconds()).unwrap_or_default();
        let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let answer = match outcome {
            Ok(result) => Response::json(200, &json!({ "requestId": id, "result": result })),
            Err((status, words, message)) => Response::json(
                status,
                &json!({ "requestId": id, "error": { "code": status, "status": words, "message": message } }),
            ),
        };
        answer
            .header("Date", date)
            .header("x-jdcloud-request-id", id)
    }
}

impl Default for JdCloud {
    fn default() -> Self {
        Self::new()
    }
}

impl Target {
    /// The machine and the address, of which one is there.
    fn names(&self) -> (Option<String>, Option<String>) {
        match self.target_type.as_str() {
            "ip" => (None, Some(self.host.clone())),
            _ => (Some(self.host.clone()), None),
        }
    }
}

impl Cloud for JdCloud {
    fn answer(&mut self, request: &Request) -> Response {
        let outcome = self.carry_out(request);
        self.envelope(outcome)
    }

    /// Only registering may be done in part: deregistering is all or nothing.
    fn answer_in_part(&mut self, request: &Request, done: usize) -> Response {
        let last = request.segments().pop().unwrap_or_default();
        if let Some((id, "registerTargets")) = last.split_once(':')
            && self.groups.contains_key(id)
        {
            let _ = self.register(id, &request.json(), done);
        }
        self.envelope(Err((
            500,
            "INTERNAL",
            "some targets could not be changed".to_owned(),
        )))
    }

    fn error(&mut self, status: u16) -> Response {
        let words = match status {
            429 => "RATE_LIMIT",
            500 => "INTERNAL",
            501 => "NOT_IMPLEMENTED",
            502 => "BAD_GATEWAY",
            503 => "UNAVAILABLE",
            504 => "GATEWAY_TIMEOUT",
            _ => "UNKNOWN",
        };
        self.envelope(Err((status, words, "try again later".to_owned())))
    }
}

fn not_found(what: &str) -> Refusal {
    (404, "NOT_FOUND", format!("{what} does not exist"))
}

fn invalid(message: &str) -> Refusal {
    (400, "INVALID_ARGUMENT", message.to_owned())
}

/// One page of a list.
fn page(request: &Request, key: &str, all: Vec<Value>, usual: usize) -> Result<Value, Refusal> {
    let number = |name: &str| {
        request
            .query_value(name)
            .and_then(|it| it.parse::<usize>().ok())
    };
    let size = number("pageSize");
    if size.is_some_and(|size| !(10..=100).contains(&size)) {
        return Err(invalid("pageSize is not between 10 and 100"));
    }
    let (size, total) = (size.unwrap_or(usual), all.len());
    let first = (number("pageNumber").unwrap_or(1).max(1) - 1).saturating_mul(size);
    let list: Vec<_> = all.into_iter().skip(first).take(size).collect();
    Ok(json!({ key: list, "totalCount": total }))
}

/// The filters of a list: names, each with its values.
fn filters(request: &Request) -> Vec<(String, Vec<String>)> {
    let pairs = request.query_pairs();
    (1..)
        .map_while(|number| {
            let prefix = format!("filters.{number}.");
            let name = request.query_value(&format!("{prefix}name"))?;
            let values = pairs
                .iter()
                .filter(|(key, _)| key.starts_with(&format!("{prefix}values.")));
            Some((name, values.map(|(_, value)| value.clone()).collect()))
        })
        .collect()
}

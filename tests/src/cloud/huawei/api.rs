//! Paths and methods of the API, and what they answer.

use serde_json::{Value, json};

use super::elb::{Health, HuaweiElb, Member};
use crate::cloud::{Request, Response};

impl HuaweiElb {
    /// Answers a request that is believed.
    pub(super) fn route(&mut self, request: &Request) -> Response {
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["v3", project, "elb", rest @ ..] = segments.as_slice() else {
            let message = "The API does not exist or has not been published in the environment";
            return Self::refusal(404, "APIGW.0101", message);
        };
        if *project != Self::PROJECT {
            return Self::refusal(
                403,
                "ELB.1102",
                "project_id is not that of the credentials.",
            );
        }
        let Some(action) = action(&request.method, rest) else {
            return Self::refusal(404, "APIGW.0101", "The API does not exist");
        };
        if self.denied.iter().any(|denied| denied == action) {
            let message = format!("Policy doesn't allow {action} to be performed.");
            return Self::refusal(403, "ELB.9403", &message);
        }
        match (request.method.as_str(), rest) {
            ("GET", ["members"]) => self.list_members(None, request),
            ("GET", ["pools", pool]) => self.pool(pool),
            (_, ["pools", pool, "members", ..]) if !self.pools.contains_key(*pool) => {
                no_such("pool", pool)
            }
            ("GET", ["pools", pool, "members"]) => self.list_members(Some(pool), request),
            ("POST", ["pools", pool, "members"]) => self.create_member(pool, &request.json()),
            ("GET", ["pools", pool, "members", id]) => self.show_member(pool, id),
            ("PUT", ["pools", pool, "members", id]) => {
                self.update_member(pool, id, &request.json())
            }
            ("DELETE", ["pools", pool, "members", id]) => self.delete_member(pool, id),
            ("GET", ["listeners", "listener-1"]) => self.listener(),
            ("PUT", ["listeners", "listener-1"]) => self.update_listener(&request.json()),
            (_, ["listeners", id]) => no_such("listener", id),
            ("GET", ["l7policies"]) => self.list_policies(request),
            ("GET", ["l7policies", "policy-1"]) if self.policy.exists => self.show_policy(),
            ("PUT", ["l7policies", "policy-1"]) if self.policy.exists => {
                self.update_policy(&request.json())
            }
            ("GET", ["l7policies", "policy-1", "rules"]) if self.policy.exists => self.rules(),
            (_, ["l7policies", id, ..]) => no_such("l7policy", id),
            ("GET", ["loadbalancers", "lb-1"]) => self.load_balancer(),
            (_, ["loadbalancers", id]) => no_such("loadbalancer", id),
            _ => Self::refusal(404, "APIGW.0101", "The API does not exist"),
        }
    }

    fn pool(&self, id: &str) -> Response {
        let Some(pool) = self.pools.get(id) else {
            return no_such("pool", id);
        };
        let members = pool.members.iter().map(|member| json!({"id": member.id}));
        let listeners: Vec<_> = match self.has_traffic(id) {
            true => vec![json!({"id": "listener-1"})],
            false => Vec::new(),
        };
        let drain = pool.connection_drain;
        Response::json(
            200,
            &json!({"pool": {
                "id": id, "name": format!("shop-{id}"), "project_id": Self::PROJECT, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN",
                "type": "instance", "members": members.collect::<Vec<_>>(), "listeners": listeners, "loadbalancers": [{"id": "lb-1"}],
                "member_deletion_protection_enable": pool.is_protected, "healthmonitor_id": pool.is_checked.then_some("check-1"),
                "connection_drain": {"enable": drain.is_some(), "timeout": drain.unwrap_or(300)}, "admin_state_up": true,
            }}),
        )
    }

    /// Whether a listener has the pool, by its default or by the policy.
    pub(super) fn has_traffic(&self, pool: &str) -> bool {
        self.default_pool.as_deref() == Some(pool)
            || self.policy.exists && self.policy.pools.iter().any(|(name, _)| name == pool)
    }

    fn list_members(&mut self, pool: Option<&str>, request: &Request) -> Response {
        let query = request.query_pairs();
        let is_asked = |name: &str, value: &str| {
            let mut wanted = query.iter().filter(|(key, _)| key == name).peekable();
            wanted.peek().is_none() || wanted.any(|(_, wanted)| wanted == value)
        };
        let names: Vec<String> = self.pools.keys().cloned().collect();
        let mut found = Vec::new();
        for name in names
            .iter()
            .filter(|name| pool.is_none_or(|pool| pool == *name))
        {
            for index in 0..self.pools[name].members.len() {
                let member = &self.pools[name].members[index];
                if is_asked("address", &member.address)
                    && is_asked("protocol_port", &member.port.to_string())
                {
                    found.push(self.told(name, index));
                }
            }
        }
        page(request, "members", found)
    }

    /// A member as it is told: one whose check has not come round yet gets nearer to it.
    fn told(&mut self, pool: &str, index: usize) -> Value {
        let has_listener = self.has_traffic(pool);
        let seen = self.traffic.as_ref().and_then(|traffic| {
            let member = &self.pools[pool].members[index];
            traffic.health(pool, member)
        });
        let Some(known) = self.pools.get_mut(pool) else {
            return Value::Null;
        };
        let is_checked = known.is_checked;
        let member = &mut known.members[index];
        let health = seen.unwrap_or(member.health);
        if let Health::Initial(reads) = member.health {
            member.health = match reads {
                0 => Health::Online,
                reads => Health::Initial(reads - 1),
            };
        }
        let status = match health {
            _ if !has_listener => "UNKNOWN",
            _ if !is_checked => "NO_MONITOR",
            Health::Initial(_) => "INITIAL",
            Health::Online => "ONLINE",
            Health::Offline => "OFFLINE",
        };
        member.json(pool, status)
    }

    fn position(&self, pool: &str, id: &str) -> Option<usize> {
        self.pools[pool].members.iter().position(|it| it.id == id)
    }

    fn show_member(&mut self, pool: &str, id: &str) -> Response {
        match self.position(pool, id) {
            Some(index) => Response::json(200, &json!({"member": self.told(pool, index)})),
            None => no_such("member", id),
        }
    }

    fn create_member(&mut self, pool: &str, body: &Value) -> Response {
        let option = &body["member"];
        let address = option["address"].as_str().unwrap_or_default();
        let port = option["protocol_port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        let weight = option["weight"].as_u64().unwrap_or(1);
        let (Ok(_), Some(port), 0..=100) = (address.parse::<std::net::IpAddr>(), port, weight)
        else {
            return Self::refusal(
                400,
                "ELB.8902",
                "Invalid address, protocol_port or weight of member.",
            );
        };
        let all = self
            .pools
            .values()
            .map(|pool| pool.members.len())
            .sum::<usize>();
        if all >= self.member_quota {
            return Self::refusal(403, "ELB.8905", "Quota exceeded for resources: ['member'].");
        }
        let is_there = |it: &Member| it.address == address && it.port == port;
        if self.pools[pool].members.iter().any(is_there) {
            let message = format!(
                "member with address {address} and protocol_port {port} already exists in pool {pool}"
            );
            return Self::refusal(409, "ELB.8907", &message);
        }
        let (id, now) = (self.next_member_id(), self.now());
        let weight = u32::try_from(weight).unwrap_or(1);
        let member = Member::new(id.clone(), address, port, weight, now);
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.members.push(member);
        }
        self.apply();
        let mut answer = self.show_member(pool, &id);
        answer.status = 201;
        answer
    }

    fn update_member(&mut self, pool: &str, id: &str, body: &Value) -> Response {
        let Some(index) = self.position(pool, id) else {
            return no_such("member", id);
        };
        let weight = body["member"]["weight"].as_u64();
        let Some(weight @ 0..=100) = weight else {
            return Self::refusal(400, "ELB.8902", "Invalid weight of member.");
        };
        let now = self.now();
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.members[index].set_weight(u32::try_from(weight).unwrap_or(0), now);
        }
        self.apply();
        self.show_member(pool, id)
    }

    fn delete_member(&mut self, pool: &str, id: &str) -> Response {
        let Some(index) = self.position(pool, id) else {
            return no_such("member", id);
        };
        if self.pools[pool].is_protected {
            let message = format!(
                "Member {id} cannot be deleted: member deletion protection of pool {pool} is enabled."
            );
            return Self::refusal(409, "ELB.8907", &message);
        }
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.members.remove(index);
        }
        self.apply();
        Response::empty(204)
    }

    fn listener(&self) -> Response {
        Response::json(
            200,
            &json!({"listener": {
                "id": "listener-1", "name": "front", "project_id": Self::PROJECT, "protocol": "HTTP", "protocol_port": 80,
                "default_pool_id": self.default_pool, "enhance_l7policy_enable": self.has_advanced_forwarding,
                "loadbalancers": [{"id": "lb-1"}], "admin_state_up": true,
            }}),
        )
    }

    fn update_listener(&mut self, body: &Value) -> Response {
        let Some(pool) = body["listener"]["default_pool_id"].as_str() else {
            return Self::refusal(400, "ELB.8902", "Invalid listener.");
        };
        if !self.pools.contains_key(pool) {
            return no_such("pool", pool);
        }
        self.default_pool = Some(pool.to_owned());
        self.apply();
        self.listener()
    }

    fn policy_json(&self) -> Value {
        let pools = self.policy.pools.iter();
        let pools = pools.map(|(pool, weight)| json!({"pool_id": pool, "weight": weight}));
        json!({
            "id": "policy-1", "name": "shares", "project_id": Self::PROJECT, "action": "REDIRECT_TO_POOL", "listener_id": "listener-1",
            "provisioning_status": "ACTIVE", "priority": 1, "rules": [{"id": "rule-1"}], "redirect_pool_id": null,
            "redirect_pools_config": pools.collect::<Vec<_>>(), "admin_state_up": true,
        })
    }

    fn show_policy(&self) -> Response {
        Response::json(200, &json!({"l7policy": self.policy_json()}))
    }

    fn list_policies(&self, request: &Request) -> Response {
        let listener = request.query_value("listener_id");
        let is_asked = listener.is_none_or(|listener| listener == "listener-1");
        let found = match self.policy.exists && is_asked {
            true => vec![self.policy_json()],
            false => Vec::new(),
        };
        page(request, "l7policies", found)
    }

    fn update_policy(&mut self, body: &Value) -> Response {
        let Some(config) = body["l7policy"]["redirect_pools_config"].as_array() else {
            return Self::refusal(400, "ELB.8902", "Invalid l7policy.");
        };
        if !self.has_advanced_forwarding || !self.is_dedicated {
            let message = "redirect_pools_config is not supported by this listener.";
            return Self::refusal(400, "ELB.8902", message);
        }
        let mut pools: Vec<(String, u32)> = Vec::new();
        for entry in config {
            let pool = entry["pool_id"].as_str().unwrap_or_default();
            // The vendor's client sends what it is given, texts too.
            let weight = &entry["weight"];
            let weight = weight.as_u64().or_else(|| weight.as_str()?.parse().ok());
            let Some(weight @ 0..=100) = weight else {
                return Self::refusal(400, "ELB.8902", "Invalid weight in redirect_pools_config.");
            };
            if !self.pools.contains_key(pool) {
                return no_such("pool", pool);
            }
            if pools.iter().any(|(known, _)| known == pool) {
                return Self::refusal(400, "ELB.8902", "Duplicate pool in redirect_pools_config.");
            }
            pools.push((pool.to_owned(), u32::try_from(weight).unwrap_or(0)));
        }
        if !(1..=5).contains(&pools.len()) {
            return Self::refusal(
                400,
                "ELB.8902",
                "redirect_pools_config has one to five pools.",
            );
        }
        self.policy.pools = pools;
        self.apply();
        self.show_policy()
    }

    fn rules(&self) -> Response {
        Response::json(
            200,
            &json!({"rules": [{
                "id": "rule-1", "project_id": Self::PROJECT, "type": "PATH", "compare_type": "STARTS_WITH", "value": self.policy.path,
                "key": null, "invert": false, "conditions": [], "admin_state_up": true, "provisioning_status": "ACTIVE",
            }], "page_info": {"current_count": 1}}),
        )
    }

    fn load_balancer(&self) -> Response {
        Response::json(
            200,
            &json!({"loadbalancer": {
                "id": "lb-1", "name": "shop", "project_id": Self::PROJECT, "guaranteed": self.is_dedicated, "ip_target_enable": true,
                "listeners": [{"id": "listener-1"}], "provisioning_status": "ACTIVE", "operating_status": "ONLINE", "admin_state_up": true,
            }}),
        )
    }
}

/// The vendor's name for what a request does, which policies allow.
fn action(method: &str, path: &[&str]) -> Option<&'static str> {
    Some(match (method, path) {
        ("GET", ["members"] | ["pools", _, "members"]) => "elb:members:list",
        ("GET", ["pools", _, "members", _]) => "elb:members:get",
        ("POST", ["pools", _, "members"]) => "elb:members:create",
        ("PUT", ["pools", _, "members", _]) => "elb:members:put",
        ("DELETE", ["pools", _, "members", _]) => "elb:members:delete",
        ("GET", ["pools", _]) => "elb:pools:get",
        ("GET", ["listeners", _]) => "elb:listeners:get",
        ("PUT", ["listeners", _]) => "elb:listeners:put",
        ("GET", ["l7policies"]) => "elb:l7policies:list",
        ("GET", ["l7policies", _]) => "elb:l7policies:get",
        ("PUT", ["l7policies", _]) => "elb:l7policies:put",
        ("GET", ["l7policies", _, "rules"]) => "elb:l7rules:list",
        ("GET", ["loadbalancers", _]) => "elb:loadbalancers:get",
        _ => return None,
    })
}

fn no_such(what: &str, id: &str) -> Response {
    HuaweiElb::refusal(404, "ELB.8904", &format!("{what} {id} could not be found."))
}

/// The page of a list that is asked for: it begins after the marker.
fn page(request: &Request, key: &str, all: Vec<Value>) -> Response {
    let limit = request
        .query_value("limit")
        .and_then(|limit| limit.parse().ok());
    let limit: usize = limit.unwrap_or(2000);
    let marker = request.query_value("marker");
    let begin = marker.and_then(|marker| all.iter().position(|it| it["id"] == *marker));
    let rest = &all[begin.map_or(0, |position| position + 1)..];
    let found = &rest[..limit.min(rest.len())];
    let mut info = json!({"current_count": found.len()});
    if found.len() < rest.len() {
        info["next_marker"] = found.last().map_or(Value::Null, |it| it["id"].clone());
    }
    Response::json(200, &json!({key: found, "page_info": info}))
}

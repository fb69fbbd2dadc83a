//! The state of one project: load balancers, listeners, policies, pools and members.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::signature::Keys;
use super::traffic::Traffic;
use crate::cloud::{Cloud, Request, Response};

/// The project of all of it.
const PROJECT: &str = "0605767f9a8e4b2c8f0d2f5c6a7b8c9d";

/// Load balancers of one project, in one region, with one listener (`listener-1`) on one dedicated load balancer (`lb-1`) and one
/// policy (`policy-1`) that matches every request.
#[derive(Clone)]
pub struct HuaweiElb {
    pub(super) keys: Keys,
    /// How far the cloud's clock is ahead of the machine's, in seconds.
    ahead: i64,
    requests: u64,
    members_made: u64,
    /// How many members there may be.
    pub member_quota: usize,
    pub pools: BTreeMap<String, Pool>,
    pub policy: Policy,
    /// The listener's default pool.
    pub default_pool: Option<String>,
    /// Whether the listener has advanced forwarding.
    pub has_advanced_forwarding: bool,
    /// Whether the load balancer is a dedicated one.
    pub is_dedicated: bool,
    /// The actions that the key's user is denied, such as `elb:members:create`.
    pub denied: Vec<String>,
    pub(super) traffic: Option<Traffic>,
}

/// A pool.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    pub members: Vec<Member>,
    pub is_protected: bool,
    /// The seconds that connections are granted.
    pub connection_drain: Option<u32>,
    /// Whether it has a health check.
    pub is_checked: bool,
}

/// A member.
#[derive(Debug, Clone)]
pub struct Member {
    pub id: String,
    pub address: String,
    pub port: u16,
    pub weight: u32,
    pub health: Health,
    updated_at: Timestamp,
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet; so many more reads find it so.
    Initial(u32),
    Online,
    Offline,
}

/// A forwarding policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Weights by pool, in their order.
    pub pools: Vec<(String, u32)>,
    /// The path that requests have to begin with.
    pub path: String,
    /// Whether there is one at all.
    pub exists: bool,
}

impl HuaweiElb {
    /// One access key, and pools of these names without members.
    #[must_use]
    pub fn new(pools: &[&str]) -> Self {
        let mut keys = Keys::default();
        keys.add(Self::ACCESS_KEY, Self::SECRET_KEY, None);
        let pool = || Pool {
            is_checked: true,
            ..Pool::default()
        };
        Self {
            keys,
            ahead: 0,
            requests: 0,
            members_made: 0,
            member_quota: 100,
            pools: pools
                .iter()
                .map(|name| ((*name).to_owned(), pool()))
                .collect(),
            policy: Policy {
                pools: Vec::new(),
                path: "/".to_owned(),
                exists: false,
            },
            default_pool: pools.first().map(|pool| (*pool).to_owned()),
            has_advanced_forwarding: true,
            is_dedicated: true,
            denied: Vec::new(),
            traffic: None,
        }
    }

    /// The key that there is.
    pub const ACCESS_KEY: &'static str = "AKEXAMPLE";
    /// Its secret.
    pub const SECRET_KEY: &'static str = "SKEXAMPLE";
    /// The project.
    pub const PROJECT: &'static str = PROJECT;

    /// Weighs pools in the policy, which the listener asks before its default pool.
    #[must_use]
    pub fn with_policy(mut self, pools: &[(&str, u32)]) -> Self {
        self.policy.exists = true;
        self.policy.pools = pools
            .iter()
            .map(|(pool, weight)| ((*pool).to_owned(), *weight))
            .collect();
        self.default_pool = None;
        self
    }

    /// Lets a HAProxy do what the state says. Its backends are `shop-POOL`, with the servers at the members' addresses.
    #[must_use]
    pub fn with_traffic(mut self, haproxy: SocketAddr, maps: &std::path::Path) -> Self {
        self.traffic = Some(Traffic::new(haproxy, maps));
        self.apply();
        self
    }

    /// Adds a temporary key.
    pub fn add_temporary_key(&mut self, id: &str, secret: &str, token: &str) {
        self.keys.add(id, secret, Some(token));
    }

    /// Lets the tokens of temporary keys expire.
    pub fn expire_tokens(&mut self) {
        self.keys.expire();
    }

    /// Sets the cloud's clock so far ahead of the machine's.
    pub fn set_clock_ahead(&mut self, seconds: i64) {
        self.ahead = seconds;
    }

    /// Adds a member by hand.
    pub fn add_member(&mut self, pool: &str, address: SocketAddr, weight: u32) {
        let id = self.next_member_id();
        let updated_at = self.now();
        let member = Member {
            id,
            address: address.ip().to_string(),
            port: address.port(),
            weight,
            health: Health::Online,
            updated_at,
        };
        self.pools
            .entry(pool.to_owned())
            .or_default()
            .members
            .push(member);
        self.apply();
    }

    /// The member at an address.
    pub fn member(&mut self, pool: &str, address: SocketAddr) -> Option<&mut Member> {
        let members = &mut self.pools.get_mut(pool)?.members;
        let (host, port) = (address.ip().to_string(), address.port());
        members
            .iter_mut()
            .find(|it| it.address == host && it.port == port)
    }

    /// The members of a pool, as `ADDRESS:PORT=WEIGHT`.
    #[must_use]
    pub fn members(&self, pool: &str) -> Vec<String> {
        let members = self.pools[pool].members.iter();
        let mut members: Vec<_> = members
            .map(|it| format!("{}:{}={}", it.address, it.port, it.weight))
            .collect();
        members.sort();
        members
    }

    /// The cloud's time, in whole seconds as it tells them.
    pub(super) fn now(&self) -> Timestamp {
        let second = Timestamp::now().as_second() + self.ahead;
        Timestamp::from_second(second).expect("a time of this century")
    }

    pub(super) fn next_member_id(&mut self) -> String {
        self.members_made += 1;
        format!("member-{}", self.members_made)
    }

    /// Lets the traffic follow the state.
    pub(super) fn apply(&mut self) {
        if let Some(mut traffic) = self.traffic.take() {
            traffic.apply(self);
            self.traffic = Some(traffic);
        }
    }

    /// A refusal in the vendor's envelope.
    pub(super) fn refusal(status: u16, code: &str, message: &str) -> Response {
        Response::json(status, &json!({"error_code": code, "error_msg": message}))
    }

    /// Puts the id and the time of a request on its answer.
    fn stamped(&mut self, mut answer: Response) -> Response {
        self.requests += 1;
        let id = format!("{:032x}", self.requests);
        if let Ok(Value::Object(mut body)) = serde_json::from_slice::<Value>(&answer.body) {
            body.insert("request_id".to_owned(), json!(id));
            answer.body = Value::Object(body).to_string().into_bytes();
        }
        let date = self.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        answer.header("X-Request-Id", id).header("Date", date)
    }
}

impl Member {
    pub(super) fn new(id: String, address: &str, port: u16, weight: u32, now: Timestamp) -> Self {
        Self {
            id,
            address: address.to_owned(),
            port,
            weight,
            health: Health::Initial(1),
            updated_at: now,
        }
    }

    pub(super) fn set_weight(&mut self, weight: u32, now: Timestamp) {
        self.weight = weight;
        self.updated_at = now;
    }

    /// What the API says of it.
    pub(super) fn json(&self, pool: &str, status: &str) -> Value {
        let reason = match status {
            "OFFLINE" => {
                json!({"reason_code": "CONNECT_REFUSED", "expected_response": null, "healthcheck_response": null})
            }
            _ => Value::Null,
        };
        json!({
            "id": self.id, "name": "", "project_id": PROJECT, "pool_id": pool, "address": self.address, "protocol_port": self.port,
            "weight": self.weight, "admin_state_up": true, "subnet_cidr_id": null, "ip_version": "v4", "member_type": "ip",
            "instance_id": "", "operating_status": status, "status": [], "reason": reason,
            "created_at": self.updated_at.to_string(), "updated_at": self.updated_at.to_string(),
        })
    }
}

impl Cloud for HuaweiElb {
    fn answer(&mut self, request: &Request) -> Response {
        let now = self.now();
        let answer = match self.keys.check(request, now) {
            Ok(()) => self.route(request),
            Err(why) => {
                let message = format!("Incorrect IAM authentication information: {why}");
                Self::refusal(401, "APIGW.0301", &message)
            }
        };
        self.stamped(answer)
    }

    fn error(&mut self, status: u16) -> Response {
        let (code, message) = match status {
            429 => (
                "APIGW.0308",
                "The throttling threshold has been reached: policy user over ratelimit",
            ),
            _ => ("ELB.8901", "Internal server error."),
        };
        let answer = Self::refusal(status, code, message);
        self.stamped(answer)
    }
}

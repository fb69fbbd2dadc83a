//! The API of Elastic Load Balance, version 3: its paths, its bodies and what they say.

use cutover_plugin_sdk::http::{Request, Response, percent_encode};
use cutover_plugin_sdk::{Failure, FailureClass, Time};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::answer::{self, Asker, Effect};
use crate::config::Config;

/// How many members one page holds.
const PAGE: usize = 500;
/// How many pages are read at most: ELB takes fewer members into a pool.
const MOST_PAGES: usize = 20;

/// What carries requests, signed, and knows the time.
pub(crate) trait Carrier {
    fn send(&self, request: Request) -> Result<Response, Failure>;
    fn now(&self) -> Time;
}

/// The load balancers of one project.
pub(crate) struct Elb<'a> {
    pub(crate) config: &'a Config,
    pub(crate) carrier: &'a dyn Carrier,
}

/// Something read, and when by the vendor's clock.
pub(crate) struct Read<T> {
    pub(crate) value: T,
    pub(crate) at: Time,
    pub(crate) request_id: String,
}

impl<T> Read<T> {
    pub(crate) fn map<U>(self, with: impl FnOnce(T) -> U) -> Read<U> {
        Read {
            value: with(self.value),
            at: self.at,
            request_id: self.request_id,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) protocol_port: u16,
    pub(crate) weight: u32,
    pub(crate) subnet_cidr_id: Option<String>,
    /// Told only where members of all pools are read.
    #[serde(default)]
    pub(crate) pool_id: String,
    #[serde(default)]
    pub(crate) operating_status: String,
    /// By listener; counts before `operating_status`.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) status: Vec<ListenerStatus>,
    pub(crate) reason: Option<Reason>,
    pub(crate) updated_at: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ListenerStatus {
    pub(crate) listener_id: String,
    pub(crate) operating_status: String,
    pub(crate) reason: Option<Reason>,
}

/// Why a health check failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Reason {
    #[serde(default)]
    pub(crate) reason_code: String,
    pub(crate) expected_response: Option<String>,
    pub(crate) healthcheck_response: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Reference {
    pub(crate) id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Pool {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) listeners: Vec<Reference>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) loadbalancers: Vec<Reference>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) member_deletion_protection_enable: bool,
    pub(crate) connection_drain: Option<ConnectionDrain>,
    #[serde(default)]
    pub(crate) lb_algorithm: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct ConnectionDrain {
    #[serde(default)]
    pub(crate) enable: bool,
    #[serde(default)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Listener {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) default_pool_id: Option<String>,
    #[serde(default)]
    pub(crate) protocol: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) enhance_l7policy_enable: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) loadbalancers: Vec<Reference>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct LoadBalancer {
    #[serde(default)]
    pub(crate) name: String,
    /// Whether it is a dedicated one.
    #[serde(default)]
    pub(crate) guaranteed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Policy {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) action: String,
    pub(crate) listener_id: String,
    #[serde(default = "active")]
    pub(crate) provisioning_status: String,
    pub(crate) redirect_pool_id: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) redirect_pools_config: Vec<WeightedPool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct WeightedPool {
    pub(crate) pool_id: String,
    pub(crate) weight: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Rule {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) compare_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) value: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) invert: bool,
    /// Where there are some, they count in place of `value`.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Condition {
    #[serde(default)]
    pub(crate) value: String,
}

fn active() -> String {
    "ACTIVE".to_owned()
}

/// The vendor writes null for what is not set.
fn or_default<'de, D, T>(reader: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}

impl Elb<'_> {
    pub(crate) fn pool(&self, id: &str) -> Result<Read<Pool>, Failure> {
        let path = format!("/pools/{}", percent_encode(id));
        self.read(&path, "pool", &format!("read pool `{id}`"))
    }

    pub(crate) fn listener(&self, id: &str) -> Result<Read<Listener>, Failure> {
        let path = format!("/listeners/{}", percent_encode(id));
        self.read(&path, "listener", &format!("read listener `{id}`"))
    }

    pub(crate) fn load_balancer(&self, id: &str) -> Result<Read<LoadBalancer>, Failure> {
        let path = format!("/loadbalancers/{}", percent_encode(id));
        self.read(&path, "loadbalancer", &format!("read load balancer `{id}`"))
    }

    pub(crate) fn policy(&self, id: &str) -> Result<Read<Policy>, Failure> {
        let path = format!("/l7policies/{}", percent_encode(id));
        self.read(&path, "l7policy", &format!("read policy `{id}`"))
    }

    pub(crate) fn policies(&self, listener: &str) -> Result<Vec<Policy>, Failure> {
        let query = format!("listener_id={}", percent_encode(listener));
        let what = format!("read the policies of listener `{listener}`");
        Ok(self
            .pages("/l7policies", &query, "l7policies", &what)?
            .value)
    }

    pub(crate) fn rules(&self, policy: &str) -> Result<Vec<Rule>, Failure> {
        let path = format!("/l7policies/{}/rules", percent_encode(policy));
        let what = format!("read the rules of policy `{policy}`");
        Ok(self.pages(&path, "", "rules", &what)?.value)
    }

    /// The members of a pool: all, or those at an address.
    pub(crate) fn members(
        &self,
        pool: &str,
        address: Option<&str>,
    ) -> Result<Read<Vec<Member>>, Failure> {
        let path = format!("/pools/{}/members", percent_encode(pool));
        let query = address.map(|it| format!("address={}", percent_encode(it)));
        let what = format!("read the members of pool `{pool}`");
        self.pages(&path, &query.unwrap_or_default(), "members", &what)
    }

    /// The members of all pools at an address and port.
    pub(crate) fn members_anywhere(
        &self,
        address: &str,
        port: u16,
    ) -> Result<Vec<Member>, Failure> {
        let query = format!("address={}&protocol_port={port}", percent_encode(address));
        let what = format!("read in which pools `{address}:{port}` is");
        Ok(self.pages("/members", &query, "members", &what)?.value)
    }

    pub(crate) fn create_member(
        &self,
        pool: &str,
        address: &str,
        port: u16,
        weight: u32,
    ) -> Result<Read<Member>, Failure> {
        let mut member = json!({"address": address, "protocol_port": port, "weight": weight});
        if let Some(subnet) = &self.config.subnet {
            member["subnet_cidr_id"] = json!(subnet);
        }
        let path = format!("/pools/{}/members", percent_encode(pool));
        let what = format!("add `{address}:{port}` to pool `{pool}`");
        self.write("POST", &path, &json!({"member": member}), "member", &what)
    }

    pub(crate) fn set_weight(
        &self,
        pool: &str,
        member: &Member,
        weight: u32,
    ) -> Result<Read<Member>, Failure> {
        let path = member_path(pool, &member.id);
        let body = json!({"member": {"weight": weight}});
        let what = format!(
            "give `{}:{}` in pool `{pool}` weight {weight}",
            member.address, member.protocol_port
        );
        self.write("PUT", &path, &body, "member", &what)
    }

    pub(crate) fn delete_member(&self, pool: &str, member: &Member) -> Result<(), Failure> {
        let what = format!(
            "remove `{}:{}` from pool `{pool}`",
            member.address, member.protocol_port
        );
        let request = self.request("DELETE", &member_path(pool, &member.id), "");
        self.ask(request, Effect::Writes, &what).map(drop)
    }

    pub(crate) fn set_default_pool(
        &self,
        listener: &str,
        pool: &str,
    ) -> Result<Read<Listener>, Failure> {
        let path = format!("/listeners/{}", percent_encode(listener));
        let body = json!({"listener": {"default_pool_id": pool}});
        let what = format!("make `{pool}` the default pool of listener `{listener}`");
        self.write("PUT", &path, &body, "listener", &what)
    }

    /// Replaces the pools of a policy, all of them.
    pub(crate) fn set_pools(
        &self,
        policy: &str,
        pools: &[WeightedPool],
    ) -> Result<Read<Policy>, Failure> {
        let path = format!("/l7policies/{}", percent_encode(policy));
        let pools: Vec<_> = pools
            .iter()
            .map(|pool| json!({"pool_id": pool.pool_id, "weight": pool.weight}))
            .collect();
        let body = json!({"l7policy": {"redirect_pools_config": pools}});
        let what = format!("weigh the pools of policy `{policy}`");
        self.write("PUT", &path, &body, "l7policy", &what)
    }

    fn request(&self, method: &str, path: &str, query: &str) -> Request {
        let (endpoint, project) = (self.config.endpoint(), &self.config.project_id);
        let query = match query {
            "" => String::new(),
            query => format!("?{query}"),
        };
        let url = format!("{endpoint}/v3/{project}/elb{path}{query}");
        Request::new(method, url)
            .header("Content-Type", "application/json")
            .timeout(self.config.timeout)
    }

    /// Sends a request and takes any answer that is no refusal.
    fn ask(&self, request: Request, effect: Effect, what: &str) -> Result<Response, Failure> {
        let now = self.carrier.now();
        let response = self.carrier.send(request).map_err(|mut failure| {
            // What only reads may be asked again, whatever became of it.
            if effect == Effect::Reads && failure.class == FailureClass::UnknownOutcome {
                failure.class = FailureClass::Transient;
            }
            failure.about(what)
        })?;
        if (200..300).contains(&response.status) {
            return Ok(response);
        }
        let asker = Asker {
            access_key: &self.config.access_key,
            secret_key: &self.config.secrets.secret_key,
            now,
        };
        Err(answer::refused(what, effect, asker, &response))
    }

    fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        what: &str,
    ) -> Result<Read<T>, Failure> {
        let response = self.ask(self.request("GET", path, ""), Effect::Reads, what)?;
        let unreadable = |why: String| unreadable(FailureClass::Permanent, what, &response, &why);
        self.understood(&response, key).map_err(unreadable)
    }

    fn write<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        key: &str,
        what: &str,
    ) -> Result<Read<T>, Failure> {
        let request = self.request(method, path, "").body(body.to_string());
        let response = self.ask(request, Effect::Writes, what)?;
        // It was taken; what it came to has to be read.
        let unreadable =
            |why: String| unreadable(FailureClass::UnknownOutcome, what, &response, &why);
        self.understood(&response, key).map_err(unreadable)
    }

    fn understood<T: DeserializeOwned>(
        &self,
        response: &Response,
        key: &str,
    ) -> Result<Read<T>, String> {
        let mut body: Value = serde_json::from_slice(&response.body).map_err(|e| e.to_string())?;
        let value = serde_json::from_value(body[key].take());
        Ok(Read {
            value: value.map_err(|error| format!("`{key}`: {error}"))?,
            at: answer::time(response).unwrap_or_else(|| self.carrier.now()),
            request_id: answer::request_id(response),
        })
    }

    /// Reads a list to its end.
    fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &str,
        key: &str,
        what: &str,
    ) -> Result<Read<Vec<T>>, Failure> {
        let mut all: Vec<T> = Vec::new();
        let mut marker = String::new();
        for _ in 0..MOST_PAGES {
            let mut parts = vec![format!("limit={PAGE}")];
            if !query.is_empty() {
                parts.insert(0, query.to_owned());
            }
            if !marker.is_empty() {
                parts.push(format!("marker={}", percent_encode(&marker)));
            }
            let request = self.request("GET", path, &parts.join("&"));
            let response = self.ask(request, Effect::Reads, what)?;
            let unreadable =
                |why: String| unreadable(FailureClass::Permanent, what, &response, &why);
            let page: Read<Vec<T>> = self.understood(&response, key).map_err(unreadable)?;
            all.extend(page.value);
            match next_marker(&response) {
                Some(next) if next != marker => marker = next,
                _ => {
                    return Ok(Read {
                        value: all,
                        at: page.at,
                        request_id: page.request_id,
                    });
                }
            }
        }
        let message = format!("{what}: the list has no end");
        Err(Failure::permanent("huawei.list", message))
    }
}

fn next_marker(response: &Response) -> Option<String> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    let marker = body["page_info"]["next_marker"].as_str()?;
    (!marker.is_empty()).then(|| marker.to_owned())
}

fn member_path(pool: &str, member: &str) -> String {
    format!(
        "/pools/{}/members/{}",
        percent_encode(pool),
        percent_encode(member)
    )
}

fn unreadable(class: FailureClass, what: &str, response: &Response, why: &str) -> Failure {
    let message = format!(
        "{what}: the answer with status {} is not what Elastic Load Balance says: {why} (request {})",
        response.status,
        answer::request_id(response)
    );
    Failure::new(class, "huawei.answer", message)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use cutover_plugin_sdk::parse_config;
    use cutover_plugin_sdk::signing::{Credentials, Plain, huawei};

    use super::*;

    const PROJECT: &str = "0605767f9a8e4b2c8f0d2f5c6a7b8c9d";

    /// Signs and keeps what it is given.
    struct Signed(RefCell<Vec<String>>);

    impl Carrier for Signed {
        fn send(&self, mut request: Request) -> Result<Response, Failure> {
            let credentials = Credentials {
                access_key: "AKEXAMPLE".to_owned(),
                secret_key: Plain::new("SKEXAMPLE"),
                session_token: None,
            };
            huawei::sign(&mut request, &credentials, PROJECT, self.now())?;
            let (_, authorization) = request.headers.pop().unwrap();
            let (_, signature) = authorization.rsplit_once('=').unwrap();
            self.0.borrow_mut().push(signature.to_owned());
            Ok(Response {
                status: 204,
                ..Response::default()
            })
        }

        fn now(&self) -> Time {
            Time::parse("20240102T030405Z").unwrap()
        }
    }

    /// The signatures that the vendor's own signer made of these requests: bodies and paths are theirs to the letter.
    #[test]
    fn requests_are_signed_as_the_vendors_own_client_signs_them() {
        let config: Config = parse_config(&format!(
            r#"{{"region": "cn-north-4", "project_id": "{PROJECT}", "access_key": "AKEXAMPLE", "subnet": "sub-1"}}"#
        ))
        .unwrap();
        let carrier = Signed(RefCell::default());
        let elb = Elb {
            config: &config,
            carrier: &carrier,
        };
        let member: Member = serde_json::from_value(json!({
            "id": "m-1", "address": "192.168.0.10", "protocol_port": 8080, "weight": 10
        }))
        .unwrap();
        let pools = [("pool-blue", 80), ("pool-green", 20)].map(|(pool, weight)| WeightedPool {
            pool_id: pool.to_owned(),
            weight,
        });

        // An empty answer is none that can be read, but the request was sent.
        assert!(
            elb.create_member("pool-blue", "192.168.0.10", 8080, 10)
                .is_err()
        );
        assert!(elb.set_weight("pool-blue", &member, 0).is_err());
        elb.delete_member("pool-blue", &member).unwrap();
        assert!(elb.set_default_pool("l-1", "pool-green").is_err());
        assert!(elb.set_pools("p-1", &pools).is_err());
        let list = elb.request(
            "GET",
            "/pools/pool-blue/members",
            "address=192.168.0.10&limit=100",
        );
        carrier.send(list).unwrap();

        assert_eq!(
            *carrier.0.borrow(),
            [
                "6cc71ebebb50d3abc2b1809eca61f865a41fad6fa74bec9467355acdab76d4fe",
                "ffb47dda0b2a577449f8b753ea8d74c904e313aa29e76d351256bb45d56c1ea5",
                "698f8bfd2675a6c1c66d43ade57784a8808f3c4fa41b388de0e469b1d974c676",
                "8e3c8d9304a6df1732f96108f399ab523dd9db6b9e4fab117bccfbd1cd5fd4ea",
                "406506e19c12e76cde3485e6e44bd6fcf72abf8b1e06c71d90608afc15d9e31c",
                "9191f87736a32833f05cbd0cdb94b21fb8788abae93a689fe9cbda073424a3eb",
            ]
        );
    }
}

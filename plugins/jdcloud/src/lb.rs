//! The calls of JD Cloud's load balancer API that the plugin makes, as documented for service `lb`, version 1.

use cutover_plugin_sdk::Failure;
use cutover_plugin_sdk::http::{Request, Response, percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::answer::{self, Effect, Nothing};

/// What signs requests and sends them.
pub(crate) trait Wire {
    /// Sends a request and waits for its answer, whatever its status.
    fn send(&self, request: Request) -> Result<Response, Failure>;
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// The API of one region.
pub(crate) struct Lb<'a> {
    wire: &'a dyn Wire,
    endpoint: &'a str,
    region: &'a str,
}

/// A backend service: what a listener sends requests to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Backend {
    pub(crate) backend_id: String,
    pub(crate) load_balancer_id: String,
    #[serde(default)]
    pub(crate) load_balancer_type: Kind,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) port: u16,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) target_group_ids: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ag_ids: Vec<String>,
    pub(crate) connection_draining_seconds: Option<u32>,
    pub(crate) health_check: Option<HealthCheck>,
}

/// The kind of a load balancer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    #[default]
    Alb,
    Nlb,
    Dnlb,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alb => "alb",
            Self::Nlb => "nlb",
            Self::Dnlb => "dnlb",
        }
    }
}

/// How the members of a backend's target group are probed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthCheck {
    pub(crate) healthy_threshold_count: Option<u32>,
    pub(crate) check_timeout_seconds: Option<u32>,
    pub(crate) interval_seconds: Option<u32>,
}

/// A group of targets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetGroup {
    pub(crate) target_group_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) target_group_name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) load_balancer_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) created_time: String,
    /// `instance` or `ip`.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub(crate) target_type: String,
}

/// A target as it is registered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    pub(crate) target_id: String,
    /// `vm`, `container` or `ip`.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub(crate) target_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) instance_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ip_address: String,
    /// 0: the backend's.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) port: u16,
    #[serde(default = "usual_weight")]
    pub(crate) weight: u32,
}

fn usual_weight() -> u32 {
    10
}

/// A target to register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance_id: Option<String>,
    #[serde(rename = "type")]
    pub(crate) target_type: &'static str,
    pub(crate) port: u16,
    pub(crate) weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ip_address: Option<String>,
}

/// A target's weight to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetUpdate {
    pub(crate) target_id: String,
    pub(crate) weight: u32,
}

/// What a backend's health check says of a target.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetHealth {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) target_group_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) instance_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ip_address: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) port: u16,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) status: String,
    pub(crate) unhealth_reason: Option<UnhealthReason>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct UnhealthReason {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) reason: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) detail: String,
}

/// Reads `null` as what is not there.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A target group to make.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewGroup<'a> {
    pub(crate) target_group_name: &'a str,
    pub(crate) load_balancer_id: &'a str,
    pub(crate) description: &'a str,
    #[serde(rename = "type")]
    pub(crate) target_type: &'a str,
}

/// The largest page of a list.
const PAGE: usize = 100;
/// No list of the API is longer: an account has a few hundred target groups at most.
const MOST_PAGES: usize = 100;

impl<'a> Lb<'a> {
    pub(crate) fn new(wire: &'a dyn Wire, endpoint: &'a str, region: &'a str) -> Self {
        Self {
            wire,
            endpoint,
            region,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.wire.now_ms()
    }

    pub(crate) fn backend(&self, id: &str) -> Result<Backend, Failure> {
        #[derive(Deserialize)]
        struct Found {
            backend: Backend,
        }
        let what = format!("read backend `{id}`");
        let found: Found = self.get(&what, &format!("backends/{id}"), &[])?;
        Ok(found.backend)
    }

    /// Replaces the target group of a backend.
    pub(crate) fn attach(&self, backend: &str, group: &str) -> Result<(), Failure> {
        let body = serde_json::json!({ "targetGroupIds": [group] });
        let what = format!("give backend `{backend}` target group `{group}`");
        let Nothing {} = self.change(&what, "PATCH", &format!("backends/{backend}"), &body)?;
        Ok(())
    }

    pub(crate) fn health(&self, backend: &str) -> Result<Vec<TargetHealth>, Failure> {
        let what = format!("read the health of backend `{backend}`");
        let path = format!("backends/{backend}/health");
        self.pages(&what, &path, &[], "targetHealths")
    }

    pub(crate) fn group(&self, id: &str) -> Result<TargetGroup, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            target_group: TargetGroup,
        }
        let what = format!("read target group `{id}`");
        let found: Found = self.get(&what, &format!("targetGroups/{id}"), &[])?;
        Ok(found.target_group)
    }

    /// The target groups of a load balancer.
    pub(crate) fn groups(
        &self,
        load_balancer: &str,
        kind: Kind,
    ) -> Result<Vec<TargetGroup>, Failure> {
        let filters = [
            ("filters.1.name", "loadBalancerId"),
            ("filters.1.values.1", load_balancer),
            ("filters.2.name", "loadBalancerType"),
            ("filters.2.values.1", kind.name()),
        ];
        let what = format!("list the target groups of `{load_balancer}`");
        self.pages(&what, "targetGroups/", &filters, "targetGroups")
    }

    pub(crate) fn create_group(&self, group: &NewGroup<'_>) -> Result<String, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Made {
            target_group_id: String,
        }
        let what = format!("make target group `{}`", group.target_group_name);
        let made: Made = self.change(&what, "POST", "targetGroups/", group)?;
        Ok(made.target_group_id)
    }

    pub(crate) fn targets(&self, group: &str) -> Result<Vec<Target>, Failure> {
        let what = format!("list the targets of `{group}`");
        let path = format!("targetGroups/{group}:describeTargets");
        self.pages(&what, &path, &[], "targets")
    }

    pub(crate) fn register(&self, group: &str, targets: &[TargetSpec]) -> Result<(), Failure> {
        let body = serde_json::json!({ "targetSpecs": targets });
        let targets = listed(targets.iter().map(place));
        let what = format!("register {targets} in `{group}`");
        self.act_on_group(&what, group, "registerTargets", &body)
    }

    /// Takes targets out of a group: all of them or none.
    pub(crate) fn deregister(&self, group: &str, target_ids: &[String]) -> Result<(), Failure> {
        let body = serde_json::json!({ "targetIds": target_ids });
        let targets = listed(target_ids.iter().cloned());
        let what = format!("deregister {targets} from `{group}`");
        self.act_on_group(&what, group, "deregisterTargets", &body)
    }

    pub(crate) fn update(&self, group: &str, updates: &[TargetUpdate]) -> Result<(), Failure> {
        let body = serde_json::json!({ "targetUpdateSpecs": updates });
        let weights = updates
            .iter()
            .map(|update| format!("{}={}", update.target_id, update.weight));
        let what = format!("change weights in `{group}`: {}", listed(weights));
        self.act_on_group(&what, group, "updateTargets", &body)
    }

    fn act_on_group(
        &self,
        what: &str,
        group: &str,
        action: &str,
        body: &impl Serialize,
    ) -> Result<(), Failure> {
        let path = format!("targetGroups/{group}:{action}");
        let Nothing {} = self.change(what, "POST", &path, body)?;
        Ok(())
    }

    /// All pages of a list.
    fn pages<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        filters: &[(&str, &str)],
        key: &str,
    ) -> Result<Vec<T>, Failure> {
        let mut all = Vec::new();
        let size = PAGE.to_string();
        for page in 1..=MOST_PAGES {
            let page = page.to_string();
            let paging = [("pageNumber", page.as_str()), ("pageSize", size.as_str())];
            let query: Vec<_> = filters.iter().copied().chain(paging).collect();
            let mut answer: serde_json::Map<String, serde_json::Value> =
                self.get(what, path, &query)?;
            let total = answer.get("totalCount").and_then(serde_json::Value::as_u64);
            let list = answer.remove(key).unwrap_or_default();
            let list: Option<Vec<T>> = serde_json::from_value(list).map_err(|error| {
                let message =
                    format!("{what}: the answer is not what JD Cloud documents ({error})");
                Failure::permanent("jd.answer", message)
            })?;
            let list = list.unwrap_or_default();
            let found = list.len();
            all.extend(list);
            let is_last = match total {
                Some(total) => u64::try_from(all.len()).unwrap_or(u64::MAX) >= total,
                None => found < PAGE,
            };
            if is_last || found == 0 {
                return Ok(all);
            }
        }
        Err(Failure::permanent(
            "jd.answer",
            format!("{what}: the list has no end"),
        ))
    }

    fn get<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let mut url = self.url(path);
        for (index, (key, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(&format!("{key}={}", percent_encode(value)));
        }
        self.send(what, Effect::Read, Request::get(url))
    }

    fn change<T: DeserializeOwned>(
        &self,
        what: &str,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| {
            Failure::permanent("jd.request", format!("{what}: write the body: {error}"))
        })?;
        let request = Request::new(method, self.url(path)).body(body);
        self.send(what, Effect::Write, request)
    }

    fn send<T: DeserializeOwned>(
        &self,
        what: &str,
        effect: Effect,
        request: Request,
    ) -> Result<T, Failure> {
        let request = request
            .header("content-type", "application/json")
            .header("accept", "application/json");
        let response = self
            .wire
            .send(request)
            .map_err(|failure| failure.about(what))?;
        answer::read(what, effect, &response, self.wire.now_ms())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/regions/{}/{path}", self.endpoint, self.region)
    }
}

/// A target as messages name it.
fn place(target: &TargetSpec) -> String {
    let host = target.instance_id.as_ref().or(target.ip_address.as_ref());
    format!("{}:{}", host.map_or("", String::as_str), target.port)
}

fn listed(items: impl Iterator<Item = String>) -> String {
    items
        .map(|item| format!("`{item}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

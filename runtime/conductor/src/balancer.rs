//! Blocking and allowing traffic through a load-balancer plugin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Action;
use engine::split::Means;
use engine::traffic::{Answer, Call, Class, Goal, Next, Operation, Phase};
use model::{Cause, Deployment, Ending, Instance, PluginName, Sides, Strategy, Timestamp};
use plugin_host::load_balancer::{self, Member, Outcome, Pool};
use plugin_host::{Attribute, CallError, FailureClass, OpContext, Plugin};
use sha2::{Digest as _, Sha256};

use crate::authority::Authority;
use crate::drive::now;
use crate::perform::failed;
use crate::plan::chain;
use crate::pool::overlaid;
use crate::router::means;
use crate::{Conductor, Observer, Place};

/// The balancer of a group, as a plugin reaches it.
pub(crate) struct Balancer<'a> {
    pub(crate) plugin: &'a PluginName,
    pub(crate) config: &'a str,
    pub(crate) timeout: Duration,
}

/// Brings one instance to the goal, however long the balancer takes within its timeout. Where the deployment has sides,
/// an instance leaves the groups of all of them, and joins that of the side which the deployment goes to.
pub(crate) async fn reach(
    conductor: &Conductor,
    authority: &Authority,
    balancer: Balancer<'_>,
    action: &Action,
    goal: Goal,
    observer: &dyn Observer,
) -> Ending {
    let plugin = match conductor.plugins.get(balancer.plugin).await {
        Ok(plugin) => plugin,
        Err(error) => return failed(Cause::BalancerFailed, chain(&error)),
    };
    let mut member = match member_of(&action.target.instance) {
        Ok(member) => member,
        Err(reason) => return failed(Cause::Invalid, reason),
    };
    if joins_aside(&action.deployment) {
        member.attributes.push(Attribute {
            key: "joins-aside".to_owned(),
            value: "true".to_owned(),
        });
    }
    let began = now();
    let mut notes = Vec::new();
    for config in configurations(balancer.config, action.deployment.sides.as_ref(), goal) {
        let left = balancer.timeout.saturating_sub(now().since(began));
        let exchange = Exchange {
            plugin: &plugin,
            turn: conductor.turns.of(balancer.plugin, balancer.config),
            config: &config,
            member: &member,
            goal,
            authority,
            action,
        };
        match exchange.carry_out(left, observer).await {
            Ok(note) => notes.push(note),
            Err(reason) => {
                let reason = format!("{} with plugin `{}`: {reason}", verb(goal), balancer.plugin);
                return failed(Cause::BalancerFailed, reason);
            }
        }
    }
    // Where one group needed a change, the change was made.
    let note = notes.iter().all(Option::is_some);
    Ending::Succeeded {
        exit_code: None,
        log: None,
        note: notes.into_iter().next_back().flatten().filter(|_| note),
    }
}

/// Whether an instance that joins gets its share by a switch that follows: in a canary that is split by weights.
fn joins_aside(deployment: &Deployment) -> bool {
    let sides = deployment.sides.as_ref().map(|sides| &sides.list);
    matches!(deployment.strategy, Strategy::Canary { .. })
        && deployment.router.is_some()
        && sides.is_some_and(|sides| means(sides) == Means::Weights)
}

/// The configurations that name the groups which an instance has to leave or to join.
fn configurations(config: &str, sides: Option<&Sides>, goal: Goal) -> Vec<String> {
    let Some(sides) = sides else {
        return vec![config.to_owned()];
    };
    let mut configurations: Vec<String> = Vec::new();
    for side in &sides.list {
        let config = overlaid(config, &side.group);
        let is_meant = match goal {
            Goal::Blocked => true,
            Goal::Allowed => side.name == sides.to,
        };
        if is_meant && !configurations.contains(&config) {
            configurations.push(config);
        }
    }
    configurations
}

/// How much later than its operation the last call may end: one that begins at the very end is still to be answered.
const GRACE_MS: i64 = 2000;

/// The end of the calls of an operation that ends at this time.
pub(crate) fn with_grace(deadline: Timestamp) -> Timestamp {
    Timestamp(deadline.0.saturating_add(GRACE_MS))
}

/// The most characters of a plugin's own output that a message quotes.
const LONGEST_QUOTE: usize = 200;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// Whose turn it is to change a pool: one lock for each plugin and configuration. The groups of all sides share that of the
/// configuration which they are laid over: to a balancer they may be one file, or have one version in common.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    locks: Mutex<HashMap<(PluginName, String), Turn>>,
}

impl Turns {
    pub(crate) fn of(&self, plugin: &PluginName, config: &str) -> Turn {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks
            .entry((plugin.clone(), config.to_owned()))
            .or_default()
            .clone()
    }
}

fn verb(goal: Goal) -> &'static str {
    match goal {
        Goal::Blocked => "take the instance out of the balancer",
        Goal::Allowed => "put the instance into the balancer",
    }
}

pub(crate) fn member_of(instance: &Instance) -> Result<Member, String> {
    let (address, port) = match &instance.address {
        None => (String::new(), 0),
        Some(text) => {
            let (host, port) = text
                .rsplit_once(':')
                .ok_or_else(|| format!("address `{text}` is not host:port"))?;
            let port = port
                .parse()
                .map_err(|_| format!("`{port}` in address `{text}` is not a port"))?;
            (
                host.trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned(),
                port,
            )
        }
    };
    Ok(Member {
        target_id: instance.id.to_string(),
        provider_id: instance.provider_id.clone(),
        address,
        port,
        weight: None,
        zone: instance
            .labels
            .iter()
            .find_map(|label| label.strip_prefix("zone="))
            .map(str::to_owned),
        attributes: Vec::new(),
    })
}

/// The pool that the plugin's configuration names, with the address and the provider's name of each member that it may be
/// asked about: `status` is given names alone.
pub(crate) fn pool_of(members: &[Member]) -> Pool {
    let attributes = members.iter().flat_map(|member| {
        let attribute = |what: &str, value: String| Attribute {
            key: format!("{what}.{}", member.target_id),
            value,
        };
        let address = Some(member).filter(|member| member.port != 0);
        let address = address.map(|it| attribute("address", format!("{}:{}", it.address, it.port)));
        let provider_id = member.provider_id.clone();
        let provider_id = provider_id.map(|id| attribute("provider-id", id));
        address.into_iter().chain(provider_id)
    });
    Pool {
        id: String::new(),
        attributes: attributes.collect(),
    }
}

/// The calls of one operation.
struct Exchange<'a> {
    plugin: &'a Plugin,
    turn: Turn,
    config: &'a str,
    member: &'a Member,
    goal: Goal,
    authority: &'a Authority,
    action: &'a Action,
}

impl Exchange<'_> {
    /// Calls until the goal is reached, and answers with what is worth telling, or with why it is not reached.
    async fn carry_out(
        &self,
        timeout: Duration,
        observer: &dyn Observer,
    ) -> Result<Option<String>, String> {
        let mut operation = Operation::new(self.goal, now(), timeout);
        let mut call = Call::Change;
        loop {
            let answer = {
                // A plugin may read, change and write back: two changes of one pool at a time could lose one of them.
                let _turn = match call {
                    Call::Change | Call::Poll { .. } => {
                        let turn = self.turn.lock().await;
                        self.authority.confirm().await;
                        Some(turn)
                    }
                    Call::Read => None,
                };
                self.call(&call, with_grace(operation.deadline())).await
            };
            match operation.answer(now(), &call, answer) {
                Next::Done { note } => return Ok(note),
                Next::Failed { reason } => return Err(reason),
                Next::Call { after, call: next } => {
                    if !after.is_zero() {
                        let place = Place {
                            deployment: self.action.deployment.id.clone(),
                            instance: self.action.target.instance.id.clone(),
                        };
                        observer.waiting(&place, self.action.event, &operation.waiting_for());
                        tokio::time::sleep(after).await;
                    }
                    call = next;
                }
            }
        }
    }

    fn context(&self, deadline: Timestamp) -> OpContext {
        let step = format!(
            "{}.{}.{}",
            self.action.deployment.id, self.member.target_id, self.action.event
        );
        OpContext {
            run_id: self.authority.release().to_string(),
            idempotency_key: idempotency_key(&[
                self.authority.release().as_str(),
                &step,
                &self.member.target_id,
                self.config,
                verb(self.goal),
            ]),
            step_id: step,
            attempt: self.action.attempt,
            deadline: Some(deadline),
            dry_run: false,
            ..OpContext::default()
        }
    }

    async fn call(&self, call: &Call, deadline: Timestamp) -> Answer {
        let context = self.context(deadline);
        let pool = pool_of(std::slice::from_ref(self.member));
        match call {
            Call::Change => {
                let members = [self.member.clone()];
                let results = match self.goal {
                    Goal::Blocked => {
                        self.plugin
                            .deregister(&context, self.config, &pool, &members)
                            .await
                    }
                    Goal::Allowed => {
                        self.plugin
                            .register(&context, self.config, &pool, &members)
                            .await
                    }
                };
                match results {
                    Ok(mut results) => match results.pop() {
                        Some(result) => answer_of(result.outcome.map_err(CallError::from)),
                        None => permanent("the plugin answered for no member".to_owned()),
                    },
                    Err(error) => answer_of(Err(error)),
                }
            }
            Call::Poll { token } => answer_of(self.plugin.poll(&context, self.config, token).await),
            Call::Read => {
                let asked = [self.member.target_id.clone()];
                match self
                    .plugin
                    .status(&context, self.config, &pool, &asked)
                    .await
                {
                    Ok(mut statuses) => match statuses.pop() {
                        Some(status) => Answer::Member {
                            phase: phase_of(status.phase),
                            connections: status.open_connections,
                            reason: status.reason,
                        },
                        None => permanent("the plugin told no status of the member".to_owned()),
                    },
                    Err(error) => answer_of(Err(error)),
                }
            }
        }
    }
}

fn permanent(message: String) -> Answer {
    Answer::Failure {
        class: Class::Permanent,
        message,
        hint: None,
        retry_after: None,
    }
}

fn answer_of(result: Result<Outcome, CallError>) -> Answer {
    match result {
        Ok(Outcome::Unchanged) => Answer::Unchanged,
        Ok(Outcome::Changed { .. }) => Answer::Changed,
        Ok(Outcome::Pending(pending)) => Answer::Pending {
            token: pending.token,
            after: pending.poll_after,
            message: pending.message,
        },
        Err(error) => {
            let Failed {
                class,
                message,
                hint,
                retry_after,
            } = Failed::of(&error);
            Answer::Failure {
                class,
                message,
                hint,
                retry_after,
            }
        }
    }
}

/// A call that failed, as far as it matters to what comes next.
pub(crate) struct Failed {
    pub(crate) class: Class,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Failed {
    pub(crate) fn of(error: &CallError) -> Self {
        let Some(failure) = error.failure() else {
            return Self {
                class: Class::Permanent,
                message: chain(error),
                hint: None,
                retry_after: None,
            };
        };
        let class = match failure.class {
            FailureClass::Transient => Class::Transient,
            FailureClass::Throttled => Class::Throttled,
            FailureClass::UnknownOutcome => Class::UnknownOutcome,
            FailureClass::Conflict => Class::Conflict,
            FailureClass::NotFound
            | FailureClass::Denied
            | FailureClass::Invalid
            | FailureClass::Unsupported
            | FailureClass::Cancelled
            | FailureClass::Permanent => Class::Permanent,
        };
        let said = failure.output.as_deref().and_then(last_line);
        let message = match said {
            Some(said) => format!("{}; the last thing it said: {said}", chain(error)),
            None => chain(error),
        };
        Self {
            class,
            message,
            hint: failure.hint.clone(),
            retry_after: failure.retry_after,
        }
    }
}

/// The key of an operation: the same for the same parts, ever.
pub(crate) fn idempotency_key(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The last line that is not empty, cut to a length that a message bears.
fn last_line(output: &str) -> Option<&str> {
    let line = output
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())?;
    let end = line
        .char_indices()
        .nth(LONGEST_QUOTE)
        .map_or(line.len(), |(end, _)| end);
    Some(&line[..end])
}

fn phase_of(phase: load_balancer::Phase) -> Phase {
    match phase {
        load_balancer::Phase::Absent => Phase::Absent,
        load_balancer::Phase::Registering => Phase::Registering,
        load_balancer::Phase::InService => Phase::InService,
        load_balancer::Phase::OutOfService => Phase::OutOfService,
        load_balancer::Phase::Draining => Phase::Draining,
        load_balancer::Phase::Unknown => Phase::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{Shares, SideGroup, SideName};

    use super::*;

    /// The groups that an instance leaves and the one that it joins.
    fn check(groups: &[(&str, &str)], to: &str, leaves: &[&str], joins: &[&str]) {
        let list = groups.iter().map(|(name, group)| SideGroup {
            name: SideName::parse(name).unwrap(),
            group: (*group).to_owned(),
            instances: Vec::new(),
        });
        let sides = Sides {
            list: list.collect(),
            from: None,
            to: SideName::parse(to).unwrap(),
            shares: Shares::default(),
            installed: BTreeMap::new(),
        };
        let of = |goal| configurations(r#"{"socket":"s"}"#, Some(&sides), goal);

        assert_eq!(of(Goal::Blocked), leaves);
        assert_eq!(of(Goal::Allowed), joins);
    }

    #[test]
    fn an_instance_leaves_every_group_and_joins_that_of_its_side() {
        let (a, b) = (
            r#"{"backend":"a","socket":"s"}"#,
            r#"{"backend":"b","socket":"s"}"#,
        );
        let groups = [
            ("current", r#"{"backend":"a"}"#),
            ("new", r#"{"backend":"b"}"#),
        ];
        check(&groups, "new", &[a, b], &[b]);
        check(&groups, "current", &[a, b], &[a]);
    }

    #[test]
    fn a_pool_tells_addresses_and_what_the_provider_calls_its_members() {
        let instance = |id: &str, address: Option<&str>, provider_id: Option<&str>| Instance {
            id: id.parse().unwrap(),
            host: model::Host::Local,
            rootdir: "/srv".to_owned(),
            address: address.map(str::to_owned),
            provider_id: provider_id.map(str::to_owned),
            labels: Vec::new(),
            env: BTreeMap::new(),
        };
        let members = [
            instance("web-1", Some("10.0.0.1:80"), Some("i-1")),
            instance("web-2", Some("10.0.0.2:80"), None),
            instance("web-3", None, Some("i-3")),
        ]
        .map(|instance| member_of(&instance).unwrap());

        let pool = pool_of(&members);

        let attributes = pool.attributes.iter().map(|it| (&*it.key, &*it.value));
        assert_eq!(
            attributes.collect::<Vec<_>>(),
            [
                ("address.web-1", "10.0.0.1:80"),
                ("provider-id.web-1", "i-1"),
                ("address.web-2", "10.0.0.2:80"),
                ("provider-id.web-3", "i-3"),
            ]
        );
        assert_eq!(members[0].provider_id.as_deref(), Some("i-1"));
    }

    #[test]
    fn an_instance_leaves_the_one_group_of_all_sides_once() {
        let one = r#"{"socket":"s"}"#;
        check(&[("current", "{}"), ("new", "{}")], "new", &[one], &[one]);
        assert_eq!(configurations(one, None, Goal::Blocked), [one]);
    }
}

//! A target group as a pool: its targets come, drain and go.

use std::time::Duration;

use cutover_plugin_sdk::{
    Failure, HOST_STAMPS, Member, MemberResult, MemberStatus, Outcome, Pending, Phase, PoolLimits,
    PoolRef, per_member,
};
use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::arn;
use crate::config::Config;
use crate::health::{Registered, registered};
use crate::query::Query;
use crate::target::{Instance, Target};
use crate::xml::Element;

/// How many targets one call names. AWS states no limit; these make a small request.
const MOST_TARGETS: u32 = 100;
/// How soon what was not to be seen yet is looked for again.
const SOON: Duration = Duration::from_millis(500);

/// The targets of one target group.
pub(crate) struct Group<'a> {
    pub(crate) api: &'a dyn Api,
    pub(crate) config: &'a Config,
    pub(crate) arn: &'a str,
}

/// What is waited for after a deregistration.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    target_group: String,
    id: String,
    port: u16,
}

impl Group<'_> {
    /// Registers those that are not registered, or that are on their way out.
    pub(crate) fn register(
        &self,
        members: &[Member],
        is_rehearsed: bool,
    ) -> Result<Vec<MemberResult>, Failure> {
        let found = self.targets()?;
        let wanted = |member: &Member| -> Result<Option<Target>, Failure> {
            if member.weight.is_some() {
                return Err(Failure::unsupported(
                    "aws.weight",
                    "targets of AWS have no weights; target groups have",
                ));
            }
            let target = Instance::of_member(member).target(self.config)?;
            let is_there = self
                .present(&found, &target)?
                .is_some_and(|registered| !matches!(registered.phase, Phase::Draining));
            Ok((!is_there).then_some(target))
        };
        self.change("RegisterTargets", members, wanted, is_rehearsed, |_| {
            Ok(Outcome::changed())
        })
    }

    /// Deregisters those that are registered, which lets them drain. It counts once the target group has been seen to know of it.
    pub(crate) fn deregister(
        &self,
        members: &[Member],
        is_rehearsed: bool,
    ) -> Result<Vec<MemberResult>, Failure> {
        let found = self.targets()?;
        let wanted = |member: &Member| -> Result<Option<Target>, Failure> {
            let target = Instance::of_member(member).target(self.config)?;
            let is_there = self.present(&found, &target)?.is_some_and(is_staying);
            Ok(is_there.then_some(target))
        };
        // What the change has been is known: a read that fails is made again by `poll`.
        let mut after = None;
        self.change(
            "DeregisterTargets",
            members,
            wanted,
            is_rehearsed,
            |target| {
                let seen = after.get_or_insert_with(|| self.targets());
                match seen {
                    Ok(seen) if !seen.iter().any(|it| it.target == *target && is_staying(it)) => {
                        Ok(Outcome::changed())
                    }
                    _ => self.leaving(target),
                }
            },
        )
    }

    /// Makes one call for all that are wanted, and puts what becomes of each beside what failed before.
    fn change(
        &self,
        action: &'static str,
        members: &[Member],
        wanted: impl Fn(&Member) -> Result<Option<Target>, Failure>,
        is_rehearsed: bool,
        mut done: impl FnMut(&Target) -> Result<Outcome, Failure>,
    ) -> Result<Vec<MemberResult>, Failure> {
        let mut decided: Vec<_> = members.iter().map(wanted).collect();
        let targets: Vec<Target> = decided
            .iter()
            .filter_map(|target| target.as_ref().ok().cloned().flatten())
            .collect();
        let written = if targets.is_empty() || is_rehearsed {
            Ok(())
        } else {
            self.write(action, &targets)
        };
        let mut decided = decided.drain(..);
        let ids = members.iter().map(|member| member.target_id.as_str());
        Ok(per_member(ids, |_| {
            match decided.next().transpose()?.flatten() {
                None => Ok(Outcome::Unchanged),
                Some(_) if is_rehearsed => Ok(Outcome::changed()),
                Some(target) => {
                    written.clone()?;
                    done(&target)
                }
            }
        }))
    }

    fn write(&self, action: &'static str, targets: &[Target]) -> Result<(), Failure> {
        let mut query = Query::changing(action).with("TargetGroupArn", self.arn);
        for (target, number) in targets.iter().zip(1..) {
            let name = |part: &str| format!("Targets.member.{number}.{part}");
            query = query
                .with(name("Id"), &target.id)
                .with(name("Port"), target.port.to_string());
            let zone = self.config.availability_zone.as_ref();
            if let Some(zone) = zone.filter(|_| action == "RegisterTargets") {
                query = query.with(name("AvailabilityZone"), zone);
            }
        }
        self.api.call(&query).map(|_| ())
    }

    /// Tells how targets are. No names means all targets.
    pub(crate) fn status(
        &self,
        pool: &PoolRef,
        names: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        let found = self.targets()?;
        let status = |target_id: String, phase: Phase, reason: Option<String>| MemberStatus {
            target_id,
            phase,
            open_connections: None,
            reason,
            observed_at: HOST_STAMPS,
        };
        if names.is_empty() {
            let all = found.into_iter();
            return Ok(all
                .map(|it| status(it.target.to_string(), it.phase, it.reason))
                .collect());
        }
        names
            .iter()
            .map(|name| {
                let target = Instance::asked(pool, name).target(self.config)?;
                Ok(match found.iter().find(|it| it.target == target) {
                    Some(it) if it.phase == Phase::Unknown => {
                        // That AWS cannot tell at the moment is no word on the target.
                        let message = format!(
                            "target group `{}` does not tell how `{target}` is: {}",
                            arn::name(self.arn),
                            it.reason.as_deref().unwrap_or_default()
                        );
                        return Err(Failure::transient("aws.unavailable", message));
                    }
                    Some(it) => status(name.clone(), it.phase, it.reason.clone()),
                    None => {
                        let others = self.on_other_ports(&found, &target);
                        status(name.clone(), Phase::Absent, others.map(|it| it.message))
                    }
                })
            })
            .collect()
    }

    /// Refuses what could not be released: a target group that gets no traffic or has targets of another kind, and
    /// instances that are registered otherwise. Reads only.
    pub(crate) fn examine(&self, pool: &PoolRef, names: &[String]) -> Result<(), Failure> {
        let found = self.targets()?;
        let description = self.describe()?;
        if description.balancers.is_empty() {
            let message = format!(
                "target group `{}` is attached to no load balancer, so its targets are never healthy",
                arn::name(self.arn)
            );
            return Err(Failure::invalid("aws.not-attached", message).hint(
                "let a listener or a rule forward to it; weight 0 is enough where another group has the traffic",
            ));
        }
        for name in names {
            let instance = Instance::asked(pool, name);
            let target = instance.target(self.config)?;
            description.takes(&instance, &target)?;
            self.present(&found, &target)?;
        }
        Ok(())
    }

    /// Goes on with a deregistration.
    pub(crate) fn poll(api: &dyn Api, config: &Config, token: &str) -> Result<Outcome, Failure> {
        let token: Token = serde_json::from_str(token)
            .map_err(|_| Failure::invalid("aws.token", "the token is none of this plugin's"))?;
        let target = Target {
            id: token.id,
            port: token.port,
        };
        let group = Group {
            api,
            config,
            arn: &token.target_group,
        };
        let found = group.targets()?;
        if found.iter().any(|it| it.target == target && is_staying(it)) {
            return group.leaving(&target);
        }
        Ok(Outcome::changed())
    }

    fn leaving(&self, target: &Target) -> Result<Outcome, Failure> {
        let token = Token {
            target_group: self.arn.to_owned(),
            id: target.id.clone(),
            port: target.port,
        };
        let token = serde_json::to_string(&token)
            .map_err(|error| Failure::permanent("aws.token", error.to_string()))?;
        let message = format!(
            "`{target}` is deregistered, and target group `{}` does not tell yet",
            arn::name(self.arn)
        );
        Ok(Outcome::Pending(Pending::new(token, SOON, message)))
    }

    /// What the target group bears.
    pub(crate) fn limits(&self) -> Result<PoolLimits, Failure> {
        let query =
            Query::reading("DescribeTargetGroupAttributes").with("TargetGroupArn", self.arn);
        let document = self.api.call(&query)?;
        let mut attributes =
            document.members(&["DescribeTargetGroupAttributesResult", "Attributes"]);
        let delay = attributes
            .find(|it| it.text_at(&["Key"]) == Some("deregistration_delay.timeout_seconds"))
            .and_then(|it| it.text_at(&["Value"])?.parse::<u64>().ok());
        Ok(PoolLimits {
            max_members_per_call: MOST_TARGETS,
            max_calls_per_second: None,
            deregistration_delay: delay.map(|seconds| seconds.saturating_mul(1000)),
        })
    }

    fn targets(&self) -> Result<Vec<Registered>, Failure> {
        // All of them: of targets that are named, one that is gone would fail the call.
        let query = Query::reading("DescribeTargetHealth").with("TargetGroupArn", self.arn);
        Ok(registered(&self.api.call(&query)?))
    }

    pub(crate) fn describe(&self) -> Result<Description, Failure> {
        let query =
            Query::reading("DescribeTargetGroups").with("TargetGroupArns.member.1", self.arn);
        let document = self.api.call(&query)?;
        let mut groups = document.members(&["DescribeTargetGroupsResult", "TargetGroups"]);
        groups
            .next()
            .and_then(|group| Description::of(self.arn, group))
            .ok_or_else(|| {
                let message = format!("there is no target group `{}`", self.arn);
                Failure::not_found("aws.TargetGroupNotFound", message)
                    .hint("check `target_group` and `region`")
            })
    }

    /// How a target is registered; a failure where its machine is, otherwise than it should be.
    fn present<'f>(
        &self,
        found: &'f [Registered],
        target: &Target,
    ) -> Result<Option<&'f Registered>, Failure> {
        match found.iter().find(|it| it.target == *target) {
            Some(registered) => Ok(Some(registered)),
            None => self.on_other_ports(found, target).map_or(Ok(None), Err),
        }
    }

    /// Why the machine of a target that is not registered gets traffic all the same.
    fn on_other_ports(&self, found: &[Registered], target: &Target) -> Option<Failure> {
        if self.config.several_per_host {
            return None;
        }
        let mut others = found.iter().filter(|it| it.target.id == target.id);
        let Registered { target: other, .. } = others.find(|it| is_staying(it))?;
        let message = format!(
            "`{}` is registered in target group `{}` with port {}, not with port {}",
            target.id,
            arn::name(self.arn),
            other.port,
            target.port
        );
        Some(Failure::permanent("aws.other-port", message).hint(format!(
            "see who registered `{other}`, and deregister it or correct the instance's address; where one machine has several \
             instances, add `several_per_host: true` to the config"
        )))
    }
}

/// Whether a target is registered and not on its way out.
fn is_staying(registered: &Registered) -> bool {
    registered.phase != Phase::Draining
}

/// What a target group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    name: String,
    target_type: String,
    pub(crate) balancers: Vec<String>,
}

impl Description {
    fn of(arn: &str, group: &Element) -> Option<Self> {
        (group.text_at(&["TargetGroupArn"]) == Some(arn)).then(|| Self {
            name: arn::name(arn).to_owned(),
            target_type: group
                .text_at(&["TargetType"])
                .unwrap_or("instance")
                .to_owned(),
            balancers: group
                .members(&["LoadBalancerArns"])
                .map(|arn| arn.text.trim().to_owned())
                .collect(),
        })
    }

    /// Refuses a target of another kind than the group's.
    pub(crate) fn takes(&self, instance: &Instance<'_>, target: &Target) -> Result<(), Failure> {
        let Self { name, .. } = self;
        let is_address = target.id.parse::<std::net::IpAddr>().is_ok();
        let hint = match (self.target_type.as_str(), is_address) {
            ("ip", true) | ("instance" | "alb", false) => return Ok(()),
            ("ip", false) => format!(
                "write the IP address as the `provider_id` of `{}`, or leave that out and write it in `address`",
                instance.name
            ),
            ("instance", true) => format!("add `provider_id: i-…` to `{}`", instance.name),
            ("alb", true) => format!("add the ARN as `provider_id` to `{}`", instance.name),
            (other, _) => {
                let message = format!(
                    "target group `{name}` has targets of type `{other}`, on which nothing is installed"
                );
                return Err(Failure::unsupported("aws.target-type", message));
            }
        };
        let message = format!(
            "target group `{name}` has targets of type `{}`, and `{}` is none",
            self.target_type, target.id
        );
        Err(Failure::invalid("aws.target-type", message).hint(hint))
    }
}

#[cfg(test)]
mod tests;

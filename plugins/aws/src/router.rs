//! The traffic between sides: the weights of their target groups in the actions of a listener or a rule.

use std::time::Duration;

use cutover_plugin_sdk::{
    Diagnostic, Failure, FailureClass, HOST_STAMPS, Outcome, Pending, Share, Side, Split,
    percent_of, percents,
};
use serde::{Deserialize, Serialize};

use crate::actions::{Actions, Weights, line, told};
use crate::api::Api;
use crate::arn;
use crate::config::{Config, Place};
use crate::group::Group;
use crate::query::Query;
use crate::target::Instance;

/// How soon what was not to be seen yet is looked for again.
const SOON: Duration = Duration::from_millis(500);

/// The sides of one call, with their target groups.
pub(crate) struct Router<'a> {
    api: &'a dyn Api,
    config: &'a Config,
    place: Place<'a>,
    sides: &'a [Side],
    groups: Vec<String>,
}

/// What is waited for after a change, as lines of weights.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    before: String,
    wanted: String,
}

impl<'a> Router<'a> {
    pub(crate) fn new(
        api: &'a dyn Api,
        config: &'a Config,
        sides: &'a [Side],
    ) -> Result<Self, Failure> {
        let groups: Vec<String> = sides
            .iter()
            .map(|side| config.target_group_of(side))
            .collect::<Result<_, _>>()?;
        for (number, group) in groups.iter().enumerate() {
            if let Some(first) = groups[..number].iter().position(|other| other == group) {
                let message = format!(
                    "sides `{}` and `{}` have one target group, `{}`, and AWS has no weights for targets",
                    sides[first].name,
                    sides[number].name,
                    arn::name(group)
                );
                return Err(Failure::unsupported("aws.one-group", message).hint(
                    "give each side a target group of its own: `group: {target_group: ARN}`",
                ));
            }
        }
        Ok(Self {
            api,
            config,
            place: config.place()?,
            sides,
            groups,
        })
    }

    /// Tells how traffic is split.
    pub(crate) fn get(&self) -> Result<Split, Failure> {
        let weights = read(self.api, self.place)?.weights().clone();
        let foreign: Weights = weights
            .iter()
            .filter(|(group, weight)| !self.groups.contains(group) && **weight > 0)
            .map(|(group, weight)| (group.clone(), *weight))
            .collect();
        if !foreign.is_empty() {
            let message = format!(
                "{} gives traffic to target groups of no side: `{}`",
                self.place.words(),
                told(&foreign)
            );
            return Err(Failure::conflict("aws.foreign-group", message).hint(
                "see who added them; remove them from the forward action, or give them weight 0",
            ));
        }
        let amounts: Vec<u64> = self
            .groups
            .iter()
            .map(|group| u64::from(weights.get(group).copied().unwrap_or(0)))
            .collect();
        let shares = percents(&amounts).unwrap_or_default();
        let shares = self.sides.iter().zip(shares).map(|(side, percent)| Share {
            side: side.name.clone(),
            percent,
        });
        Ok(Split {
            shares: shares.collect(),
            differs: None,
            revision: Some(line(&weights)),
            settled: true,
            observed_at: HOST_STAMPS,
        })
    }

    /// Splits the traffic, unless somebody else has changed what was read.
    pub(crate) fn set(
        &self,
        expected: Option<&str>,
        shares: &[Share],
        is_rehearsed: bool,
    ) -> Result<Outcome, Failure> {
        let before = read(self.api, self.place)?;
        let sides = self.sides.iter().zip(&self.groups);
        let mut changed: Weights = sides
            .map(|(side, group)| (group.clone(), u32::from(percent_of(shares, &side.name))))
            .collect();
        if expected.is_none() {
            // Whatever is there is replaced.
            for group in before.weights().keys() {
                changed.entry(group.clone()).or_insert(0);
            }
        }
        let after = before.with_weights(&changed);
        let (found, wanted) = (line(before.weights()), line(after.weights()));
        if expected.is_some_and(|expected| ![expected, &wanted].contains(&found.as_str())) {
            let message = format!(
                "{} has the weights `{}`, and they were others when the change was planned",
                self.place.words(),
                told(before.weights())
            );
            return Err(Failure::conflict("aws.weights-changed", message)
                .hint("somebody else changed them: see who did, and plan anew"));
        }
        if found == wanted {
            return Ok(Outcome::Unchanged);
        }
        if is_rehearsed {
            return Ok(Outcome::changed());
        }
        self.api.call(&self.place.change(&after))?;
        let token = Token {
            before: found,
            wanted,
        };
        // What the change has been is known: a read that fails is made again by `poll`.
        match read(self.api, self.place) {
            Ok(actions) => token.reached(self.place, &actions),
            Err(_) => token.pending(self.place),
        }
    }

    /// Goes on with a change.
    pub(crate) fn poll(api: &dyn Api, config: &Config, token: &str) -> Result<Outcome, Failure> {
        let token: Token = serde_json::from_str(token)
            .map_err(|_| Failure::invalid("aws.token", "the token is none of this plugin's"))?;
        let place = config.place()?;
        token.reached(place, &read(api, place)?)
    }

    /// Finds what cannot work.
    pub(crate) fn check(&self) -> Result<Vec<Diagnostic>, Failure> {
        let mut findings = Vec::new();
        match read(self.api, self.place) {
            Ok(actions) => {
                if let Some(seconds) = actions.stickiness() {
                    let message = format!(
                        "{} keeps clients with their target group for {seconds} s: a share is that of clients that come anew, and who was \
                         there before a switch stays there for so long",
                        self.place.words()
                    );
                    findings.push(Diagnostic::warning("", &message));
                }
                if let Err(failure) = self.get() {
                    findings.push(found(failure, "")?);
                }
            }
            Err(failure) => findings.push(found(failure, "")?),
        }
        for (side, arn) in self.sides.iter().zip(&self.groups) {
            if let Err(failure) = self.check_side(side, arn) {
                findings.push(found(failure, &format!("/sides/{}", side.name))?);
            }
        }
        Ok(findings)
    }

    fn check_side(&self, side: &Side, arn: &str) -> Result<(), Failure> {
        let group = Group {
            api: self.api,
            config: self.config,
            arn,
        };
        let description = group.describe()?;
        if description.balancers.is_empty() {
            let message = format!(
                "target group `{}` is attached to no load balancer, so nothing tells whether its targets are healthy",
                arn::name(arn)
            );
            let hint = format!(
                "add it to the forward action of {} with weight 0",
                self.place.words()
            );
            return Err(Failure::invalid("aws.not-attached", message).hint(hint));
        }
        for member in &side.members {
            let instance = Instance::of_side(member);
            description.takes(&instance, &instance.target(self.config)?)?;
        }
        Ok(())
    }
}

impl Token {
    /// What a read says about the change.
    fn reached(&self, place: Place<'_>, actions: &Actions) -> Result<Outcome, Failure> {
        let found = line(actions.weights());
        if found == self.wanted {
            Ok(Outcome::changed())
        } else if found == self.before {
            self.pending(place)
        } else {
            let message = format!(
                "{} has the weights `{}` after a change to others",
                place.words(),
                told(actions.weights())
            );
            Err(Failure::conflict("aws.weights-changed", message)
                .hint("somebody else changed them: see who did, and plan anew"))
        }
    }

    fn pending(&self, place: Place<'_>) -> Result<Outcome, Failure> {
        let token = serde_json::to_string(self)
            .map_err(|error| Failure::permanent("aws.token", error.to_string()))?;
        let message = format!("{} is changed, and does not tell yet", place.words());
        Ok(Outcome::Pending(Pending::new(token, SOON, message)))
    }
}

impl Place<'_> {
    /// What it is called, for people.
    fn words(self) -> String {
        match self {
            Self::Listener(arn) | Self::Rule(arn) => format!("`{}`", arn::name(arn)),
        }
    }

    /// The call that replaces all actions.
    fn change(self, actions: &Actions) -> Query {
        match self {
            Self::Listener(arn) => actions.added_to(
                Query::changing("ModifyListener").with("ListenerArn", arn),
                "DefaultActions",
            ),
            Self::Rule(arn) => actions.added_to(
                Query::changing("ModifyRule").with("RuleArn", arn),
                "Actions",
            ),
        }
    }
}

fn read(api: &dyn Api, place: Place<'_>) -> Result<Actions, Failure> {
    let (query, list, actions, missing) = match place {
        Place::Listener(arn) => (
            Query::reading("DescribeListeners").with("ListenerArns.member.1", arn),
            ["DescribeListenersResult", "Listeners"],
            "DefaultActions",
            "aws.ListenerNotFound",
        ),
        Place::Rule(arn) => (
            Query::reading("DescribeRules").with("RuleArns.member.1", arn),
            ["DescribeRulesResult", "Rules"],
            "Actions",
            "aws.RuleNotFound",
        ),
    };
    let document = api.call(&query)?;
    let mut found = document.members(&list);
    let element = found.next().ok_or_else(|| {
        Failure::not_found(missing, format!("there is no {}", place.words()))
            .hint("check its ARN and `region`")
    })?;
    Actions::of(element.members(&[actions]), &place.words())
}

/// A failure as a finding.
pub(crate) fn finding(failure: Failure, path: &str) -> Diagnostic {
    let hint = failure.hint.map(|hint| format!("; {hint}"));
    Diagnostic::error(path, &(failure.message + &hint.unwrap_or_default()))
}

/// What is wrong becomes a finding; what may pass stays a failure.
fn found(failure: Failure, path: &str) -> Result<Diagnostic, Failure> {
    match failure.class {
        FailureClass::NotFound
        | FailureClass::Permanent
        | FailureClass::Invalid
        | FailureClass::Unsupported
        | FailureClass::Conflict => Ok(finding(failure, path)),
        FailureClass::Transient
        | FailureClass::Throttled
        | FailureClass::UnknownOutcome
        | FailureClass::Denied
        | FailureClass::Cancelled => Err(failure),
    }
}

#[cfg(test)]
mod tests;

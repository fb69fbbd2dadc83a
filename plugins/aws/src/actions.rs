//! The actions of a listener or a rule: one of them forwards to target groups by weights, and all are replaced together.

use std::collections::BTreeMap;

use cutover_plugin_sdk::Failure;

use crate::arn;
use crate::query::Query;
use crate::xml::{Element, MEMBER};

/// Weights by the ARNs of target groups.
pub(crate) type Weights = BTreeMap<String, u32>;

/// The largest weight that AWS takes.
#[cfg(test)]
const LARGEST: u32 = 999;

/// A list of actions as it was read, of which only the weights change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actions {
    list: Vec<Element>,
    /// The place in the list of the action that forwards.
    forward: usize,
    weights: Weights,
}

const FORWARD: &str = "ForwardConfig";
const GROUP: &str = "TargetGroupArn";
const OIDC: &str = "AuthenticateOidcConfig";

impl Actions {
    /// Takes the members of a list of actions; `place` is who has them, for messages.
    pub(crate) fn of<'a>(
        list: impl Iterator<Item = &'a Element>,
        place: &str,
    ) -> Result<Self, Failure> {
        let list: Vec<Element> = list.cloned().collect();
        let is_forward = |action: &Element| action.text_at(&["Type"]) == Some("forward");
        let Some(forward) = list.iter().position(is_forward) else {
            let types = list.iter().filter_map(|action| action.text_at(&["Type"]));
            let message = format!(
                "{place} forwards to no target group; its actions are `{}`",
                types.collect::<Vec<_>>().join("`, `")
            );
            return Err(Failure::invalid("aws.no-forward", message).hint(
                "name a listener or rule that forwards, or let this one forward to the target groups of the sides",
            ));
        };
        let weights = weights(&list[forward]).ok_or_else(|| {
            let message = format!("the weights of {place} are no numbers");
            Failure::permanent("aws.answer", message)
        })?;
        Ok(Self {
            list,
            forward,
            weights,
        })
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The seconds that clients stay with the target group which they came to, where they do.
    pub(crate) fn stickiness(&self) -> Option<&str> {
        let config = self.list[self.forward].at(&[FORWARD, "TargetGroupStickinessConfig"])?;
        let is_on = config.text_at(&["Enabled"]) == Some("true");
        is_on.then(|| config.text_at(&["DurationSeconds"]).unwrap_or("some"))
    }

    /// The same actions with other weights. Target groups that are not named keep theirs.
    pub(crate) fn with_weights(&self, changed: &Weights) -> Self {
        let mut actions = self.clone();
        actions.weights.extend(changed.clone());
        let forward = &mut actions.list[actions.forward];
        let groups = actions.weights.iter().map(|(arn, weight)| {
            let children = vec![leaf(GROUP, arn), leaf("Weight", &weight.to_string())];
            parent(MEMBER, children)
        });
        let groups = parent("TargetGroups", groups.collect());
        // Said in one place only: the two would have to agree.
        forward.children.retain(|child| child.name != GROUP);
        if forward.child(FORWARD).is_none() {
            forward.children.push(parent(FORWARD, Vec::new()));
        }
        let mut children = forward.children.iter_mut();
        if let Some(config) = children.find(|child| child.name == FORWARD) {
            config.children.retain(|child| child.name != groups.name);
            config.children.insert(0, groups);
        }
        actions
    }

    /// Adds the whole list to a call, under a parameter's name.
    pub(crate) fn added_to(&self, mut query: Query, name: &str) -> Query {
        for (action, number) in self.list.iter().zip(1..) {
            let name = format!("{name}.{MEMBER}.{number}");
            query = query.with_element(&name, action);
            if action.child(OIDC).is_some() {
                // AWS never tells the client's secret, so it is asked to keep the one that it has.
                query = query.with(format!("{name}.{OIDC}.UseExistingClientSecret"), "true");
            }
        }
        query
    }
}

fn weights(forward: &Element) -> Option<Weights> {
    let members = forward.members(&[FORWARD, "TargetGroups"]);
    let mut weights = members
        .map(|group| {
            let arn = group.text_at(&[GROUP])?.to_owned();
            // One that is said without a weight has the usual one.
            let weight = group.text_at(&["Weight"]).unwrap_or("1").parse().ok()?;
            Some((arn, weight))
        })
        .collect::<Option<Weights>>()?;
    if weights.is_empty()
        && let Some(only) = forward.text_at(&[GROUP])
    {
        weights.insert(only.to_owned(), 1);
    }
    Some(weights)
}

fn leaf(name: &str, text: &str) -> Element {
    Element {
        name: name.to_owned(),
        text: text.to_owned(),
        children: Vec::new(),
    }
}

fn parent(name: &str, children: Vec<Element>) -> Element {
    Element {
        name: name.to_owned(),
        text: String::new(),
        children,
    }
}

/// Weights as one line, the same for the same weights: what they are for people.
pub(crate) fn told(weights: &Weights) -> String {
    let parts = weights
        .iter()
        .map(|(arn, weight)| format!("{}={weight}", arn::name(arn)));
    parts.collect::<Vec<_>>().join(" ")
}

/// Weights as one line, the same for the same weights and for no others.
pub(crate) fn line(weights: &Weights) -> String {
    let parts = weights
        .iter()
        .map(|(arn, weight)| format!("{arn}={weight}"));
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(text: &str) -> Result<Actions, Failure> {
        let document = Element::parse(text).unwrap();
        Actions::of(document.members(&[]), "listener `x`")
    }

    fn group(name: &str) -> String {
        format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{name}/1")
    }

    fn weights_of(weights: &[(&str, u32)]) -> Weights {
        weights
            .iter()
            .map(|(name, weight)| (group(name), *weight))
            .collect()
    }

    /// The parameters of a call with the list, without the prefix of all and with the names of groups alone.
    fn said(actions: &Actions) -> Vec<String> {
        let body = actions.added_to(Query::changing("X"), "A").body();
        body.split('&')
            .skip(2)
            .map(|parameter| {
                let mut parameter = parameter.trim_start_matches("A.member.").to_owned();
                for name in ["blue", "green", "third"] {
                    let arn = cutover_plugin_sdk::http::percent_encode(&group(name));
                    parameter = parameter.replace(&arn, name);
                }
                parameter
            })
            .collect()
    }

    const LIST: &str = "<L>\
        <member><Type>authenticate-oidc</Type><Order>1</Order><AuthenticateOidcConfig><Issuer>https://i</Issuer><ClientId>c</ClientId>\
        <AuthenticationRequestExtraParams><entry><key>display</key><value>page</value></entry></AuthenticationRequestExtraParams>\
        </AuthenticateOidcConfig></member>\
        <member><Type>forward</Type><Order>2</Order><ForwardConfig><TargetGroups>\
        <member><TargetGroupArn>arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/blue/1</TargetGroupArn><Weight>100</Weight></member>\
        <member><TargetGroupArn>arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/green/1</TargetGroupArn><Weight>0</Weight></member>\
        </TargetGroups><TargetGroupStickinessConfig><Enabled>true</Enabled><DurationSeconds>600</DurationSeconds>\
        </TargetGroupStickinessConfig></ForwardConfig></member></L>";

    #[test]
    fn all_of_the_list_is_kept_but_the_weights() {
        let found = actions(LIST).unwrap();

        let changed = found.with_weights(&weights_of(&[("blue", 80), ("green", 20)]));

        assert_eq!(found.weights(), &weights_of(&[("blue", 100), ("green", 0)]));
        assert_eq!(found.stickiness(), Some("600"));
        assert_eq!(
            said(&changed),
            [
                "1.Type=authenticate-oidc",
                "1.Order=1",
                "1.AuthenticateOidcConfig.Issuer=https%3A%2F%2Fi",
                "1.AuthenticateOidcConfig.ClientId=c",
                "1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry.1.key=display",
                "1.AuthenticateOidcConfig.AuthenticationRequestExtraParams.entry.1.value=page",
                "1.AuthenticateOidcConfig.UseExistingClientSecret=true",
                "2.Type=forward",
                "2.Order=2",
                "2.ForwardConfig.TargetGroups.member.1.TargetGroupArn=blue",
                "2.ForwardConfig.TargetGroups.member.1.Weight=80",
                "2.ForwardConfig.TargetGroups.member.2.TargetGroupArn=green",
                "2.ForwardConfig.TargetGroups.member.2.Weight=20",
                "2.ForwardConfig.TargetGroupStickinessConfig.Enabled=true",
                "2.ForwardConfig.TargetGroupStickinessConfig.DurationSeconds=600",
            ]
        );
    }

    #[test]
    fn a_single_target_group_becomes_one_of_several() {
        let text = format!(
            "<L><member><Type>forward</Type><TargetGroupArn>{}</TargetGroupArn></member></L>",
            group("blue")
        );
        let found = actions(&text).unwrap();

        let changed = found.with_weights(&weights_of(&[("blue", 0), ("green", LARGEST)]));

        assert_eq!(found.weights(), &weights_of(&[("blue", 1)]));
        assert_eq!(found.stickiness(), None);
        assert_eq!(
            said(&changed),
            [
                "1.Type=forward",
                "1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=blue",
                "1.ForwardConfig.TargetGroups.member.1.Weight=0",
                "1.ForwardConfig.TargetGroups.member.2.TargetGroupArn=green",
                "1.ForwardConfig.TargetGroups.member.2.Weight=999",
            ]
        );
    }

    #[test]
    fn a_target_group_of_nobody_keeps_its_place() {
        let found = actions(LIST).unwrap();
        let three = found.with_weights(&weights_of(&[("third", 0)]));

        let changed = three.with_weights(&weights_of(&[("blue", 0), ("green", 100)]));

        assert_eq!(told(changed.weights()), "blue=0 green=100 third=0");
    }

    #[test]
    fn a_list_that_forwards_nowhere_is_refused() {
        let text = "<L><member><Type>redirect</Type></member></L>";

        let failure = actions(text).unwrap_err();

        assert_eq!(
            failure.message,
            "listener `x` forwards to no target group; its actions are `redirect`"
        );
        let wrong = LIST.replace("<Weight>100", "<Weight>-1");
        assert_eq!(
            actions(&wrong).unwrap_err().message,
            "the weights of listener `x` are no numbers"
        );
    }
}

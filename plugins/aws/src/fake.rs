//! An Elastic Load Balancing of maps, which answers in XML.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use cutover_plugin_sdk::http::Response;
use cutover_plugin_sdk::{Attribute, Failure, Member, PoolRef, Side, SideMember, parse_config};

use crate::answer::Answer;
use crate::api::Api;
use crate::config::Config;

pub(crate) const BLUE: &str =
    "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/tg-blue/73e2d6bc24d8a067";
pub(crate) const GREEN: &str =
    "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/tg-green/943f017f100becff";
pub(crate) const LISTENER: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener/app/lb1/50dc6c495c0c9188/f2f7dc8efc522ab2";
pub(crate) const RULE: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:listener-rule/app/lb1/50dc6c495c0c9188/f2f7dc8efc522ab2/9683b2d02a6cabee";

/// A configuration with the usual keys, and more.
pub(crate) fn config(more: &str) -> Config {
    let text = format!(
        r#"{{"region": "us-east-1", "access_key": "AKIDEXAMPLE", "target_group": "{BLUE}"{more}}}"#
    );
    parse_config(&text).unwrap()
}

/// An instance with an address and an id at the provider's.
pub(crate) fn member(name: &str, port: u16) -> Member {
    Member {
        target_id: name.to_owned(),
        provider_id: Some(format!("i-{name}")),
        address: "10.0.0.1".to_owned(),
        port,
        weight: None,
        zone: None,
        attributes: Vec::new(),
    }
}

/// What the host says of members that it asks about.
pub(crate) fn pool(members: &[Member]) -> PoolRef {
    let attributes = members.iter().flat_map(|member| {
        let attribute = |what: &str, value: String| Attribute {
            key: format!("{what}.{}", member.target_id),
            value,
        };
        let address = format!("{}:{}", member.address, member.port);
        let id = member
            .provider_id
            .clone()
            .map(|id| attribute("provider-id", id));
        [Some(attribute("address", address)), id]
            .into_iter()
            .flatten()
    });
    PoolRef {
        id: String::new(),
        attributes: attributes.collect(),
    }
}

pub(crate) fn side(name: &str, target_group: &str) -> Side {
    Side {
        name: name.to_owned(),
        group: format!(r#"{{"target_group": "{target_group}"}}"#),
        members: vec![SideMember {
            target_id: format!("{name}-1"),
            provider_id: Some(format!("i-{name}-1")),
            address: "10.0.0.1".to_owned(),
            port: 80,
        }],
    }
}

/// What one call is answered with, in place of the truth.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// Nothing happens; status, code and message are said.
    Refused(u16, &'static str),
    /// Nothing is answered, with or without an effect.
    Lost { taken: bool },
    /// What was so before the last change is said.
    Stale,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// State and reason by `id:port`.
    targets: BTreeMap<String, (String, String)>,
    /// The members of the action list, as XML.
    actions: String,
}

pub(crate) struct Fake {
    state: RefCell<State>,
    before: RefCell<State>,
    pub(crate) target_type: &'static str,
    pub(crate) attached: bool,
    /// By the call's number, from one.
    troubles: RefCell<BTreeMap<usize, Trouble>>,
    calls: RefCell<VecDeque<String>>,
    count: RefCell<usize>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let fake = Self {
            state: RefCell::default(),
            before: RefCell::default(),
            target_type: "instance",
            attached: true,
            troubles: RefCell::default(),
            calls: RefCell::default(),
            count: RefCell::new(0),
        };
        fake.weigh(&[(BLUE, 100), (GREEN, 0)]);
        fake
    }

    /// Puts a target there as if somebody else had.
    pub(crate) fn put(&self, target: &str, state: &str, reason: &str) {
        let told = (state.to_owned(), reason.to_owned());
        self.state
            .borrow_mut()
            .targets
            .insert(target.to_owned(), told);
    }

    /// Takes all targets away.
    pub(crate) fn clear(&self) {
        self.state.borrow_mut().targets.clear();
    }

    /// Gives the forward action these weights.
    pub(crate) fn weigh(&self, weights: &[(&str, u32)]) {
        let groups = weights.iter().map(|(arn, weight)| {
            format!(
                "<member><TargetGroupArn>{arn}</TargetGroupArn><Weight>{weight}</Weight></member>"
            )
        });
        self.act(&format!(
            "<member><Type>forward</Type><ForwardConfig><TargetGroups>{}</TargetGroups></ForwardConfig></member>",
            groups.collect::<String>()
        ));
    }

    /// Gives the listener, or the rule, these actions.
    pub(crate) fn act(&self, members: &str) {
        self.state.borrow_mut().actions = members.to_owned();
    }

    /// Lets something go wrong with a call, counted from the next one.
    pub(crate) fn trouble(&self, number: usize, trouble: Trouble) {
        let at = *self.count.borrow() + number;
        self.troubles.borrow_mut().insert(at, trouble);
    }

    /// The bodies of all calls since the last question.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.borrow_mut().drain(..).collect()
    }

    /// The actions of all calls since the last question.
    pub(crate) fn called(&self) -> Vec<String> {
        let action = |body: &String| {
            let action = body.trim_start_matches("Action=");
            action.split('&').next().unwrap_or_default().to_owned()
        };
        self.calls().iter().map(action).collect()
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        let state = self.state.borrow();
        let targets = state.targets.iter();
        targets
            .map(|(target, (state, _))| format!("{target} {state}"))
            .collect()
    }

    fn answer(&self, form: &[(String, String)], state: &State) -> String {
        let value = |name: &str| {
            let mut form = form.iter();
            form.find(|(known, _)| known == name)
                .map_or("", |(_, value)| value.as_str())
        };
        let action = value("Action");
        let inner = match action {
            "DescribeTargetHealth" => {
                let targets = state.targets.iter().map(|(target, (state, reason))| {
                    let (id, port) = target.rsplit_once(':').unwrap();
                    format!(
                        "<member><Target><Id>{id}</Id><Port>{port}</Port></Target><TargetHealth><State>{state}</State>\
                         <Reason>{reason}</Reason></TargetHealth></member>"
                    )
                });
                let targets: String = targets.collect();
                format!("<TargetHealthDescriptions>{targets}</TargetHealthDescriptions>")
            }
            "DescribeTargetGroups" => {
                let balancer = if self.attached { "<member>arn:lb</member>" } else { "" };
                format!(
                    "<TargetGroups><member><TargetGroupArn>{}</TargetGroupArn><TargetType>{}</TargetType>\
                     <LoadBalancerArns>{balancer}</LoadBalancerArns></member></TargetGroups>",
                    value("TargetGroupArns.member.1"),
                    self.target_type
                )
            }
            "DescribeTargetGroupAttributes" => "<Attributes><member><Key>stickiness.enabled</Key><Value>false</Value></member>\
                 <member><Key>deregistration_delay.timeout_seconds</Key><Value>300</Value></member></Attributes>"
                .to_owned(),
            "DescribeListeners" => format!(
                "<Listeners><member><DefaultActions>{}</DefaultActions></member></Listeners>",
                state.actions
            ),
            "DescribeRules" => format!(
                "<Rules><member><Actions>{}</Actions></member></Rules>",
                state.actions
            ),
            _ => String::new(),
        };
        format!("<{action}Response><{action}Result>{inner}</{action}Result></{action}Response>")
    }

    fn change(&self, form: &[(String, String)]) {
        let action = form[0].1.as_str();
        let list = |parameter: &str| {
            let suffix = format!(".{parameter}");
            let values = form.iter().filter(move |(name, _)| name.ends_with(&suffix));
            values.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        match action {
            "RegisterTargets" | "DeregisterTargets" => {
                for (id, port) in list("Id").iter().zip(list("Port")) {
                    let (state, reason) = match action {
                        "RegisterTargets" => ("initial", "Elb.RegistrationInProgress"),
                        _ => ("draining", "Target.DeregistrationInProgress"),
                    };
                    self.put(&format!("{id}:{port}"), state, reason);
                }
            }
            "ModifyListener" | "ModifyRule" => {
                let groups = list("TargetGroupArn");
                let weights = list("Weight").into_iter().map(|it| it.parse().unwrap());
                let groups: Vec<_> = groups.iter().map(String::as_str).zip(weights).collect();
                self.weigh(&groups);
            }
            _ => {}
        }
    }
}

impl Api for Fake {
    fn send(&self, body: String) -> Result<Answer, Failure> {
        *self.count.borrow_mut() += 1;
        let number = *self.count.borrow();
        self.calls.borrow_mut().push_back(body.clone());
        let form: Vec<(String, String)> = body
            .split('&')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        let is_change = !form[0].1.starts_with("Describe");
        let trouble = self.troubles.borrow_mut().remove(&number);
        let is_taken = !matches!(
            trouble,
            Some(Trouble::Refused(..) | Trouble::Lost { taken: false })
        );
        if is_change && is_taken {
            self.before.replace(self.state.borrow().clone());
            self.change(&form);
        }
        let (status, body) = match trouble {
            Some(Trouble::Lost { .. }) => {
                return Err(Failure::unknown_outcome(
                    "http.broken",
                    "the connection broke off",
                ));
            }
            Some(Trouble::Refused(status, code)) => (
                status,
                format!(
                    "<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error><RequestId>r</RequestId></ErrorResponse>"
                ),
            ),
            Some(Trouble::Stale) => (200, self.answer(&form, &self.before.borrow())),
            None => (200, self.answer(&form, &self.state.borrow())),
        };
        Ok(Answer {
            response: Response {
                status,
                body: body.into_bytes(),
                ..Response::default()
            },
            signed_at: None,
        })
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

//! The calls of Elastic Load Balancing, as far as a release makes them.

use std::fmt::Write as _;

use super::super::message::Request;
use super::actions::Actions;
use super::call::{Node, Refusal, escaped};
use super::cloud::Elbv2;
use super::state::{Standing, TargetGroup};

impl Elbv2 {
    /// Does what a request asks.
    pub(super) fn call(&mut self, request: &Request, action: &str) -> Result<String, Refusal> {
        self.authenticate(request, action)?;
        let call = Node::of(request);
        let now = self.now();
        for group in &mut self.groups {
            group.settle(now);
        }
        match action {
            "RegisterTargets" => self.register_targets(&call),
            "DeregisterTargets" => {
                let group = self.named_group(&call)?;
                for (id, port, _) in targets_of(&call, &self.groups[group])? {
                    self.groups[group].deregister(&id, port, now);
                }
                Ok(String::new())
            }
            "DescribeTargetHealth" => self.describe_health(&call),
            "DescribeTargetGroups" => self.describe_groups(&call),
            "DescribeTargetGroupAttributes" => {
                let group = &self.groups[self.named_group(&call)?];
                Ok(format!(
                    "<Attributes><member><Key>deregistration_delay.timeout_seconds</Key><Value>{}</Value></member></Attributes>",
                    group.delay.as_secs()
                ))
            }
            "DescribeListeners" => {
                let arns = call.members("ListenerArns");
                let told = arns.into_iter().map(|arn| {
                    let actions = self.listeners.get(&arn.text).ok_or_else(|| {
                        not_found("ListenerNotFound", "One or more listeners not found")
                    })?;
                    Ok(format!(
                        "<member><ListenerArn>{}</ListenerArn><LoadBalancerArn>{}</LoadBalancerArn><Port>80</Port>\
                         <Protocol>HTTP</Protocol><DefaultActions>{}</DefaultActions></member>",
                        arn.text,
                        Self::balancer_arn(),
                        actions.xml()
                    ))
                });
                let told = told.collect::<Result<String, _>>()?;
                Ok(format!("<Listeners>{told}</Listeners>"))
            }
            "DescribeRules" => {
                let arns = call.members("RuleArns");
                let told = arns.into_iter().map(|arn| {
                    let actions = self.rules.get(&arn.text);
                    let actions = actions
                        .ok_or_else(|| not_found("RuleNotFound", "One or more rules not found"))?;
                    Ok(format!(
                        "<member><RuleArn>{}</RuleArn><Priority>10</Priority><Conditions></Conditions><Actions>{}</Actions>\
                         <IsDefault>false</IsDefault></member>",
                        arn.text,
                        actions.xml()
                    ))
                });
                let told = told.collect::<Result<String, _>>()?;
                Ok(format!("<Rules>{told}</Rules>"))
            }
            "ModifyListener" => {
                let arn = call.text_at("ListenerArn").unwrap_or_default();
                let before = self.listeners.get(arn).ok_or_else(|| {
                    not_found("ListenerNotFound", "One or more listeners not found")
                })?;
                let after = self.replaced(before, &call.members("DefaultActions"))?;
                self.listeners.insert(arn.to_owned(), after);
                Ok("<Listeners></Listeners>".to_owned())
            }
            "ModifyRule" => {
                let arn = call.text_at("RuleArn").unwrap_or_default();
                let before = self.rules.get(arn);
                let before = before
                    .ok_or_else(|| not_found("RuleNotFound", "One or more rules not found"))?;
                let after = self.replaced(before, &call.members("Actions"))?;
                self.rules.insert(arn.to_owned(), after);
                Ok("<Rules></Rules>".to_owned())
            }
            other => Err(Refusal::new(
                400,
                "InvalidAction",
                format!("Could not find operation {other} for version 2015-12-01"),
            )),
        }
    }

    fn replaced(&self, before: &Actions, members: &[&Node]) -> Result<Actions, Refusal> {
        before.replaced(members, |arn| {
            self.groups.iter().any(|group| group.arn == arn)
        })
    }

    pub(super) fn named_group(&self, call: &Node) -> Result<usize, Refusal> {
        let arn = call.text_at("TargetGroupArn").unwrap_or_default();
        let group = self.groups.iter().position(|group| group.arn == arn);
        group.ok_or_else(|| not_found("TargetGroupNotFound", "One or more target groups not found"))
    }

    fn register_targets(&mut self, call: &Node) -> Result<String, Refusal> {
        let now = self.now();
        let group = self.named_group(call)?;
        let named = targets_of(call, &self.groups[group])?;
        for (id, _, _) in &named {
            let is_address = id.parse::<std::net::IpAddr>().is_ok();
            let fits = match self.groups[group].target_type.as_str() {
                "ip" => is_address,
                _ => id.starts_with("i-"),
            };
            if !fits {
                let message = format!("The target id '{id}' is not valid for the target type");
                return Err(Refusal::new(400, "ValidationError", message));
            }
            if self.stopped.contains(id) {
                let message = format!(
                    "The following targets are not in a running state and cannot be registered: '{id}'"
                );
                return Err(Refusal::new(400, "InvalidTarget", message));
            }
        }
        let mut after = self.groups[group].clone();
        for (id, port, zone) in named {
            after.register(&id, port, zone.as_deref(), now);
        }
        if after.count() > after.most {
            return Err(Refusal::new(
                400,
                "TooManyTargets",
                "You've reached the limit on the number of targets",
            ));
        }
        self.groups[group] = after;
        Ok(String::new())
    }

    fn describe_health(&self, call: &Node) -> Result<String, Refusal> {
        let now = self.now();
        let group = &self.groups[self.named_group(call)?];
        let is_used = self.is_used(&group.arn);
        let named: Vec<_> = match call.at("Targets") {
            Some(_) => {
                let named = targets_of(call, group)?.into_iter();
                named.map(|(id, port, _)| (id, port)).collect()
            }
            None => group.targets.keys().cloned().collect(),
        };
        let mut told = String::new();
        for (id, port) in named {
            let Standing { state, reason } = group.standing(&id, port, is_used, now);
            let zone = group.zone(&id, port);
            let zone = zone.map(|zone| format!("<AvailabilityZone>{zone}</AvailabilityZone>"));
            let reason = reason.map(|(reason, words)| {
                let words = escaped(&words);
                format!("<Reason>{reason}</Reason><Description>{words}</Description>")
            });
            let _ = write!(
                told,
                "<member><Target><Id>{}</Id><Port>{port}</Port>{}</Target><HealthCheckPort>{port}</HealthCheckPort>\
                 <TargetHealth><State>{state}</State>{}</TargetHealth></member>",
                escaped(&id),
                zone.unwrap_or_default(),
                reason.unwrap_or_default()
            );
        }
        Ok(format!(
            "<TargetHealthDescriptions>{told}</TargetHealthDescriptions>"
        ))
    }

    fn describe_groups(&self, call: &Node) -> Result<String, Refusal> {
        let arns = call.members("TargetGroupArns");
        let told = arns.into_iter().map(|arn| {
            let group = self.groups.iter().find(|group| group.arn == arn.text);
            let group = group.ok_or_else(|| {
                not_found("TargetGroupNotFound", "One or more target groups not found")
            })?;
            let balancer = match self.is_used(&group.arn) {
                true => format!("<member>{}</member>", Self::balancer_arn()),
                false => String::new(),
            };
            Ok(format!(
                "<member><TargetGroupArn>{}</TargetGroupArn><TargetGroupName>{}</TargetGroupName><Protocol>HTTP</Protocol>\
                 <Port>{}</Port><TargetType>{}</TargetType><LoadBalancerArns>{balancer}</LoadBalancerArns></member>",
                group.arn, group.name, group.port, group.target_type
            ))
        });
        let told = told.collect::<Result<String, _>>()?;
        Ok(format!("<TargetGroups>{told}</TargetGroups>"))
    }
}

fn not_found(code: &'static str, message: &str) -> Refusal {
    Refusal::new(400, code, message)
}

/// The targets that a call names, with their ports and zones.
pub(super) fn targets_of(
    call: &Node,
    group: &TargetGroup,
) -> Result<Vec<(String, u16, Option<String>)>, Refusal> {
    let members = call.members("Targets").into_iter();
    members
        .map(|target| {
            let id = target.text_at("Id").unwrap_or_default().to_owned();
            let port = match target.text_at("Port") {
                None => group.port,
                Some(port) => port.parse().map_err(|_| {
                    let message = format!("'{port}' is no port");
                    Refusal::new(400, "ValidationError", message)
                })?,
            };
            let zone = target.text_at("AvailabilityZone").map(str::to_owned);
            Ok((id, port, zone))
        })
        .collect()
}

//! The calls of Elastic Load Balancing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::super::message::{Request, Response};
use super::super::server::Cloud;
use super::super::sigv4::{Malformed, Signature};
use super::actions::Actions;
use super::call::{Node, Refusal, escaped, response};
use super::state::{Key, Standing, TargetGroup};

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "123456789012";
const SERVICE: &str = "elasticloadbalancing";
/// How far the clocks may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(15);

/// What follows every change, with the targets that get traffic and the weights of the listener.
type Plane = Arc<dyn Fn(&Elbv2) + Send + Sync>;

/// One account in one region: a load balancer `shop` with a listener and a rule, and target groups.
#[derive(Clone)]
pub struct Elbv2 {
    keys: BTreeMap<String, Key>,
    groups: Vec<TargetGroup>,
    /// By ARN.
    listeners: BTreeMap<String, Actions>,
    rules: BTreeMap<String, Actions>,
    /// Machines that do not run.
    stopped: BTreeSet<String>,
    began: Instant,
    /// How far the time was moved on.
    ahead: Duration,
    /// How far this clock is from the world's.
    pub skew: SignedDuration,
    /// Shared with what answers stale reads, so that no id comes twice.
    requests: Arc<AtomicUsize>,
    plane: Option<Plane>,
    changes: usize,
    /// The changes of all clones together.
    latest: Arc<AtomicUsize>,
}

/// The name of a call.
#[must_use]
pub fn action(request: &Request) -> String {
    let mut form = request.form().into_iter();
    form.find_map(|(name, value)| (name == "Action").then_some(value))
        .unwrap_or_default()
}

impl Elbv2 {
    /// An account with one key and these target groups of instances, the first of which has all the traffic of the
    /// listener and of the rule.
    #[must_use]
    pub fn new(access_key: &str, secret: &str, groups: &[&str]) -> Self {
        let key = Key {
            secret: secret.to_owned(),
            token: None,
            is_expired: false,
            allowed: Vec::new(),
        };
        let groups: Vec<TargetGroup> = groups
            .iter()
            .map(|name| TargetGroup {
                name: (*name).to_owned(),
                arn: Self::group_arn(name),
                target_type: "instance".to_owned(),
                port: 80,
                delay: Duration::from_secs(300),
                initial: Duration::from_secs(10),
                most: 1000,
                targets: BTreeMap::new(),
                sick: BTreeMap::new(),
            })
            .collect();
        let mut cloud = Self {
            keys: BTreeMap::from([(access_key.to_owned(), key)]),
            groups,
            listeners: BTreeMap::new(),
            rules: BTreeMap::new(),
            stopped: BTreeSet::new(),
            began: Instant::now(),
            ahead: Duration::ZERO,
            skew: SignedDuration::ZERO,
            requests: Arc::default(),
            plane: None,
            changes: 0,
            latest: Arc::default(),
        };
        let weights: Vec<_> = (0..)
            .zip(&cloud.groups)
            .map(|(place, group)| (group.name.clone(), if place == 0 { 100 } else { 0 }))
            .collect();
        let weights: Vec<_> = weights
            .iter()
            .map(|(name, it)| (name.as_str(), *it))
            .collect();
        cloud.weigh(&weights);
        cloud
    }

    /// The ARN of a target group.
    #[must_use]
    pub fn group_arn(name: &str) -> String {
        format!("arn:aws:{SERVICE}:{REGION}:{ACCOUNT}:targetgroup/{name}/73e2d6bc24d8a067")
    }

    /// The ARN of the listener.
    #[must_use]
    pub fn listener_arn() -> String {
        format!(
            "arn:aws:{SERVICE}:{REGION}:{ACCOUNT}:listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
        )
    }

    /// The ARN of the rule.
    #[must_use]
    pub fn rule_arn() -> String {
        Self::listener_arn().replace(":listener/", ":listener-rule/") + "/9683b2d02a6cabee"
    }

    fn balancer_arn() -> String {
        format!("arn:aws:{SERVICE}:{REGION}:{ACCOUNT}:loadbalancer/app/shop/50dc6c495c0c9188")
    }

    /// A key by its id, to change it.
    ///
    /// # Panics
    /// When there is none.
    pub fn key(&mut self, access_key: &str) -> &mut Key {
        self.keys.get_mut(access_key).expect("a key of this id")
    }

    /// A target group by its name, to change it.
    ///
    /// # Panics
    /// When there is none.
    pub fn group(&mut self, name: &str) -> &mut TargetGroup {
        let mut groups = self.groups.iter_mut();
        groups
            .find(|group| group.name == name)
            .expect("a target group of this name")
    }

    /// Registers a target behind the clients' backs, as one that has been there for long.
    pub fn register(&mut self, group: &str, id: &str, port: u16) {
        let now = self.now();
        let group = self.group(group);
        group.register(id, port, None, now.saturating_sub(group.initial));
        self.changed();
    }

    /// Takes a target away behind the clients' backs, at once.
    pub fn remove(&mut self, group: &str, id: &str, port: u16) {
        self.group(group).targets.remove(&(id.to_owned(), port));
        self.changed();
    }

    /// Lets the health checks of a target find this, or nothing wrong.
    pub fn sicken(&mut self, group: &str, id: &str, port: u16, reason: Option<&str>) {
        let name = (id.to_owned(), port);
        let sick = &mut self.group(group).sick;
        match reason {
            Some(reason) => {
                sick.insert(name, (reason.to_owned(), "Health checks failed".to_owned()));
            }
            None => {
                sick.remove(&name);
            }
        }
        self.changed();
    }

    /// Stops a machine.
    pub fn stop(&mut self, id: &str) {
        self.stopped.insert(id.to_owned());
    }

    /// Gives target groups these weights in the listener and in the rule, and nobody else any.
    pub fn weigh(&mut self, weights: &[(&str, u32)]) {
        let mut action = Node::default();
        action.put("Type", Node::leaf("forward"));
        action.put("Order", Node::leaf("1"));
        let mut groups = Node::default();
        for ((name, weight), number) in weights.iter().zip(1..) {
            let mut member = Node::default();
            member.put("TargetGroupArn", Node::leaf(Self::group_arn(name)));
            member.put("Weight", Node::leaf(weight.to_string()));
            groups.put(&format!("member.{number}"), member);
        }
        let mut config = Node::default();
        config.put("TargetGroups", groups);
        action.put("ForwardConfig", config);
        let actions = Actions::default()
            .replaced(&[&action], |_| true)
            .expect("weights that AWS takes");
        self.listeners.insert(Self::listener_arn(), actions.clone());
        self.rules.insert(Self::rule_arn(), actions);
        self.changed();
    }

    /// The weights of the listener, by the names of target groups.
    #[must_use]
    pub fn weights(&self) -> Vec<(String, u32)> {
        self.named(&self.listeners[&Self::listener_arn()])
    }

    /// The weights of the rule, by the names of target groups.
    #[must_use]
    pub fn rule_weights(&self) -> Vec<(String, u32)> {
        self.named(&self.rules[&Self::rule_arn()])
    }

    /// The secret of the client that the listener authenticates with.
    #[must_use]
    pub fn client_secret(&self) -> Option<String> {
        let listener = &self.listeners[&Self::listener_arn()];
        listener.secret().map(str::to_owned)
    }

    fn named(&self, actions: &Actions) -> Vec<(String, u32)> {
        let weights = actions.weights().into_iter();
        weights
            .map(|(arn, weight)| {
                let group = self.groups.iter().find(|group| group.arn == arn);
                (group.map_or(arn, |group| group.name.clone()), weight)
            })
            .collect()
    }

    /// The targets of a group with their states, one a line: `i-1:80 healthy`.
    #[must_use]
    pub fn targets(&self, group: &str) -> Vec<String> {
        let now = self.now();
        let group = self.groups.iter().find(|it| it.name == group);
        let mut group = group.expect("a target group of this name").clone();
        group.settle(now);
        let targets = group.targets.keys();
        targets
            .map(|(id, port)| {
                let Standing { state, .. } =
                    group.standing(id, *port, self.is_used(&group.arn), now);
                format!("{id}:{port} {state}")
            })
            .collect()
    }

    /// Moves the time on.
    pub fn pass(&mut self, time: Duration) {
        self.ahead += time;
        self.changed();
    }

    /// Lets this be done whenever something may have changed, and at once.
    pub fn follow(&mut self, plane: impl Fn(&Self) + Send + Sync + 'static) {
        self.plane = Some(Arc::new(plane));
        self.changed();
    }

    fn changed(&mut self) {
        self.changes = self.latest.fetch_add(1, Ordering::SeqCst) + 1;
        self.tell();
    }

    /// What answers stale reads has nothing to tell.
    fn tell(&self) {
        if let Some(plane) = &self.plane
            && self.changes == self.latest.load(Ordering::SeqCst)
        {
            plane(self);
        }
    }

    /// The time of the cloud, since it began.
    fn now(&self) -> Duration {
        self.began.elapsed() + self.ahead
    }

    fn is_used(&self, arn: &str) -> bool {
        let actions = self.listeners.values().chain(self.rules.values());
        actions
            .flat_map(Actions::weights)
            .any(|(group, _)| group == arn)
    }

    fn authenticate(&self, request: &Request, action: &str) -> Result<(), Refusal> {
        let denied = |code: &'static str, message: &str| Err(Refusal::new(403, code, message));
        let signature = match Signature::of(request) {
            Ok(signature) => signature,
            Err(Malformed::Missing) => {
                return denied(
                    "MissingAuthenticationToken",
                    "Request is missing Authentication Token",
                );
            }
            Err(Malformed::Incomplete) => {
                return Err(Refusal::new(
                    400,
                    "IncompleteSignature",
                    "The request signature does not conform to AWS standards",
                ));
            }
        };
        let Some(key) = self.keys.get(&signature.access_key) else {
            return denied(
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            );
        };
        if key.token.as_deref() != request.header("x-amz-security-token") {
            return denied(
                "InvalidClientTokenId",
                "The security token included in the request is invalid",
            );
        }
        if key.is_expired {
            return denied(
                "ExpiredToken",
                "The security token included in the request is expired",
            );
        }
        let now = Timestamp::now() + self.skew;
        let off = now.duration_since(signature.at);
        let basic = |time: Timestamp| time.strftime("%Y%m%dT%H%M%SZ").to_string();
        if off > SKEW {
            let message = format!(
                "Signature expired: {} is now earlier than {} ({} - 15 min.)",
                signature.date,
                basic(now - SKEW),
                basic(now)
            );
            return denied("SignatureDoesNotMatch", &message);
        }
        if off < -SKEW {
            let message = format!(
                "Signature not yet current: {} is still later than {} ({} + 15 min.)",
                signature.date,
                basic(now + SKEW),
                basic(now)
            );
            return denied("SignatureDoesNotMatch", &message);
        }
        if !signature.is_good(request, &key.secret, REGION, SERVICE) {
            return denied(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and \
                 signing method. Consult the service documentation for details.",
            );
        }
        if !key.allowed.is_empty() && !key.allowed.iter().any(|allowed| allowed == action) {
            let message = format!(
                "User: arn:aws:iam::{ACCOUNT}:user/cutover is not authorized to perform: {SERVICE}:{action} because no identity-based \
                 policy allows the {SERVICE}:{action} action"
            );
            return denied("AccessDenied", &message);
        }
        Ok(())
    }

    fn call(&mut self, request: &Request, action: &str) -> Result<String, Refusal> {
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
                for (id, port, _) in targets(&call, &self.groups[group])? {
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

    fn named_group(&self, call: &Node) -> Result<usize, Refusal> {
        let arn = call.text_at("TargetGroupArn").unwrap_or_default();
        let group = self.groups.iter().position(|group| group.arn == arn);
        group.ok_or_else(|| not_found("TargetGroupNotFound", "One or more target groups not found"))
    }

    fn register_targets(&mut self, call: &Node) -> Result<String, Refusal> {
        let now = self.now();
        let group = self.named_group(call)?;
        let named = targets(call, &self.groups[group])?;
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
                let named = targets(call, group)?.into_iter();
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

    fn id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        format!("00000000-0000-4000-8000-{number:012}")
    }

    fn dated(&self, response: Response) -> Response {
        let now = Timestamp::now() + self.skew;
        let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        response.header("Date", date)
    }
}

fn not_found(code: &'static str, message: &str) -> Refusal {
    Refusal::new(400, code, message)
}

/// The targets that a call names, with their ports and zones.
fn targets(
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

impl Cloud for Elbv2 {
    fn answer(&mut self, request: &Request) -> Response {
        let action = action(request);
        let result = self.call(request, &action);
        if self.is_read(request) {
            // What time alone has changed is told as well.
            self.tell();
        } else if result.is_ok() {
            self.changed();
        }
        let answer = response(&action, result, &self.id());
        self.dated(answer)
    }

    fn error(&mut self, status: u16) -> Response {
        let refusal = match status {
            // AWS throttles with 400; 429 is how the frame asks for it.
            429 => Refusal::new(400, "Throttling", "Rate exceeded"),
            503 => Refusal::new(503, "ServiceUnavailable", "Service is unavailable"),
            status => Refusal::new(status, "InternalFailure", "An internal error occurred"),
        };
        let answer = response("", Err(refusal), &self.id());
        self.dated(answer)
    }

    fn is_read(&self, request: &Request) -> bool {
        action(request).starts_with("Describe")
    }
}

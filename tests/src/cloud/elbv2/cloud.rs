//! The account: what there is in it, how tests change it behind the clients' backs, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::super::message::{Request, Response};
use super::super::server::Cloud;
use super::actions::Actions;
use super::call::{Node, Refusal, response};
use super::calls::targets_of;
use super::state::{Key, Standing, TargetGroup};

pub(super) const REGION: &str = "us-east-1";
pub(super) const ACCOUNT: &str = "123456789012";
pub(super) const SERVICE: &str = "elasticloadbalancing";

/// What follows every change, with the targets that get traffic and the weights of the listener.
type Plane = Arc<dyn Fn(&Elbv2) + Send + Sync>;

/// One account in one region: a load balancer `shop` with a listener and a rule, and target groups.
#[derive(Clone)]
pub struct Elbv2 {
    pub(super) keys: BTreeMap<String, Key>,
    pub(super) groups: Vec<TargetGroup>,
    /// By ARN.
    pub(super) listeners: BTreeMap<String, Actions>,
    pub(super) rules: BTreeMap<String, Actions>,
    /// Machines that do not run.
    pub(super) stopped: BTreeSet<String>,
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

    pub(super) fn balancer_arn() -> String {
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
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed() + self.ahead
    }

    pub(super) fn is_used(&self, arn: &str) -> bool {
        let actions = self.listeners.values().chain(self.rules.values());
        actions
            .flat_map(Actions::weights)
            .any(|(group, _)| group == arn)
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

    /// Elastic Load Balancing itself registers all targets of a call or none; what broke off is said as an error of its own.
    fn answer_in_part(&mut self, request: &Request, done: usize) -> Response {
        if self.authenticate(request, &action(request)).is_err() {
            return self.answer(request);
        }
        let mut call = Node::of(request);
        let group = self.named_group(&call);
        if let (Ok(group), Some(mut targets)) = (group, call.remove("Targets")) {
            targets.children.truncate(done);
            call.put("Targets", targets);
            let now = self.now();
            for (id, port, zone) in targets_of(&call, &self.groups[group]).unwrap_or_default() {
                match action(request).as_str() {
                    "RegisterTargets" => {
                        self.groups[group].register(&id, port, zone.as_deref(), now);
                    }
                    _ => self.groups[group].deregister(&id, port, now),
                }
            }
            self.changed();
        }
        self.error(500)
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

//! What there is: keys, and target groups whose targets come, are checked, drain and go.

use std::collections::BTreeMap;
use std::time::Duration;

/// A key that requests are signed with.
#[derive(Debug, Clone)]
pub struct Key {
    pub secret: String,
    /// Of temporary credentials.
    pub token: Option<String>,
    pub is_expired: bool,
    /// The calls that the policy allows; all where none are named.
    pub allowed: Vec<String>,
}

/// A target group.
#[derive(Debug, Clone)]
pub struct TargetGroup {
    pub name: String,
    pub arn: String,
    pub target_type: String,
    pub port: u16,
    /// How long a target drains.
    pub delay: Duration,
    /// How long the first health checks of a target take.
    pub initial: Duration,
    /// How many targets there may be.
    pub most: usize,
    pub(super) targets: BTreeMap<(String, u16), Target>,
    /// What health checks find, by id and port; healthy where nothing is said.
    pub(super) sick: BTreeMap<(String, u16), (String, String)>,
}

#[derive(Debug, Clone)]
pub(super) struct Target {
    zone: Option<String>,
    /// When it was registered, in the time of the cloud.
    since: Duration,
    /// When it was deregistered.
    left: Option<Duration>,
}

/// How a target is, in AWS's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub state: String,
    /// Reason and description.
    pub reason: Option<(String, String)>,
}

impl Standing {
    pub(super) fn new(state: &str, reason: Option<(&str, &str)>) -> Self {
        Self {
            state: state.to_owned(),
            reason: reason.map(|(reason, words)| (reason.to_owned(), words.to_owned())),
        }
    }
}

impl TargetGroup {
    pub(super) fn register(&mut self, id: &str, port: u16, zone: Option<&str>, now: Duration) {
        let target = self.targets.entry((id.to_owned(), port)).or_insert(Target {
            zone: zone.map(str::to_owned),
            since: now,
            left: None,
        });
        // One that is there stays as it is; one that was leaving begins anew.
        if target.left.take().is_some() {
            target.since = now;
        }
    }

    /// A target that is not there is deregistered without a word, as in AWS.
    pub(super) fn deregister(&mut self, id: &str, port: u16, now: Duration) {
        if let Some(target) = self.targets.get_mut(&(id.to_owned(), port)) {
            target.left.get_or_insert(now);
        }
    }

    /// Lets go who has drained.
    pub(super) fn settle(&mut self, now: Duration) {
        let delay = self.delay;
        self.targets
            .retain(|_, target| target.left.is_none_or(|left| now < left + delay));
    }

    pub(super) fn count(&self) -> usize {
        self.targets.len()
    }

    pub(super) fn zone(&self, id: &str, port: u16) -> Option<&str> {
        self.targets.get(&(id.to_owned(), port))?.zone.as_deref()
    }

    /// How a target is; `is_used` where something forwards to the group.
    pub(super) fn standing(&self, id: &str, port: u16, is_used: bool, now: Duration) -> Standing {
        let name = (id.to_owned(), port);
        let Some(target) = self.targets.get(&name) else {
            let words = "Target is not registered to the target group";
            return Standing::new("unused", Some(("Target.NotRegistered", words)));
        };
        if target.left.is_some() {
            let words = "Target deregistration is in progress";
            return Standing::new("draining", Some(("Target.DeregistrationInProgress", words)));
        }
        if !is_used {
            let words = "Target group is not configured to receive traffic from the load balancer";
            return Standing::new("unused", Some(("Target.NotInUse", words)));
        }
        if now < target.since + self.initial {
            let words = "Initial health checks in progress";
            return Standing::new("initial", Some(("Elb.InitialHealthChecking", words)));
        }
        match self.sick.get(&name) {
            Some((reason, words)) => Standing::new("unhealthy", Some((reason, words))),
            None => Standing::new("healthy", None),
        }
    }
}

//! Blue-green: the target group of a backend is replaced by that of the other side.
//!
//! JD Cloud probes targets only once a backend has their group. So a switch is over when the health check found the side
//! well, and goes back when it found nobody. The group that lost the traffic stays, with its targets: it is the way back.

use cutover_plugin_sdk::{Attribute, Failure, OpContext, Outcome, Share, info, warn};

use crate::config::Config;
use crate::groups::{self, There};
use crate::lb::{Backend, HealthCheck, Lb, Target};
use crate::pool::{Place, checked_weight, found, health_of, words};
use crate::router::Group;
use crate::waits::{self, Probe};

/// The sides with their target groups, and which of these the backend has.
pub(crate) struct Switch<'a> {
    lb: &'a Lb<'a>,
    sides: &'a [Group<'a>],
    backend: Backend,
    /// The target group of each side, where it is made.
    ids: Vec<Option<String>>,
}

impl<'a> Switch<'a> {
    pub(crate) fn read(
        lb: &'a Lb<'a>,
        sides: &'a [Group<'a>],
        backend: Backend,
    ) -> Result<Self, Failure> {
        let ids = sides
            .iter()
            .map(|side| groups::find(lb, &side.config, &backend))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            lb,
            sides,
            backend,
            ids,
        })
    }

    /// The side whose group the backend has gets everything.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let live = self.ids.iter().position(|id| {
            let id = id.as_deref();
            id.is_some_and(|id| groups::is_attached(&self.backend, id))
        });
        live.map(|index| Share {
            side: self.sides[index].name().to_owned(),
            percent: 100,
        })
        .into_iter()
        .collect()
    }

    /// The groups that the backend has.
    pub(crate) fn revision(&self) -> String {
        let ids = self.backend.target_group_ids.iter();
        let ids: Vec<_> = ids
            .chain(&self.backend.ag_ids)
            .map(String::as_str)
            .collect();
        ids.join(",")
    }

    pub(crate) fn set(
        &self,
        ctx: &OpContext,
        wanted: &Group<'_>,
        expected: Option<&str>,
    ) -> Result<Outcome, Failure> {
        let index = self
            .sides
            .iter()
            .position(|side| side.name() == wanted.name());
        let known = index.and_then(|index| self.ids[index].clone());
        let is_live = known
            .as_deref()
            .is_some_and(|id| groups::is_attached(&self.backend, id));
        let revision = self.revision();
        if !is_live && let Some(expected) = expected.filter(|it| *it != revision) {
            let message = format!(
                "backend `{}` has target group {}, expected was `{expected}`",
                self.backend.backend_id,
                groups::told(&self.backend.target_group_ids)
            );
            return Err(Failure::conflict("jd.backend-changed", message)
                .hint("somebody else moved the traffic: see who did, and plan anew"));
        }
        let ours: Vec<&str> = self.ids.iter().flatten().map(String::as_str).collect();
        if let Some(failure) = groups::foreign(&wanted.config, &self.backend, &ours) {
            return Err(failure);
        }
        if wanted.side.members.is_empty() {
            let message = format!("side `{}` has no members to get the traffic", wanted.name());
            return Err(Failure::invalid("jd.no-members", message));
        }
        if ctx.dry_run {
            return Ok(if is_live {
                Outcome::Unchanged
            } else {
                Outcome::changed()
            });
        }
        let id = match known {
            Some(id) => There::Found(id),
            None => groups::find_or_make(self.lb, &wanted.config, &self.backend, ctx)?,
        };
        let has_registered = self.complete(&id, wanted)?;
        let id = id.id().to_owned();
        if is_live {
            return Ok(match has_registered {
                false => Outcome::Unchanged,
                true => Outcome::changed(),
            });
        }
        let before = self.backend.target_group_ids.first().cloned();
        groups::attach(self.lb, &self.backend, &id)?;
        let Some(check) = &self.backend.health_check else {
            return Ok(Outcome::changed());
        };
        let probe = Probe {
            until_ms: self
                .lb
                .now_ms()
                .saturating_add(settle_ms(&wanted.config, check)),
            backend: self.backend.backend_id.clone(),
            group: id,
            before,
        };
        Ok(waits::probe(
            &probe,
            "the health check has not been made yet".to_owned(),
        ))
    }

    /// Registers the members of a side that its group lacks. Answers whether there were any.
    fn complete(&self, group: &There, side: &Group<'_>) -> Result<bool, Failure> {
        let id = group.id();
        let present = match group {
            There::Found(id) => self.lb.targets(id)?,
            There::Made(_) => Vec::new(),
        };
        let strangers = side.strangers(&present, &self.backend)?;
        if let Some(stranger) = strangers.first() {
            let message = format!(
                "`{}` is registered in `{id}` and is no instance of side `{}`: somebody else registered it",
                Place::of_target(stranger),
                side.name()
            );
            return Err(Failure::permanent("jd.stranger", message)
                .hint("deregister it, or add it to the side: it would get traffic with whatever runs on it"));
        }
        let mut missing = Vec::new();
        let mut places = Vec::new();
        for (member, place) in side.places()? {
            let weight = side.config.weight_of(&member.target_id);
            match found(&present, &place, &self.backend) {
                Some(target) if target.weight == 0 && weight > 0 => {
                    let message = format!(
                        "`{place}` is registered in `{id}` with weight 0, expected was {weight}: it would get nothing"
                    );
                    return Err(Failure::permanent("jd.target-differs", message)
                        .hint("see who changed it, and set its weight"));
                }
                Some(_) => {}
                None => {
                    checked_weight(&self.backend, &member.target_id, weight)?;
                    missing.push(place.spec(&side.config, weight));
                    places.push(place);
                }
            }
        }
        if missing.is_empty() {
            return Ok(false);
        }
        let given = self.lb.register(id, &missing);
        let after = match (&given, self.lb.targets(id)) {
            (_, Ok(after)) => after,
            (Ok(()), Err(failure)) => {
                return Err(Failure::unknown_outcome(failure.code, failure.message));
            }
            (Err(failure), Err(_)) => return Err(failure.clone()),
        };
        let lacking: Vec<_> = places
            .iter()
            .filter(|place| found(&after, place, &self.backend).is_none())
            .map(|place| format!("`{place}`"))
            .collect();
        match (given, lacking.is_empty()) {
            (_, true) => {
                info!("{} targets were registered in `{id}`", places.len());
                Ok(true)
            }
            (Err(failure), false) => Err(failure),
            (Ok(()), false) => Err(Failure::unknown_outcome(
                "jd.not-registered",
                format!("{} are not listed in `{id}` yet", lacking.join(", ")),
            )),
        }
    }
}

/// How long the first round of probes may take.
fn settle_ms(config: &Config, check: &HealthCheck) -> u64 {
    let seconds = |value: Option<u32>, usual: u32| u64::from(value.unwrap_or(usual));
    let usual = (seconds(check.interval_seconds, 5) + seconds(check.check_timeout_seconds, 3))
        * seconds(check.healthy_threshold_count, 3)
        + 15;
    config.settle.map_or(usual * 1000, |settle| {
        u64::try_from(settle.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Looks whether a side that got the traffic is well.
pub(crate) fn probe(lb: &Lb<'_>, probe: &Probe) -> Result<Outcome, Failure> {
    let Probe {
        until_ms,
        backend: id,
        group,
        before,
    } = probe;
    let backend = lb.backend(id)?;
    if !groups::is_attached(&backend, group) {
        let message = format!(
            "backend `{id}` was given target group `{group}` and has {} by now: somebody else moved the traffic",
            groups::told(&backend.target_group_ids)
        );
        return Err(Failure::conflict("jd.backend-changed", message));
    }
    if backend.health_check.is_none() {
        return Ok(Outcome::changed());
    }
    let targets = lb.targets(group)?;
    let health = lb.health(id)?;
    let unwell: Vec<(&Target, String)> = targets
        .iter()
        .filter_map(|target| match health_of(target, group, &health, &backend) {
            Some(found) if found.status == "healthy" => None,
            Some(found) => Some((target, words(found))),
            None => Some((target, "not probed yet".to_owned())),
        })
        .collect();
    let listed: Vec<_> = unwell
        .iter()
        .map(|(target, why)| format!("`{}` {why}", Place::of_target(target)))
        .collect();
    let well = targets.len() - unwell.len();
    if unwell.is_empty() && well > 0 {
        return Ok(Outcome::changed());
    }
    if lb.now_ms() < *until_ms {
        let words = format!(
            "{well} of {} targets healthy: {}",
            targets.len(),
            listed.join(", ")
        );
        return Ok(waits::probe(probe, words));
    }
    if well > 0 {
        warn!("not healthy in `{group}`: {}", listed.join(", "));
        return Ok(Outcome::Changed(vec![Attribute {
            key: "jd.unhealthy".to_owned(),
            value: listed.join(", "),
        }]));
    }
    let mut message = format!(
        "no target of `{group}` passed the health check of backend `{id}`: {}",
        listed.join(", ")
    );
    let Some(before) = before else {
        return Err(Failure::permanent("jd.unhealthy", message)
            .hint("no target group had the traffic before, so it stays where it is"));
    };
    groups::attach(lb, &backend, before)?;
    message.push_str(&format!("; the traffic is back at `{before}`"));
    Err(Failure::permanent("jd.unhealthy", message)
        .hint("see whether the instances listen on that port, and what the health check asks for"))
}

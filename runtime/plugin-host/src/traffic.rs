//! `cutover:traffic`: how traffic is split between the sides of a group.

use std::collections::BTreeMap;

use model::Timestamp;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::answer::Answer;
use crate::bindings::exports::cutover::traffic::router;
use crate::call::{Effect, OpContext, State, now};
use crate::failure::{CallError, Failure};
use crate::inspect::Provides;
use crate::limits;
use crate::load_balancer::Outcome;
use crate::plugin::{Diagnostic, Plugin};

/// One side of a group: blue or green, current or new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    pub name: String,
    /// The side's own `group` object, JSON. Its keys stand over those of the configuration.
    pub group: String,
    pub members: Vec<Member>,
}

impl Default for Side {
    fn default() -> Self {
        Self {
            name: String::new(),
            group: "{}".to_owned(),
            members: Vec::new(),
        }
    }
}

/// An instance as the balancer knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The host's name for it, stable over the run.
    pub target_id: String,
    /// The provider's name for it, if known.
    pub provider_id: Option<String>,
    pub address: String,
    pub port: u16,
}

/// What one side gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub side: String,
    /// 0 to 100.
    pub percent: u8,
}

/// How traffic is split, as the balancer tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// One for each side that was asked about, in their order, 100 in sum. Empty: no side is live.
    pub shares: Vec<Share>,
    /// Absent where all places of the balancer agree.
    pub differs: Option<Disagreement>,
    /// The state that was read, in all places, to be expected by the next write.
    pub revision: Option<String>,
    /// Whether the balancer has applied every change.
    pub settled: bool,
    pub observed_at: Timestamp,
}

/// What another place of the balancer says than the one that requests follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// As [`Split::shares`].
    pub shares: Vec<Share>,
    /// Which place says what, for people.
    pub message: String,
}

impl Split {
    /// What a side gets, in percent.
    #[must_use]
    pub fn percent(&self, side: &str) -> u8 {
        let share = self.shares.iter().find(|share| share.side == side);
        share.map_or(0, |share| share.percent)
    }

    /// The side that gets all traffic, if one does.
    #[must_use]
    pub fn live(&self) -> Option<&str> {
        let all = self.shares.iter().find(|share| share.percent == 100);
        all.map(|share| share.side.as_str())
    }
}

/// What a router is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// All traffic is on one side at any time.
    Switch,
    /// Any split.
    Weighted,
}

/// Where the exported functions are.
pub(crate) struct Exports {
    router: Option<router::GuestIndices>,
}

impl Exports {
    pub(crate) fn of(pre: &InstancePre<State>, provides: &Provides) -> wasmtime::Result<Self> {
        Ok(Self {
            router: provides
                .router
                .then(|| router::GuestIndices::new(pre))
                .transpose()?,
        })
    }

    pub(crate) fn try_load(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> wasmtime::Result<()> {
        self.router
            .as_ref()
            .map(|router| router.load(&mut *store, instance))
            .transpose()?;
        Ok(())
    }
}

impl Plugin {
    /// Finds what the balancer or its configuration cannot do for these sides. Reads only.
    ///
    /// # Errors
    /// [`CallError`] when the plugin fails, or breaks off; [`CallError::NotProvided`] where it is no router.
    pub async fn check_split(
        &self,
        ctx: &OpContext,
        config: &str,
        sides: &[Side],
        purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, CallError> {
        let indices = self.router()?;
        let request = self.operation("traffic.check", Effect::Read, ctx, config);
        let (wit_ctx, sides) = (self.context(ctx), wit_sides(sides));
        let purpose = match purpose {
            Purpose::Switch => router::Purpose::Switch,
            Purpose::Weighted => router::Purpose::Weighted,
        };
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest
                    .call_check(&mut *store, &wit_ctx, &sides, purpose)
                    .await
            },
            |answer, diagnostics| Ok(answer.diagnostics(diagnostics)),
        )
        .await
    }

    /// Reads how traffic is split.
    ///
    /// # Errors
    /// As [`Self::check_split`], and when the answer names sides that were not asked about, names one twice or does not
    /// sum to 100.
    pub async fn split(
        &self,
        ctx: &OpContext,
        config: &str,
        sides: &[Side],
    ) -> Result<Split, CallError> {
        let indices = self.router()?;
        let request = self.operation("traffic.get", Effect::Read, ctx, config);
        let names: Vec<&str> = sides.iter().map(|side| side.name.as_str()).collect();
        let (wit_ctx, sides) = (self.context(ctx), wit_sides(sides));
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_get(&mut *store, &wit_ctx, &sides).await
            },
            |answer, split| {
                Ok(Split {
                    shares: shares(answer, &names, split.shares)?,
                    differs: split
                        .differs
                        .map(|differs| {
                            Ok::<_, Failure>(Disagreement {
                                shares: shares(answer, &names, differs.shares)?,
                                message: answer.message(&differs.message),
                            })
                        })
                        .transpose()?,
                    revision: split
                        .revision
                        .map(|revision| answer.exact("revision", revision, limits::VALUE))
                        .transpose()?,
                    settled: split.settled,
                    observed_at: match split.observed_at {
                        // A plugin without a clock leaves the stamp to the host.
                        0 => now(),
                        at => Timestamp(i64::try_from(at).unwrap_or(i64::MAX)),
                    },
                })
            },
        )
        .await
    }

    /// Splits traffic. A split that is in place is `unchanged`; with `expected_revision`, a state that is neither the one
    /// expected nor the one wanted is a conflict.
    ///
    /// # Errors
    /// As [`Self::check_split`].
    pub async fn set_split(
        &self,
        ctx: &OpContext,
        config: &str,
        sides: &[Side],
        expected_revision: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, CallError> {
        let indices = self.router()?;
        let request = self.operation("traffic.set", Effect::Write, ctx, config);
        let (wit_ctx, sides) = (self.context(ctx), wit_sides(sides));
        let shares: Vec<_> = shares
            .iter()
            .map(|share| router::Share {
                side: share.side.clone(),
                percent: share.percent,
            })
            .collect();
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest
                    .call_set(&mut *store, &wit_ctx, &sides, expected_revision, &shares)
                    .await
            },
            |answer, outcome| answer.outcome(outcome),
        )
        .await
    }

    /// Continues a [`Self::set_split`] that answered `pending`.
    ///
    /// # Errors
    /// As [`Self::check_split`].
    pub async fn poll_split(
        &self,
        ctx: &OpContext,
        config: &str,
        token: &str,
    ) -> Result<Outcome, CallError> {
        let indices = self.router()?;
        let request = self.operation("traffic.poll", Effect::Write, ctx, config);
        let wit_ctx = self.context(ctx);
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_poll(&mut *store, &wit_ctx, token).await
            },
            |answer, outcome| answer.outcome(outcome),
        )
        .await
    }

    fn router(&self) -> Result<&router::GuestIndices, CallError> {
        self.provided(
            self.exports.traffic.router.as_ref(),
            "cutover:traffic/router",
        )
    }
}

fn wit_sides(sides: &[Side]) -> Vec<router::Side> {
    let member = |member: &Member| router::Member {
        target_id: member.target_id.clone(),
        provider_id: member.provider_id.clone(),
        address: member.address.clone(),
        port: member.port,
    };
    sides
        .iter()
        .map(|side| router::Side {
            name: side.name.clone(),
            group: side.group.clone(),
            members: side.members.iter().map(member).collect(),
        })
        .collect()
}

/// One share for each side, in the order in which they were asked about.
fn shares(
    answer: &Answer<'_>,
    sides: &[&str],
    told: Vec<router::Share>,
) -> Result<Vec<Share>, Failure> {
    let mut percents: BTreeMap<&str, u8> = BTreeMap::new();
    let mut sum = 0_u32;
    if told.is_empty() {
        return Ok(Vec::new());
    }
    for share in &told {
        let Some(side) = sides.iter().find(|side| **side == share.side) else {
            let name = answer.name(&share.side);
            return Err(answer.broken(format_args!(
                "it told of side `{name}`, which was not asked about"
            )));
        };
        if percents.insert(side, share.percent).is_some() {
            return Err(answer.broken(format_args!("it told of side `{side}` twice")));
        }
        sum += u32::from(share.percent);
    }
    if sum != 100 {
        return Err(answer.broken(format_args!("its shares sum to {sum}, not to 100")));
    }
    let share = |side: &&str| Share {
        side: (*side).to_owned(),
        percent: percents.get(side).copied().unwrap_or(0),
    };
    Ok(sides.iter().map(share).collect())
}

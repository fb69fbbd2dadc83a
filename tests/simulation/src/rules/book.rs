//! The book that is kept of one simulation.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::{Action, State, SwitchAction};
use model::{AttemptId, Deployment, Fact, InstanceId, Order, Record, Shares, Timestamp};

use super::{Seen, journal, steps, traffic};
use crate::hosts::Job;
use crate::violation::Violation;

/// What is known of one simulation, by its durable records and by what happened in the world.
pub(crate) struct Rules {
    state: State,
    truth: Vec<Arc<Deployment>>,
    /// The order of the turn that records come from.
    order: Option<Order>,
    /// Every attempt that an agent began.
    begun: BTreeSet<AttemptId>,
}

impl Rules {
    /// Begins with the records that open the release, and its plan as it was meant.
    pub(crate) fn open(truth: Vec<Deployment>, opening: &[Record]) -> Result<Self, Violation> {
        let state = State::fold(opening)
            .map_err(|misfit| Violation::new("a release can be opened", misfit.to_string()))?;
        Ok(Self {
            state,
            truth: truth.into_iter().map(Arc::new).collect(),
            order: None,
            begun: BTreeSet::new(),
        })
    }

    /// The state, by the records that are durable.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// A record became durable.
    pub(crate) fn record(&mut self, record: &Record) -> Result<(), Violation> {
        if let Fact::Ordered { order, .. } = &record.fact {
            self.order = Some(match order {
                Order::For { order, .. } => (**order).clone(),
                order => order.clone(),
            });
        }
        let seen = Seen {
            state: &self.state,
            record,
            truth: &self.truth,
            order: self.order.as_ref(),
        };
        for (rule, keeps) in super::all() {
            keeps(&seen).map_err(|why| {
                let seq = record.seq;
                Violation::new(rule, format!("record {seq}: {why}"))
            })?;
        }
        kept(
            "whatever began on an instance is in the records",
            steps::knows_what_began(&seen, &self.begun),
        )?;
        let applied = self.state.apply(record);
        applied.map_err(|misfit| {
            Violation::new("records follow from those before them", misfit.to_string())
        })
    }

    /// A turn's records are durable. The state here has folded them one after the other.
    pub(crate) fn turn(&mut self, live: &State, now: Timestamp) -> Result<(), Violation> {
        self.order = None;
        kept(
            "the state is a fold of the records",
            journal::is_the_same(&self.state, live),
        )?;
        kept(
            "whatever waits says what it waits for",
            journal::says_what_it_waits_for(&self.state, now),
        )
    }

    /// Somebody reads all records, from the first on.
    pub(crate) fn whole(&self, records: &[Record]) -> Result<(), Violation> {
        let folded = State::fold(records).map_err(|misfit| {
            Violation::new("records follow from those before them", misfit.to_string())
        })?;
        kept(
            "the state is a fold of the records",
            journal::is_the_same(&folded, &self.state),
        )
    }

    /// A conductor starts an action.
    pub(crate) fn action(&self, action: &Action) -> Result<(), Violation> {
        kept(
            "no action starts before its record is durable",
            journal::is_authorised(&self.state, action),
        )
    }

    /// A conductor starts to switch the traffic.
    pub(crate) fn switch(&self, switch: &SwitchAction) -> Result<(), Violation> {
        kept(
            "no action starts before its record is durable",
            journal::is_switch_authorised(&self.state, switch),
        )
    }

    /// An agent begins an attempt on an instance, beside one that runs there, and with traffic or without.
    pub(crate) fn begins(
        &mut self,
        job: &Job,
        beside: Option<&AttemptId>,
        gives_traffic: bool,
    ) -> Result<(), Violation> {
        let attempt = job.attempt();
        let is_first = self.begun.insert(attempt.clone());
        kept(
            "no attempt is started twice",
            super::require(is_first, || format!("{attempt} began before")),
        )?;
        let Job::Step(action) = job else {
            return Ok(());
        };
        kept(
            "an instance does one thing at a time",
            super::require(beside.is_none(), || {
                format!("{attempt} begins while {beside:?} runs")
            }),
        )?;
        kept(
            "nothing begins that no durable record authorises",
            steps::is_authorised(&self.state, action),
        )?;
        kept(
            "each hook is of the revision that its event says",
            steps::is_of_its_revision(&self.state, action),
        )?;
        kept(
            "an instance that changes gets no traffic",
            traffic::has_no_traffic(action, gives_traffic),
        )?;
        if action.event == model::LifecycleEvent::AllowTraffic {
            self.joins(&action.deployment, &action.target.instance.id)?;
        }
        Ok(())
    }

    /// An instance is put into the balancer.
    pub(crate) fn joins(&self, plan: &Deployment, instance: &InstanceId) -> Result<(), Violation> {
        kept(
            "an instance is in the balancer only with a validated revision",
            traffic::is_validated(&self.state, plan, instance),
        )
    }

    /// The router splits the traffic in another way.
    pub(crate) fn splits(
        &self,
        switch: &SwitchAction,
        before: &Shares,
        to: &Shares,
    ) -> Result<(), Violation> {
        kept(
            "no traffic goes to an instance that failed or is being changed",
            traffic::gains_well(&self.state, switch, before, to),
        )
    }
}

fn kept(rule: &'static str, kept: super::Kept) -> Result<(), Violation> {
    kept.map_err(|why| Violation::new(rule, why))
}

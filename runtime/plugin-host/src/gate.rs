//! `cutover:gate`: whether a deployment goes on at the boundary between two batches.

use model::Timestamp;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::answer::Answer;
use crate::bindings::exports::cutover::gate::evaluation;
use crate::call::{Effect, OpContext, State};
use crate::failure::{CallError, Failure};
use crate::inspect::Provides;
use crate::limits;
use crate::load_balancer::Pending;
use crate::plugin::Plugin;

/// Where the deployment stands. It has to be the same in every call of one evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// `APP/GROUP`.
    pub group: String,
    pub release_id: String,
    pub deployment_id: String,
    /// The version that is being put there.
    pub version: String,
    /// Batches that are done, counted from 1.
    pub batch: u32,
    pub of_batches: u32,
    /// What has the version so far, in the order in which it got it.
    pub targets: Vec<Target>,
    /// When the batch ended.
    pub since: Timestamp,
    /// What the operator adds for this gate, a JSON object. Empty stands for `{}`.
    pub parameters: String,
}

/// An instance that the deployment has been put on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    pub id: String,
    /// `host:port`.
    pub address: Option<String>,
}

/// Something that a gate looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub name: String,
    pub value: String,
    /// What the value was held against, in words.
    pub threshold: Option<String>,
    pub passed: bool,
}

/// What a gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Pass(Vec<Evidence>),
    Fail(Vec<Evidence>),
    /// Neither can be said, and why.
    Inconclusive(String),
    /// It takes longer: wait, then [`Plugin::poll_gate`] with the token.
    Pending(Pending),
}

/// Where the exported functions are.
pub(crate) struct Exports {
    evaluation: Option<evaluation::GuestIndices>,
}

impl Exports {
    pub(crate) fn of(pre: &InstancePre<State>, provides: &Provides) -> wasmtime::Result<Self> {
        Ok(Self {
            evaluation: provides
                .gate
                .then(|| evaluation::GuestIndices::new(pre))
                .transpose()?,
        })
    }

    pub(crate) fn try_load(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> wasmtime::Result<()> {
        self.evaluation
            .as_ref()
            .map(|evaluation| evaluation.load(&mut *store, instance))
            .transpose()?;
        Ok(())
    }
}

impl Plugin {
    /// Asks whether the deployment goes on. It changes nothing, so that asking again is always safe.
    ///
    /// # Errors
    /// [`CallError`] when the plugin fails or breaks off: then nothing is known, which is not a verdict.
    pub async fn evaluate_gate(
        &self,
        ctx: &OpContext,
        config: &str,
        input: &Input,
    ) -> Result<Verdict, CallError> {
        let indices = self.provided(
            self.exports.gate.evaluation.as_ref(),
            "cutover:gate/evaluation",
        )?;
        let request = self.operation("gate.evaluate", Effect::Read, ctx, config);
        let (wit_ctx, input) = (self.context(ctx), input.wit());
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_evaluate(&mut *store, &wit_ctx, &input).await
            },
            verdict,
        )
        .await
    }

    /// Continues an evaluation that answered `pending`, with the input that it began with.
    ///
    /// # Errors
    /// As [`Self::evaluate_gate`].
    pub async fn poll_gate(
        &self,
        ctx: &OpContext,
        config: &str,
        input: &Input,
        token: &str,
    ) -> Result<Verdict, CallError> {
        let indices = self.provided(
            self.exports.gate.evaluation.as_ref(),
            "cutover:gate/evaluation",
        )?;
        let request = self.operation("gate.poll", Effect::Read, ctx, config);
        let (wit_ctx, input) = (self.context(ctx), input.wit());
        self.call(
            request,
            async |store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_poll(&mut *store, &wit_ctx, &input, token).await
            },
            verdict,
        )
        .await
    }
}

impl Input {
    fn wit(&self) -> evaluation::Input {
        let targets = self.targets.iter();
        let parameters = if self.parameters.trim().is_empty() {
            "{}"
        } else {
            &self.parameters
        };
        evaluation::Input {
            group: self.group.clone(),
            release_id: self.release_id.clone(),
            deployment_id: self.deployment_id.clone(),
            version: self.version.clone(),
            batch: self.batch,
            of_batches: self.of_batches,
            targets: targets
                .map(|target| evaluation::Target {
                    id: target.id.clone(),
                    address: target.address.clone(),
                })
                .collect(),
            since: u64::try_from(self.since.0).unwrap_or(0),
            parameters: parameters.to_owned(),
        }
    }
}

fn verdict(answer: &Answer<'_>, verdict: evaluation::Verdict) -> Result<Verdict, Failure> {
    Ok(match verdict {
        evaluation::Verdict::Pass(found) => {
            // A gate that found nothing has not looked, and a deployment must not go on because of it.
            if found.is_empty() {
                return Err(answer.broken("it passed without any evidence"));
            }
            Verdict::Pass(evidence(answer, found))
        }
        evaluation::Verdict::Fail(found) => Verdict::Fail(evidence(answer, found)),
        evaluation::Verdict::Inconclusive(why) => {
            let why = answer.message(&why);
            Verdict::Inconclusive(if why.trim().is_empty() {
                "the plugin gave no reason".to_owned()
            } else {
                why
            })
        }
        evaluation::Verdict::Pending(pending) => Verdict::Pending(answer.pending(pending)?),
    })
}

/// The first of what was found, of which what did not pass is never left out for what did.
fn evidence(answer: &Answer<'_>, mut found: Vec<evaluation::Evidence>) -> Vec<Evidence> {
    if found.len() > limits::EVIDENCE {
        found.sort_by_key(|evidence| evidence.passed);
        found.truncate(limits::EVIDENCE);
    }
    found
        .into_iter()
        .map(|evidence| Evidence {
            name: answer.name(&evidence.name),
            value: answer.message(&evidence.value),
            threshold: evidence
                .threshold
                .map(|threshold| answer.message(&threshold)),
            passed: evidence.passed,
        })
        .collect()
}

//! Carrying out a step by its kind's plugin, and what that has done on the instance.
//!
//! The plugin is called under one idempotency key for all attempts at a step. Which call comes next is decided by
//! [`engine::call`]. What it asks of the instance are errands: each an attempt of its own for the instance's agent, with
//! the conductor's turn, and each told in the log of the step.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Action;
use engine::call::{Answer, Call, End, Next, Operation};
use model::{
    AttemptId, Calls, Cause, Done, Ending, Errand, Exec, Package, PluginName, Timestamp, Undone,
    Why,
};
use plugin_host::deployment_kind::{Performed, Release, Target};
use plugin_host::load_balancer::Outcome;
use plugin_host::{Attribute, CallError, OpContext, Plugin};

use crate::authority::Authority;
use crate::balancer::{Failed, idempotency_key, with_grace};
use crate::drive::now;
use crate::environment::cache_folder;
use crate::logs::Sink;
use crate::perform::failed;
use crate::plan::chain;
use crate::{Conductor, Observer, Place};

/// One attempt at a step that a plugin carries out.
pub(crate) struct Step<'a> {
    pub(crate) conductor: &'a Conductor,
    pub(crate) authority: &'a Authority,
    pub(crate) action: &'a Action,
    /// What the step belongs to.
    pub(crate) package: &'a Package,
    /// What a hook of the event would have as its environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) sink: Arc<Sink>,
}

impl Step<'_> {
    /// Calls the plugin until the step is done, or will not be.
    pub(crate) async fn carry_out(self, observer: &dyn Observer) -> Ending {
        let Some((calls, timeout)) = self.action.deployment.calls.as_ref().and_then(|calls| {
            let timeout = calls.events.get(&self.action.event)?;
            Some((calls, *timeout))
        }) else {
            let reason = "nothing is named that carries it out".to_owned();
            return failed(Cause::Invalid, reason);
        };
        let plugin = match self.conductor.plugins.get(&calls.plugin).await {
            Ok(plugin) => plugin,
            Err(error) => return failed(Cause::CallFailed, chain(&error)),
        };
        let instance = Arc::new(self.instance());
        let exchange = Exchange {
            step: &self,
            plugin: &plugin,
            calls,
            instance: instance.clone(),
        };
        let end = exchange.carry_out(timeout, observer).await;
        self.ended(&calls.plugin, end, &instance)
    }

    fn instance(&self) -> Instance {
        Instance {
            conductor: self.conductor.clone(),
            authority: self.authority.clone(),
            action: self.action.clone(),
            env: self.env.clone(),
            cache: cache_folder(&self.action.deployment, self.package),
            sink: self.sink.clone(),
            errands: AtomicU32::new(0),
            unreachable: Mutex::default(),
        }
    }

    /// The ending of the attempt, which its log says as well.
    fn ended(&self, plugin: &PluginName, end: End, instance: &Instance) -> Ending {
        let unreachable = instance
            .unreachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (end, unreachable) {
            (End::Done { note }, _) => {
                let told = note.as_deref().unwrap_or("as it was asked to");
                self.sink.say(&format!("<== done: {told}"));
                Ending::Succeeded {
                    exit_code: None,
                    log: self.sink.written(),
                    note: note.map(|note| format!("plugin `{plugin}`: {note}")),
                }
            }
            (End::Failed { .. } | End::Lost { .. }, Some(reason)) => {
                self.sink.say(&format!("<== unreachable: {reason}"));
                Ending::Unreachable { reason }
            }
            (End::Failed { cause, reason }, None) => {
                self.sink.say(&format!("<== failed: {reason}"));
                Ending::Failed {
                    cause,
                    reason: said_by(plugin, &reason),
                    script: None,
                    exit_code: None,
                    log: self.sink.written(),
                }
            }
            (End::Lost { reason }, None) => {
                self.sink.say(&format!("<== outcome unknown: {reason}"));
                Ending::Lost { reason }
            }
        }
    }
}

/// The calls of one attempt.
struct Exchange<'a> {
    step: &'a Step<'a>,
    plugin: &'a Plugin,
    calls: &'a Calls,
    instance: Arc<Instance>,
}

impl Exchange<'_> {
    async fn carry_out(&self, timeout: Duration, observer: &dyn Observer) -> End {
        let Action {
            deployment, target, ..
        } = self.step.action;
        let place = Place {
            deployment: deployment.id.clone(),
            instance: target.instance.id.clone(),
        };
        let mut operation = Operation::new(now(), timeout);
        let mut call = Call::Run;
        let mut deadline = operation.deadline();
        loop {
            // No agent checks a call itself, so the journal says that it is this process's to make.
            self.step.authority.confirm().await;
            self.step.sink.say(&self.announced(&call));
            let answer = self.call(&call, deadline).await;
            match operation.answer(now(), &call, answer) {
                Next::Call { after, call: next } => {
                    let what = operation.waiting_for();
                    self.step.sink.say(&format!("    waits {after:?}: {what}"));
                    observer.waiting(&place, self.step.action.event, &what);
                    tokio::time::sleep(after).await;
                    call = next;
                    // A call that begins at the very end is still to be answered.
                    deadline = with_grace(operation.deadline());
                }
                Next::End(end) => return end,
            }
        }
    }

    fn announced(&self, call: &Call) -> String {
        let (plugin, event) = (&self.calls.plugin, self.step.action.event);
        let attempt = self.step.action.attempt;
        match call {
            Call::Run => format!("==> plugin `{plugin}` runs {event}, attempt {attempt}"),
            Call::Poll { .. } => format!("==> plugin `{plugin}` goes on with {event}"),
        }
    }

    async fn call(&self, call: &Call, deadline: Timestamp) -> Answer {
        let limit = deadline.since(now());
        let (ctx, on) = (self.context(deadline), self.instance.clone());
        let config = &self.calls.config;
        let event = self.step.action.event;
        let outcome = match call {
            Call::Run => {
                let release = self.release();
                self.plugin
                    .run(&ctx, config, on, &release, event, limit)
                    .await
            }
            Call::Poll { token } => self.plugin.poll_run(&ctx, config, on, token, limit).await,
        };
        answer_of(outcome)
    }

    /// The same at every attempt, but for the attempt's number.
    fn context(&self, deadline: Timestamp) -> OpContext {
        let Action {
            deployment,
            target,
            event,
            attempt,
            ..
        } = self.step.action;
        let run = self.step.authority.release().as_str();
        let step = format!("{}.{}.{event}", deployment.id, target.instance.id);
        OpContext {
            run_id: run.to_owned(),
            idempotency_key: idempotency_key(&[run, &step, &deployment.kind, &self.calls.item]),
            step_id: step,
            attempt: *attempt,
            deadline: Some(deadline),
            ..OpContext::default()
        }
    }

    fn release(&self) -> Release {
        let Action {
            deployment, target, ..
        } = self.step.action;
        let version = |key| {
            let package = deployment.packages.get(key)?;
            Some(package.revision.version.to_string())
        };
        Release {
            deployment_id: deployment.id.to_string(),
            outgoing_version: target.outgoing.as_ref().and_then(version),
            incoming_version: version(&target.incoming),
            item: self.calls.item.clone(),
        }
    }
}

fn answer_of(outcome: Result<Outcome, CallError>) -> Answer {
    match outcome {
        Ok(Outcome::Unchanged) => Answer::Unchanged,
        Ok(Outcome::Changed(attributes)) => Answer::Changed {
            what: spoken(&attributes),
        },
        Ok(Outcome::Pending(pending)) => Answer::Pending {
            token: pending.token,
            after: pending.poll_after,
            message: pending.message,
        },
        Err(error) => {
            let Failed {
                class,
                message,
                hint,
                retry_after,
            } = Failed::of(&error);
            Answer::Failure {
                class,
                message: match hint {
                    Some(hint) => format!("{message}; {hint}"),
                    None => message,
                },
                retry_after,
            }
        }
    }
}

/// What a plugin said, with its name, which messages of the host have already.
fn said_by(plugin: &PluginName, text: &str) -> String {
    let name = format!("plugin `{plugin}`");
    if text.contains(&name) {
        text.to_owned()
    } else {
        format!("{name}: {text}")
    }
}

/// What was changed, as `key=value`.
fn spoken(attributes: &[Attribute]) -> Option<String> {
    let pairs = attributes
        .iter()
        .map(|Attribute { key, value }| format!("{key}={value}"));
    let text = pairs.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

/// The instance of a step, as its plugin gets it.
struct Instance {
    conductor: Conductor,
    authority: Authority,
    action: Action,
    env: Vec<(String, String)>,
    /// The folder of the package that the event belongs to.
    cache: String,
    sink: Arc<Sink>,
    /// How many errands the attempt has had done.
    errands: AtomicU32,
    /// Why an errand did not come through, where one did not.
    unreachable: Mutex<Option<String>>,
}

impl Target for Instance {
    fn id(&self) -> String {
        self.action.target.instance.id.to_string()
    }

    fn attributes(&self) -> Vec<(String, String)> {
        let instance = &self.action.target.instance;
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let address = instance.address.iter().map(|text| pair("address", text));
        let labels = instance.labels.iter().map(|label| pair("label", label));
        [
            pair("host", &instance.host.to_string()),
            pair("rootdir", &instance.rootdir),
            pair("package", &self.cache),
        ]
        .into_iter()
        .chain(address)
        .chain(labels)
        .collect()
    }

    fn perform(&self, errand: Errand) -> Performed<'_> {
        Box::pin(self.send(errand))
    }

    fn note(&self, line: &str) {
        self.sink.say(line);
    }
}

impl Instance {
    async fn send(&self, errand: Errand) -> Result<Done, Undone> {
        let Action {
            deployment,
            target,
            event,
            attempt,
            ..
        } = &self.action;
        let number = self.errands.fetch_add(1, Ordering::Relaxed) + 1;
        let instance = &target.instance;
        let command = fleet::Command {
            attempt: AttemptId::of_errand(&deployment.id, &instance.id, *event, *attempt, number),
            rootdir: instance.rootdir.clone(),
            work: fleet::Work::Errand {
                cache: self.cache.clone(),
                errand: self.with_environment(errand),
            },
            // Whoever makes a call again makes it as another attempt.
            asked: fleet::Asked::Never,
            then: None,
            fence: self.authority.fence(),
        };
        self.authority.claim().await;
        let part = Arc::new(Part {
            begins: fleet::LogSink::position(&*self.sink),
            sink: self.sink.clone(),
            is_over: AtomicBool::new(false),
        });
        // A call that is given up leaves its errand behind, which goes on telling what nobody waits for.
        let _over = Over(part.clone());
        let fleet = &self.conductor.fleet;
        let done = fleet.errand(&instance.host, command, part).await;
        if let Err(undone) = &done
            && undone.why == Why::Unreachable
        {
            let mut unreachable = self
                .unreachable
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *unreachable = Some(undone.reason.clone());
        }
        done
    }

    /// A program has the environment of a hook, and what the plugin gives it over that.
    fn with_environment(&self, errand: Errand) -> Errand {
        match errand {
            Errand::Exec(exec) => {
                let given = self.env.iter().cloned();
                Errand::Exec(Exec {
                    env: given.chain(exec.env).collect(),
                    ..exec
                })
            }
            other => other,
        }
    }
}

/// The part of a step's log that one errand writes.
struct Part {
    sink: Arc<Sink>,
    begins: u64,
    is_over: AtomicBool,
}

impl fleet::LogSink for Part {
    fn position(&self) -> u64 {
        self.sink.position().saturating_sub(self.begins)
    }

    fn append(&self, offset: u64, bytes: &[u8]) {
        if !self.is_over.load(Ordering::Relaxed) {
            self.sink.append(self.begins + offset, bytes);
        }
    }

    fn waiting(&self, what: &str) {
        if !self.is_over.load(Ordering::Relaxed) {
            self.sink.waiting(what);
        }
    }
}

/// Closes the part of a log when nobody waits for its errand any more.
struct Over(Arc<Part>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

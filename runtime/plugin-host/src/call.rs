//! One call of a plugin: a store and an instance of its own, bounds on all that it can use up, and a failure that
//! says which bound it hit. Nothing of a call outlives it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Timestamp;
use tokio::time::Instant;
use wasmtime::component::{Instance, ResourceTable};
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::answer::Answer;
use crate::bindings::cutover::plugin::types as wit;
use crate::capabilities::cancel::Cancellation;
use crate::capabilities::http::Http;
use crate::capabilities::output::{Output, Stream};
use crate::capabilities::progress::Throttle;
use crate::deployment_kind::Target;
use crate::failure::{CallError, Failure, FailureClass, code};
use crate::pattern::Capability;
use crate::plugin::{Plugin, Shared};

/// Identity of one operation, the same on every retry, on resume after a crash and on every poll of it.
#[derive(Debug, Clone, Default)]
pub struct OpContext {
    pub run_id: String,
    pub step_id: String,
    pub idempotency_key: String,
    /// Counted from 1.
    pub attempt: u32,
    /// Latest end; the limit of a call holds in any case.
    pub deadline: Option<Timestamp>,
    /// Report what would change and change nothing.
    pub dry_run: bool,
    /// Ends the call early.
    pub cancellation: Cancellation,
}

/// What a call may do to the world, which decides what its sudden end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Computes an answer; no capability is granted.
    Pure,
    Read,
    Write,
}

/// What is called, and for whom.
pub(crate) struct Request<'a> {
    /// As messages name it, for example `load-balancer.register`.
    pub(crate) function: &'static str,
    pub(crate) effect: Effect,
    /// None in pure calls.
    pub(crate) ctx: Option<&'a OpContext>,
    /// The plugin's configuration, JSON.
    pub(crate) config: &'a str,
    pub(crate) limit: Duration,
}

/// What the host functions see of the call that they are part of.
pub(crate) struct State {
    pub(crate) plugin: Arc<Shared>,
    pub(crate) function: &'static str,
    pub(crate) effect: Effect,
    pub(crate) run_id: String,
    pub(crate) step_id: String,
    pub(crate) config: String,
    pub(crate) cancellation: Cancellation,
    pub(crate) progress: Throttle,
    pub(crate) output: Arc<Mutex<Output>>,
    pub(crate) table: ResourceTable,
    deadline: Instant,
    memory: Memory,
    /// Most components never touch WASI, and making its context costs more than all the rest.
    wasi: Option<Box<WasiCtx>>,
    /// Likewise.
    http: Option<Box<Http>>,
    /// The instance that the call is for, where it is for one.
    pub(crate) target: Option<Arc<dyn Target>>,
    /// Codes of the failures that the host gave to the plugin, which it may give back.
    issued: Vec<&'static str>,
}

impl State {
    /// Lets a capability be used, or makes the failure that the plugin gets instead.
    pub(crate) fn allow(&mut self, capability: &Capability) -> Result<(), wit::Failure> {
        let outcome = self.plugin.check(self.effect, self.function, capability);
        outcome.map_err(|denial| {
            tracing::warn!(plugin = %self.plugin.name, capability = %capability, "capability was denied");
            self.fail(denial)
        })
    }

    /// A failure on its way into the plugin.
    pub(crate) fn fail(&mut self, failure: Failure) -> wit::Failure {
        if let Some(code) = code::ALL.iter().find(|code| **code == failure.code) {
            self.issued.push(code);
        }
        failure.into()
    }

    /// A failed operation of the host, safe to repeat.
    pub(crate) fn fail_io(&mut self, what: &str, error: &std::io::Error) -> wit::Failure {
        let class = match error.kind() {
            std::io::ErrorKind::NotFound => FailureClass::NotFound,
            std::io::ErrorKind::PermissionDenied => FailureClass::Denied,
            _ => FailureClass::Transient,
        };
        self.fail(Failure::host(class, code::IO, format!("{what}: {error}")))
    }

    /// A use of a capability that it does not allow.
    pub(crate) fn fail_invalid(&mut self, message: impl Into<String>) -> wit::Failure {
        self.fail(Failure::host(FailureClass::Invalid, code::INVALID, message))
    }

    /// A function that this host has, but does not carry out.
    pub(crate) fn fail_unsupported(&mut self, function: &str) -> wit::Failure {
        let message = format!("this host does not carry out `{function}`");
        self.fail(Failure::host(
            FailureClass::Unsupported,
            code::UNSUPPORTED,
            message,
        ))
    }

    /// The time that the call has left.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// What the requests of this call share, and the table of its handles.
    pub(crate) fn http_and_table(&mut self) -> (&mut Http, &mut ResourceTable) {
        let http = self.http.get_or_insert_with(|| {
            let http = Http::new(&self.plugin, self.function, self.effect, self.deadline);
            Box::new(http)
        });
        (http, &mut self.table)
    }

    pub(crate) fn is_past_deadline(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Self {
            wasi,
            output,
            table,
            ..
        } = self;
        let ctx = wasi.get_or_insert_with(|| {
            // Empty: no environment, no arguments, no directories, no network.
            let mut builder = WasiCtxBuilder::new();
            builder
                .stdout(Stream::new("stdout", output))
                .stderr(Stream::new("stderr", output));
            builder
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false);
            Box::new(builder.build())
        });
        WasiCtxView { ctx, table }
    }
}

/// Counts linear memory over all core instances of a component.
struct Memory {
    used: usize,
    limit: usize,
    was_denied: bool,
}

/// Elements of one table: far more than compilers of any language need, and little memory.
const TABLE_ELEMENTS: usize = 200_000;

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let used = self.used.saturating_add(desired.saturating_sub(current));
        self.was_denied = used > self.limit;
        if !self.was_denied {
            self.used = used;
        }
        Ok(!self.was_denied)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        1_000
    }

    fn tables(&self) -> usize {
        1_000
    }

    fn memories(&self) -> usize {
        100
    }
}

/// Ends code that runs past its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the deadline has passed")]
struct DeadlinePassed;

/// Ends code that goes on after it was cancelled.
#[derive(Debug, thiserror::Error)]
#[error("the call was cancelled")]
struct Cancelled;

/// How a call ended when the plugin did not answer.
enum End {
    Deadline,
    Cancelled,
    Error(wasmtime::Error),
}

impl Plugin {
    /// Runs `body` in a fresh instance and lets `check` turn what the plugin answered into something to rely on.
    pub(crate) async fn call<W, R>(
        &self,
        request: Request<'_>,
        body: impl AsyncFnOnce(
            &mut Store<State>,
            &Instance,
        ) -> wasmtime::Result<Result<W, wit::Failure>>,
        check: impl FnOnce(&Answer<'_>, W) -> Result<R, Failure>,
    ) -> Result<R, CallError> {
        let limit = self.time_left(&request)?;
        let deadline = Instant::now() + limit;
        let _running = self.host.engine.run();
        let mut store = self.store(&request, deadline);
        let cancellation = store.data().cancellation.clone();
        let grace = self.shared.limits.cancel_grace;

        let mut has_started = false;
        let work = async {
            // Never closed, so the error cannot happen; without a permit the call is merely not counted.
            let _permit = self.turns.acquire().await.ok();
            has_started = true;
            let instance = self.pre.instantiate_async(&mut store).await?;
            body(&mut store, &instance).await
        };
        let ended = tokio::select! {
            biased;
            result = work => result.map_err(End::Error),
            () = tokio::time::sleep_until(deadline) => Err(End::Deadline),
            () = cancellation.cut_off(grace) => Err(End::Cancelled),
        };

        let state = store.into_data();
        state.progress.flush();
        let answer = Answer::new(&self.shared, request.function, &state.issued);
        match ended {
            Ok(Ok(value)) => check(&answer, value).map_err(CallError::from),
            Ok(Err(failure)) => Err(answer.failure(failure).into()),
            Err(end) => {
                // A call that waited for its turn in vain has done nothing, whatever it was going to do.
                let effect = if has_started {
                    request.effect
                } else {
                    Effect::Read
                };
                let request = Request { effect, ..request };
                Err(self.sudden_end(&request, &state, &end, limit).into())
            }
        }
    }

    /// The time for a call: its limit, or what its caller's deadline leaves of it.
    fn time_left(&self, request: &Request<'_>) -> Result<Duration, CallError> {
        let Some(deadline) = request.ctx.and_then(|ctx| ctx.deadline) else {
            return Ok(request.limit);
        };
        let left = deadline.since(now());
        if left.is_zero() {
            let (plugin, function) = (&self.shared.name, request.function);
            let message = format!(
                "plugin `{plugin}` was not called: the deadline of `{function}` had passed"
            );
            return Err(Failure::host(FailureClass::Cancelled, code::DEADLINE, message).into());
        }
        Ok(left.min(request.limit))
    }

    fn store(&self, request: &Request<'_>, deadline: Instant) -> Store<State> {
        let limits = &self.shared.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let (run_id, step_id) = request
            .ctx
            .map(|ctx| (ctx.run_id.clone(), ctx.step_id.clone()))
            .unwrap_or_default();
        let state = State {
            plugin: Arc::clone(&self.shared),
            function: request.function,
            effect: request.effect,
            cancellation: request
                .ctx
                .map(|ctx| ctx.cancellation.clone())
                .unwrap_or_default(),
            progress: Throttle::new(&self.shared, &run_id, &step_id),
            output: Arc::new(Mutex::new(Output::new(&self.shared, request.function))),
            run_id,
            step_id,
            config: request.config.to_owned(),
            table,
            deadline,
            memory: Memory {
                used: 0,
                limit: limits.memory,
                was_denied: false,
            },
            wasi: None,
            http: None,
            target: None,
            issued: Vec::new(),
        };
        let mut store = Store::new(self.host.engine.wasm(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.copied);
        store.set_max_component_handles(limits.handles);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(on_tick);
        store
    }

    /// The failure that stands for an answer that never came.
    fn sudden_end(
        &self,
        request: &Request<'_>,
        state: &State,
        end: &End,
        limit: Duration,
    ) -> Failure {
        let (plugin, function) = (&self.shared.name, request.function);
        let error = match end {
            End::Error(error) => Some(error),
            End::Deadline | End::Cancelled => None,
        };
        let is = |end_is: bool, of_error: fn(&wasmtime::Error) -> bool| {
            end_is || error.is_some_and(of_error)
        };
        let (code, message) = if is(matches!(end, End::Cancelled), |error| {
            error.is::<Cancelled>()
        }) {
            (
                code::CANCELLED,
                format!("plugin `{plugin}` was cancelled in `{function}`"),
            )
        } else if is(matches!(end, End::Deadline), |error| {
            error.is::<DeadlinePassed>()
        }) {
            (
                code::DEADLINE,
                format!("plugin `{plugin}` did not answer `{function}` within {limit:?}"),
            )
        } else if state.memory.was_denied {
            let limit = mebibytes(self.shared.limits.memory);
            (
                code::MEMORY,
                format!("plugin `{plugin}` used up its memory limit of {limit} in `{function}`"),
            )
        } else {
            let cause = error
                .map(|error| error.root_cause().to_string())
                .unwrap_or_default();
            let cause = cause.strip_prefix("wasm trap: ").unwrap_or(&cause);
            (
                code::TRAP,
                format!("plugin `{plugin}` crashed in `{function}`: {cause}"),
            )
        };
        if let Some(error) = error {
            tracing::debug!(plugin = %plugin, function, error = ?error, "call ended without an answer");
        }
        let changes_nothing =
            request.effect != Effect::Write || request.ctx.is_some_and(|ctx| ctx.dry_run);
        let class = match (changes_nothing, code) {
            (false, _) => FailureClass::UnknownOutcome,
            (true, code::CANCELLED) => FailureClass::Cancelled,
            (true, _) => FailureClass::Transient,
        };
        let mut failure = Failure::host(class, code, message);
        failure.output = state
            .output
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tail(&self.shared.secrets);
        failure
    }
}

/// Runs every tick of the clock while the plugin's own code runs.
fn on_tick(store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data();
    if state.is_past_deadline() {
        return Err(DeadlinePassed.into());
    }
    if state
        .cancellation
        .is_cut_off(state.plugin.limits.cancel_grace)
    {
        return Err(Cancelled.into());
    }
    Ok(UpdateDeadline::Yield(1))
}

/// The time by the machine's clock, as plugins are told it.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn mebibytes(bytes: usize) -> String {
    if bytes >= 1 << 20 {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

/// The context as the plugin gets it.
pub(crate) fn wit_context(ctx: &OpContext, limit: Duration) -> wit::OpContext {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let latest = now().0.saturating_add(millis(limit));
    let deadline = ctx
        .deadline
        .map_or(latest, |deadline| deadline.0.min(latest));
    wit::OpContext {
        run_id: ctx.run_id.clone(),
        step_id: ctx.step_id.clone(),
        idempotency_key: ctx.idempotency_key.clone(),
        attempt: ctx.attempt,
        deadline: u64::try_from(deadline).unwrap_or(0),
        dry_run: ctx.dry_run,
        traceparent: None,
    }
}

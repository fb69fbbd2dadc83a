//! The WebAssembly engine, and the clock that interrupts code which does not come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The time between two looks at the deadline of running code.
const TICK: Duration = Duration::from_millis(10);

/// How many ticks without a call the clock goes on for. Waking its thread costs as much as a call, and calls come in
/// bursts.
const LINGER: u32 = 100;

/// The engine with its ticker thread, which runs while calls do and a little longer.
pub(crate) struct Engine {
    engine: wasmtime::Engine,
    clock: Arc<Clock>,
    ticker: Option<JoinHandle<()>>,
}

struct Clock {
    running_calls: AtomicUsize,
    /// Whether the ticker waits to be woken. INVARIANT: it looks for calls after it has said so, and a call looks at it
    /// after it has counted itself, so one of the two sees the other.
    is_parked: AtomicBool,
    is_closed: AtomicBool,
}

/// Keeps the clock ticking until it is dropped.
pub(crate) struct Running<'a> {
    clock: &'a Clock,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.clock.running_calls.fetch_sub(1, Ordering::Release);
    }
}

impl Engine {
    pub(crate) fn new() -> wasmtime::Result<Self> {
        let mut config = wasmtime::Config::new();
        config.wasm_component_model(true);
        config.epoch_interruption(true);
        // Components built for the stable WASI 0.2 need no concurrency within a call, and the code behind it is
        // where most of the advisories are.
        config.concurrency_support(false);
        config.wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
        let engine = wasmtime::Engine::new(&config)?;

        let clock = Arc::new(Clock {
            running_calls: AtomicUsize::new(0),
            is_parked: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        });
        let ticker = std::thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn({
                let (engine, clock) = (engine.clone(), Arc::clone(&clock));
                move || tick(&engine, &clock)
            })?;
        Ok(Self {
            engine,
            clock,
            ticker: Some(ticker),
        })
    }

    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// Starts the clock for one call.
    pub(crate) fn run(&self) -> Running<'_> {
        self.clock.running_calls.fetch_add(1, Ordering::SeqCst);
        if self.clock.is_parked.load(Ordering::SeqCst)
            && let Some(ticker) = &self.ticker
        {
            ticker.thread().unpark();
        }
        Running { clock: &self.clock }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.clock.is_closed.store(true, Ordering::Release);
        if let Some(ticker) = self.ticker.take() {
            ticker.thread().unpark();
            // The thread can only have ended; there is nothing to learn from how.
            let _ = ticker.join();
        }
    }
}

fn tick(engine: &wasmtime::Engine, clock: &Clock) {
    let mut idle = LINGER;
    while !clock.is_closed.load(Ordering::Acquire) {
        if idle < LINGER {
            // Parking instead of sleeping lets `drop` end the thread at once.
            std::thread::park_timeout(TICK);
            engine.increment_epoch();
            let is_idle = clock.running_calls.load(Ordering::Acquire) == 0;
            idle = if is_idle { idle + 1 } else { 0 };
            continue;
        }
        clock.is_parked.store(true, Ordering::SeqCst);
        if clock.running_calls.load(Ordering::SeqCst) == 0
            && !clock.is_closed.load(Ordering::Acquire)
        {
            std::thread::park();
        }
        clock.is_parked.store(false, Ordering::SeqCst);
        idle = 0;
    }
}

//! The WebAssembly engine, and the clock that interrupts code which does not come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The time between two looks at the deadline of running code.
const TICK: Duration = Duration::from_millis(10);

/// The engine with its ticker thread, which runs only while a call does.
pub(crate) struct Engine {
    engine: wasmtime::Engine,
    clock: Arc<Clock>,
    ticker: Option<JoinHandle<()>>,
}

struct Clock {
    running_calls: AtomicUsize,
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
        if self.clock.running_calls.fetch_add(1, Ordering::AcqRel) == 0
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
    while !clock.is_closed.load(Ordering::Acquire) {
        if clock.running_calls.load(Ordering::Acquire) == 0 {
            std::thread::park();
        } else {
            // Parking instead of sleeping lets `drop` end the thread at once.
            std::thread::park_timeout(TICK);
            engine.increment_epoch();
        }
    }
}

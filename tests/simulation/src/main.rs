//! Simulates many releases, on all processors: `cargo xtask simulate`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the terminal"
)]

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use simulation::{Failure, Summary, check};

/// Simulates releases and checks every rule
#[derive(Parser)]
struct Arguments {
    /// How many seeds, from the first on
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// One seed alone
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Tell what breaks a rule as it is, instead of making it as small as it gets
    #[arg(long)]
    whole: bool,
}

/// What all threads have found.
#[derive(Default)]
struct Found {
    records: u64,
    conductors: u64,
    broken: Vec<Failure>,
}

/// After so many failures the others say no more.
const ENOUGH_FAILURES: usize = 10;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.first, arguments.seeds),
    };
    let began = Instant::now();
    let found = simulate(first, count);
    let took = began.elapsed();
    if let Some(first) = found.broken.first() {
        let told = match arguments.whole {
            true => first.whole(),
            false => first.explained(),
        };
        println!("{told}\n");
    }
    let rate = count as f64 / took.as_secs_f64().max(0.001);
    eprintln!(
        "{count} seeds in {:.1} s, {rate:.0} seeds/s: {} records, {} conductors, {} failures",
        took.as_secs_f64(),
        found.records,
        found.conductors,
        found.broken.len()
    );
    if found.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Checks the seeds on all processors.
fn simulate(first: u64, count: u64) -> Found {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let found = Mutex::new(Found::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || !note(&found, check(first + index)) {
                        return;
                    }
                }
            });
        }
        show_progress(&next, count, began);
    });
    found
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Adds a result to the others. Answers whether more are wanted.
fn note(found: &Mutex<Found>, result: Result<Summary, Box<Failure>>) -> bool {
    let mut found = found
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    match result {
        Ok(summary) => {
            found.records += summary.records as u64;
            found.conductors += summary.conductors;
        }
        Err(failure) => {
            println!("{failure}\n");
            found.broken.push(*failure);
        }
    }
    found.broken.len() < ENOUGH_FAILURES
}

fn show_progress(next: &AtomicU64, count: u64, began: Instant) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    loop {
        let done = next.load(Ordering::Relaxed).min(count);
        let rate = done as f64 / began.elapsed().as_secs_f64().max(0.001);
        eprint!("\r{done} of {count} seeds, {rate:.0} seeds/s ");
        if done >= count {
            eprintln!();
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

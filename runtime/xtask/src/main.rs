//! Tasks of this repository's own development: `cargo xtask TASK`.
//!
//! One file per task; `toolchain` finds compilers for the tasks that need one.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task talks to the terminal"
)]

mod abilities;
mod agent;
mod apt;
mod bench;
mod demo;
mod faults;
mod load;
mod plugins;
mod python;
mod simulate;
mod test;
mod toolchain;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Builds and checks what cargo alone does not
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Deploy, upgrade and roll back a real service while requests run
    Demo,
    /// Check and test everything
    Test,
    /// Measure against the targets
    Bench(bench::Bench),
    /// Carry out releases at random over a simulated fleet, and check every rule
    Simulate(simulate::Simulate),
    /// Release behind each cloud's fake with every fault at every request
    Faults,
    /// Build the first-party plugins into `target/plugins`
    Plugins,
    /// Write the table of what each adapter can do, as the built plugins say it, into `plugins/README.md`
    Abilities,
    /// Build the agent for hosts, static and small, into `target/agents`
    Agent,
    /// Build the components that tests use into `target/components`
    Components,
    /// Install the vendors' clients that tests of clouds drive into `target/python`
    Python,
}

fn main() -> Result<()> {
    let root = workspace_root()?;
    match Arguments::parse().task {
        Task::Demo => demo::run(&root),
        Task::Test => test::run(&root),
        Task::Bench(bench) => bench::run(&root, &bench),
        Task::Simulate(simulate) => simulate::run(&root, &simulate),
        Task::Faults => faults::run(&root),
        Task::Plugins => plugins::build(&root, plugins::Set::FirstParty),
        Task::Abilities => abilities::write(&root),
        Task::Agent => agent::build(&root),
        Task::Components => plugins::build(&root, plugins::Set::Test),
        Task::Python => python::install(&root),
    }
}

/// The folder of the workspace's `Cargo.toml`, two levels above this crate.
fn workspace_root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here
        .ancestors()
        .nth(2)
        .context("find the workspace above `runtime/xtask`")?;
    Ok(root.to_owned())
}

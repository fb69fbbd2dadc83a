//! `cargo xtask simulate`: builds the simulation alone in release and starts it, on all processors.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

/// What is handed on to the simulation.
#[derive(Args)]
pub(crate) struct Simulate {
    /// How many seeds
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// One seed alone
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Tell what breaks a rule as it is, instead of making it as small as it gets
    #[arg(long)]
    whole: bool,
}

pub(crate) fn run(root: &Path, simulate: &Simulate) -> Result<()> {
    let mut build = Command::new("cargo");
    build.current_dir(root).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "cutover-simulation",
    ]);
    ensure!(
        build.status().context("run `cargo build`")?.success(),
        "the build failed"
    );
    let mut program = Command::new(root.join("target/release/cutover-simulation"));
    match simulate.seed {
        Some(seed) => program.args(["--seed", &seed.to_string()]),
        None => program
            .args(["--seeds", &simulate.seeds.to_string()])
            .args(["--first", &simulate.first.to_string()]),
    };
    if simulate.whole {
        program.arg("--whole");
    }
    let status = program
        .current_dir(root)
        .status()
        .context("start the simulation")?;
    ensure!(status.success(), "a rule was broken");
    Ok(())
}

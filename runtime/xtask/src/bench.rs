//! `cargo xtask bench`: builds in release what is measured and what measures, and starts it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{demo, plugins};

/// What is handed on to the measuring program.
#[derive(Args)]
pub(crate) struct Bench {
    /// Options of the measuring program: `--output json`, `--only disk,hooks,calls,start,scale,plans`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Builds and measures in `target/bench`.
pub(crate) fn run(root: &Path, bench: &Bench) -> Result<()> {
    // One of the measurements is made behind it; without it that one is left out.
    let _ = demo::haproxy();
    plugins::build(root, plugins::Set::FirstParty)?;
    let mut build = Command::new("cargo");
    build.current_dir(root).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "cutover",
        "--package",
        "cutover-bench",
    ]);
    ensure!(
        build.status().context("run `cargo build`")?.success(),
        "the build failed"
    );
    let measured = Command::new(root.join("target/release/cutover-bench"))
        .current_dir(root)
        .args(&bench.options)
        .status()
        .context("start the measuring program")?;
    ensure!(
        measured.success(),
        "the measuring program ended with {measured}"
    );
    Ok(())
}

//! `cargo xtask test`: everything that must hold before a change is taken.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{demo, plugins};

/// Formats, lints, licences, plugins, and every test.
pub(crate) fn run(root: &Path) -> Result<()> {
    ensure!(
        demo::haproxy().is_some(),
        "the tests drive a real HAProxy: install it, on Debian with `apt-get install haproxy`"
    );
    cargo(root, &["fmt", "--all", "--check"])?;
    plugins::build(root, plugins::Set::FirstParty)?;
    plugins::build(root, plugins::Set::Test)?;
    cargo(
        root,
        &[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ],
    )?;
    deny(root)?;
    // The integration tests run the programs themselves, which `cargo test` alone does not build for them.
    cargo(root, &["build", "--locked", "--workspace"])?;
    cargo(root, &["test", "--locked", "--workspace"])
}

/// Checks licences, bans and sources. Advisories need the network, which tests may not use.
fn deny(root: &Path) -> Result<()> {
    let is_installed = Command::new("cargo")
        .args(["deny", "--version"])
        .output()
        .is_ok_and(|out| out.status.success());
    if !is_installed {
        eprintln!(
            "cargo-deny is not installed: licences are not checked; `cargo install cargo-deny` gets it"
        );
        return Ok(());
    }
    cargo(
        root,
        &["deny", "--offline", "check", "bans", "licenses", "sources"],
    )
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    eprintln!("$ cargo {}", arguments.join(" "));
    let status = Command::new("cargo")
        .current_dir(root)
        .args(arguments)
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

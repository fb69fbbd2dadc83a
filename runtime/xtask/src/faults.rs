//! `cargo xtask faults`: releases behind each cloud's fake with every fault at every request.
//!
//! The tests leave out reads that come to the same, and combinations on the way back: there are thousands of releases in all.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{demo, plugins, python};

/// What the tests look for; see `cutover_tests::cloud::every_fault`.
const EVERY_FAULT: &str = "CUTOVER_EVERY_FAULT";

pub(crate) fn run(root: &Path) -> Result<()> {
    ensure!(
        demo::haproxy().is_some(),
        "some releases have a real HAProxy behind the cloud: install it, on Debian with `apt-get install haproxy`"
    );
    python::install(root)?;
    plugins::build(root, plugins::Set::FirstParty)?;
    let suites = ["--test", "aws", "--test", "huawei", "--test", "jdcloud"];
    let filters = ["releases::", "faults::"];
    for (command, rest) in [
        ("build", vec![]),
        (
            "test",
            [&["--no-fail-fast"], &suites[..], &["--"], &filters].concat(),
        ),
    ] {
        let status = Command::new("cargo")
            .current_dir(root)
            .args([command, "--locked", "--workspace"])
            .args(rest)
            .env(EVERY_FAULT, "1")
            .status()
            .with_context(|| format!("run `cargo {command}`"))?;
        ensure!(status.success(), "`cargo {command}` failed");
    }
    Ok(())
}

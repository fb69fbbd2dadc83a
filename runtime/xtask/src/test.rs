//! `cargo xtask test`: everything that must hold before a change is taken.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{agent, apt, demo, plugins, python};

/// The version of cargo-deny whose verdict counts.
const CARGO_DENY: &str = "0.20.2";

/// Formats, lints, licences, plugins, and every test.
pub(crate) fn run(root: &Path) -> Result<()> {
    ensure!(
        demo::haproxy().is_some(),
        "the tests drive a real HAProxy: install it, on Debian with `apt-get install haproxy`"
    );
    prepare_hosts();
    for (program, package) in [
        ("/usr/sbin/nginx", "nginx-light"),
        ("/usr/bin/wrk", "wrk"),
        ("/usr/bin/curl", "curl"),
        ("/bin/ps", "procps"),
        ("/usr/bin/git", "git"),
    ] {
        ensure!(
            Path::new(program).exists(),
            "the tests split traffic on a real nginx under the load of wrk, build from git, and run the examples: install what is missing, on Debian with `apt-get install {package}`"
        );
    }
    python::install(root)?;
    cargo(root, &["fmt", "--all", "--check"])?;
    plugins::build(root, plugins::Set::FirstParty)?;
    plugins::build(root, plugins::Set::Test)?;
    agent::build(root)?;
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
    cargo(root, &["test", "--locked", "--workspace", "--no-fail-fast"])
}

/// Finds what tests over SSH make hosts of, and the programs whose work others compare with, installing it where that
/// needs no question. What needs them is skipped without them.
fn prepare_hosts() {
    let needed = [
        ("/usr/sbin/sshd", "openssh-server"),
        ("/usr/bin/ssh", "openssh-client"),
        ("/usr/bin/sudo", "sudo"),
        ("/bin/ip", "iproute2"),
        ("/bin/ps", "procps"),
        ("/usr/bin/getfacl", "acl"),
        ("/usr/bin/zip", "zip"),
        ("/usr/bin/zstd", "zstd"),
        ("/usr/bin/python3", "python3"),
        ("/usr/sbin/nginx", "nginx-light"),
        ("/usr/bin/wrk", "wrk"),
        ("/usr/bin/curl", "curl"),
        ("/usr/bin/prometheus", "prometheus"),
        ("/usr/bin/chromium", "chromium"),
        ("/usr/bin/git", "git"),
    ];
    let missing = || {
        let is_missing = |(program, _): &&(&str, &'static str)| !Path::new(program).exists();
        let missing = needed.iter().filter(is_missing);
        missing.map(|(_, package)| *package).collect::<Vec<_>>()
    };
    if !missing().is_empty() && !apt::install(&missing()) {
        eprintln!(
            "tests over SSH, of gates on a real Prometheus, of pages in Chromium, and comparisons with other programs, will be left out where they need root and {}",
            missing().join(", ")
        );
    }
}

/// Checks licences, bans and sources. Advisories need the network, which tests may not use.
fn deny(root: &Path) -> Result<()> {
    let tools = root.join("target/tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        eprintln!("installing cargo-deny {CARGO_DENY} into target/tools ...");
        let installed = Command::new("cargo")
            .current_dir(root)
            .args([
                "install",
                "--quiet",
                "--locked",
                "--version",
                CARGO_DENY,
                "--root",
            ])
            .arg(&tools)
            .arg("cargo-deny")
            .status()
            .is_ok_and(|status| status.success());
        ensure!(
            installed,
            "cargo-deny cannot be installed: is there a way to the crate registry?"
        );
    }
    // It looks at the crates of every platform, of which a build has fetched those of this one.
    cargo(root, &["fetch", "--quiet", "--locked"])?;
    eprintln!("$ cargo deny check bans licenses sources");
    let status = Command::new(&program)
        .current_dir(root)
        .args(["--offline", "check", "bans", "licenses", "sources"])
        .status()
        .context("run cargo-deny")?;
    ensure!(status.success(), "cargo deny failed");
    Ok(())
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

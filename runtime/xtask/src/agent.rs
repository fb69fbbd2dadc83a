//! `cargo xtask agent`: the agent that is put on hosts, as one static file.
//!
//! Built against musl where rustup has it or can get it; otherwise against glibc with its C runtime linked in. The agent
//! looks up no host names and reads `/etc/passwd` itself, so it needs nothing of glibc that cannot be linked.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::toolchain;

/// The largest agent that is put on a host, in bytes.
const MOST_BYTES: u64 = 5 << 20;

/// The most memory that an idle agent may have resident, in KiB.
const MOST_RESIDENT_KIB: u64 = 10 << 10;

/// Builds the agent for this machine's processor into `target/agents`.
pub(crate) fn build(root: &Path) -> Result<()> {
    let host = toolchain::host_target()?;
    let architecture = host.split('-').next().unwrap_or_default().to_owned();
    let musl = format!("{architecture}-unknown-linux-musl");
    let glibc = format!("{architecture}-unknown-linux-gnu");
    let (target, flags) = if toolchain::has_or_gets(&musl) {
        eprintln!("building the agent for {musl} ...");
        (musl, "")
    } else if host == glibc {
        eprintln!(
            "rustup has no {musl} and cannot get it; building the agent for {glibc} with `+crt-static` ..."
        );
        (glibc, "-C target-feature=+crt-static")
    } else {
        bail!("a compiler for `{musl}` is missing: run `rustup target add {musl}`");
    };

    let built = root.join("target/agent-build");
    let mut command = Command::new("cargo");
    for name in toolchain::INHERITED {
        command.env_remove(name);
    }
    // The explicit target keeps the flags away from build scripts and macros.
    command
        .current_dir(root)
        .env("RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", &built)
        .args(["build", "--locked", "--quiet", "--profile", "agent"])
        .args(["--package", "cutover-agent", "--target", &target]);
    let status = command.status().context("run `cargo build`")?;
    ensure!(status.success(), "the agent cannot be built");

    let program = built.join(&target).join("agent/cutover-agent");
    check(&program)?;
    let agents = root.join("target/agents");
    fs::create_dir_all(&agents)?;
    let place = agents.join(format!("cutover-agent-{architecture}-linux"));
    // Copied aside and renamed, for an agent that is running cannot be written into.
    let draft = place.with_extension("draft");
    fs::copy(&program, &draft).with_context(|| format!("copy `{}`", program.display()))?;
    fs::rename(&draft, &place)?;
    Ok(())
}

/// Holds the agent to its size, on disk and in memory, and to being static.
fn check(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("read `{}`", program.display()))?;
    let length = bytes.len() as u64;
    ensure!(
        length < MOST_BYTES,
        "the agent has {length} bytes; it must stay under {MOST_BYTES}"
    );
    ensure!(
        !asks_for_loader(&bytes).context("read the agent's program headers")?,
        "the agent is not static"
    );
    let resident = resident_kib(program)?;
    ensure!(
        resident < MOST_RESIDENT_KIB,
        "an idle agent has {resident} KiB resident; it must stay under {MOST_RESIDENT_KIB}"
    );
    eprintln!(
        "the agent has {} KiB, and {resident} KiB of memory when idle",
        length >> 10
    );
    Ok(())
}

/// Whether a 64-bit little-endian ELF file has a segment that names a dynamic loader; none when it is no such file.
fn asks_for_loader(file: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let is_elf = file.starts_with(b"\x7fELF\x02\x01");
    let half = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(file.get(at..at + 8)?.try_into().ok()?));
    let first = usize::try_from(long(0x20)?).ok()?;
    let (size, count) = (usize::from(half(0x36)?), usize::from(half(0x38)?));
    let mut kinds = (0..count).map(|number| word(first.checked_add(number * size)?));
    is_elf.then(|| kinds.any(|kind| kind == Some(INTERPRETER)))
}

/// What an agent that has answered a question, and waits, has in memory.
fn resident_kib(program: &Path) -> Result<u64> {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{}`", program.display()))?;
    let answered = (|| {
        let mut stdin = child.stdin.take().context("the agent's stdin")?;
        // An agent whose answers nobody reads any more ends: this stays open until it has been looked at.
        let stdout = child.stdout.take().context("the agent's stdout")?;
        let mut stdout = BufReader::new(stdout);
        stdin.write_all(
            b"{\"v\":1,\"type\":\"cached\",\"ask\":1,\"rootdir\":\"/\",\"caches\":[]}\n",
        )?;
        let mut answer = String::new();
        stdout.read_line(&mut answer)?;
        ensure!(answer.contains("\"ask\":1"), "the agent answers `{answer}`");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next())
            .context("find the agent's memory")?;
        drop(stdout);
        Ok(resident.parse()?)
    })();
    // Its stdin is closed by here, so it ends by itself; this is for the agent that does not.
    let _ = child.kill();
    let _ = child.wait();
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_told_from_what_is_no_program() {
        let own = fs::read("/proc/self/exe").unwrap();

        assert_eq!(asks_for_loader(&own), Some(true));
        assert_eq!(asks_for_loader(b"#!/bin/sh"), None);
    }
}

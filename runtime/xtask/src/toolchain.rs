//! Finds a compiler that can build for `wasm32-unknown-unknown`.
//!
//! Three sources, in this order: the active toolchain with its target installed, the same after `rustup target add`,
//! and Debian's own Rust with the standard library built from source. The last one needs no download from
//! static.rust-lang.org, which is why it exists.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::apt;

/// What plugins are compiled for. It has no system interface: what a plugin can reach is what it imports by name.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's packages of a current Rust with the sources of the standard library.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// How long `rustup target add` may take before the next source is tried.
const TARGET_ADD_LIMIT: Duration = Duration::from_secs(30);

/// Variables that `cargo run` or rustup's proxies set for this process and that would redirect the inner build.
pub(crate) const INHERITED: [&str; 9] = [
    "RUSTUP_TOOLCHAIN",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
];

/// A compiler for [`TARGET`].
pub(crate) enum Toolchain {
    /// The toolchain that also builds the workspace.
    Active,
    /// Debian's Rust, building the standard library, with the linker of the toolchain that builds the workspace.
    Debian { linker: PathBuf },
}

impl Toolchain {
    /// Finds a compiler, installing what is missing where that needs no question.
    pub(crate) fn find() -> Result<Self> {
        if has_or_gets(TARGET) {
            return Ok(Self::Active);
        }
        if !debian_is_complete() {
            install_debian()?;
        }
        Ok(Self::Debian { linker: linker()? })
    }

    /// A `cargo build` for [`TARGET`], without the packages to build.
    pub(crate) fn build(&self, root: &Path) -> Command {
        let mut command = match self {
            Self::Active => Command::new("cargo"),
            Self::Debian { .. } => Command::new("/usr/bin/cargo"),
        };
        for name in INHERITED {
            command.env_remove(name);
        }
        command.arg("build");
        if let Self::Debian { linker } = self {
            command
                .env("RUSTC", "/usr/bin/rustc")
                // `-Z build-std` is open to nightly compilers only, and Debian's is a stable one.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                .args(["-Z", "build-std=std,panic_abort"])
                .args(["-Z", "build-std-features=optimize_for_size"]);
        }
        command
            .current_dir(root)
            .env_remove("CARGO")
            // A folder of its own, so that this build and the host's never wait for each other's lock.
            .env("CARGO_TARGET_DIR", root.join("target/wasm"))
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
            .env("CARGO_PROFILE_RELEASE_LTO", "true")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
            .env("CARGO_PROFILE_RELEASE_STRIP", "true")
            .args(["--release", "--target", TARGET]);
        command
    }

    /// Where [`Toolchain::build`] leaves its results.
    pub(crate) fn output(root: &Path) -> PathBuf {
        root.join("target/wasm").join(TARGET).join("release")
    }
}

/// Whether the active toolchain has the standard library of a target, installing it where that needs no question.
pub(crate) fn has_or_gets(target: &str) -> bool {
    has_target(target) || add_target(target)
}

/// What the active toolchain builds for by itself.
pub(crate) fn host_target() -> Result<String> {
    answer(Command::new("rustc").args(["--print", "host-tuple"]))
        .context("run `rustc --print host-tuple`")
}

fn has_target(target: &str) -> bool {
    answer(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))
        .is_some_and(|folder| Path::new(&folder).is_dir())
}

/// Tries to install a target into the active toolchain, quietly and for a bounded time.
fn add_target(target: &str) -> bool {
    let child = Command::new("rustup")
        .args(["target", "add", target])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success() && has_target(target),
            Ok(None) if begun.elapsed() < TARGET_ADD_LIMIT => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

fn debian_is_complete() -> bool {
    let sources = answer(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))
        .map(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml"));
    Path::new("/usr/bin/cargo").exists() && sources.is_some_and(|sources| sources.exists())
}

fn install_debian() -> Result<()> {
    ensure!(
        apt::install(&DEBIAN_PACKAGES) && debian_is_complete(),
        "a compiler for `{TARGET}` is missing: run `rustup target add {TARGET}`, or on Debian `apt-get install {}`",
        DEBIAN_PACKAGES.join(" ")
    );
    Ok(())
}

/// The WebAssembly linker of rustup's toolchain. Debian's Rust comes without one.
fn linker() -> Result<PathBuf> {
    let sysroot = answer(Command::new("rustc").args(["--print", "sysroot"]))
        .context("run `rustc --print sysroot`")?;
    let host = host_target()?;
    let bundled = Path::new(&sysroot)
        .join("lib/rustlib")
        .join(host)
        .join("bin/rust-lld");
    if bundled.exists() {
        return Ok(bundled);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .flat_map(|folder| [folder.join("wasm-ld"), folder.join("rust-lld")])
        .find(|candidate| candidate.exists());
    match found {
        Some(linker) => Ok(linker),
        None => bail!(
            "a WebAssembly linker is missing: looked for `{}` and for `wasm-ld`",
            bundled.display()
        ),
    }
}

/// The trimmed output of a command that succeeds, run outside any rustup override of this process.
fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .env_remove("RUSTUP_TOOLCHAIN")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

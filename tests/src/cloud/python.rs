//! Running the vendors' own clients, which are Python.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Answer, target_folder};

/// Runs a script with the vendors' clients at hand; `arguments` are its `sys.argv[1:]`.
///
/// # Panics
/// When the clients are not installed.
#[must_use]
pub fn python(script: &str, arguments: &[&str]) -> Answer {
    let output = Command::new(program("python"))
        .args(["-c", script])
        .args(arguments)
        // Nothing of the machine may send what is meant for loopback elsewhere, or lend it credentials.
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("HTTPS_PROXY")
        .env_remove("ALL_PROXY")
        .env("NO_PROXY", "*")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output();
    output.expect("run python").into()
}

/// A program of those that are installed with the vendors' clients.
pub(crate) fn program(name: &str) -> PathBuf {
    let target = target_folder();
    let folder = target.parent().expect("the target folder").join("python");
    let program = folder.join("bin").join(name);
    assert!(
        folder.join("installed").exists() && program.exists(),
        "`{}` is not there: install it with `cargo xtask test`, or alone with `cargo xtask python`",
        program.display()
    );
    program
}

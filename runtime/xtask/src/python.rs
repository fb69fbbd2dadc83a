//! `cargo xtask python`: the vendors' own clients for Python, which the tests of clouds drive fakes with, in `target/python`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::apt;

/// Makes the environment as `tests/requirements.txt` says, unless it is there already.
pub(crate) fn install(root: &Path) -> Result<()> {
    let folder = root.join("target/python");
    let wanted = root.join("tests/requirements.txt");
    let wanted_text =
        fs::read_to_string(&wanted).with_context(|| format!("read `{}`", wanted.display()))?;
    // A copy of what was installed, written when all of it is there.
    let mark = folder.join("installed");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted_text) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove `{}`", folder.display()))?;
    }
    ensure!(
        makes(&folder) || (apt::install(&["python3", "python3-venv"]) && makes(&folder)),
        "the tests drive the vendors' clients for Python: install what makes environments for them, on Debian with `apt-get install python3 python3-venv`"
    );
    eprintln!("installing tests/requirements.txt into target/python ...");
    let installed = Command::new(folder.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .arg("--requirement")
        .arg(&wanted)
        .status()
        .context("run pip")?;
    ensure!(
        installed.success(),
        "tests/requirements.txt cannot be installed: is there a way to the package index that pip is configured with?"
    );
    fs::write(&mark, wanted_text).with_context(|| format!("write `{}`", mark.display()))
}

/// Makes an empty environment. What a try without pip left is taken away.
fn makes(folder: &Path) -> bool {
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !made && folder.exists() {
        // The next try says what is wrong, if this does not work.
        let _ = fs::remove_dir_all(folder);
    }
    made
}

//! `cargo xtask plugins` and `cargo xtask components`: plugin crates to WebAssembly components.
//!
//! A plugin is a folder with a `Cargo.toml` and a `manifest.json`. Its core module comes from cargo, becomes a component
//! by the type sections that the SDK left in it, and carries its manifest in a custom section, so that one file holds
//! all that the host needs to know.

use std::borrow::Cow;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use wasm_encoder::{ComponentSection, CustomSection};
use wit_component::ComponentEncoder;

use crate::toolchain::Toolchain;

/// The component-level custom section that holds the text of `manifest.json`.
pub(crate) const MANIFEST_SECTION: &str = "cutover:manifest";

/// Which plugins to build.
#[derive(Clone, Copy)]
pub(crate) enum Set {
    /// `plugins/*`
    FirstParty,
    /// `tests/components/*`
    Test,
}

impl Set {
    fn sources(self) -> &'static str {
        match self {
            Self::FirstParty => "plugins",
            Self::Test => "tests/components",
        }
    }

    fn results(self) -> &'static str {
        match self {
            Self::FirstParty => "target/plugins",
            Self::Test => "target/components",
        }
    }
}

/// One plugin's sources.
struct Plugin {
    /// The folder's name, which is also the name of the component file.
    name: String,
    /// The cargo package.
    package: String,
    /// The text of `manifest.json`.
    manifest: String,
}

/// Builds every plugin of a set and prints a line for each.
pub(crate) fn build(root: &Path, set: Set) -> Result<()> {
    let plugins = find(&root.join(set.sources()))?;
    compile(root, &plugins)?;
    let results = root.join(set.results());
    fs::create_dir_all(&results).with_context(|| format!("create `{}`", results.display()))?;
    let width = plugins
        .iter()
        .map(|plugin| plugin.name.len())
        .max()
        .unwrap_or_default();
    for plugin in &plugins {
        let module =
            Toolchain::output(root).join(format!("{}.wasm", plugin.package.replace('-', "_")));
        let component = componentize(&module, &plugin.manifest)
            .with_context(|| format!("make a component of plugin `{}`", plugin.name))?;
        replace(&results.join(format!("{}.wasm", plugin.name)), &component)?;
        eprintln!(
            "{:width$}  {:>4} kB  sha256:{}",
            plugin.name,
            component.len().div_ceil(1000),
            short_digest(&component)
        );
    }
    Ok(())
}

fn find(folder: &Path) -> Result<Vec<Plugin>> {
    let mut plugins = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list `{}`", folder.display()))? {
        let path = entry
            .with_context(|| format!("list `{}`", folder.display()))?
            .path();
        if path.join("Cargo.toml").exists() {
            plugins.push(read(&path)?);
        }
    }
    plugins.sort_by(|one, other| one.name.cmp(&other.name));
    ensure!(
        !plugins.is_empty(),
        "find plugins in `{}`",
        folder.display()
    );
    Ok(plugins)
}

fn read(folder: &Path) -> Result<Plugin> {
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .context("name of a plugin's folder")?
        .to_owned();
    let path = folder.join("manifest.json");
    let manifest =
        fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    let parsed: serde_json::Value =
        serde_json::from_str(&manifest).with_context(|| format!("parse `{}`", path.display()))?;
    for key in ["name", "version"] {
        ensure!(
            parsed[key].is_string(),
            "`{}` has no text `{key}`",
            path.display()
        );
    }
    Ok(Plugin {
        package: package_name(&folder.join("Cargo.toml"))?,
        name,
        manifest,
    })
}

/// The `name` of a `Cargo.toml`, which stands in the first table of every manifest here.
fn package_name(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    Ok(name
        .with_context(|| format!("find the package's name in `{}`", path.display()))?
        .to_owned())
}

/// One call of cargo for all, so that dependencies are compiled and locks are taken once.
fn compile(root: &Path, plugins: &[Plugin]) -> Result<()> {
    let mut command = Toolchain::find()?.build(root);
    for plugin in plugins {
        command.args(["-p", &plugin.package]);
    }
    let status = command
        .arg("--quiet")
        .status()
        .context("run cargo for the plugins")?;
    if !status.success() {
        bail!("compile the plugins: cargo ended with {status}");
    }
    Ok(())
}

fn componentize(module: &Path, manifest: &str) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("read `{}`", module.display()))?;
    let mut component = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let section = CustomSection {
        name: Cow::Borrowed(MANIFEST_SECTION),
        data: Cow::Borrowed(manifest.as_bytes()),
    };
    section.append_to_component(&mut component);
    Ok(component)
}

/// Writes a file unless it already has this content, so that caches keyed by time of change stay valid.
fn replace(path: &PathBuf, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let folder = path.parent().context("folder of a component")?;
    let write = || -> Result<()> {
        let everyone_reads = fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new()
            .permissions(everyone_reads)
            .tempfile_in(folder)?;
        file.write_all(content)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("write `{}`", path.display()))
}

fn short_digest(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

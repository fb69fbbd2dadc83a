//! Workspaces to measure in: `cutover.yaml`, packages, and a conductor for them.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conductor::{Choices, Conductor, DeployRequest, Options, Planned, Plugins, Silent};
use model::{ReleaseStatus, StopFailures};

use crate::Places;

/// The only group.
pub(crate) const GROUP: &str = "shop/web";

/// A workspace with one group.
pub(crate) struct Workspace {
    pub(crate) folder: PathBuf,
}

impl Workspace {
    /// Makes one with this many instances; `plugins` is the file's beginning, `rest` further keys of the group, each line
    /// indented by eight spaces.
    pub(crate) fn make(
        folder: PathBuf,
        instances: usize,
        plugins: &str,
        rest: &str,
    ) -> Result<Self> {
        let workspace = Self { folder };
        let mut text = format!(
            "{plugins}applications:\n  shop:\n    groups:\n      web:\n        instances:\n"
        );
        for number in 1..=instances {
            writeln!(
                text,
                "          - {{id: web-{number}, host: \"local:\", rootdir: \"{}\", address: \"127.0.0.1:9\"}}",
                workspace.folder.join(format!("web-{number}")).display()
            )?;
        }
        text.push_str(rest);
        workspace.write("cutover.yaml", &text)?;
        Ok(workspace)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        let folder = path.parent().context("find the folder of a file")?;
        fs::create_dir_all(folder)?;
        fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))
    }

    /// Writes a package whose hooks run these scripts, each the same `text`. Returns the paths of the scripts.
    pub(crate) fn package(
        &self,
        name: &str,
        hooks: &[(&str, usize)],
        text: &str,
    ) -> Result<Vec<PathBuf>> {
        let mut appspec =
            "version: 0.0\nos: linux\nfiles:\n  - {source: /content, destination: app}\n"
                .to_owned();
        let mut scripts = Vec::new();
        if !hooks.is_empty() {
            appspec.push_str("hooks:\n");
        }
        for (event, count) in hooks {
            writeln!(appspec, "  {event}:")?;
            for number in 1..=*count {
                let script = format!("bin/{event}-{number}.sh");
                writeln!(appspec, "    - {{location: {script}, timeout: 30}}")?;
                let path = format!("{name}/{script}");
                self.write(&path, text)?;
                fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755))?;
                scripts.push(self.path(&path));
            }
        }
        self.write(&format!("{name}/appspec.yml"), &appspec)?;
        self.write(&format!("{name}/content/version.txt"), name)?;
        Ok(scripts)
    }

    /// A conductor as the program itself has one, on this fleet.
    pub(crate) fn conductor(&self, fleet: Arc<dyn fleet::Fleet>) -> Result<Conductor> {
        let file = self.path("cutover.yaml");
        let workspace = spec::workspace::parse(&fs::read_to_string(&file)?, &file)?.value;
        let state = self.path(".cutover");
        let host = plugin_host::Host::new(plugin_host::HostOptions::new(state.join("compiled")))?;
        Ok(Conductor::new(Options {
            plugins: Plugins::new(host, &workspace, self.folder.clone()),
            workspace,
            journal: journal::Journal::open(&state.join("journal.db"))?,
            fleet,
            state,
            operator: "bench@here".to_owned(),
        }))
    }

    /// `cutover deploy` of a package, ready to start.
    pub(crate) fn deploy(&self, places: &Places, package: &str) -> Command {
        let mut command = Command::new(&places.cutover);
        command
            .current_dir(&self.folder)
            .args(["deploy", GROUP, "--quiet", "--package", package])
            .env_remove("CUTOVER_CONFIG")
            .env_remove("CUTOVER_LOG")
            .env("CUTOVER_PLUGIN_PATH", &places.plugins)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Runs `cutover deploy` and says how long that took.
    pub(crate) fn timed_deploy(&self, places: &Places, package: &str) -> Result<Duration> {
        let began = Instant::now();
        let status = self
            .deploy(places, package)
            .status()
            .context("run `cutover deploy`")?;
        let took = began.elapsed();
        ensure!(
            status.success(),
            "`cutover deploy` in `{}` ended with {status}",
            self.folder.display()
        );
        Ok(took)
    }
}

/// Plans the deployment of a package.
pub(crate) async fn plan(conductor: &Conductor, package: &Path) -> Result<Planned> {
    let request = DeployRequest {
        group: GROUP.parse()?,
        package: package.display().to_string(),
        version: None,
        digest: None,
        choices: Choices::default(),
        stop_failures: StopFailures::Fail,
        comment: String::new(),
    };
    Ok(conductor.plan_deploy(request).await?)
}

/// Opens a release, drives it to its end, and says how long both took together.
pub(crate) async fn drive(conductor: &Conductor, planned: Planned) -> Result<Duration> {
    let (_commands, listening) = tokio::sync::mpsc::channel(1);
    let began = Instant::now();
    let running = conductor.open(planned)?;
    // Where the program has it as well: on a thread of the runtime's own.
    let state = tokio::spawn(running.drive(Arc::new(Silent), listening)).await??;
    let took = began.elapsed();
    ensure!(
        state.status == ReleaseStatus::Succeeded,
        "the release is {}: {}",
        state.status,
        state.reason.unwrap_or_default()
    );
    Ok(took)
}

/// An async runtime like the program's own.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the async runtime")
}

//! A workspace in a temporary folder, and the program to run in it.

use std::fmt::Write;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The longest that a test waits for a state.
const PATIENCE: Duration = Duration::from_secs(60);

/// A workspace. Its folder goes when it is dropped.
pub struct Site {
    folder: TempDir,
}

/// What the program answered.
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// The answer as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {}\n{}", self.stdout, self.stderr))
    }

    /// The answer of a command that must have succeeded.
    ///
    /// # Panics
    /// When it has not.
    #[allow(clippy::must_use_candidate, reason = "often only the success matters")]
    pub fn ok(self) -> Self {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The folder that cargo builds programs into.
///
/// # Panics
/// When this test does not lie in it.
#[must_use]
pub fn target_folder() -> PathBuf {
    let here = std::env::current_exe().expect("the test's own path");
    here.ancestors()
        .nth(2)
        .expect("target/PROFILE/deps/TEST")
        .to_owned()
}

impl Site {
    /// An empty workspace.
    ///
    /// # Panics
    /// When the disk fails.
    #[must_use]
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// A workspace of one group, `shop/web`, with this many local instances; `rest` are further keys of the group, each
    /// line indented by eight spaces.
    #[must_use]
    pub fn with_instances(count: usize, rest: &str) -> Self {
        let site = Self::new();
        let mut text =
            "applications:\n  shop:\n    groups:\n      web:\n        instances:\n".to_owned();
        for number in 1..=count {
            let rootdir = site.path(&format!("web-{number}"));
            let _ = writeln!(
                text,
                "          - {{id: web-{number}, host: \"local:\", rootdir: \"{}\"}}",
                rootdir.display()
            );
        }
        text.push_str(rest);
        site.write("cutover.yaml", &text);
        site
    }

    /// A path in the workspace.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with the folders above it.
    ///
    /// # Panics
    /// When the disk fails.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
        fs::write(path, text).expect("write the file");
    }

    /// Writes an executable script.
    ///
    /// # Panics
    /// When the disk fails.
    pub fn script(&self, name: &str, text: &str) {
        self.write(name, text);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755))
            .expect("make it executable");
    }

    /// A package in `folder` whose every hook runs `bin/hook.sh`, which appends one line to `trace` in the workspace:
    /// `INSTANCE EVENT VERSION(package) ATTEMPT`, and then runs `more`.
    pub fn traced_package(&self, folder: &str, version: &str, more: &str) {
        let mut appspec =
            "version: 0.0\nos: linux\nfiles:\n  - {source: /content, destination: app}\nhooks:\n"
                .to_owned();
        for event in [
            "BeforeBlockTraffic",
            "AfterBlockTraffic",
            "ApplicationStop",
            "BeforeInstall",
            "AfterInstall",
            "ApplicationStart",
            "ValidateService",
            "BeforeAllowTraffic",
            "AfterAllowTraffic",
        ] {
            let _ = writeln!(
                appspec,
                "  {event}:\n    - {{location: bin/hook.sh, timeout: 30}}"
            );
        }
        self.write(&format!("{folder}/appspec.yml"), &appspec);
        self.write(&format!("{folder}/content/version.txt"), version);
        self.script(
            &format!("{folder}/bin/hook.sh"),
            &format!(
                "#!/bin/sh\necho \"$CUTOVER_INSTANCE_ID $LIFECYCLE_EVENT {version} $CUTOVER_ATTEMPT\" >> '{}'\n{more}\n",
                self.path("trace").display()
            ),
        );
    }

    /// A `tar.gz` of a folder's content.
    ///
    /// # Panics
    /// When `tar` fails.
    pub fn pack(&self, folder: &str, archive: &str) {
        let packed = Command::new("tar")
            .current_dir(self.path(folder))
            .arg("-czf")
            .arg(self.path(archive))
            .arg(".")
            .status()
            .expect("run tar");
        assert!(packed.success(), "pack {folder}");
    }

    /// Asserts that nothing has happened on any instance: no folder was made and no hook ran.
    ///
    /// # Panics
    /// When something has.
    pub fn assert_untouched(&self) {
        for entry in fs::read_dir(self.folder.path()).expect("read the workspace") {
            let name = entry.expect("an entry").file_name();
            let name = name.to_string_lossy();
            assert!(
                !name.starts_with("web-") && name != "trace",
                "`{name}` was made"
            );
        }
    }

    /// What hooks have appended to `trace`, and forgets it.
    #[must_use]
    pub fn take_trace(&self) -> Vec<String> {
        let path = self.path("trace");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        text.lines().map(str::to_owned).collect()
    }

    /// The program, in this workspace, without anything of the environment that could change its answers.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(target_folder().join("cutover"));
        command
            .current_dir(self.folder.path())
            .args(arguments)
            .env_remove("CUTOVER_CONFIG")
            .env_remove("CUTOVER_LOG")
            .env_remove("COLUMNS")
            .env("NO_COLOR", "1")
            .env("USER", "ann")
            .env_remove("SUDO_USER")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn cutover(&self, arguments: &[&str]) -> Answer {
        self.command(arguments)
            .output()
            .expect("run cutover")
            .into()
    }

    /// Starts the program.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start cutover")
    }

    /// The report of the newest release.
    #[must_use]
    pub fn report(&self) -> serde_json::Value {
        let list = self
            .cutover(&["ls", "--limit", "1", "--output", "json"])
            .ok()
            .json();
        let id = list["releases"][0]["id"]
            .as_str()
            .expect("a release")
            .to_owned();
        self.cutover(&["report", &id, "--output", "json"])
            .ok()
            .json()
    }

    /// The report of the newest release, or null while there is none.
    #[must_use]
    pub fn report_of_newest(&self) -> serde_json::Value {
        let list = self.cutover(&["ls", "--limit", "1", "--output", "json"]);
        let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap_or_default();
        match list["releases"][0]["id"].as_str() {
            Some(id) => self.cutover(&["report", id, "--output", "json"]).json(),
            None => serde_json::Value::Null,
        }
    }

    /// The last step that the newest release has on its first instance, as `EVENT STATUS`, by the journal. What is seen of
    /// a hook comes earlier: an instance goes on by itself with what was authorised.
    #[must_use]
    pub fn last_step(&self) -> String {
        let report = self.report_of_newest();
        let steps = &report["deployments"][0]["instances"][0]["steps"];
        let last = steps.as_array().and_then(|steps| steps.last());
        let text = |name| {
            last.and_then(|step| step[name].as_str())
                .unwrap_or_default()
        };
        format!("{} {}", text("event"), text("status"))
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// Ports that nothing listens on.
///
/// # Panics
/// When loopback has none.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    held.iter()
        .map(|listener| listener.local_addr().expect("its address").port())
        .collect()
}

/// Waits until something is so.
///
/// # Panics
/// When it is not so in time.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Copies a folder.
///
/// # Panics
/// When the disk fails.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make the folder");
    for entry in fs::read_dir(from).expect("read the folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy the file");
        }
    }
}

//! Hosts in network namespaces of their own, each with an sshd, a process table and a disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Hosts 1 to N. They go, with everything that runs on them, when this is dropped; what a killed test left goes when
/// the next one begins.
pub struct Hosts {
    folder: TempDir,
    count: usize,
}

impl Hosts {
    /// Brings hosts up, or prints why this machine cannot have them and gives none.
    ///
    /// # Panics
    /// When they should come up and do not.
    #[must_use]
    pub fn up(count: usize) -> Option<Self> {
        if let Err(why) = Self::are_possible() {
            skip(&why);
            return None;
        }
        let _ = script().arg("reap").status();
        let hosts = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            count,
        };
        let up = script()
            .arg("up")
            .arg(hosts.folder())
            .arg(count.to_string())
            .env("OWNER", std::process::id().to_string())
            .output()
            .expect("run hosts.sh");
        assert!(
            up.status.success(),
            "hosts do not come up: {}",
            String::from_utf8_lossy(&up.stderr)
        );
        Some(hosts)
    }

    fn are_possible() -> Result<(), String> {
        let is_root = fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        if !is_root {
            return Err("only root may make network namespaces".to_owned());
        }
        for (program, package) in [
            ("/usr/sbin/sshd", "openssh-server"),
            ("/usr/bin/ssh", "openssh-client"),
            ("/usr/bin/unshare", "util-linux"),
        ] {
            if !Path::new(program).exists() {
                return Err(format!(
                    "there is no `{program}`: on Debian, apt-get install {package}"
                ));
            }
        }
        let probe = Command::new("ip")
            .args(["netns", "exec", "nothing-of-this-name", "true"])
            .stderr(Stdio::null())
            .status();
        if probe.is_err() {
            return Err("there is no `ip`: on Debian, apt-get install iproute2".to_owned());
        }
        let made = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "true"])
            .stderr(Stdio::null())
            .status();
        match made {
            Ok(status) if status.success() => Ok(()),
            _ => Err("this machine makes no namespaces".to_owned()),
        }
    }

    /// The folder with the hosts' keys and `ssh`.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        // Its own folder would be removed from under the temporary one.
        self.folder.path().join("hosts")
    }

    /// A program `ssh` that knows the hosts.
    #[must_use]
    pub fn ssh(&self) -> PathBuf {
        self.folder().join("ssh")
    }

    /// A path on a host, as this machine sees it. What the host has mounted since is not there.
    #[must_use]
    pub fn path(&self, host: usize, path: &str) -> PathBuf {
        let root = self.folder().join(host.to_string()).join("root");
        root.join(path.trim_start_matches('/'))
    }

    /// The lines of a file on a host; none when it is not there.
    #[must_use]
    pub fn lines(&self, host: usize, path: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(host, path)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, host: usize) -> String {
        let net = fs::read_to_string(self.folder().join("net")).expect("the hosts' network");
        format!("{}.{host}", net.trim())
    }

    /// Does something to a host: `cut`, `heal`, `crash`, `start`, `slow`, `unslow`, `fill` or `unfill`.
    ///
    /// # Panics
    /// When that fails.
    pub fn act(&self, action: &str, host: usize, more: &[&str]) {
        assert!((1..=self.count).contains(&host), "host {host}");
        let done = script()
            .arg(action)
            .arg(self.folder())
            .arg(host.to_string())
            .args(more)
            .output()
            .expect("run hosts.sh");
        assert!(
            done.status.success(),
            "{action} {host}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Runs a command line on a host and gives what it prints.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn run(&self, host: usize, line: &str) -> String {
        let output = Command::new(self.ssh())
            .arg(format!("web-{host}"))
            .arg(line)
            .stdin(Stdio::null())
            .output()
            .expect("run ssh");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // A second failure would hide the first.
        let _ = script().arg("down").arg(self.folder()).status();
    }
}

/// Says that a test was not run, past the test runner, which keeps what passing tests print to itself.
pub fn skip(why: &str) {
    let name = std::thread::current().name().map(str::to_owned);
    let line = format!("NOT RUN: {}: {why}\n", name.unwrap_or_default());
    // Nobody is left to tell when stderr is gone.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn script() -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ssh-fleet/hosts.sh");
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

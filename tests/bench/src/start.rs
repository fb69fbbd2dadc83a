//! How long it takes from the start of `cutover deploy` to the first line of the first hook.
//!
//! The hook writes into a FIFO that this program reads, so that both ends are seen by one clock.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::Places;
use crate::figure::{Figure, Sample};
use crate::workspace::Workspace;

const REPETITIONS: usize = 31;
/// The longest time to the first hook, in milliseconds.
const MOST: f64 = 50.0;
/// How long HAProxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn measure(places: &Places, figures: &mut Vec<Figure>) -> Result<()> {
    let folder = places.folder.join("start");
    let times = first_hooks(places, Workspace::make(folder, 1, "", "")?)?;
    figures.push(
        Figure::milliseconds(
            "start of `cutover deploy` to its first hook",
            &times,
            "exec, plan with the package source's plugin from the cache, open the release, start the agent, DownloadBundle, \
             start the hook",
        )
        .at_most(MOST),
    );
    let folder = places.folder.join("start-haproxy");
    match HaProxy::start(&folder)? {
        Some(haproxy) => {
            let socket = haproxy.socket;
            let plugins = format!(
                "plugins:\n  haproxy:\n    component: haproxy\n    grants: {{sockets: [\"tcp:{socket}\"]}}\n"
            );
            let rest = format!(
                "        load_balancer: {{plugin: haproxy, config: {{socket: \"tcp:{socket}\", backend: shop}}, timeout: 30s}}\n"
            );
            let times = first_hooks(places, Workspace::make(folder, 1, &plugins, &rest)?)?;
            figures.push(
                Figure::milliseconds(
                    "the same behind HAProxy",
                    &times,
                    "the same with the plugin's code from the cache, its configuration checked, and the real HAProxy asked for \
                     its servers",
                )
                .at_most(MOST),
            );
        }
        None => eprintln!("HAProxy is not installed: the start behind it is not measured"),
    }
    Ok(())
}

fn first_hooks(places: &Places, workspace: Workspace) -> Result<Sample> {
    let path = workspace.path("first-line");
    let (mut fifo, mut rest) = fifo(&path)?;
    let text = format!(
        "#!/bin/sh\necho \"$LIFECYCLE_EVENT\" > '{}'\n",
        path.display()
    );
    let hooks = [
        "BeforeBlockTraffic",
        "ApplicationStop",
        "BeforeInstall",
        "ApplicationStart",
        "ValidateService",
    ];
    workspace.package("package", &hooks.map(|event| (event, 1)), &text)?;
    let mut times = Vec::with_capacity(REPETITIONS);
    for number in 0..=REPETITIONS {
        let mut line = [0; 64];
        let began = Instant::now();
        let mut child = workspace
            .deploy(places, "package")
            .spawn()
            .context("start `cutover deploy`")?;
        // A deployment that fails before its first hook would leave this waiting: the end of the program ends it.
        let took = wait_for_line(&mut fifo, &mut child, &mut line, began)?;
        let status = child.wait()?;
        ensure!(status.success(), "`cutover deploy` ended with {status}");
        while rest.read(&mut line).is_ok_and(|length| length > 0) {}
        // The first run compiles the plugins and fills the disk's cache.
        if number > 0 {
            times.push(took);
        }
    }
    Ok(Sample::of_times(&times))
}

/// Waits for the first byte in the FIFO, or for a program that ends without one.
fn wait_for_line(
    fifo: &mut File,
    child: &mut Child,
    line: &mut [u8],
    began: Instant,
) -> Result<Duration> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    loop {
        let mut fds = [PollFd::new(&*fifo, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&patience))?;
        if ready > 0 {
            let took = began.elapsed();
            let _ = fifo.read(line)?;
            return Ok(took);
        }
        if let Some(status) = child.try_wait()? {
            bail!("`cutover deploy` ended with {status} before its first hook");
        }
    }
}

/// A FIFO, open twice: to wait for a line, and to take what else is in it without waiting. Both are open for writing as
/// well, so that no hook waits for a reader and no reader sees an end.
fn fifo(path: &Path) -> Result<(File, File)> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .with_context(|| format!("make the FIFO `{}`", path.display()))?;
    let mut options = OpenOptions::new();
    let waiting = options.read(true).write(true).open(path)?;
    let rest = options
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    Ok((waiting, rest))
}

/// A real HAProxy with one backend that has the workspace's instance. It ends when it is dropped.
struct HaProxy {
    child: Child,
    socket: SocketAddr,
}

impl HaProxy {
    /// Starts it, where it is installed.
    fn start(folder: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        // Held together, so that they differ.
        let ports = [
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        ];
        let [socket, front] = [ports[0].local_addr()?, ports[1].local_addr()?];
        drop(ports);
        let file = folder.join("haproxy.cfg");
        let configuration = format!(
            "global\n  stats socket ipv4@{socket} level admin\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n\
             frontend front\n  bind {front}\n  default_backend shop\n\
             backend shop\n  server web-1 127.0.0.1:9\n"
        );
        fs::write(&file, configuration)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let started = Command::new("haproxy")
            .env("PATH", format!("{path}:/usr/sbin"))
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else { return Ok(None) };
        let haproxy = Self { child, socket };
        let began = Instant::now();
        while TcpStream::connect(socket).is_err() {
            ensure!(
                began.elapsed() < PATIENCE,
                "HAProxy does not answer at {socket}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Some(haproxy))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

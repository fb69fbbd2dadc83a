//! `cargo xtask demo`: a real service, deployed, upgraded and rolled back while requests run.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::load::{Load, Route, Tries};
use crate::{apt, plugins};

const INSTANCES: usize = 3;
const CLIENTS: usize = 4;
/// How long HAProxy may take to answer on its command socket.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Builds what is needed and runs the demo in `target/demo`.
pub(crate) fn run(root: &Path) -> Result<()> {
    plugins::build(root, plugins::Set::FirstParty)?;
    build(root)?;
    let demo = Demo::prepare(root)?;
    demo.play()
}

fn build(root: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "build",
        "--locked",
        "--package",
        "cutover",
        "--package",
        "shop-service",
    ]);
    ensure!(
        command.status().context("run `cargo build`")?.success(),
        "the build failed"
    );
    Ok(())
}

/// What stands in front of the instances.
enum Balancer {
    HaProxy {
        child: Child,
        socket: SocketAddr,
        front: SocketAddr,
    },
    /// The demo's own clients read the list, as a client-side balancer does.
    File { upstreams: PathBuf },
}

struct Demo {
    folder: PathBuf,
    program: PathBuf,
    ports: Vec<u16>,
    balancer: Balancer,
}

impl Demo {
    fn prepare(root: &Path) -> Result<Self> {
        let folder = root.join("target/demo");
        stop_services(&folder);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("remove `{}`", folder.display()))?;
        }
        for version in ["1.0.0", "1.1.0"] {
            let package = folder.join("packages").join(version);
            copy_folder(&root.join("examples/shop/package"), &package)?;
            fs::copy(
                root.join("target/debug/shop-service"),
                package.join("shop-service"),
            )?;
        }
        let ports = free_ports(INSTANCES)?;
        let balancer = Balancer::start(&folder, &ports)?;
        let demo = Self {
            program: root.join("target/debug/cutover"),
            folder,
            ports,
            balancer,
        };
        fs::write(demo.folder.join("cutover.yaml"), demo.workspace())?;
        Ok(demo)
    }

    fn workspace(&self) -> String {
        let (plugin, grants, config) = match &self.balancer {
            Balancer::HaProxy { socket, .. } => (
                "haproxy",
                format!("{{sockets: [\"tcp:{socket}\"]}}"),
                format!("{{socket: \"tcp:{socket}\", backend: shop}}"),
            ),
            Balancer::File { .. } => (
                "file-balancer",
                "{directories: [{name: balancer, path: balancer, access: read-write}]}".to_owned(),
                "{directory: balancer, file: upstreams.txt}".to_owned(),
            ),
        };
        let instances: String = (1..)
            .zip(&self.ports)
            .map(|(number, port)| {
                format!(
                    "          - {{id: web-{number}, host: \"local:\", rootdir: \"{}/web-{number}\", \
                     address: \"127.0.0.1:{port}\", env: {{PORT: \"{port}\"}}}}\n",
                    self.folder.display()
                )
            })
            .collect();
        format!(
            "plugins:\n  {plugin}:\n    component: {plugin}\n    grants: {grants}\n\
             applications:\n  shop:\n    groups:\n      web:\n        instances:\n{instances}\
             \x20       strategy: {{type: rolling, concurrency: 2}}\n\
             \x20       load_balancer: {{plugin: {plugin}, config: {config}, timeout: 30s}}\n"
        )
    }

    fn play(mut self) -> Result<()> {
        let began = Instant::now();
        let played = self.acts();
        stop_services(&self.folder);
        self.balancer.stop();
        let (sent, failed) = played?;
        say(&format!(
            "{sent} requests were sent during the upgrade and the rollback, {failed} of them failed"
        ));
        say(&format!(
            "the demo took {:.1} s; what it made is in {}",
            began.elapsed().as_secs_f64(),
            self.folder.display()
        ));
        ensure!(failed == 0, "requests failed");
        Ok(())
    }

    fn acts(&self) -> Result<(u64, u64)> {
        say("deploying 1.0.0 to three instances");
        self.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "packages/1.0.0",
            "--version",
            "1.0.0",
        ])?;
        let load = Load::start(CLIENTS, self.balancer.route(), self.balancer.tries());
        let releases = self.upgrade_and_return();
        let counted = load.stop();
        releases?;
        Ok(counted)
    }

    fn upgrade_and_return(&self) -> Result<()> {
        say("rolling 1.1.0 over them, two at a time, while requests run");
        self.cutover(&[
            "deploy",
            "shop/web",
            "--package",
            "packages/1.1.0",
            "--version",
            "1.1.0",
        ])?;
        say("rolling back");
        self.cutover(&["rollback", "shop/web", "--yes"])?;
        say("the report of the rollback");
        let listed = Command::new(&self.program)
            .current_dir(&self.folder)
            .args(["ls", "--limit", "1", "--output", "json"])
            .output()?;
        let listed: serde_json::Value =
            serde_json::from_slice(&listed.stdout).context("read the list of releases")?;
        let id = listed["releases"][0]["id"]
            .as_str()
            .context("find the last release")?
            .to_owned();
        self.cutover(&["report", &id])?;
        say("the group's history");
        self.cutover(&["history", "shop/web"])
    }

    fn cutover(&self, arguments: &[&str]) -> Result<()> {
        eprintln!("$ cutover {}", arguments.join(" "));
        let status = Command::new(&self.program)
            .current_dir(&self.folder)
            .args(arguments)
            .status()?;
        ensure!(
            status.success(),
            "cutover {} ended with {status}",
            arguments.join(" ")
        );
        Ok(())
    }
}

impl Balancer {
    fn start(folder: &Path, ports: &[u16]) -> Result<Self> {
        let Some(program) = haproxy() else {
            let upstreams = folder.join("balancer/upstreams.txt");
            fs::create_dir_all(folder.join("balancer"))?;
            say(
                "HAProxy is not here and cannot be installed: a plain file of upstreams stands in for it, whose clients try another upstream when one has gone",
            );
            return Ok(Self::File { upstreams });
        };
        let control = free_ports(2)?;
        let socket = SocketAddr::from(([127, 0, 0, 1], control[0]));
        let front = SocketAddr::from(([127, 0, 0, 1], control[1]));
        let servers: String = (1..)
            .zip(ports)
            .map(|(number, port)| format!("  server web-{number} 127.0.0.1:{port} check inter 200ms fall 2 rise 1 disabled\n"))
            .collect();
        let configuration = format!(
            "global\n  stats socket ipv4@{socket} level admin\n\
             defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n  retries 0\n\
             frontend front\n  bind {front}\n  default_backend shop\n\
             backend shop\n  option httpchk GET /healthz\n{servers}"
        );
        let file = folder.join("haproxy.cfg");
        fs::write(&file, configuration)?;
        let log = fs::File::create(folder.join("haproxy.log"))?;
        let child = Command::new(&program)
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start `{}`", program.display()))?;
        let mut balancer = Self::HaProxy {
            child,
            socket,
            front,
        };
        if let Err(error) = wait_for(socket) {
            balancer.stop();
            return Err(error);
        }
        say(&format!("HAProxy is in front, at http://{front}/"));
        Ok(balancer)
    }

    fn route(&self) -> Route {
        match self {
            Self::HaProxy { front, .. } => {
                let front = *front;
                Arc::new(move || Ok(front))
            }
            Self::File { upstreams } => {
                let (upstreams, turn) = (upstreams.clone(), AtomicUsize::new(0));
                Arc::new(move || {
                    let text = fs::read_to_string(&upstreams)?;
                    let listed = text.lines().filter(|line| !line.starts_with('#'));
                    let listed: Vec<SocketAddr> = listed
                        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
                        .collect();
                    let next = turn.fetch_add(1, Ordering::Relaxed);
                    listed
                        .get(next % listed.len().max(1))
                        .copied()
                        .ok_or_else(|| io::Error::other("no upstream"))
                })
            }
        }
    }

    /// A plain file cannot say that the last request on an instance has ended, so its clients try another upstream.
    fn tries(&self) -> Tries {
        match self {
            Self::HaProxy { .. } => Tries::Once,
            Self::File { .. } => Tries::ThreeUpstreams,
        }
    }

    fn stop(&mut self) {
        if let Self::HaProxy { child, .. } = self {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// HAProxy's program, installed if that needs no question.
pub(crate) fn haproxy() -> Option<PathBuf> {
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        folders
            .map(|folder| folder.join("haproxy"))
            .find(|program| program.exists())
    };
    find().or_else(|| apt::install(&["haproxy"]).then(find).flatten())
}

fn wait_for(address: SocketAddr) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > START_LIMIT {
            bail!("nothing answers at {address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ports that nothing listens on. They are held together, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<io::Result<_>>()?;
    Ok(held
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<io::Result<_>>()?)
}

/// Ends the services that an earlier demo, or this one, left running.
fn stop_services(folder: &Path) {
    for number in 1..=INSTANCES {
        let file = folder.join(format!("web-{number}/shop.pid"));
        let Some(pid) = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
        else {
            continue;
        };
        let is_ours = fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.contains("shop-service"));
        if is_ours {
            // It may have ended since.
            let _ = Command::new("kill").arg(pid.to_string()).status();
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read `{}`", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(stderr, "\n=== {text}");
}

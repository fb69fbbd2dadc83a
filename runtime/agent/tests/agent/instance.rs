//! An instance in a temporary folder, and an agent to talk to.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use agent::protocol::{self, Answer, Cause, Hooks, Outcome, Request, Run, Script, ScriptRun, Work};

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const CACHE: &str = "app-shop/group-web/deploy-r1-1";

pub(crate) struct Instance {
    root: tempfile::TempDir,
}

impl Instance {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // Scripts may run as somebody else.
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        Self { root }
    }

    /// An instance in memory, where the machine has room for files there: for tests with very many installations, each
    /// of which flushes its file system.
    pub(crate) fn in_memory() -> Self {
        let root =
            tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        Self { root }
    }

    pub(crate) fn rootdir(&self) -> String {
        self.root.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Puts a file on the instance, executable when it is a script.
    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Puts a script into the package and returns the work of running it.
    pub(crate) fn script(&self, name: &str, text: &str) -> Work {
        self.write(&format!("{CACHE}/{name}"), &format!("#!/bin/sh\n{text}\n"));
        hooks(vec![location(name)])
    }

    pub(crate) fn run(&self, attempt: &str, work: Work) -> Run {
        Run {
            attempt: attempt.to_owned(),
            rootdir: self.rootdir(),
            log_from: 0,
            work,
            fresh: false,
            join: false,
            then: None,
            fence: None,
        }
    }

    /// Carries out one attempt with an agent of its own.
    pub(crate) fn outcome(&self, attempt: &str, work: Work) -> (String, Outcome) {
        Agent::start().outcome(self.run(attempt, work))
    }

    /// The id of the process that does an attempt's work.
    pub(crate) fn worker(&self, attempt: &str) -> i32 {
        eventually_exists(&self.path(&format!(".cutover/attempts/{attempt}/log")));
        let lock = self.read(&format!(".cutover/attempts/{attempt}/lock"));
        lock.split(' ').next().unwrap().parse().unwrap()
    }
}

pub(crate) fn location(name: &str) -> Script {
    Script {
        run: ScriptRun::Location(name.to_owned()),
        timeout_ms: 20_000,
        runas: None,
    }
}

pub(crate) fn command(text: &str) -> Script {
    Script {
        run: ScriptRun::Command(text.to_owned()),
        timeout_ms: 20_000,
        runas: None,
    }
}

pub(crate) fn hooks(scripts: Vec<Script>) -> Work {
    Work::Hooks(Hooks {
        cache: CACHE.to_owned(),
        scripts,
        env: Vec::new(),
    })
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_cutover-agent");

fn after(setup: &str, program: &str) -> String {
    format!("{setup} && exec {program} '{PROGRAM}'")
}

pub(crate) struct Agent {
    process: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<Answer>,
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_by(&mut Command::new(PROGRAM))
    }

    /// Starts an agent that leads a process group, and so cannot have a session of its own.
    pub(crate) fn start_as_leader() -> Self {
        Self::start_by(Command::new(PROGRAM).process_group(0))
    }

    /// The agent's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Starts an agent in a shell's process, after a command of the shell.
    pub(crate) fn start_after(setup: &str) -> Self {
        Self::start_through(setup, "")
    }

    /// Starts an agent in a shell's process, after a command of the shell and by means of a program.
    pub(crate) fn start_through(setup: &str, program: &str) -> Self {
        Self::start_by(Command::new("sh").args(["-c", &after(setup, program)]))
    }

    /// Starts an agent that sees mounts of its own, which the setup makes.
    pub(crate) fn start_in_own_mounts(setup: &str) -> Self {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("-Ur");
        }
        Self::start_by(command.args([
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            &after(setup, ""),
        ]))
    }

    /// An agent that runs as the user, and in the group, with this id. Only root can start it.
    pub(crate) fn start_as(id: u32) -> Self {
        // Where it was built, that user may not be able to reach it.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let program = dir.path().join("agent");
        let built = PROGRAM;
        if fs::hard_link(built, &program).is_err() {
            fs::copy(built, &program).unwrap();
        }
        Self::start_by(Command::new(program).uid(id).gid(id))
    }

    fn start_by(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // A process that another test starts at this moment may still hold a copy open for writing.
        let mut process = eventually(|| match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
            started => Some(started.unwrap()),
        });
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (tx, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let answer = protocol::decode(line.as_bytes()).unwrap();
                if tx.send(answer).is_err() {
                    break;
                }
            }
        });
        Self {
            process,
            stdin,
            answers,
        }
    }

    pub(crate) fn send(&mut self, request: Request) {
        self.send_line(&protocol::encode(&request));
    }

    pub(crate) fn send_line(&mut self, line: &[u8]) {
        // The agent may have been killed on purpose.
        let _ = self.stdin.as_mut().unwrap().write_all(line);
    }

    #[track_caller]
    pub(crate) fn answer(&self) -> Answer {
        self.answers
            .recv_timeout(PATIENCE)
            .expect("an answer in time")
    }

    /// Sends a run and waits for its end; returns its log as it was streamed.
    #[track_caller]
    pub(crate) fn outcome(&mut self, run: Run) -> (String, Outcome) {
        self.send(Request::Run(run.clone()));
        self.follow(&run.attempt, run.log_from)
    }

    #[track_caller]
    pub(crate) fn follow(&self, id: &str, from: u64) -> (String, Outcome) {
        let mut log = String::new();
        loop {
            match self.answer() {
                Answer::Log {
                    attempt,
                    offset,
                    text,
                } if attempt == id => {
                    assert_eq!(
                        offset,
                        from + log.len() as u64,
                        "no byte twice and none left out"
                    );
                    log.push_str(&text);
                }
                Answer::Ended { attempt, outcome } if attempt == id => return (log, outcome),
                answer @ Answer::Refused { .. } => panic!("{answer:?}"),
                _ => {}
            }
        }
    }

    /// Whether an attempt ends by then.
    pub(crate) fn has_ended(&self, id: &str, by: Instant) -> bool {
        loop {
            let left = by.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(Answer::Ended { attempt, .. }) if attempt == id => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends the input and waits for the end of the agent.
    pub(crate) fn close(mut self) -> bool {
        drop(self.stdin.take());
        self.process.wait().unwrap().success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself; a test that failed must not wait for it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for something to be there.
#[track_caller]
pub(crate) fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "it did not come about in {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn eventually_exists(path: &Path) {
    eventually(|| path.exists().then_some(()));
}

/// Whether a process is there and not dead.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

pub(crate) fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[track_caller]
pub(crate) fn assert_succeeded(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
}

#[track_caller]
pub(crate) fn assert_failed(outcome: &Outcome, expected: Cause, text: &str) {
    match outcome {
        Outcome::Failed { cause, reason, .. } => {
            assert_eq!(*cause, expected, "{reason}");
            assert!(reason.contains(text), "`{reason}` does not say `{text}`");
        }
        outcome => panic!("{outcome:?}"),
    }
}

/// A file that a script can wait for without taking a processor.
pub(crate) fn fifo(path: &Path) {
    let status = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

/// Lets the reader of a fifo go on.
pub(crate) fn release(path: &Path) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all(b"go\n")
        .unwrap();
}

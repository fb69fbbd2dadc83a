//! Running a program to its end: within a time, with bounds on what is kept of its output, and killed with everything in
//! its process group however the run ends.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// How long output may still come when a program has ended and everything in its group was killed.
const DRAIN: Duration = Duration::from_secs(1);

/// Which part of each output is kept, and how many bytes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Start(usize),
    End(usize),
}

/// What is kept of an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    pub bytes: Vec<u8>,
    pub is_cut: bool,
}

/// How a program ended, and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: Kept,
    pub stderr: Kept,
}

/// Kills a process group when it goes out of scope, however that comes about.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Fails only where the group is gone, which is the aim.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Runs a program without stdin, as the leader of a process group of its own.
///
/// # Errors
/// What keeps it from being run; [`io::ErrorKind::TimedOut`] when it took too long.
pub async fn run(command: &mut Command, keep: Keep, time: Duration) -> io::Result<Ran> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let pid = child
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()))
        .ok_or(io::ErrorKind::NotFound)?;
    let group = Group(pid);
    let (mut stdout, mut stderr) = (Captured::new(keep), Captured::new(keep));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let mut reading =
            std::pin::pin!(async { tokio::join!(stdout.fill(out), stderr.fill(err)) });
        let mut is_read = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                _ = &mut reading, if !is_read => is_read = true,
            }
        };
        // What the program left running holds its outputs open, and nothing that it started outlives the run.
        drop(group);
        if !is_read {
            let _ = tokio::time::timeout(DRAIN, reading).await;
        }
        io::Result::Ok(status)
    };
    let status = tokio::time::timeout(time, work)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(Ran {
        status,
        stdout: stdout.kept(),
        stderr: stderr.kept(),
    })
}

/// An output as it is read.
struct Captured {
    keep: Keep,
    bytes: VecDeque<u8>,
    is_cut: bool,
}

impl Captured {
    fn new(keep: Keep) -> Self {
        Self {
            keep,
            bytes: VecDeque::new(),
            is_cut: false,
        }
    }

    /// Reads to the end, so that the program never waits for a reader, and keeps what fits.
    async fn fill(&mut self, source: Option<impl AsyncRead + Unpin>) {
        let Some(mut source) = source else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = source.read(&mut buffer).await {
            let surplus = match self.keep {
                Keep::Start(most) => {
                    let kept = length.min(most - self.bytes.len());
                    self.bytes.extend(&buffer[..kept]);
                    length - kept
                }
                Keep::End(most) => {
                    self.bytes.extend(&buffer[..length]);
                    let surplus = self.bytes.len().saturating_sub(most);
                    self.bytes.drain(..surplus);
                    surplus
                }
            };
            self.is_cut |= surplus > 0;
        }
    }

    fn kept(self) -> Kept {
        Kept {
            bytes: self.bytes.into(),
            is_cut: self.is_cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn shell(script: &str, keep: Keep, time: Duration) -> io::Result<Ran> {
        run(Command::new("/bin/sh").args(["-c", script]), keep, time).await
    }

    #[tokio::test]
    async fn the_asked_part_of_each_output_is_kept_and_the_rest_is_read() {
        let script = "seq 1 100000; echo done >&2";

        let start = shell(script, Keep::Start(4), LONG).await.unwrap();
        let end = shell(script, Keep::End(7), LONG).await.unwrap();

        assert_eq!(
            (start.stdout.bytes.as_slice(), start.stdout.is_cut),
            (&b"1\n2\n"[..], true)
        );
        assert_eq!(
            (end.stdout.bytes.as_slice(), end.stdout.is_cut),
            (&b"100000\n"[..], true)
        );
        assert_eq!(
            (end.stderr.bytes.as_slice(), end.stderr.is_cut),
            (&b"done\n"[..], false)
        );
    }

    #[tokio::test]
    async fn a_program_past_its_time_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let script = "(sleep 600; touch late) & echo $! > pid; sleep 600";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(folder.path());

        let error = run(&mut command, Keep::Start(0), Duration::from_millis(300)).await;

        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        // One that nobody waits for stays as a zombie.
        let is_gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        let began = std::time::Instant::now();
        while !is_gone() {
            assert!(began.elapsed() < LONG, "process {pid} is alive");
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_does_not_hold_the_run() {
        let ran = shell("sleep 600 & echo started", Keep::Start(100), LONG)
            .await
            .unwrap();

        assert_eq!(ran.stdout.bytes, b"started\n");
    }
}

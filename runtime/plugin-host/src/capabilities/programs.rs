//! `cutover:plugin/programs`: granted programs, with bounded output, ended with all that they started.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::bindings::cutover::plugin::programs::{self, Output};
use crate::bindings::cutover::plugin::types::Failure;
use crate::call::State;
use crate::limits;
use crate::manifest::Access;
use crate::pattern::Capability;

/// How long output may still come when a program has ended and everything in its group was killed.
const DRAIN: Duration = Duration::from_secs(1);

/// What a program may see of this process's environment. All else could hold credentials.
const ENVIRONMENT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

impl programs::Host for State {
    async fn run(
        &mut self,
        program: String,
        arguments: Vec<String>,
        directory: Option<String>,
        timeout: programs::DurationMs,
    ) -> wasmtime::Result<Result<Output, Failure>> {
        if let Err(denied) = self.allow(&Capability::Program(program.clone())) {
            return Ok(Err(denied));
        }
        if arguments.iter().any(|argument| argument.contains('\0')) {
            return Ok(Err(self.fail_invalid(format!(
                "an argument of `{program}` holds a NUL byte"
            ))));
        }
        if let Some(name) = &directory
            && let Err(denied) = self.allow(&Capability::Directory {
                name: name.clone(),
                access: Access::Read,
            })
        {
            return Ok(Err(denied));
        }
        let plugin = std::sync::Arc::clone(&self.plugin);
        let directory = directory
            .and_then(|name| plugin.directories.get(&name))
            .map(|directory| directory.path.as_path());
        let timeout = Duration::from_millis(timeout).min(self.remaining());
        let ran = run(
            &program,
            &arguments,
            directory.unwrap_or(Path::new("/")),
            timeout,
        )
        .await;
        Ok(ran.map_err(|error| self.fail_io(&format!("run `{program}`"), &error)))
    }
}

/// Kills a process group when it goes out of scope, however that comes about.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Fails only where the group is gone, which is the aim.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

async fn run(
    program: &str,
    arguments: &[String],
    directory: &Path,
    timeout: Duration,
) -> io::Result<Output> {
    let environment = ENVIRONMENT
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(environment)
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
    let (mut stdout, mut stderr) = (Captured::default(), Captured::default());
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
        // What the program left running holds its outputs open; nothing that a plugin starts outlives the call.
        drop(group);
        if !is_read {
            let _ = tokio::time::timeout(DRAIN, reading).await;
        }
        io::Result::Ok(status)
    };
    let status = tokio::time::timeout(timeout, work)
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Ok(Output {
        // As shells have it.
        exit_code: status
            .code()
            .or(signal.map(|signal| 128 + signal))
            .unwrap_or(-1),
        truncated: stdout.is_truncated || stderr.is_truncated,
        stdout: stdout.bytes,
        stderr: stderr.bytes,
    })
}

/// The start of what a program wrote.
#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    is_truncated: bool,
}

impl Captured {
    /// Reads to the end, so that the program never waits for a reader, and keeps what fits.
    async fn fill(&mut self, source: Option<impl AsyncRead + Unpin>) {
        let Some(mut source) = source else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = source.read(&mut buffer).await {
            let kept = length.min(limits::CHUNK - self.bytes.len());
            self.bytes.extend_from_slice(&buffer[..kept]);
            self.is_truncated |= kept < length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, timeout: Duration) -> io::Result<Output> {
        run(
            "/bin/sh",
            &["-c".to_owned(), script.to_owned()],
            Path::new("/"),
            timeout,
        )
        .await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn output_and_exit_code_come_back() {
        let output = shell("echo out; echo err >&2; exit 3", LONG).await.unwrap();

        assert_eq!((output.exit_code, output.truncated), (3, false));
        assert_eq!(
            (output.stdout, output.stderr),
            (b"out\n".to_vec(), b"err\n".to_vec())
        );
    }

    #[tokio::test]
    async fn long_output_is_cut_and_read_to_the_end() {
        let output = shell("head -c 3000000 /dev/zero; echo done >&2", LONG)
            .await
            .unwrap();

        assert_eq!(
            (output.stdout.len(), output.truncated),
            (limits::CHUNK, true)
        );
        assert_eq!(output.stderr, b"done\n");
    }

    #[tokio::test]
    async fn the_environment_of_the_host_stays_with_the_host() {
        let output = shell("env | cut -d= -f1 | sort | tr '\\n' ' '", LONG)
            .await
            .unwrap();

        for name in String::from_utf8(output.stdout).unwrap().split_whitespace() {
            assert!(
                ENVIRONMENT.contains(&name) || matches!(name, "PWD" | "SHLVL" | "_" | "OLDPWD"),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn a_program_past_its_time_is_killed_with_what_it_started() {
        let error = shell("sleep 600 & sleep 600", Duration::from_millis(100))
            .await
            .unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_does_not_hold_the_call() {
        let output = shell("sleep 600 & echo started", LONG).await.unwrap();

        assert_eq!(output.stdout, b"started\n");
    }
}

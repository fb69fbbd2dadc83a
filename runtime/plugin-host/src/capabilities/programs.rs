//! `cutover:plugin/programs`: granted programs, with bounded output, ended with all that they started.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::bindings::cutover::plugin::programs::{self, Output, Variable};
use crate::bindings::cutover::plugin::types::Failure;
use crate::bounded::{self, Keep, Ran};
use crate::call::State;
use crate::limits;
use crate::manifest::Access;
use crate::pattern::Capability;

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
        self.run_with(program, arguments, Vec::new(), directory, timeout)
            .await
    }

    async fn run_with(
        &mut self,
        program: String,
        arguments: Vec<String>,
        environment: Vec<Variable>,
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
        let is_bad = |variable: &&Variable| !is_variable(&variable.name, &variable.value);
        if let Some(Variable { name, .. }) = environment.iter().find(is_bad) {
            let name = name.escape_debug();
            return Ok(Err(self.fail_invalid(format!(
                "the environment variable `{name}` cannot be set"
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
            &environment,
            directory.unwrap_or(Path::new("/")),
            timeout,
        )
        .await;
        Ok(ran.map_err(|error| self.fail_io(&format!("run `{program}`"), &error)))
    }
}

/// Whether an environment can hold a variable.
pub(crate) fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

async fn run(
    program: &str,
    arguments: &[String],
    variables: &[Variable],
    directory: &Path,
    timeout: Duration,
) -> io::Result<Output> {
    let inherited = ENVIRONMENT
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(inherited)
        .envs(
            variables
                .iter()
                .map(|Variable { name, value }| (name, value)),
        );
    let Ran {
        status,
        stdout,
        stderr,
    } = bounded::run(&mut command, Keep::Start(limits::CHUNK), timeout).await?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Ok(Output {
        // As shells have it.
        exit_code: status
            .code()
            .or(signal.map(|signal| 128 + signal))
            .unwrap_or(-1),
        truncated: stdout.is_cut || stderr.is_cut,
        stdout: stdout.bytes,
        stderr: stderr.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, timeout: Duration) -> io::Result<Output> {
        run(
            "/bin/sh",
            &["-c".to_owned(), script.to_owned()],
            &[],
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
    async fn a_program_gets_variables_of_its_own() {
        let variable = Variable {
            name: "LANG".to_owned(),
            value: "own".to_owned(),
        };
        let arguments = ["-c", "echo $LANG"].map(str::to_owned);

        let output = run("/bin/sh", &arguments, &[variable], Path::new("/"), LONG).await;

        assert_eq!(output.unwrap().stdout, b"own\n");
        assert!(!is_variable("A=B", "") && !is_variable("", "") && !is_variable("A", "\0"));
    }
}

//! What a script of a package is to the kernel.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::protocol::{Cause, ScriptRun};
use crate::shim::Failure;

/// The shell of commands, and of scripts that do not say who reads them.
pub(crate) const SHELL: &str = "/bin/sh";

/// The most of a command that a message shows, in characters.
const MAX_TITLE: usize = 80;

/// Something that can be executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) words: Vec<OsString>,
    /// The file of the package, where it is one.
    file: Option<PathBuf>,
}

/// What a script is called in an outcome: a location as it is written, a command by its beginning.
pub(crate) fn name(run: &ScriptRun) -> String {
    match run {
        ScriptRun::Location(location) => location.trim().to_owned(),
        ScriptRun::Command(_) => title(run),
    }
}

/// How messages name a script.
pub(crate) fn title(run: &ScriptRun) -> String {
    let (ScriptRun::Location(text) | ScriptRun::Command(text)) = run;
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(MAX_TITLE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < text.trim().len() => format!("{line}…"),
        None => line.to_owned(),
    }
}

/// Finds out how a script is executed, and makes its file executable if need be.
pub(crate) fn resolve(run: &ScriptRun, package: &Path) -> Result<Program, Failure> {
    match run {
        ScriptRun::Location(location) => located(location, package),
        ScriptRun::Command(text) if text.trim().is_empty() || text.contains('\0') => {
            Err(Failure::new(
                Cause::Invalid,
                "the command of a script is empty or holds a NUL",
            ))
        }
        ScriptRun::Command(text) if names_a_file(text.trim(), package) => {
            located(text.trim(), package)
        }
        ScriptRun::Command(text) => Ok(Program {
            words: vec![SHELL.into(), "-c".into(), text.into()],
            file: None,
        }),
    }
}

impl Program {
    /// What runs instead when the kernel says that the file is no program: the shell reads it.
    pub(crate) fn read_by_shell(&self) -> Option<Program> {
        let file = self.file.clone()?;
        Some(Program {
            words: vec![SHELL.into(), file.into()],
            file: None,
        })
    }

    /// Says why the program could not be started.
    pub(crate) fn not_started(&self, title: &str, error: &io::Error) -> Failure {
        let interpreter = self.file.as_deref().and_then(interpreter);
        let reason = match (error.kind(), interpreter) {
            (io::ErrorKind::NotFound, Some(interpreter)) => {
                format!(
                    "`{title}` cannot be executed: its interpreter `{interpreter}` is not on this instance"
                )
            }
            _ => format!("`{title}` cannot be executed: {error}"),
        };
        Failure::new(Cause::NotExecutable, reason)
    }
}

fn names_a_file(text: &str, package: &Path) -> bool {
    inside(text).is_some_and(|path| package.join(path).is_file()) && !text.starts_with('/')
}

/// The path in the package that a location names, if it is one. A leading `/` is the package's root.
fn inside(location: &str) -> Option<PathBuf> {
    let path = Path::new(location.trim_start_matches('/'));
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (plain && !path.as_os_str().is_empty() && !location.contains('\0')).then(|| path.to_path_buf())
}

fn located(location: &str, package: &Path) -> Result<Program, Failure> {
    let leaves = || {
        Failure::new(
            Cause::Invalid,
            format!("`{location}` leads out of the package"),
        )
    };
    let file = package.join(inside(location).ok_or_else(leaves)?);
    let missing = |error: io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => format!("`{location}` is not in the package"),
            _ => format!("look for `{location}` in the package: {error}"),
        };
        Failure::new(Cause::ScriptMissing, reason)
    };
    let real = file.canonicalize().map_err(missing)?;
    if !package
        .canonicalize()
        .is_ok_and(|package| real.starts_with(package))
    {
        return Err(leaves());
    }
    let metadata = real.metadata().map_err(missing)?;
    if !metadata.is_file() {
        return Err(Failure::new(
            Cause::ScriptMissing,
            format!("`{location}` is not a file"),
        ));
    }
    let mode = metadata.permissions().mode();
    if mode & 0o111 == 0 {
        fs::set_permissions(&real, Permissions::from_mode(mode & 0o7777 | 0o111)).map_err(
            |error| {
                let reason =
                    format!("`{location}` is not executable and cannot be made so: {error}");
                Failure::new(Cause::NotExecutable, reason)
            },
        )?;
    }
    if let Some(line) = first_line(&real)
        && line.starts_with("#!")
        && line.ends_with('\r')
    {
        let reason = format!(
            "`{location}` cannot be executed: its first line `{}` ends in a carriage return; save the file with \
             Unix line ends (LF, not CRLF)",
            line.trim_end()
        );
        return Err(Failure::new(Cause::NotExecutable, reason));
    }
    Ok(Program {
        words: vec![file.clone().into()],
        file: Some(file),
    })
}

fn first_line(file: &Path) -> Option<String> {
    // The kernel reads no more than this of it either.
    let mut head = Vec::new();
    File::open(file)
        .ok()?
        .take(256)
        .read_to_end(&mut head)
        .ok()?;
    let end = head.iter().position(|byte| *byte == b'\n')?;
    Some(String::from_utf8_lossy(&head[..end]).into_owned())
}

fn interpreter(file: &Path) -> Option<String> {
    let line = first_line(file)?;
    line.strip_prefix("#!")?
        .split_whitespace()
        .next()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn package() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/start it.sh"), "#!/bin/sh\n").unwrap();
        fs::write(dir.path().join("bin/dos.sh"), "#!/bin/sh\r\necho\r\n").unwrap();
        symlink("/bin/true", dir.path().join("bin/out")).unwrap();
        symlink("start it.sh", dir.path().join("bin/in")).unwrap();
        dir
    }

    #[track_caller]
    fn check(run: ScriptRun, expected: Result<&str, (Cause, &str)>) {
        let package = package();
        match (resolve(&run, package.path()), expected) {
            (Ok(program), Ok(path)) => assert_eq!(program.words, [package.path().join(path)]),
            (Err(failure), Err((cause, text))) => {
                assert_eq!(failure.cause, cause);
                assert!(
                    failure.reason.contains(text),
                    "`{}` does not say `{text}`",
                    failure.reason
                );
            }
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    fn location(text: &str) -> ScriptRun {
        ScriptRun::Location(text.to_owned())
    }

    fn command(text: &str) -> ScriptRun {
        ScriptRun::Command(text.to_owned())
    }

    #[test]
    fn a_location_is_a_file_of_the_package() {
        check(location("bin/start it.sh"), Ok("bin/start it.sh"));
        check(location("/bin/start it.sh"), Ok("bin/start it.sh"));
        check(location("bin/in"), Ok("bin/in"));
        check(
            location("bin/gone.sh"),
            Err((Cause::ScriptMissing, "`bin/gone.sh` is not in the package")),
        );
        check(location("bin"), Err((Cause::ScriptMissing, "not a file")));
        check(
            location("../bin/true"),
            Err((Cause::Invalid, "out of the package")),
        );
        check(
            location("bin/../../x"),
            Err((Cause::Invalid, "out of the package")),
        );
        check(
            location("bin/out"),
            Err((Cause::Invalid, "out of the package")),
        );
        check(location(""), Err((Cause::Invalid, "out of the package")));
    }

    #[test]
    fn windows_line_ends_are_called_by_their_name() {
        check(
            location("bin/dos.sh"),
            Err((Cause::NotExecutable, "carriage return")),
        );
        check(
            command("bin/dos.sh"),
            Err((Cause::NotExecutable, "carriage return")),
        );
    }

    #[test]
    fn a_command_that_only_names_a_file_is_that_file_made_executable() {
        let package = package();

        let program = resolve(&command("bin/start it.sh"), package.path()).unwrap();

        let file = package.path().join("bin/start it.sh");
        assert_eq!(program.words, [file.as_os_str()]);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn any_other_command_is_for_the_shell() {
        let package = package();

        let program = resolve(&command("echo bin/in; exit 3"), package.path()).unwrap();

        assert_eq!(program.words, ["/bin/sh", "-c", "echo bin/in; exit 3"]);
        assert_eq!(program.read_by_shell(), None);
    }

    #[test]
    fn titles_are_one_short_line() {
        assert_eq!(title(&location("bin/start.sh")), "bin/start.sh");
        assert_eq!(title(&command("echo a\necho b")), "echo a…");
        assert_eq!(
            title(&command(&"é".repeat(100))),
            format!("{}…", "é".repeat(80))
        );
    }
}

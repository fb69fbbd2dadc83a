//! What a script of a package is to the kernel.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags, StatVfsMountFlags, access, open, statvfs};
use rustix::io::Errno;

use crate::account::Account;
use crate::protocol::{Cause, ScriptRun};
use crate::shim::Failure;
use crate::spawn;

/// The shell of commands, and of scripts that do not say who reads them.
pub(crate) const SHELL: &str = "/bin/sh";

/// The most of a command that a message shows, in characters.
const MAX_TITLE: usize = 80;

/// The most of a file's beginning that is looked at, in bytes.
const HEAD: usize = 256;

/// What some editors put before the first character of a file in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Something that can be executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) words: Vec<OsString>,
    /// The file, where it is one.
    file: Option<(PathBuf, Kind)>,
}

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Something for an interpreter.
    Text,
    /// Something for the processor.
    Binary,
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
    match place(run, package)? {
        Place::File(file) => {
            let kind = prepare(&file, &title(run))?;
            Ok(Program {
                words: vec![file.clone().into()],
                file: Some((file, kind)),
            })
        }
        Place::Shell(text) => Ok(Program {
            words: vec![SHELL.into(), "-c".into(), text.into()],
            file: None,
        }),
    }
}

/// Finds out whether an account may execute a script that is there already.
pub(crate) fn check_access(
    run: &ScriptRun,
    package: &Path,
    account: &Account,
) -> Result<(), String> {
    // What cannot be resolved says why when it is its turn.
    let Ok(Program {
        file: Some((file, kind)),
        ..
    }) = resolve(run, package)
    else {
        return may_enter(package, account);
    };
    let needed = match kind {
        Kind::Binary => Access::EXEC_OK,
        Kind::Text => Access::EXEC_OK | Access::READ_OK,
    };
    let may = spawn::ask_as(account, || access(&file, needed).is_ok());
    if may.map_err(|error| format!("make a process: {error}"))? {
        return Ok(());
    }
    may_enter(package, account)?;
    Err(format!(
        "the account may not read and execute `{}`",
        file.display()
    ))
}

/// Finds out whether an account gets into a folder, and if not, which folder above it is closed.
fn may_enter(folder: &Path, account: &Account) -> Result<(), String> {
    let ancestors: Vec<&Path> = folder.ancestors().collect();
    for folder in ancestors.into_iter().rev() {
        let may = spawn::ask_as(account, || access(folder, Access::EXEC_OK).is_ok());
        if !may.map_err(|error| format!("make a process: {error}"))? {
            return Err(format!(
                "the account may not enter the folder `{}`; give it the permission to (`chmod o+x`)",
                folder.display()
            ));
        }
    }
    Ok(())
}

impl Program {
    /// What runs instead when the kernel says that the file is no program: the shell reads it.
    pub(crate) fn read_by_shell(&self) -> Option<Program> {
        match &self.file {
            Some((file, Kind::Text)) => Some(Program {
                words: vec![SHELL.into(), file.into()],
                file: None,
            }),
            _ => None,
        }
    }

    /// Says why the program could not be started.
    pub(crate) fn not_started(
        &self,
        title: &str,
        package: &Path,
        account: Option<&Account>,
        error: spawn::Error,
    ) -> Failure {
        let who = account.map_or("the agent's account", |account| account.name.as_str());
        let reason = match error {
            spawn::Error::Process(error) => {
                return Failure::new(
                    Cause::Invalid,
                    format!("make a process for `{title}`: {error}"),
                );
            }
            spawn::Error::Folder(error) => {
                let package = package.display();
                return Failure::new(
                    Cause::Invalid,
                    format!("`{title}` has no place to run in: enter `{package}`: {error}"),
                );
            }
            spawn::Error::Account(error) => {
                return Failure::new(Cause::Invalid, format!("run `{title}` as `{who}`: {error}"));
            }
            spawn::Error::Domain(error) => {
                return Failure::new(Cause::Invalid, format!("confine `{title}`: {error}"));
            }
            spawn::Error::Execute(error) => {
                let why = self.obstacle(&error, who);
                format!(
                    "`{title}` cannot be executed: {}",
                    why.unwrap_or_else(|| error.to_string())
                )
            }
        };
        Failure::new(Cause::NotExecutable, reason)
    }

    /// What the kernel's number for an error means for this file.
    fn obstacle(&self, error: &io::Error, who: &str) -> Option<String> {
        let (file, kind) = self.file.as_ref()?;
        let interpreter = interpreter(file);
        match (Errno::from_io_error(error)?, interpreter, kind) {
            (Errno::NOENT, Some(name), _) => {
                Some(format!("its interpreter `{name}` is not on this instance"))
            }
            (Errno::NOENT, None, Kind::Binary) => Some(
                "the loader or the C library that it was built for is not on this instance"
                    .to_owned(),
            ),
            (Errno::ACCESS, _, _) if is_on_noexec(file) => Some(format!(
                "the file system that `{}` is on is mounted with `noexec`",
                file.display()
            )),
            (Errno::ACCESS, Some(name), _) => Some(format!(
                "{who} may not execute it, or its interpreter `{name}`"
            )),
            (Errno::ACCESS, None, _) => Some(format!("{who} may not execute it")),
            (Errno::NOEXEC, _, Kind::Binary) => Some(
                "it is no program that this machine can run (another architecture, or damaged)"
                    .to_owned(),
            ),
            (Errno::TXTBSY, _, _) => Some("somebody is writing to its file".to_owned()),
            _ => None,
        }
    }
}

/// What a script is on this instance.
enum Place {
    File(PathBuf),
    Shell(String),
}

fn place(run: &ScriptRun, package: &Path) -> Result<Place, Failure> {
    match run {
        ScriptRun::Location(location) => located(location.trim(), package).map(Place::File),
        ScriptRun::Command(text) if text.trim().is_empty() || text.contains('\0') => {
            Err(Failure::new(
                Cause::Invalid,
                "the command of a script is empty or holds a NUL",
            ))
        }
        ScriptRun::Command(text) => {
            let word = text.trim();
            if word.starts_with('/') && (is_plain_word(word) || Path::new(word).is_file()) {
                return on_the_host(word).map(Place::File);
            }
            let in_package = inside(word).is_some_and(|path| package.join(path).is_file());
            if !word.starts_with('/') && (in_package || is_plain_word(word) && word.contains('/')) {
                return located(word, package).map(Place::File);
            }
            // A form that was filled in on Windows: no command means to end in a carriage return.
            Ok(Place::Shell(text.replace("\r\n", "\n")))
        }
    }
}

/// Whether a command is one word that means the same to the shell as to the kernel.
fn is_plain_word(text: &str) -> bool {
    text.bytes().all(|byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b'+')
    })
}

/// The path in the package that a location names, if it is one. A leading `/` is the package's root.
fn inside(location: &str) -> Option<PathBuf> {
    let path = Path::new(location.trim_start_matches('/'));
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (plain && !path.as_os_str().is_empty() && !location.contains('\0')).then(|| path.to_path_buf())
}

fn located(location: &str, package: &Path) -> Result<PathBuf, Failure> {
    let leaves = || {
        Failure::new(
            Cause::Invalid,
            format!("`{location}` leads out of the package"),
        )
    };
    let file = package.join(inside(location).ok_or_else(leaves)?);
    let real = real(&file).map_err(|error| missing(location, "in the package", &error))?;
    if !self::real(package).is_ok_and(|package| real.starts_with(package)) {
        return Err(leaves());
    }
    Ok(file)
}

/// Where a path leads to, as the kernel knows it: [`Path::canonicalize`] asks it for each folder on the way.
fn real(path: &Path) -> io::Result<PathBuf> {
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

fn on_the_host(path: &str) -> Result<PathBuf, Failure> {
    match fs::metadata(path) {
        Ok(_) => Ok(PathBuf::from(path)),
        Err(error) => Err(missing(path, "on this instance", &error)),
    }
}

fn missing(path: &str, place: &str, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!("`{path}` is not {place}")
        }
        _ => format!("look for `{path}` {place}: {error}"),
    };
    Failure::new(Cause::ScriptMissing, reason)
}

/// Sees to it that a file can be executed, as far as that can be known beforehand.
fn prepare(file: &Path, title: &str) -> Result<Kind, Failure> {
    let not_executable = |reason: String| Failure::new(Cause::NotExecutable, reason);
    let metadata = file
        .metadata()
        .map_err(|error| missing(title, "there", &error))?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "a folder"
        } else {
            "special"
        };
        return Err(Failure::new(
            Cause::ScriptMissing,
            format!("`{title}` is not a file but {what}"),
        ));
    }
    let mode = metadata.permissions().mode();
    if mode & 0o111 == 0 {
        // As AWS does to its copy of the package and JD to whatever a command names.
        let permissions = Permissions::from_mode(mode & 0o7777 | 0o111);
        fs::set_permissions(file, permissions).map_err(|error| {
            not_executable(format!(
                "`{title}` is not executable and cannot be made so: {error}"
            ))
        })?;
    }
    let head = head(file);
    if head.starts_with(BYTE_ORDER_MARK) {
        return Err(not_executable(format!(
            "`{title}` cannot be executed: it begins with a byte order mark; save the file as UTF-8 without one"
        )));
    }
    let line = first_line(&head);
    if line.starts_with(b"#!") && line.ends_with(b"\r") {
        return Err(not_executable(format!(
            "`{title}` cannot be executed: its first line `{}` ends in a carriage return; save the file with Unix \
             line ends (LF, not CRLF)",
            String::from_utf8_lossy(line).trim_end()
        )));
    }
    Ok(if line.contains(&0) {
        Kind::Binary
    } else {
        Kind::Text
    })
}

/// The beginning of a file: the kernel reads no more than this of it either.
fn head(file: &Path) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD);
    // What cannot be read may still be a program that can be executed.
    let _ = File::open(file).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    head
}

fn first_line(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

fn interpreter(file: &Path) -> Option<String> {
    let head = head(file);
    let line = String::from_utf8_lossy(first_line(&head));
    line.strip_prefix("#!")?
        .split_whitespace()
        .next()
        .map(str::to_owned)
}

fn is_on_noexec(file: &Path) -> bool {
    statvfs(file).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::NOEXEC))
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
        fs::write(dir.path().join("bin/marked.sh"), "\u{feff}#!/bin/sh\n").unwrap();
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
        check(
            location("bin"),
            Err((Cause::ScriptMissing, "not a file but a folder")),
        );
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
    fn a_byte_order_mark_is_called_by_its_name() {
        check(
            location("bin/marked.sh"),
            Err((Cause::NotExecutable, "byte order mark")),
        );
    }

    #[test]
    fn a_command_that_names_a_file_that_is_not_there_says_so() {
        check(
            command("bin/gone.sh"),
            Err((Cause::ScriptMissing, "`bin/gone.sh` is not in the package")),
        );
        check(
            command("/opt/no/such/stop.sh"),
            Err((
                Cause::ScriptMissing,
                "`/opt/no/such/stop.sh` is not on this instance",
            )),
        );
    }

    #[test]
    fn a_command_with_an_absolute_path_is_a_file_of_the_instance() {
        let package = package();
        let file = package.path().join("bin/start it.sh");

        let program = resolve(&command(file.to_str().unwrap()), Path::new("/")).unwrap();

        assert_eq!(program.words, [file.as_os_str()]);
    }

    #[test]
    fn a_command_with_windows_line_ends_is_lines() {
        let package = package();

        let program = resolve(&command("set -e\r\ntrue\r\n"), package.path()).unwrap();

        assert_eq!(program.words[2], "set -e\ntrue\n");
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

//! An appspec against the folder of its package.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::Run;

use super::dialect::Dialect;
use super::file::{self, Located};
use super::layout::{self, Coverage};
use super::{limits, script};
use crate::problem::{Collector, Position, Problems, excerpt, quoted_list, suggestion};
use crate::yaml;

/// The names of an appspec, in the order in which they are looked for.
pub const NAMES: [&str; 5] = [
    "appspec.yml",
    "appspec.yaml",
    "jdcloud-codedeploy.yml",
    "appSpec.yml",
    "appSpec.yaml",
];

/// A package whose appspec could not be found or read.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("the package `{}` has no appspec: none of {} is in it{}", package.display(), quoted_list(&NAMES), near(near_miss.as_deref()))]
    Missing {
        package: PathBuf,
        /// A file whose name is nearly one of them.
        near_miss: Option<String>,
    },
    #[error("the package `{}` has no file `{name}`, which was named as its appspec", package.display())]
    NotThere { package: PathBuf, name: String },
    #[error("look for an appspec in `{}`", package.display())]
    Unreadable { package: PathBuf, source: io::Error },
    #[error("read the appspec `{}`", file.display())]
    Read { file: PathBuf, source: io::Error },
}

fn near(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(", but `{name}` is"))
}

/// What became of reading a package's appspec and holding it against the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The appspec, as far as it could be read. Only without errors is it what its author wrote.
    pub located: Option<Located>,
    /// Errors and warnings of the text and of the package together.
    pub problems: Problems,
}

/// Finds the appspec in the root of a package.
///
/// # Errors
/// [`FindError::Missing`] when none of [`NAMES`] is a file there.
pub fn find(package: &Path) -> Result<PathBuf, FindError> {
    for name in NAMES {
        let path = package.join(name);
        if is_file(&path, package)? {
            return Ok(path);
        }
    }
    Err(FindError::Missing {
        package: package.to_owned(),
        near_miss: near_miss(package),
    })
}

/// Finds the appspec that somebody named, within the package.
///
/// # Errors
/// [`FindError::NotThere`] when it is no file of the package.
pub fn find_named(package: &Path, name: &str) -> Result<PathBuf, FindError> {
    let path = crate::hooks::within_package(name).map(|name| package.join(name));
    match path {
        Some(path) if is_file(&path, package)? => Ok(path),
        _ => Err(FindError::NotThere {
            package: package.to_owned(),
            name: name.to_owned(),
        }),
    }
}

/// A file of the package with a name that is near one of an appspec.
fn near_miss(package: &Path) -> Option<String> {
    let names = fs::read_dir(package)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| !NAMES.contains(&name.as_str()) && suggestion(name, &NAMES).is_some())
        .min()
}

fn is_file(path: &Path, package: &Path) -> Result<bool, FindError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if is_absence(&error) => Ok(false),
        Err(source) => Err(FindError::Unreadable {
            package: package.to_owned(),
            source,
        }),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Finds, reads and checks the appspec of the package in a folder and reports everything at once. Messages call the
/// folder `shown`. Without a `name`, the first of [`NAMES`] is read.
///
/// # Errors
/// [`FindError`] when there is no appspec to examine.
pub fn examine(package: &Path, shown: &Path, name: Option<&str>) -> Result<Examined, FindError> {
    let named = |error| match error {
        FindError::Missing { near_miss, .. } => FindError::Missing {
            package: shown.to_owned(),
            near_miss,
        },
        FindError::NotThere { name, .. } => FindError::NotThere {
            package: shown.to_owned(),
            name,
        },
        other => other,
    };
    let path = match name {
        Some(name) => find_named(package, name),
        None => find(package),
    }
    .map_err(named)?;
    let inner = path.strip_prefix(package).unwrap_or(&path);
    let file = shown.join(inner);
    let bytes = read_bounded(&path).map_err(|source| FindError::Read {
        file: file.clone(),
        source,
    })?;

    let mut problems = Collector::new(&file);
    if name.is_none() {
        warn_of_others(package, inner, &mut problems);
    }
    let text = decode(&bytes, &mut problems);
    let located = text.and_then(|text| file::read(&text, &file, &mut problems));
    if let Some(located) = &located {
        let coverage = if problems.has_errors() {
            Coverage::Partial
        } else {
            Coverage::Whole
        };
        check_all(located, package, coverage, &mut problems);
    }
    Ok(Examined {
        located,
        problems: problems.into_problems(),
    })
}

/// Checks that the package holds what its appspec names, and that its parts do not get in each other's way.
#[must_use]
pub fn check(located: &Located, package: &Path) -> Problems {
    let mut problems = Collector::new(&located.file);
    check_all(located, package, Coverage::Whole, &mut problems);
    problems.into_problems()
}

/// As much of a file as an appspec may have, and one byte to tell that there is more.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(yaml::MAX_BYTES).unwrap_or(u64::MAX - 1) + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file. What is no text is reported.
fn decode(bytes: &[u8], problems: &mut Collector) -> Option<String> {
    if bytes.len() > yaml::MAX_BYTES {
        // The parser reports the size.
        return Some(String::from_utf8_lossy(bytes).into_owned());
    }
    let hint = "save the file as UTF-8";
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        problems.error_with_hint(Position::START, "the file is UTF-16 text", hint);
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.to_owned()),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let at = yaml::position_after(&before);
            problems.error_with_hint(at, "the file is not UTF-8 text", hint);
            None
        }
    }
}

/// Tells of appspecs beside the one that is read: a package may have one for each cloud.
fn warn_of_others(package: &Path, read: &Path, problems: &mut Collector) {
    for name in NAMES {
        if Path::new(name) != read && is_file(&package.join(name), package).unwrap_or(false) {
            problems.warn(
                Position::START,
                format!(
                    "`{name}` is in the package as well and is not read; `{}` comes first",
                    read.display()
                ),
                format!("to use the other one, name it in the group: `appspec: {name}`"),
            );
        }
    }
}

fn check_all(located: &Located, package: &Path, coverage: Coverage, problems: &mut Collector) {
    let root = package
        .canonicalize()
        .unwrap_or_else(|_| package.to_owned());
    check_sources(located, &root, problems);
    check_scripts(located, &root, problems);
    limits::check(located, problems);
    layout::check(located, &root, coverage, problems);
}

fn check_sources(located: &Located, root: &Path, problems: &mut Collector) {
    for (file, at) in located.appspec.files.iter().zip(&located.files) {
        if file.source == "/" {
            continue;
        }
        let found = resolve(root, &file.source, What::Source, at.source, problems);
        if let (Some(path), Some(name)) = (found, Path::new(&file.destination).file_name())
            && path.is_file()
            && path.file_name() == Some(name)
        {
            let message = format!(
                "the destination is a folder: the file goes to `{}/{}`",
                excerpt(file.destination.trim_end_matches('/')),
                excerpt(&name.to_string_lossy())
            );
            problems.warn(
                at.destination,
                message,
                "leave the file's name out of the destination",
            );
        }
    }
}

fn check_scripts(located: &Located, root: &Path, problems: &mut Collector) {
    for (event, scripts) in &located.appspec.hooks {
        let places = located
            .scripts
            .get(event)
            .map(Vec::as_slice)
            .unwrap_or_default();
        for (script, at) in scripts.iter().zip(places) {
            match &script.run {
                Run::Location(location) => {
                    if let Some(path) = resolve(root, location, What::Script, at.run, problems) {
                        script::check(&path, location, at.run, problems);
                    }
                }
                Run::Command(command) if located.dialect == Dialect::Jd => {
                    script::check_command(root, command, at.run, problems);
                }
                Run::Command(_) => {}
            }
        }
    }
}

/// What a path is looked for as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Source,
    Script,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Script => "script",
        }
    }
}

/// The real path of something in the package, or nothing when it is not there, which is reported.
fn resolve(
    root: &Path,
    path: &str,
    what: What,
    at: Position,
    problems: &mut Collector,
) -> Option<PathBuf> {
    let place = root.join(path);
    // A link is installed as a link, wherever it leads, while a script is executed through it.
    let found = match what {
        What::Source => place.symlink_metadata().and_then(|_| {
            place
                .parent()
                .unwrap_or(root)
                .canonicalize()
                .map(|parent| parent.join(place.file_name().unwrap_or_default()))
        }),
        What::Script => place.canonicalize(),
    };
    let what = what.word();
    match found {
        Ok(real) if real.starts_with(root) => Some(real),
        Ok(_) => {
            let message = format!(
                "the {what} `{}` is a link that leaves the package",
                excerpt(path)
            );
            problems.error(at, message);
            None
        }
        Err(error) if is_absence(&error) && place.is_symlink() => {
            let message = format!(
                "the {what} `{}` is a link that leads nowhere",
                excerpt(path)
            );
            problems.error(at, message);
            None
        }
        Err(error) if is_absence(&error) => {
            let message = format!("the {what} `{}` is not in the package", excerpt(path));
            match absence_hint(root, path) {
                Some(hint) => problems.error_with_hint(at, message, hint),
                None => problems.error(at, message),
            }
            None
        }
        Err(error) => {
            let message = format!("the {what} `{}` cannot be read: {error}", excerpt(path));
            problems.error(at, message);
            None
        }
    }
}

/// What may have been meant by a path that is not there.
fn absence_hint(root: &Path, path: &str) -> Option<String> {
    if let Some((file, _)) = path.split_once(char::is_whitespace)
        && root.join(file).is_file()
    {
        return Some("give a path alone; arguments belong into the script".to_owned());
    }
    if path.contains('*') {
        return Some("patterns are not expanded: name a file or a folder".to_owned());
    }
    neighbour(root, path).map(|meant| format!("did you mean `{meant}`?"))
}

/// A file beside the missing one whose name is near.
pub(super) fn neighbour(root: &Path, path: &str) -> Option<String> {
    let (folder, name) = path
        .rsplit_once('/')
        .map_or(("", path), |(folder, name)| (folder, name));
    let names: Vec<String> = fs::read_dir(root.join(folder))
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    let meant = suggestion(name, &names)?;
    Some(if folder.is_empty() {
        meant.to_owned()
    } else {
        format!("{folder}/{meant}")
    })
}
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str = "version: 0.0\nos: linux\n";

    /// Makes a package of an AWS appspec and these files and says everything that is wrong with it.
    fn check(appspec: &str, files: &[(&str, &str)]) -> String {
        let text = format!("{HEADER}{appspec}");
        let package = package(files);
        fs::write(package.path().join("appspec.yml"), text).unwrap();
        examined(&package, None)
    }

    /// The same with an appspec of the JD dialect.
    fn check_jd(appspec: &str, files: &[(&str, &str)]) -> String {
        let package = package(files);
        fs::write(package.path().join("jdcloud-codedeploy.yml"), appspec).unwrap();
        examined(&package, None)
    }

    fn examined(package: &tempfile::TempDir, name: Option<&str>) -> String {
        match examine(package.path(), Path::new("P"), name) {
            Ok(Examined { problems, .. }) => problems
                .iter()
                .map(|problem| format!("{problem:#}\n"))
                .collect(),
            Err(error) => error.to_string(),
        }
    }

    /// Files by path and text. A path that ends in `~` is not executable.
    fn package(files: &[(&str, &str)]) -> tempfile::TempDir {
        let package = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let mode = if path.ends_with('~') { 0o644 } else { 0o755 };
            let path = package.path().join(path.trim_end_matches('~'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        package
    }

    const SCRIPT: &str = "#!/bin/sh\n";

    #[test]
    fn reports_what_the_package_lacks() {
        let files = [
            ("scripts/stop.sh", SCRIPT),
            ("scripts/start.sh", SCRIPT),
            ("conf/app.ini", ""),
        ];

        assert_snapshot!(check("\
files:
  - {source: conf, destination: /etc/shop}
  - {source: confs, destination: /etc/shop}
  - {source: 'conf/*.ini', destination: /etc/shop}
  - {source: conf/app.ini, destination: /etc/app.ini}
hooks:
  ApplicationStop:
    - location: scripts/stop.sh
    - location: scripts/strat.sh
  ApplicationStart:
    - location: scripts
    - location: scripts/start.sh --now
    - location: scripts/start.sh/x
", &files), @"
        P/appspec.yml:5:14: the source `confs` is not in the package
          hint: did you mean `conf`?
        P/appspec.yml:6:14: the source `conf/*.ini` is not in the package
          hint: patterns are not expanded: name a file or a folder
        P/appspec.yml:7:41: warning: the destination is a folder: the file goes to `/etc/app.ini/app.ini`
          hint: leave the file's name out of the destination
        P/appspec.yml:11:17: the script `scripts/strat.sh` is not in the package
          hint: did you mean `scripts/start.sh`?
        P/appspec.yml:13:17: the script `scripts` is not a file
        P/appspec.yml:14:17: the script `scripts/start.sh --now` is not in the package
          hint: give a path alone; arguments belong into the script
        P/appspec.yml:15:17: the script `scripts/start.sh/x` is not in the package
        ");
    }

    #[test]
    fn reports_the_text_and_the_package_at_once() {
        assert_snapshot!(check("\
files:
  - {source: missing, destination: /etc/shop}
  - {source: /, destination: ../x}
permissions:
  - {object: /etc/shop, mode: 99}
hooks:
  ApplicatonStop:
    - location: stop.sh
  ApplicationStart:
    - {location: start.sh, timeout: 0}
", &[]), @"
        P/appspec.yml:4:14: the source `missing` is not in the package
        P/appspec.yml:5:30: `destination`: the path `../x` has `..` in it
          hint: give an absolute path, or one relative to the instance's rootdir
        P/appspec.yml:7:31: `mode`: expected permission bits as at most four octal digits such as `0644`, found number `99`
        P/appspec.yml:9:3: unknown lifecycle event `ApplicatonStop`; expected one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
          hint: did you mean `ApplicationStop`?
        P/appspec.yml:12:18: the script `start.sh` is not in the package
        P/appspec.yml:12:37: `timeout` must be longer than nothing
        ");
    }

    #[test]
    fn reports_scripts_that_cannot_be_executed() {
        let files = [
            ("ok", SCRIPT),
            ("quiet~", SCRIPT),
            ("windows", "#!/bin/sh\r\nexit 0\r\n"),
            ("windows-bare", "exit 0\r\n"),
            ("bare", "exit 0\n"),
            ("empty", ""),
            ("program", "\u{7f}ELF\0\0"),
            ("bom", "\u{feff}#!/bin/sh\n"),
            ("nobody", "#!\n"),
            ("spaces", "#! \n"),
            ("relative", "#!bin/sh\n"),
            ("env", "#!/usr/bin/env\n"),
            ("python", "#! /usr/bin/env python3"),
            ("long", &format!("#!/bin/{}\n", "x".repeat(260))),
        ];
        let locations: String = files
            .iter()
            .map(|(name, _)| format!("    - location: {}\n", name.trim_end_matches('~')))
            .collect();

        assert_snapshot!(check(&format!("hooks:\n  ApplicationStop:\n{locations}"), &files), @"
        P/appspec.yml:6:17: warning: the script `quiet` is not executable; it is made so on the instance
          hint: run `chmod +x quiet` before packing
        P/appspec.yml:7:17: the first line of the script `windows` ends in a carriage return
          hint: save the file with Unix line ends
        P/appspec.yml:8:17: the lines of the script `windows-bare` end in carriage returns
          hint: save the file with Unix line ends
        P/appspec.yml:9:17: warning: the script `bare` has no `#!` line; `/bin/sh` reads it
          hint: begin it with a line such as `#!/bin/sh`
        P/appspec.yml:10:17: warning: the script `empty` has no `#!` line; `/bin/sh` reads it
          hint: begin it with a line such as `#!/bin/sh`
        P/appspec.yml:12:17: the script `bom` begins with a byte order mark, which hides its `#!` line
          hint: save the file as UTF-8 without a byte order mark
        P/appspec.yml:13:17: the `#!` line of the script `nobody` names no interpreter
          hint: write the interpreter's full path, for example `#!/bin/sh` or `#!/usr/bin/env python3`
        P/appspec.yml:14:17: the `#!` line of the script `spaces` names no interpreter
          hint: write the interpreter's full path, for example `#!/bin/sh` or `#!/usr/bin/env python3`
        P/appspec.yml:15:17: the interpreter `bin/sh` of the script `relative` is not an absolute path
          hint: write the interpreter's full path, for example `#!/bin/sh` or `#!/usr/bin/env python3`
        P/appspec.yml:16:17: the `#!` line of the script `env` names no interpreter
          hint: write the interpreter's full path, for example `#!/bin/sh` or `#!/usr/bin/env python3`
        P/appspec.yml:18:17: the `#!` line of the script `long` is longer than 255 bytes
          hint: write the interpreter's full path, for example `#!/bin/sh` or `#!/usr/bin/env python3`
        ");
    }

    #[test]
    fn scripts_stay_in_the_package_and_sources_may_be_links() {
        let package = package(&[("a/run", SCRIPT)]);
        let link = |target: &str, name: &str| symlink(target, package.path().join(name)).unwrap();
        link("/etc/passwd", "passwd");
        link("a", "inner");
        link("nowhere", "dangling");
        let text = "files:
  - {source: passwd, destination: /srv}
  - {source: dangling, destination: /srv}
hooks:
  ApplicationStop:
    - {location: passwd}
    - {location: inner/run}
    - {location: dangling}
";
        fs::write(
            package.path().join("appspec.yml"),
            format!("{HEADER}{text}"),
        )
        .unwrap();

        assert_snapshot!(examined(&package, None), @"
        P/appspec.yml:1:1: the link `passwd` in the package leads out of it, to `/etc/passwd`
        P/appspec.yml:8:18: the script `passwd` is a link that leaves the package
        P/appspec.yml:10:18: the script `dangling` is a link that leads nowhere
        ");
    }

    #[test]
    fn reports_sources_that_go_to_one_place() {
        let files = [
            ("a/x", "1"),
            ("a/y", "1"),
            ("b/x", "2"),
            ("b/y", "2"),
            ("c", ""),
            ("d/c/e", ""),
        ];

        assert_snapshot!(check("\
files:
  - {source: a, destination: /srv/}
  - {source: b, destination: /srv/.}
  - {source: a/x, destination: //srv}
  - {source: c, destination: conf}
  - {source: d, destination: ./conf}
  - {source: a/x, destination: /srv/x/deep}
  - {source: b, destination: srv}
", &files), @"
        P/appspec.yml:5:30: this pair of `files` and the one on line 4 both bring `/srv/x` and 1 more place
          hint: give them destinations that do not meet, or leave one of them out
        P/appspec.yml:8:30: this pair of `files` and the one on line 7 both bring `conf/c`
          hint: give them destinations that do not meet, or leave one of them out
        P/appspec.yml:9:32: this pair of `files` and the one on line 4 both bring `/srv/x`
          hint: give them destinations that do not meet, or leave one of them out
        ");
    }

    #[test]
    fn reports_permissions_that_meet_or_miss() {
        let files = [
            ("app/run", ""),
            ("app/conf/a.ini", ""),
            ("app/conf/b.ini", ""),
        ];

        assert_snapshot!(check("\
files:
  - {source: app, destination: /srv/app}
permissions:
  - {object: /srv/app, owner: root, type: [directory]}
  - {object: /srv/app/, mode: 644}
  - {object: /srv/app/conf, pattern: '*.ini', except: [a*], group: root}
  - object: /srv/app/run
    pattern: r*
    except: [x]
    acls: ['d:u:shop:r']
  - {object: /srv/app/conf, pattern: '*.yml', mode: 600}
  - {object: /srv, pattern: app*, acls: ['d:u:shop:r']}
  - {object: /srv, pattern: nothing, acls: ['d:u:shop:r']}
  - {object: /srv/other, mode: 600}
  - {object: /srv/app/conf/a.ini, type: [directory], mode: 700}
", &files), @"
        P/appspec.yml:7:14: this permission and the one on line 6 both apply to `/srv/app/conf`
          hint: narrow one of them with `pattern`, `except` or `type`
        P/appspec.yml:7:31: warning: the folder `/srv/app/conf` gets this mode as well, which lets nobody enter it
          hint: add `type: [file]`, or a mode with `x`
        P/appspec.yml:8:14: this permission and the one on line 7 both apply to `/srv/app/conf/b.ini`
          hint: narrow one of them with `pattern`, `except` or `type`
        P/appspec.yml:9:13: this permission and the one on line 7 both apply to `/srv/app/run`
          hint: narrow one of them with `pattern`, `except` or `type`
        P/appspec.yml:10:14: `/srv/app/run` is a file, so `pattern` has nothing to choose from
          hint: name its folder as `object`, or leave the pattern out
        P/appspec.yml:11:13: `/srv/app/run` is a file, so `except` has nothing to leave out
          hint: name its folder as `object`, or leave the pattern out
        P/appspec.yml:12:11: `/srv/app/run` is a file, and only folders have default entries such as `d:u:shop:r--`
          hint: add `type: [directory]`
        P/appspec.yml:13:14: warning: the permission applies to nothing
          hint: a permission is for what `files` bring to or below its object, the folder itself left out
        P/appspec.yml:15:14: warning: the permission applies to nothing
          hint: a permission is for what `files` bring to or below its object, the folder itself left out
        P/appspec.yml:16:14: warning: the permission applies to nothing
          hint: a permission is for what `files` bring to or below its object, the folder itself left out
        P/appspec.yml:17:14: warning: the permission applies to nothing
          hint: a permission is for what `files` bring to or below its object, the folder itself left out
        ");
        assert_snapshot!(check("\
files:
  - {source: app, destination: relative}
permissions:
  - {object: /srv/perhaps, mode: 600}
  - {object: relative/run, acls: ['d:u:shop:r']}
  - {object: ./relative/conf, acls: ['d:u:shop:r']}
", &files), @"
        P/appspec.yml:7:34: `relative/run` is a file, and only folders have default entries such as `d:u:shop:r--`
          hint: add `type: [directory]`
        P/appspec.yml:8:37: `relative/conf/a.ini` is a file, and only folders have default entries such as `d:u:shop:r--`
          hint: add `type: [directory]`
        ");
        assert_snapshot!(check_jd("\
files: [{source: app, destination: /srv/app}]
permissions:
  - {object: /srv/app, except: [conf/a.ini], type: [file], mode: 644}
  - {object: /srv/app, pattern: 'conf/*', type: [file], mode: 600}
", &files), @"
        P/jdcloud-codedeploy.yml:4:14: warning: this permission and the one on line 3 both apply to `/srv/app/conf/b.ini`
          hint: the later one wins
        ");
    }

    #[test]
    fn reports_commands_that_name_missing_files() {
        let files = [("bin/stop.sh", SCRIPT), ("bin/quiet.sh~", SCRIPT)];

        assert_snapshot!(check_jd("\
files: []
hooks:
  ApplicationStop:
    - command: bin/stop.sh --now
    - command: ./bin/sotp.sh --now
    - command: sh bin/gone
    - command: bin/quiet.sh
    - command: bin/quiet.sh --now
    - command: sh bin/quiet.sh
    - command: bin --now
    - command: ./bin
    - command: /opt/start.sh
    - command: systemctl stop shop
    - {command: cd /srv && ./run, timeout: 10m}
", &files), @"
        P/jdcloud-codedeploy.yml:5:16: warning: the command begins with `./bin/sotp.sh`, which is not in the package
          hint: did you mean `bin/stop.sh`?
        P/jdcloud-codedeploy.yml:6:16: warning: the command begins with `bin/gone`, which is not in the package
          hint: paths in a command are relative to the package
        P/jdcloud-codedeploy.yml:7:16: warning: the script `bin/quiet.sh` is not executable; it is made so on the instance
          hint: run `chmod +x bin/quiet.sh` before packing
        P/jdcloud-codedeploy.yml:8:16: `bin/quiet.sh` of the command is not executable
          hint: run `chmod +x bin/quiet.sh` before packing, or write `sh bin/quiet.sh --now`
        P/jdcloud-codedeploy.yml:11:16: `./bin` of the command is not a file
        P/jdcloud-codedeploy.yml:14:44: warning: the timeout of 10m is longer than the 5m that JD CodeDeploy gives a host for all scripts
          hint: cutover keeps to the timeout of each script
        ");
    }

    #[test]
    fn tells_of_timeouts_beyond_the_dialects_own_cloud() {
        assert_snapshot!(check("\
hooks:
  ApplicationStop:
    - {location: a, timeout: 3000}
    - {location: a}
    - {location: a, timeout: 601}
    - {location: a, timeout: 601}
", &[("a", SCRIPT)]), @"
        P/appspec.yml:7:30: warning: the timeouts of `ApplicationStop` add up to more than 1h, which is what AWS CodeDeploy gives an event
          hint: cutover keeps to the timeout of each script
        ");
    }

    #[test]
    fn tells_what_this_machine_lacks() {
        let machine = package(&[
            ("etc/passwd", "root:x:0:0:\n"),
            ("etc/group", "root:x:0:\n"),
            ("bin/sh", ""),
        ]);
        let package = package(&[("a", SCRIPT), ("b", "#!/usr/bin/python9 -u\n")]);
        let text = "permissions:
  - {object: /srv, owner: shop, group: root, acls: ['u:ops:r', 'g:ops:r', 'd:o:r']}
hooks:
  ApplicationStop:
    - {location: a, runas: shop}
    - {location: b, runas: root}
    - {location: b, runas: web}
";
        let located = super::super::parse(&format!("{HEADER}{text}"), Path::new("appspec.yml"))
            .unwrap()
            .value;

        let problems = super::super::check_here(&located, package.path(), machine.path());

        assert_snapshot!(problems, @"
        appspec.yml:4:27: warning: there is no user `shop` on this machine
        appspec.yml:4:52: warning: there is no user `ops` on this machine
        appspec.yml:4:52: warning: there is no group `ops` on this machine
        appspec.yml:8:18: warning: the interpreter `/usr/bin/python9` of the script `b` is not on this machine
        appspec.yml:9:28: warning: there is no user `web` on this machine
        ");
    }

    #[test]
    fn finds_the_appspec_by_its_names_in_order() {
        for (files, found) in [
            (
                vec!["appSpec.yaml", "jdcloud-codedeploy.yml"],
                "jdcloud-codedeploy.yml",
            ),
            (vec!["appspec.yaml", "appspec.yml/x"], "appspec.yaml"),
        ] {
            let files: Vec<_> = files.into_iter().map(|name| (name, "")).collect();
            let package = package(&files);
            assert_eq!(find(package.path()).unwrap(), package.path().join(found));
        }
    }

    #[test]
    fn reads_one_appspec_of_a_package_for_two_clouds_and_tells_of_the_other() {
        let aws = format!("{HEADER}files: []\n");
        let package = package(&[
            ("appspec.yml", &aws),
            ("jdcloud-codedeploy.yml", "files: []\n"),
        ]);
        let dialect = |name| {
            let examined = examine(package.path(), Path::new("P"), name).unwrap();
            examined.located.unwrap().dialect
        };

        assert_eq!(dialect(None), Dialect::Aws);
        assert_eq!(dialect(Some("jdcloud-codedeploy.yml")), Dialect::Jd);
        assert_snapshot!(examined(&package, None), @"
        P/appspec.yml:1:1: warning: `jdcloud-codedeploy.yml` is in the package as well and is not read; `appspec.yml` comes first
          hint: to use the other one, name it in the group: `appspec: jdcloud-codedeploy.yml`
        ");
    }

    #[test]
    fn reads_the_appspec_that_was_named() {
        let package = package(&[("deploy/web.yml", HEADER), ("appspec.yml", "broken")]);

        assert_snapshot!(examined(&package, Some("./deploy/web.yml")), @"");
        assert_snapshot!(examined(&package, Some("deploy/wbe.yml")), @"the package `P` has no file `deploy/wbe.yml`, which was named as its appspec");
        assert_snapshot!(examined(&package, Some("../x")), @"the package `P` has no file `../x`, which was named as its appspec");
        assert_snapshot!(examined(&package, Some("deploy")), @"the package `P` has no file `deploy`, which was named as its appspec");
    }

    #[test]
    fn refuses_what_is_no_text() {
        let refusal = |bytes: &[u8]| {
            let package = package(&[]);
            fs::write(package.path().join("appspec.yml"), bytes).unwrap();
            examined(&package, None)
        };

        assert_snapshot!(refusal(b"version: 0.0\nos: \xff\n"), @"
        P/appspec.yml:2:5: the file is not UTF-8 text
          hint: save the file as UTF-8
        ");
        assert_snapshot!(refusal(b"\xff\xfea\0"), @"
        P/appspec.yml:1:1: the file is UTF-16 text
          hint: save the file as UTF-8
        ");
        assert_snapshot!(refusal(&b"# \n".repeat(yaml::MAX_BYTES)), @"P/appspec.yml:1:1: the file is larger than 4 MiB");
    }

    #[test]
    fn names_a_file_that_may_have_been_meant() {
        for name in ["Jdcloud-codedeploy.yml", "app-spec.yml", "AppSpec.yaml"] {
            let package = package(&[(name, ""), ("README.md", "")]);
            let error = find(package.path()).unwrap_err();
            assert!(
                error
                    .to_string()
                    .ends_with(&format!("is in it, but `{name}` is")),
                "{error}"
            );
        }
    }

    #[test]
    fn says_which_names_were_looked_for() {
        let error = find(Path::new("/nonexistent")).unwrap_err();

        assert_snapshot!(error, @"the package `/nonexistent` has no appspec: none of `appspec.yml`, `appspec.yaml`, `jdcloud-codedeploy.yml`, `appSpec.yml`, `appSpec.yaml` is in it");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn never_panics_whatever_the_appspec_and_the_scripts_hold(
            appspec in prop::collection::vec(any::<u8>(), 0..200),
            script in prop::collection::vec(any::<u8>(), 0..40),
            words in prop::collection::vec("[a-z./*:~ -]{0,12}", 6),
        ) {
            let package = package(&[]);
            fs::write(package.path().join("appspec.yml"), &appspec).unwrap();
            let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            let text = format!(
                "{HEADER}files: [{{source: {}, destination: {}}}]\npermissions: [{{object: {}, pattern: {}, except: [{}], mode: 644}}]\nhooks: {{ApplicationStop: [{{location: run}}, {{location: {}}}]}}\n",
                quoted[0], quoted[1], quoted[2], quoted[3], quoted[4], quoted[5],
            );
            fs::write(package.path().join("run"), [b"#!".as_slice(), &script].concat()).unwrap();
            fs::write(package.path().join("words.yml"), &text).unwrap();

            examined(&package, None);
            examined(&package, Some("words.yml"));
        }
    }
}

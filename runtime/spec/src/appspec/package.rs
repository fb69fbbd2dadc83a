//! An appspec against the folder of its package.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use model::Run;

use super::file::Located;
use crate::problem::{Collector, Position, Problems, excerpt, suggestion};

/// The names of an appspec, in the order in which they are looked for.
pub const NAMES: [&str; 5] = [
    "appspec.yml",
    "appspec.yaml",
    "jdcloud-codedeploy.yml",
    "appSpec.yml",
    "appSpec.yaml",
];

/// A package whose appspec could not be found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("the package `{}` has no appspec: none of {} is in it", package.display(), crate::problem::quoted_list(&NAMES))]
    Missing { package: PathBuf },
    #[error("look for an appspec in `{}`", package.display())]
    Unreadable { package: PathBuf, source: io::Error },
}

/// Finds the appspec in the root of a package.
///
/// # Errors
/// [`FindError::Missing`] when none of [`NAMES`] is a file there.
pub fn find(package: &Path) -> Result<PathBuf, FindError> {
    for name in NAMES {
        let path = package.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => return Ok(path),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(source) => {
                return Err(FindError::Unreadable {
                    package: package.to_owned(),
                    source,
                });
            }
        }
    }
    Err(FindError::Missing {
        package: package.to_owned(),
    })
}

/// Checks that the package holds what its appspec names.
#[must_use]
pub fn check(located: &Located, package: &Path) -> Problems {
    let mut problems = Collector::new(&located.file);
    let root = package
        .canonicalize()
        .unwrap_or_else(|_| package.to_owned());
    for (file, at) in located.appspec.files.iter().zip(&located.files) {
        if file.source != "/" {
            resolve(&root, &file.source, "source", *at, &mut problems);
        }
    }
    for (event, scripts) in &located.appspec.hooks {
        let places = located
            .scripts
            .get(event)
            .map(Vec::as_slice)
            .unwrap_or_default();
        for (script, at) in scripts.iter().zip(places) {
            if let Run::Location(location) = &script.run
                && let Some(path) = resolve(&root, location, "script", *at, &mut problems)
            {
                check_script(&path, location, *at, &mut problems);
            }
        }
    }
    problems.into_problems()
}

/// The real path of something in the package, or nothing when it is not there, which is reported.
fn resolve(
    root: &Path,
    path: &str,
    what: &str,
    at: Position,
    problems: &mut Collector,
) -> Option<PathBuf> {
    match root.join(path).canonicalize() {
        Ok(real) if real.starts_with(root) => Some(real),
        Ok(_) => {
            problems.error(
                at,
                format!(
                    "the {what} `{}` is a link that leaves the package",
                    excerpt(path)
                ),
            );
            None
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            let message = format!("the {what} `{}` is not in the package", excerpt(path));
            match neighbour(root, path) {
                Some(meant) => {
                    problems.error_with_hint(at, message, format!("did you mean `{meant}`?"));
                }
                None => problems.error(at, message),
            }
            None
        }
        Err(error) => {
            problems.error(
                at,
                format!("the {what} `{}` cannot be read: {error}", excerpt(path)),
            );
            None
        }
    }
}

/// A file beside the missing one whose name is near.
fn neighbour(root: &Path, path: &str) -> Option<String> {
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

fn check_script(path: &Path, location: &str, at: Position, problems: &mut Collector) {
    let location = excerpt(location);
    let Ok(metadata) = fs::metadata(path) else {
        return;
    };
    if !metadata.is_file() {
        problems.error(at, format!("the script `{location}` is not a file"));
        return;
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        let hint = format!("run `chmod +x {location}` before packing");
        problems.warn(
            at,
            format!("the script `{location}` is not executable"),
            hint,
        );
    }
    // The kernel takes the carriage return for a part of the interpreter's name and finds no such file.
    if first_line(path).is_some_and(|line| line.starts_with(b"#!") && line.ends_with(b"\r")) {
        let message =
            format!("the first line of the script `{location}` ends in a carriage return");
        problems.error_with_hint(at, message, "save the file with Unix line ends");
    }
}

fn first_line(path: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)
        .ok()?
        .take(256)
        .read_to_end(&mut start)
        .ok()?;
    let end = start.iter().position(|byte| *byte == b'\n')?;
    start.truncate(end);
    Some(start)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const APPSPEC: &str = "\
version: 0.0
os: linux
files:
  - {source: /, destination: app}
  - {source: confs, destination: etc}
hooks:
  ApplicationStop:
    - location: scripts/stop.sh
    - location: scripts/strat.sh
  ApplicationStart:
    - location: scripts
    - location: scripts/windows.sh
    - location: passwd
    - location: scripts/start.sh/x
";

    /// Makes a package of these files and checks [`APPSPEC`] against it.
    fn problems_of(files: &[(&str, &str)]) -> String {
        let package = package(files);
        std::os::unix::fs::symlink("/etc/passwd", package.path().join("passwd")).unwrap();
        let located = super::super::parse(APPSPEC, Path::new("appspec.yml"))
            .unwrap()
            .value;
        super::check(&located, package.path())
            .iter()
            .map(|problem| format!("{problem:#}\n"))
            .collect()
    }

    fn package(files: &[(&str, &str)]) -> tempfile::TempDir {
        let package = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = package.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        package
    }

    #[test]
    fn reports_what_the_package_lacks() {
        let files = [
            ("scripts/stop.sh", "#!/bin/sh\n"),
            ("scripts/start.sh", "#!/bin/sh\n"),
            ("scripts/windows.sh", "#!/bin/sh\r\nexit 0\r\n"),
            ("conf/app.ini", ""),
        ];

        assert_snapshot!(problems_of(&files), @"
        appspec.yml:5:14: the source `confs` is not in the package
          hint: did you mean `conf`?
        appspec.yml:9:7: the script `scripts/strat.sh` is not in the package
          hint: did you mean `scripts/start.sh`?
        appspec.yml:11:7: the script `scripts` is not a file
        appspec.yml:12:7: the first line of the script `scripts/windows.sh` ends in a carriage return
          hint: save the file with Unix line ends
        appspec.yml:13:7: the script `passwd` is a link that leaves the package
        appspec.yml:14:7: the script `scripts/start.sh/x` is not in the package
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
    fn says_which_names_were_looked_for() {
        let error = find(Path::new("/nonexistent")).unwrap_err();

        assert_snapshot!(error, @"the package `/nonexistent` has no appspec: none of `appspec.yml`, `appspec.yaml`, `jdcloud-codedeploy.yml`, `appSpec.yml`, `appSpec.yaml` is in it");
    }
}

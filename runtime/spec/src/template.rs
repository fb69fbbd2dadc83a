//! The files that `cutover init` writes: a workspace of three instances on this machine and a package for it.

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Relative to the folder of the workspace.
    pub path: &'static str,
    pub text: String,
    /// Permission bits.
    pub mode: u32,
}

/// What the workspace's text has in place of the folder for instances.
const INSTANCES: &str = "@INSTANCES@";

/// The files of a first workspace. `instances` is an absolute folder in which its instances have their rootdirs.
#[must_use]
pub fn files(instances: &str) -> Vec<File> {
    let file = |path, text: &str, mode| File {
        path,
        text: text.to_owned(),
        mode,
    };
    let workspace = include_str!("template/cutover.yaml")
        .lines()
        .map(|line| with_folder(line, instances))
        .collect::<String>();
    vec![
        file("cutover.yaml", &workspace, 0o644),
        file(
            "package/appspec.yml",
            include_str!("template/package/appspec.yml"),
            0o644,
        ),
        file(
            "package/app/hello.txt",
            include_str!("template/package/app/hello.txt"),
            0o644,
        ),
        file(
            "package/scripts/start.sh",
            include_str!("template/package/scripts/start.sh"),
            0o755,
        ),
        file(
            "package/scripts/stop.sh",
            include_str!("template/package/scripts/stop.sh"),
            0o755,
        ),
    ]
}

/// The line with its path, if it has one, in the given folder.
fn with_folder(line: &str, folder: &str) -> String {
    match line.split_once(INSTANCES) {
        Some((before, after)) => {
            let path = format!("{}{after}", folder.trim_end_matches('/'));
            format!("{before}{}\n", quoted(&path))
        }
        None => format!("{line}\n"),
    }
}

/// A text in double quotes that YAML reads back as it is.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control()
                || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}') =>
            {
                quoted.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::{appspec, workspace};

    #[test]
    fn writes_a_workspace_that_can_be_read() {
        for folder in ["/srv/shop", "/home/a \"b\": # c\\d/"] {
            let files = files(folder);

            let parsed = workspace::parse(&files[0].text, Path::new("cutover.yaml")).unwrap();

            assert!(parsed.warnings.is_empty());
            let group = parsed.value.group(&"hello/web".parse().unwrap()).unwrap();
            let rootdirs: Vec<_> = group
                .instances
                .iter()
                .map(|instance| instance.rootdir.as_str())
                .collect();
            let expected = ["web-1", "web-2", "web-3"]
                .map(|name| format!("{}/{name}", folder.trim_end_matches('/')));
            assert_eq!(rootdirs, expected);
        }
    }

    #[test]
    fn writes_a_package_that_passes_its_check() {
        let folder = tempfile::tempdir().unwrap();
        for File { path, text, mode } in files("/srv/shop") {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(&path, permissions).unwrap();
        }
        let package = folder.path().join("package");

        let path = appspec::find(&package).unwrap();
        let parsed = appspec::parse(&fs::read_to_string(&path).unwrap(), &path).unwrap();

        assert!(parsed.warnings.is_empty(), "{}", parsed.warnings);
        assert!(appspec::check(&parsed.value, &package).is_empty());
    }
}

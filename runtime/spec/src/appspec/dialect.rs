//! Which of the two dialects an appspec is written in.

use std::path::Path;

use crate::yaml::{Node, Value};

/// A way to write an appspec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `appspec.yml`: has `version` and `os`, scripts are files of the package, their default timeout is an hour.
    Aws,
    /// `jdcloud-codedeploy.yml`: scripts are commands on the instance, their default timeout is ten seconds.
    Jd,
}

impl Dialect {
    /// Content decides before the name: only one dialect has `version` and `os`.
    pub(super) fn of(root: &Node, file: &Path) -> Self {
        let name = file.file_name().unwrap_or_default();
        match &root.value {
            Value::Mapping(entries)
                if entries
                    .iter()
                    .any(|entry| matches!(entry.key.as_str(), "version" | "os")) =>
            {
                Self::Aws
            }
            _ if name == "appspec.yml" || name == "appspec.yaml" => Self::Aws,
            _ => Self::Jd,
        }
    }
}

/// Whether a text, or its beginning, is more likely an appspec than a workspace. It need not be free of errors.
#[must_use]
pub fn is_likely(text: &str) -> bool {
    let keys = text.lines().filter_map(|line| {
        let key = line.trim_start_matches('{').split_once(':')?.0;
        Some(key.trim_matches('"'))
    });
    for key in keys {
        match key {
            "applications" | "journal" | "plugins" => return false,
            "version" | "os" | "files" | "hooks" | "permissions" => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_an_appspec_from_a_workspace() {
        for text in [
            "# x\nversion: 0.0\n",
            "x-a: 1\nfiles: [",
            "{\"version\": 0.0}",
            "hooks:\n  applications: 1\n",
        ] {
            assert!(is_likely(text), "{text}");
        }
        for text in [
            "",
            "applications:\n",
            "journal: x\nfiles:\n",
            "plugins: {}\n",
            "hello\n",
            "  files: []\n",
        ] {
            assert!(!is_likely(text), "{text}");
        }
    }
}

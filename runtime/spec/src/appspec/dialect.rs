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

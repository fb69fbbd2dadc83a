//! What a release plan says, and where it says so.

use std::path::PathBuf;

use serde_json::{Map, Value as Json};

use super::keys::KINDS;
use crate::problem::{Position, Problem, Severity, excerpt, quoted_list, suggestion};
use crate::yaml::{Node, Value};

/// A release plan that is right in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasePlan {
    /// The name of the file, for messages.
    pub file: PathBuf,
    /// Empty where it is left out.
    pub comment: String,
    /// At least one, in the order of the file, each for a service of its own.
    pub items: Vec<Item>,
}

/// What is done to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub service_id: u64,
    /// One of [`KINDS`], or a kind that a plugin provides.
    pub kind: String,
    /// A higher one goes first, equal ones go together.
    pub priority: i64,
    /// Whether the instances go together or one after the other; the group's strategy decides where it is left out.
    pub exec_method: Option<ExecMethod>,
    /// Instances that carry any of them are meant, and all instances where there are none.
    pub labels: Vec<String>,
    /// Where the package is. Left out where the kind has no use for it.
    pub http_src_uri: Option<String>,
    /// Where the sources are. Left out where the kind has no use for them.
    pub compile: Option<Compile>,
    /// The keys that the format does not have: those of a plugin's kind.
    pub extra: Map<String, Json>,
    /// The whole item as JSON, as plugins are given it.
    pub json: String,
    /// Where it begins.
    pub at: Position,
    pub(super) node: Node,
}

/// How the instances of a service go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExecMethod {
    Parallel,
    Sequential,
}

/// A branch of a Git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compile {
    pub repo_path: String,
    pub repo_branch: String,
}

impl Item {
    /// Where the value is that a JSON pointer such as `/httpSrcUri` or `/mirrors/0` names: the nearest thing around it
    /// that is written, and the beginning of the item where nothing of it is.
    #[must_use]
    pub fn place(&self, pointer: &str) -> Position {
        self.found(pointer).0
    }

    /// Where a key is in the mapping that a JSON pointer names, for problems with the key and not with its value.
    pub(super) fn key_place(&self, pointer: &str, key: &str) -> Position {
        let (at, node) = self.found(pointer);
        let Value::Mapping(entries) = &node.value else {
            return at;
        };
        let mut entries = entries.iter();
        entries
            .find(|entry| entry.key == key)
            .map_or(at, |entry| entry.key_at)
    }

    fn found(&self, pointer: &str) -> (Position, &Node) {
        let mut at = self.at;
        let mut node = &self.node;
        for token in pointer.trim_start_matches('/').split('/') {
            let token = token.replace("~1", "/").replace("~0", "~");
            let Some(next) = child(node, &token) else {
                break;
            };
            (at, node) = next;
        }
        (at, node)
    }
}

/// What a token of a JSON pointer names in a value, and where a reader looks for it.
fn child<'n>(node: &'n Node, token: &str) -> Option<(Position, &'n Node)> {
    match &node.value {
        Value::Mapping(entries) => {
            let entry = entries.iter().find(|entry| entry.key == token)?;
            let value = &entry.value;
            let is_beside = value.at.line == entry.key_at.line;
            Some((if is_beside { value.at } else { entry.key_at }, value))
        }
        Value::Sequence(items) => {
            let item = items.get(token.parse::<usize>().ok()?)?;
            Some((item.at, item))
        }
        Value::Scalar { .. } => None,
    }
}

impl ReleasePlan {
    /// A problem with what a JSON pointer names in an item.
    #[must_use]
    pub fn problem(
        &self,
        item: &Item,
        pointer: &str,
        severity: Severity,
        message: &str,
        hint: Option<String>,
    ) -> Problem {
        self.problem_at(item, item.place(pointer), severity, message, hint)
    }

    pub(super) fn problem_at(
        &self,
        item: &Item,
        at: Position,
        severity: Severity,
        message: &str,
        hint: Option<String>,
    ) -> Problem {
        Problem {
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            severity,
            message: format!("{}: {message}", subject(item.service_id)),
            hint,
        }
    }

    /// The problem of an item whose kind no plugin provides. `provided` are the kinds that plugins do.
    #[must_use]
    pub fn unknown_kind(&self, item: &Item, provided: &[&str]) -> Problem {
        let mut known = KINDS.to_vec();
        known.extend(provided.iter().filter(|kind| !KINDS.contains(kind)));
        let message = format!(
            "`deployment`: no plugin of the workspace provides the kind `{}`",
            excerpt(&item.kind)
        );
        let hint = match suggestion(&item.kind, &known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!(
                "write one of {}, or declare a plugin that provides it",
                quoted_list(&known)
            ),
        };
        self.problem(item, "/deployment", Severity::Error, &message, Some(hint))
    }
}

/// What stands in front of every message about an item.
pub(super) fn subject(service_id: u64) -> String {
    format!("service {service_id}")
}

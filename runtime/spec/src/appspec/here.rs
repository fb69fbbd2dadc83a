//! An appspec against this machine. An instance may be another one, so that nothing here is more than a warning.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use model::Run;

use super::file::Located;
use super::script;
use crate::account;
use crate::problem::{Collector, Position, Problems, excerpt};

/// A kind of account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    User,
    Group,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::User => "etc/passwd",
            Self::Group => "etc/group",
        }
    }
}

/// Tells which accounts and interpreters the machine with this root folder lacks.
#[must_use]
pub fn check_here(located: &Located, package: &Path, root: &Path) -> Problems {
    let mut problems = Collector::new(&located.file);
    for kind in [Kind::User, Kind::Group] {
        check_accounts(located, root, kind, &mut problems);
    }
    check_interpreters(located, package, root, &mut problems);
    problems.into_problems()
}

fn check_accounts(located: &Located, root: &Path, kind: Kind, problems: &mut Collector) {
    // Where the file cannot be read there is nothing to compare with.
    let Ok(text) = fs::read(root.join(kind.file())) else {
        return;
    };
    let text = String::from_utf8_lossy(&text);
    let mut known: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    for (name, at) in accounts(located, kind) {
        // Each name is told of once.
        if !account::is_number(name) && known.insert(name) {
            let message = format!(
                "there is no {} `{}` on this machine",
                kind.word(),
                excerpt(name)
            );
            problems.warn(at, message, "it has to be there on the instance");
        }
    }
}

/// The users or groups that an appspec names, with where it names them.
fn accounts(located: &Located, kind: Kind) -> Vec<(&str, Position)> {
    let mut accounts = Vec::new();
    let permissions = located.appspec.permissions.iter().zip(&located.permissions);
    for (permission, at) in permissions {
        let named = match kind {
            Kind::User => permission.owner.as_deref().zip(at.owner),
            Kind::Group => permission.group.as_deref().zip(at.group),
        };
        accounts.extend(named);
        for entry in &at.acl {
            let name = match kind {
                Kind::User => entry.user(),
                Kind::Group => entry.group(),
            };
            accounts.extend(name.zip(at.acls));
        }
    }
    if kind == Kind::User {
        for (event, scripts) in &located.appspec.hooks {
            let places = located.scripts.get(event).into_iter().flatten();
            accounts.extend(
                scripts
                    .iter()
                    .zip(places)
                    .filter_map(|(script, at)| script.runas.as_deref().zip(at.runas)),
            );
        }
    }
    accounts
}

fn check_interpreters(located: &Located, package: &Path, root: &Path, problems: &mut Collector) {
    let mut told = HashSet::new();
    for (event, scripts) in &located.appspec.hooks {
        let places = located.scripts.get(event).into_iter().flatten();
        for (script, at) in scripts.iter().zip(places) {
            let Run::Location(location) = &script.run else {
                continue;
            };
            let Some(interpreter) = script::interpreter_of(&package.join(location)) else {
                continue;
            };
            let inner = interpreter.trim_start_matches('/');
            if interpreter.starts_with('/')
                && !root.join(inner).exists()
                && told.insert(interpreter.clone())
            {
                let message = format!(
                    "the interpreter `{}` of the script `{}` is not on this machine",
                    excerpt(&interpreter),
                    excerpt(location)
                );
                problems.warn(at.run, message, "it has to be there on the instance");
            }
        }
    }
}

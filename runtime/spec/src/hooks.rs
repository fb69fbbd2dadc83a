//! The scripts that a file binds to lifecycle events, in each of the three notations.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use model::{LifecycleEvent, Run, Script};

use crate::fields::{BareNumber, Field, Fields, Shape};
use crate::problem::{Collector, Position, excerpt, quoted_list};
use crate::yaml::Value;

/// A way to write scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notation {
    /// `hooks` of `appspec.yml`.
    Aws,
    /// `hooks` of `jdcloud-codedeploy.yml`.
    Jd,
    /// `scripts` of a group.
    Form,
}

/// The scripts of each event with the place of each.
pub(crate) type Hooks = BTreeMap<LifecycleEvent, Vec<(Script, Position)>>;

pub(crate) static AWS_SCRIPT: Shape = Shape {
    name: "aws-script",
    keys: &["location", "timeout", "runas", "sudo"],
    aliases: &[],
    unsupported: &[],
};

pub(crate) static JD_SCRIPT: Shape = Shape {
    name: "jd-script",
    keys: &["command", "location", "timeout", "runas"],
    aliases: &[],
    unsupported: &[],
};

pub(crate) static FORM_SCRIPT: Shape = Shape {
    name: "script",
    keys: &["command", "timeout", "runas"],
    aliases: &[],
    unsupported: &[],
};

impl Notation {
    fn shape(self) -> &'static Shape {
        match self {
            Self::Aws => &AWS_SCRIPT,
            Self::Jd => &JD_SCRIPT,
            Self::Form => &FORM_SCRIPT,
        }
    }

    fn default_timeout(self) -> Duration {
        match self {
            Self::Aws => Duration::from_secs(3600),
            Self::Jd | Self::Form => Duration::from_secs(10),
        }
    }
}

/// Reads a mapping of events to scripts.
pub(crate) fn parse(field: Field<'_>, notation: Notation, problems: &mut Collector) -> Hooks {
    let mut hooks = Hooks::new();
    for entry in field.entries("lifecycle events to scripts", problems) {
        let event = event(entry, problems);
        if entry.node.is_null() {
            continue;
        }
        let items = match (&entry.node.value, notation) {
            (Value::Mapping(_), Notation::Form) => vec![entry],
            (Value::Scalar { .. }, Notation::Form) => {
                entry.mismatch(
                    "a script such as `{command: bin/start.sh}`, or a list of them",
                    problems,
                );
                continue;
            }
            _ => entry.items("scripts", problems),
        };
        let scripts: Vec<_> = items
            .into_iter()
            .filter_map(|item| Some((script(item, notation, problems)?, item.at())))
            .collect();
        if let (Some(event), false) = (event, scripts.is_empty()) {
            hooks.insert(event, scripts);
        }
    }
    hooks
}

fn event(entry: Field<'_>, problems: &mut Collector) -> Option<LifecycleEvent> {
    let hookable: Vec<_> = LifecycleEvent::ALL
        .into_iter()
        .filter(|event| event.takes_hooks())
        .map(LifecycleEvent::name)
        .collect();
    match LifecycleEvent::from_name(entry.name) {
        Some(event) if event.takes_hooks() => Some(event),
        Some(event) => {
            let message = format!("`{event}` takes no scripts: cutover does that step itself");
            problems.error_with_hint(
                entry.name_at,
                message,
                format!("use one of {}", quoted_list(&hookable)),
            );
            None
        }
        None => {
            let message = format!(
                "unknown lifecycle event `{}`; expected one of {}",
                excerpt(entry.name),
                quoted_list(&hookable)
            );
            problems.error_with_suggestion(entry.name_at, message, entry.name, &hookable);
            None
        }
    }
}

fn script(item: Field<'_>, notation: Notation, problems: &mut Collector) -> Option<Script> {
    let fields = item.fields(notation.shape(), problems)?;
    let run = match notation {
        Notation::Aws => package_location(&fields, problems),
        Notation::Jd => host_command(&fields, problems),
        Notation::Form => fields
            .required("command", problems)
            .and_then(|field| command(field, problems)),
    };
    let timeout = match fields.get("timeout") {
        Some(field) => field.duration(BareNumber::Seconds, problems),
        None => Some(notation.default_timeout()),
    };
    let mut runas = fields
        .get("runas")
        .and_then(|field| field.text(problems))
        .map(str::to_owned);
    if notation == Notation::Aws
        && fields.get("sudo").and_then(|field| field.boolean(problems)) == Some(true)
    {
        runas.get_or_insert_with(|| "root".to_owned());
    }
    Some(Script {
        run: run?,
        timeout: timeout?,
        runas,
    })
}

/// `location` of the AWS dialect: a file in the package, whether or not it begins with `/`.
fn package_location(fields: &Fields<'_>, problems: &mut Collector) -> Option<Run> {
    let field = fields.required("location", problems)?;
    let text = field.text(problems)?;
    match within_package(text) {
        Some(path) if !path.is_empty() => Some(Run::Location(path)),
        Some(_) => {
            problems.error(
                field.at(),
                format!("the location `{}` is not a script", excerpt(text)),
            );
            None
        }
        None => {
            let message = format!("the location `{}` leaves the package", excerpt(text));
            problems.error_with_hint(
                field.at(),
                message,
                "give a path within the package, without `..`",
            );
            None
        }
    }
}

/// `command`, or `location` with the path of a script on the host, of the JD dialect.
fn host_command(fields: &Fields<'_>, problems: &mut Collector) -> Option<Run> {
    match (fields.get("command"), fields.get("location")) {
        (Some(_), Some(location)) => {
            problems.error(
                location.name_at,
                "`command` and `location` exclude each other",
            );
            None
        }
        (None, Some(location)) => {
            let path = location.text(problems)?;
            if !path.starts_with('/') {
                let message = format!(
                    "the location `{}` is not an absolute path on the instance",
                    excerpt(path)
                );
                let hint = format!(
                    "use `command: {}` for a script of the package",
                    excerpt(path)
                );
                problems.error_with_hint(location.at(), message, hint);
                return None;
            }
            Some(Run::Command(path.to_owned()))
        }
        (Some(field), None) => command(field, problems),
        (None, None) => fields
            .required("command", problems)
            .and_then(|field| command(field, problems)),
    }
}

fn command(field: Field<'_>, problems: &mut Collector) -> Option<Run> {
    field
        .text(problems)
        .map(|text| Run::Command(text.to_owned()))
}

/// A path relative to the package's root, empty for the root itself, or nothing if it leads out of the package.
pub(crate) fn within_package(text: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for component in Path::new(text).components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::Normal(name) => names.push(name.to_str()?),
            Component::ParentDir => {
                names.pop()?;
            }
        }
    }
    Some(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_paths_in_the_package() {
        let cases = [
            ("/", Some("")),
            (".", Some("")),
            ("./a//b/", Some("a/b")),
            ("/scripts/x.sh", Some("scripts/x.sh")),
            ("a/../b", Some("b")),
            ("../a", None),
            ("a/../../b", None),
        ];

        for (text, path) in cases {
            assert_eq!(within_package(text).as_deref(), path, "{text}");
        }
    }
}

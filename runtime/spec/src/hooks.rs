//! The scripts that a file binds to lifecycle events, in each of the three notations.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use model::{LifecycleEvent, Run, Script};

use crate::account;
use crate::fields::{BareNumber, Field, Fields, Shape};
use crate::problem::{Collector, Position, excerpt, quoted_list, suggestion};
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
pub(crate) type Hooks = BTreeMap<LifecycleEvent, Vec<(Script, ScriptAt)>>;

/// Where the parts of a script are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScriptAt {
    pub(crate) run: Position,
    pub(crate) timeout: Option<Position>,
    pub(crate) runas: Option<Position>,
}

pub(crate) static AWS_SCRIPT: Shape = Shape {
    name: "aws-script",
    keys: &["location", "timeout", "runas", "sudo"],
    aliases: &[],
};

pub(crate) static JD_SCRIPT: Shape = Shape {
    name: "jd-script",
    keys: &["command", "location", "timeout", "runas"],
    aliases: &[],
};

pub(crate) static FORM_SCRIPT: Shape = Shape {
    name: "script",
    keys: &["command", "timeout", "runas"],
    aliases: &[],
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
        let is_empty = entry.node.is_null()
            || matches!(&entry.node.value, Value::Sequence(items) if items.is_empty());
        if is_empty && notation != Notation::Form {
            warn_of_idle_event(entry, problems);
            continue;
        }
        let event = event(entry, problems);
        if is_empty {
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
            .filter_map(|item| script(item, notation, problems))
            .collect();
        if let (Some(event), false) = (event, scripts.is_empty()) {
            hooks.insert(event, scripts);
        }
    }
    hooks
}

/// The names of the events that take scripts.
fn hookable() -> Vec<&'static str> {
    LifecycleEvent::ALL
        .into_iter()
        .filter(|event| event.takes_hooks())
        .map(LifecycleEvent::name)
        .collect()
}

/// Tells of an event without scripts that could not have any. Nothing is lost, so it stops nobody.
fn warn_of_idle_event(entry: Field<'_>, problems: &mut Collector) {
    if LifecycleEvent::from_name(entry.name).is_some() {
        return;
    }
    let hookable = hookable();
    let hint = match suggestion(entry.name, &hookable) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("the events are {}", quoted_list(&hookable)),
    };
    let message = format!("unknown lifecycle event `{}`", excerpt(entry.name));
    problems.warn(entry.name_at, message, hint);
}

fn event(entry: Field<'_>, problems: &mut Collector) -> Option<LifecycleEvent> {
    let hookable = hookable();
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

fn script(
    item: Field<'_>,
    notation: Notation,
    problems: &mut Collector,
) -> Option<(Script, ScriptAt)> {
    let fields = match notation {
        Notation::Form => item.fields(notation.shape(), problems),
        Notation::Aws | Notation::Jd => item.shared_fields(notation.shape(), problems),
    }?;
    let run = match notation {
        Notation::Aws => package_location(&fields, problems),
        Notation::Jd => host_command(&fields, problems),
        Notation::Form => fields
            .required("command", problems)
            .and_then(|field| command(field, problems)),
    };
    let timeout = fields.get("timeout");
    let runas = fields.get("runas");
    let mut account = runas.and_then(|field| account::name(field, problems));
    if notation == Notation::Aws
        && fields.get("sudo").and_then(|field| field.boolean(problems)) == Some(true)
    {
        account.get_or_insert_with(|| "root".to_owned());
    }
    // A timeout that does not fit is reported, and the rest of the script is still checked.
    let longest = timeout
        .and_then(|field| field.duration(BareNumber::Seconds, problems))
        .unwrap_or_else(|| notation.default_timeout());
    let (run, run_at) = run?;
    let script = Script {
        run,
        timeout: longest,
        runas: account,
    };
    let at = ScriptAt {
        run: run_at,
        timeout: timeout.map(Field::at),
        runas: runas.map(Field::at),
    };
    Some((script, at))
}

/// `location` of the AWS dialect: a file in the package, whether or not it begins with `/`.
fn package_location(fields: &Fields<'_>, problems: &mut Collector) -> Option<(Run, Position)> {
    let field = fields.required("location", problems)?;
    let text = field.text(problems)?;
    match within_package(text) {
        Some(path) if !path.is_empty() => Some((Run::Location(path), field.at())),
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
fn host_command(fields: &Fields<'_>, problems: &mut Collector) -> Option<(Run, Position)> {
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
            Some((Run::Command(path.to_owned()), location.at()))
        }
        (Some(field), None) => command(field, problems),
        (None, None) => fields
            .required("command", problems)
            .and_then(|field| command(field, problems)),
    }
}

fn command(field: Field<'_>, problems: &mut Collector) -> Option<(Run, Position)> {
    field
        .text(problems)
        .map(|text| (Run::Command(text.to_owned()), field.at()))
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

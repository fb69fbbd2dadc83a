//! How a service is built from its sources, for the deployments that begin with a build.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use crate::fields::{BareNumber, Field, Shape, environment};
use crate::problem::{Collector, Position, excerpt};
use crate::size;

pub(super) static BUILD: Shape = Shape {
    name: "build",
    keys: &["command", "timeout", "output", "env", "memory"],
    aliases: &[],
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Everything in the folder that the sources are in.
const DEFAULT_OUTPUT: &str = ".";
/// No build gets by with less. A smaller number is one whose unit was forgotten.
const LEAST_MEMORY: u64 = 1024 * 1024;

/// How a service is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// For a shell, in the folder that the sources are in.
    pub command: String,
    pub timeout: Duration,
    /// The file or folder that is packed, relative to that folder and without `..`; `.` is all of it.
    pub output: String,
    pub env: BTreeMap<String, String>,
    /// The most memory that the build may take, in bytes.
    pub memory: Option<u64>,
    /// Where it is written.
    pub at: Position,
}

pub(super) fn parse(field: Field<'_>, problems: &mut Collector) -> Option<Build> {
    let fields = field.fields(&BUILD, problems)?;
    let command = fields
        .required("command", problems)
        .and_then(|field| field.text(problems));
    let timeout = fields.optional("timeout", |field| {
        field.duration(BareNumber::Refused, problems)
    });
    let output = fields.optional("output", |field| output(field, problems));
    let env = environment(fields.get("env"), problems);
    let memory = fields.optional("memory", |field| memory(field, problems));
    Some(Build {
        command: command?.to_owned(),
        timeout: timeout?.unwrap_or(DEFAULT_TIMEOUT),
        output: output?.unwrap_or_else(|| DEFAULT_OUTPUT.to_owned()),
        env,
        memory: memory?,
        at: field.name_at,
    })
}

/// A path below the folder that the sources are in.
fn output(field: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    let mut names = Vec::new();
    for component in Path::new(text).components() {
        let reason = match component {
            Component::CurDir => continue,
            Component::Normal(name) => {
                names.extend(name.to_str());
                continue;
            }
            Component::ParentDir => "leads out of the folder that is built in",
            Component::RootDir | Component::Prefix(_) => "is absolute",
        };
        let message = format!("`output`: the path `{}` {reason}", excerpt(text));
        let hint = "give a path below the folder that the sources are in, for example `dist`";
        problems.error_with_hint(field.at(), message, hint);
        return None;
    }
    if names.is_empty() {
        return Some(DEFAULT_OUTPUT.to_owned());
    }
    Some(names.join("/"))
}

fn memory(field: Field<'_>, problems: &mut Collector) -> Option<u64> {
    let size = field.parsed(size::parse, problems)?;
    if size < LEAST_MEMORY {
        field.mismatch("a size of at least 1 MiB, such as `2GiB`", problems);
        return None;
    }
    Some(size)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use insta::assert_snapshot;

    /// The build of a group that has these keys, or all problems with their hints.
    fn check(build: &str) -> String {
        let text = format!(
            "applications:\n  shop:\n    groups:\n      web:\n        instances: [{{id: web-1, host: 'local:'}}]\n        build: {build}\n"
        );
        match crate::workspace::parse(&text, Path::new("cutover.yaml")) {
            Ok(parsed) => format!("{:#?}", parsed.value.groups[0].build),
            Err(problems) => problems
                .iter()
                .map(|problem| format!("{problem:#}\n"))
                .collect(),
        }
    }

    #[test]
    fn reads_how_a_service_is_built() {
        let full = "{command: make dist, timeout: 10m, output: ./out//dist/, env: {CI: true, LEVEL: 0644}, memory: 2GiB}";

        assert_snapshot!(check(full), @r#"
        Some(
            Build {
                command: "make dist",
                timeout: 600s,
                output: "out/dist",
                env: {
                    "CI": "true",
                    "LEVEL": "0644",
                },
                memory: Some(
                    2147483648,
                ),
                at: Position {
                    line: 6,
                    column: 9,
                },
            },
        )
        "#);
    }

    #[test]
    fn a_command_is_enough() {
        assert_snapshot!(check("{command: make}"), @r#"
        Some(
            Build {
                command: "make",
                timeout: 1800s,
                output: ".",
                env: {},
                memory: None,
                at: Position {
                    line: 6,
                    column: 9,
                },
            },
        )
        "#);
        assert_snapshot!(check(""), @"None");
        assert!(check("{command: make, output: ./}").contains("output: \".\""));
    }

    #[test]
    fn refuses_what_cannot_be_built() {
        assert_snapshot!(check("{timeout: 5, output: /srv/out, memory: 512, env: {1A: x}}"), @"
        cutover.yaml:6:16: missing key `command`
        cutover.yaml:6:26: `timeout`: expected a duration such as `30s`, `5m` or `1h`, found number `5`
          hint: write `5s`
        cutover.yaml:6:37: `output`: the path `/srv/out` is absolute
          hint: give a path below the folder that the sources are in, for example `dist`
        cutover.yaml:6:55: `memory`: expected a size of at least 1 MiB, such as `2GiB`, found number `512`
        cutover.yaml:6:66: `1A` is not a name of an environment variable
          hint: use letters, digits and `_`, not starting with a digit
        ");
        assert_snapshot!(check("{comand: make, output: dist/../../etc, memory: lots, timeout: 0s}"), @"
        cutover.yaml:6:17: unknown key `comand`; expected one of `command`, `timeout`, `output`, `env`, `memory`
          hint: did you mean `command`?
        cutover.yaml:6:39: `output`: the path `dist/../../etc` leads out of the folder that is built in
          hint: give a path below the folder that the sources are in, for example `dist`
        cutover.yaml:6:63: `memory`: `lots` is not a size: write a whole number, and `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` or `TB`, for example `2GiB`
        cutover.yaml:6:78: `timeout` must be longer than nothing
        ");
        assert_snapshot!(check("make dist"), @"cutover.yaml:6:16: `build`: expected a mapping with the keys `command`, `timeout`, `output`, `env`, `memory`, found text `make dist`");
        assert_snapshot!(check("{command: , output: [a, b]}"), @"
        cutover.yaml:6:17: `command` has no value
        cutover.yaml:6:36: `output`: expected text, found a list
        ");
    }
}
